//! What a subtask remembers beside the states of keys.

use std::collections::BTreeSet;

use tidemill_core::state::{EncodeState, RestoredState, StateDescriptor};
use tidemill_core::{Error, Result};

use crate::state::{BroadcastStates, OperatorLists};

/// The states of one operator in one subtask that belong to no key.
#[derive(Debug, Default)]
pub struct SubtaskStates {
    /// Maps that are the same in every subtask.
    pub broadcast: BroadcastStates,
    /// Lists of this subtask.
    pub lists: OperatorLists,
    names: BTreeSet<String>,
}

impl SubtaskStates {
    /// Takes a name for one state of the operator, of keys or not: a snapshot finds states by it. An error if another one has it.
    pub fn claim(&mut self, name: &str) -> Result<()> {
        match self.names.insert(name.to_owned()) {
            true => Ok(()),
            false => Err(Error::request(format!("there are two states called '{name}'"))
                .with_hint("every state of an operator has a name of its own")),
        }
    }

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
