//! Types that do not fit: the error points at the place in the SQL text, in the names that SQL has for types.

use super::super::Folder;
use super::{MODES, refused};

const TABLES: &str =
    "CREATE TABLE t (a INT, s STRING, b BOOLEAN) WITH ('connector' = 'datagen', 'number-of-rows' = '1');
CREATE TABLE p (x TIMESTAMP(3), r ROW<y INT>) WITH ('connector' = 'print');
";

/// A statement in the third line of a script, refused at a column of it.
#[track_caller]
fn check(statement: &str, column: usize, parts: &[&str]) {
    for mode in MODES {
        let output = Folder::new().sql_as(mode, &format!("{TABLES}{statement}"));
        let place = format!("-e, line 3, column {column}, in '");
        refused(&output, 1, &[&[place.as_str()], parts].concat());
    }
}

#[test]
fn operands_that_have_no_type_in_common() {
    check("SELECT a, b + s FROM t", 11, &["BOOLEAN + STRING", "CAST one of them"]);
    check("SELECT a, b < a FROM t", 11, &["BOOLEAN < INT", "CAST one of them"]);
    check("SELECT a FROM t WHERE s = 'x' AND a = b", 35, &["INT = BOOLEAN", "CAST one of them"]);
    check("SELECT * FROM (SELECT a AS n, a < b AS m FROM t) AS u", 31, &["INT < BOOLEAN", "CAST one of them"]);
}

#[test]
fn conditions_that_are_none() {
    check("SELECT s FROM t WHERE a", 23, &["non-boolean predicate", "CAST it to BOOLEAN"]);
}

#[test]
fn arguments_that_a_function_does_not_take() {
    check("SELECT s, SUM(s) FROM t GROUP BY s", 11, &["there is no sum(STRING)", "sum(BIGINT)"]);
    check("SELECT upper(s, s) FROM t", 8, &["there is no upper(STRING, STRING)", "those of upper(STRING)"]);
}

#[test]
fn a_constant_that_is_none_of_its_type() {
    check("SELECT s, CAST('x' AS INT) FROM t", 16, &["cannot cast string 'x' to value of INT", "TRY_CAST"]);
}

#[test]
fn a_value_that_is_none_of_its_type_while_rows_flow() {
    let insert = "CREATE TABLE o (n INT) WITH ('connector' = 'blackhole');
        INSERT INTO o SELECT x FROM (VALUES ('1'), ('y')) AS v (x)";
    for mode in MODES {
        super::failed(&Folder::new().sql_as(mode, insert), 1, &["cannot cast string 'y' to value of INT type"]);
    }
}

#[test]
fn values_that_do_not_become_what_the_sink_declares() {
    let parts = ["column 'r' of 'p' is ROW<`y` INT>, the query gives INT", "CAST it in the query"];
    check("INSERT INTO p SELECT s, a FROM t", 25, &parts);
    check("INSERT INTO p (r) SELECT a + 1 AS n FROM t", 26, &["column 'r' of 'p'", "CAST it in the query"]);
    check("INSERT INTO p VALUES (NULL, 7)", 29, &["column 'r' of 'p'", "CAST it in the query"]);
}

#[test]
fn a_text_of_many_lines_is_counted_through() {
    let folder = Folder::new();
    folder.write("job.sql", &format!("{TABLES}SELECT 1;\nSELECT s,\n\n  a\n    < b AS less\nFROM t;\n"));
    let output = folder.run(&["sql", "-f", "job.sql"]);
    refused(&output, 1, &["job.sql, line 6, column 3, in 'SELECT s, a < b AS less FROM t'", "CAST one of them"]);
}
