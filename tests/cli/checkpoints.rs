//! What `tidemill checkpoints` shows of each: how long it took and how long tasks stood still for it, the bytes that are new in it
//! and those that it needs in all.

use std::process::Stdio;

use serde_json::Value;

use super::{Folder, Running, code, stderr, stdout, until, until_checkpoints};

/// Sums of a thousand users, kept over checkpoints at which nothing of them has changed any more.
const SCRIPT: &str = "
    SET 'execution.checkpointing.interval' = '200 ms';
    CREATE TABLE sales (who BIGINT, amount BIGINT)
      WITH ('connector' = 'filesystem', 'path' = 'in', 'format' = 'csv', 'source.monitor-interval' = '20 ms');
    CREATE TABLE sums (who BIGINT, n BIGINT, total BIGINT) WITH ('connector' = 'blackhole');
    INSERT INTO sums SELECT who, COUNT(*), SUM(amount) FROM sales GROUP BY who;";

const CHECKPOINTS: [&str; 3] = ["checkpoints", "--dir", ".tidemill/job.sql"];

fn start(arguments: &[&str]) -> (Folder, Running) {
    let folder = Folder::new();
    let sales: String = (0..1_000).map(|who| format!("{who},{}\n", who * 7)).collect();
    folder.write("in/a.csv", &sales).write("job.sql", SCRIPT);
    let arguments = [&["run", "--local", "-f", "job.sql", "-p", "1"], arguments].concat();
    let running = folder.command(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    (folder, Running(running))
}

/// The complete checkpoints, the oldest first.
fn completed(folder: &Folder) -> Result<Vec<Value>, String> {
    let output = folder.run(&[&CHECKPOINTS[..], &["--format", "json"]].concat());
    let mut lines: Vec<Value> = serde_json::from_str(&stdout(&output)).map_err(|_| stderr(&output))?;
    lines.retain(|line| line["status"] == "completed");
    Ok(lines)
}

fn bytes(line: &Value) -> (u64, u64) {
    (line["new_bytes"].as_u64().unwrap(), line["total_bytes"].as_u64().unwrap())
}

fn is_full(line: &Value) -> bool {
    line["kind"] == "full checkpoint"
}

#[test]
fn a_checkpoint_shows_what_is_new_in_it_and_what_it_needs_and_how_long_it_took() {
    let (folder, running) = start(&[]);
    let is_increment = |line: &Value| {
        let (new, all) = bytes(line);
        !is_full(line) && new < all
    };
    let lines = until("an increment", || match completed(&folder)? {
        lines if lines.last().is_some_and(is_increment) => Ok(lines),
        lines => Err(format!("{lines:?}")),
    });
    assert!(lines.iter().any(is_full), "{lines:?}");
    for line in &lines {
        let (new, all) = bytes(line);
        assert!(0 < new && new <= all, "{line}");
        assert!(new == all || !is_full(line), "{line}");
        let [took, stalled] = ["duration_ms", "synchronous_ms"].map(|name| line[name].as_f64().unwrap());
        assert!(0.0 < stalled && stalled <= took, "{line}");
    }

    // People see the same.
    let output = folder.run(&CHECKPOINTS);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    drop(running);
    let text = stdout(&output);
    let cells = |line: &str| -> Vec<String> {
        let cells: Vec<&str> = line.split('│').collect();
        cells[1..cells.len() - 1].iter().map(|cell| cell.trim().to_owned()).collect()
    };
    let mut rows = text.lines().filter(|line| line.starts_with('│')).map(cells);
    let header = rows.next().unwrap();
    let last = lines.last().unwrap();
    let id = last["id"].to_string();
    let row = rows.find(|row| row[0] == id).unwrap_or_else(|| panic!("{text}"));
    let cell = |name: &str| {
        let place = header.iter().position(|column| column == name).unwrap_or_else(|| panic!("{name}: {text}"));
        row[place].replace(',', "")
    };
    let (new, all) = bytes(last);
    assert_eq!((cell("new bytes"), cell("all bytes")), (new.to_string(), all.to_string()), "{text}");
    let millis = |name: &str| last[name].as_f64().unwrap();
    assert_eq!(cell("ms"), format!("{:.1}", millis("duration_ms")), "{text}");
    assert_eq!(cell("synchronous ms"), format!("{:.2}", millis("synchronous_ms")), "{text}");
}

#[test]
fn of_checkpoints_that_are_no_increments_all_is_new() {
    let (folder, running) = start(&["-D", "execution.checkpointing.incremental=false"]);
    until_checkpoints(&folder, 4);
    let lines = completed(&folder).unwrap();
    drop(running);
    assert!(lines.len() >= 4, "{lines:?}");
    for line in &lines {
        let (new, all) = bytes(line);
        assert!(is_full(line) && 0 < new && new == all, "{line}");
    }
}
