//! The graph that runs: one vertex a task, operators chained, every number filled in.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use serde::Serialize;

use crate::graph::{Fragment, OperatorId, Partitioning, SourceNode, VariableUse};
use crate::operator::OperatorFactory;
use crate::settings::Gate;
use crate::shared::CachedFile;
use crate::sink::Sink;

/// What a task begins with.
#[derive(Clone, Debug)]
pub enum VertexHead {
    /// Reads a source and pushes into the chain.
    Source(SourceNode),
    /// Reads its input gates and pushes into the chain.
    Chain,
    /// Pulls a plan; such a task has no chain behind it.
    Fragment(Arc<dyn Fragment>),
}

/// One operator within a task.
#[derive(Clone, Debug)]
pub struct ChainedOperator {
    /// Identity that its state is filed under.
    pub id: OperatorId,
    /// Name for people.
    pub name: String,
    /// Makes it.
    pub factory: Arc<dyn OperatorFactory>,
    /// The broadcast variables that it reads: they are complete before it is opened.
    pub variables: Vec<VariableUse<OperatorId>>,
}

/// The sink at the end of a task.
#[derive(Clone, Debug)]
pub struct ChainedSink {
    /// Identity that what it writes is filed under.
    pub id: OperatorId,
    /// Name for people.
    pub name: String,
    /// Where rows go.
    pub sink: Arc<dyn Sink>,
}

/// One task, run by `parallelism` subtasks.
#[derive(Clone, Debug)]
pub struct JobVertex {
    /// Identity of its first operator.
    pub id: OperatorId,
    /// Names of its operators, joined by arrows.
    pub name: String,
    /// How it begins.
    pub head: VertexHead,
    /// Operators that run in the task's thread, in order.
    pub chain: Vec<ChainedOperator>,
    /// A sink at its end.
    pub sink: Option<ChainedSink>,
    /// How many subtasks.
    pub parallelism: usize,
    /// How many key groups.
    pub max_parallelism: u32,
    /// Only tasks of one group share a slot.
    pub slot_sharing_group: Arc<str>,
    /// Columns that leave the task.
    pub schema: SchemaRef,
}

/// Rows on their way between tasks.
#[derive(Clone, Debug)]
pub struct JobEdge {
    /// Index of the producing vertex.
    pub source: usize,
    /// Index of the consuming vertex.
    pub target: usize,
    /// Which input of the consumer.
    pub input_port: usize,
    /// Which output of the producer.
    pub output_port: usize,
    /// How rows are dealt.
    pub partitioning: Partitioning,
    /// When buffers leave; [`Gate::Infinite`] makes the edge blocking.
    pub gate: Gate,
    /// May spill rather than wait.
    pub may_spill: bool,
    /// How many channels a producer deals to; channel `c` is read by subtask `c % parallelism` of the consumer.
    pub channels: usize,
    /// Columns of the rows.
    pub schema: SchemaRef,
}

/// The program, chained.
#[derive(Clone, Debug, Default)]
pub struct JobGraph {
    /// Tasks; producers come before consumers.
    pub vertices: Vec<JobVertex>,
    /// Edges between tasks.
    pub edges: Vec<JobEdge>,
    /// Files that every worker gets a copy of before its tasks open.
    pub cached_files: Vec<CachedFile>,
    /// What all functions of the job may read.
    pub parameters: Arc<BTreeMap<String, String>>,
}

impl JobGraph {
    /// Edges into a vertex, by input port.
    pub fn inputs(&self, vertex: usize) -> impl Iterator<Item = (usize, &JobEdge)> {
        self.edges.iter().enumerate().filter(move |(_, edge)| edge.target == vertex)
    }

    /// Edges out of a vertex.
    pub fn outputs(&self, vertex: usize) -> impl Iterator<Item = (usize, &JobEdge)> {
        self.edges.iter().enumerate().filter(move |(_, edge)| edge.source == vertex)
    }

    /// Slots that the job needs: for each slot sharing group the highest parallelism in it (ARC-10).
    pub fn slots_required(&self) -> usize {
        let mut groups: Vec<(&str, usize)> = Vec::new();
        for vertex in &self.vertices {
            match groups.iter_mut().find(|(group, _)| *group == &*vertex.slot_sharing_group) {
                Some((_, slots)) => *slots = (*slots).max(vertex.parallelism),
                None => groups.push((&vertex.slot_sharing_group, vertex.parallelism)),
            }
        }
        groups.into_iter().map(|(_, slots)| slots).sum()
    }

    /// The graph without its code, to be stored or shown.
    pub fn description(&self) -> JobDescription {
        let vertices = self.vertices.iter().map(|vertex| VertexDescription {
            id: vertex.id.to_string(),
            name: vertex.name.clone(),
            operators: vertex.operators(),
            parallelism: vertex.parallelism,
            max_parallelism: vertex.max_parallelism,
        });
        let edges = self.edges.iter().map(|edge| EdgeDescription {
            source: edge.source,
            target: edge.target,
            input_port: edge.input_port,
            partitioning: edge.partitioning.to_string(),
            gate: edge.gate.to_string(),
        });
        JobDescription { vertices: vertices.collect(), edges: edges.collect() }
    }
}

impl JobVertex {
    /// What the task does, a line an operator.
    pub fn operators(&self) -> Vec<String> {
        let mut lines = Vec::new();
        match &self.head {
            VertexHead::Source(node) => {
                lines.push(format!("source {}", node.source.describe()));
                lines.extend(node.derive.iter().map(|derive| derive.describe()));
                lines.extend(node.watermarks.iter().map(|strategy| format!("watermark {}", strategy.describe())));
            }
            VertexHead::Chain => {}
            VertexHead::Fragment(fragment) => lines.extend(fragment.describe().lines().map(str::to_owned)),
        }
        for operator in &self.chain {
            lines.extend(operator.variables.iter().map(|used| format!("read broadcast variable {}", used.name)));
            lines.push(operator.factory.describe());
        }
        lines.extend(self.sink.iter().map(|end| format!("sink {}", end.sink.describe())));
        lines
    }
}

/// A [`JobGraph`] without its code.
#[derive(Clone, Debug, Serialize)]
pub struct JobDescription {
    /// Tasks.
    pub vertices: Vec<VertexDescription>,
    /// Edges between them, by index.
    pub edges: Vec<EdgeDescription>,
}

/// A [`JobVertex`] without its code.
#[derive(Clone, Debug, Serialize)]
pub struct VertexDescription {
    /// Identity.
    pub id: String,
    /// Name for people.
    pub name: String,
    /// What it does, a line an operator.
    pub operators: Vec<String>,
    /// How many subtasks.
    pub parallelism: usize,
    /// How many key groups.
    pub max_parallelism: u32,
}

/// A [`JobEdge`] without its code.
#[derive(Clone, Debug, Serialize)]
pub struct EdgeDescription {
    /// Index of the producer.
    pub source: usize,
    /// Index of the consumer.
    pub target: usize,
    /// Which input of the consumer.
    pub input_port: usize,
    /// How rows are dealt.
    pub partitioning: String,
    /// When buffers leave.
    pub gate: String,
}

impl fmt::Display for JobGraph {
    /// The text without remarks.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_text(f, |_| String::new())
    }
}

impl JobGraph {
    /// One paragraph a task, its inputs first, each with what there is to `remark` of the edge:
    ///
    /// ```text
    /// [1] count (parallelism 2)
    ///     <- [0] hash(#0), 100 ms, +I
    ///     window TUMBLE(size=10000)
    /// ```
    pub fn write_text(&self, f: &mut impl fmt::Write, remark: impl Fn(&JobEdge) -> String) -> fmt::Result {
        for (index, vertex) in self.vertices.iter().enumerate() {
            writeln!(f, "[{index}] {} (parallelism {})", vertex.name, vertex.parallelism)?;
            for (_, edge) in self.inputs(index) {
                let spill = if edge.may_spill { ", may spill" } else { "" };
                let port = if edge.input_port == 0 { String::new() } else { format!(", input {}", edge.input_port) };
                let channels = match edge.channels == vertex.parallelism {
                    true => String::new(),
                    false => format!(", channels {}", edge.channels),
                };
                let remark = remark(edge);
                let comma = if remark.is_empty() { "" } else { ", " };
                let (source, partitioning, gate) = (edge.source, &edge.partitioning, edge.gate);
                writeln!(f, "    <- [{source}] {partitioning}, {gate}{port}{channels}{spill}{comma}{remark}")?;
            }
            for line in vertex.operators() {
                writeln!(f, "    {line}")?;
            }
        }
        Ok(())
    }
}
