//! What a store has to keep so that checkpoints in it can be relied on: stated once, and run on every kind of store.
//!
//! For tests: a broken law panics with what was broken. Every law has a folder of its own below the root that it is given, and
//! many writers at once are many calls at once, so a store that only looks before it writes is found out.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, UInt32Array};
use arrow::datatypes::{DataType, Field, Fields};
use futures::TryStreamExt;
use futures::future::join_all;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use tidemill_core::clock::Clock;
use tidemill_core::graph::OperatorId;
use tidemill_core::state::{Extent, StateDescriptor, StateKind, keyed_schema};
use tidemill_core::{ErrorKind, Result};

use super::files::store_error;
use super::{
    CheckpointContent, CheckpointStore, Manifest, SegmentWriter, StoredLayer, StoredOperator, StoredSegment,
    StoredState, StoredSubtask, Writer, dispose_savepoint, open_savepoint, restored_state, write_savepoint,
};

/// Writers that race.
const WRITERS: u64 = 8;
/// How often they do.
const ROUNDS: u64 = 6;
/// Key groups of the state that is stored here.
const GROUPS: u32 = 8;

/// A folder for one law.
#[derive(Clone)]
struct Place {
    store: Arc<dyn ObjectStore>,
    root: Path,
    clock: Arc<dyn Clock>,
}

/// Runs all laws on `store`, in folders below `root`, which is empty.
pub async fn check_store(store: &Arc<dyn ObjectStore>, root: &Path, clock: &Arc<dyn Clock>) -> Result<()> {
    let place = |law: &str| Place { store: store.clone(), root: root.clone().join(law), clock: clock.clone() };
    named("checkpoints follow each other", checkpoints_follow_each_other(place("follow"))).await?;
    named("who comes second is fenced", who_comes_second_is_fenced(place("second"))).await?;
    named("of many writers one wins", of_many_writers_one_wins(place("race"))).await?;
    named("who slept is fenced", who_slept_through_a_retention_is_fenced(place("sleeper"))).await?;
    named("half a checkpoint is none", half_a_checkpoint_is_none(place("half"))).await?;
    named("damage is named", damage_is_named(place("damage"))).await?;
    named("savepoints are written once", savepoints_are_written_once(place("savepoint"))).await
}

async fn named(law: &str, checked: impl Future<Output = Result<()>>) -> Result<()> {
    checked.await.map_err(|error| error.context(law))
}

async fn checkpoints_follow_each_other(place: Place) -> Result<()> {
    let found = place.open().await?;
    assert!(found.newest().is_none() && found.checkpoint().is_none(), "an empty folder holds no checkpoint");
    let mut writer = found.take_over(11).await?;
    assert_eq!((writer.newest().number, writer.newest().generation, writer.checkpoint()), (1, 1, None));
    place.publish(&mut writer, 1).await?;
    place.publish(&mut writer, 2).await?;
    let again = place.publish(&mut writer, 2).await;
    assert_eq!(again.map_err(|error| error.kind()), Err(ErrorKind::Internal), "no checkpoint comes twice");

    let found = place.open().await?;
    let numbers = found.newest().map(|newest| (newest.number, newest.content.checkpoint));
    assert_eq!(numbers, Some((3, 2)), "what was published is found");
    let writer = found.take_over(12).await?;
    let Manifest { number, generation, nonce, ref content } = *writer.newest();
    assert_eq!((number, generation, nonce, content.checkpoint), (4, 2, 12, 2));
    place.read(content).await
}

async fn who_comes_second_is_fenced(place: Place) -> Result<()> {
    let mut first = place.open().await?.take_over(1).await?;
    place.publish(&mut first, 1).await?;
    let late = place.open().await?;
    let mut second = place.open().await?.take_over(2).await?;
    fenced(late.take_over(3).await);
    fenced(place.publish(&mut first, 2).await);
    place.publish(&mut second, 2).await
}

async fn of_many_writers_one_wins(place: Place) -> Result<()> {
    for round in 1..=ROUNDS {
        let found = place.open().await?;
        let takers = (0..WRITERS).map(|writer| found.clone().take_over(round * 100 + writer));
        let (winners, losers): (Vec<_>, Vec<_>) = join_all(takers).await.into_iter().partition(Result::is_ok);
        assert_eq!(winners.len(), 1, "one of {WRITERS} writers gets the number");
        losers.into_iter().for_each(fenced);
        for winner in winners {
            let mut winner = winner?;
            place.publish(&mut winner, round).await?;
            let newest = place.open().await?;
            assert_eq!(newest.newest(), Some(winner.newest()), "what the winner wrote is what is there");
        }
    }
    Ok(())
}

/// The number that a sleeper wants is free again, as everything up to the newest manifest has been deleted.
async fn who_slept_through_a_retention_is_fenced(place: Place) -> Result<()> {
    let mut sleeper = place.open().await?.take_over(1).await?;
    place.publish(&mut sleeper, 1).await?;
    let mut winner = place.open().await?.take_over(2).await?;
    for checkpoint in 2..6 {
        place.publish(&mut winner, checkpoint).await?;
        winner.retain(1).await?;
    }
    let before = place.files().await?;
    assert_eq!(before.len(), 2, "one checkpoint is retained: {before:?}");
    fenced(place.publish(&mut sleeper, 9).await);
    assert_eq!(place.open().await?.newest(), Some(winner.newest()), "the sleeper changed nothing");
    winner.retain(1).await?;
    assert_eq!(place.files().await?, before, "what the sleeper left is gone");
    Ok(())
}

/// A process that dies between segments and manifest leaves the checkpoint before as the newest.
async fn half_a_checkpoint_is_none(place: Place) -> Result<()> {
    let mut writer = place.open().await?.take_over(1).await?;
    place.publish(&mut writer, 1).await?;
    let before = place.files().await?;
    place.checkpoint(writer.segment_path(2, 0), 2).await?;
    assert_eq!(place.files().await?.len(), before.len() + 1);

    let found = place.open().await?;
    assert_eq!(found.checkpoint().map(|content| content.checkpoint), Some(1), "what has no manifest is no checkpoint");
    let mut writer = found.take_over(2).await?;
    writer.retain(1).await?;
    let segments = |files: &BTreeSet<String>| files.iter().filter(|file| file.contains("/segments/")).count();
    assert_eq!(segments(&place.files().await?), segments(&before), "its segments are removed");
    place.publish(&mut writer, 2).await?;
    place.read(&writer.newest().content).await
}

async fn damage_is_named(place: Place) -> Result<()> {
    let mut writer = place.open().await?.take_over(1).await?;
    place.publish(&mut writer, 1).await?;
    let content = &writer.newest().content;
    let paths: Vec<Path> = content.segments.iter().map(|segment| place.path(&segment.path)).collect();
    for is_cut in [true, false] {
        for path in &paths {
            let damaged = async {
                let bytes = place.store.get(path).await?.bytes().await?;
                place.store.delete(path).await?;
                match is_cut {
                    true => place.store.put(path, bytes.slice(..bytes.len() / 2).into()).await.map(drop),
                    false => Ok(()),
                }
            };
            damaged.await.map_err(|error| store_error(format!("damaging '{path}'"), error))?;
        }
        match place.read(content).await {
            Ok(()) => panic!("a damaged segment was read"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
                let is_named = paths.iter().any(|path| error.to_string().contains(path.as_ref()));
                assert!(is_named, "the error names the file: {error}");
            }
        }
    }
    Ok(())
}

async fn savepoints_are_written_once(place: Place) -> Result<()> {
    let save = |nonce| {
        let place = place.clone();
        async move {
            let content = place.checkpoint("segments/0".into(), 4).await?;
            write_savepoint(place.store.clone(), &place.root, place.clock.clone(), nonce, content).await
        }
    };
    let written = save(1).await?;
    assert_eq!(save(1).await?, written, "whoever lost the reply may ask again");
    assert_eq!(save(2).await.map_err(|error| error.kind()), Err(ErrorKind::Request), "no other takes its place");
    let open = || open_savepoint(place.store.clone(), &place.root, place.clock.clone());
    assert_eq!(open().await?, written);
    place.read(&written.content).await?;
    dispose_savepoint(place.store.clone(), &place.root, place.clock.clone()).await?;
    assert_eq!(open().await.map_err(|error| error.kind()), Err(ErrorKind::Unavailable));
    assert!(place.files().await?.is_empty(), "nothing is left of a savepoint that was disposed of");
    Ok(())
}

fn fenced<T>(outcome: Result<T>) {
    match outcome {
        Ok(_) => panic!("whoever comes too late is fenced"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}"),
    }
}

impl Place {
    fn path(&self, relative: &str) -> Path {
        relative.split('/').fold(self.root.clone(), |path, part| path.join(part))
    }

    async fn open(&self) -> Result<CheckpointStore> {
        CheckpointStore::open(self.store.clone(), self.root.clone(), self.clock.clone()).await
    }

    async fn files(&self) -> Result<BTreeSet<String>> {
        let listed = self.store.list(Some(&self.root)).map_ok(|meta| meta.location.to_string());
        listed.try_collect().await.map_err(|error| store_error(format!("listing '{}'", self.root), error))
    }

    async fn checkpoint(&self, path: Arc<str>, number: u64) -> Result<CheckpointContent> {
        checkpoint(&self.store, &self.root, path, number, Vec::new(), Vec::new()).await
    }

    async fn publish(&self, writer: &mut Writer, checkpoint: u64) -> Result<()> {
        let content = self.checkpoint(writer.segment_path(checkpoint, 0), checkpoint).await?;
        writer.publish(content).await.map(drop)
    }

    async fn read(&self, content: &CheckpointContent) -> Result<()> {
        for operator in &content.operators {
            restored_state(self.store.as_ref(), &self.root, operator, 0, 1, operator.max_parallelism).await?;
        }
        Ok(())
    }
}

/// A checkpoint of one operator with one keyed state in one new segment, on top of older layers.
pub async fn checkpoint(
    store: &Arc<dyn ObjectStore>,
    root: &Path,
    path: Arc<str>,
    number: u64,
    older: Vec<StoredLayer>,
    mut segments: Vec<StoredSegment>,
) -> Result<CheckpointContent> {
    let key = Fields::from(vec![Field::new("c0", DataType::Int64, true)]);
    let schema = keyed_schema(&key, &Fields::empty());
    let descriptor = StateDescriptor { name: "count".to_owned(), kind: StateKind::Keyed, schema: schema.clone() };
    let keys = (0..5).map(|row| (row != 3).then(|| (number as i64) * 10 + row));
    let columns: [ArrayRef; 2] =
        [Arc::new(UInt32Array::from_iter_values([0, 1, 1, 4, 7])), Arc::new(keys.collect::<Int64Array>())];
    let rows = RecordBatch::try_new(schema, columns.into())?;
    let extent = if older.is_empty() { Extent::Whole } else { Extent::Changed };
    let mut writer = SegmentWriter::create(store.clone(), root, path);
    let mut layers = older;
    layers.push(writer.write_batches(extent, &descriptor, &[rows]).await?);
    segments.extend(writer.finish().await?);
    let states = vec![StoredState { descriptor, layers }];
    let operator = StoredOperator {
        id: OperatorId(7),
        name: "count".to_owned(),
        max_parallelism: GROUPS,
        subtasks: vec![StoredSubtask { index: 0, states }],
    };
    let operators = vec![operator];
    Ok(CheckpointContent { checkpoint: number, job: "job".to_owned(), segments, operators, ..Default::default() })
}
