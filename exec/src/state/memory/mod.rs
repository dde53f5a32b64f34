//! State as columns over slots (BKD-01 … BKD-03): a [`KeyIndex`] gives slots to keys, and a tier behind it takes those keys that
//! memory has no room for.
//!
//! ```text
//! keys ── KeyIndex ──> slots ──┬── column of state 0, its changes
//!            │                 ├── column of state 1, its changes
//!            │                 └── …
//!            └── Outside ──> rows in the tier: keys that are in no slot, and copies of some that are   (outside.rs, moves.rs)
//! ```
//!
//! Snapshots copy what they hold; encoding comes later. What changed between them is tracked from the first base on.

mod backend;
mod changes;
mod frozen;
mod moves;
mod outside;
mod restore;
mod rows;
mod snapshot;
mod stretch;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, SchemaRef};
use tidemill_core::key::{is_hashable, key_group};
use tidemill_core::state::{
    BacklogLimits, Expiry, KeyedStates, RestoredState, Snapshot, SnapshotScope, StateColumn, StateDescriptor, StateId,
    StateKind, StateLayer, StateTtl, is_namespace, keyed_schema, namespace,
};
use tidemill_core::{Error, Result};

use crate::state::KeyIndex;
use crate::state::group_order::BATCH_ROWS;
use crate::state::tier::{Cursor, Tier};
pub use backend::{MemoryBackend, TieredBackend};
use changes::{ChangedSlots, RemovedKeys};
pub use outside::Leaving;
use outside::Outside;
use rows::RowCodec;

/// Keyed states in memory, and behind it.
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
    /// Where keys go that memory has no room for, if there is such a place.
    outside: Option<Outside>,
}

/// One registered state.
struct State {
    name: String,
    ttl: Option<StateTtl>,
    schema: SchemaRef,
    column: Box<dyn StateColumn>,
    changes: ChangedSlots,
    /// The codec of its columns, if it can leave memory.
    codec: Option<Arc<RowCodec>>,
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
        let field = |(field, data_type): (&FieldRef, &DataType)| {
            let plain = Field::new(field.name(), data_type.clone(), true);
            if is_namespace(field) { namespace(plain) } else { plain }
        };
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
            outside: None,
        })
    }

    /// The same with a tier behind memory.
    pub fn tiered(keys: &Fields, max_parallelism: u32, tier: Tier, leaving: Leaving) -> Result<Self> {
        let mut states = Self::new(keys, max_parallelism)?;
        // Without key columns there is one key, and it is always in use.
        if !keys.is_empty() {
            states.outside = Some(Outside::new(&states.key_fields, tier, leaving, max_parallelism)?);
        }
        Ok(states)
    }

    /// Key columns without dictionaries.
    fn plain(&self, keys: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
        plain(&self.key_fields, keys)
    }

    fn state(&mut self, id: StateId) -> Result<&mut State> {
        self.states.get_mut(id.index()).ok_or_else(|| Error::internal("a state that is not registered"))
    }

    fn is_vacant(&self, slot: usize) -> bool {
        self.states.iter().all(|state| state.column.is_vacant(slot))
    }

    /// How many slots the columns have.
    fn column_slots(&self) -> usize {
        let room = self.outside.as_ref().and_then(|outside| outside.room);
        self.index.slots().max(room.unwrap_or_default())
    }

    /// The slots of plain keys; those that are new in memory get one.
    fn intern(&mut self, keys: &[ArrayRef], hashes: &[u64], slots: &mut Vec<usize>) -> Result<()> {
        let (keys_before, begin) = (self.index.len(), slots.len());
        self.index.intern(keys, hashes, slots)?;
        if self.index.len() > keys_before {
            let count = self.column_slots();
            self.states.iter_mut().for_each(|state| state.column.resize(count));
            // Some are new, and perhaps nothing is ever put into them.
            self.suspects.extend_from_slice(&slots[begin..]);
        }
        Ok(())
    }

    /// These slots of a state were written or vacated.
    fn mark(&mut self, id: StateId, slots: &[usize]) {
        let state = &mut self.states[id.index()];
        if self.is_tracking {
            slots.iter().for_each(|slot| state.changes.mark(*slot));
        }
        if let Some(outside) = &mut self.outside {
            slots.iter().for_each(|slot| outside.dirty(*slot));
        }
        state.column.vacant_among(slots, &mut self.suspects);
    }

    /// Forgets keys that nothing is kept for.
    fn forget(&mut self, vacated: Vec<usize>) -> Result<()> {
        let stored: Vec<usize> = vacated.iter().copied().filter(|slot| self.removed.is_stored(*slot)).collect();
        for slots in stored.chunks(BATCH_ROWS) {
            self.removed.push(slots, self.key_chunk(slots)?);
        }
        self.delete_rows(&vacated)?;
        for slot in vacated {
            self.index.remove(slot);
            if let Some(outside) = &mut self.outside {
                outside.free(slot);
            }
        }
        Ok(())
    }

    /// Drops what has expired in these slots; in how many cells there was something.
    fn expire_slots(&mut self, slots: &[usize], now_millis: i64) -> usize {
        let mut dropped = 0;
        for number in 0..self.states.len() {
            let State { ttl, column, .. } = &mut self.states[number];
            if ttl.is_none() {
                continue;
            }
            let undated: Vec<usize> = slots.iter().copied().filter(|slot| column.is_undated(*slot)).collect();
            column.touch(&undated, now_millis);
            let expiry = Expiry::new(*ttl, now_millis);
            let expired: Vec<usize> = slots.iter().copied().filter(|slot| column.expire(*slot, expiry)).collect();
            dropped += expired.len();
            self.mark(StateId::new(number), &undated);
            self.mark(StateId::new(number), &expired);
        }
        dropped
    }

    fn memory_bytes_now(&self) -> usize {
        let of_state = |state: &State| state.column.memory_bytes() + state.changes.memory_bytes();
        let suspects = self.suspects.capacity() * size_of::<usize>();
        let restored = self.restored_bytes + self.removed.memory_bytes();
        let outside = self.outside.as_ref().map_or(0, Outside::memory_bytes);
        self.index.size_bytes() + self.states.iter().map(of_state).sum::<usize>() + suspects + restored + outside
    }
}

fn plain(fields: &Fields, keys: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
    let plain = |(column, field): (&ArrayRef, &FieldRef)| match column.data_type() == field.data_type() {
        true => Ok(column.clone()),
        false => Ok(cast(column, field.data_type())?),
    };
    keys.iter().zip(fields).map(plain).collect()
}

impl State {
    fn descriptor(&self) -> StateDescriptor {
        StateDescriptor { name: self.name.clone(), kind: StateKind::Keyed, schema: self.schema.clone() }
    }
}

impl KeyedStates for MemoryStates {
    fn lookup(&mut self, keys: &[ArrayRef], hashes: &[u64], slots: &mut Vec<usize>) -> Result<()> {
        let (keys, begin) = (self.plain(keys)?, slots.len());
        self.intern(&keys, hashes, slots)?;
        let Some(outside) = &mut self.outside else { return Ok(()) };
        if outside.len == 0 {
            outside.note_all(&slots[begin..], self.index.slots());
            return Ok(());
        }
        let fresh = outside.note(&slots[begin..], self.index.slots());
        if fresh.is_empty() { Ok(()) } else { self.fetch(&keys, hashes, &fresh) }
    }

    fn find(&mut self, keys: &[ArrayRef], hashes: &[u64], slots: &mut Vec<Option<usize>>) -> Result<()> {
        let (keys, begin) = (self.plain(keys)?, slots.len());
        self.index.find(&keys, hashes, slots)?;
        if self.outside.as_ref().is_none_or(|outside| outside.len == 0) {
            return Ok(());
        }
        let missing: Vec<usize> = (0..hashes.len()).filter(|row| slots[begin + row].is_none()).collect();
        let found = self.read(&keys, hashes, &missing)?;
        let rows: Vec<usize> = found.places.iter().map(|place| missing[*place]).collect();
        let places = UInt32Array::from_iter_values(rows.iter().map(|row| *row as u32));
        let keys = keys.iter().map(|column| Ok(take(column, &places, None)?)).collect::<Result<Vec<_>>>()?;
        let hashes: Vec<u64> = rows.iter().map(|row| hashes[*row]).collect();
        let mut found_slots = Vec::with_capacity(rows.len());
        self.intern(&keys, &hashes, &mut found_slots)?;
        let Some(outside) = &mut self.outside else { return Ok(()) };
        let fresh = outside.note(&found_slots, self.index.slots());
        self.admit(fresh.iter().map(|(place, slot)| (*slot, found.rows.get(*place))))?;
        rows.iter().zip(found_slots).for_each(|(row, slot)| slots[begin + row] = Some(slot));
        Ok(())
    }

    fn lookup_near(
        &mut self,
        keys: &[ArrayRef],
        hashes: &[u64],
        slots: &mut Vec<usize>,
        far: &mut Vec<u32>,
    ) -> Result<()> {
        let Some(outside) = self.outside.as_mut().filter(|outside| outside.len > 0) else {
            return self.lookup(keys, hashes, slots);
        };
        outside.keeps_back = true;
        let (keys, begin) = (plain(&self.key_fields, keys)?, slots.len());
        let mut found = Vec::with_capacity(hashes.len());
        self.index.find(&keys, hashes, &mut found)?;
        for (row, slot) in (0..).zip(found) {
            match slot {
                Some(slot) => slots.push(slot),
                None => far.push(row),
            }
        }
        outside.note_all(&slots[begin..], self.index.slots());
        Ok(())
    }

    fn backlog(&self) -> BacklogLimits {
        let outside = self.outside.as_ref().filter(|outside| outside.len > 0);
        outside.map_or_else(BacklogLimits::default, Outside::backlog)
    }

    fn remove(&mut self, slot: usize) {
        for number in 0..self.states.len() {
            let state = &mut self.states[number];
            if !state.column.is_vacant(slot) {
                state.column.clear(slot);
                self.mark(StateId::new(number), &[slot]);
            }
        }
        self.suspects.push(slot);
    }

    fn release(&mut self) -> Result<()> {
        let mut vacated = std::mem::take(&mut self.suspects);
        vacated.sort_unstable();
        vacated.dedup();
        vacated.retain(|slot| self.is_vacant(*slot));
        if !vacated.is_empty() {
            self.forget(vacated)?;
        }
        self.sweep_outside()?;
        self.make_room()
    }

    fn key_group(&self, slot: usize) -> u32 {
        key_group(self.index.hash(slot), self.max_parallelism)
    }

    fn keys(&self, slots: &[usize]) -> Result<Vec<ArrayRef>> {
        self.index.keys(slots)
    }

    fn all(&mut self, slots: &mut Vec<usize>) -> Result<()> {
        let mut from = Some(Cursor::default());
        while let Some(place) = from {
            from = self.bring_in(&place, BATCH_ROWS)?.more;
        }
        slots.extend((0..self.index.slots()).filter(|slot| !self.is_vacant(*slot)));
        Ok(())
    }

    fn len(&self) -> usize {
        self.index.len() + self.outside.as_ref().map_or(0, |outside| outside.len)
    }

    fn register(&mut self, name: &str, ttl: Option<StateTtl>, mut column: Box<dyn StateColumn>) -> Result<StateId> {
        if self.states.iter().any(|state| state.name == name) {
            return Err(Error::request(format!("there are two states called '{name}'"))
                .with_hint("every state of an operator has a name of its own"));
        }
        column.resize(self.column_slots());
        let schema = keyed_schema(&self.key_fields, column.fields());
        let id = StateId::new(self.states.len());
        let codec = match &self.outside {
            Some(_) => Some(Arc::new(RowCodec::new(column.fields())?)),
            None => None,
        };
        self.states.push(State { name: name.to_owned(), ttl, schema, column, changes: ChangedSlots::default(), codec });
        self.claim(id)?;
        Ok(id)
    }

    fn column(&mut self, id: StateId) -> Result<&mut (dyn StateColumn + 'static)> {
        Ok(self.state(id)?.column.as_mut())
    }

    fn touch(&mut self, id: StateId, slots: &[usize], now_millis: i64) -> Result<()> {
        let state = self.state(id)?;
        if state.ttl.is_some() {
            state.column.touch(slots, now_millis);
        }
        self.mark(id, slots);
        Ok(())
    }

    fn expire(&mut self, now_millis: i64, slots_max: usize) -> Result<usize> {
        if self.states.iter().all(|state| state.ttl.is_none()) {
            return Ok(0);
        }
        let slots = self.index.slots();
        let count = slots_max.min(slots);
        let looked_at: Vec<usize> = (self.sweep..self.sweep + count).map(|slot| slot % slots).collect();
        let dropped = self.expire_slots(&looked_at, now_millis);
        self.sweep = (self.sweep + count) % slots.max(1);
        if let Some(outside) = self.outside.as_mut().filter(|outside| outside.len > 0) {
            outside.sweep = Some((now_millis, slots_max));
        }
        Ok(dropped)
    }

    fn snapshot(&mut self, scope: SnapshotScope) -> Result<Snapshot> {
        match scope {
            SnapshotScope::Changes => self.snapshot_of_changes(),
            SnapshotScope::Copy => {
                self.write_behind()?;
                Ok(self.snapshot_of_everything()?.0)
            }
            SnapshotScope::Base => self.snapshot_to_build_on(),
        }
    }

    fn restore(&mut self, state: &mut RestoredState) -> Result<()> {
        self.restore_from(state)
    }

    fn give_back(&mut self, bytes: usize) -> Result<()> {
        self.release()?;
        let held = self.memory_bytes_now();
        match self.outside {
            Some(_) if bytes > 0 => self.shrink(held, held.saturating_sub(bytes)),
            _ => Ok(()),
        }
    }

    fn memory_bytes(&self) -> usize {
        self.memory_bytes_now()
    }
}
