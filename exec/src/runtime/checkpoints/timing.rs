//! When the coordinator does something by itself: it triggers, lets barriers overtake rows, gives up.

use std::time::Duration;

use tidemill_core::event::{BarrierKind, CheckpointId};
use tidemill_core::{Error, Result};

use super::Checkpointer;
use super::pending::Pending;

impl Checkpointer {
    /// When something is due next.
    pub(super) fn deadline(&self) -> Option<Duration> {
        let pending = self.attempt.pending.values();
        let timeout = pending.map(|pending| pending.triggered + self.settings.timeout).min();
        let stored = self.storing.as_ref().and_then(|storing| storing.expires(self.settings.timeout));
        timeout.into_iter().chain(stored).chain(self.next_trigger()).chain(self.next_overtaking()).min()
    }

    /// When the barriers of the checkpoint that is under way overtake rows. A savepoint holds none, and nothing overtakes it.
    fn next_overtaking(&self) -> Option<Duration> {
        let (_, first) = self.attempt.pending.first_key_value()?;
        let may_overtake = matches!(first.barrier.kind, BarrierKind::Checkpoint | BarrierKind::FullCheckpoint);
        let timeout = self.settings.aligned_timeout.filter(|_| may_overtake && !first.is_overtaking)?;
        Some(first.triggered + timeout)
    }

    pub(super) fn overtake_if_due(&mut self) {
        let now = self.environment.clock.monotonic();
        if self.next_overtaking().is_some_and(|due| due <= now)
            && let Some(mut first) = self.attempt.pending.first_entry()
        {
            first.get_mut().is_overtaking = true;
            let id = *first.key();
            self.attempt.overtake(id);
        }
    }

    fn next_trigger(&self) -> Option<Duration> {
        let may_trigger = !self.is_stopping && self.under_way() < self.settings.max_concurrent;
        let due = self.due.filter(|_| may_trigger)?;
        Some(due.max(self.decided + self.settings.min_pause))
    }

    pub(super) fn on_time(&mut self) -> Result<()> {
        let now = self.environment.clock.monotonic();
        self.expire_storing(now)?;
        let is_late = |pending: &&Pending| pending.triggered + self.settings.timeout <= now;
        let late: Vec<CheckpointId> =
            self.attempt.pending.values().filter(is_late).map(|pending| pending.barrier.id).collect();
        for id in late {
            let late = Error::unavailable(format!("it took longer than the timeout of {:?}", self.settings.timeout));
            self.give_up(id, &late, true)?;
        }
        self.overtake_if_due();
        if self.next_trigger().is_some_and(|due| due <= now) {
            self.due = self.settings.interval.map(|interval| now + interval);
            self.trigger(BarrierKind::Checkpoint, None);
        }
        Ok(())
    }
}
