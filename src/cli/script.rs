//! A text of several statements, run in order up to the first error.
//!
//! The whole text is parsed before anything runs, so that a slip in the last line is not found after an hour's work.

use tidemill::sql::parser::{Parsed, error_span, parse_script};
use tidemill_core::Error;

use super::report::Stop;
use super::runner::Runner;

/// The longest piece of a statement that an error repeats.
const STATEMENT_CHARS: usize = 60;

/// A text of statements and where it came from.
#[derive(Debug)]
pub struct Script {
    name: String,
    text: String,
}

impl Script {
    /// The statements in `text`, which came from `name`.
    pub fn new(name: &str, text: String) -> Self {
        // An editor's byte order mark is no part of the first statement.
        let text = text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text);
        Self { name: name.to_owned(), text }
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Runs the statements.
    pub fn run(&self, runner: &mut Runner) -> Result<(), Stop> {
        let statements = parse_script(&self.text).map_err(|error| self.failed(error, None))?;
        for statement in &statements {
            runner.statement(statement).map_err(|stop| match stop {
                Stop::Failed(error) => self.failed(error, Some(statement)),
                other => other,
            })?;
        }
        Ok(())
    }

    /// The error under the name of file, line and statement.
    pub fn failed(&self, error: Error, statement: Option<&Parsed>) -> Stop {
        let span = error_span(&self.text, &error);
        let line = span.or(statement.map(|statement| statement.span)).map_or(1, |span| span.line);
        let text = match statement {
            Some(statement) => &statement.text,
            // What does not parse is no statement yet: its line stands for it.
            None => self.text.lines().nth(line.saturating_sub(1) as usize).unwrap_or_default(),
        };
        let (mut message, mut place) = (error.message().to_owned(), format!("line {line}"));
        if let Some(span) = span {
            place = format!("line {line}, column {}", span.column);
            message = message.replacen(&format!(" at {place}"), "", 1);
        }
        let named = Error::new(error.kind(), format!("{}, {place}, in '{}': {message}", self.name, shortened(text)));
        let named = match error.hint() {
            Some(hint) => named.with_hint(hint.to_owned()),
            None => named,
        };
        // Only the original error knows the place that the snippet shows.
        match Stop::Failed(error).in_text(&self.text) {
            Stop::FailedAt(_, snippet) => Stop::FailedAt(named, snippet),
            _ => Stop::Failed(named),
        }
    }
}

/// A statement on one line, its end cut off if it is long.
fn shortened(statement: &str) -> String {
    let line = statement.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(STATEMENT_CHARS) {
        Some((end, _)) => format!("{}…", line[..end].trim_end()),
        None => line,
    }
}
