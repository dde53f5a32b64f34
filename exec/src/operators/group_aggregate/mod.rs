//! `GROUP BY` without windows: a result for each key that is updated as rows come and go (NSQ-02).
//!
//! ```text
//! batch: keys → slots ── evaluate touched slots ── add and take back ── evaluate again ── emit what differs
//!                          (the old rows: -U -D)                          (the new rows: +I +U)
//! ```
//!
//! With a TTL a group is forgotten to which no row has come for that long; its result stays downstream, and rows that would take
//! back what it had forgotten are passed over (STA-12).
//!
//! A key is emitted at most once a batch, so the larger the batches, the fewer the updates. Rows whose keys are not in memory are
//! kept back, while there is more to read, until there are many of them. `DISTINCT` is the same without aggregates.

mod accumulate;
mod column;
mod counted_values;
mod fallback;
mod min_max;
#[cfg(test)]
pub(super) mod tests;

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::kernels::cmp::distinct;
use arrow::compute::{concat, filter_record_batch, or, take};
use arrow::datatypes::SchemaRef;
use tidemill_core::clock::Clock;
use tidemill_core::operator::{Operator, OperatorContext, OperatorFactory, Output, Progress};
use tidemill_core::state::{Extent, RestoredState, Snapshot, SnapshotScope, StateColumn, StateTtl};
use tidemill_core::{Batch, Error, Result, RowKind, Watermark};
use xxhash_rust::xxh3::Xxh3Default;

use crate::operators::aggregate::Aggregate;
use crate::operators::expression::batch_of;
use crate::operators::idle::IdleState;
use crate::operators::pending::Pending;
use crate::operators::saved::{freeze_numbers, restored_numbers};
use accumulate::{Changes, live_accumulator};
use column::GroupColumn;

/// What an updating aggregate computes.
#[derive(Clone, Debug)]
pub struct GroupAggregate {
    /// Key columns of the input; the exchange in front hashes the same, in the same order. None: one group over everything.
    pub keys: Vec<usize>,
    /// Functions.
    pub aggregates: Vec<Aggregate>,
    /// Whether the input takes rows back.
    pub input_updates: bool,
    /// How long a group is kept to which no row comes.
    pub ttl: Option<StateTtl>,
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
        Ok(Box::new(GroupAggregateOperator {
            plan: Arc::new(self.clone()),
            groups: None,
            clock: None,
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
    /// From `open` on.
    groups: Option<Groups>,
    /// From `open` on.
    clock: Option<Arc<dyn Clock>>,
    /// Slots of this batch, each once, in the order in which they came.
    touched: Vec<usize>,
    is_touched: Vec<bool>,
    slots: Vec<usize>,
    pending: Pending,
    batch_rows: usize,
    /// A global aggregate has a result also before its first row; it is given at the end if none came.
    has_spoken: bool,
}

/// The groups of all keys.
type Groups = IdleState<GroupColumn>;

impl Groups {
    /// The result rows of these groups.
    fn evaluate(&mut self, slots: &[usize]) -> Result<Vec<ArrayRef>> {
        let mut columns = self.states.keys(slots)?;
        columns.extend(self.column()?.evaluate(slots)?);
        Ok(columns)
    }
}

/// The name of the state that says whether the one group of everything has given its result.
const HAS_SPOKEN: &str = "has_spoken";

impl Operator for GroupAggregateOperator {
    fn open(&mut self, context: &OperatorContext) -> Result<()> {
        self.batch_rows = context.batch_rows;
        let keys = self.plan.keys.iter().map(|key| self.plan.input_schema.fields()[*key].clone());
        let column = GroupColumn::new(&self.plan.aggregates, self.plan.input_updates)?;
        self.groups = Some(Groups::new(context, &keys.collect(), "groups", column, self.plan.ttl)?);
        self.clock = Some(context.clock.clone());
        Ok(())
    }

    fn process(&mut self, _input: usize, batch: Batch, output: &mut Output) -> Result<Progress> {
        let mut groups = self.groups.take().ok_or_else(not_open)?;
        let batch = groups.take_in(batch, &self.plan.keys, &mut self.slots)?;
        self.update(&mut groups, &batch)?;
        self.groups = Some(groups);
        self.resume(output)
    }

    fn advance(&mut self, watermark: Watermark, output: &mut Output) -> Result<Progress> {
        self.groups.as_mut().ok_or_else(not_open)?.backlog.advance(watermark);
        self.resume(output)
    }

    fn wake(&mut self, _token: u64, output: &mut Output) -> Result<Progress> {
        self.groups.as_mut().ok_or_else(not_open)?.wake(&self.plan.keys)?;
        self.resume(output)
    }

    fn flush(&mut self, output: &mut Output) -> Result<Progress> {
        self.groups.as_mut().ok_or_else(not_open)?.fall_due(&self.plan.keys)?;
        self.resume(output)
    }

    fn end_of_input(&mut self, _input: usize, output: &mut Output) -> Result<Progress> {
        if self.is_global() && !std::mem::replace(&mut self.has_spoken, true) {
            let mut groups = self.groups.take().ok_or_else(not_open)?;
            self.slots.clear();
            groups.states.lookup(&[], &[0], &mut self.slots)?;
            self.touch();
            let result = groups.evaluate(&self.touched)?;
            groups.states.release()?;
            self.groups = Some(groups);
            let records = batch_of(&self.plan.schema, result, 1)?;
            self.pending.push(Batch::append(records), self.batch_rows);
        }
        self.flush(output)
    }

    fn resume(&mut self, output: &mut Output) -> Result<Progress> {
        while self.pending.emit(output) == Progress::Done {
            let mut groups = self.groups.take().ok_or_else(not_open)?;
            let due = groups.next_due(&self.plan.keys, self.batch_rows, &mut self.slots)?;
            if let Some(batch) = &due {
                self.update(&mut groups, batch)?;
            }
            let watermark = groups.backlog.watermark();
            self.groups = Some(groups);
            match watermark {
                Some(watermark) => self.pending.push_watermark(watermark),
                None if due.is_none() => return Ok(Progress::Done),
                None => {}
            }
        }
        Ok(Progress::Full)
    }

    fn memory_bytes(&self) -> usize {
        self.is_touched.capacity() + self.groups.as_ref().map_or(0, Groups::memory_bytes)
    }

    fn give_back(&mut self, bytes: usize) -> Result<()> {
        self.groups.as_mut().map_or(Ok(()), |groups| groups.states.give_back(bytes))
    }

    fn snapshot(&mut self, scope: SnapshotScope) -> Result<Snapshot> {
        let mut snapshot = self.groups.as_mut().ok_or_else(not_open)?.snapshot(scope)?;
        if self.is_global() {
            snapshot.push(Extent::Whole, freeze_numbers(HAS_SPOKEN, &[i64::from(self.has_spoken)])?);
        }
        Ok(snapshot)
    }

    fn restore(&mut self, mut state: RestoredState) -> Result<()> {
        self.has_spoken = restored_numbers(&mut state, HAS_SPOKEN)?.contains(&1);
        self.groups.as_mut().ok_or_else(not_open)?.states.restore(&mut state)
    }
}

fn not_open() -> Error {
    Error::internal("an aggregate that was not opened")
}

fn addition(kind: u8) -> bool {
    kind == RowKind::Insert as u8 || kind == RowKind::UpdateAfter as u8
}

impl GroupAggregateOperator {
    fn is_global(&self) -> bool {
        self.plan.keys.is_empty()
    }

    /// Which of the touched groups have rows, and so a result downstream.
    fn existing(&self, groups: &mut Groups) -> Result<Vec<bool>> {
        let column = groups.column()?;
        Ok(self.touched.iter().map(|slot| column.rows(*slot) > 0).collect())
    }

    /// The rows without those that take something back from a group that has no row: it has expired.
    fn without_expired(
        &mut self,
        groups: &GroupColumn,
        signs: &mut Vec<bool>,
        records: &RecordBatch,
    ) -> Result<RecordBatch> {
        let mut rows: HashMap<usize, i64, BuildHasherDefault<Xxh3Default>> = HashMap::default();
        let counts = |(slot, adds): (&usize, &bool)| {
            let rows = rows.entry(*slot).or_insert_with(|| groups.rows(*slot));
            let counts = *adds || *rows > 0;
            *rows += i64::from(counts) * if *adds { 1 } else { -1 };
            counts
        };
        let kept: BooleanArray = self.slots.iter().zip(&*signs).map(counts).map(Some).collect();
        if kept.true_count() == kept.len() {
            return Ok(records.clone());
        }
        let mut is_kept = kept.values().iter();
        self.slots.retain(|_| is_kept.next().unwrap_or_default());
        let mut is_kept = kept.values().iter();
        signs.retain(|_| is_kept.next().unwrap_or_default());
        Ok(filter_record_batch(records, &kept)?)
    }

    /// Works on rows whose slots were found.
    fn update(&mut self, groups: &mut Groups, batch: &Batch) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let plan = self.plan.clone();
        let now_millis = self.clock.as_ref().ok_or_else(not_open)?.now_millis();
        let mut signs = batch.kinds().map(|kinds| kinds.iter().map(|kind| addition(*kind)).collect::<Vec<bool>>());
        self.touch();
        let has_expired = !groups.expire(&self.touched, now_millis)?.is_empty();
        let records = match (&mut signs, plan.ttl) {
            (Some(signs), Some(_)) => self.without_expired(groups.column()?, signs, batch.records())?,
            _ => batch.records().clone(),
        };
        let arguments =
            plan.aggregates.iter().map(|aggregate| aggregate.arguments(&records)).collect::<Result<Vec<_>>>()?;
        // The global group has a result also without rows, unless it was forgotten.
        let existed = match self.is_global() {
            true => vec![self.has_spoken && !has_expired; self.touched.len()],
            false => self.existing(groups)?,
        };
        let before = groups.evaluate(&self.touched)?;
        groups.column()?.update(&Changes { slots: &self.slots, additions: signs.as_deref() }, &arguments)?;
        let after = groups.evaluate(&self.touched)?;
        let exist = match self.is_global() {
            true => vec![true; self.touched.len()],
            false => self.existing(groups)?,
        };
        self.emit_changes(&existed, &exist, &before, &after)?;
        self.forget_empty_groups(groups.column()?);
        groups.written(&self.touched, batch.num_rows(), now_millis)
    }

    /// Tells each slot once.
    fn touch(&mut self) {
        self.touched.clear();
        for slot in &self.slots {
            if self.is_touched.len() <= *slot {
                self.is_touched.resize(*slot + 1, false);
            }
            if !std::mem::replace(&mut self.is_touched[*slot], true) {
                self.touched.push(*slot);
            }
        }
        self.touched.iter().for_each(|slot| self.is_touched[*slot] = false);
    }

    fn emit_changes(
        &mut self,
        existed: &[bool],
        exist: &[bool],
        before: &[ArrayRef],
        after: &[ArrayRef],
    ) -> Result<()> {
        let count = self.touched.len();
        let keys = self.plan.keys.len();
        let changed = differing(&before[keys..], &after[keys..], count)?;
        // Rows of `before`, then those of `after`, as indices into their concatenation.
        let (mut order, mut kinds) = (Vec::with_capacity(2 * count), Vec::with_capacity(2 * count));
        let mut push = |row: usize, kind: RowKind| {
            order.push(row as u32);
            kinds.push(kind as u8);
        };
        for place in 0..count {
            match (existed[place], exist[place]) {
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

    fn forget_empty_groups(&self, column: &mut GroupColumn) {
        if self.plan.input_updates {
            for slot in &self.touched {
                if column.rows(*slot) <= 0 {
                    column.clear(*slot);
                }
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
