//! Keys on their way out of memory and back.
//!
//! ```text
//! lookup: keys that are new in memory ── one sorted read ──> those that have a row are decoded into their slots
//! release: too much in memory ── the coldest keys, in the order of their rows ── one write ──> their slots are free
//! ```
//!
//! Keys move one by one, not by key group: every batch has keys of every group, and would bring all of them back.

use std::sync::Arc;

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::take;
use tidemill_core::key::key_group;
use tidemill_core::state::key_hashes;
use tidemill_core::{Error, Result};

use super::rows::{Head, Part, RowCodec, begin_row, parts, push_part};
use super::{BATCH_ROWS, MemoryStates};
use crate::state::KeyIndex;
use crate::state::tier::{Family, RowBatch};

/// How many rows are read together: each may keep a block of the cache in its place until it is copied.
const READ_ROWS: usize = 1024;

/// How many rows are looked at together for what has expired.
const SWEPT_ROWS: usize = 1024;

/// Rows that were read: the place in the list of what was asked for, or the slot, and the bytes.
type Found = Vec<(usize, Vec<u8>)>;

/// Rows that were brought into memory.
#[derive(Default)]
pub(super) struct Brought {
    /// The slots of their keys.
    pub slots: Vec<usize>,
    /// Those of keys that were not in memory.
    pub fresh: Vec<usize>,
    /// The row to go on from, if there are more.
    pub more: Option<Vec<u8>>,
}

impl MemoryStates {
    /// Fills slots that have just got their keys with what lies outside. `fresh` has their places in the batch, and themselves.
    pub(super) fn fetch(&mut self, keys: &[ArrayRef], hashes: &[u64], fresh: &[(usize, usize)]) -> Result<()> {
        let places: Vec<usize> = fresh.iter().map(|(place, _)| *place).collect();
        let found = self.read(keys, hashes, &places)?;
        let found: Found = found.into_iter().map(|(place, row)| (fresh[place].1, row)).collect();
        self.admit(&found)
    }

    /// The rows of keys at these places of a batch, each with its place in the list.
    pub(super) fn read(&self, keys: &[ArrayRef], hashes: &[u64], places: &[usize]) -> Result<Found> {
        let Some((outside, range)) = self.outside.as_ref().and_then(|outside| Some((outside, outside.range()?))) else {
            return Ok(Vec::new());
        };
        let groups: Vec<u32> = places.iter().map(|place| key_group(hashes[*place], self.max_parallelism)).collect();
        let rows = UInt32Array::from_iter_values(places.iter().map(|place| *place as u32));
        let keys = keys.iter().map(|column| Ok(take(column, &rows, None)?)).collect::<Result<Vec<_>>>()?;
        let keys = outside.row_keys(range, Family::Rows, &groups, &keys)?;
        let mut found = Vec::new();
        for order in keys.order().chunks(READ_ROWS) {
            let rows = range.get(&keys, order)?.into_iter().zip(order);
            found.extend(rows.filter_map(|(row, place)| Some((*place, row?.to_vec()))));
        }
        Ok(found)
    }

    /// Decodes rows into slots that have their keys and nothing else.
    pub(super) fn admit(&mut self, rows: &[(usize, Vec<u8>)]) -> Result<()> {
        let Some(outside) = &mut self.outside else { return Ok(()) };
        let (now, mut of_state) = (outside.epoch, vec![(Vec::new(), Vec::new()); self.states.len()]);
        let mut stored = Vec::with_capacity(rows.len());
        for (slot, row) in rows {
            let (head, parts) = parts(row)?;
            let is_of_now = head.epoch == now;
            if head.is_stored || !is_of_now {
                stored.push(*slot);
            }
            for part in parts {
                let Part { state, is_changed, columns } = part?;
                let Some((slots, rows)) = of_state.get_mut(state) else {
                    return Err(Error::internal("a row of a state that is not registered"));
                };
                if is_changed && is_of_now && self.is_tracking {
                    self.states[state].changes.mark(*slot);
                }
                if let Some(columns) = columns {
                    slots.push(*slot);
                    rows.push(columns);
                }
            }
            outside.clean(*slot);
        }
        outside.len -= rows.len();
        for (state, (slots, rows)) in self.states.iter_mut().zip(of_state) {
            if !slots.is_empty() {
                state.column.decode(&slots, &codec(&state.codec)?.decode(rows)?)?;
            }
        }
        if self.is_tracking {
            self.removed.store(&stored);
        }
        Ok(())
    }

    /// Moves keys out of memory, if it has to be.
    pub(super) fn make_room(&mut self) -> Result<()> {
        let held = self.memory_bytes_now();
        let Some(outside) = &mut self.outside else { return Ok(()) };
        outside.hold(held);
        let keys = self.index.len();
        let is_full = outside.room.is_some_and(|room| keys > room - room / 8);
        if outside.room.is_some() && outside.excess(2 * held).is_none() {
            outside.room = None;
        }
        match (outside.room, outside.excess(held)) {
            (Some(room), None) if is_full => self.leave(keys.saturating_sub(room - room / 4)),
            // The room was counted in keys: a batch had more of them, or they have grown.
            (Some(_), Some(most)) if is_full || held / 4 * 3 > most => self.shrink(held, most / 4 * 3),
            (None, Some(most)) => self.shrink(held, most / 4 * 3),
            _ => Ok(()),
        }
    }

    /// Moves so many keys out that those that stay occupy `goal` bytes of the `held` that they do.
    pub(super) fn shrink(&mut self, held: usize, goal: usize) -> Result<()> {
        let keys = self.index.len();
        let stay = (keys as u128 * goal.min(held) as u128 / held.max(1) as u128) as usize;
        self.leave(keys - stay)?;
        if self.memory_bytes_now() > goal { self.renumber(stay + stay / 4) } else { Ok(()) }
    }

    /// The coldest keys leave.
    fn leave(&mut self, count: usize) -> Result<()> {
        let Some(outside) = &mut self.outside else { return Ok(()) };
        let cold = outside.coldest(count);
        cold.chunks(BATCH_ROWS).try_for_each(|slots| self.move_out(slots))
    }

    /// Writes rows of these slots, and frees them.
    fn move_out(&mut self, slots: &[usize]) -> Result<()> {
        self.write_out(slots, true)?;
        let Some(outside) = &mut self.outside else { return Ok(()) };
        for slot in slots {
            for state in &mut self.states {
                state.changes.unmark(*slot);
                if !state.column.is_vacant(*slot) {
                    state.column.clear(*slot);
                }
            }
            self.index.remove(*slot);
            outside.free(*slot);
        }
        self.removed.forget(slots);
        outside.len += slots.len();
        Ok(())
    }

    /// Makes the rows outside what memory says of their keys.
    pub(super) fn write_behind(&mut self) -> Result<()> {
        let Some(outside) = self.outside.as_ref().filter(|outside| outside.range().is_some()) else { return Ok(()) };
        let is_old = |slot: &usize| outside.is_stored(*slot) && !outside.is_clean(*slot);
        let old: Vec<usize> = outside.taken().filter(is_old).collect();
        old.chunks(BATCH_ROWS).try_for_each(|slots| self.write_out(slots, false))
    }

    /// Writes the rows of slots whose rows are missing or old; of slots whose keys leave also what changed in any of them, once
    /// more, for the next snapshot.
    fn write_out(&mut self, slots: &[usize], leave: bool) -> Result<()> {
        let Some(outside) = &mut self.outside else { return Ok(()) };
        let is_changed = |slot: &usize| leave && self.states.iter().any(|state| state.changes.is_marked(*slot));
        let is_due = |slot: &usize| !outside.is_clean(*slot) || is_changed(slot);
        let slots: Vec<usize> = slots.iter().copied().filter(is_due).collect();
        if slots.is_empty() {
            return Ok(());
        }
        outside.open()?;
        let Some(range) = outside.range() else { return Ok(()) };
        let groups: Vec<u32> =
            slots.iter().map(|slot| key_group(self.index.hash(*slot), self.max_parallelism)).collect();
        let columns = self.index.keys(&slots)?;
        let keys = outside.row_keys(range, Family::Rows, &groups, &columns)?;
        let changed_keys = match slots.iter().any(is_changed) {
            true => Some(outside.row_keys(range, Family::Changes, &groups, &columns)?),
            false => None,
        };
        let mut encoded = Vec::with_capacity(self.states.len());
        for state in &self.states {
            let present: Vec<usize> = slots.iter().copied().filter(|slot| !state.column.is_vacant(*slot)).collect();
            let rows = match present.is_empty() {
                true => None,
                false => Some(codec(&state.codec)?.encode(&state.column.encode(&present)?)?),
            };
            // Where in the rows those of each slot are.
            let mut next = 0;
            let place = |slot: &usize| {
                let place = next;
                next += usize::from(!state.column.is_vacant(*slot));
                place
            };
            encoded.push((rows, slots.iter().map(place).collect::<Vec<usize>>()));
        }
        let (mut batch, mut row, mut written) = (RowBatch::default(), Vec::new(), Vec::with_capacity(slots.len()));
        for place in keys.order() {
            let slot = slots[place];
            begin_row(Head { epoch: outside.epoch, is_stored: self.removed.is_stored(slot) }, &mut row);
            for (number, (state, (rows, places))) in self.states.iter().zip(&encoded).enumerate() {
                let columns = match state.column.is_vacant(slot) {
                    true => None,
                    false => rows.as_ref().map(|rows| rows.row(places[place])),
                };
                let is_changed = state.changes.is_marked(slot);
                if is_changed || columns.is_some() {
                    let columns = columns.as_ref().map(AsRef::as_ref);
                    push_part(Part { state: number, is_changed, columns }, &mut row);
                }
            }
            if !outside.is_clean(slot) {
                batch.put(keys.get(place), &row);
                if !outside.is_stored(slot) {
                    written.push((Family::Rows, groups[place], row.len() + keys.get(place).len()));
                }
            }
            if let Some(keys) = &changed_keys
                && is_changed(&slot)
            {
                batch.put(keys.get(place), &row);
                written.push((Family::Changes, groups[place], row.len() + keys.get(place).len()));
            }
        }
        range.write(batch)?;
        written.into_iter().for_each(|(family, group, bytes)| outside.wrote(family, group, bytes));
        slots.iter().for_each(|slot| outside.clean(*slot));
        Ok(())
    }

    /// Deletes the rows of keys that are about to be forgotten.
    pub(super) fn delete_rows(&self, slots: &[usize]) -> Result<()> {
        let Some((outside, range)) = self.outside.as_ref().and_then(|outside| Some((outside, outside.range()?))) else {
            return Ok(());
        };
        let slots: Vec<usize> = slots.iter().copied().filter(|slot| outside.is_stored(*slot)).collect();
        for slots in slots.chunks(BATCH_ROWS) {
            let groups: Vec<u32> =
                slots.iter().map(|slot| key_group(self.index.hash(*slot), self.max_parallelism)).collect();
            let (columns, mut batch) = (self.index.keys(slots)?, RowBatch::default());
            for family in [Family::Rows, Family::Changes] {
                let keys = outside.row_keys(range, family, &groups, &columns)?;
                keys.order().into_iter().for_each(|place| batch.delete(keys.get(place)));
            }
            range.write(batch)?;
        }
        Ok(())
    }

    /// Brings those of up to `count` rows from `from` on into memory that are not there.
    pub(super) fn bring_in(&mut self, from: &[u8], count: usize) -> Result<Brought> {
        let Some((outside, range)) = self.outside.as_ref().and_then(|outside| Some((outside, outside.range()?))) else {
            return Ok(Brought::default());
        };
        let (mut keys, mut rows, mut more) = (Vec::new(), Vec::new(), None);
        range.scan(Family::Rows, from, &mut |full, _, key, row| {
            if rows.len() == count {
                more = Some(full.to_vec());
                return Ok(false);
            }
            keys.push(key.to_vec());
            rows.push(row.to_vec());
            Ok(true)
        })?;
        let columns = outside.key_codec().decode(keys.iter().map(Vec::as_slice))?;
        let hashes = key_hashes(&self.key_fields, &columns, rows.len())?;
        let mut slots = Vec::with_capacity(rows.len());
        self.intern(&columns, &hashes, &mut slots)?;
        let Some(outside) = &mut self.outside else { return Ok(Brought::default()) };
        let fresh = outside.note(&slots, self.index.slots());
        let found: Found = fresh.iter().map(|(place, slot)| (*slot, std::mem::take(&mut rows[*place]))).collect();
        self.admit(&found)?;
        Ok(Brought { slots, fresh: found.into_iter().map(|(slot, _)| slot).collect(), more })
    }

    /// Looks at rows outside for what has expired, as many as were asked for.
    pub(super) fn sweep_outside(&mut self) -> Result<()> {
        let Some((now_millis, mut left)) = self.outside.as_mut().and_then(|outside| outside.sweep.take()) else {
            return Ok(());
        };
        let mut from = self.outside.as_mut().map_or_else(Vec::new, |outside| std::mem::take(&mut outside.cursor));
        // Once round at the most.
        let mut wraps = usize::from(!from.is_empty());
        while left > 0 {
            let Brought { slots, fresh, more } = self.bring_in(&from, SWEPT_ROWS.min(left))?;
            left = left.saturating_sub(SWEPT_ROWS);
            self.expire_slots(&slots, now_millis);
            let stay: Vec<usize> = fresh.into_iter().filter(|slot| !self.is_vacant(*slot)).collect();
            self.forget(slots.into_iter().filter(|slot| self.is_vacant(*slot)).collect())?;
            self.move_out(&stay)?;
            match more {
                Some(next) => from = next,
                None if wraps == 0 => {
                    from = Vec::new();
                    break;
                }
                None => {
                    wraps -= 1;
                    from = Vec::new();
                }
            }
        }
        if let Some(outside) = &mut self.outside {
            outside.cursor = from;
        }
        Ok(())
    }

    /// Gives the keys the lowest slots, and all columns `room` of them: what they occupied beside is free.
    fn renumber(&mut self, room: usize) -> Result<()> {
        let Some(outside) = &mut self.outside else { return Ok(()) };
        let taken: Vec<usize> = outside.taken().collect();
        let keys = taken.len();
        // Keys below stay where they are, those above go into the gaps.
        let (stay, mut movers) = taken.split_at(taken.partition_point(|slot| *slot < keys));
        let mut order: Vec<usize> = (0..keys).collect();
        let mut stays = stay.iter().peekable();
        let mut moves = Vec::with_capacity(movers.len());
        for (slot, from) in order.iter_mut().enumerate() {
            if stays.next_if_eq(&&slot).is_none()
                && let Some((mover, rest)) = movers.split_first()
            {
                movers = rest;
                moves.push((*mover, slot));
                *from = *mover;
            }
        }
        let types: Vec<_> = self.key_fields.iter().map(|field| field.data_type().clone()).collect();
        let mut index = KeyIndex::new(&types)?;
        for slots in order.chunks(BATCH_ROWS) {
            let hashes: Vec<u64> = slots.iter().map(|slot| self.index.hash(*slot)).collect();
            index.intern(&self.index.keys(slots)?, &hashes, &mut Vec::with_capacity(slots.len()))?;
        }
        if index.slots() != keys {
            return Err(Error::internal("two keys of state are one"));
        }
        outside.renumber(&order);
        outside.room = Some(room);
        self.index = index;
        self.removed.renumber(&order);
        self.suspects = Vec::new();
        self.sweep = 0;
        for state in &mut self.states {
            state.changes.renumber(&order);
            for moves in moves.chunks(BATCH_ROWS) {
                let present = moves.iter().filter(|(from, _)| !state.column.is_vacant(*from));
                let (from, to): (Vec<usize>, Vec<usize>) = present.copied().unzip();
                if !from.is_empty() {
                    let columns = state.column.encode(&from)?;
                    from.iter().for_each(|slot| state.column.clear(*slot));
                    state.column.decode(&to, &columns)?;
                }
            }
            state.column.resize(room.max(keys));
        }
        Ok(())
    }
}

fn codec(codec: &Option<Arc<RowCodec>>) -> Result<&RowCodec> {
    codec.as_deref().ok_or_else(|| Error::internal("a state that cannot leave memory is to leave it"))
}
