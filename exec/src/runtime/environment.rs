//! What a job runs in: clocks, runtimes, disks, memory, chance. All of it is passed in, so that a simulation can replay a seed.

use std::sync::Arc;
use std::time::Duration;

use datafusion::execution::memory_pool::{MemoryPool, UnboundedMemoryPool};
use futures::future::BoxFuture;
use tidemill_core::chance::chance;
use tidemill_core::clock::{Clock, Spawner};
use tidemill_core::shared::FileFetcher;
use tidemill_core::{Error, Result};
use tokio::runtime::{Builder, Handle, Runtime};

use crate::exchange::SpillDirs;
use crate::runtime::shared::NoFetcher;
use crate::runtime::task_slots::TaskSlots;
use crate::runtime::trace::EventTrace;
use crate::state::Tier;

/// So long the end of an engine waits for what works in each of its runtimes.
const LONGEST_END: Duration = Duration::from_secs(2);

/// What a job runs in. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Environment {
    /// Processing time.
    pub clock: Arc<dyn Clock>,
    /// Runs tasks.
    pub compute: Arc<dyn Spawner>,
    /// Runs readers, writers and everything else that waits for the outside.
    pub io: Arc<dyn Spawner>,
    /// Runs what nobody waits for: encoding and storing checkpoints.
    pub background: Arc<dyn Spawner>,
    /// Where exchanges spill.
    pub spill: Arc<SpillDirs>,
    /// What operators and state may occupy, bounded and unbounded plans together.
    pub memory: Arc<dyn MemoryPool>,
    /// Where state goes that memory has no room for, and what state may have of the memory.
    pub tier: Tier,
    /// Brings the files of jobs to this machine.
    pub files: Arc<dyn FileFetcher>,
    /// What jobs need to begin.
    pub slots: Arc<TaskSlots>,
    /// What every random choice follows from.
    pub seed: u64,
    /// What tells who writes checkpoints and savepoints here from everybody else who does, also where the seed is the same.
    pub nonce: u64,
    /// Told of every event that a task takes in, in order: what a simulation compares.
    pub trace: Option<Arc<dyn EventTrace>>,
}

/// Time as tokio has it. Processing time is what the machine's clock shows, however that is set, or goes on from a given one.
#[derive(Debug)]
pub struct TokioClock {
    start: tokio::time::Instant,
    /// What it showed then; `None` for the machine's clock.
    start_millis: Option<i64>,
}

impl TokioClock {
    /// The machine's clock. Must be called within a runtime.
    pub fn system() -> Self {
        Self { start: tokio::time::Instant::now(), start_millis: None }
    }

    /// A clock that shows `millis` now and goes on with tokio's time.
    pub fn starting_at(millis: i64) -> Self {
        Self { start: tokio::time::Instant::now(), start_millis: Some(millis) }
    }
}

impl Clock for TokioClock {
    fn now_millis(&self) -> i64 {
        match self.start_millis {
            Some(millis) => millis.saturating_add(self.start.elapsed().as_millis() as i64),
            None => system_millis(),
        }
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
}

/// What the machine's clock shows now.
#[expect(clippy::disallowed_methods, reason = "the one place where real time comes from")]
fn system_millis() -> i64 {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since_epoch.map_or(0, |elapsed| elapsed.as_millis() as i64)
}

/// Spawns on a tokio runtime.
#[derive(Debug)]
pub struct TokioSpawner(Handle);

impl TokioSpawner {
    /// Spawns on `runtime`.
    pub fn new(runtime: Handle) -> Self {
        Self(runtime)
    }
}

impl Spawner for TokioSpawner {
    fn spawn(&self, _name: &str, task: BoxFuture<'static, ()>) {
        self.0.spawn(task);
    }
}

/// The runtimes of a worker process, and the environment made of them.
#[derive(Debug)]
pub struct Engine {
    environment: Environment,
    // Options only so that `drop` can take them.
    compute: Option<Runtime>,
    io: Option<Runtime>,
    background: Option<Runtime>,
}

impl Engine {
    /// An engine with a compute thread a core, spilling into `dirs`, whose jobs and operators may have what they like.
    pub fn new(dirs: Vec<std::path::PathBuf>) -> Result<Self> {
        let runtime = |name: &str, threads: usize| {
            let mut builder = Builder::new_multi_thread();
            builder.worker_threads(threads).thread_name(name).enable_all();
            builder.build().map_err(|error| Error::from(error).context("cannot start the runtime"))
        };
        let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        let compute = runtime("tidemill-compute", threads)?;
        let io = runtime("tidemill-io", threads)?;
        let background = runtime("tidemill-background", 1)?;
        let clock = {
            let _inside = compute.enter();
            Arc::new(TokioClock::system())
        };
        let memory: Arc<dyn MemoryPool> = Arc::new(UnboundedMemoryPool::default());
        let environment = Environment {
            seed: chance(),
            nonce: chance(),
            clock,
            compute: Arc::new(TokioSpawner::new(compute.handle().clone())),
            io: Arc::new(TokioSpawner::new(io.handle().clone())),
            background: Arc::new(TokioSpawner::new(background.handle().clone())),
            tier: Tier::new(dirs.clone(), memory.clone()),
            spill: Arc::new(SpillDirs::new(dirs)),
            memory,
            files: Arc::new(NoFetcher),
            slots: TaskSlots::unlimited(),
            trace: None,
        };
        Ok(Self { environment, compute: Some(compute), io: Some(io), background: Some(background) })
    }

    /// The same engine, whose operators hold no more than `memory` grants.
    #[must_use]
    pub fn with_memory(mut self, memory: Arc<dyn MemoryPool>) -> Self {
        self.environment.tier = self.environment.tier.with_memory(memory.clone());
        self.environment.memory = memory;
        self
    }

    /// The same engine, where state may come to so many bytes of memory before it goes to the local disk; `None` for as many as
    /// it likes.
    #[must_use]
    pub fn with_state_memory(mut self, bytes: Option<usize>) -> Self {
        self.environment.tier = self.environment.tier.limited(bytes);
        self
    }

    /// The same engine, whose jobs get their files by `fetcher`.
    #[must_use]
    pub fn with_files(mut self, fetcher: Arc<dyn FileFetcher>) -> Self {
        self.environment.files = fetcher;
        self
    }

    /// The same engine, whose jobs have so many slots together.
    #[must_use]
    pub fn with_slots(mut self, slots: usize) -> Self {
        self.environment.slots = TaskSlots::new(slots);
        self
    }

    /// The same engine, which tells of every event that its tasks take in.
    #[must_use]
    pub fn with_trace(mut self, trace: Arc<dyn EventTrace>) -> Self {
        self.environment.trace = Some(trace);
        self
    }

    /// What jobs run in.
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// Runs `future` to its end on this thread, within the compute runtime.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        match &self.compute {
            Some(runtime) => runtime.block_on(future),
            // Only `drop` takes the runtime away, and it ends the borrow that this call needs.
            None => unreachable!("the engine was used after it was dropped"),
        }
    }

    /// A handle to the I/O runtime, for stores and servers.
    pub fn io_handle(&self) -> Option<Handle> {
        self.io.as_ref().map(|runtime| runtime.handle().clone())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let runtimes = [self.compute.take(), self.io.take(), self.background.take()].into_iter().flatten();
        // Who drops a runtime within another one cannot wait.
        if Handle::try_current().is_ok() {
            return runtimes.for_each(Runtime::shutdown_background);
        }
        // What still worked when the process ends would find that RocksDB has taken itself down. A task that ignores its cancellation
        // must not keep it from ending all the same.
        runtimes.for_each(|runtime| runtime.shutdown_timeout(LONGEST_END));
    }
}

/// The environment of a test: one thread, tokio's time beginning at the epoch, chance from `seed`.
///
/// Must be called within a current-thread runtime. [`simulate`](super::simulate) makes one whose time is simulated too.
pub fn simulated(seed: u64) -> Environment {
    let handle = Handle::current();
    let spawner = Arc::new(TokioSpawner::new(handle));
    let memory: Arc<dyn MemoryPool> = Arc::new(UnboundedMemoryPool::default());
    Environment {
        clock: Arc::new(TokioClock::starting_at(0)),
        compute: spawner.clone(),
        io: spawner.clone(),
        background: spawner,
        spill: Arc::new(SpillDirs::new([])),
        tier: Tier::new([], memory.clone()),
        memory,
        files: Arc::new(NoFetcher),
        slots: TaskSlots::unlimited(),
        seed,
        nonce: seed,
        trace: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_that_ends_waits_for_what_works_though_not_for_ever() {
        use std::sync::atomic::{AtomicU32, Ordering};

        let worked = Arc::new(AtomicU32::new(0));
        let spawn = |spawner: &Arc<dyn Spawner>, millis: u64| {
            let (worked, (begun, begins)) = (worked.clone(), std::sync::mpsc::channel());
            let work = async move {
                let _ = begun.send(());
                std::thread::sleep(Duration::from_millis(millis));
                worked.fetch_add(1, Ordering::Relaxed);
            };
            spawner.spawn("work", Box::pin(work));
            begins.recv().unwrap();
        };
        let engine = Engine::new(Vec::new()).unwrap();
        spawn(&engine.environment().compute, 300);
        spawn(&engine.environment().background, 300);
        drop(engine);
        assert_eq!(worked.load(Ordering::Relaxed), 2);
        let engine = Engine::new(Vec::new()).unwrap();
        spawn(&engine.environment().compute, LONGEST_END.as_millis() as u64 + 60_000);
        drop(engine);
        assert_eq!(worked.load(Ordering::Relaxed), 2);
    }

    /// As after a sleep of the machine, or after its clock was set: less has passed there than since the start.
    #[test]
    fn processing_time_is_what_the_machine_shows_whatever_has_passed() {
        let mut clock = TokioClock::system();
        clock.start -= Duration::from_secs(60);
        assert!(clock.monotonic() >= Duration::from_secs(60));
        assert!((clock.now_millis() - system_millis()).abs() < 30_000);
        let mut clock = TokioClock::starting_at(0);
        clock.start -= Duration::from_secs(60);
        assert!(clock.now_millis() >= 60_000);
    }
}
