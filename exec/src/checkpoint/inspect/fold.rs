//! The layers of a state laid one over the other, key group by key group.
//!
//! Rows of every layer are in the order of their key groups. For one group after the other the newest layer speaks first: a key
//! that it has, or has removed, is not looked for in older ones. In memory are a chunk of each layer and the keys of one group.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::{SchemaRef, UInt32Type};
use arrow::row::{RowConverter, SortField};
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use tidemill_core::state::{Extent, StateKind, key_columns};
use tidemill_core::{Error, ErrorKind, Result};

use super::FoundCheckpoint;
use super::readable::Readable;
use crate::checkpoint::content::{CheckpointKind, StoredState};
use crate::checkpoint::layer::LayerRows;

/// The rows of one state of one subtask, still to be read.
#[derive(Clone, Debug)]
pub struct StateRows {
    checkpoint: FoundCheckpoint,
    subtask: u32,
    state: StoredState,
    readable: Arc<Readable>,
}

impl StateRows {
    pub(super) fn new(
        checkpoint: &FoundCheckpoint,
        subtask: u32,
        state: &StoredState,
        readable: Arc<Readable>,
    ) -> Self {
        Self { checkpoint: checkpoint.clone(), subtask, state: state.clone(), readable }
    }

    /// Who stored it.
    pub fn subtask(&self) -> u32 {
        self.subtask
    }

    /// The columns.
    pub fn schema(&self) -> &SchemaRef {
        self.readable.schema()
    }

    /// The rows, in the order of their key groups where they have some, at most `batch_rows` in a batch; the same ones each time.
    ///
    /// Errors name the file: it is missing or damaged. A checkpoint that its job has deleted meanwhile says so.
    pub fn read(&self, batch_rows: usize) -> BoxStream<'static, Result<RecordBatch>> {
        let what = self.clone();
        let begin = async move { Folding::new(&what, batch_rows.max(1)) };
        let rows = stream::once(begin).map_ok(|folding| {
            stream::try_unfold(
                folding,
                |mut folding| async move { Ok(folding.next().await?.map(|batch| (batch, folding))) },
            )
        });
        rows.try_flatten().boxed()
    }
}

/// Rows that are being read.
struct Folding {
    what: StateRows,
    batch_rows: usize,
    /// The oldest first.
    layers: Vec<LayerRows>,
    /// What keys are compared by; `None` where no layer takes the place of another.
    keys: Option<Keys>,
    /// Ready, and not enough for a batch.
    ready: Vec<RecordBatch>,
}

impl Folding {
    fn new(what: &StateRows, batch_rows: usize) -> Result<Self> {
        let StateRows { checkpoint: FoundCheckpoint { store, root, .. }, state, .. } = what;
        let whole = state.layers.iter().rposition(|layer| layer.extent == Extent::Whole).unwrap_or_default();
        let layers = state.layers[whole..].iter().map(|layer| LayerRows::new(store.clone(), root, layer.clone()));
        let layers: Vec<LayerRows> = layers.collect();
        let folds = layers.iter().any(|layer| matches!(layer.extent(), Extent::Changed | Extent::Removed));
        let keys = match folds && state.descriptor.kind == StateKind::Keyed {
            true => Some(Keys::new(&state.descriptor.schema, &state.descriptor.name)?),
            false => None,
        };
        Ok(Self { what: what.clone(), batch_rows, layers, keys, ready: Vec::new() })
    }

    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        while self.ready.iter().map(RecordBatch::num_rows).sum::<usize>() < self.batch_rows {
            let more = match self.keys {
                Some(_) => self.read_group().await,
                None => self.read_batch().await,
            };
            if !more.map_err(|error| self.explain(error))? {
                break;
            }
        }
        if self.ready.is_empty() {
            return Ok(None);
        }
        let all = concat_batches(self.what.schema(), &self.ready)?;
        let rows = all.num_rows().min(self.batch_rows);
        self.ready.clear();
        if rows < all.num_rows() {
            self.ready.push(all.slice(rows, all.num_rows() - rows));
        }
        Ok(Some(all.slice(0, rows)))
    }

    /// Reads some rows of the oldest layer that has any left. Whether there were any.
    async fn read_batch(&mut self) -> Result<bool> {
        for number in 0..self.layers.len() {
            if self.layers[number].peek().await?.is_some() {
                if let Some(batch) = self.layers[number].take(self.batch_rows) {
                    self.push(number, &batch)?;
                }
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Reads what is kept in the next key group. Whether there was one.
    async fn read_group(&mut self) -> Result<bool> {
        let mut group = None;
        for layer in &mut self.layers {
            if let Some(batch) = layer.peek().await? {
                let first = groups(batch)?[0];
                group = Some(group.map_or(first, |group: u32| group.min(first)));
            }
        }
        let Some(group) = group else { return Ok(false) };
        if let Some(keys) = &mut self.keys {
            keys.seen.clear();
        }
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
                if extent != Extent::Removed {
                    self.push(number, &batch)?;
                }
            }
        }
        Ok(true)
    }

    fn push(&mut self, layer: usize, stored: &RecordBatch) -> Result<()> {
        let rows = self.what.readable.rows(self.what.subtask, layer, stored)?;
        self.ready.extend((rows.num_rows() > 0).then_some(rows));
        Ok(())
    }

    /// A file that is missing from a checkpoint is most likely one that its job needs no more.
    fn explain(&self, error: Error) -> Error {
        let content = &self.what.checkpoint.content;
        if error.kind() != ErrorKind::Unavailable || content.kind == CheckpointKind::Savepoint {
            return error;
        }
        let (number, root) = (content.checkpoint, &self.what.checkpoint.root);
        let gone = format!("checkpoint {number} in '{root}' cannot be read any more: {}", error.message());
        Error::unavailable(gone).with_source(error).with_hint(
            "its job may have taken newer ones: read again, keep more with execution.checkpointing.num-retained, or read a \
             savepoint",
        )
    }
}

/// What tells keys apart, and those of the group that newer layers have.
struct Keys {
    columns: Range<usize>,
    /// `None` where there is one key without columns.
    converter: Option<RowConverter>,
    seen: HashSet<Box<[u8]>>,
}

impl Keys {
    fn new(schema: &SchemaRef, state: &str) -> Result<Self> {
        let unknown = || Error::corrupt(format!("the columns of state '{state}' do not say which of them are the key"));
        let columns = key_columns(schema).ok_or_else(unknown)?;
        let fields = schema.fields()[columns.clone()].iter().map(|field| SortField::new(field.data_type().clone()));
        let fields: Vec<SortField> = fields.collect();
        let converter = if fields.is_empty() { None } else { Some(RowConverter::new(fields)?) };
        Ok(Self { columns, converter, seen: HashSet::new() })
    }

    /// The rows whose keys no newer layer has.
    fn unseen(&mut self, batch: &RecordBatch) -> Result<RecordBatch> {
        let is_unseen: BooleanArray = match &self.converter {
            None => (0..batch.num_rows()).map(|_| Some(self.seen.insert(Box::default()))).collect(),
            Some(converter) => {
                let rows = converter.convert_columns(&batch.columns()[self.columns.clone()])?;
                rows.iter().map(|key| Some(self.seen.insert(key.data().into()))).collect()
            }
        };
        Ok(filter_record_batch(batch, &is_unseen)?)
    }
}

fn groups(batch: &RecordBatch) -> Result<&[u32]> {
    let groups = batch.columns().first().and_then(|column| column.as_primitive_opt::<UInt32Type>());
    let groups = groups.ok_or_else(|| Error::corrupt("keyed state whose first column is no key group"))?;
    Ok(groups.values())
}
