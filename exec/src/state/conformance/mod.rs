//! The laws of [`KeyedStates`], which every backend keeps: one suite, run with what makes a backend's states.
//!
//! ```ignore
//! keyed_states_laws!(|keys, max_parallelism| Box::new(MemoryStates::new(keys, max_parallelism).unwrap()));
//! ```
//!
//! A history of rows, waits and rescalings, drawn at random, runs on the backend and on a plain map beside it (`model.rs`). What
//! a history reads has to be the same in both, and so has what is there at its end.

mod evolution;
mod job;
mod keys;
mod model;
mod namespaces;
pub mod snapshots;

use std::ops::Range;
use std::time::Duration;

use arrow::array::ArrayRef;
use proptest::prelude::*;
use tidemill_core::ErrorKind;
use tidemill_core::state::{
    CurrentKey, KeyedStates, RestoredState, SnapshotScope, StateDescriptor, StateLayer, StateTtl, TtlUpdate,
    TtlVisibility,
};

use crate::state::StateRegistry;
pub use evolution::{
    elements_may_cease_to_expire_and_not_begin_to, evolved_state_is_what_the_old_one_becomes,
    values_may_begin_or_cease_to_expire, what_no_old_value_becomes_is_refused,
};
use job::{Job, Subtask};
use keys::{Key, Shape, any_key, any_shape};
use model::{Model, Op, any_op, any_read};
pub use namespaces::{
    what_is_kept_for_a_key_in_a_namespace_goes_with_the_key, what_left_a_namespace_that_nobody_knows_is_carried_along,
};
use snapshots::layers;

/// Makes the states of a subtask whose keys have these columns, in so many key groups.
pub type Make<'a> = &'a dyn Fn(&arrow::datatypes::Fields, u32) -> Box<dyn KeyedStates>;

/// Key groups in these tests: few enough that keys share some.
pub const GROUPS: u32 = 16;

/// All laws as tests of the module in which it stands.
macro_rules! keyed_states_laws {
    ($make:expr) => {
        keyed_states_laws!($make; memory_grows_and_shrinks);
        keyed_states_laws!(wherever keys are: $make);
    };
    // Also of backends that move keys out of memory whenever they can.
    (wherever keys are: $make:expr) => {
        keyed_states_laws!($make;
            it_is_a_map_of_what_keys_remember,
            what_is_not_used_expires,
            changes_over_a_base_are_a_copy,
            a_slot_is_good_until_it_is_released,
            a_name_is_taken_once,
            other_columns_are_refused,
            what_nobody_registers_is_carried_along,
            rows_of_others_are_refused,
            what_is_kept_for_a_key_in_a_namespace_goes_with_the_key,
            what_left_a_namespace_that_nobody_knows_is_carried_along,
            evolved_state_is_what_the_old_one_becomes,
            what_no_old_value_becomes_is_refused,
            values_may_begin_or_cease_to_expire,
            elements_may_cease_to_expire_and_not_begin_to
        );
    };
    ($make:expr; $($law:ident),*) => {
        $(#[test]
        fn $law() {
            crate::state::conformance::$law(&$make);
        })*
    };
}
pub(crate) use keyed_states_laws;

/// One step of a history.
#[derive(Clone, Debug)]
enum Step {
    /// A batch of rows, each doing something with its key.
    Rows(Vec<(Key, Op)>),
    /// Time goes by.
    Wait(i64),
    /// What has expired is dropped.
    Sweep,
    /// A snapshot, and a restore with so many subtasks; the states are registered before it or after.
    Rescale { parallelism: usize, registered_before: bool },
    /// A snapshot: of everything the first time, then of changes.
    Checkpoint,
}

fn any_rows() -> impl Strategy<Value = Step> {
    prop::collection::vec((any_key(), any_op()), 1..12).prop_map(Step::Rows)
}

fn any_ttl() -> impl Strategy<Value = StateTtl> {
    (1..40u64, any::<bool>(), any::<bool>()).prop_map(|(millis, on_read, shows_expired)| {
        let ttl = StateTtl::new(Duration::from_millis(millis));
        let ttl = if on_read { ttl.with_update(TtlUpdate::OnReadAndWrite) } else { ttl };
        if shows_expired { ttl.with_visibility(TtlVisibility::ReturnExpiredIfNotCleanedUp) } else { ttl }
    })
}

fn rescale() -> impl Strategy<Value = Step> {
    (1..6usize, any::<bool>())
        .prop_map(|(parallelism, registered_before)| Step::Rescale { parallelism, registered_before })
}

/// Runs a history on a job and on its model.
fn run(make: Make<'_>, shape: Shape, ttl: Option<StateTtl>, history: &[Step]) -> Result<(), TestCaseError> {
    let mut job = Job::new(make, shape, ttl);
    let mut model = Model::new(ttl);
    for step in history {
        match step {
            Step::Rows(rows) => {
                let expected: Vec<_> = rows.iter().map(|(key, op)| model.apply(shape.folded(key), op)).collect();
                prop_assert_eq!(job.rows(rows), expected, "{:?}", step);
            }
            Step::Wait(millis) => {
                job.now_millis += millis;
                model.now_millis += millis;
            }
            Step::Sweep => {
                job.sweep();
                model.sweep();
            }
            Step::Rescale { parallelism, registered_before } => job.rescale(*parallelism, *registered_before),
            Step::Checkpoint => job.checkpoint(),
        }
    }
    job.sweep();
    model.sweep();
    prop_assert_eq!(job.len(), model.len());
    for key in shape.all_keys() {
        for read in Op::all_reads() {
            let expected = model.apply(shape.folded(&key), &read);
            prop_assert_eq!(job.rows(&[(key.clone(), read.clone())]), vec![expected], "{:?} of {:?}", read, key);
        }
    }
    prop_assert_eq!(job.len(), model.len(), "reading leaves nothing behind");
    prop_assert!(job.everyone_has_its_own_keys());
    Ok(())
}

/// Whatever is written, cleared, removed, saved and restored at any parallelism: nothing is lost and nothing is there twice.
pub fn it_is_a_map_of_what_keys_remember(make: Make<'_>) {
    let step = prop_oneof![6 => any_rows(), 2 => Just(Step::Checkpoint), 1 => rescale()];
    let history = prop::collection::vec(step, 0..16);
    proptest!(ProptestConfig::with_cases(192), |(shape in any_shape(), history in history)| {
        run(make, shape, None, &history)?;
    });
}

/// Entries expire after their time, each for itself, also across a restore.
pub fn what_is_not_used_expires(make: Make<'_>) {
    let rows = prop::collection::vec((any_key(), prop_oneof![any_op(), any_read()]), 1..10).prop_map(Step::Rows);
    let step = prop_oneof![6 => rows, 4 => (1..30i64).prop_map(Step::Wait), 1 => Just(Step::Sweep), 1 => rescale(),
                           1 => Just(Step::Checkpoint)];
    let history = prop::collection::vec(step, 0..24);
    proptest!(ProptestConfig::with_cases(192), |(shape in any_shape(), ttl in any_ttl(), history in history)| {
        run(make, shape, Some(ttl), &history)?;
    });
}

/// A base and the changes since, laid over one another, are what a copy holds; also when they are encoded later.
pub fn changes_over_a_base_are_a_copy(make: Make<'_>) {
    let step = prop_oneof![6 => any_rows(), 2 => Just(Step::Checkpoint), 1 => (1..30i64).prop_map(Step::Wait), 1 => Just(Step::Sweep)];
    let steps = prop::collection::vec(step, 0..20);
    let history = (prop::collection::vec(any_rows(), 0..3), steps);
    let ttl = prop::option::of(any_ttl());
    proptest!(ProptestConfig::with_cases(128), |(shape in any_shape(), ttl in ttl, (before, after) in history)| {
        let mut job = Job::new(make, shape, ttl);
        let step = |job: &mut Job<'_>, step: &Step| match step {
            Step::Rows(rows) => drop(job.rows(rows)),
            Step::Wait(millis) => job.now_millis += millis,
            Step::Sweep => job.sweep(),
            Step::Checkpoint => job.checkpoint(),
            Step::Rescale { .. } => {}
        };
        before.iter().for_each(|rows| step(&mut job, rows));
        prop_assert!(job.subtasks[0].states.snapshot(SnapshotScope::Changes).is_err());
        job.checkpoint();
        for next in &after {
            step(&mut job, next);
            // A savepoint in between changes nothing.
            drop(job.subtasks[0].states.snapshot(SnapshotScope::Copy).unwrap());
        }
        job.checkpoint();
        let copy = job.subtasks[0].states.snapshot(SnapshotScope::Copy).unwrap();
        prop_assert_eq!(job.folded_changes(), snapshots::rows(copy));
    });
}

/// Until it is released a slot stands for its key, whatever comes in between; then a removed key begins anew.
pub fn a_slot_is_good_until_it_is_released(make: Make<'_>) {
    let shape = Shape::Text;
    let mut subtask = Subtask::new(make(&shape.fields(), GROUPS), None);
    let key = |text: &str| -> Key { (None, Some(text.to_owned())) };
    let slot = subtask.lookup(shape, &[key("a")])[0];
    subtask.apply(slot, 0, &Op::Set("kept".to_owned()));
    subtask.states.remove(slot);
    let others: Vec<Key> = (0..100).map(|number| key(&number.to_string())).collect();
    let slots = subtask.lookup(shape, &others);
    assert!(!slots.contains(&slot), "a removed slot is not yet free");
    assert_eq!(subtask.lookup(shape, &[key("a")]), [slot]);
    assert_eq!(subtask.states.len(), 101);
    for (slot, key) in slots.iter().zip(&others) {
        let keys = subtask.states.keys(&[*slot]).unwrap();
        assert_eq!(keys, shape.columns(std::slice::from_ref(key)));
    }
    subtask.apply(slots[7], 0, &Op::Set("seven".to_owned()));
    subtask.states.release().unwrap();
    assert_eq!(subtask.states.len(), 1, "keys without state are forgotten");
    assert_eq!(
        subtask.find(shape, &[key("a"), key("7")]).iter().map(Option::is_some).collect::<Vec<_>>(),
        [false, true]
    );
    let slot = subtask.lookup(shape, &[key("a")])[0];
    assert_eq!(subtask.apply(slot, 0, &Op::Get), model::Seen::Text(None));
    // Memory of the slot is used again.
    subtask.states.release().unwrap();
    for round in 0..1000 {
        let slot = subtask.lookup(shape, &[key(&format!("round {round}"))])[0];
        assert!(slot < 200, "slot {slot}");
        subtask.states.release().unwrap();
    }
}

/// What is put into state shows in `memory_bytes`, and what is taken out no longer does.
pub fn memory_grows_and_shrinks(make: Make<'_>) {
    for shape in [Shape::Number, Shape::Text] {
        for op in [Op::Set("x".repeat(1000)), Op::Add(0, Some("x".repeat(1000))), Op::Put("x".repeat(1000), 7)] {
            let mut subtask = Subtask::new(make(&shape.fields(), GROUPS), None);
            let keys: Vec<Key> = (0..1000).map(|key| (Some(key), Some(format!("{key:0100}")))).collect();
            let empty = subtask.states.memory_bytes();
            let slots = subtask.lookup(shape, &keys);
            slots.iter().for_each(|slot| drop(subtask.apply(*slot, 0, &op)));
            subtask.states.release().unwrap();
            let full = subtask.states.memory_bytes();
            assert!(full > empty + 1_000_000, "{full} bytes with a megabyte, {empty} without");
            let slots = subtask.lookup(shape, &keys);
            slots.iter().for_each(|slot| subtask.states.remove(*slot));
            subtask.states.release().unwrap();
            let emptied = subtask.states.memory_bytes();
            assert!(emptied < full / 2 && subtask.states.is_empty(), "{emptied} bytes of {full}");
        }
    }
}

/// Two states of one name would be one in a checkpoint.
pub fn a_name_is_taken_once(make: Make<'_>) {
    let mut states = make(&Shape::Number.fields(), GROUPS);
    let mut registry = StateRegistry::new(states.as_mut());
    registry.value_state::<i64>("count").unwrap();
    let error = registry.list_state::<i64>("count").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Request);
    assert!(error.message().contains("'count'"), "{error}");
    registry.list_state::<i64>("counts").unwrap();
}

type SavedStates = Vec<(StateDescriptor, Vec<StateLayer>)>;

/// One key with a value in each of two states, saved.
fn saved(make: Make<'_>) -> (SavedStates, Vec<ArrayRef>) {
    let keys = Shape::Number.columns(&[(Some(3), None)]);
    let mut states = make(&Shape::Number.fields(), GROUPS);
    let mut registry = StateRegistry::new(states.as_mut());
    let (count, name) =
        (registry.value_state::<i64>("count").unwrap(), registry.value_state::<String>("name").unwrap());
    let slot = job::lookup(states.as_mut(), &keys)[0];
    let mut key = CurrentKey::new(states.as_mut(), slot, 0);
    count.set(&mut key, 7).unwrap();
    name.set(&mut key, "seven".to_owned()).unwrap();
    (layers([states.snapshot(SnapshotScope::Base).unwrap()]), keys)
}

fn restored(make: Make<'_>, key_groups: Range<u32>, states: SavedStates) -> Box<dyn KeyedStates> {
    let mut fresh = make(&Shape::Number.fields(), GROUPS);
    let mut state = RestoredState { key_groups, states };
    fresh.restore(&mut state).unwrap();
    assert!(state.states.is_empty(), "all of it is keyed");
    fresh
}

/// A state that comes back with another type is refused, and both are named; also where it has no rows.
pub fn other_columns_are_refused(make: Make<'_>) {
    let full = saved(make).0;
    let empty = full.iter().map(|(descriptor, _)| (descriptor.clone(), Vec::new())).collect();
    for saved in [full, empty] {
        let mut states = restored(make, 0..GROUPS, saved);
        let error = StateRegistry::new(states.as_mut()).value_state::<String>("count").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Request);
        for part in ["'count'", "value Int64", "value Utf8"] {
            assert!(error.message().contains(part), "{error}");
        }
    }
}

/// A state that is registered later, or never, is not lost.
pub fn what_nobody_registers_is_carried_along(make: Make<'_>) {
    let (first, keys) = saved(make);
    let mut states = restored(make, 0..GROUPS, first);
    let count = StateRegistry::new(states.as_mut()).value_state::<i64>("count").unwrap();
    let slot = job::lookup(states.as_mut(), &keys)[0];
    assert_eq!(count.get(&mut CurrentKey::new(states.as_mut(), slot, 0)).unwrap(), Some(&7));
    let second = layers([states.snapshot(SnapshotScope::Base).unwrap()]);
    let mut states = restored(make, 0..GROUPS, second);
    let name = StateRegistry::new(states.as_mut()).value_state::<String>("name").unwrap();
    let slot = job::lookup(states.as_mut(), &keys)[0];
    assert_eq!(name.get(&mut CurrentKey::new(states.as_mut(), slot, 0)).unwrap().map(String::as_str), Some("seven"));
}

/// Rows of key groups that a subtask does not own are not taken in silence.
pub fn rows_of_others_are_refused(make: Make<'_>) {
    let (states, keys) = saved(make);
    let mut fresh = make(&Shape::Number.fields(), GROUPS);
    let slot = job::lookup(fresh.as_mut(), &keys)[0];
    let group = fresh.key_group(slot);
    for groups in [0..group, group + 1..GROUPS] {
        let mut fresh = restored(make, groups, states.clone());
        let error = StateRegistry::new(fresh.as_mut()).value_state::<i64>("count").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    }
    let mut own = restored(make, group..group + 1, states);
    StateRegistry::new(own.as_mut()).value_state::<i64>("count").unwrap();
}
