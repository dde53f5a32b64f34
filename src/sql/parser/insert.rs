//! `INSERT` and statement sets.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::ast::{Insert, Statement};
use super::fault::{Fault, Parse};
use super::statement::Reader;
use super::words::{Words, begins_query};

impl Reader<'_> {
    /// `INSERT INTO|OVERWRITE [TABLE] name [PARTITION (column = value, …)] [(column, …)] query`
    pub(super) fn insert(&mut self) -> Parse<Insert> {
        let parser = self.parser();
        parser.expect_word("INSERT")?;
        let overwrite = parser.word("OVERWRITE");
        if !parser.word("INTO") && !overwrite {
            return Err(Fault::expected("INTO or OVERWRITE", parser.peek()));
        }
        parser.word("TABLE");
        let table = parser.object_name()?;
        let partition = match parser.word("PARTITION") {
            true => parser.list(|parser| {
                let column = parser.identifier("a column name")?;
                parser.expect(&Token::Eq)?;
                Ok((column, parser.parse_expr()?))
            })?,
            false => vec![],
        };
        // `(a, b) SELECT …` names columns, `(SELECT …)` is the query.
        let names_columns = parser.peek().token == Token::LParen && !begins_query(&parser.peek_nth_token_ref(1).token);
        let columns = if names_columns { parser.list(|parser| parser.identifier("a column name"))? } else { vec![] };
        Ok(Insert { table, columns, overwrite, partition, query: self.query()? })
    }

    /// `[EXECUTE] STATEMENT SET BEGIN insert; … END` or `BEGIN STATEMENT SET; insert; … END`
    pub(super) fn statement_set(&mut self) -> Parse<Statement> {
        let parser = self.parser();
        if parser.words(&["BEGIN", "STATEMENT", "SET"]) {
            parser.expect(&Token::SemiColon)?;
        } else {
            parser.word("EXECUTE");
            for word in ["STATEMENT", "SET", "BEGIN"] {
                parser.expect_word(word)?;
            }
        }
        let mut inserts = Vec::new();
        loop {
            let parser = self.parser();
            while parser.consume_token(&Token::SemiColon) {}
            let at = parser.here();
            if parser.word("END") {
                return match inserts.is_empty() {
                    true => Err(Fault::new("a statement set without an INSERT", at)),
                    false => Ok(Statement::StatementSet(inserts)),
                };
            }
            if !parser.at_word(0, "INSERT") {
                return Err(Fault::expected("INSERT or END", parser.peek()));
            }
            inserts.push(self.insert()?);
            let parser = self.parser();
            if parser.peek().token != Token::SemiColon && !parser.at_word(0, "END") {
                return Err(Fault::expected("';' or END", parser.peek()));
            }
        }
    }
}
