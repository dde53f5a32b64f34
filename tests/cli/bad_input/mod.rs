//! Bad input: whatever is wrong is one line that names the thing and says what to do, and an exit code. Nothing panics, and no
//! file is left half written under its final name.

mod disks;
mod files;
mod options;
mod settings;
mod sockets;
mod tables;
mod types;

use std::path::Path;
use std::process::Output;

use super::{Folder, code, error, stderr};

/// Every run has this many subtasks unless a test says otherwise, so that errors are those of every machine.
const PARALLEL: [&str; 2] = ["-p", "2"];

/// What a plan runs as; bad input must be met in both.
const MODES: [&str; 2] = ["automatic", "streaming"];

impl Folder {
    /// Runs a script.
    fn sql(&self, script: &str) -> Output {
        self.run(&[&["sql"][..], &PARALLEL, &["-e", script]].concat())
    }

    /// Runs a script with queries as `mode` says.
    fn sql_as(&self, mode: &str, script: &str) -> Output {
        let mode = format!("execution.runtime-mode={mode}");
        self.run(&[&["sql"][..], &PARALLEL, &["-D", &mode, "-e", script]].concat())
    }
}

/// A run that ended with one error: a line that holds every part, the last of them in its hint.
#[track_caller]
fn refused(output: &Output, expected_code: i32, parts: &[&str]) {
    failed(output, expected_code, parts);
    let error = error(output);
    let hint = error.split_once("; ").map_or("", |(_, hint)| hint);
    assert!(parts.last().is_some_and(|part| hint.contains(part)), "the hint is '{hint}', of\n{error}");
}

/// The same without a word about the hint.
#[track_caller]
fn failed(output: &Output, expected_code: i32, parts: &[&str]) {
    let (text, error) = (stderr(output), error(output));
    assert_eq!(code(output), expected_code, "{text}");
    assert_eq!(text.lines().last(), Some(error.as_str()), "nothing follows the error:\n{text}");
    assert!(!text.contains("panicked") && !text.contains("backtrace"), "{text}");
    for part in parts {
        assert!(error.contains(part), "'{part}' is not in\n{error}");
    }
}

/// The files below `folder` that a reader of tables sees, hidden ones apart, by path.
fn visible_files(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut files = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name().into_string().unwrap_or_default();
        match entry.path().is_dir() {
            true => files.extend(visible_files(&entry.path()).into_iter().map(|file| format!("{name}/{file}"))),
            false if name.starts_with('.') => {}
            false => files.push(name),
        }
    }
    files.sort();
    files
}
