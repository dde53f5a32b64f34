//! The channels of a job: one for each producing subtask and each channel of an edge, made before anything runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidemill_core::graph::{JobEdge, JobGraph, Partitioning, VertexHead};
use tidemill_core::{Gate, Settings};

use crate::exchange::{self, Demand, InputGate, Overflow, Ready, Receiver, Sender, SpillFile, Urgency};
use crate::latch::Latch;
use crate::memory::network_memory;
use crate::runtime::environment::Environment;
use crate::runtime::in_flight::InputEdge;
use crate::runtime::pull::PullInput;

/// The ends of all channels, to be taken by their subtasks.
#[derive(Debug, Default)]
pub struct ChannelEnds {
    /// By (edge, producer): one sender a channel.
    senders: BTreeMap<(usize, usize), Vec<Sender>>,
    /// By (edge, channel): one receiver a producer, with what tells that it has something.
    receivers: BTreeMap<(usize, usize), Vec<ToldReceiver>>,
    /// By (vertex, subtask): what the channels of a pushed task tell together, and how many of them there are so far.
    ready: BTreeMap<(usize, usize), (Arc<Ready>, usize)>,
    /// By (vertex, subtask).
    urgencies: BTreeMap<(usize, usize), Arc<Urgency>>,
}

/// A receiver and what tells that it has something.
type ToldReceiver = (Receiver, Arc<Ready>);

impl ChannelEnds {
    /// The channels of `job`. Together they hold no more than the network's share of the memory, except that each always has
    /// room for one batch.
    pub fn new(job: &JobGraph, environment: &Environment, settings: &Settings) -> Self {
        let mut ends = Self::default();
        let count: usize = job.edges.iter().map(|edge| channel_count(job, edge)).sum();
        let share = (network_memory(settings) / count.max(1)).max(1);
        // More on the way than a few buffers only makes rows late. What spills when it has no credit uses its whole share.
        let pipelined = share.min(4 * settings.segment_size().max(1));
        for (vertex, task) in job.vertices.iter().enumerate() {
            ends.urgencies.extend((0..task.parallelism).map(|subtask| ((vertex, subtask), Arc::default())));
        }
        ends.prepare_pushed(job);
        for (number, edge) in job.edges.iter().enumerate() {
            let credit = if edge.may_spill || edge.gate == Gate::Infinite { share } else { pipelined };
            let producers = EdgeProducers::new(job, edge, credit, environment);
            for channel in 0..edge.channels {
                for producer in producers_of(job, edge, channel) {
                    ends.connect(job, number, producer, channel, &producers);
                }
            }
        }
        ends
    }

    /// How urgent checkpoints are in one subtask.
    pub fn urgency(&self, vertex: usize, subtask: usize) -> Arc<Urgency> {
        self.urgencies.get(&(vertex, subtask)).cloned().unwrap_or_default()
    }

    /// The senders of one producing subtask over edge `edge`, one a channel.
    pub fn senders(&mut self, edge: usize, producer: usize) -> Vec<Sender> {
        self.senders.remove(&(edge, producer)).unwrap_or_default()
    }

    /// All channels into one subtask of a pushed task.
    pub fn pushed_input(&mut self, job: &JobGraph, vertex: usize, subtask: usize) -> InputGate {
        let mut channels = Vec::new();
        for (number, edge) in job.inputs(vertex) {
            let receivers = self.receivers.remove(&(number, subtask)).unwrap_or_default();
            channels.extend(receivers.into_iter().map(|(receiver, _)| (edge.input_port, receiver)));
        }
        let ready = self.ready.remove(&(vertex, subtask)).map(|(ready, _)| ready);
        let ready = ready.unwrap_or_else(|| Ready::new(0, self.urgency(vertex, subtask)));
        InputGate::new(channels, ready)
    }

    /// What the channels of [`ChannelEnds::pushed_input`] belong to, in their order.
    pub fn input_edges(job: &JobGraph, vertex: usize, subtask: usize) -> Vec<InputEdge> {
        let mut begin = 0;
        let edge = |(place, (_, edge)): (usize, (usize, &JobEdge))| {
            let channels = begin..begin + producers_of(job, edge, subtask).len();
            begin = channels.end;
            InputEdge {
                place,
                port: edge.input_port,
                channels,
                partitioning: edge.partitioning.clone(),
                max_parallelism: job.vertices[edge.source].max_parallelism,
                schema: edge.schema.clone(),
                // What spilled is no buffer any more: it may be as large as the input.
                may_be_overtaken: edge.partitioning.may_deal_again() && !edge.may_spill,
            }
        };
        job.inputs(vertex).enumerate().map(edge).collect()
    }

    /// The channels that one subtask of a pulled task owns, by input port.
    pub fn pulled_inputs(&mut self, job: &JobGraph, vertex: usize, subtask: usize) -> Vec<PullInput> {
        let mut edges: Vec<(usize, &JobEdge)> = job.inputs(vertex).collect();
        edges.sort_by_key(|(_, edge)| edge.input_port);
        let mut gates = |edge, channel| -> Vec<InputGate> {
            let receivers = self.receivers.remove(&(edge, channel)).unwrap_or_default();
            receivers.into_iter().map(|(receiver, ready)| InputGate::new(vec![(0, receiver)], ready)).collect()
        };
        let mut inputs = Vec::with_capacity(edges.len());
        for (number, edge) in edges {
            let own = (subtask..edge.channels).step_by(job.vertices[vertex].parallelism);
            inputs.push(own.map(|channel| (channel, gates(number, channel))).collect());
        }
        inputs
    }

    /// A pushed task reads all its channels through one list of those that have something.
    fn prepare_pushed(&mut self, job: &JobGraph) {
        for (vertex, target) in job.vertices.iter().enumerate() {
            if matches!(target.head, VertexHead::Fragment(_)) {
                continue;
            }
            for subtask in 0..target.parallelism {
                let channels = job.inputs(vertex).map(|(_, edge)| producers_of(job, edge, subtask).len()).sum();
                self.ready.insert((vertex, subtask), (Ready::new(channels, self.urgency(vertex, subtask)), 0));
            }
        }
    }

    fn connect(&mut self, job: &JobGraph, edge: usize, producer: usize, channel: usize, common: &EdgeProducers) {
        let (ready, place) = match self.ready.get_mut(&(job.edges[edge].target, channel)) {
            Some((shared, count)) => {
                *count += 1;
                (shared.clone(), *count - 1)
            }
            // A pulled task reads its channels apart.
            None => (Ready::new(1, Arc::default()), 0),
        };
        let (overflow, demand) = (common.overflows[producer].clone(), common.demands[producer].clone());
        let urgency = self.urgency(job.edges[edge].source, producer);
        let (sender, receiver) = exchange::channel(common.credit, overflow, demand, urgency, &ready, place);
        self.senders.entry((edge, producer)).or_default().push(sender);
        self.receivers.entry((edge, channel)).or_default().push((receiver, ready));
    }
}

/// What the channels of one producing subtask have in common, for every producer of an edge.
struct EdgeProducers {
    credit: usize,
    overflows: Vec<Overflow>,
    demands: Vec<Arc<Demand>>,
}

impl EdgeProducers {
    fn new(job: &JobGraph, edge: &JobEdge, credit: usize, environment: &Environment) -> Self {
        let blocking = edge.gate == Gate::Infinite;
        let overflow = |_| match blocking || edge.may_spill {
            true => Overflow::Spill { file: Arc::new(SpillFile::new(environment.spill.clone())), blocking },
            false => Overflow::Wait,
        };
        let asked = Arc::new(Latch::default());
        let channels = if is_forward(edge) { 1 } else { edge.channels };
        let producers = 0..job.vertices[edge.source].parallelism;
        Self {
            credit,
            overflows: producers.clone().map(overflow).collect(),
            demands: producers.map(|_| Arc::new(Demand::new(asked.clone(), channels))).collect(),
        }
    }
}

/// Producers that feed a channel of this edge: forward edges connect equals, all others everyone.
fn producers_of(job: &JobGraph, edge: &JobEdge, channel: usize) -> std::ops::Range<usize> {
    match is_forward(edge) {
        true => channel..channel + 1,
        false => 0..job.vertices[edge.source].parallelism,
    }
}

fn channel_count(job: &JobGraph, edge: &JobEdge) -> usize {
    (0..edge.channels).map(|channel| producers_of(job, edge, channel).len()).sum()
}

fn is_forward(edge: &JobEdge) -> bool {
    matches!(edge.partitioning, Partitioning::Forward)
}
