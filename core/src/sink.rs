//! Where rows go: writers that write, and a committer that makes what they wrote visible.
//!
//! A sink that shows rows at once (a terminal, a socket) commits nothing. One that must show all or nothing (files) writes
//! under hidden names, returns committables, and its committer publishes them: at a completed checkpoint, or when a job
//! without checkpoints ends well.

use std::fmt::Debug;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;

use crate::batch::Batch;
use crate::clock::Clock;
use crate::error::Result;
use crate::event::CheckpointId;
use crate::metrics::Metrics;

/// Which changes a sink can take (SUB-15).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChangelogMode {
    /// Inserts alone.
    Append,
    /// One message an update, by primary key; `-U` is dropped before the sink.
    Upsert,
    /// Every change.
    Retract,
}

/// Something written but not yet visible, in the sink's own encoding. Stored in checkpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committable(pub Vec<u8>);

/// A sink of rows.
pub trait Sink: Send + Sync + Debug {
    /// Which changes it takes; anything beyond is an error when the plan is made.
    fn changelog_mode(&self) -> ChangelogMode;

    /// The most subtasks that can write at once, if there is a limit (a single file: 1).
    fn parallelism_max(&self) -> Option<usize> {
        None
    }

    /// Prepares the destination before any writer opens: runs once a job, where write modes are checked (SUB-14).
    fn prepare(&self) -> Result<Arc<dyn Committer>>;

    /// A writer, one a subtask, on the I/O runtime.
    fn writer(&self, context: &SinkContext) -> Result<Box<dyn SinkWriter>>;

    /// Where rows go, for plans: `filesystem(out/)`.
    fn describe(&self) -> String;
}

/// What writers may know of the world.
#[derive(Clone, Debug)]
pub struct SinkContext {
    /// Which subtask writes, from 0.
    pub subtask: usize,
    /// How many write.
    pub parallelism: usize,
    /// Columns of every batch.
    pub schema: SchemaRef,
    /// Processing time.
    pub clock: Arc<dyn Clock>,
    /// Counters of this subtask.
    pub metrics: Metrics,
}

/// Writes the rows of one subtask.
///
/// Laws: what was returned by `prepare_commit` is complete and durable, and never changed afterwards. Nothing that was not
/// returned is ever visible under its final name. Dropping a writer leaves nothing visible.
#[async_trait]
pub trait SinkWriter: Send {
    /// Writes rows in order.
    async fn write(&mut self, batch: Batch) -> Result<()>;

    /// Pushes buffered rows out; called when the input pauses, so that a terminal or socket shows what there is.
    async fn flush(&mut self) -> Result<()> {
        Ok(())
    }

    /// Everything written since the last call, ready to be committed. `None` for the checkpoint at the end of input.
    async fn prepare_commit(&mut self, _checkpoint: Option<CheckpointId>) -> Result<Vec<Committable>> {
        Ok(Vec::new())
    }
}

/// Publishes what writers prepared.
///
/// Laws: `commit` is idempotent, and succeeds in the end for everything that a checkpoint holds, or data is lost (SUB-08).
#[async_trait]
pub trait Committer: Send + Sync + Debug {
    /// Makes committables visible, exactly once however often it is called.
    async fn commit(&self, committables: Vec<Committable>) -> Result<()>;

    /// The job goes on from a checkpoint that holds these: makes them visible, if they are not yet, and removes what else was
    /// written since and will never be committed.
    async fn recover(&self, committables: Vec<Committable>) -> Result<()> {
        self.commit(committables).await
    }

    /// The job has ended and may go on from a checkpoint: whatever that one needs stays.
    async fn suspend(&self) -> Result<()> {
        Ok(())
    }

    /// The job failed or was cancelled: removes what was written and will never be committed.
    async fn abort(&self) -> Result<()>;

    /// The job ended well and everything was committed.
    async fn finish(&self) -> Result<()> {
        Ok(())
    }
}

/// The committer of sinks that show rows at once.
#[derive(Debug)]
pub struct NothingToCommit;

#[async_trait]
impl Committer for NothingToCommit {
    async fn commit(&self, _committables: Vec<Committable>) -> Result<()> {
        Ok(())
    }

    async fn abort(&self) -> Result<()> {
        Ok(())
    }
}
