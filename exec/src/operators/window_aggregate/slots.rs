//! The slots that take part in a part of a slice.

use arrow::array::{ArrayRef, BooleanArray};
use arrow::buffer::BooleanBuffer;
use arrow::compute::filter;
use fixedbitset::FixedBitSet;
use tidemill_core::Result;

/// The groups of an open part.
pub enum OpenSlots {
    /// Each slot is a group, and all that there are take part.
    All(usize),
    /// Each slot is a group, of which those that are marked take part: no row has to be looked up, and slots stay in their order.
    Many(FixedBitSet),
    /// Slots are groups in the order in which they came: what takes part costs, whatever the slice holds.
    Few(Vec<usize>),
}

/// The state of each aggregate for some slots.
pub struct ClosedPart {
    pub slots: Slots,
    /// The state columns of each aggregate, a row for each slot.
    pub states: Vec<Vec<ArrayRef>>,
}

/// The slots of a part, in the order of its rows.
pub enum Slots {
    /// All that there were.
    First(usize),
    /// These.
    Some(Vec<usize>),
}

impl OpenSlots {
    /// How many groups there are.
    pub fn groups(&self) -> usize {
        match self {
            Self::All(slots) => *slots,
            Self::Many(slots) => slots.len(),
            Self::Few(slots) => slots.len(),
        }
    }

    /// The slots that take part, and of the states of all groups theirs.
    pub fn close(self, states: Vec<Vec<ArrayRef>>) -> Result<ClosedPart> {
        match self {
            Self::All(slots) => Ok(ClosedPart { slots: Slots::First(slots), states }),
            Self::Few(slots) => Ok(ClosedPart { slots: Slots::Some(slots), states }),
            Self::Many(slots) if slots.is_full() => Ok(ClosedPart { slots: Slots::First(slots.len()), states }),
            Self::Many(slots) => {
                let takes_part: BooleanArray =
                    BooleanBuffer::collect_bool(slots.len(), |slot| slots.contains(slot)).into();
                let of_some = |state: &ArrayRef| Ok(filter(state, &takes_part)?);
                let states = states.iter().map(|columns| columns.iter().map(of_some).collect());
                Ok(ClosedPart { states: states.collect::<Result<_>>()?, slots: Slots::Some(slots.ones().collect()) })
            }
        }
    }

    pub fn memory_bytes(&self) -> usize {
        match self {
            Self::All(_) => 0,
            Self::Many(slots) => slots.len() / 8,
            Self::Few(slots) => slots.capacity() * size_of::<usize>(),
        }
    }
}

impl Slots {
    pub fn len(&self) -> usize {
        match self {
            Self::First(count) => *count,
            Self::Some(slots) => slots.len(),
        }
    }

    pub fn to_vec(&self) -> Vec<usize> {
        match self {
            Self::First(count) => (0..*count).collect(),
            Self::Some(slots) => slots.clone(),
        }
    }

    pub fn memory_bytes(&self) -> usize {
        match self {
            Self::First(_) => 0,
            Self::Some(slots) => slots.capacity() * size_of::<usize>(),
        }
    }
}
