//! A file on its way into a store: in one piece if it is small, else in parts, of which a few are held at a time.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::FuturesUnordered;
use futures::{StreamExt, future::BoxFuture};
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload};
use tidemill_core::Result;

use super::files::store_error;

/// How large a part is. Stores want all but the last to be of one size, and at least 5 MiB.
const PART_BYTES: usize = 8 << 20;
/// How many parts are on their way at a time.
const PARTS_MAX: usize = 4;

/// A file that is written from its begin to its end, and is there once it is finished.
pub(super) struct Upload {
    store: Arc<dyn ObjectStore>,
    path: Path,
    /// What is less than a part, as it came, and how many bytes that is.
    pending: VecDeque<Bytes>,
    pending_bytes: usize,
    bytes: u64,
    parts: Option<Parts>,
}

struct Parts {
    upload: Box<dyn MultipartUpload>,
    on_their_way: FuturesUnordered<BoxFuture<'static, object_store::Result<()>>>,
}

impl Upload {
    pub fn new(store: Arc<dyn ObjectStore>, path: Path) -> Self {
        Self { store, path, pending: VecDeque::new(), pending_bytes: 0, bytes: 0, parts: None }
    }

    /// How many bytes it has so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds bytes at the end; where they begin.
    pub async fn append(&mut self, bytes: Bytes) -> Result<u64> {
        let offset = self.bytes;
        self.bytes += bytes.len() as u64;
        self.pending_bytes += bytes.len();
        self.pending.push_back(bytes);
        while self.pending_bytes >= PART_BYTES {
            let part = self.take(PART_BYTES);
            self.put(part).await.map_err(|error| self.error(error))?;
        }
        Ok(offset)
    }

    /// Completes the file, and says how many bytes it has. An empty one is not there. Nothing may be added afterwards.
    pub async fn finish(&mut self) -> Result<u64> {
        match self.complete().await {
            Ok(()) => Ok(self.bytes),
            Err(error) => {
                let error = self.error(error);
                self.abort().await;
                Err(error)
            }
        }
    }

    /// Takes back the parts that the store has got of a file that is not complete; if that fails they stay there.
    pub async fn abort(&mut self) {
        if let Some(mut parts) = self.parts.take() {
            parts.on_their_way.clear();
            let _ = parts.upload.abort().await;
        }
    }

    async fn complete(&mut self) -> object_store::Result<()> {
        if self.pending_bytes > 0 {
            let rest = self.take(self.pending_bytes);
            match self.parts {
                Some(_) => self.put(rest).await?,
                None => drop(self.store.put(&self.path, rest).await?),
            }
        }
        if let Some(parts) = &mut self.parts {
            while let Some(part) = parts.on_their_way.next().await {
                part?;
            }
            parts.upload.complete().await?;
        }
        self.parts = None;
        Ok(())
    }

    /// The first bytes of what waits, so many, in the pieces in which they came: nothing is copied.
    fn take(&mut self, bytes: usize) -> PutPayload {
        let mut missing = bytes;
        let mut pieces = Vec::new();
        while missing > 0
            && let Some(mut piece) = self.pending.pop_front()
        {
            let taken = piece.split_to(missing.min(piece.len()));
            missing -= taken.len();
            pieces.push(taken);
            if !piece.is_empty() {
                self.pending.push_front(piece);
            }
        }
        self.pending_bytes -= bytes - missing;
        PutPayload::from_iter(pieces)
    }

    async fn put(&mut self, part: PutPayload) -> object_store::Result<()> {
        if self.parts.is_none() {
            let upload = self.store.put_multipart(&self.path).await?;
            self.parts = Some(Parts { upload, on_their_way: FuturesUnordered::new() });
        }
        let Some(parts) = &mut self.parts else { return Ok(()) };
        if parts.on_their_way.len() >= PARTS_MAX
            && let Some(done) = parts.on_their_way.next().await
        {
            done?;
        }
        parts.on_their_way.push(parts.upload.put_part(part));
        Ok(())
    }

    fn error(&self, error: object_store::Error) -> tidemill_core::Error {
        store_error(format!("writing '{}'", self.path), error)
    }
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;
    use object_store::memory::InMemory;

    use super::*;

    /// What is in the store after these pieces were added, and where each of them began.
    fn uploaded(pieces: &[Vec<u8>]) -> (Option<Bytes>, Vec<u64>) {
        let (store, path) = (Arc::new(InMemory::new()), Path::from("file"));
        let mut upload = Upload::new(store.clone(), path.clone());
        let begins = pieces.iter().map(|piece| block_on(upload.append(piece.clone().into())).unwrap()).collect();
        let length = block_on(upload.finish()).unwrap();
        let stored = block_on(async { Some(store.get(&path).await.ok()?.bytes().await.unwrap()) });
        assert_eq!(stored.as_ref().map_or(0, |bytes| bytes.len() as u64), length);
        (stored, begins)
    }

    #[test]
    fn a_file_is_its_pieces_wherever_its_parts_end() {
        for lengths in [
            vec![3, 0, 4],
            vec![PART_BYTES],
            vec![PART_BYTES - 1, 1, 1],
            vec![1, 2 * PART_BYTES, 0, PART_BYTES - 1],
            vec![5, 3 * PART_BYTES + 7],
        ] {
            let mut count = 0u8;
            let mut byte = || {
                count = count.wrapping_mul(5).wrapping_add(3);
                count
            };
            let pieces: Vec<Vec<u8>> =
                lengths.iter().map(|length| std::iter::repeat_with(&mut byte).take(*length).collect()).collect();
            let (stored, begins) = uploaded(&pieces);
            assert!(stored.unwrap() == pieces.concat(), "{lengths:?}");
            let ends = lengths.iter().scan(0, |end, length| {
                *end += *length as u64;
                Some(*end)
            });
            assert!(begins.into_iter().eq([0].into_iter().chain(ends).take(lengths.len())), "{lengths:?}");
        }
        assert_eq!(uploaded(&[vec![], vec![]]), (None, vec![0, 0]));
    }
}
