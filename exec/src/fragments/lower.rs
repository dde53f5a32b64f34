//! From a cut plan to nodes and edges of the graph: one node for each fragment, one edge for each exchange.

use std::sync::Arc;

use datafusion::execution::TaskContext;
use datafusion::physical_expr::LexOrdering;
use datafusion::physical_plan::joins::{PiecewiseMergeJoinExec, SortMergeJoinExec, SymmetricHashJoinExec};
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use tidemill_core::graph::{EdgeOptions, NodeIndex, NodeKind, StreamGraph, StreamNode};
use tidemill_core::{Gate, Result};

use crate::error::from_datafusion;
use crate::fragments::cut::cut;
use crate::fragments::exchange_exec::ExchangeExec;
use crate::fragments::fragment::{FragmentInputs, PlanFragment, Reader};
use crate::fragments::routing::edge_partitioning;

/// How a plan becomes fragments.
#[derive(Clone, Debug)]
pub struct FragmentOptions {
    /// The most subtasks of a fragment. One with more partitions runs several of them in a subtask, side by side.
    pub parallelism: usize,
    /// The gate of the exchanges; the job's when `None`.
    pub gate: Option<Gate>,
}

/// Adds a physical plan to `graph`, cut at its exchanges, and returns the node of the fragment that yields the result.
///
/// The caller connects its consumer to that node by a forward edge, and gives it the node's parallelism. The plan's operators
/// keep state in the plan: it may be lowered once, and the job may run once.
pub fn lower(
    plan: Arc<dyn ExecutionPlan>,
    context: Arc<TaskContext>,
    graph: &mut StreamGraph,
    options: &FragmentOptions,
) -> Result<NodeIndex> {
    let plan = cut(&plan).map_err(from_datafusion)?;
    Lowering { context, graph, options, fragments: 0 }.fragment(plan, false, None)
}

struct Lowering<'a> {
    context: Arc<TaskContext>,
    graph: &'a mut StreamGraph,
    options: &'a FragmentOptions,
    fragments: usize,
}

/// An exchange that a fragment reads.
struct Found<'a> {
    exchange: &'a ExchangeExec,
    reader: Reader,
    /// See [`Lowering::fragment`].
    in_order: bool,
}

impl Lowering<'_> {
    /// Adds the fragment of `plan`, its producers first.
    ///
    /// With `in_order`, what it yields is read in an order that the rows decide: a consumer that waits for one of its producers
    /// does not read the others. `merged` is the order by which one subtask's partitions must leave it, if consumers merge.
    fn fragment(
        &mut self,
        plan: Arc<dyn ExecutionPlan>,
        in_order: bool,
        merged: Option<LexOrdering>,
    ) -> Result<NodeIndex> {
        let mut found = Vec::new();
        find_exchanges(&plan, Reader::Partition { offset: 0 }, in_order, &mut found);
        let mut inputs = Vec::with_capacity(found.len());
        for Found { exchange, in_order, .. } in &found {
            let ordering = exchange.ordering().cloned();
            let in_order = *in_order || ordering.is_some();
            let node = self.fragment(exchange.input().clone(), in_order, ordering)?;
            let channels = exchange.partitioning().partition_count();
            let options = EdgeOptions {
                gate: self.options.gate,
                // Whoever feeds several channels waits at a full one while the reader waits for another.
                may_spill: in_order && channels > 1,
                channels: Some(channels),
                ..EdgeOptions::default()
            };
            inputs.push((node, edge_partitioning(exchange.partitioning())?, options));
        }
        let partitions = plan.output_partitioning().partition_count();
        let subtasks = partitions.min(self.options.parallelism).max(1);
        let sources: FragmentInputs =
            found.iter().map(|input| (input.exchange.slots().clone(), input.reader)).collect();
        let (name, schema) = (self.next_name(&*plan), plan.schema());
        let fragment = PlanFragment::new(plan.clone(), self.context.clone(), sources, subtasks, merged);
        let node = StreamNode::new(name, NodeKind::Fragment(Arc::new(fragment)), schema);
        let node = self.graph.add(node.with_parallelism(subtasks));
        for (port, (source, partitioning, options)) in inputs.into_iter().enumerate() {
            self.graph.connect(source, node, port, partitioning, options);
        }
        Ok(node)
    }

    /// What a fragment is called: its number and its last operator, such as `stage 3: HashJoin`.
    fn next_name(&mut self, plan: &dyn ExecutionPlan) -> String {
        self.fragments += 1;
        let operator = match plan.downcast_ref::<ExchangeExec>() {
            Some(exchange) if exchange.ordering().is_some() => "Merge",
            Some(_) => "Gather",
            // A name may say more: `SortExec(TopK)`.
            None => plan.name().split("Exec").next().unwrap_or_default(),
        };
        format!("stage {}: {operator}", self.fragments)
    }
}

/// Collects the exchanges of the fragment that ends in `plan`, in the order in which the plan prints.
fn find_exchanges<'a>(plan: &'a Arc<dyn ExecutionPlan>, reader: Reader, in_order: bool, found: &mut Vec<Found<'a>>) {
    if let Some(exchange) = plan.downcast_ref::<ExchangeExec>() {
        found.push(Found { exchange, reader, in_order });
        return;
    }
    let in_order = reads_in_order(&**plan) || in_order && !reads_all_first(&**plan);
    let partitions = plan.output_partitioning().partition_count();
    let mut before = 0;
    for child in plan.children() {
        let own = child.output_partitioning().partition_count();
        let reader = match reader {
            Reader::Partition { offset } if plan.is::<UnionExec>() => Reader::Partition { offset: offset + before },
            Reader::Partition { offset } if own == partitions => Reader::Partition { offset },
            _ => Reader::Anyone,
        };
        before += own;
        find_exchanges(child, reader, in_order, found);
    }
}

/// Whether rows decide which input is read next.
fn reads_in_order(plan: &dyn ExecutionPlan) -> bool {
    plan.is::<SortMergeJoinExec>() || plan.is::<PiecewiseMergeJoinExec>() || plan.is::<SymmetricHashJoinExec>()
}

/// Whether the input is read to its end, whatever becomes of the output.
fn reads_all_first(plan: &dyn ExecutionPlan) -> bool {
    plan.is::<SortExec>()
}
