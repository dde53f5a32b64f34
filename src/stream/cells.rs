//! What keyed operators of this API remember, as a column of state: any type that serde can write, one value a slot.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::Fields;
use tidemill_core::Result;
use tidemill_core::state::{EncodeColumn, StateColumn, resize_cells};
use tidemill_exec::state::{Codec, Footprint, StateValue};

/// What is kept for one key.
pub(super) trait Cell: StateValue + Default {
    /// Whether nothing is kept.
    fn is_vacant(&self) -> bool;
}

/// Every cell is measured again at least after so many accesses.
const LEAST_ACCESSES: usize = 8;

/// A cell a slot, within reach of the operator, which says by `touch` what it has changed.
///
/// What cells keep on the heap is measured before every so many accesses, as many as a quarter of its parts: each access pays for a few
/// parts, however large the cell has become, and what is known of it is behind by what that many records have added.
pub(super) struct Cells<C> {
    cells: Vec<C>,
    measured: Vec<Measured>,
    heap_bytes: usize,
    codec: Arc<Codec<C>>,
    fields: Fields,
}

/// What a cell kept on the heap when it was looked at, and how many accesses later that will be done again.
#[derive(Clone, Copy, Default)]
struct Measured {
    heap_bytes: usize,
    accesses_left: usize,
}

impl<C: Cell> Cells<C> {
    /// A column of this name without slots; an error if the columns of `C` cannot be known.
    pub fn new(name: &str) -> Result<Self> {
        let codec = Arc::new(Codec::new(name)?);
        let fields = Fields::from(vec![codec.field().clone()]);
        Ok(Self { cells: Vec::new(), measured: Vec::new(), heap_bytes: 0, codec, fields })
    }

    /// The cell of a slot.
    pub fn cell(&mut self, slot: usize) -> &mut C {
        match self.measured[slot].accesses_left {
            0 => self.measure(slot),
            left => self.measured[slot].accesses_left = left - 1,
        }
        &mut self.cells[slot]
    }

    fn measure(&mut self, slot: usize) {
        let Footprint { heap_bytes, parts } = Footprint::of(&self.cells[slot]);
        self.note(slot, Measured { heap_bytes, accesses_left: LEAST_ACCESSES.max(parts / 4) });
    }

    fn note(&mut self, slot: usize, measured: Measured) {
        let before = std::mem::replace(&mut self.measured[slot], measured);
        self.heap_bytes = self.heap_bytes + measured.heap_bytes - before.heap_bytes;
    }
}

impl<C: Cell> StateColumn for Cells<C> {
    fn fields(&self) -> &Fields {
        &self.fields
    }

    fn resize(&mut self, slots: usize) {
        self.measured.iter().skip(slots).for_each(|gone| self.heap_bytes -= gone.heap_bytes);
        resize_cells(&mut self.cells, slots, C::default);
        resize_cells(&mut self.measured, slots, Measured::default);
    }

    fn clear(&mut self, slot: usize) {
        self.cells[slot] = C::default();
        self.note(slot, Measured::default());
    }

    fn is_vacant(&self, slot: usize) -> bool {
        self.cells[slot].is_vacant()
    }

    fn encode(&self, slots: &[usize]) -> Result<Vec<ArrayRef>> {
        let cells: Vec<&C> = slots.iter().map(|slot| &self.cells[*slot]).collect();
        Ok(vec![self.codec.encode(&cells)?])
    }

    fn freeze(&self, slots: &[usize]) -> Result<EncodeColumn> {
        let cells: Vec<C> = slots.iter().map(|slot| self.cells[*slot].clone()).collect();
        let codec = self.codec.clone();
        Ok(Box::new(move || Ok(vec![codec.encode(&cells)?])))
    }

    fn decode(&mut self, slots: &[usize], columns: &[ArrayRef]) -> Result<()> {
        let column = columns.first().ok_or_else(|| tidemill_core::Error::corrupt("state without a column"))?;
        for (slot, cell) in slots.iter().zip(self.codec.decode(column)?) {
            self.cells[*slot] = cell;
            self.measure(*slot);
        }
        Ok(())
    }

    fn memory_bytes(&self) -> usize {
        let beside = self.measured.capacity() * size_of::<Measured>() + self.heap_bytes;
        self.cells.capacity() * size_of::<C>() + beside
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Cell for Vec<String> {
        fn is_vacant(&self) -> bool {
            self.is_empty()
        }
    }

    /// What the texts of all cells occupy.
    fn bytes_of(cells: &Cells<Vec<String>>) -> usize {
        cells.cells.iter().flatten().map(String::len).sum()
    }

    #[test]
    fn what_cells_keep_on_the_heap_counts_as_it_grows_and_goes() {
        let mut cells = Cells::<Vec<String>>::new("texts").unwrap();
        cells.resize(100);
        let empty = cells.memory_bytes();
        for number in 0..10_000 {
            cells.cell(number * number % 100).push("x".repeat(number % 50 + 50));
        }
        let (held, counted) = (bytes_of(&cells), cells.memory_bytes() - empty);
        assert!(counted > held / 2 && counted < 3 * held, "{counted} counted of {held}");

        let encoded = cells.encode(&[4]).unwrap();
        let mut other = Cells::<Vec<String>>::new("texts").unwrap();
        other.resize(1);
        let before = other.memory_bytes();
        other.decode(&[0], &encoded).unwrap();
        assert!(other.memory_bytes() - before >= bytes_of(&other));

        (0..50).for_each(|slot| cells.clear(slot));
        cells.resize(50);
        assert!(cells.memory_bytes() <= empty);
        assert_eq!((cells.heap_bytes, bytes_of(&cells)), (0, 0));
    }

    #[test]
    fn measuring_costs_a_few_parts_a_record_however_large_a_cell_is() {
        let mut cells = Cells::<Vec<String>>::new("texts").unwrap();
        cells.resize(1);
        let (mut parts, mut records) = (0, 0);
        while records < 100_000 {
            let is_due = cells.measured[0].accesses_left == 0;
            parts += if is_due { cells.cells[0].len() } else { 0 };
            cells.cell(0).push(String::new());
            records += 1;
        }
        assert!(parts < 5 * records, "{parts}");
    }
}
