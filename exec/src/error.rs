//! DataFusion's errors as ours, in one place.

use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;
use tidemill_core::{Error, ErrorKind};

/// What a failure inside DataFusion means to a caller.
pub fn from_datafusion(error: DataFusionError) -> Error {
    match error {
        DataFusionError::ArrowError(inner, _) => Error::from(*inner),
        DataFusionError::External(inner) => match inner.downcast::<Error>() {
            Ok(own) => *own,
            Err(other) => Error::new(ErrorKind::Internal, other.to_string()).with_source(other),
        },
        DataFusionError::Context(context, inner) => from_datafusion(*inner).context(context),
        DataFusionError::Diagnostic(_, inner) => from_datafusion(*inner),
        DataFusionError::Shared(inner) => match inner.as_ref() {
            DataFusionError::External(source) => match source.downcast_ref::<Error>() {
                Some(own) => own.clone(),
                None => Error::internal(inner.to_string()),
            },
            other => Error::new(kind_of(other), other.strip_backtrace()),
        },
        other => Error::new(kind_of(&other), other.strip_backtrace()).with_source(other),
    }
}

fn kind_of(error: &DataFusionError) -> ErrorKind {
    match error {
        DataFusionError::ResourcesExhausted(_) => ErrorKind::Exhausted,
        DataFusionError::Plan(_)
        | DataFusionError::SQL(..)
        | DataFusionError::SchemaError(..)
        | DataFusionError::Configuration(_)
        | DataFusionError::NotImplemented(_) => ErrorKind::Request,
        DataFusionError::Execution(_) => ErrorKind::Data,
        DataFusionError::IoError(_) | DataFusionError::ObjectStore(_) => ErrorKind::Unavailable,
        DataFusionError::ParquetError(_) => ErrorKind::Corrupt,
        _ => ErrorKind::Internal,
    }
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
