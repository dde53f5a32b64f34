//! A session: settings, tables, and statements executed one after the other.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use datafusion::execution::session_state::SessionState;
use tidemill_connectors::TableContext;
use tidemill_connectors::registry::Disposition;
use tidemill_connectors::store::{StoreFetcher, Stores};
use tidemill_core::settings::Origin;
use tidemill_core::{Error, Result, Settings};
use tidemill_exec::memory::managed_pool;
use tidemill_exec::runtime::{Engine, JobHandle};
use xxhash_rust::xxh3::xxh3_64;

use super::catalog::Catalog;
use super::parser::{Parsed, Statement};
use super::query::Query;
use super::recovery::{JobFolders, NewJob, store_folder};
use super::rows::Rows;
use super::state::{base_state, statement_state};

/// Settings, with their older names, of what is made once for all jobs of a process: they change nothing afterwards.
const READ_AT_START: [&str; 8] = [
    "io.tmp.dirs",
    "taskmanager.tmp.dirs",
    "state.backend.rocksdb.checkpointdir",
    "state.backend.rocksdb.localdir",
    "taskmanager.numberOfTaskSlots",
    "taskmanager.memory.process.size",
    "taskmanager.memory.managed.size",
    "taskmanager.memory.size",
];

/// Counts the names that this process has given to runs.
static RUNS: AtomicU64 = AtomicU64::new(0);

/// Executes statements against one catalog and one engine in this process.
///
/// ```
/// use tidemill::sql::parser::parse_script;
/// use tidemill::sql::{Outcome, Session};
/// use tidemill_core::Settings;
///
/// let mut session = Session::new(Settings::default())?;
/// for statement in parse_script("CREATE VIEW v AS SELECT 1 AS n; SELECT n + 1 AS m FROM v")? {
///     if let Outcome::Query(query) = session.run(&statement)? {
///         assert_eq!(session.block_on(query.collect())?.num_rows(), 1);
///     }
/// }
/// # Ok::<(), tidemill_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Session {
    pub(super) settings: Settings,
    pub(super) catalog: Catalog,
    stores: Stores,
    pub(super) base: SessionState,
    pub(super) jobs: Vec<SessionJob>,
    pub(super) folders: Option<JobFolders>,
    warnings: Vec<String>,
    // Last, so that everything which may still use it is dropped before.
    engine: Arc<Engine>,
}

/// A job that a statement started.
#[derive(Clone, Debug)]
pub struct SessionJob {
    /// What `CANCEL JOB` calls it.
    pub id: String,
    /// The job.
    pub handle: JobHandle,
    /// What it does: `insert into t`.
    pub statement: String,
    /// Its name as a folder's, which no other job of the session has.
    pub folder: String,
}

/// What a statement gave.
#[derive(Debug)]
pub enum Outcome {
    /// It is done; what was done.
    Done(String),
    /// A table that is there at once: `SHOW`, `DESCRIBE`, `EXPLAIN`, `SET`.
    Table(Rows),
    /// A running query.
    Query(Query),
    /// A running `INSERT`; [`Session::jobs`] has its id.
    Job(JobHandle),
    /// A word for the shell.
    Shell(ShellWord),
}

/// Statements that only a shell can act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShellWord {
    /// `HELP`
    Help,
    /// `QUIT`, `EXIT`
    Quit,
    /// `CLEAR`
    Clear,
}

impl Session {
    /// A session of its own engine, with all cores unless the settings say otherwise.
    pub fn new(settings: Settings) -> Result<Self> {
        Self::with_engine(settings, |engine| engine)
    }

    /// The same, whose engine is changed before anything runs in it: told of every event, for tests.
    pub fn with_engine(mut settings: Settings, change: impl FnOnce(Engine) -> Engine) -> Result<Self> {
        // Subtasks are no threads: in one process slots bound only what somebody wants to have bounded.
        let slots = settings.task_slots();
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        for key in ["parallelism.default", "taskmanager.numberOfTaskSlots"] {
            if !settings.is_set(key) {
                settings.set(key, &cores.to_string(), Origin::Default)?;
            }
        }
        let dirs = temporary_dirs(&settings)?;
        let engine = Engine::new(dirs)?.with_memory(managed_pool(&settings));
        let stores = Stores::new(engine.io_handle());
        let fetcher = StoreFetcher::new(stores.with_settings(settings.stores()));
        let mut engine = engine.with_files(Arc::new(fetcher));
        if let Some(slots) = slots {
            engine = engine.with_slots(slots);
        }
        let engine = Arc::new(change(engine));
        let base = base_state(&settings, engine.environment())?;
        Ok(Self {
            settings,
            catalog: Catalog::default(),
            stores,
            base,
            jobs: Vec::new(),
            folders: None,
            warnings: Vec::new(),
            engine,
        })
    }

    /// The settings now.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The settings, to be changed.
    pub fn settings_mut(&mut self) -> &mut Settings {
        &mut self.settings
    }

    /// The engine that jobs run in.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The tables and views.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// The stores that URLs lead to, reached as the settings say now.
    pub fn stores(&self) -> Stores {
        self.stores.with_settings(self.settings.stores())
    }

    /// The stores that URLs lead to, to be added to.
    pub fn stores_mut(&mut self) -> &mut Stores {
        &mut self.stores
    }

    /// The jobs that `INSERT` started, oldest first.
    pub fn jobs(&self) -> &[SessionJob] {
        &self.jobs
    }

    /// What deserves a word but is no error, since it was last asked for.
    pub fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    /// Waits for `future` on this thread.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.engine.block_on(future)
    }

    /// Executes one statement and waits until it is done, or begins to give rows.
    pub fn run(&mut self, parsed: &Parsed) -> Result<Outcome> {
        let engine = self.engine.clone();
        engine.block_on(self.execute(parsed))
    }

    /// Executes one statement. A query or job is running when this returns, and goes on by itself.
    pub async fn execute(&mut self, parsed: &Parsed) -> Result<Outcome> {
        match self.dispatch(parsed).await {
            Ok(outcome) => Ok(outcome),
            Err(error) => Err(self.placed(parsed, error).await),
        }
    }

    async fn dispatch(&mut self, parsed: &Parsed) -> Result<Outcome> {
        Ok(match &parsed.statement {
            Statement::Query(_) => Outcome::Query(self.query(parsed).await?),
            Statement::CreateTable(_) => self.create_table(parsed).await?,
            Statement::CreateView(create) => self.create_view(parsed, create).await?,
            Statement::Drop(drop) => self.drop_relation(drop)?,
            Statement::Insert(_) | Statement::StatementSet(_) => Outcome::Job(self.insert(parsed).await?),
            Statement::Set(Some((key, value))) => {
                self.warnings.extend(self.settings.set(key, value, Origin::Statement)?);
                if READ_AT_START.contains(&key.as_str()) {
                    self.warnings.push(format!("'{key}' is read when a process starts: give it with -D or in a file"));
                }
                Outcome::Done(format!("{key} is set"))
            }
            Statement::Set(None) => Outcome::Table(self.all_settings()?),
            Statement::Reset(key) => {
                self.settings.reset(key.as_deref())?;
                Outcome::Done(
                    key.as_ref().map_or_else(|| "all settings are reset".to_owned(), |key| format!("{key} is reset")),
                )
            }
            Statement::Explain(explain) => Outcome::Table(self.explain(parsed, explain).await?),
            Statement::Describe(name) => Outcome::Table(self.describe(name).await?),
            Statement::Show(show) => Outcome::Table(self.show(show).await?),
            Statement::StopJob { id, savepoint, drain } => match *savepoint || *drain {
                true => self.stop_job(id, *drain).await?,
                false => self.cancel_job(id)?,
            },
            Statement::CancelJob { id } => self.cancel_job(id)?,
            Statement::Help => Outcome::Shell(ShellWord::Help),
            Statement::Quit => Outcome::Shell(ShellWord::Quit),
            Statement::Clear => Outcome::Shell(ShellWord::Clear),
            Statement::Other(_) => self.other(parsed).await?,
        })
    }

    /// The functions and options of a statement that begins now.
    pub(super) fn state(&self) -> SessionState {
        statement_state(&self.base, &self.settings, self.engine.environment())
    }

    /// A name that no other session or process has, wherever it runs, and that is not given twice: the time, so that
    /// names sort by it, chance and a number.
    pub(super) fn run_id(&self) -> String {
        let environment = self.engine.environment();
        let number = RUNS.fetch_add(1, Ordering::Relaxed);
        format!("{:x}-{:x}-{number}", environment.clock.now_millis(), environment.seed)
    }

    /// Whether somebody has asked for checkpoints: what a command takes for granted does not count.
    pub(super) fn wants_checkpoints(&self) -> bool {
        let key = "execution.checkpointing.interval";
        let origin = self.settings.all().into_iter().find(|(name, ..)| *name == key).map(|(.., origin)| origin);
        origin.is_some_and(|origin| origin != Origin::Default) && self.settings.checkpoints().interval.is_some()
    }

    /// Keeps a word for [`Session::take_warnings`].
    pub(super) fn warn(&mut self, warning: String) {
        self.warnings.push(warning);
    }

    /// Part of the names of the files that a job's sink writes: no other sink has it, and a job that goes on keeps it. `sink` is
    /// the uid of one of several.
    pub(super) fn writer(&self, job: &NewJob, sink: Option<&str>) -> String {
        let run = match &self.folders {
            Some(folders) => folders.id.to_string(),
            None => self.run_id(),
        };
        match sink {
            Some(sink) => format!("{run}-{:016x}", xxh3_64(format!("{} {sink}", job.folder).as_bytes())),
            None if self.folders.is_some() => format!("{run}-{}", job.folder),
            None => run,
        }
    }

    /// What connectors may know of whoever uses a table; who writes to it has a [name](Self::writer).
    pub(super) fn table_context(&self, writer: Option<String>, disposition: Disposition) -> TableContext {
        TableContext {
            job: writer.unwrap_or_else(|| self.run_id()).into(),
            parallelism: self.settings.parallelism(),
            disposition,
            partitioned_by: Arc::default(),
            time_zone: Arc::from(self.settings.local_time_zone()),
            stores: self.stores(),
        }
    }

    /// Files a started job under a new id.
    pub(super) fn started(&mut self, NewJob { name, folder }: NewJob, handle: JobHandle) -> JobHandle {
        let id = (self.jobs.len() + 1).to_string();
        self.jobs.push(SessionJob { id, handle: handle.clone(), statement: name, folder });
        handle
    }

    fn job(&self, id: &str) -> Result<&SessionJob> {
        let job = self.jobs.iter().find(|job| job.id == id);
        job.ok_or_else(|| Error::request(format!("no job '{id}'")).with_hint("`SHOW JOBS` lists them"))
    }

    fn cancel_job(&self, id: &str) -> Result<Outcome> {
        self.job(id)?.handle.cancel_by_user();
        Ok(Outcome::Done(format!("job {id} is being cancelled")))
    }

    /// Ends a job behind a savepoint (SVP-07).
    async fn stop_job(&self, id: &str, drain: bool) -> Result<Outcome> {
        let job = self.job(id)?;
        let dir = self.settings.checkpoints().savepoint_dir.ok_or_else(|| {
            let error = Error::request("there is no place for savepoints");
            error.with_hint("SET 'execution.checkpointing.savepoint-dir' = '…'")
        })?;
        let name = format!("{}-{}", job.folder, self.run_id());
        let folder = store_folder(&self.stores().resolve(&dir)?.child(&name));
        let url = folder.url.clone();
        job.handle.control().await?.stop(drain, Some(folder)).await?;
        job.handle.wait().await?;
        Ok(Outcome::Done(format!("job {id} has stopped; its savepoint is {url}")))
    }
}

/// The folders of `io.tmp.dirs`, made where they are missing: a full disk is found late, a wrong path need not be.
fn temporary_dirs(settings: &Settings) -> Result<Vec<PathBuf>> {
    let dirs: Vec<PathBuf> = settings.temporary_dirs().into_iter().map(PathBuf::from).collect();
    for dir in &dirs {
        std::fs::create_dir_all(dir).map_err(|error| {
            let error = Error::from(error).context(format!("setting 'io.tmp.dirs': '{}'", dir.display()));
            error.with_hint("name folders that can be written to")
        })?;
    }
    Ok(dirs)
}
