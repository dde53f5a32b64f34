//! A source reader at work: it runs on the I/O runtime, asks the enumerator for splits when it runs dry, and meets whoever wants
//! its rows in a bounded queue.

use std::sync::Arc;
use std::task::Poll;

use arrow::array::RecordBatch;
use futures::FutureExt;
use tidemill_core::clock::{Clock, Spawner};
use tidemill_core::source::{Source, SourceContext, SourceEvent, SourceReader, SplitAssignment, SplitEnumerator};
use tidemill_core::{Error, Result};
use tokio::sync::mpsc;

use crate::latch::Latch;

/// Batches between a reader and its task. More would only delay back-pressure.
const QUEUE: usize = 2;

/// The enumerator of a source, shared by its readers.
pub type SharedEnumerator = Arc<tokio::sync::Mutex<Box<dyn SplitEnumerator>>>;

/// What a reader says.
#[derive(Debug)]
pub enum FromReader {
    /// Rows of a split.
    Batch {
        /// The split.
        split: Arc<str>,
        /// Its next rows.
        records: RecordBatch,
    },
    /// A split has been read to its end.
    SplitFinished(Arc<str>),
    /// No split for now: this subtask must not hold others back (NST-04).
    Idle,
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
        enumerator: SharedEnumerator,
        name: &str,
        io: &Arc<dyn Spawner>,
    ) -> Result<Self> {
        let reader = source.reader(&context)?;
        let (outbox, inbox) = mpsc::channel(QUEUE);
        let stop = Arc::new(Latch::default());
        let stopped = stop.clone();
        io.spawn(
            name,
            Box::pin(async move {
                let reading = read(reader, enumerator, context.subtask, context.clock, outbox.clone());
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
