//! The distributed cache: files and directories that every worker gets a copy of (SHR-06).

use std::fmt::Debug;
use std::path::{Path, PathBuf};

use async_trait::async_trait;

use crate::error::Result;

/// A file or directory that a job has registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedFile {
    /// What functions ask for it by.
    pub name: String,
    /// Where it is: a path, or the URL of any store.
    pub url: String,
    /// Whether its copy, or every file in it, may be executed, whatever the store says.
    pub executable: bool,
}

/// The copies that a worker has.
pub trait CachedFiles: Send + Sync + Debug {
    /// Where the copy of `name` lies. It is there as long as the job's tasks run, and must not be changed. An error that says
    /// which there are if there is no such one.
    fn path(&self, name: &str) -> Result<PathBuf>;
}

/// Brings files to this machine.
#[async_trait]
pub trait FileFetcher: Send + Sync + Debug {
    /// Copies the file or the directory at `url` to `target`, where nothing is yet. Directories come with all that is in them, and
    /// what may be executed at its source may be where it comes to. After a failure part of it may be there.
    async fn fetch(&self, url: &str, target: &Path) -> Result<()>;
}
