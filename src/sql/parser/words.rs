//! Reading a statement word by word.
//!
//! Many of Flink's words (`WATERMARK`, `METADATA`, `CHANGELOG_MODE`) are no keywords of sqlparser, so [`Words`] compares
//! words by their text: unquoted, without regard to case.

use datafusion::sql::sqlparser::ast::{Ident, ObjectName};
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan};

use super::fault::{Fault, Parse};

/// What our statements ask of sqlparser's [`Parser`].
pub(super) trait Words {
    /// Whether the token `n` places ahead is the word `expected`.
    fn at_word(&self, n: usize, expected: &str) -> bool;

    /// Whether the next words are `expected`, in this order.
    fn at_words(&self, expected: &[&str]) -> bool {
        expected.iter().enumerate().all(|(n, word)| self.at_word(n, word))
    }

    /// Takes the next words if they are `expected`.
    fn words(&mut self, expected: &[&str]) -> bool;

    /// Takes the next word if it is `expected`.
    fn word(&mut self, expected: &str) -> bool {
        self.words(&[expected])
    }

    /// Takes the next word, which must be `expected`.
    fn expect_word(&mut self, expected: &str) -> Parse<()>;

    /// Takes the next token, which must be `expected`.
    fn expect(&mut self, expected: &Token) -> Parse<()>;

    /// Takes a comma where one may stand.
    fn take_comma(&mut self);

    /// The next token, which is not taken.
    fn peek(&self) -> &TokenWithSpan;

    /// Where the next token begins; the empty place at the end of the statement.
    fn here(&self) -> Location;

    /// Where the last token that was taken ends.
    fn taken_to(&self) -> Location;

    /// Whether nothing is left.
    fn at_end(&self) -> bool {
        self.peek().token == Token::EOF
    }

    /// Takes an identifier; `what` says for whom.
    fn identifier(&mut self, what: &str) -> Parse<Ident>;

    /// Takes a name such as `t` or `db.t`.
    fn object_name(&mut self) -> Parse<ObjectName>;

    /// Takes a string in single quotes.
    fn string(&mut self, what: &str) -> Parse<String>;

    /// Takes `item`s between parentheses, separated by commas; there may be none.
    fn list<T>(&mut self, item: impl FnMut(&mut Self) -> Parse<T>) -> Parse<Vec<T>>;
}

impl Words for Parser<'_> {
    fn at_word(&self, n: usize, expected: &str) -> bool {
        is_word(&self.peek_nth_token_ref(n).token, expected)
    }

    fn words(&mut self, expected: &[&str]) -> bool {
        let found = self.at_words(expected);
        if found {
            expected.iter().for_each(|_| self.advance_token());
        }
        found
    }

    fn expect_word(&mut self, expected: &str) -> Parse<()> {
        if self.word(expected) { Ok(()) } else { Err(Fault::expected(expected, self.peek())) }
    }

    fn expect(&mut self, expected: &Token) -> Parse<()> {
        if self.consume_token(expected) { Ok(()) } else { Err(Fault::expected(&expected.to_string(), self.peek())) }
    }

    fn take_comma(&mut self) {
        let _ = self.consume_token(&Token::Comma);
    }

    fn peek(&self) -> &TokenWithSpan {
        self.peek_token_ref()
    }

    fn here(&self) -> Location {
        self.peek().span.start
    }

    fn taken_to(&self) -> Location {
        let taken = (0..self.index()).rev().map(|index| self.token_at(index));
        let taken = taken.filter(|token| !matches!(token.token, Token::Whitespace(_) | Token::EOF));
        taken.map(|token| token.span.end).next().unwrap_or(Location::empty())
    }

    fn identifier(&mut self, what: &str) -> Parse<Ident> {
        match &self.peek().token {
            Token::Word(_) => Ok(self.parse_identifier()?),
            _ => Err(Fault::expected(what, self.peek())),
        }
    }

    fn object_name(&mut self) -> Parse<ObjectName> {
        match &self.peek().token {
            Token::Word(_) => Ok(self.parse_object_name(false)?),
            _ => Err(Fault::expected("a name", self.peek())),
        }
    }

    fn string(&mut self, what: &str) -> Parse<String> {
        match &self.peek().token {
            Token::SingleQuotedString(text) => {
                let text = text.clone();
                self.advance_token();
                Ok(text)
            }
            _ => Err(Fault::expected(what, self.peek())),
        }
    }

    fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Parse<T>) -> Parse<Vec<T>> {
        self.expect(&Token::LParen)?;
        let mut items = Vec::new();
        if self.consume_token(&Token::RParen) {
            return Ok(items);
        }
        loop {
            items.push(item(self)?);
            if self.consume_token(&Token::RParen) {
                return Ok(items);
            }
            if !self.consume_token(&Token::Comma) {
                return Err(Fault::expected("',' or ')'", self.peek()));
            }
        }
    }
}

/// Whether `token` is the unquoted word `expected`.
pub(super) fn is_word(token: &Token, expected: &str) -> bool {
    matches!(token, Token::Word(word) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(expected))
}

/// Whether a query can begin with `token`.
pub(super) fn begins_query(token: &Token) -> bool {
    *token == Token::LParen || ["SELECT", "WITH", "VALUES", "FROM", "TABLE"].iter().any(|word| is_word(token, word))
}
