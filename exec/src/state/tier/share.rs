//! Who holds how much state in memory, and who has to give some of it away.
//!
//! State in memory may come to three quarters of the pool; the rest is for the database behind it, for what grows by doubling,
//! and for operators that hold no state. Everybody takes what they like of what the others leave. When nothing is left, whoever
//! holds more than an equal share gives the difference away; so nobody waits for anybody else.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::execution::memory_pool::{MemoryLimit, MemoryPool};

/// What those who hold state in a worker may hold in memory together.
#[derive(Debug)]
pub struct Limits {
    /// Everybody together; `None` for as much as they like.
    together: Option<usize>,
    memory: Option<Arc<dyn MemoryPool>>,
    holders: AtomicUsize,
    held: AtomicUsize,
}

impl Limits {
    /// The part of `memory` that is for state.
    pub fn new(memory: Arc<dyn MemoryPool>) -> Self {
        let together = match memory.memory_limit() {
            MemoryLimit::Finite(limit) => Some(limit / 4 * 3),
            _ => None,
        };
        Self { memory: Some(memory), ..Self::of_bytes(together) }
    }

    /// So many bytes, whatever else there is.
    pub fn of_bytes(together: Option<usize>) -> Self {
        Self { together, memory: None, holders: AtomicUsize::new(0), held: AtomicUsize::new(0) }
    }
}

/// The share of one who holds state; it is given back when dropped.
#[derive(Debug)]
pub struct Share {
    limits: Arc<Limits>,
    /// What `limits` knows of.
    noted: usize,
}

impl Share {
    pub(super) fn new(limits: Arc<Limits>) -> Self {
        limits.holders.fetch_add(1, Ordering::Relaxed);
        Self { limits, noted: 0 }
    }

    /// Takes note that so many bytes are held.
    pub fn note(&mut self, held: usize) {
        self.limits.held.fetch_add(held.wrapping_sub(self.noted), Ordering::Relaxed);
        self.noted = held;
    }

    /// An equal share of the memory for state; nothing where it has no bounds.
    pub fn equal(&self) -> usize {
        self.limits.together.unwrap_or_default() / self.limits.holders.load(Ordering::Relaxed).max(1)
    }

    /// What a holder may keep in memory, if it may not keep the `held` bytes.
    pub fn excess(&self, held: usize) -> Option<usize> {
        let together = self.limits.together?;
        let of_state = self.limits.held.load(Ordering::Relaxed);
        let of_all = self.limits.memory.as_ref().map_or(0, |memory| memory.reserved());
        let of_others = of_state.max(of_all).saturating_sub(self.noted);
        let most = self.equal().max(together.saturating_sub(of_others));
        (held > most).then_some(most)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.note(0);
        self.limits.holders.fetch_sub(1, Ordering::Relaxed);
    }
}
