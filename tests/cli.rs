//! The command as a script meets it: what goes to which stream, in which form, and with which exit code.
//!
//! Every test runs the built binary in a folder of its own, without settings of whoever runs the tests.

#![allow(clippy::disallowed_methods, reason = "the tests wait in real time")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use expect_test::{Expect, expect};
use tempfile::TempDir;

/// A table that never ends.
const TICKS: &str = "CREATE TABLE ticks (n BIGINT) WITH ('connector' = 'datagen', 'rows-per-second' = '200', \
     'fields.n.min' = '7', 'fields.n.max' = '7');";

/// A folder with nothing in it that could be mistaken for settings.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: &str) -> &Self {
        let file = self.path().join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
        self
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        let ours = std::env::vars().map(|(name, _)| name).filter(|name| name.to_uppercase().starts_with("TIDEMILL_"));
        ours.for_each(|name| {
            command.env_remove(name);
        });
        command.args(arguments).current_dir(self.path()).stdin(Stdio::null());
        command.env("HOME", self.path()).env_remove("XDG_CONFIG_HOME").env_remove("XDG_STATE_HOME");
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn run_with_stdin(&self, arguments: &[&str], text: &str) -> Output {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }
}

fn sql(arguments: &[&str]) -> Output {
    Folder::new().run(&[&["sql"], arguments].concat())
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or(-1)
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The one line of standard error that begins with `error: `.
fn error(output: &Output) -> String {
    let text = stderr(output);
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(lines.len(), 1, "{text}");
    lines[0].to_owned()
}

fn check(output: &Output, expected_code: i32, expected_stdout: &Expect) {
    assert_eq!(code(output), expected_code, "{}", stderr(output));
    expected_stdout.assert_eq(&stdout(output));
}

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

/// The value and origin of a setting, as `SET` lists it.
fn setting(output: &Output, key: &str) -> String {
    let text = stdout(output);
    let line = text.lines().find(|line| line.starts_with(&format!("{key},")));
    line.unwrap_or_else(|| panic!("{text}{}", stderr(output))).to_owned()
}

#[test]
fn the_stronger_source_of_a_setting_wins() {
    let key = "execution.batch-rows";
    let folder = Folder::new();
    folder.write(".config/tidemill/tidemill.yaml", "execution.batch-rows: 1\n");
    assert_eq!(setting(&folder.run(&["sql", "-e", "SET"]), key), "execution.batch-rows,1,file");
    folder.write("tidemill.yaml", "execution:\n  batch-rows: 2\n");
    assert_eq!(setting(&folder.run(&["sql", "-e", "SET"]), key), "execution.batch-rows,2,file");
    folder.write("other.yaml", "execution.batch-rows: 3\n");
    let with_file = ["sql", "--config", "other.yaml", "-e", "SET"];
    assert_eq!(setting(&folder.run(&with_file), key), "execution.batch-rows,3,file");
    let mut command = folder.command(&with_file);
    let output = command.env("TIDEMILL_EXECUTION__BATCH_ROWS", "4").output().unwrap();
    assert_eq!(setting(&output, key), "execution.batch-rows,4,environment");
    let mut command = folder.command(&["sql", "-D", "execution.batch-rows=5", "-e", "SET"]);
    let output = command.env("tidemill_execution__batch_rows", "4").output().unwrap();
    assert_eq!(setting(&output, key), "execution.batch-rows,5,command line");
    let output = folder.run(&["sql", "-D", "execution.batch-rows=5", "-e", "SET 'execution.batch-rows' = '6'; SET"]);
    assert_eq!(setting(&output, key), "execution.batch-rows,6,SET");
    let output = folder.run(&["sql", "-p", "3", "-e", "SET"]);
    assert_eq!(setting(&output, "parallelism.default"), "parallelism.default,3,command line");
}

#[test]
fn a_wrong_setting_names_its_source() {
    let folder = Folder::new();
    folder.write("tidemill.yaml", "parallelism:\n  defualt: 2\n");
    let output = folder.run(&["sql", "-e", "SELECT 1"]);
    assert_eq!(code(&output), 2);
    for part in ["tidemill.yaml", "parallelism.defualt", "did you mean 'parallelism.default'?"] {
        assert!(error(&output).contains(part), "{}", error(&output));
    }
    folder.write("tidemill.yaml", "state.backend: memory\n");
    let output = folder.run(&["sql", "-e", "SELECT 1"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(stderr(&output).matches("warning: ").count(), 1, "{}", stderr(&output));
    assert!(stderr(&output).contains("state.backend.type"), "{}", stderr(&output));
    let mut command = folder.command(&["sql", "-e", "SELECT 1"]);
    let output = command.env("TIDEMILL_REST__PROT", "1").output().unwrap();
    assert!(code(&output) == 2 && error(&output).contains("TIDEMILL_REST__PROT"), "{}", stderr(&output));
}

#[test]
fn a_query_that_never_ends_needs_another_mode_in_a_pipe() {
    let started = Instant::now();
    let output = sql(&["-e", &format!("{TICKS} SELECT * FROM ticks")]);
    assert_eq!((code(&output), stdout(&output).as_str()), (1, ""));
    assert!(error(&output).contains("changelog"), "{}", error(&output));
    assert!(started.elapsed() < Duration::from_secs(20));
}

#[test]
fn limit_ends_a_query_that_never_ends() {
    let output = sql(&["-p", "1", "-e", &format!("{TICKS} SELECT n FROM ticks LIMIT 3")]);
    check(&output, 0, &expect!["n\n7\n7\n7\n"]);
}

#[test]
fn changes_come_as_they_happen_and_a_closed_pipe_ends_quietly() {
    let folder = Folder::new();
    let script =
        format!("SET 'sql-client.execution.result-mode' = 'changelog'; {TICKS} SELECT COUNT(*) AS c FROM ticks");
    let mut command = folder.command(&["sql", "-p", "1", "-e", &script]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first: Vec<String> = lines.by_ref().take(3).map(Result::unwrap).collect();
    assert_eq!(first[0], "op,c");
    assert!(first[1].starts_with("+I,") && first[2].starts_with("-U,"), "{first:?}");
    drop(lines);
    let status = child.wait().unwrap();
    let mut text = String::new();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(status.code(), Some(0), "{text}");
    assert!(!text.contains("error"), "{text}");
}

#[test]
fn tableau_shows_the_kind_only_where_rows_are_updated() {
    let mode = ["-D", "sql-client.execution.result-mode=tableau", "-D", "execution.runtime-mode=streaming", "-p", "1"];
    let rows = "FROM (VALUES (1), (2)) AS t (n)";
    let output = sql(&[&mode[..], &["-e", &format!("SELECT n {rows}")]].concat());
    check(&output, 0, &expect!["n\n1\n2\n"]);
    let output = sql(&[&mode[..], &["-e", &format!("SELECT COUNT(*) AS c {rows}")]].concat());
    assert!(stdout(&output).starts_with("op,c\n+I,"), "{}{}", stdout(&output), stderr(&output));
}

#[test]
fn a_column_called_op_is_in_the_way_of_a_changelog() {
    let output = sql(&["-D", "sql-client.execution.result-mode=changelog", "-e", "SELECT 1 AS op"]);
    assert_eq!((code(&output), stdout(&output).as_str()), (1, ""));
    assert!(error(&output).contains("SELECT op AS"), "{}", error(&output));
    assert_eq!(stdout(&sql(&["-e", "SELECT 1 AS op"])), "op\n1\n");
}

#[test]
fn insert_waits_for_its_job() {
    let folder = Folder::new();
    let script = "CREATE TABLE t (n BIGINT) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'csv');
        INSERT INTO t VALUES (1), (2); SELECT SUM(n) AS s FROM t;";
    let output = folder.run(&["sql", "-e", script]);
    check(&output, 0, &expect!["s\n3\n"]);
    // Without waiting the job still ends before the process does.
    let script = "CREATE TABLE t (n BIGINT) WITH ('connector' = 'filesystem', 'path' = 'other', 'format' = 'csv');
        SET 'table.dml-sync' = 'false'; INSERT INTO t VALUES (1), (2);";
    let output = folder.run(&["sql", "-e", script]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(stderr(&output).contains("job 1 is running"), "{}", stderr(&output));
    let output = folder.run(&[
        "sql",
        "-e",
        "CREATE TABLE t (n BIGINT) WITH ('connector' = 'filesystem', 'path' = 'other',
        'format' = 'csv'); SELECT SUM(n) AS s FROM t",
    ]);
    assert_eq!(stdout(&output), "s\n3\n", "{}", stderr(&output));
}

#[test]
fn a_job_that_fails_late_is_exit_code_1() {
    let script = "CREATE TABLE t (n BIGINT) WITH ('connector' = 'blackhole'); SET 'table.dml-sync' = 'false';
        INSERT INTO t SELECT 1 / n FROM (VALUES (0)) AS v (n);";
    let output = sql(&["-e", script]);
    assert_eq!(code(&output), 1, "{}", stderr(&output));
    assert!(error(&output).contains("job 1"), "{}", error(&output));
}

#[cfg(unix)]
#[test]
fn ctrl_c_is_exit_code_130() {
    let folder = Folder::new();
    let script = format!("SET 'sql-client.execution.result-mode' = 'changelog'; {TICKS} SELECT n FROM ticks");
    let mut child =
        folder.command(&["sql", "-e", &script]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "op,n");
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    // Whoever is interrupted may still write; nobody is to be blocked by that.
    lines.for_each(drop);
    assert_eq!(child.wait().unwrap().code(), Some(130));
}
