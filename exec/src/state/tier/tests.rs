//! What the tier leaves behind, what its pages hold, and who has to make room.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use datafusion::execution::memory_pool::{FairSpillPool, UnboundedMemoryPool};
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use tidemill_core::ErrorKind;

use super::pages::Row;
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

fn put(range: &TierRange, group: u32, place: &[u8], value: &[u8]) {
    let mut writes = Writes::default();
    writes.put(&range.key(Family::Rows, group, place), value);
    range.write(writes).unwrap();
}

fn get(range: &TierRange, group: u32, place: &[u8]) -> Option<Vec<u8>> {
    range.get(&[range.key(Family::Rows, group, place)]).unwrap().remove(0).map(|value| value.to_vec())
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
    let mut visit = |group: u32, value: &[u8]| {
        seen.push((group, value.to_vec()));
        Ok(true)
    };
    moment.scan(Family::Rows, 1..3, &mut visit).unwrap();
    assert_eq!(seen, [(1, vec![1]), (2, vec![2])]);
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

/// Nothing is logged ahead: that the folder is gone is found out in the background, when a table is to be written there. Each write comes
/// after a pause, or all of them might be in memory before that.
#[test]
fn a_folder_that_goes_away_under_the_database_is_an_error_that_a_restart_may_help_against() {
    let dir = tempfile::tempdir().unwrap();
    // An eighth of it is for the database, and an eighth of that for a table.
    let memory: Arc<dyn MemoryPool> = Arc::new(FairSpillPool::new(8 << 20));
    let range = Tier::new([dir.path().to_owned()], memory).range().unwrap();
    put(&range, 0, b"k", b"1");
    std::fs::remove_dir_all(dir.path()).unwrap();
    let value = vec![7; 16 << 10];
    let failed = (0..200_u32).find_map(|number| {
        std::thread::sleep(std::time::Duration::from_millis(5));
        let mut writes = Writes::default();
        writes.put(&range.key(Family::Rows, 0, &number.to_be_bytes()), &value);
        range.write(writes).err()
    });
    let error = failed.unwrap();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let said = error.to_string();
    assert!(said.contains("cannot write state on local disk") && said.contains("io.tmp.dirs"), "{said}");
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
    assert_eq!((large.excess(80), small.excess(40)), (None, None));
    // What is left, or half of it all, whichever is more.
    assert_eq!((large.excess(81), small.excess(51)), (Some(80), Some(50)));
    drop(small);
    assert_eq!((large.excess(100), large.excess(101)), (None, Some(100)));
}

const GROUPS: u32 = 4;

/// A number as a key with its hash; some of them agree in it.
fn key(number: u32) -> (u64, Vec<u8>) {
    (xxhash_rust::xxh3::xxh3_64(&(number / 3).to_be_bytes()), format!("key {number}").into_bytes())
}

fn keys(numbers: impl IntoIterator<Item = u32>) -> RowKeys {
    let mut keys = RowKeys::default();
    numbers.into_iter().map(key).for_each(|(hash, key)| keys.push(Place::of(hash, GROUPS), &key));
    keys
}

/// So many rows from a place on, and where it goes on.
fn rows(pages: &Pages, from: &Cursor, count: usize) -> (Vec<[Vec<u8>; 2]>, Option<Cursor>) {
    let (mut seen, mut more) = (vec![], None);
    let mut visit = |row: Row<'_>| {
        if seen.len() == count {
            more = Some(row.cursor());
            return Ok(false);
        }
        seen.push([row.key.to_vec(), row.value.to_vec()]);
        Ok(true)
    };
    pages.scan(Family::Rows, from, &mut visit).unwrap();
    (seen, more)
}

type Numbers = BTreeSet<u32>;

/// Some numbers, and the length of what is put under them; `None` deletes.
fn writes() -> impl Strategy<Value = Vec<(Numbers, Option<usize>)>> {
    let numbers = btree_set(prop_oneof![0u32..40, 0u32..2000], 0..400);
    vec((numbers, prop_oneof![Just(None), Just(Some(30)), (1usize..300).prop_map(Some)]), 1..8)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn pages_hold_what_was_written_last(given in writes(), step in 1usize..500) {
        DISK.with(|(_, tier, _)| {
            let mut pages = Pages::new(tier.range().unwrap(), GROUPS);
            let mut model: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
            let mut before = vec![];
            for (round, (numbers, length)) in given.into_iter().enumerate() {
                before.push((pages.moment().unwrap(), model.clone()));
                let keys = keys(numbers.iter().copied());
                let value = |number: &u32| length.map(|length| vec![(round as u32 + number) as u8; length]);
                let mut values = Values::default();
                numbers.iter().filter_map(value).for_each(|value| values.push(&value));
                let new: Vec<bool> = numbers.iter().map(|number| !model.contains_key(number)).collect();
                let order: Vec<usize> = match length {
                    // Only what is there is deleted.
                    None => keys.order().into_iter().filter(|place| !new[*place]).collect(),
                    Some(_) => keys.order(),
                };
                pages.write(Family::Rows, &keys, &order, length.map(|_| &values), &|place| new[place]).unwrap();
                for number in &numbers {
                    match value(number) {
                        Some(value) => drop(model.insert(*number, value)),
                        None => drop(model.remove(number)),
                    }
                }
            }
            let wanted = keys((0..2000).step_by(7));
            let mut found = BTreeMap::new();
            pages.get(&wanted, &wanted.order(), &mut |place, row| {
                found.insert(place as u32 * 7, row.to_vec());
                Ok(())
            }).unwrap();
            let expected: BTreeMap<_, _> = model.clone().into_iter().filter(|(number, _)| number % 7 == 0).collect();
            prop_assert_eq!(found, expected);

            let by_key = |model: &BTreeMap<u32, Vec<u8>>| -> BTreeMap<_, _> {
                model.iter().map(|(number, value)| (key(*number).1, value.clone())).collect()
            };
            let (mut from, mut scanned) = (Some(Cursor::default()), vec![]);
            while let Some(cursor) = from {
                let (some, more) = rows(&pages, &cursor, step);
                scanned.extend(some);
                from = more;
            }
            prop_assert_eq!(scanned.len(), model.len());
            prop_assert_eq!(scanned.into_iter().map(|[key, value]| (key, value)).collect::<BTreeMap<_, _>>(), by_key(&model));
            for (moment, model) in before {
                let mut seen = BTreeMap::new();
                moment.rows(Family::Rows, 0..GROUPS, &mut |row| {
                    seen.insert(row.key.to_vec(), row.value.to_vec());
                    Ok(true)
                }).unwrap();
                prop_assert_eq!(seen, by_key(&model));
            }
            let groups = pages.portions(Family::Rows, 1 << 40);
            prop_assert_eq!(groups.is_empty(), model.is_empty());
            pages.clear(Family::Rows).unwrap();
            prop_assert!(rows(&pages, &Cursor::default(), 1).0.is_empty());
            Ok(())
        })?;
    }
}
