//! Where statements come from, and what an error says of them.

use expect_test::expect;

use super::{Folder, check, code, error, sql, stderr, stdout};

#[test]
fn an_error_names_file_line_and_statement_and_nothing_behind_it_runs() {
    let folder = Folder::new();
    folder.write("job.sql", "SELECT 1 AS a;\n\nSELECT b FROM (SELECT 1 AS a);\nSELECT 3 AS c;\n");
    let output = folder.run(&["sql", "-f", "job.sql"]);
    assert_eq!(code(&output), 1);
    assert_eq!(stdout(&output), "a\n1\n");
    let error = error(&output);
    for part in ["job.sql", "line 3", "SELECT b FROM", "'b'"] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn a_slip_in_the_last_line_is_found_before_anything_runs() {
    let folder = Folder::new();
    folder.write("job.sql", "SELECT 1 AS a;\nSELCT 2;\n");
    let output = folder.run(&["sql", "-f", "job.sql"]);
    assert_eq!((code(&output), stdout(&output).as_str()), (1, ""));
    let error = error(&output);
    for part in ["job.sql", "line 2", "SELCT", "did you mean 'SELECT'?"] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn a_failure_while_rows_flow_is_exit_code_1() {
    let output = sql(&["-e", "SELECT 1 / n AS q FROM (VALUES (0)) AS t (n)"]);
    assert_eq!((code(&output), stdout(&output).as_str()), (1, ""), "{}", stderr(&output));
    assert!(error(&output).contains("-e, line 1"), "{}", stderr(&output));
}

#[test]
fn statements_come_from_stdin_too() {
    let folder = Folder::new();
    let output = folder.run_with_stdin(&["sql"], "CREATE VIEW v AS SELECT 7 AS n;\nSELECT n FROM v;\nQUIT;\nSELECT 2;");
    check(&output, 0, &expect!["n\n7\n"]);
    let output = folder.run_with_stdin(&["sql"], "SELECT 1;\nSELCT");
    assert!(error(&output).contains("stdin, line 2"), "{}", stderr(&output));
    let output = folder.run_with_stdin(&["sql", "-f", "-"], "SELECT 1 AS n");
    assert_eq!(stdout(&output), "n\n1\n");
}

#[test]
fn an_init_file_runs_first_and_texts_in_order() {
    let folder = Folder::new();
    folder.write("tables.sql", "CREATE VIEW v AS SELECT 7 AS n;");
    let output = folder.run(&["sql", "-i", "tables.sql", "-e", "SELECT n FROM v", "-e", "SELECT n + 1 AS m FROM v"]);
    check(&output, 0, &expect!["n\n7\nm\n8\n"]);
}

#[test]
fn wrong_usage_is_exit_code_2() {
    for arguments in [
        &["-e", "SELECT 1", "--format", "xml"][..],
        &["-e", "SELECT 1", "-f", "x.sql"],
        &["-f", "missing.sql"],
        &["-e", "SELECT 1", "-D", "parallelism"],
        &["-e", "SELECT 1", "-D", "paralelism.default=2"],
        &["-e", "SELECT 1", "-D", "parallelism.default=many"],
        &["-e", "SELECT 1", "-p", "0"],
        &["-e", "SELECT 1", "--config", "missing.yaml"],
    ] {
        let output = sql(arguments);
        assert_eq!((code(&output), stdout(&output).as_str()), (2, ""), "{arguments:?}: {}", stderr(&output));
    }
    let error = error(&sql(&["-e", "SELECT 1", "-D", "paralelism.default=2"]));
    assert!(error.contains("did you mean 'parallelism.default'?"), "{error}");
    assert_eq!(code(&Folder::new().run(&["squeal"])), 2);
}
