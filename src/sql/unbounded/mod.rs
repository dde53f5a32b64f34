//! From a logical plan to operators that run for ever: the streaming half of planning.
//!
//! ```text
//! LogicalPlan (optimized) ── one node at a time, inputs first ──> StreamGraph
//!                              filter, project   → Calc, chained
//!                              window + GROUP BY → slices behind a hash edge
//!                              GROUP BY          → updating aggregate behind a hash edge
//!                              ROW_NUMBER() <= n → Top-N
//!                              join              → the bounded side as a table
//! ```
//!
//! Each relation knows whether its rows are ever updated; what a node cannot do with updates is an error here, before a row is
//! read.

mod aggregate;
mod expr;
mod join;
mod planning;
mod relation;
mod scan;
mod top_n;
mod window;

use std::collections::BTreeMap;

use arrow::compute::SortOptions;
use arrow::datatypes::SchemaRef;
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::LogicalPlan;
use tidemill_core::graph::{NodeIndex, StreamGraph};
use tidemill_core::{Result, Settings};

pub use planning::planning_state;
use relation::Lowering;

/// A streaming program without its sink.
#[derive(Debug)]
pub struct Lowered {
    /// The operators.
    pub graph: StreamGraph,
    /// The one whose output is the query's result.
    pub root: NodeIndex,
    /// Columns of the result.
    pub schema: SchemaRef,
    /// Whether the result's rows are ever updated.
    pub updates: bool,
    /// Order of the result as a table; a stream itself has none.
    pub order: Vec<(usize, SortOptions)>,
    /// Whether the rows that leave a node are ever updated, for `EXPLAIN`.
    pub updating_nodes: BTreeMap<NodeIndex, bool>,
}

/// Lowers an optimized logical plan.
pub fn lower(plan: &LogicalPlan, state: &SessionState, settings: &Settings) -> Result<Lowered> {
    Lowering::new(state, settings).finish(plan)
}
