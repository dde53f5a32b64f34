//! A clock that somebody sets now and then. Deadlines and durations do not see it: time that only goes on does so here too.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use tidemill_core::clock::Clock;

use crate::chance::Chance;

/// Once in how many looks it has been set.
const EVERY: u64 = 20;
/// By how much at most, in milliseconds.
const JUMP_MAX: u64 = 3_600_000;

#[derive(Debug)]
pub struct JumpingClock {
    inner: Arc<dyn Clock>,
    chance: Chance,
    ahead_millis: AtomicI64,
}

impl JumpingClock {
    pub fn new(inner: Arc<dyn Clock>, chance: Chance) -> Self {
        Self { inner, chance, ahead_millis: AtomicI64::new(0) }
    }
}

impl Clock for JumpingClock {
    fn now_millis(&self) -> i64 {
        if self.chance.strikes("a clock is set", EVERY) {
            let ahead = self.chance.below(2 * JUMP_MAX) as i64 - JUMP_MAX as i64;
            self.ahead_millis.store(ahead, Ordering::Relaxed);
        }
        self.inner.now_millis() + self.ahead_millis.load(Ordering::Relaxed)
    }

    fn monotonic(&self) -> Duration {
        self.inner.monotonic()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.inner.sleep(duration)
    }
}
