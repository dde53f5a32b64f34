//! What changed between two snapshots.

use arrow::array::ArrayRef;

/// The slots of one state that were written or vacated.
#[derive(Debug, Default)]
pub struct ChangedSlots {
    is_marked: Vec<bool>,
    slots: Vec<u32>,
}

impl ChangedSlots {
    /// The slot changed.
    pub fn mark(&mut self, slot: usize) {
        if slot >= self.is_marked.len() {
            self.is_marked.resize(slot + 1, false);
        }
        if !std::mem::replace(&mut self.is_marked[slot], true) {
            self.slots.push(slot as u32);
        }
    }

    /// Whether the slot changed.
    pub fn is_marked(&self, slot: usize) -> bool {
        self.is_marked.get(slot).is_some_and(|is_marked| *is_marked)
    }

    /// The slot has lost its key.
    pub fn unmark(&mut self, slot: usize) {
        if let Some(is_marked) = self.is_marked.get_mut(slot) {
            *is_marked = false;
        }
        // A slot that is marked again is listed again.
        if self.slots.len() > 2 * self.is_marked.len() + 64 {
            self.slots = self.list();
        }
    }

    /// Keys are in other slots now: the first slot has what was in the first of `order`.
    pub fn renumber(&mut self, order: &[usize]) {
        self.is_marked = order.iter().map(|slot| self.is_marked(*slot)).collect();
        self.slots = self.list();
    }

    /// The slots that changed, each once; from now on none has. They may have passed to another key since, or to none.
    pub fn take(&mut self) -> Vec<usize> {
        let mut slots: Vec<usize> = std::mem::take(&mut self.slots).into_iter().map(|slot| slot as usize).collect();
        slots.retain(|slot| std::mem::take(&mut self.is_marked[*slot]));
        slots
    }

    fn list(&self) -> Vec<u32> {
        (0..self.is_marked.len() as u32).filter(|slot| self.is_marked[*slot as usize]).collect()
    }

    /// Bytes held.
    pub fn memory_bytes(&self) -> usize {
        self.is_marked.capacity() + self.slots.capacity() * size_of::<u32>()
    }
}

/// Some keys with their key groups.
#[derive(Clone, Debug)]
pub struct KeyChunk {
    /// Key group of each key.
    pub groups: Vec<u32>,
    /// The key columns.
    pub keys: Vec<ArrayRef>,
}

/// Keys that a snapshot holds and that are there no more.
#[derive(Debug, Default)]
pub struct RemovedKeys {
    /// Slots whose keys are in a snapshot.
    is_stored: Vec<bool>,
    chunks: Vec<KeyChunk>,
    chunk_bytes: usize,
}

impl RemovedKeys {
    /// The keys in these slots are in a snapshot now.
    pub fn store(&mut self, slots: &[usize]) {
        let count = slots.iter().max().map_or(0, |slot| slot + 1);
        self.is_stored.resize(count.max(self.is_stored.len()), false);
        slots.iter().for_each(|slot| self.is_stored[*slot] = true);
    }

    /// Whether the key in this slot is in a snapshot.
    pub fn is_stored(&self, slot: usize) -> bool {
        self.is_stored.get(slot).is_some_and(|is_stored| *is_stored)
    }

    /// These slots have lost their keys.
    pub fn forget(&mut self, slots: &[usize]) {
        for slot in slots {
            if let Some(is_stored) = self.is_stored.get_mut(*slot) {
                *is_stored = false;
            }
        }
    }

    /// Keys are in other slots now: the first slot has what was in the first of `order`.
    pub fn renumber(&mut self, order: &[usize]) {
        self.is_stored = order.iter().map(|slot| self.is_stored(*slot)).collect();
    }

    /// Stored keys are about to leave their slots.
    pub fn push(&mut self, slots: &[usize], chunk: KeyChunk) {
        slots.iter().for_each(|slot| self.is_stored[*slot] = false);
        self.chunk_bytes += chunk.groups.len() * 4;
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
        self.is_stored.capacity() + self.chunk_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_has_changed_once() {
        let mut changes = ChangedSlots::default();
        [3, 1, 3, 2].into_iter().for_each(|slot| changes.mark(slot));
        assert_eq!(changes.take(), [3, 1, 2]);
        changes.mark(1);
        assert_eq!(changes.take(), [1]);
        [4, 2].into_iter().for_each(|slot| changes.mark(slot));
        changes.unmark(4);
        changes.renumber(&[3, 2]);
        assert_eq!(changes.take(), [1]);
    }
}
