//! Rows as JSON objects, one a line.

use tidemill_connectors::formats::text::{ColumnText, TextStyle};
use tidemill_core::{Batch, Error, Result};

use super::{RowWriter, Shape};

/// Writes ndjson.
pub struct NdjsonWriter {
    shape: Shape,
    /// `{"name":`, `,"name":` …: what stands before each value.
    keys: Vec<Vec<u8>>,
}

impl NdjsonWriter {
    /// A writer of such rows.
    pub fn new(shape: Shape) -> Result<Self> {
        let keys = shape.schema.fields().iter().enumerate().map(|(at, field)| {
            let name = serde_json::to_string(field.name());
            let name = name.map_err(|error| Error::internal(format!("a column's name is no text: {error}")))?;
            let first = at == 0 && !shape.op;
            Ok(format!("{}{name}:", if first { "{" } else { "," }).into_bytes())
        });
        let keys = keys.collect::<Result<_>>()?;
        Ok(Self { shape, keys })
    }
}

impl RowWriter for NdjsonWriter {
    fn rows(&mut self, batch: &Batch, out: &mut Vec<u8>) -> Result<()> {
        let style = TextStyle::JSON.in_zone(self.shape.zone);
        let columns = batch.records().columns().iter();
        let texts = columns.map(|column| ColumnText::new(column.as_ref(), style)).collect::<Result<Vec<_>>>()?;
        for row in 0..batch.num_rows() {
            if self.shape.op {
                out.extend_from_slice(b"{\"op\":\"");
                out.extend_from_slice(batch.kind(row)?.symbol().as_bytes());
                out.push(b'"');
            } else if texts.is_empty() {
                out.push(b'{');
            }
            for (key, text) in self.keys.iter().zip(&texts) {
                out.extend_from_slice(key);
                text.write(row, out);
            }
            out.extend_from_slice(b"}\n");
        }
        Ok(())
    }

    fn finish(&mut self, _out: &mut Vec<u8>) -> Result<()> {
        Ok(())
    }
}
