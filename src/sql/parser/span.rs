//! Places in the text of a script: byte ranges for slicing, lines and columns for people.
//!
//! The tokenizer counts in lines and characters, files and terminals in bytes and columns. [`Source`] holds where each
//! line begins, so that a place is turned into a byte offset by looking at one line only.

use datafusion::sql::sqlparser::tokenizer::{Location, Span as TokenSpan};
use tidemill_core::Error;

use super::fault::Located;

/// The widest piece of a source line that `pointer` shows.
const SNIPPET_COLUMNS: usize = 100;

/// A piece of the script's text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
    /// Line of the first byte, from 1.
    pub line: u64,
    /// Column of the first byte in characters, from 1.
    pub column: u64,
}

/// The byte offset of a line and column (both from 1); a place past a line's or the text's end becomes that end.
///
/// ```
/// use tidemill::sql::parser::locate;
/// assert_eq!(locate("a\nbé = 1", 2, 4), 6);
/// ```
pub fn locate(sql: &str, line: u64, column: u64) -> usize {
    Source::new(sql).offset(Location::new(line, column))
}

/// Where `span` lies, for a terminal: a line that names the place, the source line, and a caret under the place.
///
/// ```
/// use tidemill::sql::parser::{Span, pointer};
/// let sql = "SELECT 1;\nSELCT 2";
/// assert_eq!(pointer(sql, Span { start: 10, end: 15, line: 2, column: 1 }), "line 2, column 1\n  SELCT 2\n  ^^^^^");
/// ```
pub fn pointer(sql: &str, span: Span) -> String {
    let start = floor_boundary(sql, span.start);
    let line_start = sql[..start].rfind('\n').map_or(0, |newline| newline + 1);
    let line: Vec<char> = sql[line_start..].chars().take_while(|c| *c != '\n' && *c != '\r').collect();
    let column = sql[line_start..start].chars().count();
    let width = sql[start..floor_boundary(sql, span.end.max(start))].chars().take_while(|c| *c != '\n').count();

    // A long line is shown around the place, not from its beginning.
    let first = if line.len() <= SNIPPET_COLUMNS { 0 } else { column.saturating_sub(SNIPPET_COLUMNS / 2) };
    let shown: String = line.iter().skip(first).take(SNIPPET_COLUMNS).map(printable).collect();
    let caret_first = column - first;
    let caret_width = width.min(shown.chars().count().saturating_sub(caret_first)).max(1);
    let (blank, caret) = (" ".repeat(caret_first), "^".repeat(caret_width));
    format!("line {}, column {}\n  {shown}\n  {blank}{caret}", span.line, span.column)
}

/// The place that an error of this parser speaks about, if `error` has one.
pub fn error_span(sql: &str, error: &Error) -> Option<Span> {
    let source = std::error::Error::source(error)?;
    let located = source.downcast_ref::<Located>()?;
    let (line, column) = (located.line, located.column);
    let start = locate(sql, line, column);
    let word = sql[start..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').map(char::len_utf8).sum::<usize>();
    let end = match word {
        0 => start + sql[start..].chars().next().map_or(0, char::len_utf8),
        word => start + word,
    };
    Some(Span { start, end, line, column })
}

/// A script and where its lines begin.
pub(super) struct Source<'a> {
    pub(super) text: &'a str,
    line_starts: Vec<usize>,
    /// Where every character is a byte, a column need not be counted out; scripts in one long line are common.
    is_ascii: bool,
}

impl<'a> Source<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let after_newlines = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Self { text, line_starts: std::iter::once(0).chain(after_newlines).collect(), is_ascii: text.is_ascii() }
    }

    /// The byte offset of a place; the empty place (line 0) is the end of the text.
    pub(super) fn offset(&self, at: Location) -> usize {
        let Some(line) = usize::try_from(at.line).ok().and_then(|line| line.checked_sub(1)) else {
            return self.text.len();
        };
        let Some(&start) = self.line_starts.get(line) else { return self.text.len() };
        let end = self.line_starts.get(line + 1).map_or(self.text.len(), |next| next - 1);
        let characters = usize::try_from(at.column).unwrap_or(usize::MAX).saturating_sub(1);
        if self.is_ascii {
            return end.min(start.saturating_add(characters));
        }
        self.text[start..end].char_indices().nth(characters).map_or(end, |(within, _)| start + within)
    }

    /// A token's (or several tokens') piece of the text.
    pub(super) fn span(&self, span: TokenSpan) -> Span {
        let (start, end) = (self.offset(span.start), self.offset(span.end));
        Span { start, end: end.max(start), line: span.start.line, column: span.start.column }
    }

    /// The place of a byte offset.
    pub(super) fn location(&self, offset: usize) -> Location {
        let line = self.line_starts.partition_point(|start| *start <= offset).saturating_sub(1);
        let before = &self.text[self.line_starts[line]..floor_boundary(self.text, offset)];
        let column = if self.is_ascii { before.len() } else { before.chars().count() };
        Location::new(line as u64 + 1, column as u64 + 1)
    }
}

/// A caller may hand in any offset: the nearest character boundary at or below it.
fn floor_boundary(text: &str, offset: usize) -> usize {
    (0..=offset.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

/// Tabs and control characters take one column, so that the caret stands where it should.
fn printable(character: &char) -> char {
    if character.is_control() { ' ' } else { *character }
}
