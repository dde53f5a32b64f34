//! Streams: the same statements, other operators, and what only streams refuse.

use super::*;

const STREAM: &str = "SET 'execution.runtime-mode' = 'streaming';";

#[test]
fn a_changing_result_folds_to_the_bounded_one() {
    let view = "CREATE VIEW v AS SELECT * FROM (VALUES ('a', 1), ('b', 2), ('a', 3)) AS t (k, n);";
    check_both(&format!("{view} SELECT k, SUM(n), COUNT(*) FROM v GROUP BY k"), &["a|4|2", "b|2|1"]);
    check_both(&format!("{view} SELECT * FROM v WHERE n > 1"), &["b|2", "a|3"]);
}

#[test]
fn order_holds_for_the_folded_result() {
    let script = "SELECT * FROM (VALUES (2), (3), (1)) AS t (n) ORDER BY n DESC";
    let mut session = session();
    assert_eq!(run(&mut session, &format!("{STREAM}{script}")).unwrap(), "3\n2\n1");
}

#[test]
fn a_generated_stream_ends_with_its_rows() {
    check(
        "CREATE TABLE g (n BIGINT) WITH ('connector' = 'datagen', 'number-of-rows' = '100', 'fields.n.kind' = 'sequence',
         'fields.n.start' = '1', 'fields.n.end' = '100'); SELECT COUNT(*), SUM(n) FROM g",
        &["100|5050"],
    );
}

#[test]
fn what_streams_refuse() {
    let endless = "CREATE TABLE g (n BIGINT) WITH ('connector' = 'datagen');";
    check_error(
        &format!("{endless} SET 'execution.runtime-mode' = 'batch'; SELECT * FROM g"),
        "table 'g' never ends, and execution.runtime-mode is batch; SET 'execution.runtime-mode' = 'streaming'",
    );
    check_error(
        &format!("{endless} EXPLAIN ANALYZE SELECT * FROM g"),
        "EXPLAIN ANALYZE of a statement that never ends; EXPLAIN shows its plan",
    );
    let dir = tempfile::tempdir().unwrap();
    let sink = format!(
        "CREATE TABLE s (n BIGINT, c BIGINT) WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'csv');",
        dir.path().join("s").display()
    );
    check_error(
        &format!("{endless}{sink} INSERT INTO s SELECT n, COUNT(*) FROM g GROUP BY n"),
        "the query updates rows, and table 's' takes only new ones; write to a connector that takes changes (print), or aggregate over windows",
    );
    check_error(
        &format!("{endless}{sink} INSERT OVERWRITE s SELECT n, n FROM g"),
        "INSERT OVERWRITE of a streaming query; old rows can be replaced only once all new ones are there; write INSERT INTO",
    );
}

#[test]
fn jobs_can_be_cancelled() {
    let mut session = session();
    let script = "CREATE TABLE g (n BIGINT) WITH ('connector' = 'datagen', 'rows-per-second' = '10');
        CREATE TABLE s (n BIGINT) WITH ('connector' = 'blackhole'); INSERT INTO s SELECT * FROM g";
    for parsed in parse_script(script).unwrap() {
        session.run(&parsed).unwrap();
    }
    assert_eq!(run(&mut session, "SHOW JOBS").unwrap(), "1|insert into s|running");
    run(&mut session, "CANCEL JOB '1'").unwrap();
    let job = session.jobs()[0].handle.clone();
    assert!(session.block_on(job.wait()).is_err());
    assert_eq!(run(&mut session, "SHOW JOBS").unwrap(), "1|insert into s|cancelled");
}

#[test]
fn neighbours_share_a_task_unless_the_settings_forbid_it() {
    let query = "SELECT n + 1 AS m FROM (VALUES (1), (2)) AS t (n) WHERE n > 1";
    let tasks = |settings: &str| {
        let text = run(&mut session(), &format!("{STREAM}{settings} EXPLAIN {query}")).unwrap();
        text.lines().filter(|line| line.starts_with('[') || line.contains("|[")).count()
    };
    let apart = "SET 'pipeline.operator-chaining.enabled' = 'false';";
    assert!(tasks("") < tasks(apart), "{} tasks and {}", tasks(""), tasks(apart));
    check(&format!("{STREAM}{apart}{query}"), &["3"]);
}

#[test]
fn what_only_a_start_can_change_warns() {
    let mut session = session();
    run(&mut session, "SET 'io.tmp.dirs' = '/elsewhere'; SET 'execution.batch-rows' = '7'").unwrap();
    let expected = "'io.tmp.dirs' is read when a process starts: give it with -D or in a file";
    assert_eq!(session.take_warnings(), [expected]);
}

#[test]
fn explain_says_what_is_updated() {
    let script = format!("{STREAM} EXPLAIN SELECT k, COUNT(*) FROM (VALUES (1), (2)) AS t (k) GROUP BY k");
    let text = run(&mut session(), &script).unwrap();
    assert!(text.contains("rows are updated (+I -U +U -D) behind: ") && text.contains("hash(#0)"), "{text}");
}
