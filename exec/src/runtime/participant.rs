//! A subtask's side of checkpoints: it freezes what it has, says so, and hears what became of it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tidemill_core::clock::Spawner;
use tidemill_core::event::{Barrier, CheckpointId};
use tidemill_core::graph::OperatorId;
use tidemill_core::sink::{Committable, WriterState};
use tidemill_core::source::Split;
use tidemill_core::state::{EncodeState, Extent, FrozenState, SnapshotScope, StateDescriptor};
use tidemill_core::{Error, Result};
use tokio::sync::{mpsc, oneshot};

use crate::runtime::chain::Chain;
use crate::runtime::in_flight::InFlight;
use crate::runtime::job_state::freeze_splits;
use crate::runtime::sink::Prepared;

/// What a subtask says to the coordinator of checkpoints. At most a few messages a checkpoint.
#[derive(Debug)]
pub enum FromTask {
    /// Its part of a checkpoint.
    Acknowledged {
        /// The checkpoint.
        checkpoint: CheckpointId,
        /// Vertex and number of the subtask.
        subtask: (usize, usize),
        /// Its part.
        snapshot: SubtaskSnapshot,
    },
    /// It cannot take part now.
    Declined {
        /// The checkpoint.
        checkpoint: CheckpointId,
        /// Why.
        reason: &'static str,
    },
    /// Its sink failed to prepare; the job cannot go on.
    Failed(Error),
}

/// The frozen states of one subtask.
#[derive(Default)]
pub struct SubtaskSnapshot {
    /// States, each with its operator.
    pub states: Vec<(OperatorId, FrozenState)>,
    /// Where its source stands; also among the states.
    pub splits: Vec<Split>,
    /// What its sink has prepared.
    pub committables: Vec<Committable>,
    /// What its sink goes on with.
    pub writer_states: Vec<WriterState>,
    /// How long the task stood still for it.
    pub stalled: Duration,
    /// How long its channels aligned for it.
    pub alignment: Duration,
    /// Bytes of rows in flight, if its barriers overtook rows.
    pub in_flight_bytes: Option<u64>,
}

impl SubtaskSnapshot {
    /// Adds a state that is all that there is.
    fn push(&mut self, operator: OperatorId, (descriptor, encode): (StateDescriptor, EncodeState)) {
        self.states.push((operator, FrozenState { descriptor, extent: Extent::Whole, encode }));
    }
}

impl fmt::Debug for SubtaskSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.states).finish()
    }
}

/// What a subtask is told about checkpoints.
#[derive(Clone, Copy, Debug)]
pub enum ToTask {
    /// It is durable.
    Completed(CheckpointId),
    /// It never will be.
    Aborted {
        /// The checkpoint.
        checkpoint: CheckpointId,
        /// The first that may still come to be, be it an earlier one: those before it are all decided.
        oldest: CheckpointId,
    },
}

/// A subtask that takes part in checkpoints.
#[derive(Debug)]
pub struct Participant {
    /// Vertex and number of the subtask.
    pub subtask: (usize, usize),
    /// Its operators, in their order.
    pub operators: Vec<OperatorId>,
    /// Its first operator, source or sink: what rows in flight to it are filed under.
    pub head: OperatorId,
    /// The source that it reads.
    pub source: Option<OperatorId>,
    /// The coordinator.
    pub reports: mpsc::UnboundedSender<FromTask>,
    /// Where it waits for the sink.
    pub io: Arc<dyn Spawner>,
    /// Parts that wait for the sink; each says when it has been handed in.
    pub waiting: Vec<oneshot::Receiver<()>>,
}

impl Participant {
    /// Freezes the states of the operators and the positions of the source. The chain must be at rest.
    pub fn snapshot(&self, chain: &mut Chain, splits: &[Split], scope: SnapshotScope) -> Result<SubtaskSnapshot> {
        let mut frozen = SubtaskSnapshot::default();
        for (operator, snapshot) in self.operators.iter().zip(chain.snapshot(scope)?) {
            frozen.states.extend(snapshot.states.into_iter().map(|state| (*operator, state)));
        }
        if let Some(source) = self.source {
            frozen.push(source, freeze_splits(splits));
            frozen.splits = splits.to_vec();
        }
        Ok(frozen)
    }

    /// Adds the rows in flight to the subtask's part.
    pub fn add_in_flight(&self, snapshot: &mut SubtaskSnapshot, in_flight: InFlight) {
        snapshot.in_flight_bytes = Some(in_flight.bytes() as u64);
        in_flight.freeze().into_iter().for_each(|state| snapshot.push(self.head, state));
    }

    /// Hands the subtask's part in, once the sink has prepared its own.
    pub fn acknowledge(&mut self, barrier: Barrier, snapshot: SubtaskSnapshot, prepared: Option<Prepared>) {
        let (checkpoint, subtask) = (barrier.id, self.subtask);
        let Some(prepared) = prepared else {
            return self.say(FromTask::Acknowledged { checkpoint, subtask, snapshot });
        };
        let reports = self.reports.clone();
        self.waiting.retain_mut(|waiting| waiting.try_recv() == Err(oneshot::error::TryRecvError::Empty));
        let (handed_in, waiting) = oneshot::channel();
        self.waiting.push(waiting);
        let wait = async move {
            let message = match prepared.await {
                Ok(Ok((committables, writer_states))) => {
                    let snapshot = SubtaskSnapshot { committables, writer_states, ..snapshot };
                    FromTask::Acknowledged { checkpoint, subtask, snapshot }
                }
                Ok(Err(error)) => FromTask::Failed(error),
                // The job is being cancelled, or the writer has failed before.
                Err(_) => return,
            };
            let _ = reports.send(message);
            let _ = handed_in.send(());
        };
        self.io.spawn("prepare to commit", Box::pin(wait));
    }

    /// Waits until every part has been handed in. Before the subtask ends: whoever hears of its end has heard of them. `false` if
    /// one never will be, because the sink failed.
    pub async fn settle(&mut self) -> bool {
        let mut all = true;
        for waiting in self.waiting.drain(..) {
            all &= waiting.await.is_ok();
        }
        all
    }

    /// The subtask's part of every checkpoint after its end.
    pub fn at_end(&self, chain: &mut Chain) -> Result<SubtaskSnapshot> {
        self.snapshot(chain, &[], SnapshotScope::Copy)
    }

    /// Takes no part in a checkpoint.
    pub fn decline(&self, checkpoint: CheckpointId, reason: &'static str) {
        self.say(FromTask::Declined { checkpoint, reason });
    }

    fn say(&self, message: FromTask) {
        // Nobody listens when the job is ending.
        let _ = self.reports.send(message);
    }
}
