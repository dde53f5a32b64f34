//! Rows come back from a segment as they went in, whole or by key group, and damage never goes unnoticed.

use std::pin::pin;
use std::task::Poll;

use arrow::array::UInt32Array;
use object_store::local::LocalFileSystem;
use proptest::prelude::*;
use tidemill_core::ErrorKind;
use tidemill_core::graph::OperatorId;
use tidemill_core::state::{FrozenState, rows_of_groups};

use super::*;
use crate::checkpoint::codec::decode_chunk;
use crate::checkpoint::savepoint_writer::{SavepointWriter, StateOwner};
use crate::checkpoint::segment::{CHUNK_ROWS_MAX, read_encoded};

const GROUPS: u32 = 16;

async fn written(
    store: &Arc<dyn ObjectStore>,
    descriptor: &StateDescriptor,
    batches: &[RecordBatch],
    chunk_rows: usize,
) -> (StoredLayer, Option<StoredSegment>) {
    let mut writer = SegmentWriter::create(store.clone(), &root(), "segments/1").with_chunk_rows(chunk_rows);
    let layer = writer.write_batches(Extent::Whole, descriptor, batches).await.unwrap();
    (layer, writer.finish().await.unwrap())
}

fn any_rows() -> impl Strategy<Value = (bool, Vec<u64>, usize, usize, u64)> {
    (any::<bool>(), prop::collection::vec(0..9u64, 1..5), 0..200usize, 1..80usize, any::<u64>())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn rows_come_back_whole_and_by_key_group((is_keyed, kinds, count, chunk_rows, seed) in any_rows(),
                                             begin in 0..=GROUPS, end in 0..=GROUPS) {
        let kind = if is_keyed { StateKind::Keyed } else { StateKind::List };
        let descriptor = descriptor("state", kind, &kinds);
        let schema = &descriptor.schema;
        let batches = rows(&descriptor, &kinds, count, 0..GROUPS, &mut Chance(seed));
        run(async {
            let store = memory();
            let (layer, segment) = written(&store, &descriptor, &batches, chunk_rows).await;
            assert_eq!(layer.chunks.iter().map(|chunk| chunk.rows).sum::<u64>(), count as u64);
            assert!(layer.chunks.iter().all(|chunk| chunk.rows <= chunk_rows as u64));
            assert_eq!(segment.map_or(0, |segment| segment.bytes), layer.chunks.iter().map(|chunk| chunk.length).sum::<u64>());
            let read = read_layer(store.as_ref(), &root(), &layer, None).await.unwrap();
            assert_eq!(whole(schema, &read), whole(schema, &batches));
            let read = read_layer(store.as_ref(), &root(), &layer, Some(begin..end)).await.unwrap();
            let wanted: Vec<RecordBatch> = match is_keyed {
                true => batches.iter().map(|batch| rows_of_groups(batch, &(begin..end)).unwrap()).collect(),
                false => batches.clone(),
            };
            assert_eq!(whole(schema, &read), whole(schema, &wanted));
            assert!(read.iter().all(|batch| batch.num_rows() > 0));
        });
    }

    #[test]
    fn a_flipped_bit_is_found((is_keyed, kinds, count, chunk_rows, seed) in any_rows(), place in any::<prop::sample::Index>()) {
        let kind = if is_keyed { StateKind::Keyed } else { StateKind::List };
        let descriptor = descriptor("state", kind, &kinds);
        let batches = rows(&descriptor, &kinds, count + 1, 0..GROUPS, &mut Chance(seed));
        run(async {
            let store = memory();
            let (layer, segment) = written(&store, &descriptor, &batches, chunk_rows).await;
            let bit = place.index(segment.unwrap().bytes as usize * 8);
            let path = Path::from("jobs/one/segments/1");
            overwrite(store.as_ref(), &path, |bytes| bytes[bit / 8] ^= 1 << (bit % 8)).await;
            // Before anything is decoded.
            let error = read_encoded(store.as_ref(), &root(), &layer, None).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            let chunk = layer.chunks.iter().find(|chunk| (bit as u64 / 8) < chunk.end()).unwrap();
            assert!(error.to_string().starts_with(&format!("'jobs/one/segments/1' at {}, ", chunk.offset)), "{error}");
        });
    }

    /// Behind a checksum that is right lies what an older release or a forger has written.
    #[test]
    fn bytes_with_a_right_checksum_never_panic((_, kinds, count, _, seed) in any_rows(),
                                               flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let descriptor = descriptor("state", StateKind::Keyed, &kinds);
        let batches = rows(&descriptor, &kinds, count + 1, 0..GROUPS, &mut Chance(seed));
        let mut bytes = crate::checkpoint::codec::encode(&descriptor.schema, &batches).unwrap();
        for (place, value) in flips {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        let chunk = StoredChunk {
            offset: 0,
            length: bytes.len() as u64,
            rows: count as u64 + 1,
            checksum: xxhash_rust::xxh3::xxh3_64(&bytes),
            groups: None,
        };
        // Values may have changed, the number of rows and their columns not.
        if let Ok(batches) = decode_chunk(&bytes, &chunk, &descriptor.schema) {
            assert_eq!(batches.iter().map(|batch| batch.num_rows()).sum::<usize>(), count + 1);
            assert!(batches.iter().all(|batch| batch.schema().fields() == descriptor.schema.fields()));
        }
    }
}

#[test]
fn a_shorter_or_missing_file_is_named() {
    run(async {
        let scratch = tempfile::tempdir().unwrap();
        let local: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(scratch.path()).unwrap());
        for store in [memory(), local] {
            let descriptor = descriptor("state", StateKind::Keyed, &[0, 1]);
            let batches = rows(&descriptor, &[0, 1], 100, 0..GROUPS, &mut Chance(1));
            let (layer, segment) = written(&store, &descriptor, &batches, 10).await;
            let path = Path::from("jobs/one/segments/1");
            for left in [segment.unwrap().bytes as usize - 1, 100, 0] {
                overwrite(store.as_ref(), &path, |bytes| bytes.truncate(left)).await;
                let error = read_layer(store.as_ref(), &root(), &layer, None).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
                assert!(error.to_string().starts_with("'jobs/one/segments/1' at "), "{error}");
            }
            store.delete(&path).await.unwrap();
            let error = read_layer(store.as_ref(), &root(), &layer, None).await.unwrap_err();
            assert_eq!(
                (error.kind(), error.to_string().as_str()),
                (ErrorKind::Corrupt, "'jobs/one/segments/1' is missing")
            );
        }
    });
}

#[test]
fn an_empty_segment_leaves_no_file() {
    run(async {
        let store = memory();
        let descriptor = descriptor("state", StateKind::Keyed, &[0]);
        let empty = RecordBatch::new_empty(descriptor.schema.clone());
        let (layer, segment) = written(&store, &descriptor, &[empty], 10).await;
        assert_eq!((layer.chunks.len(), &*layer.segment, segment), (0, "", None));
        assert!(files(store.as_ref()).await.is_empty());
        assert!(read_layer(store.as_ref(), &root(), &layer, Some(0..4)).await.unwrap().is_empty());
    });
}

/// Two frozen states, one of them of keys alone, in one file.
#[test]
fn states_share_a_segment() {
    run(async {
        let store = memory();
        let mut writer = SegmentWriter::create(store.clone(), &root(), "segments/1");
        let mut layers = Vec::new();
        for (extent, kinds) in [(Extent::Changed, vec![0, 1]), (Extent::Removed, vec![0])] {
            let descriptor = descriptor("state", StateKind::Keyed, &kinds);
            let batches = rows(&descriptor, &kinds, 30, 0..GROUPS, &mut Chance(3));
            let (kept, name) = (batches.clone(), descriptor.schema.clone());
            let frozen = FrozenState { descriptor, extent, encode: Box::new(move || Ok(batches)) };
            layers.push((writer.write(frozen).await.unwrap(), extent, name, kept));
        }
        assert!(layers[1].0.chunks[0].offset > 0);
        writer.finish().await.unwrap().unwrap();
        for (layer, extent, schema, kept) in layers {
            let read = read_layer(store.as_ref(), &root(), &layer, None).await.unwrap();
            assert_eq!((layer.extent, whole(&schema, &read)), (extent, whole(&schema, &kept)));
        }
    });
}

#[test]
fn rows_out_of_order_are_a_bug() {
    run(async {
        let descriptor = descriptor("state", StateKind::Keyed, &[]);
        let groups = |groups: Vec<u32>| -> RecordBatch {
            RecordBatch::try_new(descriptor.schema.clone(), vec![Arc::new(UInt32Array::from(groups))]).unwrap()
        };
        for batches in [vec![groups(vec![1, 0])], vec![groups(vec![3]), groups(vec![2])]] {
            let mut writer = SegmentWriter::create(memory(), &root(), "segments/1").with_chunk_rows(2);
            let error = writer.write_batches(Extent::Whole, &descriptor, &batches).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Internal);
        }
    });
}

/// Rows that no file of one part holds, and the order of which nothing compresses.
fn large() -> (StateDescriptor, RecordBatch) {
    let descriptor = StateDescriptor {
        schema: keyed_schema(&vec![Field::new("value", DataType::Int64, false)].into(), &Fields::empty()),
        ..descriptor("state", StateKind::Keyed, &[])
    };
    let count = 5 * CHUNK_ROWS_MAX * 8 + 17;
    let mut chance = Chance(5);
    let groups: ArrayRef = Arc::new((0..count).map(|row| (row * 16 / count) as u32).collect::<UInt32Array>());
    let values: ArrayRef = Arc::new((0..count).map(|_| chance.next() as i64).collect::<Int64Array>());
    let batch = RecordBatch::try_new(descriptor.schema.clone(), vec![groups, values]).unwrap();
    (descriptor, batch)
}

/// What a call gives that is dropped after so many turns.
async fn within<T>(turns: usize, call: impl Future<Output = T>) -> Option<T> {
    let mut call = pin!(call);
    for _ in 0..turns {
        if let Poll::Ready(done) = futures::poll!(&mut call) {
            return Some(done);
        }
        tokio::task::yield_now().await;
    }
    None
}

/// Parts of a file that is not complete stay in a store, where no list shows them, until somebody takes them back.
#[test]
fn parts_of_a_savepoint_that_failed_or_came_too_late_are_taken_back() {
    let (descriptor, batch) = large();
    let owner = StateOwner { operator: OperatorId(7), name: "count of", subtask: 0 };
    run(async {
        let (mut failed, mut dropped, mut open) = (0, 0, 0);
        for seed in 0..24 {
            let (store, fails) = (memory(), seed % 2 == 0);
            let faulty = Faulty::new(store.clone(), seed, if fails { 6 } else { 0 });
            let writer = SavepointWriter::create(Arc::new(faulty.clone()), &root(), clock(), seed).await;
            let Ok(mut writer) = writer else { continue };
            let turns = if fails { 100_000 } else { seed as usize };
            let written = writer.write_batches(owner, Extent::Whole, &descriptor, std::slice::from_ref(&batch));
            match within(turns, written).await {
                Some(Ok(_)) => {}
                Some(Err(_)) => failed += 1,
                None => {
                    assert!(!fails, "no turn too few");
                    dropped += 1;
                }
            }
            open += faulty.open_uploads();
            writer.abort().await;
            assert_eq!(faulty.open_uploads(), 0, "{seed}");
        }
        assert!(failed > 0 && dropped > 0 && open > 0, "{failed} failed, {dropped} dropped, {open} open");
    });
}

/// More than one part, through a store whose parts get lost.
#[test]
fn a_large_segment_goes_up_in_parts() {
    let (descriptor, batch) = large();
    run(async {
        let scratch = tempfile::tempdir().unwrap();
        let local: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(scratch.path()).unwrap());
        for store in [memory(), local] {
            let (layer, segment) = written(&store, &descriptor, std::slice::from_ref(&batch), usize::MAX).await;
            assert_eq!(layer.chunks.len(), 41);
            assert!(segment.unwrap().bytes > 16 << 20);
            let read = read_layer(store.as_ref(), &root(), &layer, Some(3..5)).await.unwrap();
            let wanted = rows_of_groups(&batch, &(3..5)).unwrap();
            assert_eq!(concat_batches(&descriptor.schema, &read).unwrap(), wanted);
            store.delete(&Path::from("jobs/one/segments/1")).await.unwrap();

            let mut failed = 0;
            for seed in 0..6 {
                let faulty: Arc<dyn ObjectStore> = Arc::new(Faulty::new(store.clone(), seed, 4));
                let mut writer = SegmentWriter::create(faulty, &root(), "segments/2");
                let layer = writer.write_batches(Extent::Whole, &descriptor, std::slice::from_ref(&batch)).await;
                let segment = match &layer {
                    Ok(_) => writer.finish().await,
                    Err(error) => {
                        writer.abort().await;
                        Err(error.clone())
                    }
                };
                if let (Ok(layer), Ok(_)) = (&layer, &segment) {
                    read_layer(store.as_ref(), &root(), layer, None).await.unwrap();
                } else {
                    failed += 1;
                }
                let _ = store.delete(&Path::from("jobs/one/segments/2")).await;
                assert!(files(store.as_ref()).await.is_empty());
            }
            assert!(failed > 0);
        }
    });
}

/// A slice of views does not bring along what it does not show.
#[test]
fn views_are_stored_without_the_rest() {
    run(async {
        let descriptor = descriptor("state", StateKind::List, &[2]);
        let texts: StringViewArray = (0..50_000).map(|row| Some(format!("a text that is long enough {row}"))).collect();
        let batch = RecordBatch::try_new(descriptor.schema.clone(), vec![Arc::new(texts)]).unwrap();
        let (layer, segment) = written(&memory(), &descriptor, &[batch.slice(100, 10)], usize::MAX).await;
        assert_eq!(layer.chunks.len(), 1);
        assert!(segment.unwrap().bytes < 2000);
    });
}
