//! A table of rows: what a finished query or a statement about the session gives.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use tidemill_core::Result;

/// Rows, in batches.
#[derive(Clone, Debug)]
pub struct Rows {
    /// The columns, also where there is no row.
    pub schema: SchemaRef,
    /// The rows, in order.
    pub batches: Vec<RecordBatch>,
}

impl Rows {
    /// How many rows there are.
    pub fn num_rows(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }

    /// All rows as one batch.
    pub fn to_batch(&self) -> Result<RecordBatch> {
        Ok(arrow::compute::concat_batches(&self.schema, &self.batches)?)
    }

    /// A table of text, row by row.
    pub(super) fn of_text<const N: usize>(names: [&str; N], rows: Vec<[Option<String>; N]>) -> Result<Self> {
        let fields: Vec<Field> = names.iter().map(|name| Field::new(*name, DataType::Utf8, true)).collect();
        let column = |place: usize| {
            let values: StringArray = rows.iter().map(|row| row[place].as_deref()).collect();
            Arc::new(values) as ArrayRef
        };
        let schema = Arc::new(Schema::new(fields));
        let batch = RecordBatch::try_new(schema.clone(), (0..N).map(column).collect())?;
        Ok(Self { schema, batches: vec![batch] })
    }
}
