//! What the tier leaves behind, and who has to make room.

use std::path::Path;

use datafusion::execution::memory_pool::{FairSpillPool, UnboundedMemoryPool};

use super::*;

thread_local! {
    /// The tier of a test; its database stays open.
    static DISK: (TierRange, Tier, tempfile::TempDir) = {
        let dir = tempfile::tempdir().unwrap();
        let tier = tier(dir.path());
        let open = tier.range().unwrap();
        (open, tier, dir)
    };
}

/// The tier of this thread, whose state may occupy as much memory as it likes.
pub(crate) fn test_disk() -> Tier {
    DISK.with(|(_, tier, _)| tier.clone())
}

fn tier(dir: &Path) -> Tier {
    Tier::new([dir.to_owned()], Arc::new(UnboundedMemoryPool::default()))
}

fn folders(dir: &Path) -> usize {
    std::fs::read_dir(dir).unwrap().count()
}

fn put(range: &TierRange, group: u32, key: &[u8], value: &[u8]) {
    let keys = range.keys(Family::Rows, [(group, key)].into_iter());
    let mut rows = RowBatch::default();
    rows.put(keys.get(0), value);
    range.write(rows).unwrap();
}

fn get(range: &TierRange, group: u32, key: &[u8]) -> Option<Vec<u8>> {
    let keys = range.keys(Family::Rows, [(group, key)].into_iter());
    range.get(&keys, &[0]).unwrap().remove(0).map(|value| value.to_vec())
}

#[test]
fn the_database_is_there_only_while_somebody_has_rows_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let tier = tier(dir.path());
    assert_eq!(folders(dir.path()), 0);
    let (first, second) = (tier.range().unwrap(), tier.range().unwrap());
    assert_eq!(folders(dir.path()), 1);
    put(&first, 1, b"k", b"1");
    put(&second, 1, b"k", b"2");
    assert_eq!((get(&first, 1, b"k").unwrap(), get(&second, 1, b"k").unwrap()), (b"1".to_vec(), b"2".to_vec()));
    drop(first);
    assert_eq!(get(&second, 1, b"k").unwrap(), b"2");
    assert_eq!(folders(dir.path()), 1);
    drop(second);
    assert_eq!(folders(dir.path()), 0);
}

#[test]
fn a_moment_outlives_what_comes_after_it_and_whoever_wrote_it() {
    let dir = tempfile::tempdir().unwrap();
    let range = tier(dir.path()).range().unwrap();
    for group in 0..4 {
        put(&range, group, b"k", &[group as u8]);
    }
    let moment = range.moment().unwrap();
    put(&range, 2, b"k", b"new");
    range.clear(Family::Rows).unwrap();
    assert_eq!(get(&range, 1, b"k"), None);
    drop(range);
    let mut seen = vec![];
    let mut visit = |_: &[u8], group: u32, key: &[u8], value: &[u8]| {
        seen.push((group, key.to_vec(), value.to_vec()));
        Ok(true)
    };
    moment.scan(Family::Rows, 1..3, &mut visit).unwrap();
    assert_eq!(seen, [(1, b"k".to_vec(), vec![1]), (2, b"k".to_vec(), vec![2])]);
    drop(moment);
    assert_eq!(folders(dir.path()), 0);
}

#[test]
fn what_a_killed_process_left_behind_goes_and_what_belongs_to_somebody_stays() {
    let dir = tempfile::tempdir().unwrap();
    let leftover = dir.path().join("tidemill-state-1-0");
    std::fs::create_dir(&leftover).unwrap();
    std::fs::write(leftover.join("owner"), "").unwrap();
    let own = tier(dir.path()).range().unwrap();
    let other = tier(dir.path()).range().unwrap();
    assert!(!leftover.exists());
    put(&own, 0, b"k", b"1");
    assert_eq!((get(&own, 0, b"k").unwrap(), folders(dir.path())), (b"1".to_vec(), 2));
    drop((own, other));
}

#[test]
fn a_directory_that_cannot_be_written_is_named() {
    let error = tier(Path::new("/nonexistent/state")).range().unwrap_err().to_string();
    assert!(error.contains("/nonexistent/state") && error.contains("io.tmp.dirs"), "{error}");
}

#[test]
fn the_database_is_charged_to_the_memory_of_the_worker() {
    let dir = tempfile::tempdir().unwrap();
    let memory: Arc<dyn MemoryPool> = Arc::new(FairSpillPool::new(64 << 20));
    let range = Tier::new([dir.path().to_owned()], memory.clone()).range().unwrap();
    assert_eq!(memory.reserved(), 8 << 20);
    drop(range);
    assert_eq!(memory.reserved(), 0);
}

#[test]
fn whoever_holds_more_than_an_equal_share_makes_room_once_there_is_none() {
    let limits = Arc::new(Limits::of_bytes(Some(100)));
    let (mut large, mut small) = (Share::new(limits.clone()), Share::new(limits.clone()));
    large.note(60);
    small.note(20);
    assert_eq!((large.excess(80, 1.0), small.excess(40, 1.0)), (None, None));
    // What is left, or half of it all, whichever is more.
    assert_eq!((large.excess(81, 1.0), small.excess(51, 1.0)), (Some(80), Some(50)));
    assert_eq!((large.excess(80, 0.5), small.excess(25, 0.5)), (Some(30), None));
    drop(small);
    assert_eq!((large.excess(100, 1.0), large.excess(101, 1.0)), (None, Some(100)));
}
