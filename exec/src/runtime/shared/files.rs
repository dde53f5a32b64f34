//! The files of a job on the local disk: fetched once by whoever comes first, removed with the last who holds them (SHR-06).
//!
//! ```text
//! io.tmp.dirs/tidemill-cache-PID-N/      locked while its process lives; one that is not locked is a leftover
//!     0/model.bin                        one folder a file, which keeps the name that it has where it comes from
//!     1/scripts/…
//! ```

use std::fs::{File, Permissions, TryLockError};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use tidemill_core::clock::Spawner;
use tidemill_core::error::unknown;
use tidemill_core::shared::{CachedFile, CachedFiles, FileFetcher};
use tidemill_core::{Error, Result};
use tokio::sync::{Mutex, oneshot};

use crate::runtime::environment::Environment;

/// What the folders of all processes are called.
const PREFIX: &str = "tidemill-cache-";
/// What a folder is called until it is locked; others take it for a leftover only afterwards.
const UNLOCKED_PREFIX: &str = "tidemill-new-cache-";

/// Fetches nothing: of an engine that nobody gave a fetcher.
#[derive(Debug)]
pub struct NoFetcher;

#[async_trait]
impl FileFetcher for NoFetcher {
    async fn fetch(&self, _url: &str, _target: &Path) -> Result<()> {
        Err(Error::request("this engine cannot fetch files").with_hint("give it a fetcher, with Engine::with_files"))
    }
}

/// The files that a job has registered.
#[derive(Debug)]
pub struct JobFiles {
    files: Vec<CachedFile>,
    fetcher: Arc<dyn FileFetcher>,
    io: Arc<dyn Spawner>,
    dirs: Vec<PathBuf>,
    /// Held while somebody fetches, so that the others wait.
    fetching: Arc<Mutex<()>>,
    /// Where they are, once all of them are there.
    folder: Arc<OnceLock<CacheFolder>>,
}

impl JobFiles {
    /// These files, none of which is there yet.
    pub fn new(files: &[CachedFile], environment: &Environment) -> Self {
        Self {
            files: files.to_vec(),
            fetcher: environment.files.clone(),
            io: environment.io.clone(),
            dirs: environment.spill.paths().to_vec(),
            fetching: Arc::default(),
            folder: Arc::default(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Waits until all files are there; whoever comes first fetches them. After a failure the next one tries anew.
    pub async fn fetched(&self) -> Result<()> {
        let fetching = self.fetching.clone().lock_owned().await;
        if self.folder.get().is_some() {
            return Ok(());
        }
        let (files, fetcher, dirs) = (self.files.clone(), self.fetcher.clone(), self.dirs.clone());
        let (mut reply, fetched) = oneshot::channel();
        let place = self.folder.clone();
        let work = async move {
            let fetched = tokio::select! {
                // Nobody waits any more: the job is over.
                () = reply.closed() => None,
                fetched = fetch(&files, &*fetcher, &dirs) => Some(fetched),
            };
            let told = fetched.map(|fetched| {
                fetched.map(|folder| {
                    place.get_or_init(|| folder);
                })
            });
            // Whoever has waited for the end of this finds nothing that it still holds.
            drop(place);
            if let Some(told) = told {
                let _ = reply.send(told);
            }
            drop(fetching);
        };
        self.io.spawn("fetch files", Box::pin(work));
        fetched.await.map_err(|_| Error::internal("the fetcher of files ended without a word"))?
    }

    /// Waits until nobody fetches, so that what was begun is gone when this is dropped.
    pub async fn settle(&self) {
        let _settled = self.fetching.lock().await;
    }
}

impl CachedFiles for JobFiles {
    fn path(&self, name: &str) -> Result<PathBuf> {
        let place = self.files.iter().position(|file| file.name == name);
        let Some(place) = place else {
            return Err(match self.files.is_empty() {
                true => Error::request(format!("unknown cached file '{name}'"))
                    .with_hint("register it with register_cached_file before the job starts"),
                false => unknown("cached file", name, self.files.iter().map(|file| file.name.as_str())),
            });
        };
        let folder = self.folder.get();
        let folder =
            folder.ok_or_else(|| Error::internal(format!("cached file '{name}' is used before it is there")))?;
        Ok(folder.place(place, &self.files[place].url))
    }
}

/// Fetches all files into a new folder.
async fn fetch(files: &[CachedFile], fetcher: &dyn FileFetcher, dirs: &[PathBuf]) -> Result<CacheFolder> {
    dirs.iter().for_each(|dir| remove_leftovers(dir));
    let folder = CacheFolder::create(dirs)?;
    for (place, file) in files.iter().enumerate() {
        let named = |error: Error| error.context(format_args!("cached file '{}' from '{}'", file.name, file.url));
        let target = folder.place(place, &file.url);
        let parent = target.parent().unwrap_or(&folder.path);
        std::fs::create_dir_all(parent).map_err(|error| named(error.into()))?;
        fetcher.fetch(&file.url, &target).await.map_err(named)?;
        // With the folder around it, so that nobody takes it away or puts another in its place.
        seal(parent, file.executable).map_err(|error| named(error.into()))?;
    }
    Ok(folder)
}

/// Lets nobody write to a file, or to a directory and what is in it: all tasks of the worker read the same ones (SUB-25).
fn seal(path: &Path, executable: bool) -> std::io::Result<()> {
    let metadata = std::fs::metadata(path)?;
    if metadata.is_dir() {
        std::fs::read_dir(path)?.try_for_each(|entry| seal(&entry?.path(), executable))?;
    }
    let needed = if executable || metadata.is_dir() { 0o500 } else { 0o400 };
    let mode = (metadata.permissions().mode() & 0o555) | needed;
    std::fs::set_permissions(path, Permissions::from_mode(mode))
}

/// Removes a folder with what is sealed in it.
fn remove(folder: &Path) -> std::io::Result<()> {
    unseal(folder)?;
    std::fs::remove_dir_all(folder)
}

/// Lets its owner take out what is in a directory and in those below.
fn unseal(directory: &Path) -> std::io::Result<()> {
    std::fs::set_permissions(directory, Permissions::from_mode(0o700))?;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        // Of a link that is the link's, which is no directory.
        if entry.file_type()?.is_dir() {
            unseal(&entry.path())?;
        }
    }
    Ok(())
}

/// A folder that is this process's own, and gone when it is dropped.
#[derive(Debug)]
struct CacheFolder {
    path: PathBuf,
    // Held until the folder is gone, or the process.
    _lock: File,
}

impl CacheFolder {
    fn create(dirs: &[PathBuf]) -> Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{number}", std::process::id());
        let dir = dirs.get(number as usize % dirs.len().max(1)).cloned().unwrap_or_else(std::env::temp_dir);
        let (new, path) = (dir.join(format!("{UNLOCKED_PREFIX}{name}")), dir.join(format!("{PREFIX}{name}")));
        let create = || {
            // What a process of the same number has left behind between the next two lines.
            let _ = std::fs::remove_dir(&new);
            std::fs::create_dir(&new)?;
            let lock = File::open(&new)?;
            lock.try_lock().map_err(std::io::Error::from)?;
            std::fs::rename(&new, &path)?;
            Ok::<File, std::io::Error>(lock)
        };
        let lock = create().map_err(|error| {
            let error = Error::from(error)
                .context(format_args!("cannot create a folder for cached files in '{}'", dir.display()));
            error.with_hint("check io.tmp.dirs")
        })?;
        Ok(Self { path, _lock: lock })
    }

    /// Where file number `place` lies, under its own name.
    fn place(&self, place: usize, url: &str) -> PathBuf {
        let name = url.trim_end_matches('/').rsplit('/').next().filter(|name| !matches!(*name, "" | "." | ".."));
        self.path.join(place.to_string()).join(name.unwrap_or("file"))
    }
}

impl Drop for CacheFolder {
    fn drop(&mut self) {
        // What cannot be removed now is a leftover, which somebody removes later.
        let _ = remove(&self.path);
    }
}

/// Removes the folders of processes that are dead: nobody holds their locks.
fn remove_leftovers(dir: &Path) {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX)) {
        let path = entry.path();
        let Ok(lock) = File::open(&path) else { continue };
        match lock.try_lock() {
            // It may belong to another user, and is theirs to remove then.
            Ok(()) => drop(remove(&path)),
            Err(TryLockError::WouldBlock | TryLockError::Error(_)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use futures::future::join_all;

    use super::*;
    use crate::exchange::SpillDirs;
    use crate::runtime::simulate;

    #[test]
    fn a_folder_is_gone_with_its_owner_and_a_leftover_with_the_next_one() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = [dir.path().to_owned()];
        let names = || std::fs::read_dir(dir.path()).unwrap().count();
        let leftover = dir.path().join(format!("{PREFIX}1-1"));
        std::fs::create_dir_all(leftover.join("0")).unwrap();
        std::fs::write(leftover.join("0/old"), "old").unwrap();
        let live = CacheFolder::create(&dirs).unwrap();
        std::fs::write(live.path.join("new"), "new").unwrap();
        remove_leftovers(dir.path());
        assert!(!leftover.exists() && live.path.join("new").exists());
        drop(live);
        assert_eq!(names(), 0);
    }

    /// Puts a file and a directory with another in it where they are asked for.
    #[derive(Debug)]
    struct Two;

    #[async_trait]
    impl FileFetcher for Two {
        async fn fetch(&self, url: &str, target: &Path) -> Result<()> {
            if url == "file" {
                std::fs::write(target, "one")?;
                return Ok(());
            }
            std::fs::create_dir_all(target.join("deep"))?;
            std::fs::write(target.join("deep/two"), "two")?;
            Ok(())
        }
    }

    /// Asks for the modes alone: who runs as root may write everywhere.
    #[test]
    fn nobody_may_change_a_copy_and_its_owner_removes_it() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = [dir.path().to_owned()];
        let file = |url: &str, executable| CachedFile { name: url.to_owned(), url: url.to_owned(), executable };
        let files = [file("file", false), file("folder", true)];
        let fetched = || futures::executor::block_on(fetch(&files, &Two, &dirs)).unwrap();
        let folder = fetched();
        let mode = |path: &str| std::fs::metadata(folder.path.join(path)).unwrap().permissions().mode() & 0o777;
        for path in ["0", "0/file", "1", "1/folder", "1/folder/deep", "1/folder/deep/two"] {
            assert_eq!(mode(path) & 0o222, 0, "{path}");
            assert_eq!(mode(path) & 0o500, if path == "0/file" { 0o400 } else { 0o500 }, "{path}");
        }
        drop(folder);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);

        // As a process leaves it that was killed.
        let folder = fetched();
        let leftover = dir.path().join(format!("{PREFIX}1-1"));
        std::fs::rename(&folder.path, &leftover).unwrap();
        drop(folder);
        assert!(leftover.join("1/folder/deep/two").exists());
        remove_leftovers(dir.path());
        assert!(!leftover.exists());
    }

    #[test]
    fn a_copy_keeps_the_name_of_its_source() {
        let dir = tempfile::tempdir().unwrap();
        let folder = CacheFolder::create(&[dir.path().to_owned()]).unwrap();
        let ends_with = |url: &str, end: &str| assert!(folder.place(3, url).ends_with(end), "{url}");
        ends_with("s3://bucket/models/model.bin", "3/model.bin");
        ends_with("/data/scripts/", "3/scripts");
        ends_with("..", "3/file");
    }

    /// Counts how often it is asked, and fails the first so many times. It takes its time: others come meanwhile.
    #[derive(Debug, Default)]
    struct Counting {
        asked: AtomicUsize,
        failures: usize,
    }

    #[async_trait]
    impl FileFetcher for Counting {
        async fn fetch(&self, _url: &str, target: &Path) -> Result<()> {
            let asked = self.asked.fetch_add(1, Ordering::SeqCst);
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            // Not all of it, if it fails.
            std::fs::write(target, if asked < self.failures { "mo" } else { "model" })?;
            if asked < self.failures { Err(Error::unavailable("the store is away")) } else { Ok(()) }
        }
    }

    /// What three subtasks hear that wait for one file at once, and one that comes later; how often it was fetched.
    fn shared(failures: usize) -> (Vec<Option<String>>, usize) {
        let dir = tempfile::tempdir().unwrap();
        let dirs = [dir.path().to_owned()];
        let fetcher = Arc::new(Counting { failures, ..Counting::default() });
        let counts = fetcher.clone();
        let run = |environment: Environment| async move {
            let environment = Environment { files: fetcher, spill: Arc::new(SpillDirs::new(dirs)), ..environment };
            let file = CachedFile { name: "model".to_owned(), url: "models/7.bin".to_owned(), executable: false };
            let files = JobFiles::new(&[file], &environment);
            let mut heard = join_all((0..3).map(|_| files.fetched())).await;
            heard.push(files.fetched().await);
            let path = files.path("model").unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), "model");
            assert_eq!(files.path("model").unwrap(), path);
            heard.into_iter().map(|heard| heard.err().map(|error| error.to_string())).collect::<Vec<_>>()
        };
        let heard = simulate(1, run).unwrap();
        // Neither what was fetched outlives the job, nor the part that came before.
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        (heard, counts.asked.load(Ordering::SeqCst))
    }

    #[test]
    fn a_file_is_fetched_once_for_all_who_wait_for_it() {
        assert_eq!(shared(0), (vec![None; 4], 1));
    }

    #[test]
    fn a_fetch_that_failed_is_done_again_by_who_comes_next() {
        let error = "cached file 'model' from 'models/7.bin': the store is away".to_owned();
        assert_eq!(shared(1), (vec![Some(error), None, None, None], 2));
    }
}
