//! One slice of time: its keys, and in parts what was accumulated for them.
//!
//! ```text
//! keys    k0 k1 k2 k3 k4 …            one index for the slice: a key keeps its slot as long as the slice lives
//! closed  [a a a]                     what had come when a checkpoint, or a window that other windows share rows with, asked
//!         [  b   b]                   what came between then and the next
//! open    {      c c …}               what takes rows
//! ```
//!
//! Closing a part costs what has come since the one before, whatever the slice holds; a part to which many keys come has a place
//! for every key, which is faster to fill. Parts are put together where somebody asks for results, slot by slot, without looking
//! up a key again.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, StructArray, UInt32Array};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{DataType, FieldRef};
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};
use fixedbitset::FixedBitSet;
use tidemill_core::key::hash_columns;
use tidemill_core::{Error, Result};

use super::slots::{ClosedPart, OpenSlots, Slots};
use super::take_all;
use crate::error::from_datafusion;
use crate::operators::aggregate::{Aggregate, Arguments};
use crate::state::KeyIndex;

/// An accumulator for each aggregate.
type Accumulators = Vec<Box<dyn GroupsAccumulator>>;

/// Of so many slots one that takes part is few.
const FEW: usize = 4;

/// Not in the open part.
const ABSENT: u32 = u32::MAX;

/// A slice of time.
pub struct Slice {
    index: KeyIndex,
    open: Option<OpenPart>,
    closed: Vec<ClosedPart>,
    closed_bytes: usize,
    /// How many of the closed parts are in a checkpoint: the first ones.
    stored: usize,
    /// The slot of each row that is being added.
    slots: Vec<usize>,
    /// Of each slot its place in the open part, where that is not the slot itself.
    places: Vec<u32>,
    weight: usize,
}

/// Accumulators that take rows.
struct OpenPart {
    accumulators: Accumulators,
    slots: OpenSlots,
}

/// Rows of some keys of a slice, as columns.
pub struct Rows {
    /// The key columns.
    pub keys: Vec<ArrayRef>,
    /// The state of each aggregate, a column of structs each.
    pub states: Vec<ArrayRef>,
    /// The carried hash of each key.
    pub hashes: Vec<u64>,
}

/// Keys with the result of each aggregate.
#[derive(Debug)]
pub struct Results {
    /// One array a key column.
    pub keys: Vec<ArrayRef>,
    /// One array an aggregate.
    pub values: Vec<ArrayRef>,
    /// How many groups.
    pub rows: usize,
}

impl Slice {
    /// Without keys.
    pub fn new(key_types: &[DataType]) -> Result<Self> {
        Ok(Self {
            index: KeyIndex::new(key_types)?,
            open: None,
            closed: Vec::new(),
            closed_bytes: 0,
            stored: 0,
            slots: Vec::new(),
            places: Vec::new(),
            weight: 0,
        })
    }

    /// Adds rows.
    pub fn update(
        &mut self,
        keys: &[ArrayRef],
        hashes: &[u64],
        arguments: &[Arguments],
        aggregates: &[Aggregate],
    ) -> Result<()> {
        self.slots.clear();
        self.index.intern(keys, hashes, &mut self.slots)?;
        let begins = self.open.is_none();
        if begins {
            // What comes next is much like what came last.
            let slots = match self.closed.last() {
                None => OpenSlots::All(0),
                Some(last) if last.slots.len() * FEW < self.index.slots() => OpenSlots::Few(Vec::new()),
                Some(_) => OpenSlots::Many(FixedBitSet::with_capacity(self.index.slots())),
            };
            self.open = Some(OpenPart { accumulators: accumulators(aggregates)?, slots });
        }
        let Some(open) = &mut self.open else { return Ok(()) };
        match &mut open.slots {
            OpenSlots::All(slots) => *slots = self.index.slots(),
            OpenSlots::Many(slots) => {
                slots.grow(self.index.slots());
                self.slots.iter().for_each(|slot| slots.insert(*slot));
            }
            OpenSlots::Few(slots) => {
                self.places.resize(self.index.slots(), ABSENT);
                for slot in &mut self.slots {
                    let place = &mut self.places[*slot];
                    if *place == ABSENT {
                        *place = slots.len() as u32;
                        slots.push(*slot);
                    }
                    *slot = *place as usize;
                }
            }
        }
        let groups = open.slots.groups();
        if begins && matches!(open.slots, OpenSlots::Many(_)) {
            // Accumulators take it that whatever is below the number of groups has been there, until they see a row left out.
            let none = BooleanArray::new(BooleanBuffer::new_unset(self.slots.len()), None);
            for (accumulator, Arguments { values, .. }) in open.accumulators.iter_mut().zip(arguments) {
                accumulator.update_batch(values, &self.slots, Some(&none), groups).map_err(from_datafusion)?;
            }
        }
        for (accumulator, Arguments { values, filter }) in open.accumulators.iter_mut().zip(arguments) {
            let filter: Option<&BooleanArray> = filter.as_ref();
            accumulator.update_batch(values, &self.slots, filter, groups).map_err(from_datafusion)?;
        }
        Ok(())
    }

    /// Adds rows that a checkpoint held.
    pub fn restore(&mut self, keys: &[ArrayRef], states: &[ArrayRef], rows: usize) -> Result<()> {
        let mut slots = Vec::with_capacity(rows);
        self.index.intern(keys, &hash_columns(keys, rows)?, &mut slots)?;
        self.push(ClosedPart { slots: Slots::Some(slots), states: columns_of(states)? });
        Ok(())
    }

    /// The rows that no checkpoint holds so far, part by part; from now on one does.
    pub fn store_new(&mut self, fields: &[FieldRef]) -> Result<Vec<Rows>> {
        self.close()?;
        let new = std::mem::replace(&mut self.stored, self.closed.len());
        self.closed[new..].iter().map(|part| self.rows(part, fields)).collect()
    }

    /// A row for each key, for a checkpoint that others build on.
    pub fn store_whole(&mut self, fields: &[FieldRef], aggregates: &[Aggregate]) -> Result<Vec<Rows>> {
        self.close()?;
        if self.closed.len() > 1 {
            let merged = self.merged_part(aggregates)?;
            (self.closed, self.closed_bytes) = (Vec::new(), 0);
            self.push(merged);
        }
        self.stored = self.closed.len();
        self.closed.iter().map(|part| self.rows(part, fields)).collect()
    }

    /// A row for each key, for a checkpoint that nobody builds on.
    pub fn copy(&mut self, fields: &[FieldRef], aggregates: &[Aggregate]) -> Result<Vec<Rows>> {
        self.close()?;
        match self.closed.as_slice() {
            [] => Ok(Vec::new()),
            [part] => Ok(vec![self.rows(part, fields)?]),
            _ => Ok(vec![self.rows(&self.merged_part(aggregates)?, fields)?]),
        }
    }

    /// All rows, taken out of the slice, which goes on without keys: those that a checkpoint holds, and the others.
    pub fn take_rows(&mut self, fields: &[FieldRef], key_types: &[DataType]) -> Result<(Vec<Rows>, Vec<Rows>)> {
        self.close()?;
        let (stored, new) = self.closed.split_at(self.stored);
        let rows = |parts: &[ClosedPart]| parts.iter().map(|part| self.rows(part, fields)).collect::<Result<Vec<_>>>();
        let taken = (rows(stored)?, rows(new)?);
        *self = Self { weight: self.weight, ..Self::new(key_types)? };
        Ok(taken)
    }

    /// The results of all keys; nothing may be asked of the slice afterwards.
    pub fn take_results(&mut self, aggregates: &[Aggregate]) -> Result<Results> {
        let merged = match self.open.take_if(|_| self.closed.is_empty()) {
            Some(open) => open.accumulators,
            None => {
                self.close()?;
                self.merged(aggregates)?.accumulators
            }
        };
        results(&self.index, merged)
    }

    /// Bytes that the slice occupied when it was last weighed.
    pub fn weight(&self) -> usize {
        self.weight
    }

    /// Looks again at how many bytes it occupies.
    pub fn weigh(&mut self) -> usize {
        let open = self.open.iter().map(|open| {
            let accumulators = open.accumulators.iter().map(|accumulator| accumulator.size());
            open.slots.memory_bytes() + accumulators.sum::<usize>()
        });
        let own = self.index.size_bytes() + self.places.capacity() * size_of::<u32>();
        self.weight = own + open.sum::<usize>() + self.closed_bytes;
        self.weight
    }

    /// Closes the open part.
    fn close(&mut self) -> Result<()> {
        let Some(mut open) = self.open.take() else { return Ok(()) };
        if let OpenSlots::Few(slots) = &open.slots {
            slots.iter().for_each(|slot| self.places[*slot] = ABSENT);
        }
        let states = states_of(&mut open.accumulators)?;
        self.push(open.slots.close(states)?);
        Ok(())
    }

    fn push(&mut self, part: ClosedPart) {
        let states = part.states.iter().flatten().map(|state| state.get_array_memory_size());
        self.closed_bytes += part.slots.memory_bytes() + states.sum::<usize>();
        self.closed.push(part);
    }

    /// Adds all that is closed to the groups of the slots, or to those that `group_of` tells, where it tells one.
    fn merge_into(&self, groups: &mut Groups, group_of: Option<&[Option<usize>]>) -> Result<()> {
        for part in &self.closed {
            let slots = part.slots.to_vec();
            let Some(group_of) = group_of else {
                groups.merge(&part.states, &slots)?;
                continue;
            };
            let wanted = slots.iter().enumerate().filter_map(|(row, slot)| Some((row as u32, group_of[*slot]?)));
            let (rows, of_rows): (Vec<u32>, Vec<usize>) = wanted.unzip();
            if rows.len() == slots.len() {
                groups.merge(&part.states, &of_rows)?;
                continue;
            }
            let rows = UInt32Array::from(rows);
            let states = part.states.iter().map(|state| take_all(state, &rows)).collect::<Result<Vec<_>>>()?;
            groups.merge(&states, &of_rows)?;
        }
        Ok(())
    }

    /// All that is closed, by slot.
    fn merged(&self, aggregates: &[Aggregate]) -> Result<Groups> {
        let mut merged = Groups::new(aggregates)?;
        self.merge_into(&mut merged, None)?;
        Ok(merged)
    }

    /// All that is closed, in one part.
    fn merged_part(&self, aggregates: &[Aggregate]) -> Result<ClosedPart> {
        let states = states_of(&mut self.merged(aggregates)?.accumulators)?;
        Ok(ClosedPart { slots: Slots::First(self.index.slots()), states })
    }

    fn rows(&self, part: &ClosedPart, fields: &[FieldRef]) -> Result<Rows> {
        rows(&self.index, &part.slots, &part.states, fields)
    }
}

/// What several slices hold together: the groups of a window.
pub struct Merged {
    index: KeyIndex,
    groups: Groups,
}

/// Accumulators that parts are put together in.
struct Groups {
    accumulators: Accumulators,
    /// How many groups there are.
    count: usize,
}

impl Groups {
    fn new(aggregates: &[Aggregate]) -> Result<Self> {
        Ok(Self { accumulators: accumulators(aggregates)?, count: 0 })
    }

    /// Adds states, a row for each of these groups. A group that is new is the next one: accumulators take it that whatever is
    /// below the number of groups has been there.
    fn merge(&mut self, states: &[Vec<ArrayRef>], groups: &[usize]) -> Result<()> {
        if groups.is_empty() {
            return Ok(());
        }
        self.count = groups.iter().fold(self.count, |count, group| count.max(group + 1));
        for (accumulator, state) in self.accumulators.iter_mut().zip(states) {
            accumulator.merge_batch(state, groups, self.count).map_err(from_datafusion)?;
        }
        Ok(())
    }
}

impl Merged {
    /// Nothing yet.
    pub fn new(key_types: &[DataType], aggregates: &[Aggregate]) -> Result<Self> {
        Ok(Self { index: KeyIndex::new(key_types)?, groups: Groups::new(aggregates)? })
    }

    /// Adds a slice, which goes on.
    pub fn add(&mut self, slice: &mut Slice) -> Result<()> {
        self.add_where(slice, |_| true)
    }

    /// Adds those keys of a slice whose hashes are wanted; the slice goes on.
    pub fn add_where(&mut self, slice: &mut Slice, is_wanted: impl Fn(u64) -> bool) -> Result<()> {
        slice.close()?;
        let slots = (0..slice.index.slots()).filter(|slot| is_wanted(slice.index.hash(*slot)));
        let slots: Vec<usize> = slots.collect();
        let hashes: Vec<u64> = slots.iter().map(|slot| slice.index.hash(*slot)).collect();
        let mut groups = Vec::with_capacity(slots.len());
        self.index.intern(&slice.index.keys(&slots)?, &hashes, &mut groups)?;
        let mut group_of = vec![None; slice.index.slots()];
        slots.into_iter().zip(groups).for_each(|(slot, group)| group_of[slot] = Some(group));
        slice.merge_into(&mut self.groups, Some(&group_of))
    }

    /// Adds rows that were taken out of a slice.
    pub fn add_rows(&mut self, keys: &[ArrayRef], states: &[ArrayRef], rows: usize) -> Result<()> {
        let mut groups = Vec::with_capacity(rows);
        self.index.intern(keys, &hash_columns(keys, rows)?, &mut groups)?;
        self.groups.merge(&columns_of(states)?, &groups)
    }

    /// A row for each key.
    pub fn into_rows(mut self, fields: &[FieldRef]) -> Result<Rows> {
        let slots = Slots::First(self.index.slots());
        rows(&self.index, &slots, &states_of(&mut self.groups.accumulators)?, fields)
    }

    /// The results of all groups.
    pub fn into_results(self) -> Result<Results> {
        results(&self.index, self.groups.accumulators)
    }
}

fn accumulators(aggregates: &[Aggregate]) -> Result<Accumulators> {
    aggregates.iter().map(Aggregate::groups).collect()
}

/// The state of every group; the accumulators are empty afterwards.
fn states_of(accumulators: &mut Accumulators) -> Result<Vec<Vec<ArrayRef>>> {
    let states = accumulators.iter_mut().map(|accumulator| accumulator.state(EmitTo::All));
    states.collect::<Result<_, _>>().map_err(from_datafusion)
}

/// The state columns of each aggregate out of its column of structs.
fn columns_of(states: &[ArrayRef]) -> Result<Vec<Vec<ArrayRef>>> {
    let columns = |state: &ArrayRef| {
        let columns = state.as_struct_opt().map(|state| state.columns().to_vec());
        columns.ok_or_else(|| Error::corrupt(format!("state of an aggregate of type {}", state.data_type())))
    };
    states.iter().map(columns).collect()
}

/// Rows of these slots, with states of which each has a row for each of them.
fn rows(index: &KeyIndex, slots: &Slots, states: &[Vec<ArrayRef>], fields: &[FieldRef]) -> Result<Rows> {
    let states = states.iter().zip(fields).map(|(state, field)| match field.data_type() {
        DataType::Struct(fields) => {
            Ok(Arc::new(StructArray::try_new(fields.clone(), state.clone(), None)?) as ArrayRef)
        }
        _ => Err(Error::internal("the state of an aggregate is no struct")),
    });
    let (keys, hashes) = match slots {
        Slots::First(count) => (index.first_keys(*count)?, index.hashes().iter().take(*count).copied().collect()),
        Slots::Some(slots) => (index.keys(slots)?, slots.iter().map(|slot| index.hash(*slot)).collect()),
    };
    Ok(Rows { keys, states: states.collect::<Result<_>>()?, hashes })
}

fn results(index: &KeyIndex, mut accumulators: Accumulators) -> Result<Results> {
    let rows = index.slots();
    let keys = index.first_keys(rows)?;
    let values = accumulators.iter_mut().map(|accumulator| accumulator.evaluate(EmitTo::All));
    Ok(Results { keys, values: values.collect::<Result<_, _>>().map_err(from_datafusion)?, rows })
}
