//! The jobs that go on behind the shell: which still run, and which have ended since the last look.

use std::collections::BTreeSet;

use tidemill::sql::{Session, SessionJob};
use tidemill_core::ErrorKind;

/// What has been said about a session's jobs.
#[derive(Debug, Default)]
pub struct Jobs {
    /// Jobs whose end is known to whoever sits in front.
    told: BTreeSet<String>,
}

impl Jobs {
    /// The jobs that still run, oldest first.
    pub fn running(session: &Session) -> Vec<&SessionJob> {
        session.jobs().iter().filter(|job| job.handle.outcome().is_none()).collect()
    }

    /// The job that a statement has just started.
    pub fn newest(session: &Session) -> Option<&SessionJob> {
        session.jobs().last()
    }

    /// The end of this job needs no word any more.
    pub fn tell(&mut self, id: &str) {
        self.told.insert(id.to_owned());
    }

    /// The jobs of which nobody has been told that they ended, running ones too.
    pub fn untold(&self, session: &Session) -> Vec<SessionJob> {
        session.jobs().iter().filter(|job| !self.told.contains(&job.id)).cloned().collect()
    }

    /// A line for each job that has ended since the last call.
    pub fn news(&mut self, session: &Session) -> Vec<String> {
        let mut lines = Vec::new();
        for job in self.untold(session) {
            let Some(outcome) = job.handle.outcome() else { continue };
            self.tell(&job.id);
            let how = match outcome {
                Ok(_) => "finished".to_owned(),
                Err(error) if error.kind() == ErrorKind::Cancelled => "was cancelled".to_owned(),
                Err(error) => format!("failed: {error}"),
            };
            lines.push(format!("job {} ({}) {how}", job.id, job.handle.name()));
        }
        lines
    }
}
