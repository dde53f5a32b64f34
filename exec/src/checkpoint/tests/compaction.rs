//! Fewer layers hold what the layers held, as an obvious model says.

use std::collections::BTreeMap;

use arrow::array::AsArray;
use proptest::prelude::*;
use tidemill_core::graph::OperatorId;
use tidemill_core::state::StateLayer;

use super::keyed_rows::{GROUPS, Row, batch, fields, keyed};
use super::*;

/// A folder to which one checkpoint after the other is added, each with one new layer of one state.
struct Job {
    store: Arc<dyn ObjectStore>,
    writer: Writer,
    last: CheckpointContent,
    model: BTreeMap<i64, i64>,
}

impl Job {
    async fn new() -> Self {
        let store = memory();
        let writer = open(&store).await.unwrap().take_over(1).await.unwrap();
        let operator = StoredOperator {
            id: OperatorId::from_uid("mine"),
            name: "sums".to_owned(),
            max_parallelism: GROUPS,
            subtasks: vec![StoredSubtask { index: 0, states: Vec::new() }],
        };
        let last = CheckpointContent { operators: vec![operator], ..CheckpointContent::default() };
        Self { store, writer, last, model: BTreeMap::new() }
    }

    /// The next checkpoint: these keys are set, or removed where they have no value.
    async fn checkpoint(&mut self, changes: BTreeMap<i64, Option<i64>>) {
        let descriptor = keyed("sum");
        self.last.checkpoint += 1;
        let path = self.writer.segment_path(self.last.checkpoint, 0);
        let mut segment = SegmentWriter::create(self.store.clone(), &root(), path);
        let all = changes.iter().map(|(key, value)| (*key, *value));
        let (set, removed): (Vec<Row>, Vec<Row>) = all.partition(|(_, value)| value.is_some());
        let states = &mut self.last.operators[0].subtasks[0].states;
        if states.is_empty() {
            states.push(StoredState { descriptor: descriptor.clone(), layers: Vec::new() });
        }
        let layers = &mut states[0].layers;
        let extent = if layers.is_empty() { Extent::Whole } else { Extent::Changed };
        let rows = batch(&descriptor.schema, set);
        layers.push(segment.write_batches(extent, &descriptor, &[rows]).await.unwrap());
        let keys = StateDescriptor { schema: keyed_schema(&fields("key"), &Fields::empty()), ..descriptor };
        let rows = batch(&keys.schema, removed);
        let layer = segment.write_batches(Extent::Removed, &keys, &[rows]).await.unwrap();
        layers.extend((!layer.chunks.is_empty()).then_some(layer));
        self.last.segments.extend(segment.finish().await.unwrap());
        for (key, value) in changes {
            match value {
                Some(value) => self.model.insert(key, value),
                None => self.model.remove(&key),
            };
        }
        let layers: Vec<_> = self.layers().iter().map(|layer| layer.segment.clone()).collect();
        self.last.segments.retain(|segment| layers.contains(&segment.path));
        self.writer.publish(self.last.clone()).await.unwrap();
        self.writer.retain(1).await.unwrap();
    }

    fn layers(&self) -> &[StoredLayer] {
        &self.last.operators[0].subtasks[0].states[0].layers
    }

    /// Compacts what is worth it, behind the job's back.
    async fn compaction(&mut self) -> Option<Compaction> {
        let states = self.last.compactable();
        if states.is_empty() {
            return None;
        }
        let segment =
            SegmentWriter::create(self.store.clone(), &root(), self.writer.segment_path(self.last.checkpoint, 1));
        self.writer.spare(Some(segment.path()));
        Some(Compaction::run(self.store.clone(), &root(), states, segment).await.unwrap())
    }

    /// That whoever goes on from the last checkpoint, at any parallelism, has what the model has.
    async fn assert_restored(&self, parallelism: usize) {
        let mut restored = BTreeMap::new();
        for subtask in 0..parallelism {
            let operator = &self.last.operators[0];
            let state = restored_state(self.store.as_ref(), &root(), operator, subtask, parallelism, GROUPS).await;
            let layers = state.unwrap().states.into_iter().flat_map(|(_, layers)| layers);
            for layer in layers {
                let removes = matches!(layer, StateLayer::Removed(_));
                for batch in layer.rows().decode().unwrap() {
                    let column = |place: usize| batch.column(place).as_primitive::<Int64Type>().values().to_vec();
                    for (row, key) in column(1).into_iter().enumerate() {
                        match removes {
                            true => restored.remove(&key),
                            false => restored.insert(key, column(2)[row]),
                        };
                    }
                }
            }
        }
        assert_eq!(restored, self.model);
    }
}

fn changes() -> impl Strategy<Value = BTreeMap<i64, Option<i64>>> {
    prop::collection::btree_map(0..60i64, prop::option::weighted(0.8, 0..1000i64), 0..20)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn checkpoints_that_are_compacted_between_hold_what_a_map_holds(
        checkpoints in prop::collection::vec(changes(), 1..60),
        late in 0..4usize,
        parallelism in 1..4usize,
    ) {
        run(async {
            let mut job = Job::new().await;
            let mut under_way: Option<(usize, Compaction)> = None;
            for (number, changes) in checkpoints.into_iter().enumerate() {
                // One that took some checkpoints is laid under those.
                if let Some((_, done)) = under_way.take_if(|(begun, _)| *begun + late <= number) {
                    assert!(done.apply(&mut job.last));
                }
                job.checkpoint(changes).await;
                job.assert_restored(parallelism).await;
                if under_way.is_none() {
                    under_way = job.compaction().await.map(|compaction| (number, compaction));
                }
                assert!(job.layers().len() <= 2 * (16 + late + 2), "{} layers", job.layers().len());
            }
        });
    }
}

#[test]
fn many_small_changes_become_one_layer_and_the_whole_one_stays() {
    run(async {
        let mut job = Job::new().await;
        job.checkpoint((0..50_000).map(|key| (key, Some(key))).collect()).await;
        let whole = job.layers()[0].clone();
        for round in 0..150 {
            job.checkpoint((0..3).map(|key| (key * 100 + round, (key > 0).then_some(round))).collect()).await;
            if let Some(compaction) = job.compaction().await {
                assert!(compaction.apply(&mut job.last));
                assert_eq!(job.layers()[0], whole, "nothing of it is written again");
                let extents: Vec<Extent> = job.layers().iter().map(|layer| layer.extent).collect();
                assert_eq!(extents, [Extent::Whole, Extent::Changed, Extent::Removed]);
                job.checkpoint(BTreeMap::from([(1, None), (2, Some(7))])).await;
                job.assert_restored(2).await;
                return;
            }
        }
        panic!("{} layers", job.layers().len());
    });
}

/// CKP-12: with every key drawn now and then, and a compaction whenever one is worth it.
#[test]
fn what_has_to_be_read_again_is_no_more_than_twice_the_state() {
    let drawn = |number: i64| (number.wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as i64) >> 20).rem_euclid(40_000);
    run(async {
        let mut job = Job::new().await;
        job.checkpoint((0..40_000).map(|key| (key, Some(drawn(key)))).collect()).await;
        let mut compactions = 0;
        for round in 1..40 {
            let changes = (round * 4_000..(round + 1) * 4_000).map(|number| (drawn(number), Some(drawn(number + 1))));
            job.checkpoint(changes.collect()).await;
            let bytes = |extent: Option<Extent>| -> u64 {
                let layers = job.layers().iter().filter(|layer| extent.is_none_or(|extent| layer.extent == extent));
                layers.map(StoredLayer::bytes).sum()
            };
            let (state, newest) = (bytes(Some(Extent::Whole)), job.layers().last().map_or(0, StoredLayer::bytes));
            assert!(newest > 0 && state > 5 * newest, "{newest} bytes changed, of {state}");
            assert!(bytes(None) - newest <= 2 * state, "{} bytes are read for {state} of state", bytes(None));
            if let Some(compaction) = job.compaction().await {
                assert!(compaction.apply(&mut job.last));
                compactions += 1;
            }
        }
        assert!((2..20).contains(&compactions), "{compactions} compactions in 40 checkpoints");
        job.assert_restored(2).await;
    });
}

#[test]
fn what_was_compacted_counts_no_more_once_everything_has_been_stored_anew() {
    run(async {
        let mut job = Job::new().await;
        for round in 0..40 {
            job.checkpoint((0..20).map(|key| (key, Some(round))).collect()).await;
        }
        let compaction = job.compaction().await.unwrap();
        job.last.operators[0].subtasks[0].states.clear();
        job.checkpoint((0..20).map(|key| (key, Some(-1))).collect()).await;
        let before = job.last.clone();
        assert!(!compaction.apply(&mut job.last));
        assert_eq!(job.last, before);
    });
}

#[test]
fn a_file_that_no_checkpoint_names_yet_is_spared_and_goes_when_none_will() {
    run(async {
        let mut job = Job::new().await;
        for round in 0..40 {
            job.checkpoint((0..20).map(|key| (key, Some(round))).collect()).await;
        }
        let path = job.compaction().await.unwrap().segment().path.clone();
        let is_there = async |job: &Job| files(&*job.store).await.iter().any(|file| file.ends_with(&*path));
        job.checkpoint(BTreeMap::new()).await;
        assert!(is_there(&job).await);
        job.writer.spare(None);
        job.checkpoint(BTreeMap::new()).await;
        assert!(!is_there(&job).await);
    });
}

#[test]
fn a_damaged_layer_is_no_compaction_and_leaves_no_file() {
    run(async {
        let mut job = Job::new().await;
        for round in 0..40 {
            job.checkpoint((0..20).map(|key| (key, Some(round))).collect()).await;
        }
        let damaged = root().to_string() + "/" + &job.layers()[3].segment;
        overwrite(&*job.store, &Path::from(damaged), |bytes| bytes[20] ^= 1).await;
        let states = job.last.compactable();
        let segment = SegmentWriter::create(job.store.clone(), &root(), "segments/compacted");
        let error = Compaction::run(job.store.clone(), &root(), states, segment).await.unwrap_err();
        assert_eq!(error.kind(), tidemill_core::ErrorKind::Corrupt);
        assert!(error.message().contains("compacting state 'sum'"), "{error}");
        assert!(!files(&*job.store).await.iter().any(|file| file.ends_with("compacted")));
    });
}
