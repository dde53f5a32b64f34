//! What a backend knows of its keys' places: which of them are in memory, which were changed or used there, and which lie in
//! the tier.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::Fields;
use tidemill_core::Result;
use tidemill_core::state::BacklogLimits;

use super::BATCH_ROWS;
use super::rows::RowCodec;
use super::stretch::Stretch;
use crate::state::key_index::folded_floats;
use crate::state::tier::{Cursor, Family, Pages, Place, RowKeys, Share, Tier};

/// How many bytes of rows are frozen as one part of a snapshot: so many are in memory when it is encoded.
const PART_BYTES: u64 = 8 << 20;

/// How many bytes of rows may wait at the most, where that is less than a quarter of the memory for state: a checkpoint that
/// overtakes rows has to wait for what becomes of them.
const BACKLOG_BYTES: usize = 4 << 20;

/// So many keys leave before of one more half of its uses are forgotten.
const FORGETTING: usize = 4;

/// The slot has a key.
const TAKEN: u8 = 1;
/// Its columns differ from its row in the tier.
const DIRTY: u8 = 2;
/// It has a row in the tier.
const STORED: u8 = 4;
/// It was looked up once more since it came, or since half of its uses were forgotten.
const USE: u8 = 1 << 4;
/// How often it was used, as far as it is counted.
const USES: u8 = 7 * USE;

/// When keys leave memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaving {
    /// When the worker is short of memory: it is where keys belong.
    WhenShort,
    /// Before that, so that rows that wait have room beside those that stay: memory is a cache of the tier.
    Early,
}

/// The places of the keys of one operator in one subtask.
pub struct Outside {
    leaving: Leaving,
    share: Share,
    tier: Tier,
    groups: u32,
    pages: Option<Pages>,
    /// The codec of the key columns.
    keys: Arc<RowCodec>,
    marks: Vec<u8>,
    /// Where the search for keys that were used least goes on.
    hand: usize,
    /// Where uses are forgotten next.
    forgetting: usize,
    /// Where keys were looked up since the last ones left.
    arrived: Stretch,
    /// For how many keys there is room; `None` until there was too little.
    pub room: Option<usize>,
    /// Keys that are not in memory.
    pub len: usize,
    /// Rows of such keys wait, and come as few at a time as [`Self::backlog`] says.
    pub keeps_back: bool,
    /// Counts snapshots, modulo 2^31.
    pub epoch: u32,
    /// At what time how many rows are to be looked at for what has expired.
    pub sweep: Option<(i64, usize)>,
    /// The row at which that goes on; `None` at the first one.
    pub cursor: Option<Cursor>,
}

impl Outside {
    /// Nothing is outside so far.
    pub fn new(keys: &Fields, tier: Tier, leaving: Leaving, groups: u32) -> Result<Self> {
        Ok(Self {
            leaving,
            share: tier.share(),
            tier,
            groups,
            pages: None,
            keys: Arc::new(RowCodec::new(keys)?),
            marks: Vec::new(),
            hand: 0,
            forgetting: 0,
            arrived: Stretch::default(),
            room: None,
            len: 0,
            keeps_back: false,
            epoch: 0,
            sweep: None,
            cursor: None,
        })
    }

    /// Takes note that keys occupy so many bytes of memory.
    pub fn hold(&mut self, held: usize) {
        self.share.note(held);
    }

    /// What the keys in memory may occupy, if `held` bytes are too much.
    pub fn excess(&self, held: usize) -> Option<usize> {
        let backlog = self.backlog_bytes();
        let beside = match (self.room, self.leaving) {
            (None, Leaving::WhenShort) => 0,
            _ => backlog,
        };
        self.share.excess(held.saturating_add(beside)).map(|most| most.saturating_sub(backlog))
    }

    /// For how many more keys there is room when a batch comes: for those of a large one, unless rows of keys that are not in memory
    /// wait. `None` until there was too little memory.
    pub fn spare(&self) -> Option<usize> {
        let most = |room| if self.keeps_back { room / 8 } else { room / 2 };
        self.room.map(|room| (room / 16).max(BATCH_ROWS).min(most(room)))
    }

    /// Which rows may wait for keys that are not in memory.
    pub fn backlog(&self) -> BacklogLimits {
        BacklogLimits { bytes: self.backlog_bytes(), keys: self.spare().map(|spare| spare.max(1)) }
    }

    fn backlog_bytes(&self) -> usize {
        (self.share.equal() / 4).min(BACKLOG_BYTES)
    }

    /// Makes room for so many more slots.
    pub fn reserve(&mut self, slots: usize) {
        self.marks.reserve(slots);
    }

    /// Takes note of slots that were looked up, of `slots` that there are, and that they were used; a key that many rows have, one
    /// after the other, was used once. Those that had no key before, each once, with their place in the list.
    pub fn note(&mut self, looked_up: &[usize], slots: usize) -> Vec<(usize, usize)> {
        let mut fresh = Vec::new();
        self.meet(looked_up, slots, USE, |place, slot| fresh.push((place, slot)));
        fresh
    }

    /// New keys are in these slots, behind all others.
    pub fn append(&mut self, slots: Range<usize>) {
        self.marks.resize(slots.start, 0);
        self.marks.resize(slots.end, TAKEN);
    }

    /// The same as [`Self::note`] where nobody asks which are new.
    pub fn note_all(&mut self, looked_up: &[usize], slots: usize) {
        self.meet(looked_up, slots, USE, |_, _| ());
    }

    /// As [`Self::note`] does, of slots that nobody uses.
    pub fn take(&mut self, slots_met: &[usize], slots: usize) -> Vec<(usize, usize)> {
        let mut fresh = Vec::new();
        self.meet(slots_met, slots, 0, |place, slot| fresh.push((place, slot)));
        fresh
    }

    fn meet(&mut self, met: &[usize], slots: usize, one_use: u8, mut fresh: impl FnMut(usize, usize)) {
        self.marks.resize(slots.max(self.marks.len()), 0);
        let mut last = None;
        for (place, slot) in met.iter().enumerate() {
            let mark = &mut self.marks[*slot];
            if *mark & TAKEN == 0 {
                *mark |= TAKEN;
                fresh(place, *slot);
            } else if last != Some(slot) && *mark & USES != USES {
                *mark += one_use;
            }
            last = Some(slot);
        }
    }

    /// The slot's row is what its columns say.
    pub fn is_clean(&self, slot: usize) -> bool {
        self.marks[slot] & (STORED | DIRTY) == STORED
    }

    /// The slot has a row, be it an old one.
    pub fn is_stored(&self, slot: usize) -> bool {
        self.marks[slot] & STORED != 0
    }

    /// The slot's columns changed.
    pub fn dirty(&mut self, slot: usize) {
        self.marks[slot] |= DIRTY;
    }

    /// The slot's row was written or read.
    pub fn clean(&mut self, slot: usize) {
        self.marks[slot] = (self.marks[slot] | TAKEN | STORED) & !DIRTY;
    }

    /// The slot has no key any more.
    pub fn free(&mut self, slot: usize) {
        self.marks[slot] = 0;
    }

    /// Keys are in other slots now: the first slot has what was in the first of `order`.
    pub fn renumber(&mut self, order: &[usize]) {
        self.marks = order.iter().map(|slot| self.marks[*slot]).collect();
        (self.hand, self.forgetting) = (0, 0);
    }

    /// The slots that have keys.
    pub fn taken(&self) -> impl Iterator<Item = usize> {
        (0..self.marks.len()).filter(|slot| self.marks[*slot] & TAKEN != 0)
    }

    /// Takes note of the places of keys that were not in memory.
    pub fn arrive(&mut self, places: impl Iterator<Item = Place>) {
        let ends = places.map(|place| (place, place)).reduce(|ends, next| (ends.0.min(next.0), ends.1.max(next.1)));
        if let Some((first, last)) = ends {
            self.arrived.extend(first, last);
        }
    }

    /// So many slots of keys: of those from where others have just come, so that they go into few pages, if there are enough to choose
    /// from, and of these the ones that were used least. `place` tells the place of a slot's key.
    ///
    /// A clock with two hands. One looks for keys that were used no more often than most who leave, round and round; whoever brings many
    /// in for one row each, and has them leave again, does not drive out what is used all the time. The other one, which is slower,
    /// forgets half of what a key was used.
    pub fn coldest(&mut self, count: usize, place: &dyn Fn(usize) -> Place) -> Vec<usize> {
        let (slots, arrived) = (self.marks.len(), std::mem::take(&mut self.arrived));
        if count == 0 {
            return Vec::new();
        }
        let is_taken = |slot: usize| self.marks[slot] & TAKEN != 0;
        let is_near = |slot: usize| is_taken(slot) && arrived.has(place(slot));
        let choice = if arrived.is_empty() { 0 } else { (0..slots).filter(|slot| is_near(*slot)).count() };
        let may_leave: &dyn Fn(usize) -> bool = if choice > count + count / 4 { &is_near } else { &is_taken };

        let mut by_uses = [0; (USES / USE) as usize + 1];
        let uses = |slot: usize| ((self.marks[slot] & USES) / USE) as usize;
        (0..slots).filter(|slot| may_leave(*slot)).for_each(|slot| by_uses[uses(slot)] += 1);
        // All that were used less often leave, and so many of those that were used so often.
        let (mut most_uses, mut left) = (0, count);
        while let Some(fewer) = by_uses.get(most_uses).filter(|fewer| **fewer < left) {
            (most_uses, left) = (most_uses + 1, left - fewer);
        }
        let (mut cold, mut hand) = (Vec::with_capacity(count), self.hand);
        for slot in (self.hand..slots).chain(0..self.hand).filter(|slot| may_leave(*slot)) {
            let uses = uses(slot);
            if uses < most_uses || uses == most_uses && left > 0 {
                cold.push(slot);
                if uses == most_uses {
                    (hand, left) = (slot, left - 1);
                }
            }
        }
        self.hand = hand;
        for _ in 0..count.div_ceil(FORGETTING).min(slots) {
            self.forgetting = (self.forgetting + 1) % slots;
            let mark = &mut self.marks[self.forgetting];
            *mark = *mark & !USES | ((*mark & USES) / 2) & USES;
        }
        cold
    }

    /// The rows, once there are some.
    pub fn pages(&self) -> Option<&Pages> {
        self.pages.as_ref()
    }

    /// The rows; opens the tier if there are none so far.
    pub fn open(&mut self) -> Result<&mut Pages> {
        let pages = match self.pages.take() {
            Some(pages) => pages,
            None => Pages::new(self.tier.range()?, self.groups),
        };
        Ok(self.pages.insert(pages))
    }

    /// These keys with their places outside.
    pub fn row_keys(&self, hashes: impl IntoIterator<Item = u64>, keys: &[ArrayRef]) -> Result<RowKeys> {
        let folded: Vec<ArrayRef> = keys.iter().map(folded_floats).collect();
        let (rows, mut placed) = (self.keys.encode(&folded)?, RowKeys::default());
        hashes.into_iter().zip(&rows).for_each(|(hash, row)| placed.push(Place::of(hash, self.groups), row.data()));
        Ok(placed)
    }

    /// The codec of the key columns.
    pub fn key_codec(&self) -> Arc<RowCodec> {
        self.keys.clone()
    }

    /// What changed is in a snapshot.
    pub fn forget_changes(&mut self) -> Result<()> {
        self.epoch = (self.epoch + 1) & (u32::MAX >> 1);
        self.pages.as_mut().map_or(Ok(()), |pages| pages.clear(Family::Changes))
    }

    /// The key groups with rows, in portions that fit into memory.
    pub fn portions(&self, family: Family) -> Vec<Range<u32>> {
        self.pages.as_ref().map_or_else(Vec::new, |pages| pages.portions(family, PART_BYTES))
    }

    /// Bytes held.
    pub fn memory_bytes(&self) -> usize {
        self.marks.capacity() + self.pages.as_ref().map_or(0, Pages::memory_bytes)
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field};

    use super::*;
    use crate::state::tier::test_disk;

    #[test]
    fn who_was_used_least_leaves_and_with_neighbours_if_there_is_a_choice() {
        let keys = Fields::from(vec![Field::new("k", DataType::Int64, true)]);
        let mut outside = Outside::new(&keys, test_disk(), Leaving::WhenShort, 1).unwrap();
        let place = |slot: usize| Place::of(slot as u64, 1);
        let all: Vec<usize> = (0..10).collect();
        assert_eq!(outside.note(&all, 10).len(), 10);
        assert!(outside.note(&[0, 1, 2, 3, 2, 3, 3, 9], 10).is_empty());
        // With every one to four that leave one slot's uses are forgotten by half, from the second slot on.
        assert_eq!(outside.coldest(3, &place), [4, 5, 6]);
        // The hand goes on where it was; nobody has really left.
        assert_eq!(outside.coldest(2, &place), [6, 7]);
        outside.arrive([2, 0, 3].into_iter().map(place));
        assert_eq!(outside.coldest(2, &place), [0, 1]);
        outside.arrive([2, 3].into_iter().map(place));
        assert_eq!(outside.coldest(1, &place), [2]);
        // Two are too few to choose four from.
        outside.arrive([2, 3].into_iter().map(place));
        assert_eq!(outside.coldest(4, &place), [4, 5, 6, 7]);
        assert_eq!(outside.coldest(6, &place), [7, 8, 1, 4, 5, 6]);
    }
}
