//! What a subtask remembers beside the states of keys.

use tidemill_core::Result;
use tidemill_core::state::{EncodeState, RestoredState, StateDescriptor};

use crate::state::{BroadcastStates, OperatorLists};

/// The states of one operator in one subtask that belong to no key.
#[derive(Debug, Default)]
pub struct SubtaskStates {
    /// Maps that are the same in every subtask.
    pub broadcast: BroadcastStates,
    /// Lists of this subtask.
    pub lists: OperatorLists,
}

impl SubtaskStates {
    /// The states frozen, for a snapshot.
    pub fn freeze(&self) -> Vec<(StateDescriptor, EncodeState)> {
        self.broadcast.freeze().into_iter().chain(self.lists.freeze()).collect()
    }

    /// Takes these states out of `state`, after they were declared.
    pub fn restore(&mut self, state: &mut RestoredState) -> Result<()> {
        self.broadcast.restore(state)?;
        self.lists.restore(state)
    }

    /// Bytes that they occupy, roughly.
    pub fn memory_bytes(&self) -> usize {
        self.broadcast.memory_bytes() + self.lists.memory_bytes()
    }
}
