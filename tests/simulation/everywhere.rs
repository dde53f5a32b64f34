//! A checkpoint behind every batch, and a kill at every step: the whole of a small job, with its source, its coordinator and its
//! sinks. (Of single operators `exec/src/operators/conformance/everywhere.rs` shows the same.)
//!
//! ```text
//!                 ┌──hash──> number the rows of each key ──> transactional sink
//! rows (1 split) ─┤
//!                 └──hash──> sum them up in windows ───────> transactional sink
//!
//! process 1    step 1 … step n │ killed
//! process 2    step 1 … step n │ killed: while it takes over, restores and commits, or later
//! process 3    step 1 … the end
//! ```
//!
//! Steps lie before and after everything that the store and the sinks are asked to do, and before each batch. So n goes up until the
//! first process comes to the end without reaching it: then there is no step at which nobody was killed.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use async_trait::async_trait;
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::physical_expr::aggregate::AggregateExprBuilder;
use datafusion::physical_expr::expressions::col;
use tidemill_core::Result;
use tidemill_core::event::CheckpointId;
use tidemill_core::graph::{EdgeOptions, NodeKind, Partitioning, SourceNode, StreamGraph, StreamNode};
use tidemill_core::operator::OperatorFactory;
use tidemill_core::settings::Origin;
use tidemill_core::sink::Sink;
use tidemill_core::source::{
    Boundedness, ListEnumerator, Source, SourceContext, SourceEvent, SourceReader, Split, SplitEnumerator,
    WatermarkStrategy, decode_position, encode_position,
};
use tidemill_core::time::Calendar;
use tidemill_core::window::{WindowKind, WindowSpec};
use tidemill_exec::operators::aggregate::Aggregate;
use tidemill_exec::operators::window_aggregate::{GroupColumn, WindowAggregate};
use tidemill_exec::operators::window_assign::TimeColumn;
use tidemill_exec::runtime::{Begin, Environment, JobHandle, Persistence, execute_from, simulate};
use tokio::sync::Notify;

use crate::chance::{Chance, Tally};
use crate::job::{NumberRows, Plan, row_schema, settings};
use crate::outside::Outside;
use crate::pace::Pace;
use crate::store::{FaultyStore, StoreTroubles};
use crate::watermarks::Bounded;
use crate::{PATIENCE, Troubles};

const SEED: u64 = 19;
const ROWS: i64 = 24;
const BATCH_ROWS: i64 = 3;
const KEYS: i64 = 5;
const WINDOW: i64 = 60;
/// By how much a row may be behind a row before it.
const DISORDER: i64 = 30;
/// What each step takes less than.
const STEP_MILLIS: u64 = 3;
/// Fewer steps than this prove too little, more than that take too long.
const STEPS: std::ops::Range<u64> = 100..1000;

/// Row `number`: its key, a bit of its own, and its time.
fn row(number: i64) -> (i64, i64, i64) {
    (number * 3 % KEYS, 1 << number, number * 10 + number * 7 % 4 * (DISORDER / 3))
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("key", DataType::Int64, false),
        Field::new("bit", DataType::Int64, false),
        Field::new("ts", DataType::Timestamp(TimeUnit::Millisecond, None), false),
    ]))
}

/// What the sinks show in the end, straight from the rows: the numbers of each key's rows, and which rows are in its windows.
fn answer() -> [Vec<(i64, i64)>; 2] {
    let (mut numbers, mut last, mut sums) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
    for (key, bit, time) in (0..ROWS).map(row) {
        let number = last.entry(key).or_insert(0);
        *number += 1;
        numbers.push((key, *number));
        *sums.entry((key, time / WINDOW)).or_insert(0) += bit;
    }
    sorted([numbers, sums.into_iter().map(|((key, _), sum)| (key, sum)).collect()])
}

fn sorted(mut rows: [Vec<(i64, i64)>; 2]) -> [Vec<(i64, i64)>; 2] {
    rows.iter_mut().for_each(|rows| rows.sort_unstable());
    rows
}

#[test]
fn a_job_that_is_killed_at_any_step_and_goes_on_shows_what_a_batch_does() {
    let (answer, mut tally) = (answer(), Tally::new());
    for step in 1.. {
        assert!(step < STEPS.end, "the job has too many steps");
        let world = World::new();
        let taken = world.live(0, Some(step));
        if taken.is_none() && world.live(1, Some(step)).is_none() {
            world.live(2, None);
        }
        let shown = sorted(world.sinks.each_ref().map(Outside::published));
        assert_eq!(shown, answer, "killed at step {step}");
        assert!(world.sinks.iter().all(|sink| sink.left_over() == 0), "killed at step {step}: something is left over");
        world.chance.tally().into_iter().for_each(|(what, times)| *tally.entry(what).or_default() += times);
        if let Some(taken) = taken {
            assert_eq!(taken, (ROWS / BATCH_ROWS) as u64, "a checkpoint behind every batch");
            assert!(step >= STEPS.start, "{step} steps");
            break;
        }
    }
    for what in ["killed between manifest and commit", "killed between two committables"] {
        assert!(tally.get(what).is_some_and(|times| *times > 0), "never {what}: {tally:?}");
    }
}

/// What outlives processes.
struct World {
    chance: Chance,
    store: Arc<FaultyStore>,
    sinks: [Outside; 2],
}

impl World {
    fn new() -> Self {
        let chance = Chance::new(SEED);
        let troubles = StoreTroubles { step_millis: STEP_MILLIS, ..StoreTroubles::default() };
        let store = FaultyStore::shared(chance.clone(), troubles);
        let sinks = [(); 2].map(|()| Outside::new(chance.clone(), 0, 0).with_pace(store.pace()));
        Self { chance, store, sinks }
    }

    /// Runs a process, which is killed at this step if it comes so far; how many checkpoints it took, if it has come to the end.
    fn live(&self, number: usize, kill_at: Option<u64>) -> Option<u64> {
        let killed = self.store.pace().kill_at(kill_at);
        let run = |environment: Environment| async move {
            self.store.set_clock(environment.clock.clone());
            let read = Arc::<Notify>::default();
            let job = self.start(&environment, number, read.clone());
            tokio::select! {
                biased;
                () = killed.wait() => None,
                outcome = job.wait() => {
                    outcome.unwrap();
                    Some(job.checkpoint_counts().completed)
                }
                never = take_checkpoints(&job, &read) => match never {},
                () = environment.clock.sleep(PATIENCE) => panic!("process {number}, killed at {kill_at:?}, hangs"),
            }
        };
        let taken = simulate(SEED + number as u64, run).unwrap();
        if taken.is_none() {
            self.sinks.iter().for_each(Outside::kill);
        }
        taken
    }

    /// Starts the job, or goes on with it, each process with another parallelism.
    fn start(&self, environment: &Environment, number: usize, read: Arc<Notify>) -> JobHandle {
        let plan = Plan {
            interval_millis: 100_000_000,
            gate: "0 ms",
            incremental: true,
            ..Plan::draw(&Chance::new(SEED), Troubles::None)
        };
        let parallelism = [2, 3, 1][number];
        let mut settings = settings(&plan, parallelism, "memory");
        settings.set("restart-strategy.type", "none", Origin::Program).unwrap();
        let source = Rows { pace: self.store.pace(), read };
        let job = graph(source, &self.sinks, parallelism).to_job_graph(&settings).unwrap();
        let (folder, begin) = (Some(self.store.folder("job")), Begin::Resume { origin: None });
        let persistence = Persistence { folder, begin, ignore_unclaimed: false, claims: false };
        execute_from(&job, environment, &settings, persistence).unwrap()
    }
}

/// Has a job take a checkpoint whenever a batch has been read.
async fn take_checkpoints(job: &JobHandle, read: &Notify) -> Infallible {
    let control = job.control().await.unwrap();
    loop {
        read.notified().await;
        control.checkpoint().await.unwrap();
    }
}

fn graph(source: Rows, sinks: &[Outside; 2], parallelism: usize) -> StreamGraph {
    let mut graph = StreamGraph::new();
    let watermarks: Arc<dyn WatermarkStrategy> = Arc::new(Bounded::new(2, DISORDER));
    let source = SourceNode { source: Arc::new(source), projection: None, derive: None, watermarks: Some(watermarks) };
    let rows = graph.add(StreamNode::new("rows", NodeKind::Source(source), schema()).with_parallelism(1));
    let (window, sums) = windowed_sums();
    let operators: [(&str, &str, Arc<dyn OperatorFactory>, SchemaRef); 2] =
        [("number", "numbers", Arc::new(NumberRows), row_schema()), ("window", "sums", Arc::new(window), sums)];
    for ((name, sink_name, operator, schema), sink) in operators.into_iter().zip(sinks) {
        let node = StreamNode::new(name, NodeKind::Operator(operator), schema.clone());
        let node = graph.add(node.with_parallelism(parallelism));
        graph.connect(rows, node, 0, Partitioning::Hash(vec![0]), EdgeOptions::default());
        let sink: Arc<dyn Sink> = Arc::new(sink.clone());
        let sink = graph.add(StreamNode::new(sink_name, NodeKind::Sink(sink), schema).with_parallelism(parallelism));
        graph.connect(node, sink, 0, Partitioning::Rebalance, EdgeOptions::default());
    }
    graph
}

/// Bits of each key in each window: their sum tells which rows it holds, and whether one counted twice.
fn windowed_sums() -> (WindowAggregate, SchemaRef) {
    let input_schema = schema();
    let sum = AggregateExprBuilder::new(sum_udaf(), vec![col("bit", &input_schema).unwrap()]);
    let sum = sum.schema(input_schema.clone()).alias("sum").build().unwrap();
    let fields = vec![Field::new("key", DataType::Int64, false), Field::new("sum", DataType::Int64, true)];
    let schema = Arc::new(Schema::new(fields));
    let plan = WindowAggregate {
        time: TimeColumn { index: 2, name: "ts".into(), unit: TimeUnit::Millisecond, calendar: Calendar::Utc },
        spec: WindowSpec::new(WindowKind::Tumble { size: WINDOW }, 0).unwrap(),
        keys: vec![0],
        aggregates: vec![Aggregate::new(Arc::new(sum), None, &input_schema).unwrap()],
        group_columns: vec![GroupColumn::Key(0)],
        input_schema,
        schema: schema.clone(),
    };
    (plan, schema)
}

/// A source of one split, whose reader goes on behind a batch when a checkpoint that holds it is durable.
#[derive(Clone, Debug)]
struct Rows {
    pace: Pace,
    /// Told of each batch.
    read: Arc<Notify>,
}

impl Source for Rows {
    fn schema(&self) -> SchemaRef {
        schema()
    }

    fn boundedness(&self) -> Boundedness {
        Boundedness::Bounded
    }

    fn enumerator(&self, _: &SourceContext) -> Result<Box<dyn SplitEnumerator>> {
        Ok(Box::new(ListEnumerator::new([Split::new("rows")])))
    }

    fn reader(&self, _: &SourceContext) -> Result<Box<dyn SourceReader>> {
        Ok(Box::new(Reader { source: self.clone(), split: None, waits: false }))
    }

    fn describe(&self) -> String {
        "rows".to_owned()
    }
}

struct Reader {
    source: Rows,
    split: Option<Split>,
    /// No checkpoint holds the last batch yet. The next one does: nobody takes one before there is a batch.
    waits: bool,
}

#[async_trait]
impl SourceReader for Reader {
    async fn add_splits(&mut self, splits: Vec<Split>) -> Result<()> {
        self.split = splits.into_iter().next();
        Ok(())
    }

    async fn next(&mut self) -> Result<SourceEvent> {
        let Some(split) = &mut self.split else { return Ok(SourceEvent::NeedsSplit) };
        if self.waits {
            std::future::pending::<()>().await;
        }
        self.source.pace.step().await;
        let id = split.id.clone();
        let begin = decode_position(&split.position)?.unwrap_or(0) as i64;
        if begin == ROWS {
            self.split = None;
            return Ok(SourceEvent::SplitFinished(id));
        }
        let end = begin + BATCH_ROWS;
        split.position = encode_position(end as u64);
        let rows = || (begin..end).map(row);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(rows().map(|(key, ..)| key))),
            Arc::new(Int64Array::from_iter_values(rows().map(|(_, bit, _)| bit))),
            Arc::new(TimestampMillisecondArray::from_iter_values(rows().map(|(.., time)| time))),
        ];
        let records = RecordBatch::try_new(schema(), columns)?;
        self.waits = true;
        self.source.read.notify_one();
        Ok(SourceEvent::Batch { split: id, records, position: split.position.clone() })
    }

    async fn checkpoint_completed(&mut self, _: CheckpointId) -> Result<()> {
        self.waits = false;
        Ok(())
    }
}
