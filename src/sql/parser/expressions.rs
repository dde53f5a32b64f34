//! Expressions of Flink's SQL that sqlparser does not know, as expressions that it does.
//!
//! | text | tree |
//! | --- | --- |
//! | `TABLE t PARTITION BY a` as an argument | `Expr::Subquery` of `SELECT * FROM t DISTRIBUTE BY a` |
//! | `MAP['a', 1, 'b', 2]` | `Expr::Map`, as of `MAP {'a': 1, 'b': 2}` |
//! | `CAST(x AS ROW<a INT>)` | `Expr::Cast` to `DataType::Custom`, whose name is the type's text |
//!
//! A table argument is a subquery because every visitor of the tree then finds `t` as the relation that it is:
//! DataFusion looks up all relations of a query before it plans it.

use datafusion::sql::sqlparser::ast::{
    CastKind, DataType, Expr, Ident, Map, MapEntry, ObjectName, Query, SetExpr, TableFactor,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Token, Word};

use super::fault::Fault;
use super::read_type::read_type;
use super::words::{Words, is_word};

/// Called by sqlparser where an expression begins: `None` leaves the tokens to sqlparser.
pub(super) fn parse_prefix(parser: &mut Parser) -> Option<Result<Expr, ParserError>> {
    let [first, second] = parser.peek_tokens_ref();
    let Token::Word(Word { value, quote_style: None, .. }) = &first.token else { return None };
    let opens = |token| second.token == token;
    match () {
        _ if value.eq_ignore_ascii_case("CAST") && opens(Token::LParen) => Some(cast(parser, CastKind::Cast)),
        _ if value.eq_ignore_ascii_case("TRY_CAST") && opens(Token::LParen) => Some(cast(parser, CastKind::TryCast)),
        _ if value.eq_ignore_ascii_case("MAP") && opens(Token::LBracket) && lists_entries(parser) => Some(map(parser)),
        _ if value.eq_ignore_ascii_case("TABLE") && is_table_argument(parser) => Some(table_argument(parser)),
        _ => None,
    }
}

/// `CAST(expr AS type)`, where Flink's types stand beside sqlparser's.
fn cast(parser: &mut Parser, kind: CastKind) -> Result<Expr, ParserError> {
    parser.advance_token();
    parser.expect_token(&Token::LParen)?;
    let expr = Box::new(parser.parse_expr()?);
    parser.expect_word("AS")?;
    let data_type = cast_type(parser)?;
    let format = parser.parse_optional_cast_format()?;
    parser.expect_token(&Token::RParen)?;
    Ok(Expr::Cast { kind, expr, data_type, array: false, format })
}

/// sqlparser's reading of a type wins where it reaches the end of the cast, so that DataFusion sees the types it knows.
/// Nested types are ours at once: sqlparser would take `ROW(a INT)` for a type `ROW` with the modifiers `a` and `INT`.
fn cast_type(parser: &mut Parser) -> Result<DataType, ParserError> {
    let nested = ["ROW", "ARRAY", "MAP", "MULTISET"].iter().any(|word| parser.at_word(0, word));
    if nested && let Some(ours) = parser.maybe_parse(our_type)? {
        return Ok(ours);
    }
    let theirs = parser.maybe_parse(|parser| {
        let data_type = parser.parse_data_type()?;
        match parser.peek().token == Token::RParen || parser.at_word(0, "FORMAT") {
            true => Ok(data_type),
            false => Err(Fault::expected(")", parser.peek()).into()),
        }
    })?;
    theirs.map_or_else(|| our_type(parser), Ok)
}

fn our_type(parser: &mut Parser) -> Result<DataType, ParserError> {
    let sql_type = read_type(parser)?;
    Ok(DataType::Custom(ObjectName::from(vec![Ident::new(sql_type.to_string())]), vec![]))
}

/// Whether `MAP[` lists keys and values; `map['k']` asks a column named `map` for a value.
fn lists_entries(parser: &Parser) -> bool {
    let mut depth = 0_usize;
    for index in parser.index().. {
        match &parser.token_at(index).token {
            Token::LBracket | Token::LParen | Token::LBrace => depth += 1,
            Token::RBracket | Token::RParen | Token::RBrace if depth <= 1 => return false,
            Token::RBracket | Token::RParen | Token::RBrace => depth -= 1,
            Token::Comma if depth == 1 => return true,
            Token::EOF => return false,
            _ => {}
        }
    }
    false
}

fn map(parser: &mut Parser) -> Result<Expr, ParserError> {
    parser.advance_token();
    parser.expect_token(&Token::LBracket)?;
    let mut entries = Vec::new();
    loop {
        let key = Box::new(parser.parse_expr()?);
        if parser.peek().token == Token::RBracket {
            let fault = Fault::new("a MAP literal has a key without a value", parser.here());
            return Err(fault.hint("write MAP[key, value, …]").into());
        }
        parser.expect_token(&Token::Comma)?;
        entries.push(MapEntry { key, value: Box::new(parser.parse_expr()?) });
        if !parser.consume_token(&Token::Comma) {
            parser.expect_token(&Token::RBracket)?;
            return Ok(Expr::Map(Map { entries }));
        }
    }
}

/// Whether the next token, `TABLE`, begins an argument: after `(` or `=>`, and before a name or a query.
fn is_table_argument(parser: &Parser) -> bool {
    let [_, name, after] = parser.peek_tokens_ref();
    let names_table = match &name.token {
        Token::LParen => true,
        Token::Word(_) => {
            matches!(after.token, Token::Period | Token::Comma | Token::RParen) || is_word(&after.token, "PARTITION")
        }
        _ => false,
    };
    names_table && matches!(parser.get_current_token().token, Token::LParen | Token::RArrow)
}

/// `TABLE t`, `TABLE (query)`, and either with `PARTITION BY`.
fn table_argument(parser: &mut Parser) -> Result<Expr, ParserError> {
    parser.advance_token();
    let relation = if parser.consume_token(&Token::LParen) {
        let subquery = parser.parse_query()?;
        parser.expect_token(&Token::RParen)?;
        derived(subquery)
    } else {
        plain_table(parser.parse_object_name(false)?)?
    };
    let partition_by = if parser.words(&["PARTITION", "BY"]) { partition_columns(parser)? } else { vec![] };
    Ok(Expr::Subquery(Box::new(select_all(relation, partition_by)?)))
}

/// `a`, `(a, b)` or `a, b`; the last ends where the next argument begins.
fn partition_columns(parser: &mut Parser) -> Result<Vec<Expr>, ParserError> {
    if parser.consume_token(&Token::LParen) {
        let columns = parser.parse_comma_separated(Parser::parse_expr)?;
        parser.expect_token(&Token::RParen)?;
        return Ok(columns);
    }
    let mut columns = vec![parser.parse_expr()?];
    while parser.peek().token == Token::Comma {
        let [_, first, second] = parser.peek_tokens_ref();
        if second.token == Token::RArrow || is_word(&first.token, "DESCRIPTOR") {
            break;
        }
        parser.advance_token();
        columns.push(parser.parse_expr()?);
    }
    Ok(columns)
}

/// The query `SELECT * FROM relation DISTRIBUTE BY partition_by`.
///
/// Made from parsed text: the nodes have some forty fields, of which these two matter.
pub(super) fn select_all(relation: TableFactor, partition_by: Vec<Expr>) -> Result<Query, ParserError> {
    let mut query = *Parser::new(&GenericDialect).try_with_sql("SELECT * FROM t")?.parse_query()?;
    if let SetExpr::Select(select) = query.body.as_mut() {
        select.from.iter_mut().for_each(|from| from.relation = relation.clone());
        select.distribute_by = partition_by;
    }
    Ok(query)
}

/// The relation `name`, without alias, arguments or version.
pub(super) fn plain_table(name: ObjectName) -> Result<TableFactor, ParserError> {
    let mut relation = Parser::new(&GenericDialect).try_with_sql("t")?.parse_table_factor()?;
    if let TableFactor::Table { name: slot, .. } = &mut relation {
        *slot = name;
    }
    Ok(relation)
}

/// The relation `(subquery)`, without alias.
pub(super) fn derived(subquery: Box<Query>) -> TableFactor {
    TableFactor::Derived { lateral: false, subquery, alias: None, sample: None }
}
