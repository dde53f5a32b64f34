//! Statements run end to end in one process: what a user types, and what comes back.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

mod bounded;
mod errors;
mod local_time;
mod names;
mod partitions;
mod streaming;
mod windows;
mod writers;

use std::path::Path;

use arrow::util::display::{ArrayFormatter, FormatOptions};
use tidemill_core::Settings;
use tidemill_core::settings::Origin;

use super::parser::parse_script;
use super::{Outcome, Rows, Session};

/// A session of two subtasks.
pub(crate) fn session() -> Session {
    let mut settings = Settings::default();
    settings.set("parallelism.default", "2", Origin::CommandLine).unwrap();
    Session::new(settings).unwrap()
}

/// Runs a script; the rows of its last statement as text, or the error.
pub(crate) fn run(session: &mut Session, script: &str) -> Result<String, String> {
    let mut text = String::new();
    for parsed in parse_script(script).map_err(|error| error.to_string())? {
        text = match session.run(&parsed).map_err(|error| error.to_string())? {
            Outcome::Query(query) => {
                let rows = session.block_on(query.collect()).map_err(|error| error.to_string())?;
                lines(&rows)
            }
            Outcome::Table(rows) => lines(&rows),
            Outcome::Job(job) => {
                session.block_on(job.wait()).map_err(|error| error.to_string())?;
                "ok".to_owned()
            }
            Outcome::Done(text) => text,
            Outcome::Shell(word) => format!("{word:?}"),
        };
    }
    Ok(text)
}

/// Runs a script in a session of its own and compares the lines of its last result, sorted.
pub(crate) fn check(script: &str, expected: &[&str]) {
    let found = run(&mut session(), script).unwrap_or_else(|error| panic!("{error}\nfor: {script}"));
    let mut found: Vec<&str> = found.lines().collect();
    let mut expected = expected.to_vec();
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected, "\nfor: {script}");
}

/// The same, as a bounded plan and as a stream whose changes are folded.
pub(crate) fn check_both(script: &str, expected: &[&str]) {
    check(script, expected);
    check(&format!("SET 'execution.runtime-mode' = 'streaming'; {script}"), expected);
}

/// Runs a script that must fail, and compares the error.
pub(crate) fn check_error(script: &str, expected: &str) {
    let found = run(&mut session(), script);
    assert_eq!(found, Err(expected.to_owned()), "\nfor: {script}");
}

/// A line for each row, values parted by a bar.
pub(crate) fn lines(rows: &Rows) -> String {
    let options = FormatOptions::default().with_null("NULL");
    let mut lines = Vec::new();
    for batch in &rows.batches {
        let columns: Vec<ArrayFormatter> =
            batch.columns().iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &options).unwrap()).collect();
        for row in 0..batch.num_rows() {
            lines.push(columns.iter().map(|column| column.value(row).to_string()).collect::<Vec<_>>().join("|"));
        }
    }
    lines.join("\n")
}

/// Writes a file below `dir` and gives its path.
pub(crate) fn file(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}
