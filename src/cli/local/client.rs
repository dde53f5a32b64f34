//! Asking a running process, which is found by its folder.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use tidemill_core::time::Calendar;
use tidemill_core::{Error, ErrorKind, Result};

use super::control::{Address, Answer, Ask, CONTROL_FILE, CheckpointLine, JobInfo, MESSAGE_BYTES_MAX, Question};
use crate::cli::args::{ListFormat, OfJob, Savepoint, StopJob};
use crate::cli::output::{Drawing, draw};
use crate::cli::report::Reporter;
use crate::cli::terminal::grouped;

/// How long a process may take to answer a question about what is.
const PATIENCE: Duration = Duration::from_secs(10);

/// `tidemill list`
pub fn list(arguments: &OfJob) -> ExitCode {
    show(arguments, Ask::List)
}

/// `tidemill info`
pub fn info(arguments: &OfJob) -> ExitCode {
    show(arguments, Ask::Info)
}

/// `tidemill checkpoints`
pub fn checkpoints(arguments: &OfJob) -> ExitCode {
    show(arguments, Ask::Checkpoints)
}

/// `tidemill checkpoint`
pub fn checkpoint(arguments: &OfJob) -> ExitCode {
    show(arguments, Ask::Checkpoint)
}

/// `tidemill cancel`
pub fn cancel(arguments: &OfJob) -> ExitCode {
    show(arguments, Ask::Cancel)
}

/// `tidemill savepoint`
pub fn savepoint(arguments: &Savepoint) -> ExitCode {
    if let Some(path) = &arguments.dispose {
        return told(super::run::dispose(path));
    }
    match arguments.path.as_deref().map(from_here).transpose() {
        Ok(path) => show(&arguments.of, Ask::Savepoint { path }),
        Err(error) => told(Err(error)),
    }
}

/// `tidemill stop`
pub fn stop(arguments: &StopJob) -> ExitCode {
    match arguments.savepoint_path.as_deref().map(from_here).transpose() {
        Ok(path) => show(&arguments.of, Ask::Stop { drain: arguments.drain, path }),
        Err(error) => told(Err(error)),
    }
}

/// A place as the running process has to understand it: a relative path begins in the folder of whoever asks. As a URL it stays
/// what it is, whatever paths without a scheme mean there.
fn from_here(path: &str) -> Result<String> {
    if path.contains("://") || path.starts_with('/') {
        return Ok(path.to_owned());
    }
    let absolute = std::path::absolute(path).map_err(|error| Error::from(error).context(path))?;
    Ok(format!("file://{}", absolute.display()))
}

fn show(arguments: &OfJob, ask: Ask) -> ExitCode {
    let asked = match &arguments.dir {
        Some(dir) => question(dir, arguments.job.clone(), ask),
        None => Err(Error::request("which process is meant? --dir names its folder")),
    };
    told(asked.and_then(|answer| print(answer, arguments.format)))
}

fn told(result: Result<()>) -> ExitCode {
    let mut reporter = Reporter::new();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == ErrorKind::Request => reporter.usage(&error),
        Err(error) => {
            reporter.error(&error, "");
            ExitCode::FAILURE
        }
    }
}

fn question(dir: &Path, job: Option<String>, ask: Ask) -> Result<Answer> {
    let file = dir.join(CONTROL_FILE);
    let nobody = || {
        let error = Error::unavailable(format!("no process runs the jobs of '{}'", dir.display()));
        error.with_hint("'tidemill run --local -f FILE --resume' starts one")
    };
    let text = std::fs::read(&file).map_err(|error| nobody().with_source(error))?;
    let Address { address, token, .. } = serde_json::from_slice(&text)
        .map_err(|error| Error::corrupt(format!("'{}' does not say who listens", file.display())).with_source(error))?;
    // A savepoint takes as long as its store; who only looks is answered at once, or something is wrong.
    let patience = ask.is_look().then_some(PATIENCE);
    let question = serde_json::to_string(&Question { token, job, ask })
        .map_err(|error| Error::internal("a question that is no JSON").with_source(error))?;
    let connection = TcpStream::connect(&address).map_err(|error| nobody().with_source(error))?;
    let line = exchange(connection, &question, patience)?;
    serde_json::from_str(&line).map_err(|error| Error::internal("an answer that is no JSON").with_source(error))
}

/// Asks, and waits for the answer; no longer than `patience` if there is one.
fn exchange(connection: TcpStream, question: &str, patience: Option<Duration>) -> Result<String> {
    let gone = |error: std::io::Error| match (patience, error.kind()) {
        (Some(patience), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
            let error = Error::unavailable(format!("the process has not answered for {patience:?}")).with_source(error);
            error.with_hint("it may be stopped, or too busy to answer; ask again")
        }
        _ => Error::from(error).context("the process did not answer"),
    };
    connection.set_read_timeout(patience).map_err(gone)?;
    (&connection).write_all(format!("{question}\n").as_bytes()).map_err(gone)?;
    let mut line = String::new();
    BufReader::new(connection.take(MESSAGE_BYTES_MAX)).read_line(&mut line).map_err(gone)?;
    match line.is_empty() {
        true => Err(Error::unavailable("the process did not answer").with_hint("it may have ended meanwhile")),
        false => Ok(line),
    }
}

fn print(answer: Answer, format: ListFormat) -> Result<()> {
    let text = match (answer, format) {
        (Answer::Failed { request, message, hint }, _) => {
            let kind = if request { ErrorKind::Request } else { ErrorKind::Unavailable };
            let error = Error::new(kind, message);
            return Err(match hint {
                Some(hint) => error.with_hint(hint),
                None => error,
            });
        }
        (Answer::Done, _) => String::new(),
        (Answer::Place(place), _) => format!("{place}\n"),
        (Answer::Jobs(jobs), ListFormat::Json) => json(&jobs)?,
        (Answer::Checkpoints(lines), ListFormat::Json) => json(&lines)?,
        (Answer::Jobs(jobs), ListFormat::Box) => jobs.iter().map(job_text).collect(),
        (Answer::Checkpoints(lines), ListFormat::Box) => checkpoints_text(&lines)?,
    };
    // A reader that went away is no failure.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    Ok(())
}

fn json(value: &impl serde::Serialize) -> Result<String> {
    let text = serde_json::to_string_pretty(value);
    Ok(text.map_err(|error| Error::internal("an answer that is no JSON").with_source(error))? + "\n")
}

fn job_text(job: &JobInfo) -> String {
    let mut text = format!("{} {}: {}\n", job.id, job.name, job.state);
    let (completed, failed) = (grouped(job.checkpoints_completed), grouped(job.checkpoints_failed));
    text.push_str(&format!("  checkpoints: {completed} completed, {failed} failed\n"));
    if let Some(cause) = &job.first_cause {
        text.push_str(&match job.restarts {
            0 => format!("  first failure: {cause}\n"),
            restarts => format!("  restarts: {restarts}, the first because of: {cause}\n"),
        });
    }
    if let Some(last) = job.last_failure.as_ref().filter(|last| Some(*last) != job.first_cause.as_ref()) {
        text.push_str(&format!("  last failure: {last}\n"));
    }
    for (task, counters) in &job.tasks {
        let counters: Vec<String> =
            counters.iter().map(|(name, value)| format!("{name} {}", grouped(*value))).collect();
        text.push_str(&format!("  {task}: {}\n", counters.join(", ")));
    }
    for (name, value) in &job.accumulators {
        text.push_str(&format!("  accumulator {name}: {value}\n"));
    }
    text
}

fn checkpoints_text(lines: &[CheckpointLine]) -> Result<String> {
    let time = |millis| {
        let time = arrow::temporal_conversions::timestamp_ms_to_datetime(millis);
        time.map_or_else(String::new, |time| time.to_string())
    };
    let status = |line: &CheckpointLine| match &line.failure {
        Some(failure) => format!("{}: {failure}", line.status),
        None => line.status.clone(),
    };
    // Empty where nothing was overtaken.
    let in_flight = |line: &CheckpointLine| match line.unaligned {
        true => grouped(line.in_flight_bytes),
        false => String::new(),
    };
    let column = |text: &dyn Fn(&CheckpointLine) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(lines.iter().map(text)))
    };
    let records = RecordBatch::try_from_iter([
        ("id", column(&|line| line.id.to_string())),
        ("kind", column(&|line| line.kind.clone())),
        ("status", column(&status)),
        ("triggered", column(&|line| time(line.triggered_at))),
        ("ms", column(&|line| format!("{:.1}", line.duration_ms))),
        ("synchronous ms", column(&|line| format!("{:.2}", line.synchronous_ms))),
        ("alignment ms", column(&|line| format!("{:.2}", line.alignment_ms))),
        ("in flight bytes", column(&in_flight)),
        ("new bytes", column(&|line| grouped(line.new_bytes))),
        ("all bytes", column(&|line| grouped(line.total_bytes))),
        ("path", column(&|line| line.path.clone())),
    ])?;
    let drawing = Drawing { zone: Calendar::parse("UTC")?, width: None, colour: false };
    Ok(draw(&records.schema(), &[records], drawing)?.0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn who_only_looks_does_not_wait_for_ever() {
        let looks = [Ask::List, Ask::Info, Ask::Checkpoints];
        assert!(looks.iter().all(Ask::is_look));
        let works =
            [Ask::Checkpoint, Ask::Savepoint { path: None }, Ask::Stop { drain: false, path: None }, Ask::Cancel];
        assert!(!works.iter().any(Ask::is_look));

        // The system accepts for it; the process never does.
        let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let connection = TcpStream::connect(silent.local_addr().unwrap()).unwrap();
        let error = exchange(connection, "{}", Some(Duration::from_millis(50))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().starts_with("the process has not answered for 50ms; "), "{error}");
    }

    #[test]
    fn a_job_shows_what_its_functions_have_added_up() {
        let job = JobInfo {
            id: "1".to_owned(),
            name: "words".to_owned(),
            state: "running".to_owned(),
            restarts: 0,
            first_cause: None,
            last_failure: None,
            checkpoints_completed: 1_002,
            checkpoints_failed: 0,
            tasks: vec![("count".to_owned(), vec![("numRecordsIn".to_owned(), 1_000)])],
            accumulators: BTreeMap::from([("lengths".to_owned(), serde_json::json!({"3": 7}))]),
        };
        let lines = "1 words: running\n  checkpoints: 1,002 completed, 0 failed\n  count: numRecordsIn 1,000\n  accumulator lengths: {\"3\":7}\n";
        assert_eq!(job_text(&job), lines);
    }
}
