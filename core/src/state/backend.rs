//! Where state is kept.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::Fields;

use crate::error::Result;
use crate::state::KeyedStates;

/// A state backend, for the subtasks of one job (BKD-01 … BKD-04).
pub trait StateBackend: Debug + Send + Sync {
    /// The states of one operator in one subtask, of keys with these columns; without columns there is one key. The last of them may
    /// be a [`namespace`](super::namespace). An error if a value of such a type cannot be a key.
    fn keyed_states(&self, keys: &Fields) -> Result<Box<dyn KeyedStates>>;

    /// Where an operator puts parts of state that it keeps in a form of its own, when memory is short; `None` where all state stays
    /// in memory.
    fn parts(&self) -> Option<Box<dyn PartStore>> {
        None
    }
}

/// Takes parts of the state of one operator in one subtask out of memory. A part is written once and read as often as need be:
/// what belongs to one key in several parts, the operator puts together when it reads them.
pub trait PartStore: Send {
    /// What the operator may keep in memory, if the `held_bytes` that it holds are too much. To be asked whenever they have changed.
    fn excess(&mut self, held_bytes: usize) -> Option<usize>;

    /// Writes rows. Their first column is the key group, as in keyed state, and they are in its order.
    fn put(&mut self, rows: &RecordBatch) -> Result<Arc<dyn StatePart>>;
}

/// A part of state outside memory; gone when nobody holds it.
pub trait StatePart: Debug + Send + Sync {
    /// Adds the bytes that it has of each key group to those in `by_group`.
    fn add_bytes(&self, by_group: &mut [u64]);

    /// The rows of these key groups, in their order.
    fn read(&self, groups: Range<u32>) -> Result<Vec<RecordBatch>>;
}

/// Key groups in ranges of at most `bytes_max` bytes, or of one group; none where there are no bytes.
pub fn portions(by_group: &[u64], bytes_max: u64) -> Vec<Range<u32>> {
    let (mut portions, mut begin, mut bytes) = (Vec::new(), 0, 0);
    for (group, more) in (0..).zip(by_group) {
        if bytes > 0 && bytes + more > bytes_max {
            portions.push(begin..group);
            (begin, bytes) = (group, 0);
        }
        bytes += more;
    }
    if bytes > 0 {
        portions.push(begin..by_group.len() as u32);
    }
    portions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn portions_are_as_large_as_they_may_be_and_leave_nothing_out() {
        assert_eq!(portions(&[3, 3, 3, 9, 0, 1], 7), [0..2, 2..3, 3..4, 4..6]);
        assert_eq!(portions(&[0, 0, 5, 8], 7), [0..3, 3..4]);
        assert!(portions(&[0, 0], 7).is_empty());
    }
}
