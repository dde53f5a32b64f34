//! Results that are never complete, and how they end.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use expect_test::expect;

use super::{Folder, TICKS, check, code, error, sql, stderr, stdout};

#[test]
fn a_query_that_never_ends_needs_another_mode_in_a_pipe() {
    let started = Instant::now();
    let output = sql(&["-e", &format!("{TICKS} SELECT * FROM ticks")]);
    assert_eq!((code(&output), stdout(&output).as_str()), (1, ""));
    assert!(error(&output).contains("changelog"), "{}", error(&output));
    assert!(started.elapsed() < Duration::from_secs(20));
}

#[test]
fn limit_ends_a_query_that_never_ends() {
    let output = sql(&["-p", "1", "-e", &format!("{TICKS} SELECT n FROM ticks LIMIT 3")]);
    check(&output, 0, &expect!["n\n7\n7\n7\n"]);
}

#[test]
fn changes_come_as_they_happen_and_a_closed_pipe_ends_quietly() {
    let folder = Folder::new();
    let script =
        format!("SET 'sql-client.execution.result-mode' = 'changelog'; {TICKS} SELECT COUNT(*) AS c FROM ticks");
    let mut command = folder.command(&["sql", "-p", "1", "-e", &script]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first: Vec<String> = lines.by_ref().take(3).map(Result::unwrap).collect();
    assert_eq!(first[0], "op,c");
    assert!(first[1].starts_with("+I,") && first[2].starts_with("-U,"), "{first:?}");
    drop(lines);
    let status = child.wait().unwrap();
    let mut text = String::new();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(status.code(), Some(0), "{text}");
    assert!(!text.contains("error"), "{text}");
}

#[test]
fn tableau_shows_the_kind_only_where_rows_are_updated() {
    let mode = ["-D", "sql-client.execution.result-mode=tableau", "-D", "execution.runtime-mode=streaming", "-p", "1"];
    let rows = "FROM (VALUES (1), (2)) AS t (n)";
    let output = sql(&[&mode[..], &["-e", &format!("SELECT n {rows}")]].concat());
    check(&output, 0, &expect!["n\n1\n2\n"]);
    let output = sql(&[&mode[..], &["-e", &format!("SELECT COUNT(*) AS c {rows}")]].concat());
    assert!(stdout(&output).starts_with("op,c\n+I,"), "{}{}", stdout(&output), stderr(&output));
}

#[test]
fn a_column_called_op_is_in_the_way_of_a_changelog() {
    let output = sql(&["-D", "sql-client.execution.result-mode=changelog", "-e", "SELECT 1 AS op"]);
    assert_eq!((code(&output), stdout(&output).as_str()), (1, ""));
    assert!(error(&output).contains("SELECT op AS"), "{}", error(&output));
    assert_eq!(stdout(&sql(&["-e", "SELECT 1 AS op"])), "op\n1\n");
}

#[test]
#[cfg(unix)]
fn sigterm_cancels_the_job_and_leaves_nothing_behind() {
    let folder = Folder::new();
    let sink = "CREATE TABLE o (n BIGINT) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'csv');";
    let files = || std::fs::read_dir(folder.path().join("out")).map_or(0, |entries| entries.count());
    let mut child = folder
        .command(&["sql", "-p", "1", "-e", &format!("{TICKS}{sink} INSERT INTO o SELECT n FROM ticks")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let started = Instant::now();
    while files() == 0 && started.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(files() > 0);
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(143));
    assert_eq!(files(), 0);
}

#[test]
#[cfg(unix)]
fn ctrl_c_is_exit_code_130() {
    let folder = Folder::new();
    let script = format!("SET 'sql-client.execution.result-mode' = 'changelog'; {TICKS} SELECT n FROM ticks");
    let mut child =
        folder.command(&["sql", "-e", &script]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "op,n");
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    // Whoever is interrupted may still write; nobody is to be blocked by that.
    lines.for_each(drop);
    assert_eq!(child.wait().unwrap().code(), Some(130));
}
