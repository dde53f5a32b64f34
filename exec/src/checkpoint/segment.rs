//! Segments: the files that states of checkpoints lie in; those of savepoints are Parquet. One worker packs into one of them what it stores
//! for a checkpoint.
//!
//! ```text
//! segment    | chunk | chunk | chunk | chunk | chunk | …        only chunks; the manifest says where each is
//! layers     '------- one -------'   '--- another ---'
//! ```
//!
//! A chunk is an Arrow IPC stream of its own. Rows of keyed state lie in the order of their key groups, so a subtask that owns
//! some of them reads the chunks that overlap, and of these cuts off what is not its own.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use tidemill_core::state::{EncodedRows, Extent, FrozenState, LayerRows, StateDescriptor, StateKind};
use tidemill_core::{Error, Result};
use xxhash_rust::xxh3::xxh3_64;

use super::codec::{self, groups_of_rows};
use super::content::{StoredChunk, StoredLayer, StoredSegment};
use super::files::{below, missing, store_error};
use super::layer::{EncodedChunk, LayerFile};
use super::upload::Upload;

/// The most rows of a chunk.
pub const CHUNK_ROWS_MAX: usize = 64 << 10;
/// How many bytes of rows close a chunk, before compression.
pub(super) const CHUNK_BYTES: usize = 8 << 20;
/// The same for a chunk of changes: whoever folds many of them has one of each in memory.
const CHANGES_BYTES: usize = 1 << 20;
/// How many bytes are asked for at once.
const READ_BYTES: u64 = 16 << 20;

/// A segment that is being written.
///
/// It holds a bounded part of it in memory. The file is there when [`SegmentWriter::finish`] has returned, and never before in
/// part; dropped earlier it leaves none.
pub struct SegmentWriter {
    path: Arc<str>,
    upload: Upload,
    chunk_rows: usize,
}

/// A layer that is being written.
#[derive(Debug)]
pub(super) struct OpenLayer {
    extent: Extent,
    descriptor: StateDescriptor,
    chunks: Vec<StoredChunk>,
    pending: Pending,
}

impl OpenLayer {
    fn chunk_bytes(&self) -> usize {
        match self.extent {
            Extent::Whole => CHUNK_BYTES,
            Extent::Changed | Extent::Added | Extent::Removed => CHANGES_BYTES,
        }
    }

    fn error(&self, error: Error) -> Error {
        error.context(format_args!("state '{}'", self.descriptor.name))
    }
}

/// Rows that wait to be enough for a chunk.
#[derive(Debug, Default)]
struct Pending {
    batches: Vec<RecordBatch>,
    rows: usize,
    bytes: usize,
}

impl SegmentWriter {
    /// Begins the file at `path`, relative to `root`. The path belongs to nobody else.
    pub fn create(store: Arc<dyn ObjectStore>, root: &Path, path: impl Into<Arc<str>>) -> Self {
        let path = path.into();
        let upload = Upload::new(store, below(root, &path));
        Self { path, upload, chunk_rows: CHUNK_ROWS_MAX }
    }

    /// The same with at most `rows` rows a chunk, so that ranges of key groups are read more finely.
    #[must_use]
    pub fn with_chunk_rows(self, rows: usize) -> Self {
        Self { chunk_rows: rows.clamp(1, CHUNK_ROWS_MAX), ..self }
    }

    /// Encodes a frozen state and adds it.
    ///
    /// Errors: of the state; of the store; rows that are not in the order of their key groups are a bug.
    pub async fn write(&mut self, state: FrozenState) -> Result<StoredLayer> {
        let FrozenState { descriptor, extent, encode } = state;
        self.write_batches(extent, &descriptor, &encode()?).await
    }

    /// Adds rows of a state.
    pub async fn write_batches(
        &mut self,
        extent: Extent,
        descriptor: &StateDescriptor,
        batches: &[RecordBatch],
    ) -> Result<StoredLayer> {
        let mut layer = self.begin_layer(extent, descriptor);
        for batch in batches {
            self.push(&mut layer, batch).await?;
        }
        self.end_layer(layer).await
    }

    /// Begins a layer whose rows come one batch after the other. Several may be open.
    pub(super) fn begin_layer(&self, extent: Extent, descriptor: &StateDescriptor) -> OpenLayer {
        OpenLayer { extent, descriptor: descriptor.clone(), chunks: Vec::new(), pending: Pending::default() }
    }

    /// Adds rows to a layer.
    pub(super) async fn push(&mut self, layer: &mut OpenLayer, batch: &RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let batch = codec::declared(&layer.descriptor.schema, batch).map_err(|error| layer.error(error))?;
        let row_bytes = codec::row_bytes_of(&layer.descriptor.schema, &batch);
        let (chunk_rows, chunk_bytes) = (self.chunk_rows, layer.chunk_bytes());
        let mut begin = 0;
        while begin < batch.num_rows() {
            let rows = layer.pending.room(chunk_rows, chunk_bytes, row_bytes).min(batch.num_rows() - begin);
            layer.pending.push(batch.slice(begin, rows), row_bytes);
            begin += rows;
            if layer.pending.is_full(chunk_rows, chunk_bytes) {
                self.write_chunk(layer).await?;
            }
        }
        Ok(())
    }

    /// Ends a layer.
    pub(super) async fn end_layer(&mut self, mut layer: OpenLayer) -> Result<StoredLayer> {
        if layer.pending.rows > 0 {
            self.write_chunk(&mut layer).await?;
        }
        let OpenLayer { extent, descriptor: StateDescriptor { name, schema, .. }, chunks, .. } = layer;
        let groups = chunks.iter().filter_map(|chunk| chunk.groups).flat_map(|(first, last)| [first, last]);
        if !groups.is_sorted() {
            return Err(Error::internal(format!("rows of state '{name}' are not in the order of their key groups")));
        }
        let segment = if chunks.is_empty() { "".into() } else { self.path.clone() };
        Ok(StoredLayer { extent, schema, segment, chunks })
    }

    /// Completes the file. If nothing was added there is none. Nothing may be added afterwards.
    pub async fn finish(&mut self) -> Result<Option<StoredSegment>> {
        let bytes = self.upload.finish().await?;
        Ok((bytes > 0).then(|| StoredSegment { path: self.path.clone(), bytes }))
    }

    /// Gives it up, and takes back what the store has already got.
    pub async fn abort(mut self) {
        self.upload.abort().await;
    }

    /// How many bytes were added so far.
    pub fn bytes(&self) -> u64 {
        self.upload.bytes()
    }

    /// Where it will be, relative to the root.
    pub fn path(&self) -> &Arc<str> {
        &self.path
    }

    async fn write_chunk(&mut self, layer: &mut OpenLayer) -> Result<()> {
        let Pending { batches, rows, .. } = std::mem::take(&mut layer.pending);
        let StateDescriptor { kind, schema, .. } = &layer.descriptor;
        let groups = match kind {
            StateKind::Keyed => Some(groups_of_rows(&batches).map_err(Error::internal)?),
            _ => None,
        };
        let bytes = codec::encode(schema, &batches)?;
        let (length, checksum) = (bytes.len() as u64, xxh3_64(&bytes));
        let offset = self.upload.append(bytes.into()).await?;
        layer.chunks.push(StoredChunk { offset, length, rows: rows as u64, checksum, groups });
        Ok(())
    }
}

impl fmt::Debug for SegmentWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SegmentWriter({}, {} bytes)", self.path, self.bytes())
    }
}

impl Pending {
    /// How many rows of such a size still fit; one always does.
    fn room(&self, chunk_rows: usize, chunk_bytes: usize, row_bytes: usize) -> usize {
        let by_bytes = chunk_bytes.saturating_sub(self.bytes) / row_bytes.max(1);
        by_bytes.max(1).min(chunk_rows - self.rows)
    }

    fn push(&mut self, rows: RecordBatch, row_bytes: usize) {
        self.rows += rows.num_rows();
        self.bytes += rows.num_rows() * row_bytes;
        self.batches.push(rows);
    }

    fn is_full(&self, chunk_rows: usize, chunk_bytes: usize) -> bool {
        self.rows >= chunk_rows || self.bytes >= chunk_bytes
    }
}

/// The rows of a layer; of keyed state those of `key_groups` alone, where they are given.
///
/// Errors name the file: it is missing, or bytes of it are not what was written ([`Corrupt`](tidemill_core::ErrorKind) both).
pub async fn read_layer(
    store: &dyn ObjectStore,
    root: &Path,
    layer: &StoredLayer,
    key_groups: Option<Range<u32>>,
) -> Result<Vec<RecordBatch>> {
    read_encoded(store, root, layer, key_groups).await?.decode()
}

/// The same rows as they are stored, for somebody who needs them one chunk after the other.
///
/// Errors: the same. What is left to the one who decodes is what no checksum tells.
pub(super) async fn read_encoded(
    store: &dyn ObjectStore,
    root: &Path,
    layer: &StoredLayer,
    key_groups: Option<Range<u32>>,
) -> Result<LayerRows> {
    let overlaps = |(_, chunk): &(usize, &StoredChunk)| match (&key_groups, chunk.groups) {
        (Some(own), Some((first, last))) => first < own.end && own.start <= last && !own.is_empty(),
        _ => true,
    };
    let chunks: Vec<(usize, &StoredChunk)> = layer.chunks.iter().enumerate().filter(overlaps).collect();
    if chunks.is_empty() {
        return Ok(LayerRows::default());
    }
    let path = below(root, &layer.segment);
    let file = LayerFile::open(store, &path, layer).await?;
    let mut encoded: Vec<Arc<dyn EncodedRows>> = Vec::with_capacity(chunks.len());
    let mut rest = chunks.as_slice();
    while !rest.is_empty() {
        let mut wanted = 0u64;
        let fits = |(_, chunk): &(usize, &StoredChunk)| {
            wanted = chunk.length.saturating_add(wanted);
            wanted <= READ_BYTES
        };
        let (now, later) = rest.split_at(rest.iter().copied().take_while(fits).count().max(1));
        rest = later;
        let read = read_chunks(store, &path, &now.iter().map(|(_, chunk)| *chunk).collect::<Vec<_>>()).await?;
        for ((place, chunk), bytes) in now.iter().zip(read) {
            file.check(chunk, &bytes).map_err(|error| corrupt(&path, chunk, &error))?;
            let (file, path, key_groups) = (file.clone(), path.clone(), key_groups.clone());
            let chunk = StoredChunk::clone(chunk);
            encoded.push(Arc::new(EncodedChunk { file, path, chunk, place: *place, bytes, key_groups }));
        }
    }
    Ok(encoded.into_iter().collect())
}

pub(super) async fn read_chunks(store: &dyn ObjectStore, path: &Path, chunks: &[&StoredChunk]) -> Result<Vec<Bytes>> {
    let ranges: Vec<Range<u64>> = chunks.iter().map(|chunk| chunk.offset..chunk.end()).collect();
    match store.get_ranges(path, &ranges).await {
        Ok(read) if read.len() == ranges.len() => Ok(read),
        Ok(_) => Err(Error::unavailable(format!("reading '{path}': not all ranges came back"))),
        Err(error @ object_store::Error::NotFound { .. }) => Err(missing(path, error)),
        Err(error) => {
            // Stores say in words of their own that a file is shorter than it was.
            let length = store.head(path).await.map(|meta| meta.size).ok();
            let cut_off = chunks.iter().find(|chunk| length.is_some_and(|length| chunk.end() > length));
            Err(match (cut_off, length) {
                (Some(chunk), Some(length)) => corrupt(path, chunk, &format!("the file ends at {length}")),
                _ => store_error(format!("reading '{path}'"), error),
            })
        }
    }
}

pub(super) fn corrupt(path: &Path, chunk: &StoredChunk, error: &str) -> Error {
    let StoredChunk { offset, length, .. } = chunk;
    Error::corrupt(format!("'{path}' at {offset}, {length} bytes: {error}"))
}
