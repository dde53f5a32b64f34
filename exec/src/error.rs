//! DataFusion's errors as ours and back, in one place.
//!
//! A failure of ours that travels through a plan comes out as it went in. What DataFusion itself says gets the kind that tells
//! the caller what to do, and keeps DataFusion's error as its source.

use std::error::Error as StdError;
use std::sync::Arc;

use arrow::error::ArrowError;
use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;
use datafusion::parquet::errors::ParquetError;
use tidemill_core::{Error, ErrorKind};

/// What helps when a disk for spilled rows is full.
pub(crate) const FREE_SPACE: &str = "free some space or set io.tmp.dirs to another disk";

/// What a failure inside DataFusion means to a caller.
pub fn from_datafusion(error: DataFusionError) -> Error {
    let error = Arc::new(error);
    match meaning(&error) {
        Meaning::Ours(own) => own,
        Meaning::Theirs(plain) => full_disk(plain).with_source(error),
    }
}

/// What to do when an operator that spills has no room; some pass on what the disk said as a text alone.
fn full_disk(error: Error) -> Error {
    let is_full = error.kind() == ErrorKind::Exhausted || error.message().contains("(os error 28)");
    match is_full && error.hint().is_none() {
        true => Error::exhausted(error.message().to_owned()).with_hint(FREE_SPACE),
        false => error,
    }
}

/// One of our failures on its way through a plan.
pub fn to_datafusion(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// The column that a schema error could not find, and the columns there are.
pub fn missing_field(error: &DataFusionError) -> Option<(String, Vec<String>)> {
    match error {
        DataFusionError::SchemaError(inner, _) => match inner.as_ref() {
            SchemaError::FieldNotFound { field, valid_fields } => {
                Some((field.name.clone(), valid_fields.iter().map(|field| field.name.clone()).collect()))
            }
            _ => None,
        },
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => missing_field(inner),
        _ => None,
    }
}

enum Meaning {
    /// An error of ours that went through a plan.
    Ours(Error),
    /// An error without its source.
    Theirs(Error),
}

impl Meaning {
    fn of(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self::Theirs(Error::new(kind, message.into()))
    }

    fn map(self, change: impl FnOnce(Error) -> Error) -> Self {
        match self {
            Self::Ours(error) => Self::Ours(change(error)),
            Self::Theirs(error) => Self::Theirs(change(error)),
        }
    }
}

/// By reference, because one failure may be shared by many consumers.
fn meaning(error: &DataFusionError) -> Meaning {
    use DataFusionError as D;
    match error {
        D::External(inner) => foreign(&**inner),
        D::Shared(inner) => meaning(inner),
        D::Context(context, inner) => meaning(inner).map(|error| error.context(context)),
        D::Diagnostic(_, inner) => meaning(inner),
        D::Collection(all) => match all.first() {
            Some(first) => meaning(first),
            None => Meaning::of(ErrorKind::Internal, "an empty collection of errors"),
        },
        D::ArrowError(inner, _) => arrow(inner),
        D::ParquetError(inner) => parquet(inner),
        D::ObjectStore(inner) => Meaning::of(store_kind(inner), lowercase(&inner.to_string())),
        D::IoError(inner) => Meaning::of(io_kind(inner), inner.to_string()),
        D::ResourcesExhausted(message) => Meaning::Theirs(exhausted(message)),
        D::Plan(_) | D::SQL(..) | D::SchemaError(..) | D::Configuration(_) | D::NotImplemented(_) => {
            Meaning::of(ErrorKind::Request, error.strip_backtrace())
        }
        // What a function says of its arguments: division by zero, a text that is no number.
        D::Execution(message) => Meaning::of(ErrorKind::Data, message.as_str()),
        D::ExecutionJoin(inner) if inner.is_cancelled() => Meaning::of(ErrorKind::Cancelled, inner.to_string()),
        other => Meaning::of(ErrorKind::Internal, other.strip_backtrace()),
    }
}

fn foreign(error: &(dyn StdError + Send + Sync + 'static)) -> Meaning {
    if let Some(own) = error.downcast_ref::<Error>() {
        return Meaning::Ours(own.clone());
    }
    if let Some(inner) = error.downcast_ref::<DataFusionError>() {
        return meaning(inner);
    }
    if let Some(inner) = error.downcast_ref::<ArrowError>() {
        return arrow(inner);
    }
    if let Some(inner) = error.downcast_ref::<ParquetError>() {
        return parquet(inner);
    }
    let kind = match (error.downcast_ref::<object_store::Error>(), error.downcast_ref::<std::io::Error>()) {
        (Some(inner), _) => store_kind(inner),
        (_, Some(inner)) => io_kind(inner),
        _ => ErrorKind::Internal,
    };
    Meaning::of(kind, error.to_string())
}

fn arrow(error: &ArrowError) -> Meaning {
    match error {
        ArrowError::ExternalError(inner) => foreign(&**inner),
        ArrowError::IoError(message, inner) => Meaning::of(io_kind(inner), message.as_str()),
        ArrowError::MemoryError(message) => Meaning::Theirs(exhausted(message)),
        ArrowError::IpcError(message) => Meaning::of(ErrorKind::Corrupt, message.as_str()),
        ArrowError::CDataInterface(_) | ArrowError::NotYetImplemented(_) | ArrowError::SchemaError(_) => {
            Meaning::of(ErrorKind::Internal, error.to_string())
        }
        ArrowError::CastError(message) => Meaning::of(ErrorKind::Data, miscast(message)),
        _ => Meaning::of(ErrorKind::Data, lowercase(&error.to_string())),
    }
}

/// What Arrow says of a cast, with SQL's names of types; the value that it quotes stays as it is.
fn miscast(message: &str) -> String {
    let (value, types) = message.split_at(message.rfind('\'').unwrap_or(0));
    lowercase(&format!("{value}{}", sql_types(types)))
}

fn parquet(error: &ParquetError) -> Meaning {
    match error {
        ParquetError::External(inner) => foreign(&**inner),
        other => Meaning::of(ErrorKind::Corrupt, lowercase(&other.to_string())),
    }
}

pub(crate) fn store_kind(error: &object_store::Error) -> ErrorKind {
    use object_store::Error as S;
    match error {
        S::InvalidPath { .. }
        | S::NotSupported { .. }
        | S::NotImplemented { .. }
        | S::UnknownConfigurationKey { .. } => ErrorKind::Request,
        S::JoinError { .. } => ErrorKind::Internal,
        _ => ErrorKind::Unavailable,
    }
}

pub(crate) fn io_kind(error: &std::io::Error) -> ErrorKind {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorKind::Exhausted,
        _ => ErrorKind::Unavailable,
    }
}

/// The pool's message says what was wanted, by whom, and how large the pool is; the list of the largest holders before it goes.
fn exhausted(message: &str) -> Error {
    let (_, wanted) = message.rsplit_once("\nError: ").unwrap_or(("", message));
    let disk = message.contains("disk");
    let wanted = match wanted.rsplit_once(" for the total memory pool: ") {
        None => wanted.to_owned(),
        Some((wanted, pool)) => match pool.split_once("pool_size: ") {
            Some((_, size)) => format!("{wanted} of the budget of {}", size.trim_end_matches([')', '.'])),
            None => wanted.to_owned(),
        },
    };
    let error = Error::exhausted(lowercase(wanted.trim()));
    match disk {
        true => error.with_hint(FREE_SPACE),
        false => error.with_hint("raise taskmanager.memory.process.size or lower parallelism.default"),
    }
}

/// `text` with SQL's names in place of Arrow's.
pub fn sql_types(text: &str) -> String {
    let mut named = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(char::is_alphanumeric) {
        let (before, word) = rest.split_at(start);
        let end = word.find(|c: char| !c.is_alphanumeric()).unwrap_or(word.len());
        named.push_str(before);
        named.push_str(sql_type(&word[..end]));
        rest = &word[end..];
    }
    named.push_str(rest);
    named
}

fn sql_type(word: &str) -> &str {
    match word {
        "Int8" => "TINYINT",
        "Int16" => "SMALLINT",
        "Int32" => "INT",
        "Int64" => "BIGINT",
        "Float32" => "FLOAT",
        "Float64" => "DOUBLE",
        "Decimal" | "Decimal128" | "Decimal256" => "DECIMAL",
        "Boolean" => "BOOLEAN",
        "String" | "Utf8" | "LargeUtf8" | "Utf8View" => "STRING",
        "Binary" | "LargeBinary" | "BinaryView" => "BYTES",
        "Date32" => "DATE",
        "Interval" => "INTERVAL",
        other => other,
    }
}

fn lowercase(message: &str) -> String {
    let mut rest = message.chars();
    // A name or an abbreviation stays as it is.
    match (rest.next(), rest.clone().next()) {
        (Some(first), Some(second)) if second.is_lowercase() => first.to_lowercase().chain(rest).collect(),
        _ => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(error: DataFusionError, kind: ErrorKind, text: &str) {
        let error = from_datafusion(error);
        assert_eq!((error.kind(), error.to_string().as_str()), (kind, text));
    }

    #[test]
    fn casts_speak_of_the_types_of_sql() {
        let cast = |text: &str| DataFusionError::from(ArrowError::CastError(text.to_owned()));
        let (text, shown) =
            ("Cannot cast string 'Int8' to value of Int32 type", "cannot cast string 'Int8' to value of INT type");
        check(cast(text), ErrorKind::Data, shown);
        check(cast("Can't cast value 300 to type Int8"), ErrorKind::Data, "can't cast value 300 to type TINYINT");
    }

    #[test]
    fn ours_comes_out_as_it_went_in() {
        let own = || Error::data("'x' is not a number").with_hint("line 17, column 3");
        let text = "'x' is not a number; line 17, column 3";
        check(to_datafusion(own()), ErrorKind::Data, text);
        let shared = DataFusionError::Shared(Arc::new(to_datafusion(own())));
        check(shared, ErrorKind::Data, text);
        let through_arrow = ArrowError::ExternalError(Box::new(to_datafusion(own())));
        check(DataFusionError::ArrowError(Box::new(through_arrow), None), ErrorKind::Data, text);
    }

    #[test]
    fn a_used_up_budget_names_who_wanted_what() {
        let message = "Additional allocation failed for r5 with top memory consumers (across reservations) as:\n  r1 consumed \
                       50.0 B.\nError: Failed to allocate additional 150.0 B for r5 - 5.0 B remain available for the total \
                       memory pool: fair(pool_size: 1024.0 MB)";
        check(
            DataFusionError::ResourcesExhausted(message.into()),
            ErrorKind::Exhausted,
            "failed to allocate additional 150.0 B for r5 - 5.0 B remain available of the budget of 1024.0 MB; raise \
             taskmanager.memory.process.size or lower parallelism.default",
        );
    }

    #[test]
    fn what_the_caller_can_do_decides_the_kind() {
        check(DataFusionError::Execution("Divide by zero".into()), ErrorKind::Data, "Divide by zero");
        let missing = object_store::Error::NotFound { path: "a.parquet".into(), source: "gone".into() };
        assert_eq!(from_datafusion(missing.into()).kind(), ErrorKind::Unavailable);
        let torn = ParquetError::General("bad magic".into());
        assert_eq!(from_datafusion(torn.into()).kind(), ErrorKind::Corrupt);
        assert_eq!(from_datafusion(DataFusionError::Plan("no such table".into())).kind(), ErrorKind::Request);
    }
}
