//! Cutting a script into statements.
//!
//! A `;` ends a statement, unless it stands in quotes or a comment (the tokenizer sees to that) or between the inserts
//! of a statement set, which is one statement from `EXECUTE STATEMENT SET BEGIN` to `END`.

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer, TokenizerError};

use super::dialect::DIALECT;
use super::words::is_word;

/// What the tokenizer says of a quote or comment that the text does not close.
const UNCLOSED: [&str; 3] = ["EOF", "Unterminated", "expected $"];

/// Statements that a shell runs without waiting for a `;`.
const BARE: [&str; 4] = ["HELP", "QUIT", "EXIT", "CLEAR"];

/// The tokens of one statement, without the `;` that ends it; comments are among them.
#[derive(Default)]
pub(super) struct Piece {
    pub(super) tokens: Vec<TokenWithSpan>,
    /// Whether a `;` ended it.
    closed: bool,
}

/// The tokens of a script with their places.
pub(super) fn tokenize(sql: &str) -> Result<Vec<TokenWithSpan>, TokenizerError> {
    Tokenizer::new(&DIALECT, sql).tokenize_with_location()
}

/// The statements of a script; pieces without a statement, such as a last comment, are left out.
pub(super) fn split(tokens: Vec<TokenWithSpan>) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut piece = Piece::default();
    let mut set = StatementSet::default();
    for token in tokens {
        if matches!(token.token, Token::Whitespace(_) | Token::EOF) {
            piece.tokens.push(token);
            continue;
        }
        set.see(&token.token);
        if token.token == Token::SemiColon && !set.is_open() {
            pieces.push(Piece { closed: true, ..std::mem::take(&mut piece) });
            set = StatementSet::default();
        } else {
            piece.tokens.push(token);
        }
    }
    pieces.push(piece);
    pieces.retain(|piece| piece.tokens.iter().any(|token| !matches!(token.token, Token::Whitespace(_) | Token::EOF)));
    pieces
}

/// Whether `sql` ends in a complete statement, so that a shell may run it; an open quote, comment or statement set
/// waits for more lines.
///
/// The shell's own words (`HELP`, `QUIT`, `EXIT`, `CLEAR`) are complete without a `;`. So is text that no further line
/// can mend: it is for [`parse_script`](super::parse_script) to say what is wrong with it.
///
/// ```
/// use tidemill::sql::parser::is_complete;
/// assert!(is_complete("SELECT ';' -- one;\n;"));
/// assert!(!is_complete("SELECT 1; SELECT 2"));
/// assert!(!is_complete("SELECT 'a;"));
/// assert!(is_complete("quit"));
/// ```
pub fn is_complete(sql: &str) -> bool {
    let tokens = match tokenize(sql) {
        Ok(tokens) => tokens,
        Err(error) if UNCLOSED.iter().any(|words| error.message.contains(words)) => return false,
        Err(_) => return sql.trim_end().ends_with(';'),
    };
    let pieces = split(tokens);
    let bare = |piece: &Piece| {
        let mut words = piece.tokens.iter().filter(|token| !matches!(token.token, Token::Whitespace(_)));
        let first = words.next().is_some_and(|token| BARE.iter().any(|word| is_word(&token.token, word)));
        first && words.next().is_none()
    };
    pieces.last().is_some_and(|piece| piece.closed || bare(piece))
}

/// Follows a statement's tokens to tell whether it is a statement set whose `END` has yet to come.
#[derive(Default)]
struct StatementSet {
    /// The statement's first words, up to the first token that is none.
    head: Vec<String>,
    head_ended: bool,
    /// Whether a statement of the set, or its `END`, may begin at the next token.
    at_start: bool,
    ended: bool,
}

impl StatementSet {
    /// `EXPLAIN CHANGELOG_MODE, ESTIMATED_COST STATEMENT SET BEGIN`, the longest head, is not longer than this.
    const HEAD_WORDS: usize = 12;

    fn see(&mut self, token: &Token) {
        if self.at_start && is_word(token, "END") {
            self.ended = true;
        }
        match token {
            Token::Word(word) if !self.head_ended && word.quote_style.is_none() => {
                self.head.push(word.value.to_ascii_uppercase());
                self.head_ended = self.head.len() == Self::HEAD_WORDS;
            }
            Token::Comma => {}
            _ => self.head_ended = true,
        }
        self.at_start = *token == Token::SemiColon || is_word(token, "BEGIN");
    }

    fn is_open(&self) -> bool {
        let begins = |word: &String| ["BEGIN", "EXECUTE", "EXPLAIN", "STATEMENT"].contains(&word.as_str());
        self.head.first().is_some_and(begins)
            && self.head.windows(2).any(|words| words[0] == "STATEMENT" && words[1] == "SET")
            && !self.ended
    }
}
