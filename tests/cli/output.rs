//! What goes to which stream, and in which form.

use expect_test::expect;

use super::{Folder, check, code, sql, stderr, stdout};

#[test]
fn a_query_gives_csv_in_a_pipe_and_its_count_on_stderr() {
    let output = sql(&["-e", "SELECT 6 * 7 AS answer"]);
    check(&output, 0, &expect!["answer\n42\n"]);
    assert!(stderr(&output).starts_with("1 row in "), "{}", stderr(&output));
}

const VALUES: &str = "SELECT * FROM (VALUES
    (1, 'plain', CAST('1.50' AS DECIMAL(10, 2)), CAST('NaN' AS DOUBLE), TRUE),
    (2, 'say \"hi\", all', NULL, 0.5, FALSE), (3, '', CAST('2.25' AS DECIMAL(10, 2)), NULL, NULL)) AS t (n, s, d, f, b) ORDER BY n";

#[test]
fn csv_quotes_what_needs_it_and_tells_null_from_the_empty_string() {
    let output = sql(&["--format", "csv", "-e", VALUES]);
    check(
        &output,
        0,
        &expect![[r#"
        n,s,d,f,b
        1,plain,1.50,NaN,true
        2,"say ""hi"", all",,0.5,false
        3,"",2.25,,
    "#]],
    );
}

#[test]
fn ndjson_has_null_and_decimals_as_strings() {
    let output = sql(&["--format", "ndjson", "-e", VALUES]);
    check(
        &output,
        0,
        &expect![[r#"
        {"n":1,"s":"plain","d":"1.50","f":"NaN","b":true}
        {"n":2,"s":"say \"hi\", all","d":null,"f":0.5,"b":false}
        {"n":3,"s":"","d":"2.25","f":null,"b":null}
    "#]],
    );
}

#[test]
fn a_box_shows_null_and_numbers_at_the_right() {
    let output = sql(&["--format", "box", "-e", VALUES]);
    check(
        &output,
        0,
        &expect![[r#"
        ┌───┬───────────────┬──────┬──────┬───────┐
        │ n │ s             │    d │    f │ b     │
        ╞═══╪═══════════════╪══════╪══════╪═══════╡
        │ 1 │ plain         │ 1.50 │  NaN │ true  │
        │ 2 │ say "hi", all │ NULL │  0.5 │ false │
        │ 3 │               │ 2.25 │ NULL │ NULL  │
        └───┴───────────────┴──────┴──────┴───────┘
    "#]],
    );
    // The older word for it.
    assert_eq!(stdout(&sql(&["--format", "table", "-e", VALUES])), stdout(&output));
}

#[test]
fn a_long_box_says_what_it_leaves_out() {
    let rows: Vec<String> = (0..50).map(|n| format!("({n})")).collect();
    let output = sql(&["--format", "box", "-e", &format!("VALUES {}", rows.join(", "))]);
    assert_eq!(stdout(&output).lines().count(), 40 + 4, "{}", stderr(&output));
    assert!(stderr(&output).contains("first 40 of 50 rows"), "{}", stderr(&output));
}

#[test]
fn no_colour_in_pipes() {
    let output = sql(&["--format", "box", "-e", "SELECT NULL AS n; SELCT"]);
    assert!(!stdout(&output).contains('\x1b') && !stderr(&output).contains('\x1b'));
}

#[test]
fn times_are_shown_in_the_local_zone() {
    let query = "SELECT TO_TIMESTAMP_LTZ(0, 3) AS t";
    let output = sql(&["-D", "table.local-time-zone=Asia/Tokyo", "-e", query]);
    assert_eq!(stdout(&output), "t\n1970-01-01T09:00:00+09:00\n", "{}", stderr(&output));
}

#[test]
fn help_and_version() {
    let folder = Folder::new();
    let version = folder.run(&["--version"]);
    assert_eq!(code(&version), 0);
    for part in ["tidemill ", "commit ", "arrow 5", "datafusion 5"] {
        assert!(stdout(&version).contains(part), "{}", stdout(&version));
    }
    for arguments in [&["--help"][..], &["sql", "--help"]] {
        let help = folder.run(arguments);
        assert_eq!(code(&help), 0);
        assert!(stdout(&help).contains("Examples:"), "{}", stdout(&help));
    }
}

#[test]
fn null_without_a_type_is_null_in_every_form() {
    let query = "SELECT NULL AS a, [NULL, NULL] AS b";
    let shown = |format: &str| sql(&["--format", format, "-e", query]);
    check(
        &shown("ndjson"),
        0,
        &expect![[r#"
        {"a":null,"b":[null,null]}
    "#]],
    );
    check(
        &shown("csv"),
        0,
        &expect![[r#"
        a,b
        ,"[null,null]"
    "#]],
    );
    assert!(stdout(&shown("box")).contains("│ NULL │ [null,null] │"), "{}", stdout(&shown("box")));
    let folder = Folder::new();
    let copies = "COPY (SELECT NULL AS a, [NULL] AS b) TO 'n.json'; COPY (SELECT NULL AS a, 1 AS b) TO 'n.csv'";
    check(&folder.run(&["sql", "-e", copies]), 0, &expect![[""]]);
    let written = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    assert_eq!(written("n.json"), "{\"a\":null,\"b\":[null]}\n");
    assert_eq!(written("n.csv"), "a,b\n,1\n");
}
