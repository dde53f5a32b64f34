//! Rows as csv (RFC 4180, lines end in a line feed): a header, then a line a row.
//!
//! NULL is empty; an empty string is `""`.

use tidemill_connectors::formats::text::{ColumnText, TextStyle};
use tidemill_core::{Batch, Result};

use super::{RowWriter, Shape};

/// Writes csv.
pub struct CsvWriter {
    shape: Shape,
    is_begun: bool,
}

impl CsvWriter {
    /// A writer of such rows.
    pub fn new(shape: Shape) -> Self {
        Self { shape, is_begun: false }
    }

    fn header(&mut self, out: &mut Vec<u8>) {
        if std::mem::replace(&mut self.is_begun, true) {
            return;
        }
        let op = self.shape.op.then_some("op");
        let names = op.into_iter().chain(self.shape.schema.fields().iter().map(|field| field.name().as_str()));
        for (at, name) in names.enumerate() {
            if at > 0 {
                out.push(b',');
            }
            write_field(name.as_bytes(), out);
        }
        out.push(b'\n');
    }
}

impl RowWriter for CsvWriter {
    fn rows(&mut self, batch: &Batch, out: &mut Vec<u8>) -> Result<()> {
        self.header(out);
        let style = TextStyle::CSV.in_zone(self.shape.zone);
        let columns = batch.records().columns();
        let texts = columns.iter().map(|column| ColumnText::new(column.as_ref(), style)).collect::<Result<Vec<_>>>()?;
        let mut field = Vec::new();
        for row in 0..batch.num_rows() {
            if self.shape.op {
                out.extend_from_slice(batch.kind(row)?.symbol().as_bytes());
            }
            for (at, text) in texts.iter().enumerate() {
                if at > 0 || self.shape.op {
                    out.push(b',');
                }
                if !text.is_null(row) {
                    field.clear();
                    text.write(row, &mut field);
                    write_field(&field, out);
                }
            }
            out.push(b'\n');
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> Result<()> {
        self.header(out);
        Ok(())
    }
}

fn write_field(field: &[u8], out: &mut Vec<u8>) {
    if !field.is_empty() && !field.iter().any(|byte| matches!(byte, b',' | b'"' | b'\n' | b'\r')) {
        return out.extend_from_slice(field);
    }
    out.push(b'"');
    for byte in field {
        if *byte == b'"' {
            out.push(b'"');
        }
        out.push(*byte);
    }
    out.push(b'"');
}
