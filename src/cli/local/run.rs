//! `tidemill run --local`: the jobs of a script, in this process, from where the last one left them.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidemill::sql::parser::{Parsed, Statement, parse_script};
use tidemill::sql::{JobFolders, Outcome, Session, SessionJob, store_folder};
use tidemill_core::settings::{Origin, StateRecovery};
use tidemill_core::{Error, Result, Settings};
use tidemill_exec::checkpoint::dispose_savepoint;
use tidemill_exec::runtime::{Ending, JobResult};
use tokio::runtime::Handle;

use super::control::Control;
use super::folder::{BegunFrom, Folder, FolderBegin, OnThisMachine, default_dir};
use crate::cli::args::{Run, SettingArguments};
use crate::cli::config;
use crate::cli::report::{Reporter, Stop};
use crate::cli::script::Script;
use crate::cli::termination::Terminations;
use crate::cli::watch::Watch;

/// Time between checkpoints where nobody says otherwise.
const INTERVAL: &str = "10 s";

/// How often failures are looked for.
const LOOK: Duration = Duration::from_millis(200);

/// Runs the command.
pub fn run(arguments: &Run) -> ExitCode {
    let mut reporter = Reporter::new();
    let (session, script) = match prepare(arguments, &mut reporter) {
        Ok(prepared) => prepared,
        Err(error) => return reporter.usage(&error),
    };
    match run_script(session, &script, arguments, &mut reporter) {
        Ok(()) => ExitCode::SUCCESS,
        Err(stop) => reporter.stopped(&stop),
    }
}

fn prepare(arguments: &Run, reporter: &mut Reporter) -> Result<(Session, Script)> {
    if !arguments.local {
        return Err(Error::request("there is no cluster to run on yet").with_hint("run it here with --local"));
    }
    let (mut settings, warnings) = config::load(&arguments.settings)?;
    warnings.iter().for_each(|warning| reporter.warn(warning));
    if !settings.is_set("execution.checkpointing.interval") {
        settings.set("execution.checkpointing.interval", INTERVAL, Origin::Default)?;
    }
    let given = [
        ("execution.state-recovery.path", arguments.from_savepoint.clone()),
        ("pipeline.name", arguments.name.clone()),
        ("execution.state-recovery.claim-mode", arguments.claim_mode.clone()),
        (
            "execution.state-recovery.ignore-unclaimed-state",
            arguments.allow_non_restored_state.then(|| "true".to_owned()),
        ),
    ];
    for (key, value) in given {
        if let Some(value) = value {
            settings.set(key, &value, Origin::CommandLine)?;
        }
    }
    let script = crate::cli::read_script(&arguments.file)?;
    Ok((Session::new(settings)?, script))
}

fn run_script(mut session: Session, script: &Script, arguments: &Run, reporter: &mut Reporter) -> Result<(), Stop> {
    let runtime: Handle = session.block_on(async { Handle::current() });
    let terminations = Terminations::listen(&runtime)?;
    let statements = parse_script(script.text()).map_err(|error| script.failed(error, None))?;
    let selects = statements.iter().find(|parsed| matches!(parsed.statement, Statement::Query(_)));
    if let Some(select) = selects {
        let error = Error::request("a SELECT shows rows, and a job has nobody to show them to");
        return Err(script.failed(error.with_hint("run it with 'tidemill sql', or INSERT what it gives"), Some(select)));
    }
    let jobs = statements.iter().filter(|parsed| is_insert(&parsed.statement)).count();
    if jobs == 0 {
        return Err(Error::request("the script has no INSERT, so there is no job to run").into());
    }
    if jobs > 1 && begins_from_savepoint(session.settings().clone(), &statements) {
        let error = Error::request(format!("a savepoint belongs to one job, and the script has {jobs}"));
        return Err(error.with_hint("put them into a statement set, or run them one by one").into());
    }
    // Settings in the script say where checkpoints go, so they come before anything is started.
    let mut folder = None;
    for parsed in &statements {
        if is_insert(&parsed.statement) && folder.is_none() {
            folder = Some(take_folder(&mut session, arguments, &statements)?);
        }
        let outcome = session.run(parsed);
        session.take_warnings().iter().for_each(|warning| reporter.warn(warning));
        match outcome.map_err(|error| script.failed(error, Some(parsed)))? {
            Outcome::Job(_) | Outcome::Done(_) | Outcome::Table(_) | Outcome::Shell(_) => {}
            Outcome::Query(query) => query.job.cancel(),
        }
    }
    let jobs = session.jobs().to_vec();
    let control = match &folder {
        Some(folder) => {
            Some(runtime.block_on(Control::listen(folder, jobs.clone(), session.settings(), session.stores()))?)
        }
        None => None,
    };
    let ended = runtime.block_on(watch(&jobs, reporter, &terminations));
    if let Some(control) = control {
        runtime.block_on(control.close());
    }
    ended
}

fn is_insert(statement: &Statement) -> bool {
    matches!(statement, Statement::Insert(_) | Statement::StatementSet(_))
}

/// Whether one of the jobs is to begin from a savepoint, by what the settings say when its turn comes.
fn begins_from_savepoint(mut settings: Settings, statements: &[Parsed]) -> bool {
    for Parsed { statement, .. } in statements {
        match statement {
            // What cannot be set is an error of its own when its turn comes.
            Statement::Set(Some((key, value))) => drop(settings.set(key, value, Origin::Statement)),
            Statement::Reset(key) => drop(settings.reset(key.as_deref())),
            statement if is_insert(statement) && settings.state_recovery().path.is_some() => return true,
            _ => {}
        }
    }
    false
}

fn take_folder(session: &mut Session, arguments: &Run, script: &[Parsed]) -> Result<Folder> {
    let beside = default_dir(&arguments.file);
    let url = session.settings().checkpoints().dir.unwrap_or_else(|| beside.display().to_string());
    let new_id = format!("{:x}-{:x}", session.engine().environment().seed, std::process::id());
    let dir = session.resolve(&url)?;
    let StateRecovery { path, claims, .. } = session.settings().state_recovery();
    let from = path.map(|savepoint| BegunFrom { savepoint, claims });
    let begin = FolderBegin { from, resume: arguments.resume };
    let locks = config::xdg("XDG_STATE_HOME", ".local/state").map(|state| state.join("tidemill/locks"));
    let here = OnThisMachine { beside: &beside, locks: locks.as_deref() };
    let folder = session.block_on(Folder::take(dir, here, new_id, begin, script))?;
    session.set_job_folders(JobFolders {
        dir: folder.dir.clone(),
        id: Arc::from(folder.id.as_str()),
        resume: arguments.resume,
        origin: folder.from.as_ref().map(|from| from.savepoint.clone()),
        claims: folder.from.as_ref().is_some_and(|from| from.claims),
        statements: folder.statements.clone(),
    });
    Ok(folder)
}

/// Waits for all jobs, and says what there is to say about each.
async fn watch(jobs: &[SessionJob], reporter: &mut Reporter, terminations: &Terminations) -> Result<(), Stop> {
    let mut failure = None;
    let mut watch = Watch::new(Instant::now(), reporter.is_terminal(), terminations.subscribe());
    let mut told = BTreeMap::new();
    for job in jobs {
        watch.job(&job.handle);
        begin(job, reporter, &mut watch).await?;
    }
    for job in jobs {
        watch.job(&job.handle);
        let ended = loop {
            let look = tokio::time::timeout(LOOK, job.handle.wait());
            match watch.wait(look).await {
                Ok(Ok(result)) => break Ok(result),
                Ok(Err(_)) => {
                    for job in jobs.iter().filter(|job| job.handle.outcome().is_none()) {
                        tell_failures(job, &mut told, reporter, &mut watch);
                    }
                }
                Err(stop) => break Err(stop),
            }
        };
        watch.clear();
        match ended {
            Ok(Ok(result)) => {
                tell_failures(job, &mut told, reporter, &mut watch);
                reporter.note(&ending(job, &result));
            }
            Ok(Err(error)) => {
                let error = error.context(job.handle.name());
                match failure {
                    // The first failure is the one to report; the other jobs may still end well.
                    None => failure = Some(error),
                    Some(_) => reporter.error(&error, ""),
                }
            }
            Err(stop) => {
                jobs.iter().for_each(|job| job.handle.cancel());
                watch.settle().await;
                reporter.note("the job goes on from its last checkpoint with --resume");
                return Err(stop);
            }
        }
    }
    failure.map_or(Ok(()), |error| Err(Stop::Failed(error)))
}

/// Says why a job has restarted since it was last `told`: the number of its last failure then.
fn tell_failures(job: &SessionJob, told: &mut BTreeMap<String, usize>, reporter: &mut Reporter, watch: &mut Watch) {
    let before = told.insert(job.id.clone(), job.handle.failure_count()).unwrap_or_default();
    for failure in job.handle.failures().iter().filter(|failure| failure.number > before) {
        watch.clear();
        reporter.note(&format!("{} restarts: {}", job.statement, failure.error));
    }
}

/// Says from where a job goes on.
async fn begin(job: &SessionJob, reporter: &mut Reporter, watch: &mut Watch) -> Result<(), Stop> {
    let from = match watch.wait(job.handle.resumed_from()).await? {
        Ok(from) => from,
        // Its outcome says why.
        Err(_) => return Ok(()),
    };
    watch.clear();
    if let Some(from) = from {
        reporter.note(&format!("{} goes on from checkpoint {} in {}", job.statement, from.checkpoint, from.url));
        for (source, position) in from.source_positions {
            reporter.note(&format!("  {source}: {position}"));
        }
    }
    Ok(())
}

fn ending(job: &SessionJob, result: &JobResult) -> String {
    let name = &job.statement;
    let restarts = match job.handle.restart_count() {
        0 => String::new(),
        restarts => format!(", after {restarts} restarts"),
    };
    match result.ending {
        Ending::Finished => format!("{name} done in {:.1?}{restarts}", result.duration),
        Ending::Stopped => format!("{name} stopped; --resume goes on{restarts}"),
        Ending::Drained => format!("{name} drained and stopped; it has finished{restarts}"),
        Ending::FinishedBefore => format!("{name} finished before, and was not run again"),
    }
}

/// Deletes a savepoint.
pub fn dispose(path: &str) -> Result<()> {
    let (settings, _) = config::load(&SettingArguments::default())?;
    let session = Session::new(settings)?;
    let folder = store_folder(&session.resolve(path)?);
    let clock = session.engine().environment().clock.clone();
    session.block_on(dispose_savepoint(folder.store, &folder.root, clock)).map_err(|error| error.context(path))
}
