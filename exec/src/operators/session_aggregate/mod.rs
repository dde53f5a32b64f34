//! `GROUP BY` session and keys: windows that grow with their rows (SUB-04).
//!
//! A row makes the window `[time, time + gap)`; windows of one key that touch merge, so rows exactly `gap` apart belong
//! together. Lateness is judged on the merged window: a late row may be rescued by a session that lives, and may join two.
//!
//! A batch is sorted by key and time and cut into runs, each a session by itself; then each run is merged with the state. Each
//! session has accumulators of its own, because they have to merge.

mod state;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::Accumulator;
use tidemill_core::metrics::{Counter, LATE_RECORDS_DROPPED};
use tidemill_core::operator::{Operator, OperatorContext, OperatorFactory, Output, Progress};
use tidemill_core::state::{RestoredState, Snapshot, SnapshotScope};
use tidemill_core::time::{floor_to_millis, time_array, time_values};
use tidemill_core::{Batch, Error, Result, Watermark};

use crate::error::from_datafusion;
use crate::operators::aggregate::Aggregate;
use crate::operators::expression::{batch_of, keys_and_hashes};
use crate::operators::pending::Pending;
use crate::operators::window_aggregate::GroupColumn;
use crate::operators::window_assign::{TimeColumn, null_time, window_time};
use crate::state::KeyIndex;

/// What a session aggregate computes.
#[derive(Clone, Debug)]
pub struct SessionAggregate {
    /// Event time.
    pub time: TimeColumn,
    /// Rows at most this far apart belong together, in the unit of the time column.
    pub gap: i64,
    /// Key columns of the input; the exchange in front hashes the same, in the same order.
    pub keys: Vec<usize>,
    /// Functions.
    pub aggregates: Vec<Aggregate>,
    /// Leading columns of the result; those of the aggregates follow.
    pub group_columns: Vec<GroupColumn>,
    /// Columns of the input.
    pub input_schema: SchemaRef,
    /// Columns of the result.
    pub schema: SchemaRef,
}

impl OperatorFactory for SessionAggregate {
    fn create(&self) -> Result<Box<dyn Operator>> {
        let types: Vec<DataType> =
            self.keys.iter().map(|key| self.input_schema.field(*key).data_type().clone()).collect();
        Ok(Box::new(SessionAggregateOperator {
            plan: Arc::new(self.clone()),
            index: KeyIndex::new(&types)?,
            sessions: Vec::new(),
            ends: BTreeSet::new(),
            session_bytes: 0,
            watermark: Watermark::MIN,
            pending: Pending::default(),
            batch_rows: usize::MAX,
            max_parallelism: 1,
            late: Counter::default(),
        }))
    }

    fn describe(&self) -> String {
        let keys: Vec<&str> = self.keys.iter().map(|key| self.input_schema.field(*key).name().as_str()).collect();
        let aggregates: Vec<String> = self.aggregates.iter().map(Aggregate::describe).collect();
        let (gap, time) = (self.gap, &self.time.name);
        format!("session aggregate SESSION(gap={gap}) of {time} by [{}]: {}", keys.join(", "), aggregates.join(", "))
    }
}

struct SessionAggregateOperator {
    plan: Arc<SessionAggregate>,
    index: KeyIndex,
    /// The living sessions of each key, by start, wall clock of the calendar.
    sessions: Vec<BTreeMap<i64, Session>>,
    /// (end, slot, start) of every living session: the timers.
    ends: BTreeSet<(i64, usize, i64)>,
    /// Bytes that the living sessions occupy.
    session_bytes: usize,
    watermark: Watermark,
    pending: Pending,
    batch_rows: usize,
    max_parallelism: u32,
    late: Counter,
}

struct Session {
    end: i64,
    accumulators: Vec<Box<dyn Accumulator>>,
}

/// Rows of one key of a batch that belong together: their session and their places in the sorted batch.
struct Run {
    slot: usize,
    start: i64,
    end: i64,
    begin: usize,
    rows: usize,
}

impl Operator for SessionAggregateOperator {
    fn open(&mut self, context: &OperatorContext) -> Result<()> {
        self.batch_rows = context.batch_rows;
        self.max_parallelism = context.max_parallelism;
        self.late = context.metrics.counter(LATE_RECORDS_DROPPED);
        Ok(())
    }

    fn process(&mut self, _input: usize, batch: Batch, _output: &mut Output) -> Result<Progress> {
        if batch.kinds().is_some() {
            return Err(Error::internal("a session aggregate got an update; its input must be append-only"));
        }
        let plan = self.plan.clone();
        let records = batch.records();
        let (keys, hashes) = keys_and_hashes(&batch, &plan.keys)?;
        let mut slots = Vec::with_capacity(batch.num_rows());
        self.index.intern(&keys, &hashes, &mut slots)?;
        self.sessions.resize_with(self.index.slots(), BTreeMap::new);

        let times = self.local_times(records)?;
        let mut order: Vec<u32> = (0..batch.num_rows() as u32).collect();
        order.sort_by_key(|row| (slots[*row as usize], times[*row as usize]));
        let runs = self.runs(&order, &slots, &times)?;
        let order = UInt32Array::from(order);
        let sorted = take_records(records, &order)?;
        let arguments =
            plan.aggregates.iter().map(|aggregate| aggregate.arguments(&sorted)).collect::<Result<Vec<_>>>()?;
        for run in runs {
            self.merge(&run, |place, accumulator| {
                let (begin, rows) = (run.begin, run.rows);
                let values: Vec<ArrayRef> =
                    arguments[place].values.iter().map(|values| values.slice(begin, rows)).collect();
                let values = match &arguments[place].filter {
                    None => values,
                    Some(filter) => {
                        let mask = filter.slice(begin, rows);
                        values.iter().map(|values| Ok(arrow::compute::filter(values, &mask)?)).collect::<Result<_>>()?
                    }
                };
                accumulator.update_batch(&values).map_err(from_datafusion)
            })?;
        }
        Ok(Progress::Done)
    }

    fn advance(&mut self, watermark: Watermark, output: &mut Output) -> Result<Progress> {
        // After a restore inputs begin anew, below what had fired.
        let watermark = self.watermark.max(watermark);
        self.watermark = watermark;
        let mut fired = Vec::new();
        while let Some((end, slot, start)) = self.ends.first().copied()
            && self.is_complete(end)
        {
            self.ends.pop_first();
            if let Some(session) = self.sessions[slot].remove(&start) {
                self.session_bytes = self.session_bytes.saturating_sub(session.memory_bytes());
                fired.push((slot, start, session));
            }
        }
        self.push(&mut fired)?;
        for (slot, ..) in fired {
            // The same key may have fired twice; it is forgotten once.
            if self.sessions[slot].is_empty() {
                self.index.remove(slot);
            }
        }
        self.pending.push_watermark(watermark);
        Ok(self.pending.emit(output))
    }

    fn resume(&mut self, output: &mut Output) -> Result<Progress> {
        Ok(self.pending.emit(output))
    }

    fn memory_bytes(&self) -> usize {
        let slots = self.sessions.capacity() * size_of::<BTreeMap<i64, Session>>();
        self.index.size_bytes() + slots + self.session_bytes
    }

    fn snapshot(&mut self, _scope: SnapshotScope) -> Result<Snapshot> {
        self.frozen_state()
    }

    fn restore(&mut self, state: RestoredState) -> Result<()> {
        self.restore_state(state)
    }
}

impl Session {
    /// With its share of the tree of its key and of the timers.
    fn memory_bytes(&self) -> usize {
        let entries = size_of::<(i64, Self)>() + size_of::<(i64, usize, i64)>();
        entries + self.accumulators.iter().map(|accumulator| accumulator.size()).sum::<usize>()
    }
}

impl SessionAggregateOperator {
    fn is_complete(&self, end: i64) -> bool {
        let TimeColumn { unit, calendar, .. } = self.plan.time;
        let last = calendar.to_instant(end, unit).saturating_sub(1);
        self.watermark.has_passed(floor_to_millis(last, unit))
    }

    fn local_times(&self, records: &arrow::array::RecordBatch) -> Result<Vec<i64>> {
        let TimeColumn { index, name, unit, calendar } = &self.plan.time;
        let (times, nulls) = time_values(records.column(*index).as_ref())?;
        if nulls.is_some_and(|nulls| nulls.null_count() > 0) {
            return Err(null_time(name));
        }
        Ok(times.iter().map(|time| calendar.to_local(*time, *unit)).collect())
    }

    /// Cuts sorted rows where the key changes or the gap is exceeded.
    fn runs(&self, order: &[u32], slots: &[usize], times: &[i64]) -> Result<Vec<Run>> {
        let mut runs: Vec<Run> = Vec::new();
        for (place, row) in order.iter().enumerate() {
            let (slot, time) = (slots[*row as usize], times[*row as usize]);
            let end = time.checked_add(self.plan.gap).ok_or_else(|| {
                Error::data(format!("time {time} is too far from 1970 for a session"))
                    .with_hint("its end overflows 64 bits")
            })?;
            match runs.last_mut() {
                Some(run) if run.slot == slot && time <= run.end => {
                    run.end = end;
                    run.rows += 1;
                }
                _ => runs.push(Run { slot, start: time, end, begin: place, rows: 1 }),
            }
        }
        Ok(runs)
    }

    /// Merges a run into the sessions that it touches; all of it is late if what comes out is complete.
    fn merge(
        &mut self,
        run: &Run,
        mut update: impl FnMut(usize, &mut Box<dyn Accumulator>) -> Result<()>,
    ) -> Result<()> {
        let sessions = &self.sessions[run.slot];
        let touched: Vec<i64> = sessions
            .range(..=run.end)
            .filter(|(_, session)| session.end >= run.start)
            .map(|(start, _)| *start)
            .collect();
        let ends = touched.iter().filter_map(|start| sessions.get(start)).map(|session| session.end);
        let (start, end) =
            (touched.first().map_or(run.start, |first| run.start.min(*first)), ends.fold(run.end, i64::max));
        if self.is_complete(end) {
            self.late.add(run.rows);
            if sessions.is_empty() {
                self.index.remove(run.slot);
            }
            return Ok(());
        }
        let mut merged: Option<Vec<Box<dyn Accumulator>>> = None;
        for other in touched {
            let Some(session) = self.sessions[run.slot].remove(&other) else { continue };
            self.ends.remove(&(session.end, run.slot, other));
            self.session_bytes = self.session_bytes.saturating_sub(session.memory_bytes());
            match &mut merged {
                None => merged = Some(session.accumulators),
                Some(merged) => merge_accumulators(merged, session.accumulators)?,
            }
        }
        let mut accumulators = match merged {
            Some(merged) => merged,
            None => {
                let fresh = self.plan.aggregates.iter().map(|aggregate| aggregate.function.create_accumulator());
                fresh.collect::<Result<_, _>>().map_err(from_datafusion)?
            }
        };
        accumulators.iter_mut().enumerate().try_for_each(|(place, accumulator)| update(place, accumulator))?;
        let session = Session { end, accumulators };
        self.session_bytes += session.memory_bytes();
        self.sessions[run.slot].insert(start, session);
        self.ends.insert((end, run.slot, start));
        Ok(())
    }

    fn push(&mut self, fired: &mut [(usize, i64, Session)]) -> Result<()> {
        if fired.is_empty() {
            return Ok(());
        }
        let slots: Vec<usize> = fired.iter().map(|(slot, ..)| *slot).collect();
        let keys = self.index.keys(&slots)?;
        let TimeColumn { unit, calendar, .. } = self.plan.time;
        let bound = |place: usize, value: &dyn Fn(i64, i64) -> i64| {
            let values = fired.iter().map(|(_, start, session)| value(*start, session.end)).collect();
            time_array(self.plan.schema.field(place).data_type(), values, None)
        };
        let mut columns = Vec::with_capacity(self.plan.schema.fields().len());
        for (place, column) in self.plan.group_columns.iter().enumerate() {
            columns.push(match column {
                GroupColumn::Key(key) => keys[*key].clone(),
                GroupColumn::WindowStart => bound(place, &|start, _| start)?,
                GroupColumn::WindowEnd => bound(place, &|_, end| end)?,
                GroupColumn::WindowTime => bound(place, &|_, end| window_time(end, unit, calendar))?,
            });
        }
        for place in 0..self.plan.aggregates.len() {
            let results = fired.iter_mut().map(|(_, _, session)| session.accumulators[place].evaluate());
            let results = results.collect::<Result<Vec<ScalarValue>, _>>().map_err(from_datafusion)?;
            columns.push(ScalarValue::iter_to_array(results).map_err(from_datafusion)?);
        }
        let records = batch_of(&self.plan.schema, columns, fired.len())?;
        self.pending.push(Batch::append(records), self.batch_rows);
        Ok(())
    }
}

fn merge_accumulators(into: &mut [Box<dyn Accumulator>], from: Vec<Box<dyn Accumulator>>) -> Result<()> {
    for (into, mut from) in into.iter_mut().zip(from) {
        let state = from.state().map_err(from_datafusion)?;
        let state = state.iter().map(ScalarValue::to_array).collect::<Result<Vec<_>, _>>().map_err(from_datafusion)?;
        into.merge_batch(&state).map_err(from_datafusion)?;
    }
    Ok(())
}

fn take_records(records: &arrow::array::RecordBatch, order: &UInt32Array) -> Result<arrow::array::RecordBatch> {
    let columns = records.columns().iter().map(|column| Ok(take(column, order, None)?)).collect::<Result<_>>()?;
    batch_of(&records.schema(), columns, order.len())
}
