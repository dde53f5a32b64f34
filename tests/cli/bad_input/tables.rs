//! Tables that cannot be, hints that nothing reads, and gates that would never open.

use super::super::{Folder, stdout};
use super::{MODES, refused};

const ENDLESS: &str = "CREATE TABLE ticks (k BIGINT) WITH ('connector' = 'datagen');";

#[test]
fn a_table_that_is_defined_twice() {
    let folder = Folder::new();
    let table = "CREATE TABLE t (a INT) WITH ('connector' = 'blackhole');";
    let view = "CREATE VIEW t AS SELECT 1 AS a;";
    let (exists, hint) = ("'t' exists already", "CREATE OR REPLACE or IF NOT EXISTS");
    refused(&folder.sql(&format!("{table}\n{table}")), 1, &["line 2", &format!("table {exists}"), hint]);
    refused(&folder.sql(&format!("{view}\n{table}")), 1, &["line 2", &format!("view {exists}"), hint]);
    refused(&folder.sql(&format!("{table}\n{view}")), 1, &["line 2", &format!("table {exists}"), hint]);
    let output = folder.sql("CREATE TABLE t (a INT, b INT, a STRING) WITH ('connector' = 'blackhole')");
    refused(&output, 1, &["line 1, column 31", "column 'a' is declared twice", "give one of them another name"]);
}

#[test]
fn a_watermark_on_a_string() {
    let folder = Folder::new();
    let table = |watermark: &str| {
        format!("CREATE TABLE t (s STRING, ts TIMESTAMP(3),\n{watermark}) WITH ('connector' = 'datagen')")
    };
    let output = folder.sql(&table("WATERMARK FOR s AS s"));
    refused(
        &output,
        1,
        &["line 2, column 15", "watermark column 's' is STRING, not a time", "declare it TIMESTAMP(3)"],
    );
    let output = folder.sql(&table("WATERMARK FOR ts AS s"));
    refused(&output, 1, &["line 2, column 15", "watermark 's' is STRING, not a time", "ts - INTERVAL '5' SECOND"]);
}

#[test]
fn a_hint_that_nothing_reads() {
    let folder = Folder::new();
    for (statement, place, name) in [
        ("SELECT /*+ BROADCAST(t) */ 1", "column 12", "BROADCAST"),
        ("SELECT * FROM (SELECT 1) AS t /*+ OPTIONS('k' = 'v') */", "column 35", "OPTIONS"),
        ("INSERT INTO t /*+ OPTIONS('k' = 'v') */ SELECT 1", "column 19", "OPTIONS"),
    ] {
        // Found before the statements in front of it run.
        let output = folder.sql(&format!("SELECT 7 AS n;\n{statement}"));
        refused(&output, 1, &["line 2", place, &format!("hint '{name}' is not read by anything"), "remove it"]);
        assert_eq!(stdout(&output), "");
    }
}

#[test]
fn an_infinite_buffer_timeout_below_a_source_that_never_ends() {
    let folder = Folder::new();
    let infinite = "SET 'execution.buffer-timeout' = 'infinite';";
    let parts =
        ["buffer timeout 'infinite' below source 'ticks', which never ends", "a timeout such as '100 ms' or 'full'"];
    for query in [
        "SELECT k, COUNT(*) AS n FROM ticks GROUP BY k",
        "SELECT k FROM ticks LIMIT 3",
        "SELECT t.k FROM ticks AS t JOIN (VALUES (1), (2)) AS v (k) ON t.k = v.k",
    ] {
        let changes = "SET 'sql-client.execution.result-mode' = 'changelog';";
        refused(&folder.sql(&format!("{ENDLESS}{infinite}{changes}{query}")), 1, &parts);
        let sink = "CREATE TABLE b WITH ('connector' = 'blackhole') AS ";
        refused(&folder.sql(&format!("{ENDLESS}{infinite}{sink}{query}")), 1, &parts);
    }
    let define = ["sql", "-p", "2", "-D", "execution.buffer-timeout=infinite", "-e"];
    let insert = "CREATE TABLE b (k BIGINT, n BIGINT) WITH ('connector' = 'blackhole');
        INSERT INTO b SELECT k, COUNT(*) FROM ticks GROUP BY k";
    refused(&folder.run(&[&define[..], &[&format!("{ENDLESS}{insert}")]].concat()), 1, &parts);
}

#[test]
fn an_infinite_buffer_timeout_below_rows_that_end_is_fine() {
    for mode in MODES {
        let script = "SET 'execution.buffer-timeout' = 'infinite';
            SELECT k, COUNT(*) AS n FROM (VALUES (1), (1)) AS t (k) GROUP BY k";
        assert_eq!(stdout(&Folder::new().sql_as(mode, script)), "k,n\n1,2\n");
    }
}
