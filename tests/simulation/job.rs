//! The job of these worlds: two sources, an operator that numbers the rows of each key, and one that looks whether they come in
//! that order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Fields, Int64Type, Schema, SchemaRef};
use async_trait::async_trait;
use tidemill_core::clock::Clock;
use tidemill_core::event::CheckpointId;
use tidemill_core::graph::{EdgeOptions, NodeKind, Partitioning, SourceNode, StreamGraph, StreamNode};
use tidemill_core::key::hash_columns;
use tidemill_core::operator::{Operator, OperatorContext, OperatorFactory, Output, Progress};
use tidemill_core::settings::Origin;
use tidemill_core::sink::Sink;
use tidemill_core::source::{
    Boundedness, ListEnumerator, Source, SourceContext, SourceEvent, SourceReader, Split, SplitAssignment,
    SplitEnumerator,
};
use tidemill_core::state::{CurrentKey, KeyedStates, RestoredState, Snapshot, SnapshotScope, ValueState};
use tidemill_core::{Batch, Error, Result, Settings};
use tidemill_exec::runtime::{Begin, Environment, JobHandle, Persistence, StoreFolder, execute_from};
use tidemill_exec::state::StateRegistry;

use crate::Troubles;
use crate::chance::Chance;
use crate::store::StoreTroubles;

const KEYS: i64 = 7;
/// What each step of the store takes less than, where processes are killed.
const STEP_MILLIS: u64 = 3;
/// The same of a sink's commits: so long that some processes in two hundred worlds are killed between two of them.
const COMMIT_MILLIS: u64 = 60;
/// What some jobs carry along: with it a checkpoint is larger than one part of a file that is put in parts.
const BALLAST_BYTES: usize = (8 << 20) + (64 << 10);

/// What a world is like.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Rows of each split of each source.
    pub sources: Vec<Vec<i64>>,
    pub interval_millis: u64,
    pub mode: &'static str,
    pub incremental: bool,
    pub gate: &'static str,
    pub concurrent: u64,
    pub kills: bool,
    pub stops: bool,
    pub lifetime_millis: u64,
    pub reader_failures: u64,
    pub sink_failures: u64,
    pub store: StoreTroubles,
    /// How long barriers wait behind rows before they overtake them; for ever if there is nothing.
    pub aligned_millis: Option<u64>,
    /// Buffers hold a row or two, and the sink takes up to so long for each of them.
    pub sink_pause_millis: u64,
    /// Before each commit, and once more after it, up to so long goes by.
    pub commit_millis: u64,
    /// Clocks that people look at go wrong.
    pub jumps: bool,
    /// Somebody starts the job once more while it runs.
    pub twins: bool,
    /// How much the enumerator of the first source has in each checkpoint beside its splits.
    pub ballast_bytes: usize,
}

impl Plan {
    pub fn draw(chance: &Chance, troubles: Troubles) -> Self {
        let source = |splits: u64| (0..=splits).map(|_| chance.below(120) as i64).collect();
        let has = |wanted: &[Troubles], every| if wanted.contains(&troubles) { every } else { 0 };
        let (failures, everything) = (Troubles::Failures, Troubles::Everything);
        let is_everything = troubles == everything;
        let kills = !matches!(troubles, Troubles::None | Troubles::Failures | Troubles::Stops);
        let is_slow = troubles == Troubles::BackPressure || is_everything && chance.below(2) == 0;
        let has_ballast = match troubles {
            Troubles::Store => chance.below(2) == 0,
            Troubles::Everything => chance.below(5) == 0,
            _ => false,
        };
        Self {
            sources: vec![source(chance.below(3)), source(chance.below(2))],
            interval_millis: 1 + chance.below(60),
            aligned_millis: match (is_slow, chance.below(4)) {
                (false, _) | (true, 0) => None,
                (true, 1) => Some(0),
                (true, _) => Some(chance.below(100)),
            },
            sink_pause_millis: if is_slow { 1 + chance.below(60) } else { 0 },
            commit_millis: if kills { COMMIT_MILLIS } else { 0 },
            jumps: matches!(troubles, Troubles::Clocks | Troubles::Everything),
            twins: troubles == Troubles::Twins || is_everything && chance.below(2) == 0,
            ballast_bytes: if has_ballast { BALLAST_BYTES } else { 0 },
            mode: "EXACTLY_ONCE",
            incremental: chance.below(4) > 0,
            gate: ["0 ms", "100 ms", "full"][chance.below(3) as usize],
            concurrent: 1 + chance.below(3),
            kills,
            stops: matches!(troubles, Troubles::Stops | Troubles::Everything),
            // Long enough for a store that hangs to be given up, and for the second of two processes to come to the end.
            lifetime_millis: match troubles {
                Troubles::Store => 60_000,
                Troubles::Twins => 5_000,
                // Most of them before the job has ended.
                Troubles::Kills | Troubles::Clocks => 400,
                _ => 800,
            },
            reader_failures: has(&[failures, everything], 150),
            sink_failures: has(&[failures, everything], 25),
            store: StoreTroubles {
                away: has(&[Troubles::Store, everything], 25),
                lost_replies: has(&[Troubles::Store, everything], 15),
                hangs: has(&[Troubles::Store, everything], 40),
                parts: has(&[Troubles::Store, everything], 8),
                full_disk: has(&[Troubles::Store, everything], 40),
                pause_millis: has(&[Troubles::Store, Troubles::Twins], 1 + chance.below(300)),
                step_millis: if kills { STEP_MILLIS } else { 0 },
            },
        }
    }

    /// How many rows each key has.
    pub fn rows_by_key(&self) -> BTreeMap<i64, i64> {
        let mut counts = BTreeMap::new();
        for (number, rows) in self.sources.iter().flatten().enumerate() {
            (0..*rows).for_each(|row| *counts.entry(key_of(number as i64, row)).or_default() += 1);
        }
        counts
    }
}

fn key_of(split: i64, row: i64) -> i64 {
    (row * (split + 3) + split) % KEYS
}

pub fn settings(plan: &Plan, parallelism: usize, backend: &str) -> Settings {
    let mut settings = Settings::default();
    let values = [
        ("execution.checkpointing.interval", format!("{} ms", plan.interval_millis)),
        ("execution.checkpointing.mode", plan.mode.to_owned()),
        ("execution.checkpointing.incremental", plan.incremental.to_string()),
        ("execution.checkpointing.max-concurrent-checkpoints", plan.concurrent.to_string()),
        ("execution.checkpointing.tolerable-failed-checkpoints", "2".to_owned()),
        ("execution.checkpointing.timeout", "5 s".to_owned()),
        ("execution.buffer-timeout", plan.gate.to_owned()),
        ("execution.checkpointing.unaligned.enabled", plan.aligned_millis.is_some().to_string()),
        (
            "execution.checkpointing.aligned-checkpoint-timeout",
            format!("{} ms", plan.aligned_millis.unwrap_or_default()),
        ),
        ("taskmanager.memory.segment-size", if plan.sink_pause_millis > 0 { "16" } else { "256 kb" }.to_owned()),
        ("task.cancellation.timeout", "3 s".to_owned()),
        ("restart-strategy.type", "fixed-delay".to_owned()),
        ("restart-strategy.fixed-delay.attempts", "1000".to_owned()),
        ("restart-strategy.fixed-delay.delay", "20 ms".to_owned()),
        ("parallelism.default", parallelism.to_string()),
        ("state.backend.type", backend.to_owned()),
    ];
    for (key, value) in values {
        settings.set(key, &value, Origin::Program).unwrap();
    }
    settings
}

/// Starts the job of a plan at a parallelism of 2, with these sinks, and settings beside those of the plan; without a folder its
/// checkpoints are in memory.
pub fn start(
    environment: &Environment,
    plan: &Plan,
    sinks: impl IntoIterator<Item = Arc<dyn Sink>>,
    chance: &Chance,
    folder: Option<StoreFolder>,
    begin: Begin,
    more: &[(&str, &str)],
) -> JobHandle {
    let mut settings = settings(plan, 2, "memory");
    for (key, value) in more {
        settings.set(key, value, Origin::Program).unwrap();
    }
    let job = graph_to(plan, sinks, chance, 2).to_job_graph(&settings).unwrap();
    let persistence = Persistence { folder, begin, ignore_unclaimed: false, claims: false };
    execute_from(&job, environment, &settings, persistence).unwrap()
}

pub fn graph(plan: &Plan, sink: Arc<dyn Sink>, chance: &Chance, parallelism: usize) -> StreamGraph {
    graph_to(plan, [sink], chance, parallelism)
}

/// The same with several sinks, each of which gets all rows.
pub fn graph_to(
    plan: &Plan,
    sinks: impl IntoIterator<Item = Arc<dyn Sink>>,
    chance: &Chance,
    parallelism: usize,
) -> StreamGraph {
    let mut graph = StreamGraph::new();
    let mut first = 0;
    let mut sources = Vec::new();
    for (number, splits) in plan.sources.iter().enumerate() {
        let source = Rows {
            first,
            splits: splits.clone(),
            chance: chance.clone(),
            every: plan.reader_failures,
            ballast_bytes: if number == 0 { plan.ballast_bytes } else { 0 },
        };
        first += splits.len() as i64;
        let node = SourceNode { source: Arc::new(source), projection: None, derive: None, watermarks: None };
        let name = ["left", "right"][number];
        let width = 1 + (parallelism + number) % 3;
        sources.push(graph.add(StreamNode::new(name, NodeKind::Source(node), key_schema()).with_parallelism(width)));
    }
    let number = StreamNode::new("number", NodeKind::Operator(Arc::new(NumberRows)), row_schema());
    let number = graph.add(number.with_parallelism(parallelism));
    for (port, source) in sources.into_iter().enumerate() {
        graph.connect(source, number, port, Partitioning::Hash(vec![0]), EdgeOptions::default());
    }
    // Rows that count again have other numbers.
    let last = match plan.mode {
        "AT_LEAST_ONCE" => number,
        _ => {
            let order = StreamNode::new("order", NodeKind::Operator(Arc::new(InOrder)), row_schema());
            let order = graph.add(order.with_parallelism(1 + (parallelism + 1) % 3));
            graph.connect(number, order, 0, Partitioning::Hash(vec![0]), EdgeOptions::default());
            order
        }
    };
    for (name, sink) in ["sink", "second sink"].into_iter().zip(sinks) {
        let sink = StreamNode::new(name, NodeKind::Sink(sink), row_schema());
        let sink = graph.add(sink.with_parallelism(parallelism));
        graph.connect(last, sink, 0, Partitioning::Rebalance, EdgeOptions::default());
    }
    graph
}

fn key_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("key", DataType::Int64, false)]))
}

pub fn row_schema() -> SchemaRef {
    let field = |name| Field::new(name, DataType::Int64, false);
    Arc::new(Schema::new(vec![field("key"), field("number")]))
}

/// A source of keys. How a split is cut into batches, when they come and when reading fails is up to chance.
#[derive(Clone, Debug)]
struct Rows {
    /// The number of its first split, counted over all sources.
    first: i64,
    splits: Vec<i64>,
    chance: Chance,
    every: u64,
    ballast_bytes: usize,
}

impl Source for Rows {
    fn schema(&self) -> SchemaRef {
        key_schema()
    }

    fn boundedness(&self) -> Boundedness {
        Boundedness::Bounded
    }

    fn enumerator(&self, _: &SourceContext) -> Result<Box<dyn SplitEnumerator>> {
        let splits = (0..self.splits.len()).map(|split| Split::new(split.to_string()));
        let (chance, ballast) = (self.chance.clone(), noise(self.ballast_bytes));
        Ok(Box::new(Hesitant { inner: ListEnumerator::new(splits), chance, ballast }))
    }

    fn reader(&self, context: &SourceContext) -> Result<Box<dyn SourceReader>> {
        Ok(Box::new(Reader { source: self.clone(), clock: context.clock.clone(), splits: Vec::new() }))
    }

    fn describe(&self) -> String {
        "rows".to_owned()
    }
}

/// As many bytes that nobody can compress, the same in every process.
fn noise(bytes: usize) -> Vec<u8> {
    let mut noise = Vec::with_capacity(bytes);
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    while noise.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        noise.extend_from_slice(&state.to_le_bytes());
    }
    noise
}

/// Deals splits, but not always at once.
struct Hesitant {
    inner: ListEnumerator,
    chance: Chance,
    /// What checkpoints hold behind the splits.
    ballast: Vec<u8>,
}

#[async_trait]
impl SplitEnumerator for Hesitant {
    async fn next_split(&mut self, subtask: usize) -> Result<SplitAssignment> {
        match self.chance.below(3) {
            0 => Ok(SplitAssignment::Later(Duration::from_millis(self.chance.below(50)))),
            _ => self.inner.next_split(subtask).await,
        }
    }

    fn add_back(&mut self, split: Split) {
        self.inner.add_back(split);
    }

    fn snapshot(&mut self, checkpoint: CheckpointId) -> Result<Vec<u8>> {
        let mut state = self.inner.snapshot(checkpoint)?;
        state.extend_from_slice(&self.ballast);
        Ok(state)
    }

    fn restore(&mut self, state: &[u8]) -> Result<()> {
        let (splits, ballast) = state.split_at(state.len() - self.ballast.len());
        assert!(ballast == self.ballast, "the ballast is not what it was");
        self.inner.restore(splits)
    }
}

/// Reads one split after the other.
struct Reader {
    source: Rows,
    clock: Arc<dyn Clock>,
    splits: Vec<Split>,
}

#[async_trait]
impl SourceReader for Reader {
    async fn add_splits(&mut self, splits: Vec<Split>) -> Result<()> {
        self.splits.extend(splits);
        Ok(())
    }

    async fn next(&mut self) -> Result<SourceEvent> {
        let chance = &self.source.chance;
        if self.splits.is_empty() {
            return Ok(SourceEvent::NeedsSplit);
        }
        self.clock.sleep(Duration::from_millis(chance.below(12))).await;
        if chance.strikes("a reader fails", self.source.every) {
            return Err(Error::unavailable("the disk is away"));
        }
        let place = chance.below(self.splits.len() as u64) as usize;
        let split = &mut self.splits[place];
        let number: i64 = split.id.parse().unwrap();
        let begin: i64 = std::str::from_utf8(&split.position).unwrap().parse().unwrap_or(0);
        let rows = self.source.splits[number as usize];
        if begin >= rows {
            return Ok(SourceEvent::SplitFinished(self.splits.remove(place).id));
        }
        let end = rows.min(begin + 1 + chance.below(6) as i64);
        split.position = end.to_string().into_bytes();
        let keys = (begin..end).map(|row| key_of(self.source.first + number, row));
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(keys));
        let records = RecordBatch::try_new(key_schema(), vec![column])?;
        Ok(SourceEvent::Batch { split: split.id.clone(), records, position: split.position.clone() })
    }
}

/// Numbers the rows of each key, which is the first column, from 1.
#[derive(Debug)]
pub struct NumberRows;

impl OperatorFactory for NumberRows {
    fn create(&self) -> Result<Box<dyn Operator>> {
        Ok(Box::new(Numbering { states: None }))
    }

    fn describe(&self) -> String {
        "number".to_owned()
    }
}

struct Numbering {
    states: Option<(Box<dyn KeyedStates>, ValueState<i64>)>,
}

impl Operator for Numbering {
    fn open(&mut self, context: &OperatorContext) -> Result<()> {
        let keys = Fields::from(vec![Field::new("key", DataType::Int64, true)]);
        let mut states = context.backend.keyed_states(&keys)?;
        let count = StateRegistry::new(states.as_mut()).value_state::<i64>("count")?;
        self.states = Some((states, count));
        Ok(())
    }

    fn process(&mut self, _: usize, batch: Batch, output: &mut Output) -> Result<Progress> {
        let (states, count) = self.states.as_mut().unwrap();
        let keys = &batch.records().columns()[..1];
        let mut slots = vec![];
        states.lookup(keys, &hash_columns(keys, batch.num_rows())?, &mut slots)?;
        let mut numbers = Vec::with_capacity(slots.len());
        for slot in slots {
            let mut key = CurrentKey::new(states.as_mut(), slot, 0);
            count.update(&mut key, |count| count.unwrap_or(0) + 1)?;
            numbers.extend(count.get(&mut key)?.copied());
        }
        states.release()?;
        let column: ArrayRef = Arc::new(Int64Array::from(numbers));
        assert!(keys[0].as_primitive_opt::<Int64Type>().is_some());
        output.emit(Batch::append(RecordBatch::try_new(row_schema(), vec![keys[0].clone(), column])?));
        Ok(Progress::Done)
    }

    fn snapshot(&mut self, scope: SnapshotScope) -> Result<Snapshot> {
        self.states.as_mut().unwrap().0.snapshot(scope)
    }

    fn restore(&mut self, mut state: RestoredState) -> Result<()> {
        self.states.as_mut().unwrap().0.restore(&mut state)
    }
}

/// Passes rows on, as long as those of each key come in the order of their numbers: none is missing, none comes twice, and none
/// has overtaken another on its way.
#[derive(Debug)]
struct InOrder;

impl OperatorFactory for InOrder {
    fn create(&self) -> Result<Box<dyn Operator>> {
        Ok(Box::new(Ordering { states: None }))
    }

    fn describe(&self) -> String {
        "in order".to_owned()
    }
}

struct Ordering {
    states: Option<(Box<dyn KeyedStates>, ValueState<i64>)>,
}

impl Operator for Ordering {
    fn open(&mut self, context: &OperatorContext) -> Result<()> {
        let keys = Fields::from(vec![Field::new("key", DataType::Int64, true)]);
        let mut states = context.backend.keyed_states(&keys)?;
        let last = StateRegistry::new(states.as_mut()).value_state::<i64>("last")?;
        self.states = Some((states, last));
        Ok(())
    }

    fn process(&mut self, _: usize, batch: Batch, output: &mut Output) -> Result<Progress> {
        let (states, last) = self.states.as_mut().unwrap();
        let keys = &batch.records().columns()[..1];
        let numbers = batch.records().column(1).as_primitive::<Int64Type>().values();
        let mut slots = vec![];
        states.lookup(keys, &hash_columns(keys, batch.num_rows())?, &mut slots)?;
        for (slot, number) in slots.into_iter().zip(numbers) {
            let mut key = CurrentKey::new(states.as_mut(), slot, 0);
            let before = last.get(&mut key)?.copied().unwrap_or(0);
            assert_eq!(*number, before + 1, "the row behind number {before} of a key");
            last.update(&mut key, |_| *number)?;
        }
        states.release()?;
        output.emit(batch);
        Ok(Progress::Done)
    }

    fn snapshot(&mut self, scope: SnapshotScope) -> Result<Snapshot> {
        self.states.as_mut().unwrap().0.snapshot(scope)
    }

    fn restore(&mut self, mut state: RestoredState) -> Result<()> {
        self.states.as_mut().unwrap().0.restore(&mut state)
    }
}
