//! One statement: executed, watched over, shown.

use std::time::Instant;

use datafusion::sql::sqlparser::ast::{LimitClause, Query as SqlQuery};
use tidemill::sql::parser::{Parsed, Statement};
use tidemill::sql::{Outcome, Query, Rows, Session, ShellWord};
use tidemill_core::metrics::{LATE_RECORDS_DROPPED, RECORDS_SKIPPED};
use tidemill_core::time::Calendar;
use tidemill_core::{Error, Result, Settings};
use tidemill_exec::runtime::JobHandle;
use tokio::runtime::Handle;

use super::jobs::Jobs;
use super::output::Output;
use super::report::{Reporter, Stop};
use super::results::{self, Mode, Shown, View};
use super::shell::HELP;
use super::terminal::{counted, grouped};
use super::termination::Terminations;
use super::watch::{CLEANUP, Watch};

/// What a runner starts with.
#[derive(Debug)]
pub struct Setting {
    /// The settings before any `SET`.
    pub settings: Settings,
    /// Where and how results are shown.
    pub output: Output,
    /// Whether someone sits in front: `INSERT` does not wait then.
    pub interactive: bool,
}

/// Runs statements in one session and shows what they give.
pub struct Runner {
    session: Session,
    output: Output,
    reporter: Reporter,
    jobs: Jobs,
    interactive: bool,
    runtime: Handle,
    terminations: Terminations,
}

impl Runner {
    /// A runner with a session of its own. Gives the reporter back with the error, which is to be reported.
    pub fn new(setting: Setting, reporter: Reporter) -> Result<Self, (Reporter, Error)> {
        let Setting { settings, output, interactive } = setting;
        let session = match Session::new(settings) {
            Ok(session) => session,
            Err(error) => return Err((reporter, error)),
        };
        // The session is borrowed while a statement runs, so waiting goes through the runtime itself.
        let runtime = session.block_on(async { Handle::current() });
        let terminations = match Terminations::listen(&runtime) {
            Ok(terminations) => terminations,
            Err(error) => return Err((reporter, error)),
        };
        Ok(Self { session, output, reporter, jobs: Jobs::default(), interactive, runtime, terminations })
    }

    /// The session.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Where errors and notes go.
    pub fn reporter(&mut self) -> &mut Reporter {
        &mut self.reporter
    }

    /// Runs one statement to its end, or starts it where it is to go on by itself.
    pub fn statement(&mut self, parsed: &Parsed) -> Result<(), Stop> {
        let runtime = self.runtime.clone();
        runtime.block_on(self.run(parsed))
    }

    /// Runs a statement and gives its rows instead of showing them.
    pub fn rows(&mut self, parsed: &Parsed) -> Result<Option<Rows>> {
        match self.session.run(parsed)? {
            Outcome::Table(rows) => Ok(Some(rows)),
            _ => Ok(None),
        }
    }

    /// Waits for the jobs that still run: they would end with the process.
    pub fn finish(&mut self) -> Result<(), Stop> {
        let runtime = self.runtime.clone();
        let mut failed = Ok(());
        for job in self.jobs.untold(&self.session) {
            self.jobs.tell(&job.id);
            match runtime.block_on(self.wait_for(&job.handle, Instant::now())) {
                // The first failure is the one to report; the other jobs may still end well.
                Err(Stop::Failed(error)) if failed.is_ok() => {
                    failed = Err(Stop::Failed(error.context(format!("job {}", job.id))));
                }
                Err(Stop::Failed(error)) => self.reporter.error(&error.context(format!("job {}", job.id)), ""),
                Err(stop) => return Err(stop),
                Ok(()) => {}
            }
        }
        failed
    }

    /// Cancels the jobs that still run, because the process ends before them, and waits until they have cleaned up.
    pub fn abandon(&mut self) {
        let running: Vec<JobHandle> = Jobs::running(&self.session).iter().map(|job| job.handle.clone()).collect();
        running.iter().for_each(JobHandle::cancel);
        let ended = futures::future::join_all(running.iter().map(JobHandle::wait));
        let terminations = self.terminations.subscribe_anew();
        self.runtime.block_on(async {
            let mut watch = Watch::new(Instant::now(), false, terminations);
            // Whatever happens now, the process ends.
            let _ = watch.wait(tokio::time::timeout(CLEANUP, ended)).await;
        });
    }

    /// Says which jobs have ended since the last call.
    pub fn news(&mut self) {
        for line in self.jobs.news(&self.session) {
            self.reporter.note(&line);
        }
    }

    async fn run(&mut self, parsed: &Parsed) -> Result<(), Stop> {
        let mut watch = Watch::new(Instant::now(), self.reporter.is_terminal(), self.terminations.subscribe());
        let outcome = watch.wait(self.session.execute(parsed)).await?;
        watch.clear();
        for warning in self.session.take_warnings() {
            self.reporter.warn(&warning);
        }
        match outcome? {
            Outcome::Done(message) => self.reporter.note(&message),
            Outcome::Table(rows) => self.table(&rows, &watch)?,
            Outcome::Query(query) => self.query(query, parsed, &mut watch).await?,
            Outcome::Job(job) => self.job(&job, parsed, watch.started()).await?,
            Outcome::Shell(ShellWord::Help) => self.output.write(HELP.as_bytes())?,
            Outcome::Shell(ShellWord::Clear) if self.output.is_terminal() => {
                self.output.write(b"\x1b[H\x1b[2J\x1b[3J")?;
            }
            Outcome::Shell(ShellWord::Clear) => {}
            Outcome::Shell(ShellWord::Quit) => return Err(Stop::Quit),
        }
        Ok(())
    }

    fn table(&mut self, rows: &Rows, watch: &Watch) -> Result<(), Stop> {
        results::table(rows, self.zone()?, &self.output)?;
        self.reporter.note(&format!("{} in {}", counted(rows.num_rows() as u64, "row"), watch.elapsed()));
        Ok(())
    }

    async fn query(&mut self, mut query: Query, parsed: &Parsed, watch: &mut Watch) -> Result<(), Stop> {
        watch.job(&query.job);
        let view = View {
            mode: Mode::of(self.session.settings().get("sql-client.execution.result-mode")?),
            zone: self.zone()?,
            ends: query.bounded || (query.append_only && is_limited(&parsed.statement)),
        };
        let mut shown = Shown::default();
        let ended = results::show(&mut query, view, &self.output, watch, &mut shown).await;
        watch.clear();
        if let Err(stop) = &ended {
            query.job.cancel();
            watch.settle().await;
            if !matches!(stop, Stop::Interrupted) {
                return ended;
            }
        } else {
            watch.wait(query.job.wait()).await??;
        }
        if let Some(left_out) = &shown.left_out {
            self.reporter.note(left_out);
        }
        let noun = if shown.changes { "change" } else { "row" };
        let remarks = remarks(&query.job);
        self.reporter.note(&format!("{} in {}{remarks}", counted(shown.rows, noun), watch.elapsed()));
        // A live view has no other end than Ctrl-C: in the shell that is as good as any.
        match ended {
            Err(Stop::Interrupted) if self.interactive && !view.ends => Ok(()),
            ended => ended,
        }
    }

    async fn job(&mut self, job: &JobHandle, parsed: &Parsed, started: Instant) -> Result<(), Stop> {
        let id = Jobs::newest(&self.session).map(|job| job.id.clone()).unwrap_or_default();
        let is_insert = matches!(parsed.statement, Statement::Insert(_) | Statement::StatementSet(_));
        let waits = self.session.settings().dml_sync().unwrap_or(!self.interactive);
        if is_insert && !waits {
            self.reporter.note(&format!("job {id} is running: {}; SHOW JOBS, CANCEL JOB '{id}'", job.name()));
            return Ok(());
        }
        self.jobs.tell(&id);
        self.wait_for(job, started).await
    }

    async fn wait_for(&mut self, job: &JobHandle, started: Instant) -> Result<(), Stop> {
        let mut watch = Watch::new(started, self.reporter.is_terminal(), self.terminations.subscribe());
        watch.job(job);
        let ended = watch.wait(job.wait()).await;
        watch.clear();
        match ended {
            Ok(result) => {
                result?;
                self.reporter.note(&format!("{} done in {}{}", job.name(), watch.elapsed(), remarks(job)));
                Ok(())
            }
            Err(stop) => {
                watch.settle().await;
                Err(stop)
            }
        }
    }

    fn zone(&self) -> Result<Calendar> {
        Calendar::parse(self.session.settings().local_time_zone())
    }
}

/// Rows that did not make it into the result, where there are any.
fn remarks(job: &JobHandle) -> String {
    let tasks = job.metrics().by_task();
    let total = |counter| tasks.iter().filter_map(|(_, counters)| counters.get(counter)).sum::<u64>();
    let mut text = String::new();
    for (count, what) in
        [(total(LATE_RECORDS_DROPPED), "dropped as late"), (total(RECORDS_SKIPPED), "skipped as unreadable")]
    {
        if count > 0 {
            text.push_str(&format!(", {} {what}", grouped(count)));
        }
    }
    text
}

/// Whether a query over rows that never end ends all the same: the first rows are enough for `LIMIT`, unless they are sorted.
fn is_limited(statement: &Statement) -> bool {
    let Statement::Query(query) = statement else { return false };
    let SqlQuery { limit_clause, fetch, order_by, .. } = query.as_ref();
    let limit = match limit_clause {
        Some(LimitClause::LimitOffset { limit, .. }) => limit.is_some(),
        Some(LimitClause::OffsetCommaLimit { .. }) => true,
        None => false,
    };
    order_by.is_none() && (limit || fetch.is_some())
}
