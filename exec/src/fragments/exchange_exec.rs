//! The plan node at a cut: above it one fragment, below it another, between them our exchange.
//!
//! To the plan it is what it replaces: it keeps the input as its child and the output's properties as they were, because
//! operators look through it. (A hash join switches its filter for the scan on only if it finds that filter in the plan below
//! its own probe side.) Only when executed it is something else: it reads channels, and never touches its child.

use std::fmt;
use std::sync::Arc;

use datafusion::common::Result as PlanResult;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation, UnboundedMemoryPool};
use datafusion::physical_expr::{LexOrdering, OrderingRequirements, PhysicalExpr};
use datafusion::physical_plan::coop::cooperative;
use datafusion::physical_plan::limit::LimitStream;
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::sorts::streaming_merge::StreamingMergeBuilder;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildStats, ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties,
    Partitioning, PlanProperties, ReplaceChildrenOptions, SendableRecordBatchStream, Statistics, StatisticsArgs,
    apply_expression_roots,
};
use futures::{StreamExt, TryStreamExt};
use tidemill_core::graph::BatchStream;

use crate::error::to_datafusion;
use crate::fragments::slots::Slots;

/// An exchange in a plan.
#[derive(Clone, Debug)]
pub struct ExchangeExec {
    input: Arc<dyn ExecutionPlan>,
    /// Those of the node that it replaces.
    properties: Arc<PlanProperties>,
    /// Consumers merge what their producers send by this order; in whatever order it comes if `None`.
    ordering: Option<LexOrdering>,
    /// How many rows a consumer reads.
    fetch: Option<usize>,
    slots: Arc<Slots>,
    metrics: ExecutionPlanMetricsSet,
}

impl ExchangeExec {
    /// An exchange over `input` whose output has `properties`.
    pub fn new(
        input: Arc<dyn ExecutionPlan>,
        properties: Arc<PlanProperties>,
        ordering: Option<LexOrdering>,
        fetch: Option<usize>,
    ) -> Self {
        let slots = Arc::new(Slots::new(properties.output_partitioning().partition_count()));
        Self { input, properties, ordering, fetch, slots, metrics: ExecutionPlanMetricsSet::new() }
    }

    /// The plan of the producing fragment.
    pub fn input(&self) -> &Arc<dyn ExecutionPlan> {
        &self.input
    }

    /// How consumers merge what their producers send.
    pub fn ordering(&self) -> Option<&LexOrdering> {
        self.ordering.as_ref()
    }

    /// How rows are dealt.
    pub fn partitioning(&self) -> &Partitioning {
        self.properties.output_partitioning()
    }

    /// What it does for the fragment above, that fragment's input `port`.
    pub(super) fn describe_input(&self, port: usize) -> String {
        format!("ExchangeExec: input {port}{}", self.describe_reading())
    }

    fn describe_reading(&self) -> String {
        let merge = self.ordering.as_ref().map_or_else(String::new, |ordering| format!(", merge=[{ordering}]"));
        let fetch = self.fetch.map_or_else(String::new, |fetch| format!(", fetch={fetch}"));
        merge + &fetch
    }

    /// Where channels are placed before they are read.
    pub(super) fn slots(&self) -> &Arc<Slots> {
        &self.slots
    }
}

impl ExecutionPlan for ExchangeExec {
    fn name(&self) -> &'static str {
        "ExchangeExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn required_input_ordering(&self) -> Vec<Option<OrderingRequirements>> {
        vec![self.ordering.clone().map(OrderingRequirements::from)]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![self.ordering.is_some() || self.input.output_partitioning().partition_count() <= 1]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn apply_expressions(
        &self,
        visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> PlanResult<TreeNodeRecursion>,
    ) -> PlanResult<TreeNodeRecursion> {
        let mut roots: Vec<Arc<dyn PhysicalExpr>> = match self.partitioning() {
            Partitioning::Hash(keys, _) => keys.clone(),
            Partitioning::Range(range) => range.ordering().iter().map(|key| key.expr.clone()).collect(),
            _ => Vec::new(),
        };
        roots.extend(self.ordering.iter().flatten().map(|key| key.expr.clone()));
        apply_expression_roots(&roots, visit)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> PlanResult<Arc<dyn ExecutionPlan>> {
        // The slots stay those that the graph's fragments know.
        Ok(Arc::new(Self { input: children.swap_remove(0), ..Self::clone(&self) }))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> PlanResult<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> PlanResult<SendableRecordBatchStream> {
        let claim = Claim { slots: self.slots.clone(), partition };
        let reading = Reading {
            exchange: self.clone(),
            metrics: BaselineMetrics::new(&self.metrics, partition),
            batch_rows: context.session_config().batch_size(),
            reservation: merge_reservation(),
        };
        let rows = futures::stream::once(async move {
            let producers = claim.slots.take(claim.partition).await.map_err(to_datafusion)?;
            reading.begin(producers)
        });
        let rows = RecordBatchStreamAdapter::new(self.schema(), rows.try_flatten().boxed());
        Ok(Box::pin(cooperative(rows)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn fetch(&self) -> Option<usize> {
        self.fetch
    }

    fn child_stats_requests(&self, _partition: Option<usize>) -> Vec<ChildStats> {
        vec![ChildStats::At(None)]
    }

    fn statistics_from_inputs(&self, input: &[Arc<Statistics>], args: &StatisticsArgs) -> PlanResult<Arc<Statistics>> {
        match (args.partition(), input) {
            (None, [all]) => Ok(Arc::new(all.as_ref().clone().with_fetch(self.fetch, 0, 1)?)),
            _ => Ok(Arc::new(Statistics::new_unknown(&self.schema()))),
        }
    }
}

impl DisplayAs for ExchangeExec {
    fn fmt_as(&self, _format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ExchangeExec: {}{}", self.partitioning(), self.describe_reading())
    }
}

/// What a merge of producers holds: a batch of each. They are buffers of the network, bounded by its share of the memory; were
/// they taken from what operators share, those that have spilled to fit into it would leave the merge behind them nothing.
pub(super) fn merge_reservation() -> MemoryReservation {
    let network: Arc<dyn MemoryPool> = Arc::new(UnboundedMemoryPool::default());
    MemoryConsumer::new("merge").register(&network)
}

/// A partition that a stream will read. A stream that is dropped before it began gives the partition up.
struct Claim {
    slots: Arc<Slots>,
    partition: usize,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.slots.close(self.partition);
    }
}

/// How one partition is read.
struct Reading {
    exchange: ExchangeExec,
    metrics: BaselineMetrics,
    batch_rows: usize,
    reservation: MemoryReservation,
}

impl Reading {
    fn begin(self, producers: Vec<BatchStream>) -> PlanResult<SendableRecordBatchStream> {
        let schema = self.exchange.schema();
        let ExchangeExec { ordering, fetch, .. } = self.exchange;
        match ordering {
            Some(ordering) if producers.len() > 1 => {
                let producer = |rows: BatchStream| -> SendableRecordBatchStream {
                    Box::pin(RecordBatchStreamAdapter::new(schema.clone(), rows.map_err(to_datafusion)))
                };
                StreamingMergeBuilder::new()
                    .with_streams(producers.into_iter().map(producer).collect())
                    .with_schema(schema.clone())
                    .with_expressions(&ordering)
                    .with_metrics(self.metrics)
                    .with_batch_size(self.batch_rows)
                    .with_fetch(fetch)
                    .with_reservation(self.reservation)
                    .with_round_robin_tie_breaker(true)
                    .build()
            }
            _ => {
                let rows = futures::stream::select_all(producers).map_err(to_datafusion);
                let rows = Box::pin(RecordBatchStreamAdapter::new(schema, rows));
                Ok(Box::pin(LimitStream::new(rows, 0, fetch, self.metrics)))
            }
        }
    }
}
