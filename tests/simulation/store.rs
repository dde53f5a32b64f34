//! A store that fails now and then, before or after it did what it was asked, whose disk is full now and then, and that takes
//! its time.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};
use tidemill_core::clock::Clock;
use tidemill_exec::runtime::StoreFolder;

use crate::chance::Chance;
use crate::pace::Pace;

/// A store is slow when it takes so long.
const SLOW_MILLIS: u64 = 100;

/// What goes wrong with a store, each once in how many calls; never if 0.
#[derive(Clone, Copy, Debug, Default)]
pub struct StoreTroubles {
    /// It does nothing and says so.
    pub away: u64,
    /// It does what it was asked, and nobody hears of it.
    pub lost_replies: u64,
    /// It has no room. What it has taken of a file that may be written over stays there.
    pub full_disk: u64,
    /// It takes a file and never answers.
    pub hangs: u64,
    /// It does not take a part of a file that comes in parts, or does not complete such a file; and as often it does, and nobody
    /// hears of it.
    pub parts: u64,
    /// It takes up to so long.
    pub pause_millis: u64,
    /// And up to so long before each effect, and once more after it.
    pub step_millis: u64,
}

#[derive(Debug)]
pub struct FaultyStore {
    inner: InMemory,
    faults: Faults,
    /// What else becomes of some files.
    mishap: Mutex<Option<Mishap>>,
    /// What was put, if somebody wants to know.
    journal: Mutex<Option<Vec<Put>>>,
}

/// What goes wrong, and when.
#[derive(Clone, Debug)]
struct Faults {
    chance: Chance,
    troubles: StoreTroubles,
    pace: Pace,
}

/// What is known of a file that is put in one piece.
#[derive(Clone, Debug)]
pub enum Put {
    /// It is on its way.
    Begun(Path, PutPayload),
    /// It is there, and whoever has put it hears so: of a disk that keeps its word, it is synced.
    Done(Path),
}

/// What is done with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Put,
    Get,
}

/// What becomes of files in this folder, as many of this with them as are left.
#[derive(Clone, Copy, Debug)]
struct Mishap {
    access: Access,
    folder: &'static str,
    left: usize,
    /// How long it takes; `None` if it fails, and nothing is done.
    pause: Option<Duration>,
}

impl FaultyStore {
    pub fn shared(chance: Chance, troubles: StoreTroubles) -> Arc<Self> {
        let pace = Pace::new(chance.clone(), troubles.step_millis);
        let (mishap, journal) = (Mutex::default(), Mutex::default());
        Arc::new(Self { inner: InMemory::new(), faults: Faults { chance, troubles, pace }, mishap, journal })
    }

    /// From now on keeps a journal.
    pub fn keep_journal(&self) {
        *self.journal.lock().unwrap() = Some(Vec::new());
    }

    /// What was put since then, in order.
    pub fn journal(&self) -> Vec<Put> {
        self.journal.lock().unwrap().clone().unwrap_or_default()
    }

    fn note(&self, put: impl FnOnce() -> Put) {
        if let Some(journal) = &mut *self.journal.lock().unwrap() {
            journal.push(put());
        }
    }

    /// A folder of it.
    pub fn folder(self: &Arc<Self>, name: &str) -> StoreFolder {
        StoreFolder { store: self.clone(), root: name.into(), url: format!("memory:{name}") }
    }

    /// A process begins, whose clock this is.
    pub fn set_clock(&self, clock: Arc<dyn Clock>) {
        self.faults.pace.set_clock(clock);
    }

    /// How long its steps take, for whatever else is outside of the process.
    pub fn pace(&self) -> Pace {
        self.faults.pace.clone()
    }

    /// The next `count` files that are put into `folder`, or read there, take so long.
    pub fn slow_down(&self, access: Access, folder: &'static str, count: usize, pause: Duration) {
        *self.mishap.lock().unwrap() = Some(Mishap { access, folder, left: count, pause: Some(pause) });
    }

    /// From now on files that are put into `folder`, or read there, are refused, however often somebody tries.
    pub fn refuse(&self, access: Access, folder: &'static str) {
        *self.mishap.lock().unwrap() = Some(Mishap { access, folder, left: usize::MAX, pause: None });
    }

    async fn meet(&self, access: Access, location: &Path) -> Result<()> {
        let is_met =
            |mishap: &Mishap| mishap.left > 0 && mishap.access == access && location.as_ref().contains(mishap.folder);
        let pause = match &mut *self.mishap.lock().unwrap() {
            Some(mishap) if is_met(mishap) => {
                mishap.left -= 1;
                mishap.pause
            }
            _ => return Ok(()),
        };
        let Some(pause) = pause else { return Err(generic("the file is refused")) };
        self.faults.pace.clock().unwrap().sleep(pause).await;
        Ok(())
    }
}

impl Faults {
    fn fail(&self, every: u64, why: &'static str) -> Result<()> {
        match self.chance.strikes(why, every) {
            true => Err(generic(why)),
            false => Ok(()),
        }
    }

    fn fail_before(&self) -> Result<()> {
        self.fail(self.troubles.away, "the store is away")
    }

    fn fail_after(&self) -> Result<()> {
        self.fail(self.troubles.lost_replies, "the reply is lost")
    }

    /// Whether there is no room now.
    fn is_full(&self) -> bool {
        self.chance.strikes("the disk is full", self.troubles.full_disk)
    }

    /// Never returns, now and then.
    async fn hang(&self) {
        if self.chance.strikes("the store hangs", self.troubles.hangs) {
            std::future::pending::<()>().await;
        }
    }

    async fn pause(&self) {
        let took = self.pace.up_to(self.troubles.pause_millis).await;
        self.chance.count("the store is slow", u64::from(took >= SLOW_MILLIS));
        self.pace.step().await;
    }
}

/// Whether a file holds what several layers of a state have become: a checkpoint's own segment has number 0.
fn is_of_compaction(location: &Path) -> bool {
    location.as_ref().contains("/segments/") && location.as_ref().ends_with("-1")
}

fn generic(why: &'static str) -> object_store::Error {
    object_store::Error::Generic { store: "faulty", source: why.into() }
}

/// What a disk without room says.
fn no_room() -> object_store::Error {
    let source = Box::new(std::io::Error::from(std::io::ErrorKind::StorageFull));
    object_store::Error::Generic { store: "faulty", source }
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FaultyStore")
    }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        if is_of_compaction(location) {
            self.faults.chance.count("layers become fewer", 1);
        }
        self.note(|| Put::Begun(location.clone(), payload.clone()));
        self.meet(Access::Put, location).await?;
        self.faults.pause().await;
        self.faults.fail_before()?;
        if self.faults.is_full() {
            // Files that are created appear as a whole or not at all.
            if options.mode == PutMode::Overwrite {
                let bytes = Bytes::from(payload);
                let some = bytes.slice(..self.faults.chance.below(bytes.len() as u64 + 1) as usize);
                self.inner.put_opts(location, some.into(), options).await?;
                self.faults.pace.step().await;
            }
            return Err(no_room());
        }
        self.faults.hang().await;
        let done = self.inner.put_opts(location, payload, options).await?;
        self.faults.pace.step().await;
        self.note(|| Put::Done(location.clone()));
        self.faults.fail_after()?;
        Ok(done)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.faults.pause().await;
        self.faults.fail_before()?;
        let inner = self.inner.put_multipart_opts(location, options).await?;
        self.faults.pace.step().await;
        self.faults.fail_after()?;
        self.faults.chance.count("a file comes in parts", 1);
        Ok(Box::new(FaultyUpload { inner, faults: self.faults.clone(), missing: Arc::default() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.meet(Access::Get, location).await?;
        self.faults.pause().await;
        self.faults.fail_before()?;
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        if let Err(error) = self.faults.fail_before() {
            return stream::once(async { Err(error) }).boxed();
        }
        let (inner, pace) = (self.inner.clone(), self.pace());
        let delete = move |location: Path| {
            let (inner, pace) = (inner.clone(), pace.clone());
            async move {
                pace.step().await;
                inner.delete(&location).await?;
                pace.step().await;
                Ok(location)
            }
        };
        locations.and_then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        if let Err(error) = self.faults.fail_before() {
            return stream::once(async { Err(error) }).boxed();
        }
        let (inner, pace, prefix) = (self.inner.clone(), self.pace(), prefix.cloned());
        let listed = async move {
            pace.step().await;
            let found: Vec<Result<ObjectMeta>> = inner.list(prefix.as_ref()).collect().await;
            pace.step().await;
            Ok::<_, object_store::Error>(stream::iter(found))
        };
        stream::once(listed).try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.faults.fail_before()?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.faults.fail_before()?;
        self.inner.copy_opts(from, to, options).await
    }
}

/// A file on its way in parts. Each of them may fail, and its completion: before that is done or after it.
#[derive(Debug)]
struct FaultyUpload {
    inner: Box<dyn MultipartUpload>,
    faults: Faults,
    /// How many parts there are of which nobody has heard that they have come.
    missing: Arc<AtomicUsize>,
}

#[async_trait]
impl MultipartUpload for FaultyUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.missing.fetch_add(1, Ordering::Relaxed);
        // It has its place among the others, whatever becomes of it.
        let (part, faults, missing) = (self.inner.put_part(data), self.faults.clone(), self.missing.clone());
        Box::pin(async move {
            faults.pause().await;
            faults.fail(faults.troubles.parts, "a part is not taken")?;
            if faults.is_full() {
                return Err(no_room());
            }
            faults.hang().await;
            part.await?;
            faults.pace.step().await;
            faults.fail(faults.troubles.parts, "the reply to a part is lost")?;
            missing.fetch_sub(1, Ordering::Relaxed);
            Ok(())
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let missing = self.missing.load(Ordering::Relaxed);
        assert_eq!(missing, 0, "parts that are missing in a file that is completed");
        self.faults.pause().await;
        self.faults.fail(self.faults.troubles.parts, "a file is not completed")?;
        self.faults.hang().await;
        let done = self.inner.complete().await?;
        self.faults.pace.step().await;
        self.faults.fail(self.faults.troubles.parts, "the reply to a completion is lost")?;
        Ok(done)
    }

    async fn abort(&mut self) -> Result<()> {
        self.faults.pace.step().await;
        self.faults.fail_before()?;
        self.inner.abort().await
    }
}
