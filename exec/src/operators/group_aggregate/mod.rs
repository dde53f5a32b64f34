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

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::kernels::cmp::distinct;
use arrow::compute::{concat, filter_record_batch, or, take};
use arrow::datatypes::SchemaRef;
use tidemill_core::operator::{Operator, OperatorFactory};
use tidemill_core::state::{Extent, RestoredState, Snapshot, StateColumn, StateTtl};
use tidemill_core::{Batch, Result, RowKind};
use xxhash_rust::xxh3::Xxh3Default;

use crate::operators::aggregate::Aggregate;
use crate::operators::expression::batch_of;
use crate::operators::keyed::{Declared, IdleState, KeyedUpdate, KeyedUpdates, Rows};
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
        let plan = Arc::new(self.clone());
        let groups = Groups { plan, touched: Vec::new(), is_touched: Vec::new(), has_spoken: false };
        Ok(Box::new(KeyedUpdates::new(groups)))
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

/// The groups of all keys.
struct Groups {
    plan: Arc<GroupAggregate>,
    /// Slots of this batch, each once, in the order in which they came.
    touched: Vec<usize>,
    is_touched: Vec<bool>,
    /// A global aggregate has a result also before its first row; it is given at the end if none came.
    has_spoken: bool,
}

/// Their accumulators.
type States = IdleState<GroupColumn>;

/// The name of the state that says whether the one group of everything has given its result.
const HAS_SPOKEN: &str = "has_spoken";

impl KeyedUpdate for Groups {
    type Column = GroupColumn;

    fn declare(&self) -> Result<Declared<GroupColumn>> {
        let keys = self.plan.keys.iter().map(|key| self.plan.input_schema.fields()[*key].clone());
        let keys = (self.plan.keys.clone(), keys.collect());
        let column = GroupColumn::new(&self.plan.aggregates, self.plan.input_updates)?;
        Ok(Declared { name: "groups", input: self.plan.input_schema.clone(), keys, column, ttl: self.plan.ttl })
    }

    fn update(&mut self, states: &mut States, rows: Rows<'_>) -> Result<Option<Batch>> {
        let Rows { batch, slots, now_millis } = rows;
        let plan = self.plan.clone();
        let mut signs = batch.kinds().map(|kinds| kinds.iter().map(|kind| addition(*kind)).collect::<Vec<bool>>());
        self.touch(slots);
        let has_expired = !states.expire(&self.touched, now_millis)?.is_empty();
        let (mut slots, mut records) = (Cow::Borrowed(slots), Cow::Borrowed(batch.records()));
        if let (Some(signs), Some(_)) = (&mut signs, plan.ttl) {
            drop_expired(states.column()?, &mut slots, signs, &mut records)?;
        }
        let arguments =
            plan.aggregates.iter().map(|aggregate| aggregate.arguments(&records)).collect::<Result<Vec<_>>>()?;
        // The global group has a result also without rows, unless it was forgotten.
        let existed = match self.is_global() {
            true => vec![self.has_spoken && !has_expired; self.touched.len()],
            false => self.existing(states)?,
        };
        let before = evaluate(states, &self.touched)?;
        states.column()?.update(&Changes { slots: &slots, additions: signs.as_deref() }, &arguments)?;
        let after = evaluate(states, &self.touched)?;
        let exist = match self.is_global() {
            true => vec![true; self.touched.len()],
            false => self.existing(states)?,
        };
        let changed = self.changes(&existed, &exist, &before, &after)?;
        self.has_spoken = true;
        self.forget_empty_groups(states.column()?);
        states.written(&self.touched, batch.num_rows(), now_millis)?;
        Ok(changed)
    }

    fn end(&mut self, states: &mut States) -> Result<Option<Batch>> {
        if !self.is_global() || std::mem::replace(&mut self.has_spoken, true) {
            return Ok(None);
        }
        let mut slots = Vec::with_capacity(1);
        states.states.lookup(&[], &[0], &mut slots)?;
        let result = evaluate(states, &slots)?;
        states.states.release()?;
        Ok(Some(Batch::append(batch_of(&self.plan.schema, result, 1)?)))
    }

    fn snapshot(&self, snapshot: &mut Snapshot) -> Result<()> {
        if self.is_global() {
            snapshot.push(Extent::Whole, freeze_numbers(HAS_SPOKEN, &[i64::from(self.has_spoken)])?);
        }
        Ok(())
    }

    fn restore(&mut self, state: &mut RestoredState) -> Result<()> {
        self.has_spoken = restored_numbers(state, HAS_SPOKEN)?.contains(&1);
        Ok(())
    }

    fn memory_bytes(&self) -> usize {
        self.is_touched.capacity()
    }
}

fn addition(kind: u8) -> bool {
    kind == RowKind::Insert as u8 || kind == RowKind::UpdateAfter as u8
}

/// The result rows of these groups.
fn evaluate(states: &mut States, slots: &[usize]) -> Result<Vec<ArrayRef>> {
    let mut columns = states.states.keys(slots)?;
    columns.extend(states.column()?.evaluate(slots)?);
    Ok(columns)
}

/// Drops rows that take something back from a group that has no row: it has expired.
fn drop_expired(
    groups: &GroupColumn,
    slots: &mut Cow<'_, [usize]>,
    signs: &mut Vec<bool>,
    records: &mut Cow<'_, RecordBatch>,
) -> Result<()> {
    let mut rows: HashMap<usize, i64, BuildHasherDefault<Xxh3Default>> = HashMap::default();
    let counts = |(slot, adds): (&usize, &bool)| {
        let rows = rows.entry(*slot).or_insert_with(|| groups.rows(*slot));
        let counts = *adds || *rows > 0;
        *rows += i64::from(counts) * if *adds { 1 } else { -1 };
        counts
    };
    let kept: BooleanArray = slots.iter().zip(&*signs).map(counts).map(Some).collect();
    if kept.true_count() < kept.len() {
        let mut is_kept = kept.values().iter();
        slots.to_mut().retain(|_| is_kept.next().unwrap_or_default());
        let mut is_kept = kept.values().iter();
        signs.retain(|_| is_kept.next().unwrap_or_default());
        *records = Cow::Owned(filter_record_batch(records, &kept)?);
    }
    Ok(())
}

impl Groups {
    fn is_global(&self) -> bool {
        self.plan.keys.is_empty()
    }

    /// Which of the touched groups have rows, and so a result downstream.
    fn existing(&self, states: &mut States) -> Result<Vec<bool>> {
        let column = states.column()?;
        Ok(self.touched.iter().map(|slot| column.rows(*slot) > 0).collect())
    }

    /// Tells each slot once.
    fn touch(&mut self, slots: &[usize]) {
        self.touched.clear();
        for slot in slots {
            if self.is_touched.len() <= *slot {
                self.is_touched.resize(*slot + 1, false);
            }
            if !std::mem::replace(&mut self.is_touched[*slot], true) {
                self.touched.push(*slot);
            }
        }
        self.touched.iter().for_each(|slot| self.is_touched[*slot] = false);
    }

    /// What differs, as rows.
    fn changes(
        &self,
        existed: &[bool],
        exist: &[bool],
        before: &[ArrayRef],
        after: &[ArrayRef],
    ) -> Result<Option<Batch>> {
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
        if order.is_empty() {
            return Ok(None);
        }
        let order = UInt32Array::from(order);
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(before.len());
        for (old, new) in before.iter().zip(after) {
            let both = concat(&[old.as_ref(), new.as_ref()])?;
            columns.push(take(&both, &order, None)?);
        }
        let records = batch_of(&self.plan.schema, columns, order.len())?;
        Batch::changelog(records, kinds.into()).map(Some)
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
