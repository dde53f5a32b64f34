//! A sink writer at work: it lives on the I/O runtime and meets its task in a bounded queue.

use std::sync::Arc;

use arrow::array::BooleanArray;
use tidemill_core::clock::Spawner;
use tidemill_core::event::{Barrier, BarrierKind};
use tidemill_core::sink::{ChangelogMode, Committable, SinkWriter, WriterState};
use tidemill_core::{Batch, Error, Result, RowKind, Watermark};
use tokio::sync::{mpsc, oneshot};

/// Batches between a task and its writer. More would only delay back-pressure.
const QUEUE: usize = 2;

/// What a writer has for a checkpoint. It is gone when the writer failed before, and the next order says why.
pub type Prepared = oneshot::Receiver<Result<(Vec<Committable>, Vec<WriterState>)>>;

/// The task's end.
#[derive(Debug)]
pub struct SinkHandle {
    orders: mpsc::Sender<Order>,
    failure: Option<oneshot::Receiver<Error>>,
    mode: ChangelogMode,
    /// Something was written since the last flush.
    dirty: bool,
    /// Event time, of which the writer has not heard.
    watermark: Option<Watermark>,
}

#[derive(Debug)]
struct Order {
    /// Event time before it.
    watermark: Option<Watermark>,
    work: Work,
}

#[derive(Debug)]
enum Work {
    Restore(Vec<WriterState>),
    Write(Batch),
    Flush,
    Prepare(Barrier, oneshot::Sender<Result<(Vec<Committable>, Vec<WriterState>)>>),
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
        Self { orders, failure: Some(failure), mode, dirty: false, watermark: None }
    }

    /// Goes on with what was in progress. Before anything is written.
    pub async fn restore(&mut self, states: Vec<WriterState>) -> Result<()> {
        self.order(Work::Restore(states)).await
    }

    /// Event time has come to `watermark`; the writer hears of it with what comes next.
    pub fn watermark(&mut self, watermark: Watermark) {
        self.watermark = Some(watermark);
    }

    /// Writes rows; waits while the writer is behind.
    pub async fn write(&mut self, batch: Batch) -> Result<()> {
        let batch = match self.mode {
            ChangelogMode::Upsert => without_update_before(batch)?,
            ChangelogMode::Append | ChangelogMode::Retract => batch,
        };
        self.dirty = true;
        if batch.is_empty() { Ok(()) } else { self.order(Work::Write(batch)).await }
    }

    /// Shows what has been written so far.
    pub async fn flush(&mut self) -> Result<()> {
        match std::mem::take(&mut self.dirty) {
            true => self.order(Work::Flush).await,
            false => Ok(()),
        }
    }

    /// Has what was written so far made ready for a checkpoint; what comes back brings it. The task does not wait. Behind the
    /// last barrier of a job nothing stays in progress.
    pub async fn prepare(&mut self, barrier: Barrier) -> Result<Prepared> {
        let (reply, prepared) = oneshot::channel();
        self.order(Work::Prepare(barrier, reply)).await?;
        Ok(prepared)
    }

    /// Ends the writer; returns what it has to commit.
    pub async fn end(&mut self) -> Result<Vec<Committable>> {
        let (reply, committables) = oneshot::channel();
        self.order(Work::End(reply)).await?;
        match committables.await {
            Ok(committables) => Ok(committables),
            Err(_) => Err(self.failure().await),
        }
    }

    /// Whether the writer has stopped reading.
    pub fn is_closed(&self) -> bool {
        self.orders.is_closed()
    }

    async fn order(&mut self, work: Work) -> Result<()> {
        let order = Order { watermark: self.watermark.take(), work };
        match self.orders.send(order).await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.failure().await),
        }
    }

    /// Why the writer failed.
    pub async fn failure(&mut self) -> Error {
        match self.failure.take() {
            Some(failure) => failure.await.unwrap_or_else(|_| Error::internal("a sink writer ended without a word")),
            None => Error::internal("a sink writer was used after it failed"),
        }
    }
}

async fn work(mut writer: Box<dyn SinkWriter>, mut inbox: mpsc::Receiver<Order>) -> Result<()> {
    while let Some(Order { watermark, work }) = inbox.recv().await {
        if let Some(watermark) = watermark {
            writer.watermark(watermark).await?;
        }
        match work {
            Work::Restore(states) => writer.restore(states).await?,
            Work::Write(batch) => writer.write(batch).await?,
            Work::Flush => writer.flush().await?,
            Work::Prepare(barrier, reply) => {
                let prepared = prepare(&mut *writer, barrier).await;
                let failure = prepared.as_ref().err().cloned();
                // Nobody asks for it when the job is being cancelled.
                let _ = reply.send(prepared);
                failure.map_or(Ok(()), Err)?;
            }
            Work::End(reply) => {
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

/// What a writer has for a checkpoint.
async fn prepare(writer: &mut dyn SinkWriter, barrier: Barrier) -> Result<(Vec<Committable>, Vec<WriterState>)> {
    // Whoever shows rows at once shows those of the checkpoint now.
    writer.flush().await?;
    if barrier.kind.stops() {
        return Ok((writer.prepare_commit(None).await?, Vec::new()));
    }
    let committables = match barrier.kind {
        BarrierKind::Savepoint => writer.prepare_savepoint(barrier.id).await?,
        _ => writer.prepare_commit(Some(barrier.id)).await?,
    };
    Ok((committables, writer.snapshot(barrier.id).await?))
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
