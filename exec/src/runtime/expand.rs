//! From the job graph to what runs: subtasks, and the channels between them.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use tidemill_core::graph::{JobEdge, JobGraph, JobVertex, Partitioning, VertexHead};
use tidemill_core::metrics::{BYTES_EXCHANGED, Metrics};
use tidemill_core::operator::OperatorContext;
use tidemill_core::sink::{Committable, Committer, SinkContext};
use tidemill_core::source::SourceContext;
use tidemill_core::{Gate, Result, Settings};
use tokio::sync::mpsc;

use crate::exchange::{
    BufferLimits, EdgeWriter, InputGate, Overflow, Partitioner, Ready, Receiver, Sender, SpillFile, channel,
};
use crate::latch::Latch;
use crate::runtime::chain::Chain;
use crate::runtime::environment::Environment;
use crate::runtime::input::{GateInput, TaskInput, TaskTrace};
use crate::runtime::job::JobMetrics;
use crate::runtime::output::TaskOutput;
use crate::runtime::pull::PullTask;
use crate::runtime::sink::SinkHandle;
use crate::runtime::source::{SharedEnumerator, SourceInput};
use crate::runtime::task::{ChainTask, TaskWakeups};

/// Bytes at which an operator's output calls itself full.
const OUTPUT_BYTES: usize = 1 << 20;

/// One subtask, ready to run.
pub struct Subtask {
    /// Its vertex in the job graph.
    pub vertex: usize,
    /// Name of the task, for errors.
    pub name: Arc<str>,
    /// Which subtask, from 0.
    pub index: usize,
    /// How many there are.
    pub count: usize,
    /// Its work.
    pub work: BoxFuture<'static, Result<Vec<Committable>>>,
}

impl Subtask {
    /// The name that errors carry: `count (1/2)`.
    pub fn label(&self) -> String {
        format!("{} ({}/{})", self.name, self.index + 1, self.count)
    }
}

/// All of a job, ready to run.
pub struct Expanded {
    /// Producers come before consumers.
    pub subtasks: Vec<Subtask>,
    /// The committer of each vertex that ends in a sink.
    pub committers: BTreeMap<usize, Arc<dyn Committer>>,
}

/// Makes subtasks and channels. Sinks are prepared here: what is wrong with a destination is known before a row is read.
pub fn expand(
    job: &JobGraph,
    environment: &Environment,
    settings: &Settings,
    cancelled: &Arc<Latch>,
    metrics: &JobMetrics,
) -> Result<Expanded> {
    let mut expansion = Expansion { job, environment, settings, cancelled, metrics, ends: channels(job, environment, settings) };
    let mut subtasks = Vec::new();
    let mut committers = BTreeMap::new();
    for (index, vertex) in job.vertices.iter().enumerate() {
        if let Some(sink) = &vertex.sink {
            committers.insert(index, sink.prepare()?);
        }
        let enumerator = expansion.enumerator(vertex)?;
        for subtask in 0..vertex.parallelism {
            let work = expansion.subtask(index, subtask, enumerator.as_ref())?;
            let name: Arc<str> = vertex.name.as_str().into();
            subtasks.push(Subtask { vertex: index, name, index: subtask, count: vertex.parallelism, work });
        }
    }
    Ok(Expanded { subtasks, committers })
}

struct Expansion<'a> {
    job: &'a JobGraph,
    environment: &'a Environment,
    settings: &'a Settings,
    cancelled: &'a Arc<Latch>,
    metrics: &'a JobMetrics,
    ends: ChannelEnds,
}

/// The ends of all channels, to be taken by their subtasks.
struct ChannelEnds {
    /// By (edge, producer): one sender a consumer.
    senders: BTreeMap<(usize, usize), Vec<Sender>>,
    /// By (edge, consumer): one receiver a producer.
    receivers: BTreeMap<(usize, usize), Vec<Receiver>>,
    /// By (vertex, subtask): what its channels tell.
    ready: BTreeMap<(usize, usize), Arc<Ready>>,
    /// By (edge, consumer): the same for fragments, a list of its own for every channel.
    ready_each: BTreeMap<(usize, usize), Vec<Arc<Ready>>>,
}

/// Producers of `consumer` over this edge: forward edges connect equals, all others everyone.
fn producers_of(edge: &JobEdge, job: &JobGraph, consumer: usize) -> Vec<usize> {
    match edge.partitioning {
        Partitioning::Forward => vec![consumer],
        _ => (0..job.vertices[edge.source].parallelism).collect(),
    }
}

fn channels(job: &JobGraph, environment: &Environment, settings: &Settings) -> ChannelEnds {
    let mut ends = ChannelEnds {
        senders: BTreeMap::new(),
        receivers: BTreeMap::new(),
        ready: BTreeMap::new(),
        ready_each: BTreeMap::new(),
    };
    let count: usize = (0..job.edges.len()).map(|edge| channel_count(job, edge)).sum();
    let credit = (settings.network_memory_max() / count.max(1)).clamp(1, 4 * settings.segment_size().max(1));
    for (vertex, target) in job.vertices.iter().enumerate() {
        let pulled = matches!(target.head, VertexHead::Fragment(_));
        for consumer in 0..target.parallelism {
            let inputs = || job.inputs(vertex);
            let total = inputs().map(|(_, edge)| producers_of(edge, job, consumer).len()).sum();
            let shared = Ready::new(total);
            let mut index = 0;
            for (number, edge) in inputs() {
                for producer in producers_of(edge, job, consumer) {
                    let (ready, place) = if pulled { (Ready::new(1), 0) } else { (shared.clone(), index) };
                    ends.connect(number, edge, producer, consumer, (&ready, place), credit, environment);
                    if pulled {
                        ends.ready_each.entry((number, consumer)).or_default().push(ready);
                    }
                    index += 1;
                }
            }
            ends.ready.insert((vertex, consumer), shared);
        }
    }
    ends
}

fn channel_count(job: &JobGraph, edge: usize) -> usize {
    let edge = &job.edges[edge];
    let (source, target) = (job.vertices[edge.source].parallelism, job.vertices[edge.target].parallelism);
    if matches!(edge.partitioning, Partitioning::Forward) { target } else { source * target }
}

impl ChannelEnds {
    #[expect(clippy::too_many_arguments, reason = "the ends of a channel are named by who they connect")]
    fn connect(
        &mut self,
        number: usize,
        edge: &JobEdge,
        producer: usize,
        consumer: usize,
        (ready, place): (&Arc<Ready>, usize),
        credit: usize,
        environment: &Environment,
    ) {
        let blocking = edge.gate == Gate::Infinite;
        let overflow = match blocking || edge.may_spill {
            true => Overflow::Spill { file: Arc::new(SpillFile::new(environment.spill.clone())), blocking },
            false => Overflow::Wait,
        };
        let (sender, receiver) = channel(credit, overflow, Arc::new(Latch::default()), ready, place);
        self.senders.entry((number, producer)).or_default().push(sender);
        self.receivers.entry((number, consumer)).or_default().push(receiver);
    }
}

impl Expansion<'_> {
    fn enumerator(&self, vertex: &JobVertex) -> Result<Option<SharedEnumerator>> {
        let VertexHead::Source(node) = &vertex.head else { return Ok(None) };
        let context = self.source_context(vertex, 0, node.projection.clone(), Metrics::default());
        let enumerator = node.source.enumerator(&context)?;
        Ok(Some(Arc::new(tokio::sync::Mutex::new(enumerator))))
    }

    fn source_context(
        &self,
        vertex: &JobVertex,
        subtask: usize,
        projection: Option<Arc<[usize]>>,
        metrics: Metrics,
    ) -> SourceContext {
        SourceContext {
            subtask,
            parallelism: vertex.parallelism,
            batch_rows: self.settings.batch_rows(),
            projection,
            clock: self.environment.clock.clone(),
            metrics,
        }
    }

    fn subtask(
        &mut self,
        index: usize,
        subtask: usize,
        enumerator: Option<&SharedEnumerator>,
    ) -> Result<BoxFuture<'static, Result<Vec<Committable>>>> {
        let vertex = &self.job.vertices[index];
        let metrics = self.metrics.register(&vertex.name);
        let output = self.output(index, subtask, &metrics)?;
        let environment = self.environment;
        if let VertexHead::Fragment(fragment) = &vertex.head {
            let task = PullTask {
                fragment: fragment.clone(),
                subtask,
                inputs: self.pulled_inputs(index, subtask),
                output,
                metrics,
                cancelled: self.cancelled.clone(),
                clock: environment.clock.clone(),
            };
            return Ok(Box::pin(task.run()));
        }
        let input = match (&vertex.head, enumerator) {
            (VertexHead::Source(node), Some(enumerator)) => {
                let context = self.source_context(vertex, subtask, node.projection.clone(), metrics.clone());
                let name = &vertex.name;
                TaskInput::Source(SourceInput::start(node.clone(), context, enumerator.clone(), name, &environment.io)?)
            }
            _ => TaskInput::Gate(self.pushed_input(index, subtask)),
        };
        let (wake, wakeups) = mpsc::unbounded_channel();
        let mut operators = Vec::with_capacity(vertex.chain.len());
        let mut contexts = Vec::with_capacity(vertex.chain.len());
        for (place, operator) in vertex.chain.iter().enumerate() {
            operators.push(operator.factory.create()?);
            contexts.push(OperatorContext {
                operator: operator.name.as_str().into(),
                subtask,
                parallelism: vertex.parallelism,
                max_parallelism: vertex.max_parallelism,
                batch_rows: self.settings.batch_rows(),
                clock: environment.clock.clone(),
                metrics: metrics.clone(),
                wakeups: Arc::new(TaskWakeups {
                    place,
                    sender: wake.clone(),
                    clock: environment.clock.clone(),
                    io: environment.io.clone(),
                }),
            });
        }
        let task = ChainTask {
            input,
            chain: Chain::new(operators, OUTPUT_BYTES),
            contexts,
            output,
            wakeups,
            cancelled: self.cancelled.clone(),
            clock: environment.clock.clone(),
        };
        // The sender lives as long as the task, so that waiting for wake-ups never ends by itself.
        Ok(Box::pin(async move {
            let _wake = wake;
            task.run().await
        }))
    }

    fn pushed_input(&mut self, vertex: usize, subtask: usize) -> GateInput {
        let mut channels = Vec::new();
        for (number, edge) in self.job.inputs(vertex) {
            let receivers = self.ends.receivers.remove(&(number, subtask)).unwrap_or_default();
            channels.extend(receivers.into_iter().map(|receiver| (edge.input_port, receiver)));
        }
        let ready = self.ends.ready.remove(&(vertex, subtask)).unwrap_or_else(|| Ready::new(0));
        let trace = self.environment.trace.clone().map(|trace| TaskTrace {
            trace,
            task: self.job.vertices[vertex].name.clone(),
            subtask,
        });
        GateInput::new(InputGate::new(channels, ready), trace)
    }

    fn pulled_inputs(&mut self, vertex: usize, subtask: usize) -> Vec<Vec<InputGate>> {
        let mut edges: Vec<(usize, &JobEdge)> = self.job.inputs(vertex).collect();
        edges.sort_by_key(|(_, edge)| edge.input_port);
        let mut inputs = Vec::with_capacity(edges.len());
        for (number, _) in edges {
            let receivers = self.ends.receivers.remove(&(number, subtask)).unwrap_or_default();
            let ready = self.ends.ready_each.remove(&(number, subtask)).unwrap_or_default();
            let gates = receivers.into_iter().zip(ready);
            inputs.push(gates.map(|(receiver, ready)| InputGate::new(vec![(0, receiver)], ready)).collect());
        }
        inputs
    }

    fn output(&mut self, vertex: usize, subtask: usize, metrics: &Metrics) -> Result<TaskOutput> {
        let source = &self.job.vertices[vertex];
        let limits = BufferLimits { rows: self.settings.batch_rows(), bytes: self.settings.segment_size() };
        let mut edges = Vec::new();
        for (number, edge) in self.job.outputs(vertex) {
            let senders = self.ends.senders.remove(&(number, subtask)).unwrap_or_default();
            let partitioner = Partitioner::new(
                edge.partitioning.clone(),
                subtask,
                source.parallelism,
                senders.len(),
                source.max_parallelism,
                self.environment.seed,
            );
            let writer = EdgeWriter::new(
                partitioner,
                senders,
                edge.schema.clone(),
                edge.gate,
                limits,
                self.environment.clock.clone(),
                metrics.counter(BYTES_EXCHANGED),
            );
            edges.push((edge.output_port, writer));
        }
        let sink = match &source.sink {
            None => None,
            Some(sink) => {
                let context = SinkContext {
                    subtask,
                    parallelism: source.parallelism,
                    schema: source.schema.clone(),
                    clock: self.environment.clock.clone(),
                    metrics: metrics.clone(),
                };
                let writer = sink.writer(&context)?;
                Some(SinkHandle::start(writer, sink.changelog_mode(), &source.name, &self.environment.io))
            }
        };
        Ok(TaskOutput { edges, sink })
    }
}
