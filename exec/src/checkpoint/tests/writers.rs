//! Who may write: one at a time, whatever gets lost on the way, and nothing that is needed is ever deleted.
//!
//! Writers run side by side on one thread over a store that fails and makes them wait as a seed says, so the seed is the
//! interleaving.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use object_store::local::LocalFileSystem;
use proptest::prelude::*;
use tidemill_core::sink::Fence;
use tidemill_core::{Error, ErrorKind};

use super::*;

async fn publish(store: &Arc<dyn ObjectStore>, writer: &mut Writer, checkpoint: u64) -> Result<(), Error> {
    let content = super::checkpoint(store, writer.segment_path(checkpoint, 0), checkpoint, vec![], vec![]).await;
    writer.publish(content).await.map(|_| ())
}

fn manifest_path(number: u64) -> Path {
    Path::from(format!("jobs/one/manifests/{number:020}"))
}

#[test]
fn memory_and_the_disk_keep_what_checkpoints_rely_on() {
    run(async {
        let scratch = tempfile::tempdir().unwrap();
        let local: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(scratch.path()).unwrap());
        for store in [memory(), local] {
            conformance::check_store(&store, &root(), &clock()).await.unwrap();
        }
    });
}

#[test]
fn who_comes_second_is_fenced_and_told_by_whom() {
    run(async {
        let store = memory();
        let mut first = open(&store).await.unwrap().take_over(1).await.unwrap();
        let tenure = first.tenure();
        tenure.check().await.unwrap();
        publish(&store, &mut first, 1).await.unwrap();
        tenure.check().await.unwrap();
        let late = open(&store).await.unwrap();
        let mut second = open(&store).await.unwrap().take_over(2).await.unwrap();
        for tenure in [tenure, first.tenure()] {
            assert_eq!(tenure.check().await.unwrap_err().kind(), ErrorKind::Cancelled);
        }
        let error = late.take_over(3).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
        let error = publish(&store, &mut first, 2).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
        expect_test::expect!["another writer has taken over the checkpoints in 'jobs/one' (generation 2, manifest 3); generation 1 comes too late with manifest 3; another process runs this job; only one of them can go on"]
            .assert_eq(&error.to_string());
        publish(&store, &mut second, 2).await.unwrap();
        second.tenure().check().await.unwrap();
    });
}

#[test]
fn who_takes_over_again_and_again_leaves_few_manifests_and_all_checkpoints() {
    run(async {
        let store = memory();
        let manifests = async || {
            let all = files(&*store).await;
            all.into_iter().filter(|file| file.contains("/manifests/")).collect::<Vec<_>>()
        };
        for nonce in 0..20 {
            open(&store).await.unwrap().take_over(nonce).await.unwrap();
        }
        assert!(manifests().await.len() <= 3, "{:?}", manifests().await);
        let mut writer = open(&store).await.unwrap().take_over(20).await.unwrap();
        publish(&store, &mut writer, 1).await.unwrap();
        publish(&store, &mut writer, 2).await.unwrap();
        let mut last = 0;
        for nonce in 21..40 {
            let found = open(&store).await.unwrap();
            assert_readable(&store, found.numbered(1).await.unwrap().as_ref().unwrap()).await;
            last = found.take_over(nonce).await.unwrap().newest().number;
        }
        assert!(manifests().await.len() <= 5, "{:?}", manifests().await);
        overwrite(&*store, &manifest_path(last), |bytes| bytes[20] ^= 1).await;
        let error = open(&store).await.unwrap_err();
        assert!(error.message().contains("the newest good one is checkpoint 2"), "{error}");
    });
}

/// The number that a sleeper wants is free again, as everything up to the newest manifest has been deleted.
#[test]
fn who_slept_through_a_retention_is_told_by_whom() {
    run(async {
        let store = memory();
        let mut sleeper = open(&store).await.unwrap().take_over(1).await.unwrap();
        publish(&store, &mut sleeper, 1).await.unwrap();
        let also_late = open(&store).await.unwrap();
        let mut winner = open(&store).await.unwrap().take_over(2).await.unwrap();
        for checkpoint in 2..6 {
            publish(&store, &mut winner, checkpoint).await.unwrap();
            winner.retain(1).await.unwrap();
        }
        let error = publish(&store, &mut sleeper, 9).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
        assert!(error.to_string().contains("generation 2, manifest 7"), "{error}");
        assert_eq!(also_late.take_over(3).await.unwrap_err().kind(), ErrorKind::Cancelled);
    });
}

#[test]
fn a_store_that_creates_no_name_only_once_takes_no_checkpoints() {
    run(async {
        let store: Arc<dyn ObjectStore> = Arc::new(Faulty::new(memory(), 1, 0).overwriting());
        let error = open(&store).await.unwrap().take_over(1).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Request, "nobody tries again: {error}");
        assert!(error.to_string().contains("the store creates no name only once"), "{error}");
        assert!(error.hint().unwrap().contains("keeps two writers of checkpoints apart"), "{error}");
    });
}

/// A store gives a file its name when it is whole; a process that died before left it under a hidden one.
#[test]
fn what_was_never_whole_is_removed_when_it_is_dead() {
    run(async {
        let store = memory();
        let mut writer = open(&store).await.unwrap().take_over(1).await.unwrap();
        publish(&store, &mut writer, 1).await.unwrap();
        let hidden = |checkpoint| {
            let path = writer.segment_path(checkpoint, 3);
            Path::from(format!("jobs/one/{}#7-1", path.replace("segments/", "segments/.")))
        };
        let (dead, under_way) = (hidden(1), hidden(2));
        for path in [&dead, &under_way] {
            store.put(path, "half".into()).await.unwrap();
        }
        writer.retain(1).await.unwrap();
        assert!(store.head(&dead).await.is_err() && store.head(&under_way).await.is_ok());
    });
}

#[test]
fn a_lost_reply_is_no_loss() {
    run(async {
        let faulty = Faulty::new(memory(), 1, 0);
        let store: Arc<dyn ObjectStore> = Arc::new(faulty.clone());
        faulty.plan(vec![(true, false)]);
        let mut writer = open(&store).await.unwrap().take_over(1).await.unwrap();
        let content = super::checkpoint(&store, writer.segment_path(1, 0), 1, vec![], vec![]).await;
        faulty.plan(vec![(false, false), (true, false), (true, false)]);
        assert_eq!(writer.publish(content.clone()).await.unwrap().number, 2);

        // Nothing gets through for longer than one is patient; then the same is asked for again.
        let content = CheckpointContent { checkpoint: 2, ..content };
        faulty.plan(vec![(false, false); 5]);
        assert_eq!(writer.publish(content.clone()).await.unwrap_err().kind(), ErrorKind::Unavailable);
        faulty.plan([vec![(true, false)], vec![(false, false); 4]].concat());
        assert_eq!(writer.publish(content.clone()).await.unwrap_err().kind(), ErrorKind::Unavailable);
        assert_eq!(writer.publish(content).await.unwrap().number, 3);
    });
}

#[test]
fn a_damaged_newest_manifest_is_an_error_that_names_the_good_one() {
    run(async {
        let store = memory();
        let mut writer = open(&store).await.unwrap().take_over(1).await.unwrap();
        publish(&store, &mut writer, 5).await.unwrap();
        publish(&store, &mut writer, 6).await.unwrap();
        overwrite(store.as_ref(), &manifest_path(3), |bytes| bytes.truncate(50)).await;
        let error = open(&store).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        expect_test::expect!["manifest 'jobs/one/manifests/00000000000000000003': 50 bytes that do not end like a manifest; the newest good one is checkpoint 5, manifest 'jobs/one/manifests/00000000000000000002'; restore the file; deleting it goes on from the good one, and what sinks have shown since may come again"]
            .assert_eq(&error.to_string());
        store.delete(&manifest_path(3)).await.unwrap();
        assert_eq!(open(&store).await.unwrap().checkpoint().unwrap().checkpoint, 5);

        overwrite(store.as_ref(), &manifest_path(2), |bytes| {
            bytes.clear();
            crate::checkpoint::manifest::seal(bytes, 2);
        })
        .await;
        let error = open(&store).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Request);
        assert!(
            error.to_string().contains("format version 2; this release reads up to 1; the newest good manifest is"),
            "{error}"
        );
        store.delete(&manifest_path(1)).await.unwrap();
        assert!(open(&store).await.unwrap_err().to_string().contains("there is no good one"));
    });
}

#[test]
fn files_of_others_are_left_alone() {
    run(async {
        let store = memory();
        let others = ["jobs/one/manifests/notes", "jobs/one/manifests/7", "jobs/one/segments/mine", "jobs/one/readme"];
        for path in others {
            store.put(&Path::from(path), "x".into()).await.unwrap();
        }
        let mut writer = open(&store).await.unwrap().take_over(1).await.unwrap();
        publish(&store, &mut writer, 1).await.unwrap();
        publish(&store, &mut writer, 2).await.unwrap();
        writer.retain(1).await.unwrap();
        let left = files(store.as_ref()).await;
        assert!(others.iter().all(|path| left.contains(&(*path).to_owned())));
        assert_eq!(left.len(), others.len() + 2);
    });
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// A checkpoint on top of the last, or one that stands for itself.
    Publish {
        is_incremental: bool,
    },
    /// Segments of a checkpoint that never completes.
    Abort,
    Retain(usize),
    Restart,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => any::<bool>().prop_map(|is_incremental| Step::Publish { is_incremental }),
        1 => Just(Step::Abort),
        2 => (1..4usize).prop_map(Step::Retain),
        1 => Just(Step::Restart),
    ]
}

/// What there is on a store: manifests by number, and segments.
async fn folder(store: &Arc<dyn ObjectStore>) -> (BTreeMap<u64, Manifest>, BTreeSet<String>) {
    let mut manifests = BTreeMap::new();
    let mut segments = BTreeSet::new();
    for file in files(store.as_ref()).await {
        if file.contains("/manifests/") {
            let bytes = store.get(&Path::from(file)).await.unwrap().bytes().await.unwrap();
            let manifest = crate::checkpoint::manifest::decode(&bytes).unwrap();
            manifests.insert(manifest.number, manifest);
        } else {
            segments.insert(file.trim_start_matches("jobs/one/").to_owned());
        }
    }
    (manifests, segments)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn retention_keeps_what_is_needed_and_nothing_else(steps in prop::collection::vec(any_step(), 1..30)) {
        run(async {
            let store = memory();
            let mut writer = open(&store).await.unwrap().take_over(0).await.unwrap();
            let mut number = 0;
            for (nonce, step) in (1..).zip(steps) {
                number += 1;
                match step {
                    Step::Publish { is_incremental } => {
                        let before = writer.checkpoint().filter(|_| is_incremental).cloned().unwrap_or_default();
                        let layers = before.operators.first().map(|operator| operator.subtasks[0].states[0].layers.clone());
                        let path = writer.segment_path(number, 0);
                        let layers = layers.unwrap_or_default();
                        let content = super::checkpoint(&store, path, number, layers, before.segments).await;
                        writer.publish(content).await.unwrap();
                    }
                    Step::Abort => {
                        super::checkpoint(&store, writer.segment_path(number, 0), number, vec![], vec![]).await;
                    }
                    Step::Retain(count) => {
                        writer.retain(count).await.unwrap();
                        let (manifests, segments) = folder(&store).await;
                        let kept: BTreeSet<u64> = manifests.values().map(|manifest| manifest.content.checkpoint).collect();
                        assert!(kept.iter().filter(|checkpoint| **checkpoint > 0).count() <= count);
                        let last = writer.newest().content.checkpoint;
                        let named = named(&manifests);
                        let under_way = |path: &str| path.split('-').nth(1).unwrap().parse::<u64>().unwrap() > last;
                        assert!(segments.iter().all(|path| named.contains(path) || under_way(path)));
                    }
                    Step::Restart => {
                        writer = open(&store).await.unwrap().take_over(nonce).await.unwrap();
                        let (manifests, segments) = folder(&store).await;
                        assert_eq!(segments, named(&manifests));
                    }
                }
                let (manifests, segments) = folder(&store).await;
                assert!(named(&manifests).is_subset(&segments));
                assert_eq!(manifests.last_key_value().unwrap().1, writer.newest());
            }
            assert_readable(&store, &writer.newest().content).await;
        });
    }

    #[test]
    fn of_several_writers_one_wins_each_number(seed in any::<u64>(), writers in 2..4u64, fails_one_in in prop_oneof![Just(0u64), 4..40u64]) {
        run(async {
            let store = memory();
            let faulty: Arc<dyn ObjectStore> = Arc::new(Faulty::new(store.clone(), seed, fails_one_in));
            let log = RefCell::new(BTreeMap::new());
            let lives = (0..writers).map(|writer| live(&store, &faulty, writer, seed, &log));
            futures::future::join_all(lives).await;

            // What is there now is what was confirmed last, or something that came after it.
            let log = log.into_inner();
            let (manifests, segments) = folder(&store).await;
            let newest = open(&store).await.unwrap();
            if let Some((number, (_, checkpoint))) = log.last_key_value() {
                let newest = newest.newest().unwrap();
                assert!(newest.number >= *number && newest.content.checkpoint >= *checkpoint);
                assert_readable(&store, &newest.content).await;
            }
            for (number, (nonce, _)) in &log {
                let kept = manifests.get(number).filter(|manifest| manifest.nonce == *nonce);
                assert!(kept.is_none_or(|kept| kept.content.segments.iter().all(|segment| segments.contains(&*segment.path))));
            }
            // One that comes afterwards, without faults, cleans up.
            let mut last = newest.take_over(u64::MAX).await.unwrap();
            last.retain(1).await.unwrap();
            let (manifests, segments) = folder(&store).await;
            assert!(manifests.len() == 1 && segments == named(&manifests));
        });
    }
}

fn named(manifests: &BTreeMap<u64, Manifest>) -> BTreeSet<String> {
    let segments = manifests.values().flat_map(|manifest| &manifest.content.segments);
    segments.map(|segment| segment.path.to_string()).collect()
}

/// Confirmed manifests: their number, the nonce of their writer, their checkpoint.
type Log = RefCell<BTreeMap<u64, (u64, u64)>>;

/// A process that is restarted a few times and does checkpoints until it is fenced or loses touch.
async fn live(store: &Arc<dyn ObjectStore>, faulty: &Arc<dyn ObjectStore>, writer: u64, seed: u64, log: &Log) {
    let mut chance = Chance(seed ^ (writer + 1).wrapping_mul(0x1234_5678_9abc_def1));
    for life in 0..4 {
        let nonce = writer * 100 + life + 1;
        let Ok(found) = open(faulty).await else { continue };
        let Ok(mut writer) = found.take_over(nonce).await else { continue };
        confirm(log, writer.newest());
        for _ in 0..chance.below(6) {
            let before = writer.checkpoint().filter(|_| chance.one_in(2)).cloned().unwrap_or_default();
            let layers = before.operators.first().map(|operator| operator.subtasks[0].states[0].layers.clone());
            let number = writer.newest().content.checkpoint + 1 + chance.below(2);
            let path = writer.segment_path(number, 0);
            let layers = layers.unwrap_or_default();
            let content = conformance::checkpoint(faulty, &root(), path, number, layers, before.segments).await;
            let Ok(content) = content else { continue };
            match writer.publish(content).await {
                Ok(manifest) => {
                    confirm(log, manifest);
                    assert_newest_readable(store).await;
                }
                Err(error) if error.kind() == ErrorKind::Cancelled => break,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
                    break;
                }
            }
            if chance.one_in(2) {
                let _ = writer.retain(1 + chance.below(3) as usize).await;
                assert_newest_readable(store).await;
            }
            for _ in 0..chance.below(30) {
                tokio::task::yield_now().await;
            }
        }
    }
}

/// Every number is confirmed to one writer at most, and no later manifest forgets a checkpoint that was confirmed before it.
fn confirm(log: &Log, manifest: &Manifest) {
    let mut log = log.borrow_mut();
    let checkpoint = manifest.content.checkpoint;
    if let Some(before) = log.range(..manifest.number).next_back() {
        assert!(before.1.1 <= checkpoint, "manifest {} forgets checkpoint {}", manifest.number, before.1.1);
    }
    assert!(
        log.insert(manifest.number, (manifest.nonce, checkpoint)).is_none(),
        "number {} was won twice",
        manifest.number
    );
}

async fn assert_newest_readable(store: &Arc<dyn ObjectStore>) {
    let newest = open(store).await.unwrap();
    assert_readable(store, &newest.newest().unwrap().content).await;
}
