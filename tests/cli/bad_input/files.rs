//! Files that are not there, not whole, or not what was declared.

use super::super::{Folder, check, code, stderr, stdout};
use super::{MODES, refused, visible_files};
use expect_test::expect;
use std::path::Path;

/// A table `t` over a csv file with a header.
fn table(path: &str, more: &str) -> String {
    format!(
        "CREATE TABLE t (a INT, b INT, c INT) WITH ('connector' = 'filesystem', 'path' = '{path}', 'format' = 'csv', \
         'csv.header' = 'true'{more});"
    )
}

#[test]
fn a_missing_file_is_named_with_the_one_that_was_meant() {
    let folder = Folder::new();
    folder.write("flights.csv", "a,b,c\n1,2,3\n");
    refused(
        &folder.sql("SELECT * FROM 'flihgts.csv'"),
        1,
        &["/flihgts.csv does not exist", "did you mean 'flights.csv'?"],
    );
    refused(&folder.sql("SELECT * FROM 'x/y.csv'"), 1, &["/x/y.csv does not exist", "neither does the folder"]);
    refused(&folder.sql("SELECT * FROM 'quarter-*.csv'"), 1, &["'quarter-*.csv' holds no file", "pattern"]);
    refused(&folder.sql("COPY (SELECT * FROM 'fligths.csv') TO 'out.csv'"), 1, &["did you mean 'flights.csv'?"]);
    for mode in MODES {
        let script = format!("{} SELECT * FROM t", table("flihgts.csv", ""));
        refused(&folder.sql_as(mode, &script), 1, &["/flihgts.csv does not exist", "did you mean 'flights.csv'?"]);
        let parquet = "CREATE TABLE t (a INT) WITH ('connector' = 'filesystem', 'path' = 'a.parquet'); SELECT * FROM t";
        refused(&folder.sql_as(mode, parquet), 1, &["/a.parquet does not exist", "has a name like it"]);
    }
    assert_eq!(visible_files(folder.path()), ["flights.csv"]);
}

#[test]
fn a_missing_script_is_wrong_usage() {
    let folder = Folder::new();
    refused(&folder.run(&["sql", "-f", "job.sql"]), 2, &["cannot read 'job.sql'", "check the path"]);
    refused(&folder.run(&["sql", "-i", "job.sql", "-e", "SELECT 1"]), 2, &["cannot read 'job.sql'", "check the path"]);
}

#[test]
fn a_truncated_parquet_file_is_no_table() {
    let folder = Folder::new();
    let written = folder.sql("COPY (SELECT value AS a FROM generate_series(1, 10000)) TO 'whole.parquet'");
    assert_eq!(code(&written), 0, "{}", stderr(&written));
    let whole = std::fs::read(folder.path().join("whole.parquet")).unwrap();
    for length in [0, 3, whole.len() / 2, whole.len() - 1] {
        std::fs::write(folder.path().join("cut.parquet"), &whole[..length]).unwrap();
        let parts = ["/cut.parquet: no readable parquet file", "it may be cut off"];
        refused(&folder.sql("SELECT * FROM 'cut.parquet'"), 1, &parts);
        for mode in MODES {
            let table = "CREATE TABLE t (a BIGINT) WITH ('connector' = 'filesystem', 'path' = 'cut.parquet');";
            refused(&folder.sql_as(mode, &format!("{table} SELECT SUM(a) FROM t")), 1, &parts);
        }
    }
}

#[test]
fn a_row_with_too_few_fields_is_named_by_file_line_and_column() {
    let folder = Folder::new();
    folder.write("short.csv", "a,b,c\n1,2,3\n4,5\n6,7,8\n");
    let named = "/short.csv: line 3, column 3: row has 2 fields instead of 3";
    for mode in MODES {
        let output = folder.sql_as(mode, &format!("{} SELECT * FROM t", table("short.csv", "")));
        refused(&output, 1, &[named, "skip and count such rows: 'csv.ignore-parse-errors' = 'true'"]);
        // Not even the column that is short is asked for.
        let output = folder.sql_as(mode, &format!("{} SELECT COUNT(*) FROM t", table("short.csv", "")));
        refused(&output, 1, &[named, "'csv.ignore-parse-errors' = 'true'"]);
    }
    let output = folder.sql("SELECT * FROM 'short.csv'");
    refused(&output, 1, &[named, "a CREATE TABLE with 'csv.ignore-parse-errors' = 'true'"]);
}

#[test]
fn a_type_that_was_inferred_and_clashes_later_can_be_stated() {
    let folder = Folder::new();
    let rows: String = (0..30_000).map(|n| format!("{n}\n")).collect();
    folder.write("late.csv", &format!("n\n{rows}x\n"));
    let output = folder.sql("SELECT SUM(n) FROM 'late.csv'");
    refused(
        &output,
        1,
        &["/late.csv: line 30002, column 1: 'x' is no BIGINT for 'n'", "a CREATE TABLE can state them"],
    );
}

#[test]
fn rows_that_do_not_parse_can_be_skipped_and_are_counted() {
    let folder = Folder::new();
    folder.write("short.csv", "a,b,c\n1,2,3\n4,5\n6,x,8\n9,10,11\n");
    let table = table("short.csv", ", 'csv.ignore-parse-errors' = 'true'");
    for mode in MODES {
        let output = folder.sql_as(mode, &format!("{table} SELECT SUM(a) AS s FROM t"));
        check(&output, 0, &expect!["s\n10\n"]);
        assert!(stderr(&output).contains("1 row in ") && stderr(&output).contains(", 2 skipped as unreadable"));
        let print = "CREATE TABLE p (a INT, b INT, c INT) WITH ('connector' = 'print'); INSERT INTO p SELECT * FROM t";
        let output = folder.sql_as(mode, &format!("{table} {print}"));
        assert_eq!(stdout(&output).lines().count(), 2, "{}", stderr(&output));
        assert!(
            stderr(&output).contains("insert into p done in") && stderr(&output).contains(", 2 skipped as unreadable")
        );
    }
}

#[test]
fn a_bad_row_far_down_leaves_nothing_under_a_final_name() {
    let folder = Folder::new();
    let rows: String = (0..300_000).map(|n| format!("{n},{n},{n}\n")).collect();
    folder.write("late.csv", &format!("a,b,c\n{rows}1,2\n"));
    folder.write("out/kept.csv", "1,2,3\n");
    for mode in MODES {
        let out =
            "CREATE TABLE o (a INT, b INT, c INT) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'csv');";
        let script = format!("{} {out} INSERT INTO o SELECT * FROM t", table("late.csv", ""));
        refused(&folder.sql_as(mode, &script), 1, &["/late.csv: line 300002, column 3", "ignore-parse-errors"]);
    }
    for target in ["o.csv", "o.json", "o.parquet", "o.arrow", "o.csv.gz"] {
        let script = format!("{} COPY (SELECT * FROM t) TO '{target}'", table("late.csv", ""));
        refused(&folder.sql(&script), 1, &["/late.csv: line 300002, column 3", "ignore-parse-errors"]);
    }
    let script = format!(
        "{} CREATE TABLE o (a INT, b INT, c INT) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'csv');
         INSERT OVERWRITE o SELECT * FROM t",
        table("late.csv", "")
    );
    refused(&folder.sql(&script), 1, &["/late.csv: line 300002, column 3", "ignore-parse-errors"]);
    assert_eq!(visible_files(folder.path()), ["late.csv", "out/kept.csv"]);
}

#[test]
fn a_path_may_lead_up() {
    let folder = Folder::new();
    folder.write("n.csv", "a\n1\n").write("below/kept.txt", "x\n");
    let path = format!("{}/below/../n.csv", folder.path().display());
    for script in [
        "SELECT * FROM 'below/../n.csv'".to_owned(),
        format!("SELECT * FROM '{path}'"),
        format!("SELECT * FROM 'file://{path}'"),
        format!(
            "CREATE TABLE t (a INT) WITH ('connector' = 'filesystem', 'path' = '{path}', 'csv.header' = 'true'); SELECT * FROM t"
        ),
        "COPY (SELECT 1 AS a) TO 'below/../m.csv'; SELECT * FROM './m.csv'".to_owned(),
    ] {
        check(&folder.sql(&script), 0, &expect!["a\n1\n"]);
    }
    let mut command = folder.command(&["sql", "-e", "SELECT * FROM '../n.csv'"]);
    check(&command.current_dir(folder.path().join("below")).output().unwrap(), 0, &expect!["a\n1\n"]);
    assert_eq!(visible_files(folder.path()), ["below/kept.txt", "m.csv", "n.csv"]);
}

#[test]
fn values_that_do_not_fit_their_columns_are_no_null() {
    let folder = Folder::new();
    for file in ["m.parquet", "m.arrow"] {
        let written = folder.sql(&format!("COPY (SELECT CAST(300 AS INT) AS b, 'x' AS s) TO '{file}'"));
        assert_eq!(code(&written), 0, "{}", stderr(&written));
        for mode in MODES {
            for (column, parts) in [
                ("b TINYINT", ["'300' is no TINYINT for 'b'", "declare the column as it is in the file: INT"]),
                ("s BOOLEAN", ["'x' is no BOOLEAN for 's'", "STRING"]),
                ("s DATE", ["'x' is no DATE for 's'", "STRING"]),
                ("s DOUBLE", ["'x' is no DOUBLE for 's'", "STRING"]),
            ] {
                let table = format!("CREATE TABLE c ({column}) WITH ('connector' = 'filesystem', 'path' = '{file}');");
                let output = folder.sql_as(mode, &format!("{table} SELECT * FROM c"));
                refused(&output, 1, &[&[format!("/{file}: ").as_str()], &parts[..]].concat());
            }
        }
    }
}

#[test]
fn paths_that_lead_nowhere_say_why() {
    let folder = Folder::new();
    folder.write("sheet.xlsx", "x");
    let known = "known: csv, json, raw, parquet, arrow";
    refused(&folder.sql("SELECT * FROM 'sheet.xlsx'"), 1, &["the format of 'sheet.xlsx' is not known", known]);
    let parts = ["no store for 'gopher://'", "s3", "hdfs"];
    refused(&folder.sql("SELECT * FROM 'gopher://bucket/a.csv'"), 1, &parts);
    if Path::new("/proc/self").exists() {
        let parts = ["/proc: files cannot be written there", "choose another path"];
        refused(&folder.sql("COPY (SELECT 1 AS a) TO '/proc/y.csv'"), 1, &parts);
    }
}
