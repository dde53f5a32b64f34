//! Statements, scripts, hints, errors and places.

use super::*;

#[test]
fn tables() {
    check_all([
        ("CREATE TABLE t (a INT, b STRING NOT NULL)", "table t [a INT, b STRING NOT NULL]"),
        (
            "CREATE TABLE clicks (
               `user` STRING COMMENT 'who',
               at TIMESTAMP(3) METADATA FROM 'timestamp',
               part INT NOT NULL METADATA VIRTUAL COMMENT 'p',
               cost AS price * quantity COMMENT 'c',
               proc AS PROCTIME(),
               WATERMARK FOR at AS at - INTERVAL '5' SECOND,
               PRIMARY KEY (`user`, at) NOT ENFORCED
             ) COMMENT 'all clicks' PARTITIONED BY (day, hour)
             WITH ('connector' = 'kafka', 'properties.bootstrap.servers' = 'a:1;b:2', 'k' = 'it''s')",
            "table clicks [`user` STRING comment=who, at TIMESTAMP(3) metadata from timestamp, \
             part INT NOT NULL virtual comment=p, cost = price * quantity comment=c, proc = PROCTIME(), \
             watermark at = at - INTERVAL '5' SECOND, key(`user`, at)] comment=all clicks by(day, hour) \
             connector=kafka properties.bootstrap.servers=a:1;b:2 k=it's",
        ),
        ("CREATE TABLE t (id BIGINT PRIMARY KEY NOT ENFORCED, v INT)", "table t [id BIGINT, v INT, key(id)]"),
        ("CREATE TABLE t (id INT CONSTRAINT pk PRIMARY KEY NOT ENFORCED)", "table t [id INT, key(id)]"),
        (
            "create temporary table if not exists a.b (x int, constraint pk primary key (x) not enforced)",
            "table if-absent temp a.b [x INT, key(x)]",
        ),
        ("CREATE OR REPLACE TABLE t AS SELECT 1 AS a", "table replace t [] as SELECT 1 AS a"),
        (
            "CREATE TABLE t WITH ('connector' = 'print') LIKE s (EXCLUDING ALL, INCLUDING OPTIONS OVERWRITING WATERMARKS)",
            "table t [] connector=print like s Excluding-All Including-Options Overwriting-Watermarks",
        ),
        ("CREATE TABLE t (b INT) LIKE s", "table t [b INT] like s"),
        ("CREATE TABLE t () WITH () LIKE s ()", "table t [] like s"),
        ("CREATE TABLE t WITH ('a' = 'b') AS SELECT * FROM s", "table t [] a=b as SELECT * FROM s"),
        // Words of the grammar are names where they cannot be anything else.
        (
            "CREATE TABLE t (watermark INT, check INT, unique STRING, comment STRING)",
            "table t [watermark INT, check INT, unique STRING, comment STRING]",
        ),
        (
            "CREATE TABLE t (at TIMESTAMP_LTZ(3), day AS DATE_FORMAT(at, 'yyyy'), WATERMARK FOR at AS at)",
            "table t [at TIMESTAMP_LTZ(3), day = DATE_FORMAT(at, 'yyyy'), watermark at = at]",
        ),
    ]);
}

#[test]
fn table_errors() {
    check_all([
        (
            "CREATE TABLE t (a INT PRIMARY KEY)",
            "error: a primary key must be declared NOT ENFORCED at line 1, column 23; keys are trusted, not checked: write NOT ENFORCED after it",
        ),
        (
            "CREATE TABLE t (a INT,\n  PRIMARY KEY (a))",
            "error: a primary key must be declared NOT ENFORCED at line 2, column 3; keys are trusted, not checked: write NOT ENFORCED after it",
        ),
        (
            "CREATE TABLE t (a INT PRIMARY KEY NOT ENFORCED, PRIMARY KEY (a) NOT ENFORCED)",
            "error: a second primary key at line 1, column 49",
        ),
        (
            "CREATE TABLE t (a INT, WATERMARK FOR a AS a, WATERMARK FOR a AS a)",
            "error: a second watermark at line 1, column 46",
        ),
        ("CREATE TABLE t (a STRNG)", "error: unknown type 'STRNG' at line 1, column 19; did you mean 'STRING'?"),
        ("CREATE TABLE t (a INT b INT)", "error: expected ',' or ')' after column 'a', found 'b' at line 1, column 23"),
        ("CREATE TABLE t (a INT,)", "error: expected a column name, found ')' at line 1, column 23"),
        (
            "CREATE TABLE t (a INT DEFAULT 3)",
            "error: a column has no DEFAULT at line 1, column 23; give every column in the INSERT",
        ),
        (
            "CREATE TABLE t (a INT, UNIQUE (a))",
            "error: tables have no UNIQUE constraints at line 1, column 24; the one constraint is PRIMARY KEY (…) NOT ENFORCED",
        ),
        ("CREATE TABLE t (a INT) WITH ('a' = 'x', 'a' = 'y')", "error: option 'a' is given twice at line 1, column 41"),
        (
            "CREATE TABLE t (a INT) WITH (connector = 'x')",
            "error: expected an option's key in quotes, found 'connector' at line 1, column 30",
        ),
        ("CREATE TABLE t (a INT) WITH ('a' 'x')", "error: expected '=', found 'x' at line 1, column 34"),
        (
            "CREATE TABLE t (a INT",
            "error: expected ',' or ')' after column 'a', found the end of the statement at line 1, column 22",
        ),
        (
            "CREATE TABLE t LIKE s (INCLUDING EVERYTHING)",
            "error: expected ALL, CONSTRAINTS, DISTRIBUTION, GENERATED, METADATA, OPTIONS, PARTITIONS, WATERMARKS, found 'EVERYTHING' at line 1, column 34",
        ),
    ]);
}

#[test]
fn views_drops_and_inserts() {
    check_all([
        ("CREATE VIEW v AS SELECT a -- why\n FROM t ;", "view v = SELECT a -- why\n FROM t"),
        (
            "CREATE OR REPLACE TEMPORARY VIEW IF NOT EXISTS v (x, `y z`) COMMENT 'c' AS VALUES (1, 2)",
            "view replace if-absent temp v(x, `y z`) comment=c = VALUES (1, 2)",
        ),
        (
            "DROP TABLE IF EXISTS a.b; DROP VIEW v; DROP TEMPORARY TABLE t",
            "drop table if-there a.b; drop view v; drop table t",
        ),
        ("DROP SCHEMA s", "other DROP SCHEMA s"),
        ("INSERT INTO t SELECT * FROM s", "insert t <- SELECT * FROM s"),
        ("INSERT INTO t (a, `b`) SELECT 1, 2", "insert t(a, `b`) <- SELECT 1, 2"),
        ("INSERT INTO t VALUES (1, 'x'), (2, NULL)", "insert t <- VALUES (1, 'x'), (2, NULL)"),
        ("INSERT INTO t (SELECT 1)", "insert t <- (SELECT 1)"),
        ("INSERT INTO t WITH q AS (SELECT 1) SELECT * FROM q", "insert t <- WITH q AS (SELECT 1) SELECT * FROM q"),
        (
            "INSERT OVERWRITE TABLE t PARTITION (day = '2020-01-01', hour = 3) (a) SELECT 1",
            "overwrite t at day='2020-01-01',hour=3(a) <- SELECT 1",
        ),
        ("EXECUTE INSERT INTO t SELECT 1", "insert t <- SELECT 1"),
        ("INSERT t SELECT 1", "error: expected INTO or OVERWRITE, found 't' at line 1, column 8"),
        ("INSERT INTO t", "error: expected a query, found the end of the statement at line 1, column 14"),
        (
            "EXECUTE STATEMENT SET BEGIN INSERT INTO a SELECT 1; INSERT INTO b SELECT 2; END; SELECT 3",
            "set of [insert a <- SELECT 1 | insert b <- SELECT 2]; query SELECT 3",
        ),
        (
            "BEGIN STATEMENT SET; INSERT INTO a SELECT CASE WHEN x THEN 1 END FROM t; END;",
            "set of [insert a <- SELECT CASE WHEN x THEN 1 END FROM t]",
        ),
        (
            "EXPLAIN STATEMENT SET BEGIN INSERT INTO a SELECT 1; INSERT INTO b SELECT 2 END",
            "explain Plan [] set of [insert a <- SELECT 1 | insert b <- SELECT 2]",
        ),
        ("BEGIN STATEMENT SET; END;", "error: a statement set without an INSERT at line 1, column 22"),
        ("BEGIN STATEMENT SET; SELECT 1; END;", "error: expected INSERT or END, found 'SELECT' at line 1, column 22"),
        ("BEGIN; COMMIT", "other BEGIN; other COMMIT"),
    ]);
}

#[test]
fn settings() {
    check_all([
        ("SET; RESET;", "set all; reset all"),
        ("SET 'execution.runtime-mode' = 'batch'", "set <execution.runtime-mode> to <batch>"),
        ("SET execution.buffer-timeout = 100 ms ;", "set <execution.buffer-timeout> to <100 ms>"),
        ("SET a.b-c=1d; SET x = -1", "set <a.b-c> to <1d>; set <x> to <-1>"),
        ("SET state.dir = s3://bucket/a b,c", "set <state.dir> to <s3://bucket/a b,c>"),
        ("SET k = 'a' 'b'", "set <k> to <'a' 'b'>"),
        ("SET datafusion.execution.batch_size TO 5", "set <datafusion.execution.batch_size> to <5>"),
        ("SET \"k\" = `v`", "set <k> to <v>"),
        ("SET k = ''", "set <k> to <>"),
        (
            "SET k =",
            "error: expected a value, found the end of the statement at line 1, column 8; an empty value is ''",
        ),
        ("SET k v", "error: expected '=' after the key, found 'v' at line 1, column 7; write SET 'key' = 'value'"),
        ("SET = v", "error: expected a key, found '=' at line 1, column 5"),
        ("RESET 'a.b'; RESET a.b-c", "reset a.b; reset a.b-c"),
        ("RESET a b", "error: expected the end of the statement, found 'b' at line 1, column 9"),
        ("SET TIME ZONE 'UTC'", "other SET TIME ZONE 'UTC'"),
    ]);
}

#[test]
fn explain_describe_show() {
    check_all([
        ("EXPLAIN SELECT 1", "explain Plan [] query SELECT 1"),
        ("EXPLAIN PLAN FOR INSERT INTO t SELECT 1", "explain Plan [] insert t <- SELECT 1"),
        ("EXPLAIN ANALYZE VERBOSE SELECT 1", "explain Analyze [Verbose] query SELECT 1"),
        (
            "EXPLAIN CHANGELOG_MODE, ESTIMATED_COST SELECT 1",
            "explain Plan [ChangelogMode, EstimatedCost] query SELECT 1",
        ),
        ("EXPLAIN FORMAT TREE SELECT 1", "explain Plan [Format(\"TREE\")] query SELECT 1"),
        ("EXPLAIN (SELECT 1)", "explain Plan [] query (SELECT 1)"),
        ("EXPLAIN (ANALYZE) SELECT 1", "other EXPLAIN ANALYZE SELECT 1"),
        ("EXPLAIN EXPLAIN SELECT 1", "error: an EXPLAIN of an EXPLAIN at line 1, column 9"),
        ("DESCRIBE t; DESC TABLE t", "Describe(<\"t\"; Describe(<\"t\""),
        ("DESCRIBE SELECT 1", "other DESCRIBE SELECT 1"),
        (
            "SHOW TABLES; SHOW VIEWS LIKE 'a%'; SHOW FUNCTIONS; SHOW JOBS",
            "Show(Tables { like: None }); Show(Views { like: Some(\"a%\") }); Show(Functions { like: None }); Show(Jobs)",
        ),
        ("SHOW COLUMNS FROM t; SHOW COLUMNS IN t", "Show(Columns { table: <\"t\"; Show(Columns { table: <\"t\""),
        ("SHOW CREATE TABLE t; SHOW CREATE VIEW v", "Show(CreateTable(<\"t\"; Show(CreateView(<\"v\""),
        ("SHOW ALL", "other SHOW ALL"),
        ("SHOW COLUMNS t", "error: expected FROM or IN, found 't' at line 1, column 14"),
    ]);
}

#[test]
fn jobs_and_the_shell() {
    check_all([
        ("HELP; QUIT; EXIT; CLEAR", "Help; Quit; Quit; Clear"),
        ("STOP JOB 'a1'", "StopJob { id: \"a1\", savepoint: false, drain: false }"),
        ("STOP JOB 'a1' WITH SAVEPOINT WITH DRAIN", "StopJob { id: \"a1\", savepoint: true, drain: true }"),
        ("CANCEL JOB 'a1'", "CancelJob { id: \"a1\" }"),
        ("CANCEL JOB a1", "error: expected a job's id in quotes, found 'a1' at line 1, column 12"),
        ("QUIT now", "error: expected the end of the statement, found 'now' at line 1, column 6"),
    ]);
}

#[test]
fn scripts() {
    check_all([
        ("", ""),
        (" ; -- nothing; \n ;; /* ; */ ;", ""),
        ("SELECT ';' AS `;` -- a; b\n; SELECT 2;", "query SELECT ';' AS `;`; query SELECT 2"),
        ("COPY (SELECT 1) TO 'f.parquet' STORED AS PARQUET", "other COPY (SELECT 1) TO f.parquet STORED AS PARQUET"),
        (
            "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION 'a.csv'",
            "other CREATE EXTERNAL TABLE t STORED AS CSV LOCATION 'a.csv'",
        ),
        (
            "SELECT 1\nSELECT 2",
            "error: expected the end of the statement, found 'SELECT' at line 2, column 1; is a ';' missing before it?",
        ),
        ("SELEC 1", "error: unknown statement 'SELEC' at line 1, column 1; did you mean 'SELECT'?"),
        ("1", "error: expected a statement, found '1' at line 1, column 1"),
        (
            "SELECT 1;\n  SELECT * FROM ; ",
            "error: expected identifier, found the end of the statement at line 2, column 16",
        ),
        ("SELECT 'a", "error: unterminated string literal at line 1, column 8"),
        ("SELECT (1", "error: expected ')', found the end of the statement at line 1, column 10"),
    ]);
    let script = "-- first\nSELECT 1 ;\n\n  SELECT\n 'é', 2 -- end\n;";
    let parsed = parse_script(script).unwrap();
    assert_eq!(parsed[0].text, "SELECT 1");
    assert_eq!(parsed[1].text, "SELECT\n 'é', 2");
    assert_eq!(parsed[1].span, Span { start: 23, end: 38, line: 4, column: 3 });
    assert_eq!(&script[parsed[1].span.start..parsed[1].span.end], parsed[1].text);
}

#[test]
fn complete() {
    for sql in [
        "SELECT 1;",
        "SELECT 1; -- done",
        "a 'b;c' ;\n",
        "BEGIN STATEMENT SET; INSERT INTO a SELECT 1; END;",
        "exit",
        "SELECT 1.0e;",
    ] {
        assert!(is_complete(sql), "{sql}");
    }
    for sql in [
        "",
        "  ",
        ";",
        "-- a;",
        "SELECT 1",
        "SELECT 1; SELECT",
        "SELECT ';",
        "SELECT \"a;",
        "/* ;",
        "SELECT 1 -- ;",
        "BEGIN STATEMENT SET;",
        "EXECUTE STATEMENT SET BEGIN INSERT INTO a SELECT CASE WHEN x THEN 1 END;",
        "help me",
    ] {
        assert!(!is_complete(sql), "{sql}");
    }
}

#[test]
fn hints_are_found_and_refused() {
    check_all([
        (
            "SELECT *\nFROM db.t /*+ OPTIONS('a' = 'b') */ AS x",
            "error: hint 'OPTIONS' is not read by anything at line 2, column 15; remove it",
        ),
        (
            "SELECT /*+ BROADCAST(t) */ * FROM t",
            "error: hint 'BROADCAST' is not read by anything at line 1, column 12; remove it",
        ),
        ("SELECT /*+ */ 1", "error: hint '' is not read by anything at line 1, column 8; remove it"),
        ("SELECT '/*+ X */' /* + X */ -- /*+ X */\n", "query SELECT '/*+ X */'"),
    ]);
    let sql =
        "SELECT /*+ STATE_TTL('a'='1 d', 'b' = ')'),\n BROADCAST (t) x */ * FROM `db` . t /*+ OPTIONS('k'='v') */";
    let source = Source::new(sql);
    let found = hints::hints(&source, &script::tokenize(sql).unwrap());
    let found: Vec<_> =
        found.iter().map(|h| (h.name.as_str(), h.args.as_str(), h.after.as_deref(), h.span.line)).collect();
    assert_eq!(
        found,
        [
            ("STATE_TTL", "'a'='1 d', 'b' = ')'", None, 1),
            ("BROADCAST", "t", None, 2),
            ("x", "", None, 2),
            ("OPTIONS", "'k'='v'", Some("db.t"), 2),
        ]
    );
}

#[test]
fn places() {
    assert_eq!(locate("a\r\nbc\n", 2, 2), 4);
    assert_eq!((locate("ab", 1, 9), locate("ab", 7, 1), locate("ab", 0, 0)), (2, 2, 2));
    let sql = "SELECT 1;\nSELECT\t'é' FRM x y";
    let error = parse_script(sql).unwrap_err();
    let span = error_span(sql, &error).unwrap();
    assert_eq!(&sql[span.start..span.end], "x");
    assert_eq!(pointer(sql, span), "line 2, column 16\n  SELECT 'é' FRM x y\n                 ^");
    // Context from a caller does not lose the place, and a long line is cut around it.
    let long = format!("SELECT {}, FROM t", "abcdefghi, ".repeat(40));
    let error = parse_script(&long).unwrap_err().context("job.sql");
    let shown = pointer(&long, error_span(&long, &error).unwrap());
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines[1].chars().nth(lines[2].chars().count() - 1), Some(','));
    // Offsets that no token has are cut to the text.
    assert_eq!(pointer("é", Span { start: 1, end: 99, line: 1, column: 1 }), "line 1, column 1\n  é\n  ^");
}
