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

/// Decodes lines into the only column of a table.
pub(crate) struct RawDecoder {
    schema: SchemaRef,
    delimiter: Vec<u8>,
}

impl RawDecoder {
    pub(crate) fn new(options: &ReadOptions) -> Result<Self> {
        check_schema(&options.schema)?;
        Ok(Self { schema: options.projected()?, delimiter: b"\n".to_vec() })
    }

    /// Ends rows by another delimiter than `\n`.
    pub(crate) fn with_delimiter(self, delimiter: &[u8]) -> Self {
        Self { delimiter: delimiter.to_vec(), ..self }
    }
}

impl RowDecoder for RawDecoder {
    fn decode(&mut self, text: RowText<'_>) -> Result<Rows, RowError> {
        let lines = Lines::ended_by(text, &self.delimiter);
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
        Self::ended_by(text, b"\n")
    }

    /// The same for rows that end in another delimiter. Before a `\n`, and only there, a `\r` belongs to the line end.
    fn ended_by(text: RowText<'_>, delimiter: &[u8]) -> Self {
        match delimiter {
            [byte] => Self::cut(text, memchr::memchr_iter(*byte, text.bytes), 1, *byte == b'\n'),
            bytes => Self::cut(text, memchr::memmem::find_iter(text.bytes, bytes), bytes.len(), false),
        }
    }

    fn cut(text: RowText<'_>, ends: impl Iterator<Item = usize>, width: usize, drops_return: bool) -> Self {
        let mut lines = Self { ranges: Vec::new(), consumed: 0 };
        let without_return = |start: usize, end: usize| {
            let has_return = drops_return && end > start && text.bytes[end - 1] == b'\r';
            start..end - usize::from(has_return)
        };
        for end in ends {
            if lines.ranges.len() == text.rows_max || lines.consumed >= text.starts_before {
                return lines;
            }
            lines.ranges.push(without_return(lines.consumed, end));
            lines.consumed = end + width;
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
pub(crate) struct RawEncoder {
    delimiter: String,
}

impl RawEncoder {
    pub(crate) fn new(delimiter: &[u8]) -> Self {
        Self { delimiter: String::from_utf8_lossy(delimiter).into_owned() }
    }
}

impl Encoder for RawEncoder {
    fn encode(&mut self, records: &RecordBatch, out: &mut Vec<u8>) -> Result<()> {
        let values = arrow::compute::cast(records.column(0), &DataType::Utf8View)?;
        for value in values.as_string_view() {
            let line = value.ok_or_else(|| Error::data("NULL cannot be written as a raw line"))?;
            if line.contains(&self.delimiter) {
                return Err(Error::data(format!("'{line}' cannot be written as one raw line")));
            }
            out.extend_from_slice(line.as_bytes());
            out.extend_from_slice(self.delimiter.as_bytes());
        }
        Ok(())
    }

    fn finish(&mut self, _out: &mut Vec<u8>) -> Result<()> {
        Ok(())
    }
}
