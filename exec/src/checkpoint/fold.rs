//! The layers of a state laid one over the other, key group by key group.
//!
//! Rows of every layer are in the order of their key groups. For one group after the other the newest layer speaks first: a key
//! that it has, or has removed, is not looked for in older ones. In memory are a chunk of each layer and the keys of one group.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, SchemaRef, UInt32Type};
use object_store::ObjectStore;
use object_store::path::Path;
use tidemill_core::key::hash_columns;
use tidemill_core::state::{Extent, StateDescriptor, StateKind, key_columns};
use tidemill_core::{Error, Result};

use super::content::StoredLayer;
use super::layer::LayerRows;
use crate::state::KeyIndex;

/// A layer's place among those that count, and rows of it.
pub(super) type LayerBatch = (usize, RecordBatch);

/// The rows of a state that is being read.
#[derive(Debug)]
pub(super) struct Folding {
    batch_rows: usize,
    /// The oldest first.
    layers: Vec<LayerRows>,
    /// What keys are compared by; `None` where no layer takes the place of another.
    keys: Option<Keys>,
}

impl Folding {
    /// The rows of `layers` of a state, which lie below `root`, at most `batch_rows` in a batch. Nothing is read yet.
    pub fn new(
        store: &Arc<dyn ObjectStore>,
        root: &Path,
        state: &StateDescriptor,
        layers: &[StoredLayer],
        batch_rows: usize,
    ) -> Result<Self> {
        let layers: Vec<LayerRows> =
            layers.iter().map(|layer| LayerRows::new(store.clone(), root, layer.clone())).collect();
        let folds = layers.iter().any(|layer| matches!(layer.extent(), Extent::Changed | Extent::Removed));
        let keys = match folds && state.kind == StateKind::Keyed {
            true => Some(Keys::new(&state.schema, &state.name)?),
            false => None,
        };
        Ok(Self { batch_rows: batch_rows.max(1), layers, keys })
    }

    /// What the rows of a layer are to those of the layers before. Those that say [`Extent::Removed`] are of keys that no newer
    /// layer has.
    pub fn extent(&self, layer: usize) -> Extent {
        self.layers.get(layer).map_or(Extent::Whole, LayerRows::extent)
    }

    /// What is kept or removed of the next key group, or the next rows of a state whose layers stand beside one another: possibly nothing.
    /// `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Vec<LayerBatch>>> {
        match self.keys {
            Some(_) => self.next_group().await,
            None => Ok(self.next_batch().await?.map(|batch| vec![batch])),
        }
    }

    async fn next_batch(&mut self) -> Result<Option<LayerBatch>> {
        for (number, layer) in self.layers.iter_mut().enumerate() {
            if layer.peek().await?.is_some() {
                return Ok(layer.take(self.batch_rows).map(|batch| (number, batch)));
            }
        }
        Ok(None)
    }

    async fn next_group(&mut self) -> Result<Option<Vec<LayerBatch>>> {
        let mut group = None;
        for layer in &mut self.layers {
            if let Some(batch) = layer.peek().await? {
                let first = groups(batch)?[0];
                group = Some(group.map_or(first, |group: u32| group.min(first)));
            }
        }
        let Some(group) = group else { return Ok(None) };
        if let Some(keys) = &mut self.keys {
            keys.forget()?;
        }
        let mut kept = Vec::new();
        for number in (0..self.layers.len()).rev() {
            loop {
                let Some(batch) = self.layers[number].peek().await? else { break };
                let rows = groups(batch)?.partition_point(|other| *other <= group).min(self.batch_rows);
                let Some(batch) = self.layers[number].take(rows).filter(|_| rows > 0) else { break };
                let extent = self.layers[number].extent();
                let batch = match &mut self.keys {
                    Some(keys) if extent != Extent::Added => keys.unseen(&batch)?,
                    _ => batch,
                };
                kept.extend((batch.num_rows() > 0).then_some((number, batch)));
            }
        }
        Ok(Some(kept))
    }
}

/// What tells keys apart, and those of the group that newer layers have.
#[derive(Debug)]
struct Keys {
    columns: Range<usize>,
    types: Vec<DataType>,
    seen: KeyIndex,
}

impl Keys {
    fn new(schema: &SchemaRef, state: &str) -> Result<Self> {
        let unknown = || Error::corrupt(format!("the columns of state '{state}' do not say which of them are the key"));
        let columns = key_columns(schema).ok_or_else(unknown)?;
        let types: Vec<DataType> =
            schema.fields()[columns.clone()].iter().map(|field| field.data_type().clone()).collect();
        Ok(Self { seen: KeyIndex::new(&types)?, columns, types })
    }

    fn forget(&mut self) -> Result<()> {
        self.seen = KeyIndex::new(&self.types)?;
        Ok(())
    }

    /// The rows whose keys no newer layer has.
    fn unseen(&mut self, batch: &RecordBatch) -> Result<RecordBatch> {
        let keys = &batch.columns()[self.columns.clone()];
        let hashes = hash_columns(keys, batch.num_rows())?;
        let mut known = self.seen.slots();
        let mut slots = Vec::with_capacity(batch.num_rows());
        self.seen.intern(keys, &hashes, &mut slots)?;
        // None is ever removed: a key that is new has the next slot.
        let is_unseen: BooleanArray = slots
            .into_iter()
            .map(|slot| {
                let is_new = slot == known;
                known += usize::from(is_new);
                Some(is_new)
            })
            .collect();
        Ok(filter_record_batch(batch, &is_unseen)?)
    }
}

fn groups(batch: &RecordBatch) -> Result<&[u32]> {
    let groups = batch.columns().first().and_then(|column| column.as_primitive_opt::<UInt32Type>());
    let groups = groups.ok_or_else(|| Error::corrupt("keyed state whose first column is no key group"))?;
    Ok(groups.values())
}
