//! State as a checkpoint, a restore and a reader of checkpoints see it: every state has a name, a kind and an Arrow schema, and
//! its content is record batches.

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
    /// Its columns. For keyed state the first one is the key group, then come the key and what is kept for it.
    pub schema: SchemaRef,
}

/// Encodes a frozen state, away from the task that froze it.
pub type EncodeState = Box<dyn FnOnce() -> Result<Vec<RecordBatch>> + Send>;

/// How much of the state a snapshot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SnapshotScope {
    /// Everything. What changes from now on is kept track of.
    Base,
    /// What changed since the last [`SnapshotScope::Base`] or [`SnapshotScope::Changes`], whichever came later.
    Changes,
    /// Everything, and for itself alone (a savepoint): the next `Changes` does not know of it.
    Copy,
}

/// The frozen states of one operator in one subtask.
///
/// Laws: rows of keyed state are in the order of their key groups, so that cutting them by key group is slicing. A key is in a
/// state at most once, and only if something is kept for it. A base, then for each snapshot of changes first `removed` taken
/// out and then `states` put over, is what a copy would hold.
#[derive(Default)]
pub struct Snapshot {
    /// Each state with the handle that turns it into batches.
    pub states: Vec<(StateDescriptor, EncodeState)>,
    /// Only with [`SnapshotScope::Changes`]: key group and key of what is gone, for each keyed state. Some of these keys may
    /// be in no snapshot before.
    pub removed: Vec<(StateDescriptor, EncodeState)>,
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
