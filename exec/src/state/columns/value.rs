//! One value a slot.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::Fields;
use tidemill_core::Result;
use tidemill_core::state::{EncodeColumn, Expiry, StateColumn, ValueCells, resize_cells};

use super::vacant;
use crate::state::footprint::heap_bytes;
use crate::state::{Codec, StateValue};

/// Values of a user's type, encoded to the column `value`.
#[derive(Debug)]
pub struct ValueColumn<T> {
    cells: Vec<Option<T>>,
    heap_bytes: usize,
    codec: Arc<Codec<T>>,
    fields: Fields,
}

impl<T: StateValue> ValueColumn<T> {
    /// A column without slots; an error if the columns of `T` cannot be known.
    pub fn new() -> Result<Self> {
        let codec = Arc::new(Codec::new("value")?);
        let fields = Fields::from(vec![codec.field().clone()]);
        Ok(Self { cells: Vec::new(), heap_bytes: 0, codec, fields })
    }

    /// Puts a value, or none, into a slot and gives back what was there.
    fn replace(&mut self, slot: usize, value: Option<T>) -> Option<T> {
        self.heap_bytes += value.as_ref().map_or(0, heap_bytes);
        let old = std::mem::replace(&mut self.cells[slot], value);
        self.heap_bytes = self.heap_bytes.saturating_sub(old.as_ref().map_or(0, heap_bytes));
        old
    }

    fn values(&self, slots: &[usize]) -> Result<Vec<&T>> {
        slots.iter().map(|slot| self.cells[*slot].as_ref().ok_or_else(|| vacant(*slot))).collect()
    }
}

impl<T: StateValue> StateColumn for ValueColumn<T> {
    fn fields(&self) -> &Fields {
        &self.fields
    }

    fn resize(&mut self, slots: usize) {
        resize_cells(&mut self.cells, slots, || None);
    }

    fn reserve(&mut self, slots: usize) {
        self.cells.reserve(slots);
    }

    fn clear(&mut self, slot: usize) {
        self.replace(slot, None);
    }

    fn is_vacant(&self, slot: usize) -> bool {
        self.cells[slot].is_none()
    }

    fn encode(&self, slots: &[usize]) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.codec.encode(&self.values(slots)?)?])
    }

    fn freeze(&self, slots: &[usize]) -> Result<EncodeColumn> {
        let values: Vec<T> = self.values(slots)?.into_iter().cloned().collect();
        let codec = self.codec.clone();
        Ok(Box::new(move || Ok(vec![codec.encode(&values)?])))
    }

    fn decode(&mut self, slots: &[usize], columns: &[ArrayRef]) -> Result<()> {
        for (slot, value) in slots.iter().zip(self.codec.decode(&columns[0])?) {
            self.replace(*slot, Some(value));
        }
        Ok(())
    }

    fn memory_bytes(&self) -> usize {
        self.cells.capacity() * size_of::<Option<T>>() + self.heap_bytes
    }
}

impl<T: StateValue> ValueCells<T> for ValueColumn<T> {
    fn get(&self, slot: usize, _expiry: Expiry) -> Option<&T> {
        self.cells[slot].as_ref()
    }

    fn set(&mut self, slot: usize, value: T, _expiry: Expiry) {
        self.replace(slot, Some(value));
    }

    fn take(&mut self, slot: usize, _expiry: Expiry) -> Option<T> {
        self.replace(slot, None)
    }

    fn renew(&mut self, _slot: usize, _expiry: Expiry) -> bool {
        false
    }
}
