//! The folder of a process's jobs: its place, its lock, its name.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use object_store::{ObjectStoreExt, PutMode, PutOptions};
use serde::{Deserialize, Serialize};
use tidemill_connectors::store::Location;
use tidemill_core::{Error, Result};

/// Who the jobs of a folder are.
#[derive(Debug, Serialize, Deserialize)]
struct Identity {
    id: String,
    #[serde(default)]
    from: Option<BegunFrom>,
}

/// The savepoint that the job of a folder began from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BegunFrom {
    /// Its URL or path.
    pub savepoint: String,
    /// Whether it belongs to the job.
    pub claims: bool,
}

/// What is meant to happen in a folder that is taken.
#[derive(Clone, Debug)]
pub struct FolderBegin {
    /// The savepoint that its job is to begin from.
    pub from: Option<BegunFrom>,
    /// Whether its jobs go on.
    pub resume: bool,
}

impl FolderBegin {
    /// What the job of a folder has begun from, where `known` is written there. Who goes on does so from what was written first.
    ///
    /// The folder may hold checkpoints of its own, so that a savepoint which is not the first one written is perhaps never needed:
    /// such a one stays whose it is.
    fn origin(self, known: Option<&BegunFrom>) -> Option<BegunFrom> {
        let Self { from, resume } = self;
        match (from, known) {
            (_, Some(known)) if resume => Some(known.clone()),
            (Some(from), Some(known)) if from.savepoint == known.savepoint => Some(known.clone()),
            (Some(from), _) => Some(BegunFrom { claims: false, ..from }),
            (None, _) => None,
        }
    }
}

/// A folder that this process has to itself.
#[derive(Debug)]
pub struct Folder {
    /// Where checkpoints lie.
    pub dir: Location,
    /// Where the lock and the control file lie.
    pub local: PathBuf,
    /// Part of the names of the files that jobs write.
    pub id: String,
    /// The savepoint that the job here began from.
    pub from: Option<BegunFrom>,
    // Held until the process ends, however it ends.
    _lock: File,
}

/// The folder for the script called `file`, where nobody names another.
pub fn default_dir(file: &Path) -> PathBuf {
    let name = file.file_name().map_or_else(|| "stdin".into(), |name| name.to_string_lossy().into_owned());
    Path::new(".tidemill").join(if name == "-" { "stdin".to_owned() } else { name })
}

impl Folder {
    /// Takes the folder `dir`. Of a folder in a store, the lock lies in `beside`, on this machine.
    pub async fn take(dir: Location, beside: &Path, new_id: String, begin: FolderBegin) -> Result<Self> {
        let dir = dir.durable();
        let local = dir.file_path().unwrap_or_else(|| beside.to_owned());
        std::fs::create_dir_all(&local).map_err(|error| {
            Error::from(error).context(format!("the folder for checkpoints, '{}'", local.display()))
        })?;
        let lock = lock(&local)?;
        let Identity { id, from } = identity(&dir, new_id, begin).await?;
        Ok(Self { dir, local, id, from, _lock: lock })
    }
}

/// Takes the lock, which goes with the process.
fn lock(folder: &Path) -> Result<File> {
    let path = folder.join("lock");
    let open = File::options().create(true).truncate(false).write(true).open(&path);
    let file = open.map_err(|error| Error::from(error).context(path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let error = Error::unavailable(format!("another process runs the jobs of '{}'", folder.display()));
            Err(error.with_hint("stop it first, or give this one a folder of its own with execution.checkpointing.dir"))
        }
        Err(TryLockError::Error(error)) => Err(Error::from(error).context(path.display())),
    }
}

/// The identity in the folder, made by whoever comes first; beginning from a savepoint is written down.
async fn identity(dir: &Location, new_id: String, begin: FolderBegin) -> Result<Identity> {
    let place = dir.child("job.json");
    let write = |identity: &Identity| {
        let text = serde_json::to_vec(identity);
        text.map_err(|error| Error::internal("an identity that is no JSON").with_source(error))
    };
    let fresh = write(&Identity { id: new_id, from: begin.from.clone() })?;
    let options = PutOptions::from(PutMode::Create);
    match place.store.put_opts(&place.path, fresh.into(), options).await {
        Ok(_) | Err(object_store::Error::AlreadyExists { .. }) => {}
        Err(error) => return Err(place.error(error)),
    }
    let found = place.store.get(&place.path).await.map_err(|error| place.error(error))?;
    let found = found.bytes().await.map_err(|error| place.error(error))?;
    let mut identity: Identity = serde_json::from_slice(&found)
        .map_err(|error| Error::corrupt(format!("{place} does not say whose jobs these are")).with_source(error))?;
    let from = begin.origin(identity.from.as_ref());
    if identity.from != from {
        identity.from = from;
        let changed = write(&identity)?;
        place.store.put(&place.path, changed.into()).await.map_err(|error| place.error(error))?;
    }
    Ok(identity)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claimed(savepoint: &str) -> BegunFrom {
        BegunFrom { savepoint: savepoint.to_owned(), claims: true }
    }

    fn origin(resume: bool, from: Option<&str>, known: Option<&str>) -> Option<BegunFrom> {
        FolderBegin { from: from.map(claimed), resume }.origin(known.map(claimed).as_ref())
    }

    #[test]
    fn who_goes_on_does_so_from_what_was_written_first() {
        assert_eq!(origin(true, None, Some("a")), Some(claimed("a")));
        assert_eq!(origin(true, Some("b"), Some("a")), Some(claimed("a")));
        assert_eq!(origin(true, Some("a"), None).map(|from| from.savepoint), Some("a".to_owned()));
    }

    #[test]
    fn who_begins_anew_does_so_from_what_is_given_now() {
        assert_eq!(origin(false, None, Some("a")), None);
        assert_eq!(origin(false, Some("b"), Some("a")).map(|from| from.savepoint), Some("b".to_owned()));
    }

    #[test]
    fn a_savepoint_that_was_not_the_first_is_not_claimed_for_later() {
        for resume in [false, true] {
            assert_eq!(origin(resume, Some("a"), Some("a")), Some(claimed("a")));
            assert_eq!(origin(resume, Some("b"), None).map(|from| from.claims), Some(false));
        }
        assert_eq!(origin(false, Some("b"), Some("a")).map(|from| from.claims), Some(false));
    }
}
