//! The program as its user wrote it: one node a call, built lazily, lowered to the engine's graph when it runs (ARC-03).

use std::any::TypeId;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use tidemill_core::graph::{Chaining, Partitioning, SourceNode};
use tidemill_core::operator::OperatorFactory;
use tidemill_core::shared::CachedFile;
use tidemill_core::sink::Sink;
use tidemill_core::{Error, Gate, Result};

use super::layout::RowCodec;
use super::operator::Head;
use super::parameters::Parameters;
use super::stage::StageFactory;

/// Place of a node in its [`Program`].
pub(super) type NodeId = usize;

/// Where a node's rows come from. Several of them on one input are a union.
#[derive(Clone, Debug)]
pub(super) struct Input {
    /// Who emits them.
    pub node: NodeId,
    /// On which port: 0 is the main one.
    pub port: usize,
    /// On which input of the consumer they arrive.
    pub to: usize,
    /// How they are dealt; `None` is straight on where the parallelism is the same, else in turns.
    pub partitioning: Option<Partitioning>,
}

impl Input {
    /// The main output of `node`.
    pub fn main(node: NodeId) -> Self {
        Self { node, port: 0, to: 0, partitioning: None }
    }
}

/// Makes a sink once it is known how many subtasks write, and in which job.
pub(super) type SinkFactory = Arc<dyn Fn(usize, &str) -> Result<Arc<dyn Sink>> + Send + Sync>;

/// What a node does.
#[derive(Clone)]
pub(super) enum Kind {
    /// Reads rows.
    Source(SourceNode),
    /// A function of rows, to be fused with its neighbours: how it reads a batch if it comes first, and what it does. Without
    /// a function it only changes the encoding.
    Rows(Arc<dyn RowCodec>, Option<StageFactory>),
    /// A typed operator that remembers; functions may be fused behind it.
    Head(Arc<dyn Head>),
    /// An operator of whole batches.
    Batches(Arc<dyn OperatorFactory>),
    /// Writes rows.
    Sink(SinkFactory),
}

/// A side output of a node.
#[derive(Clone)]
pub(super) struct SideOutput {
    /// What the user calls it.
    pub tag: Arc<str>,
    /// Type of its records.
    pub record: TypeId,
    /// Its columns.
    pub schema: SchemaRef,
    /// Whether its records have event time.
    pub timed: bool,
}

/// One call of the user.
#[derive(Clone)]
pub(super) struct Node {
    pub name: String,
    pub uid: Option<String>,
    pub parallelism: Option<usize>,
    /// Without a parallelism of its own it takes that of its producer, not that of the job.
    pub follows_producer: bool,
    pub chaining: Chaining,
    /// The slot sharing group that the user chose; that of the inputs when `None`.
    pub slot_sharing_group: Option<Arc<str>>,
    /// The gate of its output edges.
    pub gate: Option<Gate>,
    pub inputs: Vec<Input>,
    pub kind: Kind,
    /// How its main output leaves a task; `None` for sinks and for what emits batches as they are.
    pub codec: Option<Arc<dyn RowCodec>>,
    /// Columns of its main output.
    pub schema: SchemaRef,
    /// Side output `n` leaves on port `n + 1`.
    pub sides: Vec<SideOutput>,
    /// Whether a side output comes to be when somebody reads it.
    pub takes_sides: bool,
    /// Whether it is a function with a runtime context, which may read broadcast variables.
    pub takes_variables: bool,
    /// The broadcast variables that it reads, each with the node that collects it.
    pub variables: Vec<(Arc<str>, NodeId)>,
    /// The outputs that it collects for a broadcast variable: nodes and ports.
    pub collects: Option<Vec<(NodeId, usize)>>,
}

impl Node {
    /// A node with defaults, whose rows leave through `codec`.
    pub fn typed(name: impl Into<String>, inputs: Vec<Input>, kind: Kind, codec: Arc<dyn RowCodec>) -> Self {
        let schema = codec.schema();
        Self { codec: Some(codec), ..Self::untyped(name, inputs, kind, schema) }
    }

    /// A node with defaults, whose rows leave as batches of `schema`.
    pub fn untyped(name: impl Into<String>, inputs: Vec<Input>, kind: Kind, schema: SchemaRef) -> Self {
        Self {
            name: name.into(),
            uid: None,
            parallelism: None,
            follows_producer: false,
            chaining: Chaining::Always,
            slot_sharing_group: None,
            gate: None,
            inputs,
            kind,
            codec: None,
            schema,
            sides: Vec::new(),
            takes_sides: false,
            takes_variables: false,
            variables: Vec::new(),
            collects: None,
        }
    }
}

/// All nodes of an environment, and the sinks that no execution has run yet.
#[derive(Default)]
pub(super) struct Program {
    nodes: Vec<Node>,
    pending: Vec<NodeId>,
    /// Files that functions may read.
    pub cached_files: Vec<CachedFile>,
    /// What all functions may read.
    pub parameters: Parameters,
    /// The first thing that was wrong; builder calls return streams, so the execution reports it.
    error: Option<Error>,
}

impl Program {
    /// Adds a node.
    pub fn add(&mut self, node: Node) -> NodeId {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    /// One node.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id]
    }

    /// One node, to be changed.
    pub fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id]
    }

    /// The node that collects these outputs for a broadcast variable, if there is one.
    pub fn collector(&self, outputs: &[(NodeId, usize)]) -> Option<NodeId> {
        self.nodes.iter().position(|node| node.collects.as_deref() == Some(outputs))
    }

    /// Marks a sink to be run by the next execution.
    pub fn add_pending(&mut self, sink: NodeId) {
        self.pending.push(sink);
    }

    /// The sinks that no execution has run yet.
    pub fn pending(&self) -> &[NodeId] {
        &self.pending
    }

    /// These sinks run now.
    pub fn take_pending(&mut self) -> Vec<NodeId> {
        std::mem::take(&mut self.pending)
    }

    /// Remembers what is wrong, if it is the first.
    pub fn fail(&mut self, error: Error) {
        self.error.get_or_insert(error);
    }

    /// What is wrong, if anything.
    pub fn check(&self) -> Result<()> {
        self.error.clone().map_or(Ok(()), Err)
    }

    /// The nodes that `sinks` need, producers first.
    pub fn needed(&self, sinks: &[NodeId]) -> Vec<NodeId> {
        let mut needed = vec![false; self.nodes.len()];
        let mut open = sinks.to_vec();
        while let Some(node) = open.pop() {
            if !std::mem::replace(&mut needed[node], true) {
                open.extend(self.nodes[node].inputs.iter().map(|input| input.node));
                open.extend(self.nodes[node].variables.iter().map(|(_, collector)| collector));
            }
        }
        // A node is added after its inputs, so the numbers are in order.
        (0..self.nodes.len()).filter(|node| needed[*node]).collect()
    }
}
