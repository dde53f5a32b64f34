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
mod completion;
mod failure;
mod pending;
mod statistics;
mod step;
mod store;
mod timing;
mod trigger;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidemill_core::event::CheckpointId;
use tidemill_core::graph::JobGraph;
use tidemill_core::settings::CheckpointSettings;
use tidemill_core::sink::{Committable, Committer, Fence};
use tidemill_core::{Error, Result};
use tokio::sync::mpsc;

use crate::checkpoint::{CheckpointContent, Compaction};
use crate::runtime::environment::Environment;
use crate::runtime::job::Ending;
use crate::runtime::participant::FromTask;
use crate::runtime::task::SubtaskEnd;
use attempt::Uncommitted;
use command::Command;
use compacting::Compacting;
use pending::{Ended, SharedState, Storing, SubtaskKey, answer};
use step::Stored;
use store::StorePlace;

pub use attempt::{Attempt, TaskControl};
pub use command::{CheckpointControl, StoreFolder};
pub use statistics::{CheckpointCounts, CheckpointInfo, CheckpointStatistics, CheckpointStatus};
pub use store::{FoundStore, JobStore, answered};
pub use trigger::takes_checkpoints;

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
    /// Where checkpoints go.
    place: StorePlace,
    /// The right to write there; away while a checkpoint is being stored.
    store: Option<JobStore>,
    /// The one that is being stored.
    storing: Option<Storing>,
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
    /// How the job ended behind such a barrier.
    stopped: Option<Ending>,
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

/// Tells sinks whom to ask whether the job is still this process's.
fn fence(committers: &Committers, fence: &Arc<dyn Fence>) {
    committers.values().for_each(|committer| committer.fenced_by(fence.clone()));
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
        let (sender, commands) = mpsc::unbounded_channel();
        let control = CheckpointControl {
            commands: sender,
            takes_checkpoints: takes_checkpoints(&job),
            clock: environment.clock.clone(),
            io: environment.io.clone(),
            patience: settings.timeout,
        };
        let statistics = CheckpointStatistics::default();
        let last = store.newest().cloned().map(Arc::new);
        fence(&committers, &store.fence(settings.timeout));
        let checkpointer = Self {
            name,
            next_id: store.highest_id() + 1,
            job,
            settings,
            environment,
            committers,
            commands,
            statistics: statistics.clone(),
            place: store.place().clone(),
            store: Some(store),
            storing: None,
            stored: mpsc::unbounded_channel(),
            last,
            compacting: Compacting::default(),
            needs_full: true,
            failures: 0,
            decided: Duration::ZERO,
            due: None,
            is_stopping: false,
            stopped: None,
            attempt: Attempt::new(mpsc::unbounded_channel().1, BTreeMap::new(), BTreeMap::new()),
        };
        (checkpointer, control, statistics)
    }

    /// The newest durable checkpoint.
    pub fn last(&self) -> Option<&Arc<CheckpointContent>> {
        self.last.as_ref()
    }

    /// Tells whether the job is still this process's, where it is known who holds its checkpoints.
    pub fn fence(&self) -> Option<Arc<dyn Fence>> {
        self.store.as_ref().map(|store| store.fence(self.settings.timeout))
    }

    /// Whether another process may go on with the job.
    pub async fn may_be_fenced(&mut self) -> bool {
        match &self.store {
            Some(store) => {
                let clock = &*self.environment.clock;
                let asked = answered(clock, self.settings.timeout, store.url(), store.is_fenced());
                asked.await.unwrap_or(true)
            }
            None => true,
        }
    }

    /// Where checkpoints go.
    pub fn folder(&self) -> &StoreFolder {
        &self.place.folder
    }

    /// Takes the folder over anew, and looks what its newest checkpoint is. Between attempts. Whatever the attempt before may
    /// still have on its way to the store comes too late.
    pub async fn reopen(&mut self, nonce: u64) -> Result<()> {
        let clock = self.environment.clock.clone();
        let reopened = JobStore::reopen(&self.place, nonce, clock.clone());
        let store = answered(&*clock, self.settings.timeout, &self.place.folder.url, reopened).await?;
        fence(&self.committers, &store.fence(self.settings.timeout));
        self.last = store.newest().cloned().map(Arc::new);
        self.compacting = Compacting::default();
        self.next_id = self.next_id.max(store.highest_id() + 1);
        (self.store, self.storing) = (Some(store), None);
        Ok(())
    }

    /// An attempt begins. What the one before had under way is forgotten; see [`Checkpointer::settle`].
    pub fn begin(&mut self, attempt: Attempt) {
        self.attempt = attempt;
        self.needs_full = true;
        (self.is_stopping, self.stopped) = (false, None);
        self.failures = 0;
        self.decided = self.environment.clock.monotonic();
        self.due = self.settings.interval.filter(|_| self.takes_checkpoints()).map(|interval| self.decided + interval);
    }

    /// The attempt is over: gives up what is under way, and waits for what is being stored, though no longer than `patience`: a
    /// store that hangs is left to itself.
    pub async fn settle(&mut self, patience: Duration) {
        let waiting = std::mem::take(&mut self.attempt.waiting);
        let pending = std::mem::take(&mut self.attempt.pending).into_values();
        for mut pending in pending.chain(waiting) {
            self.failed(pending.barrier.id, "the job ended before it was complete");
            pending.answer(Err(Error::unavailable("the job ended before the checkpoint was complete")));
        }
        let mut patience = self.environment.clock.sleep(patience);
        while self.store.is_none() {
            let stored = tokio::select! {
                biased;
                stored = self.stored.1.recv() => stored,
                () = &mut patience => None,
            };
            let Some(stored) = stored else {
                // What it may still say is not heard any more.
                self.stored = mpsc::unbounded_channel();
                if let Some(Storing { id, reply, .. }) = self.storing.take() {
                    self.failed(id, "the store did not answer");
                    let error = format!("checkpoint {id}: the job ended before the store answered");
                    answer(reply, Err(Error::unavailable(error)));
                }
                return;
            };
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
                    self.attempt.barriers_come(vertex, id);
                }
                self.look();
                Ok(())
            }
            Occurrence::Triggered(id, _, Err(error)) => self.give_up(id, &error, true),
            Occurrence::Stored(stored) => self.on_stored(*stored),
            Occurrence::Compacted(compaction) => {
                self.needs_full |= !self.compacting.ended(compaction);
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

    /// How the job ended, if behind a barrier.
    pub fn stopped(&self) -> Option<Ending> {
        self.stopped
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
            Some(store) => {
                let url = store.url().to_owned();
                let published = store.publish_end(&self.job, id, clock.now_millis(), &uncommitted);
                answered(&*clock, self.settings.timeout, &url, published).await?;
                // What sinks cannot commit now is committed by whoever goes on from here.
                self.last = store.newest().cloned().map(Arc::new);
                Ok(())
            }
            None => Err(Error::internal("a job ended while a checkpoint was being stored")),
        }
    }

    fn under_way(&self) -> usize {
        self.attempt.pending.len() + self.attempt.waiting.len() + usize::from(self.store.is_none())
    }
}
