//! When files of a running job are over: by age, and when no more rows come. Otherwise one file grows over all checkpoints.

use std::io::Write;
use std::net::TcpListener;
use std::process::Stdio;

use super::{Folder, Running, code, stderr, stdout, until};

/// Starts a job that copies rows of a table into `out`, whose sink has these options.
fn start(folder: &Folder, source: &str, options: &str) -> Running {
    folder.write(
        "job.sql",
        &format!(
            "SET 'execution.runtime-mode' = 'streaming'; SET 'execution.checkpointing.interval' = '100 ms';
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

fn until_checkpoints(folder: &Folder, count: usize) {
    until("checkpoints", || {
        let output = folder.run(&["checkpoints", "--dir", ".tidemill/job.sql", "--format", "json"]);
        match code(&output) == 0 && stdout(&output).matches("\"completed\"").count() >= count {
            true => Ok(()),
            false => Err(stderr(&output)),
        }
    });
}

const TICKS: &str = "'connector' = 'datagen', 'rows-per-second' = '500'";

#[test]
fn a_file_is_over_when_it_is_old_enough_and_somebody_looks() {
    let folder = Folder::new();
    let options =
        ", 'sink.rolling-policy.rollover-interval' = '300 ms', 'sink.rolling-policy.check-interval' = '50 ms'";
    let running = start(&folder, TICKS, options);
    until("three files", || match files(&folder) {
        files if files.len() >= 3 => Ok(()),
        files => Err(files.len().to_string()),
    });
    drop(running);
    // Nobody looks, and so it grows.
    let folder = Folder::new();
    let options = ", 'sink.rolling-policy.rollover-interval' = '300 ms', 'sink.rolling-policy.check-interval' = '1 h'";
    let running = start(&folder, TICKS, options);
    until_checkpoints(&folder, 12);
    assert_eq!(files(&folder).len(), 0);
    drop(running);
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
    let running = start(&folder, &source, options);
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
