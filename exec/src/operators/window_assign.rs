//! Window table functions: every row leaves once for each window that it belongs to, with the window's bounds (NSQ-01).

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{SchemaRef, TimeUnit};
use tidemill_core::operator::{Operator, OperatorContext, OperatorFactory, Output, Progress};
use tidemill_core::time::{Calendar, per_second, time_array, time_type, time_values};
use tidemill_core::window::{Window, WindowSpec};
use tidemill_core::{Batch, Error, Result};

use crate::operators::expression::batch_of;
use crate::operators::pending::Pending;

/// The rows of `records`, each once for each of its windows, with `window_start`, `window_end` (wall clock of the calendar) and
/// `window_time` (the last millisecond of the window as an instant) behind its columns. Not for sessions, whose windows depend
/// on other rows.
pub fn assign_windows(
    records: &RecordBatch,
    time_column: usize,
    spec: &WindowSpec,
    calendar: Calendar,
    schema: &SchemaRef,
) -> Result<RecordBatch> {
    let (rows, windows) = windows_of(records, time_column, spec, calendar)?;
    let indices = UInt32Array::from(rows);
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
    for column in records.columns() {
        columns.push(take(column, &indices, None)?);
    }
    columns.extend(window_columns(&windows, records, time_column, calendar, schema)?);
    batch_of(schema, columns, windows.len())
}

/// How many rows to assign at a time, so that what they become is about `batch_rows` rows.
pub fn rows_at_a_time(spec: &WindowSpec, batch_rows: usize) -> usize {
    (batch_rows / spec.windows_per_row_max().max(1)).max(1)
}

/// The three window columns for these windows.
fn window_columns(
    windows: &[Window],
    records: &RecordBatch,
    time_column: usize,
    calendar: Calendar,
    schema: &SchemaRef,
) -> Result<Vec<ArrayRef>> {
    let field = records.schema_ref().field(time_column);
    let (unit, _) = time_type(field.name(), field.data_type())?;
    let first = records.num_columns();
    let column = |place: usize, value: &dyn Fn(&Window) -> i64| {
        time_array(schema.field(first + place).data_type(), windows.iter().map(value).collect(), None)
    };
    Ok(vec![
        column(0, &|window| window.start)?,
        column(1, &|window| window.end)?,
        column(2, &|window| window_time(window.end, unit, calendar))?,
    ])
}

/// The last millisecond of a window that ends at wall-clock time `end`, as an instant (SUB-26).
pub fn window_time(end: i64, unit: TimeUnit, calendar: Calendar) -> i64 {
    calendar.to_instant(end, unit).saturating_sub((per_second(unit) / 1_000).max(1))
}

fn windows_of(
    records: &RecordBatch,
    time_column: usize,
    spec: &WindowSpec,
    calendar: Calendar,
) -> Result<(Vec<u32>, Vec<Window>)> {
    let schema = records.schema_ref();
    let name = schema.field(time_column).name();
    let (unit, _) = time_type(name, schema.field(time_column).data_type())?;
    let (times, nulls) = time_values(records.column(time_column).as_ref())?;
    if nulls.is_some_and(|nulls| nulls.null_count() > 0) {
        return Err(null_time(name));
    }
    let (mut rows, mut windows) = (Vec::with_capacity(times.len()), Vec::with_capacity(times.len()));
    // Rows near each other in time share their slice, and so their windows.
    let mut last: Option<(i64, Vec<Window>)> = None;
    for (row, time) in times.iter().enumerate() {
        let slice = spec.slice_start(calendar.to_local(*time, unit))?;
        let known = match &mut last {
            Some((known, windows)) if *known == slice => windows,
            other => &mut other.insert((slice, spec.windows_of_slice(slice)?.collect())).1,
        };
        for window in known.iter() {
            rows.push(row as u32);
            windows.push(*window);
        }
    }
    Ok((rows, windows))
}

/// The error for a row without event time.
pub fn null_time(column: &str) -> Error {
    Error::data(format!("time column '{column}' is NULL in a row"))
        .with_hint("a row without a time belongs to no window; filter such rows out")
}

/// [`assign_windows`] as a streaming operator.
#[derive(Clone, Debug)]
pub struct WindowAssignOperator {
    /// Where the time is.
    pub time_column: usize,
    /// Which windows.
    pub spec: WindowSpec,
    /// In which calendar they align.
    pub calendar: Calendar,
    /// Columns that leave.
    pub schema: SchemaRef,
}

impl OperatorFactory for WindowAssignOperator {
    fn create(&self) -> Result<Box<dyn Operator>> {
        Ok(Box::new(Assigning {
            plan: self.clone(),
            unassigned: None,
            pending: Pending::default(),
            batch_rows: usize::MAX,
        }))
    }

    fn describe(&self) -> String {
        format!("window {} of #{}", self.spec, self.time_column)
    }
}

/// Rows multiply here, so they are assigned a few at a time, as the output has room.
struct Assigning {
    plan: WindowAssignOperator,
    unassigned: Option<Batch>,
    pending: Pending,
    batch_rows: usize,
}

impl Operator for Assigning {
    fn open(&mut self, context: &OperatorContext) -> Result<()> {
        self.batch_rows = context.batch_rows;
        Ok(())
    }

    fn process(&mut self, _input: usize, batch: Batch, output: &mut Output) -> Result<Progress> {
        self.unassigned = Some(batch);
        self.resume(output)
    }

    fn resume(&mut self, output: &mut Output) -> Result<Progress> {
        let few = rows_at_a_time(&self.plan.spec, self.batch_rows);
        loop {
            if self.pending.emit(output) == Progress::Full {
                return Ok(Progress::Full);
            }
            let Some(batch) = self.unassigned.take() else { return Ok(Progress::Done) };
            let now = few.min(batch.num_rows());
            let later = batch.num_rows() - now;
            self.unassigned = (later > 0).then(|| batch.slice(now, later));
            self.pending.push(self.plan.assign(&batch.slice(0, now))?, self.batch_rows);
        }
    }
}

impl WindowAssignOperator {
    fn assign(&self, batch: &Batch) -> Result<Batch> {
        let Some(kinds) = batch.kinds() else {
            let records = assign_windows(batch.records(), self.time_column, &self.spec, self.calendar, &self.schema)?;
            return Ok(Batch::append(records));
        };
        let (rows, windows) = windows_of(batch.records(), self.time_column, &self.spec, self.calendar)?;
        let kinds: Vec<u8> = rows.iter().map(|row| kinds[*row as usize]).collect();
        let indices = UInt32Array::from(rows);
        let mut columns = Vec::with_capacity(self.schema.fields().len());
        for column in batch.records().columns() {
            columns.push(take(column, &indices, None)?);
        }
        columns.extend(window_columns(&windows, batch.records(), self.time_column, self.calendar, &self.schema)?);
        Batch::changelog(batch_of(&self.schema, columns, windows.len())?, kinds.into())
    }
}

/// What windows need to know of their time column, in one place.
#[derive(Clone, Debug)]
pub struct TimeColumn {
    /// Where it is.
    pub index: usize,
    /// Its name, for errors.
    pub name: Arc<str>,
    /// Its unit.
    pub unit: TimeUnit,
    /// In which calendar windows over it align.
    pub calendar: Calendar,
}
