//! The operator under test in as many subtasks as there are, and what these have stored.
//!
//! ```text
//! copies       step  step  step ─ copy ─> others  step …
//! increments   step ─ base  step ─ changes  step ─ changes ─> others  step ─ base …      a copy that nobody uses before each
//! ```

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::SchemaRef;
use datafusion::execution::memory_pool::UnboundedMemoryPool;
use futures::future::BoxFuture;
use tempfile::TempDir;
use tidemill_core::clock::Clock;
use tidemill_core::graph::{JobGraph, Partitioning};
use tidemill_core::key::{groups_of, hash_columns, key_group, subtask_of};
use tidemill_core::metrics::Metrics;
use tidemill_core::operator::{Emission, Operator, OperatorContext, Output, Progress, Wakeups};
use tidemill_core::settings::BackendType;
use tidemill_core::shared::SharedContext;
use tidemill_core::state::{
    Dealing, Extent, OperatorList, RestoredState, Snapshot, SnapshotScope, StateBackend, StateDescriptor, StateKind,
    StateLayer, rows_of_groups,
};
use tidemill_core::{Batch, Gate, Result, Watermark};
use tidemill_exec::state::tier::TierRange;
use tidemill_exec::state::{MemoryBackend, Tier, TieredBackend};

use super::tested;

const GROUPS: u32 = 128;

/// Where states are, and how they are stored.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    /// The backends: of the first subtasks, of those that replace them, and so on in turn. One that is named has no room in memory;
    /// `None` is one with room for everything.
    pub backends: &'static [Option<BackendType>],
    /// Whether every step ends with a checkpoint that builds on the one before; else there is a copy of everything at every stop.
    pub in_increments: bool,
}

/// What the subtasks of an operator have stored: by state, then by subtask, its layers.
pub(super) type Stored = Vec<(StateDescriptor, Vec<Vec<StateLayer>>)>;

/// What one subtask has stored.
type Layers = Vec<(StateDescriptor, Vec<StateLayer>)>;

thread_local! {
    /// The disk of a test; its database stays open.
    static DISK: (TierRange, Tier, TempDir) = {
        let dir = tempfile::tempdir().unwrap();
        let tier = Tier::new([dir.path().to_owned()], Arc::new(UnboundedMemoryPool::default()));
        (tier.range().unwrap(), tier, dir)
    };
}

#[derive(Debug)]
struct Still;

impl Clock for Still {
    fn now_millis(&self) -> i64 {
        0
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }

    fn sleep(&self, _duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }
}

impl Wakeups for Still {
    fn at(&self, _millis: i64, _token: u64) {}

    fn after(&self, _work: BoxFuture<'static, ()>, _token: u64) {}
}

/// What a subtask is opened with whose states are in such a backend.
pub(super) fn context(subtask: usize, parallelism: usize, backend: Option<BackendType>) -> OperatorContext {
    let backend: Arc<dyn StateBackend> = match backend {
        Some(backend) => {
            let tier = DISK.with(|(_, tier, _)| tier.limited(Some(0)));
            Arc::new(TieredBackend { max_parallelism: GROUPS, tier, backend })
        }
        None => Arc::new(MemoryBackend { max_parallelism: GROUPS }),
    };
    OperatorContext {
        operator: "test".into(),
        subtask,
        parallelism,
        max_parallelism: GROUPS,
        batch_rows: 3,
        buffer_timeout: Gate::default(),
        clock: Arc::new(Still),
        metrics: Metrics::default(),
        backend,
        wakeups: Arc::new(Still),
        shared: SharedContext::default(),
    }
}

/// What an operator has emitted.
pub(super) fn drain(output: &mut Output) -> Vec<Emission> {
    std::iter::from_fn(|| output.pop()).collect()
}

pub(super) fn drop_progress(progress: Progress) {
    assert_eq!(progress, Progress::Done);
}

/// The operator under test, in as many subtasks as there are.
pub(super) struct Subtasks<'a> {
    job: &'a JobGraph,
    vertex: usize,
    way: Way,
    /// How often they were replaced.
    generation: usize,
    operators: Vec<Box<dyn Operator>>,
    /// What each has stored, from its first snapshot on.
    stored: Option<Vec<Layers>>,
    /// How many rows without a key were dealt.
    dealt_rows: usize,
    /// What they have emitted.
    pub lines: Vec<String>,
}

impl<'a> Subtasks<'a> {
    pub fn open(job: &'a JobGraph, parallelism: usize, way: Way) -> Self {
        Self::open_again(job, parallelism, way, 0)
    }

    fn open_again(job: &'a JobGraph, parallelism: usize, way: Way, generation: usize) -> Self {
        let vertex = tested(job);
        let backend = way.backends[generation % way.backends.len()];
        let open = |subtask| {
            let mut operator = job.vertices[vertex].chain[0].factory.create().unwrap();
            operator.open(&context(subtask, parallelism, backend)).unwrap();
            operator
        };
        let operators = (0..parallelism).map(open).collect();
        Self { job, vertex, way, generation, operators, stored: None, dealt_rows: 0, lines: vec![] }
    }

    fn call(&mut self, subtask: usize, call: impl FnOnce(&mut dyn Operator, &mut Output) -> Result<()>) {
        let mut output = Output::new(usize::MAX);
        call(&mut *self.operators[subtask], &mut output).unwrap();
        for emission in drain(&mut output) {
            if let Emission::Batch(port, batch) = emission {
                let column = batch.records().columns().last().unwrap().clone();
                let text = |row| match column.as_string_opt::<i32>() {
                    Some(lines) => format!("{port}: {}", lines.value(row)),
                    None => format!("{port}: {:?}", column.slice(row, 1)),
                };
                self.lines.extend((0..batch.num_rows()).map(text));
            }
        }
    }

    /// Rows, dealt as the edge into `input` says.
    pub fn process(&mut self, input: usize, batch: &Batch) {
        let (_, edge) = self.job.inputs(self.vertex).find(|(_, edge)| edge.input_port == input).unwrap();
        let (parallelism, rows) = (self.operators.len(), batch.num_rows());
        let everybody = 0..parallelism;
        let readers: Vec<std::ops::Range<usize>> = match &edge.partitioning {
            Partitioning::Hash(columns) => {
                let keys: Vec<ArrayRef> = columns.iter().map(|key| batch.records().column(*key).clone()).collect();
                let hashes = hash_columns(&keys, rows).unwrap();
                let reader = |hash: &u64| subtask_of(key_group(*hash, GROUPS), parallelism, GROUPS);
                hashes.iter().map(reader).map(|reader| reader..reader + 1).collect()
            }
            Partitioning::Broadcast => vec![everybody; rows],
            // In turns, whatever else the edge says: what comes of rows without a key does not depend on who gets them.
            _ => {
                let first = self.dealt_rows;
                self.dealt_rows += rows;
                (first..first + rows).map(|row| row % parallelism).map(|reader| reader..reader + 1).collect()
            }
        };
        for subtask in 0..parallelism {
            let own = (0..rows).filter(|row| readers[*row].contains(&subtask)).map(|row| row as u32);
            let own: UInt32Array = own.collect::<Vec<u32>>().into();
            let batch = Batch::append(take_record_batch(batch.records(), &own).unwrap());
            self.call(subtask, |operator, output| operator.process(input, batch, output).map(drop_progress));
        }
    }

    pub fn advance(&mut self, watermark: Watermark) {
        for subtask in 0..self.operators.len() {
            self.call(subtask, |operator, output| operator.advance(watermark, output).map(drop_progress));
        }
    }

    /// The checkpoint behind a step, if there is one behind each.
    pub fn end_step(&mut self) {
        if self.way.in_increments {
            self.store();
        }
    }

    /// Takes the next snapshot of every subtask.
    fn store(&mut self) {
        let Self { operators, way, stored, .. } = self;
        let scope = match (way.in_increments, &*stored) {
            (false, _) => SnapshotScope::Copy,
            (true, None) => SnapshotScope::Base,
            (true, Some(_)) => SnapshotScope::Changes,
        };
        let mut laid = match (scope, stored.take()) {
            (SnapshotScope::Changes, Some(laid)) => laid,
            _ => vec![Layers::new(); operators.len()],
        };
        for (operator, layers) in operators.iter_mut().zip(&mut laid) {
            if way.in_increments {
                // A savepoint takes nothing from the checkpoint behind it.
                drop(operator.snapshot(SnapshotScope::Copy).unwrap());
            }
            lay_over(layers, operator.snapshot(scope).unwrap());
        }
        *stored = Some(laid);
    }

    /// Takes a last snapshot; all that is stored then.
    pub fn snapshot(&mut self) -> Stored {
        self.store();
        let mut by_name: Stored = vec![];
        for (descriptor, layers) in self.stored.iter().flatten().flatten().cloned() {
            match by_name.iter_mut().find(|(other, _)| other.name == descriptor.name) {
                Some((_, subtasks)) => subtasks.push(layers),
                None => by_name.push((descriptor, vec![layers])),
            }
        }
        by_name
    }

    /// Those of a job in their place, with their state.
    pub fn replace(mut self, job: &'a JobGraph, parallelism: usize) -> Self {
        let stored = self.snapshot();
        assert!(!stored.is_empty());
        let mut new = Self::open_again(job, parallelism, self.way, self.generation + 1);
        for (subtask, operator) in new.operators.iter_mut().enumerate() {
            let key_groups = groups_of(subtask, parallelism, GROUPS);
            let of_groups = |layer: &StateLayer| {
                let own = |batch: &RecordBatch| rows_of_groups(batch, &key_groups).unwrap();
                layer.map(|batches| batches.iter().map(own).collect()).unwrap()
            };
            let share = |(descriptor, subtasks): &(StateDescriptor, Vec<Vec<StateLayer>>)| {
                let all = subtasks.iter().flatten();
                let layers = match descriptor.kind {
                    StateKind::Keyed => all.map(of_groups).collect(),
                    StateKind::Broadcast => subtasks[subtask % subtasks.len()].clone(),
                    StateKind::UnionList => all.cloned().collect(),
                    StateKind::List => {
                        let own = dealt(&descriptor.schema, subtasks, parallelism).swap_remove(subtask);
                        vec![StateLayer::Rows(own.into())]
                    }
                };
                (descriptor.clone(), layers)
            };
            let states = stored.iter().map(share).collect();
            operator.restore(RestoredState { key_groups: key_groups.clone(), states }).unwrap();
        }
        new.lines = std::mem::take(&mut self.lines);
        new
    }
}

/// Lays a snapshot over what a subtask has stored.
fn lay_over(stored: &mut Layers, snapshot: Snapshot) {
    for state in snapshot.states {
        let (descriptor, extent) = (state.descriptor.clone(), state.extent);
        let batches = state.rows().unwrap();
        assert!(batches.iter().all(|batch| batch.schema() == descriptor.schema), "{}", descriptor.name);
        let known = stored.iter_mut().find(|(known, _)| known.name == descriptor.name);
        match (known, extent) {
            (Some((_, layers)), Extent::Whole) => *layers = vec![StateLayer::Rows(batches.into())],
            (Some((_, layers)), Extent::Changed) => layers.push(StateLayer::Rows(batches.into())),
            (Some((_, layers)), Extent::Removed) => layers.push(StateLayer::Removed(batches.into())),
            (None, Extent::Whole) => stored.push((descriptor, vec![StateLayer::Rows(batches.into())])),
            (_, extent) => panic!("{extent:?} of '{}'", descriptor.name),
        }
    }
}

/// What so many new subtasks get of the lists that these have stored.
fn dealt(schema: &SchemaRef, stored: &[Vec<StateLayer>], parallelism: usize) -> Vec<Vec<RecordBatch>> {
    let decoded = stored.iter().map(|layers| StateLayer::decode_all(layers).unwrap());
    let lists = decoded.map(|batches| OperatorList::restore(schema.clone(), batches).unwrap());
    let lists: Vec<OperatorList> = lists.collect();
    let dealt = OperatorList::deal(&lists, Dealing::Split, parallelism).unwrap();
    dealt.iter().map(|list| list.batches().to_vec()).collect()
}
