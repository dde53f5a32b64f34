//! One step of a dataflow, the same for bounded and unbounded input.
//!
//! An operator is synchronous and single-threaded: it never locks, awaits or spawns. The shell around it (in `exec`) waits for
//! input and for room, calls the operator, and hands what it emitted to the next one.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::sync::Arc;

use futures::future::BoxFuture;

use crate::batch::Batch;
use crate::clock::Clock;
use crate::error::Result;
use crate::event::CheckpointId;
use crate::metrics::Metrics;
use crate::settings::Gate;
use crate::shared::SharedContext;
use crate::state::{RestoredState, Snapshot, SnapshotScope, StateBackend};
use crate::watermark::Watermark;

/// Whether an operator finished what it was asked, or stopped because its output is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Progress {
    /// Finished; give it the next thing.
    Done,
    /// The output is full. Nothing else may be given until [`Operator::resume`] has returned `Done`.
    Full,
}

/// What a multi-input operator is ready to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputSelection {
    /// Whatever comes.
    Any,
    /// Only this input, until the selection changes (build before probe).
    Only(usize),
}

/// One step of a dataflow.
///
/// Laws:
/// * After `advance(t)` returned `Done`, no row with a time `<= t` is ever emitted, except late firings within the allowed
///   lateness. Timers that are due fire first, then the watermark goes to the output (SUB-22); an operator forwards it itself.
/// * Within one `advance`, timers fire by (time, key group, encoded key), so the order is the same after a restore.
/// * `snapshot` into a fresh `restore`, at the same or another parallelism, cannot be told apart from never having stopped.
/// * Folded output depends on rows and times, never on how rows were cut into batches; the number of updates may.
/// * The late test uses the watermark of the last `advance`, firing that of the next one: a batch never races its own watermark.
/// * `close` is called once, also after a failure, and must not emit.
pub trait Operator: Send {
    /// Called once, before anything else.
    fn open(&mut self, _context: &OperatorContext) -> Result<()> {
        Ok(())
    }

    /// Rows from input `input` (0 for operators with one).
    fn process(&mut self, input: usize, batch: Batch, output: &mut Output) -> Result<Progress>;

    /// Event time has come to `watermark` on all inputs together.
    fn advance(&mut self, watermark: Watermark, output: &mut Output) -> Result<Progress> {
        output.watermark(watermark);
        Ok(Progress::Done)
    }

    /// A wake-up that this operator asked [`Wakeups`] for.
    fn wake(&mut self, _token: u64, _output: &mut Output) -> Result<Progress> {
        Ok(Progress::Done)
    }

    /// Works off what it has kept back to work on more rows at once. Called before its task waits for input, before a snapshot that is
    /// a [`SnapshotScope::Copy`], and before the task says that it is idle; an operator that keeps rows back also keeps watermarks back
    /// behind them, and works all off when its input ends. Snapshots of other scopes hold what is kept back.
    fn flush(&mut self, _output: &mut Output) -> Result<Progress> {
        Ok(Progress::Done)
    }

    /// Input `input` has ended. The final watermark came before. To hear it a second time changes nothing.
    fn end_of_input(&mut self, _input: usize, _output: &mut Output) -> Result<Progress> {
        Ok(Progress::Done)
    }

    /// There is room again after `Full`.
    fn resume(&mut self, _output: &mut Output) -> Result<Progress> {
        Ok(Progress::Done)
    }

    /// Which input to read next.
    fn selection(&self) -> InputSelection {
        InputSelection::Any
    }

    /// Whether this operator will never need input again (`LIMIT`); its task then stops reading and ends.
    fn is_finished(&self) -> bool {
        false
    }

    /// Bytes that the state occupies, roughly: what the worker's budget is charged with after every call. Must be cheap.
    fn memory_bytes(&self) -> usize {
        0
    }

    /// The worker is short of memory: an operator that can moves state elsewhere until it occupies `bytes` less, or as little as
    /// it can. Called when all that was emitted has been taken; if too little comes of it, the job fails.
    fn give_back(&mut self, _bytes: usize) -> Result<()> {
        Ok(())
    }

    /// Freezes the state in O(dirty), and what it has kept back; encoding happens elsewhere, through the returned handles. Called when
    /// all that was emitted has been taken: an operator is never caught in the middle of `Full`.
    fn snapshot(&mut self, _scope: SnapshotScope) -> Result<Snapshot> {
        Ok(Snapshot::default())
    }

    /// Gives back what snapshots of this operator's subtasks held, already cut to this subtask's key groups. Called once after
    /// `open`, before anything else, if there is something to restore.
    fn restore(&mut self, _state: RestoredState) -> Result<()> {
        Ok(())
    }

    /// The checkpoint is durable.
    fn checkpoint_completed(&mut self, _checkpoint: CheckpointId) -> Result<()> {
        Ok(())
    }

    /// The checkpoint will never be durable.
    fn checkpoint_aborted(&mut self, _checkpoint: CheckpointId) -> Result<()> {
        Ok(())
    }

    /// Releases what `open` took.
    fn close(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Makes an operator for each subtask. Lives in the job graph.
pub trait OperatorFactory: Send + Sync + Debug {
    /// A fresh operator.
    fn create(&self) -> Result<Box<dyn Operator>>;

    /// What the operator does, for plans: `filter(a > 1)`.
    fn describe(&self) -> String;
}

/// One thing that an operator emitted.
#[derive(Debug)]
pub enum Emission {
    /// Rows for an output port: 0 is the main output, others are side outputs.
    Batch(usize, Batch),
    /// A watermark for all ports.
    Watermark(Watermark),
}

/// Where an operator emits to: an ordered queue that the shell drains.
#[derive(Debug)]
pub struct Output {
    emissions: VecDeque<Emission>,
    bytes: usize,
    bytes_max: usize,
}

impl Output {
    /// An empty output that calls itself full at `bytes_max`.
    pub fn new(bytes_max: usize) -> Self {
        Self { emissions: VecDeque::new(), bytes: 0, bytes_max }
    }

    /// Emits rows on the main port. Empty batches are dropped.
    pub fn emit(&mut self, batch: Batch) {
        self.emit_to(0, batch);
    }

    /// Emits rows on `port`.
    pub fn emit_to(&mut self, port: usize, batch: Batch) {
        if batch.is_empty() {
            return;
        }
        self.bytes += batch.size_bytes();
        self.emissions.push_back(Emission::Batch(port, batch));
    }

    /// Emits a watermark behind everything emitted so far.
    pub fn watermark(&mut self, watermark: Watermark) {
        self.emissions.push_back(Emission::Watermark(watermark));
    }

    /// Whether an operator with more to say should stop and return [`Progress::Full`].
    pub fn is_full(&self) -> bool {
        self.bytes >= self.bytes_max
    }

    /// The oldest emission, taken out (for the shell).
    pub fn pop(&mut self) -> Option<Emission> {
        let emission = self.emissions.pop_front();
        if let Some(Emission::Batch(_, batch)) = &emission {
            self.bytes = self.bytes.saturating_sub(batch.size_bytes());
        }
        emission
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.emissions.is_empty()
    }
}

/// What an operator may know of the world.
#[derive(Clone, Debug)]
pub struct OperatorContext {
    /// Name of the operator, for messages.
    pub operator: Arc<str>,
    /// Which subtask this is, from 0.
    pub subtask: usize,
    /// How many subtasks there are.
    pub parallelism: usize,
    /// How many key groups there are.
    pub max_parallelism: u32,
    /// The most rows an operator puts into one batch of its own making.
    pub batch_rows: usize,
    /// How long the job has rows wait for others on their way.
    pub buffer_timeout: Gate,
    /// Processing time.
    pub clock: Arc<dyn Clock>,
    /// Counters of this subtask.
    pub metrics: Metrics,
    /// Keeps the states of keys.
    pub backend: Arc<dyn StateBackend>,
    /// Asks to be called later.
    pub wakeups: Arc<dyn Wakeups>,
    /// What the subtasks of the job share.
    pub shared: SharedContext,
}

/// Whether a wake-up for `asked` should have come by `now`, in milliseconds, but for a clock that was set forward: it may still be far
/// away.
pub fn is_overdue(asked: i64, now: i64) -> bool {
    const LATE_MILLIS: i64 = 1000;
    asked.saturating_add(LATE_MILLIS) < now
}

/// Lets a synchronous operator be called back: for processing-time timers and for futures that it may not await itself.
pub trait Wakeups: Send + Sync + Debug {
    /// Calls [`Operator::wake`] with `token` after as long as it is now until `millis`. If the clock is set meanwhile, that is
    /// not when it shows `millis`: who is woken early asks again, and so does who [waits too long](is_overdue).
    fn at(&self, millis: i64, token: u64);

    /// Runs `work` on the I/O runtime, then calls [`Operator::wake`] with `token`.
    fn after(&self, work: BoxFuture<'static, ()>, token: u64);
}
