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
    /// `from` is the savepoint that its job is to begin from now.
    pub async fn take(dir: Location, beside: &Path, new_id: String, from: Option<BegunFrom>) -> Result<Self> {
        let dir = dir.durable();
        let local = dir.file_path().unwrap_or_else(|| beside.to_owned());
        std::fs::create_dir_all(&local).map_err(|error| {
            Error::from(error).context(format!("the folder for checkpoints, '{}'", local.display()))
        })?;
        let lock = lock(&local)?;
        let Identity { id, from } = identity(&dir, new_id, from).await?;
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
async fn identity(dir: &Location, new_id: String, from: Option<BegunFrom>) -> Result<Identity> {
    let place = dir.child("job.json");
    let is_new_origin = from.is_some();
    let write = |identity: &Identity| {
        let text = serde_json::to_vec(identity);
        text.map_err(|error| Error::internal("an identity that is no JSON").with_source(error))
    };
    let fresh = write(&Identity { id: new_id, from: from.clone() })?;
    let options = PutOptions::from(PutMode::Create);
    match place.store.put_opts(&place.path, fresh.into(), options).await {
        Ok(_) | Err(object_store::Error::AlreadyExists { .. }) => {}
        Err(error) => return Err(place.error(error)),
    }
    let found = place.store.get(&place.path).await.map_err(|error| place.error(error))?;
    let found = found.bytes().await.map_err(|error| place.error(error))?;
    let mut identity: Identity = serde_json::from_slice(&found)
        .map_err(|error| Error::corrupt(format!("{place} does not say whose jobs these are")).with_source(error))?;
    if is_new_origin && identity.from != from {
        identity.from = from;
        let changed = write(&identity)?;
        place.store.put(&place.path, changed.into()).await.map_err(|error| place.error(error))?;
    }
    Ok(identity)
}
