//! Making writes last: on a local disk a file is safe once it and its directory are synced; other stores promise it themselves.

use std::fs::File;
use std::future::Future;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use object_store::ObjectStoreExt;
use tidemill_core::chance::process_chance;
use tidemill_core::error::{Error, Result};

use super::Location;

/// Writes `bytes` under the name of `location`, which shows all of them or nothing, and syncs them.
pub(crate) async fn write_durably(location: &Location, bytes: Vec<u8>) -> Result<()> {
    location.store.put(&location.path, bytes.into()).await.map_err(|error| location.error(error))?;
    sync_file(location).await?;
    sync_directory(location).await
}

/// Gives the object at `from` the name `to`. When `from` is gone and `to` is there it was done before.
pub(crate) async fn publish(from: &Location, to: &Location) -> Result<()> {
    match from.store.rename(&from.path, &to.path).await {
        Ok(()) => {
            #[cfg(test)]
            to.file_path().iter().for_each(|path| journal::note(journal::Act::Named, path));
            sync_directory(to).await
        }
        // Whoever gave it the name may have been killed before that was on the disk.
        Err(object_store::Error::NotFound { .. }) if to.head().await?.is_some() => sync_directory(to).await,
        Err(error) => Err(from.error(error)),
    }
}

/// A hidden name beside `name` for what is to be called that once it is whole. No other writer has it, in whatever process on
/// whatever machine: process ids alone are given to several, where containers or machines share a folder.
pub(super) fn staged_name(name: &str) -> String {
    static STAGED: AtomicU64 = AtomicU64::new(0);
    let number = STAGED.fetch_add(1, Ordering::Relaxed);
    let dot = if name.starts_with('.') { "" } else { "." };
    format!("{dot}{name}#{:x}-{number}", process_chance())
}

/// Flushes a local file to the disk.
pub(crate) async fn sync_file(location: &Location) -> Result<()> {
    let Some(path) = location.file_path() else { return Ok(()) };
    blocking(move || sync(&path)).await.map_err(|error| error.context(location))
}

/// Flushes the entry of a local file in its directory to the disk.
pub(crate) async fn sync_directory(location: &Location) -> Result<()> {
    let Some(directory) = location.file_path().and_then(|path| path.parent().map(ToOwned::to_owned)) else {
        return Ok(());
    };
    blocking(move || sync(&directory)).await.map_err(|error| error.context(location))
}

/// Makes a folder of this machine, and its entry and those of the folders above it last. Other stores have none.
pub(crate) async fn make_folder(folder: &Location) -> Result<()> {
    let Some(path) = folder.file_path() else { return Ok(()) };
    blocking(move || make_folders(&path)).await.map_err(|error| error.context(folder))
}

/// Makes a folder and those above it that are missing, and syncs their entries.
pub(super) fn make_folders(folder: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = folder.ancestors().take_while(|folder| !folder.exists()).collect();
    if !missing.is_empty() {
        std::fs::create_dir_all(folder)?;
        #[cfg(test)]
        missing.iter().for_each(|made| journal::note(journal::Act::Made, made));
    }
    missing.into_iter().try_for_each(sync_entry)
}

/// Syncs the folder that a file or folder is in.
pub(super) fn sync_entry(path: &Path) -> io::Result<()> {
    match path.parent() {
        None => Ok(()),
        Some(parent) if parent.as_os_str().is_empty() => sync(Path::new(".")),
        Some(parent) => sync(parent),
    }
}

/// Flushes a file or folder of this machine to the disk.
pub(super) fn sync(path: &Path) -> io::Result<()> {
    sync_open(&File::open(path)?, path)
}

/// Flushes a file that is open to the disk.
pub(crate) fn sync_open(file: &File, path: &Path) -> io::Result<()> {
    file.sync_all()?;
    #[cfg(test)]
    journal::note(journal::Act::Synced, path);
    #[cfg(not(test))]
    let _ = path;
    Ok(())
}

/// Runs a blocking call where it hurts nobody: on the runtime's blocking threads, or right here when there is no runtime.
pub(crate) async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => runtime
            .spawn_blocking(call)
            .await
            .map_err(|error| Error::internal("a blocking call did not return").with_source(error))?
            .map_err(Error::from),
        Err(_) => call().map_err(Error::from),
    }
}

/// Waits for `future` from a synchronous contract. It runs on a thread of its own, so that the caller may be inside a runtime.
pub(crate) fn wait_for<T: Send>(future: impl Future<Output = Result<T>> + Send) -> Result<T> {
    let runtime = tokio::runtime::Handle::try_current();
    let outcome = std::thread::scope(|scope| {
        let waiting = scope.spawn(move || match runtime {
            Ok(runtime) => runtime.block_on(future),
            Err(_) => futures::executor::block_on(future),
        });
        waiting.join()
    });
    outcome.unwrap_or_else(|_| Err(Error::internal("the thread that prepares a sink panicked")))
}

/// What was made, named and flushed to the disk, for tests.
#[cfg(test)]
pub(crate) mod journal {
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::sync::Mutex;

    /// What was done to a file or folder.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Act {
        /// The folder was made.
        Made,
        /// The file got this name, and had another before.
        Named,
        /// It was flushed to the disk.
        Synced,
    }

    static JOURNAL: Mutex<Vec<(Act, PathBuf)>> = Mutex::new(Vec::new());

    pub(crate) fn note(act: Act, path: &Path) {
        JOURNAL.lock().unwrap().push((act, path.to_owned()));
    }

    /// That what lies in a folder would still be there if power had failed: each file was synced, under its name or
    /// under a hidden one that begins with it, and before it got its name; behind that, so that it has the file's
    /// entry, the folder that it is in. And behind each folder that was made the one that it is in.
    pub(crate) fn assert_lasting(folder: &Path) {
        let journal = JOURNAL.lock().unwrap().clone();
        let last = |act: Act, path: &Path| journal.iter().rposition(|(other, at)| *other == act && at == path);
        let all_below = |path: &Path| fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
        for path in all_below(folder) {
            let shown = path.display();
            let entered = last(Act::Synced, folder).unwrap_or_else(|| panic!("{} was never synced", folder.display()));
            if path.is_dir() {
                assert!(last(Act::Made, &path) < Some(entered), "{shown} was made after its folder was synced");
                assert_lasting(&path);
                continue;
            }
            let name = path.file_name().unwrap().to_str().unwrap();
            let is_it = |other: &Path| {
                let other_name = other.file_name().unwrap_or_default().to_string_lossy();
                other.parent() == Some(folder) && other_name.trim_start_matches('.').starts_with(name)
            };
            let written = journal.iter().position(|(act, other)| *act == Act::Synced && is_it(other));
            let written = written.unwrap_or_else(|| panic!("{shown} was never synced"));
            let named = last(Act::Named, &path);
            assert!(named.is_none_or(|named| written < named), "{shown} got its name before it was synced");
            assert!(named.unwrap_or(written) < entered, "{shown} got its name after its folder was synced");
        }
    }
}
