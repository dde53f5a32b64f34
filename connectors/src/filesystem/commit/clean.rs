//! What nobody needs any more of what a job has written goes.

use std::collections::BTreeSet;
use std::path::Path;
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
        // What another process has written that has taken over is not on the list.
        let fence = self.fence.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(fence) = fence.filter(|_| !gone.is_empty()) {
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
        if let Some(path) = self.table().file_path() {
            jobs.iter().for_each(|job| remove_staged(&path, &hidden_of(job), &keep));
        }
        if let Some(path) = self.table().file_path() {
            for folder in folders.iter().filter(|folder| !folder.is_empty()) {
                remove_empty(&path, folder);
            }
        }
        Ok(())
    }
}

/// Removes the files in which a local store gathers what is not complete, but those that `keep` names; it lists none of them
/// itself, and clears them away later than a process that fails may live.
fn remove_staged(directory: &Path, own: &str, keep: impl Fn(&str, &str) -> bool) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(own) && !keep("", &name) {
            // Whoever else removes it does the same.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Removes the folder of a partition, and those above it, as long as they are empty.
fn remove_empty(table: &Path, folder: &str) {
    let mut path = table.join(folder);
    while path != table && std::fs::remove_dir(&path).is_ok() {
        let Some(parent) = path.parent() else { return };
        path = parent.to_owned();
    }
}
