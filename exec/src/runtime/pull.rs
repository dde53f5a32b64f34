//! The shell around a fragment: begins when somebody asks, polls the plan, sends on what it yields.

use std::sync::Arc;

use futures::StreamExt;
use tidemill_core::clock::Clock;
use tidemill_core::graph::{BatchStream, Fragment, FragmentChannel, FragmentContext, FragmentInput};
use tidemill_core::metrics::{Metrics, RECORDS_OUT};
use tidemill_core::operator::Emission;
use tidemill_core::{Batch, Event, Result};

use crate::exchange::InputGate;
use crate::latch::Latch;
use crate::runtime::output::TaskOutput;
use crate::runtime::task::{SubtaskEnd, cancelled, caught, yield_now};
use crate::runtime::trace::TaskTrace;

/// One subtask of a pulled task.
pub struct PullTask {
    /// The plan.
    pub fragment: Arc<dyn Fragment>,
    /// Which subtask.
    pub subtask: usize,
    /// What it reads, by input port.
    pub inputs: Vec<PullInput>,
    /// Where rows go.
    pub output: TaskOutput,
    /// Counters.
    pub metrics: Metrics,
    /// Told of every event that the inputs bring.
    pub trace: Option<TaskTrace>,
    /// Thrown when the job is to end.
    pub cancelled: Arc<Latch>,
    /// For buffers whose time has come.
    pub clock: Arc<dyn Clock>,
}

/// The channels of one edge that a subtask owns: their numbers, and a gate for each producer.
pub type PullInput = Vec<(usize, Vec<InputGate>)>;

impl PullTask {
    /// Runs to the end of the plan, the end of demand, a failure or the cancellation.
    pub async fn run(mut self) -> Result<SubtaskEnd> {
        let (stop, abandoned) = (self.cancelled.clone(), self.output.abandoned());
        let result = tokio::select! {
            biased;
            () = stop.wait() => Err(cancelled()),
            result = caught(self.work()) => result,
            // Nobody is left who would read what follows, or the end.
            () = abandoned => Ok(SubtaskEnd::default()),
        };
        if result.is_err() {
            self.output.abandon(&*self.clock).await;
        }
        result
    }

    async fn work(&mut self) -> Result<SubtaskEnd> {
        let records_out = self.metrics.counter(RECORDS_OUT);
        self.output.demanded().await;
        // Also when demand ended before it began: other subtasks of the fragment may wait for the inputs that this one owns.
        let inputs = fragment_inputs(std::mem::take(&mut self.inputs), self.trace.as_ref());
        let context = FragmentContext { subtask: self.subtask, inputs, metrics: self.metrics.clone() };
        let mut stream = self.fragment.execute(context)?;
        if self.output.is_abandoned() {
            return Ok(SubtaskEnd::default());
        }
        loop {
            let next = match self.output.deadline() {
                None => stream.next().await,
                Some(deadline) => {
                    let flush = self.clock.sleep(deadline.saturating_sub(self.clock.monotonic()));
                    tokio::select! {
                        biased;
                        next = stream.next() => next,
                        () = flush => {
                            self.output.flush_due().await?;
                            continue;
                        }
                    }
                }
            };
            let Some(records) = next else { break };
            let records = records?;
            records_out.add(records.num_rows());
            self.output.emit(Emission::Batch(0, Batch::append(records))).await?;
            self.output.flush_due().await?;
            if self.output.is_closed() {
                break;
            }
            yield_now().await;
        }
        // Dropped before the end is told: what the plan holds is free when its consumers go on.
        drop(stream);
        Ok(SubtaskEnd { committables: self.output.end().await?, snapshot: None })
    }
}

fn fragment_inputs(inputs: Vec<PullInput>, trace: Option<&TaskTrace>) -> Vec<FragmentInput> {
    let mut places = 0..;
    let mut stream = |gate| gate_stream(gate, places.next().unwrap_or_default(), trace.cloned());
    let mut channel = |(number, gates): (usize, Vec<InputGate>)| FragmentChannel {
        number,
        producers: gates.into_iter().map(&mut stream).collect(),
    };
    inputs.into_iter().map(|input| FragmentInput { channels: input.into_iter().map(&mut channel).collect() }).collect()
}

/// The batches of one channel; asks for them when first polled. `place` is its number among all channels of the subtask.
fn gate_stream(gate: InputGate, place: usize, trace: Option<TaskTrace>) -> BatchStream {
    let rows = futures::stream::try_unfold((gate, trace, false), move |(mut gate, trace, asked)| async move {
        if !asked {
            gate.demand();
        }
        while let Some((_, event)) = gate.next(None).await? {
            if let Some(trace) = &trace {
                trace.event(place, &event);
            }
            if let Event::Batch(batch) = event {
                return Ok(Some((batch.into_records(), (gate, trace, true))));
            }
        }
        Ok(None)
    });
    rows.boxed()
}
