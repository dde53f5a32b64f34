//! A source reader at work: it runs on the I/O runtime, asks the enumerator for splits when it runs dry, and meets whoever wants
//! its rows in a bounded queue.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use arrow::array::RecordBatch;
use futures::FutureExt;
use tidemill_core::clock::{Clock, Spawner};
use tidemill_core::event::{Barrier, CheckpointId};
use tidemill_core::source::{
    Source, SourceContext, SourceEvent, SourceReader, Split, SplitAssignment, SplitEnumerator,
};
use tidemill_core::{Error, Result};
use tokio::sync::mpsc;

use crate::latch::Latch;

/// Batches between a reader and its task. More would only delay back-pressure.
const QUEUE: usize = 2;

/// The enumerator of a source, shared by its readers, and where their checkpoints begin.
///
/// A checkpoint holds every split once: among those not yet dealt, or with the reader that has it. So one lock is held while a
/// split is dealt, and while a checkpoint looks at what is not dealt and puts its barrier behind what is.
pub struct SharedEnumerator {
    enumerator: tokio::sync::Mutex<Box<dyn SplitEnumerator>>,
    readers: Mutex<Vec<mpsc::UnboundedSender<ReaderOrder>>>,
}

/// What a reader is told. At most two a checkpoint.
#[derive(Clone, Copy, Debug)]
enum ReaderOrder {
    Barrier(Barrier),
    Completed(CheckpointId),
}

impl SharedEnumerator {
    /// An enumerator without readers so far.
    pub fn new(enumerator: Box<dyn SplitEnumerator>) -> Arc<Self> {
        Arc::new(Self { enumerator: tokio::sync::Mutex::new(enumerator), readers: Mutex::default() })
    }

    /// Goes on from a checkpoint: what it holds of the enumerator, and the splits that readers had. Before any reader starts.
    pub async fn restore(&self, state: &[u8], splits: Vec<Split>) -> Result<()> {
        let mut enumerator = self.enumerator.lock().await;
        enumerator.restore(state)?;
        // Each goes to the front: the first that was being read is dealt first again.
        splits.into_iter().rev().for_each(|split| enumerator.add_back(split));
        Ok(())
    }

    /// Begins a checkpoint: what it has to remember of the splits that no reader has. Every reader puts the barrier behind the
    /// rows that it has read; one that has ended has nothing behind.
    pub async fn trigger(&self, barrier: Barrier) -> Result<Vec<u8>> {
        let mut enumerator = self.enumerator.lock().await;
        let state = enumerator.snapshot(barrier.id)?;
        self.tell(ReaderOrder::Barrier(barrier));
        Ok(state)
    }

    /// A checkpoint is durable.
    pub fn completed(&self, checkpoint: CheckpointId) {
        self.tell(ReaderOrder::Completed(checkpoint));
    }

    fn tell(&self, order: ReaderOrder) {
        self.readers().retain(|reader| reader.send(order).is_ok());
    }

    fn subscribe(&self) -> mpsc::UnboundedReceiver<ReaderOrder> {
        let (sender, orders) = mpsc::unbounded_channel();
        self.readers().push(sender);
        orders
    }

    fn readers(&self) -> std::sync::MutexGuard<'_, Vec<mpsc::UnboundedSender<ReaderOrder>>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for SharedEnumerator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SharedEnumerator({} readers)", self.readers().len())
    }
}

/// What a reader says.
#[derive(Debug)]
pub enum FromReader {
    /// It was dealt a split.
    Started(Split),
    /// Rows of a split.
    Batch {
        /// The split.
        split: Arc<str>,
        /// Its next rows.
        records: RecordBatch,
        /// Where to go on behind them.
        position: Vec<u8>,
    },
    /// A split has been read to its end.
    SplitFinished(Arc<str>),
    /// No split for now: this subtask must not hold others back (NST-04).
    Idle,
    /// Everything that it said before belongs to this checkpoint.
    Barrier(Barrier),
}

/// The other end of the queue. Dropping it stops the reader.
#[derive(Debug)]
pub struct ReaderHandle {
    inbox: mpsc::Receiver<Result<FromReader>>,
    stop: Arc<Latch>,
}

impl ReaderHandle {
    /// Starts a reader of `source` on the I/O runtime.
    pub fn start(
        source: &dyn Source,
        context: SourceContext,
        enumerator: Arc<SharedEnumerator>,
        name: &str,
        io: &Arc<dyn Spawner>,
    ) -> Result<Self> {
        let reader = source.reader(&context)?;
        let (outbox, inbox) = mpsc::channel(QUEUE);
        let stop = Arc::new(Latch::default());
        let stopped = stop.clone();
        // Subscribed before anything runs: no checkpoint can miss this reader.
        let orders = enumerator.subscribe();
        io.spawn(
            name,
            Box::pin(async move {
                let (subtask, clock) = (context.subtask, context.clock);
                let reading = Reading {
                    reader,
                    enumerator,
                    orders,
                    subtask,
                    clock,
                    outbox: outbox.clone(),
                    active: 0,
                    is_last: false,
                };
                let reading = std::panic::AssertUnwindSafe(reading.run()).catch_unwind();
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
        Ok(Self { inbox, stop })
    }

    /// What comes next; `None` when everything has been read. Cancel safe.
    pub async fn recv(&mut self) -> Option<Result<FromReader>> {
        self.inbox.recv().await
    }

    /// The same without waiting.
    pub fn try_recv(&mut self) -> Poll<Option<Result<FromReader>>> {
        match self.inbox.try_recv() {
            Ok(received) => Poll::Ready(Some(received)),
            Err(mpsc::error::TryRecvError::Empty) => Poll::Pending,
            Err(mpsc::error::TryRecvError::Disconnected) => Poll::Ready(None),
        }
    }

    /// Stops the reader.
    pub fn close(&mut self) {
        self.stop.raise();
        self.inbox.close();
    }
}

impl Drop for ReaderHandle {
    fn drop(&mut self) {
        self.close();
    }
}

/// A reader between its enumerator and its task.
struct Reading {
    reader: Box<dyn SourceReader>,
    enumerator: Arc<SharedEnumerator>,
    orders: mpsc::UnboundedReceiver<ReaderOrder>,
    subtask: usize,
    clock: Arc<dyn Clock>,
    outbox: mpsc::Sender<Result<FromReader>>,
    /// Splits that it has not finished.
    active: usize,
    /// No split follows.
    is_last: bool,
}

/// Whether a reader goes on.
enum Flow {
    Continue,
    /// Everything has been read, or nobody listens any more.
    End,
}

impl Reading {
    async fn run(mut self) -> Result<()> {
        loop {
            let event = tokio::select! {
                biased;
                Some(order) = self.orders.recv() => {
                    match self.obey(order).await? {
                        Flow::Continue => continue,
                        Flow::End => return Ok(()),
                    }
                }
                event = self.reader.next() => event?,
            };
            let flow = match event {
                SourceEvent::Batch { split, records, position } => {
                    self.say(FromReader::Batch { split, records, position }).await
                }
                SourceEvent::SplitFinished(split) => {
                    self.active = self.active.saturating_sub(1);
                    self.say(FromReader::SplitFinished(split)).await
                }
                SourceEvent::NeedsSplit if self.is_last && self.active == 0 => Flow::End,
                SourceEvent::NeedsSplit if self.is_last => {
                    return Err(Error::internal("a source reader asks for splits when there are no more"));
                }
                SourceEvent::NeedsSplit => self.ask_for_a_split().await?,
            };
            if let Flow::End = flow {
                return Ok(());
            }
        }
    }

    async fn ask_for_a_split(&mut self) -> Result<Flow> {
        let mut earlier = Vec::new();
        let assignment = {
            let mut enumerator = self.enumerator.enumerator.lock().await;
            let assignment = enumerator.next_split(self.subtask).await?;
            // Checkpoints that looked before this split was dealt hold it as not dealt: their barriers come before it.
            earlier.extend(std::iter::from_fn(|| self.orders.try_recv().ok()));
            assignment
        };
        for order in earlier {
            if let Flow::End = self.obey(order).await? {
                return Ok(Flow::End);
            }
        }
        match assignment {
            SplitAssignment::Split(split) => {
                self.active += 1;
                let flow = self.say(FromReader::Started(split.clone())).await;
                self.reader.add_splits(vec![split]).await?;
                Ok(flow)
            }
            SplitAssignment::Finished if self.active == 0 => Ok(Flow::End),
            SplitAssignment::Finished => {
                self.is_last = true;
                self.reader.no_more_splits();
                Ok(Flow::Continue)
            }
            // Whoever still reads asks again before long.
            SplitAssignment::Later(_) if self.active > 0 => {
                tokio::task::yield_now().await;
                Ok(Flow::Continue)
            }
            SplitAssignment::Later(pause) => match self.say(FromReader::Idle).await {
                Flow::Continue => {
                    let nap = self.clock.sleep(pause);
                    self.sleep(nap).await
                }
                Flow::End => Ok(Flow::End),
            },
        }
    }

    async fn sleep(&mut self, mut nap: futures::future::BoxFuture<'static, ()>) -> Result<Flow> {
        loop {
            tokio::select! {
                biased;
                Some(order) = self.orders.recv() => {
                    if let Flow::End = self.obey(order).await? {
                        return Ok(Flow::End);
                    }
                }
                () = &mut nap => return Ok(Flow::Continue),
            }
        }
    }

    async fn obey(&mut self, order: ReaderOrder) -> Result<Flow> {
        match order {
            ReaderOrder::Completed(checkpoint) => {
                self.reader.checkpoint_completed(checkpoint).await?;
                Ok(Flow::Continue)
            }
            ReaderOrder::Barrier(barrier) => Ok(match self.say(FromReader::Barrier(barrier)).await {
                // What comes behind it is for the job that goes on from there.
                Flow::Continue if barrier.kind.stops() => Flow::End,
                flow => flow,
            }),
        }
    }

    async fn say(&mut self, message: FromReader) -> Flow {
        match self.outbox.send(Ok(message)).await {
            Ok(()) => Flow::Continue,
            Err(_) => Flow::End,
        }
    }
}
