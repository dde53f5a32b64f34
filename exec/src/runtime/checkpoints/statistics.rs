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
    /// Where it lies.
    pub path: String,
    /// Why it failed.
    pub failure: Option<String>,
}

/// The last checkpoints of a job. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct CheckpointStatistics(Arc<Mutex<VecDeque<CheckpointInfo>>>);

impl CheckpointStatistics {
    /// The last checkpoints, oldest first.
    pub fn all(&self) -> Vec<CheckpointInfo> {
        self.lock().iter().cloned().collect()
    }

    pub(super) fn begin(&self, info: CheckpointInfo) {
        let mut all = self.lock();
        if all.len() == REMEMBERED {
            all.pop_front();
        }
        all.push_back(info);
    }

    pub(super) fn update(&self, id: CheckpointId, change: impl FnOnce(&mut CheckpointInfo)) {
        if let Some(info) = self.lock().iter_mut().find(|info| info.id == id) {
            change(info);
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<CheckpointInfo>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
