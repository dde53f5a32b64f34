//! The folder of a process's jobs: its place, its lock, its name.

use std::collections::BTreeSet;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use serde::{Deserialize, Serialize};
use tidemill::sql::StatementFolders;
use tidemill::sql::parser::Parsed;
use tidemill_connectors::store::Location;
use tidemill_core::{Error, Result};
use xxhash_rust::xxh3::xxh3_64;

/// Who the jobs of a folder are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Identity {
    id: String,
    #[serde(default)]
    from: Option<BegunFrom>,
    /// Whose the folders of jobs with the same sinks are.
    #[serde(default)]
    statements: StatementFolders,
}

/// The name of the file that says so.
const IDENTITY: &str = "job.json";

impl Identity {
    fn encode(&self) -> Result<Vec<u8>> {
        let text = serde_json::to_vec(self);
        text.map_err(|error| Error::internal("an identity that is no JSON").with_source(error))
    }
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
    /// Whose the folders of jobs with the same sinks are.
    pub statements: StatementFolders,
    // Held until the process ends, however it ends.
    _locks: Vec<File>,
}

/// Where what belongs to a folder lies on this machine.
#[derive(Clone, Copy, Debug)]
pub struct OnThisMachine<'a> {
    /// The lock and the control file, where the folder is in a store.
    pub beside: &'a Path,
    /// The locks of folders in stores, by the names of their jobs: processes find one another there wherever they were started.
    pub locks: Option<&'a Path>,
}

/// The folder for the script called `file`, where nobody names another.
pub fn default_dir(file: &Path) -> PathBuf {
    let name = file.file_name().map_or_else(|| "stdin".into(), |name| name.to_string_lossy().into_owned());
    Path::new(".tidemill").join(if name == "-" { "stdin".to_owned() } else { name })
}

impl Folder {
    /// Takes the folder `dir` for the jobs of a script.
    pub async fn take(
        dir: Location,
        here: OnThisMachine<'_>,
        new_id: String,
        begin: FolderBegin,
        script: &[Parsed],
    ) -> Result<Self> {
        let dir = dir.durable();
        let local = dir.file_path().unwrap_or_else(|| here.beside.to_owned());
        std::fs::create_dir_all(&local).map_err(|error| {
            Error::from(error).context(format!("the folder for checkpoints, '{}'", local.display()))
        })?;
        let mut locks = vec![lock(&local.join("lock"), &dir)?];
        let known = identity(&dir, new_id, &begin).await?;
        if let Some(folder) = here.locks.filter(|_| !dir.is_local()) {
            // A checksum, for what is read from a store is no name to trust.
            let path = folder.join(format!("{:016x}", xxh3_64(known.id.as_bytes())));
            // Who has no place for it is still kept apart from others by the manifests.
            if std::fs::create_dir_all(folder).and_then(|()| open_lock(&path)).is_ok() {
                locks.push(lock(&path, &dir)?);
            }
        }
        let Identity { id, from, statements } = update(&dir, known, begin, script).await?;
        Ok(Self { dir, local, id, from, statements, _locks: locks })
    }
}

fn open_lock(path: &Path) -> std::io::Result<File> {
    File::options().create(true).truncate(false).write(true).open(path)
}

/// Takes the lock of `dir` that lies in a file; it goes with the process.
fn lock(path: &Path, dir: &Location) -> Result<File> {
    let file = open_lock(path).map_err(|error| Error::from(error).context(path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let error = Error::unavailable(format!("another process runs the jobs of '{dir}'"));
            Err(error.with_hint("stop it first, or give this one a folder of its own with execution.checkpointing.dir"))
        }
        Err(TryLockError::Error(error)) => Err(Error::from(error).context(path.display())),
    }
}

/// The identity in the folder, made by whoever comes first.
async fn identity(dir: &Location, new_id: String, begin: &FolderBegin) -> Result<Identity> {
    let place = dir.child(IDENTITY);
    let fresh = Identity { id: new_id, from: begin.from.clone(), statements: StatementFolders::default() };
    let options = PutOptions::from(PutMode::Create);
    match place.store.put_opts(&place.path, fresh.encode()?.into(), options).await {
        Ok(_) | Err(object_store::Error::AlreadyExists { .. }) => {}
        Err(error) => return Err(place.error(error)),
    }
    let found = place.store.get(&place.path).await.map_err(|error| place.error(error))?;
    let found = found.bytes().await.map_err(|error| place.error(error))?;
    serde_json::from_slice(&found)
        .map_err(|error| Error::corrupt(format!("{place} does not say whose jobs these are")).with_source(error))
}

/// Writes down what the jobs of the folder begin from and what they do, where that is not known yet.
async fn update(dir: &Location, known: Identity, begin: FolderBegin, script: &[Parsed]) -> Result<Identity> {
    let mut statements = known.statements.clone();
    let folders = job_folders(dir).await?;
    statements.keep(|folder| folders.contains(folder));
    let identity = Identity {
        id: known.id.clone(),
        from: begin.origin(known.from.as_ref()),
        statements: statements.deal(script)?,
    };
    if identity != known {
        let place = dir.child(IDENTITY);
        place.store.put(&place.path, identity.encode()?.into()).await.map_err(|error| place.error(error))?;
    }
    Ok(identity)
}

/// The names of the folders that there are, in small letters.
async fn job_folders(dir: &Location) -> Result<BTreeSet<String>> {
    let listed = dir.store.list_with_delimiter(Some(&dir.path)).await.map_err(|error| dir.error(error))?;
    Ok(listed.common_prefixes.iter().filter_map(|folder| folder.filename()).map(str::to_lowercase).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tidemill_connectors::store::Stores;

    use super::*;

    fn claimed(savepoint: &str) -> BegunFrom {
        BegunFrom { savepoint: savepoint.to_owned(), claims: true }
    }

    fn origin(resume: bool, from: Option<&str>, known: Option<&str>) -> Option<BegunFrom> {
        FolderBegin { from: from.map(claimed), resume }.origin(known.map(claimed).as_ref())
    }

    fn stores() -> Stores {
        Stores::local().with("mem://store", Arc::new(object_store::memory::InMemory::new()))
    }

    /// Takes a folder for a process that goes on, with its own folder on this machine and the one for the locks of all.
    async fn take(stores: &Stores, beside: &Path, locks: &Path, dir: &str) -> Result<Folder> {
        let here = OnThisMachine { beside, locks: Some(locks) };
        let begin = FolderBegin { from: None, resume: true };
        Folder::take(stores.resolve(dir).unwrap(), here, format!("{} {dir}", beside.display()), begin, &[]).await
    }

    fn assert_is_taken(taken: Result<Folder>) {
        let error = taken.unwrap_err().to_string();
        assert!(error.contains("another process runs the jobs of 'mem://store/jobs'"), "{error}");
    }

    #[tokio::test]
    async fn a_folder_in_a_store_has_one_process_of_a_machine_wherever_that_was_started() {
        let temporary = tempfile::tempdir().unwrap();
        let [a, b, locks] = ["a", "b", "locks"].map(|name| temporary.path().join(name));
        let stores = stores();
        let first = take(&stores, &a, &locks, "mem://store/jobs").await.unwrap();
        assert_is_taken(take(&stores, &b, &locks, "mem://store/jobs").await);
        // Another folder of the store is another one, though not beside the first.
        drop(take(&stores, &b, &locks, "mem://store/others").await.unwrap());
        let id = first.id.clone();
        drop(first);
        assert_eq!(take(&stores, &b, &locks, "mem://store/jobs").await.unwrap().id, id);
    }

    #[tokio::test]
    async fn who_has_no_place_for_locks_takes_a_folder_in_a_store_all_the_same() {
        let temporary = tempfile::tempdir().unwrap();
        let [a, b, file] = ["a", "b", "file"].map(|name| temporary.path().join(name));
        std::fs::write(&file, "").unwrap();
        let (stores, locks) = (stores(), file.join("locks"));
        let first = take(&stores, &a, &locks, "mem://store/jobs").await.unwrap();
        // The lock beside it is still there; only from elsewhere nobody finds it.
        assert_is_taken(take(&stores, &a, &locks, "mem://store/jobs").await);
        assert_eq!(take(&stores, &b, &locks, "mem://store/jobs").await.unwrap().id, first.id);
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
