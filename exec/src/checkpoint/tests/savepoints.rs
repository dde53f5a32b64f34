//! A savepoint is a folder that stands for itself, of files that hold what went into them.

use arrow::array::AsArray;
use arrow::datatypes::Int8Type;
use object_store::local::LocalFileSystem;
use proptest::prelude::*;
use tidemill_core::ErrorKind;
use tidemill_core::graph::OperatorId;
use tidemill_core::state::rows_of_groups;

use super::*;
use crate::checkpoint::segment::read_encoded;

const GROUPS: u32 = 16;
const COUNTS: &str = "jobs/one/state/count_of-0000000000000007/count/0-00000000000000c0.parquet";
/// Of most writers here.
const NONCE: u64 = 0xc0;

fn owner() -> StateOwner<'static> {
    StateOwner { operator: OperatorId(7), name: "count (of)", subtask: 0 }
}

async fn begun(store: &Arc<dyn ObjectStore>, chunk_rows: usize) -> SavepointWriter {
    create(store, &root(), NONCE).await.unwrap().with_chunk_rows(chunk_rows)
}

async fn create(store: &Arc<dyn ObjectStore>, root: &Path, nonce: u64) -> tidemill_core::Result<SavepointWriter> {
    SavepointWriter::create(store.clone(), root, clock(), nonce).await
}

/// One operator with one keyed state of five rows.
async fn content(store: &Arc<dyn ObjectStore>) -> CheckpointContent {
    content_of(&mut begun(store, 2).await, 5).await
}

/// The same of so many rows, which this writer writes.
async fn content_of(writer: &mut SavepointWriter, count: usize) -> CheckpointContent {
    let descriptor = descriptor("count", StateKind::Keyed, &[0]);
    let rows = rows(&descriptor, &[0], count, 0..8, &mut Chance(1));
    let layer = writer.write_batches(owner(), Extent::Whole, &descriptor, &rows).await.unwrap();
    let states = vec![StoredState { descriptor, layers: vec![layer] }];
    let operator = StoredOperator {
        id: OperatorId(7),
        name: "count (of)".to_owned(),
        max_parallelism: 8,
        subtasks: vec![StoredSubtask { index: 0, states }],
    };
    CheckpointContent {
        checkpoint: 4,
        segments: writer.written().to_vec(),
        operators: vec![operator],
        ..Default::default()
    }
}

async fn savepoint(
    store: &Arc<dyn ObjectStore>,
    nonce: u64,
    content: &CheckpointContent,
) -> tidemill_core::Result<Manifest> {
    write_savepoint(store.clone(), &root(), clock(), nonce, content.clone()).await
}

#[test]
fn a_savepoint_can_be_moved() {
    run(async {
        let scratch = tempfile::tempdir().unwrap();
        let store: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(scratch.path()).unwrap());
        let written = savepoint(&store, 1, &content(&store).await).await.unwrap();
        assert_eq!(written.content.kind, CheckpointKind::Savepoint);
        assert_eq!(files(store.as_ref()).await, ["jobs/one/_metadata", COUNTS]);

        std::fs::rename(scratch.path().join("jobs/one"), scratch.path().join("elsewhere")).unwrap();
        let (place, operator) = (Path::from("elsewhere"), &written.content.operators[0]);
        let found = open_savepoint(store.clone(), &place, clock()).await.unwrap();
        assert_eq!(found, written);
        let state = restored_state(store.as_ref(), &place, operator, 0, 1, 8).await.unwrap();
        assert_eq!(state.states[0].1[0].rows().decode().unwrap().iter().map(RecordBatch::num_rows).sum::<usize>(), 5);

        dispose_savepoint(store.clone(), &place, clock()).await.unwrap();
        assert!(files(store.as_ref()).await.is_empty());
        let error = open_savepoint(store.clone(), &place, clock()).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (ErrorKind::Unavailable, "'elsewhere/_metadata' is missing")
        );
    });
}

#[test]
fn a_savepoint_is_never_written_over() {
    run(async {
        let store = memory();
        let content = content(&store).await;
        let written = savepoint(&store, 1, &content).await.unwrap();
        // The same writer again: its first reply was lost.
        assert_eq!(savepoint(&store, 1, &content).await.unwrap(), written);
        assert_eq!(savepoint(&store, 2, &content).await.unwrap_err().kind(), ErrorKind::Request);
        // Another one does not get as far as the files.
        let error = create(&store, &root(), 3).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Request);
        assert!(error.message().contains("is not empty"), "{error}");
        assert_eq!(open_savepoint(store, &root(), clock()).await.unwrap(), written);
    });
}

#[test]
fn a_folder_that_cannot_take_a_savepoint_is_known_before_one_is_begun() {
    run(async {
        let place = tempfile::tempdir().unwrap();
        std::fs::create_dir(place.path().join("full")).unwrap();
        std::fs::write(place.path().join("full/x"), "").unwrap();
        std::fs::write(place.path().join("file"), "").unwrap();
        let store: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(place.path()).unwrap());
        let check = async |folder: &str| check_savepoint_folder(store.clone(), &Path::from(folder), clock()).await;
        let full = check("full").await.unwrap_err();
        assert!(full.message().contains("'full', is not empty: it holds 'full/x'"), "{full}");
        for below_a_file in ["file", "file/below"] {
            let error = check(below_a_file).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        }
        // Looking leaves nothing behind; nor is a look in the way that somebody could not end.
        check("new").await.unwrap();
        check("new").await.unwrap();
        assert_eq!(std::fs::read_dir(place.path().join("new")).unwrap().count(), 0);
        std::fs::write(place.path().join("new/_writable"), "_writable").unwrap();
        check("new").await.unwrap();
        create(&store, &Path::from("new"), NONCE).await.unwrap();
    });
}

/// Both have found the folder empty.
#[test]
fn of_two_that_write_a_savepoint_to_one_folder_one_does_and_the_other_leaves_it_whole() {
    run(async {
        let store = memory();
        let mut first = create(&store, &root(), 1).await.unwrap();
        let mut second = create(&store, &root(), 2).await.unwrap();
        let won = content_of(&mut first, 5).await;
        let lost = content_of(&mut second, 9).await;
        let written = savepoint(&store, 1, &won).await.unwrap();
        let error = savepoint(&store, 2, &lost).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Request);
        assert!(error.message().contains("'jobs/one' holds a savepoint already"), "{error}");
        second.abort().await;

        let found = open_savepoint(store.clone(), &root(), clock()).await.unwrap();
        assert_eq!(found, written);
        let state = restored_state(store.as_ref(), &root(), &found.content.operators[0], 0, 1, 8).await.unwrap();
        assert_eq!(state.states[0].1[0].rows().decode().unwrap().iter().map(RecordBatch::num_rows).sum::<usize>(), 5);
        let named = |content: &CheckpointContent| format!("jobs/one/{}", content.segments[0].path);
        assert_eq!(files(store.as_ref()).await, ["jobs/one/_metadata".to_owned(), named(&won)]);
    });
}

#[test]
fn a_savepoint_that_is_given_up_leaves_no_files() {
    run(async {
        let store = memory();
        let descriptor = descriptor("count", StateKind::Keyed, &[0]);
        let rows = rows(&descriptor, &[0], 5, 0..8, &mut Chance(1));
        let mut writer = begun(&store, 10).await;
        for extent in [Extent::Whole, Extent::Changed, Extent::Changed] {
            writer.write_batches(owner(), extent, &descriptor, &rows).await.unwrap();
        }
        let folder = "jobs/one/state/count_of-0000000000000007";
        let changes = |number: u32| format!("{folder}/count.changes/0-{number}-{NONCE:016x}.parquet");
        assert_eq!(files(store.as_ref()).await, [changes(1), changes(2), COUNTS.to_owned()]);
        writer.abort().await;
        assert!(files(store.as_ref()).await.is_empty());
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn rows_come_back_whole_and_by_key_group(is_keyed in any::<bool>(), kinds in prop::collection::vec(0..9u64, 1..5),
            count in 1..200usize, chunk_rows in 1..80usize, seed in any::<u64>(),
            begin in 0..=GROUPS, end in 0..=GROUPS, damage in any::<prop::sample::Index>()) {
        let kind = if is_keyed { StateKind::Keyed } else { StateKind::List };
        let descriptor = descriptor("count", kind, &kinds);
        let schema = &descriptor.schema;
        let batches = rows(&descriptor, &kinds, count, 0..GROUPS, &mut Chance(seed));
        run(async {
            let store = memory();
            let mut writer = begun(&store, chunk_rows).await;
            let layer = writer.write_batches(owner(), Extent::Whole, &descriptor, &batches).await.unwrap();
            let bytes = writer.written()[0].bytes;
            assert_eq!(layer.chunks.iter().map(|chunk| chunk.rows).sum::<u64>(), count as u64);
            assert!(layer.chunks.iter().all(|chunk| chunk.rows <= chunk_rows as u64 && chunk.end() < bytes));
            let read = read_layer(store.as_ref(), &root(), &layer, None).await.unwrap();
            assert_eq!(whole(schema, &read), whole(schema, &batches));
            let read = read_layer(store.as_ref(), &root(), &layer, Some(begin..end)).await.unwrap();
            let wanted: Vec<RecordBatch> = match is_keyed {
                true => batches.iter().map(|batch| rows_of_groups(batch, &(begin..end)).unwrap()).collect(),
                false => batches.clone(),
            };
            assert_eq!(whole(schema, &read), whole(schema, &wanted));
            // Whatever bit of the file is another one, somebody notices.
            let bit = damage.index(bytes as usize * 8);
            overwrite(store.as_ref(), &Path::from(COUNTS), |bytes| bytes[bit / 8] ^= 1 << (bit % 8)).await;
            // Before anything is decoded.
            let error = read_encoded(store.as_ref(), &root(), &layer, None).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            assert!(error.to_string().starts_with(&format!("'{COUNTS}' at ")), "{error}");
        });
    }
}

#[test]
fn dictionaries_that_do_not_fit_into_one_come_back_in_several_batches() {
    run(async {
        let store = memory();
        let keys = |range: std::ops::Range<i32>| {
            let texts: Vec<String> = range.map(|n| format!("text {n}")).collect();
            Arc::new(texts.iter().map(|text| Some(text.as_str())).collect::<DictionaryArray<Int8Type>>()) as ArrayRef
        };
        let batches = [keys(0..100), keys(100..200), keys(200..300)];
        let field = Field::new("text", batches[0].data_type().clone(), true);
        let schema = Arc::new(arrow::datatypes::Schema::new(vec![field]));
        let batches = batches.map(|column| RecordBatch::try_new(schema.clone(), vec![column]).unwrap());
        let descriptor = StateDescriptor { name: "count".to_owned(), kind: StateKind::List, schema: schema.clone() };
        let mut writer = begun(&store, 1000).await;
        let layer = writer.write_batches(owner(), Extent::Whole, &descriptor, &batches).await.unwrap();
        let read = read_layer(store.as_ref(), &root(), &layer, None).await.unwrap();
        assert!(read.len() > 1 && read.iter().all(|batch| batch.schema() == schema));
        let texts = |batches: &[RecordBatch]| -> Vec<String> {
            let plain = batches.iter().map(|batch| arrow::compute::cast(batch.column(0), &DataType::Utf8).unwrap());
            plain
                .flat_map(|texts| texts.as_string::<i32>().iter().flatten().map(str::to_owned).collect::<Vec<_>>())
                .collect()
        };
        assert_eq!(texts(&read), texts(&batches));
    });
}

#[test]
fn a_shorter_or_missing_file_is_named() {
    run(async {
        let scratch = tempfile::tempdir().unwrap();
        let local: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(scratch.path()).unwrap());
        for store in [memory(), local] {
            let content = content(&store).await;
            let layer = &content.operators[0].subtasks[0].states[0].layers[0];
            let path = Path::from(COUNTS);
            let end = layer.chunks.last().unwrap().end() as usize;
            for left in [content.segments[0].bytes as usize - 1, end, end - 1, 4, 0] {
                overwrite(store.as_ref(), &path, |bytes| bytes.truncate(left)).await;
                let error = read_layer(store.as_ref(), &root(), layer, None).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{left}: {error}");
                assert!(error.to_string().starts_with(&format!("'{COUNTS}'")), "{error}");
            }
            store.delete(&path).await.unwrap();
            let error = read_layer(store.as_ref(), &root(), layer, None).await.unwrap_err();
            assert_eq!((error.kind(), error.to_string()), (ErrorKind::Corrupt, format!("'{COUNTS}' is missing")));
        }
    });
}
