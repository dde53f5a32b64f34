//! Whether and when a job restarts after a failure (RST-01 … RST-05).

use std::collections::VecDeque;
use std::time::Duration;

use tidemill_core::settings::RestartSettings;
use tidemill_core::{Error, ErrorKind};

/// Decides about the failures of one job, one after the other.
#[derive(Debug)]
pub struct RestartStrategy {
    settings: RestartSettings,
    /// Restarts since pauses were last short.
    attempts: u64,
    /// When the last failures were; as many as the failure rate looks at.
    failures: VecDeque<Duration>,
    chance: u64,
}

impl RestartStrategy {
    /// No failure so far; `seed` is what jitter follows from.
    pub fn new(settings: RestartSettings, seed: u64) -> Self {
        Self { settings, attempts: 0, failures: VecDeque::new(), chance: seed | 1 }
    }

    /// The job failed at `now`: the pause before it restarts, `None` if it does not.
    ///
    /// What comes about again is no reason to restart: errors of the query and of the data are final, and so is damaged state.
    pub fn after(&mut self, error: &Error, now: Duration) -> Option<Duration> {
        if matches!(error.kind(), ErrorKind::Request | ErrorKind::Data | ErrorKind::Corrupt | ErrorKind::Cancelled) {
            return None;
        }
        let last = self.failures.back().copied();
        self.attempts += 1;
        match self.settings {
            RestartSettings::None => None,
            RestartSettings::FixedDelay { attempts, delay } => (self.attempts <= attempts).then_some(delay),
            RestartSettings::FailureRate { failures_max, interval, delay } => {
                self.failures.push_back(now);
                while self.failures.front().is_some_and(|failure| now.saturating_sub(*failure) > interval) {
                    self.failures.pop_front();
                }
                (self.failures.len() as u64 <= failures_max).then_some(delay)
            }
            RestartSettings::ExponentialDelay { initial, max, multiplier, reset_after, jitter, attempts } => {
                if last
                    .is_some_and(|last| now.saturating_sub(last) >= reset_after + self.pause(initial, max, multiplier))
                {
                    self.attempts = 1;
                }
                self.failures = VecDeque::from([now]);
                if attempts.is_some_and(|most| self.attempts > most) {
                    return None;
                }
                let pause = self.pause(initial, max, multiplier);
                let spread = 1.0 + jitter * (2.0 * self.draw() - 1.0);
                // The longest pause is none longer by chance.
                Some(pause.mul_f64(spread.max(0.0)).min(max))
            }
        }
    }

    /// The pause before restart number `attempts`, without jitter.
    fn pause(&self, initial: Duration, max: Duration, multiplier: f64) -> Duration {
        let exponent = i32::try_from(self.attempts.saturating_sub(1)).unwrap_or(i32::MAX);
        let seconds = (initial.as_secs_f64() * multiplier.powi(exponent)).min(max.as_secs_f64());
        Duration::try_from_secs_f64(seconds).unwrap_or(max)
    }

    /// A number from 0 to 1 (xorshift).
    fn draw(&mut self) -> f64 {
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        (self.chance >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn failure() -> Error {
        Error::unavailable("the store is away")
    }

    #[test]
    fn after_so_many_attempts_it_is_over() {
        let settings = RestartSettings::FixedDelay { attempts: 2, delay: SECOND };
        let mut strategy = RestartStrategy::new(settings, 1);
        let pauses: Vec<_> = (0..3).map(|hour| strategy.after(&failure(), SECOND * 3600 * hour)).collect();
        assert_eq!(pauses, [Some(SECOND), Some(SECOND), None]);
        assert_eq!(RestartStrategy::new(RestartSettings::None, 1).after(&failure(), SECOND), None);
    }

    #[test]
    fn too_many_failures_in_a_while_are_too_many() {
        let settings = RestartSettings::FailureRate { failures_max: 2, interval: SECOND * 10, delay: SECOND };
        let mut strategy = RestartStrategy::new(settings, 1);
        let mut at = |second| strategy.after(&failure(), SECOND * second).is_some();
        assert_eq!([at(0), at(5), at(11), at(16), at(17)], [true, true, true, true, false]);
    }

    #[test]
    fn pauses_grow_and_are_short_again_after_a_quiet_time() {
        let settings = RestartSettings::ExponentialDelay {
            initial: SECOND,
            max: SECOND * 5,
            multiplier: 2.0,
            reset_after: SECOND * 100,
            jitter: 0.0,
            attempts: Some(6),
        };
        let mut strategy = RestartStrategy::new(settings, 1);
        let mut at = |second| strategy.after(&failure(), SECOND * second).map(|pause| pause.as_secs());
        assert_eq!([at(0), at(10), at(20), at(30)], [Some(1), Some(2), Some(4), Some(5)]);
        assert_eq!([at(140), at(150)], [Some(1), Some(2)]);
        assert_eq!([at(151), at(152), at(153), at(154), at(155)], [Some(4), Some(5), Some(5), Some(5), None]);
    }

    /// A hundred pauses of about a hundred seconds, of which none may be longer than `max`.
    fn jittered(max: Duration) -> Vec<f64> {
        let settings = RestartSettings::ExponentialDelay {
            initial: SECOND * 100,
            max,
            multiplier: 1.0,
            reset_after: SECOND,
            jitter: 0.1,
            attempts: None,
        };
        let mut strategy = RestartStrategy::new(settings, 7);
        (0..100).map(|_| strategy.after(&failure(), SECOND).unwrap().as_secs_f64()).collect()
    }

    #[test]
    fn jitter_spreads_within_its_factor() {
        let pauses = jittered(SECOND * 1000);
        assert!(pauses.iter().all(|pause| (90.0..=110.0).contains(pause)), "{pauses:?}");
        assert!(pauses.iter().any(|pause| *pause < 95.0) && pauses.iter().any(|pause| *pause > 105.0));
    }

    #[test]
    fn jitter_makes_no_pause_longer_than_the_longest() {
        let pauses = jittered(SECOND * 100);
        assert!(pauses.iter().all(|pause| (90.0..=100.0).contains(pause)), "{pauses:?}");
        assert!(pauses.iter().any(|pause| *pause < 95.0) && pauses.contains(&100.0), "{pauses:?}");
    }

    #[test]
    fn what_the_same_input_brings_about_again_is_final() {
        let settings = RestartSettings::FixedDelay { attempts: 2, delay: SECOND };
        let corrupt = Error::corrupt("a checksum");
        for error in [Error::data("line 17"), Error::request("no such column"), Error::cancelled("stop"), corrupt] {
            assert_eq!(RestartStrategy::new(settings, 1).after(&error, SECOND), None);
        }
    }
}
