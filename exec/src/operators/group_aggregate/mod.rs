//! `GROUP BY` without windows: a result for each key that is updated as rows come and go (NSQ-02).
//!
//! ```text
//! batch: keys → slots ── evaluate touched slots ── add and take back ── evaluate again ── emit what differs
//!                          (the old rows: -U -D)                          (the new rows: +I +U)
//! ```
//!
//! A key is emitted at most once a batch, so the larger the batches, the fewer the updates. `DISTINCT` is the same without
//! aggregates.

mod accumulate;
mod fallback;
mod min_max;
#[cfg(test)]
pub(super) mod tests;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, UInt32Array};
use arrow::compute::kernels::cmp::distinct;
use arrow::compute::{concat, or, take};
use arrow::datatypes::{DataType, SchemaRef};
use tidemill_core::key::hash_columns;
use tidemill_core::operator::{Operator, OperatorContext, OperatorFactory, Output, Progress};
use tidemill_core::{Batch, Result, RowKind, Watermark};

use crate::operators::aggregate::Aggregate;
use crate::operators::expression::batch_of;
use crate::operators::pending::Pending;
use crate::state::KeyIndex;
use accumulate::{Changes, LiveAccumulator, live_accumulator};

/// What an updating aggregate computes.
#[derive(Clone, Debug)]
pub struct GroupAggregate {
    /// Key columns of the input; the exchange in front hashes the same, in the same order. None: one group over everything.
    pub keys: Vec<usize>,
    /// Functions.
    pub aggregates: Vec<Aggregate>,
    /// Whether the input takes rows back.
    pub input_updates: bool,
    /// Columns of the input.
    pub input_schema: SchemaRef,
    /// Columns of the result: keys, then aggregates.
    pub schema: SchemaRef,
}

impl GroupAggregate {
    /// Whether the aggregates can take back rows as this input demands; asked when a plan is made, so that no row meets the
    /// error.
    pub fn check(&self) -> Result<()> {
        self.aggregates.iter().try_for_each(|aggregate| live_accumulator(aggregate, self.input_updates).map(drop))
    }
}

impl OperatorFactory for GroupAggregate {
    fn create(&self) -> Result<Box<dyn Operator>> {
        let types: Vec<DataType> =
            self.keys.iter().map(|key| self.input_schema.field(*key).data_type().clone()).collect();
        let accumulators = self.aggregates.iter().map(|aggregate| live_accumulator(aggregate, self.input_updates));
        Ok(Box::new(GroupAggregateOperator {
            plan: Arc::new(self.clone()),
            index: KeyIndex::new(&types)?,
            accumulators: accumulators.collect::<Result<_>>()?,
            rows: Vec::new(),
            touched: Vec::new(),
            is_touched: Vec::new(),
            slots: Vec::new(),
            pending: Pending::default(),
            batch_rows: usize::MAX,
            has_spoken: false,
        }))
    }

    fn describe(&self) -> String {
        let keys: Vec<&str> = self.keys.iter().map(|key| self.input_schema.field(*key).name().as_str()).collect();
        let aggregates: Vec<String> = self.aggregates.iter().map(Aggregate::describe).collect();
        match aggregates.is_empty() {
            true => format!("distinct [{}]", keys.join(", ")),
            false => format!("aggregate by [{}]: {}", keys.join(", "), aggregates.join(", ")),
        }
    }
}

struct GroupAggregateOperator {
    plan: Arc<GroupAggregate>,
    index: KeyIndex,
    accumulators: Vec<Box<dyn LiveAccumulator>>,
    /// Rows of each slot that were added and not taken back.
    rows: Vec<i64>,
    /// Slots of this batch, each once, in the order in which they came.
    touched: Vec<usize>,
    is_touched: Vec<bool>,
    slots: Vec<usize>,
    pending: Pending,
    batch_rows: usize,
    /// A global aggregate has a result also before its first row; it is given at the end if none came.
    has_spoken: bool,
}

impl Operator for GroupAggregateOperator {
    fn open(&mut self, context: &OperatorContext) -> Result<()> {
        self.batch_rows = context.batch_rows;
        Ok(())
    }

    fn process(&mut self, _input: usize, batch: Batch, output: &mut Output) -> Result<Progress> {
        let plan = self.plan.clone();
        let records = batch.records();
        let keys: Vec<ArrayRef> = plan.keys.iter().map(|key| records.column(*key).clone()).collect();
        let hashes = match batch.hashes() {
            Some(hashes) => hashes.clone(),
            None => hash_columns(&keys, batch.num_rows())?,
        };
        self.touch(&keys, &hashes)?;
        let existed: Vec<bool> = self.touched.iter().map(|slot| self.exists(*slot)).collect();
        let before = self.evaluate()?;
        let signs = batch.kinds().map(|kinds| kinds.iter().map(|kind| addition(*kind)).collect::<Vec<bool>>());
        self.count_rows(signs.as_deref());
        let changes = Changes { slots: &self.slots, additions: signs.as_deref() };
        for (accumulator, aggregate) in self.accumulators.iter_mut().zip(&plan.aggregates) {
            accumulator.update(&changes, &aggregate.arguments(records)?)?;
        }
        let after = self.evaluate()?;
        self.emit_changes(&existed, &before, &after)?;
        self.forget_empty_groups();
        Ok(self.pending.emit(output))
    }

    fn advance(&mut self, watermark: Watermark, output: &mut Output) -> Result<Progress> {
        self.pending.push_watermark(watermark);
        Ok(self.pending.emit(output))
    }

    fn end_of_input(&mut self, _input: usize, output: &mut Output) -> Result<Progress> {
        if self.is_global() && !std::mem::replace(&mut self.has_spoken, true) {
            self.touch(&[], &[0])?;
            let result = self.evaluate()?;
            let records = batch_of(&self.plan.schema, result, 1)?;
            self.pending.push(Batch::append(records), self.batch_rows);
        }
        Ok(self.pending.emit(output))
    }

    fn resume(&mut self, output: &mut Output) -> Result<Progress> {
        Ok(self.pending.emit(output))
    }

    fn memory_bytes(&self) -> usize {
        let slots = self.rows.capacity() * size_of::<i64>() + self.is_touched.capacity();
        let accumulators = self.accumulators.iter().map(|accumulator| accumulator.memory_bytes());
        self.index.size_bytes() + slots + accumulators.sum::<usize>()
    }
}

fn addition(kind: u8) -> bool {
    kind == RowKind::Insert as u8 || kind == RowKind::UpdateAfter as u8
}

impl GroupAggregateOperator {
    fn is_global(&self) -> bool {
        self.plan.keys.is_empty()
    }

    /// A group that has a result downstream: one with rows, or the global one once it was given.
    fn exists(&self, slot: usize) -> bool {
        if self.is_global() { self.has_spoken } else { self.rows[slot] > 0 }
    }

    /// Finds the slot of each row, and which slots there are.
    fn touch(&mut self, keys: &[ArrayRef], hashes: &[u64]) -> Result<()> {
        self.slots.clear();
        self.touched.clear();
        self.index.intern(keys, hashes, &mut self.slots)?;
        let slots = self.index.slots();
        self.rows.resize(slots, 0);
        self.is_touched.resize(slots, false);
        self.accumulators.iter_mut().for_each(|accumulator| accumulator.resize(slots));
        for slot in &self.slots {
            if !std::mem::replace(&mut self.is_touched[*slot], true) {
                self.touched.push(*slot);
            }
        }
        self.touched.iter().for_each(|slot| self.is_touched[*slot] = false);
        Ok(())
    }

    fn count_rows(&mut self, additions: Option<&[bool]>) {
        match additions {
            None => self.slots.iter().for_each(|slot| self.rows[*slot] += 1),
            Some(additions) => self.slots.iter().zip(additions).for_each(|(slot, addition)| {
                self.rows[*slot] += if *addition { 1 } else { -1 };
            }),
        }
    }

    /// The result rows of the touched groups.
    fn evaluate(&mut self) -> Result<Vec<ArrayRef>> {
        let mut columns = self.index.keys(&self.touched)?;
        for accumulator in &mut self.accumulators {
            columns.push(accumulator.evaluate(&self.touched)?);
        }
        Ok(columns)
    }

    fn emit_changes(&mut self, existed: &[bool], before: &[ArrayRef], after: &[ArrayRef]) -> Result<()> {
        let count = self.touched.len();
        let global = self.is_global();
        let keys = self.plan.keys.len();
        let changed = differing(&before[keys..], &after[keys..], count)?;
        // Rows of `before`, then those of `after`, as indices into their concatenation.
        let (mut order, mut kinds) = (Vec::with_capacity(2 * count), Vec::with_capacity(2 * count));
        let mut push = |row: usize, kind: RowKind| {
            order.push(row as u32);
            kinds.push(kind as u8);
        };
        for (place, slot) in self.touched.iter().enumerate() {
            let exists = global || self.rows[*slot] > 0;
            match (existed[place], exists) {
                (false, true) => push(count + place, RowKind::Insert),
                (true, false) => push(place, RowKind::Delete),
                (true, true) if changed.value(place) => {
                    push(place, RowKind::UpdateBefore);
                    push(count + place, RowKind::UpdateAfter);
                }
                _ => {}
            }
        }
        self.has_spoken = true;
        if order.is_empty() {
            return Ok(());
        }
        let order = UInt32Array::from(order);
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(before.len());
        for (old, new) in before.iter().zip(after) {
            let both = concat(&[old.as_ref(), new.as_ref()])?;
            columns.push(take(&both, &order, None)?);
        }
        let records = batch_of(&self.plan.schema, columns, order.len())?;
        self.pending.push(Batch::changelog(records, kinds.into())?, self.batch_rows);
        Ok(())
    }

    fn forget_empty_groups(&mut self) {
        if self.is_global() || !self.plan.input_updates {
            return;
        }
        for slot in &self.touched {
            if self.rows[*slot] <= 0 {
                self.rows[*slot] = 0;
                self.index.remove(*slot);
                self.accumulators.iter_mut().for_each(|accumulator| accumulator.clear(*slot));
            }
        }
    }
}

/// Where the rows of two tables differ; NULL equals NULL.
fn differing(left: &[ArrayRef], right: &[ArrayRef], rows: usize) -> Result<BooleanArray> {
    let mut changed = BooleanArray::from(vec![false; rows]);
    for (left, right) in left.iter().zip(right) {
        let column = match left.data_type() {
            nested if nested.is_nested() => {
                (0..rows).map(|row| Some(left.slice(row, 1).to_data() != right.slice(row, 1).to_data())).collect()
            }
            _ => distinct(left, right)?,
        };
        changed = or(&changed, &column)?;
    }
    Ok(changed)
}
