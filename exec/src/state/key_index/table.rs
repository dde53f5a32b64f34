//! Slot numbers by the hash of their key, in places that have the order of hashes.
//!
//! A bucket is chosen by where in its stretch of all hashes a hash lies, not by its lowest bits. Key groups are such stretches, and what
//! is stored comes in their order: of a table larger than the caches it meets one part behind the other. That needs a table which is
//! large enough from the beginning, or the first keys would crowd its first part: one that has to grow, or has a part that fills up
//! before the others, scatters its keys.

use std::ops::Range;

use hashbrown::HashTable;

/// Keys that are looked for together, if as many have room. A processor that waits for memory looks for as many keys at once as its window
/// of instructions holds: what need not stand between them is done for all of them before.
const MOST_PLACES: usize = 256;
/// Room is made for as many.
const LEAST_PLACES: usize = 16;

/// Parts of a table whose keys are counted, a power of two.
const PARTS: usize = 64;
/// Keys that are counted where the first of them is: they come in order, or are anywhere.
const COUNTED_KEYS: usize = 8;

/// What `hashbrown` takes as the hash of a key: in its lowest bits where to look first, in its highest seven a tag. It holds until the table
/// grows.
#[derive(Debug, Clone, Copy)]
pub struct Place(u64);

/// A hash table of slots.
#[derive(Debug)]
pub struct SlotTable {
    slots: HashTable<u32>,
    places: Places,
    /// Keys in each part, roughly.
    in_parts: [u32; PARTS],
    /// Whether a part has more keys than it may have.
    is_crowded: bool,
}

/// How hashes become places.
#[derive(Debug, Clone, Copy)]
struct Places {
    /// By how many bits hashes are turned before.
    turn: u32,
    /// The first hash that a key may have.
    begin: u64,
    /// Buckets a hash, times 2^64.
    scale: u64,
    /// By how many bits the number of a bucket is longer than that of its part.
    of_part: u32,
    /// How many keys a part may have.
    most: u32,
}

impl Places {
    /// Of keys with any hashes. The high half of a hash chooses the key group, so that all keys of a subtask begin alike: places are
    /// those of the low half.
    fn scattered(buckets: usize) -> Self {
        Self { turn: 32, begin: 0, scale: buckets as u64, of_part: 0, most: u32::MAX }
    }

    /// In the order of hashes, where all keys are of these groups.
    fn in_order(groups: &Range<u32>, max_parallelism: u32, buckets: usize) -> Self {
        // See `tidemill_core::key::key_group`.
        let first = |group: u32| ((u128::from(group) << 32).div_ceil(u128::from(max_parallelism.max(1)))) << 32;
        let (begin, end) = (first(groups.start), first(groups.end));
        let scale = ((buckets as u128) << 64) / end.saturating_sub(begin).max(1);
        // A table is never filled by more than seven eighths: the last one is for what differs by chance.
        let (of_part, most) = match buckets / PARTS {
            0 => (0, u32::MAX),
            buckets => (buckets.trailing_zeros(), buckets as u32),
        };
        Self { turn: 0, begin: begin as u64, scale: u64::try_from(scale).unwrap_or(u64::MAX), of_part, most }
    }

    #[inline]
    fn of(self, hash: u64) -> Place {
        // Bits that have no part in the bucket, and are not the same for all keys of a key group: those of namespaces are alike in the
        // high half.
        let tag = hash ^ hash >> 39;
        let hash = hash.rotate_left(self.turn);
        let bucket = (u128::from(hash.wrapping_sub(self.begin)) * u128::from(self.scale)) >> 64;
        Place(bucket as u64 | tag << 57)
    }

    #[inline]
    fn part(self, place: Place) -> usize {
        (place.0 >> self.of_part) as usize % PARTS
    }
}

impl SlotTable {
    /// An empty table of keys with any hashes.
    pub fn new() -> Self {
        Self { slots: HashTable::new(), places: Places::scattered(0), in_parts: [0; PARTS], is_crowded: false }
    }

    /// Makes room for so many keys of these key groups, in their order, until there are more or a part of them is crowded.
    pub fn lay_out(&mut self, groups: &Range<u32>, max_parallelism: u32, keys: usize, hashes: &[u64]) {
        self.rebuild(self.len().max(keys), hashes, |buckets| Places::in_order(groups, max_parallelism, buckets));
    }

    /// The places of keys with the first of these hashes, as many as at least have room; `all` are the hashes of all slots.
    pub fn places(&mut self, hashes: &[u64], all: &[u64], places: &mut Vec<Place>) {
        self.reserve(LEAST_PLACES, all);
        let rows = (self.slots.capacity() - self.slots.len()).min(MOST_PLACES);
        places.clear();
        places.extend(hashes.iter().take(rows).map(|hash| self.place(*hash)));
    }

    /// The place of the key with this hash.
    pub fn place(&self, hash: u64) -> Place {
        self.places.of(hash)
    }

    /// Adds the slot of a key that is not there; `hashes` are those of all slots.
    pub fn insert(&mut self, place: Place, slot: u32, hashes: &[u64]) {
        let places = self.places;
        self.slots.insert_unique(place.0, slot, |slot| places.of(hashes[*slot as usize]).0);
        self.count(place, 1);
    }

    /// Adds the slots from this one on, each of a key that is not there; `hashes` are those of all slots.
    pub fn insert_new(&mut self, from: usize, hashes: &[u64]) {
        self.reserve(hashes.len() - from, hashes);
        for begin in (from..hashes.len()).step_by(COUNTED_KEYS) {
            let new = begin..hashes.len().min(begin + COUNTED_KEYS);
            if self.is_crowded {
                self.grow(hashes.len() - begin, hashes);
            }
            let places = self.places;
            let place_of = |slot: &u32| places.of(hashes[*slot as usize]).0;
            for slot in new.clone() {
                self.slots.insert_unique(places.of(hashes[slot]).0, slot as u32, place_of);
            }
            self.count(places.of(hashes[begin]), new.len() as u32);
        }
    }

    /// Takes note of keys in the part of this place.
    fn count(&mut self, place: Place, keys: u32) {
        let in_part = &mut self.in_parts[self.places.part(place)];
        *in_part += keys;
        self.is_crowded |= *in_part > self.places.most;
    }

    /// The slot of the key with this place.
    #[inline]
    pub fn find(&self, place: Place, is_same: impl FnMut(&u32) -> bool) -> Option<usize> {
        self.slots.find(place.0, is_same).map(|slot| *slot as usize)
    }

    /// Takes out a slot whose key has this hash; whether it was there.
    pub fn remove(&mut self, hash: u64, slot: u32) -> bool {
        let place = self.place(hash);
        let entry = self.slots.find_entry(place.0, |other| *other == slot).map(|entry| entry.remove());
        let is_there = entry.is_ok();
        let in_part = &mut self.in_parts[self.places.part(place)];
        *in_part = in_part.saturating_sub(u32::from(is_there));
        is_there
    }

    /// Makes room for so many more keys at once; `hashes` are those of all slots.
    pub fn reserve(&mut self, keys: usize, hashes: &[u64]) {
        if self.slots.capacity() - self.slots.len() < keys || self.is_crowded {
            self.grow(keys, hashes);
        }
    }

    /// Whether places have the order of hashes.
    #[cfg(test)]
    pub fn is_in_order(&self) -> bool {
        self.places.turn == 0
    }

    /// How many slots there are.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// For how many there is room.
    pub fn capacity(&self) -> usize {
        self.slots.capacity()
    }

    #[cold]
    fn grow(&mut self, more: usize, hashes: &[u64]) {
        let (wanted, most) = (self.slots.len() + more, self.slots.num_buckets() / 8 * 7);
        // Where most of it is what removed keys left behind, or only a part of it is full, it stays as large as it is.
        let is_large = wanted <= if self.is_crowded { most } else { most / 2 };
        self.rebuild(if is_large { most } else { wanted.max(most + 1) }, hashes, Places::scattered);
    }

    fn rebuild(&mut self, capacity: usize, hashes: &[u64], places: impl FnOnce(usize) -> Places) {
        let before = std::mem::replace(&mut self.slots, HashTable::with_capacity(capacity));
        self.places = places(self.slots.num_buckets());
        (self.in_parts, self.is_crowded) = ([0; PARTS], false);
        for slot in before {
            self.insert(self.place(hashes[slot as usize]), slot, hashes);
        }
    }
}
