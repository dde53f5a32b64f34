//! Replacing the files of a directory as if at once, over stores that can only rename and delete one by one.
//!
//! A marker says which hidden files are being published and which old files are condemned. From the moment it is there,
//! readers take the hidden files it names and skip the condemned ones, so that its appearance is the replacement. What is left,
//! renaming and deleting, is idempotent: whoever finds the marker can do it, after a crash the next job.

use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use serde::{Deserialize, Serialize};
use tidemill_core::error::{Error, Result};

use crate::store::{Location, REPLACE_MARKER, blocking, publish, write_durably};

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
        for place in self.condemned.iter().map(|name| directory.child(name)) {
            // A file was condemned: what has its name by now is something else if it is a folder.
            if !place.file_path().is_some_and(|path| path.is_dir()) {
                place.delete().await?;
            }
        }
        marker.delete().await
    }

    /// Takes the replacement back; `false` if it is too late, since a file may have its name already. Only a local rename is
    /// known not to have happened as long as the hidden file is there.
    pub(super) async fn withdraw(&self, directory: &Location, marker: &Location) -> Result<bool> {
        if !directory.is_local() || self.published.is_empty() {
            return Ok(false);
        }
        for (hidden, _) in &self.published {
            if directory.child(hidden).head().await?.is_none() {
                return Ok(false);
            }
        }
        // Old files go only when all new ones have their names: none has gone.
        marker.delete().await?;
        Ok(true)
    }

    /// Whether a file of this name is to come or to go.
    pub(super) fn touches(&self, name: &str) -> bool {
        self.published.iter().any(|(_, shown)| shown == name) || self.condemned.iter().any(|old| old == name)
    }
}

/// The marker of `job` in `directory`.
pub(super) fn marker_of(directory: &Location, job: &str) -> Location {
    directory.child(&format!("{REPLACE_MARKER}{job}"))
}

/// Finishes what other jobs that crashed began in the partitions of a table; what `job` began it finishes when it ends.
pub(super) async fn finish_replacements_below(table: &Location, job: &str) -> Result<()> {
    let own = format!("{REPLACE_MARKER}{job}");
    let mut folders: Vec<String> = names_below(table)
        .await?
        .into_iter()
        .filter(|(_, name)| name.starts_with(REPLACE_MARKER) && *name != own)
        .map(|(folder, _)| folder)
        .collect();
    folders.dedup();
    for folder in folders {
        finish_replacements(&super::part::folder_of(table, &folder), |_| true).await?;
    }
    Ok(())
}

/// Finishes what a job began that did not end, if its marker is in `directory`: what that was.
pub(super) async fn finish_replacement_of(directory: &Location, job: &str) -> Result<Replacement> {
    let marker = marker_of(directory, job);
    let is_none = directory.file_path().is_some_and(|path| !path.is_dir());
    if is_none || marker.head().await?.is_none() {
        return Ok(Replacement::default());
    }
    let replacement = Replacement::load(&marker).await?;
    let finished = replacement.carry_out(directory, &marker).await;
    finished.map(|()| replacement).map_err(|error| error.with_hint(in_the_way(&marker)))
}

fn in_the_way(marker: &Location) -> String {
    format!("{marker} is of a job that did not end; mend what is in its way")
}

/// Finishes what crashed jobs began in `directory`. What cannot be finished is left to the next job, unless it `matters`.
pub(super) async fn finish_replacements(directory: &Location, matters: impl Fn(&Replacement) -> bool) -> Result<()> {
    for name in names_in(directory).await?.iter().filter(|name| name.starts_with(REPLACE_MARKER)) {
        let marker = directory.child(name);
        let (replacement, outcome) = match Replacement::load(&marker).await {
            Ok(replacement) => {
                let outcome = replacement.carry_out(directory, &marker).await;
                (replacement, outcome)
            }
            // Nothing was done for a marker that was never whole, and nothing will be.
            Err(error) => (Replacement::default(), Err(error)),
        };
        if let Err(error) = outcome
            && matters(&replacement)
        {
            return Err(error.with_hint(in_the_way(&marker)));
        }
    }
    Ok(())
}

/// Names of the files in `directory`, hidden ones too; none if it does not exist.
pub(super) async fn names_in(directory: &Location) -> Result<Vec<String>> {
    if let Some(path) = directory.file_path() {
        return blocking(move || local_names(&path)).await.map_err(|error| error.context(directory));
    }
    let listed = directory.store.list_with_delimiter(Some(&directory.path)).await;
    let listed = listed.map_err(|error| directory.error(error))?;
    Ok(listed.objects.iter().filter_map(|file| file.location.filename()).map(str::to_owned).collect())
}

/// Names of the files in a folder of this machine that files of a store can have. A store lists none at all where somebody else has
/// put one that it cannot have, or a link that leads back to the folder.
fn local_names(folder: &std::path::Path) -> std::io::Result<Vec<String>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let file_type = match entry.file_type() {
            Ok(file_type) => file_type,
            // Somebody has just removed it.
            Err(gone) if gone.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let is_file = match file_type.is_symlink() {
            true => entry.path().metadata().is_ok_and(|target| !target.is_dir()),
            false => !file_type.is_dir(),
        };
        names.extend(entry.file_name().into_string().ok().filter(|name| is_file && is_listed(name)));
    }
    Ok(names)
}

/// Whether a local store lists a file of this name. Those with a number behind `#` it is still gathering.
fn is_listed(name: &str) -> bool {
    let is_staged =
        |(_, number): (&str, &str)| !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit());
    object_store::path::Path::parse(name).is_ok() && !name.split_once('#').is_some_and(is_staged)
}

/// Folders and names of all files in and below `directory`, hidden ones too.
pub(super) async fn names_below(directory: &Location) -> Result<Vec<(String, String)>> {
    if directory.file_path().is_some_and(|path| !path.is_dir()) {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    let mut files = directory.store.list(Some(&directory.path));
    while let Some(file) = files.try_next().await.map_err(|error| directory.error(error))? {
        let below = file.location.as_ref().strip_prefix(directory.path.as_ref()).unwrap_or_default();
        let below = below.trim_start_matches('/');
        let (folder, name) = below.rsplit_once('/').unwrap_or(("", below));
        names.push((folder.to_owned(), name.to_owned()));
    }
    names.sort_unstable();
    Ok(names)
}
