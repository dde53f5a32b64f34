//! Checkpoints that hold rows in flight (NCK-01): what never holds any, what cannot begin from one that does, and what becomes of one
//! that would hold too many.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::physical_expr::expressions::{col, is_not_null};
use futures::StreamExt;
use futures::future::BoxFuture;
use tidemill_connectors::blackhole::BlackholeSink;
use tidemill_core::clock::Clock;
use tidemill_core::event::CheckpointId;
use tidemill_core::graph::{
    Chaining, CustomPartitioner, EdgeOptions, NodeIndex, NodeKind, Partitioning, SourceNode, StreamGraph, StreamNode,
};
use tidemill_core::settings::Origin;
use tidemill_core::sink::Sink;
use tidemill_core::source::{
    Boundedness, SequentialReader, Source, SourceContext, SourceReader, Split, SplitAssignment, SplitEnumerator,
    SplitStream,
};
use tidemill_core::{Batch, ErrorKind, Result, Settings};
use tidemill_exec::checkpoint::{CheckpointContent, StoredOperator, find_checkpoint};
use tidemill_exec::operators::calc::Calc;
use tidemill_exec::runtime::{
    Begin, CheckpointInfo, CheckpointStatus, Ending, Environment, JobHandle, Persistence, StoreFolder, execute_from,
    simulate,
};

use crate::chance::Chance;
use crate::job::{Plan, graph, row_schema, settings};
use crate::outside::Outside;
use crate::store::{FaultyStore, StoreTroubles};
use crate::{Troubles, check};

/// The operators that a checkpoint holds rows in flight to.
async fn held(folder: &StoreFolder, clock: &Arc<dyn Clock>) -> BTreeSet<String> {
    let found = find_checkpoint(folder.store.clone(), &folder.root, clock.clone(), None).await.unwrap();
    let CheckpointContent { operators, .. } = &*found.content;
    let is_edge = |name: &str| name.strip_prefix("$in-flight ").is_some_and(|edge| edge.parse::<usize>().is_ok());
    let holds_some = |operator: &&StoredOperator| {
        let mut states = operator.subtasks.iter().flat_map(|subtask| &subtask.states);
        states.any(|state| is_edge(&state.descriptor.name))
    };
    operators.iter().filter(holds_some).map(|operator| operator.name.clone()).collect()
}

fn last(job: &JobHandle) -> CheckpointInfo {
    job.checkpoints().pop().unwrap()
}

/// A folder of a store.
fn place(store: &Arc<FaultyStore>, name: &str) -> StoreFolder {
    StoreFolder { store: store.clone(), root: name.into(), url: format!("memory:{name}") }
}

/// Starts the job of a plan without restarts.
fn start(
    environment: &Environment,
    plan: &Plan,
    parallelism: usize,
    outside: &Outside,
    persistence: Persistence,
) -> JobHandle {
    let mut settings = settings(plan, parallelism, "memory");
    settings.set("restart-strategy.type", "none", Origin::Program).unwrap();
    settings.set("execution.checkpointing.timeout", "10 min", Origin::Program).unwrap();
    let sink = Arc::new(outside.clone());
    let job = graph(plan, sink, &Chance::new(8), parallelism).to_job_graph(&settings).unwrap();
    execute_from(&job, environment, &settings, persistence).unwrap()
}

/// The sink is slow, so that everything before it is full; barriers overtake rows at once, and in savepoints they do not.
#[test]
fn a_savepoint_holds_no_rows_in_flight_and_without_one_no_other_job_goes_on() {
    let run = |environment: Environment| async move {
        let (chance, clock) = (Chance::new(31), environment.clock.clone());
        let plan = Plan {
            sources: vec![vec![2000, 2000], vec![2000]],
            interval_millis: 100_000_000,
            aligned_millis: Some(0),
            sink_pause_millis: 40,
            gate: "0 ms",
            ..Plan::draw(&chance, Troubles::None)
        };
        let store = FaultyStore::shared(chance.clone(), StoreTroubles::default());
        let outside = Outside::new(chance.clone(), 0, plan.sink_pause_millis);
        let into = |name: &str, begin: Begin, ignore_unclaimed: bool| Persistence {
            folder: Some(place(&store, name)),
            begin,
            ignore_unclaimed,
            claims: false,
        };
        let job = start(&environment, &plan, 2, &outside, into("job", Begin::Anew, false));
        let control = job.control().await.unwrap();
        clock.sleep(Duration::from_secs(3)).await;

        control.checkpoint().await.unwrap();
        let taken = last(&job);
        assert!(taken.unaligned && taken.in_flight_bytes > 0, "{taken:?}");
        assert!(!held(&place(&store, "job"), &clock).await.is_empty());

        // Its numbers go to the sink as they are: nobody reads what was in flight to the operator between them.
        let other = Plan { mode: "AT_LEAST_ONCE", ..plan.clone() };
        for ignores in [false, true] {
            let elsewhere = Outside::new(Chance::new(9), 0, 0);
            let from = into("next", Begin::From(place(&store, "job")), ignores);
            let error = start(&environment, &other, 2, &elsewhere, from).wait().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Request, "{error}");
            let said = error.to_string();
            assert!(said.contains("rows in flight to '") && said.contains("behind a savepoint"), "{said}");
        }

        control.savepoint(place(&store, "saved")).await.unwrap();
        control.stop(false, Some(place(&store, "stopped"))).await.unwrap();
        assert_eq!(job.wait().await.unwrap().ending, Ending::Stopped);
        for taken in job.checkpoints().iter().skip(1) {
            assert!(!taken.unaligned && taken.in_flight_bytes == 0, "{taken:?}");
        }
        for savepoint in ["saved", "stopped"] {
            assert_eq!(held(&place(&store, savepoint), &clock).await, BTreeSet::new(), "{savepoint}");
        }
        let from = into("next", Begin::From(place(&store, "stopped")), false);
        let next = start(&environment, &plan, 3, &outside, from);
        assert_eq!(next.wait().await.unwrap().ending, Ending::Finished);
        check(&plan, &outside.published());
    };
    simulate(31, run).unwrap();
}

/// A source of one split, of so many batches of so many rows, each after a pause. Whoever asks for another split waits so long for the
/// news that there is none, and a checkpoint with them.
#[derive(Clone, Debug)]
struct Steady {
    batches: usize,
    rows: usize,
    pause: Duration,
    hesitates: Duration,
}

impl Source for Steady {
    fn schema(&self) -> SchemaRef {
        row_schema()
    }

    fn boundedness(&self) -> Boundedness {
        Boundedness::Bounded
    }

    fn enumerator(&self, context: &SourceContext) -> Result<Box<dyn SplitEnumerator>> {
        let split = Some(Split::new("the one"));
        Ok(Box::new(OneSplit { split, hesitates: self.hesitates, clock: context.clock.clone() }))
    }

    fn reader(&self, context: &SourceContext) -> Result<Box<dyn SourceReader>> {
        let (source, clock) = (self.clone(), context.clock.clone());
        let open = move |_: Split| -> BoxFuture<'static, Result<SplitStream>> {
            let stream = source.read(clock.clone());
            Box::pin(async move { Ok(stream) })
        };
        Ok(Box::new(SequentialReader::new(open)))
    }

    fn describe(&self) -> String {
        "steady".to_owned()
    }
}

impl Steady {
    fn read(&self, clock: Arc<dyn Clock>) -> SplitStream {
        let column: ArrayRef = Arc::new(Int64Array::from(vec![0; self.rows]));
        let records = RecordBatch::try_new(row_schema(), vec![column.clone(), column]).unwrap();
        let pause = self.pause;
        let step = move |_| {
            let (records, slept) = (records.clone(), clock.sleep(pause));
            async move {
                slept.await;
                Ok((records, Vec::new()))
            }
        };
        futures::stream::iter(0..self.batches).then(step).boxed()
    }
}

struct OneSplit {
    split: Option<Split>,
    hesitates: Duration,
    clock: Arc<dyn Clock>,
}

#[async_trait]
impl SplitEnumerator for OneSplit {
    async fn next_split(&mut self, _: usize) -> Result<SplitAssignment> {
        if let Some(split) = self.split.take() {
            return Ok(SplitAssignment::Split(split));
        }
        self.clock.sleep(std::mem::take(&mut self.hesitates)).await;
        Ok(SplitAssignment::Finished)
    }

    fn add_back(&mut self, split: Split) {
        self.split = Some(split);
    }

    fn snapshot(&mut self, _: CheckpointId) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }

    fn restore(&mut self, _: &[u8]) -> Result<()> {
        Ok(())
    }
}

fn read(graph: &mut StreamGraph, name: &str, source: Steady, parallelism: usize) -> NodeIndex {
    let node = SourceNode { source: Arc::new(source), projection: None, derive: None, watermarks: None };
    graph.add(StreamNode::new(name, NodeKind::Source(node), row_schema()).with_parallelism(parallelism))
}

/// An operator that passes rows on, in a task of its own.
fn pass(graph: &mut StreamGraph, name: &str, above: NodeIndex, partitioning: Partitioning) -> NodeIndex {
    let is_there = is_not_null(col("key", &row_schema()).unwrap()).unwrap();
    let kind = NodeKind::Operator(Arc::new(Calc::filter(is_there, row_schema())));
    let node = StreamNode { chaining: Chaining::Never, ..StreamNode::new(name, kind, row_schema()) };
    let node = graph.add(node.with_parallelism(2));
    graph.connect(above, node, 0, partitioning, EdgeOptions::default());
    node
}

/// A sink of one subtask.
fn write(graph: &mut StreamGraph, sink: Arc<dyn Sink>, above: &[NodeIndex]) {
    let sink = graph.add(StreamNode::new("sink", NodeKind::Sink(sink), row_schema()).with_parallelism(1));
    for node in above {
        graph.connect(*node, sink, 0, Partitioning::Rebalance, EdgeOptions::default());
    }
}

/// Starts a job whose checkpoints somebody asks for and none of which may fail, into the folder `job` of a store.
fn start_graph(environment: &Environment, graph: &StreamGraph, store: &Arc<FaultyStore>) -> JobHandle {
    let mut settings = Settings::default();
    for (key, value) in [
        ("execution.checkpointing.unaligned.enabled", "true"),
        ("execution.checkpointing.aligned-checkpoint-timeout", "0 ms"),
        ("execution.checkpointing.tolerable-failed-checkpoints", "0"),
        ("execution.buffer-timeout", "0 ms"),
        ("taskmanager.memory.segment-size", "16"),
        ("restart-strategy.type", "none"),
    ] {
        settings.set(key, value, Origin::Program).unwrap();
    }
    let job = graph.to_job_graph(&settings).unwrap();
    let folder = Some(place(store, "job"));
    let persistence = Persistence { folder, begin: Begin::Anew, ignore_unclaimed: false, claims: false };
    execute_from(&job, environment, &settings, persistence).unwrap()
}

#[derive(Debug)]
struct ByTurns;

impl CustomPartitioner for ByTurns {
    fn channels(&self, batch: &Batch, channels: usize, channel_of: &mut Vec<u32>) -> Result<()> {
        channel_of.extend((0..batch.num_rows()).map(|row| (row % channels) as u32));
        Ok(())
    }

    fn describe(&self) -> String {
        "by turns".to_owned()
    }
}

/// Every edge is full, for the sink is slow. Only rows in front of that may be dealt again.
#[test]
fn what_forwards_or_partitions_by_a_function_aligns_while_barriers_overtake_rows_elsewhere() {
    let run = |environment: Environment| async move {
        let (chance, clock) = (Chance::new(33), environment.clock.clone());
        let source = Steady { batches: 5000, rows: 2, pause: Duration::from_millis(1), hesitates: Duration::ZERO };
        let mut graph = StreamGraph::new();
        let source = read(&mut graph, "source", source, 1);
        let dealt = pass(&mut graph, "dealt", source, Partitioning::Custom(Arc::new(ByTurns)));
        let forwarded = pass(&mut graph, "forwarded", dealt, Partitioning::Forward);
        write(&mut graph, Arc::new(Outside::new(chance.clone(), 0, 40)), &[forwarded]);
        let store = FaultyStore::shared(chance, StoreTroubles::default());
        let job = start_graph(&environment, &graph, &store);
        let control = job.control().await.unwrap();
        clock.sleep(Duration::from_secs(3)).await;
        control.checkpoint().await.unwrap();
        let taken = last(&job);
        assert!(taken.unaligned && taken.in_flight_bytes > 0, "{taken:?}");
        assert_eq!(held(&place(&store, "job"), &clock).await, BTreeSet::from(["sink".to_owned()]));
        job.cancel();
        job.wait().await.unwrap_err();
    };
    simulate(33, run).unwrap();
}

/// The barrier of one source comes at once, that of the other one long after it, and 8 MB of its rows a second before it: more than a
/// task records. That is no failure of anything, so a job that bears none goes on, and takes the next checkpoint.
#[test]
fn a_checkpoint_that_would_hold_too_many_rows_is_given_up_and_does_not_count_as_failed() {
    let run = |environment: Environment| async move {
        let (chance, clock) = (Chance::new(35), environment.clock.clone());
        let pause = Duration::from_secs(1);
        let prompt = Steady { batches: 30, rows: 1, pause, hesitates: Duration::ZERO };
        let wide = Steady { batches: 30, rows: 1 << 19, pause, hesitates: Duration::from_secs(20) };
        let mut graph = StreamGraph::new();
        let above = [read(&mut graph, "prompt", prompt, 1), read(&mut graph, "wide", wide, 2)];
        write(&mut graph, Arc::new(BlackholeSink), &above);
        let store = FaultyStore::shared(chance, StoreTroubles::default());
        let job = start_graph(&environment, &graph, &store);
        let control = job.control().await.unwrap();
        clock.sleep(Duration::from_millis(1500)).await;
        let error = control.checkpoint().await.unwrap_err();
        let reason = "more rows than a checkpoint may hold were in flight to a task";
        assert!(error.to_string().contains(reason), "{error}");
        let given_up = last(&job);
        assert_eq!((given_up.status, given_up.failure.as_deref()), (CheckpointStatus::Failed, Some(reason)));
        assert!(job.outcome().is_none(), "{:?}", job.outcome());

        clock.sleep(Duration::from_millis(22_000).saturating_sub(clock.monotonic())).await;
        control.checkpoint().await.unwrap();
        assert_eq!(job.wait().await.unwrap().ending, Ending::Finished);
        assert!(job.failures().is_empty(), "{:?}", job.failures());
    };
    simulate(35, run).unwrap();
}
