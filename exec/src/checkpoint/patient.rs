//! A store that tries again what may pass: for segments, which are read and written in pieces.
//!
//! Only what leaves the same behind however often it is done is done again: reads, and files that are put in one piece. The parts
//! of a large file are not, since stores number them as they come; clients of stores far away try those again themselves.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

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
    Arc::new(PatientStore { store, clock, reads_max: None })
}

/// The same, where a read that takes longer than `reads_max`, all tries together, is an error.
pub fn patient_reader(store: Arc<dyn ObjectStore>, clock: Arc<dyn Clock>, reads_max: Duration) -> Arc<dyn ObjectStore> {
    Arc::new(PatientStore { store, clock, reads_max: Some(reads_max) })
}

#[derive(Debug)]
struct PatientStore {
    store: Arc<dyn ObjectStore>,
    clock: Arc<dyn Clock>,
    reads_max: Option<Duration>,
}

impl PatientStore {
    /// Reads patiently, for as long as it may take.
    async fn read<T, F>(&self, once: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let read = patiently(&*self.clock, once);
        let Some(reads_max) = self.reads_max else { return read.await };
        tokio::select! {
            biased;
            read = read => read,
            () = self.clock.sleep(reads_max) => {
                let silent = format!("the store has not answered for {reads_max:?}");
                Err(object_store::Error::Generic { store: "patient", source: silent.into() })
            }
        }
    }
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
        self.read(|| self.store.get_opts(location, options.clone())).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.read(|| self.store.get_ranges(location, ranges)).await
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
