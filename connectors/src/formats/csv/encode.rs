//! Columns to delimited text.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use tidemill_core::error::{Error, Result};

use super::super::Encoder;
use super::super::text::{ColumnText, TextStyle};
use super::CsvOptions;

/// Writes rows so that reading them with the same options gives the same rows.
pub(crate) struct CsvEncoder {
    csv: CsvOptions,
    null: String,
    header: Option<Vec<String>>,
    /// Bytes that make a field need quotes or escapes.
    special: [bool; 256],
}

impl CsvEncoder {
    pub(crate) fn new(csv: &CsvOptions, schema: &SchemaRef) -> Result<Self> {
        let mut special = [false; 256];
        for byte in [Some(csv.delimiter), Some(b'\n'), Some(b'\r'), csv.quote, csv.escape].into_iter().flatten() {
            special[usize::from(byte)] = true;
        }
        let names = || schema.fields().iter().map(|field| field.name().clone()).collect();
        Ok(Self {
            null: csv.null_literal.clone().unwrap_or_default(),
            header: csv.header.then(names),
            csv: csv.clone(),
            special,
        })
    }

    fn write_header(&mut self, out: &mut Vec<u8>) -> Result<()> {
        let Some(names) = self.header.take() else { return Ok(()) };
        for (at, name) in names.iter().enumerate() {
            if at > 0 {
                out.push(self.csv.delimiter);
            }
            self.write_field(name.as_bytes(), at == 0, out)?;
        }
        out.push(b'\n');
        Ok(())
    }

    /// Writes a value that is not NULL.
    fn write_field(&self, field: &[u8], is_first: bool, out: &mut Vec<u8>) -> Result<()> {
        let is_comment = self.csv.comments && is_first && field.first() == Some(&b'#');
        let is_special = field.iter().any(|byte| self.special[usize::from(*byte)]);
        let looks_null = field.is_empty() || field == self.null.as_bytes();
        if !is_special && !looks_null && !is_comment {
            out.extend_from_slice(field);
            return Ok(());
        }
        match (self.csv.quote, self.csv.escape) {
            (Some(quote), _) => self.write_quoted(field, quote, out),
            (None, Some(escape)) if is_special && !field.contains(&b'\n') => self.write_escaped(field, escape, out),
            // Without quotes an empty string cannot be told from NULL, and no reader expects otherwise.
            (None, _) if !is_special && !is_comment => out.extend_from_slice(field),
            (None, _) => {
                let text = String::from_utf8_lossy(field).into_owned();
                return Err(Error::data(format!("'{text}' cannot be written as csv without quotes"))
                    .with_hint("leave 'csv.disable-quote-character' away or choose another 'csv.field-delimiter'"));
            }
        }
        Ok(())
    }

    fn write_quoted(&self, field: &[u8], quote: u8, out: &mut Vec<u8>) {
        out.push(quote);
        for byte in field {
            if *byte == quote || Some(*byte) == self.csv.escape_apart() {
                out.push(self.csv.escape_apart().unwrap_or(quote));
            }
            out.push(*byte);
        }
        out.push(quote);
    }

    fn write_escaped(&self, field: &[u8], escape: u8, out: &mut Vec<u8>) {
        for byte in field {
            if self.special[usize::from(*byte)] {
                out.push(escape);
            }
            out.push(*byte);
        }
    }
}

impl Encoder for CsvEncoder {
    fn encode(&mut self, records: &RecordBatch, out: &mut Vec<u8>) -> Result<()> {
        self.write_header(out)?;
        let columns: Result<Vec<_>> =
            records.columns().iter().map(|column| ColumnText::new(column.as_ref(), TextStyle::CSV)).collect();
        let columns = columns?;
        let mut field = Vec::new();
        for row in 0..records.num_rows() {
            for (at, text) in columns.iter().enumerate() {
                if at > 0 {
                    out.push(self.csv.delimiter);
                }
                if text.is_null(row) {
                    out.extend_from_slice(self.null.as_bytes());
                    continue;
                }
                field.clear();
                text.write(row, &mut field);
                self.write_field(&field, at == 0, out)?;
            }
            out.push(b'\n');
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> Result<()> {
        self.write_header(out)
    }
}
