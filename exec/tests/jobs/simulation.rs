//! A seed replays a job: clock, chance and runtime are arguments, so the same seed gives the same events at the same times, and
//! another seed other events but the same answer.
//!
//! ```text
//! clicks (3) ──shuffle──> pass (2) ──hash(k)──> count (3) ──global──> sink (1)
//! ```
//!
//! Two subtasks read a split each; how they cut it into batches and how long they pause follows from the seed. The third has
//! nothing to read and says for a while that it is idle. Rows are out of order, but none is late.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use async_trait::async_trait;
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::physical_expr::aggregate::AggregateExprBuilder;
use datafusion::physical_expr::expressions::col;
use futures::StreamExt;
use futures::future::BoxFuture;
use tidemill_core::clock::Clock;
use tidemill_core::event::CheckpointId;
use tidemill_core::graph::Partitioning;
use tidemill_core::source::{
    Boundedness, SequentialReader, Source, SourceContext, SourceReader, Split, SplitAssignment, SplitEnumerator,
    SplitStream,
};
use tidemill_core::time::Calendar;
use tidemill_core::window::{WindowKind, WindowSpec};
use tidemill_core::{Event, Result};
use tidemill_exec::operators::aggregate::Aggregate;
use tidemill_exec::operators::window_aggregate::{GroupColumn, WindowAggregate};
use tidemill_exec::operators::window_assign::TimeColumn;
use tidemill_exec::runtime::{EventTrace, simulate};

use crate::graph::{Pipeline, ended, settings};
use crate::watermarks::Bounded;

const SPLITS: usize = 2;
const SPLIT_ROWS: i64 = 150;
const WINDOW: i64 = 100;
/// By how much a row may be behind a row before it.
const DISORDER: i64 = 30;
const SEEDS: u64 = 50;

/// Row `number` of a split: `(k, ts)`.
fn row(split: i64, number: i64) -> (i64, i64) {
    ((number * 5 + split) % 4, number * 10 + (number * 7 + split) % 4 * (DISORDER / 3))
}

/// The count of each key in each window, straight from the rows: `[k, window_start, count]`.
fn answer() -> Vec<Vec<i64>> {
    let mut counts = BTreeMap::new();
    let rows = (0..SPLITS as i64).flat_map(|split| (0..SPLIT_ROWS).map(move |number| row(split, number)));
    for (key, time) in rows {
        *counts.entry((key, time / WINDOW * WINDOW)).or_insert(0) += 1;
    }
    counts.into_iter().map(|((key, start), count)| vec![key, start, count]).collect()
}

#[test]
fn the_same_seed_gives_the_same_events_and_any_seed_the_same_answer() {
    let mut different = BTreeSet::new();
    for seed in 0..SEEDS {
        let (events, rows) = run(seed);
        assert_eq!(rows, answer(), "seed {seed}");
        let (again, _) = run(seed);
        let first = events.lines().zip(again.lines()).position(|(left, right)| left != right);
        assert!(events == again, "seed {seed}: the two runs part at line {first:?}");
        different.insert(events);
    }
    assert!(different.len() > SEEDS as usize / 2, "seeds make a difference: {} of {SEEDS}", different.len());
}

#[test]
fn state_without_room_in_memory_changes_neither_the_answer_nor_the_replay() {
    for seed in 0..5 {
        for backend in ["memory", "rocksdb"] {
            let (events, rows) = run_on(seed, backend, Some(0));
            assert_eq!(rows, answer(), "seed {seed}, {backend}");
            assert!(events == run_on(seed, backend, Some(0)).0, "seed {seed}, {backend}");
        }
    }
}

#[test]
fn the_trace_tells_who_took_in_what_and_when() {
    let (events, _) = run(1);
    let kinds = ["rows ", "watermark ", "idle", "end"];
    for (task, subtasks) in [("source", 3), ("pass", 2), ("count", 3), ("sink", 1)] {
        for subtask in 0..subtasks {
            let name = format!(" {task}/{subtask} ");
            let own: Vec<&str> = events.lines().filter(|line| line.contains(&name)).collect();
            assert!(own.last().unwrap().ends_with(" end"), "{task}/{subtask}: {own:#?}");
        }
        let own: Vec<&str> = events.lines().filter(|line| line.contains(&format!(" {task}/"))).collect();
        let has = |kind: &str| own.iter().any(|line| line.split(": ").nth(1).unwrap().starts_with(kind));
        assert!(kinds[..2].iter().all(|kind| has(kind)), "{task}: {own:#?}");
    }
    assert!(kinds.iter().all(|kind| events.contains(&format!(": {kind}"))), "{events}");
    let times: Vec<u64> = events.lines().map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect();
    assert!(times.is_sorted() && times.last() > times.first());
}

/// All events of one run, a line each, and the rows that came out.
fn run(seed: u64) -> (String, Vec<Vec<i64>>) {
    run_on(seed, "memory", None)
}

/// The same with state in a backend that has so many bytes of memory.
fn run_on(seed: u64, backend: &str, state_bytes: Option<usize>) -> (String, Vec<Vec<i64>>) {
    simulate(seed, |mut environment| async move {
        environment.tier = environment.tier.limited(state_bytes);
        let recorder = Arc::new(Recorder { clock: environment.clock.clone(), lines: Mutex::default() });
        environment.trace = Some(recorder.clone());
        let settings = settings(&[
            ("execution.buffer-timeout", "5 ms"),
            ("taskmanager.memory.network.max", "4 kb"),
            ("state.backend.type", backend),
        ]);
        let (count, counted) = windowed_count();
        let (job, rows) = Pipeline::read(Clicks { seed }, Some(Arc::new(Bounded::new(1, DISORDER))), SPLITS + 1)
            .then_pass("k", Partitioning::Shuffle, 2)
            .then("count", Partitioning::Hash(vec![0]), count, counted, 3)
            .start(&environment, &settings)
            .unwrap();
        let result = ended(&job, &environment).await.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert_eq!(result.late_records_dropped(), 0, "seed {seed}");
        let lines = std::mem::take(&mut *recorder.lines.lock().unwrap());
        (lines, rows.sorted())
    })
    .unwrap()
}

fn windowed_count() -> (WindowAggregate, SchemaRef) {
    let input_schema = schema();
    let count = AggregateExprBuilder::new(count_udaf(), vec![col("k", &input_schema).unwrap()]);
    let count = count.schema(input_schema.clone()).alias("n").build().unwrap();
    let mut fields: Vec<Arc<Field>> = input_schema.fields().to_vec();
    fields.push(Arc::new(Field::new("n", DataType::Int64, false)));
    let schema = Arc::new(Schema::new(fields));
    let plan = WindowAggregate {
        time: TimeColumn { index: 1, name: "ts".into(), unit: TimeUnit::Millisecond, calendar: Calendar::Utc },
        spec: WindowSpec::new(WindowKind::Tumble { size: WINDOW }, 0).unwrap(),
        keys: vec![0],
        aggregates: vec![Aggregate::new(Arc::new(count), None, &input_schema).unwrap()],
        group_columns: vec![GroupColumn::Key(0), GroupColumn::WindowStart],
        input_schema,
        schema: schema.clone(),
    };
    (plan, schema)
}

/// Writes down what it hears of: `15000 count/2 #4: rows 7`, the time in microseconds.
#[derive(Debug)]
struct Recorder {
    clock: Arc<dyn Clock>,
    lines: Mutex<String>,
}

impl EventTrace for Recorder {
    fn event(&self, task: &str, subtask: usize, channel: usize, event: &Event) {
        let now = self.clock.monotonic().as_micros();
        let event = match event {
            Event::Batch(batch) => format!("rows {} {:?}", batch.num_rows(), batch.records().columns()),
            Event::Watermark(watermark) => format!("watermark {watermark}"),
            Event::Idle => "idle".into(),
            Event::Active => "active".into(),
            Event::Barrier(barrier) => format!("barrier {}", barrier.id),
            Event::EndOfInput => "end".into(),
        };
        let event = event.replace('\n', "");
        writeln!(self.lines.lock().unwrap(), "{now} {task}/{subtask} #{channel}: {event}").unwrap();
    }
}

/// Rows `(k, ts)` whose batches and pauses are drawn.
#[derive(Clone, Debug)]
struct Clicks {
    seed: u64,
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("k", DataType::Int64, false),
        Field::new("ts", DataType::Timestamp(TimeUnit::Millisecond, None), false),
    ]))
}

impl Source for Clicks {
    fn schema(&self) -> SchemaRef {
        schema()
    }

    fn boundedness(&self) -> Boundedness {
        Boundedness::Bounded
    }

    fn enumerator(&self, _context: &SourceContext) -> Result<Box<dyn SplitEnumerator>> {
        Ok(Box::new(OneEach { dealt: [false; SPLITS], naps: 20 }))
    }

    fn reader(&self, context: &SourceContext) -> Result<Box<dyn SourceReader>> {
        let (seed, clock) = (self.seed, context.clock.clone());
        let open = move |split: Split| -> BoxFuture<'static, Result<SplitStream>> {
            let split: i64 = split.id.parse().unwrap();
            let stream = read(split, Chance(seed * SPLITS as u64 + split as u64), clock.clone());
            Box::pin(async move { Ok(stream) })
        };
        Ok(Box::new(SequentialReader::new(open)))
    }

    fn describe(&self) -> String {
        "clicks".into()
    }
}

fn read(split: i64, chance: Chance, clock: Arc<dyn Clock>) -> SplitStream {
    let batches = futures::stream::unfold((0, chance), move |(first, mut chance)| {
        let clock = clock.clone();
        async move {
            clock.sleep(Duration::from_millis(chance.below(20))).await;
            let next = SPLIT_ROWS.min(first + 1 + chance.below(8) as i64);
            let rows = (first..next).map(|number| row(split, number));
            let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.clone().map(|(key, _)| key)));
            let times: ArrayRef = Arc::new(TimestampMillisecondArray::from_iter_values(rows.map(|(_, time)| time)));
            let records = RecordBatch::try_new(schema(), vec![keys, times]).unwrap();
            (first < SPLIT_ROWS).then(|| (Ok((records, Vec::new())), (next, chance)))
        }
    });
    batches.boxed()
}

/// A generator of its own, so that no other draw moves these.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (((mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb)) >> 33) % end
    }
}

/// Deals split `i` to subtask `i`; who comes beyond that is told to come again, and in the end that there is nothing.
struct OneEach {
    dealt: [bool; SPLITS],
    naps: usize,
}

#[async_trait]
impl SplitEnumerator for OneEach {
    async fn next_split(&mut self, subtask: usize) -> Result<SplitAssignment> {
        match self.dealt.get_mut(subtask) {
            Some(dealt) if !*dealt => {
                *dealt = true;
                Ok(SplitAssignment::Split(Split::new(subtask.to_string())))
            }
            None if self.naps > 0 => {
                self.naps -= 1;
                Ok(SplitAssignment::Later(Duration::from_millis(7)))
            }
            _ => Ok(SplitAssignment::Finished),
        }
    }

    fn add_back(&mut self, _split: Split) {}

    fn snapshot(&mut self, _checkpoint: CheckpointId) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }

    fn restore(&mut self, _state: &[u8]) -> Result<()> {
        Ok(())
    }
}
