//! A source at work: the reader lives on the I/O runtime, asks the enumerator for splits when it runs dry, and meets its task
//! in a bounded queue. The task computes columns and watermarks, split by split (TIM-11).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use arrow::array::RecordBatch;
use futures::FutureExt;
use tidemill_core::clock::{Clock, Spawner};
use tidemill_core::graph::SourceNode;
use tidemill_core::metrics::{Counter, RECORDS_OUT};
use tidemill_core::source::{
    SourceContext, SourceEvent, SourceReader, SplitAssignment, SplitEnumerator, WatermarkGenerator,
};
use tidemill_core::{Batch, Error, Result, Watermark};
use tokio::sync::mpsc;

use crate::latch::Latch;
use crate::runtime::input::InputEvent;

/// Batches between a reader and its task. More would only delay back-pressure.
const QUEUE: usize = 2;

/// The enumerator of a source, shared by its readers.
pub type SharedEnumerator = Arc<tokio::sync::Mutex<Box<dyn SplitEnumerator>>>;

/// The task's end of a source.
#[derive(Debug)]
pub struct SourceInput {
    node: SourceNode,
    inbox: mpsc::Receiver<Result<FromReader>>,
    looked: Option<Option<Result<FromReader>>>,
    splits: SplitTimes,
    pending: VecDeque<InputEvent>,
    idle: bool,
    ended: bool,
    stop: Arc<Latch>,
    records_out: Counter,
}

#[derive(Debug)]
enum FromReader {
    Batch { split: Arc<str>, records: RecordBatch },
    SplitFinished(Arc<str>),
    /// No split for now: this subtask must not hold others back (NST-04).
    Idle,
}

impl SourceInput {
    /// Starts a reader of `node` on the I/O runtime.
    pub fn start(
        node: SourceNode,
        context: SourceContext,
        enumerator: SharedEnumerator,
        name: &str,
        io: &Arc<dyn Spawner>,
    ) -> Result<Self> {
        let reader = node.source.reader(&context)?;
        let (outbox, inbox) = mpsc::channel(QUEUE);
        let stop = Arc::new(Latch::default());
        let (stopped, clock, subtask) = (stop.clone(), context.clock.clone(), context.subtask);
        io.spawn(
            name,
            Box::pin(async move {
                let reading = read(reader, enumerator, subtask, clock, outbox.clone());
                let reading = std::panic::AssertUnwindSafe(reading).catch_unwind();
                let result = tokio::select! {
                    result = reading => result.unwrap_or_else(|_| Err(Error::internal("a source reader panicked"))),
                    () = stopped.wait() => Ok(()),
                };
                if let Err(error) = result {
                    // The task is gone when nobody takes it.
                    let _ = outbox.send(Err(error)).await;
                }
            }),
        );
        let records_out = context.metrics.counter(RECORDS_OUT);
        Ok(Self {
            splits: SplitTimes::default(),
            node,
            inbox,
            looked: None,
            pending: VecDeque::new(),
            idle: false,
            ended: false,
            stop,
            records_out,
        })
    }

    /// Whether the source has been read to its end.
    pub fn has_ended(&self) -> bool {
        self.ended && self.pending.is_empty()
    }

    /// Stops the reader.
    pub fn close(&mut self) {
        self.stop.raise();
        self.inbox.close();
    }

    /// Completes when the reader has something.
    pub async fn wait(&mut self) {
        if self.looked.is_none() {
            self.looked = Some(self.inbox.recv().await);
        }
    }

    /// The next event if one is there.
    pub fn try_next(&mut self) -> Result<Option<InputEvent>> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Ok(Some(event));
            }
            if self.ended {
                return Ok(None);
            }
            let received = match self.looked.take() {
                Some(received) => received,
                None => match self.inbox.try_recv() {
                    Ok(received) => Some(received),
                    Err(mpsc::error::TryRecvError::Empty) => return Ok(None),
                    Err(mpsc::error::TryRecvError::Disconnected) => None,
                },
            };
            match received {
                Some(Ok(event)) => self.take_in(event)?,
                Some(Err(error)) => return Err(error),
                None => {
                    self.ended = true;
                    self.pending.extend([InputEvent::Advance(Watermark::MAX), InputEvent::EndOfPort(0)]);
                }
            }
        }
    }

    fn take_in(&mut self, event: FromReader) -> Result<()> {
        match event {
            FromReader::Batch { split, records } => {
                if std::mem::take(&mut self.idle) {
                    self.pending.push_back(InputEvent::SetIdle(false));
                }
                let records = match &self.node.derive {
                    Some(derive) => derive.apply(&records)?,
                    None => records,
                };
                self.records_out.add(records.num_rows());
                let watermark = self.splits.observe(&self.node, split, &records)?;
                self.pending.push_back(InputEvent::Rows(0, Batch::append(records)));
                self.pending.extend(watermark.map(InputEvent::Advance));
            }
            FromReader::SplitFinished(split) => {
                self.pending.extend(self.splits.finish(&split).map(InputEvent::Advance));
            }
            FromReader::Idle => {
                if !std::mem::replace(&mut self.idle, true) {
                    self.pending.push_back(InputEvent::SetIdle(true));
                }
            }
        }
        Ok(())
    }
}

impl Drop for SourceInput {
    fn drop(&mut self) {
        self.close();
    }
}

/// The watermark of each split that is being read; theirs together is the least.
#[derive(Default)]
struct SplitTimes {
    splits: BTreeMap<Arc<str>, (Box<dyn WatermarkGenerator>, Watermark)>,
    output: Option<Watermark>,
}

impl std::fmt::Debug for SplitTimes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.splits.iter().map(|(split, (_, watermark))| (split, watermark))).finish()
    }
}

impl SplitTimes {
    fn observe(&mut self, node: &SourceNode, split: Arc<str>, records: &RecordBatch) -> Result<Option<Watermark>> {
        let Some(strategy) = &node.watermarks else { return Ok(None) };
        let (generator, watermark) =
            self.splits.entry(split).or_insert_with(|| (strategy.generator(), Watermark::MIN));
        if let Some(seen) = generator.observe(records)? {
            *watermark = (*watermark).max(seen);
        }
        Ok(self.advance())
    }

    fn finish(&mut self, split: &Arc<str>) -> Option<Watermark> {
        self.splits.remove(split);
        self.advance()
    }

    fn advance(&mut self) -> Option<Watermark> {
        let least = self.splits.values().map(|(_, watermark)| *watermark).min()?;
        let risen = least > self.output.unwrap_or(Watermark::MIN);
        risen.then(|| *self.output.insert(least))
    }
}

async fn read(
    mut reader: Box<dyn SourceReader>,
    enumerator: SharedEnumerator,
    subtask: usize,
    clock: Arc<dyn Clock>,
    outbox: mpsc::Sender<Result<FromReader>>,
) -> Result<()> {
    loop {
        let message = match reader.next().await? {
            SourceEvent::Batch { split, records, position: _ } => FromReader::Batch { split, records },
            SourceEvent::SplitFinished(split) => FromReader::SplitFinished(split),
            SourceEvent::NeedsSplit => {
                let assignment = enumerator.lock().await.next_split(subtask).await?;
                match assignment {
                    SplitAssignment::Split(split) => {
                        reader.add_splits(vec![split]).await?;
                        continue;
                    }
                    SplitAssignment::Finished => return Ok(()),
                    SplitAssignment::Later(pause) => {
                        if outbox.send(Ok(FromReader::Idle)).await.is_err() {
                            return Ok(());
                        }
                        clock.sleep(pause).await;
                        continue;
                    }
                }
            }
        };
        if outbox.send(Ok(message)).await.is_err() {
            return Ok(());
        }
    }
}
