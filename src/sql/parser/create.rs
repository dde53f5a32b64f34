//! `CREATE TABLE` and `CREATE VIEW`.

use datafusion::sql::sqlparser::ast::Ident;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Location, Token};

use super::ast::{
    Column, ColumnKind, CreateTable, CreateView, Like, LikeMerge, LikeOption, LikePart, Statement, Watermark,
};
use super::fault::{Fault, Parse};
use super::read_type::read_type;
use super::statement::Reader;
use super::types::SqlType;
use super::words::Words;

/// What stands between `CREATE` and `TABLE` or `VIEW`.
#[derive(Clone, Copy)]
struct Prefix {
    or_replace: bool,
    temporary: bool,
}

/// What the parentheses of a table hold.
#[derive(Default)]
struct Schema {
    columns: Vec<Column>,
    watermark: Option<Watermark>,
    primary_key: Option<Vec<Ident>>,
}

impl Reader<'_> {
    /// `CREATE [OR REPLACE] [TEMPORARY] TABLE|VIEW …`; what else can be created is DataFusion's.
    pub(super) fn create(&mut self) -> Parse<Statement> {
        let parser = self.parser();
        let or_replace = parser.at_words(&["CREATE", "OR", "REPLACE"]);
        let words = if or_replace { 3 } else { 1 };
        let temporary = parser.at_word(words, "TEMPORARY") || parser.at_word(words, "TEMP");
        let words = words + usize::from(temporary);
        let (table, view) = (parser.at_word(words, "TABLE"), parser.at_word(words, "VIEW"));
        if !table && !view {
            return self.other();
        }
        (0..=words).for_each(|_| parser.advance_token());
        let prefix = Prefix { or_replace, temporary };
        match table {
            true => Ok(Statement::CreateTable(Box::new(self.create_table(prefix)?))),
            false => Ok(Statement::CreateView(Box::new(self.create_view(prefix)?))),
        }
    }

    fn create_view(&mut self, prefix: Prefix) -> Parse<CreateView> {
        let parser = self.parser();
        let if_not_exists = parser.words(&["IF", "NOT", "EXISTS"]);
        let name = parser.object_name()?;
        let has_columns = parser.peek().token == Token::LParen;
        let columns = if has_columns { parser.list(|parser| parser.identifier("a column name"))? } else { vec![] };
        let comment = comment(parser)?;
        parser.expect_word("AS")?;
        let start = parser.here();
        let query = self.query()?;
        let end = self.parser().taken_to();
        let text = self.text(start, end).to_owned();
        let Prefix { or_replace, temporary } = prefix;
        Ok(CreateView { name, or_replace, if_not_exists, temporary, columns, comment, query, text })
    }

    fn create_table(&mut self, prefix: Prefix) -> Parse<CreateTable> {
        let parser = self.parser();
        let if_not_exists = parser.words(&["IF", "NOT", "EXISTS"]);
        let name = parser.object_name()?;
        let has_schema = parser.peek().token == Token::LParen;
        let schema = if has_schema { self.schema()? } else { Schema::default() };
        let Prefix { or_replace, temporary } = prefix;
        let Schema { columns, watermark, primary_key } = schema;

        let parser = self.parser();
        let comment = comment(parser)?;
        let partitioned_by = match parser.words(&["PARTITIONED", "BY"]) {
            true => parser.list(|parser| parser.identifier("a column name"))?,
            false => vec![],
        };
        let options = if parser.word("WITH") { options(parser)? } else { vec![] };
        let like = if parser.word("LIKE") { Some(like(parser)?) } else { None };
        let as_query = if parser.word("AS") { Some(self.query()?) } else { None };
        Ok(CreateTable {
            name,
            or_replace,
            if_not_exists,
            temporary,
            columns,
            watermark,
            primary_key,
            partitioned_by,
            comment,
            options,
            like,
            as_query,
        })
    }

    /// `(column, …, WATERMARK FOR …, PRIMARY KEY …)`, in any order.
    fn schema(&mut self) -> Parse<Schema> {
        let mut schema = Schema::default();
        self.parser().expect(&Token::LParen)?;
        if self.parser().consume_token(&Token::RParen) {
            return Ok(schema);
        }
        loop {
            let item = self.schema_item(&mut schema)?;
            let parser = self.parser();
            if parser.consume_token(&Token::RParen) {
                return Ok(schema);
            }
            if !parser.consume_token(&Token::Comma) {
                return Err(Fault::expected(&format!("',' or ')' after {item}"), parser.peek()));
            }
        }
    }

    /// Reads one item and says which it was.
    fn schema_item(&mut self, schema: &mut Schema) -> Parse<String> {
        let parser = self.parser();
        let at = parser.here();
        if parser.at_words(&["WATERMARK", "FOR"]) {
            let watermark = self.watermark()?;
            return set_once(&mut schema.watermark, watermark, "watermark", at).map(|()| "the watermark".to_owned());
        }
        refuse_constraint(parser)?;
        if parser.at_word(0, "CONSTRAINT") || parser.at_words(&["PRIMARY", "KEY"]) {
            let key = primary_key(parser, |parser| parser.list(|parser| parser.identifier("a column name")))?;
            return set_once(&mut schema.primary_key, key, "primary key", at).map(|()| "the primary key".to_owned());
        }
        let (column, is_key) = column(parser)?;
        let item = format!("column '{}'", column.name.value);
        if is_key {
            set_once(&mut schema.primary_key, vec![column.name.clone()], "primary key", at)?;
        }
        schema.columns.push(column);
        Ok(item)
    }

    /// `WATERMARK FOR column AS expr`
    fn watermark(&mut self) -> Parse<Watermark> {
        let parser = self.parser();
        let start = parser.here();
        parser.expect_word("WATERMARK")?;
        parser.expect_word("FOR")?;
        let column = parser.identifier("a column name")?;
        parser.expect_word("AS")?;
        let expr = parser.parse_expr()?;
        let end = parser.taken_to();
        Ok(Watermark { column, expr, span: self.source.span(start.span_to(end)) })
    }
}

/// `name AS expr`, `name TYPE METADATA …` or `name TYPE …`, and whether it says that it is the primary key.
fn column(parser: &mut Parser) -> Parse<(Column, bool)> {
    let name = parser.identifier("a column name")?;
    if parser.word("AS") {
        let expr = Box::new(parser.parse_expr()?);
        return Ok((Column { name, kind: ColumnKind::Computed { expr }, comment: comment(parser)? }, false));
    }
    let data_type = read_type(parser)?;
    let (mut nullable, mut is_key) = (true, false);
    let mut metadata = None;
    let mut column_comment = None;
    loop {
        let at = parser.here();
        if parser.words(&["NOT", "NULL"]) {
            nullable = false;
        } else if parser.word("METADATA") {
            let key = if parser.word("FROM") { Some(parser.string("a metadata key in quotes")?) } else { None };
            set_once(&mut metadata, (key, parser.word("VIRTUAL")), "METADATA clause", at)?;
        } else if parser.at_word(0, "CONSTRAINT") || parser.at_words(&["PRIMARY", "KEY"]) {
            primary_key(parser, |_| Ok(vec![]))?;
            is_key = true;
        } else if let Some(text) = comment(parser)? {
            set_once(&mut column_comment, text, "comment", at)?;
        } else if parser.at_word(0, "DEFAULT") {
            return Err(Fault::new("a column has no DEFAULT", at).hint("give every column in the INSERT"));
        } else if !parser.word("NULL") {
            break;
        }
    }
    Ok((Column { name, kind: stored(data_type, nullable, metadata), comment: column_comment }, is_key))
}

fn stored(data_type: SqlType, nullable: bool, metadata: Option<(Option<String>, bool)>) -> ColumnKind {
    match metadata {
        Some((key, is_virtual)) => ColumnKind::Metadata { data_type, nullable, key, is_virtual },
        None => ColumnKind::Physical { data_type, nullable },
    }
}

/// `[CONSTRAINT name] PRIMARY KEY columns NOT ENFORCED`
fn primary_key<'p>(
    parser: &mut Parser<'p>,
    columns: impl FnOnce(&mut Parser<'p>) -> Parse<Vec<Ident>>,
) -> Parse<Vec<Ident>> {
    if parser.word("CONSTRAINT") {
        parser.identifier("a constraint's name")?;
        refuse_constraint(parser)?;
    }
    let at = parser.here();
    parser.expect_word("PRIMARY")?;
    parser.expect_word("KEY")?;
    let columns = columns(parser)?;
    match parser.words(&["NOT", "ENFORCED"]) {
        true => Ok(columns),
        false => Err(Fault::new("a primary key must be declared NOT ENFORCED", at)
            .hint("keys are trusted, not checked: write NOT ENFORCED after it")),
    }
}

/// Constraints that no table has; a column may still bear one of these words as its name.
fn refuse_constraint(parser: &Parser) -> Parse<()> {
    let then_paren = parser.peek_nth_token_ref(1).token == Token::LParen;
    let constraint = match () {
        _ if parser.at_word(0, "UNIQUE") && then_paren => "UNIQUE",
        _ if parser.at_word(0, "CHECK") && then_paren => "CHECK",
        _ if parser.at_words(&["FOREIGN", "KEY"]) => "FOREIGN KEY",
        _ => return Ok(()),
    };
    Err(Fault::new(format!("tables have no {constraint} constraints"), parser.here())
        .hint("the one constraint is PRIMARY KEY (…) NOT ENFORCED"))
}

/// `COMMENT 'text'`, if there is one.
fn comment(parser: &mut Parser) -> Parse<Option<String>> {
    if parser.word("COMMENT") { parser.string("a comment in quotes").map(Some) } else { Ok(None) }
}

/// `('key' = 'value', …)`
fn options(parser: &mut Parser) -> Parse<Vec<(String, String)>> {
    let mut seen: Vec<String> = Vec::new();
    parser.list(|parser| {
        let at = parser.here();
        let key = parser.string("an option's key in quotes")?;
        if seen.contains(&key) {
            return Err(Fault::new(format!("option '{key}' is given twice"), at));
        }
        seen.push(key.clone());
        parser.expect(&Token::Eq)?;
        Ok((key, parser.string("an option's value in quotes")?))
    })
}

/// `table [(INCLUDING|EXCLUDING|OVERWRITING part …)]`; the options need no commas.
fn like(parser: &mut Parser) -> Parse<Like> {
    let table = parser.object_name()?;
    let mut options = Vec::new();
    if parser.consume_token(&Token::LParen) {
        while !parser.consume_token(&Token::RParen) {
            options.push(LikeOption { merge: one_of(parser, &MERGES)?, part: one_of(parser, &PARTS)? });
            parser.take_comma();
        }
    }
    Ok(Like { table, options })
}

const MERGES: [(&str, LikeMerge); 3] =
    [("INCLUDING", LikeMerge::Including), ("EXCLUDING", LikeMerge::Excluding), ("OVERWRITING", LikeMerge::Overwriting)];

const PARTS: [(&str, LikePart); 8] = [
    ("ALL", LikePart::All),
    ("CONSTRAINTS", LikePart::Constraints),
    ("DISTRIBUTION", LikePart::Distribution),
    ("GENERATED", LikePart::Generated),
    ("METADATA", LikePart::Metadata),
    ("OPTIONS", LikePart::Options),
    ("PARTITIONS", LikePart::Partitions),
    ("WATERMARKS", LikePart::Watermarks),
];

fn one_of<T: Copy>(parser: &mut Parser, known: &[(&str, T)]) -> Parse<T> {
    match known.iter().find(|(word, _)| parser.word(word)) {
        Some((_, value)) => Ok(*value),
        None => {
            let words: Vec<&str> = known.iter().map(|(word, _)| *word).collect();
            Err(Fault::expected(&words.join(", "), parser.peek()))
        }
    }
}

fn set_once<T>(slot: &mut Option<T>, value: T, what: &str, at: Location) -> Parse<()> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(Fault::new(format!("a second {what}"), at)),
    }
}
