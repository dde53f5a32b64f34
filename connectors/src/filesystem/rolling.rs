//! When a file is complete and the next one begins.

use std::time::Duration;

use tidemill_core::error::Result;

use crate::options::Options;

/// When a part is closed (`sink.rolling-policy.*`). A writer has no timer: times are looked at when rows come, when the input
/// pauses, and at checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RollingPolicy {
    /// At this size.
    pub file_bytes: u64,
    /// At this age.
    pub rollover_interval: Duration,
    /// After this time without rows.
    pub inactivity_interval: Duration,
    /// How often times are looked at.
    pub check_interval: Duration,
}

impl Default for RollingPolicy {
    fn default() -> Self {
        Self {
            file_bytes: 128 << 20,
            rollover_interval: Duration::from_secs(30 * 60),
            inactivity_interval: Duration::from_secs(60),
            check_interval: Duration::from_secs(60),
        }
    }
}

impl RollingPolicy {
    /// What the options of a table say.
    pub(super) fn from_options(options: &mut Options) -> Result<Self> {
        let default = Self::default();
        let mut interval = |name: &str, default: Duration| {
            options.duration(&format!("sink.rolling-policy.{name}")).map(|value| value.unwrap_or(default))
        };
        let rollover_interval = interval("rollover-interval", default.rollover_interval)?;
        let inactivity_interval = interval("inactivity-interval", default.inactivity_interval)?;
        let check_interval = interval("check-interval", default.check_interval)?;
        let file_bytes = options.bytes("sink.rolling-policy.file-size")?.unwrap_or(default.file_bytes);
        Ok(Self { file_bytes, rollover_interval, inactivity_interval, check_interval })
    }

    /// Never before it has to be: for destinations that are one file.
    pub(super) fn never() -> Self {
        let for_ever = Duration::MAX;
        Self {
            file_bytes: u64::MAX,
            rollover_interval: for_ever,
            inactivity_interval: for_ever,
            check_interval: for_ever,
        }
    }

    /// Whether a part is over that was opened at `created` and got its last rows at `written`.
    pub(super) fn is_over(&self, created: i64, written: i64, now: i64) -> bool {
        has_passed(self.rollover_interval, created, now) || has_passed(self.inactivity_interval, written, now)
    }
}

/// Whether `interval` has passed between `since` and `now`, in milliseconds. A clock that was set back is waited for.
pub(super) fn has_passed(interval: Duration, since: i64, now: i64) -> bool {
    u128::from(now.saturating_sub(since).max(0).unsigned_abs()) >= interval.as_millis()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_end_by_age_and_by_silence() {
        let policy = RollingPolicy::default();
        assert!(!policy.is_over(0, 1_000, 60_999));
        assert!(policy.is_over(0, 1_000, 61_000), "a minute without rows");
        assert!(!policy.is_over(0, 1_799_000, 1_799_999));
        assert!(policy.is_over(0, 1_799_000, 1_800_000), "half an hour old");
        assert!(!policy.is_over(0, 0, -1), "the clock was set back");
        assert!(!RollingPolicy::never().is_over(i64::MIN, i64::MIN, i64::MAX));
    }
}
