//! The subtasks of one keyed operator, with an exchange in front of them that puts rows where their keys belong.

use std::collections::BTreeMap;

use arrow::array::{ArrayRef, RecordBatch};
use tidemill_core::key::{groups_of, hash_columns, key_group, subtask_of};
use tidemill_core::state::{
    AggregatingState, CurrentKey, KeyedStates, ListState, MapState, ReducingState, RestoredState, Snapshot,
    SnapshotScope, StateDescriptor, StateLayer, StateTtl, ValueState, rows_of_groups,
};

use super::keys::{Key, Shape};
use super::model::{Op, Seen};
use super::snapshots::{Rows, fold, layers};
use super::{GROUPS, Make};
use crate::state::StateRegistry;

pub struct Job<'a> {
    make: Make<'a>,
    shape: Shape,
    ttl: Option<StateTtl>,
    pub subtasks: Vec<Subtask>,
    pub now_millis: i64,
}

/// One subtask and the handles of its states.
pub struct Subtask {
    pub states: Box<dyn KeyedStates>,
    handles: Option<Handles>,
    /// A base and the changes since, not yet encoded.
    snapshots: Vec<Snapshot>,
}

struct Handles {
    value: ValueState<String>,
    list: ListState<(i32, Option<String>)>,
    map: MapState<String, i64>,
    sum: ReducingState<i64>,
    mean: AggregatingState<i64, (i64, i64), f64>,
}

impl<'a> Job<'a> {
    /// A job of one subtask.
    pub fn new(make: Make<'a>, shape: Shape, ttl: Option<StateTtl>) -> Self {
        let subtasks = vec![Subtask::new(make(&shape.fields(), GROUPS), ttl)];
        Self { make, shape, ttl, subtasks, now_millis: 0 }
    }

    /// A batch of rows; what each reads.
    pub fn rows(&mut self, rows: &[(Key, Op)]) -> Vec<Seen> {
        let mut seen = vec![Seen::Nothing; rows.len()];
        let owners = self.owners(&rows.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>());
        for (number, subtask) in self.subtasks.iter_mut().enumerate() {
            let own: Vec<usize> = (0..rows.len()).filter(|row| owners[*row] == number).collect();
            let keys: Vec<Key> = own.iter().map(|row| rows[*row].0.clone()).collect();
            let slots = subtask.lookup(self.shape, &keys);
            for (row, slot) in own.into_iter().zip(slots) {
                seen[row] = subtask.apply(slot, self.now_millis, &rows[row].1);
            }
            subtask.states.release().unwrap();
        }
        seen
    }

    /// Drops what has expired.
    pub fn sweep(&mut self) {
        for subtask in &mut self.subtasks {
            subtask.states.expire(self.now_millis, usize::MAX).unwrap();
            subtask.states.release().unwrap();
        }
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.subtasks.iter().map(|subtask| subtask.states.len()).sum()
    }

    /// Stops, and goes on from a snapshot with so many subtasks.
    pub fn rescale(&mut self, parallelism: usize, registered_before: bool) {
        let mut saved: BTreeMap<String, (StateDescriptor, Vec<StateLayer>)> = BTreeMap::new();
        for mut subtask in std::mem::take(&mut self.subtasks) {
            subtask.checkpoint(if subtask.snapshots.is_empty() { SnapshotScope::Copy } else { SnapshotScope::Changes });
            for (descriptor, layers) in layers(subtask.snapshots) {
                let state = saved.entry(descriptor.name.clone()).or_insert_with(|| (descriptor, Vec::new()));
                state.1.extend(layers);
            }
        }
        for subtask in 0..parallelism {
            let key_groups = groups_of(subtask, parallelism, GROUPS);
            let cut = |batches: Vec<RecordBatch>| {
                batches.iter().map(|batch| rows_of_groups(batch, &key_groups).unwrap()).collect::<Vec<_>>()
            };
            let cut = |layer: &StateLayer| layer.map(cut).unwrap();
            let cut = |(descriptor, layers): &(StateDescriptor, Vec<StateLayer>)| {
                (descriptor.clone(), layers.iter().map(cut).collect())
            };
            let states = saved.values().map(cut).collect();
            let mut state = RestoredState { key_groups: key_groups.clone(), states };
            let states = (self.make)(&self.shape.fields(), GROUPS);
            let mut subtask = Subtask { states, handles: None, snapshots: Vec::new() };
            if registered_before {
                subtask.register(self.ttl);
            }
            subtask.states.restore(&mut state).unwrap();
            if !registered_before {
                subtask.register(self.ttl);
            }
            self.subtasks.push(subtask);
        }
    }

    /// Whether every key that is there is where it belongs, and its key group is that of its hash.
    pub fn everyone_has_its_own_keys(&mut self) -> bool {
        let keys = self.shape.all_keys();
        let owners = self.owners(&keys);
        let parallelism = self.subtasks.len();
        self.subtasks.iter_mut().enumerate().all(|(number, subtask)| {
            let slots = subtask.find(self.shape, &keys);
            slots.iter().zip(&owners).all(|(slot, owner)| {
                slot.is_none_or(|slot| {
                    let group = subtask.states.key_group(slot);
                    *owner == number && groups_of(number, parallelism, GROUPS).contains(&group)
                })
            })
        })
    }

    /// Keeps a base of every subtask, or what changed since the last one.
    pub fn checkpoint(&mut self) {
        for subtask in &mut self.subtasks {
            let is_first = subtask.snapshots.is_empty();
            subtask.checkpoint(if is_first { SnapshotScope::Base } else { SnapshotScope::Changes });
        }
    }

    /// The base of the first subtask with all changes laid over it.
    pub fn folded_changes(&mut self) -> Rows {
        std::mem::take(&mut self.subtasks[0].snapshots).into_iter().fold(Rows::new(), fold)
    }

    fn owners(&self, keys: &[Key]) -> Vec<usize> {
        let hashes = hash_columns(&self.shape.columns(keys), keys.len()).unwrap();
        let owner = |hash: &u64| subtask_of(key_group(*hash, GROUPS), self.subtasks.len(), GROUPS);
        hashes.iter().map(owner).collect()
    }
}

impl Subtask {
    /// A subtask with its states registered.
    pub fn new(states: Box<dyn KeyedStates>, ttl: Option<StateTtl>) -> Self {
        let mut subtask = Self { states, handles: None, snapshots: Vec::new() };
        subtask.register(ttl);
        subtask
    }

    fn checkpoint(&mut self, scope: SnapshotScope) {
        self.snapshots.push(self.states.snapshot(scope).unwrap());
    }

    fn register(&mut self, ttl: Option<StateTtl>) {
        let mut registry = StateRegistry::new(self.states.as_mut());
        let mut registry = registry.with_ttl(ttl);
        self.handles = Some(Handles {
            value: registry.value_state("value").unwrap(),
            list: registry.list_state("list").unwrap(),
            map: registry.map_state("map").unwrap(),
            sum: registry.reducing_state("sum", |sum: i64, value| sum + value).unwrap(),
            mean: registry
                .aggregating_state(
                    "mean",
                    || (0, 0),
                    |(sum, count): &mut (i64, i64), value: i64| (*sum, *count) = (*sum + value, *count + 1),
                    |(sum, count)| *sum as f64 / *count as f64,
                )
                .unwrap(),
        });
    }

    pub fn lookup(&mut self, shape: Shape, keys: &[Key]) -> Vec<usize> {
        lookup(self.states.as_mut(), &shape.columns(keys))
    }

    pub fn find(&mut self, shape: Shape, keys: &[Key]) -> Vec<Option<usize>> {
        let columns = shape.columns(keys);
        let mut slots = vec![];
        self.states.find(&columns, &hash_columns(&columns, keys.len()).unwrap(), &mut slots).unwrap();
        slots
    }

    /// What an operation reads.
    pub fn apply(&mut self, slot: usize, now_millis: i64, op: &Op) -> Seen {
        let Self { states, handles: Some(Handles { value, list, map, sum, mean }), .. } = self else {
            panic!("states that are not registered");
        };
        if let Op::Remove = op {
            states.remove(slot);
            return Seen::Nothing;
        }
        let key = &mut CurrentKey::new(states.as_mut(), slot, now_millis);
        match op.clone() {
            Op::Get => return Seen::Text(value.get(key).unwrap().cloned()),
            Op::Set(text) => value.set(key, text),
            Op::Take => return Seen::Text(value.take(key).unwrap()),
            Op::Clear => value.clear(key),
            Op::List => return Seen::List(list.get(key).unwrap().cloned().collect()),
            Op::Add(number, text) => list.add(key, (number, text)),
            Op::SetList(numbers) => list.set(key, numbers.into_iter().map(|number| (number, None))),
            Op::ClearList => list.clear(key),
            Op::Lookup(name) => return Seen::Number(map.get(key, &name).unwrap().copied()),
            Op::Entries => {
                let entries = map.entries(key).unwrap();
                return Seen::Map(entries.map(|(name, value)| (name.clone(), *value)).collect());
            }
            Op::Put(name, value) => map.put(key, name, value),
            Op::Delete(name) => return Seen::Number(map.remove(key, &name).unwrap()),
            Op::ClearMap => map.clear(key),
            Op::Sum => return Seen::Number(sum.get(key).unwrap().copied()),
            Op::Reduce(value) => sum.add(key, value),
            Op::ClearSum => sum.clear(key),
            Op::Mean => return Seen::Mean(mean.get(key).unwrap()),
            Op::Aggregate(value) => mean.add(key, value),
            Op::ClearMean => mean.clear(key),
            Op::Remove => Ok(()),
        }
        .unwrap();
        Seen::Nothing
    }
}

/// The slots of keys.
pub fn lookup(states: &mut dyn KeyedStates, keys: &[ArrayRef]) -> Vec<usize> {
    let mut slots = vec![];
    states.lookup(keys, &hash_columns(keys, keys[0].len()).unwrap(), &mut slots).unwrap();
    slots
}
