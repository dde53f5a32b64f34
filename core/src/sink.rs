//! Where rows go: writers that write, and a committer that makes what they wrote visible.
//!
//! A sink that shows rows at once (a terminal, a socket) commits nothing. One that must show all or nothing (files) writes
//! under hidden names, returns committables, and its committer publishes them: at a completed checkpoint, or when a job
//! without checkpoints ends well.
//!
//! ```text
//! write … write | checkpoint n: prepare_commit -> what is complete    ┐ both are stored in the checkpoint;
//!                               snapshot       -> what is in progress ┘ once it is durable: commit what is complete
//! write … crash | from n:       recover (commit again, drop what came later), restore what was in progress, write …
//! ```
//!
//! What comes of it when a job fails and goes on from a checkpoint is a sink's [`Delivery`].

use std::fmt::Debug;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;

use crate::batch::Batch;
use crate::clock::Clock;
use crate::error::Result;
use crate::event::CheckpointId;
use crate::metrics::Metrics;
use crate::watermark::Watermark;

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

/// What a reader of a sink finds in the end of rows that came before a failure, where sources can be read again (CON-01).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Delivery {
    /// Rows show when they are written. Those since the last checkpoint are written again, and are there twice.
    AtLeastOnce,
    /// The same, but rows are written by key, and to write one again is to have written it once: what is there in the end is what
    /// would be there without the failure. Until then a reader may see values of an earlier moment again (CON-04, SNK-19).
    Idempotent,
    /// Rows show once, with the checkpoint that holds them: they are prepared and committed (CON-06).
    ExactlyOnce,
}

/// Something written but not yet visible, in the sink's own encoding. Stored in checkpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committable(pub Vec<u8>);

/// What a writer needs to go on with something that it has begun, in the sink's own encoding. Stored in checkpoints. Each
/// stands for itself, so that those of all subtasks can be dealt out anew when their number changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriterState(pub Vec<u8>);

/// Whose writers wrote what a job goes on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Predecessor {
    /// Nobody's: the job begins anew. What an earlier one of the same name has left and not shown is not its own.
    Nobody,
    /// Those of earlier attempts of the same job, all of them gone.
    Own,
    /// Those of a job whose savepoint this one began from. They may be at work still, and others may begin from the same savepoint:
    /// what of theirs is in progress is not touched.
    Other,
}

/// A sink of rows.
///
/// Laws of a sink that is [`Delivery::Idempotent`]: it has key columns. For each key one row is there, the last one written with that
/// key; none if that took it away. What was written before a checkpoint is there, and stays, when its `prepare_commit` has
/// returned. So rows that are written once more, in their order, leave what they left the first time.
pub trait Sink: Send + Sync + Debug {
    /// Which changes it takes; anything beyond is an error when the plan is made.
    fn changelog_mode(&self) -> ChangelogMode;

    /// How it stands up to failures.
    fn delivery(&self) -> Delivery {
        Delivery::AtLeastOnce
    }

    /// The columns that tell its rows apart, if it writes by key. Rows with equal keys then reach one writer, in the order in which
    /// each producer emitted them.
    fn key_columns(&self) -> &[usize] {
        &[]
    }

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
/// Laws of what becomes visible: what was returned by `prepare_commit` is complete and durable, and never changed afterwards.
/// Nothing that was not returned is ever visible under its final name. Dropping a writer leaves nothing visible.
///
/// Laws of state: every row written before a checkpoint is in its committables or those of an earlier one, or in its states,
/// and in exactly one of them. What a state stands for is durable, and stays as it was then for as long as the checkpoint may
/// be restored, or can be brought back to it. Whoever restores gives each state of one checkpoint to exactly one writer, after
/// all writers of earlier attempts are gone; which writer does not matter, and one may get none or several.
#[async_trait]
pub trait SinkWriter: Send {
    /// Goes on with what was in progress at a checkpoint. Called at most once, before the first write.
    async fn restore(&mut self, _states: Vec<WriterState>) -> Result<()> {
        Ok(())
    }

    /// Writes rows in order.
    async fn write(&mut self, batch: Batch) -> Result<()>;

    /// Event time has come this far: no row with a time at or before it follows, late ones apart. Comes between the batches,
    /// in order.
    async fn watermark(&mut self, _watermark: Watermark) -> Result<()> {
        Ok(())
    }

    /// Pushes buffered rows out; called when the input pauses, so that a terminal or socket shows what there is.
    async fn flush(&mut self) -> Result<()> {
        Ok(())
    }

    /// Everything that is complete and was not returned before, ready to be committed. With `None`, at the end of input,
    /// that is all that was written; at a checkpoint what is still in progress may be left to `snapshot`. When a checkpoint is
    /// given up and the job goes on, what was returned for it belongs to the next one.
    async fn prepare_commit(&mut self, _checkpoint: Option<CheckpointId>) -> Result<Vec<Committable>> {
        Ok(Vec::new())
    }

    /// The same for a savepoint: everything that was written, as at the end of input, and the writer goes on. Any number of jobs may
    /// begin from it while this one is at work, so none may have to go on with what this one has in progress (SVP-01).
    async fn prepare_savepoint(&mut self, savepoint: CheckpointId) -> Result<Vec<Committable>> {
        self.prepare_commit(Some(savepoint)).await
    }

    /// What is needed to go on with what is in progress. Called right behind `prepare_commit(Some(checkpoint))`, with nothing
    /// between; the writer goes on writing, whether or not the checkpoint completes.
    async fn snapshot(&mut self, _checkpoint: CheckpointId) -> Result<Vec<WriterState>> {
        Ok(Vec::new())
    }
}

/// Whether a process is still the one that its job is of.
///
/// Law: whoever takes a job over is seen here before it writes anything. So who removes what a job has left behind lists it first, asks
/// then, and removes nothing but that: what another process has written since is not among it.
#[async_trait]
pub trait Fence: Send + Sync + Debug {
    /// Asks the store of the job's checkpoints.
    ///
    /// Errors: [`Cancelled`](crate::ErrorKind::Cancelled) if another process has taken over; of the store, and then it is not known.
    async fn check(&self) -> Result<()>;
}

/// Publishes what writers prepared.
///
/// Laws: `commit` is idempotent, and succeeds in the end for everything that a checkpoint holds, or data is lost. It is given the
/// committables of a checkpoint only once that is durable, those of earlier checkpoints before those of later ones; those of one
/// checkpoint may come in several calls. Who goes back to an older checkpoint than the newest one that was committed finds rows that
/// are visible already: a sink that can tell says so, none takes them back.
///
/// Laws of errors (SUB-08): what cannot be committed keeps nothing else from being committed. All is tried, then the first error is
/// returned; only what must not come to be before that which failed waits for the next call. So it is with the sinks of a job: each is
/// asked, whatever becomes of the others, and the first error is the job's. Whoever goes on with the job calls `recover` with all that
/// was to be committed. Who takes longer to commit a checkpoint, or to clean up behind a failed job, than
/// `execution.checkpointing.timeout` is not waited for: it is broken off, as if the process had died, and asked again by whoever goes on.
/// At the end of a job, and where one goes on, it may take as long as it takes: calls that may hang it bounds itself.
#[async_trait]
pub trait Committer: Send + Sync + Debug {
    /// What to ask before anything is removed that writers have left behind, from now on. Called before each `recover` where the job's
    /// checkpoints tell; without it nobody else can be at work.
    fn fenced_by(&self, _fence: Arc<dyn Fence>) {}

    /// Makes committables visible, exactly once however often it is called.
    async fn commit(&self, committables: Vec<Committable>) -> Result<()>;

    /// A job goes on from a checkpoint that holds these, all of all subtasks, or begins anew with none: commits the one, and removes
    /// what was written and is in neither. Called once, before any writer writes, after all writers of earlier attempts are gone. Who has no
    /// states at hand calls `commit`: what nobody needs then stays, hidden, until the job ends.
    async fn recover(&self, committables: Vec<Committable>, _states: &[WriterState], _of: Predecessor) -> Result<()> {
        self.commit(committables).await
    }

    /// The job has ended and may go on from a checkpoint: whatever that one needs stays.
    async fn suspend(&self) -> Result<()> {
        Ok(())
    }

    /// The job failed or was cancelled, and will go on from no checkpoint: removes what was written and will never be
    /// committed. What a checkpoint holds goes, too.
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
