//! What nobody needs any more of what a job has written goes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use tidemill_core::error::Result;

use super::FileCommitter;
use crate::filesystem::part::{PartName, UPLOAD, folder_of};
use crate::filesystem::target::UploadNote;

/// How the names of a job's hidden files begin.
fn hidden_of(job: &str) -> String {
    format!(".{}", PartName::prefix(job))
}

impl FileCommitter {
    /// Removes hidden files of `jobs` but those that `keep` names.
    pub(super) async fn clean(&self, jobs: &BTreeSet<String>, keep: impl Fn(&str, &str) -> bool) -> Result<()> {
        let (mut gone, mut folders) = (Vec::new(), BTreeSet::new());
        for job in jobs {
            gone.extend(self.files_named(&hidden_of(job)).await?);
        }
        gone.retain(|(folder, name)| !keep(folder, name));
        let local = self.table().file_path();
        let staged = local.as_deref().map(|path| staged_in(path, jobs, &keep)).unwrap_or_default();
        // What another process has written that has taken over is not on the list.
        let fence = self.fence.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(fence) = fence.filter(|_| !gone.is_empty() || !staged.is_empty()) {
            fence.check().await?;
        }
        for (folder, name) in gone {
            let place = folder_of(self.table(), &folder).child(&name);
            match name.ends_with(UPLOAD) {
                true => UploadNote::withdraw(&place).await?,
                false => place.delete().await?,
            }
            folders.insert(folder);
        }
        for file in staged {
            // Whoever else removes it does the same.
            let _ = std::fs::remove_file(file);
        }
        if let Some(path) = local {
            folders.iter().filter(|folder| !folder.is_empty()).for_each(|folder| remove_empty(&path, folder));
        }
        Ok(())
    }
}

/// The files in which a local store gathers what is not complete, but those that `keep` names; it lists none of them itself, and clears
/// them away later than a process that fails may live.
fn staged_in(directory: &Path, jobs: &BTreeSet<String>, keep: impl Fn(&str, &str) -> bool) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let is_staged = |name: &str| jobs.iter().any(|job| name.starts_with(&hidden_of(job))) && !keep("", name);
    let files = entries.flatten().filter(|entry| is_staged(&entry.file_name().to_string_lossy()));
    files.map(|entry| entry.path()).collect()
}

/// Removes the folder of a partition, and those above it, as long as they are empty.
fn remove_empty(table: &Path, folder: &str) {
    let mut path = table.join(folder);
    while path != table && std::fs::remove_dir(&path).is_ok() {
        let Some(parent) = path.parent() else { return };
        path = parent.to_owned();
    }
}
