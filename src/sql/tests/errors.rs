//! What is wrong is said in one line, with its place and what to do.

use super::*;

#[test]
fn names() {
    check_error(
        "SELECT * FROM nowhere",
        "table 'nowhere' not found at line 1, column 15; create it first, or quote the path of a file: FROM 'flights.csv'",
    );
    check_error(
        "CREATE VIEW v AS SELECT 1 AS price;\nSELECT pricee FROM v",
        "column 'pricee' not found at line 2, column 8; did you mean 'v.price'?",
    );
    check_error(
        "SELECT upperr('x')",
        "unknown function 'upperr' at line 1, column 8; did you mean 'upper'? `SHOW FUNCTIONS` lists them all",
    );
    check_error("SELECT iff(1)", "unknown function 'iff' at line 1, column 8; `SHOW FUNCTIONS` lists them all");
    let error = run(&mut session(), "SELECT * FROM 'missing-file.csv'").unwrap_err();
    assert!(error.contains("missing-file.csv does not exist; "), "{error}");
}

#[test]
fn tables() {
    let blackhole = "CREATE TABLE t (a INT) WITH ('connector' = 'blackhole');";
    check_error(
        &format!("{blackhole}{blackhole}"),
        "table 't' exists already; drop it first, or write CREATE OR REPLACE or IF NOT EXISTS",
    );
    check(
        &format!("{blackhole} CREATE TABLE IF NOT EXISTS t (a INT) WITH ('connector' = 'blackhole')"),
        &["table t exists already"],
    );
    check_error("DROP TABLE t", "DROP TABLE: table 't' not found; there are no tables yet");
    check("DROP TABLE IF EXISTS t", &["table t does not exist"]);
    check_error(
        "CREATE TABLE t (a INT) WITH ('connector' = 'filesytem', 'path' = 'x')",
        "table 't': unknown connector 'filesytem'; did you mean 'filesystem'?",
    );
    check_error(
        "CREATE TABLE t (a INT) WITH ('connector' = 'filesystem', 'pth' = 'x', 'path' = 'x', 'format' = 'csv')",
        "table 't': unknown option 'pth' of connector 'filesystem'; did you mean 'path'?",
    );
    check_error(
        "CREATE TABLE t (a INT, a STRING) WITH ('connector' = 'blackhole')",
        "column 'a' is declared twice at line 1, column 24; give one of them another name",
    );
}

#[test]
fn a_statement_set_replaces_a_table_once() {
    let table = "CREATE TABLE t (a INT) WITH ('connector' = 'filesystem', 'path' = '/nowhere', 'format' = 'csv');";
    for other in ["INSERT OVERWRITE", "INSERT INTO"] {
        check_error(
            &format!("{table} EXECUTE STATEMENT SET BEGIN {other} t SELECT 1; INSERT OVERWRITE t SELECT 2; END;"),
            "a statement set writes to 't' more than once, and replaces what is there; UNION ALL its queries in one INSERT OVERWRITE",
        );
    }
}

#[test]
fn watermarks() {
    let table = |watermark: &str| {
        format!("CREATE TABLE t (a INT, ts TIMESTAMP(3),\n {watermark}) WITH ('connector' = 'datagen')")
    };
    check_error(
        &table("WATERMARK FOR a AS a"),
        "watermark column 'a' is INT, not a time at line 2, column 16; declare it TIMESTAMP(3) or TIMESTAMP_LTZ(3), or compute such a column from it",
    );
    check_error(
        &table("WATERMARK FOR tss AS tss"),
        "watermark column 'tss' not found at line 2, column 16; did you mean 'ts'?",
    );
    check_error(
        &table("WATERMARK FOR ts AS a"),
        "watermark 'a' is INT, not a time at line 2, column 16; write ts - INTERVAL '5' SECOND",
    );
}

#[test]
fn inserts() {
    let sink = "CREATE TABLE t (a INT NOT NULL, b STRING) WITH ('connector' = 'blackhole');";
    check_error(
        &format!("{sink} INSERT INTO t VALUES (1)"),
        "table 't' has 2 columns to write, the query gives 1; the columns are a, b",
    );
    check_error(&format!("{sink} INSERT INTO t (b) VALUES ('x')"), "column 'a' of 't' is NOT NULL and gets no value");
    let error = run(&mut session(), &format!("{sink} INSERT INTO t VALUES (NULL, 'x')")).unwrap_err();
    assert!(error.starts_with("NULL in column 'a' of the sink, which is NOT NULL"), "{error}");
    check_error(
        &format!("{sink} INSERT INTO t SELECT 1, DATE '2020-01-01' FROM missing"),
        "table 'missing' not found at line 1, column 124; known: t",
    );
    check_error(
        &format!("{sink} SELECT * FROM t"),
        "table 't': connector 'blackhole' cannot be read; can be read: filesystem, datagen, socket",
    );
}

#[test]
fn what_is_not_there_yet_says_so() {
    check_error(
        "SELECT * FROM (SELECT 1) AS a TABLESAMPLE (10 PERCENT)",
        "TABLESAMPLE is not supported yet at line 1, column 16",
    );
    check_error(
        "ALTER TABLE t RENAME TO u",
        "ALTER TABLE is not supported at line 1, column 1; `HELP` lists the statements there are",
    );
}

#[test]
fn chains_are_long_but_not_endless() {
    let chain = |part: &str, by: &str, count: usize| vec![part; count].join(by);
    let refused =
        |text: String| run(&mut session(), &text).unwrap_err().contains("a chain of more than 1000 operators");
    assert_eq!(run(&mut session(), &format!("SELECT {}", chain("1", " + ", 500))), Ok("500".to_owned()));
    for by in [" + ", " OR ", " || "] {
        assert!(refused(format!("SELECT {}", chain("1", by, 10_000))), "{by}");
    }
    assert!(refused(chain("SELECT 1", " UNION ALL ", 3_000)));
    assert!(refused(format!("SELECT {} '1' DAY", chain("INTERVAL", " ", 5_000))));
    assert!(refused(format!("SELECT {} true", chain("NOT", " ", 900))));
    assert!(refused(format!("SELECT a{} FROM (SELECT [1] AS a) AS t", "[1]".repeat(400))));
    let nested = |count: usize| format!("SELECT {}1{}", "CASE WHEN true THEN ".repeat(count), " END".repeat(count));
    assert_eq!(run(&mut session(), &nested(40)), Ok("1".to_owned()));
    let error = run(&mut session(), &nested(60)).unwrap_err();
    assert!(error.starts_with("more than 45 brackets or CASEs within each other at line 1"), "{error}");
    let views: String = (0..40).map(|n| format!("CREATE VIEW v{} AS SELECT * FROM v{n};", n + 1)).collect();
    let error =
        run(&mut session(), &format!("CREATE VIEW v0 AS SELECT 1 AS a; {views} SELECT * FROM v40")).unwrap_err();
    assert!(error.contains("views are used by views more than 32 deep"), "{error}");
    let cases = format!("SELECT CASE {} END", chain("WHEN 1 = 2 THEN 3", " ", 1_500));
    assert_eq!(run(&mut session(), &cases), Ok("NULL".to_owned()));
    let rows = format!("SELECT COUNT(*) FROM (VALUES {})", chain("(-1)", ", ", 5_000));
    assert_eq!(run(&mut session(), &rows), Ok("5000".to_owned()));
}
