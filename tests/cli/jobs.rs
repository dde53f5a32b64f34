//! Jobs that a statement starts.

use expect_test::expect;

use super::{Folder, check, code, error, sql, stderr, stdout};

#[test]
fn insert_waits_for_its_job() {
    let folder = Folder::new();
    let script = "CREATE TABLE t (n BIGINT) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'csv');
        INSERT INTO t VALUES (1), (2); SELECT SUM(n) AS s FROM t;";
    let output = folder.run(&["sql", "-e", script]);
    check(&output, 0, &expect!["s\n3\n"]);
    // Without waiting the job still ends before the process does.
    let script = "CREATE TABLE t (n BIGINT) WITH ('connector' = 'filesystem', 'path' = 'other', 'format' = 'csv');
        SET 'table.dml-sync' = 'false'; INSERT INTO t VALUES (1), (2);";
    let output = folder.run(&["sql", "-e", script]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(stderr(&output).contains("job 1 is running"), "{}", stderr(&output));
    let output = folder.run(&[
        "sql",
        "-e",
        "CREATE TABLE t (n BIGINT) WITH ('connector' = 'filesystem', 'path' = 'other',
        'format' = 'csv'); SELECT SUM(n) AS s FROM t",
    ]);
    assert_eq!(stdout(&output), "s\n3\n", "{}", stderr(&output));
}

#[test]
fn a_job_that_fails_late_is_exit_code_1() {
    let script = "CREATE TABLE t (n BIGINT) WITH ('connector' = 'blackhole'); SET 'table.dml-sync' = 'false';
        INSERT INTO t SELECT 1 / n FROM (VALUES (0)) AS v (n);";
    let output = sql(&["-e", script]);
    assert_eq!(code(&output), 1, "{}", stderr(&output));
    assert!(error(&output).contains("job 1"), "{}", error(&output));
}
