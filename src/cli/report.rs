//! What goes to standard error: errors, warnings, notes. Rows never do.
//!
//! An error is one line, `error: message; hint`. On a terminal the place in the SQL text follows it, with a caret below.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::ExitCode;

use tidemill::sql::parser::{error_span, pointer};
use tidemill_core::{Error, ErrorKind};

use super::terminal;

/// The exit code after SIGTERM: 128 and the signal's number.
pub const TERMINATED: u8 = 143;

/// Why running statements stops.
#[derive(Debug)]
pub enum Stop {
    /// A statement failed.
    Failed(Error),
    /// A statement failed, and its place in a text is known.
    FailedAt(Error, String),
    /// Ctrl-C.
    Interrupted,
    /// SIGTERM.
    Terminated,
    /// Nobody reads standard output any more, as with `| head`.
    Closed,
    /// `QUIT`
    Quit,
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        if is_closed_pipe(&error) { Self::Closed } else { Self::Failed(error) }
    }
}

impl Stop {
    /// The same with the place in `sql` that the error speaks of.
    pub fn in_text(self, sql: &str) -> Self {
        match self {
            Self::Failed(error) => match error_span(sql, &error) {
                Some(span) => {
                    let shown = pointer(sql, span);
                    // The error's own line names the place already.
                    let snippet = shown.split_once('\n').map_or(String::new(), |(_, snippet)| snippet.to_owned());
                    Self::FailedAt(error, snippet)
                }
                None => Self::Failed(error),
            },
            other => other,
        }
    }
}

/// Whether a job ended because its `print` sink has no reader any more. That cancels it; a broken connection makes it fail.
fn is_closed_pipe(error: &Error) -> bool {
    if error.kind() != ErrorKind::Cancelled {
        return false;
    }
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe) {
            return true;
        }
        source = error.source();
    }
    false
}

/// Writes to standard error. A reader that went away is no reason to fail.
#[derive(Debug)]
pub struct Reporter {
    terminal: bool,
    colour: bool,
    warned: BTreeSet<String>,
}

impl Reporter {
    /// A reporter that looks at the terminal once.
    pub fn new() -> Self {
        let terminal = terminal::is_stderr();
        Self { terminal, colour: terminal && terminal::may_colour(), warned: BTreeSet::new() }
    }

    /// Whether standard error is a terminal.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// A line that is neither error nor warning.
    pub fn note(&mut self, text: &str) {
        self.line(text);
    }

    /// A warning, once however often it is given.
    pub fn warn(&mut self, text: &str) {
        if self.warned.insert(text.to_owned()) {
            let label = self.label("warning", "33");
            self.line(&format!("{label}: {text}"));
        }
    }

    /// An error, with its place in the text where one is known.
    pub fn error(&mut self, error: &Error, snippet: &str) {
        let label = self.label("error", "31");
        // A message from below may have several lines; an error is one.
        let text = error.to_string();
        let text = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
        self.line(&format!("{label}: {text}"));
        if self.terminal && !snippet.is_empty() {
            self.line(snippet);
        }
    }

    /// A wrong call of the command.
    pub fn usage(&mut self, error: &Error) -> ExitCode {
        self.error(error, "");
        ExitCode::from(2)
    }

    /// Says why the command stops, and with which exit code.
    pub fn stopped(&mut self, stop: &Stop) -> ExitCode {
        match stop {
            Stop::Failed(error) => self.error(error, ""),
            Stop::FailedAt(error, snippet) => self.error(error, snippet),
            Stop::Interrupted => return ExitCode::from(130),
            Stop::Terminated => return ExitCode::from(TERMINATED),
            Stop::Closed | Stop::Quit => return ExitCode::SUCCESS,
        }
        ExitCode::FAILURE
    }

    fn label(&self, text: &str, colour: &str) -> String {
        if self.colour { format!("\x1b[1;{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn line(&self, text: &str) {
        let _ = writeln!(std::io::stderr().lock(), "{text}");
    }
}
