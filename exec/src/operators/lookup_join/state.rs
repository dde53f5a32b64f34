//! The table of a join in snapshots: under each key its rows, with what happened to them while the table was read.
//!
//! Whether the table was complete is not in it: who reads the table goes on where it was, or says at once that it had ended.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, RecordBatch, StructArray, UInt8Array, UInt32Array};
use arrow::buffer::OffsetBuffer;
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef, UInt8Type};
use tidemill_core::key::{hash_columns, scatter};
use tidemill_core::state::{RestoredState, Snapshot, StateDescriptor, StateKind, adapt};
use tidemill_core::{Batch, Error, Result, RowKind};

use super::{LookupJoin, LookupJoinOperator};
use crate::operators::expression::batch_of;
use crate::operators::saved::{KeyedPart, KeyedRows, key_fields, restored_rows};
use crate::state::KeyIndex;

/// The state's name.
const TABLE: &str = "table";

impl LookupJoinOperator {
    /// What is known of the table.
    pub fn frozen_state(&mut self) -> Result<Snapshot> {
        let batch = match &self.table {
            Some(table) => Batch::append(table.records.clone()),
            None => Batch::concat(&self.plan.table_schema, &self.building)?,
        };
        let rows = with_kinds(&batch, &self.plan.rows())?;
        let state = match self.plan.table_everywhere {
            true => {
                let descriptor =
                    StateDescriptor { name: TABLE.into(), kind: StateKind::Broadcast, schema: rows.schema() };
                (descriptor, Box::new(move || Ok(vec![rows])) as _)
            }
            false => by_key(&self.plan, rows)?.freeze(TABLE, self.max_parallelism),
        };
        Ok(Snapshot::whole([state]))
    }

    /// The same back again: the table is being read.
    pub fn restore_state(&mut self, mut state: RestoredState) -> Result<()> {
        let plan = self.plan.clone();
        let rows: Vec<RecordBatch> = match plan.table_everywhere {
            true => {
                let batches = state.take(TABLE)?.into_iter();
                batches.map(|batch| adapt(TABLE, &batch, &plan.rows())).collect::<Result<_>>()?
            }
            false => {
                let (keys, kept) = plan.state_fields()?;
                let batches = restored_rows(&mut state, TABLE, &keys, &kept)?;
                let of_lists =
                    |batch: RecordBatch| match batch.columns().last().and_then(|lists| lists.as_list_opt::<i32>()) {
                        // Of a batch that was cut, only the rows of the keys that are left.
                        Some(lists) => {
                            let (begin, end) = (lists.value_offsets()[0], lists.value_offsets()[lists.len()]);
                            let rows = lists.values().slice(begin as usize, (end - begin) as usize);
                            Ok(RecordBatch::from(rows.as_struct()))
                        }
                        None => Err(Error::corrupt("a table whose rows are no lists")),
                    };
                batches.into_iter().map(of_lists).collect::<Result<_>>()?
            }
        };
        for rows in rows {
            let (kinds, columns) =
                rows.columns().split_last().ok_or_else(|| Error::corrupt("a table without columns"))?;
            let records = batch_of(&plan.table_schema, columns.to_vec(), rows.num_rows())?;
            let batch = Batch::changelog(records, kinds.as_primitive::<UInt8Type>().values().to_vec().into())?;
            self.table_bytes += 2 * batch.size_bytes();
            self.building.push(batch);
        }
        Ok(())
    }
}

impl LookupJoin {
    /// The columns of the table and the kind of each row.
    fn rows(&self) -> SchemaRef {
        let kind: FieldRef = Arc::new(Field::new("kind", DataType::UInt8, false));
        Arc::new(Schema::new(self.table_schema.fields().iter().cloned().chain([kind]).collect::<Fields>()))
    }

    /// The columns of the state: the key, and its rows.
    fn state_fields(&self) -> Result<(Fields, Fields)> {
        let keys = key_fields(&self.table_schema, &self.table_keys)?;
        let rows = Field::new("rows", DataType::List(item(&self.rows())), false);
        Ok((keys.into(), Fields::from(vec![rows])))
    }
}

fn item(rows: &SchemaRef) -> FieldRef {
    Arc::new(Field::new("item", DataType::Struct(rows.fields().clone()), false))
}

fn with_kinds(batch: &Batch, schema: &SchemaRef) -> Result<RecordBatch> {
    let kinds: Vec<u8> = match batch.kinds() {
        Some(kinds) => kinds.to_vec(),
        None => vec![RowKind::Insert as u8; batch.num_rows()],
    };
    let mut columns = batch.records().columns().to_vec();
    columns.push(Arc::new(UInt8Array::from(kinds)));
    batch_of(schema, columns, batch.num_rows())
}

/// The rows of each key together.
fn by_key(plan: &LookupJoin, rows: RecordBatch) -> Result<KeyedRows> {
    let (keys, kept) = plan.state_fields()?;
    let columns: Vec<ArrayRef> = plan.table_keys.iter().map(|key| rows.column(*key).clone()).collect();
    let types: Vec<DataType> = columns.iter().map(|column| column.data_type().clone()).collect();
    let (mut index, mut slots) = (KeyIndex::new(&types)?, Vec::with_capacity(rows.num_rows()));
    index.intern(&columns, &hash_columns(&columns, rows.num_rows())?, &mut slots)?;
    let all: Vec<usize> = (0..index.slots()).collect();
    let (order, ends) = scatter(&slots.iter().map(|slot| *slot as u32).collect::<Vec<u32>>(), all.len());
    let item = item(&rows.schema());
    let rows: ArrayRef = Arc::new(StructArray::from(rows));
    let rows = take(&rows, &UInt32Array::from(order), None)?;
    let lengths = ends.iter().scan(0, |begin, end| Some(end - std::mem::replace(begin, *end)));
    let lists = ListArray::try_new(item, OffsetBuffer::from_lengths(lengths), rows, None)?;
    let mut columns = index.keys(&all)?;
    columns.push(Arc::new(lists));
    let hashes = all.iter().map(|slot| index.hash(*slot)).collect();
    Ok(KeyedRows { keys, kept, parts: vec![KeyedPart::new(columns, hashes)] })
}
