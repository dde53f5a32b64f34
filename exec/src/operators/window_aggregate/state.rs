//! The slices in snapshots: a row for each key and slice, with the state of each aggregate.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, UInt32Array, new_empty_array};
use arrow::compute::concat;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Int64Type};
use tidemill_core::Result;
use tidemill_core::state::{RestoredState, Snapshot};

use super::slice::FrozenGroups;
use super::{WindowAggregateOperator, take_all};
use crate::operators::aggregate::Aggregate;
use crate::operators::saved::{KeyedRows, freeze_watermark, key_fields, restored_rows, restored_watermark};

/// The state that holds the groups of all slices: the key of a group and the start of its slice, and its accumulators.
const SLICES: &str = "slices";

impl WindowAggregateOperator {
    /// All slices, and the watermark whose windows have fired.
    pub fn frozen_state(&mut self) -> Result<Snapshot> {
        let slices = self.frozen_slices()?.freeze(SLICES, self.max_parallelism);
        Ok(Snapshot::whole([slices, freeze_watermark(self.completed)?]))
    }

    /// The same back again.
    pub fn restore_state(&mut self, mut state: RestoredState) -> Result<()> {
        self.completed = restored_watermark(&mut state);
        self.watermark = self.completed;
        let (keys, kept) = self.fields()?;
        let batches = restored_rows(&mut state, SLICES, &keys, &kept)?;
        batches.iter().try_for_each(|batch| self.restore_slices(batch))
    }

    /// The columns of the state: what tells groups apart, and what is kept of each.
    fn fields(&self) -> Result<(Fields, Fields)> {
        let keys = key_fields(&self.plan.input_schema, &self.plan.keys)?.into_iter();
        let slice = Arc::new(Field::new("slice_start", DataType::Int64, false));
        let kept: Result<Fields> = self.plan.aggregates.iter().map(Aggregate::state_field).collect();
        Ok((keys.chain([slice]).collect(), kept?))
    }

    fn frozen_slices(&mut self) -> Result<KeyedRows> {
        let (keys, kept) = self.fields()?;
        let mut hashes = Vec::new();
        let mut parts: Vec<Vec<ArrayRef>> = vec![Vec::new(); keys.len() + kept.len()];
        for (start, slice) in &mut self.slices {
            let (mut columns, of_slice) = slice.whole(&self.key_types, &self.plan.aggregates)?.encode(&kept)?;
            columns.insert(keys.len() - 1, Arc::new(Int64Array::from(vec![*start; of_slice.len()])));
            hashes.extend(of_slice);
            parts.iter_mut().zip(columns).for_each(|(parts, column)| parts.push(column));
        }
        self.weigh(i64::MIN..i64::MAX);
        let column = |(parts, field): (Vec<ArrayRef>, &FieldRef)| match parts.is_empty() {
            true => Ok(new_empty_array(field.data_type())),
            false => Ok(concat(&parts.iter().map(|part| part.as_ref()).collect::<Vec<_>>())?),
        };
        let columns = parts.into_iter().zip(keys.iter().chain(&kept)).map(column).collect::<Result<_>>()?;
        Ok(KeyedRows { keys, kept, columns, hashes })
    }

    fn restore_slices(&mut self, rows: &RecordBatch) -> Result<()> {
        let keys = self.plan.keys.len();
        let starts = rows.column(keys).as_primitive::<Int64Type>().values();
        let mut rows_of: BTreeMap<i64, Vec<u32>> = BTreeMap::new();
        starts.iter().enumerate().for_each(|(row, start)| rows_of.entry(*start).or_default().push(row as u32));
        for (start, places) in rows_of {
            let of_slice = take_all(rows.columns(), &UInt32Array::from(places.clone()))?;
            let groups = FrozenGroups::decode(of_slice[..keys].to_vec(), &of_slice[keys + 1..], places.len())?;
            self.slices.entry(start).or_default().add(groups);
            self.weigh(start..start.saturating_add(1));
        }
        Ok(())
    }
}
