//! Time of day and the runtime as arguments, so that a simulation can replay a seed.
//!
//! Nothing below the front ends asks the operating system for the time, spawns on an ambient runtime or draws from an ambient
//! generator: it takes these.

use std::fmt::Debug;
use std::time::Duration;

use futures::future::BoxFuture;

/// Processing time.
pub trait Clock: Send + Sync + Debug {
    /// Milliseconds since the epoch. May jump, also back, when the machine's clock is set or it has slept.
    fn now_millis(&self) -> i64;

    /// Time since some fixed moment; never goes back. For deadlines and durations.
    fn monotonic(&self) -> Duration;

    /// Completes after `duration` of [`Clock::monotonic`] time.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;
}

/// Starts tasks. There are two in a worker: one for computing, one for sockets, files and stores.
pub trait Spawner: Send + Sync + Debug {
    /// Runs `task` until it ends. The name is for people: thread dumps, logs, traces.
    fn spawn(&self, name: &str, task: BoxFuture<'static, ()>);
}
