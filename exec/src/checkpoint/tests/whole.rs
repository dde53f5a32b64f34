//! Which of the older checkpoints is good: the newest one of which all state can be read, not the manifest alone. What is shared
//! with others is damaged for all of them.

use tidemill_core::graph::OperatorId;
use tidemill_core::{ErrorKind, Result};

use super::*;

/// The newest good checkpoint before another one, and the number of the last manifest that names it.
async fn find(store: &Arc<dyn ObjectStore>, before: u64) -> Result<Option<(u64, u64)>> {
    let found = newest_whole(store.clone(), &root(), clock(), before).await?;
    Ok(found.map(|(checkpoint, manifest)| (checkpoint, manifest.filename().unwrap().parse().unwrap())))
}

/// A folder of four checkpoints, and the file of each.
///
/// | checkpoint | manifests | files |
/// | --- | --- | --- |
/// | 1 | 2 | its own |
/// | 2 | 3, and 4 of a process that took over | its own and that of 1 |
/// | 3 | 5 | its own |
/// | 4 | 6 | its own and that of 3 |
async fn four() -> (Arc<dyn ObjectStore>, [Path; 4]) {
    let store = memory();
    let mut writer = open(&store).await.unwrap().take_over(1).await.unwrap();
    let mut files = Vec::new();
    for number in 1..=4 {
        let before = writer.checkpoint().filter(|_| number % 2 == 0).cloned().unwrap_or_default();
        let layers = before.operators.first().map(|operator| operator.subtasks[0].states[0].layers.clone());
        let path = writer.segment_path(number, 0);
        files.push(Path::from(format!("{}/{path}", root())));
        let content = checkpoint(&store, path, number, layers.unwrap_or_default(), before.segments).await;
        writer.publish(content).await.unwrap();
        if number == 2 {
            writer = open(&store).await.unwrap().take_over(2).await.unwrap();
        }
    }
    (store, files.try_into().unwrap())
}

fn manifest(number: u64) -> Path {
    Path::from(format!("{}/manifests/{number:020}", root()))
}

/// What becomes of a file.
#[derive(Clone, Copy, Debug)]
enum Damage {
    BitFlips,
    EndIsMissing,
    IsMissing,
}

impl Damage {
    async fn strike(self, store: &dyn ObjectStore, file: &Path) {
        match self {
            Self::BitFlips => overwrite(store, file, |bytes| *bytes.last_mut().unwrap() ^= 1).await,
            Self::EndIsMissing => overwrite(store, file, |bytes| bytes.truncate(bytes.len() - 1)).await,
            Self::IsMissing => store.delete(file).await.unwrap(),
        }
    }
}

/// Files that are damaged, the checkpoint before which one is looked for, and the one that is found with its manifest.
type Case<'a> = (&'a [usize], u64, Option<(u64, u64)>);

#[test]
fn a_damaged_file_takes_along_every_checkpoint_that_needs_it() {
    run(async {
        let (store, files) = four().await;
        let cases: [Case<'_>; 9] = [
            (&[], 5, Some((4, 6))),
            (&[], 4, Some((3, 5))),
            (&[4], 4, Some((3, 5))),
            (&[3], 5, Some((2, 4))),
            (&[2, 3], 4, Some((1, 2))),
            (&[1, 3], 4, None),
            (&[1], 4, Some((3, 5))),
            (&[1], 3, None),
            (&[], 1, None),
        ];
        for damage in [Damage::BitFlips, Damage::EndIsMissing, Damage::IsMissing] {
            for (damaged, before, good) in &cases {
                let mut originals = Vec::new();
                for number in *damaged {
                    let file = &files[number - 1];
                    originals.push((file, store.get(file).await.unwrap().bytes().await.unwrap()));
                    damage.strike(&*store, file).await;
                }
                let found = find(&store, *before).await.unwrap();
                assert_eq!(found, *good, "{damage:?} of {damaged:?}, before checkpoint {before}");
                for (file, bytes) in originals {
                    store.put(file, bytes.into()).await.unwrap();
                }
            }
        }
    });
}

#[test]
fn a_checkpoint_whose_manifest_is_no_good_is_passed_over() {
    run(async {
        let (store, _) = four().await;
        overwrite(&*store, &manifest(5), |bytes| bytes[20] ^= 1).await;
        assert_eq!(find(&store, 4).await.unwrap(), Some((2, 4)));
        overwrite(&*store, &manifest(4), |bytes| {
            bytes.clear();
            crate::checkpoint::manifest::seal(bytes, 99);
        })
        .await;
        // There is an older one of the same checkpoint.
        assert_eq!(find(&store, 4).await.unwrap(), Some((2, 3)));
    });
}

/// The rows of two subtasks, in many chunks each.
#[test]
fn every_chunk_of_every_state_is_read() {
    run(async {
        let store = memory();
        let mut writer = open(&store).await.unwrap().take_over(1).await.unwrap();
        let descriptor = descriptor("state", StateKind::Keyed, &[0, 1]);
        let path = writer.segment_path(1, 0);
        let file = Path::from(format!("{}/{path}", root()));
        let mut segment = SegmentWriter::create(store.clone(), &root(), path).with_chunk_rows(40);
        let (mut subtasks, mut chunks, mut chance) = (Vec::new(), Vec::new(), Chance(3));
        for index in 0..2 {
            let batches = rows(&descriptor, &[0, 1], 150, index * 4..index * 4 + 4, &mut chance);
            let layer = segment.write_batches(Extent::Whole, &descriptor, &batches).await.unwrap();
            chunks.extend(layer.chunks.clone());
            let states = vec![StoredState { descriptor: descriptor.clone(), layers: vec![layer] }];
            subtasks.push(StoredSubtask { index, states });
        }
        let segments = vec![segment.finish().await.unwrap().unwrap()];
        let operator = StoredOperator { id: OperatorId(7), name: "sums".to_owned(), max_parallelism: 8, subtasks };
        let content = CheckpointContent { checkpoint: 1, operators: vec![operator], segments, ..Default::default() };
        writer.publish(content).await.unwrap();

        assert_eq!(find(&store, 2).await.unwrap(), Some((1, 2)));
        assert!(chunks.len() >= 8, "{} chunks", chunks.len());
        for chunk in &chunks {
            for place in [chunk.offset, chunk.offset + chunk.length - 1] {
                overwrite(&*store, &file, |bytes| bytes[place as usize] ^= 1).await;
                assert_eq!(find(&store, 2).await.unwrap(), None, "byte {place}");
                overwrite(&*store, &file, |bytes| bytes[place as usize] ^= 1).await;
            }
        }
        assert_eq!(find(&store, 2).await.unwrap(), Some((1, 2)));
    });
}

/// What is not to be had now may be whole: no older checkpoint takes its place.
#[test]
fn what_cannot_be_read_is_not_called_damaged() {
    run(async {
        let (store, _) = four().await;
        for withheld in ["manifests/00000000000000000005", "segments/"] {
            let silent: Arc<dyn ObjectStore> = Arc::new(Faulty::new(store.clone(), 1, 0).withholding(withheld));
            let error = find(&silent, 4).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{withheld}: {error}");
            assert!(error.message().contains(withheld), "{withheld}: {error}");
        }
    });
}
