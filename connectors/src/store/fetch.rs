//! Files and directories of any store, brought to this machine.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use tidemill_core::error::{Error, Result};
use tidemill_core::shared::FileFetcher;
use tokio::io::AsyncWriteExt;

use super::{Location, Stores};

/// Fetches what the URLs of some stores lead to.
///
/// Files of this machine keep their permissions; objects of other stores have none. A link comes as what it leads to.
#[derive(Clone, Debug)]
pub struct StoreFetcher(Stores);

impl StoreFetcher {
    /// Fetches from `stores`.
    pub fn new(stores: Stores) -> Self {
        Self(stores)
    }
}

#[async_trait]
impl FileFetcher for StoreFetcher {
    async fn fetch(&self, url: &str, target: &Path) -> Result<()> {
        let location = self.0.resolve(url)?;
        match location.file_path() {
            Some(path) => copy(&location, path, target).await,
            None => download(&location, target).await,
        }
    }
}

/// Copies a file or directory of this machine.
async fn copy(location: &Location, source: PathBuf, target: &Path) -> Result<()> {
    let failed = |path: &Path, error: std::io::Error| Error::from(error).context(path.display());
    if !tokio::fs::try_exists(&source).await.map_err(|error| failed(&source, error))? {
        return Err(location.missing());
    }
    let mut open = vec![(source, target.to_owned(), Vec::new())];
    while let Some((from, to, above)) = open.pop() {
        let metadata = tokio::fs::metadata(&from).await.map_err(|error| failed(&from, error))?;
        if !metadata.is_dir() {
            tokio::fs::copy(&from, &to).await.map_err(|error| failed(&from, error))?;
            continue;
        }
        let folder = tokio::fs::canonicalize(&from).await.map_err(|error| failed(&from, error))?;
        if above.contains(&folder) {
            return Err(Error::request(format!("{} is a link to a folder that it lies in", from.display())));
        }
        tokio::fs::create_dir(&to).await.map_err(|error| failed(&to, error))?;
        let above = [above, vec![folder]].concat();
        let mut entries = tokio::fs::read_dir(&from).await.map_err(|error| failed(&from, error))?;
        while let Some(entry) = entries.next_entry().await.map_err(|error| failed(&from, error))? {
            open.push((entry.path(), to.join(entry.file_name()), above.clone()));
        }
    }
    Ok(())
}

/// Brings an object, or all objects below a prefix.
async fn download(location: &Location, target: &Path) -> Result<()> {
    if location.head().await?.is_some() {
        return download_object(location, target).await;
    }
    let mut found = false;
    let mut objects = location.store.list(Some(&location.path));
    while let Some(object) = objects.try_next().await.map_err(|error| location.error(error))? {
        let Some(parts) = object.location.prefix_match(&location.path) else { continue };
        let mut to = target.to_owned();
        for part in parts {
            // What a store takes for a name may lead out of the folder here.
            match part.as_ref() {
                name @ ("" | "." | "..") => {
                    return Err(Error::data(format!("'{name}' in '{}' is no name of a file", object.location)));
                }
                name => to.push(name),
            }
        }
        if let Some(folder) = to.parent() {
            let made = tokio::fs::create_dir_all(folder).await;
            made.map_err(|error| Error::from(error).context(folder.display()))?;
        }
        download_object(&location.at(object.location), &to).await?;
        found = true;
    }
    if found { Ok(()) } else { Err(location.missing()) }
}

async fn download_object(location: &Location, target: &Path) -> Result<()> {
    let failed = |error: std::io::Error| Error::from(error).context(target.display());
    let object = location.store.get(&location.path).await.map_err(|error| location.error(error))?;
    let mut bytes = object.into_stream();
    let mut file = tokio::fs::File::create_new(target).await.map_err(failed)?;
    while let Some(chunk) = bytes.try_next().await.map_err(|error| location.error(error))? {
        file.write_all(&chunk).await.map_err(failed)?;
    }
    file.flush().await.map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::sync::Arc;

    use object_store::memory::InMemory;
    use object_store::path::Path as ObjectPath;

    use super::*;

    fn fetch(stores: Stores, url: &str, target: &Path) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(StoreFetcher::new(stores).fetch(url, target))
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_directory_of_this_machine_comes_with_all_that_is_in_it_and_its_permissions() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let scripts = from.path().join("scripts");
        std::fs::create_dir_all(scripts.join("deep/deeper")).unwrap();
        std::fs::write(scripts.join("run.sh"), "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(scripts.join("run.sh"), Permissions::from_mode(0o755)).unwrap();
        std::fs::write(scripts.join("deep/deeper/words"), "to be").unwrap();
        symlink(scripts.join("deep/deeper/words"), scripts.join("linked")).unwrap();
        let target = to.path().join("copy");
        fetch(Stores::local(), scripts.to_str().unwrap(), &target).unwrap();
        assert_eq!(mode(&target.join("run.sh")), 0o755);
        assert_eq!(std::fs::read_to_string(target.join("deep/deeper/words")).unwrap(), "to be");
        assert_eq!(std::fs::read_to_string(target.join("linked")).unwrap(), "to be");
        assert!(!target.join("linked").is_symlink());
    }

    #[test]
    fn a_link_that_leads_up_is_refused_and_what_is_not_there_is_named() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        symlink(from.path(), from.path().join("up")).unwrap();
        let error = fetch(Stores::local(), from.path().to_str().unwrap(), &to.path().join("copy")).unwrap_err();
        assert!(error.message().contains("a link to a folder that it lies in"), "{error}");
        let missing = from.path().join("missing");
        let error = fetch(Stores::local(), missing.to_str().unwrap(), &to.path().join("none")).unwrap_err();
        assert!(error.message().contains("missing does not exist"), "{error}");
    }

    #[test]
    fn objects_come_alone_or_with_all_that_have_their_prefix() {
        let store = Arc::new(InMemory::new());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for (path, text) in [("model/a.bin", "a"), ("model/sub/b.bin", "b"), ("modelled", "other")] {
            runtime.block_on(store.put(&ObjectPath::from(path), text.into())).unwrap();
        }
        let to = tempfile::tempdir().unwrap();
        let stores = Stores::local().with("mem://bucket", store);
        fetch(stores.clone(), "mem://bucket/model/a.bin", &to.path().join("one")).unwrap();
        assert_eq!(std::fs::read_to_string(to.path().join("one")).unwrap(), "a");
        fetch(stores.clone(), "mem://bucket/model/", &to.path().join("all")).unwrap();
        assert_eq!(std::fs::read_to_string(to.path().join("all/sub/b.bin")).unwrap(), "b");
        assert_eq!(std::fs::read_dir(to.path().join("all")).unwrap().count(), 2);
        let error = fetch(stores, "mem://bucket/mod", &to.path().join("none")).unwrap_err();
        assert!(error.message().contains("mem://bucket/mod does not exist"), "{error}");
    }
}
