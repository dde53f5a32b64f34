//! What the tasks of a job share on this worker (SHR-01 … SHR-07).
//!
//! ```text
//! job      cached files, fetched once, removed with the last who holds them       files.rs
//! attempt  cells of accumulators, forgotten when the next attempt begins          accumulators.rs
//!          broadcast variables, dropped with the last task that reads them        variables.rs
//! task     waits until what it needs is complete, then opens its operators
//! ```

mod accumulators;
mod files;
mod variables;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tidemill_core::Result;
use tidemill_core::graph::{ChainedOperator, JobGraph, OperatorId};
use tidemill_core::shared::SharedContext;

use crate::latch::Latch;
use crate::runtime::environment::Environment;
use crate::runtime::job::JobMetrics;
use crate::runtime::task::cancelled;
use accumulators::AttemptAccumulators;
use files::JobFiles;
use variables::{OperatorVariables, VariableSlot};

pub use accumulators::JobAccumulators;
pub use files::NoFetcher;

/// What a job shares, over all its attempts.
#[derive(Debug)]
pub struct JobShared {
    metrics: JobMetrics,
    accumulators: JobAccumulators,
    files: Arc<JobFiles>,
    parameters: Arc<BTreeMap<String, String>>,
    attempts: AtomicU32,
}

/// What one attempt at a job shares.
#[derive(Debug)]
pub struct AttemptShared {
    /// Counters of its subtasks.
    pub metrics: JobMetrics,
    attempt: u32,
    accumulators: Arc<AttemptAccumulators>,
    variables: BTreeMap<OperatorId, Arc<VariableSlot>>,
    files: Arc<JobFiles>,
    parameters: Arc<BTreeMap<String, String>>,
}

impl JobShared {
    /// What `job` shares in `environment`; those who watch it have its counters and accumulators too.
    pub fn new(job: &JobGraph, environment: &Environment, metrics: JobMetrics, accumulators: JobAccumulators) -> Self {
        let files = Arc::new(JobFiles::new(&job.cached_files, environment));
        Self { metrics, accumulators, files, parameters: job.parameters.clone(), attempts: AtomicU32::new(0) }
    }

    /// What a new attempt shares. What the one before it counted does not count (SHR-02).
    pub fn begin_attempt(&self, job: &JobGraph, environment: &Environment) -> AttemptShared {
        self.metrics.clear();
        AttemptShared {
            metrics: self.metrics.clone(),
            attempt: self.attempts.fetch_add(1, Ordering::Relaxed),
            accumulators: self.accumulators.begin_attempt(),
            variables: variables::slots(job, environment),
            files: self.files.clone(),
            parameters: self.parameters.clone(),
        }
    }

    /// All attempts are over: waits for what they have begun.
    pub async fn settle(&self) {
        self.files.settle().await;
    }

    /// What was counted and added up so far.
    pub fn counted(&self) -> (&JobMetrics, &JobAccumulators) {
        (&self.metrics, &self.accumulators)
    }
}

impl AttemptShared {
    /// What `operator` shares in one subtask.
    pub fn context(&self, operator: &ChainedOperator) -> SharedContext {
        SharedContext {
            operator: operator.id,
            attempt: self.attempt,
            parameters: self.parameters.clone(),
            accumulators: self.accumulators.operator(),
            variables: Arc::new(OperatorVariables::new(operator, &self.variables)),
            files: self.files.clone(),
        }
    }

    /// What has to be complete before these operators are opened.
    pub fn needs(&self, operators: &[ChainedOperator]) -> Needs {
        let read = operators.iter().flat_map(|operator| &operator.variables);
        Needs {
            variables: read.filter_map(|used| self.variables.get(&used.collector).cloned()).collect(),
            files: Some(self.files.clone()).filter(|files| !files.is_empty() && !operators.is_empty()),
        }
    }
}

/// What a subtask waits for before it opens its operators.
#[derive(Debug, Default)]
pub struct Needs {
    variables: Vec<Arc<VariableSlot>>,
    files: Option<Arc<JobFiles>>,
}

impl Needs {
    /// Waits until all of it is there, or the job is to end.
    pub async fn wait(self, stop: &Latch) -> Result<()> {
        let all = async {
            if let Some(files) = &self.files {
                files.fetched().await?;
            }
            for variable in &self.variables {
                variable.completed().await;
            }
            Ok(())
        };
        tokio::select! {
            biased;
            () = stop.wait() => Err(cancelled()),
            result = all => result,
        }
    }
}
