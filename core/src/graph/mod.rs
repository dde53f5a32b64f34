//! The program as a graph, in its layers (ARC-16).
//!
//! ```text
//! front end --> StreamGraph --chain--> JobGraph --expand by parallelism--> execution graph (in exec)
//! ```
//!
//! A [`StreamGraph`] has one node an operator. A [`JobGraph`] has one vertex a task: operators that may share a thread are
//! chained. Every layer prints as text that is the same in every run.

mod chain;
mod id;
mod job;
mod stream;
#[cfg(test)]
mod tests;

pub use id::OperatorId;
pub use job::{ChainedOperator, ChainedSink, JobEdge, JobGraph, JobVertex, VertexHead};
pub use stream::{
    BatchStream, Chaining, CustomPartitioner, DEFAULT_SLOT_SHARING_GROUP, EdgeOptions, Fragment, FragmentChannel,
    FragmentContext, FragmentInput, NodeIndex, NodeKind, Partitioning, SourceNode, StreamEdge, StreamGraph, StreamNode,
    VariableUse,
};
