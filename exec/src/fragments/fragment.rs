//! A fragment at work: a subtask hands its channels to the plan's exchanges, then polls its partitions of the plan.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::error::Result as PlanResult;
use datafusion::execution::TaskContext;
use datafusion::physical_expr::LexOrdering;
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet};
use datafusion::physical_plan::sorts::streaming_merge::StreamingMergeBuilder;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, SendableRecordBatchStream, displayable};
use futures::{StreamExt, TryStreamExt};
use tidemill_core::graph::{BatchStream, Fragment, FragmentContext};
use tidemill_core::metrics::{BYTES_SPILLED, Metrics};
use tidemill_core::{Error, Result};

use crate::error::from_datafusion;
use crate::fragments::exchange_exec::{ExchangeExec, merge_reservation};
use crate::fragments::slots::Slots;

/// Who reads a partition of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// Partition `p` of the exchange is read by partition `p + offset` of the fragment, and nobody else. The offset is not 0
    /// where a union lines up the partitions of its inputs.
    Partition {
        /// What the union's inputs before this one take.
        offset: usize,
    },
    /// Whichever partition comes first reads for all, such as the build side that all partitions of a join probe.
    Anyone,
}

/// The exchanges that a fragment reads, by input port.
pub type FragmentInputs = Vec<(Arc<Slots>, Reader)>;

/// Some operators of a physical plan, from its exchanges (or scans) below to the exchange (or result) above.
pub struct PlanFragment {
    shared: Arc<Shared>,
    context: Arc<TaskContext>,
    subtasks: usize,
    partitions: usize,
    /// By which the partitions of one subtask are merged; as they come if `None`.
    merged: Option<LexOrdering>,
    description: String,
}

/// What the subtasks share.
struct Shared {
    /// Gone when all subtasks have ended, and with it what its operators still hold.
    plan: Mutex<Option<Arc<dyn ExecutionPlan>>>,
    inputs: FragmentInputs,
    running: AtomicUsize,
}

impl PlanFragment {
    /// The fragment that ends in `plan`, run by `subtasks` subtasks.
    pub(super) fn new(
        plan: Arc<dyn ExecutionPlan>,
        context: Arc<TaskContext>,
        inputs: FragmentInputs,
        subtasks: usize,
        merged: Option<LexOrdering>,
    ) -> Self {
        let mut description = String::new();
        describe(&plan, 0, &mut 0, &mut description);
        let partitions = plan.output_partitioning().partition_count();
        let running = AtomicUsize::new(subtasks);
        let shared = Arc::new(Shared { plan: Mutex::new(Some(plan)), inputs, running });
        Self { shared, context, subtasks, partitions, merged, description }
    }

    /// The plan, until it has run.
    pub fn plan(&self) -> Option<Arc<dyn ExecutionPlan>> {
        self.shared.plan.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// One stream of several partitions.
    fn together(
        &self,
        plan: &dyn ExecutionPlan,
        mut streams: Vec<SendableRecordBatchStream>,
    ) -> PlanResult<BatchStream> {
        let rows = match (&self.merged, streams.len()) {
            (_, 1) => streams.swap_remove(0).map_err(from_datafusion).boxed(),
            (Some(ordering), 2..) => StreamingMergeBuilder::new()
                .with_streams(streams)
                .with_schema(plan.schema())
                .with_expressions(ordering)
                .with_metrics(BaselineMetrics::new(&ExecutionPlanMetricsSet::new(), 0))
                .with_batch_size(self.context.session_config().batch_size())
                .with_reservation(merge_reservation())
                .build()?
                .map_err(from_datafusion)
                .boxed(),
            // Side by side, never one after the other: partitions of a join wait for each other.
            _ => futures::stream::select_all(streams).map_err(from_datafusion).boxed(),
        };
        Ok(rows)
    }
}

impl Fragment for PlanFragment {
    fn execute(&self, context: FragmentContext) -> Result<BatchStream> {
        let Some(plan) = self.plan() else {
            return Err(Error::internal("a bounded plan was run twice; its operators keep the first run's state"));
        };
        let ended = SubtaskEnd { shared: self.shared.clone(), metrics: context.metrics.clone() };
        for (input, (slots, _)) in context.inputs.into_iter().zip(&self.shared.inputs) {
            input.channels.into_iter().for_each(|channel| slots.place(channel.number, channel.producers));
        }
        let task = Arc::new(with_metrics(&self.context, context.metrics));
        let run = |partition| {
            let ended = PartitionEnd { shared: self.shared.clone(), partition };
            let rows = plan.execute(partition, task.clone())?;
            let rows = RecordBatchStreamAdapter::new(rows.schema(), guarded(rows, ended));
            Ok(Box::pin(rows) as SendableRecordBatchStream)
        };
        let partitions = (context.subtask..self.partitions).step_by(self.subtasks);
        let streams = partitions.map(run).collect::<PlanResult<Vec<_>>>().map_err(from_datafusion)?;
        let rows = self.together(&*plan, streams).map_err(from_datafusion)?;
        Ok(guarded(rows, ended).boxed())
    }

    fn describe(&self) -> String {
        self.description.clone()
    }
}

impl fmt::Debug for PlanFragment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PlanFragment({})", self.description.lines().next().unwrap_or_default())
    }
}

/// The end of one partition: what only this one reads, nobody reads any more. It may never have asked for it (the other side of
/// a join was empty, a limit was reached), and then its producers must not wait.
struct PartitionEnd {
    shared: Arc<Shared>,
    partition: usize,
}

impl Drop for PartitionEnd {
    fn drop(&mut self) {
        for (slots, reader) in &self.shared.inputs {
            if let Reader::Partition { offset } = reader
                && let Some(own) = self.partition.checked_sub(*offset)
            {
                slots.close(own);
            }
        }
    }
}

/// The end of one subtask. The last one counts what the operators of all of them spilled.
struct SubtaskEnd {
    shared: Arc<Shared>,
    metrics: Metrics,
}

impl Drop for SubtaskEnd {
    fn drop(&mut self) {
        if self.shared.running.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.inputs.iter().for_each(|(slots, _)| slots.close_all());
            let plan = self.shared.plan.lock().unwrap_or_else(PoisonError::into_inner).take();
            let spilled = plan.as_deref().map_or(0, spilled_bytes);
            if spilled > 0 {
                self.metrics.counter(BYTES_SPILLED).add(spilled);
            }
            // Outside the lock: a plan may be large.
            drop(plan);
        }
    }
}

/// What the operators of a fragment wrote to disk; what is below its exchanges belongs to others.
fn spilled_bytes(plan: &dyn ExecutionPlan) -> usize {
    if plan.is::<ExchangeExec>() {
        return 0;
    }
    let own = plan.metrics().and_then(|metrics| metrics.spilled_bytes()).unwrap_or(0);
    own + plan.children().into_iter().map(|child| spilled_bytes(&**child)).sum::<usize>()
}

/// `rows`, and behind them, when nobody reads them any more, `end`.
fn guarded<S: futures::Stream>(rows: S, end: impl Send + 'static) -> impl futures::Stream<Item = S::Item> {
    // Held by the closure, which goes with the stream.
    rows.map(move |item| {
        let _ = &end;
        item
    })
}

/// The task context of one subtask: sources below count in its metrics.
fn with_metrics(context: &TaskContext, metrics: Metrics) -> TaskContext {
    TaskContext::new(
        context.task_id(),
        context.session_id(),
        context.session_config().clone().with_extension(Arc::new(metrics)),
        context.scalar_functions().clone(),
        context.higher_order_functions().clone(),
        context.aggregate_functions().clone(),
        context.window_functions().clone(),
        context.runtime_env(),
    )
}

/// The fragment's operators, a line each, down to its exchanges, which are named by their input port.
fn describe(plan: &Arc<dyn ExecutionPlan>, depth: usize, ports: &mut usize, text: &mut String) {
    let line = match plan.downcast_ref::<ExchangeExec>() {
        Some(exchange) => {
            *ports += 1;
            exchange.describe_input(*ports - 1)
        }
        None => displayable(&**plan).one_line().to_string(),
    };
    text.push_str(&"  ".repeat(depth));
    text.push_str(line.trim_end());
    text.push('\n');
    if !plan.is::<ExchangeExec>() {
        plan.children().into_iter().for_each(|child| describe(child, depth + 1, ports, text));
    }
}
