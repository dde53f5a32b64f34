//! What the subtasks of a job share beside the rows that flow between them (SHR-01 … SHR-07).
//!
//! ```text
//! accumulators         out of the subtasks: each adds for itself, the job merges          accumulator.rs, kinds.rs, values.rs
//! broadcast variables  into the subtasks: the rows of a bounded stream, in memory         variable.rs
//! cached files         into the subtasks: files and directories, on the local disk        file.rs
//! ```
//!
//! Of a variable and of a file a worker has one copy, complete before the first function that may ask for it is opened, and none
//! of them changes while the job runs (SUB-25). A function reaches all of it through its [`SharedContext`].

mod accumulator;
mod context;
mod file;
mod kinds;
#[cfg(test)]
mod tests;
mod values;
mod variable;

pub use accumulator::{Accumulator, AccumulatorCell, AccumulatorKind, AccumulatorRef, AccumulatorSet};
pub use context::SharedContext;
pub use file::{CachedFile, CachedFiles, FileFetcher};
pub use kinds::{
    Average, DoubleCounter, DoubleMaximum, DoubleMinimum, Histogram, IntCounter, IntMaximum, IntMinimum,
    ListAccumulator, LongCounter, LongMaximum, LongMinimum,
};
pub use values::{AccumulatorValues, Partial, other_kind};
pub use variable::{BroadcastVariable, BroadcastVariables, MemoryCharge};
