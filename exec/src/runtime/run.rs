//! A job at work: attempts, one after the other, each the job graph expanded into subtasks and channels, run, watched, and ended
//! as a whole.
//!
//! ```text
//! restore ──> recover the sinks ──> expand ──> run, with checkpoints ──┬── all ended ──> last checkpoint, commit, finish
//!    ^                                                                 └── a failure ──> cancel the rest
//!    └───────────── the restart strategy says when ──────────────────────────────────────────┘
//! ```
//!
//! The first failure of an attempt is its error, with operator and subtask. It cancels everything else; what fails because of
//! that is not a cause.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::future::BoxFuture;
use tidemill_core::graph::{JobGraph, VertexHead};
use tidemill_core::settings::{BackendType, CheckpointRetention};
use tidemill_core::sink::{Committable, Committer, Fence, Predecessor};
use tidemill_core::{Error, ErrorKind, Result, Settings};
use tokio::sync::{mpsc, watch};

use crate::checkpoint::{CheckpointContent, CheckpointKind, find_checkpoint};
use crate::latch::Latch;
use crate::runtime::checkpoints::{
    Checkpointer, Committers, FoundStore, JobStore, StoreFolder, answered, takes_checkpoints,
};
use crate::runtime::committing::{Committing, in_order};
use crate::runtime::environment::Environment;
use crate::runtime::expand::{Expanded, Subtask, enumerators, expand};
use crate::runtime::job::{Begin, Begun, Ending, JobFailures, JobResult, Persistence};
use crate::runtime::recovery::RestoredJob;
use crate::runtime::restart::RestartStrategy;
use crate::runtime::shared::JobShared;
use crate::runtime::task::{SubtaskEnd, cancelled, caught};

/// A job and what it runs with.
pub struct JobRun {
    pub name: Arc<str>,
    pub job: Arc<JobGraph>,
    pub environment: Environment,
    pub settings: Settings,
    /// Thrown when somebody cancels the job.
    pub cancelled: Arc<Latch>,
    /// Whether that was a user who does not want it to go on.
    pub is_cancelled_by_user: Arc<AtomicBool>,
    pub committers: Committers,
    pub shared: JobShared,
    pub failures: JobFailures,
    pub publish_begun: watch::Sender<Option<Begun>>,
    pub persistence: Persistence,
}

/// How often the checkpoints are looked for again when somebody writes there while they are to be taken over.
const LOOKS: usize = 5;

/// An attempt that can run, and what stops it.
pub type Ready = (Expanded, Arc<Latch>);

/// What a subtask says when it ends: vertex, number, and how.
type Report = ((usize, usize), Result<SubtaskEnd>);

impl JobRun {
    /// Makes the first attempt, if nothing has to be read before, so that what is wrong with it is known at once.
    pub fn prepare(&self) -> Result<Option<Ready>> {
        let (None, Begin::Anew) = (&self.persistence.folder, &self.persistence.begin) else { return Ok(None) };
        let stop = Arc::new(Latch::default());
        let enumerators = enumerators(&self.job, &self.environment, &self.settings)?;
        let shared = self.shared.begin_attempt(&self.job, &self.environment);
        let expanded = expand(&self.job, &self.environment, &self.settings, &stop, &shared, enumerators, None)?;
        Ok(Some((expanded, stop)))
    }

    /// Runs the job to its end, beginning with the attempt that is made already.
    pub async fn run(self, first: Option<Ready>) -> Result<JobResult> {
        let start = self.environment.clock.monotonic();
        let ended = self.run_attempts(first).await;
        self.shared.settle().await;
        let ending = match ended {
            Ok(ending) => ending,
            Err((error, may_go_on)) => {
                let discards = self.discards_checkpoints(&error);
                let may_go_on = (may_go_on && !discards) || self.has_foreign_origin();
                self.leave_sinks(may_go_on).await;
                if discards && let Err(error) = self.discard_checkpoints().await {
                    let error = error.context("checkpoints could not be deleted");
                    self.failures.push(self.environment.clock.now_millis(), error);
                }
                return Err(error);
            }
        };
        let duration = self.environment.clock.monotonic().saturating_sub(start);
        let (metrics, accumulators) = self.shared.counted();
        let (metrics, accumulators) = (metrics.by_task(), accumulators.values());
        Ok(JobResult { name: self.name.clone(), duration, metrics, accumulators, ending })
    }

    /// Runs attempts until one ends well or no other follows. An error comes with whether a checkpoint outlives the job, so that
    /// what sinks have written for it has to stay.
    async fn run_attempts(&self, mut first: Option<Ready>) -> Result<Ending, (Error, bool)> {
        let (mut checkpointer, mut restored) = self.begin().await.map_err(|error| (error, true))?;
        let mut strategy = RestartStrategy::new(self.settings.restarts(), self.environment.seed);
        let (origin, mut ending) = (restored.clone(), Ending::FinishedBefore);
        loop {
            let outcome = match restored.as_ref().filter(|restored| restored.content.is_final) {
                // What remains is to commit what the last checkpoint holds.
                Some(finished) => self.unless_cancelled(self.finish_again(finished)).await.map(|()| ending),
                None => self.attempt(first.take(), &mut checkpointer, restored.as_ref()).await,
            };
            let mut error = match outcome {
                Ok(ending) => return Ok(ending),
                Err(error) => self.unless_taken_over(error, checkpointer.fence()).await,
            };
            checkpointer.settle(self.settings.cancellation_timeout()).await;
            ending = Ending::Finished;
            loop {
                let may_go_on = self.may_go_on(&mut checkpointer).await;
                self.pause_after(error, &mut strategy, may_go_on).await?;
                let reopened = tokio::select! {
                    biased;
                    () = self.cancelled.wait() => return Err((cancelled(), may_go_on)),
                    reopened = self.reopen(&mut checkpointer) => reopened,
                };
                match reopened {
                    Ok(newest) => {
                        restored = newest.or(origin.clone());
                        break;
                    }
                    // The next attempt fails for want of its checkpoints, like any other.
                    Err(away) => error = away,
                }
            }
        }
    }

    /// What this process finds damaged another one may have deleted that has taken over.
    async fn unless_taken_over(&self, error: Error, fence: Option<Arc<dyn Fence>>) -> Error {
        let Some(fence) = fence.filter(|_| error.kind() == ErrorKind::Corrupt) else { return error };
        match fence.check().await {
            Err(taken_over) if taken_over.kind() == ErrorKind::Cancelled => taken_over.with_source(error),
            _ => error,
        }
    }

    /// Whether somebody may go on with the job, from a checkpoint that outlives the process or because it has done so already.
    async fn may_go_on(&self, checkpointer: &mut Checkpointer) -> bool {
        if self.persistence.folder.is_none() {
            return false;
        }
        if checkpointer.last().is_some() {
            return true;
        }
        // Who does not wait for the answer does not know.
        let patience = async {
            self.cancelled.wait().await;
            self.environment.clock.sleep(self.settings.cancellation_timeout()).await;
        };
        tokio::select! {
            biased;
            fenced = checkpointer.may_be_fenced() => fenced,
            () = patience => true,
        }
    }

    /// Whether the job began from a savepoint, or a checkpoint of another, that stays: whoever begins from it once more finds what was
    /// committed up to it.
    fn has_foreign_origin(&self) -> bool {
        let origin = match &self.persistence.begin {
            Begin::From(_) => true,
            Begin::Resume { origin } => origin.is_some(),
            Begin::Anew => false,
        };
        origin && !self.persistence.claims
    }

    /// Whether the checkpoints of a job that ended with this error are deleted (CKP-09). Never those of a job that did not come
    /// to its own, nor of one that another process has taken over.
    fn discards_checkpoints(&self, error: &Error) -> bool {
        if self.persistence.folder.is_none() || self.publish_begun.borrow().is_none() {
            return false;
        }
        let is_by_user = self.is_cancelled_by_user.load(Ordering::Relaxed);
        match self.settings.checkpoints().retention {
            CheckpointRetention::Retained => false,
            CheckpointRetention::DeletedOnCancellation => error.kind() == ErrorKind::Cancelled && is_by_user,
            CheckpointRetention::Deleted => error.kind() != ErrorKind::Cancelled || is_by_user,
        }
    }

    async fn discard_checkpoints(&self) -> Result<()> {
        let Some(folder) = &self.persistence.folder else { return Ok(()) };
        let clock = self.environment.clock.clone();
        let discarded = async {
            let mut store = JobStore::open(folder.clone(), self.nonce(), clock.clone()).await?;
            if let Some(claimed) = self.claimed() {
                store.claim(claimed.clone());
            }
            store.discard().await
        };
        answered(&*clock, self.settings.checkpoints().timeout, &folder.url, discarded).await
    }

    /// The savepoint that the job owns.
    fn claimed(&self) -> Option<&StoreFolder> {
        let origin = match &self.persistence.begin {
            Begin::From(folder) => Some(folder),
            Begin::Resume { origin } => origin.as_ref(),
            Begin::Anew => None,
        };
        origin.filter(|_| self.persistence.claims)
    }

    /// An attempt failed: waits until another may begin, or says that none will.
    async fn pause_after(
        &self,
        error: Error,
        strategy: &mut RestartStrategy,
        may_go_on: bool,
    ) -> Result<(), (Error, bool)> {
        let clock = self.environment.clock.clone();
        if error.kind() != ErrorKind::Cancelled {
            self.failures.push(clock.now_millis(), error.clone());
        }
        // Plans that are pulled are used up by one attempt.
        let is_once = self.job.vertices.iter().any(|vertex| matches!(vertex.head, VertexHead::Fragment(_)));
        let pause = strategy.after(&error, clock.monotonic()).filter(|_| !is_once);
        let Some(pause) = pause else { return Err((self.with_history(error), may_go_on)) };
        tokio::select! {
            biased;
            () = self.cancelled.wait() => Err((cancelled(), may_go_on)),
            () = clock.sleep(pause) => {
                self.failures.restart();
                Ok(())
            }
        }
    }

    /// Looks again for the newest checkpoint: whether the last one that was written is complete is known only to the store.
    async fn reopen(&self, checkpointer: &mut Checkpointer) -> Result<Option<Arc<RestoredJob>>> {
        checkpointer.reopen(self.nonce()).await?;
        let Some(content) = checkpointer.last().cloned() else { return Ok(None) };
        Ok(Some(self.restored(checkpointer.folder().clone(), content)))
    }

    /// Whether there will be checkpoints that may not go to memory (BKD-02).
    fn needs_folder(&self) -> bool {
        self.settings.state_backend() == BackendType::Filesystem
            && self.settings.checkpoints().interval.is_some()
            // Of a query that nobody can go on with, they go to memory all the same.
            && self.settings.checkpoints().dir.is_none()
            && takes_checkpoints(&self.job)
    }

    /// A number that no other writer of checkpoints has drawn.
    fn nonce(&self) -> u64 {
        self.environment.nonce ^ (self.environment.clock.now_millis() as u64).rotate_left(32)
    }

    /// Finds what to go on from, and takes the checkpoints over.
    async fn begin(&self) -> Result<(Checkpointer, Option<Arc<RestoredJob>>)> {
        let (mut store, restored) = self.take_over().await?;
        let goes_on = restored.as_ref().filter(|restored| !restored.content.is_final);
        let from = goes_on.map(|restored| restored.described());
        if let Some(claimed) = self.claimed() {
            store.claim(claimed.clone());
        }
        let (job, environment, settings) = (self.job.clone(), self.environment.clone(), self.settings.checkpoints());
        let (checkpointer, control, statistics) =
            Checkpointer::new(self.name.clone(), job, settings, environment, self.committers.clone(), store);
        self.publish_begun.send_replace(Some(Begun { control, statistics, from }));
        Ok((checkpointer, restored))
    }

    /// Takes the checkpoints over, once it is known that the job may go on from what is there: somebody else may be at work
    /// there, and does not notice a start that is refused.
    async fn take_over(&self) -> Result<(JobStore, Option<Arc<RestoredJob>>)> {
        let (clock, timeout) = (self.environment.clock.clone(), self.settings.checkpoints().timeout);
        let mut looks_left = LOOKS;
        loop {
            let found = self.look().await?;
            let url = found.folder().url.clone();
            let restored = self.find(&found).await?;
            looks_left -= 1;
            match answered(&*clock, timeout, &url, found.take_over(self.nonce())).await {
                // What was found is no longer the newest.
                Err(error) if error.kind() == ErrorKind::Cancelled && looks_left > 0 => {}
                taken => return Ok((taken?, restored)),
            }
        }
    }

    /// Looks where the checkpoints go.
    async fn look(&self) -> Result<FoundStore> {
        let clock = self.environment.clock.clone();
        match &self.persistence.folder {
            None if self.needs_folder() => {
                let error = "state.backend.type 'filesystem' stores checkpoints in a folder, and none is set";
                Err(Error::request(error).with_hint("set execution.checkpointing.dir to a URL"))
            }
            None => FoundStore::in_memory(clock).await,
            Some(folder) => {
                let look = FoundStore::look(folder.clone(), clock.clone());
                answered(&*clock, self.settings.checkpoints().timeout, &folder.url, look).await
            }
        }
    }

    /// What the job goes on from.
    ///
    /// Errors: it may not.
    async fn find(&self, store: &FoundStore) -> Result<Option<Arc<RestoredJob>>> {
        let restored = match &self.persistence.begin {
            Begin::Resume { origin } => match (store.newest(), origin) {
                (Some(content), _) => Some((store.folder().clone(), content.clone())),
                (None, Some(origin)) => Some(self.savepoint(origin).await?),
                (None, None) => None,
            },
            _ if store.newest().is_some() => {
                let error = format!("{} holds checkpoints of this job", store.folder().url);
                return Err(Error::request(error).with_hint("go on from them with --resume, or give another folder"));
            }
            Begin::Anew => None,
            Begin::From(folder) => Some(self.savepoint(folder).await?),
        };
        let restored = restored.map(|(folder, content)| self.restored(folder, Arc::new(content)));
        if let Some(restored) = restored.as_ref().filter(|restored| !restored.content.is_final) {
            restored.check(&self.job, self.persistence.ignore_unclaimed)?;
        }
        Ok(restored)
    }

    /// What a savepoint holds, or the newest checkpoint of another job, and where.
    ///
    /// Errors: behind it there is nothing to go on with.
    async fn savepoint(&self, folder: &StoreFolder) -> Result<(StoreFolder, CheckpointContent)> {
        let clock = self.environment.clock.clone();
        let found = find_checkpoint(folder.store.clone(), &folder.root, clock.clone(), None);
        let found = async { found.await.map_err(|error| error.context(&folder.url)) };
        let found = answered(&*clock, self.settings.checkpoints().timeout, &folder.url, found).await?;
        let content = Arc::unwrap_or_clone(found.content);
        if self.persistence.claims && content.kind != CheckpointKind::Savepoint {
            let error = format!("{} holds checkpoints of a job, which cannot be claimed", folder.url);
            return Err(Error::request(error).with_hint("begin from them without --claim-mode claim"));
        }
        if content.is_final {
            return Err(over(&folder.url, content.kind));
        }
        Ok((StoreFolder { root: found.root, ..folder.clone() }, content))
    }

    /// A checkpoint to go on from, whose segments are read with patience.
    fn restored(&self, folder: StoreFolder, content: Arc<CheckpointContent>) -> Arc<RestoredJob> {
        let (clock, timeout) = (self.environment.clock.clone(), self.settings.checkpoints().timeout);
        Arc::new(RestoredJob::new(folder, content, clock, timeout))
    }

    /// Finishes what an attempt that came to the end has left to commit, or a process that ended there.
    async fn finish_again(&self, finished: &RestoredJob) -> Result<()> {
        self.recover_sinks(Some(finished)).await?;
        self.end_sinks(Ending::Finished).await
    }

    /// Asks every sink with patience.
    async fn of_all<'a, W>(&'a self, ask: impl Fn(usize, &'a dyn Committer) -> W) -> Result<()>
    where
        W: Future<Output = Result<()>> + 'a,
    {
        let asked = self.committers.iter().map(|(vertex, committer)| ask(*vertex, &**committer));
        in_order(asked, &*self.environment.clock, self.settings.checkpoints().timeout).await
    }

    /// Brings the sinks to where a checkpoint left them, or to the beginning.
    async fn recover_sinks(&self, restored: Option<&RestoredJob>) -> Result<()> {
        self.of_all(|vertex, committer| self.recover_sink(vertex, committer, restored)).await
    }

    async fn recover_sink(&self, vertex: usize, sink: &dyn Committer, restored: Option<&RestoredJob>) -> Result<()> {
        let predecessor = match restored.map(|restored| restored.content.kind) {
            None => Predecessor::Nobody,
            Some(CheckpointKind::Savepoint) => Predecessor::Other,
            Some(CheckpointKind::Checkpoint) => Predecessor::Own,
        };
        let id = self.job.vertices[vertex].sink.as_ref().map(|sink| sink.id);
        let (committables, states) = match (restored, id) {
            (Some(restored), Some(id)) => (restored.committables(id).await?, restored.writer_states(id).await?),
            _ => (Vec::new(), Vec::new()),
        };
        sink.recover(committables, &states, predecessor).await
    }

    /// What may take as long as stores do not answer keeps nobody who wants to end: it is broken off as if the process had died.
    async fn unless_cancelled(&self, work: impl Future<Output = Result<()>>) -> Result<()> {
        tokio::select! {
            biased;
            () = self.cancelled.wait() => Err(cancelled()),
            done = work => done,
        }
    }

    /// Commits what sinks have prepared, by vertex.
    async fn commit(&self, prepared: BTreeMap<usize, Vec<Committable>>) -> Result<()> {
        self.of_all(|vertex, committer| {
            let committables = prepared.get(&vertex).cloned();
            async move {
                match committables {
                    Some(committables) => committer.commit(committables).await,
                    None => Ok(()),
                }
            }
        })
        .await
    }

    /// Tells the sinks that the job has ended well.
    async fn end_sinks(&self, ending: Ending) -> Result<()> {
        self.of_all(|_, committer| match ending {
            Ending::Stopped | Ending::Drained => committer.suspend(),
            Ending::Finished | Ending::FinishedBefore => committer.finish(),
        })
        .await
    }

    /// Tells the sinks that the job has failed or was cancelled, and whether somebody may go on with it.
    async fn leave_sinks(&self, may_go_on: bool) {
        let timeout = self.settings.checkpoints().timeout;
        let committing = Committing { job: &self.job, clock: &*self.environment.clock, timeout };
        let unknown = |sink: &str| format!("the job has ended, but whether '{sink}' is done is not known");
        let left = self.of_all(|vertex, committer| {
            let end = if may_go_on { committer.suspend() } else { committer.abort() };
            async move { committing.wait(vertex, end, unknown).await }
        });
        // The job's error is the one that matters; what cannot be removed stays hidden.
        let _ = left.await;
    }

    /// Makes another attempt: sinks recovered, sources where the checkpoint left them.
    async fn expand_from(&self, restored: Option<&Arc<RestoredJob>>) -> Result<Ready> {
        let shared = self.shared.begin_attempt(&self.job, &self.environment);
        self.recover_sinks(restored.map(|restored| &**restored)).await?;
        let enumerators = enumerators(&self.job, &self.environment, &self.settings)?;
        if let Some(restored) = restored {
            for (vertex, enumerator) in &enumerators {
                if let Some((state, splits)) = restored.source(self.job.vertices[*vertex].id).await? {
                    enumerator.restore(&state, splits).await?;
                }
            }
        }
        let stop = Arc::new(Latch::default());
        let expanded = expand(&self.job, &self.environment, &self.settings, &stop, &shared, enumerators, restored)?;
        Ok((expanded, stop))
    }

    /// Runs the job once, as far as it goes.
    async fn attempt(
        &self,
        first: Option<Ready>,
        checkpointer: &mut Checkpointer,
        restored: Option<&Arc<RestoredJob>>,
    ) -> Result<Ending> {
        if self.cancelled.is_raised() {
            return Err(cancelled());
        }
        let (Expanded { subtasks, attempt }, stop) = match first {
            // What an earlier run of the job has left is not its own. Nobody writes before it is watched.
            Some(first) => {
                self.unless_cancelled(self.recover_sinks(None)).await?;
                first
            }
            // A store that does not answer keeps nobody who wants to end.
            None => tokio::select! {
                biased;
                () = self.cancelled.wait() => return Err(cancelled()),
                expanded = self.expand_from(restored) => expanded?,
            },
        };
        checkpointer.begin(attempt);
        let ending = self.watch(subtasks, &stop, checkpointer).await?;
        checkpointer.settle(self.settings.cancellation_timeout()).await;
        let mut prepared = BTreeMap::new();
        if ending == Ending::Finished {
            checkpointer.finish().await?;
            prepared = checkpointer.uncommitted();
        }
        let end = async {
            self.commit(prepared).await?;
            self.end_sinks(ending).await
        };
        self.unless_cancelled(end).await.map(|()| ending)
    }

    async fn watch(
        &self,
        subtasks: Vec<Subtask>,
        stop: &Arc<Latch>,
        checkpointer: &mut Checkpointer,
    ) -> Result<Ending> {
        let mut running = subtasks.len();
        let (reports, mut inbox) = mpsc::channel::<Report>(running.max(1));
        for subtask in subtasks {
            let name = subtask.label();
            self.environment.compute.spawn(&name, supervised(subtask, reports.clone()));
        }
        drop(reports);
        let mut failure = None;
        let cancellation_timeout = self.settings.cancellation_timeout();
        while running > 0 {
            let report = match &failure {
                None => tokio::select! {
                    biased;
                    report = inbox.recv() => report,
                    () = self.cancelled.wait() => {
                        failure = Some(cancelled());
                        stop.raise();
                        continue;
                    }
                    occurrence = checkpointer.wait() => {
                        if let Err(error) = checkpointer.handle(occurrence) {
                            failure = Some(error);
                            stop.raise();
                        }
                        continue;
                    }
                },
                Some(_) => tokio::select! {
                    report = inbox.recv() => report,
                    () = self.environment.clock.sleep(cancellation_timeout) => break,
                },
            };
            let Some((subtask, result)) = report else { break };
            running -= 1;
            // Once something has failed no checkpoint may become complete: of who failed it would hold nothing.
            let heard = |end| if failure.is_none() { checkpointer.on_end(subtask, end) } else { Ok(()) };
            match result.and_then(heard) {
                Ok(()) => {}
                Err(error) => {
                    // What fails after the first failure only echoes it.
                    failure.get_or_insert(error);
                    stop.raise();
                }
            }
        }
        match failure {
            Some(error) => Err(error),
            // What subtasks said before they ended is heard before the end counts.
            None => self.conclude(checkpointer).await,
        }
    }

    /// All subtasks have ended: sees to the checkpoints that are complete, or will be without them.
    async fn conclude(&self, checkpointer: &mut Checkpointer) -> Result<Ending> {
        checkpointer.conclude();
        while checkpointer.is_concluding() {
            tokio::select! {
                biased;
                () = self.cancelled.wait() => return Err(cancelled()),
                occurrence = checkpointer.wait() => checkpointer.handle(occurrence)?,
            }
        }
        Ok(checkpointer.stopped().unwrap_or(Ending::Finished))
    }

    /// The error of a job that gives up, with the first of its failures where there were several.
    fn with_history(&self, error: Error) -> Error {
        match self.failures.all().as_slice() {
            [first, .., _] => {
                let restarts = self.failures.restarts();
                let message = format!("after {restarts} restarts, the first of them because of: {}", first.error);
                error.with_hint(message)
            }
            _ => error,
        }
    }
}

/// The error of a place to begin from that the end of a job has left: its event time is over, so that every further row
/// would be late, or nothing is kept of its sources.
fn over(url: &str, kind: CheckpointKind) -> Error {
    let what = match kind {
        CheckpointKind::Savepoint => "is a savepoint of a job that was drained",
        CheckpointKind::Checkpoint => "holds the checkpoints of a job that has finished",
    };
    let error = Error::request(format!("{url} {what}: there is nothing to go on from"));
    error.with_hint("begin anew, or from a savepoint of a job that was stopped without --drain")
}

/// A subtask whose failure carries its name and whose panic is a failure.
fn supervised(subtask: Subtask, reports: mpsc::Sender<Report>) -> BoxFuture<'static, ()> {
    let (key, label) = ((subtask.vertex, subtask.index), subtask.label());
    Box::pin(async move {
        let result = caught(subtask.work).await.map_err(|error| match error.kind() {
            ErrorKind::Cancelled => error,
            _ => error.in_operator(&label),
        });
        // The coordinator stops listening only when it has given up on this task.
        let _ = reports.send((key, result)).await;
    })
}
