//! A sink whose rows come back to the program (SNK-01), with their kinds, through a bounded channel.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tidemill_core::batch::Batch;
use tidemill_core::error::{Error, Result};
use tidemill_core::sink::{ChangelogMode, Committer, Sink, SinkContext, SinkWriter};
use tokio::sync::mpsc;

/// Sends every batch to its [`CollectHandle`]. A full channel holds the job back; a dropped handle cancels it.
///
/// Rows are shown at once, so after a failure some may come twice.
#[derive(Clone, Debug)]
pub struct CollectSink {
    sender: Arc<Mutex<Option<mpsc::Sender<Batch>>>>,
}

/// Where the rows of a [`CollectSink`] arrive.
#[derive(Debug)]
pub struct CollectHandle {
    receiver: mpsc::Receiver<Batch>,
}

impl CollectSink {
    /// A sink and its handle, with room for `batches` batches between them. It serves one job.
    pub fn new(batches: usize) -> (Self, CollectHandle) {
        let (sender, receiver) = mpsc::channel(batches.max(1));
        (Self { sender: Arc::new(Mutex::new(Some(sender))) }, CollectHandle { receiver })
    }

    fn close(&self) {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

impl CollectHandle {
    /// The next batch; `None` when the job has ended, well or not.
    pub async fn next(&mut self) -> Option<Batch> {
        self.receiver.recv().await
    }

    /// The same for callers outside of any runtime.
    pub fn next_blocking(&mut self) -> Option<Batch> {
        self.receiver.blocking_recv()
    }
}

impl Sink for CollectSink {
    fn changelog_mode(&self) -> ChangelogMode {
        ChangelogMode::Retract
    }

    fn prepare(&self) -> Result<Arc<dyn Committer>> {
        Ok(Arc::new(self.clone()))
    }

    fn writer(&self, _context: &SinkContext) -> Result<Box<dyn SinkWriter>> {
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let sender = sender.ok_or_else(|| Error::internal("a collect sink serves one job, and that has ended"))?;
        Ok(Box::new(CollectWriter { sender }))
    }

    fn describe(&self) -> String {
        "collect".to_owned()
    }
}

/// The end of the job is the end of the rows, however long the plan keeps the sink.
#[async_trait]
impl Committer for CollectSink {
    async fn commit(&self, _committables: Vec<tidemill_core::sink::Committable>) -> Result<()> {
        Ok(())
    }

    async fn suspend(&self) -> Result<()> {
        self.close();
        Ok(())
    }

    async fn abort(&self) -> Result<()> {
        self.close();
        Ok(())
    }

    async fn finish(&self) -> Result<()> {
        self.close();
        Ok(())
    }
}

struct CollectWriter {
    sender: mpsc::Sender<Batch>,
}

#[async_trait]
impl SinkWriter for CollectWriter {
    async fn write(&mut self, batch: Batch) -> Result<()> {
        let sent = self.sender.send(batch).await;
        sent.map_err(|_| Error::cancelled("nobody collects the rows any more"))
    }
}
