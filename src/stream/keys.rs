//! The keys of one subtask of a keyed operator: a small number, the slot, for each.

use std::sync::Arc;

use arrow::array::ArrayRef;
use tidemill_core::Result;
use tidemill_core::key::{append_key_bytes, key_group};
use tidemill_exec::state::KeyIndex;

use super::layout::KeyedCodec;
use super::record::Record;

/// Slots by key.
pub(super) struct Keys<K, T> {
    index: KeyIndex,
    codec: Arc<KeyedCodec<K, T>>,
    max_parallelism: u32,
}

impl<K: Record, T: Record> Keys<K, T> {
    /// No keys yet.
    pub fn new(codec: Arc<KeyedCodec<K, T>>) -> Result<Self> {
        Ok(Self { index: KeyIndex::new(&codec.key_types())?, codec, max_parallelism: 1 })
    }

    /// How many key groups there are; they order what fires at one time.
    pub fn set_max_parallelism(&mut self, max_parallelism: u32) {
        self.max_parallelism = max_parallelism;
    }

    /// The slot of each key; new keys get one.
    pub fn intern(&mut self, columns: &[ArrayRef], hashes: &[u64]) -> Result<Vec<usize>> {
        let mut slots = Vec::with_capacity(hashes.len());
        self.index.intern(columns, hashes, &mut slots)?;
        Ok(slots)
    }

    /// One more than the highest slot.
    pub fn slots(&self) -> usize {
        self.index.slots()
    }

    /// Forgets a key.
    pub fn remove(&mut self, slot: usize) {
        self.index.remove(slot);
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Gives back the memory of keys that are gone.
    pub fn clear(&mut self) -> Result<()> {
        self.index = KeyIndex::new(&self.codec.key_types())?;
        Ok(())
    }

    /// The keys of these slots.
    pub fn decode(&self, slots: &[usize]) -> Result<Vec<K>> {
        self.codec.decode_keys(&self.index.keys(slots)?, slots.len())
    }

    /// Orders slots by key group, then by encoded key, so that the order does not depend on when keys came, and drops doubles.
    pub fn sort(&self, slots: &mut Vec<usize>) -> Result<()> {
        slots.sort_unstable();
        slots.dedup();
        if slots.len() < 2 {
            return Ok(());
        }
        let columns = self.index.keys(slots)?;
        let mut keyed = Vec::with_capacity(slots.len());
        for (row, slot) in slots.iter().enumerate() {
            let mut bytes = Vec::new();
            for column in &columns {
                append_key_bytes(column.as_ref(), row, &mut bytes)?;
            }
            keyed.push((key_group(self.index.hash(*slot), self.max_parallelism), bytes, *slot));
        }
        keyed.sort_unstable();
        slots.clear();
        slots.extend(keyed.into_iter().map(|(_, _, slot)| slot));
        Ok(())
    }
}
