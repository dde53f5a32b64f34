//! A checkpoint of which some subtasks have handed in their parts.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use arrow::array::RecordBatch;
use tidemill_core::Result;
use tidemill_core::event::{Barrier, BarrierKind, CheckpointId};
use tidemill_core::graph::OperatorId;
use tidemill_core::state::{EncodeState, Extent, FrozenState, StateDescriptor};
use tokio::sync::oneshot;

use super::command::StoreFolder;
use crate::latch::Latch;
use crate::runtime::participant::SubtaskSnapshot;

/// Vertex and number of a subtask.
pub type SubtaskKey = (usize, usize);

/// A subtask that has ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// What it had at its end.
    pub states: Vec<(OperatorId, SharedState)>,
    /// Whether the newest checkpoint holds it.
    pub is_stored: bool,
}

/// A frozen state that may go into several checkpoints; the first one encodes it.
#[derive(Clone)]
pub struct SharedState {
    descriptor: StateDescriptor,
    batches: Arc<LazyLock<Result<Vec<RecordBatch>>, EncodeState>>,
}

impl SharedState {
    /// Shares a state.
    pub fn new(state: FrozenState) -> Self {
        Self { descriptor: state.descriptor, batches: Arc::new(LazyLock::new(state.encode)) }
    }

    /// The state for one checkpoint.
    pub fn freeze(&self) -> FrozenState {
        let batches = self.batches.clone();
        let encode: EncodeState = Box::new(move || (**batches).clone());
        FrozenState { descriptor: self.descriptor.clone(), extent: Extent::Whole, encode }
    }
}

impl fmt::Debug for SharedState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.descriptor.name)
    }
}

/// A checkpoint under way.
#[derive(Debug)]
pub struct Pending {
    /// Its cut.
    pub barrier: Barrier,
    /// When it was triggered.
    pub triggered: Duration,
    /// Whether its barriers overtake rows.
    pub is_overtaking: bool,
    /// What enumerators remember, by vertex.
    pub enumerators: BTreeMap<usize, Vec<u8>>,
    /// The parts so far.
    pub parts: BTreeMap<SubtaskKey, SubtaskSnapshot>,
    /// Where a savepoint goes.
    pub target: Option<StoreFolder>,
    /// Who asked for it.
    pub reply: Option<Reply>,
}

impl Pending {
    /// Whether everyone has handed in a part: these sources, and those of these subtasks that have not ended.
    pub fn is_complete<'a>(
        &self,
        sources: impl IntoIterator<Item = &'a usize>,
        mut running: impl Iterator<Item = SubtaskKey>,
    ) -> bool {
        sources.into_iter().all(|source| self.enumerators.contains_key(source))
            && running.all(|subtask| self.parts.contains_key(&subtask))
    }

    /// Tells who asked for it.
    pub fn answer(&mut self, result: Result<CheckpointId>) {
        answer(self.reply.take(), result);
    }
}

/// The checkpoint that is being stored, as the coordinator knows it meanwhile.
#[derive(Debug)]
pub struct Storing {
    pub id: CheckpointId,
    pub kind: BarrierKind,
    /// Since when the store is waited for, or since it was last counted as failed.
    pub since: Duration,
    /// Who asked for it.
    pub reply: Option<Reply>,
    /// Thrown when it has taken too long: what is not being published by then never is.
    pub expired: Arc<Latch>,
    /// Thrown when it is durable.
    pub published: Arc<Latch>,
}

impl Storing {
    /// When it counts as failed, or as failed once more. Never again once it is durable: what then follows has bounds of its own.
    pub fn expires(&self, timeout: Duration) -> Option<Duration> {
        (!self.published.is_raised()).then(|| self.since + timeout)
    }
}

/// Where the answer to a user goes.
pub type Reply = oneshot::Sender<Result<CheckpointId>>;

/// Tells whoever asked what became of a checkpoint.
pub fn answer(reply: Option<Reply>, result: Result<CheckpointId>) {
    if let Some(reply) = reply {
        // They may have gone.
        let _ = reply.send(result);
    }
}
