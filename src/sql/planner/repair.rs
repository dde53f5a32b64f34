//! Names in another case than they were declared in.
//!
//! An exact match wins: planning goes ahead with names as they stand. Where it fails on a name, and exactly one candidate
//! differs from it in case only, the name is replaced at its place in the text and the statement is planned again.
//! The text keeps its length, so that every place in it stays what it was.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use datafusion::common::{Column, DataFusionError, SchemaError};
use datafusion::sql::sqlparser::ast::{Query, Statement as SqlStatement, TableFactor, Visitor};
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};
use tidemill_core::{Error, Result};

use super::context::Relations;
use crate::sql::error::{UnknownRelation, place_of, planning, root_ref};
use crate::sql::parser::{DIALECT, Parsed, Statement, locate, parse_script, walk};

/// The most names that one statement may have mended; each costs a planning.
const REPAIRS_MAX: usize = 2_000;

/// A statement whose names are being mended.
pub struct Repair {
    /// The statement, moved to where it stands in its script.
    script: String,
    repairs: usize,
    /// Places where a name was mended by a guess, which is made once: it may not have been the right one.
    guessed: Vec<Location>,
}

impl Repair {
    /// Begins with the statement as it was written.
    pub fn new(parsed: &Parsed) -> Self {
        let lines = "\n".repeat(parsed.span.line.saturating_sub(1) as usize);
        let columns = " ".repeat(parsed.span.column.saturating_sub(1) as usize);
        Self { script: format!("{lines}{columns}{}", parsed.text), repairs: 0, guessed: Vec::new() }
    }

    /// The statement with the name mended that `error` speaks of, or the error in our words. `relations` are those that the
    /// statement was planned with.
    pub fn mend(&mut self, error: DataFusionError, relations: &Relations) -> Result<Parsed> {
        let mended = match self.repairs < REPAIRS_MAX {
            true => self.replacement(&error).or_else(|| self.outer_column(&error, relations)),
            false => None,
        };
        let Some(script) = mended else { return Err(planning(error)) };
        self.repairs += 1;
        self.script = script;
        let mut parsed = parse_script(&self.script)?;
        match (parsed.pop(), parsed.is_empty()) {
            (Some(parsed), true) => Ok(parsed),
            _ => Err(Error::internal("a statement with mended names is no longer one statement")),
        }
    }

    fn replacement(&self, error: &DataFusionError) -> Option<String> {
        let place = place_of(error);
        match root_ref(error) {
            DataFusionError::SchemaError(error, _) => match error.as_ref() {
                SchemaError::FieldNotFound { field, valid_fields } => self.column(field, valid_fields, place),
                _ => None,
            },
            DataFusionError::External(error) => self.relation(error.downcast_ref()?, place),
            DataFusionError::Plan(text) => self.qualifier(text.strip_prefix("Invalid qualifier ")?),
            _ => None,
        }
    }

    fn column(&self, field: &Column, valid: &[Column], place: Option<Location>) -> Option<String> {
        let table = |column: &Column| column.relation.as_ref().map(|relation| relation.table().to_owned());
        let own_table = table(field);
        let fits = |candidate: &&Column| {
            differs_in_case_only(&candidate.name, &field.name)
                || candidate.name == field.name && own_table.is_some() && table(candidate) != own_table
        };
        let in_table = |candidate: &&Column| match (&own_table, table(candidate)) {
            (None, _) => true,
            (Some(own), Some(other)) => same_but_case(own, &other),
            (Some(_), None) => false,
        };
        let candidates = valid.iter().filter(fits).filter(in_table);
        let candidates: BTreeSet<Vec<String>> = candidates
            .map(|column| {
                let table = own_table.is_some().then(|| table(column)).flatten();
                table.into_iter().chain([column.name.clone()]).collect()
            })
            .collect();
        let written: Vec<String> = own_table.into_iter().chain([field.name.clone()]).collect();
        self.replace(&written, &only(candidates)?, place)
    }

    /// A column of an outer query: the error knows only those of the inner one. The tables that the text names have to do.
    fn outer_column(&mut self, error: &DataFusionError, relations: &Relations) -> Option<String> {
        let place = place_of(error).filter(|place| !self.guessed.contains(place))?;
        let DataFusionError::SchemaError(error, _) = root_ref(error) else { return None };
        let SchemaError::FieldNotFound { field, .. } = error.as_ref() else { return None };
        self.guessed.push(place);
        let own_table = field.relation.as_ref().map(|relation| relation.table().to_owned());
        let columns = |table: &str| relations.opened.get(table).map(|table| table.schema());
        let mut candidates = BTreeSet::new();
        for (table, called) in self.tables() {
            if own_table.as_ref().is_some_and(|own| !same_but_case(own, &called)) {
                continue;
            }
            for column in columns(&table).iter().flat_map(|schema| schema.fields()) {
                if same_but_case(column.name(), &field.name) {
                    let called = own_table.is_some().then(|| called.clone());
                    candidates.insert(called.into_iter().chain([column.name().clone()]).collect::<Vec<_>>());
                }
            }
        }
        let written: Vec<String> = own_table.into_iter().chain([field.name.clone()]).collect();
        let candidate = only(candidates).filter(|candidate| *candidate != written)?;
        self.replace(&written, &candidate, Some(place))
    }

    fn relation(&self, unknown: &UnknownRelation, place: Option<Location>) -> Option<String> {
        let names = unknown.known.iter().cloned().chain(self.ctes());
        let candidates = names.filter(|name| differs_in_case_only(name, &unknown.name)).collect();
        self.replace(std::slice::from_ref(&unknown.name), &[only(candidates)?], place)
    }

    /// `T.*` where the table is `t`: DataFusion does not say where, nor what there is, so that the text has to.
    fn qualifier(&self, written: &str) -> Option<String> {
        let candidates = self.words().into_iter().filter(|word| differs_in_case_only(word, written)).collect();
        self.replace(&[written.to_owned()], &[only(candidates)?], None)
    }

    /// The text with the dotted name `written` replaced: at `place`, or everywhere but where `AS` gives a name.
    fn replace(&self, written: &[String], candidate: &[String], place: Option<Location>) -> Option<String> {
        let tokens: Vec<TokenWithSpan> =
            self.tokens()?.into_iter().filter(|token| !matches!(token.token, Token::Whitespace(_))).collect();
        let mut script = self.script.clone();
        let mut replaced = false;
        for first in 0..tokens.len() {
            let here = tokens[first].span.start;
            if place.is_some_and(|place| place != here) || place.is_none() && names_something(&tokens, first) {
                continue;
            }
            let Some(words) = dotted(&tokens[first..], written) else { continue };
            for (word, name) in words.into_iter().zip(candidate) {
                let quote = usize::from(matches!(&word.token, Token::Word(word) if word.quote_style.is_some()));
                let start = locate(&script, word.span.start.line, word.span.start.column) + quote;
                let Token::Word(old) = &word.token else { continue };
                let end = start + old.value.len();
                if script.get(start..end) == Some(old.value.as_str()) {
                    script.replace_range(start..end, name);
                    replaced = true;
                }
            }
        }
        replaced.then_some(script)
    }

    fn words(&self) -> Vec<String> {
        let word = |token: TokenWithSpan| match token.token {
            Token::Word(word) => Some(word.value),
            _ => None,
        };
        self.tokens().unwrap_or_default().into_iter().filter_map(word).collect()
    }

    fn tokens(&self) -> Option<Vec<TokenWithSpan>> {
        Tokenizer::new(&DIALECT, &self.script).tokenize_with_location().ok()
    }

    /// The tables in `FROM`, and what each is called in its query.
    fn tables(&self) -> Vec<(String, String)> {
        struct Tables(Vec<(String, String)>);
        impl Visitor for Tables {
            type Break = ();

            fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
                if let TableFactor::Table { name, alias, .. } = factor
                    && let Some(name) = name.0.last().and_then(|part| part.as_ident())
                {
                    let called = alias.as_ref().map_or(&name.value, |alias| &alias.name.value);
                    self.0.push((name.value.clone(), called.clone()));
                }
                ControlFlow::Continue(())
            }
        }
        let mut tables = Tables(Vec::new());
        self.visit(&mut tables);
        tables.0
    }

    fn visit(&self, visitor: &mut dyn Visitor<Break = ()>) {
        for parsed in parse_script(&self.script).unwrap_or_default() {
            for query in queries(&parsed.statement) {
                walk(&query, visitor);
            }
        }
    }

    /// The names that `WITH` gives.
    fn ctes(&self) -> Vec<String> {
        struct Names(Vec<String>);
        impl Visitor for Names {
            type Break = ();

            fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
                let tables = query.with.iter().flat_map(|with| &with.cte_tables);
                self.0.extend(tables.map(|table| table.alias.name.value.clone()));
                ControlFlow::Continue(())
            }
        }
        let mut names = Names(Vec::new());
        self.visit(&mut names);
        names.0
    }
}

/// The queries of a statement.
pub fn queries(statement: &Statement) -> Vec<Query> {
    use datafusion::sql::parser::{CopyToSource, Statement as Other};
    match statement {
        Statement::Query(query) => vec![query.as_ref().clone()],
        Statement::CreateTable(create) => create.as_query.iter().map(|query| query.as_ref().clone()).collect(),
        Statement::CreateView(create) => vec![create.query.as_ref().clone()],
        Statement::Insert(insert) => vec![insert.query.as_ref().clone()],
        Statement::StatementSet(inserts) => inserts.iter().map(|insert| insert.query.as_ref().clone()).collect(),
        Statement::Explain(explain) => queries(&explain.statement),
        Statement::Other(other) => match other.as_ref() {
            Other::CopyTo(copy) => match &copy.source {
                CopyToSource::Query(query) => vec![query.as_ref().clone()],
                CopyToSource::Relation(_) => Vec::new(),
            },
            Other::Statement(statement) => match statement.as_ref() {
                SqlStatement::Query(query) => vec![query.as_ref().clone()],
                _ => Vec::new(),
            },
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}

/// The words of the dotted name `written`, if that is what the tokens begin with, and all of it.
fn dotted<'a>(tokens: &'a [TokenWithSpan], written: &[String]) -> Option<Vec<&'a TokenWithSpan>> {
    let mut words = Vec::new();
    for (place, name) in written.iter().enumerate() {
        let token = tokens.get(2 * place)?;
        match &token.token {
            Token::Word(word) if word.value == *name => words.push(token),
            _ => return None,
        }
        if place > 0 && tokens.get(2 * place - 1)?.token != Token::Period {
            return None;
        }
    }
    Some(words)
}

/// Whether the word names something new (`AS word`) or belongs to a longer name (`t.word`).
fn names_something(tokens: &[TokenWithSpan], place: usize) -> bool {
    let before = place.checked_sub(1).and_then(|before| tokens.get(before));
    match before.map(|before| &before.token) {
        Some(Token::Word(word)) => word.quote_style.is_none() && word.value.eq_ignore_ascii_case("AS"),
        Some(Token::Period) => true,
        _ => false,
    }
}

fn same_but_case(left: &str, right: &str) -> bool {
    // Of equal length in bytes, so that no place in the text moves.
    left.len() == right.len() && left.to_lowercase() == right.to_lowercase()
}

fn differs_in_case_only(left: &str, right: &str) -> bool {
    left != right && same_but_case(left, right)
}

fn only<T: Ord>(candidates: BTreeSet<T>) -> Option<T> {
    let mut candidates = candidates.into_iter();
    candidates.next().filter(|_| candidates.next().is_none())
}
