//! From the text of a script to [`Statement`]s.
//!
//! ```text
//!             script.rs            statement.rs, create.rs, …
//! text ─ tokens ─ one piece a statement ─ Statement ─ what the planner and the shell take
//!                    └ hints.rs                └ dialect.rs, expressions.rs: sqlparser reads queries
//! ```
//!
//! The grammar is the union of Flink's and DataFusion's. Statements that differ from DataFusion's (`CREATE TABLE` with
//! watermarks, `SET`, statement sets, the shell's words) are read here over sqlparser's tokens. Queries are sqlparser's,
//! with a [dialect](TideDialect) that turns Flink's expressions into nodes that sqlparser has. All the rest is left to
//! DataFusion's parser and comes back as [`Statement::Other`].
//!
//! An error names the token and its line and column; [`error_span`] gives that place back and [`pointer()`] shows it.

mod ast;
mod create;
mod depth;
mod dialect;
mod expressions;
mod fault;
mod hints;
mod insert;
mod read_checkpoint;
mod read_type;
mod script;
mod session;
mod span;
mod statement;
#[cfg(test)]
mod tests;
mod tree_type;
mod types;
mod walk;
mod window;
mod words;

pub use ast::{
    Column, ColumnKind, CreateTable, CreateView, Drop, DropKind, Explain, ExplainDetail, ExplainMode, Insert, Like,
    LikeMerge, LikeOption, LikePart, Show, Statement, Watermark,
};
pub(in crate::sql) use dialect::DIALECT;
pub use dialect::TideDialect;
pub(in crate::sql) use fault::Located;
pub use hints::Hint;
pub use read_checkpoint::{ReadCheckpoint, read_checkpoint};
pub use script::is_complete;
pub use span::{Span, error_span, locate, pointer};
pub use tree_type::sql_type_of;
pub use types::{Element, RowField, SqlType};
pub use walk::{walk, walk_expr_mut, walk_mut};
pub use window::{WindowInput, WindowKind, WindowTvf, window_tvf};

use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan};
use tidemill_core::Result;

use fault::{Fault, Parse};
use span::Source;
use statement::Reader;

/// A statement and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed {
    /// The statement.
    pub statement: Statement,
    /// Its place in the script; the places of its tokens, too, are places in the script.
    pub span: Span,
    /// Its text, without the `;`.
    pub text: String,
    /// Its hints. Those that nothing reads are errors, so that these are the ones to act upon.
    pub hints: Vec<Hint>,
}

/// Parses a script: statements that are separated by `;`, with comments, the last `;` optional.
///
/// ```
/// use tidemill::sql::parser::{Statement, parse_script};
///
/// let script = "
///     CREATE TABLE clicks (
///         who STRING,
///         at TIMESTAMP(3),
///         WATERMARK FOR at AS at - INTERVAL '5' SECOND  -- as late as that
///     ) WITH ('connector' = 'datagen');
///     SELECT who, COUNT(*) FROM TABLE(TUMBLE(TABLE clicks, DESCRIPTOR(at), INTERVAL '1' MINUTE)) GROUP BY who;";
/// let parsed = parse_script(script)?;
/// assert!(matches!(parsed[0].statement, Statement::CreateTable(_)));
/// assert!(matches!(parsed[1].statement, Statement::Query(_)));
///
/// let error = parse_script("SELECT 1;\nSELCT 2").unwrap_err();
/// assert_eq!(error.to_string(), "unknown statement 'SELCT' at line 2, column 1; did you mean 'SELECT'?");
/// # Ok::<(), tidemill_core::Error>(())
/// ```
pub fn parse_script(sql: &str) -> Result<Vec<Parsed>> {
    let source = Source::new(sql);
    let pieces = script::tokenize(sql).map(script::split).map_err(|error| Fault::from(error).into_error())?;
    pieces.into_iter().map(|piece| parse_piece(&source, piece.tokens).map_err(Fault::into_error)).collect()
}

fn parse_piece(source: &Source<'_>, tokens: Vec<TokenWithSpan>) -> Parse<Parsed> {
    let hints = hints::hints(source, &tokens);
    hints::refuse_unread(&hints)?;
    depth::check(&tokens)?;
    let span = source.span(extent(&tokens));
    let end = source.location(span.end);
    let statement = Reader::new(source, span.end, tokens).and_then(Reader::read).map_err(|fault| fault.or_at(end))?;
    Ok(Parsed { statement, span, text: source.text[span.start..span.end].to_owned(), hints })
}

/// From the first to the last token that is neither space nor comment.
fn extent(tokens: &[TokenWithSpan]) -> datafusion::sql::sqlparser::tokenizer::Span {
    let mut solid = tokens.iter().filter(|token| !matches!(token.token, Token::Whitespace(_) | Token::EOF));
    let first = solid.next();
    let start = first.map_or(Location::empty(), |token| token.span.start);
    let end = solid.next_back().or(first).map_or(Location::empty(), |token| token.span.end);
    start.span_to(end)
}
