//! What the tests of checkpoints share: stores, a clock that never makes anybody wait, and random states.

mod compaction;
mod faulty;
mod inspect;
mod keyed_rows;
mod manifests;
mod restores;
mod savepoints;
mod segments;
mod whole;
mod writers;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    ArrayRef, BooleanArray, Decimal128Array, DictionaryArray, Int64Array, ListArray, RecordBatch, StringArray,
    StringViewArray, StructArray, TimestampMicrosecondArray, UInt32Array,
};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Fields, Int32Type, Int64Type, SchemaRef};
use futures::TryStreamExt;
use futures::future::BoxFuture;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use tidemill_core::clock::Clock;
use tidemill_core::state::{Extent, StateDescriptor, StateKind, keyed_schema};

use super::*;
pub use faulty::Faulty;

/// Nobody waits.
#[derive(Debug, Default)]
pub struct NoWait;

impl Clock for NoWait {
    fn now_millis(&self) -> i64 {
        0
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }

    fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
        Box::pin(async {})
    }
}

pub fn clock() -> Arc<dyn Clock> {
    Arc::new(NoWait)
}

pub fn memory() -> Arc<dyn ObjectStore> {
    Arc::new(InMemory::new())
}

pub fn root() -> Path {
    Path::from("jobs/one")
}

pub fn run<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

pub async fn files(store: &dyn ObjectStore) -> Vec<String> {
    let listed = store.list(None).map_ok(|meta| meta.location.to_string());
    let mut files = listed.try_collect::<Vec<_>>().await.unwrap();
    files.sort();
    files
}

pub async fn open(store: &Arc<dyn ObjectStore>) -> tidemill_core::Result<CheckpointStore> {
    CheckpointStore::open(store.clone(), root(), clock()).await
}

pub async fn overwrite(store: &dyn ObjectStore, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = store.get(path).await.unwrap().bytes().await.unwrap().to_vec();
    change(&mut bytes);
    store.put(path, bytes.into()).await.unwrap();
}

/// Numbers that follow from a seed.
#[derive(Clone, Debug)]
pub struct Chance(pub u64);

impl Chance {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

/// A column of one of many types, with NULLs.
pub fn column(kind: u64, rows: usize, chance: &mut Chance) -> ArrayRef {
    let some = |chance: &mut Chance| (!chance.one_in(5)).then(|| chance.below(1000) as i64 - 500);
    let texts = |chance: &mut Chance| (!chance.one_in(5)).then(|| "tide ".repeat(chance.below(6) as usize));
    match kind % 9 {
        0 => Arc::new((0..rows).map(|_| some(chance)).collect::<Int64Array>()),
        1 => Arc::new((0..rows).map(|_| texts(chance)).collect::<StringArray>()),
        2 => Arc::new((0..rows).map(|_| texts(chance)).collect::<StringViewArray>()),
        3 => {
            let texts: Vec<Option<String>> = (0..rows).map(|_| texts(chance)).collect();
            Arc::new(texts.iter().map(Option::as_deref).collect::<DictionaryArray<Int32Type>>())
        }
        4 => {
            let lists = (0..rows)
                .map(|_| (!chance.one_in(4)).then(|| (0..chance.below(4)).map(|_| some(chance)).collect::<Vec<_>>()));
            Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(lists.collect::<Vec<_>>()))
        }
        5 => Arc::new((0..rows).map(|_| some(chance).map(|value| value > 0)).collect::<BooleanArray>()),
        6 => {
            let decimals = (0..rows).map(|_| some(chance).map(i128::from)).collect::<Decimal128Array>();
            Arc::new(decimals.with_precision_and_scale(20, 3).unwrap())
        }
        7 => {
            let instants = (0..rows).map(|_| some(chance)).collect::<TimestampMicrosecondArray>();
            Arc::new(instants.with_timezone("Europe/Berlin"))
        }
        _ => {
            let columns = vec![column(1, rows, chance), column(3, rows, chance), column(4, rows, chance)];
            let fields = columns.iter().zip(["a", "b", "c"]);
            let fields: Fields =
                fields.map(|(column, name)| Field::new(name, column.data_type().clone(), true)).collect();
            Arc::new(StructArray::new(fields, columns, None))
        }
    }
}

pub fn fields(kinds: &[u64]) -> Fields {
    let types = kinds.iter().map(|kind| column(*kind, 0, &mut Chance(0)).data_type().clone());
    types.enumerate().map(|(place, data_type)| Field::new(format!("c{place}"), data_type, true)).collect()
}

pub fn descriptor(name: &str, kind: StateKind, kinds: &[u64]) -> StateDescriptor {
    let fields = fields(kinds);
    let schema = match kind {
        StateKind::Keyed => keyed_schema(&fields, &Fields::empty()),
        _ => Arc::new(arrow::datatypes::Schema::new(fields)),
    };
    StateDescriptor { name: name.to_owned(), kind, schema }
}

/// Random rows of a state, keyed ones in the order of their groups, cut into batches.
pub fn rows(
    descriptor: &StateDescriptor,
    kinds: &[u64],
    rows: usize,
    groups: std::ops::Range<u32>,
    chance: &mut Chance,
) -> Vec<RecordBatch> {
    let mut columns: Vec<ArrayRef> = kinds.iter().map(|kind| column(*kind, rows, chance)).collect();
    if descriptor.kind == StateKind::Keyed {
        let width = u64::from(groups.end - groups.start);
        let mut of_rows: Vec<u32> = (0..rows).map(|_| groups.start + chance.below(width) as u32).collect();
        of_rows.sort();
        columns.insert(0, Arc::new(UInt32Array::from(of_rows)));
    }
    let all = RecordBatch::try_new(descriptor.schema.clone(), columns).unwrap();
    let mut batches = Vec::new();
    let mut begin = 0;
    while begin < rows {
        let length = (1 + chance.below(rows as u64) as usize).min(rows - begin);
        batches.push(all.slice(begin, length));
        begin += length;
    }
    batches
}

/// The rows as one batch without traces of how they were cut or coded.
pub fn whole(schema: &SchemaRef, batches: &[RecordBatch]) -> RecordBatch {
    let batch = concat_batches(schema, batches).unwrap();
    let plain = batch.columns().iter().map(|column| match column.data_type() {
        DataType::Dictionary(_, value) => arrow::compute::cast(column, value).unwrap(),
        _ => column.clone(),
    });
    RecordBatch::try_from_iter((0..).map(|place: u32| place.to_string()).zip(plain)).unwrap()
}

/// A checkpoint of one operator with one keyed state in one new segment, on top of older layers.
pub async fn checkpoint(
    store: &Arc<dyn ObjectStore>,
    path: Arc<str>,
    number: u64,
    older: Vec<StoredLayer>,
    segments: Vec<StoredSegment>,
) -> CheckpointContent {
    conformance::checkpoint(store, &root(), path, number, older, segments).await.unwrap()
}

/// That every file that a checkpoint names is there and holds what it should.
pub async fn assert_readable(store: &Arc<dyn ObjectStore>, content: &CheckpointContent) {
    for operator in &content.operators {
        restored_state(store.as_ref(), &root(), operator, 0, 1, operator.max_parallelism).await.unwrap();
    }
}

/// What the runtime spawns has to be able to move between threads.
#[test]
fn all_of_it_can_be_spawned() {
    fn spawned<T: Send>(_: T) {}
    fn types(
        store: Arc<dyn ObjectStore>,
        operator: &'static StoredOperator,
        root: &'static Path,
        state: tidemill_core::state::FrozenState,
    ) {
        spawned(CheckpointStore::open(store.clone(), root.clone(), clock()));
        spawned(async move {
            let mut segment = SegmentWriter::create(store.clone(), root, "segments/1");
            let _ = segment.write(state).await;
            let _ = segment.finish().await;
            let found = CheckpointStore::open(store.clone(), root.clone(), clock()).await.unwrap();
            let mut writer = found.take_over(1).await.unwrap();
            let _ = writer.publish(CheckpointContent::default()).await;
            let _ = writer.retain(1).await;
            let _ = restored_state(store.as_ref(), root, operator, 0, 1, 1).await;
            let _ = write_savepoint(store.clone(), root, clock(), 1, CheckpointContent::default()).await;
            dispose_savepoint(store.clone(), root, clock()).await
        });
    }
    let _ = types;
}
