//! What goes into snapshots: rows in memory, frozen, and rows outside, read when they are encoded.
//!
//! ```text
//! everything   whole: nothing │ rows outside, a portion of key groups at a time │ vacated in memory │ rows in memory
//! changes      keys removed   │ what changed and went outside, likewise         │ vacated in memory │ changed in memory
//! ```
//!
//! Each is a layer over those before it. Rows outside are seen as they were when the snapshot was taken, whatever is written
//! since; a portion is as large as what may be in memory while it is encoded. Of rows that are both outside and in memory those
//! in memory are stored if they differ. For a savepoint they are made the same first: so it has each key once, and what reads its
//! layers need not know which is the last.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Fields, SchemaRef};
use tidemill_core::Result;
use tidemill_core::state::{
    EncodeState, Extent, KeyedStates, Snapshot, StateDescriptor, StateLayer, key_columns, keyed_schema,
};

use super::changes::{KeyChunk, RemovedKeys};
use super::frozen::{batch, encode_keys, encode_rows};
use super::rows::{Part, RowCodec, parts};
use super::{MemoryStates, State};
use crate::state::group_order::BATCH_ROWS;
use crate::state::tier::{Family, Moment};

impl MemoryStates {
    /// Everything, and what changes from now on is kept track of.
    pub(super) fn snapshot_to_build_on(&mut self) -> Result<Snapshot> {
        let (snapshot, stored) = self.snapshot_of_everything()?;
        self.is_tracking = true;
        self.states.iter_mut().for_each(|state| drop(state.changes.take()));
        self.removed = RemovedKeys::default();
        self.removed.store(&stored);
        self.forget_changes_outside()?;
        Ok(snapshot)
    }

    /// Everything, and the slots of the keys in it.
    pub(super) fn snapshot_of_everything(&self) -> Result<(Snapshot, Vec<usize>)> {
        let (mut snapshot, mut stored) = (Snapshot::default(), Vec::new());
        let outside = self.frozen_outside(Family::Rows)?;
        for (number, state) in self.states.iter().enumerate() {
            let slots: Vec<usize> = (0..self.index.slots()).filter(|slot| !state.column.is_vacant(*slot)).collect();
            if outside.portions.is_empty() {
                snapshot.push(Extent::Whole, (state.descriptor(), self.freeze(state, &slots)?));
            } else {
                snapshot.push(Extent::Whole, (state.descriptor(), Box::new(|| Ok(Vec::new()))));
                outside.rows(self, number, &mut snapshot);
                self.freeze_over_outside(state, &slots, &mut snapshot)?;
            }
            stored.extend(slots);
        }
        for (descriptor, layers) in &self.restored {
            self.carry_along(descriptor, layers, &mut snapshot);
        }
        Ok((snapshot, stored))
    }

    /// What changed since the last snapshot to build on.
    pub(super) fn snapshot_of_changes(&mut self) -> Result<Snapshot> {
        if !self.is_tracking {
            return Err(tidemill_core::Error::internal("a snapshot of changes without a base"));
        }
        let schema = self.removed_schema();
        let (mut snapshot, mut stored) = (Snapshot::default(), Vec::new());
        let gone = self.removed.take();
        let outside = self.frozen_outside(Family::Changes)?;
        for number in 0..self.states.len() {
            let changed = self.states[number].changes.take();
            let state = &self.states[number];
            let (vacated, kept): (Vec<_>, Vec<_>) = changed.into_iter().partition(|slot| state.column.is_vacant(*slot));
            let put = (state.descriptor(), self.freeze(state, &kept)?);
            // What went outside since, and came back, is in a layer below.
            let is_below = |slot: &usize| self.outside.as_ref().is_some_and(|outside| outside.is_stored(*slot));
            let may_be_stored = |slot: &usize| self.removed.is_stored(*slot) || is_below(slot);
            let vacated: Vec<usize> = vacated.into_iter().filter(may_be_stored).collect();
            let vacated = vacated.chunks(BATCH_ROWS).map(|slots| self.key_chunk(slots)).collect::<Result<Vec<_>>>()?;
            let mut chunks = gone.clone();
            let remove = |chunks, snapshot: &mut Snapshot| {
                let descriptor = StateDescriptor { schema: schema.clone(), ..state.descriptor() };
                snapshot.push(Extent::Removed, (descriptor, encode_keys(schema.clone(), chunks, self.max_parallelism)));
            };
            if outside.portions.is_empty() {
                chunks.extend(vacated);
                remove(chunks, &mut snapshot);
            } else {
                remove(chunks, &mut snapshot);
                outside.rows(self, number, &mut snapshot);
                remove(vacated, &mut snapshot);
            }
            snapshot.push(Extent::Changed, put);
            stored.extend(kept);
        }
        self.removed.store(&stored);
        self.forget_changes_outside()?;
        Ok(snapshot)
    }

    /// The keys in these slots, with their key groups where the keys do not tell them.
    pub(super) fn key_chunk(&self, slots: &[usize]) -> Result<KeyChunk> {
        let keys = self.index.keys(slots)?;
        let groups = keys.is_empty().then(|| slots.iter().map(|slot| self.key_group(*slot)).collect());
        Ok(KeyChunk { groups, keys })
    }

    fn forget_changes_outside(&mut self) -> Result<()> {
        self.outside.as_mut().map_or(Ok(()), super::outside::Outside::forget_changes)
    }

    /// The rows of a state in these slots.
    fn freeze(&self, state: &State, slots: &[usize]) -> Result<EncodeState> {
        let chunk = |slots: &[usize]| Ok((self.key_chunk(slots)?, state.column.freeze(slots)?));
        let chunks = slots.chunks(BATCH_ROWS).map(chunk).collect::<Result<_>>()?;
        Ok(encode_rows(&state.name, state.schema.clone(), chunks, self.max_parallelism))
    }

    /// What memory says about a state otherwise than the rows outside.
    fn freeze_over_outside(&self, state: &State, slots: &[usize], snapshot: &mut Snapshot) -> Result<()> {
        let Some(outside) = &self.outside else { return Ok(()) };
        let is_vacated =
            |slot: &usize| outside.is_stored(*slot) && !outside.is_clean(*slot) && state.column.is_vacant(*slot);
        let vacated: Vec<usize> = outside.taken().filter(is_vacated).collect();
        let chunks = vacated.chunks(BATCH_ROWS).map(|slots| self.key_chunk(slots)).collect::<Result<_>>()?;
        let schema = self.removed_schema();
        let descriptor = StateDescriptor { schema: schema.clone(), ..state.descriptor() };
        snapshot.push(Extent::Removed, (descriptor, encode_keys(schema, chunks, self.max_parallelism)));
        let slots: Vec<usize> = slots.iter().copied().filter(|slot| !outside.is_clean(*slot)).collect();
        snapshot.push(Extent::Changed, (state.descriptor(), self.freeze(state, &slots)?));
        Ok(())
    }

    /// What was restored and not registered, layer by layer as it came.
    fn carry_along(&self, descriptor: &StateDescriptor, layers: &[StateLayer], snapshot: &mut Snapshot) {
        snapshot.push(Extent::Whole, (descriptor.clone(), Box::new(|| Ok(Vec::new()))));
        for layer in layers {
            let rows = layer.rows().clone();
            let (extent, schema) = match layer {
                StateLayer::Rows(_) => (Extent::Changed, descriptor.schema.clone()),
                StateLayer::Removed(_) => (Extent::Removed, self.removed_schema_of(&descriptor.schema)),
            };
            let descriptor = StateDescriptor { schema, ..descriptor.clone() };
            snapshot.push(extent, (descriptor, Box::new(move || rows.decode())));
        }
    }

    /// The columns of keys that were removed from a state of these columns, which may have a namespace that others have not.
    fn removed_schema_of(&self, schema: &SchemaRef) -> SchemaRef {
        let keys = key_columns(schema).and_then(|keys| schema.project(&(0..keys.end).collect::<Vec<_>>()).ok());
        keys.map_or_else(|| self.removed_schema(), Arc::new)
    }

    fn removed_schema(&self) -> SchemaRef {
        keyed_schema(&self.key_fields, &Fields::empty())
    }

    fn frozen_outside(&self, family: Family) -> Result<FrozenOutside> {
        let outside = self.outside.as_ref().and_then(|outside| Some((outside, outside.pages()?)));
        let Some((outside, pages)) = outside else { return Ok(FrozenOutside::default()) };
        let portions = outside.portions(family);
        let moment = if portions.is_empty() { None } else { Some(Arc::new(pages.moment()?)) };
        Ok(FrozenOutside { moment, family: Some(family), portions })
    }
}

/// The rows outside as they are now.
#[derive(Default)]
struct FrozenOutside {
    moment: Option<Arc<Moment>>,
    family: Option<Family>,
    portions: Vec<Range<u32>>,
}

impl FrozenOutside {
    /// Adds what they hold of a state to a snapshot; of changes also where it was vacated.
    fn rows(&self, states: &MemoryStates, number: usize, snapshot: &mut Snapshot) {
        let state = &states.states[number];
        let (Some(moment), Some(family), Some(codec), Some(outside)) =
            (&self.moment, self.family, &state.codec, &states.outside)
        else {
            return;
        };
        for groups in &self.portions {
            let mut push = |extent, schema: SchemaRef| {
                let portion = Portion {
                    moment: moment.clone(),
                    family,
                    groups: groups.clone(),
                    state: number,
                    keys: outside.key_codec(),
                    columns: codec.clone(),
                    schema: schema.clone(),
                };
                let encode: EncodeState = Box::new(move || portion.encode(extent));
                snapshot.push(extent, (StateDescriptor { schema, ..state.descriptor() }, encode));
            };
            if family == Family::Changes {
                push(Extent::Removed, states.removed_schema());
            }
            push(Extent::Changed, state.schema.clone());
        }
    }
}

/// What some key groups hold of a state outside.
struct Portion {
    moment: Arc<Moment>,
    family: Family,
    groups: Range<u32>,
    state: usize,
    keys: Arc<RowCodec>,
    columns: Arc<RowCodec>,
    schema: SchemaRef,
}

/// Rows on their way into a batch.
#[derive(Default)]
struct Gathered {
    groups: Vec<u32>,
    keys: Vec<Vec<u8>>,
    columns: Vec<Vec<u8>>,
}

impl Portion {
    /// The rows that are present, or the keys of those that were vacated.
    fn encode(&self, extent: Extent) -> Result<Vec<RecordBatch>> {
        let (mut batches, mut gathered) = (Vec::new(), Gathered::default());
        self.moment.rows(self.family, self.groups.clone(), &mut |row| {
            for part in parts(row.value)?.1 {
                let Part { state, is_changed, columns } = part?;
                let is_due = state == self.state && (is_changed || self.family == Family::Rows);
                if is_due && columns.is_none() == (extent == Extent::Removed) {
                    gathered.groups.push(row.group());
                    gathered.keys.push(row.key.to_vec());
                    gathered.columns.extend(columns.map(<[u8]>::to_vec));
                }
            }
            if gathered.groups.len() >= BATCH_ROWS {
                batches.push(self.batch(std::mem::take(&mut gathered))?);
            }
            Ok(true)
        })?;
        if !gathered.groups.is_empty() {
            batches.push(self.batch(gathered)?);
        }
        Ok(batches)
    }

    fn batch(&self, gathered: Gathered) -> Result<RecordBatch> {
        let Gathered { groups, keys, columns } = gathered;
        let keys = self.keys.decode(keys.iter().map(Vec::as_slice))?;
        let values = match columns.is_empty() {
            true => Vec::new(),
            false => self.columns.decode(columns.iter().map(Vec::as_slice))?,
        };
        batch(&self.schema, &groups, keys, values)
    }
}
