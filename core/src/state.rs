//! What operators remember, as the rest of the engine sees it: named columns that can be frozen, stored and given back.
//!
//! How state is laid out in memory is a matter of `exec`. Here is what a checkpoint, a restore and a reader of checkpoints need:
//! every state has a name, a kind and an Arrow schema, and its content is record batches.

use std::fmt;
use std::ops::Range;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::error::Result;

/// How a state is partitioned, and so how it is dealt out when the parallelism changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StateKind {
    /// Scoped to (operator, key); the first column is the key group as `UInt32` (STA-01).
    Keyed,
    /// Scoped to a subtask; on restore all rows are dealt round-robin (STA-08, SUB-10).
    List,
    /// Scoped to a subtask; on restore every subtask gets all rows (STA-09, SUB-10).
    UnionList,
    /// The same in every subtask (STA-07, SUB-11).
    Broadcast,
}

/// Name, kind and columns of one state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateDescriptor {
    /// Unique within its operator.
    pub name: String,
    /// How it is partitioned.
    pub kind: StateKind,
    /// Its columns. For keyed state the first one is the key group.
    pub schema: SchemaRef,
}

/// Encodes a frozen state, away from the task that froze it.
pub type EncodeState = Box<dyn FnOnce() -> Result<Vec<RecordBatch>> + Send>;

/// The frozen states of one operator in one subtask.
#[derive(Default)]
pub struct Snapshot {
    /// Each state with the handle that turns it into batches.
    pub states: Vec<(StateDescriptor, EncodeState)>,
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.states.iter().map(|(descriptor, _)| &descriptor.name)).finish()
    }
}

/// State on its way back into an operator.
#[derive(Clone, Debug, Default)]
pub struct RestoredState {
    /// The key groups that this subtask owns.
    pub key_groups: Range<u32>,
    /// Each state with its batches, already cut or dealt for this subtask.
    pub states: Vec<(StateDescriptor, Vec<RecordBatch>)>,
}

impl RestoredState {
    /// The batches of one state, empty if it was not part of the snapshot.
    pub fn take(&mut self, name: &str) -> Vec<RecordBatch> {
        let place = self.states.iter().position(|(descriptor, _)| descriptor.name == name);
        place.map_or_else(Vec::new, |place| self.states.swap_remove(place).1)
    }
}
