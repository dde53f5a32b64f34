//! Rows of a state on their way back, layer by layer.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;

use crate::Result;

/// Rows of a state on its way back.
#[derive(Clone, Debug)]
pub enum StateLayer {
    /// Put in place of those with the same keys.
    Rows(LayerRows),
    /// Keys whose rows are taken out again.
    Removed(LayerRows),
}

impl StateLayer {
    /// Its rows.
    pub fn rows(&self) -> &LayerRows {
        match self {
            Self::Rows(rows) | Self::Removed(rows) => rows,
        }
    }

    /// The rows of all layers of a state whose layers stand beside one another.
    ///
    /// Errors: rows that cannot be decoded.
    pub fn decode_all(layers: &[Self]) -> Result<Vec<RecordBatch>> {
        layers.iter().flat_map(|layer| layer.rows().clone()).collect()
    }

    /// The same of other rows, which are made of its own.
    ///
    /// Errors: rows that cannot be decoded.
    pub fn map(&self, change: impl FnOnce(Vec<RecordBatch>) -> Vec<RecordBatch>) -> Result<Self> {
        let rows = change(self.rows().decode()?).into();
        Ok(match self {
            Self::Rows(_) => Self::Rows(rows),
            Self::Removed(_) => Self::Removed(rows),
        })
    }
}

/// The rows of a layer: batches, and some that are still as they were stored. These are decoded when they are reached, so that
/// beside the state that is being built only one of them is in memory.
#[derive(Clone, Debug, Default)]
pub struct LayerRows(Vec<Portion>);

#[derive(Clone, Debug)]
enum Portion {
    Decoded(RecordBatch),
    Encoded(Arc<dyn EncodedRows>),
}

/// Rows as they were stored.
pub trait EncodedRows: fmt::Debug + Send + Sync {
    /// How many they are, at most.
    fn rows(&self) -> usize;

    /// Bytes that they occupy.
    fn memory_bytes(&self) -> usize;

    /// The rows, the same each time.
    ///
    /// Errors: bytes that are not what was written ([`Corrupt`](crate::ErrorKind)).
    fn decode(&self) -> Result<Vec<RecordBatch>>;
}

impl LayerRows {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are; of those that are still encoded, at most.
    pub fn count(&self) -> usize {
        let rows = |portion: &Portion| match portion {
            Portion::Decoded(batch) => batch.num_rows(),
            Portion::Encoded(encoded) => encoded.rows(),
        };
        self.0.iter().map(rows).sum()
    }

    /// Bytes that they occupy.
    pub fn memory_bytes(&self) -> usize {
        let bytes = |portion: &Portion| match portion {
            Portion::Decoded(batch) => batch.get_array_memory_size(),
            Portion::Encoded(encoded) => encoded.memory_bytes(),
        };
        self.0.iter().map(bytes).sum()
    }

    /// All of them.
    ///
    /// Errors: rows that cannot be decoded.
    pub fn decode(&self) -> Result<Vec<RecordBatch>> {
        self.clone().into_iter().collect()
    }
}

impl From<Vec<RecordBatch>> for LayerRows {
    fn from(batches: Vec<RecordBatch>) -> Self {
        Self(batches.into_iter().map(Portion::Decoded).collect())
    }
}

impl FromIterator<Arc<dyn EncodedRows>> for LayerRows {
    fn from_iter<I: IntoIterator<Item = Arc<dyn EncodedRows>>>(encoded: I) -> Self {
        Self(encoded.into_iter().map(Portion::Encoded).collect())
    }
}

impl IntoIterator for LayerRows {
    type Item = Result<RecordBatch>;
    type IntoIter = Box<dyn Iterator<Item = Self::Item> + Send>;

    fn into_iter(self) -> Self::IntoIter {
        let batches = |portion| match portion {
            Portion::Decoded(batch) => vec![Ok(batch)],
            Portion::Encoded(encoded) => match encoded.decode() {
                Ok(batches) => batches.into_iter().map(Ok).collect(),
                Err(error) => vec![Err(error)],
            },
        };
        Box::new(self.0.into_iter().flat_map(batches))
    }
}
