//! The rows of a state for people, folded and in columns that they can read.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use tidemill_core::state::Extent;
use tidemill_core::{Error, Result};

use super::FoundCheckpoint;
use super::readable::Readable;
use crate::checkpoint::content::{CheckpointKind, StoredState};
use crate::checkpoint::files::is_missing;
use crate::checkpoint::fold::Folding;

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
        let batch_rows = batch_rows.max(1);
        let begin = async move { Reading::new(what, batch_rows) };
        let rows = stream::once(begin).map_ok(|reading| {
            stream::try_unfold(
                reading,
                |mut reading| async move { Ok(reading.next().await?.map(|batch| (batch, reading))) },
            )
        });
        rows.try_flatten().boxed()
    }
}

/// Rows that are being read.
struct Reading {
    what: StateRows,
    batch_rows: usize,
    folding: Folding,
    /// Ready, and not enough for a batch.
    ready: Vec<RecordBatch>,
}

impl Reading {
    fn new(what: StateRows, batch_rows: usize) -> Result<Self> {
        let FoundCheckpoint { store, root, .. } = &what.checkpoint;
        let StoredState { descriptor, .. } = &what.state;
        let folding = Folding::new(store, root, descriptor, what.state.effective(), batch_rows)?;
        Ok(Self { what, batch_rows, folding, ready: Vec::new() })
    }

    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        while self.ready.iter().map(RecordBatch::num_rows).sum::<usize>() < self.batch_rows {
            let Some(more) = self.folding.next().await.map_err(|error| self.explain(error))? else { break };
            for (layer, stored) in more {
                if self.folding.extent(layer) == Extent::Removed {
                    continue;
                }
                let rows = self.what.readable.rows(self.what.subtask, layer, &stored)?;
                self.ready.extend((rows.num_rows() > 0).then_some(rows));
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

    /// A file that is missing from a checkpoint is most likely one that its job needs no more.
    fn explain(&self, error: Error) -> Error {
        let content = &self.what.checkpoint.content;
        if !is_missing(&error) || content.kind == CheckpointKind::Savepoint {
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
