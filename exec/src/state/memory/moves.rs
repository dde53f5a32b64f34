//! Keys on their way out of memory and back.
//!
//! ```text
//! lookup: keys that are new in memory ── pages, in their order ──> those that have a row are decoded into their slots
//! release: too much in memory ── the coldest keys, in the order of their rows ── into their pages ──> their slots are free
//! ```
//!
//! Keys move one by one, not by page or key group: every batch has keys of every group, and would bring all of them back.

use std::sync::Arc;

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::take;
use tidemill_core::state::key_hashes;
use tidemill_core::{Error, Result};

use super::rows::{Head, Part, RowCodec, begin_row, parts, push_part};
use super::{BATCH_ROWS, MemoryStates};
use crate::state::KeyIndex;
use crate::state::tier::{Cursor, Family, Place, Values};

/// How many rows are looked at together for what has expired.
const SWEPT_ROWS: usize = 1024;

/// Rows that were read.
#[derive(Default)]
pub(super) struct Found {
    /// Of each row the place in the list of what was asked for.
    pub places: Vec<usize>,
    /// The rows.
    pub rows: Values,
}

/// Rows that were brought into memory.
#[derive(Default)]
pub(super) struct Brought {
    /// The slots of their keys.
    pub slots: Vec<usize>,
    /// Those of keys that were not in memory.
    pub fresh: Vec<usize>,
    /// The row to go on from, if there are more.
    pub more: Option<Cursor>,
}

impl MemoryStates {
    /// Fills slots that have just got their keys with what lies outside. `fresh` has their places in the batch, and themselves.
    pub(super) fn fetch(&mut self, keys: &[ArrayRef], hashes: &[u64], fresh: &[(usize, usize)]) -> Result<()> {
        let places: Vec<usize> = fresh.iter().map(|(place, _)| *place).collect();
        let found = self.read(keys, hashes, &places)?;
        if let Some(outside) = &mut self.outside {
            outside.arrive(places.iter().map(|place| Place::of(hashes[*place], self.max_parallelism)));
        }
        let slots: Vec<usize> = found.places.iter().map(|place| fresh[*place].1).collect();
        self.admit(slots.iter().copied().enumerate().map(|(row, slot)| (slot, found.rows.get(row))))
    }

    /// The rows of keys at these places of a batch, each with its place in the list.
    pub(super) fn read(&self, keys: &[ArrayRef], hashes: &[u64], places: &[usize]) -> Result<Found> {
        let mut found = Found::default();
        let Some((outside, pages)) = self.outside.as_ref().and_then(|outside| Some((outside, outside.pages()?))) else {
            return Ok(found);
        };
        let rows = UInt32Array::from_iter_values(places.iter().map(|place| *place as u32));
        let keys = keys.iter().map(|column| Ok(take(column, &rows, None)?)).collect::<Result<Vec<_>>>()?;
        let keys = outside.row_keys(places.iter().map(|place| hashes[*place]), &keys)?;
        pages.get(&keys, &keys.order(), &mut |place, row| {
            found.places.push(place);
            found.rows.push(row);
            Ok(())
        })?;
        Ok(found)
    }

    /// Decodes rows into slots that have their keys and nothing else.
    pub(super) fn admit<'a>(&mut self, rows: impl Iterator<Item = (usize, &'a [u8])>) -> Result<()> {
        let Some(outside) = &mut self.outside else { return Ok(()) };
        let (now, mut of_state) = (outside.epoch, vec![(Vec::new(), Vec::new()); self.states.len()]);
        let mut stored = Vec::new();
        for (slot, row) in rows {
            let (head, parts) = parts(row)?;
            let is_of_now = head.epoch == now;
            if head.is_stored || !is_of_now {
                stored.push(slot);
            }
            for part in parts {
                let Part { state, is_changed, columns } = part?;
                let Some((slots, rows)) = of_state.get_mut(state) else {
                    return Err(Error::internal("a row of a state that is not registered"));
                };
                if is_changed && is_of_now && self.is_tracking {
                    self.states[state].changes.mark(slot);
                }
                if let Some(columns) = columns {
                    slots.push(slot);
                    rows.push(columns);
                }
            }
            outside.clean(slot);
            outside.len -= 1;
        }
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
        let spare = outside.spare().unwrap_or_default();
        let is_full = outside.room.is_some_and(|room| keys > room - spare);
        if outside.room.is_some() && outside.excess(2 * held).is_none() {
            outside.room = None;
        }
        match (outside.room, outside.excess(held)) {
            (Some(room), None) if is_full => self.leave(keys.saturating_sub(room - spare - spare.min(room / 8))),
            // The room was counted in keys: a batch had more of them, or they have grown.
            (Some(_), Some(most)) if is_full || held / 9 * 8 > most => self.shrink(held, most),
            (None, Some(most)) => self.shrink(held, most),
            _ => Ok(()),
        }
    }

    /// Has the keys that stay, which occupy `held` bytes now, occupy three quarters of `most` bytes, and leaves room for others beside
    /// them.
    pub(super) fn shrink(&mut self, held: usize, most: usize) -> Result<()> {
        let (keys, goal) = (self.index.len(), most / 4 * 3);
        let stay = (keys as u128 * goal.min(held) as u128 / held.max(1) as u128) as usize;
        self.leave(keys - stay)?;
        if self.memory_bytes_now() <= goal {
            return Ok(());
        }
        // Columns grow by doubling: what a key needs is known when there is no room beside them.
        self.renumber(stay)?;
        let fits = stay as u128 * (most / 8 * 7) as u128 / self.memory_bytes_now().max(1) as u128;
        if fits > (stay + stay / 8) as u128 { self.renumber(fits as usize) } else { Ok(()) }
    }

    /// The coldest keys leave.
    fn leave(&mut self, count: usize) -> Result<()> {
        let Some(outside) = &mut self.outside else { return Ok(()) };
        let (index, groups) = (&self.index, self.max_parallelism);
        let cold = outside.coldest(count, &|slot| Place::of(index.hash(slot), groups));
        self.by_place(cold).chunks(BATCH_ROWS).try_for_each(|slots| self.move_out(slots))
    }

    /// Slots in the order in which their keys lie outside: few pages have those that are neighbours.
    fn by_place(&self, mut slots: Vec<usize>) -> Vec<usize> {
        slots.sort_by_cached_key(|slot| Place::of(self.index.hash(*slot), self.max_parallelism));
        slots
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
        let Some(outside) = self.outside.as_ref().filter(|outside| outside.pages().is_some()) else { return Ok(()) };
        let is_old = |slot: &usize| outside.is_stored(*slot) && !outside.is_clean(*slot);
        let old: Vec<usize> = outside.taken().filter(is_old).collect();
        self.by_place(old).chunks(BATCH_ROWS).try_for_each(|slots| self.write_out(slots, false))
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
        let keys = outside.row_keys(slots.iter().map(|slot| self.index.hash(*slot)), &self.index.keys(&slots)?)?;
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
        let (mut values, mut row) = (Values::default(), Vec::new());
        for (place, slot) in slots.iter().enumerate() {
            begin_row(Head { epoch: outside.epoch, is_stored: self.removed.is_stored(*slot) }, &mut row);
            for (number, (state, (rows, places))) in self.states.iter().zip(&encoded).enumerate() {
                let columns = match state.column.is_vacant(*slot) {
                    true => None,
                    false => rows.as_ref().map(|rows| rows.row(places[place])),
                };
                let is_changed = state.changes.is_marked(*slot);
                if is_changed || columns.is_some() {
                    let columns = columns.as_ref().map(AsRef::as_ref);
                    push_part(Part { state: number, is_changed, columns }, &mut row);
                }
            }
            values.push(&row);
        }
        let order = keys.order();
        let old: Vec<usize> = order.iter().copied().filter(|place| !outside.is_clean(slots[*place])).collect();
        let changed: Vec<usize> = order.into_iter().filter(|place| is_changed(&slots[*place])).collect();
        let new: Vec<bool> = slots.iter().map(|slot| !outside.is_stored(*slot)).collect();
        let (pages, is_new) = (outside.open()?, |place: usize| new[place]);
        pages.write(Family::Rows, &keys, &old, Some(&values), &is_new)?;
        pages.write(Family::Changes, &keys, &changed, Some(&values), &is_new)?;
        slots.iter().for_each(|slot| outside.clean(*slot));
        Ok(())
    }

    /// Deletes the rows of keys that are about to be forgotten.
    pub(super) fn delete_rows(&mut self, slots: &[usize]) -> Result<()> {
        let Some(outside) = self.outside.as_ref().filter(|outside| outside.pages().is_some()) else { return Ok(()) };
        let slots: Vec<usize> = slots.iter().copied().filter(|slot| outside.is_stored(*slot)).collect();
        let slots = self.by_place(slots);
        let Some(outside) = &mut self.outside else { return Ok(()) };
        for slots in slots.chunks(BATCH_ROWS) {
            let keys = outside.row_keys(slots.iter().map(|slot| self.index.hash(*slot)), &self.index.keys(slots)?)?;
            let (order, pages) = (keys.order(), outside.open()?);
            for family in [Family::Rows, Family::Changes] {
                pages.write(family, &keys, &order, None, &|_| false)?;
            }
        }
        Ok(())
    }

    /// Brings those of up to `count` rows from `from` on into memory that are not there.
    pub(super) fn bring_in(&mut self, from: &Cursor, count: usize) -> Result<Brought> {
        let Some((outside, pages)) = self.outside.as_ref().and_then(|outside| Some((outside, outside.pages()?))) else {
            return Ok(Brought::default());
        };
        let (mut keys, mut rows, mut more) = (Vec::new(), Values::default(), None);
        pages.scan(Family::Rows, from, &mut |row| {
            if keys.len() == count {
                more = Some(row.cursor());
                return Ok(false);
            }
            keys.push(row.key.to_vec());
            rows.push(row.value);
            Ok(true)
        })?;
        let columns = outside.key_codec().decode(keys.iter().map(Vec::as_slice))?;
        let hashes = key_hashes(&self.key_fields, &columns, keys.len())?;
        let mut slots = Vec::with_capacity(keys.len());
        self.intern(&columns, &hashes, &mut slots)?;
        let Some(outside) = &mut self.outside else { return Ok(Brought::default()) };
        // To look for what has expired is not to use it.
        let fresh = outside.take(&slots, self.index.slots());
        self.admit(fresh.iter().map(|(place, slot)| (*slot, rows.get(*place))))?;
        Ok(Brought { slots, fresh: fresh.into_iter().map(|(_, slot)| slot).collect(), more })
    }

    /// Looks at rows outside for what has expired, as many as were asked for.
    pub(super) fn sweep_outside(&mut self) -> Result<()> {
        let Some((now_millis, mut left)) = self.outside.as_mut().and_then(|outside| outside.sweep.take()) else {
            return Ok(());
        };
        let mut from = self.outside.as_mut().and_then(|outside| outside.cursor.take());
        // Once round at the most.
        let mut is_round = from.is_none();
        while left > 0 {
            let Brought { slots, fresh, more } = self.bring_in(&from.unwrap_or_default(), SWEPT_ROWS.min(left))?;
            left = left.saturating_sub(SWEPT_ROWS);
            self.expire_slots(&slots, now_millis);
            let stay: Vec<usize> = fresh.into_iter().filter(|slot| !self.is_vacant(*slot)).collect();
            self.forget(slots.into_iter().filter(|slot| self.is_vacant(*slot)).collect())?;
            self.move_out(&stay)?;
            from = more;
            if from.is_none() && std::mem::replace(&mut is_round, true) {
                break;
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
        index.reserve(room.max(keys));
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
