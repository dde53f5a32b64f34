//! Which statement this is: the first words decide who reads it.

use datafusion::sql::parser::{DFParser, DFParserBuilder, Statement as DataFusionStatement};
use datafusion::sql::sqlparser::ast::{Query, Statement as SqlStatement};
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan};

use super::ast::{Drop, DropKind, Statement};
use super::dialect::DIALECT;
use super::fault::{Fault, Parse};
use super::span::Source;
use super::words::{Words, begins_query};

/// The words that begin a statement, for hints.
const FIRST_WORDS: &[&str] = &[
    "ALTER", "BEGIN", "CANCEL", "CLEAR", "COPY", "CREATE", "DELETE", "DESC", "DESCRIBE", "DROP", "EXECUTE", "EXIT",
    "EXPLAIN", "FROM", "HELP", "INSERT", "QUIT", "RESET", "SELECT", "SET", "SHOW", "STOP", "TRUNCATE", "UPDATE",
    "VALUES", "WITH",
];

/// The reader of one statement: DataFusion's parser over the statement's tokens, and the text that they came from.
pub(super) struct Reader<'a> {
    pub(super) source: &'a Source<'a>,
    /// Byte offset of the statement's end.
    pub(super) end: usize,
    inner: DFParser<'static>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(source: &'a Source<'a>, end: usize, tokens: Vec<TokenWithSpan>) -> Parse<Self> {
        Ok(Self { source, end, inner: DFParserBuilder::new(tokens).with_dialect(&DIALECT).build()? })
    }

    /// sqlparser's parser, at the next token.
    pub(super) fn parser(&mut self) -> &mut Parser<'static> {
        &mut self.inner.parser
    }

    /// The whole statement.
    pub(super) fn read(mut self) -> Parse<Statement> {
        let statement = self.statement()?;
        let parser = self.parser();
        if parser.at_end() {
            return Ok(statement);
        }
        let fault = Fault::expected("the end of the statement", parser.peek());
        let begins_another = FIRST_WORDS.iter().any(|word| parser.at_word(0, word));
        Err(if begins_another { fault.hint("is a ';' missing before it?") } else { fault })
    }

    /// A statement, perhaps with more behind it.
    pub(super) fn statement(&mut self) -> Parse<Statement> {
        let at = self.parser().here();
        let parser = self.parser();
        let first = match &parser.peek().token {
            Token::Word(word) if word.quote_style.is_none() => word.value.to_ascii_uppercase(),
            token if begins_query(token) => return self.query_statement(),
            _ => return Err(Fault::expected("a statement", parser.peek())),
        };
        match first.as_str() {
            "SELECT" | "WITH" | "VALUES" | "FROM" | "TABLE" => self.query_statement(),
            "CREATE" => self.create(),
            "DROP" if parser.at_word(1, "TABLE") || parser.at_word(1, "VIEW") || parser.at_word(1, "TEMPORARY") => {
                self.drop_relation()
            }
            "INSERT" => self.insert().map(Box::new).map(Statement::Insert),
            "EXECUTE" if parser.at_word(1, "INSERT") => {
                parser.advance_token();
                self.insert().map(Box::new).map(Statement::Insert)
            }
            "EXECUTE" | "BEGIN" if parser.at_word(1, "STATEMENT") => self.statement_set(),
            "STATEMENT" => self.statement_set(),
            "SET" if !parser.at_words(&["SET", "TIME", "ZONE"]) => self.set(),
            "RESET" => self.reset(),
            "EXPLAIN" => self.explain(),
            "DESCRIBE" | "DESC" => self.describe(),
            "SHOW" => self.show(),
            "STOP" => self.stop_job(),
            "CANCEL" => self.cancel_job(),
            "HELP" => self.shell_word(Statement::Help),
            "QUIT" | "EXIT" => self.shell_word(Statement::Quit),
            "CLEAR" => self.shell_word(Statement::Clear),
            _ => self.left_to_datafusion(&first, at),
        }
    }

    /// A query, `VALUES` among them.
    pub(super) fn query(&mut self) -> Parse<Box<Query>> {
        let parser = self.parser();
        match begins_query(&parser.peek().token) {
            true => Ok(parser.parse_query()?),
            false => Err(Fault::expected("a query", parser.peek())),
        }
    }

    /// Reads with DataFusion's parser.
    pub(super) fn other(&mut self) -> Parse<Statement> {
        Ok(match self.inner.parse_statement()? {
            DataFusionStatement::Statement(statement) => match *statement {
                SqlStatement::Query(query) => Statement::Query(query),
                statement => Statement::Other(Box::new(DataFusionStatement::Statement(Box::new(statement)))),
            },
            statement => Statement::Other(Box::new(statement)),
        })
    }

    /// The text from a place to another.
    pub(super) fn text(&self, start: Location, end: Location) -> &'a str {
        let (start, end) = (self.source.offset(start), self.source.offset(end));
        self.source.text.get(start..end).unwrap_or_default()
    }

    fn query_statement(&mut self) -> Parse<Statement> {
        self.query().map(Statement::Query)
    }

    /// Where DataFusion stumbles over the first word, that word is what is wrong.
    fn left_to_datafusion(&mut self, first: &str, at: Location) -> Parse<Statement> {
        self.other().map_err(|fault| match fault.is_at(at) {
            true => Fault::unknown("statement", first, FIRST_WORDS.iter().copied(), at),
            false => fault,
        })
    }

    /// `DROP [TEMPORARY] TABLE|VIEW [IF EXISTS] name`
    fn drop_relation(&mut self) -> Parse<Statement> {
        let parser = self.parser();
        parser.expect_word("DROP")?;
        parser.word("TEMPORARY");
        let kind = match () {
            _ if parser.word("TABLE") => DropKind::Table,
            _ if parser.word("VIEW") => DropKind::View,
            _ => return Err(Fault::expected("TABLE or VIEW", parser.peek())),
        };
        let if_exists = parser.words(&["IF", "EXISTS"]);
        Ok(Statement::Drop(Drop { kind, if_exists, name: parser.object_name()? }))
    }

    fn shell_word(&mut self, statement: Statement) -> Parse<Statement> {
        self.parser().advance_token();
        Ok(statement)
    }
}
