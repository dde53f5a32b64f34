//! One line on the terminal that says how a long statement is getting on.

use std::io::Write;
use std::time::{Duration, Instant};

use tidemill_core::metrics::RECORDS_OUT;
use tidemill_core::time::spoken;
use tidemill_exec::runtime::JobHandle;

use super::terminal::counted;

/// How long a statement may take before it is worth a line.
const PATIENCE: Duration = Duration::from_secs(1);

/// A line on standard error that is written again and again, and gone in the end.
#[derive(Debug)]
pub struct Progress {
    started: Instant,
    enabled: bool,
    is_shown: bool,
}

impl Progress {
    /// A line for a statement that began at `started`; never shown unless `enabled`.
    pub fn new(started: Instant, enabled: bool) -> Self {
        Self { started, enabled, is_shown: false }
    }

    /// Shows how long it has taken, and how many rows `job` has read so far.
    pub fn tick(&mut self, job: Option<&JobHandle>) {
        let elapsed = self.started.elapsed();
        if !self.enabled || elapsed < PATIENCE {
            return;
        }
        let elapsed = format!("{:.1} s", elapsed.as_secs_f64());
        let text = match job.map(rows_read) {
            Some(rows) => format!("{elapsed}, {} read; Ctrl-C cancels", counted(rows, "row")),
            None => format!("{elapsed}; Ctrl-C cancels"),
        };
        let mut stderr = std::io::stderr().lock();
        let _ = write!(stderr, "\r{text}\x1b[K").and_then(|()| stderr.flush());
        self.is_shown = true;
    }

    /// Takes the line away, so that something else can be written.
    pub fn clear(&mut self) {
        if std::mem::take(&mut self.is_shown) {
            let mut stderr = std::io::stderr().lock();
            let _ = write!(stderr, "\r\x1b[K").and_then(|()| stderr.flush());
        }
    }

    /// When the statement began.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// How long it has taken, in words.
    pub fn elapsed(&self) -> String {
        spoken(self.started.elapsed())
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Rows that the sources of a job gave out.
fn rows_read(job: &JobHandle) -> u64 {
    job.metrics().by_task().iter().filter_map(|(_, counters)| counters.get(RECORDS_OUT)).sum()
}
