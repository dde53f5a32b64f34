//! Hints: `/*+ OPTIONS('k' = 'v'), BROADCAST(t) */`.
//!
//! To sqlparser a hint is a comment, and a hint that goes unread is worse than none: the query runs, and not as it was
//! asked to. So a pass over the tokens finds them all, and what nothing reads is an error.

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Whitespace};

use super::fault::{Fault, Parse};
use super::span::{Source, Span};
use super::words::is_word;

/// One hint of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hint {
    /// Its name, as written.
    pub name: String,
    /// The text between its parentheses; empty without them.
    pub args: String,
    /// Its place in the script.
    pub span: Span,
    /// The table name (as written) that the comment follows; none where it follows a word such as `SELECT`.
    pub after: Option<String>,
}

/// The hints that something reads: none yet.
const READ: [&str; 0] = [];

/// Refuses a hint that nothing reads.
pub(super) fn refuse_unread(hints: &[Hint]) -> Parse<()> {
    let is_read = |hint: &Hint| READ.iter().any(|name: &&str| hint.name.eq_ignore_ascii_case(name));
    match hints.iter().find(|hint| !is_read(hint)) {
        Some(hint) => {
            let at = (hint.span.line, hint.span.column).into();
            Err(Fault::new(format!("hint '{}' is not read by anything", hint.name), at).hint("remove it"))
        }
        None => Ok(()),
    }
}

/// The hints among a statement's tokens, in order.
pub(super) fn hints(source: &Source<'_>, tokens: &[TokenWithSpan]) -> Vec<Hint> {
    let is_hint = |token: &TokenWithSpan| match &token.token {
        Token::Whitespace(Whitespace::MultiLineComment(text)) => text.starts_with('+'),
        _ => false,
    };
    let comments = tokens.iter().enumerate().filter(|(_, token)| is_hint(token));
    comments.flat_map(|(index, token)| in_comment(source, token, table_before(&tokens[..index]))).collect()
}

/// The hints of one comment `/*+ name(args), name … */`; a comment without a name is one hint without a name.
fn in_comment(source: &Source<'_>, comment: &TokenWithSpan, after: Option<String>) -> Vec<Hint> {
    let whole = source.span(comment.span);
    let (start, end) = (whole.start + "/*+".len(), whole.end.saturating_sub("*/".len()));
    let body = source.text.get(start..end).unwrap_or_default();
    let mut hints: Vec<Hint> = pieces(body)
        .into_iter()
        .map(|(first, last)| {
            let text = &body[first..last];
            let (name, args) = match text.split_once('(') {
                Some((name, args)) => (name.trim(), args.trim_end().strip_suffix(')').unwrap_or(args).trim()),
                None => (text, ""),
            };
            let place = source.location(start + first);
            let span = Span { start: start + first, end: start + last, line: place.line, column: place.column };
            Hint { name: name.to_owned(), args: args.to_owned(), span, after: after.clone() }
        })
        .collect();
    if hints.is_empty() {
        hints.push(Hint { name: String::new(), args: String::new(), span: whole, after });
    }
    hints
}

/// The byte ranges of the hints in a comment's text: commas and spaces outside of quotes and parentheses part them.
fn pieces(body: &str) -> Vec<(usize, usize)> {
    let (mut ranges, mut begun, mut depth, mut quoted) = (Vec::new(), None, 0_usize, false);
    for (at, character) in body.char_indices() {
        let parts = depth == 0 && !quoted && (character == ',' || character.is_whitespace());
        match character {
            '\'' => quoted = !quoted,
            '(' if !quoted => depth += 1,
            ')' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
        // A space before the parenthesis does not end the hint.
        let goes_on = character.is_whitespace() && body[at..].trim_start().starts_with('(');
        if !parts {
            begun = begun.or(Some(at));
        } else if !goes_on && let Some(first) = begun.take() {
            ranges.push((first, at));
        }
    }
    ranges.extend(begun.map(|first| (first, body.trim_end().len())));
    ranges
}

/// The dotted name at the end of `tokens`, unless it is a word that begins or ends a clause.
fn table_before(tokens: &[TokenWithSpan]) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for token in tokens.iter().rev() {
        match &token.token {
            Token::Whitespace(_) => {}
            Token::Word(_) if ["SELECT", "INSERT", "INTO"].iter().any(|word| is_word(&token.token, word)) => break,
            Token::Word(word) if parts.last().is_none_or(|last| *last == ".") => parts.push(&word.value),
            Token::Period if parts.last().is_some_and(|last| *last != ".") => parts.push("."),
            _ => break,
        }
    }
    parts.reverse();
    (!parts.is_empty()).then(|| parts.concat())
}
