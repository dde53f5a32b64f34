//! Cuts delimited text into fields: positions alone, no copies, except for fields with escapes.
//!
//! A quote means something only at the start of a field. Line ends are `\n` and `\r\n`; blank lines are skipped, except in
//! tables of one column, where a blank line is a row that holds NULL.

use super::super::{RowError, RowText};
use super::CsvOptions;

/// A field: where it lies in the text, or, once unescaped, in the scratch.
#[derive(Clone, Copy, Debug)]
struct Span {
    start: u32,
    end: u32,
}

/// In `start`: the field lies in the scratch. In `end`: the field was quoted.
const FLAG: u32 = 1 << 31;

/// The fields of several rows.
#[derive(Debug)]
pub(super) struct Tokens {
    dialect: CsvOptions,
    /// Bytes at which the scan of an unquoted field stops, each in all bytes of a word.
    stops: [u64; 3],
    /// Fields a row; `None` if any number will do.
    width: Option<usize>,
    spans: Vec<Span>,
    row_starts: Vec<u32>,
    scratch: Vec<u8>,
}

/// How the scan of a row ended; all but the first carry where the next row begins.
enum Scan {
    /// The row goes on behind the text that there is.
    Partial,
    Row(usize),
    Nothing(usize),
    Bad {
        next: usize,
        column: usize,
        reason: String,
    },
}

enum FieldEnd {
    Delimiter(usize),
    Line(usize),
    Partial,
    Bad(&'static str),
}

impl Tokens {
    pub(super) fn new(dialect: &CsvOptions, width: Option<usize>) -> Self {
        let stops = [dialect.delimiter, b'\n', dialect.escape_apart().unwrap_or(b'\n')];
        let stops = stops.map(|stop| u64::from_ne_bytes([stop; 8]));
        let dialect = dialect.clone();
        Self { dialect, stops, width, spans: Vec::new(), row_starts: Vec::new(), scratch: Vec::new() }
    }

    pub(super) fn rows(&self) -> usize {
        self.row_starts.len()
    }

    /// Where a row begins in the text.
    pub(super) fn row_start(&self, row: usize) -> usize {
        self.row_starts[row] as usize
    }

    /// The last row that begins at or before `offset`.
    pub(super) fn row_at(&self, offset: usize) -> usize {
        self.row_starts.partition_point(|start| *start as usize <= offset).saturating_sub(1)
    }

    /// Fields of the first row.
    pub(super) fn width(&self) -> usize {
        self.width.unwrap_or(self.spans.len())
    }

    /// Unescaped fields, to be handed to [`Tokens::field`] as text.
    pub(super) fn scratch(&self) -> &[u8] {
        &self.scratch
    }

    /// A field and whether it was quoted. `text` is what was scanned.
    #[inline]
    pub(super) fn field<'a>(&self, text: &'a str, scratch: &'a str, row: usize, column: usize) -> (&'a str, bool) {
        let span = self.spans[row * self.width() + column];
        let source = if span.start & FLAG == 0 { text } else { scratch };
        let range = (span.start & !FLAG) as usize..(span.end & !FLAG) as usize;
        // Fields begin and end at ASCII characters or at the ends of the text, so this is never cut short.
        (source.get(range).unwrap_or_default(), span.end & FLAG != 0)
    }

    /// Scans whole rows from the front of `text`; returns how many bytes they take. Rows that cannot be cut go to `bad`, which
    /// ends the scan by returning `false`.
    pub(super) fn scan(&mut self, text: RowText<'_>, mut bad: impl FnMut(RowError) -> bool) -> usize {
        self.spans.clear();
        self.row_starts.clear();
        self.scratch.clear();
        let bytes = text.bytes;
        let mut at = 0;
        while self.rows() < text.rows_max && at < bytes.len().min(text.starts_before) {
            let first = self.spans.len();
            at = match self.scan_row(bytes, at, text.is_last) {
                Scan::Partial => {
                    self.spans.truncate(first);
                    break;
                }
                Scan::Row(next) => {
                    self.row_starts.push(at as u32);
                    next
                }
                Scan::Nothing(next) => {
                    self.spans.truncate(first);
                    next
                }
                Scan::Bad { next, column, reason } => {
                    self.spans.truncate(first);
                    if !bad(RowError { offset: at, column: Some(column), reason }) {
                        break;
                    }
                    next
                }
            };
        }
        at
    }

    fn scan_row(&mut self, bytes: &[u8], start: usize, is_last: bool) -> Scan {
        if let Some(scan) = self.skip_line(bytes, start, is_last) {
            return scan;
        }
        let first = self.spans.len();
        let mut at = start;
        loop {
            let end = match self.dialect.quote {
                Some(quote) if bytes.get(at) == Some(&quote) => self.quoted(bytes, at + 1, quote, is_last),
                _ => self.unquoted(bytes, at, is_last),
            };
            match end {
                FieldEnd::Delimiter(next) => at = next,
                FieldEnd::Line(next) => return self.check_width(self.spans.len() - first, next),
                FieldEnd::Partial => return Scan::Partial,
                FieldEnd::Bad(reason) => {
                    return match line_end(bytes, start, is_last) {
                        None => Scan::Partial,
                        Some(next) => Scan::Bad { next, column: self.spans.len() - first, reason: reason.to_owned() },
                    };
                }
            }
        }
    }

    /// Comments, and blank lines where they cannot be rows.
    fn skip_line(&self, bytes: &[u8], start: usize, is_last: bool) -> Option<Scan> {
        let is_comment = self.dialect.comments && bytes[start] == b'#';
        let is_blank = || bytes[start] == b'\n' || (bytes[start] == b'\r' && bytes.get(start + 1) == Some(&b'\n'));
        if !is_comment && (self.width == Some(1) || !is_blank()) {
            return None;
        }
        Some(line_end(bytes, start, is_last).map_or(Scan::Partial, Scan::Nothing))
    }

    fn check_width(&mut self, fields: usize, next: usize) -> Scan {
        match self.width {
            Some(width) if width != fields => {
                let reason = format!("row has {fields} field{} instead of {width}", if fields == 1 { "" } else { "s" });
                Scan::Bad { next, column: fields.min(width), reason }
            }
            _ => Scan::Row(next),
        }
    }

    fn unquoted(&mut self, bytes: &[u8], start: usize, is_last: bool) -> FieldEnd {
        let mut at = start;
        let mut escapes = false;
        loop {
            at = find_stop(bytes, at, self.stops);
            match bytes.get(at) {
                None if !is_last => return FieldEnd::Partial,
                Some(byte) if *byte == self.dialect.delimiter => {
                    self.push(bytes, start, at, escapes, false);
                    return FieldEnd::Delimiter(at + 1);
                }
                Some(b'\n') | None => {
                    let carriage_return = at > start && bytes[at - 1] == b'\r';
                    self.push(bytes, start, at - usize::from(carriage_return), escapes, false);
                    return FieldEnd::Line((at + 1).min(bytes.len()));
                }
                Some(_) => {
                    escapes = true;
                    at = (at + 2).min(bytes.len());
                }
            }
        }
    }

    fn quoted(&mut self, bytes: &[u8], start: usize, quote: u8, is_last: bool) -> FieldEnd {
        let escape = self.dialect.escape_apart().unwrap_or(quote);
        let mut at = start;
        let mut escapes = false;
        loop {
            let Some(found) = memchr::memchr2(quote, escape, &bytes[at.min(bytes.len())..]) else {
                return if is_last { FieldEnd::Bad("quote is not closed") } else { FieldEnd::Partial };
            };
            at += found;
            let is_escape = bytes[at] != quote || bytes.get(at + 1) == Some(&quote);
            if !is_escape {
                break;
            }
            escapes = true;
            at += 2;
        }
        let (next, is_delimiter) = match &bytes[at + 1..] {
            [] if is_last => (at + 1, false),
            [] | [b'\r'] if !is_last => return FieldEnd::Partial,
            [byte, ..] if *byte == self.dialect.delimiter => (at + 2, true),
            [b'\n', ..] => (at + 2, false),
            [b'\r', b'\n', ..] => (at + 3, false),
            _ => return FieldEnd::Bad("text follows a closing quote"),
        };
        self.push(bytes, start, at, escapes, true);
        if is_delimiter { FieldEnd::Delimiter(next) } else { FieldEnd::Line(next) }
    }

    #[inline]
    fn push(&mut self, bytes: &[u8], start: usize, end: usize, escapes: bool, is_quoted: bool) {
        if escapes {
            return self.push_unescaped(bytes, start, end, is_quoted);
        }
        let quoted = if is_quoted { FLAG } else { 0 };
        self.spans.push(Span { start: start as u32, end: end as u32 | quoted });
    }

    #[cold]
    fn push_unescaped(&mut self, bytes: &[u8], start: usize, end: usize, is_quoted: bool) {
        let quoted = if is_quoted { FLAG } else { 0 };
        let begin = self.scratch.len() as u32;
        let mut field = bytes[start..end].iter();
        while let Some(byte) = field.next() {
            let escapes_next =
                Some(*byte) == self.dialect.escape_apart() || (is_quoted && Some(*byte) == self.dialect.quote);
            let kept = if escapes_next { field.next() } else { Some(byte) };
            self.scratch.extend(kept);
        }
        self.spans.push(Span { start: begin | FLAG, end: self.scratch.len() as u32 | quoted });
    }
}

/// The first of `stops` at or behind `at`, or the end. Fields are short, so eight bytes at once beat a wider search.
#[inline]
fn find_stop(bytes: &[u8], mut at: usize, stops: [u64; 3]) -> usize {
    while let Some(word) = bytes.get(at..).and_then(<[u8]>::first_chunk) {
        let word = u64::from_le_bytes(*word);
        let hits = stops.into_iter().fold(0, |hits, stop| hits | zero_bytes(word ^ stop));
        if hits != 0 {
            return at + hits.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let is_stop = |byte: &u8| stops.iter().any(|stop| stop.to_ne_bytes()[0] == *byte);
    at + bytes[at..].iter().position(is_stop).unwrap_or(bytes.len() - at)
}

/// The high bit of every byte that is zero. Bytes above the first zero may be marked too.
#[inline]
fn zero_bytes(word: u64) -> u64 {
    word.wrapping_sub(0x0101_0101_0101_0101) & !word & 0x8080_8080_8080_8080
}

/// Where the line behind `start` begins; `None` if its end has not been read yet.
fn line_end(bytes: &[u8], start: usize, is_last: bool) -> Option<usize> {
    match memchr::memchr(b'\n', &bytes[start..]) {
        Some(end) => Some(start + end + 1),
        None => is_last.then_some(bytes.len()),
    }
}
