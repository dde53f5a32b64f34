//! The errors of planning in our words: one line, the place in the text where it is known, and what to do about it.

use arrow::error::ArrowError;
use datafusion::common::{Column, DataFusionError, SchemaError};
use datafusion::sql::sqlparser::tokenizer::Location;
use tidemill_core::Error;
use tidemill_core::error::nearest;
use tidemill_exec::error::{from_datafusion, sql_types};

use super::parser::Located;
use super::type_error::type_error;

/// The most names that a hint lists.
const NAMES_MAX: usize = 12;

/// A name in `FROM` that stands for nothing.
#[derive(Debug)]
pub struct UnknownRelation {
    /// The name.
    pub name: String,
    /// What there is.
    pub known: Vec<String>,
}

impl std::fmt::Display for UnknownRelation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "table '{}' not found", self.name)
    }
}

impl std::error::Error for UnknownRelation {}

/// The same error with its place in the text; the empty place changes nothing, and neither does a second one.
pub fn at(error: Error, place: Location) -> Error {
    if place.line == 0 || has_place(&error) {
        return error;
    }
    let located = Located { line: place.line, column: place.column };
    let placed = Error::new(error.kind(), format!("{} {located}", error.message())).with_source(located);
    match error.hint() {
        Some(hint) => placed.with_hint(hint.to_owned()),
        None => placed,
    }
}

/// Whether an error knows its place in the text.
pub fn has_place(error: &Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.is::<Located>())
}

/// A planning error as the public one.
pub fn planning(error: DataFusionError) -> Error {
    let place = place_of(&error);
    let error = match root(error) {
        DataFusionError::SchemaError(error, _) => schema(*error),
        DataFusionError::External(error) => match error.downcast::<UnknownRelation>() {
            Ok(unknown) => relation(&unknown),
            Err(error) => return from_datafusion(DataFusionError::External(error)),
        },
        DataFusionError::Plan(text) => plan(&text),
        DataFusionError::NotImplemented(text) if text.contains("ScalarSubquery(") => Error::request(
            "a subquery in this place is not supported",
        )
        .with_hint("as a stream it may stand in WHERE, HAVING and the SELECT list; or put it into a view and join"),
        DataFusionError::NotImplemented(text) => Error::request(format!("not supported: {}", sentence(&text))),
        // A constant that is none of its type is found before a row is read.
        DataFusionError::ArrowError(error, _) if matches!(*error, ArrowError::CastError(_)) => {
            constant(&error.to_string())
        }
        DataFusionError::Configuration(text) => Error::request(sentence(&text)),
        other => from_datafusion(other),
    };
    place.map_or(error.clone(), |place| at(error, place))
}

/// Where in the text the error is.
pub fn place_of(error: &DataFusionError) -> Option<Location> {
    let span = error.diagnostic()?.span?;
    Some(Location::new(span.start.line, span.start.column))
}

/// The error within contexts and diagnostics; of several, the first.
pub fn root(error: DataFusionError) -> DataFusionError {
    match error {
        DataFusionError::Diagnostic(_, inner) | DataFusionError::Context(_, inner) => root(*inner),
        DataFusionError::Collection(mut errors) if !errors.is_empty() => root(errors.swap_remove(0)),
        other => other,
    }
}

/// The same without taking the error apart.
pub fn root_ref(error: &DataFusionError) -> &DataFusionError {
    match error {
        DataFusionError::Diagnostic(_, inner) | DataFusionError::Context(_, inner) => root_ref(inner),
        DataFusionError::Collection(errors) => errors.first().map_or(error, root_ref),
        other => other,
    }
}

fn schema(error: SchemaError) -> Error {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let error = Error::request(format!("column '{}' not found", name(&field)));
            match hint(&field.name, valid_fields.iter().map(name).collect()) {
                Some(hint) => error.with_hint(hint),
                None => error,
            }
        }
        SchemaError::AmbiguousReference { field } => {
            Error::request(format!("column '{}' is ambiguous", field.name)).with_hint("qualify it with its table")
        }
        SchemaError::DuplicateQualifiedField { qualifier, name } => {
            Error::request(format!("two columns are called '{qualifier}.{name}'")).with_hint("give one another name")
        }
        SchemaError::DuplicateUnqualifiedField { name } => {
            Error::request(format!("two columns are called '{name}'")).with_hint("give one another name")
        }
    }
}

fn relation(unknown: &UnknownRelation) -> Error {
    let error = Error::request(unknown.to_string());
    match hint(&unknown.name, unknown.known.clone()) {
        Some(hint) => error.with_hint(hint),
        None => error.with_hint("create it first, or quote the path of a file: FROM 'flights.csv'"),
    }
}

/// Names that differ in case alone, else the nearest, else all, if there are few.
fn hint(name: &str, mut known: Vec<String>) -> Option<String> {
    known.sort();
    known.dedup();
    let last = |known: &str| known.rsplit_once('.').map_or(known, |(_, last)| last).to_lowercase();
    let same: Vec<&str> = known.iter().map(String::as_str).filter(|known| last(known) == last(name)).collect();
    if same.len() > 1 {
        return Some(format!("it could be {}", same.join(" or ")));
    }
    if let Some(near) = same.first().copied().or_else(|| nearest(name, known.iter().map(String::as_str))) {
        return Some(format!("did you mean '{near}'?"));
    }
    match known.len() {
        0 => None,
        1..=NAMES_MAX => Some(format!("known: {}", known.join(", "))),
        _ => Some(format!("known: {} …", known[..NAMES_MAX].join(", "))),
    }
}

fn name(column: &Column) -> String {
    match &column.relation {
        Some(relation) => format!("{}.{}", relation.table(), column.name),
        None => column.name.clone(),
    }
}

fn constant(text: &str) -> Error {
    let text = text.strip_prefix("Cast error: ").unwrap_or(text);
    Error::request(sql_types(&sentence(text))).with_hint("TRY_CAST gives NULL instead")
}

/// DataFusion's planning errors are sentences; the ones that people meet most are worded anew.
fn plan(text: &str) -> Error {
    if let Some((function, rest)) = text.strip_prefix("Invalid function '").and_then(|text| text.split_once('\'')) {
        let error = Error::request(format!("unknown function '{function}'"));
        let near = rest.split_once("Did you mean '").and_then(|(_, near)| near.split_once('\''));
        // DataFusion names the nearest function however far that is.
        return match near.filter(|(near, _)| nearest(function, [*near]).is_some()) {
            Some((near, _)) => error.with_hint(format!("did you mean '{near}'? `SHOW FUNCTIONS` lists them all")),
            None => error.with_hint("`SHOW FUNCTIONS` lists them all"),
        };
    }
    type_error(text).unwrap_or_else(|| Error::request(sentence(text)))
}

/// A sentence as a fragment: one line, no capital, no full stop.
pub fn sentence(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let line = line.trim_end_matches('.');
    let mut characters = line.chars();
    match (characters.next(), characters.clone().next()) {
        (Some(first), Some(second)) if !second.is_uppercase() => first.to_lowercase().chain(characters).collect(),
        _ => line.to_owned(),
    }
}
