//! A job at work: the job graph expanded into subtasks and channels, run, watched, and ended as a whole.
//!
//! The first failure is the job's error, with operator and subtask. It cancels everything else; what fails because of that is
//! not a cause.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tidemill_core::graph::JobGraph;
use tidemill_core::metrics::{BYTES_EXCHANGED, LATE_RECORDS_DROPPED, Metrics, RECORDS_SKIPPED};
use tidemill_core::sink::{Committable, Committer};
use tidemill_core::{Error, ErrorKind, Result, Settings};
use tokio::sync::{mpsc, watch};

use crate::latch::Latch;
use crate::runtime::environment::Environment;
use crate::runtime::expand::{Subtask, expand};

/// A running job. Dropping the handle does not end the job.
#[derive(Clone, Debug)]
pub struct JobHandle {
    name: Arc<str>,
    cancelled: Arc<Latch>,
    outcome: watch::Receiver<Option<Result<JobResult>>>,
    metrics: JobMetrics,
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

    /// Tells the job to stop. Its outcome will be the error kind `Cancelled`.
    pub fn cancel(&self) {
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

/// Starts `job` in `environment`.
pub fn execute(job: &JobGraph, environment: &Environment, settings: &Settings) -> Result<JobHandle> {
    let slots = environment.slots.take(job.slots_required())?;
    let name: Arc<str> = settings.job_name().unwrap_or("job").into();
    let cancelled = Arc::new(Latch::default());
    let metrics = JobMetrics::default();
    let expanded = expand(job, environment, settings, &cancelled, &metrics)?;
    let (publish, outcome) = watch::channel(None);
    let coordinator = Coordinator {
        name: name.clone(),
        environment: environment.clone(),
        cancelled: cancelled.clone(),
        committers: expanded.committers,
        metrics: metrics.clone(),
        cancellation_timeout: settings.cancellation_timeout(),
    };
    let subtasks = expanded.subtasks;
    environment.io.spawn(
        "coordinator",
        Box::pin(async move {
            let result = coordinator.run(subtasks).await;
            drop(slots);
            publish.send_replace(Some(result));
        }),
    );
    Ok(JobHandle { name, cancelled, outcome, metrics })
}

/// Runs the subtasks of one job and decides how it ended.
struct Coordinator {
    name: Arc<str>,
    environment: Environment,
    cancelled: Arc<Latch>,
    committers: BTreeMap<usize, Arc<dyn Committer>>,
    metrics: JobMetrics,
    cancellation_timeout: Duration,
}

/// What a subtask says when it ends: its vertex and what its sink has to commit.
type Report = (usize, Result<Vec<Committable>>);

impl Coordinator {
    async fn run(self, subtasks: Vec<Subtask>) -> Result<JobResult> {
        let start = self.environment.clock.monotonic();
        let outcome = self.watch(subtasks).await;
        let committed = match outcome {
            Ok(committables) => self.commit(committables).await,
            Err(error) => Err(error),
        };
        if let Err(error) = committed {
            for committer in self.committers.values() {
                // The job's error is the one that matters; what cannot be removed stays hidden.
                let _ = committer.abort().await;
            }
            return Err(error);
        }
        let duration = self.environment.clock.monotonic().saturating_sub(start);
        Ok(JobResult { name: self.name.clone(), duration, metrics: self.metrics.by_task() })
    }

    async fn watch(&self, subtasks: Vec<Subtask>) -> Result<Vec<(usize, Vec<Committable>)>> {
        let mut running = subtasks.len();
        let (reports, mut inbox) = mpsc::channel::<Report>(running.max(1));
        for subtask in subtasks {
            let name = subtask.label();
            self.environment.compute.spawn(&name, supervised(subtask, reports.clone()));
        }
        drop(reports);
        let (mut committables, mut failure) = (Vec::new(), None);
        while running > 0 {
            let report = match &failure {
                None => tokio::select! {
                    report = inbox.recv() => report,
                    () = self.cancelled.wait() => {
                        failure = Some(super::task::cancelled());
                        continue;
                    }
                },
                Some(_) => tokio::select! {
                    report = inbox.recv() => report,
                    () = self.environment.clock.sleep(self.cancellation_timeout) => break,
                },
            };
            let Some((vertex, result)) = report else { break };
            running -= 1;
            match result {
                Ok(written) => committables.push((vertex, written)),
                Err(error) => {
                    // What fails after the first failure only echoes it.
                    failure.get_or_insert(error);
                    self.cancelled.raise();
                }
            }
        }
        failure.map_or(Ok(committables), Err)
    }

    async fn commit(&self, committables: Vec<(usize, Vec<Committable>)>) -> Result<()> {
        for (vertex, committer) in &self.committers {
            let own = committables.iter().filter(|(owner, _)| owner == vertex);
            committer.commit(own.flat_map(|(_, written)| written.clone()).collect()).await?;
        }
        for committer in self.committers.values() {
            committer.finish().await?;
        }
        Ok(())
    }
}

/// A subtask whose failure carries its name and whose panic is a failure.
fn supervised(subtask: Subtask, reports: mpsc::Sender<Report>) -> BoxFuture<'static, ()> {
    let (vertex, label) = (subtask.vertex, subtask.label());
    Box::pin(async move {
        let result = std::panic::AssertUnwindSafe(subtask.work).catch_unwind().await;
        let result = result.unwrap_or_else(|panic| Err(Error::internal(format!("panicked: {}", panic_text(&*panic)))));
        let result = result.map_err(|error| match error.kind() {
            ErrorKind::Cancelled => error,
            _ => error.in_operator(&label),
        });
        // The coordinator stops listening only when it has given up on this task.
        let _ = reports.send((vertex, result)).await;
    })
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}
