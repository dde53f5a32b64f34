//! The coordinator of a job's checkpoints (CKP-01 … CKP-13).
//!
//! ```text
//! trigger ──> enumerators and readers of the sources ~~ barriers ~~> tasks
//!                                                                     │ parts, as they are frozen
//!              pending ── everyone has handed in, or has ended ── waiting
//!                                                                     │ one at a time, behind the job's back
//!              store: encode, write segments, publish the manifest, commit what sinks prepared
//!                                                                     │
//!              tasks and readers hear that it is durable
//! ```
//!
//! Sinks' committables stay with the coordinator until a checkpoint that holds them is durable: what was prepared for one that
//! was given up, or for a savepoint, is committed with the next (SUB-08). An increment is worth nothing without the one before,
//! so after one that was given up the next checkpoint stores everything.

mod assemble;
mod attempt;
mod command;
mod compacting;
mod pending;
mod statistics;
mod store;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidemill_core::event::{Barrier, BarrierKind, CheckpointId};
use tidemill_core::graph::{JobGraph, VertexHead};
use tidemill_core::settings::CheckpointSettings;
use tidemill_core::sink::{Committable, Committer};
use tidemill_core::{Error, ErrorKind, Gate, Result};
use tokio::sync::mpsc;

use crate::checkpoint::{CheckpointContent, Compaction};
use crate::runtime::environment::Environment;
use crate::runtime::participant::{FromTask, ToTask};
use crate::runtime::task::SubtaskEnd;
use attempt::Uncommitted;
use command::Command;
use compacting::Compacting;
use pending::{Ended, Pending, SharedState, SubtaskKey};
use store::{StoreStep, Stored};

pub use attempt::Attempt;
pub use command::{CheckpointControl, StoreFolder};
pub use statistics::{CheckpointInfo, CheckpointStatistics, CheckpointStatus};
pub use store::JobStore;

/// The committers of a job's sinks, by vertex.
pub type Committers = Arc<BTreeMap<usize, Arc<dyn Committer>>>;

/// Coordinates the checkpoints of one job, over all its attempts.
pub struct Checkpointer {
    name: Arc<str>,
    job: Arc<JobGraph>,
    settings: CheckpointSettings,
    environment: Environment,
    committers: Committers,
    commands: mpsc::UnboundedReceiver<Command>,
    statistics: CheckpointStatistics,
    /// Where checkpoints go; away while one is being stored.
    store: Option<JobStore>,
    stored: (mpsc::UnboundedSender<Stored>, mpsc::UnboundedReceiver<Stored>),
    /// The newest durable checkpoint.
    last: Option<Arc<CheckpointContent>>,
    compacting: Compacting,
    next_id: CheckpointId,
    /// The next checkpoint stores everything.
    needs_full: bool,
    /// How many failed one after the other.
    failures: usize,
    /// When the last one was decided.
    decided: Duration,
    due: Option<Duration>,
    /// A barrier that ends the job is under way: nothing follows it, or what follows would hold nothing.
    is_stopping: bool,
    has_stopped: bool,
    attempt: Attempt,
}

/// Something that the coordinator has to see to.
pub enum Occurrence {
    /// Time has come for something.
    Due,
    /// A user asks.
    Asked(Command),
    /// A task says something.
    Report(FromTask),
    /// An enumerator has been cut.
    Triggered(CheckpointId, usize, Result<Vec<u8>>),
    /// A checkpoint was stored, or was not.
    Stored(Box<Stored>),
    /// A compaction has ended.
    Compacted(Result<Compaction>),
}

impl Checkpointer {
    /// The coordinator of `job`, and how users reach it.
    pub fn new(
        name: Arc<str>,
        job: Arc<JobGraph>,
        settings: CheckpointSettings,
        environment: Environment,
        committers: Committers,
        store: JobStore,
    ) -> (Self, CheckpointControl, CheckpointStatistics) {
        let (control, commands) = mpsc::unbounded_channel();
        let statistics = CheckpointStatistics::default();
        let last = store.newest().cloned().map(Arc::new);
        let checkpointer = Self {
            name,
            next_id: store.highest_id() + 1,
            job,
            settings,
            environment,
            committers,
            commands,
            statistics: statistics.clone(),
            store: Some(store),
            stored: mpsc::unbounded_channel(),
            last,
            compacting: Compacting::default(),
            needs_full: true,
            failures: 0,
            decided: Duration::ZERO,
            due: None,
            is_stopping: false,
            has_stopped: false,
            attempt: Attempt::new(mpsc::unbounded_channel().1, BTreeMap::new(), BTreeMap::new()),
        };
        (checkpointer, CheckpointControl(control), statistics)
    }

    /// The newest durable checkpoint.
    pub fn last(&self) -> Option<&Arc<CheckpointContent>> {
        self.last.as_ref()
    }

    /// Where checkpoints go. `None` while one is being stored.
    pub fn store(&self) -> Option<&JobStore> {
        self.store.as_ref()
    }

    /// Takes the folder over anew, and looks what its newest checkpoint is. Between attempts.
    pub async fn reopen(&mut self, nonce: u64) -> Result<()> {
        let Some(store) = &mut self.store else {
            return Err(Error::internal("a checkpoint is still being stored"));
        };
        store.reopen(nonce, self.environment.clock.clone()).await?;
        self.last = store.newest().cloned().map(Arc::new);
        self.compacting = Compacting::default();
        self.next_id = self.next_id.max(store.highest_id() + 1);
        Ok(())
    }

    /// An attempt begins. What the one before had under way is forgotten; see [`Checkpointer::settle`].
    pub fn begin(&mut self, attempt: Attempt) {
        self.attempt = attempt;
        self.needs_full = true;
        (self.is_stopping, self.has_stopped) = (false, false);
        self.failures = 0;
        self.decided = self.environment.clock.monotonic();
        self.due = self.settings.interval.filter(|_| self.takes_checkpoints()).map(|interval| self.decided + interval);
    }

    /// The attempt is over: gives up what is under way, and waits for what is being stored.
    pub async fn settle(&mut self) {
        let waiting = std::mem::take(&mut self.attempt.waiting);
        let pending = std::mem::take(&mut self.attempt.pending).into_values();
        for mut pending in pending.chain(waiting) {
            self.failed(pending.barrier.id, "the job ended before it was complete");
            pending.answer(Err(Error::unavailable("the job ended before the checkpoint was complete")));
        }
        while self.store.is_none() {
            let Some(stored) = self.stored.1.recv().await else { return };
            // Whatever is wrong with it, the attempt is over already.
            let _ = self.on_stored(stored);
        }
    }

    /// What has to be seen to next. Cancel safe.
    pub async fn wait(&mut self) -> Occurrence {
        let now = self.environment.clock.monotonic();
        let due = match self.deadline() {
            Some(deadline) => self.environment.clock.sleep(deadline.saturating_sub(now)),
            None => Box::pin(std::future::pending()),
        };
        tokio::select! {
            biased;
            Some(stored) = self.stored.1.recv() => Occurrence::Stored(Box::new(stored)),
            Some(report) = self.attempt.reports.recv() => Occurrence::Report(report),
            Some((id, vertex, state)) = self.attempt.triggered.1.recv() => Occurrence::Triggered(id, vertex, state),
            Some(command) = self.commands.recv() => Occurrence::Asked(command),
            compaction = self.compacting.wait() => Occurrence::Compacted(compaction),
            () = due => Occurrence::Due,
        }
    }

    /// Sees to it. An error is the end of the attempt.
    pub fn handle(&mut self, occurrence: Occurrence) -> Result<()> {
        match occurrence {
            Occurrence::Due => self.on_time(),
            Occurrence::Asked(command) => {
                self.on_command(command);
                Ok(())
            }
            Occurrence::Report(report) => self.on_report(report),
            Occurrence::Triggered(id, vertex, Ok(state)) => {
                if let Some(pending) = self.attempt.pending.get_mut(&id) {
                    pending.enumerators.insert(vertex, state);
                }
                self.look();
                Ok(())
            }
            Occurrence::Triggered(id, _, Err(error)) => self.give_up(id, &error.to_string(), true),
            Occurrence::Stored(stored) => self.on_stored(*stored),
            Occurrence::Compacted(compaction) => {
                self.compacting.ended(compaction);
                Ok(())
            }
        }
    }

    /// A subtask ended well.
    pub fn on_end(&mut self, subtask: SubtaskKey, end: SubtaskEnd) -> Result<()> {
        // What it said before it ended is older than its end, and counts first.
        while let Ok(report) = self.attempt.reports.try_recv() {
            self.on_report(report)?;
        }
        let attempt = &mut self.attempt;
        let since = attempt.acknowledged.get(&subtask).map_or(0, |last| last + 1);
        let uncommitted = |committable| Uncommitted { subtask, since, committable };
        attempt.uncommitted.extend(end.committables.into_iter().map(uncommitted));
        let states = end.snapshot.map_or_else(Vec::new, |snapshot| snapshot.states).into_iter();
        let states = states.map(|(operator, state)| (operator, SharedState::new(state))).collect();
        attempt.ended.insert(subtask, Ended { states, is_stored: false });
        self.look();
        Ok(())
    }

    /// All subtasks have ended: from now on no checkpoint begins by itself. Or, with a store that is slower than the interval,
    /// there would always be one that the end has to wait for.
    pub fn conclude(&mut self) {
        self.due = None;
    }

    /// Whether all subtasks have ended, and a checkpoint has yet to be decided.
    pub fn is_concluding(&self) -> bool {
        self.under_way() > 0 || !self.attempt.reports.is_empty()
    }

    /// Whether the job ended behind a barrier.
    pub fn has_stopped(&self) -> bool {
        self.has_stopped
    }

    /// What sinks have prepared and no checkpoint has committed, by vertex.
    pub fn uncommitted(&self) -> BTreeMap<usize, Vec<Committable>> {
        let mut by_vertex = BTreeMap::<usize, Vec<Committable>>::new();
        for Uncommitted { subtask, committable, .. } in &self.attempt.uncommitted {
            by_vertex.entry(subtask.0).or_default().push(committable.clone());
        }
        by_vertex
    }

    /// The job has ended well: stores that it has, with what remains to be committed, before anything of it is.
    pub async fn finish(&mut self) -> Result<()> {
        let id = self.next_id;
        let uncommitted = self.committables_until(CheckpointId::MAX);
        self.compacting = Compacting::default();
        let clock = self.environment.clock.clone();
        match &mut self.store {
            Some(store) => store.publish_end(&self.job, id, clock.now_millis(), &uncommitted, clock).await,
            None => Err(Error::internal("a job ended while a checkpoint was being stored")),
        }
    }

    fn takes_checkpoints(&self) -> bool {
        takes_checkpoints(&self.job)
    }

    fn under_way(&self) -> usize {
        self.attempt.pending.len() + self.attempt.waiting.len() + usize::from(self.store.is_none())
    }

    fn deadline(&self) -> Option<Duration> {
        let pending = self.attempt.pending.values();
        let timeout = pending.map(|pending| pending.triggered + self.settings.timeout).min();
        timeout.into_iter().chain(self.next_trigger()).min()
    }

    fn next_trigger(&self) -> Option<Duration> {
        let may_trigger = !self.is_stopping && self.under_way() < self.settings.max_concurrent;
        let due = self.due.filter(|_| may_trigger)?;
        Some(due.max(self.decided + self.settings.min_pause))
    }

    fn on_time(&mut self) -> Result<()> {
        let now = self.environment.clock.monotonic();
        let is_late = |pending: &&Pending| pending.triggered + self.settings.timeout <= now;
        let late: Vec<CheckpointId> =
            self.attempt.pending.values().filter(is_late).map(|pending| pending.barrier.id).collect();
        for id in late {
            let reason = format!("it took longer than the timeout of {:?}", self.settings.timeout);
            self.give_up(id, &reason, true)?;
        }
        if self.next_trigger().is_some_and(|due| due <= now) {
            self.due = self.settings.interval.map(|interval| now + interval);
            self.trigger(BarrierKind::Checkpoint, None);
        }
        Ok(())
    }

    fn on_command(&mut self, Command { kind, target, reply }: Command) {
        if !self.takes_checkpoints() {
            let error = Error::request("a job that runs as a batch, or whose exchanges block, takes no checkpoints");
            let _ = reply.send(Err(error.with_hint("set execution.runtime-mode to streaming")));
            return;
        }
        if self.is_stopping {
            let _ = reply.send(Err(Error::unavailable("the job is stopping already")));
            return;
        }
        self.is_stopping = kind.stops();
        let id = self.trigger(kind, target);
        if let Some(pending) = self.attempt.pending.get_mut(&id) {
            pending.reply = Some(reply);
        }
        self.look();
    }

    /// Begins a checkpoint.
    fn trigger(&mut self, kind: BarrierKind, target: Option<StoreFolder>) -> CheckpointId {
        let is_full = self.needs_full || !self.settings.incremental || self.last.is_none();
        let kind = match kind {
            BarrierKind::Checkpoint if is_full => BarrierKind::FullCheckpoint,
            kind => kind,
        };
        if kind == BarrierKind::FullCheckpoint {
            self.needs_full = false;
        }
        let id = self.next_id;
        self.next_id += 1;
        let clock = &self.environment.clock;
        let barrier = Barrier { id, timestamp: clock.now_millis(), kind };
        let pending = Pending {
            barrier,
            triggered: clock.monotonic(),
            enumerators: BTreeMap::new(),
            parts: BTreeMap::new(),
            target,
            reply: None,
        };
        self.statistics.begin(CheckpointInfo {
            id,
            kind: name_of(kind),
            status: CheckpointStatus::Pending,
            triggered_at: barrier.timestamp,
            duration: Duration::ZERO,
            stalled: Duration::ZERO,
            new_bytes: 0,
            total_bytes: 0,
            path: String::new(),
            failure: None,
        });
        self.attempt.pending.insert(id, pending);
        for (vertex, enumerator) in &self.attempt.enumerators {
            let (vertex, enumerator) = (*vertex, enumerator.clone());
            let answer = self.attempt.triggered.0.clone();
            // An enumerator may be looking for splits: nobody waits for it.
            let cut = async move {
                let state = enumerator.trigger(barrier).await;
                let _ = answer.send((id, vertex, state));
            };
            self.environment.io.spawn("trigger a checkpoint", Box::pin(cut));
        }
        id
    }

    fn on_report(&mut self, report: FromTask) -> Result<()> {
        match report {
            FromTask::Acknowledged { checkpoint, subtask, mut snapshot } => {
                let attempt = &mut self.attempt;
                let last = attempt.acknowledged.entry(subtask).or_default();
                *last = (*last).max(checkpoint);
                let committables = std::mem::take(&mut snapshot.committables).into_iter();
                let uncommitted = |committable| Uncommitted { subtask, since: checkpoint, committable };
                attempt.uncommitted.extend(committables.map(uncommitted));
                let stalled = snapshot.stalled;
                self.statistics.update(checkpoint, |info| info.stalled = info.stalled.max(stalled));
                if let Some(pending) = attempt.pending.get_mut(&checkpoint) {
                    pending.parts.insert(subtask, snapshot);
                }
                self.look();
                Ok(())
            }
            FromTask::Declined { checkpoint, reason } => self.give_up(checkpoint, reason, false),
            FromTask::Failed(error) => Err(error),
        }
    }

    /// Moves on what is complete.
    fn look(&mut self) {
        let attempt = &mut self.attempt;
        while let Some((id, pending)) = attempt.pending.first_key_value() {
            if !pending.is_complete(attempt.enumerators.keys(), attempt.running()) {
                break;
            }
            let id = *id;
            let complete = attempt.pending.remove(&id);
            attempt.waiting.extend(complete);
        }
        self.store_next();
    }

    /// Has the next complete checkpoint stored, unless one is on its way.
    fn store_next(&mut self) {
        let (Some(_), Some(next)) = (&self.store, self.attempt.waiting.front()) else { return };
        let id = next.barrier.id;
        let committables = self.committables_until(id);
        let (Some(store), Some(pending)) = (self.store.take(), self.attempt.waiting.pop_front()) else { return };
        let compacted_bytes = match pending.barrier.kind {
            BarrierKind::Savepoint => 0,
            _ => self.compacting.apply(&mut self.last),
        };
        let step = StoreStep {
            name: self.name.clone(),
            job: self.job.clone(),
            committers: self.committers.clone(),
            store,
            previous: self.last.clone(),
            compacted_bytes,
            ended: self.attempt.ended.clone(),
            pending,
            committables,
            num_retained: self.settings.num_retained,
            clock: self.environment.clock.clone(),
        };
        let done = self.stored.0.clone();
        let work = async move {
            // The coordinator waits for it as long as there is a job.
            let _ = done.send(step.run().await);
        };
        self.environment.background.spawn("store a checkpoint", Box::pin(work));
    }

    fn committables_until(&self, id: CheckpointId) -> BTreeMap<SubtaskKey, Vec<Committable>> {
        let mut committables = BTreeMap::<SubtaskKey, Vec<Committable>>::new();
        for uncommitted in self.attempt.uncommitted.iter().filter(|uncommitted| uncommitted.since <= id) {
            committables.entry(uncommitted.subtask).or_default().push(uncommitted.committable.clone());
        }
        committables
    }

    fn on_stored(&mut self, Stored { store, mut pending, parts, outcome }: Stored) -> Result<()> {
        let Barrier { id, kind, .. } = pending.barrier;
        let url = pending.target.as_ref().map_or_else(|| store.url().to_owned(), |target| target.url.clone());
        self.store = Some(store);
        self.decided = self.environment.clock.monotonic();
        let took = self.decided.saturating_sub(pending.triggered);
        let durable = match outcome {
            Ok(durable) => durable,
            Err(error) => {
                let reason = error.to_string();
                let verdict = self.count_failure(id, kind, &reason, true);
                pending.answer(Err(error.clone()));
                // Another job has taken over: there is nothing to try again.
                if error.kind() == ErrorKind::Cancelled {
                    return Err(error);
                }
                // What is complete behind it is not lost with it.
                self.store_next();
                return verdict;
            }
        };
        self.failures = 0;
        self.statistics.update(id, |info| {
            info.status = CheckpointStatus::Completed;
            info.duration = took;
            info.new_bytes = durable.content.new_bytes;
            info.total_bytes = durable.content.segments.iter().map(|segment| segment.bytes).sum();
            info.path = url;
        });
        if kind != BarrierKind::Savepoint {
            self.needs_full |= durable.content.needs_full();
            if let Some(store) = &mut self.store {
                self.compacting.named(store);
                if !kind.stops() {
                    self.compacting.begin(store, &durable.content, &self.environment);
                }
            }
            self.last = Some(Arc::new(durable.content));
            self.attempt.uncommitted.retain(|uncommitted| uncommitted.since > id);
            let stored = self.attempt.ended.iter_mut().filter(|(subtask, _)| !parts.contains(subtask));
            stored.for_each(|(_, ended)| ended.is_stored = true);
        }
        if let Some(error) = durable.not_committed {
            pending.answer(Err(error.clone()));
            return Err(error.context(format_args!("checkpoint {id} is complete and cannot be committed")));
        }
        self.has_stopped |= kind.stops();
        if kind != BarrierKind::Savepoint {
            self.attempt.tell(ToTask::Completed(id));
            self.attempt.enumerators.values().for_each(|enumerator| enumerator.completed(id));
        }
        pending.answer(Ok(id));
        self.store_next();
        Ok(())
    }

    /// Gives up a checkpoint that is not complete.
    fn give_up(&mut self, id: CheckpointId, reason: &str, counts: bool) -> Result<()> {
        let Some(mut pending) = self.attempt.pending.remove(&id) else { return Ok(()) };
        pending.answer(Err(Error::unavailable(format!("checkpoint {id} was given up: {reason}"))));
        self.count_failure(id, pending.barrier.kind, reason, counts)
    }

    fn count_failure(&mut self, id: CheckpointId, kind: BarrierKind, reason: &str, counts: bool) -> Result<()> {
        self.failed(id, reason);
        self.attempt.tell(ToTask::Aborted(id));
        self.decided = self.environment.clock.monotonic();
        let message = format!("checkpoint {id} failed: {reason}");
        if kind.stops() {
            // Sources have ended behind its barrier; only a restart makes them go on.
            return Err(Error::unavailable(message));
        }
        if matches!(kind, BarrierKind::Checkpoint | BarrierKind::FullCheckpoint) {
            self.needs_full = true;
            self.give_up_increments_after(id);
        }
        if kind == BarrierKind::Savepoint || !counts {
            return Ok(());
        }
        self.failures += 1;
        match self.failures > self.settings.tolerable_failures {
            true => Err(Error::unavailable(message)
                .with_hint("execution.checkpointing.tolerable-failed-checkpoints says how many may fail in a row")),
            false => Ok(()),
        }
    }

    /// Increments on top of one that is missing are worth nothing.
    fn give_up_increments_after(&mut self, id: CheckpointId) {
        let is_lost = |pending: &Pending| pending.barrier.id > id && pending.barrier.kind == BarrierKind::Checkpoint;
        let mut lost: Vec<Pending> =
            self.attempt.pending.extract_if(.., |_, pending| is_lost(pending)).map(|(_, lost)| lost).collect();
        let (waiting, kept): (Vec<Pending>, Vec<Pending>) =
            std::mem::take(&mut self.attempt.waiting).into_iter().partition(is_lost);
        self.attempt.waiting = kept.into();
        lost.extend(waiting);
        for mut pending in lost {
            let reason = format!("it builds on checkpoint {id}, which failed");
            self.failed(pending.barrier.id, &reason);
            self.attempt.tell(ToTask::Aborted(pending.barrier.id));
            pending.answer(Err(Error::unavailable(reason)));
        }
    }

    fn failed(&self, id: CheckpointId, reason: &str) {
        let now = self.environment.clock.now_millis();
        self.statistics.update(id, |info| {
            info.status = CheckpointStatus::Failed;
            info.duration = Duration::from_millis(now.saturating_sub(info.triggered_at).max(0) as u64);
            info.failure = Some(reason.to_owned());
        });
    }
}

fn name_of(kind: BarrierKind) -> &'static str {
    match kind {
        BarrierKind::Checkpoint => "checkpoint",
        BarrierKind::FullCheckpoint => "full checkpoint",
        BarrierKind::Savepoint => "savepoint",
        BarrierKind::Stop { .. } => "stop",
    }
}

/// Whether barriers can flow through a job: not through plans that are pulled, nor through exchanges that hold everything back.
pub fn takes_checkpoints(job: &JobGraph) -> bool {
    let is_pulled = job.vertices.iter().any(|vertex| matches!(vertex.head, VertexHead::Fragment(_)));
    !is_pulled && job.edges.iter().all(|edge| edge.gate != Gate::Infinite)
}
