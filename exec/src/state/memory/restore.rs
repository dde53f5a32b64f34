//! Restored rows on their way back into columns: one layer over the other, out of memory again where there is too little of it.
//!
//! Keys of key groups that nobody has stored anything of so far need not be looked for: where all have room they are appended, and
//! brought into the index many at a time. For the first state that is restored it is laid out in the order of key groups, in which
//! keys come.

use std::ops::Range;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, FieldRef, Fields, UInt32Type};
use tidemill_core::key::key_group;
use tidemill_core::state::{
    KeyedStates, RestoredState, StateDescriptor, StateId, StateKind, StateLayer, adapt, is_namespace, key_hashes,
    keyed_schema, not_restorable,
};
use tidemill_core::{Error, Result};

use super::{BATCH_ROWS, MemoryStates, State};
use crate::state::key_index::HASH_WITHOUT_KEY;

/// Bytes that the index holds of a key beside its columns: its hash, and its place in a table of which up to half is empty.
const KEY_BYTES: usize = 8 + 10;

/// Bytes that it holds of a key of several columns besides: where the row is that they are kept as, which has a byte more for each
/// of them and grows by doubling.
fn row_bytes(keys: &Fields, width: usize) -> usize {
    match keys.len() {
        0 | 1 => 0,
        columns => 16 + width + 2 * columns,
    }
}

/// Keys that are brought into the index together, those of some key groups: what else is done with a batch does not drive their part of
/// the index out of the caches.
const SETTLED_KEYS: usize = 512 << 10;

/// Bytes of columns of which nobody knows how long their values are.
const VALUE_BYTES: usize = 16;

/// Bytes that these columns have of a key, if all of them have as many.
fn width(fields: &Fields) -> Option<usize> {
    let of_type = |field: &FieldRef| match field.data_type() {
        DataType::Struct(fields) => width(fields),
        DataType::Boolean => Some(1),
        other => other.primitive_width(),
    };
    fields.iter().map(of_type).sum()
}

/// Key groups of which only the layer at hand has rows: it has each of its keys once, and they are new. A layer has its rows in the
/// order of key groups; where one comes again behind others, something is there that was not written so, and its keys are looked for.
struct FreshGroups {
    of_layers_before: Vec<bool>,
    of_layer: Vec<bool>,
    /// The group of the layer's last row, and whether all of its rows so far were new.
    last: Option<(u32, bool)>,
    /// For how many keys there is room.
    room: usize,
}

impl FreshGroups {
    fn new(groups: u32, room: usize) -> Self {
        Self {
            of_layers_before: vec![false; groups as usize],
            of_layer: vec![false; groups as usize],
            last: None,
            room,
        }
    }

    /// Takes note of the groups of some rows; whether no layer before had rows of any of them, nor this one before others.
    fn meet(&mut self, groups: &[u32]) -> bool {
        let mut are_fresh = true;
        for group in groups {
            let is_fresh = match self.last {
                Some((last, is_fresh)) if last == *group => is_fresh,
                _ => match (self.of_layers_before.get(*group as usize), self.of_layer.get_mut(*group as usize)) {
                    (Some(false), Some(met)) => !std::mem::replace(met, true),
                    _ => false,
                },
            };
            are_fresh &= is_fresh;
            self.last = Some((*group, is_fresh));
        }
        are_fresh
    }

    fn end_layer(&mut self) {
        let met = self.of_layers_before.iter_mut().zip(&mut self.of_layer);
        met.for_each(|(before, of_layer)| *before |= std::mem::take(of_layer));
        self.last = None;
    }
}

/// Roughly how many keys the layers of a state have: the large ones are what several subtasks had, the small ones are changes of it.
fn keys_coming(layers: &[StateLayer]) -> usize {
    let counts = layers.iter().filter(|layer| matches!(layer, StateLayer::Rows(_))).map(|layer| layer.rows().count());
    let largest = counts.clone().max().unwrap_or_default();
    counts.filter(|count| *count > largest / 2).sum()
}

impl MemoryStates {
    /// Takes the keyed states out of `state`.
    pub(super) fn restore_from(&mut self, state: &mut RestoredState) -> Result<()> {
        if !self.is_empty() {
            return Err(Error::internal("state is restored among keys that are already there"));
        }
        self.restored_groups = state.key_groups.clone();
        let (keyed, others) =
            std::mem::take(&mut state.states).into_iter().partition(|(state, _)| state.kind == StateKind::Keyed);
        (self.restored, state.states) = (keyed, others);
        let layers = self.restored.iter().flat_map(|(_, layers)| layers);
        self.restored_bytes = layers.map(|layer| layer.rows().memory_bytes()).sum();
        (0..self.states.len()).try_for_each(|place| self.claim(StateId::new(place)))
    }

    /// Decodes what was restored under the name of a state that is now registered.
    pub(super) fn claim(&mut self, id: StateId) -> Result<()> {
        let state = &self.states[id.index()];
        let is_named = |(descriptor, _): &(StateDescriptor, _)| descriptor.name == state.name;
        let Some(place) = self.restored.iter().position(is_named) else { return Ok(()) };
        let (descriptor, layers) = self.restored.swap_remove(place);
        // Subtasks without rows refuse it too.
        adapt(&state.name, &RecordBatch::new_empty(descriptor.schema), &state.schema)?;
        let coming = keys_coming(&layers);
        let can_append = self.expect(id, coming) && self.is_empty();
        let mut groups = can_append.then(|| FreshGroups::new(self.max_parallelism, coming));
        for layer in layers {
            self.restored_bytes = self.restored_bytes.saturating_sub(layer.rows().memory_bytes());
            let (rows, are_removed) = match layer {
                StateLayer::Rows(rows) => (rows, false),
                StateLayer::Removed(rows) => (rows, true),
            };
            for batch in rows {
                let batch = batch?;
                let own = batch.columns().first().and_then(|column| column.as_primitive_opt::<UInt32Type>());
                let are_fresh = groups.as_mut().zip(own).is_some_and(|(groups, own)| groups.meet(own.values()));
                for begin in (0..batch.num_rows()).step_by(BATCH_ROWS) {
                    let rows = batch.slice(begin, BATCH_ROWS.min(batch.num_rows() - begin));
                    let slots = self.index.slots() + rows.num_rows();
                    let is_bounded = self.outside.as_ref().is_some_and(|outside| outside.room.is_some());
                    let has_room = !is_bounded && groups.as_ref().is_some_and(|groups| slots <= groups.room);
                    match are_removed {
                        true => self.take_out(id, &rows)?,
                        false => self.put_back(id, &rows, are_fresh && has_room)?,
                    }
                }
            }
            groups.iter_mut().for_each(FreshGroups::end_layer);
        }
        self.settle();
        self.release_if_tiered()
    }

    /// Makes room for so many keys of a state at once, where memory has it: to grow with them would move and hash them again and again.
    /// Whether as many have room for sure.
    fn expect(&mut self, id: StateId, keys: usize) -> bool {
        let new = keys.saturating_sub(self.index.len());
        let of_key = width(&self.key_fields);
        let of_value = width(self.states[id.index()].column.fields());
        let bytes = |width: Option<usize>| width.unwrap_or(VALUE_BYTES);
        let of_row = row_bytes(&self.key_fields, bytes(of_key));
        let held = self.memory_bytes_now();
        let expected = held + new * (KEY_BYTES + bytes(of_key) + of_row) + keys * bytes(of_value);
        if let Some(outside) = &mut self.outside {
            // Known to the others before anybody counts on it: they make room for their keys at the same time.
            outside.hold(expected);
            if outside.room.is_some() || outside.excess(expected).is_some() {
                outside.hold(held);
                return false;
            }
            outside.reserve(new);
        }
        // All namespaces of a key are of one hash to a key group: in its order they would stand in one place.
        let is_spread = !self.key_fields.iter().any(|field| is_namespace(field));
        match self.index.is_empty() && is_spread {
            true => self.index.lay_out(&self.restored_groups, self.max_parallelism, keys),
            false => self.index.reserve(new),
        }
        self.states[id.index()].column.reserve(keys);
        of_key.is_some() && of_value.is_some()
    }

    /// Decodes restored rows of a state. Those whose keys are new for sure are appended.
    fn put_back(&mut self, id: StateId, batch: &RecordBatch, are_new: bool) -> Result<()> {
        let state = &self.states[id.index()];
        let (saved, batch) = (batch.schema(), adapt(&state.name, batch, &state.schema)?);
        let (keys, values) = batch.columns()[1..].split_at(self.key_fields.len());
        let hashes = match keys.is_empty() {
            true => vec![HASH_WITHOUT_KEY; batch.num_rows()].into(),
            false => key_hashes(&self.key_fields, keys, batch.num_rows())?,
        };
        let (mut slots, suspects) = (Vec::with_capacity(batch.num_rows()), self.suspects.len());
        let is_appended = are_new && !keys.is_empty() && keys.iter().all(|column| column.null_count() == 0);
        self.check_groups(batch.column(0).as_primitive::<UInt32Type>().values(), &hashes)?;
        let decoded = if is_appended {
            let appended = self.append(id, keys, &hashes)?;
            slots.extend(appended.clone());
            self.states[id.index()].column.append(appended, values)
        } else {
            self.settle();
            self.lookup(keys, &hashes, &mut slots)?;
            self.states[id.index()].column.decode(&slots, values)
        };
        let State { name, schema, .. } = &self.states[id.index()];
        match saved.fields() == schema.fields() {
            true => decoded?,
            false => decoded.map_err(|error| not_restorable(name, &saved, schema, error.message()))?,
        }
        // What has just been put back is not vacant, unless it was restored so.
        self.suspects.truncate(suspects);
        self.mark(id, &slots);
        match is_appended {
            true => {
                if self.index.unsettled() >= SETTLED_KEYS {
                    self.settle();
                }
                Ok(())
            }
            false => self.release_if_tiered(),
        }
    }

    /// Slots for plain keys that are not there, which the column of this state does not have so far.
    fn append(&mut self, id: StateId, keys: &[ArrayRef], hashes: &[u64]) -> Result<Range<usize>> {
        let (appended, count) = (self.index.append(&self.plain(keys)?, hashes)?, self.column_slots());
        let others = self.states.iter_mut().enumerate().filter(|(place, _)| *place != id.index());
        others.for_each(|(_, state)| state.column.resize(count));
        if let Some(outside) = &mut self.outside {
            outside.append(appended.clone());
        }
        Ok(appended)
    }

    /// Makes keys that were appended such as are found.
    fn settle(&mut self) {
        if self.index.unsettled() > 0 {
            self.index.settle();
        }
    }

    /// Lets keys go where there is too little memory for them.
    fn release_if_tiered(&mut self) -> Result<()> {
        match self.outside {
            Some(_) => self.release(),
            None => Ok(()),
        }
    }

    /// Clears a state of keys that were removed after they were stored.
    fn take_out(&mut self, id: StateId, batch: &RecordBatch) -> Result<()> {
        self.settle();
        let schema = keyed_schema(&self.key_fields, &Fields::empty());
        let batch = adapt(&self.states[id.index()].name, batch, &schema)?;
        let (keys, mut slots) = (&batch.columns()[1..], Vec::with_capacity(batch.num_rows()));
        self.find(keys, &key_hashes(&self.key_fields, keys, batch.num_rows())?, &mut slots)?;
        let slots: Vec<usize> = slots.into_iter().flatten().collect();
        slots.iter().for_each(|slot| self.states[id.index()].column.clear(*slot));
        self.mark(id, &slots);
        self.release_if_tiered()
    }

    /// Restored rows stand under the key group that their keys belong to, and this subtask owns it.
    fn check_groups(&self, groups: &[u32], hashes: &[u64]) -> Result<()> {
        let owned = &self.restored_groups;
        let stands_well = |hash: &u64, group: &u32| {
            key_group(*hash, self.max_parallelism) == *group && *group >= owned.start && *group < owned.end
        };
        // Nobody decides anything between two rows.
        if hashes.iter().zip(groups).fold(true, |all, (hash, group)| all & stands_well(hash, group)) {
            return Ok(());
        }
        let mut rows = hashes.iter().zip(groups);
        let (own, group) = match rows.find(|(hash, group)| !stands_well(hash, group)) {
            Some((hash, group)) => (key_group(*hash, self.max_parallelism), *group),
            None => return Ok(()),
        };
        Err(Error::corrupt(format!(
            "a row of key group {own} stands under {group}, restored where {}..{} are owned",
            owned.start, owned.end
        )))
    }
}
