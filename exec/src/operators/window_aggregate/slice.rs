//! One slice of time: its keys and their accumulators, open while rows come, frozen once a window has read it.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, StructArray, UInt32Array};
use arrow::datatypes::{DataType, FieldRef};
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};
use tidemill_core::key::{hash_columns, key_group};
use tidemill_core::{Error, Result};

use super::take_all;
use crate::error::from_datafusion;
use crate::operators::aggregate::{Aggregate, Arguments};
use crate::state::KeyIndex;

/// Keys with an accumulator of each aggregate.
pub struct Groups {
    index: KeyIndex,
    accumulators: Vec<Box<dyn GroupsAccumulator>>,
    slots: Vec<usize>,
}

/// Keys with the intermediate state of each aggregate, as columns: what several windows may read.
#[derive(Clone, Debug)]
pub struct FrozenGroups {
    keys: Vec<ArrayRef>,
    hashes: Vec<u64>,
    /// The state columns of each aggregate.
    states: Vec<Vec<ArrayRef>>,
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

impl Groups {
    /// No groups yet.
    pub fn new(key_types: &[DataType], aggregates: &[Aggregate]) -> Result<Self> {
        let accumulators = aggregates.iter().map(Aggregate::groups).collect::<Result<_>>()?;
        Ok(Self { index: KeyIndex::new(key_types)?, accumulators, slots: Vec::new() })
    }

    /// Adds rows.
    pub fn update(&mut self, keys: &[ArrayRef], hashes: &[u64], arguments: &[Arguments]) -> Result<()> {
        self.slots.clear();
        self.index.intern(keys, hashes, &mut self.slots)?;
        let groups = self.index.slots();
        for (accumulator, Arguments { values, filter }) in self.accumulators.iter_mut().zip(arguments) {
            let filter: Option<&BooleanArray> = filter.as_ref();
            accumulator.update_batch(values, &self.slots, filter, groups).map_err(from_datafusion)?;
        }
        Ok(())
    }

    /// Adds what another slice holds.
    pub fn merge(&mut self, other: &FrozenGroups) -> Result<()> {
        self.slots.clear();
        self.index.intern(&other.keys, &other.hashes, &mut self.slots)?;
        let groups = self.index.slots();
        for (accumulator, state) in self.accumulators.iter_mut().zip(&other.states) {
            accumulator.merge_batch(state, &self.slots, groups).map_err(from_datafusion)?;
        }
        Ok(())
    }

    /// Bytes that the groups occupy.
    fn memory_bytes(&self) -> usize {
        self.index.size_bytes() + self.accumulators.iter().map(|accumulator| accumulator.size()).sum::<usize>()
    }

    /// The result of every group; the groups are used up.
    pub fn into_results(mut self) -> Result<Results> {
        let rows = self.index.slots();
        let keys = self.index.keys(&(0..rows).collect::<Vec<_>>())?;
        let values = self.accumulators.iter_mut().map(|accumulator| accumulator.evaluate(EmitTo::All));
        let values = values.collect::<Result<_, _>>().map_err(from_datafusion)?;
        Ok(Results { keys, values, rows })
    }

    /// The state of every group, to be read more than once.
    pub fn freeze(mut self) -> Result<FrozenGroups> {
        let rows = self.index.slots();
        let states = self.accumulators.iter_mut().map(|accumulator| accumulator.state(EmitTo::All));
        Ok(FrozenGroups {
            keys: self.index.keys(&(0..rows).collect::<Vec<_>>())?,
            hashes: (0..rows).map(|slot| self.index.hash(slot)).collect(),
            states: states.collect::<Result<_, _>>().map_err(from_datafusion)?,
        })
    }
}

impl FrozenGroups {
    /// Groups as they were encoded: keys, then the state of each aggregate.
    pub fn decode(keys: Vec<ArrayRef>, states: &[ArrayRef], rows: usize) -> Result<Self> {
        let hashes = hash_columns(&keys, rows)?.to_vec();
        let parts = |state: &ArrayRef| {
            let parts = state.as_struct_opt().map(|state| state.columns().to_vec());
            parts.ok_or_else(|| Error::corrupt(format!("state of an aggregate of type {}", state.data_type())))
        };
        Ok(Self { keys, hashes, states: states.iter().map(parts).collect::<Result<_>>()? })
    }

    /// Keys and states, a column each, and the hash of each key.
    pub fn encode(&self, fields: &[FieldRef]) -> Result<(Vec<ArrayRef>, Vec<u64>)> {
        let mut columns = self.keys.clone();
        for (parts, field) in self.states.iter().zip(fields) {
            let DataType::Struct(part_fields) = field.data_type() else {
                return Err(Error::internal("the state of an aggregate is no struct"));
            };
            columns.push(Arc::new(StructArray::try_new(part_fields.clone(), parts.clone(), None)?));
        }
        Ok((columns, self.hashes.clone()))
    }

    /// Those of some key groups.
    pub fn of_groups(&self, groups: &Range<u32>, max_parallelism: u32) -> Result<Self> {
        let is_own = |row: &u32| groups.contains(&key_group(self.hashes[*row as usize], max_parallelism));
        let rows = UInt32Array::from_iter_values((0..self.hashes.len() as u32).filter(is_own));
        let states = self.states.iter().map(|state| take_all(state, &rows)).collect::<Result<_>>()?;
        let hashes = rows.values().iter().map(|row| self.hashes[*row as usize]).collect();
        Ok(Self { keys: take_all(&self.keys, &rows)?, hashes, states })
    }

    fn memory_bytes(&self) -> usize {
        let arrays = self.keys.iter().chain(self.states.iter().flatten());
        arrays.map(|array| array.get_array_memory_size()).sum::<usize>() + self.hashes.capacity() * size_of::<u64>()
    }
}

/// A slice: open groups, and what was frozen before rows came again.
#[derive(Default)]
pub struct Slice {
    open: Option<Groups>,
    frozen: Vec<FrozenGroups>,
    /// How many of the frozen parts are in a checkpoint: the first ones.
    stored: usize,
    weight: usize,
}

impl Slice {
    /// The groups that take rows.
    pub fn open(&mut self, key_types: &[DataType], aggregates: &[Aggregate]) -> Result<&mut Groups> {
        match &mut self.open {
            Some(_) => {}
            none => *none = Some(Groups::new(key_types, aggregates)?),
        }
        self.open.as_mut().ok_or_else(|| tidemill_core::Error::internal("a slice without groups"))
    }

    /// What the slice holds, kept for other windows.
    pub fn frozen(&mut self) -> Result<&[FrozenGroups]> {
        if let Some(open) = self.open.take() {
            self.frozen.push(open.freeze()?);
        }
        Ok(&self.frozen)
    }

    /// Adds restored groups.
    pub fn add(&mut self, groups: FrozenGroups) {
        self.frozen.push(groups);
    }

    /// All of it, taken out in parts, each with whether a checkpoint holds it.
    pub fn take_parts(&mut self) -> Result<Vec<(FrozenGroups, bool)>> {
        self.frozen()?;
        let stored = std::mem::take(&mut self.stored);
        let parts = std::mem::take(&mut self.frozen).into_iter().enumerate();
        Ok(parts.map(|(place, groups)| (groups, place < stored)).collect())
    }

    /// The parts that no checkpoint holds so far; from now on one does.
    pub fn store_new(&mut self) -> Result<&[FrozenGroups]> {
        let parts = self.frozen()?.len();
        let new = std::mem::replace(&mut self.stored, parts);
        Ok(&self.frozen[new..])
    }

    /// All groups of the slice in one piece, each key once, for a checkpoint that others build on.
    pub fn store_whole(&mut self, key_types: &[DataType], aggregates: &[Aggregate]) -> Result<&[FrozenGroups]> {
        if self.frozen()?.len() > 1 {
            self.frozen = vec![self.merged(key_types, aggregates)?];
        }
        self.stored = self.frozen.len();
        Ok(&self.frozen)
    }

    /// The same for one that nobody builds on.
    pub fn copy(&mut self, key_types: &[DataType], aggregates: &[Aggregate]) -> Result<Vec<FrozenGroups>> {
        match self.frozen()?.len() {
            0 | 1 => Ok(self.frozen.clone()),
            _ => Ok(vec![self.merged(key_types, aggregates)?]),
        }
    }

    fn merged(&self, key_types: &[DataType], aggregates: &[Aggregate]) -> Result<FrozenGroups> {
        let mut merged = Groups::new(key_types, aggregates)?;
        self.frozen.iter().try_for_each(|frozen| merged.merge(frozen))?;
        merged.freeze()
    }

    /// Bytes that the slice occupied when it was last weighed.
    pub fn weight(&self) -> usize {
        self.weight
    }

    /// Looks again at how many bytes it occupies.
    pub fn weigh(&mut self) -> usize {
        let open = self.open.as_ref().map_or(0, Groups::memory_bytes);
        self.weight = open + self.frozen.iter().map(FrozenGroups::memory_bytes).sum::<usize>();
        self.weight
    }

    /// The open groups, if they are all there is: the one window of this slice may use them up.
    pub fn take_sole(&mut self) -> Option<Groups> {
        if self.frozen.is_empty() { self.open.take() } else { None }
    }
}
