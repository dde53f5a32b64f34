//! Colours of a statement that is typed: keywords, strings, numbers, comments.

use reedline::{Color, Highlighter, StyledText};

use super::complete::KEYWORDS;

/// Colours SQL.
#[derive(Debug)]
pub struct Colours;

impl Highlighter for Colours {
    fn highlight(&self, line: &str, _cursor: usize) -> StyledText {
        let mut text = StyledText::new();
        for (kind, piece) in pieces(line) {
            let style = match kind {
                Kind::Keyword => Color::Blue.bold(),
                Kind::Text => Color::Green.normal(),
                Kind::Number => Color::Cyan.normal(),
                Kind::Comment => Color::DarkGray.normal(),
                Kind::Other => Default::default(),
            };
            text.push((style, piece.to_owned()));
        }
        text
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Keyword,
    Text,
    Number,
    Comment,
    Other,
}

/// The line in pieces that have one colour each; together they are the line.
fn pieces(line: &str) -> Vec<(Kind, &str)> {
    let mut pieces = Vec::new();
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        let (kind, length) = match first {
            '\'' => (Kind::Text, quoted(rest, '\'')),
            '"' | '`' => (Kind::Other, quoted(rest, first)),
            '-' if rest.starts_with("--") => (Kind::Comment, rest.find('\n').unwrap_or(rest.len())),
            '/' if rest.starts_with("/*") => (Kind::Comment, rest.find("*/").map_or(rest.len(), |at| at + 2)),
            _ if first.is_ascii_digit() => {
                (Kind::Number, rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len()))
            }
            _ if first.is_alphabetic() || first == '_' => {
                let length = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
                (if is_keyword(&rest[..length]) { Kind::Keyword } else { Kind::Other }, length)
            }
            _ => (Kind::Other, first.len_utf8()),
        };
        let (piece, behind) = rest.split_at(length);
        pieces.push((kind, piece));
        rest = behind;
    }
    pieces
}

/// Bytes up to and with the closing quote.
fn quoted(text: &str, quote: char) -> usize {
    text[1..].find(quote).map_or(text.len(), |at| at + 2)
}

fn is_keyword(word: &str) -> bool {
    KEYWORDS.iter().flat_map(|keyword| keyword.split(' ')).any(|keyword| keyword.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pieces_are_the_line() {
        let line = "SELECT é1, 'it''s', 1.5 -- why\nFROM `t /*`";
        let found = pieces(line);
        assert_eq!(found.iter().map(|(_, piece)| *piece).collect::<String>(), line);
        let of = |kind| found.iter().filter(|(other, _)| *other == kind).map(|(_, piece)| *piece).collect::<Vec<_>>();
        assert_eq!(of(Kind::Keyword), ["SELECT", "FROM"]);
        assert_eq!(of(Kind::Text), ["'it'", "'s'"]);
        assert_eq!((of(Kind::Number), of(Kind::Comment)), (vec!["1.5"], vec!["-- why"]));
    }
}
