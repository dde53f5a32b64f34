//! The laws of every backend, and what is the memory backend's own.

use std::sync::Arc;

use arrow::array::{AsArray, Int64Array, RecordBatch, StringArray, UInt32Array};
use arrow::compute::{concat_batches, take};
use arrow::datatypes::{Int64Type, UInt32Type};
use tidemill_core::key::{groups_of, hash_columns};
use tidemill_core::settings::BackendType;
use tidemill_core::state::{CurrentKey, Extent, FrozenState, ListState, StateBackend, ValueState, rows_of_groups};

use super::*;
use crate::state::conformance::GROUPS;
use crate::state::conformance::keyed_states_laws;
use crate::state::conformance::snapshots::{Rows, fold, layers, rows};
use crate::state::tier::test_disk;
use crate::state::{StateRegistry, TieredBackend};

/// Everything in memory, without anything behind it.
mod alone {
    use super::*;

    keyed_states_laws!(|keys: &Fields, max_parallelism: u32| -> Box<dyn KeyedStates> {
        Box::new(MemoryStates::new(keys, max_parallelism).unwrap())
    });
}

/// `memory`, with room for everything and with none at all.
mod memory {
    use super::*;

    keyed_states_laws!(|keys: &Fields, groups: u32| states_of(BackendType::Memory, keys, groups, None));

    mod without_room {
        use super::*;

        keyed_states_laws!(wherever keys are: |keys: &Fields, groups: u32| states_of(BackendType::Memory, keys, groups, Some(0)));
    }

    mod with_little_room {
        use super::*;

        keyed_states_laws!(wherever keys are: |keys: &Fields, groups: u32| states_of(BackendType::Memory, keys, groups, Some(4096)));
    }
}

/// `filesystem`, likewise.
mod filesystem {
    use super::*;

    keyed_states_laws!(|keys: &Fields, groups: u32| states_of(BackendType::Filesystem, keys, groups, None));

    mod without_room {
        use super::*;

        keyed_states_laws!(wherever keys are: |keys: &Fields, groups: u32| states_of(BackendType::Filesystem, keys, groups, Some(0)));
    }

    mod with_little_room {
        use super::*;

        keyed_states_laws!(wherever keys are: |keys: &Fields, groups: u32| states_of(BackendType::Filesystem, keys, groups, Some(4096)));
    }
}

/// `rocksdb`, likewise.
mod rocksdb {
    use super::*;

    keyed_states_laws!(|keys: &Fields, groups: u32| states_of(BackendType::RocksDb, keys, groups, None));

    mod without_room {
        use super::*;

        keyed_states_laws!(wherever keys are: |keys: &Fields, groups: u32| states_of(BackendType::RocksDb, keys, groups, Some(0)));
    }

    mod with_little_room {
        use super::*;

        keyed_states_laws!(wherever keys are: |keys: &Fields, groups: u32| states_of(BackendType::RocksDb, keys, groups, Some(8192)));
    }
}

/// States of a backend that may hold so many bytes of memory before keys leave it.
fn states_of(backend: BackendType, keys: &Fields, groups: u32, bytes: Option<usize>) -> Box<dyn KeyedStates> {
    let backend = TieredBackend { max_parallelism: groups, tier: test_disk().limited(bytes), backend };
    backend.keyed_states(keys).unwrap()
}

#[test]
fn without_a_key_there_is_one_slot() {
    let mut states = MemoryStates::new(&Fields::empty(), GROUPS).unwrap();
    let count = StateRegistry::new(&mut states).value_state::<i64>("count").unwrap();
    let mut slots = vec![];
    states.lookup(&[], &hash_columns(&[], 3).unwrap(), &mut slots).unwrap();
    assert_eq!(slots, [0, 0, 0]);
    count.set(&mut CurrentKey::new(&mut states, 0, 0), 3).unwrap();
    states.release().unwrap();

    let snapshot = states.snapshot(SnapshotScope::Copy).unwrap().states.into_iter();
    let saved = snapshot
        .map(|state| {
            let (descriptor, batches) = (state.descriptor.clone(), state.rows().unwrap());
            // What is stored is read for years.
            assert_eq!(batches[0].column(0).as_primitive::<UInt32Type>().values(), &[0]);
            (descriptor, vec![StateLayer::Rows(batches.into())])
        })
        .collect();
    let mut fresh = MemoryStates::new(&Fields::empty(), GROUPS).unwrap();
    fresh.restore(&mut RestoredState { key_groups: 0..GROUPS, states: saved }).unwrap();
    let count = StateRegistry::new(&mut fresh).value_state::<i64>("count").unwrap();
    assert_eq!(count.get(&mut CurrentKey::new(&mut fresh, 0, 0)).unwrap(), Some(&3));
}

#[test]
fn state_is_columns_that_can_be_read() {
    let keys = Fields::from(vec![Field::new("user", DataType::Utf8, false)]);
    let mut states = MemoryStates::new(&keys, 4).unwrap();
    let mut registry = StateRegistry::new(&mut states);
    let seen = registry.map_state::<String, u32>("pages").unwrap();
    let users: Vec<ArrayRef> = vec![Arc::new(StringArray::from(vec!["ann", "bob"]))];
    let mut slots = vec![];
    states.lookup(&users, &hash_columns(&users, 2).unwrap(), &mut slots).unwrap();
    for (slot, page) in [(0, "home"), (1, "home"), (1, "cart")] {
        seen.put(&mut CurrentKey::new(&mut states, slots[slot], 0), page.to_owned(), page.len() as u32).unwrap();
    }
    let snapshot = states.snapshot(SnapshotScope::Copy).unwrap();
    let batches: Vec<RecordBatch> = snapshot.states.into_iter().flat_map(|state| state.rows().unwrap()).collect();
    expect_test::expect![[r#"
        +-----------+------+--------------------+
        | key_group | user | entries            |
        +-----------+------+--------------------+
        | 0         | ann  | {home: 4}          |
        | 1         | bob  | {cart: 4, home: 4} |
        +-----------+------+--------------------+"#]]
    .assert_eq(&arrow::util::pretty::pretty_format_batches(&batches).unwrap().to_string());
}

#[test]
fn a_sweep_goes_on_where_the_last_one_ended() {
    let keys = Fields::from(vec![Field::new("k", DataType::Int64, true)]);
    let mut states = MemoryStates::new(&keys, 128).unwrap();
    let ttl = StateTtl::new(std::time::Duration::from_millis(10));
    let value = StateRegistry::new(&mut states).with_ttl(ttl).value_state::<i64>("value").unwrap();
    let numbers: Vec<ArrayRef> = vec![Arc::new(Int64Array::from_iter_values(0..100))];
    let mut slots = vec![];
    states.lookup(&numbers, &hash_columns(&numbers, 100).unwrap(), &mut slots).unwrap();
    slots.iter().for_each(|slot| value.set(&mut CurrentKey::new(&mut states, *slot, 0), 1).unwrap());
    states.release().unwrap();
    assert_eq!(states.expire(9, 1000).unwrap(), 0);
    for left in [70, 40, 10, 0, 0] {
        states.expire(10, 30).unwrap();
        states.release().unwrap();
        assert_eq!(states.len(), left);
    }
}

#[test]
fn what_was_never_stored_need_not_be_removed() {
    let keys = Fields::from(vec![Field::new("k", DataType::Int64, true)]);
    let mut states = MemoryStates::new(&keys, 128).unwrap();
    let value = StateRegistry::new(&mut states).value_state::<i64>("value").unwrap();
    states.snapshot(SnapshotScope::Base).unwrap();
    let numbers: Vec<ArrayRef> = vec![Arc::new(Int64Array::from_iter_values(0..100))];
    let removed = |states: &mut MemoryStates, stored: bool| {
        let mut slots = vec![];
        states.lookup(&numbers, &hash_columns(&numbers, 100).unwrap(), &mut slots).unwrap();
        slots.iter().for_each(|slot| value.set(&mut CurrentKey::new(states, *slot, 0), 1).unwrap());
        if stored {
            states.snapshot(SnapshotScope::Changes).unwrap();
        }
        slots.iter().for_each(|slot| states.remove(*slot));
        states.release().unwrap();
        let snapshot = states.snapshot(SnapshotScope::Changes).unwrap();
        let removed = snapshot.states.into_iter().filter(|state| state.extent == Extent::Removed);
        removed.flat_map(|state| state.rows().unwrap()).map(|batch| batch.num_rows()).sum::<usize>()
    };
    assert_eq!([removed(&mut states, false), removed(&mut states, true), removed(&mut states, false)], [0, 100, 0]);
}

/// A backend and how many bytes of memory it has.
type Place = (BackendType, Option<usize>);

/// A hundred thousand changes of ten thousand keys with a value and a list each, at random and more of some than of others.
struct Work {
    states: Box<dyn KeyedStates>,
    count: ValueState<i64>,
    texts: ListState<String>,
    random: u64,
    held_max: usize,
}

impl Work {
    fn new(place: Place) -> Self {
        let keys = Fields::from(vec![Field::new("k0", DataType::Int64, true)]);
        let mut states = states_of(place.0, &keys, GROUPS, place.1);
        let mut registry = StateRegistry::new(states.as_mut());
        let count = registry.value_state("count").unwrap();
        let texts = registry.list_state("texts").unwrap();
        Self { states, count, texts, random: 1, held_max: 0 }
    }

    /// A number below `end`, small ones more often.
    fn random(&mut self, end: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let uniform = self.random >> 33;
        if self.random & (1 << 32) == 0 { uniform % end } else { uniform % (end / 8) }
    }

    fn run(&mut self, batches: usize) {
        for _ in 0..batches {
            let keys: Vec<i64> = (0..500).map(|_| self.random(10_000) as i64).collect();
            let columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(keys.clone()))];
            let mut slots = vec![];
            self.states.lookup(&columns, &hash_columns(&columns, keys.len()).unwrap(), &mut slots).unwrap();
            for (key, slot) in keys.iter().zip(slots) {
                let what = self.random(64);
                if what == 0 {
                    self.states.remove(slot);
                    continue;
                }
                let current = &mut CurrentKey::new(self.states.as_mut(), slot, 0);
                self.count.update(current, |count| count.unwrap_or(0) + key).unwrap();
                match what {
                    1..30 => self.texts.add(current, format!("text {what} of {key}")).unwrap(),
                    30..40 => self.texts.clear(current).unwrap(),
                    _ => {}
                }
            }
            self.states.release().unwrap();
            self.held_max = self.held_max.max(self.states.memory_bytes());
        }
    }

    fn rows(&mut self) -> Rows {
        rows(self.states.snapshot(SnapshotScope::Copy).unwrap())
    }
}

const EVERYTHING: Place = (BackendType::Memory, None);

/// The backends with a quarter of the memory that the state of [`Work`] occupies.
fn quarters() -> [Place; 3] {
    let mut work = Work::new(EVERYTHING);
    work.run(200);
    let quarter = work.states.memory_bytes() / 4;
    assert!(quarter > 100_000, "{quarter}");
    [BackendType::Memory, BackendType::Filesystem, BackendType::RocksDb].map(|backend| (backend, Some(quarter)))
}

#[test]
fn a_quarter_of_the_memory_is_enough() {
    let mut expected = Work::new(EVERYTHING);
    expected.run(200);
    let keys = expected.states.len();
    let rows = expected.rows();
    for place in quarters() {
        let mut work = Work::new(place);
        work.run(200);
        let (held, quarter) = (work.held_max, place.1.unwrap());
        assert!(held <= quarter, "{held} bytes in memory, of {quarter}");
        assert_eq!(work.states.len(), keys);
        assert!(work.rows() == rows, "{place:?}");
        // All of them at once, whatever it costs, and out again.
        let mut slots = vec![];
        work.states.all(&mut slots).unwrap();
        assert_eq!((slots.len(), work.states.len()), (keys, keys));
        work.states.give_back(usize::MAX).unwrap();
        assert!(work.states.memory_bytes() < quarter / 4, "{}", work.states.memory_bytes());
        assert!(work.rows() == rows, "{place:?}");
    }
}

#[test]
fn what_is_given_back_is_free_however_little() {
    for place in quarters() {
        let mut work = Work::new(place);
        work.run(100);
        let rows = work.rows();
        for part in [50, 10, 3] {
            let held = work.states.memory_bytes();
            work.states.give_back(held / part).unwrap();
            let left = work.states.memory_bytes();
            assert!(left <= held - held / part, "{place:?}: {left} bytes of {held} are left, wanted was one in {part}");
        }
        assert!(work.rows() == rows, "{place:?}");
    }
}

#[test]
fn changes_are_all_there_wherever_keys_went() {
    for place in quarters() {
        let mut work = Work::new(place);
        work.run(50);
        let mut folded = Rows::new();
        for round in 0..6 {
            let scope = if round == 0 { SnapshotScope::Base } else { SnapshotScope::Changes };
            let snapshot = work.states.snapshot(scope).unwrap();
            // It is encoded when much has happened since.
            work.run(20);
            folded = fold(folded, snapshot);
        }
        let last = work.states.snapshot(SnapshotScope::Changes).unwrap();
        assert!(fold(folded, last) == work.rows(), "{place:?}");
    }
}

#[test]
fn a_checkpoint_holds_what_changed_and_no_more_wherever_it_is() {
    for place in quarters() {
        let mut work = Work::new(place);
        work.run(200);
        work.states.snapshot(SnapshotScope::Base).unwrap();
        for _ in 0..3 {
            let columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from_iter_values((0..10_000).step_by(100)))];
            let mut slots = vec![];
            work.states.lookup(&columns, &hash_columns(&columns, 100).unwrap(), &mut slots).unwrap();
            slots.iter().for_each(|slot| {
                work.count.set(&mut CurrentKey::new(work.states.as_mut(), *slot, 0), 7).unwrap();
            });
            // Some of them leave before the snapshot.
            work.states.give_back(work.states.memory_bytes() / 2).unwrap();
            let states = work.states.snapshot(SnapshotScope::Changes).unwrap().states.into_iter();
            let rows = |state: FrozenState| state.rows().unwrap().iter().map(RecordBatch::num_rows).sum::<usize>();
            assert_eq!(states.map(rows).sum::<usize>(), 100, "{place:?}");
        }
    }
}

#[test]
fn a_savepoint_has_each_key_once_wherever_it_is() {
    for place in quarters() {
        let mut work = Work::new(place);
        work.run(100);
        work.states.snapshot(SnapshotScope::Base).unwrap();
        work.run(20);
        let mut seen = std::collections::BTreeSet::new();
        for state in work.states.snapshot(SnapshotScope::Copy).unwrap().states {
            let (name, extent) = (state.descriptor.name.clone(), state.extent);
            for batch in state.rows().unwrap() {
                assert!(extent != Extent::Removed, "nothing is taken back");
                let keys = batch.column(1).as_primitive::<Int64Type>().values().iter();
                keys.for_each(|key| assert!(seen.insert((name.clone(), *key)), "{key}"));
            }
        }
        assert!(!seen.is_empty());
    }
}

#[test]
fn what_one_backend_saved_any_other_restores_with_a_quarter_of_the_memory() {
    let quarters = quarters();
    let places = || [EVERYTHING].into_iter().chain(quarters);
    for from in places() {
        let mut work = Work::new(from);
        work.run(100);
        let mut snapshots = vec![work.states.snapshot(SnapshotScope::Base).unwrap()];
        work.run(100);
        snapshots.push(work.states.snapshot(SnapshotScope::Changes).unwrap());
        let (saved, expected) = (layers(snapshots), work.rows());
        for to in places() {
            let mut restored = Rows::new();
            for subtask in 0..2 {
                let own = groups_of(subtask, 2, GROUPS);
                let cut = |batches: Vec<RecordBatch>| {
                    batches.iter().map(|batch| rows_of_groups(batch, &own).unwrap()).collect()
                };
                let cut = |layer: &StateLayer| layer.map(cut).unwrap();
                let states =
                    saved.iter().map(|(state, layers)| (state.clone(), layers.iter().map(cut).collect())).collect();
                let mut fresh = Work::new(to);
                fresh.states.restore(&mut RestoredState { key_groups: own.clone(), states }).unwrap();
                if let Some(quarter) = to.1 {
                    assert!(fresh.states.memory_bytes() < quarter / 2 * 3, "{}", fresh.states.memory_bytes());
                }
                restored.extend(fresh.rows());
            }
            assert!(restored == expected, "from {from:?} to {to:?}");
        }
    }
}

#[test]
fn a_key_that_stands_in_a_layer_again_is_there_once_and_the_last_counts() {
    let mut work = Work::new(EVERYTHING);
    work.run(200);
    let (expected, count) = (work.rows(), work.states.len());
    let saved = layers([work.states.snapshot(SnapshotScope::Copy).unwrap()]);
    // The same keys with values of others.
    let older = |batch: &RecordBatch| {
        let backwards = UInt32Array::from_iter_values((0..batch.num_rows() as u32).rev());
        let mut columns = batch.columns().to_vec();
        columns[2..].iter_mut().for_each(|column| *column = take(column, &backwards, None).unwrap());
        RecordBatch::try_new(batch.schema(), columns).unwrap()
    };
    let both = |one: &[RecordBatch], other: &[RecordBatch]| {
        let batches: Vec<&RecordBatch> = one.iter().chain(other).collect();
        vec![concat_batches(&batches[0].schema(), batches).unwrap()]
    };
    type Layout<'a> = (&'static str, &'a dyn Fn(Vec<RecordBatch>, Vec<RecordBatch>) -> Vec<Vec<RecordBatch>>);
    let layouts: [Layout<'_>; 6] = [
        ("one layer over the other", &|old, new| vec![old, new]),
        ("in one layer", &|old, new| vec![[old, new].concat()]),
        ("in one batch", &|old, new| vec![both(&old, &new)]),
        ("twice", &|_, new| vec![new.clone(), [new.clone(), new].concat()]),
        ("in pieces", &|_, new| {
            let piece = |batch: &RecordBatch, at: usize| batch.slice(at, 7.min(batch.num_rows() - at));
            vec![new.iter().flat_map(|batch| (0..batch.num_rows()).step_by(7).map(|at| piece(batch, at))).collect()]
        }),
        ("backwards", &|_, new| {
            let pieces = new.iter().flat_map(|batch| (0..batch.num_rows()).rev().map(|at| batch.slice(at, 1)));
            vec![pieces.collect()]
        }),
    ];
    for place in [EVERYTHING].into_iter().chain(quarters()) {
        for (name, layout) in &layouts {
            let states = saved.iter().map(|(state, layers)| {
                let new: Vec<RecordBatch> = layers[0].rows().decode().unwrap();
                let layers = layout(new.iter().map(older).collect(), new);
                (state.clone(), layers.into_iter().map(|rows| StateLayer::Rows(rows.into())).collect())
            });
            let mut fresh = Work::new(place);
            fresh.states.restore(&mut RestoredState { key_groups: 0..GROUPS, states: states.collect() }).unwrap();
            assert_eq!(fresh.states.len(), count, "{name} in {place:?}");
            assert!(fresh.rows() == expected, "{name} in {place:?}");
        }
    }
}

#[test]
fn what_expires_outside_leaves_the_disk() {
    for backend in [BackendType::Memory, BackendType::Filesystem, BackendType::RocksDb] {
        let keys = Fields::from(vec![Field::new("k0", DataType::Int64, true)]);
        let mut states = states_of(backend, &keys, GROUPS, Some(0));
        let ttl = StateTtl::new(std::time::Duration::from_millis(10));
        let value = StateRegistry::new(states.as_mut()).with_ttl(ttl).value_state::<i64>("value").unwrap();
        let numbers: Vec<ArrayRef> = vec![Arc::new(Int64Array::from_iter_values(0..5000))];
        let mut slots = vec![];
        states.lookup(&numbers, &hash_columns(&numbers, 5000).unwrap(), &mut slots).unwrap();
        for (place, slot) in slots.into_iter().enumerate() {
            value.set(&mut CurrentKey::new(states.as_mut(), slot, i64::from(place >= 4000)), 1).unwrap();
        }
        states.release().unwrap();
        for _ in 0..6 {
            states.expire(10, 1024).unwrap();
            states.release().unwrap();
        }
        assert_eq!(states.len(), 1000);
        states.expire(11, usize::MAX).unwrap();
        states.release().unwrap();
        assert_eq!((states.len(), rows(states.snapshot(SnapshotScope::Copy).unwrap()).len()), (0, 0));
    }
}

#[test]
fn keys_outside_are_far_until_they_are_looked_up() {
    let mut work = Work::new((BackendType::Memory, Some(64 << 10)));
    let columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from_iter_values(0..500))];
    let hashes = hash_columns(&columns, 500).unwrap();
    let near = |states: &mut dyn KeyedStates| {
        let (mut slots, mut far) = (vec![], vec![]);
        states.lookup_near(&columns, &hashes, &mut slots, &mut far).unwrap();
        assert_eq!(slots.len() + far.len(), 500);
        far
    };
    assert_eq!((work.states.backlog().bytes, near(work.states.as_mut()).len()), (0, 0));
    work.run(50);
    let far = near(work.states.as_mut());
    assert_eq!(work.states.backlog().bytes, 16 << 10);
    assert!(!far.is_empty());
    // To ask does not bring them in.
    assert_eq!(near(work.states.as_mut()), far);
    let mut slots = vec![];
    work.states.lookup(&columns, &hashes, &mut slots).unwrap();
    assert!(near(work.states.as_mut()).is_empty());
    work.states.give_back(usize::MAX).unwrap();
    assert_eq!(near(work.states.as_mut()).len(), 500);
}
