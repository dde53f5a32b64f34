//! One line a row, in one STRING column.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, LargeStringArray, RecordBatch, StringArray, StringViewArray};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use tidemill_core::error::{Error, Result};

use super::rows::{Rows, batch_of};
use super::{Encoder, ReadOptions, RowDecoder, RowError, RowText};

/// Refuses tables that are not one column of text.
pub(crate) fn check_schema(schema: &Schema) -> Result<()> {
    let is_text = |data_type: &DataType| matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    match schema.fields().as_ref() {
        [field] if is_text(field.data_type()) => Ok(()),
        fields => Err(Error::request(format!("format 'raw' has one STRING column, the table {}", fields.len()))
            .with_hint("use format 'csv' or 'json' for rows with several columns or other types")),
    }
}

pub(crate) struct RawDecoder {
    schema: SchemaRef,
}

impl RawDecoder {
    pub(crate) fn new(options: &ReadOptions) -> Result<Self> {
        check_schema(&options.schema)?;
        Ok(Self { schema: options.projected()? })
    }
}

impl RowDecoder for RawDecoder {
    fn decode(&mut self, text: RowText<'_>) -> Result<Rows, RowError> {
        let lines = Lines::of(text);
        let whole = &text.bytes[..lines.consumed];
        let utf8 = std::str::from_utf8(whole).map_err(|error| {
            let at = error.valid_up_to();
            let offset = memchr::memrchr(b'\n', &whole[..at]).map_or(0, |end| end + 1);
            RowError { offset, column: None, reason: format!("byte 0x{:02x} is not UTF-8", whole[at]) }
        })?;
        let values = lines.ranges.iter().map(|range| utf8.get(range.clone()).unwrap_or_default());
        let columns = self.schema.fields().iter().map(|field| -> ArrayRef {
            match field.data_type() {
                DataType::LargeUtf8 => Arc::new(LargeStringArray::from_iter_values(values.clone())),
                DataType::Utf8View => Arc::new(StringViewArray::from_iter_values(values.clone())),
                _ => Arc::new(StringArray::from_iter_values(values.clone())),
            }
        });
        let records = batch_of(&self.schema, columns.collect(), lines.ranges.len())?;
        Ok(Rows { records, consumed: lines.consumed, skipped: 0 })
    }
}

/// The whole lines at the front of a text, without their ends.
pub(crate) struct Lines {
    pub(crate) ranges: Vec<std::ops::Range<usize>>,
    pub(crate) consumed: usize,
}

impl Lines {
    pub(crate) fn of(text: RowText<'_>) -> Self {
        let mut lines = Self { ranges: Vec::new(), consumed: 0 };
        let without_return = |start: usize, end: usize| {
            let has_return = end > start && text.bytes[end - 1] == b'\r';
            start..end - usize::from(has_return)
        };
        for end in memchr::memchr_iter(b'\n', text.bytes) {
            if lines.ranges.len() == text.rows_max || lines.consumed >= text.starts_before {
                return lines;
            }
            lines.ranges.push(without_return(lines.consumed, end));
            lines.consumed = end + 1;
        }
        let has_rest = lines.consumed < text.bytes.len().min(text.starts_before);
        if text.is_last && has_rest && lines.ranges.len() < text.rows_max {
            lines.ranges.push(without_return(lines.consumed, text.bytes.len()));
            lines.consumed = text.bytes.len();
        }
        lines
    }
}

/// Writes one line a row; a value with a line end in it would become two rows, and NULL has no form.
pub(crate) struct RawEncoder;

impl Encoder for RawEncoder {
    fn encode(&mut self, records: &RecordBatch, out: &mut Vec<u8>) -> Result<()> {
        let values = arrow::compute::cast(records.column(0), &DataType::Utf8View)?;
        for value in values.as_string_view() {
            let line = value.ok_or_else(|| Error::data("NULL cannot be written as a raw line"))?;
            if line.contains('\n') {
                return Err(Error::data(format!("'{line}' cannot be written as one raw line")));
            }
            out.extend_from_slice(line.as_bytes());
            out.push(b'\n');
        }
        Ok(())
    }

    fn finish(&mut self, _out: &mut Vec<u8>) -> Result<()> {
        Ok(())
    }
}
