//! What a backend knows of its keys' places: which of them are in memory, which were changed or used there, and which lie in
//! the tier.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::Fields;
use tidemill_core::Result;

use super::rows::RowCodec;
use crate::state::key_index::folded_floats;
use crate::state::tier::{Cursor, Family, Pages, Place, RowKeys, Share, Tier};

/// How many bytes of rows are frozen as one part of a snapshot: so many are in memory when it is encoded.
const PART_BYTES: u64 = 8 << 20;

/// A cache may grow to such a part of the memory for state.
const CACHE_PART: f64 = 0.5;

/// How many bytes of rows may wait at the most: a checkpoint that overtakes rows has to wait for what becomes of them.
const BACKLOG_BYTES: usize = 4 << 20;

/// So many keys leave before one more is no longer taken to be in use.
const FORGETTING: usize = 4;

/// The slot has a key.
const TAKEN: u8 = 1;
/// It was looked up more than once since it came, or since it was forgotten that it was.
const USED: u8 = 2;
/// Its columns differ from its row in the tier.
const DIRTY: u8 = 4;
/// It has a row in the tier.
const STORED: u8 = 8;

/// When keys leave memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaving {
    /// When the worker is short of memory: it is where keys belong.
    WhenShort,
    /// Long before that: memory is a cache of the tier.
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
    /// Where the search for keys that nobody uses goes on.
    hand: usize,
    /// Where it is forgotten next that a key was in use.
    forgetting: usize,
    /// For how many keys there is room; `None` until there was too little.
    pub room: Option<usize>,
    /// Keys that are not in memory.
    pub len: usize,
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
            room: None,
            len: 0,
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
        match self.leaving {
            Leaving::WhenShort => self.share.excess(held, 1.0),
            Leaving::Early => self.share.excess(held, CACHE_PART),
        }
    }

    /// How many bytes of rows may wait for keys that are not in memory.
    pub fn backlog_bytes(&self) -> usize {
        let bytes = match self.leaving {
            // Behind these a quarter of the memory for state is free when keys have just left.
            Leaving::WhenShort => self.share.equal() / 4,
            Leaving::Early => (self.share.equal() as f64 * (1.0 - CACHE_PART)) as usize,
        };
        bytes.min(BACKLOG_BYTES)
    }

    /// Makes room for so many more slots.
    pub fn reserve(&mut self, slots: usize) {
        self.marks.reserve(slots);
    }

    /// Takes note of slots that were looked up, as [`Self::take`] does, and that they are in use.
    pub fn note(&mut self, looked_up: &[usize], slots: usize) -> Vec<(usize, usize)> {
        let fresh = self.take(looked_up, slots);
        let mut next = fresh.iter().map(|(place, _)| *place).peekable();
        for (place, slot) in looked_up.iter().enumerate() {
            if next.next_if_eq(&place).is_none() {
                self.marks[*slot] |= USED;
            }
        }
        fresh
    }

    /// Takes note of slots, of `slots` that there are; those that had no key before, each once, with their place in the list.
    pub fn take(&mut self, looked_up: &[usize], slots: usize) -> Vec<(usize, usize)> {
        self.marks.resize(slots.max(self.marks.len()), 0);
        let mut fresh = Vec::new();
        for (place, slot) in looked_up.iter().enumerate() {
            let mark = &mut self.marks[*slot];
            if *mark & TAKEN == 0 {
                fresh.push((place, *slot));
                *mark |= TAKEN;
            }
        }
        fresh
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

    /// So many slots of keys: first those that were looked up only once, then any.
    ///
    /// A clock with two hands. One looks for keys that are not in use, round and round; whoever brings many in for one row each, and has
    /// them leave again, does not drive out what is used all the time. The other one, which is slower, forgets that keys were in use.
    pub fn coldest(&mut self, count: usize) -> Vec<usize> {
        let slots = self.marks.len();
        let mut cold = Vec::with_capacity(count);
        for wanted in [TAKEN, TAKEN | USED] {
            for _ in 0..slots {
                if cold.len() == count {
                    break;
                }
                self.hand = (self.hand + 1) % slots;
                if self.marks[self.hand] & (TAKEN | USED) == wanted {
                    cold.push(self.hand);
                }
            }
        }
        cold.sort_unstable();
        for _ in 0..(count / FORGETTING).min(slots) {
            self.forgetting = (self.forgetting + 1) % slots;
            self.marks[self.forgetting] &= !USED;
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
