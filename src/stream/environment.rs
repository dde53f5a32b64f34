//! Where programs are built and run: in this process, on threads of its own or on the caller's (ENV-01 … ENV-03).

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidemill_connectors::store::Stores;
use tidemill_core::graph::JobGraph;
use tidemill_core::settings::Origin;
use tidemill_core::shared::CachedFile;
use tidemill_core::{Error, Gate, Result, Settings};
use tidemill_exec::runtime::JobResult;

use super::lower::lower;
use super::parameters::Parameters;
use super::program::{NodeId, Program};
use super::runner::{JobHandle, Runner};

/// Builds a program out of streams and runs it.
///
/// Nothing happens before [`Environment::execute`] or [`DataStream::collect`](super::DataStream::collect). Cloning an
/// environment gives another handle to the same program.
///
/// ```
/// use tidemill::stream::Environment;
///
/// let environment = Environment::collections();
/// let squares = environment.generate_sequence(1, 4).map(|n| n * n);
/// assert_eq!(squares.collect()?, [1, 4, 9, 16]);
/// # Ok::<(), tidemill_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Environment(Arc<Inner>);

struct Inner {
    settings: Mutex<Settings>,
    program: Mutex<Program>,
    runner: Runner,
    stores: Stores,
}

impl Environment {
    /// The environment that suits the place where the program runs: local, unless something else started it (ENV-01).
    pub fn get() -> Self {
        Self::local()
    }

    /// In this process, with as many subtasks an operator as there are cores (ENV-02).
    pub fn local() -> Self {
        Self::local_with(Settings::default())
    }

    /// The same with settings, where `parallelism.default` may say otherwise.
    pub fn local_with(settings: Settings) -> Self {
        let environment = Self::new(settings, Runner::local());
        let is_set = environment.settings().is_set("parallelism.default");
        if !is_set {
            let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
            environment.set_from("parallelism.default", &cores.to_string(), Origin::Default);
        }
        environment
    }

    /// In the caller's thread, one subtask an operator: the least overhead, for tests and small inputs (ENV-03).
    pub fn collections() -> Self {
        Self::collections_with(Settings::default())
    }

    /// The same with settings.
    pub fn collections_with(settings: Settings) -> Self {
        Self::new(settings, Runner::Caller)
    }

    /// In an engine that the caller owns, such as a simulated one. Jobs are started with [`Environment::execute_async`] and
    /// awaited by the caller.
    pub fn within(engine: tidemill_exec::runtime::Environment, settings: Settings) -> Self {
        Self::new(settings, Runner::Within(engine))
    }

    fn new(settings: Settings, runner: Runner) -> Self {
        Self(Arc::new(Inner {
            settings: Mutex::new(settings),
            program: Mutex::default(),
            runner,
            stores: Stores::new(None),
        }))
    }

    /// Sets how many subtasks run an operator that says nothing else (ENV-06).
    pub fn set_parallelism(&self, parallelism: usize) -> &Self {
        self.set("parallelism.default", &parallelism.to_string())
    }

    /// Sets when buffers leave their producer: at once, after a time, when full, or when the producer is done.
    pub fn set_buffer_timeout(&self, gate: Gate) -> &Self {
        self.set("execution.buffer-timeout", &gate.to_string())
    }

    /// Sets any setting by its name. What is wrong with it is reported by the next execution.
    pub fn set(&self, key: &str, value: &str) -> &Self {
        self.set_from(key, value, Origin::Program)
    }

    /// Gives every function the same arguments, which it finds in
    /// [`RuntimeContext::parameters`](super::RuntimeContext::parameters).
    pub fn set_global_job_parameters(&self, parameters: Parameters) -> &Self {
        self.program().parameters = parameters;
        self
    }

    /// Ships the file or directory at `url`, a path or the URL of any store, to every worker before its tasks open; functions find
    /// the copy by `name` in [`RuntimeContext::cached_file`](super::RuntimeContext::cached_file) (SHR-06).
    ///
    /// The copy, or every file in it, may be executed if it may at its source, or if `executable` says so. It is removed when the job
    /// has ended, however that was.
    ///
    /// ```
    /// use std::path::PathBuf;
    ///
    /// use tidemill::Result;
    /// use tidemill::stream::{Context, Environment, RichFilterFunction, RuntimeContext};
    ///
    /// /// The words that are in no file of words to leave out.
    /// #[derive(Clone, Default)]
    /// struct Wanted(Vec<String>);
    ///
    /// impl RichFilterFunction<String> for Wanted {
    ///     fn open(&mut self, context: &mut RuntimeContext<'_>) -> Result<()> {
    ///         let path: PathBuf = context.cached_file("unwanted")?;
    ///         self.0 = std::fs::read_to_string(path)?.lines().map(str::to_owned).collect();
    ///         Ok(())
    ///     }
    ///
    ///     fn filter(&mut self, word: &String, _context: &mut Context<'_, ()>) -> Result<bool> {
    ///         Ok(!self.0.contains(word))
    ///     }
    /// }
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("unwanted.txt");
    /// # std::fs::write(&path, "to\nor\n")?;
    /// # let path = path.to_str().unwrap();
    /// let environment = Environment::collections();
    /// environment.register_cached_file(path, "unwanted", false);
    /// let words = environment.from_elements(["to", "be", "or", "not"].map(str::to_owned));
    /// assert_eq!(words.rich_filter(Wanted::default()).collect()?, ["be", "not"]);
    /// # Ok::<(), tidemill::Error>(())
    /// ```
    pub fn register_cached_file(&self, url: impl Into<String>, name: impl Into<String>, executable: bool) -> &Self {
        let file = CachedFile { name: name.into(), url: url.into(), executable };
        let mut program = self.program();
        match program.cached_files.iter().find(|known| known.name == file.name) {
            Some(known) if *known != file => {
                let (name, first, second) = (&file.name, &known.url, &file.url);
                let error = Error::request(format!("two cached files are called '{name}': '{first}' and '{second}'"));
                program.fail(error);
            }
            Some(_) => {}
            None => program.cached_files.push(file),
        }
        drop(program);
        self
    }

    fn set_from(&self, key: &str, value: &str, origin: Origin) -> &Self {
        let result = self.settings().set(key, value, origin);
        if let Err(error) = result {
            self.program().fail(error);
        }
        self
    }

    /// The stores that URLs lead to, reached as the settings say now.
    pub(super) fn stores(&self) -> Stores {
        self.0.stores.with_settings(self.settings().stores())
    }

    /// A copy of the settings.
    pub fn settings_now(&self) -> Settings {
        self.settings().clone()
    }

    /// Runs everything that leads to the sinks added since the last execution, and waits for its end.
    ///
    /// Without such a sink there is nothing to run, and that is an error. So it is within an async task, which must not be
    /// blocked: use [`Environment::execute_async`] there.
    pub fn execute(&self, name: &str) -> Result<JobResult> {
        self.0.runner.check_blocking("execute")?;
        let (job, settings) = self.take_job(name)?;
        self.0.runner.run(&job, &settings)
    }

    /// Starts everything that leads to the sinks added since the last execution.
    pub fn execute_async(&self, name: &str) -> Result<JobHandle> {
        let (job, settings) = self.take_job(name)?;
        self.0.runner.start(&job, &settings)
    }

    /// The tasks that the next execution would run, as text.
    pub fn execution_plan(&self) -> Result<String> {
        let pending = self.program().pending().to_vec();
        Ok(self.job("plan", &pending)?.0.to_string())
    }

    fn take_job(&self, name: &str) -> Result<(JobGraph, Settings)> {
        let pending = self.program().pending().to_vec();
        let job = self.job(name, &pending)?;
        self.program().take_pending();
        Ok(job)
    }

    /// The job of these sinks.
    pub(super) fn job(&self, name: &str, sinks: &[NodeId]) -> Result<(JobGraph, Settings)> {
        let mut settings = self.settings_now();
        if !name.is_empty() {
            settings.set("pipeline.name", name, Origin::Program)?;
        }
        let program = self.program();
        program.check()?;
        if sinks.is_empty() {
            return Err(Error::request("there is nothing to execute: no sink was added since the last execution")
                .with_hint("add one such as print() or write_as_text(); collect() runs by itself"));
        }
        let graph = lower(&program, sinks, &settings, settings.job_name().unwrap_or("job"))?;
        let mut job = graph.to_job_graph(&settings)?;
        job.cached_files = program.cached_files.clone();
        job.parameters = Arc::new(program.parameters.values().clone());
        Ok((job, settings))
    }

    pub(super) fn runner(&self) -> &Runner {
        &self.0.runner
    }

    pub(super) fn program(&self) -> MutexGuard<'_, Program> {
        self.0.program.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn settings(&self) -> MutexGuard<'_, Settings> {
        self.0.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether two handles mean one program.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Environment({:?})", self.0.runner)
    }
}
