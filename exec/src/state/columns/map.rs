//! A map a slot.
//!
//! An entry is found by its key and entries are iterated in place; nothing is decoded for that. To a checkpoint a map is one cell,
//! of which a change stores all: rows of keyed state replace those with the same key, and the entry is not part of the key. Who
//! changes a few entries of a large map between checkpoints stores less with a key of its own for each entry.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::Fields;
use tidemill_core::Result;
use tidemill_core::state::{EncodeColumn, Expiry, MapCells, StateColumn, evolving, resize_cells};

use super::{Entry, vacant};
use crate::state::footprint::{ENTRY_OVERHEAD, heap_bytes};
use crate::state::{Codec, StateValue};

/// Maps of user's types, encoded to the column `entries`. An empty map is a vacant slot.
#[derive(Debug)]
pub struct MapColumn<K, E> {
    cells: Vec<BTreeMap<K, E>>,
    entry_bytes: usize,
    codec: Arc<Codec<BTreeMap<K, E>>>,
    fields: Fields,
}

impl<K: StateValue + Ord, E: Entry> MapColumn<K, E> {
    /// A column without slots; an error if the columns of the user's types cannot be known.
    pub fn new() -> Result<Self> {
        let codec = Arc::new(Codec::new("entries")?);
        let fields = Fields::from(vec![evolving(codec.field(), E::EVOLUTION)]);
        Ok(Self { cells: Vec::new(), entry_bytes: 0, codec, fields })
    }

    fn replace(&mut self, slot: usize, map: BTreeMap<K, E>) {
        self.entry_bytes += map.iter().map(bytes_of).sum::<usize>();
        let old = std::mem::replace(&mut self.cells[slot], map);
        self.entry_bytes = self.entry_bytes.saturating_sub(old.iter().map(bytes_of).sum());
    }

    fn maps(&self, slots: &[usize]) -> Result<Vec<&BTreeMap<K, E>>> {
        let map = |slot: &usize| match self.cells[*slot].is_empty() {
            true => Err(vacant(*slot)),
            false => Ok(&self.cells[*slot]),
        };
        slots.iter().map(map).collect()
    }
}

fn bytes_of<K: StateValue, E: Entry>((key, entry): (&K, &E)) -> usize {
    ENTRY_OVERHEAD + size_of::<(K, E)>() + heap_bytes(key) + heap_bytes(entry)
}

impl<K: StateValue + Ord, E: Entry> StateColumn for MapColumn<K, E> {
    fn fields(&self) -> &Fields {
        &self.fields
    }

    fn resize(&mut self, slots: usize) {
        resize_cells(&mut self.cells, slots, BTreeMap::new);
    }

    fn clear(&mut self, slot: usize) {
        self.replace(slot, BTreeMap::new());
    }

    fn is_vacant(&self, slot: usize) -> bool {
        self.cells[slot].is_empty()
    }

    fn encode(&self, slots: &[usize]) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.codec.encode(&self.maps(slots)?)?])
    }

    fn freeze(&self, slots: &[usize]) -> Result<EncodeColumn> {
        let maps: Vec<BTreeMap<K, E>> = self.maps(slots)?.into_iter().cloned().collect();
        let codec = self.codec.clone();
        Ok(Box::new(move || Ok(vec![codec.encode(&maps)?])))
    }

    fn decode(&mut self, slots: &[usize], columns: &[ArrayRef]) -> Result<()> {
        for (slot, map) in slots.iter().zip(self.codec.decode(&columns[0])?) {
            self.replace(*slot, map);
        }
        Ok(())
    }

    fn expire(&mut self, slot: usize, expiry: Expiry) -> bool {
        let map = &mut self.cells[slot];
        let before = map.len();
        let mut dropped = 0;
        map.retain(|key, entry| {
            let expired = entry.is_expired(&expiry);
            if expired {
                dropped += bytes_of((key, &*entry));
            }
            !expired
        });
        let after = map.len();
        self.entry_bytes = self.entry_bytes.saturating_sub(dropped);
        after < before
    }

    fn memory_bytes(&self) -> usize {
        self.cells.capacity() * size_of::<BTreeMap<K, E>>() + self.entry_bytes
    }
}

impl<K: StateValue + Ord, E: Entry> MapCells<K, E::Value> for MapColumn<K, E> {
    fn get(&self, slot: usize, key: &K, expiry: Expiry) -> Option<&E::Value> {
        self.cells[slot].get(key).filter(|entry| entry.is_visible(&expiry)).map(E::value)
    }

    fn iter<'a>(&'a self, slot: usize, expiry: Expiry) -> Box<dyn Iterator<Item = (&'a K, &'a E::Value)> + 'a> {
        let visible = self.cells[slot].iter().filter(move |(_, entry)| entry.is_visible(&expiry));
        Box::new(visible.map(|(key, entry)| (key, entry.value())))
    }

    fn put(&mut self, slot: usize, key: K, value: E::Value, expiry: Expiry) {
        // The key that is there stays; equal keys may still differ in size.
        self.remove(slot, &key, expiry);
        let entry = E::new(value, expiry.now_millis());
        self.entry_bytes += bytes_of((&key, &entry));
        self.cells[slot].insert(key, entry);
    }

    fn remove(&mut self, slot: usize, key: &K, expiry: Expiry) -> Option<E::Value> {
        let (key, entry) = self.cells[slot].remove_entry(key)?;
        self.entry_bytes = self.entry_bytes.saturating_sub(bytes_of((&key, &entry)));
        entry.is_visible(&expiry).then(|| entry.into_value())
    }

    fn renew(&mut self, slot: usize, key: Option<&K>, expiry: Expiry) -> bool {
        let now = expiry.now_millis();
        let mut renewed = false;
        let mut renew = |entry: &mut E| {
            if !entry.is_expired(&expiry) {
                entry.renew(now);
                renewed = true;
            }
        };
        match key {
            Some(key) => self.cells[slot].get_mut(key).into_iter().for_each(&mut renew),
            None => self.cells[slot].values_mut().for_each(&mut renew),
        }
        renewed
    }
}
