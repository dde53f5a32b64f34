//! Where the jobs of a session keep their checkpoints, and what they begin from.

use std::sync::Arc;

use tidemill_connectors::store::Location;
use tidemill_core::Result;
use tidemill_exec::runtime::{Begin, Persistence, StoreFolder};

use super::session::Session;

/// What the job of a query is called.
pub const QUERY: &str = "query";

/// A folder with a sub-folder of checkpoints for each job, named by its sink: what `tidemill run --local` works in.
#[derive(Clone, Debug)]
pub struct JobFolders {
    /// The folder.
    pub dir: Location,
    /// Part of the names of the files that these jobs write; the same whenever they go on.
    pub id: Arc<str>,
    /// Whether jobs go on from their newest checkpoints; else checkpoints in a folder are an error.
    pub resume: bool,
    /// The savepoint that the job in this folder had begun from, for when it has no checkpoint yet.
    pub origin: Option<String>,
    /// Whether that job owns the savepoint.
    pub claims: bool,
}

impl JobFolders {
    /// The folder of the job called `job`.
    pub fn folder_of(&self, job: &str) -> StoreFolder {
        store_folder(&self.dir.child(&folder_name(job)))
    }
}

/// A place in a store, for the engine. What is written there stays when power fails.
pub fn store_folder(place: &Location) -> StoreFolder {
    let place = place.durable();
    StoreFolder { store: place.store.clone(), root: place.path.clone(), url: place.to_string() }
}

/// The name of a job's sub-folder: its sinks, with everything that folder names cannot hold replaced.
pub fn folder_name(job: &str) -> String {
    let sinks = job.strip_prefix("insert into ").unwrap_or(job).replace(", ", "+");
    let plain = |c: char| if c.is_alphanumeric() || matches!(c, '_' | '-' | '+' | '.') { c } else { '_' };
    let name: String = sinks.chars().map(plain).take(100).collect();
    // A name that begins with a dot would be hidden, and `..` is another folder.
    if name.starts_with('.') { format!("_{name}") } else { name }
}

impl Session {
    /// Has every job from now on keep its checkpoints in a sub-folder of this folder.
    pub fn set_job_folders(&mut self, folders: JobFolders) {
        self.folders = Some(folders);
    }

    /// A place that a URL or path names.
    pub fn resolve(&self, url: &str) -> Result<Location> {
        self.stores().resolve(url)
    }

    /// What the job called `name` keeps, and begins from.
    pub(super) fn persistence(&self, name: &str) -> Result<Persistence> {
        let recovery = self.settings.state_recovery();
        let from = match &recovery.path {
            Some(path) => Some(store_folder(&self.stores().resolve(path)?)),
            None => None,
        };
        let origin = match self.folders.as_ref().and_then(|folders| folders.origin.as_ref()) {
            Some(origin) => Some(store_folder(&self.stores().resolve(origin)?)),
            None => None,
        };
        let claims =
            recovery.claims || recovery.path.is_none() && self.folders.as_ref().is_some_and(|folders| folders.claims);
        let begin = |resume| match from {
            Some(from) => Begin::From(from),
            None if resume => Begin::Resume { origin },
            None => Begin::Anew,
        };
        let (folder, begin) = match (&self.folders, self.settings.checkpoints().dir) {
            (Some(folders), _) => {
                let name = format!("{name}{}", self.repetition(name));
                (Some(folders.folder_of(&name)), begin(folders.resume))
            }
            // The rows of a query go to whoever asks, who is gone with the process.
            (None, Some(dir)) if name != QUERY => {
                // Each run has a folder of its own: nobody asked to go on from another.
                let place = self.stores().resolve(&dir)?.child(&format!("{}-{}", folder_name(name), self.run_id()));
                (Some(store_folder(&place)), begin(false))
            }
            (None, _) => (None, begin(false)),
        };
        Ok(Persistence { folder, begin, ignore_unclaimed: recovery.ignore_unclaimed, claims })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_named_by_sinks() {
        assert_eq!(folder_name("insert into counts"), "counts");
        assert_eq!(folder_name("insert into a, b"), "a+b");
        assert_eq!(folder_name("insert into ../x y"), "_.._x_y");
    }
}
