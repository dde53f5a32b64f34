//! From the program to the engine's graph: functions that may share an operator are fused, the rest is one node a call.
//!
//! A function is fused into its producer if it is the producer's only consumer, runs in as many subtasks, the rows go straight
//! on, and nobody asked for a cut (a gate, `start_new_chain`, `disable_chaining`).

use std::sync::Arc;

use tidemill_core::graph::{
    Chaining, DEFAULT_SLOT_SHARING_GROUP, EdgeOptions, NodeIndex, NodeKind, Partitioning, StreamGraph, StreamNode,
    VariableUse,
};
use tidemill_core::{Error, Result, Settings};

use super::operator::{Decode, Fused, Head};
use super::program::{Input, Kind, Node, NodeId, Program};

/// The graph of everything that `sinks` need. `job` becomes part of the names of files.
pub(super) fn lower(program: &Program, sinks: &[NodeId], settings: &Settings, job: &str) -> Result<StreamGraph> {
    program.check()?;
    let needed = program.needed(sinks);
    let mut lowering = Lowering { program, settings, places: vec![None; needed.last().map_or(0, |last| last + 1)] };
    let mut groups: Vec<Group> = Vec::new();
    for id in &needed {
        lowering.place(*id, &needed, &mut groups)?;
    }
    lowering.graph(&groups, job)
}

/// Nodes that become one operator.
struct Group {
    nodes: Vec<NodeId>,
    parallelism: usize,
    slots: Arc<str>,
}

impl Group {
    fn first(&self) -> NodeId {
        self.nodes[0]
    }

    fn last(&self) -> NodeId {
        self.nodes[self.nodes.len() - 1]
    }
}

struct Lowering<'a> {
    program: &'a Program,
    settings: &'a Settings,
    /// The group of each node.
    places: Vec<Option<usize>>,
}

impl Lowering<'_> {
    /// Fuses a node into its producer's group, or begins one.
    fn place(&mut self, id: NodeId, needed: &[NodeId], groups: &mut Vec<Group>) -> Result<()> {
        let parallelism = self.parallelism(id, groups)?;
        let slots = self.slot_sharing_group(id, groups);
        let fusable = self.fusable_into(id, parallelism, needed, groups);
        let place = match fusable.filter(|place| groups[*place].slots == slots) {
            Some(place) => {
                groups[place].nodes.push(id);
                place
            }
            None => {
                groups.push(Group { nodes: vec![id], parallelism, slots });
                groups.len() - 1
            }
        };
        self.places[id] = Some(place);
        Ok(())
    }

    fn parallelism(&self, id: NodeId, groups: &[Group]) -> Result<usize> {
        let node = self.program.node(id);
        if let Some(own) = node.parallelism {
            return match own {
                0 => Err(Error::request(format!("parallelism of '{}' is 0", node.name))),
                own => Ok(own),
            };
        }
        if node.follows_producer {
            let above = node.inputs.iter().filter_map(|input| self.places[input.node]);
            return Ok(above.map(|place| groups[place].parallelism).max().unwrap_or(1));
        }
        let limit = match &node.kind {
            Kind::Source(source) => source.source.parallelism_max(),
            _ => None,
        };
        Ok(self.settings.parallelism().min(limit.unwrap_or(usize::MAX)))
    }

    /// The user's, else that of the inputs if they agree, else the default (ARC-10).
    fn slot_sharing_group(&self, id: NodeId, groups: &[Group]) -> Arc<str> {
        let node = self.program.node(id);
        let mut above =
            node.inputs.iter().filter_map(|input| self.places[input.node]).map(|place| &groups[place].slots);
        let first = above.next().filter(|first| above.all(|other| other == *first));
        node.slot_sharing_group.clone().or_else(|| first.cloned()).unwrap_or_else(|| DEFAULT_SLOT_SHARING_GROUP.into())
    }

    fn fusable_into(&self, id: NodeId, parallelism: usize, needed: &[NodeId], groups: &[Group]) -> Option<usize> {
        let node = self.program.node(id);
        let (Kind::Rows(..), [input]) = (&node.kind, node.inputs.as_slice()) else { return None };
        let above = self.program.node(input.node);
        let place = self.places[input.node]?;
        let readers = needed.iter().flat_map(|other| &self.program.node(*other).inputs);
        let readers = readers.filter(|other| other.node == input.node && other.port == 0).count();
        let fusable = matches!(above.kind, Kind::Rows(..) | Kind::Head(_))
            && input.port == 0
            && matches!(input.partitioning, None | Some(Partitioning::Forward))
            && readers == 1
            && groups[place].parallelism == parallelism
            && above.chaining != Chaining::Never
            && node.chaining == Chaining::Always
            && above.gate.is_none()
            && self.settings.operator_chaining();
        fusable.then_some(place)
    }

    fn graph(&self, groups: &[Group], job: &str) -> Result<StreamGraph> {
        let mut graph = StreamGraph::new();
        for group in groups {
            graph.add(self.stream_node(group, job)?);
        }
        for (target, group) in groups.iter().enumerate() {
            for input in &self.program.node(group.first()).inputs {
                let Some(source) = self.places[input.node] else { continue };
                let same = groups[source].parallelism == group.parallelism;
                let partitioning = match &input.partitioning {
                    None if same => Partitioning::Forward,
                    None => Partitioning::Rebalance,
                    Some(Partitioning::Forward) if !same => return Err(self.unequal(&groups[source], group)),
                    Some(partitioning) => partitioning.clone(),
                };
                self.connect(&mut graph, source, target, input, groups[source].last(), partitioning);
            }
        }
        check_variables(&graph)?;
        Ok(graph)
    }

    fn connect(
        &self,
        graph: &mut StreamGraph,
        source: NodeIndex,
        target: NodeIndex,
        input: &Input,
        last: NodeId,
        partitioning: Partitioning,
    ) {
        let side = input.port.checked_sub(1).and_then(|place| self.program.node(input.node).sides.get(place));
        let options = EdgeOptions {
            gate: self.program.node(last).gate,
            output_port: input.port,
            // A consumer that waits for a variable reads nothing, and the variable may come from the same producer.
            may_spill: !graph.node(target).variables.is_empty(),
            schema: side.map(|side| side.schema.clone()),
            ..EdgeOptions::default()
        };
        graph.connect(source, target, input.to, partitioning, options);
    }

    fn stream_node(&self, group: &Group, job: &str) -> Result<StreamNode> {
        let nodes: Vec<&Node> = group.nodes.iter().map(|id| self.program.node(*id)).collect();
        let (first, last) = (nodes[0], nodes[nodes.len() - 1]);
        let kind = match &first.kind {
            Kind::Source(source) => NodeKind::Source(source.clone()),
            Kind::Batches(factory) => NodeKind::Operator(factory.clone()),
            Kind::Sink(create) => NodeKind::Sink(create(group.parallelism, job)?),
            Kind::Rows(codec, _) => fused(Arc::new(Decode(codec.clone())), &nodes)?,
            Kind::Head(head) => fused(head.clone(), &nodes)?,
        };
        let names: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).filter(|name| !name.is_empty()).collect();
        let mut node = StreamNode::new(names.join(" -> "), kind, last.schema.clone());
        node.uid = nodes.iter().find_map(|node| node.uid.clone());
        node.parallelism = Some(group.parallelism);
        node.slot_sharing_group = group.slots.clone();
        let variables = nodes.iter().flat_map(|node| &node.variables);
        let variables = variables.filter_map(|(name, collector)| {
            Some(VariableUse { name: name.clone(), collector: self.places[*collector]? })
        });
        node.variables = variables.collect();
        node.chaining = match (first.chaining, last.chaining) {
            (Chaining::Never, _) | (_, Chaining::Never) => Chaining::Never,
            // Whoever waits for a variable does so in a task of its own, behind an edge that may spill.
            (Chaining::Always, _) if !node.variables.is_empty() => Chaining::Head,
            (first, _) => first,
        };
        Ok(node)
    }

    fn unequal(&self, source: &Group, target: &Group) -> Error {
        let name = |id: NodeId| &self.program.node(id).name;
        Error::request(format!(
            "forward from '{}' with parallelism {} to '{}' with parallelism {}",
            name(source.last()),
            source.parallelism,
            name(target.first()),
            target.parallelism
        ))
        .with_hint("rows can go straight on only between equal parallelisms; use rebalance or rescale")
    }
}

/// Refuses a variable that would never be complete.
fn check_variables(graph: &StreamGraph) -> Result<()> {
    for node in graph.nodes() {
        for VariableUse { name, collector } in &node.variables {
            if let Some(source) = graph.unbounded_above(*collector) {
                let error =
                    format!("broadcast set '{name}' of '{}' comes from source '{source}', which never ends", node.name);
                return Err(
                    Error::request(error).with_hint("connect with a broadcast stream, whose records come one by one")
                );
            }
        }
    }
    Ok(())
}

/// The operator of a head and the functions of `nodes` behind it.
fn fused(head: Arc<dyn Head>, nodes: &[&Node]) -> Result<NodeKind> {
    let stages = nodes.iter().filter_map(|node| match &node.kind {
        Kind::Rows(_, stage) => stage.clone(),
        _ => None,
    });
    let codec = nodes.last().and_then(|node| node.codec.clone());
    let codec = codec.ok_or_else(|| Error::internal("typed rows have no encoding"))?;
    let named = nodes.iter().filter(|node| matches!(&node.kind, Kind::Rows(_, Some(_)))).map(|node| node.name.clone());
    let texts: Vec<String> = std::iter::once(head.describe()).chain(named).filter(|text| !text.is_empty()).collect();
    Ok(NodeKind::Operator(Arc::new(Fused {
        head,
        sides: nodes.first().map(|node| node.sides.clone()).unwrap_or_default(),
        stages: stages.collect(),
        codec,
        text: if texts.is_empty() { "encode".to_owned() } else { texts.join(" -> ") },
    })))
}
