//! What a simulation compares: every event that a task takes in, in order.

use std::fmt::Debug;
use std::sync::Arc;

use tidemill_core::Event;

/// Hears of every event that a task takes in.
///
/// Channels are numbered over all inputs of the subtask, in the order of the job graph's edges; a source has one, 0.
pub trait EventTrace: Send + Sync + Debug {
    /// Subtask `subtask` of `task` took in `event` from `channel`.
    fn event(&self, task: &str, subtask: usize, channel: usize, event: &Event);
}

/// Reports events under a subtask's name.
#[derive(Clone, Debug)]
pub struct TaskTrace {
    /// Who hears of them.
    pub trace: Arc<dyn EventTrace>,
    /// Name of the task.
    pub task: Arc<str>,
    /// Which subtask.
    pub subtask: usize,
}

impl TaskTrace {
    /// The subtask took in `event` from `channel`.
    pub fn event(&self, channel: usize, event: &Event) {
        self.trace.event(&self.task, self.subtask, channel, event);
    }
}
