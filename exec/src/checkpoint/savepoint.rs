//! Savepoints: checkpoints that belong to the user, each in a folder of its own.
//!
//! All files lie in the folder and are named relative to it, so it can be moved and copied as a whole. States are Parquet files
//! (see `savepoint_writer`). `_metadata`, the manifest, comes last: a folder without it is no savepoint.

use std::sync::Arc;

use bytes::Bytes;
use object_store::ObjectStore;
use object_store::path::Path;
use tidemill_core::clock::Clock;
use tidemill_core::{Error, Result};

use super::content::{CheckpointContent, CheckpointKind, Manifest};
use super::files::{Created, Files};
use super::manifest::encode;
use super::store::required_manifest;

/// The name of a savepoint's manifest.
pub const SAVEPOINT_MANIFEST: &str = "_metadata";

/// Completes a savepoint whose files are there. `nonce` tells it from one that somebody else writes to the same place.
///
/// Errors: there is another savepoint in the folder.
pub async fn write_savepoint(
    store: Arc<dyn ObjectStore>,
    root: &Path,
    clock: Arc<dyn Clock>,
    nonce: u64,
    content: CheckpointContent,
) -> Result<Manifest> {
    let files = Files { store, root: root.clone(), clock };
    let content = CheckpointContent { kind: CheckpointKind::Savepoint, ..content };
    let manifest = Manifest { number: 1, generation: 1, nonce, content };
    let path = files.path(SAVEPOINT_MANIFEST);
    match files.create(&path, &Bytes::from(encode(&manifest)?)).await? {
        Created::Ours => Ok(manifest),
        Created::Taken => {
            let error = format!("'{root}' holds a savepoint already");
            Err(Error::request(error).with_hint("give another folder, or dispose of the savepoint there"))
        }
    }
}

/// Reads what a savepoint holds.
///
/// Errors name the file: it is missing, damaged, or of a newer version.
pub async fn open_savepoint(store: Arc<dyn ObjectStore>, root: &Path, clock: Arc<dyn Clock>) -> Result<Manifest> {
    let files = Files { store, root: root.clone(), clock };
    required_manifest(&files, &files.path(SAVEPOINT_MANIFEST)).await
}

/// Deletes a savepoint: first its manifest, so that it is none any more, then the files that the manifest names.
pub async fn dispose_savepoint(store: Arc<dyn ObjectStore>, root: &Path, clock: Arc<dyn Clock>) -> Result<()> {
    let files = Files { store, root: root.clone(), clock };
    let path = files.path(SAVEPOINT_MANIFEST);
    let manifest = required_manifest(&files, &path).await?;
    files.delete(&path).await?;
    let paths: Vec<Path> = manifest.content.segments.iter().map(|segment| files.path(&segment.path)).collect();
    match files.delete_all(&paths).await {
        deleted if deleted == paths.len() => Ok(()),
        // One by one, for the error.
        _ => {
            for path in &paths {
                files.delete(path).await?;
            }
            Ok(())
        }
    }
}
