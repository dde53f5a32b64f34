//! Replacing the files of a directory as if at once, over stores that can only rename and delete one by one.
//!
//! A marker says which hidden files are being published and which old files are condemned. From the moment it is there,
//! readers take the hidden files it names and skip the condemned ones, so that its appearance is the replacement. What is left,
//! renaming and deleting, is idempotent: whoever finds the marker can do it, after a crash the next job.

use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use serde::{Deserialize, Serialize};
use tidemill_core::error::{Error, Result};

use crate::store::{Location, REPLACE_MARKER, publish, write_durably};

/// New files for old ones in one directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Replacement {
    /// Hidden names and the names that they are to get.
    pub(crate) published: Vec<(String, String)>,
    /// Names of files that no longer count.
    pub(crate) condemned: Vec<String>,
}

impl Replacement {
    /// The replacement that a marker holds. A marker that is gone has been carried out.
    pub(crate) async fn load(marker: &Location) -> Result<Self> {
        let found = match marker.store.get(&marker.path).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Ok(Self::default()),
            Err(error) => return Err(marker.error(error)),
        };
        let bytes = found.bytes().await.map_err(|error| marker.error(error))?;
        serde_json::from_slice(&bytes)
            .map_err(|error| Error::corrupt(format!("{marker}: no readable marker")).with_source(error))
    }

    /// Writes the marker of `job` into `directory`: from here on the replacement counts.
    pub(super) async fn begin(&self, directory: &Location, job: &str) -> Result<()> {
        let bytes = serde_json::to_vec(self)
            .map_err(|error| Error::internal("a marker is not encodable").with_source(error))?;
        write_durably(&marker_of(directory, job), bytes).await
    }

    /// Renames and deletes what is still to be renamed and deleted, then removes the marker.
    pub(super) async fn carry_out(&self, directory: &Location, marker: &Location) -> Result<()> {
        for (hidden, name) in &self.published {
            publish(&directory.child(hidden), &directory.child(name)).await?;
        }
        for name in &self.condemned {
            directory.child(name).delete().await?;
        }
        marker.delete().await
    }
}

/// The marker of `job` in `directory`.
pub(super) fn marker_of(directory: &Location, job: &str) -> Location {
    directory.child(&format!("{REPLACE_MARKER}{job}"))
}

/// Finishes what crashed jobs began in `directory`.
pub(super) async fn finish_replacements(directory: &Location) -> Result<()> {
    for name in names_in(directory).await?.iter().filter(|name| name.starts_with(REPLACE_MARKER)) {
        let marker = directory.child(name);
        Replacement::load(&marker).await?.carry_out(directory, &marker).await?;
    }
    Ok(())
}

/// Names of the files in `directory`, hidden ones too; none if it does not exist.
pub(super) async fn names_in(directory: &Location) -> Result<Vec<String>> {
    if directory.file_path().is_some_and(|path| !path.is_dir()) {
        return Ok(Vec::new());
    }
    let listed = directory.store.list_with_delimiter(Some(&directory.path)).await;
    let listed = listed.map_err(|error| directory.error(error))?;
    Ok(listed.objects.iter().filter_map(|file| file.location.filename()).map(str::to_owned).collect())
}

/// Everything below `directory`, deleted.
pub(super) async fn delete_below(directory: &Location) -> Result<()> {
    let files = directory.store.list(Some(&directory.path)).map_ok(|file| file.location);
    let files: Vec<_> = files.try_collect().await.map_err(|error| directory.error(error))?;
    for path in files {
        directory.at(path).delete().await?;
    }
    Ok(())
}
