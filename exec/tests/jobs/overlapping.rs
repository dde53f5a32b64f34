//! Checkpoints that overlap: one that fails takes none with it that began before.
//!
//! ```text
//! prompt ──┐    its barrier of the first checkpoint is there at once; the second checkpoint fails here
//!          ├──> pass ──> sink
//! tardy ───┘    its barriers come seconds later
//! ```

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use futures::StreamExt;
use futures::future::BoxFuture;
use tidemill_core::clock::Clock;
use tidemill_core::event::CheckpointId;
use tidemill_core::graph::{EdgeOptions, NodeKind, Partitioning, SourceNode, StreamGraph, StreamNode};
use tidemill_core::operator::{Operator, OperatorFactory, Output, Progress};
use tidemill_core::source::{
    Boundedness, SequentialReader, Source, SourceContext, SourceReader, Split, SplitAssignment, SplitEnumerator,
    SplitStream,
};
use tidemill_core::{Batch, Error, Result};
use tidemill_exec::runtime::{CheckpointStatus, execute, simulate};

use crate::collect::Collect;
use crate::graph::settings;

/// How long the tardy source thinks about its split, and keeps checkpoints waiting.
const THINKS: Duration = Duration::from_secs(2);

#[test]
fn a_checkpoint_that_fails_takes_none_with_it_that_began_before() {
    for mode in ["EXACTLY_ONCE", "AT_LEAST_ONCE"] {
        let run = |environment: tidemill_exec::runtime::Environment| async move {
            let settings = settings(&[
                ("execution.buffer-timeout", "5 ms"),
                ("execution.checkpointing.mode", mode),
                ("execution.checkpointing.tolerable-failed-checkpoints", "1"),
            ]);
            let job = execute(&graph().to_job_graph(&settings).unwrap(), &environment, &settings).unwrap();
            let (control, clock) = (job.control().await.unwrap(), environment.clock.clone());
            clock.sleep(THINKS / 10).await;
            let second = async {
                clock.sleep(THINKS / 10).await;
                control.checkpoint().await
            };
            let both = async { tokio::join!(control.checkpoint(), second) };
            let (first, second) = tokio::select! {
                biased;
                both = both => both,
                () = clock.sleep(THINKS * 3) => panic!("{mode}: {:#?}", job.checkpoints()),
            };
            let error = second.unwrap_err().to_string();
            assert!(error.contains("checkpoint 2 was given up: nothing is to be had"), "{error}");
            assert_eq!(first.unwrap(), 1);
            // And whatever of the second is still on its way keeps nobody up.
            assert_eq!(control.checkpoint().await.unwrap(), 3);
            let statuses: Vec<CheckpointStatus> = job.checkpoints().iter().map(|taken| taken.status).collect();
            let completed = CheckpointStatus::Completed;
            assert_eq!(statuses, [completed, CheckpointStatus::Failed, completed]);
            job.cancel();
        };
        simulate(1, run).unwrap();
    }
}

fn graph() -> StreamGraph {
    let mut graph = StreamGraph::new();
    let pass = StreamNode::new("pass", NodeKind::Operator(Arc::new(Pass)), schema());
    let pass = graph.add(pass.with_parallelism(1));
    for (port, temper) in [Temper::Prompt, Temper::Tardy].into_iter().enumerate() {
        let node = SourceNode { source: Arc::new(Ticks(temper)), projection: None, derive: None, watermarks: None };
        let source = StreamNode::new(format!("{temper:?}"), NodeKind::Source(node), schema());
        let source = graph.add(source.with_parallelism(1));
        graph.connect(source, pass, port, Partitioning::Global, EdgeOptions::default());
    }
    let sink = StreamNode::new("sink", NodeKind::Sink(Arc::new(Collect::default())), schema());
    let sink = graph.add(sink.with_parallelism(1));
    graph.connect(pass, sink, 0, Partitioning::Forward, EdgeOptions::default());
    graph
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]))
}

/// Passes all rows of both inputs on.
#[derive(Debug)]
struct Pass;

impl OperatorFactory for Pass {
    fn create(&self) -> Result<Box<dyn Operator>> {
        Ok(Box::new(Self))
    }

    fn describe(&self) -> String {
        "pass".into()
    }
}

impl Operator for Pass {
    fn process(&mut self, _: usize, batch: Batch, output: &mut Output) -> Result<Progress> {
        output.emit(batch);
        Ok(Progress::Done)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Temper {
    /// Deals its split at once, and fails to take part in the second checkpoint.
    Prompt,
    /// Takes its time.
    Tardy,
}

/// A row every ten milliseconds, without end.
#[derive(Clone, Debug)]
struct Ticks(Temper);

impl Source for Ticks {
    fn schema(&self) -> SchemaRef {
        schema()
    }

    fn boundedness(&self) -> Boundedness {
        Boundedness::Unbounded
    }

    fn enumerator(&self, context: &SourceContext) -> Result<Box<dyn SplitEnumerator>> {
        Ok(Box::new(OneSplit { temper: self.0, clock: context.clock.clone() }))
    }

    fn reader(&self, context: &SourceContext) -> Result<Box<dyn SourceReader>> {
        let clock = context.clock.clone();
        let open = move |_: Split| -> BoxFuture<'static, Result<SplitStream>> {
            let ticks = ticks(clock.clone());
            Box::pin(async move { Ok(ticks) })
        };
        Ok(Box::new(SequentialReader::new(open)))
    }

    fn describe(&self) -> String {
        "ticks".into()
    }
}

fn ticks(clock: Arc<dyn Clock>) -> SplitStream {
    let rows = futures::stream::unfold(0, move |number: i64| {
        let clock = clock.clone();
        async move {
            clock.sleep(Duration::from_millis(10)).await;
            let column: ArrayRef = Arc::new(Int64Array::from(vec![number]));
            let records = RecordBatch::try_new(schema(), vec![column]).unwrap();
            Some((Ok((records, Vec::new())), number + 1))
        }
    });
    rows.boxed()
}

struct OneSplit {
    temper: Temper,
    clock: Arc<dyn Clock>,
}

#[async_trait]
impl SplitEnumerator for OneSplit {
    async fn next_split(&mut self, _subtask: usize) -> Result<SplitAssignment> {
        if self.temper == Temper::Tardy {
            self.clock.sleep(THINKS).await;
        }
        Ok(SplitAssignment::Split(Split::new("0")))
    }

    fn add_back(&mut self, _split: Split) {}

    fn snapshot(&mut self, checkpoint: CheckpointId) -> Result<Vec<u8>> {
        match (self.temper, checkpoint) {
            (Temper::Prompt, 2) => Err(Error::unavailable("nothing is to be had")),
            _ => Ok(Vec::new()),
        }
    }

    fn restore(&mut self, _state: &[u8]) -> Result<()> {
        Ok(())
    }
}
