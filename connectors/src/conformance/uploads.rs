//! Multipart uploads as the great stores have them, over a store in memory: what is uploaded is visible when it is completed,
//! parts have a least size, and an upload that is over is unknown.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use object_store::memory::InMemory;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{Error, MultipartId, ObjectStoreExt, PutPayload, PutResult, Result};

/// A store with strict multipart uploads.
#[derive(Debug)]
pub struct Uploads {
    store: Arc<InMemory>,
    part_bytes_min: usize,
    state: Mutex<State>,
    is_away: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    next: usize,
    open: BTreeMap<String, Upload>,
}

#[derive(Debug)]
struct Upload {
    path: Path,
    /// By number: what identifies the content, and the content.
    parts: BTreeMap<usize, (String, Vec<u8>)>,
}

impl Uploads {
    /// Uploads into `store` whose parts have at least so many bytes, the last one apart.
    pub fn new(store: Arc<InMemory>, part_bytes_min: usize) -> Self {
        Self { store, part_bytes_min, state: Mutex::default(), is_away: AtomicBool::new(false) }
    }

    /// How many were begun and are neither completed nor aborted.
    pub fn open(&self) -> usize {
        self.state().open.len()
    }

    /// From now on parts are refused, or taken again.
    pub fn go_away(&self, is_away: bool) {
        self.is_away.store(is_away, Ordering::Relaxed);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unknown(path: &Path, id: &str) -> Error {
    Error::NotFound { path: path.to_string(), source: format!("no upload {id}").into() }
}

fn refused(message: String) -> Error {
    Error::Generic { store: "uploads", source: message.into() }
}

#[async_trait]
impl MultipartStore for Uploads {
    async fn create_multipart(&self, path: &Path) -> Result<MultipartId> {
        let mut state = self.state();
        state.next += 1;
        let id = format!("upload-{}", state.next);
        state.open.insert(id.clone(), Upload { path: path.clone(), parts: BTreeMap::new() });
        Ok(id)
    }

    async fn put_part(&self, path: &Path, id: &MultipartId, part_idx: usize, data: PutPayload) -> Result<PartId> {
        if self.is_away.load(Ordering::Relaxed) {
            return Err(refused("the store is away".to_owned()));
        }
        let mut state = self.state();
        state.next += 1;
        let content_id = format!("part-{}", state.next);
        let upload = state.open.get_mut(id).filter(|upload| upload.path == *path).ok_or_else(|| unknown(path, id))?;
        upload.parts.insert(part_idx, (content_id.clone(), bytes::Bytes::from(data).to_vec()));
        Ok(PartId { content_id })
    }

    async fn complete_multipart(&self, path: &Path, id: &MultipartId, parts: Vec<PartId>) -> Result<PutResult> {
        let mut whole = Vec::new();
        {
            let mut state = self.state();
            let upload = state.open.get(id).filter(|upload| upload.path == *path).ok_or_else(|| unknown(path, id))?;
            for (at, part) in parts.iter().enumerate() {
                let known = upload.parts.get(&at).filter(|(content, _)| *content == part.content_id);
                let (_, bytes) = known.ok_or_else(|| refused(format!("part {at} is not {}", part.content_id)))?;
                if at + 1 < parts.len() && bytes.len() < self.part_bytes_min {
                    return Err(refused(format!("part {at} has {} bytes", bytes.len())));
                }
                whole.extend_from_slice(bytes);
            }
            state.open.remove(id);
        }
        self.store.put(path, whole.into()).await
    }

    async fn abort_multipart(&self, path: &Path, id: &MultipartId) -> Result<()> {
        self.state().open.remove(id).map(drop).ok_or_else(|| unknown(path, id))
    }
}
