//! A sink writer at work: it lives on the I/O runtime and meets its task in a bounded queue.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::BooleanArray;
use tidemill_core::clock::{Clock, Spawner};
use tidemill_core::event::{Barrier, BarrierKind};
use tidemill_core::sink::{ChangelogMode, Committable, Delivery, Sink, SinkWriter, WriterState};
use tidemill_core::{Batch, Error, Result, RowKind, Watermark};
use tokio::sync::{mpsc, oneshot};

use crate::latch::Latch;

/// Batches between a task and its writer. More would only delay back-pressure.
const QUEUE: usize = 2;

/// How long a task that failed waits for what its writer is at.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a writer has for a checkpoint. It is gone when the writer failed before, and the next order says why.
pub type Prepared = oneshot::Receiver<Result<(Vec<Committable>, Vec<WriterState>)>>;

/// The task's end.
#[derive(Debug)]
pub struct SinkHandle {
    orders: mpsc::Sender<Order>,
    failure: Option<oneshot::Receiver<Error>>,
    mode: ChangelogMode,
    delivery: Delivery,
    /// Thrown when whatever is in the queue is for nothing.
    abandoned: Arc<Latch>,
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
    /// Starts `writer`, which is one of `sink`, on the I/O runtime.
    pub fn start(writer: Box<dyn SinkWriter>, sink: &dyn Sink, name: &str, io: &Arc<dyn Spawner>) -> Self {
        let (orders, inbox) = mpsc::channel(QUEUE);
        let (report, failure) = oneshot::channel();
        let (mode, delivery, abandoned) = (sink.changelog_mode(), sink.delivery(), Arc::<Latch>::default());
        let is_abandoned = abandoned.clone();
        io.spawn(
            name,
            Box::pin(async move {
                if let Err(error) = work(writer, inbox, &is_abandoned).await {
                    // Nobody listens any more when the task itself has failed.
                    let _ = report.send(error);
                }
            }),
        );
        Self { orders, failure: Some(failure), mode, delivery, abandoned, dirty: false, watermark: None }
    }

    /// The task has failed or was told to stop. What a sink shows with a checkpoint alone nobody will see: its writer leaves what is
    /// in the queue, and is waited for, so that it writes nothing behind the back of whoever cleans up. Others show what they got.
    pub async fn abandon(mut self, clock: &dyn Clock) {
        if self.delivery != Delivery::ExactlyOnce {
            return;
        }
        let failure = self.failure.take();
        drop(self);
        if let Some(gone) = failure {
            tokio::select! {
                biased;
                _ = gone => {}
                () = clock.sleep(PATIENCE) => {}
            }
        }
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

impl Drop for SinkHandle {
    /// Whatever became of the task, also when it has panicked: nobody comes back for what is in the queue. Behind its end,
    /// or a barrier that stopped it, nothing is.
    fn drop(&mut self) {
        if self.delivery == Delivery::ExactlyOnce {
            self.abandoned.raise();
        }
    }
}

async fn work(mut writer: Box<dyn SinkWriter>, mut inbox: mpsc::Receiver<Order>, is_abandoned: &Latch) -> Result<()> {
    while let Some(Order { watermark, work }) = inbox.recv().await {
        if is_abandoned.is_raised() {
            return Ok(());
        }
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    use async_trait::async_trait;
    use tidemill_core::sink::{Committer, NothingToCommit, SinkContext};

    use super::*;
    use crate::runtime::simulate;

    /// What a writer did.
    type Log = Arc<Mutex<Vec<&'static str>>>;

    #[derive(Debug)]
    struct Slow(Delivery);

    impl Sink for Slow {
        fn changelog_mode(&self) -> ChangelogMode {
            ChangelogMode::Append
        }

        fn delivery(&self) -> Delivery {
            self.0
        }

        fn prepare(&self) -> Result<Arc<dyn Committer>> {
            Ok(Arc::new(NothingToCommit))
        }

        fn writer(&self, _: &SinkContext) -> Result<Box<dyn SinkWriter>> {
            Err(Error::internal("the test makes its own"))
        }

        fn describe(&self) -> String {
            "slow".to_owned()
        }
    }

    struct SlowWriter {
        log: Log,
        clock: Arc<dyn Clock>,
        takes: Duration,
    }

    #[async_trait]
    impl SinkWriter for SlowWriter {
        async fn write(&mut self, _: Batch) -> Result<()> {
            self.log.lock().unwrap().push("begins");
            self.clock.sleep(self.takes).await;
            self.log.lock().unwrap().push("written");
            Ok(())
        }
    }

    impl Drop for SlowWriter {
        fn drop(&mut self) {
            self.log.lock().unwrap().push("gone");
        }
    }

    /// What a writer with three batches did when its task was done with it in the middle of the first, and what in the end.
    fn abandoned(delivery: Delivery, takes: Duration) -> (Vec<&'static str>, Vec<&'static str>) {
        left(delivery, takes, true)
    }

    /// The same of a task that is gone, whether or not it has waited for its writer.
    fn left(delivery: Delivery, takes: Duration, waits: bool) -> (Vec<&'static str>, Vec<&'static str>) {
        let run = |environment: crate::runtime::Environment| async move {
            let (log, clock) = (Log::default(), environment.clock.clone());
            let writer = SlowWriter { log: log.clone(), clock: clock.clone(), takes };
            let mut sink = SinkHandle::start(Box::new(writer), &Slow(delivery), "slow", &environment.io);
            for number in 0..3 {
                let column: ArrayRef = Arc::new(Int64Array::from(vec![number]));
                let records = RecordBatch::try_from_iter([("n", column)]).unwrap();
                sink.write(Batch::append(records)).await.unwrap();
            }
            clock.sleep(takes / 2).await;
            match waits {
                true => sink.abandon(&*clock).await,
                false => drop(sink),
            }
            let then = log.lock().unwrap().clone();
            clock.sleep(takes * 10).await;
            let end = log.lock().unwrap().clone();
            (then, end)
        };
        simulate(1, run).unwrap()
    }

    #[test]
    fn the_writer_of_a_sink_that_commits_leaves_what_is_queued_when_its_task_fails_and_is_gone_before_it() {
        let (then, end) = abandoned(Delivery::ExactlyOnce, Duration::from_secs(1));
        assert_eq!(then, ["begins", "written", "gone"]);
        assert_eq!(end, then);
        // One that hangs keeps nobody.
        let (then, end) = abandoned(Delivery::ExactlyOnce, PATIENCE * 3);
        assert_eq!(then, ["begins"]);
        assert_eq!(end, ["begins", "written", "gone"]);
    }

    #[test]
    fn what_is_queued_for_a_sink_that_commits_is_left_also_when_its_task_is_gone_without_a_word() {
        let (then, end) = left(Delivery::ExactlyOnce, Duration::from_secs(1), false);
        assert_eq!(then, ["begins"]);
        assert_eq!(end, ["begins", "written", "gone"]);
    }

    #[test]
    fn a_sink_that_shows_rows_at_once_shows_those_before_a_failure() {
        for waits in [true, false] {
            let (then, end) = left(Delivery::AtLeastOnce, Duration::from_secs(1), waits);
            assert_eq!(then, ["begins"]);
            assert_eq!(end, ["begins", "written", "begins", "written", "begins", "written", "gone"]);
        }
    }
}
