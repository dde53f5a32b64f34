//! `GROUP BY` window and keys over event time: tumbling, hopping and cumulating windows on shared slices.
//!
//! ```text
//! row ──slice of its time──> slice: keys → accumulators        watermark passes a window's end:
//!                                                               merge its slices → evaluate → emit → forget slices
//! ```
//!
//! A row is late when every window of its slice is complete; it is dropped and counted. The input must be append-only.

mod slice;
mod slots;
mod spill;
mod state;
#[cfg(test)]
pub(super) mod tests;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, SchemaRef};
use tidemill_core::metrics::{Counter, LATE_RECORDS_DROPPED};
use tidemill_core::operator::{Operator, OperatorContext, OperatorFactory, Output, Progress};
use tidemill_core::state::{RestoredState, Snapshot, SnapshotScope};
use tidemill_core::time::{floor_to_millis, time_array, time_values};
use tidemill_core::window::{Window, WindowSpec};
use tidemill_core::{Batch, Error, Result, Watermark};

use crate::operators::aggregate::{Aggregate, Arguments};
use crate::operators::expression::{batch_of, keys_and_hashes};
use crate::operators::pending::Pending;
use crate::operators::window_assign::{TimeColumn, null_time, window_time};
use slice::{Merged, Results, Slice};
use spill::Spilled;

/// Where a grouping column of the result comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupColumn {
    /// This key.
    Key(usize),
    /// `window_start`.
    WindowStart,
    /// `window_end`.
    WindowEnd,
    /// `window_time`.
    WindowTime,
}

/// What a window aggregate computes.
#[derive(Clone, Debug)]
pub struct WindowAggregate {
    /// Event time.
    pub time: TimeColumn,
    /// Which windows.
    pub spec: WindowSpec,
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

impl OperatorFactory for WindowAggregate {
    fn create(&self) -> Result<Box<dyn Operator>> {
        let key_types = self.keys.iter().map(|key| self.input_schema.field(*key).data_type().clone()).collect();
        Ok(Box::new(WindowAggregateOperator {
            plan: Arc::new(self.clone()),
            key_types,
            slices: BTreeMap::new(),
            state_bytes: 0,
            fired: i64::MIN,
            completed: Watermark::MIN,
            watermark: Watermark::MIN,
            advancing: false,
            pending: Pending::default(),
            batch_rows: usize::MAX,
            subtask: 0,
            parallelism: 1,
            max_parallelism: 1,
            late: Counter::default(),
            spilled: Spilled::default(),
        }))
    }

    fn describe(&self) -> String {
        let keys: Vec<&str> = self.keys.iter().map(|key| self.input_schema.field(*key).name().as_str()).collect();
        let aggregates: Vec<String> = self.aggregates.iter().map(Aggregate::describe).collect();
        let (spec, time) = (&self.spec, &self.time.name);
        format!("window aggregate {spec} of {time} by [{}]: {}", keys.join(", "), aggregates.join(", "))
    }
}

struct WindowAggregateOperator {
    plan: Arc<WindowAggregate>,
    key_types: Vec<DataType>,
    /// By start, in the unit of the time column, wall clock of the calendar.
    slices: BTreeMap<i64, Slice>,
    /// What the slices weigh together.
    state_bytes: usize,
    /// End of the last window that fired.
    fired: i64,
    /// Every window that this watermark completes has fired.
    completed: Watermark,
    watermark: Watermark,
    /// A watermark is being worked off; it goes on when every window that it completes has.
    advancing: bool,
    pending: Pending,
    batch_rows: usize,
    subtask: usize,
    parallelism: usize,
    max_parallelism: u32,
    late: Counter,
    spilled: Spilled,
}

impl Operator for WindowAggregateOperator {
    fn open(&mut self, context: &OperatorContext) -> Result<()> {
        self.batch_rows = context.batch_rows;
        (self.subtask, self.parallelism) = (context.subtask, context.parallelism);
        self.max_parallelism = context.max_parallelism;
        self.late = context.metrics.counter(LATE_RECORDS_DROPPED);
        self.spilled.store = context.backend.parts();
        Ok(())
    }

    fn process(&mut self, _input: usize, batch: Batch, _output: &mut Output) -> Result<Progress> {
        if batch.kinds().is_some() {
            return Err(Error::internal("a window aggregate got an update; its input must be append-only"));
        }
        let plan = self.plan.clone();
        let records = batch.records();
        let (keys, hashes) = keys_and_hashes(&batch, &plan.keys)?;
        let arguments =
            plan.aggregates.iter().map(|aggregate| aggregate.arguments(records)).collect::<Result<Vec<_>>>()?;
        for (slice, rows) in self.by_slice(records)? {
            let count = rows.as_ref().map_or(batch.num_rows(), |rows| rows.len());
            let Some(open) = self.open_slice(slice, count)? else { continue };
            match rows {
                None => open.update(&keys, &hashes, &arguments, &plan.aggregates)?,
                Some(rows) => {
                    let hashes: Vec<u64> = rows.values().iter().map(|row| hashes[*row as usize]).collect();
                    let arguments = arguments.iter().map(|all| all.take(&rows)).collect::<Result<Vec<_>>>()?;
                    open.update(&take_all(&keys, &rows)?, &hashes, &arguments, &plan.aggregates)?;
                }
            }
            self.weigh(slice..slice.saturating_add(1));
        }
        self.make_room()?;
        Ok(Progress::Done)
    }

    fn advance(&mut self, watermark: Watermark, output: &mut Output) -> Result<Progress> {
        // After a restore inputs begin anew, below what had fired.
        self.watermark = self.watermark.max(watermark);
        self.advancing = true;
        self.resume(output)
    }

    fn resume(&mut self, output: &mut Output) -> Result<Progress> {
        loop {
            if self.pending.emit(output) == Progress::Full {
                return Ok(Progress::Full);
            }
            if self.fire_portion()? {
                continue;
            }
            if !self.advancing {
                return Ok(Progress::Done);
            }
            match self.next_window()? {
                Some(window) if self.is_complete(window, self.watermark) => self.fire(window)?,
                _ => {
                    self.advancing = false;
                    self.completed = self.watermark;
                    self.pending.push_watermark(self.watermark);
                }
            }
        }
    }

    fn memory_bytes(&self) -> usize {
        self.state_bytes
    }

    fn give_back(&mut self, bytes: usize) -> Result<()> {
        self.shrink(self.state_bytes.saturating_sub(bytes))
    }

    fn snapshot(&mut self, scope: SnapshotScope) -> Result<Snapshot> {
        self.frozen_state(scope)
    }

    fn restore(&mut self, state: RestoredState) -> Result<()> {
        self.restore_state(state)
    }
}

impl WindowAggregateOperator {
    /// Whether `watermark` has passed the last moment of a window.
    fn is_complete(&self, window: Window, watermark: Watermark) -> bool {
        let TimeColumn { unit, calendar, .. } = &self.plan.time;
        let last = calendar.to_instant(window.end, *unit).saturating_sub(1);
        watermark.has_passed(floor_to_millis(last, *unit))
    }

    /// The window with rows that is the next to be complete. Every slice that is kept has one, and that of the first slice comes
    /// before all others, because windows end in the order in which they begin.
    fn next_window(&self) -> Result<Option<Window>> {
        let Some(first) = self.slices.keys().next() else { return Ok(None) };
        let windows = self.plan.spec.windows_of_slice(*first)?;
        Ok(windows.first_beyond(|window| window.end <= self.fired || self.is_complete(window, self.completed)))
    }

    /// Rows by the start of their slice; `None` stands for all of them.
    fn by_slice(&self, records: &RecordBatch) -> Result<Vec<(i64, Option<UInt32Array>)>> {
        let TimeColumn { index, name, unit, calendar } = &self.plan.time;
        let (times, nulls) = time_values(records.column(*index).as_ref())?;
        if nulls.is_some_and(|nulls| nulls.null_count() > 0) {
            return Err(null_time(name));
        }
        let slice = |time: i64| self.plan.spec.slice_start(calendar.to_local(time, *unit));
        let (Some(first), Some(last)) = (times.iter().min(), times.iter().max()) else { return Ok(Vec::new()) };
        // Wall-clock time may go back within a batch only where the clock does.
        let monotonic = matches!(calendar, tidemill_core::time::Calendar::Utc);
        if monotonic && slice(*first)? == slice(*last)? {
            return Ok(vec![(slice(*first)?, None)]);
        }
        let mut rows_of: BTreeMap<i64, Vec<u32>> = BTreeMap::new();
        for (row, time) in times.iter().enumerate() {
            rows_of.entry(slice(*time)?).or_default().push(row as u32);
        }
        Ok(rows_of.into_iter().map(|(slice, rows)| (slice, Some(rows.into()))).collect())
    }

    /// The slice that begins at `start`; `None`, and `rows` counted as late, if all its windows are complete.
    fn open_slice(&mut self, start: i64, rows: usize) -> Result<Option<&mut Slice>> {
        if !self.slices.contains_key(&start) {
            let Some(last) = self.plan.spec.windows_of_slice(start)?.next_back() else { return Ok(None) };
            if self.is_complete(last, self.watermark) {
                self.late.add(rows);
                return Ok(None);
            }
        }
        self.slice(start).map(Some)
    }

    /// The slice that begins at `start`.
    fn slice(&mut self, start: i64) -> Result<&mut Slice> {
        match self.slices.entry(start) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => Ok(entry.insert(Slice::new(&self.key_types)?)),
        }
    }

    /// Weighs again the slices that begin in `starts`.
    fn weigh(&mut self, starts: Range<i64>) {
        for (_, slice) in self.slices.range_mut(starts) {
            let before = slice.weight();
            self.state_bytes = self.state_bytes + slice.weigh() - before;
        }
    }

    fn fire(&mut self, window: Window) -> Result<()> {
        self.fired = window.end;
        if self.begin_firing(window) {
            return Ok(());
        }
        let results = self.results(window)?;
        self.forget_slices(window)?;
        self.weigh(window.start..window.end);
        if results.rows > 0 {
            let records = self.records(window, results)?;
            self.pending.push(Batch::append(records), self.batch_rows);
        }
        Ok(())
    }

    fn results(&mut self, window: Window) -> Result<Results> {
        let plan = self.plan.clone();
        let single = window.end - window.start == plan.spec.slice_size();
        if single
            && plan.spec.windows_per_row_max() == 1
            && let Some(slice) = self.slices.get_mut(&window.start)
        {
            return slice.take_results(&plan.aggregates);
        }
        let mut merged = Merged::new(&self.key_types, &plan.aggregates)?;
        for (_, slice) in self.slices.range_mut(window.start..window.end) {
            merged.add(slice)?;
        }
        merged.into_results()
    }

    /// Forgets the slices of a fired window that no living window needs.
    fn forget_slices(&mut self, window: Window) -> Result<()> {
        let starts: Vec<i64> = self.slices.range(window.start..window.end).map(|(start, _)| *start).collect();
        for start in starts {
            let last = self.plan.spec.windows_of_slice(start)?.next_back();
            if last.is_none_or(|last| last.end <= window.end) {
                let forgotten = self.slices.remove(&start).map_or(0, |slice| slice.weight());
                self.state_bytes -= forgotten;
                self.spilled.forget(start);
            }
        }
        Ok(())
    }

    fn records(&self, window: Window, results: Results) -> Result<RecordBatch> {
        let Results { keys, values, rows } = results;
        let TimeColumn { unit, calendar, .. } = self.plan.time;
        let bound =
            |place: usize, value: i64| time_array(self.plan.schema.field(place).data_type(), vec![value; rows], None);
        let mut columns = Vec::with_capacity(self.plan.schema.fields().len());
        for (place, column) in self.plan.group_columns.iter().enumerate() {
            columns.push(match column {
                GroupColumn::Key(key) => keys[*key].clone(),
                GroupColumn::WindowStart => bound(place, window.start)?,
                GroupColumn::WindowEnd => bound(place, window.end)?,
                GroupColumn::WindowTime => bound(place, window_time(window.end, unit, calendar))?,
            });
        }
        columns.extend(values);
        batch_of(&self.plan.schema, columns, rows)
    }
}

impl Arguments {
    /// Those of some rows.
    fn take(&self, rows: &UInt32Array) -> Result<Self> {
        let filter = match &self.filter {
            Some(filter) => Some(arrow::array::AsArray::as_boolean(&take(filter, rows, None)?).clone()),
            None => None,
        };
        Ok(Self { values: take_all(&self.values, rows)?, filter })
    }
}

fn take_all(columns: &[ArrayRef], rows: &UInt32Array) -> Result<Vec<ArrayRef>> {
    columns.iter().map(|column| Ok(take(column, rows, None)?)).collect()
}
