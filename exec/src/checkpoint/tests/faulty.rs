//! A store that fails before or after it has done what it was asked for, and makes others wait, as a seed says.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};

use super::Chance;

/// Wraps another store. Cloning shares its faults.
#[derive(Clone, Debug)]
pub struct Faulty {
    inner: Arc<dyn ObjectStore>,
    plan: Arc<Mutex<Plan>>,
    /// Whether it puts one file in the place of another, and knows nothing else.
    overwrites: bool,
    /// A part of the names of files that it does not give away.
    withheld: Option<&'static str>,
    /// How many files were begun in parts, and neither completed nor aborted.
    open_uploads: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct Plan {
    chance: Chance,
    /// One call in so many fails, one in so many does what it is asked for and fails then; 0 is never.
    fails_one_in: u64,
    /// The next creations: whether each does its work, and whether it says so.
    next: Vec<(bool, bool)>,
}

impl Faulty {
    /// Faults that follow from a seed; one call in `fails_one_in` fails.
    pub fn new(inner: Arc<dyn ObjectStore>, seed: u64, fails_one_in: u64) -> Self {
        let plan = Plan { chance: Chance(seed), fails_one_in, next: Vec::new() };
        Self {
            inner,
            plan: Arc::new(Mutex::new(plan)),
            overwrites: false,
            withheld: None,
            open_uploads: Arc::default(),
        }
    }

    /// The same as a store that creates no name only once (WebDAV).
    pub fn overwriting(self) -> Self {
        Self { overwrites: true, ..self }
    }

    /// The same, where files with this in their names are there and cannot be read.
    pub fn withholding(self, part: &'static str) -> Self {
        Self { withheld: Some(part), ..self }
    }

    /// How many files were begun in parts, and neither completed nor aborted.
    pub fn open_uploads(&self) -> usize {
        self.open_uploads.load(Ordering::Relaxed)
    }

    /// For each of the next files that are put whole: whether it is stored, and whether the reply arrives.
    pub fn plan(&self, mut next: Vec<(bool, bool)>) {
        next.reverse();
        self.plan.lock().unwrap().next = next;
    }

    /// Waits some turns, and says whether the call does its work and whether the reply arrives.
    async fn turn(&self, is_put: bool) -> (bool, bool) {
        let (turns, outcome) = {
            let mut plan = self.plan.lock().unwrap();
            let planned = if is_put { plan.next.pop() } else { None };
            let odds = plan.fails_one_in;
            let outcome = match plan.chance.below((odds * 2).max(1)) {
                0 if odds > 0 => (false, false),
                1 if odds > 0 => (true, false),
                _ => (true, true),
            };
            (plan.chance.below(4), planned.unwrap_or(outcome))
        };
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
        outcome
    }

    async fn around<T>(&self, is_put: bool, call: impl Future<Output = Result<T>>) -> Result<T> {
        let (works, replies) = self.turn(is_put).await;
        if !works {
            return Err(fault("before"));
        }
        let result = call.await;
        // The reply to a call takes its time as well.
        self.turn(false).await;
        if replies { result } else { Err(fault("after")) }
    }
}

fn fault(when: &str) -> object_store::Error {
    object_store::Error::Generic { store: "faulty", source: format!("lost {when} the work").into() }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faulty")
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        if self.overwrites && options.mode != PutMode::Overwrite {
            let (operation, implementer) = ("creating a name once".to_owned(), self.to_string());
            return Err(object_store::Error::NotImplemented { operation, implementer });
        }
        self.around(true, self.inner.put_opts(location, payload, options)).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let upload = self.around(false, self.inner.put_multipart_opts(location, options)).await?;
        self.open_uploads.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(FaultyUpload { upload, store: self.clone(), is_open: true }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if self.withheld.is_some_and(|part| location.as_ref().contains(part)) {
            return Err(fault("before"));
        }
        self.around(false, self.inner.get_opts(location, options)).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        let delete = move |location: Result<Path>| {
            let store = store.clone();
            async move {
                let location = stream::once(async move { location }).boxed();
                let mut deleted = store.inner.delete_stream(location);
                store.around(false, async { deleted.next().await.unwrap_or_else(|| Err(fault("before"))) }).await
            }
        };
        locations.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (store, prefix) = (self.clone(), prefix.cloned());
        let listed = async move {
            let listed = async { store.inner.list(prefix.as_ref()).try_collect::<Vec<_>>().await };
            store.around(false, listed).await.map(|listed| stream::iter(listed.into_iter().map(Ok)))
        };
        stream::once(listed).try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.around(false, self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.around(false, self.inner.copy_opts(from, to, options)).await
    }
}

#[derive(Debug)]
struct FaultyUpload {
    upload: Box<dyn MultipartUpload>,
    store: Faulty,
    is_open: bool,
}

impl FaultyUpload {
    fn close(&mut self) {
        if std::mem::take(&mut self.is_open) {
            self.store.open_uploads.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[async_trait]
impl MultipartUpload for FaultyUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (store, part) = (self.store.clone(), self.upload.put_part(data));
        Box::pin(async move { store.around(false, part).await })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let store = self.store.clone();
        let completed = store.around(false, self.upload.complete()).await?;
        self.close();
        Ok(completed)
    }

    async fn abort(&mut self) -> Result<()> {
        self.close();
        self.upload.abort().await
    }
}
