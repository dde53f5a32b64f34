//! Lines of JSON to columns: whole blocks through Arrow's decoder, single lines only to find the one at fault.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BinaryArray, RecordBatch};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::json::ReaderBuilder;
use base64::Engine;
use tidemill_core::error::{Error, Result};

use super::super::raw::Lines;
use super::super::rows::{Rows, batch_of};
use super::super::text::write_json_string;
use super::super::{ReadOptions, RowDecoder, RowError, RowText};
use super::{JsonOptions, check_schema, is_bytes};

/// Decodes JSON lines into the columns of a table.
pub(crate) struct JsonDecoder {
    schema: SchemaRef,
    ignores_errors: bool,
    /// Columns to deliver out of those that are parsed.
    delivered: Vec<usize>,
}

impl JsonDecoder {
    pub(crate) fn new(json: &JsonOptions, options: &ReadOptions) -> Result<Self> {
        check_schema(&options.schema)?;
        let wanted = options.columns();
        // Whether a line is skipped must not depend on which columns a query happens to read.
        let (schema, delivered) = match json.ignore_parse_errors {
            true => (options.schema.clone(), wanted),
            false => (options.projected()?, (0..wanted.len()).collect()),
        };
        Ok(Self { schema, ignores_errors: json.ignore_parse_errors, delivered })
    }

    fn parse(&self, text: &[u8], lines: usize) -> Result<RecordBatch> {
        decode_objects(&self.schema, text, lines)
    }

    /// Line by line: the first bad one is an error, or all bad ones are left out.
    fn sift(&self, text: &[u8], lines: &Lines) -> Result<(RecordBatch, usize), RowError> {
        let mut good = Vec::with_capacity(lines.ranges.len());
        let mut skipped = 0;
        for range in &lines.ranges {
            match self.parse(&text[range.clone()], 1) {
                Ok(row) => good.push(row),
                Err(_) if self.ignores_errors => skipped += 1,
                Err(error) => {
                    let reason = plain_reason(error.message());
                    return Err(RowError { offset: range.start, column: None, reason });
                }
            }
        }
        let records = concat_batches(&self.schema, &good).map_err(no_row)?;
        Ok((records, skipped))
    }
}

impl RowDecoder for JsonDecoder {
    fn decode(&mut self, text: RowText<'_>) -> Result<Rows, RowError> {
        let mut lines = Lines::of(text);
        lines.ranges.retain(|range| !text.bytes[range.clone()].trim_ascii().is_empty());
        let whole = &text.bytes[..lines.consumed];
        let (records, skipped) = match self.parse(whole, lines.ranges.len()) {
            Ok(records) => (records, 0),
            Err(_) => self.sift(whole, &lines)?,
        };
        let records = records.project(&self.delivered).map_err(no_row)?;
        Ok(Rows { records, consumed: lines.consumed, skipped })
    }
}

fn no_row(error: ArrowError) -> RowError {
    RowError { offset: 0, column: None, reason: error.to_string() }
}

/// The reader's message without the name of the reader.
fn plain_reason(message: &str) -> String {
    message.strip_prefix("Json error: ").unwrap_or(message).to_owned()
}

/// One row for each of `lines` objects in `text`.
fn decode_objects(schema: &SchemaRef, text: &[u8], lines: usize) -> Result<RecordBatch> {
    if schema.fields().is_empty() {
        return batch_of(schema, Vec::new(), lines).map_err(|error| Error::data(error.reason));
    }
    let readable = readable_schema(schema);
    let mut decoder = ReaderBuilder::new(readable.clone())
        .with_batch_size(lines.max(1))
        .with_coerce_primitive(true)
        .build_decoder()?;
    let read = decoder.decode(text)?;
    if decoder.has_partial_record() || !text[read..].trim_ascii().is_empty() || decoder.len() != lines {
        return Err(Error::data("not one JSON object a line"));
    }
    let records = decoder.flush()?.unwrap_or_else(|| RecordBatch::new_empty(readable));
    with_bytes(schema, records)
}

/// The schema with BYTES as the text that they are in JSON.
fn readable_schema(schema: &SchemaRef) -> SchemaRef {
    if !schema.fields().iter().any(|field| is_bytes(field.data_type())) {
        return schema.clone();
    }
    let readable = |field: &Arc<Field>| match is_bytes(field.data_type()) {
        true => Arc::new(field.as_ref().clone().with_data_type(DataType::Utf8)),
        false => field.clone(),
    };
    Arc::new(Schema::new(schema.fields().iter().map(readable).collect::<Vec<_>>()))
}

fn with_bytes(schema: &SchemaRef, records: RecordBatch) -> Result<RecordBatch> {
    if records.schema_ref() == schema {
        return Ok(records);
    }
    let mut columns = records.columns().to_vec();
    for (column, field) in columns.iter_mut().zip(schema.fields()) {
        if is_bytes(field.data_type()) {
            *column = decode_base64(column, field)?;
        }
    }
    batch_of(schema, columns, records.num_rows()).map_err(|error| Error::data(error.reason))
}

fn decode_base64(column: &ArrayRef, field: &Field) -> Result<ArrayRef> {
    let decode = |text: Option<&str>| {
        let bytes = text.map(|text| base64::engine::general_purpose::STANDARD.decode(text)).transpose();
        bytes.map_err(|error| {
            Error::data(format!("'{}' is no base64 for '{}'", text.unwrap_or_default(), field.name()))
                .with_source(error)
        })
    };
    let values: Result<BinaryArray> = column.as_string::<i32>().iter().map(decode).collect();
    Ok(cast(&values?, field.data_type())?)
}

/// Parses JSON values of one type, one a row; `None` is NULL.
pub(crate) fn parse_values<'a>(field: &Field, texts: impl Iterator<Item = Option<&'a str>>) -> Result<ArrayRef> {
    let mut objects = Vec::new();
    let mut key = Vec::new();
    write_json_string(field.name(), &mut key);
    let mut rows = 0;
    for text in texts {
        objects.push(b'{');
        objects.extend_from_slice(&key);
        objects.push(b':');
        objects.extend_from_slice(text.unwrap_or("null").as_bytes());
        objects.extend_from_slice(b"}\n");
        rows += 1;
    }
    let schema = Arc::new(Schema::new(vec![field.clone().with_nullable(true)]));
    Ok(decode_objects(&schema, &objects, rows)?.column(0).clone())
}
