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

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use tidemill_core::state::{
    EncodeState, Extent, PartStore, Snapshot, SnapshotScope, StateDescriptor, StateKind, StatePart, keyed_schema,
    portions,
};
use tidemill_core::window::Window;
use tidemill_core::{Batch, Result};

use super::WindowAggregateOperator;
use super::slice::{FrozenGroups, Groups};
use super::state::SLICES;
use crate::operators::saved::KeyedRows;

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
            let parts = match self.slices.get_mut(&start) {
                Some(slice) => slice.take_parts()?,
                None => Vec::new(),
            };
            for (groups, is_stored) in parts {
                self.put(start, &groups, is_stored)?;
            }
            self.weigh(start..start.saturating_add(1));
        }
        Ok(())
    }

    fn put(&mut self, start: i64, groups: &FrozenGroups, is_stored: bool) -> Result<()> {
        let (mut keys, kept) = self.fields()?;
        keys = keys.iter().take(self.plan.keys.len()).cloned().collect();
        let (columns, hashes) = groups.encode(&kept)?;
        if hashes.is_empty() {
            return Ok(());
        }
        let encode = KeyedRows { keys, kept, columns, hashes }.freeze(SLICES, self.max_parallelism).1;
        let Some(store) = &mut self.spilled.store else { return Ok(()) };
        for rows in encode()? {
            let part = Part { part: store.put(&rows)?, is_stored };
            self.spilled.parts.entry(start).or_default().push(part);
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
        let keys = self.plan.keys.len();
        let mut merged = Groups::new(&self.key_types, &self.plan.aggregates)?;
        for (_, slice) in self.slices.range_mut(window.start..window.end) {
            for frozen in slice.frozen()? {
                merged.merge(&frozen.of_groups(&groups, self.max_parallelism)?)?;
            }
        }
        for part in self.spilled.parts.range(window.start..window.end).flat_map(|(_, parts)| parts) {
            for rows in part.part.read(groups.clone())? {
                let (keys, states) = rows.columns()[1..].split_at(keys);
                merged.merge(&FrozenGroups::decode(keys.to_vec(), states, rows.num_rows())?)?;
            }
        }
        self.spilled.firing = Some((window, portions));
        let results = merged.into_results()?;
        if results.rows > 0 {
            let records = self.records(window, results)?;
            self.pending.push(Batch::append(records), self.batch_rows);
        }
        Ok(true)
    }

    /// Adds to a snapshot what is outside memory: everything, or what no checkpoint has.
    pub fn freeze_spilled(&mut self, scope: SnapshotScope, snapshot: &mut Snapshot) -> Result<()> {
        let (keys, kept) = self.fields()?;
        let schema = keyed_schema(&keys, &kept);
        for (start, parts) in &mut self.spilled.parts {
            let new = parts.iter_mut().filter(|part| scope != SnapshotScope::Changes || !part.is_stored);
            for Part { part, is_stored } in new {
                let mut by_group = vec![0; self.max_parallelism as usize];
                part.add_bytes(&mut by_group);
                for groups in portions(&by_group, PORTION_BYTES) {
                    let (part, schema, start, place) = (part.clone(), schema.clone(), *start, keys.len());
                    let descriptor =
                        StateDescriptor { name: SLICES.to_owned(), kind: StateKind::Keyed, schema: schema.clone() };
                    let with_start = move |rows: RecordBatch| -> Result<RecordBatch> {
                        let starts: ArrayRef = Arc::new(Int64Array::from(vec![start; rows.num_rows()]));
                        let mut columns = rows.columns().to_vec();
                        columns.insert(place, starts);
                        Ok(RecordBatch::try_new(schema.clone(), columns)?)
                    };
                    let encode: EncodeState =
                        Box::new(move || part.read(groups)?.into_iter().map(with_start).collect());
                    snapshot.push(Extent::Added, (descriptor, encode));
                }
                *is_stored |= scope != SnapshotScope::Copy;
            }
        }
        Ok(())
    }
}
