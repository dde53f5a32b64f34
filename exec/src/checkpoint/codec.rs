//! Record batches as bytes: an Arrow IPC stream compressed with zstd, which is what a chunk of a segment is.
//!
//! Arrow's reader trusts what it reads: it panics on some bytes and asks for as much memory as others say. So what is to be
//! read is measured first, and a panic that is left is an error here.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, FieldRef, Fields, SchemaRef, UInt32Type};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use arrow::ipc::{CompressionType, root_as_message};
use tidemill_core::state::narrow::{are_narrow, narrowed, widened};
use tidemill_core::{Error, Result};
use xxhash_rust::xxh3::xxh3_64;

use super::content::StoredChunk;

/// Higher ones take several times as long for a few percent.
const COMPRESSION_LEVEL: i32 = 1;

/// Rows, whose whole numbers may be narrow, as bytes. They come back as they were declared, though perhaps in fewer batches.
pub(super) fn encode(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Vec<u8>> {
    // One batch compresses better than several, and its numbers can be narrow. Those whose dictionaries do not fit into one stay
    // apart.
    let batches = match batches {
        [] => Vec::new(),
        [batch] => vec![narrowed(batch)?],
        _ => {
            let batches = batches.iter().map(|batch| wide(schema, batch)).collect::<Result<Vec<_>>>()?;
            match concat_batches(schema, &batches) {
                Ok(batch) => vec![narrowed(&batch)?],
                Err(_) => batches,
            }
        }
    };
    let schema = batches.first().map_or(schema, RecordBatch::schema_ref);
    let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::ZSTD))?;
    let options = options.try_with_compression_level(Some(COMPRESSION_LEVEL))?;
    let mut writer = StreamWriter::try_new_with_options(Vec::new(), schema, options)?;
    batches.iter().try_for_each(|batch| writer.write(batch))?;
    writer.finish()?;
    Ok(writer.into_inner()?)
}

/// The rows of such bytes, or what is wrong with them. Never panics.
#[doc(hidden)]
pub fn decode(bytes: &[u8]) -> Result<(SchemaRef, Vec<RecordBatch>), String> {
    measure(bytes)?;
    let read = || {
        let reader = StreamReader::try_new(Cursor::new(bytes), None).map_err(|error| error.to_string())?;
        let schema = reader.schema();
        let batches = reader.collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
        Ok((schema, batches))
    };
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| Err("what Arrow cannot read".to_owned()))
}

/// What is wrong with the bytes of a chunk whose length and checksum a manifest tells.
pub(super) fn check_chunk(bytes: &[u8], chunk: &StoredChunk) -> Result<(), String> {
    if bytes.len() as u64 != chunk.length {
        return Err(format!("there are {} bytes of {}", bytes.len(), chunk.length));
    }
    let checksum = xxh3_64(bytes);
    if checksum != chunk.checksum {
        return Err(format!("checksum {checksum:016x} instead of {:016x}", chunk.checksum));
    }
    Ok(())
}

/// The rows of a chunk whose place, length, checksum and key groups a manifest tells, or what is wrong with its bytes.
#[doc(hidden)]
pub fn decode_chunk(bytes: &[u8], chunk: &StoredChunk, schema: &SchemaRef) -> Result<Vec<RecordBatch>, String> {
    check_chunk(bytes, chunk)?;
    let (_, narrow) = decode(bytes)?;
    let mut batches = Vec::with_capacity(narrow.len());
    for batch in narrow {
        let batch = widened(&batch, schema).map_err(|error| error.to_string())?;
        batches.push(batch.ok_or("other columns than those of its state")?);
    }
    let rows: u64 = batches.iter().map(|batch| batch.num_rows() as u64).sum();
    if rows != chunk.rows {
        return Err(format!("{rows} rows instead of {}", chunk.rows));
    }
    if let Some(groups) = chunk.groups
        && groups_of_rows(&batches)? != groups
    {
        return Err(format!("key groups other than {} to {}", groups.0, groups.1));
    }
    Ok(batches)
}

/// The key groups of the first and the last row, which are in their order.
pub(super) fn groups_of_rows(batches: &[RecordBatch]) -> Result<(u32, u32), String> {
    let mut range = None;
    for batch in batches {
        let groups = batch.columns().first().and_then(|column| column.as_primitive_opt::<UInt32Type>());
        let groups = groups.filter(|groups| groups.nulls().is_none_or(|nulls| nulls.null_count() == 0));
        let groups = groups.ok_or("the first column is no key group")?.values();
        let (Some(first), Some(last)) = (groups.first(), groups.last()) else { continue };
        if !groups.is_sorted() || range.is_some_and(|(_, before)| before > *first) {
            return Err("rows are not in the order of their key groups".to_owned());
        }
        range = Some((range.map_or(*first, |(begin, _)| begin), *last));
    }
    range.ok_or_else(|| "there are no rows".to_owned())
}

/// A batch under the columns that its state declares or narrower ones, without what its views refer to and do not show.
pub(super) fn declared(schema: &SchemaRef, batch: &RecordBatch) -> Result<RecordBatch> {
    if batch.schema_ref().fields() != schema.fields() {
        return match are_narrow(batch.schema_ref().fields(), schema.fields()) {
            true => Ok(batch.clone()),
            false => Err(undeclared(schema, batch)),
        };
    }
    let columns = batch.columns().iter().map(compact).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
}

/// The same rows with no column narrower than declared.
pub(super) fn wide(schema: &SchemaRef, batch: &RecordBatch) -> Result<RecordBatch> {
    widened(batch, schema)?.ok_or_else(|| undeclared(schema, batch))
}

fn undeclared(schema: &SchemaRef, batch: &RecordBatch) -> Error {
    let (declared, given) = (schema.fields(), batch.schema_ref().fields());
    Error::internal(format!("a state of columns {declared:?} gave rows of columns {given:?}"))
}

/// How many bytes a row of such a batch has on average with the columns that its state declares, at least 1.
pub(super) fn row_bytes_of(schema: &SchemaRef, batch: &RecordBatch) -> usize {
    bytes_of(schema.fields(), batch.columns()).div_ceil(batch.num_rows().max(1)).max(1)
}

/// How many bytes these columns have when they are as wide as declared.
fn bytes_of(declared: &Fields, columns: &[ArrayRef]) -> usize {
    let column = |(field, column): (&FieldRef, &ArrayRef)| match (field.data_type(), column.as_struct_opt()) {
        (DataType::Struct(declared), Some(of_struct)) => bytes_of(declared, of_struct.columns()),
        (other, _) => match other.primitive_width() {
            Some(width) => width * column.len(),
            None => column.to_data().get_slice_memory_size().unwrap_or_default(),
        },
    };
    declared.iter().zip(columns).map(column).sum()
}

fn compact(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Utf8View => Arc::new(column.as_string_view().gc()),
        DataType::BinaryView => Arc::new(column.as_binary_view().gc()),
        _ => column.clone(),
    }
}

/// Walks over the messages of a stream: each within the bytes, its buffers within it, and none larger than zstd can make of
/// what is there.
fn measure(bytes: &[u8]) -> Result<(), String> {
    let mut rest = bytes;
    loop {
        if take(&mut rest, 4, "a message")? != [0xff; 4] {
            return Err("no message where one should begin".to_owned());
        }
        let length = take(&mut rest, 4, "the length of a message")?;
        let length = u32::from_le_bytes([length[0], length[1], length[2], length[3]]);
        if length == 0 {
            return if rest.is_empty() { Ok(()) } else { Err(format!("{} bytes after the end", rest.len())) };
        }
        let message = take(&mut rest, u64::from(length), "a message")?;
        let message = root_as_message(message).map_err(|error| format!("a message that is none: {error}"))?;
        let body = u64::try_from(message.bodyLength()).map_err(|_| "a body of negative length".to_owned())?;
        let body = take(&mut rest, body, "the body of a message")?;
        let dictionary = message.header_as_dictionary_batch().and_then(|dictionary| dictionary.data());
        let Some(batch) = message.header_as_record_batch().or(dictionary) else { continue };
        for buffer in batch.buffers().iter().flatten() {
            let range = u64::try_from(buffer.offset()).ok().zip(u64::try_from(buffer.length()).ok());
            let buffer = range.and_then(|(offset, length)| {
                let mut rest = body.get(usize::try_from(offset).ok()?..)?;
                take(&mut rest, length, "a buffer").ok()
            });
            let buffer = buffer.ok_or("a buffer outside its message")?;
            if batch.compression().is_some() {
                measure_compressed(buffer)?;
            }
        }
    }
}

/// A compressed buffer begins with the length that it has without compression, or -1 where it has none.
fn measure_compressed(buffer: &[u8]) -> Result<(), String> {
    let Some((length, compressed)) = buffer.split_first_chunk::<8>() else {
        return if buffer.is_empty() { Ok(()) } else { Err("a compressed buffer without its length".to_owned()) };
    };
    let length = i64::from_le_bytes(*length);
    match u64::try_from(length) {
        Ok(length) if length > zstd_decoded_max(compressed.len()) => {
            Err(format!("{length} bytes compressed to {}", compressed.len()))
        }
        _ => Ok(()),
    }
}

/// The most bytes that zstd can make of so many.
pub(super) fn zstd_decoded_max(compressed: usize) -> u64 {
    // A block has at least 4 bytes and becomes at most 128 KiB.
    const BLOCK: u64 = 4;
    const BLOCK_DECODED_MAX: u64 = 128 << 10;
    (compressed as u64 / BLOCK + 1).saturating_mul(BLOCK_DECODED_MAX)
}

/// The next `length` bytes, if there are as many.
fn take<'a>(rest: &mut &'a [u8], length: u64, what: &str) -> Result<&'a [u8], String> {
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let (head, tail) = rest.split_at_checked(length).ok_or_else(|| format!("{what} is cut off"))?;
    *rest = tail;
    Ok(head)
}
