//! The graph that front ends build: one node an operator, edges with their partitioning and gate.

use std::any::Any;
use std::fmt::{self, Debug};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::stream::BoxStream;

use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::graph::OperatorId;
use crate::metrics::Metrics;
use crate::operator::OperatorFactory;
use crate::settings::Gate;
use crate::sink::Sink;
use crate::source::{BatchFunction, Boundedness, Source, WatermarkStrategy};

/// Place of a node in its [`StreamGraph`].
pub type NodeIndex = usize;

/// How rows are dealt to the subtasks of a consumer (ARC-06, ARC-07, SOP-16, SOP-17, BOP-16 … BOP-19).
#[derive(Clone, Debug)]
pub enum Partitioning {
    /// Subtask `i` to subtask `i`, order kept. Only between equal parallelisms; may be chained away.
    Forward,
    /// By the key group of these columns: equal keys meet in one subtask, and its state can move when the parallelism changes.
    Hash(Vec<usize>),
    /// Round-robin over all consumers, batch by batch.
    Rebalance,
    /// Round-robin over the consumers of one's own share, so that subtasks near each other stay so.
    Rescale,
    /// A consumer drawn at random (seeded by the job) for each row.
    Shuffle,
    /// Every row to every consumer.
    Broadcast,
    /// Every row to the first consumer.
    Global,
    /// By range: rows go to the consumer whose bounds hold their key.
    Range(Arc<dyn CustomPartitioner>),
    /// As the function says.
    Custom(Arc<dyn CustomPartitioner>),
}

impl Partitioning {
    /// Whether rows that were on their way to one consumer may be dealt again when there are others, so that a checkpoint may
    /// hold them (NCK-01). Not where each consumer has its own copy, nor where somebody else's function or the place of the
    /// producer says who gets a row.
    pub fn may_deal_again(&self) -> bool {
        match self {
            Self::Hash(_) | Self::Rebalance | Self::Rescale | Self::Shuffle | Self::Global => true,
            Self::Forward | Self::Broadcast | Self::Range(_) | Self::Custom(_) => false,
        }
    }
}

/// A function that picks a channel for each row.
pub trait CustomPartitioner: Send + Sync + Debug {
    /// Appends one channel in `0 .. channels` for each row of `batch` to `channel_of`, which is empty.
    fn channels(&self, batch: &Batch, channels: usize, channel_of: &mut Vec<u32>) -> Result<()>;

    /// How it partitions, for plans.
    fn describe(&self) -> String;
}

impl fmt::Display for Partitioning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forward => f.write_str("forward"),
            Self::Hash(columns) => {
                let columns: Vec<String> = columns.iter().map(|column| format!("#{column}")).collect();
                write!(f, "hash({})", columns.join(", "))
            }
            Self::Rebalance => f.write_str("rebalance"),
            Self::Rescale => f.write_str("rescale"),
            Self::Shuffle => f.write_str("shuffle"),
            Self::Broadcast => f.write_str("broadcast"),
            Self::Global => f.write_str("global"),
            Self::Range(by) => write!(f, "range({})", by.describe()),
            Self::Custom(by) => write!(f, "custom({})", by.describe()),
        }
    }
}

/// Whether an operator may share a task with its neighbours (ARC-08).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Chaining {
    /// With both neighbours.
    #[default]
    Always,
    /// Only with what follows (`startNewChain`).
    Head,
    /// With nobody (`disableChaining`).
    Never,
}

/// A source and what is done to its rows before they leave the source task.
#[derive(Clone, Debug)]
pub struct SourceNode {
    /// Where rows come from.
    pub source: Arc<dyn Source>,
    /// Columns of the source that are read, `None` for all.
    pub projection: Option<Arc<[usize]>>,
    /// Computed columns.
    pub derive: Option<Arc<dyn BatchFunction>>,
    /// Event time, judged split by split.
    pub watermarks: Option<Arc<dyn WatermarkStrategy>>,
}

/// Batches of a bounded input, as a fragment sees them.
pub type BatchStream = BoxStream<'static, Result<RecordBatch>>;

/// A plan that is pulled, not pushed: batches in, batches out, no barriers.
pub trait Fragment: Any + Send + Sync + Debug {
    /// The output of one subtask. Inputs are polled only when the plan asks for them.
    fn execute(&self, context: FragmentContext) -> Result<BatchStream>;

    /// The plan as text, a line an operator.
    fn describe(&self) -> String;
}

/// What a fragment's subtask is given.
pub struct FragmentContext {
    /// Which subtask, from 0.
    pub subtask: usize,
    /// One for each input edge, in port order.
    pub inputs: Vec<FragmentInput>,
    /// Counters of this subtask.
    pub metrics: Metrics,
}

/// One input of a fragment: the channels of an edge that this subtask owns.
pub struct FragmentInput {
    /// In order of their numbers; one, unless the edge says how many channels it has (see [`EdgeOptions::channels`]).
    pub channels: Vec<FragmentChannel>,
}

/// What one channel of an edge brings: a stream for each producer, because a merge must read them apart.
pub struct FragmentChannel {
    /// Which channel of the edge, from 0.
    pub number: usize,
    /// Batches of each producing subtask.
    pub producers: Vec<BatchStream>,
}

/// What a node does.
#[derive(Clone, Debug)]
pub enum NodeKind {
    /// Reads rows.
    Source(SourceNode),
    /// Transforms rows, pushed.
    Operator(Arc<dyn OperatorFactory>),
    /// Transforms rows, pulled.
    Fragment(Arc<dyn Fragment>),
    /// Writes rows.
    Sink(Arc<dyn Sink>),
}

/// The group of operators for which nobody chose one.
pub const DEFAULT_SLOT_SHARING_GROUP: &str = "default";

/// One operator of the program.
#[derive(Clone, Debug)]
pub struct StreamNode {
    /// Name that people see in plans, errors and metrics.
    pub name: String,
    /// Identity that the user chose.
    pub uid: Option<String>,
    /// What it does.
    pub kind: NodeKind,
    /// How many subtasks; the job's default when `None`.
    pub parallelism: Option<usize>,
    /// Whether it may share a task.
    pub chaining: Chaining,
    /// Only operators of one group share a slot (ARC-10).
    pub slot_sharing_group: Arc<str>,
    /// Columns that leave on the main port.
    pub schema: SchemaRef,
    /// The broadcast variables that it reads.
    pub variables: Vec<VariableUse<NodeIndex>>,
}

/// A broadcast variable that an operator reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VariableUse<Id> {
    /// What the operator calls it.
    pub name: Arc<str>,
    /// Who collects it.
    pub collector: Id,
}

impl StreamNode {
    /// A node with defaults: the job's parallelism, chained where possible, the default slot group.
    pub fn new(name: impl Into<String>, kind: NodeKind, schema: SchemaRef) -> Self {
        Self {
            name: name.into(),
            uid: None,
            kind,
            parallelism: None,
            chaining: Chaining::default(),
            slot_sharing_group: DEFAULT_SLOT_SHARING_GROUP.into(),
            schema,
            variables: Vec::new(),
        }
    }

    /// The same node with a fixed parallelism.
    #[must_use]
    pub fn with_parallelism(mut self, parallelism: usize) -> Self {
        self.parallelism = Some(parallelism);
        self
    }
}

/// How an edge behaves beside its partitioning.
#[derive(Clone, Debug, Default)]
pub struct EdgeOptions {
    /// The gate of this edge; the job's when `None`.
    pub gate: Option<Gate>,
    /// The consumer reads this input in an order of its own, so the edge may spill rather than wait, or it could deadlock.
    pub may_spill: bool,
    /// Side output of the producer that this edge carries; 0 is the main one.
    pub output_port: usize,
    /// Columns of that side output, where they are not those of the main one.
    pub schema: Option<SchemaRef>,
    /// How many channels a producer deals to: one for each subtask of the consumer when `None`.
    ///
    /// Only an edge into a fragment may say otherwise: a plan that joins three partitions with one has an input of one channel
    /// below three subtasks. Channel `c` is handed to subtask `c % parallelism`.
    pub channels: Option<usize>,
}

/// Rows on their way from one node to another.
#[derive(Clone, Debug)]
pub struct StreamEdge {
    /// Producer.
    pub source: NodeIndex,
    /// Consumer.
    pub target: NodeIndex,
    /// Which input of the consumer. Several edges into one port are a union.
    pub input_port: usize,
    /// How rows are dealt.
    pub partitioning: Partitioning,
    /// Gate, spilling, side output.
    pub options: EdgeOptions,
}

/// A program: operators and edges, lazily built, run by `execute` (ARC-03).
#[derive(Clone, Debug, Default)]
pub struct StreamGraph {
    nodes: Vec<StreamNode>,
    edges: Vec<StreamEdge>,
}

impl StreamGraph {
    /// An empty program.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an operator.
    pub fn add(&mut self, node: StreamNode) -> NodeIndex {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    /// Connects `source` to input `input_port` of `target`. Into a sink that writes by key rows are dealt by that key, whatever
    /// `partitioning` says: writers do not wait for one another, and the last row of a key would be anyone's.
    pub fn connect(
        &mut self,
        source: NodeIndex,
        target: NodeIndex,
        input_port: usize,
        partitioning: Partitioning,
        options: EdgeOptions,
    ) {
        let partitioning = match &self.nodes[target].kind {
            NodeKind::Sink(sink) if !sink.key_columns().is_empty() => Partitioning::Hash(sink.key_columns().to_vec()),
            _ => partitioning,
        };
        self.edges.push(StreamEdge { source, target, input_port, partitioning, options });
    }

    /// All operators.
    pub fn nodes(&self) -> &[StreamNode] {
        &self.nodes
    }

    /// One operator.
    pub fn node(&self, index: NodeIndex) -> &StreamNode {
        &self.nodes[index]
    }

    /// One operator, to be changed (`uid`, parallelism, chaining).
    pub fn node_mut(&mut self, index: NodeIndex) -> &mut StreamNode {
        &mut self.nodes[index]
    }

    /// All edges.
    pub fn edges(&self) -> &[StreamEdge] {
        &self.edges
    }

    /// All edges, to be changed.
    pub fn edges_mut(&mut self) -> &mut [StreamEdge] {
        &mut self.edges
    }

    /// Edges into `target`, by input port.
    pub fn inputs(&self, target: NodeIndex) -> impl Iterator<Item = &StreamEdge> {
        self.edges.iter().filter(move |edge| edge.target == target)
    }

    /// Edges out of `source`.
    pub fn outputs(&self, source: NodeIndex) -> impl Iterator<Item = &StreamEdge> {
        self.edges.iter().filter(move |edge| edge.source == source)
    }

    /// Whether the program ends: it does when every source does.
    pub fn boundedness(&self) -> Boundedness {
        match self.unbounded_source() {
            Some(_) => Boundedness::Unbounded,
            None => Boundedness::Bounded,
        }
    }

    /// The name of a source that never ends, if there is one.
    pub fn unbounded_source(&self) -> Option<&str> {
        self.nodes.iter().find_map(|node| match &node.kind {
            NodeKind::Source(source) if source.source.boundedness() == Boundedness::Unbounded => Some(&*node.name),
            _ => None,
        })
    }

    /// Whether `node` or anything above it never ends; names the source.
    pub fn unbounded_above(&self, node: NodeIndex) -> Option<&str> {
        if let NodeKind::Source(source) = &self.nodes[node].kind
            && source.source.boundedness() == Boundedness::Unbounded
        {
            return Some(&self.nodes[node].name);
        }
        self.inputs(node).find_map(|edge| self.unbounded_above(edge.source))
    }

    /// Nodes so that every producer comes before its consumers, and who collects a variable before who reads it; an error if the
    /// program has a cycle.
    pub fn topological_order(&self) -> Result<Vec<NodeIndex>> {
        let before = |node: NodeIndex| self.inputs(node).count() + self.nodes[node].variables.len();
        let mut missing: Vec<usize> = (0..self.nodes.len()).map(before).collect();
        let mut order: Vec<NodeIndex> = (0..self.nodes.len()).filter(|node| missing[*node] == 0).collect();
        let mut next = 0;
        while next < order.len() {
            let consumers = self.outputs(order[next]).map(|edge| edge.target);
            for target in consumers.chain(self.readers(order[next])) {
                missing[target] -= 1;
                if missing[target] == 0 {
                    order.push(target);
                }
            }
            next += 1;
        }
        match order.len() == self.nodes.len() {
            true => Ok(order),
            false => Err(Error::request("the program's operators form a cycle")),
        }
    }

    /// Nodes that read the variable that `collector` collects, each as often as it does.
    fn readers(&self, collector: NodeIndex) -> impl Iterator<Item = NodeIndex> {
        let reads = move |(_, used): &(NodeIndex, &VariableUse<NodeIndex>)| used.collector == collector;
        let uses =
            self.nodes.iter().enumerate().flat_map(|(node, of)| of.variables.iter().map(move |used| (node, used)));
        uses.filter(reads).map(|(node, _)| node)
    }

    /// Identity of every node (see [`OperatorId`]); two nodes with one uid are an error.
    pub fn operator_ids(&self) -> Result<Vec<OperatorId>> {
        let mut ids: Vec<Option<OperatorId>> = vec![None; self.nodes.len()];
        for node in self.topological_order()? {
            let StreamNode { name, uid, .. } = &self.nodes[node];
            let taken = |ids: &[Option<OperatorId>], id| ids.contains(&Some(id));
            ids[node] = Some(match uid {
                Some(uid) => {
                    let id = OperatorId::from_uid(uid);
                    if let Some(other) = ids.iter().position(|other| *other == Some(id)) {
                        let other = &self.nodes[other].name;
                        let error = format!("two operators have the uid '{uid}': '{other}' and '{name}'");
                        return Err(Error::request(error));
                    }
                    id
                }
                None => {
                    let inputs: Vec<OperatorId> = self.inputs(node).filter_map(|edge| ids[edge.source]).collect();
                    let mut candidates = (0..).map(|twin| OperatorId::derived(name, &inputs, twin));
                    candidates.find(|id| !taken(&ids, *id)).unwrap_or(OperatorId(0))
                }
            });
        }
        Ok(ids.into_iter().flatten().collect())
    }
}
