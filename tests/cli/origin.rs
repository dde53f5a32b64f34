//! What a job begins from: `execution.state-recovery.path` means the same wherever it is set, and what a job has of its own comes
//! before it.

use std::process::Stdio;
use std::time::Duration;

use super::{Folder, Running, code, error, stderr, until};

/// Numbers from 0 that never end, and their sum so far, which only a blackhole gets.
fn script(interval: &str) -> String {
    format!(
        "SET 'execution.runtime-mode' = 'streaming'; SET 'execution.checkpointing.interval' = '{interval}';
         CREATE TABLE numbers (n BIGINT) WITH ('connector' = 'datagen', 'rows-per-second' = '1000',
           'fields.n.kind' = 'sequence', 'fields.n.start' = '0', 'fields.n.end' = '9000000');
         CREATE TABLE sums (n BIGINT) WITH ('connector' = 'blackhole');
         INSERT INTO sums SELECT SUM(n) FROM numbers;"
    )
}

/// A folder with a savepoint of the job in `saved`, and no job's folder.
fn saved() -> Folder {
    let folder = Folder::new();
    folder.write("job.sql", &script("100 ms"));
    let mut running = Running(start(&folder, &[]));
    until("a savepoint", || {
        let stopped = folder.run(&["stop", "--dir", ".tidemill/job.sql", "--savepoint-path", "saved"]);
        if code(&stopped) == 0 { Ok(()) } else { Err(stderr(&stopped)) }
    });
    running.0.wait().unwrap();
    std::fs::remove_dir_all(folder.path().join(".tidemill")).unwrap();
    folder
}

fn start(folder: &Folder, arguments: &[&str]) -> std::process::Child {
    let arguments = [&["run", "--local", "-f", "job.sql", "-p", "1"], arguments].concat();
    let log = std::fs::File::create(folder.path().join("log")).unwrap();
    folder.command(&arguments).stdout(Stdio::null()).stderr(log).spawn().unwrap()
}

/// Starts the job and waits until it says what it goes on from.
fn goes_on(folder: &Folder, arguments: &[&str], from: &str) -> Running {
    let running = Running(start(folder, arguments));
    until(from, || {
        let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
        match log.lines().find(|line| line.contains("goes on from checkpoint")) {
            Some(line) if line.ends_with(from) => Ok(()),
            _ => Err(log),
        }
    });
    running
}

fn has_own_checkpoint(folder: &Folder) {
    until("a checkpoint of its own", || {
        let asked = folder.run(&["checkpoint", "--dir", ".tidemill/job.sql"]);
        if code(&asked) == 0 { Ok(()) } else { Err(stderr(&asked)) }
    });
}

#[test]
fn a_job_killed_before_its_first_checkpoint_begins_from_the_savepoint_again_wherever_that_was_named() {
    let path = "execution.state-recovery.path";
    let in_script = format!("SET '{path}' = 'saved'; {}", script("1 h"));
    let defined = format!("{path}=saved");
    let cases: [(&str, String, &[&str], &[&str]); 4] = [
        ("-s", script("1 h"), &["-s", "saved"], &[]),
        ("-D", script("1 h"), &["-D", &defined], &[]),
        ("-D both times", script("1 h"), &["-D", &defined], &["-D", &defined]),
        ("SET", in_script, &[], &[]),
    ];
    let folder = saved();
    for (case, script, first, again) in cases {
        folder.write("job.sql", &script);
        drop(goes_on(&folder, first, "/saved"));
        let resumed = goes_on(&folder, &[again, &["--resume"]].concat(), "/saved");
        // Once it has a checkpoint of its own, that comes first.
        has_own_checkpoint(&folder);
        drop(resumed);
        drop(goes_on(&folder, &[again, &["--resume"]].concat(), ".tidemill/job.sql/sums"));
        std::fs::remove_dir_all(folder.path().join(".tidemill")).unwrap_or_else(|error| panic!("{case}: {error}"));
    }
}

#[test]
fn a_job_that_had_begun_anew_begins_from_a_savepoint_named_when_it_goes_on() {
    let folder = saved();
    folder.write("job.sql", &script("1 h"));
    let begun = Running(start(&folder, &[]));
    until("the job's folder", || match folder.path().join(".tidemill/job.sql/sums/manifests").exists() {
        true => Ok(()),
        false => Err(String::new()),
    });
    drop(begun);
    let claim = ["-D", "execution.state-recovery.path=saved", "--claim-mode", "claim", "--resume"];
    let resumed = goes_on(&folder, &claim, "/saved");
    for _ in 0..3 {
        has_own_checkpoint(&folder);
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(resumed);
    // It was not written down first, and so is not the job's.
    assert!(folder.path().join("saved/_metadata").exists());
}

#[test]
fn one_savepoint_is_for_one_job_wherever_it_is_named() {
    let folder = saved();
    let second =
        "CREATE TABLE others (n BIGINT) WITH ('connector' = 'blackhole'); INSERT INTO others SELECT n FROM numbers;";
    let set = "SET 'execution.state-recovery.path' = 'saved';";
    let plain = script("1 h");
    let (tables, insert) = plain.split_at(plain.find("INSERT").unwrap());
    let cases: [(String, &[&str]); 4] = [
        (format!("{plain} {second}"), &["-s", "saved"]),
        (format!("{plain} {second}"), &["-D", "execution.state-recovery.path=saved"]),
        (format!("{set} {plain} {second}"), &[]),
        (format!("{tables} {second} {set} {insert}"), &[]),
    ];
    for (script, arguments) in cases {
        folder.write("job.sql", &script);
        let output = folder.run(&[&["run", "--local", "-f", "job.sql"], arguments].concat());
        assert_ne!(code(&output), 0);
        assert!(error(&output).contains("belongs to one job, and the script has 2"), "{}", error(&output));
        assert!(!folder.path().join(".tidemill").exists(), "nothing is started");
    }
}
