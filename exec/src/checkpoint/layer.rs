//! The rows of a layer, of which a part is in memory at a time, whatever form its file has.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use bytes::Bytes;
use object_store::ObjectStore;
use object_store::path::Path;
use tidemill_core::Result;
use tidemill_core::state::{EncodedRows, rows_of_groups};

use super::codec::{check_chunk, decode_chunk};
use super::content::{StoredChunk, StoredLayer};
use super::files::below;
use super::parquet::{ParquetLayer, is_parquet};
use super::segment::{corrupt, read_chunks};

/// The file of a layer, opened: what is needed to decode chunks of it.
#[derive(Clone, Debug)]
pub(super) enum LayerFile {
    /// A segment. A chunk stands for itself, and has these columns.
    Segment(arrow::datatypes::SchemaRef),
    /// A Parquet file.
    Parquet(ParquetLayer),
}

impl LayerFile {
    /// Opens the file of a layer that has rows.
    pub async fn open(store: &dyn ObjectStore, path: &Path, layer: &StoredLayer) -> Result<Self> {
        Ok(match is_parquet(&layer.segment) {
            true => Self::Parquet(ParquetLayer::open(store, path, layer).await?),
            false => Self::Segment(layer.schema.clone()),
        })
    }

    /// What is wrong with the bytes of a chunk, without decoding them.
    pub fn check(&self, chunk: &StoredChunk, bytes: &Bytes) -> Result<(), String> {
        match self {
            Self::Segment(_) => check_chunk(bytes, chunk),
            Self::Parquet(file) => file.check(chunk, bytes),
        }
    }

    /// The rows of the chunk in this place among those of the layer, or what is wrong with its bytes.
    pub fn decode(&self, place: usize, chunk: &StoredChunk, bytes: Bytes) -> Result<Vec<RecordBatch>, String> {
        match self {
            Self::Segment(schema) => decode_chunk(&bytes, chunk, schema),
            Self::Parquet(file) => file.decode(place, chunk, bytes),
        }
    }
}

/// A chunk as it was stored, with what is needed to decode it.
#[derive(Debug)]
pub(super) struct EncodedChunk {
    /// The file, and its place in the store.
    pub file: LayerFile,
    pub path: Path,
    /// The chunk, and its place among those of its layer.
    pub chunk: StoredChunk,
    pub place: usize,
    pub bytes: Bytes,
    /// Rows of other key groups are left out.
    pub key_groups: Option<Range<u32>>,
}

impl EncodedRows for EncodedChunk {
    fn rows(&self) -> usize {
        self.chunk.rows as usize
    }

    fn memory_bytes(&self) -> usize {
        self.bytes.len()
    }

    fn decode(&self) -> Result<Vec<RecordBatch>> {
        let Self { file, path, chunk, place, bytes, key_groups } = self;
        let decoded = file.decode(*place, chunk, bytes.clone()).and_then(|rows| cut(rows, chunk, key_groups));
        let mut batches = decoded.map_err(|error| corrupt(path, chunk, &error))?;
        batches.retain(|batch| batch.num_rows() > 0);
        Ok(batches)
    }
}

/// What is left of a chunk's rows for some key groups.
fn cut(
    batches: Vec<RecordBatch>,
    chunk: &StoredChunk,
    key_groups: &Option<Range<u32>>,
) -> Result<Vec<RecordBatch>, String> {
    match (key_groups, chunk.groups) {
        (Some(own), Some((first, last))) if !(own.contains(&first) && own.contains(&last)) => {
            let cut = |batch| rows_of_groups(batch, own).map_err(|error| error.to_string());
            batches.iter().map(cut).collect()
        }
        _ => Ok(batches),
    }
}

/// The batches of a layer one after the other, one chunk in memory.
#[derive(Debug)]
pub(super) struct LayerRows {
    store: Arc<dyn ObjectStore>,
    path: Path,
    layer: StoredLayer,
    file: Option<LayerFile>,
    next_chunk: usize,
    batches: VecDeque<RecordBatch>,
}

impl LayerRows {
    /// The rows of `layer`, which lies below `root`. Nothing is read yet.
    pub fn new(store: Arc<dyn ObjectStore>, root: &Path, layer: StoredLayer) -> Self {
        let path = below(root, &layer.segment);
        Self { store, path, layer, file: None, next_chunk: 0, batches: VecDeque::new() }
    }

    /// What the rows are to those of the layers before.
    pub fn extent(&self) -> tidemill_core::state::Extent {
        self.layer.extent
    }

    /// The first batch that was not taken, none at the end.
    pub async fn peek(&mut self) -> Result<Option<&RecordBatch>> {
        while self.batches.is_empty() {
            let Some(chunk) = self.layer.chunks.get(self.next_chunk) else { return Ok(None) };
            let file = match &self.file {
                Some(file) => file,
                None => self.file.insert(LayerFile::open(&*self.store, &self.path, &self.layer).await?),
            };
            for bytes in read_chunks(&*self.store, &self.path, &[chunk]).await? {
                let rows = file.decode(self.next_chunk, chunk, bytes);
                let rows = rows.map_err(|error| corrupt(&self.path, chunk, &error))?;
                self.batches.extend(rows.into_iter().filter(|batch| batch.num_rows() > 0));
            }
            self.next_chunk += 1;
        }
        Ok(self.batches.front())
    }

    /// The first `rows` rows of the batch that [`LayerRows::peek`] gave.
    pub fn take(&mut self, rows: usize) -> Option<RecordBatch> {
        let batch = self.batches.pop_front()?;
        let rows = rows.min(batch.num_rows());
        if rows < batch.num_rows() {
            self.batches.push_front(batch.slice(rows, batch.num_rows() - rows));
        }
        Some(batch.slice(0, rows))
    }
}
