//! The runtime of one process: a job graph becomes subtasks and channels, runs, and ends as a whole.
//!
//! ```text
//! job ── expand ──> subtasks: task (pushed chain) or pull (fragment)
//!                     input ──> chain of operators ──> output ──> exchange | sink
//! ```

pub mod chain;
mod channels;
pub mod environment;
mod expand;
mod input;
pub mod job;
mod output;
mod pull;
pub mod reader;
mod simulation;
mod sink;
mod source;
mod task;
mod task_slots;
mod trace;

pub use environment::{Engine, Environment, TokioClock, TokioSpawner, simulated};
pub use job::{JobHandle, JobMetrics, JobResult, execute};
pub use simulation::{SimulatedClock, simulate};
pub use task_slots::{SlotLease, TaskSlots};
pub use trace::EventTrace;
