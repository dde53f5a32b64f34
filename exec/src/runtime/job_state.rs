//! What a checkpoint holds beside the state of operators: where sources go on, and what sinks have yet to commit. Stored as
//! operator state is, in lists under the operator's identity.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BinaryArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use tidemill_core::sink::{Committable, WriterState};
use tidemill_core::source::Split;
use tidemill_core::state::{EncodeState, StateDescriptor, StateKind};
use tidemill_core::{Error, Result};

/// The splits that a reader has.
pub const SPLITS: &str = "splits";
/// What an enumerator remembers.
pub const ENUMERATOR: &str = "enumerator";
/// What a sink has to commit.
pub const COMMITTABLES: &str = "committables";
/// What a sink's writers go on with.
pub const WRITER_STATES: &str = "writers";

/// Splits with their positions.
pub fn freeze_splits(splits: &[Split]) -> (StateDescriptor, EncodeState) {
    let ids: ArrayRef = Arc::new(splits.iter().map(|split| Some(&*split.id)).collect::<StringArray>());
    let positions: ArrayRef = Arc::new(BinaryArray::from_iter_values(splits.iter().map(|split| &split.position)));
    let fields = vec![Field::new("split", DataType::Utf8, false), Field::new("position", DataType::Binary, false)];
    list(SPLITS, Arc::new(Schema::new(fields)), vec![ids, positions])
}

/// The splits in stored batches.
pub fn splits(batches: &[RecordBatch]) -> Result<Vec<Split>> {
    let mut splits = Vec::new();
    for batch in batches {
        let columns = batch.columns();
        let ids = columns.first().and_then(|column| column.as_string_opt::<i32>());
        let positions = columns.get(1).and_then(|column| column.as_binary_opt::<i32>());
        let (Some(ids), Some(positions)) = (ids, positions) else { return Err(not(SPLITS)) };
        let split = |(id, position): (Option<&str>, Option<&[u8]>)| {
            Some(Split { id: id?.into(), position: position?.to_vec() })
        };
        splits.extend(ids.iter().zip(positions).filter_map(split));
    }
    Ok(splits)
}

/// What an enumerator remembers.
pub fn freeze_enumerator(state: Vec<u8>) -> (StateDescriptor, EncodeState) {
    freeze_bytes(ENUMERATOR, &[state])
}

/// What sinks have to commit.
pub fn freeze_committables(committables: &[Committable]) -> (StateDescriptor, EncodeState) {
    freeze_bytes(COMMITTABLES, &committables.iter().map(|committable| committable.0.clone()).collect::<Vec<_>>())
}

/// What writers go on with.
pub fn freeze_writer_states(states: &[WriterState]) -> (StateDescriptor, EncodeState) {
    freeze_bytes(WRITER_STATES, &states.iter().map(|state| state.0.clone()).collect::<Vec<_>>())
}

/// What writers go on with, in stored batches.
pub fn writer_states(batches: &[RecordBatch]) -> Result<Vec<WriterState>> {
    Ok(bytes(WRITER_STATES, batches)?.into_iter().map(WriterState).collect())
}

/// What sinks have to commit, in stored batches.
pub fn committables(batches: &[RecordBatch]) -> Result<Vec<Committable>> {
    Ok(bytes(COMMITTABLES, batches)?.into_iter().map(Committable).collect())
}

/// Opaque bytes, a list of them under a name (STA-11).
pub fn freeze_bytes(name: &str, values: &[Vec<u8>]) -> (StateDescriptor, EncodeState) {
    let column: ArrayRef = Arc::new(BinaryArray::from_iter_values(values));
    list(name, Arc::new(Schema::new(vec![Field::new(name, DataType::Binary, false)])), vec![column])
}

/// Opaque bytes in stored batches.
pub fn bytes(name: &str, batches: &[RecordBatch]) -> Result<Vec<Vec<u8>>> {
    let mut values = Vec::new();
    for batch in batches {
        let column = batch.columns().first().and_then(|column| column.as_binary_opt::<i32>());
        values.extend(column.ok_or_else(|| not(name))?.iter().flatten().map(<[u8]>::to_vec));
    }
    Ok(values)
}

fn list(name: &str, schema: SchemaRef, columns: Vec<ArrayRef>) -> (StateDescriptor, EncodeState) {
    let descriptor = StateDescriptor { name: name.to_owned(), kind: StateKind::List, schema: schema.clone() };
    (descriptor, Box::new(move || Ok(vec![RecordBatch::try_new(schema, columns)?])))
}

fn not(name: &str) -> Error {
    Error::corrupt(format!("the state '{name}' of a checkpoint has other columns than it should"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_come_back_as_they_were() {
        let all = vec![Split::new("a.csv"), Split { id: "b#1-2".into(), position: vec![0, 255, 7] }];
        assert_eq!(splits(&freeze_splits(&all).1().unwrap()).unwrap(), all);
        let written = vec![Committable(vec![]), Committable(vec![1, 2])];
        assert_eq!(committables(&freeze_committables(&written).1().unwrap()).unwrap(), written);
        let state = freeze_enumerator(vec![9]).1().unwrap();
        assert_eq!(bytes(ENUMERATOR, &state).unwrap(), [[9]]);
        assert!(splits(&state).is_err());
    }
}
