//! Time that goes by around what a process has others do: simulated time moves only when everybody sleeps, and without it a process
//! could not be killed between one of these things and the next. Or it is killed at a step that somebody names.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidemill_core::clock::Clock;
use tidemill_exec::latch::Latch;

use crate::chance::Chance;

/// How long steps take. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Pace {
    chance: Chance,
    /// Less than so long; nothing if 0.
    step_millis: u64,
    /// That of the process that waits.
    clock: Arc<Mutex<Option<Arc<dyn Clock>>>>,
    /// What becomes of the process, if that is known.
    fate: Arc<Mutex<Option<Fate>>>,
}

/// A process is killed at one of its steps.
#[derive(Debug)]
struct Fate {
    steps_left: u64,
    killed: Arc<Latch>,
}

impl Pace {
    pub fn new(chance: Chance, step_millis: u64) -> Self {
        Self { chance, step_millis, clock: Arc::default(), fate: Arc::default() }
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

    /// The process that begins is killed at its step with this number, counted from 1, or at none. Whoever runs it hears of it, and
    /// neither this step nor any other ever ends: what follows them does not take effect.
    pub fn kill_at(&self, step: Option<u64>) -> Arc<Latch> {
        let killed = Arc::<Latch>::default();
        let fate = step.map(|step| Fate { steps_left: step, killed: killed.clone() });
        *self.fate.lock().unwrap() = fate;
        killed
    }

    /// Before something takes effect, or after it has.
    pub async fn step(&self) {
        if self.is_killed() {
            std::future::pending::<()>().await;
        }
        self.up_to(self.step_millis).await;
    }

    /// Counts a step; whether the process has come to its last one.
    fn is_killed(&self) -> bool {
        let mut fate = self.fate.lock().unwrap();
        let Some(Fate { steps_left, killed }) = &mut *fate else { return false };
        *steps_left = steps_left.saturating_sub(1);
        if *steps_left > 0 {
            return false;
        }
        killed.raise();
        true
    }

    /// Takes less than so long; how long it took, in milliseconds.
    pub async fn up_to(&self, millis: u64) -> u64 {
        let (Some(clock), true) = (self.clock(), millis > 0) else { return 0 };
        let pause = self.chance.below(millis);
        clock.sleep(Duration::from_millis(pause)).await;
        pause
    }
}
