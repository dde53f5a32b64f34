//! How long state is kept that nobody uses (STA-12).
//!
//! Values expire as a whole, entries of lists and maps each for itself. Time is processing time. An expired entry is dropped
//! when the backend comes by; whether it can be seen until then is the user's choice.

use std::time::Duration;

/// When state expires.
///
/// ```
/// # use std::time::Duration;
/// # use tidemill_core::state::{StateTtl, TtlUpdate};
/// let hour = StateTtl::new(Duration::from_secs(3600)).with_update(TtlUpdate::OnReadAndWrite);
/// let at = hour.at(3_600_000);
/// assert!(at.is_expired(0) && !at.is_expired(1));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StateTtl {
    /// How long after its last use an entry expires.
    pub time_to_live: Duration,
    /// What counts as use.
    pub update: TtlUpdate,
    /// Whether expired entries can be seen.
    pub visibility: TtlVisibility,
}

/// What prolongs the life of an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TtlUpdate {
    /// To be written.
    #[default]
    OnCreateAndWrite,
    /// To be written, or read before it has expired.
    OnReadAndWrite,
}

/// Whether entries that have expired, and that are not yet dropped, can be seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TtlVisibility {
    /// No.
    #[default]
    NeverReturnExpired,
    /// Yes, for as long as they happen to be there.
    ReturnExpiredIfNotCleanedUp,
}

impl StateTtl {
    /// Entries expire `time_to_live` after they were written, and are not seen from then on.
    pub fn new(time_to_live: Duration) -> Self {
        Self { time_to_live, update: TtlUpdate::default(), visibility: TtlVisibility::default() }
    }

    /// The same with another notion of use.
    #[must_use]
    pub fn with_update(self, update: TtlUpdate) -> Self {
        Self { update, ..self }
    }

    /// The same with another visibility.
    #[must_use]
    pub fn with_visibility(self, visibility: TtlVisibility) -> Self {
        Self { visibility, ..self }
    }

    /// The same, as seen at a time.
    pub fn at(self, now_millis: i64) -> Expiry {
        Expiry { ttl: Some(self), now_millis }
    }
}

/// A TTL, or none, at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiry {
    ttl: Option<StateTtl>,
    now_millis: i64,
}

impl Expiry {
    /// `ttl` at a time; with none, nothing expires.
    pub fn new(ttl: Option<StateTtl>, now_millis: i64) -> Self {
        Self { ttl, now_millis }
    }

    /// The moment.
    pub fn now_millis(&self) -> i64 {
        self.now_millis
    }

    /// Whether an entry that was last used at this time has expired.
    pub fn is_expired(&self, used_millis: i64) -> bool {
        self.ttl.is_some_and(|ttl| {
            let lifetime = i64::try_from(ttl.time_to_live.as_millis()).unwrap_or(i64::MAX);
            used_millis.saturating_add(lifetime) <= self.now_millis
        })
    }

    /// Whether such an entry can be seen.
    pub fn is_visible(&self, used_millis: i64) -> bool {
        let shows = |ttl: StateTtl| ttl.visibility == TtlVisibility::ReturnExpiredIfNotCleanedUp;
        !self.is_expired(used_millis) || self.ttl.is_some_and(shows)
    }

    /// Whether reading an entry prolongs its life.
    pub fn renews_on_read(&self) -> bool {
        self.ttl.is_some_and(|ttl| ttl.update == TtlUpdate::OnReadAndWrite)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_lives_for_its_time_and_no_longer() {
        let at = StateTtl::new(Duration::from_millis(10)).at(100);
        assert!(!at.is_expired(91) && at.is_expired(90) && !at.is_visible(90));
        let shown = StateTtl::new(Duration::from_millis(10))
            .with_visibility(TtlVisibility::ReturnExpiredIfNotCleanedUp)
            .at(100);
        assert!(shown.is_expired(90) && shown.is_visible(90));
        assert!(!Expiry::new(None, i64::MAX).is_expired(i64::MIN));
    }

    #[test]
    fn for_ever_is_not_over() {
        let for_ever = StateTtl::new(Duration::MAX).at(i64::MAX - 1);
        assert!(!for_ever.is_expired(0) && !for_ever.is_expired(i64::MAX - 1));
        assert!(StateTtl::new(Duration::from_millis(1)).at(5).is_expired(i64::MIN));
    }
}
