//! JSON lines: one object a row. Missing members are NULL, members that the table does not have are skipped.

mod decode;
mod encode;

use arrow::datatypes::{DataType, Schema};
use tidemill_core::error::{Error, Result};

use super::holds;
use crate::options::Options;

pub(crate) use decode::{JsonDecoder, parse_values};
pub(crate) use encode::JsonEncoder;

/// How JSON lines are read and written (`json.*`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JsonOptions {
    /// `json.ignore-parse-errors`: lines that do not parse are skipped and counted.
    pub ignore_parse_errors: bool,
}

#[derive(Clone, Copy)]
enum TimestampStandard {
    Sql,
    Iso8601,
}

impl JsonOptions {
    /// Takes the `json.*` options of a table.
    pub fn from_options(options: &mut Options) -> Result<Self> {
        // Both forms are read whichever is declared, and ISO-8601 is what we write.
        let standards = [("SQL", TimestampStandard::Sql), ("ISO-8601", TimestampStandard::Iso8601)];
        options.choice("json.timestamp-format.standard", &standards)?;
        Ok(Self { ignore_parse_errors: options.flag("json.ignore-parse-errors", false)? })
    }
}

/// Refuses BYTES below the top level: Arrow's JSON reader takes it for hexadecimal, and we write base64.
pub(crate) fn check_schema(schema: &Schema) -> Result<()> {
    let nested =
        schema.fields().iter().find(|field| !is_bytes(field.data_type()) && holds(field.data_type(), &is_bytes));
    match nested {
        None => Ok(()),
        Some(field) => {
            Err(Error::request(format!("column '{}' nests BYTES, which format 'json' cannot", field.name())))
        }
    }
}

fn is_bytes(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_))
}
