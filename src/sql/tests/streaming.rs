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
    assert!(
        text.contains("rows are updated (+I -U +U -D) behind: ") && text.contains("hash(#0), 100 ms, +I\n"),
        "{text}"
    );
}

#[test]
fn not_in_knows_three_truths() {
    let query = |outer: &str, inner: &str| {
        format!("SELECT a FROM (VALUES {outer}) AS t (a) WHERE a NOT IN (SELECT b FROM (VALUES {inner}) AS u (b))")
    };
    check_both(&query("(1), (NULL), (2)", "(1)"), &["2"]);
    check_both(&query("(1), (2)", "(1), (NULL)"), &[]);
    let nothing = "(VALUES (1)) AS u (b) WHERE b > 1";
    check_both(
        &format!("SELECT a FROM (VALUES (1), (NULL)) AS t (a) WHERE a NOT IN (SELECT b FROM {nothing})"),
        &["1", "NULL"],
    );
}

#[test]
fn in_and_exists_stand_anywhere() {
    let views = "CREATE VIEW a AS SELECT * FROM (VALUES (1, 'a'), (2, 'b'), (3, NULL)) AS t (id, k);
                 CREATE VIEW b AS SELECT k, w FROM (SELECT * FROM (VALUES ('a', 1), ('c', 2)) AS u (k, w));";
    check_both(&format!("{views} SELECT id FROM a WHERE k IN (SELECT k FROM b) OR id = 3"), &["1", "3"]);
    check_both(&format!("{views} SELECT id FROM a WHERE k NOT IN (SELECT k FROM b) OR id = 1"), &["1", "2"]);
    check_both(
        &format!("{views} SELECT id FROM a WHERE EXISTS (SELECT 1 FROM b WHERE b.k = a.k) OR id > 2"),
        &["1", "3"],
    );
    check_error(
        &format!("{views} {STREAM} SELECT SUM(id + (SELECT MAX(w) FROM b)) FROM a"),
        "a subquery in this place is not supported; as a stream it may stand in WHERE, HAVING and the SELECT list; \
         or put it into a view and join",
    );
}

#[test]
fn a_subquery_is_a_value() {
    let view = "CREATE VIEW v AS SELECT * FROM (VALUES ('a', 1), ('b', 2), ('a', 3)) AS t (k, n);";
    let most = "SELECT k FROM v GROUP BY k HAVING COUNT(*) > (SELECT COUNT(*) - 2 FROM v)";
    check_both(&format!("{view} {most}"), &["a"]);
    check_both(&format!("{view} SELECT n FROM v WHERE n = (SELECT MAX(n) FROM v)"), &["3"]);
    check_both(&format!("{view} SELECT n, (SELECT MAX(n) FROM v WHERE n > 9) FROM v"), &["1|NULL", "2|NULL", "3|NULL"]);
    check_error(
        &format!("{STREAM}{view} SELECT n FROM v WHERE n = (SELECT n FROM v)"),
        "a subquery in the place of a value may have more than one row; \
         as a stream it must be an aggregate without GROUP BY, or end in LIMIT 1",
    );
}

#[test]
fn a_table_that_is_updated_can_be_joined_when_it_ends() {
    let views = "CREATE VIEW v AS SELECT * FROM (VALUES ('a', 1), ('b', 2), ('a', 3)) AS t (k, n);
                 CREATE VIEW s AS SELECT k, SUM(n) AS total FROM v GROUP BY k;";
    check_both(&format!("{views} SELECT v.k, n, total FROM v JOIN s ON v.k = s.k"), &["a|1|4", "a|3|4", "b|2|2"]);
}

#[test]
fn copy_writes_one_file_in_either_mode() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.csv").display().to_string();
    check_both(&format!("COPY (SELECT 1 AS a) TO '{path}'; SELECT * FROM '{path}'"), &["1"]);
    check_error(
        &format!("CREATE TABLE g (n BIGINT) WITH ('connector' = 'datagen'); COPY (SELECT n FROM g) TO '{path}'"),
        "COPY of a query that never ends: it reads 'g'; INSERT INTO a table writes files as a stream goes on",
    );
}

#[test]
fn a_result_is_ordered_by_what_it_does_not_show() {
    let view = "CREATE VIEW v AS SELECT * FROM (VALUES (1, 'a', 10), (2, 'b', 50), (3, 'a', 30), (4, 'c', 40)) AS t (id, k, n);";
    let rows = |query: &str| run(&mut session(), &format!("{view} {STREAM} {query}")).unwrap().replace('\n', ",");
    assert_eq!(rows("SELECT id FROM v ORDER BY n DESC"), "2,4,3,1");
    assert_eq!(rows("SELECT id FROM v ORDER BY -id"), "4,3,2,1");
    assert_eq!(rows("SELECT k FROM v GROUP BY k ORDER BY SUM(n) DESC, k"), "b,a,c");
    assert_eq!(rows("SELECT k FROM v GROUP BY k ORDER BY MIN(id) DESC LIMIT 2"), "c,b");
    assert_eq!(rows("SELECT id AS x FROM v ORDER BY k DESC, n LIMIT 3"), "4,2,1");
    let mut session = session();
    let parsed = parse_script(&format!("{view} {STREAM} SELECT k FROM v ORDER BY n")).unwrap();
    for statement in &parsed {
        if let Outcome::Query(mut query) = session.run(statement).unwrap() {
            assert_eq!(query.schema.fields().len(), 1);
            let first = session.block_on(query.next()).unwrap().unwrap();
            assert_eq!(first.records().num_columns(), 1, "changes show no more than the result");
        }
    }
}

#[test]
fn a_limit_is_kept_and_ends_a_job_whose_keys_are_on_disk() {
    let mut settings = Settings::default();
    for (key, value) in [("parallelism.default", "2"), ("taskmanager.memory.managed.size", "6 mb")] {
        settings.set(key, value, Origin::CommandLine).unwrap();
    }
    // So many keys occupy twice the memory.
    let script =
        "CREATE TABLE g (n BIGINT) WITH ('connector' = 'datagen', 'seed' = '1', 'rows-per-second' = '100000000',
          'fields.n.kind' = 'random', 'fields.n.min' = '0', 'fields.n.max' = '400000');
        SELECT DISTINCT n FROM g LIMIT 300000";
    let found = run(&mut Session::new(settings).unwrap(), &format!("{STREAM}{script}")).unwrap();
    assert_eq!(found.lines().collect::<std::collections::HashSet<_>>().len(), 300_000);
    assert_eq!(found.lines().count(), 300_000);
}
