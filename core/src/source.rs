//! Where rows come from: an enumerator that finds splits and deals them out late, and readers that read them.
//!
//! ```text
//! enumerator (one a job)  --split-->  reader (one a subtask, on the I/O runtime)  --batch, position-->  source task
//! ```
//!
//! Dealing out one split at a time, when a reader asks, heals skew by itself: who is slow asks less often.

use std::any::Any;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;

use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::event::CheckpointId;
use crate::metrics::Metrics;
use crate::watermark::Watermark;

/// Whether an input ends. A property of the source, not of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boundedness {
    /// The input ends.
    Bounded,
    /// The input never ends.
    Unbounded,
}

/// A part of a source that one reader reads in order: a file, a partition, a range of numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// Stable name, unique within the source: path, topic and partition.
    pub id: Arc<str>,
    /// Where to begin, in the source's own encoding; empty for the beginning, unless the enumerator has more to say to the
    /// reader. What a checkpoint stores, and what people are shown where it is text.
    pub position: Vec<u8>,
}

impl Split {
    /// A split to be read from its beginning.
    pub fn new(id: impl Into<Arc<str>>) -> Self {
        Self { id: id.into(), position: Vec::new() }
    }
}

/// A position that is a number, as people read it: in decimal digits.
pub fn encode_position(number: u64) -> Vec<u8> {
    number.to_string().into_bytes()
}

/// The number in such a position; `None` for the beginning.
pub fn decode_position(position: &[u8]) -> Result<Option<u64>> {
    if position.is_empty() {
        return Ok(None);
    }
    let number = std::str::from_utf8(position).ok().and_then(|digits| digits.parse().ok());
    let no_number = || Error::corrupt(format!("position '{}' is no number", String::from_utf8_lossy(position)));
    number.map(Some).ok_or_else(no_number)
}

/// A source of rows.
///
/// Laws: `schema` is that of every batch. Splits together hold every row exactly once. Reading a split again from a position
/// that a reader reported gives exactly the rows behind it (a source that cannot do so says so in its documentation and is at
/// most once).
pub trait Source: Any + Send + Sync + Debug {
    /// Columns of every batch.
    fn schema(&self) -> SchemaRef;

    /// Whether the input ends.
    fn boundedness(&self) -> Boundedness;

    /// The most subtasks that can read at once, if there is a limit (a socket: 1).
    fn parallelism_max(&self) -> Option<usize> {
        None
    }

    /// Finds the splits. Runs once a job, on the I/O runtime.
    fn enumerator(&self, context: &SourceContext) -> Result<Box<dyn SplitEnumerator>>;

    /// Reads splits. One a subtask, on the I/O runtime.
    fn reader(&self, context: &SourceContext) -> Result<Box<dyn SourceReader>>;

    /// What is read, for plans: `filesystem(flights.csv)`.
    fn describe(&self) -> String;
}

/// What enumerators and readers may know of the world.
#[derive(Clone, Debug)]
pub struct SourceContext {
    /// Which subtask reads, from 0.
    pub subtask: usize,
    /// How many read.
    pub parallelism: usize,
    /// The most rows to put into one batch (`execution.batch-rows`).
    pub batch_rows: usize,
    /// Columns that the plan reads, in the order wanted; `None` for all. A source that cannot skip columns reads and drops.
    pub projection: Option<Arc<[usize]>>,
    /// Processing time.
    pub clock: Arc<dyn Clock>,
    /// Counters of this subtask.
    pub metrics: Metrics,
}

/// What the enumerator answers to a reader that asks for work.
#[derive(Debug)]
pub enum SplitAssignment {
    /// Read this.
    Split(Split),
    /// Nothing now; ask again after this time.
    Later(Duration),
    /// Nothing ever again.
    Finished,
}

/// Finds splits and hands them out.
#[async_trait]
pub trait SplitEnumerator: Send {
    /// The next split for `subtask`.
    async fn next_split(&mut self, subtask: usize) -> Result<SplitAssignment>;

    /// Takes back a split whose reader failed.
    fn add_back(&mut self, split: Split);

    /// What a checkpoint has to remember beside the splits that readers hold: those not yet handed out, what was discovered.
    fn snapshot(&mut self, checkpoint: CheckpointId) -> Result<Vec<u8>>;

    /// Goes on from a snapshot.
    fn restore(&mut self, state: &[u8]) -> Result<()>;
}

/// What a reader delivers.
#[derive(Debug)]
pub enum SourceEvent {
    /// Rows of one split, and the position behind them.
    Batch {
        /// The split.
        split: Arc<str>,
        /// Its next rows.
        records: RecordBatch,
        /// Where to go on after these rows, in the source's encoding.
        position: Vec<u8>,
    },
    /// The split has been read to its end.
    SplitFinished(Arc<str>),
    /// Give the reader another split. One that has some goes on with those when there is no other.
    NeedsSplit,
}

/// Reads the splits it was given.
#[async_trait]
pub trait SourceReader: Send {
    /// Adds splits to what is read.
    async fn add_splits(&mut self, splits: Vec<Split>) -> Result<()>;

    /// The next event. Cancel safe: dropping the future loses no row.
    async fn next(&mut self) -> Result<SourceEvent>;

    /// No split follows: whoever has some may stop asking.
    fn no_more_splits(&mut self) {}

    /// Stops reading these splits for now (watermark alignment).
    fn pause(&mut self, _splits: &[Arc<str>]) {}

    /// Reads them again.
    fn resume(&mut self, _splits: &[Arc<str>]) {}

    /// The checkpoint is durable: positions before it will not be asked for again.
    async fn checkpoint_completed(&mut self, _checkpoint: CheckpointId) -> Result<()> {
        Ok(())
    }
}

/// Turns rows into event time, split by split (TIM-11).
pub trait WatermarkStrategy: Send + Sync + Debug {
    /// A generator for one split.
    fn generator(&self) -> Box<dyn WatermarkGenerator>;

    /// After how long without rows a split no longer holds others back (TIM-12); `None` for never.
    fn idle_timeout(&self) -> Option<Duration> {
        None
    }

    /// What it does, for plans: `ts - INTERVAL '1' HOUR`.
    fn describe(&self) -> String;
}

/// Observes the rows of one split. It sees a whole batch, then speaks: the watermark is constant within a batch.
pub trait WatermarkGenerator: Send {
    /// The watermark after these rows, if they tell one. May be lower than an earlier one; the caller takes the maximum.
    fn observe(&mut self, records: &RecordBatch) -> Result<Option<Watermark>>;
}

/// A function of whole batches, such as the computed columns of a table.
pub trait BatchFunction: Send + Sync + Debug {
    /// Columns of the result.
    fn schema(&self) -> SchemaRef;

    /// The result for `records`: as many rows, in the same order.
    fn apply(&self, records: &RecordBatch) -> Result<RecordBatch>;

    /// What it does, for plans.
    fn describe(&self) -> String;
}

/// Reads one split after the other: the reader of most bounded sources.
///
/// `open` turns a split into a stream of batches with the position behind each.
pub struct SequentialReader<F> {
    open: F,
    current: Option<(Arc<str>, SplitStream)>,
    waiting: std::collections::VecDeque<Split>,
}

/// The batches of one split, each with the position behind it.
pub type SplitStream = futures::stream::BoxStream<'static, Result<(RecordBatch, Vec<u8>)>>;

impl<F> SequentialReader<F>
where
    F: Fn(Split) -> futures::future::BoxFuture<'static, Result<SplitStream>> + Send,
{
    /// A reader that opens splits with `open`.
    pub fn new(open: F) -> Self {
        Self { open, current: None, waiting: Default::default() }
    }
}

#[async_trait]
impl<F> SourceReader for SequentialReader<F>
where
    F: Fn(Split) -> futures::future::BoxFuture<'static, Result<SplitStream>> + Send,
{
    async fn add_splits(&mut self, splits: Vec<Split>) -> Result<()> {
        self.waiting.extend(splits);
        Ok(())
    }

    async fn next(&mut self) -> Result<SourceEvent> {
        use futures::StreamExt;
        if self.current.is_none() {
            let Some(split) = self.waiting.front() else { return Ok(SourceEvent::NeedsSplit) };
            let stream = (self.open)(split.clone()).await?;
            // Only now: had the future been dropped while opening, the split would still wait.
            let id = split.id.clone();
            self.waiting.pop_front();
            self.current = Some((id, stream));
        }
        let Some((id, stream)) = &mut self.current else { return Ok(SourceEvent::NeedsSplit) };
        match stream.next().await {
            Some(batch) => {
                let (records, position) = batch?;
                Ok(SourceEvent::Batch { split: id.clone(), records, position })
            }
            None => {
                let id = id.clone();
                self.current = None;
                Ok(SourceEvent::SplitFinished(id))
            }
        }
    }
}

/// Deals out a known list of splits: the enumerator of bounded sources whose splits are known at the start.
#[derive(Debug, Default)]
pub struct ListEnumerator {
    splits: std::collections::VecDeque<Split>,
    order: Option<SplitOrder>,
}

/// What splits are sorted by.
type SplitOrder = fn(&Split) -> u64;

impl ListEnumerator {
    /// Deals out `splits` in order. Those that come back are dealt out next.
    pub fn new(splits: impl IntoIterator<Item = Split>) -> Self {
        Self { splits: splits.into_iter().collect(), order: None }
    }

    /// Deals out `splits`, the least of them first, also where some have come back: after a restore with fewer readers none of them
    /// gets an early split behind a late one, whose event time would make the early one's rows late.
    pub fn sorted(splits: impl IntoIterator<Item = Split>, order: SplitOrder) -> Self {
        let mut sorted = Self { splits: splits.into_iter().collect(), order: Some(order) };
        sorted.sort();
        sorted
    }

    fn sort(&mut self) {
        if let Some(order) = self.order {
            self.splits.make_contiguous().sort_by_key(order);
        }
    }
}

#[async_trait]
impl SplitEnumerator for ListEnumerator {
    async fn next_split(&mut self, _subtask: usize) -> Result<SplitAssignment> {
        Ok(self.splits.pop_front().map_or(SplitAssignment::Finished, SplitAssignment::Split))
    }

    fn add_back(&mut self, split: Split) {
        self.splits.push_front(split);
        self.sort();
    }

    fn snapshot(&mut self, _checkpoint: CheckpointId) -> Result<Vec<u8>> {
        let splits: Vec<(&str, &[u8])> = self.splits.iter().map(|split| (&*split.id, &*split.position)).collect();
        serde_json::to_vec(&splits).map_err(|error| crate::Error::internal("splits not encodable").with_source(error))
    }

    fn restore(&mut self, state: &[u8]) -> Result<()> {
        let splits: Vec<(String, Vec<u8>)> = serde_json::from_slice(state)
            .map_err(|error| crate::Error::corrupt("enumerator state is not a list of splits").with_source(error))?;
        self.splits = splits.into_iter().map(|(id, position)| Split { id: id.into(), position }).collect();
        self.sort();
        Ok(())
    }
}

/// Deals out splits that never end, as many to each reader as to any other: the enumerator of unbounded sources whose splits are
/// known at the start. After a restore with fewer readers each of them reads several.
#[derive(Debug)]
pub struct TurnEnumerator {
    waiting: ListEnumerator,
    parallelism: usize,
    /// By subtask, once the first has asked.
    dealt: Option<Vec<std::collections::VecDeque<Split>>>,
}

impl TurnEnumerator {
    /// Deals out `splits` to `parallelism` readers in turn.
    pub fn new(splits: impl IntoIterator<Item = Split>, parallelism: usize) -> Self {
        Self { waiting: ListEnumerator::new(splits), parallelism: parallelism.max(1), dealt: None }
    }
}

#[async_trait]
impl SplitEnumerator for TurnEnumerator {
    async fn next_split(&mut self, subtask: usize) -> Result<SplitAssignment> {
        let dealt = self.dealt.get_or_insert_with(|| {
            let mut dealt = vec![std::collections::VecDeque::new(); self.parallelism];
            for (place, split) in self.waiting.splits.drain(..).enumerate() {
                dealt[place % self.parallelism].push_back(split);
            }
            dealt
        });
        let next = dealt.get_mut(subtask).and_then(std::collections::VecDeque::pop_front);
        Ok(next.map_or(SplitAssignment::Finished, SplitAssignment::Split))
    }

    fn add_back(&mut self, split: Split) {
        match &mut self.dealt {
            Some(dealt) => dealt[0].push_front(split),
            None => self.waiting.add_back(split),
        }
    }

    fn snapshot(&mut self, checkpoint: CheckpointId) -> Result<Vec<u8>> {
        let left = self.dealt.iter().flatten().flatten().cloned();
        ListEnumerator::new(left.chain(self.waiting.splits.iter().cloned())).snapshot(checkpoint)
    }

    fn restore(&mut self, state: &[u8]) -> Result<()> {
        self.dealt = None;
        self.waiting.restore(state)
    }
}
