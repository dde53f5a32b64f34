//! From a logical plan to a job: which plan, which gates, and the sink at its end.
//!
//! ```text
//!                 ┌ bounded:   sessions expanded ─ DataFusion's physical plan ─ fragments ┐
//! logical plan ───┤                                                                       ├─ + sink ─ job graph ─ running
//!                 └ unbounded: optimized ─ our incremental operators ─────────────────────┘
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlan;
use tidemill_core::graph::{EdgeOptions, JobGraph, NodeIndex, NodeKind, Partitioning, StreamGraph, StreamNode};
use tidemill_core::settings::{Gate, Origin, RuntimeMode, ShuffleMode};
use tidemill_core::sink::Sink;
use tidemill_core::{Error, Result, Settings};
use tidemill_exec::error::from_datafusion;
use tidemill_exec::fragments::{self, FragmentOptions};
use tidemill_exec::runtime::{JobHandle, execute_from};

use super::catalog::scan_table;
use super::error::planning;
use super::logical::session_window::expand_sessions;
use super::query::Order;
use super::recovery::NewJob;
use super::session::Session;
use super::unbounded;

/// A plan as nodes of a graph, without a sink yet.
#[derive(Debug)]
pub struct Program {
    /// The nodes.
    pub graph: StreamGraph,
    /// The one that yields the result.
    pub root: NodeIndex,
    /// Columns of the result.
    pub schema: SchemaRef,
    /// Whether rows of the result are ever updated.
    pub updates: bool,
    /// Which nodes' rows are ever updated; in streaming plans.
    pub updating_nodes: BTreeMap<NodeIndex, bool>,
    /// What order the folded result has, where the plan itself makes none.
    pub order: Option<Order>,
    /// Whether it runs as a bounded plan.
    pub batch: bool,
    /// Whether it ends.
    pub bounded: bool,
    /// The plan that it was made of, as text.
    pub logical: String,
    /// The bounded plan before it was cut, as text.
    pub physical: Option<String>,
}

/// Which plan `settings` choose for these queries together.
pub fn runs_as_batch(plans: &[LogicalPlan], settings: &Settings) -> Result<bool> {
    let mut unbounded = None;
    for plan in plans {
        unbounded = unbounded.or(unbounded_table(plan)?);
    }
    match (settings.runtime_mode(), unbounded) {
        (RuntimeMode::Streaming, _) => Ok(false),
        (RuntimeMode::Automatic, unbounded) => Ok(unbounded.is_none()),
        (RuntimeMode::Batch, None) => Ok(true),
        (RuntimeMode::Batch, Some(table)) => {
            Err(Error::request(format!("table '{table}' never ends, and execution.runtime-mode is batch"))
                .with_hint("SET 'execution.runtime-mode' = 'streaming'"))
        }
    }
}

/// The name of a table that never ends, if the plan reads one.
pub fn unbounded_table(plan: &LogicalPlan) -> Result<Option<String>> {
    let mut found = None;
    let visited = plan.apply_with_subqueries(|plan| {
        if let LogicalPlan::TableScan(scan) = plan
            && let Some(table) = scan_table(&scan.source)
            && !table.is_bounded()
        {
            found = Some(table.definition().name.clone());
            return Ok(TreeNodeRecursion::Stop);
        }
        Ok(TreeNodeRecursion::Continue)
    });
    visited.map_err(from_datafusion)?;
    Ok(found)
}

impl Program {
    /// Lowers `plan` as a bounded or as a streaming plan.
    pub async fn new(plan: LogicalPlan, batch: bool, state: &SessionState, settings: &Settings) -> Result<Self> {
        let bounded = unbounded_table(&plan)?.is_none();
        match batch {
            true => Self::bounded(plan, state, settings).await,
            false => {
                let state = &unbounded::planning_state(state, &plan)?;
                let plan = state.optimize(&plan).map_err(planning)?;
                let logical = plan.display_indent().to_string();
                let lowered = unbounded::lower(&plan, state, settings)?;
                let unbounded::Lowered { graph, root, schema, updates, order, updating_nodes } = lowered;
                let order = (!order.is_empty()).then_some(Order { keys: order });
                Ok(Self {
                    graph,
                    root,
                    schema,
                    updates,
                    updating_nodes,
                    order,
                    batch,
                    bounded,
                    logical,
                    physical: None,
                })
            }
        }
    }

    async fn bounded(plan: LogicalPlan, state: &SessionState, settings: &Settings) -> Result<Self> {
        let (parallelism, most) = (settings.parallelism(), settings.max_parallelism());
        if parallelism > most as usize {
            let error = format!("parallelism {parallelism} is above pipeline.max-parallelism {most}");
            return Err(Error::request(error).with_hint("lower parallelism.default or raise pipeline.max-parallelism"));
        }
        let plan = expand_sessions(plan).and_then(|plan| state.optimize(&plan)).map_err(planning)?;
        let logical = plan.display_indent().to_string();
        let plan = state.query_planner().create_physical_plan(&plan, state).await.map_err(planning)?;
        let physical = datafusion::physical_plan::displayable(plan.as_ref()).indent(false).to_string();
        let mut graph = StreamGraph::default();
        let options = FragmentOptions { parallelism: settings.parallelism(), gate: batch_gate(settings) };
        let schema = plan.schema();
        let root = fragments::lower(plan, state.task_ctx(), &mut graph, &options)?;
        Ok(Self {
            graph,
            root,
            schema,
            updates: false,
            updating_nodes: BTreeMap::new(),
            order: None,
            batch: true,
            bounded: true,
            logical,
            physical: Some(physical),
        })
    }

    /// Puts a sink behind the result.
    pub fn add_sink(&mut self, name: &str, sink: Arc<dyn Sink>, settings: &Settings) {
        let producers = self.producers(settings);
        let writers = sink.parallelism_max().unwrap_or(usize::MAX).min(producers);
        let mut node = StreamNode::new(name, NodeKind::Sink(sink), self.schema.clone()).with_parallelism(writers);
        // A table stays what it is when the query in front of it changes (SVP-05).
        node.uid = Some(format!("sink {name}"));
        let node = self.graph.add(node);
        let partitioning = match writers {
            _ if writers == producers => Partitioning::Forward,
            1 => Partitioning::Global,
            _ => Partitioning::Rebalance,
        };
        self.graph.connect(self.root, node, 0, partitioning, EdgeOptions::default());
    }

    /// Has every node keep its state as one of those in front of the sink, which is the last one and is called `uid` from now on:
    /// that of a statement does not depend on what stands beside it in its set.
    pub fn name_by_sink(&mut self, uid: &str) -> Result<()> {
        let ids = self.graph.operator_ids()?;
        let sink = ids.len().saturating_sub(1);
        for (node, id) in ids.into_iter().enumerate() {
            let name = if node == sink { uid.to_owned() } else { format!("{id} before {uid}") };
            self.graph.node_mut(node).uid = Some(name);
        }
        Ok(())
    }

    /// How many subtasks make the result; a source may run less wide than the job.
    fn producers(&self, settings: &Settings) -> usize {
        let node = self.graph.node(self.root);
        let limit = match &node.kind {
            NodeKind::Source(source) => source.source.parallelism_max(),
            _ => None,
        };
        node.parallelism.unwrap_or_else(|| settings.parallelism().min(limit.unwrap_or(usize::MAX)))
    }

    /// The nodes of `other`, which have other uids, in the same graph: two results, one job.
    pub fn absorb(&mut self, other: Self) {
        let offset = self.graph.nodes().len();
        for node in other.graph.nodes() {
            self.graph.add(node.clone());
        }
        for edge in other.graph.edges() {
            let (source, target) = (edge.source + offset, edge.target + offset);
            self.graph.connect(source, target, edge.input_port, edge.partitioning.clone(), edge.options.clone());
        }
        self.bounded &= other.bounded;
        self.updating_nodes.extend(other.updating_nodes.into_iter().map(|(node, updates)| (node + offset, updates)));
    }

    /// The uid, with a number behind it if a node has it already.
    pub fn free_uid(&self, uid: &str) -> String {
        let is_taken = |uid: &String| self.graph.nodes().iter().any(|node| node.uid.as_ref() == Some(uid));
        let numbered = (2..).map(|number| format!("{uid} {number}"));
        [uid.to_owned()].into_iter().chain(numbered).find(|uid| !is_taken(uid)).unwrap_or_default()
    }

    /// The job graph.
    pub fn job_graph(&self, settings: &Settings) -> Result<JobGraph> {
        self.graph.to_job_graph(settings)
    }

    /// Starts the job under its name, unless the settings name it.
    pub(super) fn start(&self, job: &NewJob, session: &Session) -> Result<JobHandle> {
        let mut settings = session.settings.clone();
        if settings.job_name().is_none() {
            settings.set("pipeline.name", &job.name, Origin::Program)?;
        }
        let persistence = session.persistence(job)?;
        execute_from(&self.job_graph(&settings)?, session.engine().environment(), &settings, persistence)
    }
}

/// The gate of a bounded plan's exchanges: a timeout that someone set wins over the shuffle mode.
fn batch_gate(settings: &Settings) -> Option<Gate> {
    let explicit = ["execution.buffer-timeout", "execution.buffer-timeout.enabled"];
    if explicit.iter().any(|key| settings.is_set(key)) {
        return None;
    }
    Some(match settings.batch_shuffle_mode() {
        // In one process every region fits the slots: a subtask of each vertex shares one.
        ShuffleMode::Automatic | ShuffleMode::Pipelined => Gate::Full,
        // Hybrid storage is blocking storage whose consumers do not start early yet.
        ShuffleMode::Blocking | ShuffleMode::Hybrid => Gate::Infinite,
    })
}
