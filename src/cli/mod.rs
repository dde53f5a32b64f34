//! The command line: from arguments and settings to statements that run, and from their outcome to text on a terminal or pipe.
//!
//! ```text
//! args ─ config ─┐                       ┌ output: box, csv, ndjson
//!                ├ runner: one statement ┼ live, progress: what moves while it runs
//! script, shell ─┘                       └ report: errors, warnings, what the exit code says
//! ```
//!
//! In reading order: [`args`] (what can be asked for), [`config`] (where settings come from), [`script`] and [`shell`] (where
//! statements come from), [`runner`] (one statement, shown), [`results`] (the rows of a query in each result mode),
//! [`output`] (formats), [`live`], [`watch`], [`termination`] and [`progress`] (waiting), [`jobs`], [`report`]; [`local`] (jobs that outlive their process).

#![allow(clippy::disallowed_methods, reason = "a person who waits has a clock of their own")]

mod args;
mod config;
mod jobs;
mod live;
mod local;
mod output;
mod progress;
mod report;
mod results;
mod runner;
mod script;
mod shell;
mod terminal;
mod termination;
mod watch;

use std::io::{IsTerminal, Read};
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};
use tidemill_core::{Error, ErrorKind, Result};

use args::{Command, Sql, Tidemill};
use output::Output;
use report::{Reporter, Stop};
use runner::{Runner, Setting};
use script::Script;

/// Runs the command that the arguments ask for.
pub fn main() -> ExitCode {
    // clap keeps text for as long as the program runs.
    let version: &str = args::version().leak();
    let matches = Tidemill::command().version(version).get_matches();
    // clap has checked the arguments against the same definition, so this cannot fail except by a slip of ours.
    let arguments = Tidemill::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match arguments.command {
        Command::Sql(arguments) => sql(&arguments),
        Command::Run(arguments) => local::run(&arguments),
        Command::List(arguments) => local::list(&arguments),
        Command::Info(arguments) => local::info(&arguments),
        Command::Checkpoints(arguments) => local::checkpoints(&arguments),
        Command::Checkpoint(arguments) => local::checkpoint(&arguments),
        Command::Savepoint(arguments) => local::savepoint(&arguments),
        Command::Stop(arguments) => local::stop(&arguments),
        Command::Cancel(arguments) => local::cancel(&arguments),
    }
}

fn sql(arguments: &Sql) -> ExitCode {
    let mut reporter = Reporter::new();
    let (setting, scripts, shell) = match prepare(arguments, &mut reporter) {
        Ok(prepared) => prepared,
        Err(error) => return reporter.usage(&error),
    };
    let mut runner = match Runner::new(setting, reporter) {
        Ok(runner) => runner,
        Err((mut reporter, error)) if error.kind() == ErrorKind::Request => return reporter.usage(&error),
        Err((mut reporter, error)) => return reporter.stopped(&Stop::Failed(error)),
    };
    let ended = scripts.iter().try_for_each(|script| script.run(&mut runner)).and_then(|()| match shell {
        true => shell::run(&mut runner),
        false => runner.finish(),
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(stop) => {
            runner.abandon();
            runner.reporter().stopped(&stop)
        }
    }
}

/// Everything that can be wrong with how the command was called.
fn prepare(arguments: &Sql, reporter: &mut Reporter) -> Result<(Setting, Vec<Script>, bool)> {
    let (settings, warnings) = config::load(&arguments.settings)?;
    warnings.iter().for_each(|warning| reporter.warn(warning));
    let shell = arguments.execute.is_empty() && arguments.file.is_none() && std::io::stdin().is_terminal();
    let mut scripts = Vec::new();
    if let Some(file) = &arguments.init {
        scripts.push(read_script(file)?);
    }
    match (&arguments.file, arguments.execute.as_slice()) {
        (Some(file), _) => scripts.push(read_script(file)?),
        (None, []) if shell => {}
        (None, []) => scripts.push(Script::new("stdin", read_stdin()?)),
        (None, texts) => scripts.extend(texts.iter().map(|text| Script::new("-e", text.clone()))),
    }
    Ok((Setting { settings, output: Output::new(arguments.format), interactive: shell }, scripts, shell))
}

fn read_script(file: &Path) -> Result<Script> {
    if file == Path::new("-") {
        return Ok(Script::new("stdin", read_stdin()?));
    }
    let text = std::fs::read_to_string(file).map_err(|error| unreadable(&file.display().to_string(), error))?;
    Ok(Script::new(&file.display().to_string(), text))
}

fn read_stdin() -> Result<String> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map_err(|error| unreadable("stdin", error))?;
    Ok(text)
}

fn unreadable(name: &str, error: std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::InvalidData => {
            Error::request(format!("'{name}' is not UTF-8 text")).with_hint("save it as UTF-8")
        }
        _ => Error::from(error).context(format!("cannot read '{name}'")).with_hint("check the path"),
    }
}
