//! A table that is the same in every subtask (SUB-11).
//!
//! Only rows that reach all subtasks may change it, and in a way that does not depend on their order; then every subtask has the
//! same, stores its own copy, and finds it again. Subtasks that are new take the copy of another.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::interleave_record_batch;
use arrow::datatypes::SchemaRef;
use arrow::row::{RowConverter, SortField};

use crate::error::{Error, Result};
use crate::state::{EncodeState, StateDescriptor, StateKind};

/// Rows by key, the first columns. It is held in memory whole.
#[derive(Clone)]
pub struct BroadcastState {
    schema: SchemaRef,
    keys: usize,
    converter: Arc<RowConverter>,
    /// Where the row of each key stands: which batch, and which row of it.
    places: BTreeMap<Box<[u8]>, (usize, usize)>,
    batches: Vec<RecordBatch>,
    /// Rows of all batches, those that were replaced included.
    rows: usize,
}

impl BroadcastState {
    /// An empty table of these columns, of which the first `keys` are the key.
    pub fn new(schema: SchemaRef, keys: usize) -> Result<Self> {
        if keys == 0 || keys > schema.fields().len() {
            let columns = schema.fields().len();
            return Err(Error::request(format!("a broadcast state of {columns} columns with a key of {keys}")));
        }
        let fields = schema.fields().iter().take(keys).map(|field| SortField::new(field.data_type().clone()));
        let converter = Arc::new(RowConverter::new(fields.collect())?);
        Ok(Self { schema, keys, converter, places: BTreeMap::new(), batches: Vec::new(), rows: 0 })
    }

    /// Puts rows in place of those with the same keys. Of two rows with one key the later one counts.
    pub fn put(&mut self, rows: RecordBatch) -> Result<()> {
        if rows.schema_ref().fields() != self.schema.fields() {
            return Err(Error::internal("rows that do not belong into a broadcast state of other columns"));
        }
        for (row, key) in self.encoded(&rows.columns()[..self.keys])?.into_iter().enumerate() {
            self.places.insert(key, (self.batches.len(), row));
        }
        self.rows += rows.num_rows();
        self.batches.push(rows);
        // A few rows do not hold on to the batches that they came in.
        if self.rows > 2 * self.places.len() + 1024 {
            self.compact()?;
        }
        Ok(())
    }

    /// Removes the rows with these keys.
    pub fn remove(&mut self, keys: &[ArrayRef]) -> Result<()> {
        for key in self.encoded(keys)? {
            self.places.remove(&key);
        }
        Ok(())
    }

    /// The row of each of these keys, where there is one.
    pub fn get(&self, keys: &[ArrayRef]) -> Result<Vec<Option<RecordBatch>>> {
        let row = |key| self.places.get(key).map(|(batch, row)| self.batches[*batch].slice(*row, 1));
        Ok(self.encoded(keys)?.iter().map(row).collect())
    }

    /// All rows, in the order of their keys.
    pub fn entries(&self) -> Result<RecordBatch> {
        if self.places.is_empty() {
            return Ok(RecordBatch::new_empty(self.schema.clone()));
        }
        let batches: Vec<&RecordBatch> = self.batches.iter().collect();
        let places: Vec<(usize, usize)> = self.places.values().copied().collect();
        Ok(interleave_record_batch(&batches, &places)?)
    }

    /// Removes all rows.
    pub fn clear(&mut self) {
        self.places.clear();
        self.batches.clear();
        self.rows = 0;
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The table frozen under a name, for a snapshot.
    pub fn freeze(&self, name: &str) -> (StateDescriptor, EncodeState) {
        let descriptor =
            StateDescriptor { name: name.to_owned(), kind: StateKind::Broadcast, schema: self.schema.clone() };
        let frozen = self.clone();
        (descriptor, Box::new(move || Ok(vec![frozen.entries()?])))
    }

    /// The copies of all subtasks for `parallelism` new ones: each its own, and those that are new one of another, in turn.
    pub fn split(copies: &[Self], parallelism: usize) -> Vec<Self> {
        copies.iter().cycle().take(if copies.is_empty() { 0 } else { parallelism }).cloned().collect()
    }

    /// Keys as bytes in their order.
    fn encoded(&self, keys: &[ArrayRef]) -> Result<Vec<Box<[u8]>>> {
        let rows = self.converter.convert_columns(keys)?;
        Ok(rows.iter().map(|row| row.as_ref().into()).collect())
    }

    fn compact(&mut self) -> Result<()> {
        let entries = self.entries()?;
        self.rows = entries.num_rows();
        self.batches = vec![entries];
        self.places.values_mut().enumerate().for_each(|(row, place)| *place = (0, row));
        Ok(())
    }
}

impl fmt::Debug for BroadcastState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BroadcastState({} rows)", self.places.len())
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};
    use proptest::prelude::*;

    use super::*;

    fn keys(keys: &[Option<String>]) -> Vec<ArrayRef> {
        vec![Arc::new(StringArray::from_iter(keys.iter().cloned()))]
    }

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("key", DataType::Utf8, true),
            Field::new("value", DataType::Int64, false),
        ]))
    }

    fn rows(entries: &[(Option<String>, i64)]) -> RecordBatch {
        let mut columns = keys(&entries.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>());
        columns.push(Arc::new(Int64Array::from_iter_values(entries.iter().map(|(_, value)| *value))));
        RecordBatch::try_new(schema(), columns).unwrap()
    }

    fn table(state: &BroadcastState) -> Vec<(Option<String>, i64)> {
        let entries = state.entries().unwrap();
        let keys = entries.column(0).as_string::<i32>().iter().map(|key| key.map(str::to_owned));
        keys.zip(entries.column(1).as_primitive::<Int64Type>().values().iter().copied()).collect()
    }

    fn any_key() -> impl Strategy<Value = Option<String>> {
        prop::option::of("[ab]{0,2}")
    }

    proptest! {
        #[test]
        fn it_is_a_map_and_every_subtask_has_it(steps in prop::collection::vec((prop::collection::vec((any_key(), 0..9i64), 0..6),
                                                                               prop::collection::vec(any_key(), 0..3)), 0..12),
                                                before in 1..4usize, after in 1..7usize) {
            let mut state = BroadcastState::new(schema(), 1).unwrap();
            let mut model = BTreeMap::new();
            for (put, removed) in &steps {
                state.put(rows(put)).unwrap();
                model.extend(put.iter().cloned());
                state.remove(&keys(removed)).unwrap();
                model.retain(|key, _| !removed.contains(key));
            }
            let expected: Vec<(Option<String>, i64)> = model.clone().into_iter().collect();
            prop_assert_eq!(table(&state), expected.clone());
            let wanted: Vec<Option<String>> = vec![None, Some("a".to_owned()), Some("none".to_owned())];
            let found = state.get(&keys(&wanted)).unwrap();
            for (key, row) in wanted.iter().zip(found) {
                prop_assert_eq!(row, model.get(key).map(|value| rows(&[(key.clone(), *value)])));
            }

            let split = BroadcastState::split(&vec![state; before], after);
            prop_assert_eq!(split.len(), after);
            prop_assert!(split.iter().all(|copy| table(copy) == expected));
        }
    }

    #[test]
    fn new_subtasks_take_the_copies_of_others_in_turn() {
        let copy = |value| {
            let mut state = BroadcastState::new(schema(), 1).unwrap();
            state.put(rows(&[(None, value)])).unwrap();
            state
        };
        let split = BroadcastState::split(&[copy(1), copy(2)], 5);
        assert_eq!(split.iter().map(|copy| table(copy)[0].1).collect::<Vec<_>>(), [1, 2, 1, 2, 1]);
    }

    #[test]
    fn replaced_rows_are_let_go() {
        let mut state = BroadcastState::new(schema(), 1).unwrap();
        for value in 0..5000 {
            state.put(rows(&[(Some("a".to_owned()), value), (None, value)])).unwrap();
        }
        assert!(state.rows < 1100, "{} rows", state.rows);
        assert_eq!(table(&state), [(None, 4999), (Some("a".to_owned()), 4999)]);
        let (_, encode) = state.freeze("rules");
        state.clear();
        assert_eq!((encode().unwrap()[0].num_rows(), state.len()), (2, 0));
    }
}
