//! Slices that memory has no room for.
//!
//! ```text
//! rows ──> open groups ── memory is short ──> a part of the slice, by key group, on local disk; new groups are opened
//! a window fires ──> a portion of key groups after the other: their parts of all slices, there and here, are merged
//! ```
//!
//! A part is written without reading the others: what a key has in several of them meets when its window fires. So it costs
//! one write and one read a part, whatever the keys are, and a result larger than memory leaves it portion by portion.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Fields};
use tidemill_core::key::key_group;
use tidemill_core::state::{
    Extent, FrozenState, PartStore, Snapshot, SnapshotScope, StateDescriptor, StateKind, StatePart, keyed_schema,
    portions,
};
use tidemill_core::window::Window;
use tidemill_core::{Batch, Result};

use super::slice::{Merged, Rows};
use super::state::{SLICES, slice_rows};
use super::{WindowAggregate, WindowAggregateOperator};
use crate::operators::saved::{KeyedPart, KeyedRows};

/// How many bytes of a window's parts are merged at a time.
const PORTION_BYTES: u64 = 8 << 20;

/// The parts of slices outside memory.
#[derive(Default)]
pub struct Spilled {
    /// Where they go; `None` before `open`, and where all state stays in memory.
    pub store: Option<Box<dyn PartStore>>,
    /// By the start of the slice.
    parts: BTreeMap<i64, Vec<Part>>,
    /// The window that fires, and the key groups that it has still to fire for.
    firing: Option<(Window, VecDeque<Range<u32>>)>,
}

#[derive(Clone, Debug)]
struct Part {
    part: Arc<dyn StatePart>,
    /// Whether it is in a checkpoint that others build on.
    is_stored: bool,
}

impl Spilled {
    /// A slice is forgotten.
    pub fn forget(&mut self, start: i64) {
        self.parts.remove(&start);
    }
}

impl WindowAggregateOperator {
    /// Puts slices away until those in memory are as small as they have to be.
    pub fn make_room(&mut self) -> Result<()> {
        let held = self.state_bytes;
        match self.spilled.store.as_mut().and_then(|store| store.excess(held)) {
            Some(most) => self.shrink(most / 2),
            None => Ok(()),
        }
    }

    /// Puts slices away until those in memory occupy no more than `bytes`: the oldest first, which get rows no longer.
    pub fn shrink(&mut self, bytes: usize) -> Result<()> {
        let starts: Vec<i64> = self.slices.keys().copied().collect();
        for start in starts {
            if self.state_bytes <= bytes || self.spilled.store.is_none() {
                break;
            }
            self.put_away(start)?;
        }
        Ok(())
    }

    /// Moves what is in memory of a slice out of it: what a checkpoint holds as one part, the rest as another.
    fn put_away(&mut self, start: i64) -> Result<()> {
        let (keys, kept) = self.plan.state_fields()?;
        let keys: Fields = keys.iter().take(self.plan.keys.len()).cloned().collect();
        let Some(slice) = self.slices.get_mut(&start) else { return Ok(()) };
        let (stored, new) = slice.take_rows(&kept, &self.key_types)?;
        self.weigh(start..start.saturating_add(1));
        for (rows, is_stored) in [(stored, true), (new, false)] {
            if rows.is_empty() {
                continue;
            }
            let part = |Rows { keys, states, hashes }| KeyedPart::new(keys.into_iter().chain(states), hashes);
            let parts = rows.into_iter().map(part).collect();
            let rows = KeyedRows { keys: keys.clone(), kept: kept.clone(), parts };
            let (descriptor, encode) = rows.freeze(SLICES, self.max_parallelism);
            let Some(store) = &mut self.spilled.store else { return Ok(()) };
            for rows in (FrozenState { descriptor, extent: Extent::Whole, encode }).rows()? {
                let part = Part { part: store.put(&rows)?, is_stored };
                self.spilled.parts.entry(start).or_default().push(part);
            }
        }
        Ok(())
    }

    /// Begins to fire a window if parts of it are outside memory; whether they are.
    pub fn begin_firing(&mut self, window: Window) -> bool {
        let mut by_group = vec![0; self.max_parallelism as usize];
        let mut parts = self.spilled.parts.range(window.start..window.end).flat_map(|(_, parts)| parts).peekable();
        if parts.peek().is_none() {
            return false;
        }
        parts.for_each(|part| part.part.add_bytes(&mut by_group));
        let mut portions: VecDeque<Range<u32>> = portions(&by_group, PORTION_BYTES).into();
        // What is in memory may be of any key group.
        if let Some(first) = portions.front_mut() {
            first.start = 0;
        }
        if let Some(last) = portions.back_mut() {
            last.end = self.max_parallelism;
        }
        self.spilled.firing = Some((window, portions));
        true
    }

    /// Fires the window that has begun to, for some more key groups; whether there is one.
    pub fn fire_portion(&mut self) -> Result<bool> {
        let Some((window, mut portions)) = self.spilled.firing.take() else { return Ok(false) };
        let Some(groups) = portions.pop_front() else {
            self.forget_slices(window)?;
            self.weigh(window.start..window.end);
            return Ok(true);
        };
        let (plan, max_parallelism) = (self.plan.clone(), self.max_parallelism);
        let mut merged = Merged::new(&self.key_types, &plan.aggregates)?;
        for (_, slice) in self.slices.range_mut(window.start..window.end) {
            merged.add_where(slice, |hash| groups.contains(&key_group(hash, max_parallelism)))?;
        }
        for part in self.spilled.parts.range(window.start..window.end).flat_map(|(_, parts)| parts) {
            add_part(&mut merged, &*part.part, groups.clone(), plan.keys.len())?;
        }
        self.spilled.firing = Some((window, portions));
        let results = merged.into_results()?;
        if results.rows > 0 {
            let records = self.records(window, results)?;
            self.pending.push(Batch::append(records), self.batch_rows);
        }
        Ok(true)
    }

    /// Adds to a snapshot what is outside memory: everything, or what no checkpoint has. Of slices that are stored whole nothing
    /// stays in memory if some of them is not there: so each key has one row.
    pub fn freeze_spilled(&mut self, scope: SnapshotScope, snapshot: &mut Snapshot) -> Result<()> {
        for (start, parts) in &mut self.spilled.parts {
            let new = parts.iter_mut().filter(|part| scope != SnapshotScope::Changes || !part.is_stored);
            let mut frozen = Vec::new();
            for Part { part, is_stored } in new {
                frozen.push(part.clone());
                *is_stored |= scope != SnapshotScope::Copy;
            }
            let mut by_group = vec![0; self.max_parallelism as usize];
            frozen.iter().for_each(|part| part.add_bytes(&mut by_group));
            for groups in portions(&by_group, PORTION_BYTES) {
                let portion = Portion {
                    plan: self.plan.clone(),
                    key_types: self.key_types.clone(),
                    max_parallelism: self.max_parallelism,
                    start: *start,
                    parts: frozen.clone(),
                    groups,
                };
                let descriptor = portion.descriptor()?;
                snapshot.push(Extent::Added, (descriptor, Box::new(move || portion.encode())));
            }
        }
        Ok(())
    }

    /// Puts away what is in memory of slices that are partly outside it.
    pub fn put_rest_away(&mut self) -> Result<()> {
        let starts: Vec<i64> = self.spilled.parts.keys().copied().collect();
        starts.into_iter().try_for_each(|start| self.put_away(start))
    }
}

/// What parts of a slice hold of some key groups, on its way into a snapshot.
struct Portion {
    plan: Arc<WindowAggregate>,
    key_types: Vec<DataType>,
    max_parallelism: u32,
    start: i64,
    parts: Vec<Arc<dyn StatePart>>,
    groups: Range<u32>,
}

impl Portion {
    fn descriptor(&self) -> Result<StateDescriptor> {
        let (keys, kept) = self.plan.state_fields()?;
        Ok(StateDescriptor { name: SLICES.to_owned(), kind: StateKind::Keyed, schema: keyed_schema(&keys, &kept) })
    }

    /// A row for each key.
    fn encode(&self) -> Result<Vec<RecordBatch>> {
        let (keys, kept) = self.plan.state_fields()?;
        let mut merged = Merged::new(&self.key_types, &self.plan.aggregates)?;
        for part in &self.parts {
            add_part(&mut merged, &**part, self.groups.clone(), self.plan.keys.len())?;
        }
        let part = slice_rows(self.start, merged.into_rows(&kept)?);
        (KeyedRows { keys, kept, parts: vec![part] }.freeze(SLICES, self.max_parallelism).1)()
    }
}

/// Adds what a part has of some key groups, behind `keys` columns of the key.
fn add_part(merged: &mut Merged, part: &dyn StatePart, groups: Range<u32>, keys: usize) -> Result<()> {
    for rows in part.read(groups)? {
        let (keys, states) = rows.columns()[1..].split_at(keys);
        merged.add_rows(keys, states, rows.num_rows())?;
    }
    Ok(())
}
