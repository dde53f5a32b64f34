//! Every statement, as a table of text and what it was read as.
//!
//! The trees are wide, so [`outline`] writes each statement in one canonical line, and cases compare lines: a case then
//! says what was understood, in words, and the tree may move under it.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

mod properties;
mod queries;
mod statements;
mod types;

use super::*;
use crate::sql::parser::ast::ColumnKind as Kind;

/// Parses `sql` and compares the outlines of its statements, joined by `; `, or the error.
fn check(sql: &str, expected: &str) {
    let found = match parse_script(sql) {
        Ok(parsed) => parsed.iter().map(|parsed| outline(&parsed.statement)).collect::<Vec<_>>().join("; "),
        Err(error) => format!("error: {error}"),
    };
    assert_eq!(found, expected, "\nfor: {sql}");
}

/// Checks a table of cases.
fn check_all<'a>(cases: impl IntoIterator<Item = (&'a str, &'a str)>) {
    cases.into_iter().for_each(|(sql, expected)| check(sql, expected));
}

/// The only statement of `sql`.
fn one(sql: &str) -> Statement {
    let mut parsed = parse_script(sql).unwrap_or_else(|error| panic!("{error}\nfor: {sql}"));
    assert_eq!(parsed.len(), 1, "for: {sql}");
    parsed.remove(0).statement
}

/// A statement in one line.
fn outline(statement: &Statement) -> String {
    match statement {
        Statement::Query(query) => format!("query {query}"),
        Statement::CreateTable(create) => table(create),
        Statement::CreateView(create) => {
            let flags = flags(&[
                (create.or_replace, "replace"),
                (create.if_not_exists, "if-absent"),
                (create.temporary, "temp"),
            ]);
            let columns = names(&create.columns);
            let comment = create.comment.iter().map(|text| format!(" comment={text}")).collect::<String>();
            format!("view{flags} {}{columns}{comment} = {}", create.name, create.text)
        }
        Statement::Drop(drop) => {
            format!("drop {:?}{} {}", drop.kind, flags(&[(drop.if_exists, "if-there")]), drop.name).to_lowercase()
        }
        Statement::Insert(insert) => insertion(insert),
        Statement::StatementSet(inserts) => {
            format!("set of [{}]", inserts.iter().map(insertion).collect::<Vec<_>>().join(" | "))
        }
        Statement::Set(Some((key, value))) => format!("set <{key}> to <{value}>"),
        Statement::Set(None) => "set all".to_owned(),
        Statement::Reset(key) => format!("reset {}", key.as_deref().unwrap_or("all")),
        Statement::Explain(explain) => {
            format!("explain {:?} {:?} {}", explain.mode, explain.details, outline(&explain.statement))
        }
        Statement::Other(other) => format!("other {other}"),
        statement => format!("{statement:?}")
            .replace("ObjectName([Identifier(Ident { value: ", "<")
            .split(", quote_style")
            .next()
            .unwrap_or_default()
            .to_owned(),
    }
}

fn table(create: &CreateTable) -> String {
    let mut parts: Vec<String> = create.columns.iter().map(column).collect();
    parts.extend(create.watermark.iter().map(|mark| format!("watermark {} = {}", mark.column, mark.expr)));
    parts.extend(create.primary_key.iter().map(|key| format!("key{}", names(key))));
    let flags =
        flags(&[(create.or_replace, "replace"), (create.if_not_exists, "if-absent"), (create.temporary, "temp")]);
    let mut text = format!("table{flags} {} [{}]", create.name, parts.join(", "));
    text.extend(create.comment.iter().map(|comment| format!(" comment={comment}")));
    if !create.partitioned_by.is_empty() {
        text += &format!(" by{}", names(&create.partitioned_by));
    }
    text.extend(create.options.iter().map(|(key, value)| format!(" {key}={value}")));
    text.extend(create.like.iter().map(|like| {
        let options: String =
            like.options.iter().map(|option| format!(" {:?}-{:?}", option.merge, option.part)).collect();
        format!(" like {}{options}", like.table)
    }));
    text.extend(create.as_query.iter().map(|query| format!(" as {query}")));
    text
}

fn column(column: &Column) -> String {
    let null = |nullable: &bool| if *nullable { "" } else { " NOT NULL" };
    let text = match &column.kind {
        Kind::Physical { data_type, nullable } => format!("{} {data_type}{}", column.name, null(nullable)),
        Kind::Computed { expr } => format!("{} = {expr}", column.name),
        Kind::Metadata { data_type, nullable, key, is_virtual } => {
            let key = key.iter().map(|key| format!(" from {key}")).collect::<String>();
            let kind = if *is_virtual { "virtual" } else { "metadata" };
            format!("{} {data_type}{} {kind}{key}", column.name, null(nullable))
        }
    };
    column.comment.iter().fold(text, |text, comment| format!("{text} comment={comment}"))
}

fn insertion(insert: &Insert) -> String {
    let partition: Vec<String> = insert.partition.iter().map(|(column, value)| format!("{column}={value}")).collect();
    let partition = if partition.is_empty() { String::new() } else { format!(" at {}", partition.join(",")) };
    let verb = if insert.overwrite { "overwrite" } else { "insert" };
    format!("{verb} {}{partition}{} <- {}", insert.table, names(&insert.columns), insert.query)
}

fn names(names: &[datafusion::sql::sqlparser::ast::Ident]) -> String {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    if names.is_empty() { String::new() } else { format!("({})", names.join(", ")) }
}

fn flags(flags: &[(bool, &str)]) -> String {
    flags.iter().filter(|(on, _)| *on).map(|(_, name)| format!(" {name}")).collect()
}
