//! Publishes part files: at each commit, or all together when the job has ended well.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use tidemill_core::error::{Error, Result};
use tidemill_core::sink::{Committable, Committer};

use super::replace::{Replacement, marker_of, names_in};
use super::writer::{IN_PROGRESS, PartName, READY, UPLOAD_BYTES, decode_committable};
use crate::formats::Format;
use crate::store::{Location, files_in, publish, sync_file};

/// When parts become visible, and as what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Publication {
    /// At each commit, under their own names.
    EachCommit,
    /// When the job has ended, under their own names, in place of the files that were there.
    Replacing,
    /// When the job has ended, those of one subtask as one file of its name.
    Named {
        /// Names by subtask.
        names: Vec<String>,
        /// Whether everything else in the directory goes.
        clears: bool,
    },
}

impl Publication {
    /// The names of files that are known beforehand.
    pub(super) fn names(&self) -> &[String] {
        match self {
            Self::Named { names, .. } => names,
            Self::EachCommit | Self::Replacing => &[],
        }
    }
}

#[derive(Debug)]
pub(super) struct FileCommitter {
    directory: Location,
    job: Arc<str>,
    publication: Publication,
    format: Format,
    /// Whether the directory is ours to remove again.
    is_new: bool,
}

impl FileCommitter {
    /// Makes the directory, so that a job without rows leaves an empty table and not a missing one.
    pub(super) async fn prepare(
        directory: Location,
        job: Arc<str>,
        publication: Publication,
        format: Format,
    ) -> Result<Self> {
        let mut is_new = false;
        if let Some(path) = directory.file_path() {
            is_new = !path.exists();
            std::fs::create_dir_all(&path).map_err(|error| Error::from(error).context(&directory))?;
            let usable = check_writable(&path.join(PartName::probe(&job, &format.extension())))
                .map_err(|error| no_files(&directory, error))
                .and_then(|()| check_names(&directory, publication.names()));
            if usable.is_err() && is_new {
                // Not empty means that someone else wrote there meanwhile.
                let _ = std::fs::remove_dir(&path);
            }
            usable?;
        }
        Ok(Self { directory, job, publication, format, is_new })
    }

    /// Committed parts that wait for the end of the job.
    async fn ready_parts(&self) -> Result<Vec<PartName>> {
        let names = names_in(&self.directory).await?;
        Ok(names.iter().filter_map(|name| PartName::of_hidden(name, &self.job, READY)).collect())
    }

    async fn replacing(&self, parts: Vec<PartName>) -> Result<Replacement> {
        let files = files_in(&self.directory).await?;
        let own = PartName::prefix(&self.job);
        let old = files.iter().filter_map(|file| file.location.filename()).filter(|name| !name.starts_with(&own));
        Ok(Replacement {
            condemned: old.map(str::to_owned).collect(),
            published: parts.iter().map(|part| (part.ready(), part.as_str().to_owned())).collect(),
        })
    }

    /// One file a subtask: its only part, or its parts one after the other.
    async fn naming(&self, parts: Vec<PartName>, names: &[String]) -> Result<Replacement> {
        let mut by_subtask = BTreeMap::<usize, Vec<((i64, u64), PartName)>>::new();
        for part in parts {
            let (subtask, order) = part.order().ok_or_else(|| Error::corrupt(format!("no part: {}", part.as_str())))?;
            by_subtask.entry(subtask).or_default().push((order, part));
        }
        let mut replacement = Replacement::default();
        for (subtask, mut parts) in by_subtask {
            let name = names.get(subtask).ok_or_else(|| {
                Error::internal(format!("subtask {subtask} wrote to a sink of {} subtasks", names.len()))
            })?;
            parts.sort_by_key(|(order, _)| *order);
            let hidden = match parts.as_slice() {
                [(_, only)] => only.ready(),
                parts => {
                    replacement.condemned.extend(parts.iter().map(|(_, part)| part.ready()));
                    self.concatenate(parts, subtask).await?
                }
            };
            replacement.published.push((hidden, name.clone()));
        }
        Ok(replacement)
    }

    async fn concatenate(&self, parts: &[((i64, u64), PartName)], subtask: usize) -> Result<String> {
        if !self.format.is_concatenable() {
            let message = format!("{} parts of one {} file", parts.len(), self.format.name());
            return Err(Error::internal(message));
        }
        let whole = self.directory.child(&format!(".{}whole-{subtask}{IN_PROGRESS}", PartName::prefix(&self.job)));
        let mut upload = whole.store.put_multipart(&whole.path).await.map_err(|error| whole.error(error))?;
        let mut gathered = Vec::new();
        for (_, part) in parts {
            let place = self.directory.child(&part.ready());
            let mut blocks = place.store.get(&place.path).await.map_err(|error| place.error(error))?.into_stream();
            while let Some(block) = blocks.try_next().await.map_err(|error| place.error(error))? {
                gathered.extend_from_slice(&block);
                if gathered.len() >= UPLOAD_BYTES {
                    let bytes = std::mem::take(&mut gathered);
                    upload.put_part(bytes.into()).await.map_err(|error| whole.error(error))?;
                }
            }
        }
        upload.put_part(gathered.into()).await.map_err(|error| whole.error(error))?;
        upload.complete().await.map_err(|error| whole.error(error))?;
        sync_file(&whole).await?;
        Ok(whole.name().to_owned())
    }

    /// Clears the way for the final names: what is there is only now replaced. A folder never is.
    async fn clear(&self, replacement: &Replacement, clears_all: bool) -> Result<()> {
        for (_, name) in &replacement.published {
            let target = self.directory.child(name);
            if is_folder(&target).await? {
                return Err(folder_in_the_way(&target));
            }
        }
        if clears_all {
            let names = names_in(&self.directory).await?;
            for name in names.iter().filter(|name| !name.starts_with('.')) {
                self.directory.child(name).delete().await?;
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Committer for FileCommitter {
    async fn commit(&self, committables: Vec<Committable>) -> Result<()> {
        for committable in &committables {
            let part = decode_committable(committable)?;
            let hidden = self.directory.child(&part.in_progress());
            let shown = match self.publication {
                Publication::EachCommit => part.as_str().to_owned(),
                _ => part.ready(),
            };
            // A part may have gone on from `ready` to its last name, when a job that was ending is restored.
            let is_gone = || async { Ok::<_, Error>(hidden.head().await?.is_none()) };
            if self.publication != Publication::EachCommit && is_gone().await? {
                continue;
            }
            publish(&hidden, &self.directory.child(&shown)).await?;
        }
        Ok(())
    }

    async fn abort(&self) -> Result<()> {
        let marker = marker_of(&self.directory, &self.job);
        if marker.head().await?.is_some() {
            // Too late: since the marker is there the new files count, unless none of them can get its name.
            let replacement = Replacement::load(&marker).await?;
            let Err(error) = replacement.carry_out(&self.directory, &marker).await else { return Ok(()) };
            if !replacement.withdraw(&self.directory, &marker).await? {
                return Err(error);
            }
        }
        let own = format!(".{}", PartName::prefix(&self.job));
        for name in names_in(&self.directory).await?.iter().filter(|name| name.starts_with(&own)) {
            self.directory.child(name).delete().await?;
        }
        if let Some(path) = self.directory.file_path() {
            remove_staged(&path, &own);
            if self.is_new {
                // Not empty means that someone else wrote there meanwhile.
                let _ = std::fs::remove_dir(path);
            }
        }
        Ok(())
    }

    async fn finish(&self) -> Result<()> {
        let marker = marker_of(&self.directory, &self.job);
        if marker.head().await?.is_some() {
            return Replacement::load(&marker).await?.carry_out(&self.directory, &marker).await;
        }
        let parts = match self.publication {
            Publication::EachCommit => return Ok(()),
            _ => self.ready_parts().await?,
        };
        let (replacement, clears) = match &self.publication {
            Publication::Named { names, clears } => (self.naming(parts, names).await?, *clears),
            _ => (self.replacing(parts).await?, false),
        };
        if replacement == Replacement::default() {
            return Ok(());
        }
        if let Publication::Named { .. } = self.publication {
            self.clear(&replacement, clears).await?;
        }
        replacement.begin(&self.directory, &self.job).await?;
        replacement.carry_out(&self.directory, &marker).await
    }
}

/// Makes a file and removes it. The local store tries for ever where a directory is there and files cannot be (`/proc`).
fn check_writable(probe: &Path) -> std::io::Result<()> {
    std::fs::File::create(probe)?;
    std::fs::remove_file(probe)
}

/// Refuses names that no file of `directory` can have, by looking for them: nobody is to see a file that comes and goes.
fn check_names(directory: &Location, names: &[String]) -> Result<()> {
    for target in names.iter().map(|name| directory.child(name)) {
        match target.file_path().map(std::fs::symlink_metadata) {
            Some(Err(error)) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::from(error).context(&target).with_hint("choose another name"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether there is a directory, or in an object store anything below that name.
pub(super) async fn is_folder(place: &Location) -> Result<bool> {
    if let Some(path) = place.file_path() {
        return Ok(path.is_dir());
    }
    let first = place.store.list(Some(&place.path)).try_next().await;
    Ok(first.map_err(|error| place.error(error))?.is_some())
}

/// The error for a folder that has the name of a file that is to be written.
pub(super) fn folder_in_the_way(path: impl std::fmt::Display) -> Error {
    Error::request(format!("'{path}' is a folder")).with_hint("name a file")
}

fn no_files(directory: &Location, error: std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::NotFound => {
            let message = format!("{directory}: files cannot be written there");
            Error::unavailable(message).with_hint("choose another path").with_source(error)
        }
        std::io::ErrorKind::InvalidFilename => {
            Error::from(error).context(directory).with_hint("choose a shorter name for the job or its file")
        }
        _ => Error::from(error).context(directory),
    }
}

/// Removes the files in which a local store gathers what is not complete; it lists none of them itself, and clears them away later
/// than a process that fails may live.
fn remove_staged(directory: &Path, own: &str) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(own)) {
        // Whoever else removes it does the same.
        let _ = std::fs::remove_file(entry.path());
    }
}
