//! What a backend knows of its keys' places: which of them are in memory, which were changed or used there, and which lie in
//! the tier.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::Fields;
use tidemill_core::Result;
use tidemill_core::state::portions;

use super::rows::RowCodec;
use crate::state::key_index::folded_floats;
use crate::state::tier::{Family, RowKeys, Share, Tier, TierRange};

/// How many bytes of rows are frozen as one part of a snapshot: so many are in memory when it is encoded.
const PART_BYTES: u64 = 8 << 20;

/// A cache may grow to such a part of the memory for state.
const CACHE_PART: f64 = 0.5;

/// The slot has a key.
const TAKEN: u8 = 1;
/// It was looked up since the hand came by.
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
    range: Option<TierRange>,
    /// The codec of the key columns.
    keys: Arc<RowCodec>,
    marks: Vec<u8>,
    /// Where the search for keys that nobody uses goes on.
    hand: usize,
    /// For how many keys there is room; `None` until there was too little.
    pub room: Option<usize>,
    /// Keys that are not in memory.
    pub len: usize,
    /// Counts snapshots, modulo 2^31.
    pub epoch: u32,
    /// Bytes by key group of rows, roughly, and of what changed.
    bytes: [GroupBytes; 2],
    /// At what time how many rows are to be looked at for what has expired.
    pub sweep: Option<(i64, usize)>,
    /// The row at which that goes on; empty at the first one.
    pub cursor: Vec<u8>,
}

impl Outside {
    /// Nothing is outside so far.
    pub fn new(keys: &Fields, tier: Tier, leaving: Leaving, groups: u32) -> Result<Self> {
        Ok(Self {
            leaving,
            share: tier.share(),
            tier,
            range: None,
            keys: Arc::new(RowCodec::new(keys)?),
            marks: Vec::new(),
            hand: 0,
            room: None,
            len: 0,
            epoch: 0,
            bytes: [GroupBytes::new(groups), GroupBytes::new(groups)],
            sweep: None,
            cursor: Vec::new(),
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

    /// Makes room for so many more slots.
    pub fn reserve(&mut self, slots: usize) {
        self.marks.reserve(slots);
    }

    /// Takes note of slots that were looked up, of `slots` that there are; those that had no key before, each once, with their
    /// place in the list.
    pub fn note(&mut self, looked_up: &[usize], slots: usize) -> Vec<(usize, usize)> {
        self.marks.resize(slots.max(self.marks.len()), 0);
        let mut fresh = Vec::new();
        for (place, slot) in looked_up.iter().enumerate() {
            let mark = &mut self.marks[*slot];
            if *mark & TAKEN == 0 {
                fresh.push((place, *slot));
            }
            *mark |= TAKEN | USED;
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
        self.hand = 0;
    }

    /// The slots that have keys.
    pub fn taken(&self) -> impl Iterator<Item = usize> {
        (0..self.marks.len()).filter(|slot| self.marks[*slot] & TAKEN != 0)
    }

    /// So many slots of keys, those first that were not looked up since the last search (a clock with one hand).
    pub fn coldest(&mut self, count: usize) -> Vec<usize> {
        let mut cold = Vec::with_capacity(count);
        let mut seen = 0;
        while cold.len() < count && seen < 2 * self.marks.len() {
            self.hand = (self.hand + 1) % self.marks.len();
            seen += 1;
            let mark = &mut self.marks[self.hand];
            if *mark & (TAKEN | USED) == TAKEN {
                cold.push(self.hand);
                // Not a second time.
                *mark |= USED;
            } else {
                *mark &= !USED;
            }
        }
        cold.sort_unstable();
        cold.dedup();
        cold
    }

    /// The rows, once there are some.
    pub fn range(&self) -> Option<&TierRange> {
        self.range.as_ref()
    }

    /// The rows; opens the tier if there are none so far.
    pub fn open(&mut self) -> Result<&TierRange> {
        let range = match self.range.take() {
            Some(range) => range,
            None => self.tier.range()?,
        };
        Ok(self.range.insert(range))
    }

    /// The full keys of these keys in these key groups.
    pub fn row_keys(&self, range: &TierRange, family: Family, groups: &[u32], keys: &[ArrayRef]) -> Result<RowKeys> {
        let folded: Vec<ArrayRef> = keys.iter().map(folded_floats).collect();
        let rows = self.keys.encode(&folded)?;
        Ok(range.keys(family, groups.iter().copied().zip(rows.iter().map(|row| row.data()))))
    }

    /// The codec of the key columns.
    pub fn key_codec(&self) -> Arc<RowCodec> {
        self.keys.clone()
    }

    /// A row of so many bytes was written.
    pub fn wrote(&mut self, family: Family, group: u32, bytes: usize) {
        self.bytes[family as usize].0[group as usize] += bytes as u64;
    }

    /// What changed is in a snapshot.
    pub fn forget_changes(&mut self) -> Result<()> {
        self.epoch = (self.epoch + 1) & (u32::MAX >> 1);
        match &self.range {
            Some(range) if self.bytes[Family::Changes as usize].take() => range.clear(Family::Changes),
            _ => Ok(()),
        }
    }

    /// The key groups with rows, in portions that fit into memory.
    pub fn portions(&self, family: Family) -> Vec<Range<u32>> {
        portions(&self.bytes[family as usize].0, PART_BYTES)
    }

    /// Bytes held.
    pub fn memory_bytes(&self) -> usize {
        self.marks.capacity()
    }
}

/// Bytes by key group.
struct GroupBytes(Vec<u64>);

impl GroupBytes {
    fn new(groups: u32) -> Self {
        Self(vec![0; groups as usize])
    }

    /// Forgets all of it; whether there was something.
    fn take(&mut self) -> bool {
        let had = self.0.iter().any(|bytes| *bytes > 0);
        self.0.fill(0);
        had
    }
}
