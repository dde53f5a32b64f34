//! Chaining: operators that may share a thread become one task (ARC-08).
//!
//! Two neighbours are chained if the edge is forward, the parallelism and slot group are equal, the consumer has this one
//! input, the producer this one output, neither forbids it nor do the settings, and the edge carries the main output through no
//! gate of its own.

use crate::error::{Error, Result};
use crate::graph::job::{ChainedOperator, ChainedSink, JobEdge, JobGraph, JobVertex, VertexHead};
use crate::graph::{Chaining, NodeIndex, NodeKind, Partitioning, StreamEdge, StreamGraph, VariableUse};
use crate::settings::{Gate, Settings};

impl StreamGraph {
    /// The job graph under `settings`: parallelisms and gates filled in, neighbours chained.
    pub fn to_job_graph(&self, settings: &Settings) -> Result<JobGraph> {
        let parallelism = self.parallelisms(settings)?;
        let ids = self.operator_ids()?;
        let max_parallelism = settings.max_parallelism();
        let may_chain = settings.operator_chaining();
        let mut job = JobGraph::default();
        let mut vertex_of: Vec<usize> = vec![usize::MAX; self.nodes().len()];
        for index in self.topological_order()? {
            let node = self.node(index);
            let keyed = !matches!(node.kind, NodeKind::Fragment(_));
            if keyed && parallelism[index] > max_parallelism as usize {
                return Err(Error::request(format!(
                    "parallelism {} of '{}' is above pipeline.max-parallelism {max_parallelism}",
                    parallelism[index], node.name
                )));
            }
            let chained = self.chainable_input(index, &parallelism).filter(|_| may_chain);
            let above = chained.map(|edge| vertex_of[edge.source]);
            let vertex = above.unwrap_or_else(|| {
                job.vertices.push(JobVertex {
                    id: ids[index],
                    name: String::new(),
                    head: VertexHead::Chain,
                    chain: Vec::new(),
                    sink: None,
                    parallelism: parallelism[index],
                    max_parallelism,
                    slot_sharing_group: node.slot_sharing_group.clone(),
                    schema: node.schema.clone(),
                });
                job.vertices.len() - 1
            });
            vertex_of[index] = vertex;
            let task = &mut job.vertices[vertex];
            task.schema = node.schema.clone();
            task.name =
                if task.name.is_empty() { node.name.clone() } else { format!("{} -> {}", task.name, node.name) };
            match &node.kind {
                NodeKind::Source(source) => task.head = VertexHead::Source(source.clone()),
                NodeKind::Fragment(fragment) => task.head = VertexHead::Fragment(fragment.clone()),
                NodeKind::Sink(sink) => {
                    task.sink = Some(ChainedSink { id: ids[index], name: node.name.clone(), sink: sink.clone() });
                }
                NodeKind::Operator(factory) => task.chain.push(ChainedOperator {
                    id: ids[index],
                    name: node.name.clone(),
                    factory: factory.clone(),
                    variables: (node.variables.iter())
                        .map(|used| VariableUse { name: used.name.clone(), collector: ids[used.collector] })
                        .collect(),
                }),
            }
        }
        for edge in self.edges() {
            let (source, target) = (vertex_of[edge.source], vertex_of[edge.target]);
            if source == target {
                continue;
            }
            let equal = parallelism[edge.source] == parallelism[edge.target];
            if matches!(edge.partitioning, Partitioning::Forward) && !equal {
                let (from, to) = (self.node(edge.source), self.node(edge.target));
                let message =
                    format!("an edge from '{}' forward to '{}', which runs less or more wide", from.name, to.name);
                return Err(Error::internal(message));
            }
            if edge.options.channels.is_some() && !matches!(job.vertices[target].head, VertexHead::Fragment(_)) {
                let name = &self.node(edge.target).name;
                return Err(Error::internal(format!("an edge into '{name}', no fragment, has channels of its own")));
            }
            job.edges.push(JobEdge {
                source,
                target,
                input_port: edge.input_port,
                output_port: edge.options.output_port,
                partitioning: edge.partitioning.clone(),
                gate: self.gate(edge, settings)?,
                may_spill: edge.options.may_spill,
                channels: edge.options.channels.unwrap_or(parallelism[edge.target]),
                schema: edge.options.schema.clone().unwrap_or_else(|| self.node(edge.source).schema.clone()),
            });
        }
        Ok(job)
    }

    /// The parallelism of every node: its own, else the job's, never above what its source or sink can do.
    fn parallelisms(&self, settings: &Settings) -> Result<Vec<usize>> {
        let parallelism = |index: NodeIndex| {
            let node = self.node(index);
            let limit = match &node.kind {
                NodeKind::Source(source) => source.source.parallelism_max(),
                NodeKind::Sink(sink) => sink.parallelism_max(),
                _ => None,
            };
            match (node.parallelism, limit) {
                (Some(0), _) => Err(Error::request(format!("parallelism of '{}' is 0", node.name))),
                (Some(own), Some(limit)) if own > limit => Err(Error::request(format!(
                    "parallelism {own} of '{}' is above the {limit} that it can do",
                    node.name
                ))),
                (Some(own), _) => Ok(own),
                (None, limit) => Ok(settings.parallelism().min(limit.unwrap_or(usize::MAX))),
            }
        };
        (0..self.nodes().len()).map(parallelism).collect()
    }

    fn chainable_input(&self, index: NodeIndex, parallelism: &[usize]) -> Option<&StreamEdge> {
        let mut inputs = self.inputs(index);
        let (edge, None) = (inputs.next()?, inputs.next()) else { return None };
        let (above, node) = (self.node(edge.source), self.node(index));
        let pushes = |kind: &NodeKind| !matches!(kind, NodeKind::Fragment(_));
        let chainable = matches!(edge.partitioning, Partitioning::Forward)
            && edge.options.output_port == 0
            && edge.options.gate.is_none()
            && parallelism[edge.source] == parallelism[index]
            && above.slot_sharing_group == node.slot_sharing_group
            && above.chaining != Chaining::Never
            && node.chaining == Chaining::Always
            && pushes(&above.kind)
            && pushes(&node.kind)
            && self.outputs(edge.source).count() == 1;
        chainable.then_some(edge)
    }

    /// The gate of an edge. Blocking below a source that never ends would wait for ever.
    fn gate(&self, edge: &StreamEdge, settings: &Settings) -> Result<Gate> {
        let gate = edge.options.gate.unwrap_or_else(|| settings.gate());
        match self.unbounded_above(edge.source) {
            Some(source) if gate == Gate::Infinite => {
                Err(Error::request(format!("buffer timeout 'infinite' below source '{source}', which never ends"))
                    .with_hint("an endless input needs a timeout such as '100 ms' or 'full'"))
            }
            _ => Ok(gate),
        }
    }
}
