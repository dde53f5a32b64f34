//! Functions that panic in front of a sink that commits: its writer is waited for before the sink cleans up.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use futures::StreamExt;
use tidemill_core::clock::Clock;
use tidemill_core::graph::{
    BatchStream, EdgeOptions, Fragment, FragmentContext, NodeKind, Partitioning, SourceNode, StreamGraph, StreamNode,
};
use tidemill_core::operator::{Operator, OperatorFactory, Output, Progress};
use tidemill_core::sink::{ChangelogMode, Committable, Committer, Delivery, Sink, SinkContext, SinkWriter};
use tidemill_core::source::Source;
use tidemill_core::{Batch, Result};
use tidemill_exec::runtime::{Environment, execute, simulate};

use crate::graph::{ended, settings};
use crate::source::{Log, Numbers};

/// How many batches come before the panic: its writer is at one of them.
const BATCHES: usize = 3;

#[test]
fn the_sink_cleans_up_behind_a_panic_once_its_writer_is_gone() {
    for is_pulled in [false, true] {
        let run = |environment: Environment| async move {
            let log = Log::default();
            let settings = settings(&[("restart-strategy.type", "none"), ("execution.buffer-timeout", "0 ms")]);
            let job = graph(is_pulled, &log).to_job_graph(&settings).unwrap();
            let job = execute(&job, &environment, &settings).unwrap();
            let error = ended(&job, &environment).await.unwrap_err();
            assert!(error.to_string().contains("panicked: it has had enough"), "{error}");
            environment.clock.sleep(Duration::from_secs(30)).await;
            let log = log.lock().unwrap().clone();
            assert!(log.ends_with(&["written", "gone", "cleans up"].map(String::from)), "pulled: {is_pulled}, {log:?}");
        };
        simulate(1, run).unwrap();
    }
}

/// A task of a function that panics, pushed or pulled, and a slow sink.
fn graph(is_pulled: bool, log: &Log) -> StreamGraph {
    let mut graph = StreamGraph::new();
    let numbers = Numbers::new("numbers", 1, BATCHES + 1);
    let schema = if is_pulled { schema() } else { numbers.schema() };
    let function = match is_pulled {
        true => NodeKind::Fragment(Arc::new(Wild)),
        false => NodeKind::Operator(Arc::new(Wild)),
    };
    let function = graph.add(StreamNode::new("wild", function, schema.clone()).with_parallelism(1));
    if !is_pulled {
        let node = SourceNode { source: Arc::new(numbers), projection: None, derive: None, watermarks: None };
        let source = graph.add(StreamNode::new("source", NodeKind::Source(node), schema.clone()).with_parallelism(1));
        graph.connect(source, function, 0, Partitioning::Forward, EdgeOptions::default());
    }
    let sink = StreamNode::new("sink", NodeKind::Sink(Arc::new(Slow(log.clone()))), schema);
    let sink = graph.add(sink.with_parallelism(1));
    graph.connect(function, sink, 0, Partitioning::Forward, EdgeOptions::default());
    graph
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]))
}

/// Panics behind some batches.
#[derive(Debug)]
struct Wild;

impl OperatorFactory for Wild {
    fn create(&self) -> Result<Box<dyn Operator>> {
        Ok(Box::new(WildOperator { batches: 0 }))
    }

    fn describe(&self) -> String {
        "wild".into()
    }
}

struct WildOperator {
    batches: usize,
}

impl Operator for WildOperator {
    fn process(&mut self, _: usize, batch: Batch, output: &mut Output) -> Result<Progress> {
        assert!(self.batches < BATCHES, "it has had enough");
        self.batches += 1;
        output.emit(batch);
        Ok(Progress::Done)
    }
}

impl Fragment for Wild {
    fn execute(&self, _: FragmentContext) -> Result<BatchStream> {
        let batches = futures::stream::iter(0..=BATCHES).map(|batch| {
            assert!(batch < BATCHES, "it has had enough");
            let column: ArrayRef = Arc::new(Int64Array::from(vec![batch as i64]));
            Ok(RecordBatch::try_new(schema(), vec![column])?)
        });
        Ok(batches.boxed())
    }

    fn describe(&self) -> String {
        "wild".into()
    }
}

/// Takes a second for each batch, and shows nothing before it is committed.
#[derive(Debug)]
struct Slow(Log);

impl Sink for Slow {
    fn changelog_mode(&self) -> ChangelogMode {
        ChangelogMode::Append
    }

    fn delivery(&self) -> Delivery {
        Delivery::ExactlyOnce
    }

    fn prepare(&self) -> Result<Arc<dyn Committer>> {
        Ok(Arc::new(Self(self.0.clone())))
    }

    fn writer(&self, context: &SinkContext) -> Result<Box<dyn SinkWriter>> {
        Ok(Box::new(SlowWriter { log: self.0.clone(), clock: context.clock.clone() }))
    }

    fn describe(&self) -> String {
        "slow".into()
    }
}

#[async_trait]
impl Committer for Slow {
    async fn commit(&self, _: Vec<Committable>) -> Result<()> {
        Ok(())
    }

    async fn abort(&self) -> Result<()> {
        self.0.lock().unwrap().push("cleans up".into());
        Ok(())
    }
}

struct SlowWriter {
    log: Log,
    clock: Arc<dyn Clock>,
}

#[async_trait]
impl SinkWriter for SlowWriter {
    async fn write(&mut self, _: Batch) -> Result<()> {
        self.log.lock().unwrap().push("begins".into());
        self.clock.sleep(Duration::from_secs(1)).await;
        self.log.lock().unwrap().push("written".into());
        Ok(())
    }
}

impl Drop for SlowWriter {
    fn drop(&mut self) {
        self.log.lock().unwrap().push("gone".into());
    }
}
