//! A switch that is thrown once and seen by everyone: cancellation, and the demand that starts a pulled producer.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// Starts open; once raised it stays so.
#[derive(Debug, Default)]
pub struct Latch {
    raised: AtomicBool,
    notify: Notify,
}

impl Latch {
    /// Throws the switch. Throwing it again changes nothing.
    pub fn raise(&self) {
        if !self.raised.swap(true, Ordering::AcqRel) {
            self.notify.notify_waiters();
        }
    }

    /// Whether it has been thrown.
    pub fn is_raised(&self) -> bool {
        self.raised.load(Ordering::Acquire)
    }

    /// Completes once it has been thrown.
    pub async fn wait(&self) {
        let notified = self.notify.notified();
        tokio::pin!(notified);
        // Enabled before the look: a throw between the look and the wait is not missed.
        notified.as_mut().enable();
        if !self.is_raised() {
            notified.await;
        }
    }
}
