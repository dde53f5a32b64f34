//! What is remembered of checkpoints, for whoever looks.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tidemill_core::event::CheckpointId;

/// How many are remembered.
const REMEMBERED: usize = 100;

/// What became of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckpointStatus {
    /// Not decided yet.
    Pending,
    /// Durable.
    Completed,
    /// Given up.
    Failed,
}

/// One checkpoint or savepoint.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CheckpointInfo {
    /// Its number.
    pub id: CheckpointId,
    /// What it is: `checkpoint`, `full checkpoint`, `savepoint`, `stop`.
    pub kind: &'static str,
    /// What became of it.
    pub status: CheckpointStatus,
    /// When it was triggered, in milliseconds since the epoch.
    pub triggered_at: i64,
    /// From the trigger until it was decided.
    pub duration: Duration,
    /// The longest that a task stood still for it.
    pub stalled: Duration,
    /// The longest that channels of a task aligned for it.
    pub alignment: Duration,
    /// Whether its barriers overtook rows.
    pub unaligned: bool,
    /// Bytes of the rows that they overtook.
    pub in_flight_bytes: u64,
    /// Bytes that were written for it.
    pub new_bytes: u64,
    /// Bytes of all files that it needs.
    pub total_bytes: u64,
    /// What to begin from it with: the URL of its manifest, or of its folder if it is a savepoint.
    pub path: String,
    /// Why it failed.
    pub failure: Option<String>,
}

impl CheckpointInfo {
    /// One that was triggered just now.
    pub(super) fn pending(id: CheckpointId, kind: &'static str, triggered_at: i64) -> Self {
        Self {
            id,
            kind,
            status: CheckpointStatus::Pending,
            triggered_at,
            duration: Duration::ZERO,
            stalled: Duration::ZERO,
            alignment: Duration::ZERO,
            unaligned: false,
            in_flight_bytes: 0,
            new_bytes: 0,
            total_bytes: 0,
            path: String::new(),
            failure: None,
        }
    }
}

/// How many checkpoints and savepoints of a job were decided, remembered or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckpointCounts {
    /// Durable ones.
    pub completed: u64,
    /// Those that were given up.
    pub failed: u64,
}

/// The last checkpoints of a job. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct CheckpointStatistics(Arc<Mutex<Statistics>>);

#[derive(Debug, Default)]
struct Statistics {
    last: VecDeque<CheckpointInfo>,
    counts: CheckpointCounts,
}

impl CheckpointStatistics {
    /// The last checkpoints, oldest first.
    pub fn all(&self) -> Vec<CheckpointInfo> {
        self.lock().last.iter().cloned().collect()
    }

    /// How many there were in all.
    pub fn counts(&self) -> CheckpointCounts {
        self.lock().counts
    }

    pub(super) fn begin(&self, info: CheckpointInfo) {
        let last = &mut self.lock().last;
        if last.len() == REMEMBERED {
            last.pop_front();
        }
        last.push_back(info);
    }

    pub(super) fn update(&self, id: CheckpointId, change: impl FnOnce(&mut CheckpointInfo)) {
        let Statistics { last, counts } = &mut *self.lock();
        let Some(info) = last.iter_mut().find(|info| info.id == id) else { return };
        let before = info.status;
        change(info);
        match (before, info.status) {
            (CheckpointStatus::Pending, CheckpointStatus::Completed) => counts.completed += 1,
            (CheckpointStatus::Pending, CheckpointStatus::Failed) => counts.failed += 1,
            // It was given up while the store had it, and the store made it durable all the same.
            (CheckpointStatus::Failed, CheckpointStatus::Completed) => {
                counts.failed -= 1;
                counts.completed += 1;
            }
            _ => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, Statistics> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoints_that_are_forgotten_still_count() {
        let statistics = CheckpointStatistics::default();
        for id in 1..=250 {
            statistics.begin(CheckpointInfo::pending(id, "checkpoint", 0));
            let status = if id % 5 == 0 { CheckpointStatus::Failed } else { CheckpointStatus::Completed };
            statistics.update(id, |info| info.status = status);
            // What is said of a checkpoint that was decided does not count again.
            statistics.update(id, |info| info.total_bytes = 7);
        }
        assert_eq!(statistics.counts(), CheckpointCounts { completed: 200, failed: 50 });
        assert_eq!(statistics.all().len(), REMEMBERED);
    }

    #[test]
    fn one_that_was_given_up_and_became_durable_all_the_same_is_complete() {
        let statistics = CheckpointStatistics::default();
        statistics.begin(CheckpointInfo::pending(1, "checkpoint", 0));
        for status in [CheckpointStatus::Failed, CheckpointStatus::Completed] {
            statistics.update(1, |info| info.status = status);
        }
        assert_eq!(statistics.counts(), CheckpointCounts { completed: 1, failed: 0 });
    }
}
