//! A sink writer at work: it lives on the I/O runtime and meets its task in a bounded queue.

use std::sync::Arc;

use arrow::array::BooleanArray;
use tidemill_core::clock::Spawner;
use tidemill_core::event::CheckpointId;
use tidemill_core::sink::{ChangelogMode, Committable, SinkWriter};
use tidemill_core::{Batch, Error, Result, RowKind};
use tokio::sync::{mpsc, oneshot};

/// Batches between a task and its writer. More would only delay back-pressure.
const QUEUE: usize = 2;

/// What a writer has to commit for a checkpoint. It is gone when the writer failed, and the next order says why.
pub type Prepared = oneshot::Receiver<Result<Vec<Committable>>>;

/// The task's end.
#[derive(Debug)]
pub struct SinkHandle {
    orders: mpsc::Sender<Order>,
    failure: Option<oneshot::Receiver<Error>>,
    mode: ChangelogMode,
    /// Something was written since the last flush.
    dirty: bool,
}

#[derive(Debug)]
enum Order {
    Write(Batch),
    Flush,
    Prepare(CheckpointId, oneshot::Sender<Result<Vec<Committable>>>),
    End(oneshot::Sender<Vec<Committable>>),
}

impl SinkHandle {
    /// Starts `writer` on the I/O runtime.
    pub fn start(writer: Box<dyn SinkWriter>, mode: ChangelogMode, name: &str, io: &Arc<dyn Spawner>) -> Self {
        let (orders, inbox) = mpsc::channel(QUEUE);
        let (report, failure) = oneshot::channel();
        io.spawn(
            name,
            Box::pin(async move {
                if let Err(error) = work(writer, inbox).await {
                    // Nobody listens any more when the task itself has failed.
                    let _ = report.send(error);
                }
            }),
        );
        Self { orders, failure: Some(failure), mode, dirty: false }
    }

    /// Writes rows; waits while the writer is behind.
    pub async fn write(&mut self, batch: Batch) -> Result<()> {
        let batch = match self.mode {
            ChangelogMode::Upsert => without_update_before(batch)?,
            ChangelogMode::Append | ChangelogMode::Retract => batch,
        };
        self.dirty = true;
        if batch.is_empty() { Ok(()) } else { self.order(Order::Write(batch)).await }
    }

    /// Shows what has been written so far.
    pub async fn flush(&mut self) -> Result<()> {
        match std::mem::take(&mut self.dirty) {
            true => self.order(Order::Flush).await,
            false => Ok(()),
        }
    }

    /// Has everything that was written so far made ready to be committed; what comes back brings it. The task does not wait.
    pub async fn prepare(&mut self, checkpoint: CheckpointId) -> Result<Prepared> {
        let (reply, committables) = oneshot::channel();
        self.order(Order::Prepare(checkpoint, reply)).await?;
        Ok(committables)
    }

    /// Ends the writer; returns what it has to commit.
    pub async fn end(&mut self) -> Result<Vec<Committable>> {
        let (reply, committables) = oneshot::channel();
        self.order(Order::End(reply)).await?;
        match committables.await {
            Ok(committables) => Ok(committables),
            Err(_) => Err(self.failure().await),
        }
    }

    /// Whether the writer has stopped reading.
    pub fn is_closed(&self) -> bool {
        self.orders.is_closed()
    }

    async fn order(&mut self, order: Order) -> Result<()> {
        match self.orders.send(order).await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.failure().await),
        }
    }

    async fn failure(&mut self) -> Error {
        match self.failure.take() {
            Some(failure) => failure.await.unwrap_or_else(|_| Error::internal("a sink writer ended without a word")),
            None => Error::internal("a sink writer was used after it failed"),
        }
    }
}

async fn work(mut writer: Box<dyn SinkWriter>, mut inbox: mpsc::Receiver<Order>) -> Result<()> {
    while let Some(order) = inbox.recv().await {
        match order {
            Order::Write(batch) => writer.write(batch).await?,
            Order::Flush => writer.flush().await?,
            Order::Prepare(checkpoint, reply) => {
                let prepared = match writer.flush().await {
                    Ok(()) => writer.prepare_commit(Some(checkpoint)).await,
                    Err(error) => Err(error),
                };
                let failure = prepared.as_ref().err().cloned();
                // Nobody asks for it when the job is being cancelled.
                let _ = reply.send(prepared);
                failure.map_or(Ok(()), Err)?;
            }
            Order::End(reply) => {
                writer.flush().await?;
                let committables = writer.prepare_commit(None).await?;
                // The writer goes first: with the reply its files may be published.
                drop(writer);
                let _ = reply.send(committables);
                return Ok(());
            }
        }
    }
    Ok(())
}

fn without_update_before(batch: Batch) -> Result<Batch> {
    match batch.kinds() {
        None => Ok(batch),
        Some(kinds) => {
            let keep = kinds.iter().map(|kind| Some(*kind != RowKind::UpdateBefore as u8)).collect::<BooleanArray>();
            batch.filter(&keep)
        }
    }
}
