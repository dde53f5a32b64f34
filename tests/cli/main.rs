//! The command as a script meets it: what goes to which stream, in which form, and with which exit code.
//!
//! Every test runs the built binary in a folder of its own, without settings of whoever runs the tests.

#![allow(clippy::disallowed_methods, reason = "the tests wait in real time")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod bad_input;
mod checkpoints;
mod control;
mod forks;
mod full_disk;
mod jobs;
mod kills;
mod origin;
mod output;
mod recovery;
mod rolling;
mod scripts;
mod settings;
mod state;
mod streams;
mod twin_inserts;
mod watched;

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use expect_test::Expect;
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

/// A running process, which is killed when it goes out of scope.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Tries again until it is so.
fn until<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let begun = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(last) => assert!(begun.elapsed() < Duration::from_secs(60), "{what}: {last}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Waits until each job of the script `job.sql` has completed so many checkpoints.
fn until_checkpoints(folder: &Folder, count: u64) {
    until("checkpoints of each job", || {
        let listed = folder.run(&["list", "--dir", ".tidemill/job.sql", "--format", "json"]);
        let jobs: Vec<serde_json::Value> = serde_json::from_str(&stdout(&listed)).map_err(|_| stderr(&listed))?;
        let has_them = |job: &serde_json::Value| job["checkpoints_completed"].as_u64().unwrap() >= count;
        if jobs.iter().all(has_them) { Ok(()) } else { Err(stdout(&listed)) }
    });
}

/// Runs the script `job.sql` until each of its jobs has completed so many checkpoints, and kills the process.
fn killed_after_checkpoints(folder: &Folder, count: u64, arguments: &[&str]) {
    let arguments = [&["run", "--local", "-f", "job.sql"], arguments].concat();
    let running = Running(folder.command(&arguments).spawn().unwrap());
    until_checkpoints(folder, count);
    drop(running);
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
