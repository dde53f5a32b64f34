//! One state of all keys: a column with a cell for each slot.

use std::any::{Any, type_name};
use std::ops::Range;

use arrow::array::ArrayRef;
use arrow::datatypes::Fields;

use crate::error::{Error, Result};
use crate::state::Expiry;

/// Encodes a frozen column, away from the task that froze it.
pub type EncodeColumn = Box<dyn FnOnce() -> Result<Vec<ArrayRef>> + Send>;

/// One state as a column over slots: what a backend moves between memory and elsewhere.
///
/// Laws:
/// * A new slot and a cleared one are vacant, and cannot be told apart.
/// * `decode` of what `encode` gave, into any slots of a column of the same kind, cannot be told apart from what was encoded.
///   It replaces what the slots held; a slot that is there twice holds the later row.
/// * `encode` gives as many rows as it was given slots, in their order, with the types of `fields`, and changes nothing. None
///   of the slots is vacant; a vacant one may be an error.
/// * What `freeze` returned encodes the column as it was when frozen, whatever happened to it since.
pub trait StateColumn: Any + Send {
    /// The columns that it encodes to.
    fn fields(&self) -> &Fields;

    /// There are `slots` slots now; those that are new are vacant, those that go were, and their memory goes with them.
    fn resize(&mut self, slots: usize);

    /// So many more slots are coming: room for all of them is made at once.
    fn reserve(&mut self, _slots: usize) {}

    /// Empties the slot.
    fn clear(&mut self, slot: usize);

    /// Whether nothing is kept in this slot, so that it need not be stored.
    fn is_vacant(&self, slot: usize) -> bool;

    /// Adds those of these slots that are vacant to `vacant`.
    fn vacant_among(&self, slots: &[usize], vacant: &mut Vec<usize>) {
        vacant.extend(slots.iter().filter(|slot| self.is_vacant(**slot)));
    }

    /// What these slots hold, as Arrow arrays.
    fn encode(&self, slots: &[usize]) -> Result<Vec<ArrayRef>>;

    /// The same for later: copies what it must and leaves the rest of the work to whom calls the result. Where encoding is no
    /// more than copying, this is `encode`.
    fn freeze(&self, slots: &[usize]) -> Result<EncodeColumn> {
        let columns = self.encode(slots)?;
        Ok(Box::new(move || Ok(columns)))
    }

    /// Fills these slots with what `encode` gave for others.
    fn decode(&mut self, slots: &[usize], columns: &[ArrayRef]) -> Result<()>;

    /// Adds these slots behind all others, as `resize` would, filled as by `decode`. Columns that are vectors need not be vacant first.
    fn append(&mut self, slots: Range<usize>, columns: &[ArrayRef]) -> Result<()> {
        self.resize(slots.end);
        self.decode(&slots.collect::<Vec<_>>(), columns)
    }

    /// These slots were written at this time. Columns whose slots expire as a whole note it.
    fn touch(&mut self, _slots: &[usize], _now_millis: i64) {}

    /// Whether there is something in this slot that was saved without its time. Whoever sees that touches it, so that its time
    /// begins.
    fn is_undated(&self, _slot: usize) -> bool {
        false
    }

    /// Drops what has expired in this slot; whether there was something. Only columns that keep times do.
    fn expire(&mut self, _slot: usize, _expiry: Expiry) -> bool {
        false
    }

    /// Bytes that it occupies, roughly. Must be cheap.
    fn memory_bytes(&self) -> usize;
}

/// Resizes cells as [`StateColumn::resize`] demands: the memory of those that go, goes with them.
pub fn resize_cells<T>(cells: &mut Vec<T>, slots: usize, vacant: impl FnMut() -> T) {
    let (shrinks, more) = (slots < cells.len(), slots.saturating_sub(cells.len()));
    // Room that somebody has counted: it is not to be doubled. Small steps grow in large ones.
    if more > cells.len() / 8 {
        cells.reserve_exact(more);
    }
    cells.resize_with(slots, vacant);
    if shrinks {
        cells.shrink_to_fit();
    }
}

/// Adds cells as [`StateColumn::append`] demands. Errors: there are not as many values as slots.
pub fn append_cells<T: Copy + Default>(cells: &mut Vec<T>, slots: Range<usize>, values: &[T]) -> Result<()> {
    if slots.len() != values.len() {
        return Err(Error::corrupt(format!("{} values for {} slots", values.len(), slots.len())));
    }
    resize_cells(cells, slots.start, T::default);
    if values.len() > cells.len() / 8 {
        cells.reserve_exact(values.len());
    }
    cells.extend_from_slice(values);
    Ok(())
}

impl dyn StateColumn {
    /// The column as what it is, for the operator that registered it.
    pub fn downcast<C: StateColumn>(&mut self) -> Result<&mut C> {
        let any: &mut dyn Any = self;
        any.downcast_mut().ok_or_else(|| Error::internal(format!("a state column that is no {}", type_name::<C>())))
    }
}
