//! A list a slot.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::Fields;
use tidemill_core::Result;
use tidemill_core::state::{EncodeColumn, Expiry, ListCells, StateColumn, evolving, resize_cells};

use super::{Entry, vacant};
use crate::state::Codec;
use crate::state::footprint::heap_bytes;

/// Lists of a user's type, encoded to the column `values`. An empty list is a vacant slot.
#[derive(Debug)]
pub struct ListColumn<E> {
    cells: Vec<Vec<E>>,
    entry_bytes: usize,
    codec: Arc<Codec<Vec<E>>>,
    fields: Fields,
}

impl<E: Entry> ListColumn<E> {
    /// A column without slots; an error if the columns of the user's type cannot be known.
    pub fn new() -> Result<Self> {
        let codec = Arc::new(Codec::new("values")?);
        let fields = Fields::from(vec![evolving(codec.field(), E::EVOLUTION)]);
        Ok(Self { cells: Vec::new(), entry_bytes: 0, codec, fields })
    }

    fn replace(&mut self, slot: usize, list: Vec<E>) {
        self.entry_bytes += bytes_of(&list);
        let old = std::mem::replace(&mut self.cells[slot], list);
        self.entry_bytes = self.entry_bytes.saturating_sub(bytes_of(&old));
    }

    fn lists(&self, slots: &[usize]) -> Result<Vec<&Vec<E>>> {
        let list = |slot: &usize| match self.cells[*slot].as_slice() {
            [] => Err(vacant(*slot)),
            _ => Ok(&self.cells[*slot]),
        };
        slots.iter().map(list).collect()
    }
}

fn bytes_of<E: Entry>(list: &[E]) -> usize {
    list.iter().map(|entry| size_of::<E>() + heap_bytes(entry)).sum()
}

impl<E: Entry> StateColumn for ListColumn<E> {
    fn fields(&self) -> &Fields {
        &self.fields
    }

    fn resize(&mut self, slots: usize) {
        resize_cells(&mut self.cells, slots, Vec::new);
    }

    fn clear(&mut self, slot: usize) {
        self.replace(slot, Vec::new());
    }

    fn is_vacant(&self, slot: usize) -> bool {
        self.cells[slot].is_empty()
    }

    fn encode(&self, slots: &[usize]) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.codec.encode(&self.lists(slots)?)?])
    }

    fn freeze(&self, slots: &[usize]) -> Result<EncodeColumn> {
        let lists: Vec<Vec<E>> = self.lists(slots)?.into_iter().cloned().collect();
        let codec = self.codec.clone();
        Ok(Box::new(move || Ok(vec![codec.encode(&lists)?])))
    }

    fn decode(&mut self, slots: &[usize], columns: &[ArrayRef]) -> Result<()> {
        for (slot, list) in slots.iter().zip(self.codec.decode(&columns[0])?) {
            self.replace(*slot, list);
        }
        Ok(())
    }

    fn expire(&mut self, slot: usize, expiry: Expiry) -> bool {
        let list = &mut self.cells[slot];
        let before = list.len();
        let mut dropped = 0;
        list.retain(|entry| {
            let expired = entry.is_expired(&expiry);
            if expired {
                dropped += bytes_of(std::slice::from_ref(entry));
            }
            !expired
        });
        if list.is_empty() {
            *list = Vec::new();
        }
        let after = list.len();
        self.entry_bytes = self.entry_bytes.saturating_sub(dropped);
        after < before
    }

    fn memory_bytes(&self) -> usize {
        self.cells.capacity() * size_of::<Vec<E>>() + self.entry_bytes
    }
}

impl<E: Entry> ListCells<E::Value> for ListColumn<E> {
    fn iter<'a>(&'a self, slot: usize, expiry: Expiry) -> Box<dyn Iterator<Item = &'a E::Value> + 'a> {
        Box::new(self.cells[slot].iter().filter(move |entry| entry.is_visible(&expiry)).map(E::value))
    }

    fn push(&mut self, slot: usize, value: E::Value, expiry: Expiry) {
        let entry = E::new(value, expiry.now_millis());
        self.entry_bytes += bytes_of(std::slice::from_ref(&entry));
        self.cells[slot].push(entry);
    }

    fn renew(&mut self, slot: usize, expiry: Expiry) -> bool {
        let mut renewed = false;
        for entry in self.cells[slot].iter_mut().filter(|entry| !entry.is_expired(&expiry)) {
            entry.renew(expiry.now_millis());
            renewed = true;
        }
        renewed
    }
}
