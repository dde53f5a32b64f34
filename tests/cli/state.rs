//! The state of jobs: read with SQL while they run and from savepoints, opened by other tools, owned by a job or by its user.
//!
//! The jobs read a watched folder: they never end, and what they keep is known once they have read what is there.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use expect_test::expect;

use super::{Folder, Running, code, error, stderr, stdout, until, until_checkpoints};

/// Sums, the two best and open windows of each user.
const SCRIPT: &str = "
    SET 'execution.checkpointing.interval' = '100 ms';
    CREATE TABLE sales (who STRING, amount BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts)
      WITH ('connector' = 'filesystem', 'path' = 'in', 'format' = 'csv', 'source.monitor-interval' = '20 ms');
    CREATE TABLE sums (who STRING, n BIGINT, total BIGINT) WITH ('connector' = 'blackhole');
    CREATE TABLE best (who STRING, amount BIGINT, place BIGINT) WITH ('connector' = 'blackhole');
    CREATE TABLE minutes (who STRING, start TIMESTAMP(3), n BIGINT) WITH ('connector' = 'blackhole');
    INSERT INTO sums SELECT who, COUNT(*), SUM(amount) FROM sales GROUP BY who;
    INSERT INTO best SELECT who, amount, place FROM (
        SELECT who, amount, ROW_NUMBER() OVER (PARTITION BY who ORDER BY amount DESC) AS place FROM sales) AS t
      WHERE place <= 2;
    INSERT INTO minutes SELECT who, window_start, COUNT(*)
      FROM TABLE(TUMBLE(TABLE sales, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY who, window_start, window_end;";

const SALES: &str = "ann,5,2024-01-01 00:00:01\nbob,7,2024-01-01 00:00:02\nann,9,2024-01-01 00:00:03\n\
                     ann,1,2024-01-01 00:00:04\ncid,2,2024-01-01 00:00:05\n";

fn start(folder: &Folder, arguments: &[&str]) -> Running {
    let arguments = [&["run", "--local", "-f", "job.sql", "-p", "2"], arguments].concat();
    Running(folder.command(&arguments).stderr(Stdio::piped()).spawn().unwrap())
}

fn sales() -> Folder {
    let folder = Folder::new();
    folder.write("in/a.csv", SALES).write("job.sql", SCRIPT);
    folder
}

/// The rows of a query, as CSV without its header.
fn rows(folder: &Folder, query: &str) -> Result<Vec<String>, String> {
    let output = folder.run(&["sql", "-e", query]);
    match code(&output) {
        0 => Ok(stdout(&output).lines().skip(1).map(str::to_owned).collect()),
        _ => Err(stderr(&output)),
    }
}

/// Waits until a checkpoint of each job holds all five sales.
fn until_read(folder: &Folder) {
    for (job, rows_kept) in [("sums", 3), ("best", 3), ("minutes", 3)] {
        until(job, || {
            let keyed =
                format!("SELECT SUM(\"rows\") FROM read_checkpoint('.tidemill/job.sql/{job}') WHERE kind = 'keyed'");
            match rows(folder, &keyed)?.first().and_then(|row| row.parse::<u64>().ok()) {
                Some(found) if found >= rows_kept => Ok(()),
                found => Err(format!("{found:?} rows")),
            }
        });
    }
}

fn ask(folder: &Folder, arguments: &[&str]) -> String {
    let output = folder.run(&[arguments, &["--dir", ".tidemill/job.sql"]].concat());
    assert_eq!(code(&output), 0, "{arguments:?}: {}", stderr(&output));
    stdout(&output).trim().to_owned()
}

/// The operator and the state that hold the keys of a place.
fn keyed_state(folder: &Folder, place: &str) -> (String, String) {
    let query = format!("SELECT DISTINCT id, state FROM read_checkpoint('{place}') WHERE kind = 'keyed'");
    let found = rows(folder, &query).unwrap();
    let [one] = found.as_slice() else { panic!("{found:?}") };
    let (id, state) = one.split_once(',').unwrap();
    (id.to_owned(), state.to_owned())
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}

#[test]
fn state_is_read_from_a_running_job_and_from_its_savepoint_and_other_tools_read_the_same() {
    let folder = sales();
    let running = start(&folder, &[]);
    until_read(&folder);
    for job in ["sums", "best", "minutes"] {
        ask(&folder, &["savepoint", job, &format!("saved/{job}")]);
    }
    let shown = |place: &str, what: &str, order: &str| {
        let (id, state) = keyed_state(&folder, place);
        let query = format!(
            "SELECT {what} FROM read_checkpoint('{place}', operator => '{id}', state => '{state}') ORDER BY {order}"
        );
        rows(&folder, &query).unwrap_or_else(|error| panic!("{query}: {error}")).join("\n")
    };
    // A checkpoint and a savepoint of one job hold the same.
    for place in [".tidemill/job.sql/sums", "saved/sums"] {
        expect![[r#"
            0,18,ann,3,"{""count"":3}","{""sum"":15,""count"":3}"
            0,47,bob,1,"{""count"":1}","{""sum"":7,""count"":1}"
            0,14,cid,1,"{""count"":1}","{""sum"":2,""count"":1}""#]]
        .assert_eq(&shown(place, "*", "who"));
    }
    expect![[r#"
        0,18,ann,"[{""who"":""ann"",""amount"":9},{""who"":""ann"",""amount"":5}]"
        0,47,bob,"[{""who"":""bob"",""amount"":7}]"
        0,14,cid,"[{""who"":""cid"",""amount"":2}]""#]]
    .assert_eq(&shown("saved/best", "*", "who"));
    expect![[r#"
        0,18,ann,1704067200000,"{""count(Int64(1))[count]"":3}"
        0,47,bob,1704067200000,"{""count(Int64(1))[count]"":1}"
        0,14,cid,1704067200000,"{""count(Int64(1))[count]"":1}""#]]
    .assert_eq(&shown("saved/minutes", "*", "who"));
    drop(running);

    // DuckDB and Polars open the files, and see these rows.
    let (id, state) = keyed_state(&folder, "saved/sums");
    let glob = format!("saved/sums/state/*-{id}/{state}/*.parquet");
    let stored: Vec<String> = shown("saved/sums", "* EXCLUDE (subtask)", "who").lines().map(str::to_owned).collect();
    for program in [
        "import duckdb, sys; rows = duckdb.sql(f\"SELECT * FROM '{sys.argv[1]}' ORDER BY who\").fetchall()",
        "import polars, sys; rows = polars.read_parquet(sys.argv[1]).sort('who').rows()",
    ] {
        // Structs are printed as our own command prints them.
        let print = "text = lambda value: json.dumps(value, separators=(',', ':')) if isinstance(value, dict) else value\n\
                     csv.writer(sys.stdout, lineterminator='\\n').writerows(map(text, row) for row in rows)";
        let program = format!("import csv, json\n{program}\n{print}");
        let output = Command::new(python()).args(["-c", &program, &glob]).current_dir(folder.path()).output().unwrap();
        assert!(output.status.success(), "{program}: {}", stderr(&output));
        assert_eq!(stdout(&output).lines().collect::<Vec<_>>(), stored, "{program}");
    }
}

/// The Python of the scripts, with what their list of packages names.
fn python() -> PathBuf {
    let cache = std::env::var_os("TIDEMILL_CACHE").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("XDG_CACHE_HOME")?).join("tidemill")));
    cache
        .unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/tidemill"))
        .join("venv/bin/python")
}

#[test]
fn what_is_not_there_is_answered_with_what_is() {
    let folder = sales();
    let running = start(&folder, &[]);
    until_read(&folder);
    ask(&folder, &["savepoint", "sums", "saved/sums"]);
    drop(running);
    let failed = |from: &str| {
        let output = folder.run(&["sql", "-e", &format!("SELECT * FROM {from}")]);
        assert_eq!(code(&output), 1, "{}", stdout(&output));
        error(&output)
    };
    let nowhere = failed("read_checkpoint('nowhere')");
    assert!(nowhere.contains("holds neither a savepoint nor a complete checkpoint"), "{nowhere}");
    let above = failed("read_checkpoint('.tidemill/job.sql')");
    assert!(["'best'", "'minutes'", "'sums'"].iter().all(|job| above.contains(job)), "{above}");
    let (id, state) = keyed_state(&folder, "saved/sums");
    let operator = failed("read_checkpoint('saved/sums', operator => 'nobody')");
    assert!(operator.contains("no operator 'nobody'") && operator.contains(&id), "{operator}");
    let other = failed(&format!("read_checkpoint('saved/sums', operator => '{id}', state => 'nothing')"));
    assert!(other.contains("no state 'nothing'") && other.contains(&state), "{other}");
    let number = failed("read_checkpoint('.tidemill/job.sql/sums', checkpoint => 100000)");
    assert!(number.contains("has no checkpoint 100000") && number.contains("it has "), "{number}");
    let word = failed("read_checkpoint('saved/sums', opertor => 'x')");
    assert!(word.contains("OPERATOR"), "{word}");
    let column = failed("read_checkpoint(who)");
    assert!(column.contains("is a constant"), "{column}");

    // A file that is not what was written is named, by who reads it and by who begins from it.
    let parquet = files_below(&folder.path().join("saved/sums/state")).into_iter().find(|path| {
        path.to_string_lossy().contains(&id) && path.extension().is_some_and(|extension| extension == "parquet")
    });
    let parquet = parquet.unwrap();
    let mut bytes = std::fs::read(&parquet).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&parquet, bytes).unwrap();
    let name = parquet.strip_prefix(folder.path()).unwrap().to_string_lossy().into_owned();
    let damaged = failed(&format!("read_checkpoint('saved/sums', operator => '{id}', state => '{state}')"));
    assert!(damaged.contains(&name) && damaged.contains("checksum"), "{damaged}");
    folder.write("job.sql", SCRIPT.split_once("INSERT INTO best").unwrap().0);
    let arguments =
        ["run", "--local", "-f", "job.sql", "-p", "2", "-s", "saved/sums", "-D", "restart-strategy.type=none"];
    let anew = ["-D", "execution.checkpointing.dir=elsewhere"];
    let output = folder.run(&[&arguments[..], &anew].concat());
    assert_eq!(code(&output), 1, "{}", stderr(&output));
    assert!(error(&output).contains(&name), "{}", error(&output));
}

/// Runs the sums from a savepoint until they have three checkpoints of their own.
fn sums_from_savepoint(mode: &[&str]) -> Folder {
    let folder = sales();
    folder.write("job.sql", SCRIPT.split_once("INSERT INTO best").unwrap().0);
    let running = start(&folder, &[]);
    until("a savepoint", || {
        let output = folder.run(&["savepoint", "sums", "saved", "--dir", ".tidemill/job.sql"]);
        if code(&output) == 0 { Ok(()) } else { Err(stderr(&output)) }
    });
    drop(running);
    std::fs::remove_dir_all(folder.path().join(".tidemill")).unwrap();
    let before = files_below(&folder.path().join("saved"));
    assert!(before.len() > 1, "{before:?}");
    let keep = ["-s", "saved", "-D", "execution.checkpointing.num-retained=2"];
    let running = start(&folder, &[&keep[..], mode].concat());
    until_checkpoints(&folder, 3);
    drop(running);
    folder
}

#[test]
fn a_savepoint_that_is_not_claimed_stays_and_the_job_does_not_need_it() {
    let folder = sums_from_savepoint(&[]);
    assert!(folder.path().join("saved/_metadata").exists());
    // Nothing of the job's own checkpoints lies in the savepoint.
    std::fs::remove_dir_all(folder.path().join("saved")).unwrap();
    let (id, state) = keyed_state(&folder, ".tidemill/job.sql/sums");
    let query = format!(
        "SELECT COUNT(*) FROM read_checkpoint('.tidemill/job.sql/sums', operator => '{id}', state => '{state}')"
    );
    assert_eq!(rows(&folder, &query).unwrap(), ["3"]);
}

#[test]
fn a_savepoint_that_is_claimed_goes_with_the_oldest_checkpoints() {
    let folder = sums_from_savepoint(&["--claim-mode", "claim"]);
    let left = files_below(&folder.path().join("saved"));
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn cancelling_a_job_keeps_its_checkpoints_or_deletes_them() {
    for (retention, stays) in
        [("RETAIN_ON_CANCELLATION", true), ("DELETE_ON_CANCELLATION", false), ("NO_EXTERNALIZED_CHECKPOINTS", false)]
    {
        let folder = sales();
        folder.write("job.sql", SCRIPT.split_once("INSERT INTO best").unwrap().0);
        let setting = format!("execution.checkpointing.externalized-checkpoint-retention={retention}");
        let mut running = start(&folder, &["-D", &setting]);
        until("a checkpoint", || rows(&folder, "SELECT * FROM read_checkpoint('.tidemill/job.sql/sums') LIMIT 1"));
        ask(&folder, &["cancel"]);
        running.0.wait().unwrap();
        let found = rows(&folder, "SELECT * FROM read_checkpoint('.tidemill/job.sql/sums') LIMIT 1");
        assert_eq!(found.is_ok(), stays, "{retention}: {found:?}");
        let left = files_below(&folder.path().join(".tidemill/job.sql/sums"));
        assert_eq!(!left.is_empty(), stays, "{retention}: {left:?}");
    }
}

#[test]
fn a_job_that_fails_keeps_its_checkpoints_unless_it_keeps_none() {
    for (retention, stays) in
        [("RETAIN_ON_CANCELLATION", true), ("DELETE_ON_CANCELLATION", true), ("NO_EXTERNALIZED_CHECKPOINTS", false)]
    {
        let folder = Folder::new();
        folder.write(
            "job.sql",
            "SET 'execution.runtime-mode' = 'streaming';
             SET 'execution.checkpointing.interval' = '50 ms';
             SET 'restart-strategy.type' = 'none';
             CREATE TABLE numbers (n BIGINT) WITH ('connector' = 'datagen', 'number-of-rows' = '4000',
               'rows-per-second' = '1000', 'fields.n.kind' = 'sequence', 'fields.n.start' = '0', 'fields.n.end' = '3999');
             CREATE TABLE sums (k BIGINT, s BIGINT) WITH ('connector' = 'blackhole');
             INSERT INTO sums SELECT n % 7, SUM(10 / (n - 2000)) FROM numbers GROUP BY n % 7;",
        );
        let setting = format!("execution.checkpointing.externalized-checkpoint-retention={retention}");
        let output = folder.run(&["run", "--local", "-f", "job.sql", "-D", &setting]);
        assert_eq!(code(&output), 1, "{}", stderr(&output));
        let left = files_below(&folder.path().join(".tidemill/job.sql/sums"));
        assert_eq!(!left.is_empty(), stays, "{retention}: {left:?}, {}", stderr(&output));
    }
}

#[test]
fn a_group_is_forgotten_when_its_time_is_over() {
    for (ttl, second) in [("0 ms", "-U"), ("300 ms", "+I")] {
        let folder = Folder::new();
        folder.write("in/a.csv", "x\n").write(
            "job.sql",
            "SET 'execution.runtime-mode' = 'streaming';
             CREATE TABLE words (w STRING)
               WITH ('connector' = 'filesystem', 'path' = 'in', 'format' = 'csv', 'source.monitor-interval' = '20 ms');
             CREATE TABLE shown (w STRING, n BIGINT) WITH ('connector' = 'print');
             INSERT INTO shown SELECT w, COUNT(*) FROM words GROUP BY w;",
        );
        let shown = folder.path().join("shown.txt");
        let setting = format!("table.exec.state.ttl={ttl}");
        let mut job = folder.command(&["run", "--local", "-f", "job.sql", "-D", &setting]);
        let _running = Running(job.stdout(std::fs::File::create(&shown).unwrap()).spawn().unwrap());
        let lines = |least: usize| {
            let text = std::fs::read_to_string(&shown).unwrap();
            let lines: Vec<String> = text.lines().filter(|line| line.contains('x')).map(str::to_owned).collect();
            if lines.len() < least { Err(text) } else { Ok(lines) }
        };
        until("the first row", || lines(1));
        std::thread::sleep(Duration::from_millis(900));
        folder.write("in/b.csv", "x\n");
        let lines = until("the second row", || lines(2));
        assert!(lines[0].contains("+I") && lines[1].contains(second), "{ttl}: {lines:?}");
    }
}

#[test]
fn a_process_that_is_ended_keeps_the_checkpoints_of_its_jobs() {
    let folder = sales();
    folder.write("job.sql", SCRIPT.split_once("INSERT INTO best").unwrap().0);
    let setting = "execution.checkpointing.externalized-checkpoint-retention=NO_EXTERNALIZED_CHECKPOINTS";
    let mut running = start(&folder, &["-D", setting]);
    until("a checkpoint", || rows(&folder, "SELECT * FROM read_checkpoint('.tidemill/job.sql/sums') LIMIT 1"));
    let terminated = Command::new("kill").arg(running.0.id().to_string()).status().unwrap();
    assert!(terminated.success());
    running.0.wait().unwrap();
    rows(&folder, "SELECT * FROM read_checkpoint('.tidemill/job.sql/sums') LIMIT 1").unwrap();
}
