//! A job as those see it who start it, watch it and wait for it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidemill_core::event::CheckpointId;
use tidemill_core::graph::JobGraph;
use tidemill_core::metrics::{BYTES_EXCHANGED, LATE_RECORDS_DROPPED, Metrics, RECORDS_SKIPPED};
use tidemill_core::shared::AccumulatorValues;
use tidemill_core::{Error, Result, Settings};
use tokio::sync::watch;

use crate::latch::Latch;
use crate::runtime::checkpoints::{
    CheckpointControl, CheckpointCounts, CheckpointInfo, CheckpointStatistics, StoreFolder,
};
use crate::runtime::environment::Environment;
use crate::runtime::expand::prepare_sinks;
use crate::runtime::run::JobRun;
use crate::runtime::shared::{JobAccumulators, JobShared};

/// A running job. Dropping the handle does not end the job.
#[derive(Clone, Debug)]
pub struct JobHandle {
    name: Arc<str>,
    cancelled: Arc<Latch>,
    is_cancelled_by_user: Arc<AtomicBool>,
    outcome: watch::Receiver<Option<Result<JobResult>>>,
    metrics: JobMetrics,
    accumulators: JobAccumulators,
    failures: JobFailures,
    begun: watch::Receiver<Option<Begun>>,
}

/// What is known of a job once it has opened its checkpoints.
#[derive(Clone, Debug)]
pub(super) struct Begun {
    pub control: CheckpointControl,
    pub statistics: CheckpointStatistics,
    pub from: Option<ResumedFrom>,
}

/// The checkpoint that a job goes on from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResumedFrom {
    /// Its number.
    pub checkpoint: CheckpointId,
    /// Where it lies.
    pub url: String,
    /// Each source and where it goes on.
    pub source_positions: Vec<(String, String)>,
}

/// A failure after which the job restarted, or did not.
#[derive(Clone, Debug)]
pub struct JobFailure {
    /// Which one of the job's failures it is, from 1.
    pub number: usize,
    /// When, in milliseconds since the epoch.
    pub at: i64,
    /// What failed first.
    pub error: Error,
}

/// How many of the failures of a job are kept: the first cause, and the last ones.
const FAILURES_KEPT: usize = 64;

/// The failures of a job, oldest first: the first, and as many of the last as there is room for. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct JobFailures {
    kept: Arc<Mutex<VecDeque<JobFailure>>>,
    restarts: Arc<AtomicUsize>,
}

impl JobFailures {
    /// Those that are kept.
    pub fn all(&self) -> Vec<JobFailure> {
        self.kept().iter().cloned().collect()
    }

    /// How many there were in all.
    pub fn count(&self) -> usize {
        self.kept().back().map_or(0, |last| last.number)
    }

    /// How often the job has begun again after one.
    pub fn restarts(&self) -> usize {
        self.restarts.load(Ordering::Relaxed)
    }

    /// The job begins again.
    pub(super) fn restart(&self) {
        self.restarts.fetch_add(1, Ordering::Relaxed);
    }

    /// Adds one that happened `at` this time, in milliseconds since the epoch.
    pub(super) fn push(&self, at: i64, error: Error) {
        let mut kept = self.kept();
        let number = kept.back().map_or(1, |last| last.number + 1);
        kept.push_back(JobFailure { number, at, error });
        if kept.len() > FAILURES_KEPT {
            kept.remove(1);
        }
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<JobFailure>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a job keeps beyond its process, and what it goes on from.
#[derive(Clone, Debug, Default)]
pub struct Persistence {
    /// Where checkpoints go; in memory if there is no such place.
    pub folder: Option<StoreFolder>,
    /// What the job goes on from.
    pub begin: Begin,
    /// Whether state that no operator claims is dropped.
    pub ignore_unclaimed: bool,
    /// Whether the job owns the savepoint that it begins from, or began from when it was first run (SVP-09).
    pub claims: bool,
}

/// What a job goes on from.
#[derive(Clone, Debug, Default)]
pub enum Begin {
    /// Nothing. Checkpoints in the folder are an error.
    #[default]
    Anew,
    /// The newest checkpoint in the folder; if there is none, what the job had begun from.
    Resume {
        /// A savepoint; nothing if it had begun anew.
        origin: Option<StoreFolder>,
    },
    /// A savepoint, or the checkpoints of another job. Checkpoints in the folder are an error, and so is the end of a job: the
    /// savepoint of one that was drained, or the checkpoints of one that has finished.
    From(StoreFolder),
}

/// What a job that ended well has to say.
#[derive(Clone, Debug)]
pub struct JobResult {
    /// Name of the job.
    pub name: Arc<str>,
    /// How long it ran.
    pub duration: Duration,
    /// Counters of each task, summed over its subtasks.
    pub metrics: Vec<(String, BTreeMap<&'static str, u64>)>,
    /// What its functions added up, in the attempt that ended well (SUB-16).
    pub accumulators: AccumulatorValues,
    /// How the end came.
    pub ending: Ending,
}

/// How a job ended that did not fail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ending {
    /// Its sources were read to their end.
    #[default]
    Finished,
    /// Behind a last checkpoint, because somebody asked for it.
    Stopped,
    /// The same after event time had ended: there is nothing to go on with, and nobody begins from its savepoint.
    Drained,
    /// It had finished before, and was not run again.
    FinishedBefore,
}

impl JobResult {
    /// Sum of one counter over all tasks.
    pub fn total(&self, counter: &str) -> u64 {
        self.metrics.iter().filter_map(|(_, counters)| counters.get(counter)).sum()
    }

    /// Rows dropped because they were late.
    pub fn late_records_dropped(&self) -> u64 {
        self.total(LATE_RECORDS_DROPPED)
    }

    /// Rows skipped because they did not parse.
    pub fn records_skipped(&self) -> u64 {
        self.total(RECORDS_SKIPPED)
    }

    /// Bytes that went over exchanges.
    pub fn bytes_exchanged(&self) -> u64 {
        self.total(BYTES_EXCHANGED)
    }
}

/// The counters of all subtasks of a job.
#[derive(Clone, Debug, Default)]
pub struct JobMetrics(Arc<Mutex<Vec<(String, Metrics)>>>);

impl JobMetrics {
    /// The counters of a new subtask of `task`.
    pub fn register(&self, task: &str) -> Metrics {
        let metrics = Metrics::default();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((task.to_owned(), metrics.clone()));
        metrics
    }

    /// A new attempt begins.
    pub(super) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Counters of each task now, summed over its subtasks, in the order of the job graph.
    pub fn by_task(&self) -> Vec<(String, BTreeMap<&'static str, u64>)> {
        let mut tasks: Vec<(String, BTreeMap<&'static str, u64>)> = Vec::new();
        for (task, metrics) in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let place = tasks.iter().position(|(name, _)| name == task).unwrap_or_else(|| {
                tasks.push((task.clone(), BTreeMap::new()));
                tasks.len() - 1
            });
            for (name, value) in metrics.values() {
                *tasks[place].1.entry(name).or_default() += value;
            }
        }
        tasks
    }
}

impl JobHandle {
    /// Name of the job.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Tells the job to stop. Its outcome will be the error kind `Cancelled`. It may go on from its last checkpoint.
    pub fn cancel(&self) {
        self.cancelled.raise();
    }

    /// The same for a user who is done with the job: what becomes of its checkpoints is up to
    /// `execution.checkpointing.externalized-checkpoint-retention`.
    pub fn cancel_by_user(&self) {
        self.is_cancelled_by_user.store(true, Ordering::Relaxed);
        self.cancelled.raise();
    }

    /// The outcome, if the job has ended.
    pub fn outcome(&self) -> Option<Result<JobResult>> {
        self.outcome.borrow().clone()
    }

    /// Counters now.
    pub fn metrics(&self) -> &JobMetrics {
        &self.metrics
    }

    /// What the functions of the attempt that runs have added up so far. Only the job's result is final (SHR-05).
    pub fn accumulators(&self) -> AccumulatorValues {
        self.accumulators.values()
    }

    /// The first failure and the last ones so far, those that the job survived included.
    pub fn failures(&self) -> Vec<JobFailure> {
        self.failures.all()
    }

    /// How many failures there were so far.
    pub fn failure_count(&self) -> usize {
        self.failures.count()
    }

    /// How often the job has restarted so far: after each of its failures, if not after the one that ended it.
    pub fn restart_count(&self) -> usize {
        self.failures.restarts()
    }

    /// The last checkpoints, oldest first.
    pub fn checkpoints(&self) -> Vec<CheckpointInfo> {
        self.begun.borrow().as_ref().map_or_else(Vec::new, |begun| begun.statistics.all())
    }

    /// How many checkpoints there were in all.
    pub fn checkpoint_counts(&self) -> CheckpointCounts {
        self.begun.borrow().as_ref().map_or_else(CheckpointCounts::default, |begun| begun.statistics.counts())
    }

    /// Asks for checkpoints and savepoints; waits until the job has begun.
    pub async fn control(&self) -> Result<CheckpointControl> {
        Ok(self.begun().await?.control)
    }

    /// What the job goes on from, if from anything; a job that had finished before goes on from nothing. Waits until it has begun.
    pub async fn resumed_from(&self) -> Result<Option<ResumedFrom>> {
        Ok(self.begun().await?.from)
    }

    async fn begun(&self) -> Result<Begun> {
        let mut begun = self.begun.clone();
        let begun = begun.wait_for(Option::is_some).await;
        match begun.as_deref() {
            Ok(Some(begun)) => Ok(begun.clone()),
            _ => Err(Error::unavailable("the job ended before it began")),
        }
    }

    /// Waits for the end.
    pub async fn wait(&self) -> Result<JobResult> {
        let mut outcome = self.outcome.clone();
        let ended = outcome.wait_for(Option::is_some).await;
        match ended.as_deref() {
            Ok(Some(result)) => result.clone(),
            _ => Err(Error::internal("the job's runtime went away before the job ended")),
        }
    }
}

/// Starts `job` in `environment`, anew; its checkpoints are gone with the process.
pub fn execute(job: &JobGraph, environment: &Environment, settings: &Settings) -> Result<JobHandle> {
    execute_from(job, environment, settings, Persistence::default())
}

/// Starts `job` in `environment`.
pub fn execute_from(
    job: &JobGraph,
    environment: &Environment,
    settings: &Settings,
    persistence: Persistence,
) -> Result<JobHandle> {
    settings.checkpoints().check()?;
    let slots = environment.slots.take(job.slots_required())?;
    let name: Arc<str> = settings.job_name().unwrap_or("job").into();
    let cancelled = Arc::new(Latch::default());
    let is_cancelled_by_user = Arc::new(AtomicBool::new(false));
    let (metrics, failures) = (JobMetrics::default(), JobFailures::default());
    let accumulators = JobAccumulators::default();
    let (publish_begun, begun) = watch::channel(None);
    let run = JobRun {
        name: name.clone(),
        job: Arc::new(job.clone()),
        environment: environment.clone(),
        settings: settings.clone(),
        cancelled: cancelled.clone(),
        is_cancelled_by_user: is_cancelled_by_user.clone(),
        committers: prepare_sinks(job)?,
        shared: JobShared::new(job, environment, metrics.clone(), accumulators.clone()),
        failures: failures.clone(),
        publish_begun,
        persistence,
    };
    let first = run.prepare()?;
    let (publish, outcome) = watch::channel(None);
    environment.io.spawn(
        "coordinator",
        Box::pin(async move {
            let result = run.run(first).await;
            drop(slots);
            publish.send_replace(Some(result));
        }),
    );
    Ok(JobHandle { name, cancelled, is_cancelled_by_user, outcome, metrics, accumulators, failures, begun })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_failures_the_first_and_the_last_are_kept_and_all_are_counted() {
        let failures = JobFailures::default();
        assert_eq!((failures.count(), failures.all().len()), (0, 0));
        for number in 1..=1_000_usize {
            failures.push(number as i64, Error::unavailable(format!("failure {number}")));
            let last = (number + 1).saturating_sub(FAILURES_KEPT - 1).max(2)..=number;
            let expected: Vec<_> =
                std::iter::once(1).chain(last).map(|n| (n, n as i64, format!("failure {n}"))).collect();
            let told = |failure: JobFailure| (failure.number, failure.at, failure.error.message().to_owned());
            assert_eq!(failures.all().into_iter().map(told).collect::<Vec<_>>(), expected);
            assert_eq!(failures.count(), number);
        }
        assert_eq!(failures.all().len(), 64);
    }
}
