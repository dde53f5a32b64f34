//! What operators put into snapshots beside the states of a backend, and take out of them again.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, UInt32Array};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Int64Type, Schema, SchemaRef};
use datafusion::logical_expr::ColumnarValue;
use tidemill_core::key::key_group;
use tidemill_core::state::{
    Dealing, EncodeState, OperatorList, RestoredState, StateDescriptor, StateKind, adapt, keyed_schema,
};
use tidemill_core::{Result, Watermark};

use crate::error::from_datafusion;
use crate::operators::expression::batch_of;
use crate::state::KeyIndex;
use crate::state::group_order::in_group_order;

/// Rows of a keyed state that an operator keeps in a form of its own.
pub struct KeyedRows {
    /// The key's columns, and what else tells rows apart.
    pub keys: Fields,
    /// What is kept.
    pub kept: Fields,
    /// The rows.
    pub parts: Vec<KeyedPart>,
}

/// Rows that came together.
pub struct KeyedPart {
    /// The columns of the key and of what is kept; a value that all rows have stands for a column.
    pub columns: Vec<ColumnarValue>,
    /// The carried hash of each row's key.
    pub hashes: Vec<u64>,
}

impl KeyedPart {
    /// Rows of these columns, whose keys hash to these.
    pub fn new(columns: impl IntoIterator<Item = ArrayRef>, hashes: Vec<u64>) -> Self {
        Self { columns: columns.into_iter().map(ColumnarValue::Array).collect(), hashes }
    }
}

impl KeyedRows {
    /// The rows under a name, to be put in the order of their key groups later.
    pub fn freeze(self, name: &str, max_parallelism: u32) -> (StateDescriptor, EncodeState) {
        let schema = keyed_schema(&self.keys, &self.kept);
        let descriptor = StateDescriptor { name: name.to_owned(), kind: StateKind::Keyed, schema: schema.clone() };
        let encode = move || {
            let part = |KeyedPart { columns, hashes }| {
                let groups = UInt32Array::from_iter_values(hashes.iter().map(|hash| key_group(*hash, max_parallelism)));
                let columns = columns.into_iter().map(|column| column.into_array(hashes.len()));
                let columns = [Ok(Arc::new(groups) as ArrayRef)].into_iter().chain(columns);
                let columns = columns.collect::<datafusion::error::Result<_>>().map_err(from_datafusion)?;
                batch_of(&schema, columns, hashes.len())
            };
            let parts = self.parts.into_iter().map(part).collect::<Result<Vec<_>>>()?;
            in_group_order(parts, max_parallelism)
        };
        (descriptor, Box::new(encode))
    }
}

/// The key columns of a keyed state over rows of `schema`, as they come out of an index: a dictionary's are its values.
pub fn key_fields(schema: &SchemaRef, keys: &[usize]) -> Result<Vec<FieldRef>> {
    let types: Vec<DataType> = keys.iter().map(|key| schema.field(*key).data_type().clone()).collect();
    let plain = KeyIndex::new(&types)?.keys(&[])?;
    let field = |(key, column): (&usize, &ArrayRef)| {
        Arc::new(Field::new(schema.field(*key).name(), column.data_type().clone(), true))
    };
    Ok(keys.iter().zip(&plain).map(field).collect())
}

/// The restored rows of a keyed state with these columns, without their key groups.
pub fn restored_rows(state: &mut RestoredState, name: &str, keys: &Fields, kept: &Fields) -> Result<Vec<RecordBatch>> {
    let schema = keyed_schema(keys, kept);
    let without_group: Vec<usize> = (1..schema.fields().len()).collect();
    let batches = state.take(name)?.into_iter();
    batches.map(|batch| Ok(adapt(name, &batch, &schema)?.project(&without_group)?)).collect()
}

/// The state that holds how far event time has come.
pub const WATERMARK: &str = "watermark";

/// The watermark up to which a subtask has come.
pub fn freeze_watermark(watermark: Watermark) -> Result<(StateDescriptor, EncodeState)> {
    freeze_numbers(WATERMARK, &[watermark.0])
}

/// The watermark up to which all subtasks had come: what one of them took for late another may not have.
pub fn restored_watermark(state: &mut RestoredState) -> Result<Watermark> {
    Ok(restored_numbers(state, WATERMARK)?.into_iter().min().map_or(Watermark::MIN, Watermark))
}

/// Numbers of a subtask that every subtask gets to see.
pub fn freeze_numbers(name: &str, numbers: &[i64]) -> Result<(StateDescriptor, EncodeState)> {
    let schema = Arc::new(Schema::new(vec![Field::new(name, DataType::Int64, false)]));
    let mut list = OperatorList::new(schema.clone());
    list.add(batch_of(&schema, vec![Arc::new(Int64Array::from(numbers.to_vec()))], numbers.len())?)?;
    Ok(list.freeze(name, Dealing::Union))
}

/// The numbers of all subtasks.
pub fn restored_numbers(state: &mut RestoredState, name: &str) -> Result<Vec<i64>> {
    let batches = state.take(name)?;
    let values = batches.iter().filter_map(|batch| batch.column(0).as_primitive_opt::<Int64Type>());
    Ok(values.flat_map(|values| values.values().to_vec()).collect())
}
