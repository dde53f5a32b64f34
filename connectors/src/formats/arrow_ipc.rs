//! Arrow IPC: the file form, read block by block through its footer, and the stream form, read front to back.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::convert::fb_to_schema;
use arrow::ipc::reader::{FileDecoder, StreamDecoder, read_footer_length};
use arrow::ipc::writer::{FileWriter, IpcWriteOptions};
use arrow::ipc::{Block, CompressionType, root_as_footer};
use futures::stream::{Stream, StreamExt, TryStreamExt};
use tidemill_core::error::{Error, Result};
use tidemill_core::source::SplitStream;

use super::bytes::{ByteStream, read_text};
use super::parquet::{conform, damaged, places_of};
use super::rows::{number_rows, position_in};
use super::{Encoder, FileRange, ReadOptions};
use crate::options::Options;
use crate::store::Location;

const MAGIC: &[u8] = b"ARROW1";
/// Footer length and closing magic.
const TAIL_BYTES: u64 = 10;

/// `arrow.compression`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ArrowCompression {
    /// `none`
    #[default]
    None,
    /// `lz4`
    Lz4,
    /// `zstd`
    Zstd,
}

impl ArrowCompression {
    /// Takes the `arrow.*` options of a table.
    pub fn from_options(options: &mut Options) -> Result<Self> {
        let choices = [("none", Self::None), ("lz4", Self::Lz4), ("zstd", Self::Zstd)];
        Ok(options.choice("arrow.compression", &choices)?.unwrap_or_default())
    }

    fn codec(self) -> Option<CompressionType> {
        match self {
            Self::None => None,
            Self::Lz4 => Some(CompressionType::LZ4_FRAME),
            Self::Zstd => Some(CompressionType::ZSTD),
        }
    }
}

/// Reads a file from the row on that its position names.
pub(crate) async fn open(range: FileRange, options: ReadOptions) -> Result<SplitStream> {
    let start = position_in(&range)?.unwrap_or(0);
    let target = options.projected()?;
    let file = range.file.clone();
    let (schema, batches) = open_batches(&range.file, range.size).await?;
    let order = places_of(&file, &schema, &target)?;
    let batches = skip_rows(batches, start);
    let batches = batches.and_then(move |batch| std::future::ready(conform(&file, &batch, &order, &target)));
    Ok(number_rows(batches, start, options.batch_rows))
}

/// The schema that the file itself states.
pub(crate) async fn schema(file: &Location, size: u64) -> Result<SchemaRef> {
    Ok(open_batches(file, size).await?.0)
}

type Batches = futures::stream::BoxStream<'static, Result<RecordBatch>>;

async fn open_batches(file: &Location, size: u64) -> Result<(SchemaRef, Batches)> {
    let is_file = size >= MAGIC.len() as u64 && file.read(0..MAGIC.len() as u64).await?.as_ref() == MAGIC;
    match is_file {
        true => open_file(file.clone(), size).await,
        false => open_stream(file.clone(), size).await,
    }
}

fn skip_rows(batches: Batches, count: u64) -> impl Stream<Item = Result<RecordBatch>> + Send {
    let mut left = usize::try_from(count).unwrap_or(usize::MAX);
    batches.try_filter_map(move |batch| {
        let skipped = left.min(batch.num_rows());
        left -= skipped;
        let rest = (skipped < batch.num_rows()).then(|| batch.slice(skipped, batch.num_rows() - skipped));
        std::future::ready(Ok(rest))
    })
}

async fn open_file(file: Location, size: u64) -> Result<(SchemaRef, Batches)> {
    let damaged = |reason: String| damaged(&file, "arrow", &reason);
    if size < TAIL_BYTES + MAGIC.len() as u64 {
        return Err(damaged("too short".into()));
    }
    let tail = file.read(size - TAIL_BYTES..size).await?;
    let tail: [u8; 10] = tail.as_ref().try_into().map_err(|_| damaged("too short".into()))?;
    let footer_length = read_footer_length(tail).map_err(|error| arrow_error(&file, error))? as u64;
    let footer_end = size - TAIL_BYTES;
    let footer_start = footer_end.checked_sub(footer_length).ok_or_else(|| damaged("footer too long".into()))?;
    let bytes = file.read(footer_start..footer_end).await?;
    let footer = root_as_footer(&bytes).map_err(|error| damaged(error.to_string()))?;
    let schema = footer.schema().ok_or_else(|| damaged("no schema".into()))?;
    let schema: SchemaRef = Arc::new(fb_to_schema(schema));
    let mut decoder = FileDecoder::new(schema.clone(), footer.version());
    for block in footer.dictionaries().iter().flatten() {
        let data = read_block(&file, block).await?;
        decoder.read_dictionary(block, &data).map_err(|error| arrow_error(&file, error))?;
    }
    let blocks: Vec<Block> = footer.recordBatches().iter().flatten().copied().collect();
    let decoder = Arc::new(decoder);
    let batches = futures::stream::iter(blocks).then(move |block| {
        let (file, decoder) = (file.clone(), decoder.clone());
        async move {
            let data = read_block(&file, &block).await?;
            decoder.read_record_batch(&block, &data).map_err(|error| arrow_error(&file, error))
        }
    });
    Ok((schema, batches.try_filter_map(|batch| std::future::ready(Ok(batch))).boxed()))
}

async fn read_block(file: &Location, block: &Block) -> Result<Buffer> {
    let length = |part: i64| u64::try_from(part).ok();
    let range = || {
        let start = length(block.offset())?;
        let metadata = u64::try_from(block.metaDataLength()).ok()?;
        Some(start..start.checked_add(metadata)?.checked_add(length(block.bodyLength())?)?)
    };
    let range = range().ok_or_else(|| damaged(file, "arrow", "bad block"))?;
    Ok(Buffer::from(file.read(range).await?))
}

struct StreamReader {
    file: Location,
    bytes: ByteStream,
    buffer: Buffer,
    decoder: StreamDecoder,
}

impl StreamReader {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if self.buffer.is_empty() {
                match self.bytes.try_next().await? {
                    Some(block) => self.buffer = Buffer::from(block),
                    None => {
                        self.decoder.finish().map_err(|error| arrow_error(&self.file, error))?;
                        return Ok(None);
                    }
                }
            }
            let batch = self.decoder.decode(&mut self.buffer).map_err(|error| arrow_error(&self.file, error))?;
            if batch.is_some() {
                return Ok(batch);
            }
        }
    }
}

async fn open_stream(file: Location, size: u64) -> Result<(SchemaRef, Batches)> {
    let bytes = read_text(&file, size, 0).await?;
    let mut reader = StreamReader { file, bytes, buffer: Buffer::default(), decoder: StreamDecoder::new() };
    let first = reader.next().await?;
    let schema = reader.decoder.schema().ok_or_else(|| damaged(&reader.file, "arrow", "it has no schema"))?;
    let rest = futures::stream::try_unfold(reader, |mut reader| async move {
        Ok(reader.next().await?.map(|batch| (batch, reader)))
    });
    Ok((schema, futures::stream::iter(first.map(Ok)).chain(rest).boxed()))
}

fn arrow_error(file: &Location, error: ArrowError) -> Error {
    damaged(file, "arrow", &error.to_string()).with_source(error)
}

/// Writes the file form.
pub(crate) struct ArrowEncoder {
    writer: FileWriter<Vec<u8>>,
}

impl ArrowEncoder {
    pub(crate) fn new(compression: ArrowCompression, schema: &SchemaRef) -> Result<Self> {
        let options = IpcWriteOptions::default().try_with_compression(compression.codec())?;
        Ok(Self { writer: FileWriter::try_new_with_options(Vec::new(), schema, options)? })
    }
}

impl Encoder for ArrowEncoder {
    fn encode(&mut self, records: &RecordBatch, out: &mut Vec<u8>) -> Result<()> {
        self.writer.write(records)?;
        out.append(self.writer.get_mut());
        Ok(())
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> Result<()> {
        self.writer.finish()?;
        out.append(self.writer.get_mut());
        Ok(())
    }
}
