//! What runs the jobs of an environment.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use crate::persistence::{from_settings, run_id, store_folder};
use crate::sql::run_folder;
use tidemill_connectors::CollectHandle;
use tidemill_connectors::store::{StoreFetcher, Stores};
use tidemill_core::chance::chance;
use tidemill_core::graph::JobGraph;
use tidemill_core::settings::StoreSettings;
use tidemill_core::shared::{AccumulatorValues, FileFetcher};
use tidemill_core::{Batch, Error, Result, Settings};
use tidemill_exec::exchange::SpillDirs;
use tidemill_exec::memory::managed_pool;
use tidemill_exec::runtime::{self, Engine, JobResult, StoreFolder, TaskSlots, TokioClock, TokioSpawner};
use tidemill_exec::state::Tier;

/// Where jobs run.
pub(super) enum Runner {
    /// On threads of an engine, which starts with the first job.
    Local(Mutex<Option<Arc<Engine>>>),
    /// On the caller's thread.
    Caller,
    /// In an engine that somebody else owns.
    Within(runtime::Environment),
}

impl Runner {
    /// A runner with an engine of its own.
    pub fn local() -> Self {
        Self::Local(Mutex::new(None))
    }

    /// Refuses to block an async task, which would stop its runtime.
    pub fn check_blocking(&self, call: &str) -> Result<()> {
        match (self, tokio::runtime::Handle::try_current()) {
            (Self::Within(_), _) => {
                Err(Error::request(format!("{call} blocks, and this engine runs on the caller's runtime"))
                    .with_hint(format!("use {call}_async and await it")))
            }
            (_, Ok(_)) => Err(Error::request(format!("{call} blocks and was called in an async task"))
                .with_hint(format!("use {call}_async, or call it in spawn_blocking"))),
            (_, Err(_)) => Ok(()),
        }
    }

    /// Runs a job to its end.
    pub fn run(&self, job: &JobGraph, settings: &Settings) -> Result<JobResult> {
        match self {
            Self::Caller => {
                on_this_thread(settings, |engine| async move { begin(job, &engine, settings)?.job.wait().await })
            }
            _ => self.start(job, settings)?.join(),
        }
    }

    /// Runs a job to its end and takes what its collecting sink gets.
    pub fn run_and_collect(&self, job: &JobGraph, settings: &Settings, sink: CollectHandle) -> Result<Vec<Batch>> {
        match self {
            Self::Local(_) => {
                let engine = self.engine(settings)?;
                engine.block_on(collect(job, engine.environment(), settings, sink))
            }
            Self::Caller => {
                on_this_thread(settings, |engine| async move { collect(job, &engine, settings, sink).await })
            }
            Self::Within(_) => Err(Error::internal("collect within a foreign engine blocks")),
        }
    }

    /// The same without blocking.
    pub async fn start_and_collect(
        &self,
        job: &JobGraph,
        settings: &Settings,
        sink: CollectHandle,
    ) -> Result<Vec<Batch>> {
        match self {
            Self::Within(engine) => collect(job, engine, settings, sink).await,
            Self::Local(_) => {
                let engine = self.engine(settings)?;
                collect(job, engine.environment(), settings, sink).await
            }
            // The caller has a runtime already, or it could not poll this.
            Self::Caller => collect(job, &current_thread_environment(settings)?, settings, sink).await,
        }
    }

    /// Starts a job. On the caller's thread that means running it.
    pub fn start(&self, job: &JobGraph, settings: &Settings) -> Result<JobHandle> {
        match self {
            Self::Local(_) => {
                let engine = self.engine(settings)?;
                Ok(JobHandle { engine: Some(engine.clone()), ..begin(job, engine.environment(), settings)? })
            }
            Self::Within(engine) => begin(job, engine, settings),
            Self::Caller if tokio::runtime::Handle::try_current().is_ok() => {
                begin(job, &current_thread_environment(settings)?, settings)
            }
            Self::Caller => on_this_thread(settings, |engine| async move {
                let handle = begin(job, &engine, settings)?;
                // How it ended is in the handle.
                let _ = handle.job.wait().await;
                Ok(handle)
            }),
        }
    }

    fn engine(&self, settings: &Settings) -> Result<Arc<Engine>> {
        let Self::Local(engine) = self else { return Err(Error::internal("this runner has no engine")) };
        let mut engine = engine.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(engine) = &*engine {
            return Ok(engine.clone());
        }
        let started = Engine::new(spill_dirs(settings))?;
        let mut started = started.with_memory(managed_pool(settings)).with_files(fetcher(settings));
        if let Some(slots) = settings.task_slots() {
            started = started.with_slots(slots);
        }
        Ok(engine.insert(Arc::new(started)).clone())
    }
}

impl fmt::Debug for Runner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Local(_) => "local",
            Self::Caller => "collections",
            Self::Within(_) => "within",
        })
    }
}

/// A job that was started. It goes on when the handle is dropped, as long as the environment lives.
#[derive(Clone, Debug)]
pub struct JobHandle {
    job: runtime::JobHandle,
    /// Keeps the job's threads; `None` if somebody else does.
    engine: Option<Arc<Engine>>,
    /// How the places of its savepoints are reached.
    stores: StoreSettings,
    /// Where its checkpoints are.
    checkpoints: Option<String>,
}

impl JobHandle {
    /// Name of the job.
    pub fn name(&self) -> &str {
        self.job.name()
    }

    /// Tells the job to stop; its outcome will be the error kind `Cancelled`. What becomes of its checkpoints is up to
    /// `execution.checkpointing.externalized-checkpoint-retention`.
    pub fn cancel(&self) {
        self.job.cancel_by_user();
    }

    /// Writes a savepoint into the folder `path`, which has to be empty or missing; the job goes on (SVP-01). Another job begins from
    /// it with `execution.state-recovery.path`.
    ///
    /// Errors: the folder is not empty; the job takes no checkpoints, because it runs as a batch or blocks; it has ended.
    pub async fn savepoint(&self, path: &str) -> Result<()> {
        let folder = self.folder(path)?;
        self.job.control().await?.savepoint(folder).await.map(drop)
    }

    /// Stops the job behind a savepoint in the folder `path`, and waits for its end: nothing that comes after it has been done (SVP-07).
    /// With `drain` event time ends first, so that all windows and event-time timers fire; no other job begins from that.
    ///
    /// Errors: those of [`savepoint`](Self::savepoint), after which the job goes on; the job fails before the savepoint is there.
    pub async fn stop(&self, drain: bool, path: &str) -> Result<JobResult> {
        let folder = self.folder(path)?;
        self.job.control().await?.stop(drain, Some(folder)).await?;
        self.wait().await
    }

    /// Where the checkpoints of this run are, for `execution.state-recovery.path` of the next one; nothing where they are in memory, as
    /// without `execution.checkpointing.dir`.
    pub fn checkpoints(&self) -> Option<&str> {
        self.checkpoints.as_deref()
    }

    fn folder(&self, path: &str) -> Result<StoreFolder> {
        Ok(store_folder(&Stores::new(None).with_settings(self.stores.clone()).resolve(path)?))
    }

    /// What the functions of the job have added up so far (SHR-05). Only the job's result is final.
    pub fn accumulators(&self) -> AccumulatorValues {
        self.job.accumulators()
    }

    /// The outcome, if the job has ended.
    pub fn outcome(&self) -> Option<Result<JobResult>> {
        self.job.outcome()
    }

    /// Waits for the end of the job.
    pub async fn wait(&self) -> Result<JobResult> {
        self.job.wait().await
    }

    /// Waits for the end of the job on a thread that may block.
    pub fn join(&self) -> Result<JobResult> {
        match (&self.engine, self.outcome()) {
            (_, Some(outcome)) => outcome,
            (Some(engine), None) if tokio::runtime::Handle::try_current().is_err() => engine.block_on(self.wait()),
            _ => Err(Error::request("join blocks and was called in an async task").with_hint("use wait and await it")),
        }
    }
}

/// Starts a job that keeps its checkpoints, and begins, where the settings say.
fn begin(job: &JobGraph, engine: &runtime::Environment, settings: &Settings) -> Result<JobHandle> {
    let stores = settings.stores();
    let own = run_folder(settings.job_name().unwrap_or("job"), &run_id(engine));
    let persistence = from_settings(settings, &Stores::new(None).with_settings(stores.clone()), Some(own))?;
    let checkpoints = persistence.folder.as_ref().map(|folder| folder.url.clone());
    let job = runtime::execute_from(job, engine, settings, persistence)?;
    Ok(JobHandle { job, engine: None, stores, checkpoints })
}

/// Runs a job whose rows come here; its checkpoints are gone with the process, like them.
async fn collect(
    job: &JobGraph,
    engine: &runtime::Environment,
    settings: &Settings,
    mut sink: CollectHandle,
) -> Result<Vec<Batch>> {
    let persistence = from_settings(settings, &Stores::new(None).with_settings(settings.stores()), None)?;
    let job = runtime::execute_from(job, engine, settings, persistence)?;
    let mut batches = Vec::new();
    while let Some(batch) = sink.next().await {
        batches.push(batch);
    }
    job.wait().await?;
    Ok(batches)
}

/// Runs `work` on a runtime of this one thread, in an engine made for it.
fn on_this_thread<R, F>(settings: &Settings, work: impl FnOnce(runtime::Environment) -> F) -> Result<R>
where
    F: Future<Output = Result<R>>,
{
    let threads = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let threads = threads.map_err(|error| Error::from(error).context("cannot start the runtime"))?;
    threads.block_on(async { work(current_thread_environment(settings)?).await })
}

/// An engine on the runtime that this code runs in.
fn current_thread_environment(settings: &Settings) -> Result<runtime::Environment> {
    let handle = tokio::runtime::Handle::try_current();
    let handle = handle.map_err(|_| Error::internal("there is no runtime here"))?;
    let (clock, spawner) = (Arc::new(TokioClock::system()), Arc::new(TokioSpawner::new(handle)));
    let memory = managed_pool(settings);
    Ok(runtime::Environment {
        clock,
        compute: spawner.clone(),
        io: spawner.clone(),
        background: spawner,
        spill: Arc::new(SpillDirs::new(spill_dirs(settings))),
        tier: Tier::new(spill_dirs(settings), memory.clone()),
        memory,
        files: fetcher(settings),
        slots: TaskSlots::unlimited(),
        // One order of execution, so one order of chance.
        seed: 0,
        nonce: chance(),
        trace: None,
    })
}

/// What brings the files of jobs to this process.
fn fetcher(settings: &Settings) -> Arc<dyn FileFetcher> {
    Arc::new(StoreFetcher::new(Stores::new(None).with_settings(settings.stores())))
}

fn spill_dirs(settings: &Settings) -> Vec<PathBuf> {
    settings.temporary_dirs().into_iter().map(PathBuf::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_on_the_callers_thread_choose_alike_and_write_as_different_ones() {
        let settings = Settings::default();
        let engine = || on_this_thread(&settings, |engine| async move { Ok((engine.seed, engine.nonce)) }).unwrap();
        let (one, other) = (engine(), engine());
        assert_eq!(one.0, other.0);
        assert_ne!(one.1, other.1);
    }
}
