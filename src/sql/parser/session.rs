//! Statements about the session and its jobs: `SET`, `RESET`, `EXPLAIN`, `DESCRIBE`, `SHOW`, `STOP JOB`, `CANCEL JOB`.

use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::Token;

use super::ast::{Explain, ExplainDetail, ExplainMode, Show, Statement};
use super::fault::{Fault, Parse};
use super::statement::Reader;
use super::words::{Words, begins_query, is_word};

impl Reader<'_> {
    /// `SET`, `SET 'key' = 'value'`, `SET some.key-name = any text`; DataFusion's `TO` may stand for `=`.
    pub(super) fn set(&mut self) -> Parse<Statement> {
        self.parser().expect_word("SET")?;
        if self.parser().at_end() {
            return Ok(Statement::Set(None));
        }
        let key = self.key()?;
        let parser = self.parser();
        if !parser.consume_token(&Token::Eq) && !parser.word("TO") {
            return Err(Fault::expected("'=' after the key", parser.peek()).hint("write SET 'key' = 'value'"));
        }
        let value = self.value()?;
        Ok(Statement::Set(Some((key, value))))
    }

    /// `RESET`, `RESET 'key'`, `RESET some.key-name`
    pub(super) fn reset(&mut self) -> Parse<Statement> {
        self.parser().expect_word("RESET")?;
        let key = if self.parser().at_end() { None } else { Some(self.key()?) };
        Ok(Statement::Reset(key))
    }

    /// A key: a quoted string, or tokens without space between them, of which only the text counts.
    fn key(&mut self) -> Parse<String> {
        let parser = self.parser();
        if let Some(text) = quoted(&parser.peek().token) {
            parser.advance_token();
            return Ok(text);
        }
        let start = parser.here();
        let mut end = start;
        while parser.here() == end && !matches!(parser.peek().token, Token::EOF | Token::Eq) {
            end = parser.peek().span.end;
            parser.advance_token();
        }
        if start == end {
            return Err(Fault::expected("a key", parser.peek()));
        }
        Ok(self.text(start, end).to_owned())
    }

    /// A value: one quoted string, or all the text up to the end of the statement.
    fn value(&mut self) -> Parse<String> {
        let end = self.end;
        let parser = self.parser();
        if parser.at_end() {
            return Err(Fault::expected("a value", parser.peek()).hint("an empty value is ''"));
        }
        if parser.peek_nth_token_ref(1).token == Token::EOF
            && let Some(text) = quoted(&parser.peek().token)
        {
            parser.advance_token();
            return Ok(text);
        }
        let start = parser.here();
        while !parser.at_end() {
            parser.advance_token();
        }
        let start = self.source.offset(start);
        Ok(self.source.text.get(start..end).unwrap_or_default().to_owned())
    }

    /// `EXPLAIN [PLAN FOR | ANALYZE] [detail, …] statement`; DataFusion's `EXPLAIN (option, …)` is left to it.
    pub(super) fn explain(&mut self) -> Parse<Statement> {
        let parser = self.parser();
        let lists_options =
            parser.peek_nth_token_ref(1).token == Token::LParen && !begins_query(&parser.peek_nth_token_ref(2).token);
        if lists_options {
            return self.other();
        }
        parser.expect_word("EXPLAIN")?;
        let mut mode = ExplainMode::Plan;
        let mut details = Vec::new();
        loop {
            if parser.word("ANALYZE") {
                mode = ExplainMode::Analyze;
            } else if let Some(detail) = explain_detail(parser)? {
                details.push(detail);
                parser.take_comma();
            } else if !parser.words(&["PLAN", "FOR"]) {
                break;
            }
        }
        // The readers of statements recurse here alone, and one level deep.
        if parser.at_word(0, "EXPLAIN") {
            return Err(Fault::new("an EXPLAIN of an EXPLAIN", parser.here()));
        }
        let statement = Box::new(self.statement()?);
        Ok(Statement::Explain(Explain { mode, details, statement }))
    }

    /// `DESCRIBE [TABLE] name`; a query is DataFusion's to describe.
    pub(super) fn describe(&mut self) -> Parse<Statement> {
        let parser = self.parser();
        let query = parser.peek_nth_token_ref(1);
        if begins_query(&query.token) && !is_word(&query.token, "TABLE") {
            return self.other();
        }
        parser.advance_token();
        parser.word("EXTENDED");
        parser.word("TABLE");
        Ok(Statement::Describe(parser.object_name()?))
    }

    /// `SHOW …`; what is not ours (`SHOW ALL`, `SHOW key`) is DataFusion's.
    pub(super) fn show(&mut self) -> Parse<Statement> {
        let parser = self.parser();
        let show = match () {
            _ if parser.words(&["SHOW", "TABLES"]) => Show::Tables { like: like(parser)? },
            _ if parser.words(&["SHOW", "VIEWS"]) => Show::Views { like: like(parser)? },
            _ if parser.words(&["SHOW", "FUNCTIONS"]) => Show::Functions { like: like(parser)? },
            _ if parser.words(&["SHOW", "JOBS"]) => Show::Jobs,
            _ if parser.words(&["SHOW", "CREATE", "TABLE"]) => Show::CreateTable(parser.object_name()?),
            _ if parser.words(&["SHOW", "CREATE", "VIEW"]) => Show::CreateView(parser.object_name()?),
            _ if parser.words(&["SHOW", "COLUMNS"]) => {
                if !parser.word("FROM") && !parser.word("IN") {
                    return Err(Fault::expected("FROM or IN", parser.peek()));
                }
                Show::Columns { table: parser.object_name()?, like: like(parser)? }
            }
            _ => return self.other(),
        };
        Ok(Statement::Show(show))
    }

    /// `STOP JOB 'id' [WITH SAVEPOINT] [WITH DRAIN]`
    pub(super) fn stop_job(&mut self) -> Parse<Statement> {
        let parser = self.parser();
        parser.expect_word("STOP")?;
        parser.expect_word("JOB")?;
        let id = parser.string("a job's id in quotes")?;
        let savepoint = parser.words(&["WITH", "SAVEPOINT"]);
        let drain = parser.words(&["WITH", "DRAIN"]);
        Ok(Statement::StopJob { id, savepoint, drain })
    }

    /// `CANCEL JOB 'id'`
    pub(super) fn cancel_job(&mut self) -> Parse<Statement> {
        let parser = self.parser();
        parser.expect_word("CANCEL")?;
        parser.expect_word("JOB")?;
        Ok(Statement::CancelJob { id: parser.string("a job's id in quotes")? })
    }
}

fn explain_detail(parser: &mut Parser) -> Parse<Option<ExplainDetail>> {
    Ok(Some(match () {
        _ if parser.word("VERBOSE") => ExplainDetail::Verbose,
        _ if parser.word("CHANGELOG_MODE") => ExplainDetail::ChangelogMode,
        _ if parser.word("ESTIMATED_COST") => ExplainDetail::EstimatedCost,
        _ if parser.word("JSON_EXECUTION_PLAN") => ExplainDetail::JsonExecutionPlan,
        _ if parser.word("PLAN_ADVICE") => ExplainDetail::PlanAdvice,
        _ if parser.word("FORMAT") => ExplainDetail::Format(parser.identifier("a format's name")?.value),
        _ => return Ok(None),
    }))
}

fn like(parser: &mut Parser) -> Parse<Option<String>> {
    if parser.word("LIKE") { parser.string("a pattern in quotes").map(Some) } else { Ok(None) }
}

/// The text of a token that is quoted as a string or as an identifier.
fn quoted(token: &Token) -> Option<String> {
    match token {
        Token::SingleQuotedString(text) => Some(text.clone()),
        Token::Word(word) if word.quote_style.is_some() => Some(word.value.clone()),
        _ => None,
    }
}
