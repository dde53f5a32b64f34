//! Rows of a state on their way into a Parquet file.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Fields, Schema, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::{ColumnChunkMetaData, KeyValue};
use parquet::file::properties::WriterProperties;
use tidemill_core::state::{StateDescriptor, StateKind};
use tidemill_core::{Error, Result};
use xxhash_rust::xxh3::Xxh3Default;

use super::measure::has_values_max;
use super::{plain, plain_field};
use crate::checkpoint::codec::{declared, groups_of_rows, row_bytes_of, wide};
use crate::checkpoint::content::StoredChunk;
use crate::checkpoint::segment::CHUNK_BYTES;
use crate::checkpoint::upload::Upload;

/// What a file says about itself: name and text, in its metadata.
pub type Label = (&'static str, String);

/// Writes rows as one file, a bounded part of which is in memory at a time, with at most `chunk_rows` rows a chunk. Its chunks
/// and its length.
///
/// Errors: of the store; columns that Parquet cannot hold; rows that are not in the order of their key groups are a bug. The upload is
/// for the caller to abort then.
pub async fn write_file(
    upload: &mut Upload,
    labels: Vec<Label>,
    descriptor: &StateDescriptor,
    batches: &[RecordBatch],
    chunk_rows: usize,
) -> Result<(Vec<StoredChunk>, u64)> {
    File::create(upload, labels, descriptor)?.write(descriptor, batches, chunk_rows).await
}

/// A file that is being written.
struct File<'a> {
    upload: &'a mut Upload,
    writer: ArrowWriter<Vec<u8>>,
    schema: SchemaRef,
    is_keyed: bool,
    /// The first columns of the rows of the chunk that is being written: their key groups.
    groups: Vec<RecordBatch>,
    pending_bytes: usize,
    /// The chunks, and the checksums that the footer is still missing from.
    chunks: Vec<(StoredChunk, Xxh3Default)>,
}

impl<'a> File<'a> {
    fn create(upload: &'a mut Upload, labels: Vec<Label>, descriptor: &StateDescriptor) -> Result<Self> {
        let fields: Fields = descriptor.schema.fields().iter().map(|field| plain_field(field)).collect();
        let schema = Arc::new(Schema::new(fields));
        let labels = labels.into_iter().map(|(name, text)| KeyValue::new(name.to_owned(), text)).collect();
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            // Chunks are closed here, by rows and bytes.
            .set_max_row_group_row_count(None)
            .set_key_value_metadata(Some(labels))
            .build();
        let writer = ArrowWriter::try_new(Vec::new(), schema.clone(), Some(properties)).map_err(writing)?;
        let is_keyed = descriptor.kind == StateKind::Keyed;
        Ok(Self { upload, writer, schema, is_keyed, groups: Vec::new(), pending_bytes: 0, chunks: Vec::new() })
    }

    /// All of the file.
    async fn write(
        mut self,
        descriptor: &StateDescriptor,
        batches: &[RecordBatch],
        chunk_rows: usize,
    ) -> Result<(Vec<StoredChunk>, u64)> {
        for batch in batches.iter().filter(|batch| batch.num_rows() > 0) {
            let batch = declared(&descriptor.schema, batch)?;
            let row_bytes = row_bytes_of(&descriptor.schema, &batch);
            let mut begin = 0;
            while begin < batch.num_rows() {
                let room = (CHUNK_BYTES.saturating_sub(self.pending_bytes) / row_bytes).max(1);
                let rows = room.min(chunk_rows - self.pending_rows()).min(batch.num_rows() - begin);
                self.push(&wide(&descriptor.schema, &batch.slice(begin, rows))?, rows * row_bytes)?;
                begin += rows;
                if self.pending_rows() >= chunk_rows || self.pending_bytes >= CHUNK_BYTES {
                    self.close_chunk().await?;
                }
            }
        }
        self.finish().await
    }

    fn pending_rows(&self) -> usize {
        self.writer.in_progress_rows()
    }

    fn push(&mut self, rows: &RecordBatch, bytes: usize) -> Result<()> {
        let columns = rows.columns().iter().map(plain).collect::<Result<Vec<ArrayRef>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        self.writer
            .write(&RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?)
            .map_err(writing)?;
        if self.is_keyed {
            self.groups.push(rows.project(&[0])?);
        }
        self.pending_bytes += bytes;
        Ok(())
    }

    async fn close_chunk(&mut self) -> Result<()> {
        let rows = self.pending_rows() as u64;
        let groups = match self.is_keyed {
            true => Some(groups_of_rows(&std::mem::take(&mut self.groups)).map_err(Error::internal)?),
            false => None,
        };
        if groups.zip(self.chunks.last().and_then(|(last, _)| last.groups)).is_some_and(|(now, last)| now.0 < last.1) {
            return Err(Error::internal("rows are not in the order of their key groups"));
        }
        self.writer.flush().map_err(writing)?;
        let columns = self.writer.flushed_row_groups().last().into_iter().flat_map(|group| group.columns());
        // It would not be read again.
        let is_too_large = |column: &&ColumnChunkMetaData| {
            has_values_max(column.num_values().unsigned_abs(), column.compressed_size().unsigned_abs())
        };
        if let Some(column) = columns.into_iter().find(is_too_large) {
            let (name, values) = (column.column_path().string(), column.num_values());
            return Err(Error::request(format!("column '{name}' has {values} values in a few rows")));
        }
        let bytes = self.written()?;
        let mut checksum = Xxh3Default::new();
        checksum.update(&bytes);
        let length = bytes.len() as u64;
        let offset = self.upload.append(bytes.into()).await?;
        self.chunks.push((StoredChunk { offset, length, rows, checksum: 0, groups }, checksum));
        self.pending_bytes = 0;
        Ok(())
    }

    async fn finish(mut self) -> Result<(Vec<StoredChunk>, u64)> {
        if self.pending_rows() > 0 {
            self.close_chunk().await?;
        }
        self.writer.finish().map_err(writing)?;
        let footer = self.written()?;
        let chunks = self.chunks.into_iter().map(|(chunk, mut checksum)| {
            checksum.update(&footer);
            StoredChunk { checksum: checksum.digest(), ..chunk }
        });
        let chunks = chunks.collect();
        self.upload.append(footer.into()).await?;
        Ok((chunks, self.upload.finish().await?))
    }

    /// The bytes that have been written since the last time.
    fn written(&mut self) -> Result<Vec<u8>> {
        self.writer.sync()?;
        Ok(std::mem::take(self.writer.inner_mut()))
    }
}

fn writing(error: parquet::errors::ParquetError) -> Error {
    Error::request(format!("state cannot be written as Parquet: {error}")).with_source(error)
}
