//! The second tier of state: the local disk of a worker, for what its memory has no room for.
//!
//! ```text
//! memory of the worker (one pool) ── 3/4 ──> state in memory, shared by those who hold some   (share.rs)
//!                                  └─ 1/8 ──> one RocksDB: block cache and memtables           (database.rs)
//! io.tmp.dirs ──> tidemill-state-…/ ──> a range of keys for each who holds state               (range.rs)
//!                                          ├─ batches by key group: what windows put away        (parts.rs)
//!                                          └─ pages of rows, found by key                        (pages.rs, page.rs)
//! ```
//!
//! It is a cache of what checkpoints hold and of what came since: nothing in it outlives the process, so nothing is logged or
//! synced. The database is opened when the first rows go out and removed with the last range; what a process left behind that
//! was killed, the next one removes.

mod database;
mod page;
mod pages;
mod parts;
mod range;
mod share;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use datafusion::execution::memory_pool::{MemoryLimit, MemoryPool};
use tidemill_core::Result;

use database::Database;
pub use pages::{Cursor, Pages, Place, RowKeys, Values};
pub use parts::TierParts;
pub use range::{Family, Moment, TierRange, Writes};
pub use share::{Limits, Share};
#[cfg(test)]
pub(crate) use tests::test_disk;

/// What RocksDB may occupy where nobody has said how much memory there is, in bytes.
const UNBOUNDED_DATABASE: usize = 64 << 20;
/// The bounds of what it may occupy otherwise, in bytes.
const DATABASE: (usize, usize) = (1 << 20, 512 << 20);

/// The tier of one worker, and how the worker's memory is shared by those who hold state. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Tier {
    limits: Arc<Limits>,
    disk: Arc<Disk>,
}

#[derive(Debug)]
struct Disk {
    dirs: Vec<PathBuf>,
    memory: Arc<dyn MemoryPool>,
    open: Mutex<Weak<Database>>,
}

impl Tier {
    /// A tier in the first of `dirs` that takes it, or in the system's temporary directory, beside what `memory` grants.
    pub fn new(dirs: impl IntoIterator<Item = PathBuf>, memory: Arc<dyn MemoryPool>) -> Self {
        let mut dirs: Vec<PathBuf> = dirs.into_iter().collect();
        if dirs.is_empty() {
            dirs.push(std::env::temp_dir());
        }
        let limits = Arc::new(Limits::new(memory.clone()));
        Self { limits, disk: Arc::new(Disk { dirs, memory, open: Mutex::new(Weak::new()) }) }
    }

    /// The same tier beside another memory.
    #[must_use]
    pub fn with_memory(&self, memory: Arc<dyn MemoryPool>) -> Self {
        Self::new(self.disk.dirs.clone(), memory)
    }

    /// The same tier, where state may come to so many bytes of memory, whatever else there is; `None` for as many as it likes.
    #[must_use]
    pub fn limited(&self, state_bytes: Option<usize>) -> Self {
        Self { limits: Arc::new(Limits::of_bytes(state_bytes)), ..self.clone() }
    }

    /// A share of the memory for one who holds state.
    pub fn share(&self) -> Share {
        Share::new(self.limits.clone())
    }

    /// Rows for one who holds state; they are gone when it is dropped. Opens the database if need be.
    ///
    /// Errors: no directory that can be written; a full disk.
    pub fn range(&self) -> Result<TierRange> {
        Ok(TierRange::new(self.database()?))
    }

    fn database(&self) -> Result<Arc<Database>> {
        let mut open = self.disk.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(database) = open.upgrade() {
            return Ok(database);
        }
        let bytes = match self.disk.memory.memory_limit() {
            MemoryLimit::Finite(limit) => (limit / 8).clamp(DATABASE.0, DATABASE.1),
            _ => UNBOUNDED_DATABASE,
        };
        let database = Arc::new(Database::open(&self.disk.dirs, bytes, &self.disk.memory)?);
        *open = Arc::downgrade(&database);
        Ok(database)
    }
}
