//! The object store as checkpoints use it: whole files by name, with errors that name them, and bounded patience.

use std::error::Error as StdError;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use tidemill_core::clock::Clock;
use tidemill_core::error::FREE_SPACE;
use tidemill_core::{Error, ErrorKind, Result};

use crate::error::{io_kind, store_kind};

/// How often something is tried before its error counts.
const TRIES: u32 = 5;
/// How long the first pause between tries is; each further one is twice as long.
const PAUSE: Duration = Duration::from_millis(100);
/// How many files are deleted at a time.
const DELETIONS_MAX: usize = 8;

/// A folder of a store.
#[derive(Clone, Debug)]
pub(super) struct Files {
    pub store: Arc<dyn ObjectStore>,
    pub root: Path,
    pub clock: Arc<dyn Clock>,
}

/// How creating a file ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Created {
    /// It is there with these bytes, now or since an earlier try whose reply was lost.
    Ours,
    /// Another one is there, or was.
    Taken,
}

impl Files {
    /// A file of the folder.
    pub fn path(&self, relative: &str) -> Path {
        below(&self.root, relative)
    }

    /// The bytes of a file, if it is there.
    pub async fn read(&self, path: &Path) -> Result<Option<Bytes>> {
        let bytes = self
            .patiently(|| async {
                match self.store.get(path).await {
                    Ok(found) => found.bytes().await.map(Some),
                    Err(object_store::Error::NotFound { .. }) => Ok(None),
                    Err(error) => Err(error),
                }
            })
            .await;
        bytes.map_err(|error| store_error(format!("reading '{path}'"), error))
    }

    /// The names in one folder of it, in their order, with those after `offset` alone.
    pub async fn list(&self, folder: &str, offset: Option<&Path>) -> Result<Vec<Path>> {
        let folder = self.path(folder);
        let names = self
            .patiently(|| async {
                let listed = match offset {
                    Some(offset) => self.store.list_with_offset(Some(&folder), offset),
                    None => self.store.list(Some(&folder)),
                };
                listed.map_ok(|meta| meta.location).try_collect::<Vec<Path>>().await
            })
            .await;
        let mut names = names.map_err(|error| store_error(format!("listing '{folder}'"), error))?;
        names.sort();
        Ok(names)
    }

    /// Creates a file unless there is one of that name. When the reply to a try is lost, the next one meets what it left, and
    /// knows it by its bytes.
    pub async fn create(&self, path: &Path, bytes: &Bytes) -> Result<Created> {
        let created = self
            .patiently(|| async {
                let options = PutOptions::from(PutMode::Create);
                match self.store.put_opts(path, bytes.clone().into(), options).await {
                    Ok(_) => Ok(Created::Ours),
                    Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                        match self.store.get(path).await {
                            Ok(found) => match found.bytes().await? == *bytes {
                                true => Ok(Created::Ours),
                                false => Ok(Created::Taken),
                            },
                            Err(object_store::Error::NotFound { .. }) => Ok(Created::Taken),
                            Err(error) => Err(error),
                        }
                    }
                    Err(error) => Err(error),
                }
            })
            .await;
        created.map_err(|error| match error {
            object_store::Error::NotImplemented { .. } | object_store::Error::NotSupported { .. } => Error::request(
                format!("creating '{path}': the store creates no name only once"),
            )
            .with_hint(
                "that is what keeps two writers of checkpoints apart; take a local folder, S3, GCS, Azure or HDFS",
            )
            .with_source(error),
            error => store_error(format!("creating '{path}'"), error),
        })
    }

    /// Deletes a file. One that is not there is deleted.
    pub async fn delete(&self, path: &Path) -> Result<()> {
        let deleted = self
            .patiently(|| async {
                match self.store.delete(path).await {
                    Err(object_store::Error::NotFound { .. }) => Ok(()),
                    other => other,
                }
            })
            .await;
        deleted.map_err(|error| store_error(format!("deleting '{path}'"), error))
    }

    /// Deletes files as well as it can, several at a time. How many went away.
    pub async fn delete_all(&self, paths: impl IntoIterator<Item = &Path>) -> usize {
        let deletions: Vec<BoxFuture<'_, Result<()>>> =
            paths.into_iter().map(|path| self.delete(path).boxed()).collect();
        let deleted: Vec<Result<()>> = stream::iter(deletions).buffer_unordered(DELETIONS_MAX).collect().await;
        deleted.iter().filter(|deleted| deleted.is_ok()).count()
    }

    async fn patiently<T, F>(&self, once: impl FnMut() -> F) -> object_store::Result<T>
    where
        F: Future<Output = object_store::Result<T>>,
    {
        patiently(&*self.clock, once).await
    }
}

/// Tries again what may pass, a few times, with pauses.
pub(super) async fn patiently<T, F>(clock: &dyn Clock, mut once: impl FnMut() -> F) -> object_store::Result<T>
where
    F: Future<Output = object_store::Result<T>>,
{
    let mut pause = PAUSE;
    for _ in 1..TRIES {
        match once().await {
            Err(error) if may_pass(&error) => clock.sleep(pause).await,
            done => return done,
        }
        pause *= 2;
    }
    once().await
}

/// A file below a folder. The name may have several parts.
pub(super) fn below(root: &Path, relative: &str) -> Path {
    let parts = relative.split('/').filter(|part| !part.is_empty());
    parts.fold(root.clone(), |path, part| path.join(part))
}

/// What a store said, with what was done before it: one sentence that names the file.
pub(super) fn store_error(what: String, error: object_store::Error) -> Error {
    let plain = match disk_error(&error) {
        Some(ErrorKind::Exhausted) => Error::exhausted(format!("{what}: {error}")).with_hint(FREE_SPACE),
        _ => Error::new(store_kind(&error), format!("{what}: {error}")),
    };
    plain.with_source(error)
}

/// The error of a file that a manifest names and that is not there: trying again does not bring it back.
pub(super) fn missing(path: &Path, error: object_store::Error) -> Error {
    Error::corrupt(format!("'{path}' is missing")).with_source(error)
}

/// Whether an error is one of a [`missing`] file.
pub(super) fn is_missing(error: &Error) -> bool {
    let source = StdError::source(error).and_then(|source| source.downcast_ref());
    matches!(source, Some(object_store::Error::NotFound { .. }))
}

fn may_pass(error: &object_store::Error) -> bool {
    use object_store::Error as S;
    matches!(error, S::Generic { .. } | S::JoinError { .. }) && disk_error(error) != Some(ErrorKind::Exhausted)
}

/// What the disk said, if it was a disk.
fn disk_error(error: &object_store::Error) -> Option<ErrorKind> {
    let mut source: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            return Some(io_kind(error));
        }
        source = error.source();
    }
    None
}
