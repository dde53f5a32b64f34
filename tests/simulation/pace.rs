//! Time that goes by around what a process has others do: simulated time moves only when everybody sleeps, and without it a process
//! could not be killed between one of these things and the next.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidemill_core::clock::Clock;

use crate::chance::Chance;

/// How long steps take. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Pace {
    chance: Chance,
    /// Less than so long; nothing if 0.
    step_millis: u64,
    /// That of the process that waits.
    clock: Arc<Mutex<Option<Arc<dyn Clock>>>>,
}

impl Pace {
    pub fn new(chance: Chance, step_millis: u64) -> Self {
        Self { chance, step_millis, clock: Arc::default() }
    }

    /// The same clock, and steps of less than so long.
    pub fn with_steps(self, step_millis: u64) -> Self {
        Self { step_millis, ..self }
    }

    /// A process begins, whose clock this is.
    pub fn set_clock(&self, clock: Arc<dyn Clock>) {
        *self.clock.lock().unwrap() = Some(clock);
    }

    pub fn clock(&self) -> Option<Arc<dyn Clock>> {
        self.clock.lock().unwrap().clone()
    }

    /// Before something takes effect, or after it has.
    pub async fn step(&self) {
        self.up_to(self.step_millis).await;
    }

    /// Takes less than so long.
    pub async fn up_to(&self, millis: u64) {
        if let (Some(clock), true) = (self.clock(), millis > 0) {
            clock.sleep(Duration::from_millis(self.chance.below(millis))).await;
        }
    }
}
