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

    /// The slots that changed, each once; from now on none has. They may have passed to another key since, or to none.
    pub fn take(&mut self) -> Vec<usize> {
        let slots: Vec<usize> = std::mem::take(&mut self.slots).into_iter().map(|slot| slot as usize).collect();
        slots.iter().for_each(|slot| self.is_marked[*slot] = false);
        slots
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
    }
}
