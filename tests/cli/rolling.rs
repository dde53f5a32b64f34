//! When files of a running job are over: by age, and when no more rows come. Otherwise one file grows over all checkpoints.

use std::io::Write;
use std::net::TcpListener;
use std::process::Stdio;

use super::{Folder, Running, code, stderr, until, until_checkpoints};

/// Starts a job with so much time between checkpoints that copies rows of a table into `out`, whose sink has these options.
fn start(folder: &Folder, interval: &str, source: &str, options: &str) -> Running {
    folder.write(
        "job.sql",
        &format!(
            "SET 'execution.runtime-mode' = 'streaming'; SET 'execution.checkpointing.interval' = '{interval}';
             CREATE TABLE rows (n STRING) WITH ({source});
             CREATE TABLE out (n STRING) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'csv' {options});
             INSERT INTO out SELECT n FROM rows;"
        ),
    );
    let arguments = ["run", "--local", "-f", "job.sql", "-p", "1"];
    Running(folder.command(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}

/// The files that readers see, with what is in them.
fn files(folder: &Folder) -> Vec<String> {
    let entries = std::fs::read_dir(folder.path().join("out")).into_iter().flatten().flatten();
    let is_shown = |entry: &std::fs::DirEntry| !entry.file_name().to_string_lossy().starts_with('.');
    entries.filter(is_shown).map(|entry| std::fs::read_to_string(entry.path()).unwrap()).collect()
}

const TICKS: &str = "'connector' = 'datagen', 'rows-per-second' = '500'";

#[test]
fn one_file_grows_over_checkpoints_as_long_as_it_is_young() {
    let folder = Folder::new();
    let running = start(&folder, "100 ms", TICKS, "");
    until_checkpoints(&folder, 12);
    assert_eq!(files(&folder).len(), 0);
    drop(running);
    let folder = Folder::new();
    let running = start(&folder, "100 ms", TICKS, ", 'sink.rolling-policy.rollover-interval' = '300 ms'");
    until("three files", || match files(&folder) {
        files if files.len() >= 3 => Ok(()),
        files => Err(files.len().to_string()),
    });
    drop(running);
}

#[test]
fn between_checkpoints_somebody_looks_as_often_as_the_check_interval_says() {
    for (check, least, most) in [("50 ms", 3, 100), ("1 h", 1, 1)] {
        let folder = Folder::new();
        let options = format!(
            ", 'sink.rolling-policy.rollover-interval' = '100 ms', 'sink.rolling-policy.check-interval' = '{check}'"
        );
        let running = start(&folder, "1 h", TICKS, &options);
        let checkpoint = || {
            until("a checkpoint", || {
                let output = folder.run(&["checkpoint", "--dir", ".tidemill/job.sql"]);
                if code(&output) == 0 { Ok(()) } else { Err(stderr(&output)) }
            });
            files(&folder).len()
        };
        let before = checkpoint();
        std::thread::sleep(std::time::Duration::from_millis(1500));
        let new = checkpoint() - before;
        assert!((least..=most).contains(&new), "{new} files of {check}");
        drop(running);
    }
}

#[test]
fn a_file_is_over_when_no_rows_have_come_for_a_while() {
    let folder = Folder::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let source = format!(
        "'connector' = 'socket', 'hostname' = '127.0.0.1', 'port' = '{}', 'format' = 'raw'",
        listener.local_addr().unwrap().port()
    );
    let options = ", 'sink.rolling-policy.rollover-interval' = '1 h', 'sink.rolling-policy.check-interval' = '50 ms',
        'sink.rolling-policy.inactivity-interval' = '1500 ms'";
    let running = start(&folder, "100 ms", &source, options);
    let (mut connection, _) = listener.accept().unwrap();
    for (number, line) in ["one", "two"].into_iter().enumerate() {
        writeln!(connection, "{line}").unwrap();
        until("a file with the line", || match files(&folder) {
            files if files.len() == number + 1 && files.iter().any(|file| file.trim() == line) => Ok(()),
            files => Err(format!("{files:?}")),
        });
    }
    // As long as rows come it goes on, however old it is.
    for _ in 0..20 {
        writeln!(connection, "many").unwrap();
        std::thread::sleep(std::time::Duration::from_millis(60));
        assert_eq!(files(&folder).len(), 2);
    }
    until("a file with all of the others", || match files(&folder) {
        files if files.iter().any(|file| file.lines().count() == 20) => Ok(()),
        files => Err(format!("{files:?}")),
    });
    drop((running, connection));
}
