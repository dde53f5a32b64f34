//! Waiting for something while the progress line moves and Ctrl-C and SIGTERM are heard.

use std::pin::{Pin, pin};
use std::time::{Duration, Instant};

use tidemill_exec::runtime::JobHandle;
use tokio::time::{Interval, MissedTickBehavior};

use super::progress::Progress;
use super::report::Stop;
use super::termination::Termination;

const TICK: Duration = Duration::from_millis(200);

/// How long a cancelled job may take to clean up before it is left alone.
pub const CLEANUP: Duration = Duration::from_secs(10);

/// Watches over one statement.
pub struct Watch {
    progress: Progress,
    ticks: Interval,
    job: Option<JobHandle>,
    // Kept over all waits: a signal that comes between two of them counts for the second.
    interrupt: Pin<Box<dyn Future<Output = std::io::Result<()>>>>,
    termination: Termination,
}

impl Watch {
    /// Watches a statement that began at `started`. Must be called within a runtime.
    pub fn new(started: Instant, progress: bool, termination: Termination) -> Self {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            progress: Progress::new(started, progress),
            ticks,
            job: None,
            interrupt: Box::pin(tokio::signal::ctrl_c()),
            termination,
        }
    }

    /// From now on the statement is this job.
    pub fn job(&mut self, job: &JobHandle) {
        self.job = Some(job.clone());
    }

    /// Nothing is shown on the terminal any more, because rows are.
    pub fn hide(&mut self) {
        self.progress.clear();
        self.progress = Progress::new(self.started(), false);
    }

    /// Takes the progress line away for now.
    pub fn clear(&mut self) {
        self.progress.clear();
    }

    /// When the statement began.
    pub fn started(&self) -> Instant {
        self.progress.started()
    }

    /// How long the statement has taken.
    pub fn elapsed(&self) -> String {
        self.progress.elapsed()
    }

    /// Waits for `future`, or for Ctrl-C or SIGTERM, which cancel the job.
    pub async fn wait<T>(&mut self, future: impl Future<Output = T>) -> Result<T, Stop> {
        let mut future = pin!(future);
        loop {
            tokio::select! {
                biased;
                interrupt = &mut self.interrupt => {
                    interrupt.map_err(tidemill_core::Error::from)?;
                    self.interrupt = Box::pin(tokio::signal::ctrl_c());
                    self.cancel();
                    return Err(Stop::Interrupted);
                }
                () = self.termination.heard() => {
                    self.cancel();
                    return Err(Stop::Terminated);
                }
                output = &mut future => return Ok(output),
                _ = self.ticks.tick() => self.progress.tick(self.job.as_ref()),
            }
        }
    }

    fn cancel(&mut self) {
        self.clear();
        if let Some(job) = &self.job {
            job.cancel();
        }
    }

    /// Waits until a cancelled job has cleaned up; not for ever, and a second Ctrl-C ends it.
    pub async fn settle(&mut self) {
        if let Some(job) = self.job.clone() {
            let _ = self.wait(tokio::time::timeout(CLEANUP, job.wait())).await;
        }
    }
}
