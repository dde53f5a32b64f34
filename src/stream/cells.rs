//! What keyed operators of this API remember, as a column of state: any type that serde can write, one value a slot.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::Fields;
use tidemill_core::Result;
use tidemill_core::state::{EncodeColumn, StateColumn, resize_cells};
use tidemill_exec::state::{Codec, StateValue};

/// What is kept for one key.
pub(super) trait Cell: StateValue + Default {
    /// Whether nothing is kept.
    fn is_vacant(&self) -> bool;
}

/// A cell a slot, within reach of the operator, which says by `touch` what it has changed.
pub(super) struct Cells<C> {
    cells: Vec<C>,
    codec: Arc<Codec<C>>,
    fields: Fields,
}

impl<C: Cell> Cells<C> {
    /// A column of this name without slots; an error if the columns of `C` cannot be known.
    pub fn new(name: &str) -> Result<Self> {
        let codec = Arc::new(Codec::new(name)?);
        let fields = Fields::from(vec![codec.field().clone()]);
        Ok(Self { cells: Vec::new(), codec, fields })
    }

    /// The cell of a slot.
    pub fn cell(&mut self, slot: usize) -> &mut C {
        &mut self.cells[slot]
    }
}

impl<C: Cell> StateColumn for Cells<C> {
    fn fields(&self) -> &Fields {
        &self.fields
    }

    fn resize(&mut self, slots: usize) {
        resize_cells(&mut self.cells, slots, C::default);
    }

    fn clear(&mut self, slot: usize) {
        self.cells[slot] = C::default();
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
        }
        Ok(())
    }

    fn memory_bytes(&self) -> usize {
        self.cells.capacity() * size_of::<C>()
    }
}
