//! Counters that operators count in and the job result, the shell and the dashboard read.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Rows that an event-time operator dropped because every window they belong to was complete (TRG-14).
pub const LATE_RECORDS_DROPPED: &str = "numLateRecordsDropped";
/// Rows that an operator or source took in.
pub const RECORDS_IN: &str = "numRecordsIn";
/// Rows that an operator or source gave out.
pub const RECORDS_OUT: &str = "numRecordsOut";
/// Rows that a format skipped because they did not parse and the table says to ignore such rows.
pub const RECORDS_SKIPPED: &str = "numRecordsSkipped";
/// Bytes that went over an exchange.
pub const BYTES_EXCHANGED: &str = "numBytesExchanged";
/// Bytes that went to disk because memory was short or an exchange is blocking.
pub const BYTES_SPILLED: &str = "numBytesSpilled";

/// A number that only grows. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    /// Adds `count`.
    pub fn add(&self, count: usize) {
        self.0.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counters of one subtask, by name. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct Metrics(Arc<Mutex<BTreeMap<&'static str, Counter>>>);

impl Metrics {
    /// The counter with this name, made at first use. Look it up once, in `open`, not for each batch.
    pub fn counter(&self, name: &'static str) -> Counter {
        let mut counters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counters.entry(name).or_default().clone()
    }

    /// All values now.
    pub fn values(&self) -> BTreeMap<&'static str, u64> {
        let counters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counters.iter().map(|(name, counter)| (*name, counter.get())).collect()
    }
}
