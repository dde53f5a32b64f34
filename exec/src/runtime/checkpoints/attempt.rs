//! What the coordinator of checkpoints knows of the attempt that runs; the next one begins with nothing of it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tidemill_core::Result;
use tidemill_core::event::CheckpointId;
use tidemill_core::sink::Committable;
use tokio::sync::mpsc;

use super::pending::{Ended, Pending, SubtaskKey};
use crate::exchange::Urgency;
use crate::runtime::participant::{FromTask, ToTask};
use crate::runtime::reader::SharedEnumerator;
use crate::runtime::task::Message;

/// What belongs to the attempt that runs.
pub struct Attempt {
    /// What its tasks say.
    pub reports: mpsc::UnboundedReceiver<FromTask>,
    /// The tasks that take part.
    pub tasks: BTreeMap<SubtaskKey, TaskControl>,
    /// The enumerators of its sources, by vertex.
    pub enumerators: BTreeMap<usize, Arc<SharedEnumerator>>,
    pub(super) triggered: (mpsc::UnboundedSender<Triggered>, mpsc::UnboundedReceiver<Triggered>),
    pub(super) ended: BTreeMap<SubtaskKey, Ended>,
    /// The newest checkpoint that each subtask has taken part in.
    pub(super) acknowledged: BTreeMap<SubtaskKey, CheckpointId>,
    pub(super) pending: BTreeMap<CheckpointId, Pending>,
    /// Complete, to be stored one after the other.
    pub(super) waiting: VecDeque<Pending>,
    pub(super) uncommitted: Vec<Uncommitted>,
}

/// How the coordinator reaches a task.
#[derive(Debug)]
pub struct TaskControl {
    /// What it reads between two batches.
    pub messages: mpsc::UnboundedSender<Message>,
    /// What it hears also while it waits for its consumers.
    pub urgency: Arc<Urgency>,
}

/// What an enumerator answers to a trigger.
pub type Triggered = (CheckpointId, usize, Result<Vec<u8>>);

/// What a subtask's sink has prepared, and the first checkpoint that may commit it.
#[derive(Clone, Debug)]
pub struct Uncommitted {
    pub subtask: SubtaskKey,
    pub since: CheckpointId,
    pub committable: Committable,
}

impl Attempt {
    /// An attempt that begins.
    pub fn new(
        reports: mpsc::UnboundedReceiver<FromTask>,
        tasks: BTreeMap<SubtaskKey, TaskControl>,
        enumerators: BTreeMap<usize, Arc<SharedEnumerator>>,
    ) -> Self {
        Self {
            reports,
            tasks,
            enumerators,
            triggered: mpsc::unbounded_channel(),
            ended: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            pending: BTreeMap::new(),
            waiting: VecDeque::new(),
            uncommitted: Vec::new(),
        }
    }

    pub(super) fn running(&self) -> impl Iterator<Item = SubtaskKey> {
        self.tasks.keys().copied().filter(|subtask| !self.ended.contains_key(subtask))
    }

    pub(super) fn tell(&self, message: ToTask) {
        for task in self.tasks.values() {
            // A task that has ended need not know.
            let _ = task.messages.send(Message::Checkpoint(message));
        }
    }

    /// Tells the tasks that a checkpoint, which is under way no more, will never be durable.
    pub(super) fn abort(&self, checkpoint: CheckpointId) {
        let oldest = self.pending.first_key_value().map_or(checkpoint + 1, |(id, _)| *id);
        self.tell(ToTask::Aborted { checkpoint, oldest });
    }

    /// From now on the barriers of a checkpoint overtake rows.
    pub(super) fn overtake(&self, checkpoint: CheckpointId) {
        self.tasks.values().for_each(|task| task.urgency.overtake(checkpoint));
    }

    /// The readers of a source have been told of a checkpoint: its barrier is no more than a few batches away from their tasks.
    pub(super) fn barriers_come(&self, vertex: usize, checkpoint: CheckpointId) {
        let readers = self.tasks.range((vertex, 0)..(vertex + 1, 0));
        readers.for_each(|(_, task)| task.urgency.arrive(checkpoint));
    }
}
