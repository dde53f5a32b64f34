//! What changed between two snapshots.

use std::borrow::Cow;

use arrow::array::ArrayRef;
use arrow::datatypes::Fields;
use fixedbitset::FixedBitSet;
use tidemill_core::key::key_group;
use tidemill_core::state::key_hashes;
use tidemill_core::{Error, Result};

/// The slots of one state that were written or vacated: a bit each, so that they come in their order.
#[derive(Debug, Default)]
pub struct ChangedSlots(FixedBitSet);

impl ChangedSlots {
    /// The slot changed.
    pub fn mark(&mut self, slot: usize) {
        self.0.grow_and_insert(slot);
    }

    /// Whether the slot changed.
    pub fn is_marked(&self, slot: usize) -> bool {
        self.0.contains(slot)
    }

    /// The slot has lost its key.
    pub fn unmark(&mut self, slot: usize) {
        if self.is_marked(slot) {
            self.0.remove(slot);
        }
    }

    /// Keys are in other slots now: the first slot has what was in the first of `order`.
    pub fn renumber(&mut self, order: &[usize]) {
        self.0 = renumbered(&self.0, order);
    }

    /// The slots that changed, in their order; from now on none has. They may have passed to another key since, or to none.
    pub fn take(&mut self) -> Vec<usize> {
        let slots = self.0.ones().collect();
        self.0.clear();
        slots
    }

    /// Bytes held.
    pub fn memory_bytes(&self) -> usize {
        self.0.len() / 8
    }
}

fn renumbered(slots: &FixedBitSet, order: &[usize]) -> FixedBitSet {
    let mut renumbered = FixedBitSet::with_capacity(order.len());
    let places = order.iter().enumerate().filter(|(_, slot)| slots.contains(**slot)).map(|(place, _)| place);
    renumbered.extend(places);
    renumbered
}

/// Some keys with their key groups.
#[derive(Clone, Debug)]
pub struct KeyChunk {
    /// Key group of each key. Where there are key columns they tell it as well, and whoever is in a hurry leaves it to them: the
    /// hashes of the slots are one more place to look.
    pub groups: Option<Vec<u32>>,
    /// The key columns.
    pub keys: Vec<ArrayRef>,
}

impl KeyChunk {
    /// Key group of each key, whose columns have these fields.
    pub fn groups(&self, fields: &Fields, max_parallelism: u32) -> Result<Cow<'_, [u32]>> {
        match (&self.groups, self.keys.first()) {
            (Some(groups), _) => Ok(groups.into()),
            (None, Some(column)) => {
                let hashes = key_hashes(fields, &self.keys, column.len())?;
                Ok(hashes.iter().map(|hash| key_group(*hash, max_parallelism)).collect())
            }
            (None, None) => Err(Error::internal("keys without columns and key groups")),
        }
    }
}

/// Keys that a snapshot holds and that are there no more.
#[derive(Debug, Default)]
pub struct RemovedKeys {
    /// Slots whose keys are in a snapshot.
    is_stored: FixedBitSet,
    chunks: Vec<KeyChunk>,
    chunk_bytes: usize,
}

impl RemovedKeys {
    /// The keys in these slots are in a snapshot now.
    pub fn store(&mut self, slots: &[usize]) {
        slots.iter().for_each(|slot| self.is_stored.grow_and_insert(*slot));
    }

    /// Whether the key in this slot is in a snapshot.
    pub fn is_stored(&self, slot: usize) -> bool {
        self.is_stored.contains(slot)
    }

    /// These slots have lost their keys.
    pub fn forget(&mut self, slots: &[usize]) {
        let known = self.is_stored.len();
        slots.iter().filter(|slot| **slot < known).for_each(|slot| self.is_stored.remove(*slot));
    }

    /// Keys are in other slots now: the first slot has what was in the first of `order`.
    pub fn renumber(&mut self, order: &[usize]) {
        self.is_stored = renumbered(&self.is_stored, order);
    }

    /// Stored keys are about to leave their slots.
    pub fn push(&mut self, slots: &[usize], chunk: KeyChunk) {
        self.forget(slots);
        self.chunk_bytes += chunk.groups.as_ref().map_or(0, |groups| groups.len() * 4);
        self.chunk_bytes += chunk.keys.iter().map(|keys| keys.get_array_memory_size()).sum::<usize>();
        self.chunks.push(chunk);
    }

    /// The keys that left since the last time.
    pub fn take(&mut self) -> Vec<KeyChunk> {
        self.chunk_bytes = 0;
        std::mem::take(&mut self.chunks)
    }

    /// Bytes held.
    pub fn memory_bytes(&self) -> usize {
        self.is_stored.len() / 8 + self.chunk_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_has_changed_once() {
        let mut changes = ChangedSlots::default();
        [3, 1, 3, 2].into_iter().for_each(|slot| changes.mark(slot));
        assert_eq!(changes.take(), [1, 2, 3]);
        changes.mark(1);
        assert_eq!(changes.take(), [1]);
        [4, 2].into_iter().for_each(|slot| changes.mark(slot));
        changes.unmark(4);
        changes.renumber(&[3, 2]);
        assert_eq!(changes.take(), [1]);
    }
}
