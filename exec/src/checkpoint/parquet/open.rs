//! Opening a Parquet file of states in its store.

use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt};
use tidemill_core::{Error, Result};

use super::ParquetLayer;
use crate::checkpoint::content::{StoredChunk, StoredLayer};
use crate::checkpoint::files::{missing, store_error};

/// How long what follows the chunks may be, and how much longer for each column of each chunk.
const FOOTER_BYTES_MAX: u64 = 16 << 20;
const FOOTER_COLUMN_BYTES_MAX: u64 = 1 << 20;

impl ParquetLayer {
    /// Opens the file at `path`, in which the layer has at least one chunk. What it holds is checked with each chunk.
    ///
    /// Errors name the file: it is missing, or shorter than it was.
    pub async fn open(store: &dyn ObjectStore, path: &Path, layer: &StoredLayer) -> Result<Self> {
        let end = layer.chunks.last().map_or(0, StoredChunk::end);
        let options = GetOptions { range: Some(GetRange::Offset(end)), ..GetOptions::default() };
        let columns = (layer.schema.flattened_fields().len() * layer.chunks.len()) as u64;
        let most = columns.saturating_mul(FOOTER_COLUMN_BYTES_MAX).saturating_add(FOOTER_BYTES_MAX);
        let found = match store.get_opts(path, options).await {
            Ok(found) if found.range.end.saturating_sub(found.range.start) > most => {
                let error = format!("'{path}': {} bytes behind its rows", found.range.end - found.range.start);
                return Err(Error::corrupt(error));
            }
            Ok(found) => found.bytes().await,
            Err(error) => Err(error),
        };
        let footer = match found {
            Ok(footer) => footer,
            Err(error @ object_store::Error::NotFound { .. }) => return Err(missing(path, error)),
            Err(error) => {
                // Stores say in words of their own that a file is shorter than it was.
                let length = store.head(path).await.map(|meta| meta.size).ok();
                return Err(match length.filter(|length| *length <= end) {
                    Some(length) => Error::corrupt(format!("'{path}': the file ends at {length}")),
                    None => store_error(format!("reading '{path}'"), error),
                });
            }
        };
        Ok(Self::new(layer.schema.clone(), end, footer))
    }
}
