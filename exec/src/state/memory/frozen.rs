//! Rows of a state as they were at a snapshot, on their way into batches.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, sort_to_indices, take_record_batch};
use arrow::datatypes::SchemaRef;
use tidemill_core::Result;
use tidemill_core::state::{EncodeColumn, EncodeState};

use super::changes::KeyChunk;

/// The most rows of a batch: so few that the texts of a column stay below what 32 bits can count.
pub const BATCH_ROWS: usize = 8192;

/// Rows of keyed state, frozen, each chunk with what encodes its columns.
pub fn encode_rows(name: &str, schema: SchemaRef, chunks: Vec<(KeyChunk, EncodeColumn)>) -> EncodeState {
    let name = name.to_owned();
    let encode = move |(keys, column): (KeyChunk, EncodeColumn)| {
        let values = column().map_err(|error| error.context(format_args!("state '{name}'")))?;
        batch(&schema, keys, values)
    };
    Box::new(move || chunks.into_iter().map(encode).collect())
}

/// Keys alone, brought into the order of their key groups.
pub fn encode_keys(schema: SchemaRef, chunks: Vec<KeyChunk>) -> EncodeState {
    Box::new(move || {
        let batches = chunks.into_iter().map(|keys| batch(&schema, keys, Vec::new())).collect::<Result<Vec<_>>>()?;
        let keys = concat_batches(&schema, &batches)?;
        let order = sort_to_indices(keys.column(0), None, None)?;
        let sorted = take_record_batch(&keys, &order)?;
        Ok(if sorted.num_rows() == 0 { Vec::new() } else { vec![sorted] })
    })
}

/// Keys, and what is kept for them.
pub fn batch(schema: &SchemaRef, keys: KeyChunk, values: Vec<ArrayRef>) -> Result<RecordBatch> {
    let groups: ArrayRef = Arc::new(UInt32Array::from(keys.groups));
    let columns = [groups].into_iter().chain(keys.keys).chain(values).collect();
    Ok(RecordBatch::try_new(schema.clone(), columns)?)
}
