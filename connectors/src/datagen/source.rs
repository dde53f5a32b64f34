//! The source of made-up rows: splits are sets of row numbers, positions are row numbers.
//!
//! ```text
//! bounded     split "0-250000"     rows 0 .. 250000, of which there are many: whoever has read one gets the next
//! unbounded   split "1/4"          of every 4 blocks of rows the second: rows 1024 .. 2048, 5120 .. 6144, …
//! ```

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use tidemill_core::clock::Clock;
use tidemill_core::error::{Error, Result};
use tidemill_core::source::{
    Boundedness, ListEnumerator, Source, SourceContext, SourceEvent, SourceReader, Split, SplitEnumerator,
    TurnEnumerator, decode_position, encode_position,
};

use super::field::FieldSpec;

/// Rows that stay together when an unbounded table is dealt out.
const BLOCK_ROWS: u64 = 1_024;
/// Splits a subtask of a bounded table, so that a slow one can be helped out.
const SPLITS_A_SUBTASK: u64 = 4;
/// Least rows of a split: starting one costs about as much as making a few batches.
const SPLIT_ROWS_MIN: u64 = 1 << 16;
/// Most rows of one. Subtasks read splits that lie side by side, so that times which rise with the rows rise everywhere alike:
/// were they far apart, windows of all the time between would wait for the one that is behind.
const SPLIT_ROWS_MAX: u64 = 1 << 18;
/// The same at a limited rate: what a subtask makes in this time.
const SPLIT_SECONDS: f64 = 0.2;
/// Most splits of a table: checkpoints hold a list of those that nobody has begun.
const SPLITS_MAX: u64 = 4_096;
/// At a limited rate a batch is what comes together in this time, so that rows are not held back.
const BATCH_SECONDS: f64 = 0.02;
/// Batches of wide rows have fewer of them.
const BATCH_BYTES: usize = 32 << 20;

/// A table of made-up rows; made from the options of a `datagen` table.
#[derive(Clone, Debug)]
pub struct GeneratedSource {
    schema: SchemaRef,
    fields: Arc<[FieldSpec]>,
    rows: Option<u64>,
    /// Rows a second over all subtasks.
    rate: Option<f64>,
}

impl GeneratedSource {
    pub(super) fn new(schema: SchemaRef, fields: Vec<FieldSpec>, rows: Option<u64>, rate: Option<f64>) -> Self {
        Self { schema, fields: fields.into(), rows, rate }
    }

    /// The numbers `from` to `to`, both inclusive, in the only column of `schema`.
    pub(crate) fn sequence(schema: SchemaRef, from: i64, to: i64) -> Self {
        let field = FieldSpec::sequence(from, to);
        let rows = field.rows();
        Self::new(schema, vec![field], rows, None)
    }

    fn splits(&self, parallelism: u64) -> Vec<RowSet> {
        let Some(rows) = self.rows else {
            return (0..parallelism).map(|part| RowSet::Blocks { part, parts: parallelism }).collect();
        };
        let length = match self.rate {
            Some(rate) => ((rate * SPLIT_SECONDS / parallelism as f64).ceil() as u64).min(rows.div_ceil(parallelism)),
            None => rows.div_ceil(parallelism * SPLITS_A_SUBTASK).max(SPLIT_ROWS_MIN),
        };
        let length = length.min(SPLIT_ROWS_MAX).max(rows.div_ceil(SPLITS_MAX)).max(1);
        (0..rows.div_ceil(length))
            .map(|at| RowSet::Range { start: at * length, end: rows.min((at * length).saturating_add(length)) })
            .collect()
    }
}

impl Source for GeneratedSource {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn boundedness(&self) -> Boundedness {
        if self.rows.is_some() { Boundedness::Bounded } else { Boundedness::Unbounded }
    }

    fn enumerator(&self, context: &SourceContext) -> Result<Box<dyn SplitEnumerator>> {
        let splits = self.splits(context.parallelism.max(1) as u64);
        let splits = splits.iter().map(|rows| Split::new(rows.encode()));
        match self.boundedness() {
            Boundedness::Bounded => Ok(Box::new(ListEnumerator::sorted(splits, first_row))),
            Boundedness::Unbounded => Ok(Box::new(TurnEnumerator::new(splits, context.parallelism))),
        }
    }

    fn reader(&self, context: &SourceContext) -> Result<Box<dyn SourceReader>> {
        let all = || (0..self.fields.len()).collect();
        let columns: Vec<usize> = context.projection.as_ref().map_or_else(all, |columns| columns.to_vec());
        let fields: Vec<FieldSpec> = columns.iter().map(|column| self.fields[*column].clone()).collect();
        let width: usize = fields.iter().map(FieldSpec::width).sum();
        Ok(Box::new(GeneratedReader {
            schema: self.schema.project(&columns)?.into(),
            fields,
            batch_rows: context.batch_rows.min(BATCH_BYTES / width.max(1)).max(1),
            pace: self.rate.map(|rate| Pace::new(rate / context.parallelism.max(1) as f64, context.clock.clone())),
            clock: context.clock.clone(),
            asks: self.rows.is_none(),
            splits: VecDeque::new(),
        }))
    }

    fn describe(&self) -> String {
        match self.rows {
            Some(rows) => format!("datagen({rows} rows)"),
            None => "datagen(unbounded)".to_owned(),
        }
    }
}

/// The first row of a split; one that names no rows comes first, and is refused by whoever reads it.
fn first_row(split: &Split) -> u64 {
    RowSet::decode(&split.id).map_or(0, RowSet::first)
}

/// Which rows a split has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RowSet {
    Range { start: u64, end: u64 },
    Blocks { part: u64, parts: u64 },
}

impl RowSet {
    fn encode(self) -> String {
        match self {
            Self::Range { start, end } => format!("{start}-{end}"),
            Self::Blocks { part, parts } => format!("{part}/{parts}"),
        }
    }

    fn decode(name: &str) -> Result<Self> {
        let numbers = |(left, right): (&str, &str)| Some((left.parse().ok()?, right.parse().ok()?));
        let range = name.split_once('-').and_then(numbers).map(|(start, end)| Self::Range { start, end });
        let blocks = || {
            let (part, parts) = name.split_once('/').and_then(numbers)?;
            (part < parts).then_some(Self::Blocks { part, parts })
        };
        range.or_else(blocks).ok_or_else(|| Error::corrupt(format!("split '{name}' names no rows")))
    }

    fn first(self) -> u64 {
        match self {
            Self::Range { start, .. } => start,
            Self::Blocks { part, .. } => part * BLOCK_ROWS,
        }
    }

    /// How many rows follow `row` without a gap, `row` included.
    fn run(self, row: u64) -> u64 {
        match self {
            Self::Range { end, .. } => end.saturating_sub(row),
            Self::Blocks { .. } => BLOCK_ROWS - row % BLOCK_ROWS,
        }
    }

    /// The row of the set at or behind `row`, which follows one of the set.
    fn next(self, row: u64) -> u64 {
        match self {
            Self::Blocks { parts, .. } if row.is_multiple_of(BLOCK_ROWS) => row + (parts - 1) * BLOCK_ROWS,
            _ => row,
        }
    }
}

struct OpenSplit {
    id: Arc<str>,
    rows: RowSet,
    next: u64,
}

struct GeneratedReader {
    schema: SchemaRef,
    fields: Vec<FieldSpec>,
    batch_rows: usize,
    pace: Option<Pace>,
    clock: Arc<dyn Clock>,
    /// Splits that never end are all read at once, so there may be another.
    asks: bool,
    /// Bounded tables finish the first; unbounded ones take turns.
    splits: VecDeque<OpenSplit>,
}

impl GeneratedReader {
    fn generate(&self, first: u64, count: usize) -> Result<RecordBatch> {
        let now = self.clock.now_millis();
        let columns: Result<Vec<_>> = self.fields.iter().map(|field| field.generate(first, count, now)).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns?, &options)?)
    }
}

#[async_trait]
impl SourceReader for GeneratedReader {
    async fn add_splits(&mut self, splits: Vec<Split>) -> Result<()> {
        for split in splits {
            let rows = RowSet::decode(&split.id)?;
            let position = decode_position(&split.position);
            let position = position.map_err(|error| error.context(format_args!("split '{}'", split.id)))?;
            let next = position.unwrap_or_else(|| rows.first());
            self.splits.push_back(OpenSplit { id: split.id, rows, next });
        }
        Ok(())
    }

    fn no_more_splits(&mut self) {
        self.asks = false;
    }

    async fn next(&mut self) -> Result<SourceEvent> {
        if self.asks {
            return Ok(SourceEvent::NeedsSplit);
        }
        let Some(split) = self.splits.front() else { return Ok(SourceEvent::NeedsSplit) };
        let run = split.rows.run(split.next);
        if run == 0 {
            let finished = self.splits.pop_front().map(|split| split.id);
            return Ok(finished.map_or(SourceEvent::NeedsSplit, SourceEvent::SplitFinished));
        }
        let most = usize::try_from(run).unwrap_or(usize::MAX).min(self.batch_rows);
        let count = match &mut self.pace {
            Some(pace) => pace.allowed(most).await,
            None => most,
        };
        // Nothing is awaited from here on, so that a dropped future has lost no row.
        let Some(split) = self.splits.front() else { return Ok(SourceEvent::NeedsSplit) };
        let records = self.generate(split.next, count)?;
        let Some(mut split) = self.splits.pop_front() else { return Ok(SourceEvent::NeedsSplit) };
        split.next = split.rows.next(split.next + count as u64);
        if let Some(pace) = &mut self.pace {
            pace.taken(count);
        }
        let event = SourceEvent::Batch { split: split.id.clone(), records, position: encode_position(split.next) };
        match split.rows {
            RowSet::Range { .. } => self.splits.push_front(split),
            RowSet::Blocks { .. } => self.splits.push_back(split),
        }
        Ok(event)
    }
}

/// Keeps a rate. Time that was lost to a slow consumer is made up for, but no more than a second of it.
struct Pace {
    rows_per_second: f64,
    clock: Arc<dyn Clock>,
    /// When the next row is due, in seconds of the clock's monotonic time.
    due: f64,
}

impl Pace {
    fn new(rows_per_second: f64, clock: Arc<dyn Clock>) -> Self {
        let due = clock.monotonic().as_secs_f64();
        Self { rows_per_second, clock, due }
    }

    /// Waits until rows are due; how many, up to `most`.
    async fn allowed(&mut self, most: usize) -> usize {
        let batch = (self.rows_per_second * BATCH_SECONDS).ceil().max(1.0);
        let target = batch.min(most as f64);
        let now = self.clock.monotonic().as_secs_f64();
        self.due = self.due.max(now - 1.0);
        // The last row of the batch is due this much after the first.
        let wait = self.due + (target - 1.0) / self.rows_per_second - now;
        if wait > 0.0 {
            self.clock.sleep(Duration::from_secs_f64(wait)).await;
        }
        target as usize
    }

    fn taken(&mut self, rows: usize) {
        self.due += rows as f64 / self.rows_per_second;
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Schema;

    use super::*;

    #[test]
    fn blocks_are_dealt_out_without_gaps() {
        let mut seen = Vec::new();
        for part in 0..3 {
            let rows = RowSet::Blocks { part, parts: 3 };
            let mut row = rows.first();
            while row < 9 * BLOCK_ROWS {
                let run = rows.run(row).min(700);
                seen.extend(row..row + run);
                row = rows.next(row + run);
            }
        }
        seen.sort_unstable();
        assert!(seen.iter().copied().eq(0..9 * BLOCK_ROWS));
    }

    #[test]
    fn splits_of_a_bounded_table_are_short_but_not_too_many() {
        let lengths = |rows: u64, rate: Option<f64>, parallelism: u64| {
            let splits = GeneratedSource::new(Schema::empty().into(), Vec::new(), Some(rows), rate).splits(parallelism);
            let mut end = 0;
            for split in &splits {
                let RowSet::Range { start, end: next } = split else { panic!("{split:?}") };
                assert!(*start == end && start < next, "{splits:?}");
                end = *next;
            }
            assert_eq!(end, rows);
            let RowSet::Range { end: length, .. } = splits[0] else { panic!("{:?}", splits[0]) };
            (length, splits.len())
        };
        assert_eq!(lengths(100, None, 2), (100, 1));
        assert_eq!(lengths(1 << 20, None, 2), (1 << 17, 8));
        assert_eq!(lengths(720_000_000, None, 2), (1 << 18, 2_747));
        assert_eq!(lengths(1 << 40, None, 2), (1 << 28, 4_096));
        assert_eq!(lengths(1_000, Some(10.0), 2), (1, 1_000));
        assert_eq!(lengths(1_000, Some(1_000.0), 2), (100, 10));
        assert_eq!(lengths(1_000_000, Some(1.0), 1), (245, 4_082));
        assert_eq!(lengths(1_000, Some(1e18), 4), (250, 4));
        assert_eq!(lengths(1 << 20, Some(1e18), 2), (1 << 18, 4));
        assert_eq!(lengths(u64::MAX, Some(1e18), 3), (1 << 52, 4_096));
    }

    #[test]
    fn names_go_there_and_back() {
        for rows in [RowSet::Range { start: 3, end: 9 }, RowSet::Blocks { part: 1, parts: 2 }] {
            assert_eq!(RowSet::decode(&rows.encode()).unwrap(), rows);
        }
        assert!(RowSet::decode("2/2").is_err());
    }
}
