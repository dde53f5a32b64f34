//! Where the states of keys are kept.

use std::fmt::Debug;

use arrow::datatypes::Fields;

use crate::error::Result;
use crate::state::KeyedStates;

/// A state backend, for the subtasks of one job (BKD-01 … BKD-04).
pub trait StateBackend: Debug + Send + Sync {
    /// The states of one operator in one subtask, of keys with these columns; without columns there is one key. An error if a value
    /// of such a type cannot be a key.
    fn keyed_states(&self, keys: &Fields) -> Result<Box<dyn KeyedStates>>;
}
