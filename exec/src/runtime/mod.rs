//! The runtime of one process: a job graph becomes subtasks and channels, runs, and ends as a whole.
//!
//! ```text
//! job ── expand ──> subtasks: task (pushed chain) or pull (fragment)
//!                     input ──> chain of operators ──> output ──> exchange | sink
//! ```

mod alignment;
pub mod chain;
mod channels;
mod checkpoints;
mod committing;
pub mod environment;
mod expand;
mod in_flight;
mod input;
pub mod job;
mod job_state;
mod output;
mod overtaking;
mod participant;
mod pull;
pub mod reader;
mod recovery;
mod restart;
mod run;
mod shared;
mod simulation;
mod sink;
mod source;
mod task;
mod task_slots;
mod trace;

pub use checkpoints::{CheckpointControl, CheckpointCounts, CheckpointInfo, CheckpointStatus, StoreFolder};
pub use environment::{Engine, Environment, TokioClock, TokioSpawner, simulated};
pub use job::{
    Begin, Ending, JobFailure, JobHandle, JobMetrics, JobResult, Persistence, ResumedFrom, execute, execute_from,
};
pub use shared::JobAccumulators;
pub use simulation::{SimulatedClock, simulate};
pub use task_slots::{SlotLease, TaskSlots};
pub use trace::EventTrace;
