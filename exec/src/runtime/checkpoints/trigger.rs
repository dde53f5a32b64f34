//! How checkpoints and savepoints begin: by time or because a user asks, with a barrier from every source.

use std::collections::BTreeMap;

use tidemill_core::event::{Barrier, BarrierKind, CheckpointId};
use tidemill_core::graph::{JobGraph, VertexHead};
use tidemill_core::{Error, Gate};

use super::Checkpointer;
use super::command::{Command, StoreFolder};
use super::pending::Pending;
use super::statistics::CheckpointInfo;

/// Whether barriers can flow through a job: not through plans that are pulled, nor through exchanges that hold everything back.
pub fn takes_checkpoints(job: &JobGraph) -> bool {
    let is_pulled = job.vertices.iter().any(|vertex| matches!(vertex.head, VertexHead::Fragment(_)));
    !is_pulled && job.edges.iter().all(|edge| edge.gate != Gate::Infinite)
}

impl Checkpointer {
    pub(super) fn takes_checkpoints(&self) -> bool {
        takes_checkpoints(&self.job)
    }

    pub(super) fn on_command(&mut self, Command { kind, target, reply }: Command) {
        if self.is_stopping {
            let _ = reply.send(Err(Error::unavailable("the job is stopping already")));
            return;
        }
        self.is_stopping = kind.stops();
        let id = self.trigger(kind, target);
        if let Some(pending) = self.attempt.pending.get_mut(&id) {
            pending.reply = Some(reply);
        }
        self.look();
    }

    /// Begins a checkpoint.
    pub(super) fn trigger(&mut self, kind: BarrierKind, target: Option<StoreFolder>) -> CheckpointId {
        let is_full = self.needs_full || !self.settings.incremental || self.last.is_none();
        let kind = match kind {
            BarrierKind::Checkpoint if is_full => BarrierKind::FullCheckpoint,
            kind => kind,
        };
        if kind == BarrierKind::FullCheckpoint {
            self.needs_full = false;
        }
        let id = self.next_id;
        self.next_id += 1;
        let clock = &self.environment.clock;
        let barrier = Barrier { id, timestamp: clock.now_millis(), kind };
        let pending = Pending {
            barrier,
            triggered: clock.monotonic(),
            is_overtaking: false,
            enumerators: BTreeMap::new(),
            parts: BTreeMap::new(),
            target,
            reply: None,
        };
        self.statistics.begin(CheckpointInfo::pending(id, name_of(kind), barrier.timestamp));
        self.attempt.pending.insert(id, pending);
        self.overtake_if_due();
        for (vertex, enumerator) in &self.attempt.enumerators {
            let (vertex, enumerator) = (*vertex, enumerator.clone());
            let answer = self.attempt.triggered.0.clone();
            // An enumerator may be looking for splits: nobody waits for it.
            let cut = async move {
                let state = enumerator.trigger(barrier).await;
                let _ = answer.send((id, vertex, state));
            };
            self.environment.io.spawn("trigger a checkpoint", Box::pin(cut));
        }
        id
    }
}

fn name_of(kind: BarrierKind) -> &'static str {
    match kind {
        BarrierKind::Checkpoint => "checkpoint",
        BarrierKind::FullCheckpoint => "full checkpoint",
        BarrierKind::Savepoint => "savepoint",
        BarrierKind::Stop { .. } => "stop",
    }
}
