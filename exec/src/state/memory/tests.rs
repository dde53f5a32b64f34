//! The laws of every backend, and what is the memory backend's own.

use std::sync::Arc;

use arrow::array::{Int64Array, StringArray};
use tidemill_core::state::CurrentKey;

use super::*;
use crate::state::StateRegistry;
use crate::state::conformance::GROUPS;
use crate::state::conformance::keyed_states_laws;

keyed_states_laws!(|keys: &Fields, max_parallelism: u32| -> Box<dyn KeyedStates> {
    Box::new(MemoryStates::new(keys, max_parallelism).unwrap())
});

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
    let saved = snapshot.map(|state| (state.descriptor, vec![StateLayer::Rows((state.encode)().unwrap())])).collect();
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
    let batches: Vec<RecordBatch> = snapshot.states.into_iter().flat_map(|state| (state.encode)().unwrap()).collect();
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
        removed.flat_map(|state| (state.encode)().unwrap()).map(|batch| batch.num_rows()).sum::<usize>()
    };
    assert_eq!([removed(&mut states, false), removed(&mut states, true), removed(&mut states, false)], [0, 100, 0]);
}
