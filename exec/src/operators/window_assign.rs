//! Window table functions: every row leaves once for each window that it belongs to, with the window's bounds (NSQ-01).

use std::sync::Arc;

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{SchemaRef, TimeUnit};
use tidemill_core::operator::{Operator, OperatorContext, OperatorFactory, Output, Progress};
use tidemill_core::time::{Calendar, per_second, time_array, time_type, time_values};
use tidemill_core::window::{Window, WindowSpec, Windows};
use tidemill_core::{Batch, Error, Result};

use crate::operators::expression::batch_of;
use crate::operators::pending::Pending;

/// The windows of the rows of a batch, a piece at a time: a row may have very many (a day by the second).
///
/// A piece is rows of the batch, each once for each of its windows, with `window_start`, `window_end` (wall clock of the calendar)
/// and `window_time` (the last millisecond of the window as an instant) behind its columns. Not for sessions, whose windows depend
/// on other rows.
pub struct Assignment {
    batch: Batch,
    times: Vec<i64>,
    unit: TimeUnit,
    spec: WindowSpec,
    calendar: Calendar,
    schema: SchemaRef,
    /// The row whose windows come next, and those that are left of it.
    row: usize,
    windows: Option<Windows>,
}

impl Assignment {
    /// The windows of `spec` over a column of `batch`; `schema` is that of the batch and the three window columns.
    pub fn new(
        batch: Batch,
        time_column: usize,
        spec: WindowSpec,
        calendar: Calendar,
        schema: SchemaRef,
    ) -> Result<Self> {
        let columns = batch.records().schema();
        let name = columns.field(time_column).name();
        let (unit, _) = time_type(name, columns.field(time_column).data_type())?;
        let (times, nulls) = time_values(batch.records().column(time_column).as_ref())?;
        if nulls.is_some_and(|nulls| nulls.null_count() > 0) {
            return Err(null_time(name));
        }
        let times = times.to_vec();
        Ok(Self { batch, times, unit, spec, calendar, schema, row: 0, windows: None })
    }

    /// The next rows, at most so many; `None` when there are no more.
    pub fn next_piece(&mut self, rows_max: usize) -> Result<Option<Batch>> {
        let (mut rows, mut windows) = (Vec::new(), Vec::new());
        while rows.len() < rows_max
            && let Some(time) = self.times.get(self.row)
        {
            let left = match self.windows.take() {
                Some(left) => left,
                None => self.spec.windows_of_slice(self.spec.slice_start(self.calendar.to_local(*time, self.unit))?)?,
            };
            let mut left = left;
            windows.extend(left.by_ref().take(rows_max - rows.len()));
            rows.resize(windows.len(), self.row as u32);
            match left.len() {
                0 => self.row += 1,
                _ => self.windows = Some(left),
            }
        }
        match rows.is_empty() {
            true => Ok(None),
            false => self.assigned(rows, &windows).map(Some),
        }
    }

    fn assigned(&self, rows: Vec<u32>, windows: &[Window]) -> Result<Batch> {
        let kinds = self.batch.kinds().map(|kinds| rows.iter().map(|row| kinds[*row as usize]).collect::<Vec<u8>>());
        let indices = UInt32Array::from(rows);
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.schema.fields().len());
        for column in self.batch.records().columns() {
            columns.push(take(column, &indices, None)?);
        }
        let first = columns.len();
        let bound = |place: usize, value: &dyn Fn(&Window) -> i64| {
            time_array(self.schema.field(first + place).data_type(), windows.iter().map(value).collect(), None)
        };
        columns.push(bound(0, &|window| window.start)?);
        columns.push(bound(1, &|window| window.end)?);
        columns.push(bound(2, &|window| window_time(window.end, self.unit, self.calendar))?);
        let records = batch_of(&self.schema, columns, windows.len())?;
        match kinds {
            None => Ok(Batch::append(records)),
            Some(kinds) => Batch::changelog(records, kinds.into()),
        }
    }
}

/// The last millisecond of a window that ends at wall-clock time `end`, as an instant (SUB-26).
pub fn window_time(end: i64, unit: TimeUnit, calendar: Calendar) -> i64 {
    calendar.to_instant(end, unit).saturating_sub((per_second(unit) / 1_000).max(1))
}

/// The error for a row without event time.
pub fn null_time(column: &str) -> Error {
    Error::data(format!("time column '{column}' is NULL in a row"))
        .with_hint("a row without a time belongs to no window; filter such rows out")
}

/// [`Assignment`] as a streaming operator.
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
            assignment: None,
            pending: Pending::default(),
            batch_rows: usize::MAX,
        }))
    }

    fn describe(&self) -> String {
        format!("window {} of #{}", self.spec, self.time_column)
    }
}

/// Rows multiply here, so they are assigned as the output has room.
struct Assigning {
    plan: WindowAssignOperator,
    assignment: Option<Assignment>,
    pending: Pending,
    batch_rows: usize,
}

impl Operator for Assigning {
    fn open(&mut self, context: &OperatorContext) -> Result<()> {
        self.batch_rows = context.batch_rows;
        Ok(())
    }

    fn process(&mut self, _input: usize, batch: Batch, output: &mut Output) -> Result<Progress> {
        let WindowAssignOperator { time_column, spec, calendar, schema } = self.plan.clone();
        self.assignment = Some(Assignment::new(batch, time_column, spec, calendar, schema)?);
        self.resume(output)
    }

    fn resume(&mut self, output: &mut Output) -> Result<Progress> {
        loop {
            if self.pending.emit(output) == Progress::Full {
                return Ok(Progress::Full);
            }
            let Some(assignment) = &mut self.assignment else { return Ok(Progress::Done) };
            match assignment.next_piece(self.batch_rows)? {
                Some(piece) => self.pending.push(piece, self.batch_rows),
                None => self.assignment = None,
            }
        }
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
