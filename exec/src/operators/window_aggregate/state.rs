//! The slices in snapshots: a row for each key and slice, with the state of each aggregate.
//!
//! A snapshot of changes has only what came since the last one, as rows beside the older ones: the parts of a group are put
//! together when its window fires, and after a restore as well. Nobody says that a slice is gone; a restore knows it by how far
//! the subtask had come that stored it.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch, UInt32Array};
use arrow::datatypes::{DataType, Field, Fields, Int64Type};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::ColumnarValue;
use tidemill_core::key::groups_of;
use tidemill_core::state::{Extent, RestoredState, Snapshot, SnapshotScope, adapt, keyed_schema, rows_of_groups};
use tidemill_core::{Result, Watermark};

use super::slice::Rows;
use super::{WindowAggregate, WindowAggregateOperator, take_all};
use crate::operators::aggregate::Aggregate;
use crate::operators::saved::{
    KeyedPart, KeyedRows, freeze_numbers, freeze_watermark, key_fields, restored_numbers, restored_watermark,
};

/// The state that holds the groups of all slices: the key of a group and the start of its slice, and its accumulators.
pub const SLICES: &str = "slices";
/// Of each subtask the key groups, from and to, and the watermark whose windows it has fired.
const PROGRESS: &str = "progress";

impl WindowAggregate {
    /// The columns of the state: what tells groups apart, and what is kept of each.
    pub(super) fn state_fields(&self) -> Result<(Fields, Fields)> {
        let keys = key_fields(&self.input_schema, &self.keys)?.into_iter();
        let slice = Arc::new(Field::new("slice_start", DataType::Int64, false));
        let kept: Result<Fields> = self.aggregates.iter().map(Aggregate::state_field).collect();
        Ok((keys.chain([slice]).collect(), kept?))
    }
}

/// Rows of the slice that begins at `start`, as they are stored.
pub fn slice_rows(start: i64, Rows { keys, states, hashes }: Rows) -> KeyedPart {
    let start = ColumnarValue::Scalar(ScalarValue::Int64(Some(start)));
    let (keys, states) = (keys.into_iter().map(ColumnarValue::Array), states.into_iter().map(ColumnarValue::Array));
    KeyedPart { columns: keys.chain([start]).chain(states).collect(), hashes }
}

impl WindowAggregateOperator {
    /// The slices, and the watermark whose windows have fired.
    pub fn frozen_state(&mut self, scope: SnapshotScope) -> Result<Snapshot> {
        if scope != SnapshotScope::Changes {
            self.put_rest_away()?;
        }
        let slices = self.frozen_slices(scope)?.freeze(SLICES, self.max_parallelism);
        let own = groups_of(self.subtask, self.parallelism, self.max_parallelism);
        let progress = [i64::from(own.start), i64::from(own.end), self.completed.0];
        let mut snapshot = Snapshot::whole([freeze_watermark(self.completed)?, freeze_numbers(PROGRESS, &progress)?]);
        snapshot.push(if scope == SnapshotScope::Changes { Extent::Added } else { Extent::Whole }, slices);
        self.freeze_spilled(scope, &mut snapshot)?;
        Ok(snapshot)
    }

    /// The same back again.
    pub fn restore_state(&mut self, mut state: RestoredState) -> Result<()> {
        self.completed = restored_watermark(&mut state)?;
        self.watermark = self.completed;
        let (keys, kept) = self.plan.state_fields()?;
        let progress = restored_numbers(&mut state, PROGRESS)?;
        let schema = keyed_schema(&keys, &kept);
        let columns: Vec<usize> = (1..schema.fields().len()).collect();
        for batch in state.take(SLICES)? {
            let batch = adapt(SLICES, &batch, &schema)?;
            for of_subtask in progress.chunks_exact(3) {
                let groups = of_subtask[0] as u32..of_subtask[1] as u32;
                let rows = rows_of_groups(&batch, &groups)?.project(&columns)?;
                self.restore_slices(&rows, Watermark(of_subtask[2]))?;
            }
        }
        Ok(())
    }

    fn frozen_slices(&mut self, scope: SnapshotScope) -> Result<KeyedRows> {
        let (keys, kept) = self.plan.state_fields()?;
        let aggregates = &self.plan.aggregates;
        let mut parts = Vec::new();
        for (start, slice) in &mut self.slices {
            let of_slice = match scope {
                SnapshotScope::Changes => slice.store_new(&kept)?,
                SnapshotScope::Base => slice.store_whole(&kept, aggregates)?,
                SnapshotScope::Copy => slice.copy(&kept, aggregates)?,
            };
            parts.extend(of_slice.into_iter().map(|rows| slice_rows(*start, rows)));
        }
        self.weigh(i64::MIN..i64::MAX);
        Ok(KeyedRows { keys, kept, parts })
    }

    /// Rows of a subtask that had come to `completed`.
    fn restore_slices(&mut self, rows: &RecordBatch, completed: Watermark) -> Result<()> {
        let keys = self.plan.keys.len();
        let starts = rows.column(keys).as_primitive::<Int64Type>().values();
        let mut rows_of: BTreeMap<i64, Vec<u32>> = BTreeMap::new();
        starts.iter().enumerate().for_each(|(row, start)| rows_of.entry(*start).or_default().push(row as u32));
        for (start, places) in rows_of {
            let last = self.plan.spec.windows_of_slice(start)?.next_back();
            if last.is_none_or(|last| self.is_complete(last, completed)) {
                continue;
            }
            let of_slice = take_all(rows.columns(), &UInt32Array::from(places.clone()))?;
            self.slice(start)?.restore(&of_slice[..keys], &of_slice[keys + 1..], places.len())?;
            self.weigh(start..start.saturating_add(1));
        }
        self.make_room()
    }
}
