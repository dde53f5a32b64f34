//! Elements of lists and entries of maps, which know when they were used if the state has a TTL.

use serde::{Deserialize, Serialize};

use crate::state::StateValue;
use tidemill_core::state::{EVOLUTION_SERDE_ELEMENTS, EVOLUTION_SERDE_TIMED_ELEMENTS, Expiry};

/// A value in a list or map.
pub trait Entry: StateValue {
    /// The user's type.
    type Value: StateValue;

    /// How lists and maps of these evolve.
    const EVOLUTION: &str;

    /// A value that is used now.
    fn new(value: Self::Value, now_millis: i64) -> Self;

    /// The value.
    fn value(&self) -> &Self::Value;

    /// The value, taken out.
    fn into_value(self) -> Self::Value;

    /// When it was last used; `None` if it does not matter.
    fn used_millis(&self) -> Option<i64>;

    /// It is used now.
    fn renew(&mut self, now_millis: i64);

    /// Whether it has expired.
    fn is_expired(&self, expiry: &Expiry) -> bool {
        self.used_millis().is_some_and(|used| expiry.is_expired(used))
    }

    /// Whether it can be seen.
    fn is_visible(&self, expiry: &Expiry) -> bool {
        self.used_millis().is_none_or(|used| expiry.is_visible(used))
    }
}

/// A value that does not expire.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Untimed<T>(T);

impl<T: StateValue> Entry for Untimed<T> {
    type Value = T;

    const EVOLUTION: &str = EVOLUTION_SERDE_ELEMENTS;

    fn new(value: T, _now_millis: i64) -> Self {
        Self(value)
    }

    fn value(&self) -> &T {
        &self.0
    }

    fn into_value(self) -> T {
        self.0
    }

    fn used_millis(&self) -> Option<i64> {
        None
    }

    fn renew(&mut self, _now_millis: i64) {}
}

/// A value that expires for itself. Its fields are called as [`ELEMENT_FIELDS`](tidemill_core::state::ELEMENT_FIELDS) says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timed<T> {
    value: T,
    used_millis: i64,
}

impl<T: StateValue> Entry for Timed<T> {
    type Value = T;

    const EVOLUTION: &str = EVOLUTION_SERDE_TIMED_ELEMENTS;

    fn new(value: T, now_millis: i64) -> Self {
        Self { value, used_millis: now_millis }
    }

    fn value(&self) -> &T {
        &self.value
    }

    fn into_value(self) -> T {
        self.value
    }

    fn used_millis(&self) -> Option<i64> {
        Some(self.used_millis)
    }

    fn renew(&mut self, now_millis: i64) {
        self.used_millis = now_millis;
    }
}
