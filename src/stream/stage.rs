//! Row by row functions, and how neighbours among them become one operator.
//!
//! ```text
//! batch --decode--> Rows<A> --map--> Rows<B> --filter--> Rows<B> --flat_map--> Rows<C> --encode--> batch
//! ```
//!
//! A function between two others sees Rust values; only the ends of the row of functions see columns.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use tidemill_core::operator::{OperatorContext, Output};
use tidemill_core::{Batch, Error, Result, Watermark};

use super::layout::RowCodec;
use super::rows::{AnyRows, Collector, Rows};

/// One function at work in one subtask.
pub(super) trait Stage: Send {
    /// What it makes of the rows.
    fn apply(&mut self, rows: AnyRows) -> Result<AnyRows>;

    /// All rows of a batch have been seen: the watermark that they tell.
    fn end_batch(&mut self) -> Option<Watermark> {
        None
    }

    /// What becomes of a watermark from above.
    fn watermark(&mut self, watermark: Watermark) -> Option<Watermark> {
        Some(watermark)
    }
}

/// Makes a stage for each subtask.
pub(super) type StageFactory = Arc<dyn Fn() -> Box<dyn Stage> + Send + Sync>;

/// A stage that is a function of a batch's rows and remembers nothing.
struct Function<F>(Arc<F>);

impl<F: Fn(AnyRows) -> Result<AnyRows> + Send + Sync> Stage for Function<F> {
    fn apply(&mut self, rows: AnyRows) -> Result<AnyRows> {
        (self.0)(rows)
    }
}

fn stateless(function: impl Fn(AnyRows) -> Result<AnyRows> + Send + Sync + 'static) -> StageFactory {
    let function = Arc::new(function);
    Arc::new(move || Box::new(Function(function.clone())))
}

/// One record for each record.
pub(super) fn map<T, U, F>(function: F) -> StageFactory
where
    T: Send + 'static,
    U: Send + 'static,
    F: Fn(T) -> Result<U> + Send + Sync + 'static,
{
    stateless(move |rows| {
        let Rows { values, times } = Rows::<T>::typed(rows)?;
        let values = values.into_iter().map(&function).collect::<Result<Vec<U>>>()?;
        Ok(Rows { values, times }.erase())
    })
}

/// Any number of records for each record; they keep its event time.
pub(super) fn flat_map<T, U, F>(function: F) -> StageFactory
where
    T: Send + 'static,
    U: Send + 'static,
    F: Fn(T, &mut Collector<U>) -> Result<()> + Send + Sync + 'static,
{
    stateless(move |rows| {
        let Rows { values, times } = Rows::<T>::typed(rows)?;
        let mut collector = Collector::new();
        let mut times_out = Vec::new();
        for (row, value) in values.into_iter().enumerate() {
            function(value, &mut collector)?;
            if let Some(time) = times.get(row) {
                times_out.resize(collector.values.len(), *time);
            }
        }
        Ok(Rows { values: collector.values, times: times_out }.erase())
    })
}

/// The records for which the function says so.
pub(super) fn filter<T, F>(function: F) -> StageFactory
where
    T: Send + 'static,
    F: Fn(&T) -> Result<bool> + Send + Sync + 'static,
{
    stateless(move |rows| {
        let Rows { values, mut times } = Rows::<T>::typed(rows)?;
        let mut kept = Vec::with_capacity(values.len());
        let mut kept_times = 0;
        for (row, value) in values.into_iter().enumerate() {
            if function(&value)? {
                kept.push(value);
                if let Some(time) = times.get(row).copied() {
                    times[kept_times] = time;
                    kept_times += 1;
                }
            }
        }
        times.truncate(kept_times);
        Ok(Rows { values: kept, times }.erase())
    })
}

/// The error that a user's function returned: ours as it is, any other with its text.
pub(super) fn user_error(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    match error.into().downcast::<Error>() {
        Ok(error) => *error,
        Err(other) => Error::data(other.to_string()).with_source(other),
    }
}

/// The functions behind an operator's head, and the encoding in which their results leave the task.
pub(super) struct Tail {
    stages: Vec<Box<dyn Stage>>,
    codec: Arc<dyn RowCodec>,
    batch_rows: usize,
}

impl Tail {
    /// The stages of one subtask.
    pub fn new(stages: &[StageFactory], codec: Arc<dyn RowCodec>) -> Self {
        Self { stages: stages.iter().map(|create| create()).collect(), codec, batch_rows: usize::MAX }
    }

    /// Takes in what the subtask may know.
    pub fn open(&mut self, context: &OperatorContext) {
        self.batch_rows = context.batch_rows.max(1);
    }

    /// The most rows of a batch that leaves.
    pub fn batch_rows(&self) -> usize {
        self.batch_rows
    }

    /// Sends rows of the head through the stages and out.
    pub fn emit(&mut self, mut rows: AnyRows, output: &mut Output) -> Result<()> {
        for stage in &mut self.stages {
            rows = stage.apply(rows)?;
        }
        emit_pieces(self.codec.encode(rows)?, self.batch_rows, |piece| output.emit(piece));
        Ok(())
    }

    /// All rows that came of one batch have been emitted; a stage may know the time now.
    pub fn end_batch(&mut self, output: &mut Output) {
        let mut current = None;
        for stage in &mut self.stages {
            let passed = current.and_then(|watermark| stage.watermark(watermark));
            current = stage.end_batch().max(passed);
        }
        if let Some(watermark) = current {
            output.watermark(watermark);
        }
    }

    /// Sends a watermark through the stages and out.
    pub fn watermark(&mut self, watermark: Watermark, output: &mut Output) {
        let passed = self.stages.iter_mut().try_fold(watermark, |watermark, stage| stage.watermark(watermark));
        if let Some(watermark) = passed {
            output.watermark(watermark);
        }
    }
}

impl fmt::Debug for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tail({} stages)", self.stages.len())
    }
}

/// Gives `records` to `emit` in pieces of at most `rows` rows.
pub(super) fn emit_pieces(records: RecordBatch, rows: usize, mut emit: impl FnMut(Batch)) {
    let total = records.num_rows();
    if total <= rows {
        return emit(Batch::append(records));
    }
    for offset in (0..total).step_by(rows) {
        emit(Batch::append(records.slice(offset, rows.min(total - offset))));
    }
}
