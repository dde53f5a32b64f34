//! The states of all keys of one operator in one subtask: what a state backend is.

use arrow::array::ArrayRef;

use crate::error::Result;
use crate::state::{RestoredState, Snapshot, SnapshotScope, StateColumn, StateTtl};

/// A registered state, within its operator and subtask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StateId(usize);

impl StateId {
    /// The state that was registered as number `index`, from 0 (for backends).
    pub fn new(index: usize) -> Self {
        Self(index)
    }

    /// Its number.
    pub fn index(self) -> usize {
        self.0
    }
}

/// Bounds of the rows that an operator keeps back until it looks up their keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BacklogLimits {
    /// Bytes of them that may be kept back.
    pub bytes: usize,
    /// Rows of so many keys should be looked up at a time; `None` for any number.
    pub keys: Option<usize>,
}

/// The keyed states of one operator in one subtask (STA-01, BKD-04).
///
/// Laws:
/// * A slot stands for one key from the `lookup` or `find` that gave it until the next `release`; nothing else takes it away.
///   So an operator calls `release` when it holds no slot any more: after each batch and each firing of timers. It holds none
///   either when it calls `register`, `restore` or `give_back`.
/// * In `release` a key all of whose states are vacant is forgotten, and a backend may move keys out of memory. What is kept for
///   a key is the same before and after, wherever it was in between; but what was changed without `touch` may be lost.
/// * Keys are those of the exchange: equal for NULL and NULL, NaN and NaN, `0.0` and `-0.0`; a dictionary's are its values.
/// * Whoever changes a slot of a column calls `touch` afterwards. What was not touched may be missing from snapshots of changes.
/// * `snapshot` into a fresh `restore`, at the same or another parallelism, cannot be told apart from never having stopped.
///   A state that was restored and not registered is in the snapshots of everything as it came.
pub trait KeyedStates: Send {
    /// Appends the slot of each row's key to `slots`; a key that is new gets one. `hashes` are those of
    /// [`hash_columns`](crate::key::hash_columns), or of [`key_hashes`](super::key_hashes) where keys have a namespace.
    fn lookup(&mut self, keys: &[ArrayRef], hashes: &[u64], slots: &mut Vec<usize>) -> Result<()>;

    /// Appends the slot of each row's key to `slots`, `None` for keys for which nothing is kept. A key that is vacant and not
    /// yet released may have one.
    fn find(&mut self, keys: &[ArrayRef], hashes: &[u64], slots: &mut Vec<Option<usize>>) -> Result<()>;

    /// The same as `lookup` for keys in memory, without reading anything: while keys are elsewhere, a row whose key is not in memory is
    /// appended to `far` instead, by its number in the batch. A key that was far is so until it is looked up or found, or no key
    /// is elsewhere any more and `backlog` allows nothing.
    fn lookup_near(
        &mut self,
        keys: &[ArrayRef],
        hashes: &[u64],
        slots: &mut Vec<usize>,
        _far: &mut Vec<u32>,
    ) -> Result<()> {
        self.lookup(keys, hashes, slots)
    }

    /// What an operator may keep back of rows with far keys, to look them up together in the order of their key groups and the low
    /// halves of their hashes; nothing where that is no cheaper.
    fn backlog(&self) -> BacklogLimits {
        BacklogLimits::default()
    }

    /// Clears all states of the slot; its key goes with the next `release`.
    fn remove(&mut self, slot: usize);

    /// The caller holds no slot any more.
    fn release(&mut self) -> Result<()>;

    /// The key group of the slot's key.
    fn key_group(&self, slot: usize) -> u32;

    /// The keys of these slots, as columns.
    fn keys(&self, slots: &[usize]) -> Result<Vec<ArrayRef>>;

    /// Appends the slots of all keys for which something is kept, in no order.
    fn all(&mut self, slots: &mut Vec<usize>) -> Result<()>;

    /// How many keys there are, the vacant ones that are not yet released included.
    fn len(&self) -> usize;

    /// Whether there is no key.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a state: a column without slots, and when its entries expire (then it must be a column that keeps times). If there
    /// is restored state of that name, it is decoded into the column. An error if the name is taken, or if what was restored
    /// has other columns.
    fn register(&mut self, name: &str, ttl: Option<StateTtl>, column: Box<dyn StateColumn>) -> Result<StateId>;

    /// The column of a state.
    fn column(&mut self, id: StateId) -> Result<&mut (dyn StateColumn + 'static)>;

    /// These slots of a state were written, or vacated, at this time.
    fn touch(&mut self, id: StateId, slots: &[usize], now_millis: i64) -> Result<()>;

    /// Drops what has expired, looking at `slots_max` more slots than the last time, round and round; in how many cells there
    /// was something. As many keys that are not in memory are looked at in the next `release`, and not counted. Reading does
    /// not depend on it, memory does.
    fn expire(&mut self, now_millis: i64, slots_max: usize) -> Result<usize>;

    /// Freezes the states. [`SnapshotScope::Changes`] without a base before it is an error.
    fn snapshot(&mut self, scope: SnapshotScope) -> Result<Snapshot>;

    /// Takes the keyed states out of `state`, before the first `lookup`. They come to life when they are registered.
    fn restore(&mut self, state: &mut RestoredState) -> Result<()>;

    /// Memory is short: moves keys out of it until their states occupy `bytes` less, if the backend has a place for them. Like
    /// [`release`](Self::release), this ends the life of all slots.
    fn give_back(&mut self, _bytes: usize) -> Result<()> {
        Ok(())
    }

    /// Bytes that all of it occupies in memory, roughly. Must be cheap.
    fn memory_bytes(&self) -> usize;
}
