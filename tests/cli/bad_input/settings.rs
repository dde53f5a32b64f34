//! Settings that nobody knows, from wherever they come. What a file or a variable gets wrong without a slip stands in the tests of
//! settings.

use super::super::{Folder, stdout};
use super::refused;

const NEAR: &str = "did you mean 'parallelism.default'?";

#[test]
fn an_unknown_setting_of_a_statement_names_the_nearest() {
    let folder = Folder::new();
    let output = folder.sql("SELECT 1 AS a; SET 'paralelism.default' = '2'; SELECT 2");
    refused(&output, 1, &["unknown setting 'paralelism.default'", NEAR]);
    assert_eq!(stdout(&output), "a\n1\n");
    refused(&folder.sql("RESET 'paralelism.default'"), 1, &["unknown setting 'paralelism.default'", NEAR]);
    refused(&folder.sql("SET 'qqq' = '2'"), 1, &["unknown setting 'qqq'", "`SET;` lists them all"]);
}

#[test]
fn an_unknown_setting_of_the_command_line_names_the_nearest() {
    let output = Folder::new().run(&["sql", "-D", "paralelism.default=2", "-e", "SELECT 1"]);
    refused(&output, 2, &["-D: unknown setting 'paralelism.default'", NEAR]);
}

#[test]
fn an_unknown_setting_of_a_file_names_the_nearest() {
    let folder = Folder::new();
    for text in ["paralelism.default: 2\n", "paralelism:\n  default: 2\n"] {
        folder.write("tidemill.yaml", text);
        let output = folder.run(&["sql", "-e", "SELECT 1"]);
        refused(&output, 2, &["tidemill.yaml: unknown setting 'paralelism.default'", NEAR]);
    }
    folder.write("tidemill.yaml", "").write("other.yaml", "paralelism.default: 2\n");
    let output = folder.run(&["sql", "--config", "other.yaml", "-e", "SELECT 1"]);
    refused(&output, 2, &["other.yaml: unknown setting 'paralelism.default'", NEAR]);
    folder.write("other.yaml", "parallelism.default: [\n");
    let output = folder.run(&["sql", "--config", "other.yaml", "-e", "SELECT 1"]);
    refused(&output, 2, &["'other.yaml' is not YAML", "parallelism.default: 4"]);
    let output = folder.run(&["sql", "--config", "missing.yaml", "-e", "SELECT 1"]);
    refused(&output, 2, &["cannot read the settings in 'missing.yaml'", "check the path"]);
}

#[test]
fn an_unknown_setting_of_the_environment_names_the_nearest() {
    let folder = Folder::new();
    let mut command = folder.command(&["sql", "-e", "SELECT 1"]);
    let output = command.env("TIDEMILL_PARALELISM__DEFAULT", "2").output().unwrap();
    refused(&output, 2, &["TIDEMILL_PARALELISM__DEFAULT: unknown setting 'paralelism.default'", NEAR]);
}

#[test]
fn a_value_that_a_setting_cannot_have_says_what_it_can() {
    let folder = Folder::new();
    for (key, value, hint) in [
        ("parallelism.default", "many", "from 1 to"),
        ("parallelism.default", "0", "from 1 to"),
        ("execution.buffer-timeout", "soon", "'infinite'"),
        ("execution.runtime-mode", "btach", "batch"),
        ("table.local-time-zone", "Mars/Olympus", "Europe/"),
        ("taskmanager.memory.process.size", "much", "mb"),
    ] {
        let output = folder.sql(&format!("SET '{key}' = '{value}'"));
        refused(&output, 1, &[&format!("setting '{key}': "), &format!("'{value}'"), hint]);
        let output = folder.run(&["sql", "-D", &format!("{key}={value}"), "-e", "SELECT 1"]);
        refused(&output, 2, &[&format!("-D: setting '{key}': "), hint]);
    }
}

#[test]
fn a_folder_for_spill_files_that_cannot_be_is_found_at_once() {
    let folder = Folder::new();
    folder.write("file", "");
    let output = folder.run(&["sql", "-D", "io.tmp.dirs=file/below", "-e", "SELECT 1"]);
    refused(&output, 1, &["setting 'io.tmp.dirs': 'file/below'", "name folders that can be written to"]);
}
