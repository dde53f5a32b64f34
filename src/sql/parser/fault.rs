//! What went wrong inside the parser, before it becomes the public error.
//!
//! sqlparser reports errors as text with the place at its end. A [`Fault`] keeps message, hint and place apart, so that
//! all errors of the parser read alike whoever found them: `expected X, found 'Y' at line L, column C; hint`.

use std::fmt;

use datafusion::error::DataFusionError;
use datafusion::sql::sqlparser::parser::ParserError;
use datafusion::sql::sqlparser::tokenizer::{Location, TokenWithSpan, TokenizerError};
use tidemill_core::Error;

/// The longest piece of the user's text that a message repeats.
const FOUND_CHARS: usize = 40;

/// Result of a parsing step.
pub(super) type Parse<T> = Result<T, Fault>;

/// A parse error that knows its place; the empty place (line 0) stands for the end of the statement.
#[derive(Debug)]
pub(super) struct Fault {
    message: String,
    hint: Option<String>,
    at: Location,
}

impl Fault {
    pub(super) fn new(message: impl Into<String>, at: Location) -> Self {
        Self { message: message.into(), hint: None, at }
    }

    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// `found` stands where `expected` should.
    pub(super) fn expected(expected: &str, found: &TokenWithSpan) -> Self {
        Self::new(expectation(expected, &found.to_string()), found.span.start)
    }

    /// Unknown `name` of a kind of `thing`, with the nearest known name as the hint.
    pub(super) fn unknown<'a>(thing: &str, name: &str, known: impl IntoIterator<Item = &'a str>, at: Location) -> Self {
        let error = tidemill_core::error::unknown(thing, &shorten(name), known);
        Self { message: error.message().to_owned(), hint: error.hint().map(str::to_owned), at }
    }

    /// The same fault, placed at `end` if it has no place of its own.
    pub(super) fn or_at(self, end: Location) -> Self {
        if self.at.line == 0 { Self { at: end, ..self } } else { self }
    }

    /// Whether the fault is placed at `at`.
    pub(super) fn is_at(&self, at: Location) -> bool {
        self.at == at
    }

    /// The public error.
    pub(super) fn into_error(self) -> Error {
        let located = Located { line: self.at.line, column: self.at.column };
        let error = match located.line {
            0 => Error::request(self.message),
            _ => Error::request(format!("{} {located}", self.message)).with_source(located),
        };
        match self.hint {
            Some(hint) => error.with_hint(hint),
            None => error,
        }
    }
}

/// The source of an error that points at a place in the text.
#[derive(Clone, Copy, Debug)]
pub(in crate::sql) struct Located {
    pub(in crate::sql) line: u64,
    pub(in crate::sql) column: u64,
}

impl fmt::Display for Located {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at line {}, column {}", self.line, self.column)
    }
}

impl std::error::Error for Located {}

impl From<ParserError> for Fault {
    fn from(error: ParserError) -> Self {
        let text = match error {
            ParserError::ParserError(text) | ParserError::TokenizerError(text) => text,
            ParserError::RecursionLimitExceeded => {
                return Self::new("the statement nests too deeply", Location::empty());
            }
        };
        let (text, at) = split_place(&text);
        let (text, hint) = match text.split_once(HINT_MARK) {
            Some((text, hint)) => (text, Some(hint.to_owned())),
            None => (text, None),
        };
        Self { message: reword(text), hint, at }
    }
}

impl From<TokenizerError> for Fault {
    fn from(error: TokenizerError) -> Self {
        Self::new(reword(&error.message), error.location)
    }
}

impl From<DataFusionError> for Fault {
    fn from(error: DataFusionError) -> Self {
        match error {
            DataFusionError::SQL(error, _) => Self::from(*error),
            DataFusionError::Diagnostic(_, error) | DataFusionError::Context(_, error) => Self::from(*error),
            error => Self::new(reword(&error.strip_backtrace()), Location::empty()),
        }
    }
}

/// Hooks inside sqlparser can only hand out its own error, which is text: this mark keeps the hint apart in it.
const HINT_MARK: &str = "\u{1f}";

impl From<Fault> for ParserError {
    fn from(fault: Fault) -> Self {
        let hint = fault.hint.map(|hint| format!("{HINT_MARK}{hint}")).unwrap_or_default();
        Self::ParserError(format!("{}{hint}{}", fault.message, fault.at))
    }
}

/// Cuts sqlparser's ` at Line: L, Column: C` off a message.
fn split_place(text: &str) -> (&str, Location) {
    let place = |place: &str| {
        let (line, column) = place.split_once(", Column: ")?;
        Some(Location::new(line.parse().ok()?, column.trim().parse().ok()?))
    };
    match text.rsplit_once(" at Line: ") {
        Some((message, rest)) => place(rest).map_or((text, Location::empty()), |at| (message, at)),
        None => (text, Location::empty()),
    }
}

/// sqlparser's wording in ours: lowercase, quoted tokens, one line.
fn reword(text: &str) -> String {
    let text = text.strip_prefix("sql parser error: ").unwrap_or(text).trim().trim_end_matches('.');
    if let Some((expected, found)) = text.strip_prefix("Expected: ").and_then(|text| text.split_once(", found: ")) {
        return expectation(expected, found);
    }
    // Only a capital that begins a word of prose: `EXPLAIN` and `JSON` stay as they are.
    let mut characters = text.chars();
    let lowered = match (characters.next(), characters.clone().next()) {
        (Some(first), Some(second)) if !second.is_uppercase() => first.to_lowercase().chain(characters).collect(),
        _ => text.to_owned(),
    };
    lowered.replace(['\n', '\r'], " ")
}

fn expectation(expected: &str, found: &str) -> String {
    let expected = match expected.chars().any(char::is_alphanumeric) {
        true => expected.to_owned(),
        false => format!("'{expected}'"),
    };
    match found {
        "EOF" => format!("expected {expected}, found the end of the statement"),
        found if found.starts_with(['\'', '"', '`']) => format!("expected {expected}, found {}", shorten(found)),
        found => format!("expected {expected}, found '{}'", shorten(found)),
    }
}

/// A piece of the user's text, on one line and short enough for a message.
pub(super) fn shorten(text: &str) -> String {
    let line = text.replace(['\n', '\r', '\t'], " ");
    match line.char_indices().nth(FOUND_CHARS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}
