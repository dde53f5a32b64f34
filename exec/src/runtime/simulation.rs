//! Simulated time: it stands still while anybody works and jumps to the next deadline when everybody sleeps.
//!
//! ```text
//! tasks run ... nobody can run: the runtime parks ──> advance(): time = the earliest deadline, its sleeper is woken ──> tasks run
//! ```
//!
//! So an hour of a job takes no time, nothing depends on the machine's speed, and with chance seeded as well a job on one
//! thread does the same in every run.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::future::BoxFuture;
use tidemill_core::clock::Clock;
use tidemill_core::{Error, Result};
use tokio::runtime::RngSeed;

use crate::runtime::environment::{Environment, simulated};

/// Runs `program` to its end on this thread, in an environment whose time begins at the epoch and is simulated, and in which
/// every choice follows from `seed`.
///
/// Who waits for another thread, or for time that is not the environment's, is outside of the simulation. A program that can
/// only wait for nothing should bound its patience by the environment's clock: that deadline is then the next one, and comes
/// at once.
pub fn simulate<F: Future>(seed: u64, program: impl FnOnce(Environment) -> F) -> Result<F::Output> {
    let clock = SimulatedClock::default();
    let parking = clock.clone();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .rng_seed(RngSeed::from_bytes(&seed.to_le_bytes()))
        .on_thread_park(move || parking.advance())
        .build()
        .map_err(|error| Error::from(error).context("cannot start the runtime"))?;
    Ok(runtime.block_on(async {
        let environment = Environment { clock: Arc::new(clock), ..simulated(seed) };
        program(environment).await
    }))
}

/// A clock that only [`SimulatedClock::advance`] moves. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct SimulatedClock(Arc<Mutex<Sleepers>>);

#[derive(Debug, Default)]
struct Sleepers {
    now: Duration,
    /// By deadline, then in the order in which they lay down.
    waiting: BTreeMap<(Duration, u64), Waker>,
    next: u64,
}

impl SimulatedClock {
    /// Moves time to the earliest deadline and wakes who waits for it. Nothing happens when nobody sleeps.
    pub fn advance(&self) {
        let earliest = {
            let mut sleepers = self.lock();
            let earliest = sleepers.waiting.pop_first();
            if let Some(((deadline, _), _)) = &earliest {
                sleepers.now = sleepers.now.max(*deadline);
            }
            earliest
        };
        if let Some((_, waker)) = earliest {
            waker.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Sleepers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for SimulatedClock {
    fn now_millis(&self) -> i64 {
        self.lock().now.as_millis() as i64
    }

    fn monotonic(&self) -> Duration {
        self.lock().now
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let mut sleepers = self.lock();
        sleepers.next += 1;
        let place = (sleepers.now.saturating_add(duration), sleepers.next);
        Box::pin(Sleep { clock: self.clone(), place })
    }
}

/// One sleeper; dropped, it waits no more.
struct Sleep {
    clock: SimulatedClock,
    place: (Duration, u64),
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut sleepers = self.clock.lock();
        if sleepers.now >= self.place.0 {
            return Poll::Ready(());
        }
        sleepers.waiting.insert(self.place, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        let place = self.place;
        // Dropped outside the lock: a waker may hold the last reference to its task, and that to other sleepers.
        let waker = self.clock.lock().waiting.remove(&place);
        drop(waker);
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    /// What `(after, name)` sleepers say, and when.
    fn order(sleepers: &[(u32, &'static str)]) -> Vec<(Duration, &'static str)> {
        let run = |environment: Environment| async move {
            let (said, mut heard) = mpsc::unbounded_channel();
            for (hours, name) in sleepers.iter().copied() {
                let (clock, said) = (environment.clock.clone(), said.clone());
                let sleeper = async move {
                    clock.sleep(HOUR * hours).await;
                    said.send((clock.monotonic(), name)).unwrap();
                };
                environment.io.spawn(name, Box::pin(sleeper));
            }
            drop(said);
            let mut all = vec![];
            while let Some(word) = heard.recv().await {
                all.push(word);
            }
            all
        };
        simulate(1, run).unwrap()
    }

    #[test]
    fn who_sleeps_shorter_wakes_earlier_and_equals_in_the_order_they_lay_down() {
        let heard = order(&[(3, "c"), (1, "a"), (0, "at once"), (1, "b")]);
        assert_eq!(heard, [(Duration::ZERO, "at once"), (HOUR, "a"), (HOUR, "b"), (HOUR * 3, "c")]);
    }

    #[test]
    fn time_stands_still_while_somebody_works() {
        simulate(1, |environment| async move {
            let clock = environment.clock.clone();
            let mut alarm = clock.sleep(HOUR);
            for _ in 0..1000 {
                tokio::task::yield_now().await;
                assert!(futures::poll!(&mut alarm).is_pending());
            }
            assert_eq!(clock.monotonic(), Duration::ZERO);
            alarm.await;
            assert_eq!((clock.monotonic(), clock.now_millis()), (HOUR, 3_600_000));
        })
        .unwrap();
    }

    #[test]
    fn a_sleeper_that_is_dropped_moves_nothing() {
        simulate(1, |environment| async move {
            let clock = environment.clock.clone();
            let mut dropped = clock.sleep(HOUR);
            assert!(futures::poll!(&mut dropped).is_pending());
            drop(dropped);
            clock.sleep(HOUR * 2).await;
            assert_eq!(clock.monotonic(), HOUR * 2);
        })
        .unwrap();
    }
}
