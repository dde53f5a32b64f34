//! Making writes last: on a local disk a file is safe once it and its directory are synced; other stores promise it themselves.

use std::fs::File;
use std::future::Future;

use object_store::ObjectStoreExt;
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
        Ok(()) => sync_directory(to).await,
        Err(object_store::Error::NotFound { .. }) if to.head().await?.is_some() => Ok(()),
        Err(error) => Err(from.error(error)),
    }
}

/// Flushes a local file to the disk.
pub(crate) async fn sync_file(location: &Location) -> Result<()> {
    let Some(path) = location.file_path() else { return Ok(()) };
    blocking(move || File::open(path)?.sync_all()).await.map_err(|error| error.context(location))
}

/// Flushes the entry of a local file in its directory to the disk.
pub(crate) async fn sync_directory(location: &Location) -> Result<()> {
    let Some(directory) = location.file_path().and_then(|path| path.parent().map(ToOwned::to_owned)) else {
        return Ok(());
    };
    blocking(move || File::open(directory)?.sync_all()).await.map_err(|error| error.context(location))
}

/// Makes the folder `below` a local directory that is there, and the entries on the way to it last. Other stores have none.
pub(crate) async fn make_folder(directory: &Location, below: &str) -> Result<()> {
    let Some(mut parent) = directory.file_path() else { return Ok(()) };
    let components: Vec<String> = below.split('/').map(str::to_owned).collect();
    let made = blocking(move || {
        for component in components {
            let folder = parent.join(component);
            if !folder.is_dir() {
                std::fs::create_dir_all(&folder)?;
                File::open(&parent)?.sync_all()?;
            }
            parent = folder;
        }
        Ok(())
    });
    made.await.map_err(|error| error.context(directory.child(below)))
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
