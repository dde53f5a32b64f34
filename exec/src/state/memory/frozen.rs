//! Rows of a state as they were at a snapshot, on their way into batches.
//!
//! They are frozen in the order of their slots, which is how they lie in memory, while the task stands still; the order of their
//! key groups they get when they are encoded.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::datatypes::SchemaRef;
use tidemill_core::Result;
use tidemill_core::state::{EncodeColumn, EncodeState};

use super::changes::KeyChunk;
use crate::state::group_order::in_group_order;

/// Rows of keyed state, frozen, each chunk with what encodes its columns.
pub fn encode_rows(
    name: &str,
    schema: SchemaRef,
    chunks: Vec<(KeyChunk, EncodeColumn)>,
    max_parallelism: u32,
) -> EncodeState {
    let name = name.to_owned();
    let encode = move |(keys, column): (KeyChunk, EncodeColumn)| {
        let values = column().map_err(|error| error.context(format_args!("state '{name}'")))?;
        batch(&schema, &groups(&schema, &keys, max_parallelism)?, keys.keys.clone(), values)
    };
    Box::new(move || {
        let batches = chunks.into_iter().map(encode).collect::<Result<Vec<_>>>()?;
        in_group_order(batches, max_parallelism)
    })
}

/// Keys alone.
pub fn encode_keys(schema: SchemaRef, chunks: Vec<KeyChunk>, max_parallelism: u32) -> EncodeState {
    Box::new(move || {
        let encode =
            |keys: KeyChunk| batch(&schema, &groups(&schema, &keys, max_parallelism)?, keys.keys.clone(), Vec::new());
        in_group_order(chunks.into_iter().map(encode).collect::<Result<_>>()?, max_parallelism)
    })
}

/// The key groups of rows of such columns: their own comes first, then the key.
fn groups<'a>(schema: &SchemaRef, keys: &'a KeyChunk, max_parallelism: u32) -> Result<Cow<'a, [u32]>> {
    let fields = schema.fields().iter().skip(1).take(keys.keys.len()).cloned().collect();
    keys.groups(&fields, max_parallelism)
}

/// Keys with their key groups, and what is kept for them.
pub fn batch(schema: &SchemaRef, groups: &[u32], keys: Vec<ArrayRef>, values: Vec<ArrayRef>) -> Result<RecordBatch> {
    let groups: ArrayRef = Arc::new(UInt32Array::from(groups.to_vec()));
    let columns = [groups].into_iter().chain(keys).chain(values).collect();
    Ok(RecordBatch::try_new(schema.clone(), columns)?)
}
