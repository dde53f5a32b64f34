//! What every source and every sink must pass, stated once and run by all of them.
//!
//! For tests: a broken law panics with the law's name. The world around is simulated ([`ManualClock`]), so nothing waits.
//!
//! [`check_source`] and [`check_sink`] go through a job that ends well or is cancelled; [`recovery`] through jobs with
//! checkpoints and crashes, [`uploads`] being a store that is as strict as those that matter. [`upserts`] has the laws of sinks that
//! show rows at once, and stand up to failures because they write by key.

pub mod recovery;
pub mod uploads;
pub mod upserts;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::future::BoxFuture;
use tidemill_core::batch::Batch;
use tidemill_core::clock::Clock;
use tidemill_core::error::Result;
use tidemill_core::metrics::Metrics;
use tidemill_core::sink::{Committable, Delivery, Sink, SinkContext, SinkWriter};
use tidemill_core::source::{Source, SourceContext, SourceEvent, Split, SplitAssignment};

use crate::formats::text::{TextStyle, format_column};

/// A clock that moves only when someone sleeps.
#[derive(Debug, Default)]
pub struct ManualClock(Mutex<Duration>);

/// Where a [`ManualClock`] starts: 2026-11-21T00:00:00Z.
const START_MILLIS: i64 = 1_795_219_200_000;

impl Clock for ManualClock {
    fn now_millis(&self) -> i64 {
        START_MILLIS + self.monotonic().as_millis() as i64
    }

    fn monotonic(&self) -> Duration {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) += duration;
        Box::pin(std::future::ready(()))
    }
}

/// A context for one of `parallelism` readers.
pub fn source_context(parallelism: usize, batch_rows: usize) -> SourceContext {
    SourceContext {
        subtask: 0,
        parallelism,
        batch_rows,
        projection: None,
        clock: Arc::new(ManualClock::default()),
        metrics: Metrics::default(),
    }
}

/// A context for one of `parallelism` writers.
pub fn sink_context(subtask: usize, parallelism: usize, schema: SchemaRef) -> SinkContext {
    let clock = Arc::new(ManualClock::default());
    SinkContext { subtask, parallelism, schema, clock, metrics: Metrics::default() }
}

/// The rows of a batch as text, one string a row, NULL and text `null` told apart.
pub fn rows_as_text(records: &RecordBatch) -> Result<Vec<String>> {
    let columns: Vec<Vec<String>> = records
        .columns()
        .iter()
        .map(|column| format_column(column.as_ref(), TextStyle::JSON))
        .collect::<Result<_>>()?;
    let row = |row: usize| columns.iter().map(|column| column[row].as_str()).collect::<Vec<_>>().join("|");
    Ok((0..records.num_rows()).map(row).collect())
}

/// What one read of a bounded source delivered.
#[derive(Debug, Default)]
pub struct Delivered {
    /// Every batch, in the order of delivery.
    pub batches: Vec<RecordBatch>,
    /// By split: the rows as text, and for each position how many of them lie before it.
    pub splits: BTreeMap<String, DeliveredSplit>,
}

/// The rows of one split and the positions between them.
#[derive(Debug, Default)]
pub struct DeliveredSplit {
    rows: Vec<String>,
    positions: Vec<(usize, Vec<u8>)>,
}

impl Delivered {
    /// All rows as text, sorted.
    pub fn sorted_rows(&self) -> Vec<String> {
        let mut rows: Vec<String> = self.splits.values().flat_map(|split| split.rows.iter().cloned()).collect();
        rows.sort_unstable();
        rows
    }
}

/// Reads a bounded source to its end with as many readers as the context says, taking turns.
pub async fn read_all(source: &dyn Source, context: &SourceContext) -> Result<Delivered> {
    let mut enumerator = source.enumerator(context)?;
    let mut delivered = Delivered::default();
    let mut readers = Vec::new();
    for subtask in 0..context.parallelism {
        readers.push(source.reader(&SourceContext { subtask, ..context.clone() })?);
    }
    let mut is_done = vec![false; readers.len()];
    while is_done.contains(&false) {
        for (subtask, reader) in
            readers.iter_mut().enumerate().filter(|(subtask, _)| !is_done[*subtask]).collect::<Vec<_>>()
        {
            match reader.next().await? {
                SourceEvent::NeedsSplit => match enumerator.next_split(subtask).await? {
                    SplitAssignment::Split(split) => reader.add_splits(vec![split]).await?,
                    SplitAssignment::Later(pause) => context.clock.sleep(pause).await,
                    SplitAssignment::Finished => is_done[subtask] = true,
                },
                SourceEvent::Batch { split, records, position } => {
                    assert!(records.num_rows() > 0, "a batch has rows");
                    assert!(records.num_rows() <= context.batch_rows, "a batch has at most batch_rows rows");
                    let entry = delivered.splits.entry(split.to_string()).or_default();
                    entry.rows.extend(rows_as_text(&records)?);
                    entry.positions.push((entry.rows.len(), position));
                    delivered.batches.push(records);
                }
                SourceEvent::SplitFinished(split) => {
                    delivered.splits.entry(split.to_string()).or_default();
                }
            }
        }
    }
    for (subtask, reader) in readers.iter_mut().enumerate() {
        assert!(matches!(reader.next().await?, SourceEvent::NeedsSplit), "a reader ends once");
        let after = enumerator.next_split(subtask).await?;
        assert!(matches!(after, SplitAssignment::Finished), "an enumerator ends once");
    }
    Ok(delivered)
}

/// Runs the laws of bounded, replayable sources.
pub async fn check_source(source: &dyn Source) -> Result<()> {
    let whole = read_all(source, &source_context(1, 8_192)).await?;
    let expected = whole.sorted_rows();
    for batch in &whole.batches {
        assert_eq!(batch.schema().fields(), source.schema().fields(), "a batch has the schema of its source");
    }
    let parallelism_max = source.parallelism_max().unwrap_or(3);
    for parallelism in 1..=parallelism_max.min(3) {
        for batch_rows in [1, 7, 8_192] {
            let context = source_context(parallelism, batch_rows);
            let delivered = read_all(source, &context).await?;
            assert_eq!(delivered.sorted_rows(), expected, "every row once at {parallelism} readers of {batch_rows}");
            replays_from_any_position(source, &context, &delivered).await?;
        }
        enumerators_restore(source, &source_context(parallelism, 8_192), &expected).await?;
    }
    projects(source, &whole).await
}

async fn replays_from_any_position(source: &dyn Source, context: &SourceContext, delivered: &Delivered) -> Result<()> {
    for (id, split) in &delivered.splits {
        // Every position where there are few, some of them where there are many.
        let step = split.positions.len().div_ceil(50).max(1);
        for (before, position) in split.positions.iter().step_by(step) {
            let shown = std::str::from_utf8(position).is_ok_and(|text| !text.contains(char::is_control));
            assert!(shown, "split {id}: people cannot read position {position:?}");
            let split_again = Split { id: id.as_str().into(), position: position.clone() };
            let rest = read_split(source, context, split_again).await?;
            assert_eq!(rest, split.rows[*before..], "split {id} goes on behind row {before}");
        }
    }
    Ok(())
}

async fn read_split(source: &dyn Source, context: &SourceContext, split: Split) -> Result<Vec<String>> {
    let mut reader = source.reader(context)?;
    reader.add_splits(vec![split]).await?;
    let mut rows = Vec::new();
    loop {
        match reader.next().await? {
            SourceEvent::Batch { records, .. } => rows.extend(rows_as_text(&records)?),
            SourceEvent::SplitFinished(_) | SourceEvent::NeedsSplit => return Ok(rows),
        }
    }
}

/// One split is taken, the rest goes through a snapshot; nothing is lost and nothing comes twice.
async fn enumerators_restore(source: &dyn Source, context: &SourceContext, expected: &[String]) -> Result<()> {
    let mut before = source.enumerator(context)?;
    let mut splits = Vec::new();
    if let SplitAssignment::Split(split) = before.next_split(0).await? {
        splits.push(split);
    }
    let snapshot = before.snapshot(1)?;
    let mut after = source.enumerator(context)?;
    after.restore(&snapshot)?;
    // A split whose reader failed is dealt out again.
    splits.into_iter().for_each(|split| after.add_back(split));
    let mut rows = Vec::new();
    while let SplitAssignment::Split(split) = after.next_split(0).await? {
        rows.extend(read_split(source, context, split).await?);
    }
    rows.sort_unstable();
    assert_eq!(rows, expected, "a restored enumerator deals out what was left");
    Ok(())
}

async fn projects(source: &dyn Source, whole: &Delivered) -> Result<()> {
    let width = source.schema().fields().len();
    let projections: [Vec<usize>; 3] = [(0..width).rev().collect(), vec![width - 1], vec![]];
    for projection in projections {
        let context = SourceContext { projection: Some(projection.clone().into()), ..source_context(1, 8_192) };
        let delivered = read_all(source, &context).await?;
        let mut expected = Vec::new();
        for batch in &whole.batches {
            expected.extend(rows_as_text(&batch.project(&projection)?)?);
        }
        expected.sort_unstable();
        assert_eq!(delivered.sorted_rows(), expected, "projection {projection:?} delivers those columns");
    }
    Ok(())
}

/// Runs the laws of sinks that show rows when they are committed. `sink` opens the same sink again; `visible` tells the rows
/// that a reader sees, as text; `traces` counts everything that the sink has left in its destination, hidden or not.
pub async fn check_sink(
    sink: impl Fn() -> Result<Arc<dyn Sink>>,
    batches: &[RecordBatch],
    visible: impl AsyncFn() -> Vec<String>,
    traces: impl Fn() -> usize,
) -> Result<()> {
    let (rows_before, traces_before) = (sorted(visible().await), traces());
    aborts_without_trace(&*sink()?, batches).await?;
    assert_eq!(sorted(visible().await), rows_before, "an aborted job shows nothing");
    assert_eq!(traces(), traces_before, "an aborted job leaves nothing");

    let sink = sink()?;
    assert_eq!(sink.delivery(), Delivery::ExactlyOnce, "who shows rows with a checkpoint says so");
    let committer = sink.prepare()?;
    let committables = write_all(&*sink, batches).await?;
    assert_eq!(sorted(visible().await), rows_before, "nothing is visible before the commit");
    let mut expected = rows_before.clone();
    for batch in batches {
        expected.extend(rows_as_text(batch)?);
    }
    let expected = sorted(expected);
    let mut damaged = committables.clone();
    damaged.insert(0, Committable(b"damaged".to_vec()));
    assert!(committer.commit(damaged).await.is_err(), "what cannot be committed is an error");
    let seen = sorted(visible().await);
    committer.commit(committables.clone()).await?;
    assert_eq!(seen, sorted(visible().await), "what cannot be committed keeps nothing else from being committed");
    committer.commit(committables.clone()).await?;
    committer.finish().await?;
    assert_eq!(sorted(visible().await), expected, "every row is visible once after the commit");
    let traces_committed = traces();
    // A job that failed while it ended is restored: all of it happens again.
    committer.commit(committables).await?;
    committer.finish().await?;
    assert_eq!(sorted(visible().await), expected, "a commit may be repeated after the end");
    assert_eq!(traces(), traces_committed, "a repeated commit leaves nothing more");
    Ok(())
}

async fn aborts_without_trace(sink: &dyn Sink, batches: &[RecordBatch]) -> Result<()> {
    let committer = sink.prepare()?;
    // One writer is dropped in the middle, the others have prepared.
    let mut dropped = sink.writer(&context_of(sink, 0, batches))?;
    for batch in batches {
        dropped.write(Batch::append(batch.clone())).await?;
    }
    drop(dropped);
    write_all(sink, batches).await?;
    committer.abort().await
}

async fn write_all(sink: &dyn Sink, batches: &[RecordBatch]) -> Result<Vec<Committable>> {
    let mut writers: Vec<Box<dyn SinkWriter>> = Vec::new();
    for subtask in 0..writers_of(sink) {
        writers.push(sink.writer(&context_of(sink, subtask, batches))?);
    }
    let count = writers.len();
    for (at, batch) in batches.iter().enumerate() {
        writers[at % count].write(Batch::append(batch.clone())).await?;
    }
    let mut committables = Vec::new();
    for writer in &mut writers {
        committables.extend(writer.prepare_commit(None).await?);
    }
    Ok(committables)
}

fn writers_of(sink: &dyn Sink) -> usize {
    sink.parallelism_max().unwrap_or(2).min(2)
}

fn context_of(sink: &dyn Sink, subtask: usize, batches: &[RecordBatch]) -> SinkContext {
    let schema = batches.first().map(RecordBatch::schema);
    sink_context(subtask, writers_of(sink), schema.unwrap_or_else(|| Arc::new(arrow::datatypes::Schema::empty())))
}

fn sorted(mut rows: Vec<String>) -> Vec<String> {
    rows.sort_unstable();
    rows
}
