//! A store that is elsewhere: every call runs on the I/O runtime, whoever makes it, and none waits for ever.
//!
//! ```text
//! caller, on any executor ── call ──> a task of the I/O runtime ── client ──> the store
//!                         <── items, a few ahead, of a list or a body
//! ```
//!
//! Clients of stores are written for tokio: they need its timers and sockets. Callers here may be tasks of another runtime, or
//! threads without one. A caller that goes away takes its task with it. Clients try again by themselves what fails in passing;
//! what bounds them here is silence alone, so that a reader that is held up, or a file that is long, is no failure.

use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartId, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart,
};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// How long a store may say nothing.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// How long it may say nothing while it moves bytes on its own side.
const SILENCE_OF_COPIES_MAX: Duration = Duration::from_secs(600);
/// How many items of a list or a body are fetched ahead of who reads them.
const AHEAD: usize = 16;

/// Where clients run.
#[derive(Debug)]
pub(super) enum IoRuntime {
    /// On a runtime of the engine.
    Given(Handle),
    /// On one of their own, which begins with the first call.
    Own(OnceLock<Option<Runtime>>),
}

impl IoRuntime {
    pub(super) fn new(runtime: Option<Handle>) -> Self {
        runtime.map_or_else(|| Self::Own(OnceLock::new()), Self::Given)
    }

    pub(super) fn handle(&self) -> Result<Handle> {
        let runtime = match self {
            Self::Given(handle) => return Ok(handle.clone()),
            Self::Own(runtime) => runtime,
        };
        let begun = runtime.get_or_init(|| {
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .thread_name("tidemill-stores")
                .enable_all()
                .build()
                .ok()
        });
        begun.as_ref().map(|runtime| runtime.handle().clone()).ok_or_else(|| failure("no threads for its client"))
    }
}

impl Drop for IoRuntime {
    fn drop(&mut self) {
        // It may be dropped by an async task, which must not wait.
        if let Self::Own(runtime) = self
            && let Some(Some(runtime)) = runtime.take()
        {
            runtime.shutdown_background();
        }
    }
}

/// A client, called on the I/O runtime.
pub(super) struct Remote<S> {
    client: Arc<S>,
    runtime: Arc<IoRuntime>,
}

impl<S> Remote<S> {
    pub(super) fn new(client: S, runtime: Arc<IoRuntime>) -> Self {
        Self { client: Arc::new(client), runtime }
    }
}

impl<S: Send + Sync + 'static> Remote<S> {
    async fn call<T, F>(&self, silence: Duration, call: impl FnOnce(Arc<S>) -> F + Send + 'static) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send,
    {
        let client = self.client.clone();
        run(&self.runtime, silence, async move { call(client).await }).await
    }

    /// The items of a stream that is read on the I/O runtime.
    fn items<T: Send + 'static>(
        &self,
        open: impl FnOnce(Arc<S>) -> BoxStream<'static, Result<T>> + Send + 'static,
    ) -> BoxStream<'static, Result<T>> {
        let client = self.client.clone();
        match self.runtime.handle() {
            Ok(runtime) => pumped(&runtime, move || open(client)),
            Err(error) => stream::once(async { Err(error) }).boxed(),
        }
    }
}

impl<S: fmt::Display> fmt::Display for Remote<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.client.fmt(f)
    }
}

impl<S: fmt::Display> fmt::Debug for Remote<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.client)
    }
}

#[async_trait]
impl<S: ObjectStore> ObjectStore for Remote<S> {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let location = location.clone();
        self.call(SILENCE_MAX, |client| async move { client.put_opts(&location, payload, options).await }).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let location = location.clone();
        let begin = |client: Arc<S>| async move { client.put_multipart_opts(&location, options).await };
        let upload = self.call(SILENCE_MAX, begin).await?;
        Ok(Box::new(RemoteUpload { upload: Some(upload), runtime: self.runtime.clone() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let location = location.clone();
        let result = self.call(SILENCE_MAX, |client| async move { client.get_opts(&location, options).await }).await?;
        let payload = match result.payload {
            GetResultPayload::Stream(body) => GetResultPayload::Stream(pumped(&self.runtime.handle()?, || body)),
            file => file,
        };
        Ok(GetResult { payload, ..result })
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let (location, ranges) = (location.clone(), ranges.to_vec());
        self.call(SILENCE_MAX, |client| async move { client.get_ranges(&location, &ranges).await }).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.items(|client| client.delete_stream(locations))
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let prefix = prefix.cloned();
        self.items(move |client| client.list(prefix.as_ref()))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        let (prefix, offset) = (prefix.cloned(), offset.clone());
        self.items(move |client| client.list_with_offset(prefix.as_ref(), &offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let prefix = prefix.cloned();
        // A list of many pages is one call here.
        let list = |client: Arc<S>| async move { client.list_with_delimiter(prefix.as_ref()).await };
        self.call(SILENCE_OF_COPIES_MAX, list).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let (from, to) = (from.clone(), to.clone());
        let copy = |client: Arc<S>| async move { client.copy_opts(&from, &to, options).await };
        self.call(SILENCE_OF_COPIES_MAX, copy).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        let (from, to) = (from.clone(), to.clone());
        let rename = |client: Arc<S>| async move { client.rename_opts(&from, &to, options).await };
        self.call(SILENCE_OF_COPIES_MAX, rename).await
    }
}

#[async_trait]
impl<S: MultipartStore> MultipartStore for Remote<S> {
    async fn create_multipart(&self, path: &Path) -> Result<MultipartId> {
        let path = path.clone();
        self.call(SILENCE_MAX, |client| async move { client.create_multipart(&path).await }).await
    }

    async fn put_part(&self, path: &Path, id: &MultipartId, part_idx: usize, data: PutPayload) -> Result<PartId> {
        let (path, id) = (path.clone(), id.clone());
        self.call(SILENCE_MAX, move |client| async move { client.put_part(&path, &id, part_idx, data).await }).await
    }

    async fn complete_multipart(&self, path: &Path, id: &MultipartId, parts: Vec<PartId>) -> Result<PutResult> {
        let (path, id) = (path.clone(), id.clone());
        let complete = |client: Arc<S>| async move { client.complete_multipart(&path, &id, parts).await };
        self.call(SILENCE_OF_COPIES_MAX, complete).await
    }

    async fn abort_multipart(&self, path: &Path, id: &MultipartId) -> Result<()> {
        let (path, id) = (path.clone(), id.clone());
        self.call(SILENCE_MAX, |client| async move { client.abort_multipart(&path, &id).await }).await
    }
}

/// An upload whose parts are sent from the I/O runtime.
#[derive(Debug)]
struct RemoteUpload {
    /// Away while it is completed or aborted, and for ever if whoever asked for that went away meanwhile.
    upload: Option<Box<dyn MultipartUpload>>,
    runtime: Arc<IoRuntime>,
}

impl RemoteUpload {
    async fn end<T, F>(&mut self, end: impl FnOnce(Box<dyn MultipartUpload>) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = (Box<dyn MultipartUpload>, Result<T>)> + Send + 'static,
    {
        let upload = self.upload.take().ok_or_else(|| failure("the upload was left in the middle"))?;
        let ended = end(upload);
        let (upload, ended) = run(&self.runtime, SILENCE_OF_COPIES_MAX, async { Ok(ended.await) }).await?;
        self.upload = Some(upload);
        ended
    }
}

#[async_trait]
impl MultipartUpload for RemoteUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let Some(upload) = &mut self.upload else {
            return Box::pin(async { Err(failure("the upload was left in the middle")) });
        };
        // The order of parts is that of these calls, not that in which they are sent.
        let part = upload.put_part(data);
        let runtime = self.runtime.clone();
        Box::pin(async move { run(&runtime, SILENCE_MAX, part).await })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.end(|mut upload| async move {
            let completed = upload.complete().await;
            (upload, completed)
        })
        .await
    }

    async fn abort(&mut self) -> Result<()> {
        self.end(|mut upload| async move {
            let aborted = upload.abort().await;
            (upload, aborted)
        })
        .await
    }
}

/// A task that ends when nobody waits for it any more.
struct Running<T>(JoinHandle<T>);

impl<T> Future for Running<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map_err(|error| Error::JoinError { source: error })
    }
}

impl<T> Drop for Running<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn run<T: Send + 'static>(
    runtime: &IoRuntime,
    silence: Duration,
    call: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let bounded = async move { tokio::time::timeout(silence, call).await.unwrap_or_else(|_| Err(silent(silence))) };
    Running(runtime.handle()?.spawn(bounded)).await?
}

fn pumped<T: Send + 'static>(
    runtime: &Handle,
    open: impl FnOnce() -> BoxStream<'static, Result<T>> + Send + 'static,
) -> BoxStream<'static, Result<T>> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    let pump = Running(runtime.spawn(async move {
        let mut items = open();
        loop {
            let item = match tokio::time::timeout(SILENCE_MAX, items.next()).await {
                Ok(Some(item)) => item,
                Ok(None) => return,
                Err(_) => Err(silent(SILENCE_MAX)),
            };
            let is_last = item.is_err();
            if sender.send(item).await.is_err() || is_last {
                return;
            }
        }
    }));
    let next = |(mut receiver, pump): (mpsc::Receiver<Result<T>>, Option<Running<()>>)| async move {
        if let Some(item) = receiver.recv().await {
            return Some((item, (receiver, pump)));
        }
        // A pump that was ended from outside is not the end of what it pumped.
        match pump?.await {
            Ok(()) => None,
            Err(error) => Some((Err(error), (receiver, None))),
        }
    };
    stream::unfold((receiver, Some(pump)), next).boxed()
}

fn silent(silence: Duration) -> Error {
    failure(format!("no answer for {} s", silence.as_secs()))
}

fn failure(what: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Generic { store: "remote", source: what.into() }
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;
    use futures::executor::block_on;
    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;

    use super::*;

    fn remote() -> Remote<InMemory> {
        Remote::new(InMemory::new(), Arc::new(IoRuntime::new(None)))
    }

    #[test]
    fn it_serves_threads_without_a_runtime() {
        let (store, place) = (remote(), Path::from("a/b"));
        block_on(async {
            store.put(&place, "tide".into()).await.unwrap();
            assert_eq!(store.get(&place).await.unwrap().bytes().await.unwrap(), "tide");
            assert_eq!(store.get_range(&place, 1..3).await.unwrap(), "id");
            let mut upload = store.put_multipart(&Path::from("a/c")).await.unwrap();
            let parts: Vec<_> = (0..40).map(|n| upload.put_part(format!("{n},").into())).collect();
            futures::future::try_join_all(parts).await.unwrap();
            upload.complete().await.unwrap();
            let whole = store.get(&Path::from("a/c")).await.unwrap().bytes().await.unwrap();
            assert!(whole.starts_with(b"0,1,2,") && whole.ends_with(b"38,39,"));
            let listed: Vec<_> = store.list(None).map_ok(|meta| meta.location.to_string()).try_collect().await.unwrap();
            assert_eq!(listed, ["a/b", "a/c"]);
            store.delete(&place).await.unwrap();
            assert!(matches!(store.head(&place).await, Err(Error::NotFound { .. })));
        });
    }

    #[test]
    fn what_the_end_of_the_runtime_cuts_off_is_an_error_and_not_the_end() {
        let runtime = Runtime::new().unwrap();
        let endless = stream::repeat_with(|| Ok(7)).then(|item| async {
            tokio::task::yield_now().await;
            item
        });
        let mut items = pumped(runtime.handle(), || endless.boxed());
        assert_eq!(block_on(items.next()).unwrap().unwrap(), 7);
        runtime.shutdown_background();
        let last = block_on(async {
            let mut last = None;
            while let Some(item) = items.next().await {
                last = Some(item);
            }
            last
        });
        assert!(matches!(last, Some(Err(Error::JoinError { .. }))));
    }
}
