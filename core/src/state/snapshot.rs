//! State as a checkpoint, a restore and a reader of checkpoints see it: every state has a name, a kind and an Arrow schema, and
//! its content is record batches.

use std::fmt;
use std::ops::Range;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use super::layer::StateLayer;
use super::narrow::widened;
use crate::error::{Error, Result};

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

/// Encodes a frozen state, away from the task that froze it: the columns that its descriptor declares, though perhaps with
/// [narrower](super::narrow) whole numbers.
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

/// What the rows of a frozen state are to what earlier snapshots hold of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Extent {
    /// All that there is; nothing that was stored before counts.
    Whole,
    /// Rows that are put in place of those with the same keys.
    Changed,
    /// Rows that stand beside those stored before: parts of what is kept for a key, for an operator that puts them together. Such
    /// an operator may leave to its restore what has become of older rows.
    Added,
    /// Keys, without what was kept for them: nothing is kept any more.
    Removed,
}

/// One state of a snapshot.
pub struct FrozenState {
    /// Which state. The schema is that of the batches: of keys alone where they are [`Extent::Removed`].
    pub descriptor: StateDescriptor,
    /// What the rows are to what was stored before.
    pub extent: Extent,
    /// Turns it into batches.
    pub encode: EncodeState,
}

/// The frozen states of one operator in one subtask.
///
/// Laws: rows of keyed state are in the order of their key groups, so that cutting them by key group is slicing. A key is in a
/// frozen state at most once, unless that is [`Extent::Added`], and only if something is kept for it. What a state's last [`Extent::Whole`] holds, with everything
/// that follows taken out or put over it in its order, is what a copy would hold. Only with [`SnapshotScope::Changes`] may the
/// first that is there of a state be no whole one. Keys that are removed may have been stored nowhere.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// The states. One may be there in several parts; their order counts.
    pub states: Vec<FrozenState>,
}

impl Snapshot {
    /// States each of which is all that there is.
    pub fn whole(states: impl IntoIterator<Item = (StateDescriptor, EncodeState)>) -> Self {
        let mut snapshot = Self::default();
        states.into_iter().for_each(|state| snapshot.push(Extent::Whole, state));
        snapshot
    }

    /// Adds a state.
    pub fn push(&mut self, extent: Extent, (descriptor, encode): (StateDescriptor, EncodeState)) {
        self.states.push(FrozenState { descriptor, extent, encode });
    }
}

impl FrozenState {
    /// Its rows, with the columns that the descriptor declares.
    ///
    /// Errors: of the state.
    pub fn rows(self) -> Result<Vec<RecordBatch>> {
        let Self { descriptor, encode, .. } = self;
        let declared = |batch: RecordBatch| {
            let rows = widened(&batch, &descriptor.schema)?;
            rows.ok_or_else(|| Error::internal(format!("state '{}' gave {:?}", descriptor.name, batch.schema_ref())))
        };
        encode()?.into_iter().map(declared).collect()
    }
}

impl fmt::Debug for FrozenState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} of '{}'", self.extent, self.descriptor.name)
    }
}

/// State on its way back into an operator.
#[derive(Clone, Debug, Default)]
pub struct RestoredState {
    /// The key groups that this subtask owns.
    pub key_groups: Range<u32>,
    /// Each state with its rows, already cut or dealt for this subtask, to be laid one over the other.
    pub states: Vec<(StateDescriptor, Vec<StateLayer>)>,
}

impl RestoredState {
    /// The rows of a state that is always stored whole; empty if it was not part of the snapshot.
    ///
    /// Errors: rows that cannot be decoded.
    pub fn take(&mut self, name: &str) -> Result<Vec<RecordBatch>> {
        let place = self.states.iter().position(|(descriptor, _)| descriptor.name == name);
        let layers = place.map_or_else(Vec::new, |place| self.states.swap_remove(place).1);
        let rows = |layer| match layer {
            StateLayer::Rows(rows) => Some(rows),
            StateLayer::Removed(_) => None,
        };
        layers.into_iter().filter_map(rows).flatten().collect()
    }
}
