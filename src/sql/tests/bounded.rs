//! Bounded queries and inserts.

use super::*;

const ORDERS: &str = "id,customer,amount,at\n\
    1,ann,10.5,2026-01-01T00:00:01\n\
    2,bob,20.0,2026-01-01T00:00:04\n\
    3,ann,5.5,2026-01-01T00:00:11\n\
    4,eve,,2026-01-01T00:00:12\n";

fn orders(dir: &Path) -> String {
    let path = file(dir, "orders.csv", ORDERS);
    format!(
        "CREATE TABLE orders (id BIGINT, customer STRING, amount DOUBLE, `at` TIMESTAMP(3))
         WITH ('connector' = 'filesystem', 'path' = '{path}', 'format' = 'csv', 'csv.header' = 'true');"
    )
}

#[test]
fn values_and_expressions() {
    check("SELECT 1 + 1 AS two, 'a' || 'b'", &["2|ab"]);
    check("VALUES (1, 'x'), (2, NULL)", &["1|x", "2|NULL"]);
    check(
        "SELECT CAST('1.50' AS DECIMAL(5, 2)), CAST(1 AS STRING), TO_TIMESTAMP_LTZ(1, 0)",
        &["1.50|1|1970-01-01T00:00:01Z"],
    );
}

#[test]
fn a_column_may_come_twice() {
    check("SELECT n, n, n + 1, n + 1 FROM (VALUES (1)) AS t (n)", &["1|1|2|2"]);
}

#[test]
fn the_parallelism_can_be_set_to_more_than_there_are_cores() {
    check(
        "SET 'parallelism.default' = '17'; SELECT k, COUNT(*) FROM (VALUES (1), (2), (1)) AS t (k) GROUP BY k",
        &["1|2", "2|1"],
    );
}

#[test]
fn a_file_is_a_table() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path(), "orders.csv", ORDERS);
    check(
        &format!("SELECT customer, SUM(amount) FROM '{path}' GROUP BY customer"),
        &["ann|16.0", "bob|20.0", "eve|NULL"],
    );
    check(&format!("SELECT COUNT(*) FROM '{path}'"), &["4"]);
}

#[test]
fn a_file_without_header_is_a_table_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path(), "n.csv", "1,x\n2,y\n");
    check_both(&format!("SELECT column_1 + 1, column_2 FROM '{path}'"), &["2|x", "3|y"]);
    check(&format!("SELECT COUNT(*) FROM '{path}'"), &["2"]);
}

#[test]
fn tables_views_and_order() {
    let dir = tempfile::tempdir().unwrap();
    let script = orders(dir.path())
        + "CREATE VIEW big (who, how_much) AS SELECT customer, amount FROM orders WHERE amount > 6;
           SELECT * FROM big ORDER BY how_much DESC LIMIT 1";
    check(&script, &["bob|20.0"]);
}

#[test]
fn joins_run_in_parallel() {
    let dir = tempfile::tempdir().unwrap();
    let script = orders(dir.path())
        + "SELECT o.id, n.name FROM orders AS o
           JOIN (VALUES ('ann', 'Ann A.'), ('bob', 'Bob B.')) AS n (short, name) ON o.customer = n.short";
    check(&script, &["1|Ann A.", "2|Bob B.", "3|Ann A."]);
}

#[test]
fn computed_columns_are_read_like_others() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(dir.path(), "n.csv", "1\n2\n");
    let script = format!(
        "CREATE TABLE n (twice AS n * 2, n INT, ts AS TO_TIMESTAMP_LTZ(n, 0), WATERMARK FOR ts AS ts - INTERVAL '1' SECOND)
         WITH ('connector' = 'filesystem', 'path' = '{path}', 'format' = 'csv');"
    );
    check(&(script.clone() + "SELECT * FROM n"), &["2|1|1970-01-01T00:00:01Z", "4|2|1970-01-01T00:00:02Z"]);
    check(&(script.clone() + "SELECT twice FROM n"), &["2", "4"]);
    check(&(script + "SELECT COUNT(*) FROM n"), &["2"]);
}

#[test]
fn inserts_cast_and_fill_up() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let table = format!(
        "CREATE TABLE t (a INT, b STRING, c DOUBLE) WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'csv');",
        out.display()
    );
    let script = table + "INSERT INTO t VALUES ('7', 8, 9); INSERT INTO t (C, a) SELECT 1, 2; SELECT * FROM t;";
    check(&script, &["7|8|9.0", "2|NULL|1.0"]);
}

#[test]
fn overwrite_replaces() {
    let dir = tempfile::tempdir().unwrap();
    let table = format!(
        "CREATE TABLE t (a INT) WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'json');",
        dir.path().join("out").display()
    );
    let script = table + "INSERT INTO t VALUES (1), (2); INSERT OVERWRITE t VALUES (3); SELECT * FROM t;";
    check(&script, &["3"]);
}

#[test]
fn statement_sets_are_one_job() {
    let dir = tempfile::tempdir().unwrap();
    let table = |name: &str| {
        let path = dir.path().join(name);
        format!(
            "CREATE TABLE {name} (a INT) WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'csv');",
            path.display()
        )
    };
    let script = table("x")
        + &table("y")
        + "EXECUTE STATEMENT SET BEGIN INSERT INTO x SELECT 1; INSERT INTO y SELECT 2; END;
           SELECT * FROM x UNION ALL SELECT * FROM y;";
    check(&script, &["1", "2"]);
}

#[test]
fn copy_and_create_as() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f.parquet");
    let script = format!("COPY (SELECT 1 AS a, 'x' AS b) TO '{0}'; SELECT * FROM '{0}'", path.display());
    check(&script, &["1|x"]);
    let csv = dir.path().join("f.csv");
    let script = format!("COPY (SELECT 1 AS a, 'x' AS b) TO '{0}'; SELECT b, a FROM '{0}'", csv.display());
    check(&script, &["x|1"]);
    let script = format!(
        "CREATE TABLE c WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'json') AS SELECT 5 AS five;
         SELECT five FROM c",
        dir.path().join("c").display()
    );
    check(&script, &["5"]);
}

#[test]
fn what_there_is() {
    let dir = tempfile::tempdir().unwrap();
    let table = orders(dir.path());
    check(&(table.clone() + "CREATE VIEW v AS SELECT 1 AS x; SHOW TABLES"), &["orders", "v"]);
    check(&(table.clone() + "CREATE VIEW v AS SELECT 1 AS x; SHOW VIEWS"), &["v"]);
    check(
        &(table.clone() + "DESCRIBE orders"),
        &[
            "amount|DOUBLE|true|NULL|NULL|NULL",
            "at|TIMESTAMP(3)|true|NULL|NULL|NULL",
            "customer|STRING|true|NULL|NULL|NULL",
            "id|BIGINT|true|NULL|NULL|NULL",
        ],
    );
    check(
        &(table + "SHOW COLUMNS FROM orders LIKE 'a%'"),
        &["amount|DOUBLE|true|NULL|NULL|NULL", "at|TIMESTAMP(3)|true|NULL|NULL|NULL"],
    );
    let mut session = session();
    let all = run(&mut session, "SET 'execution.batch-rows' = '7'; SET;").unwrap();
    assert!(all.contains("execution.batch-rows|7|SET"), "{all}");
}

#[test]
fn show_create_table_creates_the_same_table() {
    let dir = tempfile::tempdir().unwrap();
    let mut session = session();
    run(&mut session, &orders(dir.path())).unwrap();
    let text = run(&mut session, "SHOW CREATE TABLE orders").unwrap();
    run(&mut session, &format!("DROP TABLE orders; {text}")).unwrap();
    assert_eq!(run(&mut session, "SHOW CREATE TABLE orders").unwrap(), text);
}

#[test]
fn explain_shows_every_form() {
    let dir = tempfile::tempdir().unwrap();
    let script = orders(dir.path()) + "EXPLAIN SELECT customer, COUNT(*) FROM orders GROUP BY customer";
    let text = run(&mut session(), &script).unwrap();
    for piece in ["logical plan|", "TableScan: orders", "job graph|", "stage 1", "<- [0] ", "collect"] {
        assert!(text.contains(piece), "{piece} in\n{text}");
    }
    let script = orders(dir.path()) + "EXPLAIN ANALYZE SELECT customer, COUNT(*) FROM orders GROUP BY customer";
    let text = run(&mut session(), &script).unwrap();
    assert!(text.contains("numRecordsOut="), "{text}");
    assert!(!text.contains("collect: \n") && text.trim_end().ends_with(" ms"), "{text}");
}

#[test]
fn gates_follow_the_settings() {
    let explain = "EXPLAIN SELECT a, COUNT(*) FROM (VALUES (1), (2)) AS t (a) GROUP BY a";
    for (settings, gate) in [
        ("", "full"),
        ("SET 'execution.batch-shuffle-mode' = 'blocking';", "infinite"),
        ("SET 'execution.batch-shuffle-mode' = 'blocking'; SET 'execution.buffer-timeout' = '5 ms';", "5 ms"),
    ] {
        let text = run(&mut session(), &format!("{settings}{explain}")).unwrap();
        assert!(text.contains(&format!(", {gate}")), "{gate} in\n{text}");
    }
}

#[test]
fn decimals_have_the_digits_that_they_promise() {
    let error = |query: &str| run(&mut session(), query).unwrap_err();
    let sum =
        "SELECT CAST('99999999999999999999999999999999999999' AS DECIMAL(38, 0)) + CAST(1 AS DECIMAL(38, 0)) AS x";
    assert!(error(sum).starts_with("a value of column 'x' has more digits than DECIMAL(38, 0)"), "{}", error(sum));
    let product = "SELECT CAST('123456789012345678901234567890.12345678' AS DECIMAL(38, 8)) * 10 AS x";
    assert!(error(product).starts_with("a value of column 'x' has more digits"), "{}", error(product));
    check_both(
        "SELECT CAST('99999999999999999999999999999999999998' AS DECIMAL(38, 0)) + CAST(1 AS DECIMAL(38, 0))",
        &["99999999999999999999999999999999999999"],
    );
}

#[test]
fn literals_are_what_the_list_of_differences_says() {
    check_both("SELECT arrow_typeof(0.1), arrow_typeof(CAST('0.1' AS DECIMAL(2, 1)))", &["Float64|Decimal128(2, 1)"]);
    check_both(
        "SELECT TIMESTAMP '2020-01-01 00:00:00.123456789', TIME '01:02:03.9'",
        &["2020-01-01T00:00:00.123456|01:02:03"],
    );
    check_both("SELECT DATE_FORMAT(TIMESTAMP '2020-01-02 03:04:05', 'yyyy/MM/dd HH:mm')", &["2020/01/02 03:04"]);
    check_both("SELECT DATE_FORMAT(TIMESTAMP '2020-01-02 03:04:05', '%Y')", &["2020"]);
}

#[test]
fn in_and_not_in_know_three_truths_wherever_they_stand() {
    let tables =
        "CREATE VIEW a AS SELECT * FROM (VALUES (1, 'a'), (2, 'b'), (3, NULL), (4, 'a'), (5, 'c')) AS t (id, k);
                  CREATE VIEW b AS SELECT * FROM (VALUES ('a', 1), (NULL, 2)) AS t (k, w);";
    let ids =
        |condition: &str, expected: &[&str]| check(&format!("{tables} SELECT id FROM a WHERE {condition}"), expected);
    ids("k NOT IN (SELECT k FROM b) OR id = 1", &["1"]);
    ids("k NOT IN (SELECT k FROM b WHERE k IS NOT NULL) OR id = 1", &["1", "2", "5"]);
    ids("(k IN (SELECT k FROM b)) IS NULL", &["2", "3", "5"]);
    ids("NOT (k IN (SELECT k FROM b))", &[]);
    ids("k IN (SELECT k FROM b) OR id = 5", &["1", "4", "5"]);
    ids("k NOT IN (SELECT k FROM b WHERE w > 9) AND id > 1 OR id = 1", &["1", "2", "3", "4", "5"]);
    ids("k NOT IN (SELECT k FROM b WHERE b.w < a.id)", &["1", "2"]);
}

#[test]
fn a_parallelism_beyond_all_bounds_is_refused_at_once() {
    check_error(
        "SET 'parallelism.default' = '1048576'; SELECT COUNT(*) FROM (VALUES (1), (2)) AS t (a)",
        "parallelism 1048576 is above pipeline.max-parallelism 128; lower parallelism.default or raise pipeline.max-parallelism",
    );
}
