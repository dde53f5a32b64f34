//! State in memory, all of it (BKD-01): a [`KeyIndex`] gives slots to keys, states are columns over them.
//!
//! ```text
//! keys ── KeyIndex ──> slots ──┬── column of state 0, its changes
//!                              ├── column of state 1, its changes
//!                              └── …
//! ```
//!
//! Snapshots copy what they hold; encoding comes later. What changed between them is tracked from the first base on.

mod changes;
mod frozen;
#[cfg(test)]
mod tests;

use std::ops::Range;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, SchemaRef, UInt32Type};
use tidemill_core::key::{hash_columns, is_hashable, key_group, scatter};
use tidemill_core::state::{
    EncodeState, Expiry, Extent, KeyedStates, RestoredState, Snapshot, SnapshotScope, StateBackend, StateColumn,
    StateDescriptor, StateId, StateKind, StateLayer, StateTtl, adapt, keyed_schema, not_restorable,
};
use tidemill_core::{Error, Result};

use crate::state::KeyIndex;
use changes::{ChangedSlots, KeyChunk, RemovedKeys};
use frozen::{BATCH_ROWS, encode_keys, encode_rows};

/// The backend that keeps states in memory.
#[derive(Clone, Copy, Debug)]
pub struct MemoryBackend {
    /// How many key groups there are.
    pub max_parallelism: u32,
}

impl StateBackend for MemoryBackend {
    fn keyed_states(&self, keys: &Fields) -> Result<Box<dyn KeyedStates>> {
        Ok(Box::new(MemoryStates::new(keys, self.max_parallelism)?))
    }
}

/// Keyed states in memory.
pub struct MemoryStates {
    index: KeyIndex,
    /// The key columns, plain: a dictionary's are its values.
    key_fields: Fields,
    max_parallelism: u32,
    states: Vec<State>,
    /// What was restored and not registered so far.
    restored: Vec<(StateDescriptor, Vec<StateLayer>)>,
    restored_bytes: usize,
    restored_groups: Range<u32>,
    /// Slots that are perhaps vacant; `release` looks.
    suspects: Vec<usize>,
    removed: RemovedKeys,
    /// Whether changes are tracked: from the first base on.
    is_tracking: bool,
    /// The slot at which `expire` goes on.
    sweep: usize,
}

/// One registered state.
struct State {
    name: String,
    ttl: Option<StateTtl>,
    schema: SchemaRef,
    column: Box<dyn StateColumn>,
    changes: ChangedSlots,
}

impl MemoryStates {
    /// No states yet, of keys with these columns in `max_parallelism` key groups.
    pub fn new(keys: &Fields, max_parallelism: u32) -> Result<Self> {
        let types: Vec<DataType> = keys.iter().map(|field| field.data_type().clone()).collect();
        if let Some(data_type) = types.iter().find(|data_type| !is_hashable(data_type)) {
            return Err(Error::request(format!("a value of type {data_type} cannot be a key")));
        }
        // What comes out of an index of dictionaries says what is in them.
        let plain = KeyIndex::new(&types)?.keys(&[])?;
        let types: Vec<DataType> = plain.iter().map(|column| column.data_type().clone()).collect();
        let field = |(field, data_type): (&FieldRef, &DataType)| Field::new(field.name(), data_type.clone(), true);
        Ok(Self {
            index: KeyIndex::new(&types)?,
            key_fields: keys.iter().zip(&types).map(field).collect(),
            max_parallelism,
            states: Vec::new(),
            restored: Vec::new(),
            restored_bytes: 0,
            restored_groups: 0..max_parallelism,
            suspects: Vec::new(),
            removed: RemovedKeys::default(),
            is_tracking: false,
            sweep: 0,
        })
    }

    /// Key columns without dictionaries.
    fn plain(&self, keys: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
        let plain = |(column, field): (&ArrayRef, &FieldRef)| match column.data_type() == field.data_type() {
            true => Ok(column.clone()),
            false => Ok(cast(column, field.data_type())?),
        };
        keys.iter().zip(&self.key_fields).map(plain).collect()
    }

    fn state(&mut self, id: StateId) -> Result<&mut State> {
        self.states.get_mut(id.index()).ok_or_else(|| Error::internal("a state that is not registered"))
    }

    fn is_vacant(&self, slot: usize) -> bool {
        self.states.iter().all(|state| state.column.is_vacant(slot))
    }

    /// Decodes what was restored under the name of a state that is now registered.
    fn claim(&mut self, id: StateId) -> Result<()> {
        let state = &self.states[id.index()];
        let is_named = |(descriptor, _): &(StateDescriptor, _)| descriptor.name == state.name;
        let Some(place) = self.restored.iter().position(is_named) else { return Ok(()) };
        let (descriptor, layers) = self.restored.swap_remove(place);
        // Subtasks without rows refuse it too.
        adapt(&state.name, &RecordBatch::new_empty(descriptor.schema), &state.schema)?;
        for layer in layers {
            let bytes: usize = layer.batches().iter().map(RecordBatch::get_array_memory_size).sum();
            self.restored_bytes = self.restored_bytes.saturating_sub(bytes);
            match layer {
                StateLayer::Rows(batches) => batches.into_iter().try_for_each(|batch| self.put_back(id, &batch))?,
                StateLayer::Removed(batches) => {
                    batches.into_iter().try_for_each(|batch| self.take_out(id, &batch))?;
                }
            }
        }
        Ok(())
    }

    /// Decodes restored rows of a state.
    fn put_back(&mut self, id: StateId, batch: &RecordBatch) -> Result<()> {
        let state = &self.states[id.index()];
        let (saved, batch) = (batch.schema(), adapt(&state.name, batch, &state.schema)?);
        let (keys, values) = batch.columns()[1..].split_at(self.key_fields.len());
        let mut slots = Vec::with_capacity(batch.num_rows());
        self.lookup(keys, &hash_columns(keys, batch.num_rows())?, &mut slots)?;
        self.check_groups(batch.column(0).as_primitive::<UInt32Type>().values(), &slots)?;
        let State { name, schema, column, .. } = &mut self.states[id.index()];
        let decoded = column.decode(&slots, values);
        match saved.fields() == schema.fields() {
            true => decoded,
            false => decoded.map_err(|error| not_restorable(name, &saved, schema, error.message())),
        }
    }

    /// Clears a state of keys that were removed after they were stored.
    fn take_out(&mut self, id: StateId, batch: &RecordBatch) -> Result<()> {
        let schema = keyed_schema(&self.key_fields, &Fields::empty());
        let batch = adapt(&self.states[id.index()].name, batch, &schema)?;
        let (keys, mut slots) = (&batch.columns()[1..], Vec::with_capacity(batch.num_rows()));
        self.find(keys, &hash_columns(keys, batch.num_rows())?, &mut slots)?;
        for slot in slots.into_iter().flatten() {
            self.states[id.index()].column.clear(slot);
            self.suspects.push(slot);
        }
        Ok(())
    }

    /// Restored rows stand under the key group that their keys belong to, and this subtask owns it.
    fn check_groups(&self, groups: &[u32], slots: &[usize]) -> Result<()> {
        for (slot, group) in slots.iter().zip(groups) {
            let own = self.key_group(*slot);
            if own != *group || !self.restored_groups.contains(group) {
                let owned = &self.restored_groups;
                return Err(Error::corrupt(format!(
                    "a row of key group {own} stands under {group}, restored where {}..{} are owned",
                    owned.start, owned.end
                )));
            }
        }
        Ok(())
    }

    /// The slots in the order of their key groups.
    fn by_key_group(&self, slots: &[usize]) -> Vec<usize> {
        let groups: Vec<u32> = slots.iter().map(|slot| self.key_group(*slot)).collect();
        let (order, _) = scatter(&groups, self.max_parallelism as usize);
        order.into_iter().map(|place| slots[place as usize]).collect()
    }

    fn key_chunk(&self, slots: &[usize]) -> Result<KeyChunk> {
        let groups = slots.iter().map(|slot| self.key_group(*slot)).collect();
        Ok(KeyChunk { groups, keys: self.index.keys(slots)? })
    }

    /// The rows of a state in these slots.
    fn freeze(&self, state: &State, slots: &[usize]) -> Result<EncodeState> {
        let slots = self.by_key_group(slots);
        let chunk = |slots: &[usize]| Ok((self.key_chunk(slots)?, state.column.freeze(slots)?));
        Ok(encode_rows(&state.name, state.schema.clone(), slots.chunks(BATCH_ROWS).map(chunk).collect::<Result<_>>()?))
    }

    /// Everything, and the slots of the keys in it.
    fn snapshot_of_everything(&self) -> Result<(Snapshot, Vec<usize>)> {
        let (mut snapshot, mut stored) = (Snapshot::default(), Vec::new());
        for state in &self.states {
            let slots: Vec<usize> = (0..self.index.slots()).filter(|slot| !state.column.is_vacant(*slot)).collect();
            snapshot.push(Extent::Whole, (state.descriptor(), self.freeze(state, &slots)?));
            stored.extend(slots);
        }
        for (descriptor, layers) in &self.restored {
            self.carry_along(descriptor, layers, &mut snapshot);
        }
        Ok((snapshot, stored))
    }

    /// What was restored and not registered, layer by layer as it came.
    fn carry_along(&self, descriptor: &StateDescriptor, layers: &[StateLayer], snapshot: &mut Snapshot) {
        snapshot.push(Extent::Whole, (descriptor.clone(), Box::new(|| Ok(Vec::new()))));
        for layer in layers {
            let batches = layer.batches().to_vec();
            let (extent, schema) = match layer {
                StateLayer::Rows(_) => (Extent::Changed, descriptor.schema.clone()),
                StateLayer::Removed(_) => (Extent::Removed, keyed_schema(&self.key_fields, &Fields::empty())),
            };
            let descriptor = StateDescriptor { schema, ..descriptor.clone() };
            snapshot.push(extent, (descriptor, Box::new(move || Ok(batches))));
        }
    }

    fn snapshot_of_changes(&mut self) -> Result<Snapshot> {
        if !self.is_tracking {
            return Err(Error::internal("a snapshot of changes without a base"));
        }
        let schema = keyed_schema(&self.key_fields, &Fields::empty());
        let (mut snapshot, mut stored) = (Snapshot::default(), Vec::new());
        let gone = self.removed.take();
        for place in 0..self.states.len() {
            let changed = self.states[place].changes.take();
            let state = &self.states[place];
            let (vacated, kept): (Vec<_>, Vec<_>) = changed.into_iter().partition(|slot| state.column.is_vacant(*slot));
            let put = (state.descriptor(), self.freeze(state, &kept)?);
            let vacated: Vec<usize> = vacated.into_iter().filter(|slot| self.removed.is_stored(*slot)).collect();
            let chunks = vacated.chunks(BATCH_ROWS).map(|slots| self.key_chunk(slots));
            let chunks = chunks.chain(gone.iter().cloned().map(Ok)).collect::<Result<_>>()?;
            let descriptor = StateDescriptor { schema: schema.clone(), ..state.descriptor() };
            snapshot.push(Extent::Removed, (descriptor, encode_keys(schema.clone(), chunks)));
            snapshot.push(Extent::Changed, put);
            stored.extend(kept);
        }
        self.removed.store(&stored);
        Ok(snapshot)
    }
}

impl State {
    fn descriptor(&self) -> StateDescriptor {
        StateDescriptor { name: self.name.clone(), kind: StateKind::Keyed, schema: self.schema.clone() }
    }
}

impl KeyedStates for MemoryStates {
    fn lookup(&mut self, keys: &[ArrayRef], hashes: &[u64], slots: &mut Vec<usize>) -> Result<()> {
        let (keys_before, begin) = (self.index.len(), slots.len());
        self.index.intern(&self.plain(keys)?, hashes, slots)?;
        if self.index.len() > keys_before {
            let count = self.index.slots();
            self.states.iter_mut().for_each(|state| state.column.resize(count));
            // Some are new, and perhaps nothing is ever put into them.
            self.suspects.extend_from_slice(&slots[begin..]);
        }
        Ok(())
    }

    fn find(&mut self, keys: &[ArrayRef], hashes: &[u64], slots: &mut Vec<Option<usize>>) -> Result<()> {
        self.index.find(&self.plain(keys)?, hashes, slots)
    }

    fn remove(&mut self, slot: usize) {
        for state in &mut self.states {
            if !state.column.is_vacant(slot) {
                state.column.clear(slot);
                if self.is_tracking {
                    state.changes.mark(slot);
                }
            }
        }
        self.suspects.push(slot);
    }

    fn release(&mut self) -> Result<()> {
        let mut vacated = std::mem::take(&mut self.suspects);
        vacated.sort_unstable();
        vacated.dedup();
        vacated.retain(|slot| self.is_vacant(*slot));
        if vacated.is_empty() {
            return Ok(());
        }
        let stored: Vec<usize> = vacated.iter().copied().filter(|slot| self.removed.is_stored(*slot)).collect();
        for slots in stored.chunks(BATCH_ROWS) {
            self.removed.push(slots, self.key_chunk(slots)?);
        }
        vacated.into_iter().for_each(|slot| self.index.remove(slot));
        Ok(())
    }

    fn key_group(&self, slot: usize) -> u32 {
        key_group(self.index.hash(slot), self.max_parallelism)
    }

    fn keys(&self, slots: &[usize]) -> Result<Vec<ArrayRef>> {
        self.index.keys(slots)
    }

    fn all(&mut self, slots: &mut Vec<usize>) -> Result<()> {
        slots.extend((0..self.index.slots()).filter(|slot| !self.is_vacant(*slot)));
        Ok(())
    }

    fn len(&self) -> usize {
        self.index.len()
    }

    fn register(&mut self, name: &str, ttl: Option<StateTtl>, mut column: Box<dyn StateColumn>) -> Result<StateId> {
        if self.states.iter().any(|state| state.name == name) {
            return Err(Error::request(format!("there are two states called '{name}'"))
                .with_hint("every state of an operator has a name of its own"));
        }
        column.resize(self.index.slots());
        let schema = keyed_schema(&self.key_fields, column.fields());
        let id = StateId::new(self.states.len());
        self.states.push(State { name: name.to_owned(), ttl, schema, column, changes: ChangedSlots::default() });
        self.claim(id)?;
        Ok(id)
    }

    fn column(&mut self, id: StateId) -> Result<&mut (dyn StateColumn + 'static)> {
        Ok(self.state(id)?.column.as_mut())
    }

    fn touch(&mut self, id: StateId, slots: &[usize], now_millis: i64) -> Result<()> {
        let is_tracking = self.is_tracking;
        let state = self.states.get_mut(id.index());
        let state = state.ok_or_else(|| Error::internal("a state that is not registered"))?;
        if state.ttl.is_some() {
            state.column.touch(slots, now_millis);
        }
        for slot in slots {
            if is_tracking {
                state.changes.mark(*slot);
            }
            if state.column.is_vacant(*slot) {
                self.suspects.push(*slot);
            }
        }
        Ok(())
    }

    fn expire(&mut self, now_millis: i64, slots_max: usize) -> Result<usize> {
        let slots = self.index.slots();
        let count = slots_max.min(slots);
        let mut dropped = 0;
        for state in self.states.iter_mut().filter(|state| state.ttl.is_some()) {
            let expiry = Expiry::new(state.ttl, now_millis);
            for slot in (self.sweep..self.sweep + count).map(|slot| slot % slots) {
                if state.column.expire(slot, expiry) {
                    dropped += 1;
                    if self.is_tracking {
                        state.changes.mark(slot);
                    }
                    if state.column.is_vacant(slot) {
                        self.suspects.push(slot);
                    }
                }
            }
        }
        self.sweep = (self.sweep + count) % slots.max(1);
        Ok(dropped)
    }

    fn snapshot(&mut self, scope: SnapshotScope) -> Result<Snapshot> {
        match scope {
            SnapshotScope::Changes => self.snapshot_of_changes(),
            SnapshotScope::Copy => Ok(self.snapshot_of_everything()?.0),
            SnapshotScope::Base => {
                let (snapshot, stored) = self.snapshot_of_everything()?;
                self.is_tracking = true;
                self.states.iter_mut().for_each(|state| drop(state.changes.take()));
                self.removed = RemovedKeys::default();
                self.removed.store(&stored);
                Ok(snapshot)
            }
        }
    }

    fn restore(&mut self, state: &mut RestoredState) -> Result<()> {
        if !self.index.is_empty() {
            return Err(Error::internal("state is restored among keys that are already there"));
        }
        self.restored_groups = state.key_groups.clone();
        let (keyed, others) =
            std::mem::take(&mut state.states).into_iter().partition(|(state, _)| state.kind == StateKind::Keyed);
        (self.restored, state.states) = (keyed, others);
        let layers = self.restored.iter().flat_map(|(_, layers)| layers);
        let batches = layers.flat_map(StateLayer::batches);
        self.restored_bytes = batches.map(RecordBatch::get_array_memory_size).sum();
        (0..self.states.len()).try_for_each(|place| self.claim(StateId::new(place)))
    }

    fn memory_bytes(&self) -> usize {
        let of_state = |state: &State| state.column.memory_bytes() + state.changes.memory_bytes();
        let suspects = self.suspects.capacity() * size_of::<usize>();
        let restored = self.restored_bytes + self.removed.memory_bytes();
        self.index.size_bytes() + self.states.iter().map(of_state).sum::<usize>() + suspects + restored
    }
}
