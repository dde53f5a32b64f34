//! Keys in namespaces: each has cells of its own there, and all of a key's are where the key is.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Fields};
use proptest::prelude::*;
use tidemill_core::key::{groups_of, hash_columns, key_group, subtask_of};
use tidemill_core::state::{
    CurrentKey, KeyedStates, RestoredState, Snapshot, SnapshotScope, StateDescriptor, StateLayer, StateScope,
    ValueState, key_hashes, namespace, rows_of_groups,
};

use super::snapshots::{encode, layers_unchecked};
use super::{GROUPS, Make};
use crate::state::StateRegistry;

/// A key, and a window that it is in.
type Place = (usize, i64);

const KEYS: [&str; 5] = ["", "a", "b", "a longer one than fits", "c"];

/// A step of a history.
#[derive(Clone, Debug)]
enum Step {
    Set(Place, i64),
    Clear(Place),
    Checkpoint,
    Rescale(usize),
}

fn any_step() -> impl Strategy<Value = Step> {
    let place = || (0..KEYS.len(), -2..3i64);
    prop_oneof![
        6 => (place(), any::<i64>()).prop_map(|(place, value)| Step::Set(place, value)),
        3 => place().prop_map(Step::Clear),
        2 => Just(Step::Checkpoint),
        1 => (1..5usize).prop_map(Step::Rescale),
    ]
}

fn fields() -> Fields {
    let window = namespace(Field::new("window", DataType::Int64, false));
    Fields::from(vec![Field::new("key", DataType::Utf8, true), window])
}

fn columns(places: &[Place]) -> Vec<ArrayRef> {
    let keys = StringArray::from_iter_values(places.iter().map(|place| KEYS[place.0]));
    vec![Arc::new(keys), Arc::new(Int64Array::from_iter_values(places.iter().map(|place| place.1)))]
}

/// The key group of a key, wherever it is.
fn group(place: Place) -> u32 {
    key_group(hash_columns(&columns(&[place])[..1], 1).unwrap()[0], GROUPS)
}

struct Subtask {
    states: Box<dyn KeyedStates>,
    value: ValueState<i64>,
    snapshots: Vec<Snapshot>,
}

impl Subtask {
    fn new(make: Make<'_>, restored: Option<RestoredState>) -> Self {
        let mut states = make(&fields(), GROUPS);
        if let Some(mut restored) = restored {
            states.restore(&mut restored).unwrap();
        }
        let mut registry = StateRegistry::new(states.as_mut()).in_scope(StateScope::Window);
        let value = registry.value_state("value").unwrap();
        Self { states, value, snapshots: vec![] }
    }

    fn at(&mut self, place: Place) -> CurrentKey<'_> {
        let (columns, mut slots) = (columns(&[place]), vec![]);
        self.states.lookup(&columns, &key_hashes(&fields(), &columns, 1).unwrap(), &mut slots).unwrap();
        assert_eq!(self.states.key_group(slots[0]), group(place));
        CurrentKey::new(self.states.as_mut(), slots[0], 0).in_scope(StateScope::Window)
    }

    fn checkpoint(&mut self) {
        let scope = if self.snapshots.is_empty() { SnapshotScope::Base } else { SnapshotScope::Changes };
        self.snapshots.push(self.states.snapshot(scope).unwrap());
    }
}

/// Other subtasks in their place, with what was saved of the key groups that they own.
fn rescale(make: Make<'_>, old: Vec<Subtask>, parallelism: usize) -> Vec<Subtask> {
    let mut saved: Vec<(StateDescriptor, Vec<StateLayer>)> = vec![];
    for mut subtask in old {
        subtask.checkpoint();
        for (descriptor, layers) in layers_unchecked(subtask.snapshots.into_iter().flat_map(encode)) {
            match saved.first_mut() {
                Some((_, all)) => all.extend(layers),
                None => saved.push((descriptor, layers)),
            }
        }
    }
    let subtask = |subtask| {
        let key_groups = groups_of(subtask, parallelism, GROUPS);
        let cut = |batches: Vec<RecordBatch>| {
            batches.iter().map(|batch| rows_of_groups(batch, &key_groups).unwrap()).collect::<Vec<_>>()
        };
        let cut = |layer: &StateLayer| layer.map(cut).unwrap();
        let states = saved.iter().map(|(state, layers)| (state.clone(), layers.iter().map(cut).collect())).collect();
        Subtask::new(make, Some(RestoredState { key_groups: key_groups.clone(), states }))
    };
    (0..parallelism).map(subtask).collect()
}

/// What is kept for a key in one namespace is not seen in another, and goes wherever the key goes.
pub fn what_is_kept_for_a_key_in_a_namespace_goes_with_the_key(make: Make<'_>) {
    proptest!(ProptestConfig::with_cases(128), |(history in prop::collection::vec(any_step(), 0..40))| {
        let (mut subtasks, mut model) = (vec![Subtask::new(make, None)], BTreeMap::new());
        for step in history {
            let count = subtasks.len();
            let owner = |place| subtask_of(group(place), count, GROUPS);
            match step {
                Step::Set(place, value) => {
                    let subtask = &mut subtasks[owner(place)];
                    let state = subtask.value;
                    state.set(&mut subtask.at(place), value).unwrap();
                    subtask.states.release().unwrap();
                    model.insert(place, value);
                }
                Step::Clear(place) => {
                    let subtask = &mut subtasks[owner(place)];
                    let state = subtask.value;
                    state.clear(&mut subtask.at(place)).unwrap();
                    subtask.states.release().unwrap();
                    model.remove(&place);
                }
                Step::Checkpoint => subtasks.iter_mut().for_each(Subtask::checkpoint),
                Step::Rescale(parallelism) => subtasks = rescale(make, subtasks, parallelism),
            }
        }
        subtasks.iter_mut().for_each(|subtask| subtask.states.release().unwrap());
        prop_assert_eq!(subtasks.iter().map(|subtask| subtask.states.len()).sum::<usize>(), model.len());
        for place in (0..KEYS.len()).flat_map(|key| (-2..3).map(move |window| (key, window))) {
            let owner = subtask_of(group(place), subtasks.len(), GROUPS);
            let state = subtasks[owner].value;
            let mut at = subtasks[owner].at(place);
            prop_assert_eq!(state.get(&mut at).unwrap(), model.get(&place), "{:?}", place);
        }
    });
}

/// A backend of keys without namespaces may be given a state of some that nobody registers there, and gives it on as it came.
pub fn what_left_a_namespace_that_nobody_knows_is_carried_along(make: Make<'_>) {
    let (gone, stays) = ((1, 0), (2, 1));
    let mut subtask = Subtask::new(make, None);
    let state = subtask.value;
    for (place, value) in [(gone, 1), (stays, 2)] {
        state.set(&mut subtask.at(place), value).unwrap();
    }
    subtask.checkpoint();
    state.clear(&mut subtask.at(gone)).unwrap();
    subtask.states.release().unwrap();
    subtask.checkpoint();
    let saved = layers_unchecked(subtask.snapshots.into_iter().flat_map(encode));
    let restored = |states| RestoredState { key_groups: 0..GROUPS, states };

    let keys: Fields = fields().iter().take(1).cloned().collect();
    let mut others = make(&keys, GROUPS);
    others.restore(&mut restored(saved)).unwrap();
    let carried = encode(others.snapshot(SnapshotScope::Base).unwrap());
    for (extent, descriptor, batches) in &carried {
        let are_theirs = batches.iter().all(|batch| batch.schema().fields() == descriptor.schema.fields());
        assert!(are_theirs, "{extent:?} of '{}'", descriptor.name);
    }
    let mut back = Subtask::new(make, Some(restored(layers_unchecked(carried))));
    let state = back.value;
    assert_eq!(state.get(&mut back.at(gone)).unwrap(), None);
    assert_eq!(state.get(&mut back.at(stays)).unwrap(), Some(&2));
}
