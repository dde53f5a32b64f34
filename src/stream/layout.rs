//! How rows look between tasks: `[key columns] [$rowtime] [columns of the record]`.
//!
//! The key columns stand in front only on the edge into a keyed operator. Row time is a column like any other.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, RecordBatchOptions, TimestampMillisecondArray};
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef, TimeUnit, TimestampMillisecondType};
use tidemill_core::key::is_hashable;
use tidemill_core::{Batch, Error, Result};

use super::record::{Codec, Record};
use super::rows::{AnyRows, NO_TIME, Rows};

/// Name of the column that holds event time in milliseconds.
pub const ROWTIME: &str = "$rowtime";

/// How rows of one type leave a task and enter the next.
pub(super) trait RowCodec: Send + Sync {
    /// Columns of the batches that `encode` makes.
    fn schema(&self) -> SchemaRef;

    /// Rows as a batch.
    fn encode(&self, rows: AnyRows) -> Result<RecordBatch>;

    /// A batch as rows.
    fn decode(&self, records: &RecordBatch) -> Result<AnyRows>;
}

/// Records, with their event time if they have one.
#[derive(Debug)]
pub(super) struct PlainCodec<T> {
    codec: Codec<T>,
    timed: bool,
    schema: SchemaRef,
}

impl<T: Record> PlainCodec<T> {
    /// The layout of records that `codec` writes.
    pub fn new(codec: Codec<T>, timed: bool) -> Self {
        let fields = timed.then(rowtime_field).into_iter().chain(codec.fields().iter().cloned());
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        Self { codec, timed, schema }
    }

    /// Typed rows as a batch.
    pub fn encode_rows(&self, rows: &Rows<T>) -> Result<RecordBatch> {
        let mut columns = Vec::with_capacity(self.schema.fields().len());
        if self.timed {
            columns.push(rowtime_column(&rows.times, rows.values.len()));
        }
        columns.extend(self.codec.encode(&rows.values)?);
        batch_of(&self.schema, columns, rows.values.len())
    }

    /// A batch as typed rows.
    pub fn decode_rows(&self, records: &RecordBatch) -> Result<Rows<T>> {
        let (fields, columns) = (records.schema_ref().fields(), records.columns());
        let is_timed = fields.first().is_some_and(|field| field.name() == ROWTIME);
        let times = if is_timed { rowtimes(&columns[0])?.to_vec() } else { Vec::new() };
        let first = usize::from(is_timed);
        let values = self.codec.decode(&fields[first..], &columns[first..], records.num_rows())?;
        Ok(Rows { values, times })
    }
}

impl<T: Record> RowCodec for PlainCodec<T> {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn encode(&self, rows: AnyRows) -> Result<RecordBatch> {
        self.encode_rows(&Rows::typed(rows)?)
    }

    fn decode(&self, records: &RecordBatch) -> Result<AnyRows> {
        Ok(self.decode_rows(records)?.erase())
    }
}

/// Finds the key of a record.
pub(super) type KeySelector<K, T> = Arc<dyn Fn(&T) -> K + Send + Sync>;

/// Records behind their key.
pub(super) struct KeyedCodec<K, T> {
    key: Codec<K>,
    selector: KeySelector<K, T>,
    values: PlainCodec<T>,
    schema: SchemaRef,
}

/// The rows of a batch that came over a keyed edge.
pub(super) struct KeyedRows<T> {
    /// The key as columns.
    pub keys: Vec<ArrayRef>,
    /// The key's hash.
    pub hashes: ScalarBuffer<u64>,
    /// Records and times.
    pub rows: Rows<T>,
}

impl<K: Record, T: Record> KeyedCodec<K, T> {
    /// The layout of records that `values` writes, behind the key that `selector` finds.
    pub fn new(key: Codec<K>, selector: KeySelector<K, T>, values: PlainCodec<T>) -> Result<Self> {
        if let Some(field) = key.fields().iter().find(|field| !is_hashable(field.data_type())) {
            let name = std::any::type_name::<K>();
            return Err(Error::request(format!(
                "{name} cannot be a key: its part '{}' has no fixed hash",
                field.name()
            ))
            .with_hint("enums whose variants hold data are no keys"));
        }
        let keys = key.fields().iter().enumerate();
        let keys = keys.map(|(place, field)| Arc::new(field.as_ref().clone().with_name(format!("$key.{place}"))));
        let fields: Vec<FieldRef> = keys.chain(values.schema.fields().iter().cloned()).collect();
        Ok(Self { key, selector, values, schema: Arc::new(Schema::new(fields)) })
    }

    /// How many columns the key has.
    pub fn key_columns(&self) -> usize {
        self.key.fields().len()
    }

    /// The columns of the key.
    pub fn key_fields(&self) -> Fields {
        self.schema.fields().iter().take(self.key_columns()).cloned().collect()
    }

    /// Keys from their columns.
    pub fn decode_keys(&self, columns: &[ArrayRef], rows: usize) -> Result<Vec<K>> {
        self.key.decode(self.key.fields(), columns, rows)
    }

    /// Takes a batch apart.
    pub fn split(&self, batch: &Batch) -> Result<KeyedRows<T>> {
        let keys = batch.records().columns()[..self.key_columns()].to_vec();
        let hashes = match batch.hashes() {
            Some(hashes) => hashes.clone(),
            None => tidemill_core::key::hash_columns(&keys, batch.num_rows())?,
        };
        Ok(KeyedRows { keys, hashes, rows: self.decode_values(batch)? })
    }

    /// The rows of a batch without their keys.
    pub fn decode_values(&self, batch: &Batch) -> Result<Rows<T>> {
        let rest: Vec<usize> = (self.key_columns()..batch.records().num_columns()).collect();
        self.values.decode_rows(&batch.records().project(&rest)?)
    }
}

impl<K: Record, T: Record> RowCodec for KeyedCodec<K, T> {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn encode(&self, rows: AnyRows) -> Result<RecordBatch> {
        let rows = Rows::<T>::typed(rows)?;
        let keys: Vec<K> = rows.values.iter().map(|value| (self.selector)(value)).collect();
        let mut columns = self.key.encode(&keys)?;
        columns.extend_from_slice(self.values.encode_rows(&rows)?.columns());
        batch_of(&self.schema, columns, rows.values.len())
    }

    fn decode(&self, _records: &RecordBatch) -> Result<AnyRows> {
        Err(Error::internal("rows behind a key are read by a keyed operator"))
    }
}

fn rowtime_field() -> FieldRef {
    Arc::new(Field::new(ROWTIME, DataType::Timestamp(TimeUnit::Millisecond, None), false))
}

fn rowtime_column(times: &[i64], rows: usize) -> ArrayRef {
    let times = if times.is_empty() { vec![NO_TIME; rows] } else { times.to_vec() };
    Arc::new(TimestampMillisecondArray::from(times))
}

fn rowtimes(column: &ArrayRef) -> Result<&ScalarBuffer<i64>> {
    let times = column.as_primitive_opt::<TimestampMillisecondType>();
    let times = times.ok_or_else(|| Error::request(format!("column {ROWTIME} is {}", column.data_type())))?;
    Ok(times.values())
}

/// A batch of `columns`, also when there are none.
pub(super) fn batch_of(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
}
