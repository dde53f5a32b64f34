//! Restored rows on their way back into columns: one layer over the other, a batch at a time, out of memory again where there is
//! too little of it.

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Fields, UInt32Type};
use tidemill_core::state::{
    KeyedStates, RestoredState, StateDescriptor, StateId, StateKind, StateLayer, adapt, key_hashes, keyed_schema,
    not_restorable,
};
use tidemill_core::{Error, Result};

use super::{BATCH_ROWS, MemoryStates, State};

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
        if self.outside.is_none() {
            let coming = keys_coming(&layers);
            self.index.reserve(coming.saturating_sub(self.index.len()));
            self.states[id.index()].column.reserve(coming);
        }
        for layer in layers {
            self.restored_bytes = self.restored_bytes.saturating_sub(layer.rows().memory_bytes());
            let (rows, are_removed) = match layer {
                StateLayer::Rows(rows) => (rows, false),
                StateLayer::Removed(rows) => (rows, true),
            };
            for batch in rows {
                let batch = batch?;
                for begin in (0..batch.num_rows()).step_by(BATCH_ROWS) {
                    let rows = batch.slice(begin, BATCH_ROWS.min(batch.num_rows() - begin));
                    if are_removed {
                        self.take_out(id, &rows)?
                    } else {
                        self.put_back(id, &rows)?
                    }
                    if self.outside.is_some() {
                        self.release()?;
                    }
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
        let (mut slots, suspects) = (Vec::with_capacity(batch.num_rows()), self.suspects.len());
        self.lookup(keys, &key_hashes(&self.key_fields, keys, batch.num_rows())?, &mut slots)?;
        self.check_groups(batch.column(0).as_primitive::<UInt32Type>().values(), &slots)?;
        let State { name, schema, column, .. } = &mut self.states[id.index()];
        let decoded = column.decode(&slots, values);
        match saved.fields() == schema.fields() {
            true => decoded?,
            false => decoded.map_err(|error| not_restorable(name, &saved, schema, error.message()))?,
        }
        // What has just been put back is not vacant, unless it was restored so.
        self.suspects.truncate(suspects);
        self.mark(id, &slots);
        Ok(())
    }

    /// Clears a state of keys that were removed after they were stored.
    fn take_out(&mut self, id: StateId, batch: &RecordBatch) -> Result<()> {
        let schema = keyed_schema(&self.key_fields, &Fields::empty());
        let batch = adapt(&self.states[id.index()].name, batch, &schema)?;
        let (keys, mut slots) = (&batch.columns()[1..], Vec::with_capacity(batch.num_rows()));
        self.find(keys, &key_hashes(&self.key_fields, keys, batch.num_rows())?, &mut slots)?;
        let slots: Vec<usize> = slots.into_iter().flatten().collect();
        slots.iter().for_each(|slot| self.states[id.index()].column.clear(*slot));
        self.mark(id, &slots);
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
}
