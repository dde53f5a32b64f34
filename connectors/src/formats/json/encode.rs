//! Columns to JSON lines.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use tidemill_core::error::Result;

use super::super::Encoder;
use super::super::text::object;

/// Writes one object a row, with every member, NULL as `null`.
pub(crate) struct JsonEncoder {
    schema: SchemaRef,
}

impl JsonEncoder {
    pub(crate) fn new(schema: &SchemaRef) -> Result<Self> {
        Ok(Self { schema: schema.clone() })
    }
}

impl Encoder for JsonEncoder {
    fn encode(&mut self, records: &RecordBatch, out: &mut Vec<u8>) -> Result<()> {
        let names: Vec<&str> = self.schema.fields().iter().map(|field| field.name().as_str()).collect();
        let write = object(&names, records.columns())?;
        for row in 0..records.num_rows() {
            write(row, out);
            out.push(b'\n');
        }
        Ok(())
    }

    fn finish(&mut self, _out: &mut Vec<u8>) -> Result<()> {
        Ok(())
    }
}
