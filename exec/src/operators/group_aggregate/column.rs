//! The groups of an updating aggregate as one column of state: how many rows each has, and its accumulators.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, StructArray};
use arrow::datatypes::{DataType, Fields, Int64Type};
use tidemill_core::state::{StateColumn, append_cells, resize_cells};
use tidemill_core::{Error, Result};

use super::accumulate::{Changes, LiveAccumulator, column, live_accumulator};
use crate::operators::aggregate::{Aggregate, Arguments};

/// What is kept for each group. A group without rows is vacant.
pub struct GroupColumn {
    /// Rows that were added and not taken back.
    rows: Vec<i64>,
    accumulators: Vec<Box<dyn LiveAccumulator>>,
    fields: Fields,
}

impl GroupColumn {
    /// No groups yet, of aggregates that take rows back or not.
    pub fn new(aggregates: &[Aggregate], retracts: bool) -> Result<Self> {
        let accumulators = aggregates.iter().map(|aggregate| live_accumulator(aggregate, retracts));
        let accumulators = accumulators.collect::<Result<Vec<_>>>()?;
        let state = aggregates.iter().zip(&accumulators);
        let state = state.map(|(aggregate, live)| aggregate.complete(DataType::Struct(live.fields())));
        let fields = [column("rows", &DataType::Int64)].into_iter().chain(state).collect();
        Ok(Self { rows: Vec::new(), accumulators, fields })
    }

    /// Rows of a group.
    pub fn rows(&self, slot: usize) -> i64 {
        self.rows[slot]
    }

    /// Rows come and go.
    pub fn update(&mut self, changes: &Changes<'_>, arguments: &[Arguments]) -> Result<()> {
        for (row, slot) in changes.slots.iter().enumerate() {
            self.rows[*slot] += if changes.adds(row) { 1 } else { -1 };
        }
        let accumulators = self.accumulators.iter_mut().zip(arguments);
        accumulators.into_iter().try_for_each(|(accumulator, arguments)| accumulator.update(changes, arguments))
    }

    /// The results of these groups, a column an aggregate.
    pub fn evaluate(&mut self, slots: &[usize]) -> Result<Vec<ArrayRef>> {
        self.accumulators.iter_mut().map(|accumulator| accumulator.evaluate(slots)).collect()
    }
}

/// How many rows groups have, and the states of their accumulators.
fn split(columns: &[ArrayRef]) -> Result<(&[i64], &[ArrayRef])> {
    let (rows, states) = columns.split_first().ok_or_else(|| Error::corrupt("groups without columns"))?;
    Ok((rows.as_primitive::<Int64Type>().values(), states))
}

impl StateColumn for GroupColumn {
    fn fields(&self) -> &Fields {
        &self.fields
    }

    fn resize(&mut self, slots: usize) {
        resize_cells(&mut self.rows, slots, || 0);
        self.accumulators.iter_mut().for_each(|accumulator| accumulator.resize(slots));
    }

    fn reserve(&mut self, slots: usize) {
        self.rows.reserve(slots);
        self.accumulators.iter_mut().for_each(|accumulator| accumulator.reserve(slots));
    }

    fn clear(&mut self, slot: usize) {
        self.rows[slot] = 0;
        self.accumulators.iter_mut().for_each(|accumulator| accumulator.clear(slot));
    }

    fn is_vacant(&self, slot: usize) -> bool {
        self.rows[slot] == 0
    }

    fn encode(&self, slots: &[usize]) -> Result<Vec<ArrayRef>> {
        let mut columns: Vec<ArrayRef> =
            vec![Arc::new(Int64Array::from_iter_values(slots.iter().map(|slot| self.rows[*slot])))];
        for accumulator in &self.accumulators {
            let state = StructArray::try_new(accumulator.fields(), accumulator.encode(slots)?, None)?;
            columns.push(Arc::new(state));
        }
        Ok(columns)
    }

    fn decode(&mut self, slots: &[usize], columns: &[ArrayRef]) -> Result<()> {
        let (rows, states) = split(columns)?;
        slots.iter().zip(rows).for_each(|(slot, count)| self.rows[*slot] = *count);
        for (accumulator, state) in self.accumulators.iter_mut().zip(states) {
            accumulator.decode(slots, state.as_struct().columns())?;
        }
        Ok(())
    }

    fn append(&mut self, slots: Range<usize>, columns: &[ArrayRef]) -> Result<()> {
        let (rows, states) = split(columns)?;
        append_cells(&mut self.rows, slots.clone(), rows)?;
        for (accumulator, state) in self.accumulators.iter_mut().zip(states) {
            accumulator.append(slots.clone(), state.as_struct().columns())?;
        }
        Ok(())
    }

    fn memory_bytes(&self) -> usize {
        let accumulators = self.accumulators.iter().map(|accumulator| accumulator.memory_bytes());
        self.rows.capacity() * size_of::<i64>() + accumulators.sum::<usize>()
    }
}
