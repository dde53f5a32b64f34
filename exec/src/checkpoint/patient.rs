//! A store that tries again what may pass: for segments, which are read and written in pieces.
//!
//! Only what leaves the same behind however often it is done is done again: reads, and files that are put in one piece. The parts
//! of a large file are not, since stores number them as they come; clients of stores far away try those again themselves.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tidemill_core::clock::Clock;

use super::files::patiently;

/// `store`, with patience on `clock`.
pub fn patient(store: Arc<dyn ObjectStore>, clock: Arc<dyn Clock>) -> Arc<dyn ObjectStore> {
    Arc::new(PatientStore { store, clock })
}

#[derive(Debug)]
struct PatientStore {
    store: Arc<dyn ObjectStore>,
    clock: Arc<dyn Clock>,
}

impl fmt::Display for PatientStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for PatientStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        match options.mode {
            PutMode::Overwrite => {
                let once = || self.store.put_opts(location, payload.clone(), options.clone());
                patiently(&*self.clock, once).await
            }
            PutMode::Create | PutMode::Update(_) => self.store.put_opts(location, payload, options).await,
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        patiently(&*self.clock, || self.store.put_multipart_opts(location, options.clone())).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        patiently(&*self.clock, || self.store.get_opts(location, options.clone())).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        patiently(&*self.clock, || self.store.get_ranges(location, ranges)).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.store.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.store.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.store.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.store.copy_opts(from, to, options).await
    }
}
