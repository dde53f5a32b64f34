//! The bytes of a file as a stream of blocks, decompressed, from any offset of the decompressed text.

use bytes::{Bytes, BytesMut};
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use tidemill_core::error::{Error, Result};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_util::io::StreamReader;

use super::compression::{Compression, split_extension};
use crate::store::Location;

/// How much is asked of a store at once: large enough to hide the cost of asking, small enough to keep many in memory.
const BLOCK_BYTES: u64 = 2 << 20;
/// How much decompressed text makes a block.
const TEXT_BYTES: usize = 512 << 10;

/// Blocks of bytes.
pub(crate) type ByteStream = BoxStream<'static, Result<Bytes>>;

/// The compression of a file, by its name.
pub(crate) fn compression_of(file: &Location) -> Compression {
    split_extension(file.name()).1
}

/// The text of `file` from byte `offset` of the decompressed text on.
pub(crate) async fn read_text(file: &Location, size: u64, offset: u64) -> Result<ByteStream> {
    let compression = compression_of(file);
    if compression == Compression::None {
        return Ok(read_blocks(file.clone(), size, offset));
    }
    let compressed = StreamReader::new(read_blocks(file.clone(), size, 0).map_err(std::io::Error::other));
    let mut text = compression.decompress(compressed);
    skip(&mut text, offset).await.map_err(|error| decompression_error(file, error))?;
    let blocks = futures::stream::try_unfold((text, file.clone()), |(mut text, file)| async move {
        let mut block = BytesMut::with_capacity(TEXT_BYTES);
        while block.len() < TEXT_BYTES {
            let read = text.read_buf(&mut block).await.map_err(|error| decompression_error(&file, error))?;
            if read == 0 {
                break;
            }
        }
        Ok((!block.is_empty()).then(|| (block.freeze(), (text, file))))
    });
    Ok(blocks.boxed())
}

/// The bytes of `file` as they are stored, from `offset` on.
pub(crate) fn read_blocks(file: Location, size: u64, offset: u64) -> ByteStream {
    let blocks = futures::stream::try_unfold(offset, move |at| {
        let file = file.clone();
        async move {
            if at >= size {
                return Ok(None);
            }
            let end = (at + BLOCK_BYTES).min(size);
            Ok(Some((file.read(at..end).await?, end)))
        }
    });
    blocks.boxed()
}

/// How many lines end before byte `offset` of the text. Only errors ask, so that good files cost nothing.
pub(crate) async fn count_lines(file: &Location, size: u64, offset: u64) -> Result<u64> {
    let mut text = read_text(file, size, 0).await?;
    let (mut lines, mut left) = (0, offset);
    while let Some(block) = text.try_next().await? {
        let take = usize::try_from(left).map_or(block.len(), |left| left.min(block.len()));
        lines += memchr::memchr_iter(b'\n', &block[..take]).count() as u64;
        left -= take as u64;
        if left == 0 {
            break;
        }
    }
    Ok(lines)
}

async fn skip(text: &mut (impl AsyncRead + Unpin), count: u64) -> std::io::Result<()> {
    tokio::io::copy(&mut text.take(count), &mut tokio::io::sink()).await.map(drop)
}

/// The reader below fails with our own error; what the decompressor finds wrong itself is damage.
fn decompression_error(file: &Location, error: std::io::Error) -> Error {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(own) => own.clone(),
        None => {
            let message = format!("{file}: cannot be decompressed: {error}");
            let hint = "it may be cut off, or have another ending than its compression: fetch or write it again";
            Error::corrupt(message).with_hint(hint).with_source(error)
        }
    }
}
