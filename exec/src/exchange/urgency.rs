//! Whether a checkpoint can no longer wait for rows in one subtask (NCK-01).
//!
//! ```text
//! overtaking: the coordinator says that barriers of this checkpoint wait no longer
//! arrived:    one of its barriers stands in an input queue of the subtask, wherever in it
//! passed:     the subtask has sent its barriers on
//! ```
//!
//! Urgent is what is overtaking and has arrived and has not passed. From then on the subtask does not wait for credit, so that
//! it comes to rest although its consumers are behind, and its barrier leaves. What it may send without credit is bounded.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tidemill_core::event::CheckpointId;
use tokio::sync::Notify;

/// Bytes that a subtask may send without credit for one checkpoint; behind that it waits as ever, and the checkpoint with it.
const OVERDRAFT_BYTES: usize = 16 << 20;

/// How urgent a checkpoint is in one subtask. Its input channels, its output channels and the coordinator share it.
#[derive(Debug)]
pub struct Urgency {
    overtaking: AtomicU64,
    arrived: AtomicU64,
    passed: AtomicU64,
    /// Bytes that may still be sent without credit.
    overdraft: AtomicUsize,
    changed: Notify,
}

impl Default for Urgency {
    fn default() -> Self {
        Self {
            overtaking: AtomicU64::new(0),
            arrived: AtomicU64::new(0),
            passed: AtomicU64::new(0),
            overdraft: AtomicUsize::new(OVERDRAFT_BYTES),
            changed: Notify::new(),
        }
    }
}

impl Urgency {
    /// The barriers of a checkpoint wait for rows no longer.
    pub fn overtake(&self, checkpoint: CheckpointId) {
        self.overtaking.fetch_max(checkpoint, Ordering::AcqRel);
        self.changed.notify_one();
    }

    /// A barrier of a checkpoint stands in a queue of the subtask.
    pub fn arrive(&self, checkpoint: CheckpointId) {
        self.arrived.fetch_max(checkpoint, Ordering::AcqRel);
        self.changed.notify_one();
    }

    /// The subtask has sent the barriers of a checkpoint on, or never will.
    pub fn pass(&self, checkpoint: CheckpointId) {
        self.passed.fetch_max(checkpoint, Ordering::AcqRel);
        self.overdraft.store(OVERDRAFT_BYTES, Ordering::Release);
    }

    /// A checkpoint is given up. An earlier one is as urgent as it was.
    pub fn give_up(&self, checkpoint: CheckpointId) {
        if self.overtaking.load(Ordering::Acquire) >= checkpoint {
            self.pass(checkpoint);
        }
    }

    /// The checkpoint that is urgent.
    pub fn due(&self) -> Option<CheckpointId> {
        let overtaking = self.overtaking.load(Ordering::Acquire);
        let is_due =
            overtaking > self.passed.load(Ordering::Acquire) && self.arrived.load(Ordering::Acquire) >= overtaking;
        is_due.then_some(overtaking)
    }

    /// Whether so many bytes may be sent without credit; then they count.
    pub fn overdraw(&self, bytes: usize) -> bool {
        let take = |left: usize| left.checked_sub(bytes.max(1));
        self.due().is_some() && self.overdraft.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).is_ok()
    }

    /// Completes when something may have become urgent since the last wait. The subtask alone waits for it, in one place at a
    /// time.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urgent_is_what_overtakes_and_is_there_and_has_not_passed() {
        let urgency = Urgency::default();
        urgency.arrive(3);
        assert_eq!((urgency.due(), urgency.overdraw(1)), (None, false));
        urgency.overtake(4);
        assert_eq!(urgency.due(), None);
        urgency.arrive(4);
        assert_eq!((urgency.due(), urgency.overdraw(1)), (Some(4), true));
        urgency.pass(4);
        assert_eq!((urgency.due(), urgency.overdraw(1)), (None, false));
    }

    #[test]
    fn what_is_given_up_is_urgent_no_more_and_one_before_it_still_is() {
        let urgency = Urgency::default();
        urgency.overtake(4);
        urgency.arrive(4);
        urgency.give_up(5);
        assert_eq!(urgency.due(), Some(4));
        urgency.give_up(4);
        assert_eq!(urgency.due(), None);
    }

    #[test]
    fn what_goes_without_credit_is_bounded_for_each_checkpoint() {
        let urgency = Urgency::default();
        for checkpoint in 1..3 {
            urgency.overtake(checkpoint);
            urgency.arrive(checkpoint);
            assert!(urgency.overdraw(OVERDRAFT_BYTES) && !urgency.overdraw(1));
            urgency.pass(checkpoint);
        }
    }
}
