//! Rows that an operator has not worked on yet when a checkpoint is taken, as columns of a state: those of the rows, each of which may
//! be null, and their kinds.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, RecordBatchOptions, UInt8Array};
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, UInt8Type};
use tidemill_core::{Batch, Error, Result};

/// The column of row kinds.
const KIND: &str = "$kind";

/// The columns that rows of `schema` are stored as.
pub fn stored_fields(schema: &Schema) -> Fields {
    let columns = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    columns.chain([Field::new(KIND, DataType::UInt8, false)]).collect()
}

/// The rows as such columns.
pub fn stored_columns(batch: Batch) -> Vec<ArrayRef> {
    let (records, kinds, _) = batch.into_parts();
    let kinds = match kinds {
        Some(kinds) => UInt8Array::new(kinds, None),
        None => UInt8Array::from(vec![0; records.num_rows()]),
    };
    records.columns().iter().cloned().chain([Arc::new(kinds) as ArrayRef]).collect()
}

/// Such columns as rows of `schema` again.
///
/// Errors: they were rows of other columns.
pub fn thawed(schema: &SchemaRef, stored: &RecordBatch) -> Result<Batch> {
    let named = |fields: &Fields| {
        fields.iter().map(|field| (field.name().clone(), field.data_type().clone())).collect::<Vec<_>>()
    };
    if named(&stored_fields(schema)) != named(stored.schema_ref().fields()) {
        let error = format!(
            "the checkpoint holds rows in flight of columns {:?}, and the job now sends {:?}",
            stored.schema_ref().fields(),
            schema.fields()
        );
        return Err(Error::request(error).with_hint("change the job behind a savepoint, which holds no rows in flight"));
    }
    rows_of(schema, stored.columns(), stored.num_rows())
}

/// Columns that are those of `schema` and kinds, as rows.
pub fn rows_of(schema: &SchemaRef, stored: &[ArrayRef], rows: usize) -> Result<Batch> {
    let (kinds, columns) = stored.split_last().ok_or_else(|| Error::corrupt("stored rows without kinds"))?;
    let kinds = kinds.as_primitive_opt::<UInt8Type>().ok_or_else(|| Error::corrupt("kinds of rows that are none"))?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    let records = RecordBatch::try_new_with_options(schema.clone(), columns.to_vec(), &options)?;
    Batch::changelog(records, kinds.values().clone())
}
