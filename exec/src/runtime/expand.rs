//! From the job graph to what runs: subtasks, and the channels between them.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use tidemill_core::graph::{ChainedSink, JobGraph, JobVertex, VertexHead};
use tidemill_core::metrics::{BYTES_EXCHANGED, Metrics};
use tidemill_core::operator::OperatorContext;
use tidemill_core::sink::SinkContext;
use tidemill_core::source::SourceContext;
use tidemill_core::{Result, Settings};
use tokio::sync::mpsc;

use crate::exchange::{BufferLimits, EdgeWriter, Partitioner};
use crate::latch::Latch;
use crate::runtime::alignment::CheckpointMode;
use crate::runtime::chain::Chain;
use crate::runtime::channels::ChannelEnds;
use crate::runtime::checkpoints::{Attempt, Committers, TaskControl};
use crate::runtime::environment::Environment;
use crate::runtime::input::{GateInput, TaskInput};
use crate::runtime::output::TaskOutput;
use crate::runtime::participant::{FromTask, Participant};
use crate::runtime::pull::PullTask;
use crate::runtime::reader::SharedEnumerator;
use crate::runtime::recovery::{RestoredJob, RestoredSubtask};
use crate::runtime::shared::AttemptShared;
use crate::runtime::sink::SinkHandle;
use crate::runtime::source::SourceInput;
use crate::runtime::task::{ChainTask, SubtaskEnd, TaskWakeups};
use crate::runtime::trace::TaskTrace;
use crate::state::TieredBackend;

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
    pub work: BoxFuture<'static, Result<SubtaskEnd>>,
}

impl Subtask {
    /// The name that errors carry: `count (1/2)`.
    pub fn label(&self) -> String {
        format!("{} ({}/{})", self.name, self.index + 1, self.count)
    }
}

/// One attempt at a job, ready to run.
pub struct Expanded {
    /// Producers come before consumers.
    pub subtasks: Vec<Subtask>,
    /// Its side of checkpoints.
    pub attempt: Attempt,
}

/// Prepares the sinks, once a job: what is wrong with a destination is known before a row is read. Their committers, by vertex.
pub fn prepare_sinks(job: &JobGraph) -> Result<Committers> {
    let mut committers = BTreeMap::new();
    for (index, vertex) in job.vertices.iter().enumerate() {
        if let Some(end) = &vertex.sink {
            committers.insert(index, end.sink.prepare()?);
        }
    }
    Ok(Arc::new(committers))
}

/// Makes the enumerators of the sources, by vertex.
pub fn enumerators(
    job: &JobGraph,
    environment: &Environment,
    settings: &Settings,
) -> Result<BTreeMap<usize, Arc<SharedEnumerator>>> {
    let mut enumerators = BTreeMap::new();
    for (index, vertex) in job.vertices.iter().enumerate() {
        let VertexHead::Source(node) = &vertex.head else { continue };
        let context = SourceContext {
            subtask: 0,
            parallelism: vertex.parallelism,
            batch_rows: settings.batch_rows(),
            projection: node.projection.clone(),
            clock: environment.clock.clone(),
            metrics: Metrics::default(),
        };
        enumerators.insert(index, SharedEnumerator::new(node.source.enumerator(&context)?));
    }
    Ok(enumerators)
}

/// Makes the subtasks and channels of one attempt. Readers start at once: enumerators must have been restored.
pub fn expand(
    job: &JobGraph,
    environment: &Environment,
    settings: &Settings,
    cancelled: &Arc<Latch>,
    shared: &AttemptShared,
    enumerators: BTreeMap<usize, Arc<SharedEnumerator>>,
    restored: Option<&Arc<RestoredJob>>,
) -> Result<Expanded> {
    let (reports, heard) = mpsc::unbounded_channel();
    let mut expansion = Expansion {
        job,
        environment,
        settings,
        cancelled,
        shared,
        ends: ChannelEnds::new(job, environment, settings),
        reports,
        tasks: BTreeMap::new(),
        restored,
    };
    let mut subtasks = Vec::new();
    for (index, vertex) in job.vertices.iter().enumerate() {
        for subtask in 0..vertex.parallelism {
            let work = expansion.subtask(index, subtask, enumerators.get(&index))?;
            let name: Arc<str> = vertex.name.as_str().into();
            subtasks.push(Subtask { vertex: index, name, index: subtask, count: vertex.parallelism, work });
        }
    }
    Ok(Expanded { subtasks, attempt: Attempt::new(heard, expansion.tasks, enumerators) })
}

struct Expansion<'a> {
    job: &'a JobGraph,
    environment: &'a Environment,
    settings: &'a Settings,
    cancelled: &'a Arc<Latch>,
    shared: &'a AttemptShared,
    ends: ChannelEnds,
    /// How tasks reach the coordinator of checkpoints.
    reports: mpsc::UnboundedSender<FromTask>,
    /// How it reaches them.
    tasks: BTreeMap<(usize, usize), TaskControl>,
    restored: Option<&'a Arc<RestoredJob>>,
}

impl Expansion<'_> {
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
        enumerator: Option<&Arc<SharedEnumerator>>,
    ) -> Result<BoxFuture<'static, Result<SubtaskEnd>>> {
        let vertex = &self.job.vertices[index];
        let metrics = self.shared.metrics.register(&vertex.name);
        let output = self.output(index, subtask, &metrics)?;
        let environment = self.environment;
        if let VertexHead::Fragment(fragment) = &vertex.head {
            let task = PullTask {
                fragment: fragment.clone(),
                subtask,
                inputs: self.ends.pulled_inputs(self.job, index, subtask),
                output,
                metrics,
                trace: self.trace(index, subtask),
                cancelled: self.cancelled.clone(),
                clock: environment.clock.clone(),
            };
            return Ok(Box::pin(task.run()));
        }
        let input = match (&vertex.head, enumerator) {
            (VertexHead::Source(node), Some(enumerator)) => {
                let context = self.source_context(vertex, subtask, node.projection.clone(), metrics.clone());
                let (name, trace) = (&vertex.name, self.trace(index, subtask));
                let (enumerator, io) = (enumerator.clone(), &environment.io);
                TaskInput::Source(SourceInput::start(node.clone(), context, enumerator, name, io, trace)?)
            }
            _ => {
                let gate = self.ends.pushed_input(self.job, index, subtask);
                let mode = match self.settings.checkpoints().exactly_once {
                    true => CheckpointMode::ExactlyOnce,
                    false => CheckpointMode::AtLeastOnce,
                };
                let edges = ChannelEnds::input_edges(self.job, index, subtask);
                let clock = environment.clock.clone();
                TaskInput::Gate(GateInput::new(gate, edges, mode, clock, self.trace(index, subtask)))
            }
        };
        let (wake, messages) = mpsc::unbounded_channel();
        let urgency = self.ends.urgency(index, subtask);
        self.tasks.insert((index, subtask), TaskControl { messages: wake.clone(), urgency: urgency.clone() });
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
                buffer_timeout: self.settings.gate(),
                clock: environment.clock.clone(),
                metrics: metrics.clone(),
                backend: Arc::new(TieredBackend {
                    max_parallelism: vertex.max_parallelism,
                    tier: environment.tier.clone(),
                    backend: self.settings.state_backend(),
                }),
                wakeups: Arc::new(TaskWakeups {
                    place,
                    sender: wake.clone(),
                    clock: environment.clock.clone(),
                    io: environment.io.clone(),
                }),
                shared: self.shared.context(operator),
            });
        }
        let task = ChainTask {
            input,
            chain: Chain::new(operators, OUTPUT_BYTES),
            contexts,
            needs: self.shared.needs(&vertex.chain),
            output,
            messages,
            participant: Participant {
                subtask: (index, subtask),
                operators: vertex.chain.iter().map(|operator| operator.id).collect(),
                head: vertex.id,
                source: matches!(vertex.head, VertexHead::Source(_)).then_some(vertex.id),
                reports: self.reports.clone(),
                io: environment.io.clone(),
                waiting: Vec::new(),
            },
            urgency,
            overtaking: None,
            restored: self.restored.map(|job| RestoredSubtask {
                job: job.clone(),
                operators: vertex.chain.iter().map(|operator| operator.id).collect(),
                sink: vertex.sink.as_ref().map(|sink| sink.id),
                head: vertex.id,
                seed: environment.seed,
                subtask,
                parallelism: vertex.parallelism,
                max_parallelism: vertex.max_parallelism,
            }),
            cancelled: self.cancelled.clone(),
            clock: environment.clock.clone(),
            memory: environment.memory.clone(),
        };
        // The sender lives as long as the task, so that waiting for wake-ups never ends by itself.
        Ok(Box::pin(async move {
            let _wake = wake;
            task.run().await
        }))
    }

    fn trace(&self, vertex: usize, subtask: usize) -> Option<TaskTrace> {
        let trace = self.environment.trace.clone()?;
        Some(TaskTrace { trace, task: self.job.vertices[vertex].name.as_str().into(), subtask })
    }

    fn output(&mut self, vertex: usize, subtask: usize, metrics: &Metrics) -> Result<TaskOutput> {
        let source = &self.job.vertices[vertex];
        let limits = BufferLimits { rows: self.settings.batch_rows(), bytes: self.settings.segment_size() };
        let mut edges = Vec::new();
        for (number, edge) in self.job.outputs(vertex) {
            let senders = self.ends.senders(number, subtask);
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
            Some(ChainedSink { sink, .. }) => {
                let context = SinkContext {
                    subtask,
                    parallelism: source.parallelism,
                    schema: source.schema.clone(),
                    clock: self.environment.clock.clone(),
                    metrics: metrics.clone(),
                };
                let writer = sink.writer(&context)?;
                Some(SinkHandle::start(writer, &**sink, &source.name, &self.environment.io))
            }
        };
        Ok(TaskOutput { edges, sink })
    }
}
