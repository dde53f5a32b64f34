//! The files of this machine as a store that keeps its word: what it says is written is on the disk, and stays when power fails.
//!
//! `object_store`'s own never syncs. Here a file is written under a hidden name, synced, given its name, and then the folder is
//! synced too; folders that have to be made for it are synced before. A name that must not be there yet is given by a hard link, which at most
//! one of several writers gets.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path as FilePath, PathBuf};

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};

use super::durable::{make_folders, staged_name, sync, sync_entry, sync_open};

/// Files of this machine that are synced before they have their names.
#[derive(Debug, Default)]
pub struct SyncedFileSystem {
    files: LocalFileSystem,
}

impl fmt::Display for SyncedFileSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SyncedFileSystem")
    }
}

#[async_trait]
impl ObjectStore for SyncedFileSystem {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        if let PutMode::Update(_) = options.mode {
            return self.files.put_opts(location, payload, options).await;
        }
        let path = self.files.path_to_filesystem(location)?;
        let location = location.clone();
        blocking(move || write(&location, &path, &payload, &options.mode)).await?;
        Ok(PutResult { e_tag: None, version: None })
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let path = self.files.path_to_filesystem(location)?;
        let (place, folder) = (location.clone(), path.parent().map(FilePath::to_owned));
        blocking(move || folder.map_or(Ok(()), |folder| make_folders(&folder)).map_err(|error| generic(&place, error)))
            .await?;
        let upload = self.files.put_multipart_opts(location, options).await?;
        Ok(Box::new(SyncedUpload { upload, location: location.clone(), path }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.files.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.files.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.files.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.files.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.files.copy_opts(from, to, options).await
    }
}

/// An upload that is synced when it is complete.
#[derive(Debug)]
struct SyncedUpload {
    upload: Box<dyn MultipartUpload>,
    location: Path,
    path: PathBuf,
}

#[async_trait]
impl MultipartUpload for SyncedUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.upload.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let done = self.upload.complete().await?;
        let (location, path) = (self.location.clone(), self.path.clone());
        blocking(move || sync(&path).and_then(|()| sync_entry(&path)).map_err(|error| generic(&location, error)))
            .await?;
        Ok(done)
    }

    async fn abort(&mut self) -> Result<()> {
        self.upload.abort().await
    }
}

fn write(location: &Path, path: &FilePath, payload: &PutPayload, mode: &PutMode) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.parent().map_or(Ok(()), make_folders).map_err(|error| generic(location, error))?;
    write_as(&path.with_file_name(staged_name(&name)), location, path, payload, mode)
}

/// Writes a file that is called `staged` until it is whole.
fn write_as(staged: &FilePath, location: &Path, path: &FilePath, payload: &PutPayload, mode: &PutMode) -> Result<()> {
    // One that is there belongs to somebody else, and says nothing about whether the file itself is.
    let file = File::create_new(staged).map_err(|error| generic(location, error))?;
    let written = fill(file, staged, payload).and_then(|()| match mode {
        PutMode::Create => fs::hard_link(staged, path).and_then(|()| fs::remove_file(staged)),
        _ => fs::rename(staged, path),
    });
    #[cfg(test)]
    written.iter().for_each(|()| super::durable::journal::note(super::durable::journal::Act::Named, path));
    match written.and_then(|()| sync_entry(path)) {
        Ok(()) => Ok(()),
        Err(error) => {
            // It is hidden and belongs to nobody; the error that counts is the other one.
            let _ = fs::remove_file(staged);
            Err(match error.kind() {
                io::ErrorKind::AlreadyExists => {
                    Error::AlreadyExists { path: location.to_string(), source: error.into() }
                }
                _ => generic(location, error),
            })
        }
    }
}

fn fill(mut file: File, staged: &FilePath, payload: &PutPayload) -> io::Result<()> {
    for bytes in payload {
        file.write_all(bytes)?;
    }
    sync_open(&file, staged)
}

fn generic(location: &Path, error: io::Error) -> Error {
    let source = io::Error::new(error.kind(), format!("{location}: {error}"));
    Error::Generic { store: "file", source: Box::new(source) }
}

async fn blocking(call: impl FnOnce() -> Result<()> + Send + 'static) -> Result<()> {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => runtime.spawn_blocking(call).await?,
        Err(_) => call(),
    }
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;
    use object_store::ObjectStoreExt;

    use super::super::durable::journal::assert_lasting;
    use super::*;

    fn place(folder: &tempfile::TempDir, name: &str) -> Path {
        Path::from_absolute_path(folder.path().join(name)).unwrap()
    }

    #[test]
    fn of_many_writers_one_creates_and_nothing_hidden_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let place = place(&folder, "a/b/manifest");
        let created: usize = std::thread::scope(|scope| {
            let writer = |number: usize| {
                let place = &place;
                move || {
                    let options = PutOptions::from(PutMode::Create);
                    block_on(SyncedFileSystem::default().put_opts(place, format!("{number}").into(), options))
                }
            };
            let writers: Vec<_> = (0..8).map(|number| scope.spawn(writer(number))).collect();
            let outcome = |result: Result<PutResult>| match result {
                Ok(_) => 1,
                Err(Error::AlreadyExists { .. }) => 0,
                Err(error) => panic!("{error}"),
            };
            writers.into_iter().map(|writer| outcome(writer.join().unwrap())).sum()
        });
        assert_eq!(created, 1);
        let names: Vec<_> =
            fs::read_dir(folder.path().join("a/b")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["manifest"]);
    }

    #[test]
    fn hidden_names_are_those_of_one_process_and_one_writer() {
        let names = ["x", "x", ".x"].map(staged_name);
        let own = format!(".x#{:x}-", tidemill_core::chance::process_chance());
        assert!(names.iter().all(|name| name.starts_with(&own)), "{names:?}");
        assert!(names[0] != names[1] && names[1] != names[2] && names[0] != names[2], "{names:?}");
    }

    #[test]
    fn a_hidden_file_of_somebody_else_is_left_alone_and_does_not_stand_for_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let (place, path) = (place(&folder, "manifest"), folder.path().join("manifest"));
        let staged = folder.path().join(".manifest#1-0");
        fs::write(&staged, "of somebody else").unwrap();
        let error = write_as(&staged, &place, &path, &"mine".into(), &PutMode::Create).unwrap_err();
        assert!(!matches!(error, Error::AlreadyExists { .. }), "{error}");
        assert_eq!(fs::read(&staged).unwrap(), b"of somebody else");
        assert!(!path.exists());
    }

    #[test]
    fn what_was_put_is_there_and_can_be_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (store, place) = (SyncedFileSystem::default(), place(&folder, "x"));
        block_on(store.put(&place, "one".into())).unwrap();
        block_on(store.put(&place, "two".into())).unwrap();
        assert_eq!(fs::read(folder.path().join("x")).unwrap(), b"two");
        let mut upload = block_on(store.put_multipart(&place)).unwrap();
        block_on(upload.put_part("thr".into())).unwrap();
        block_on(upload.put_part("ee".into())).unwrap();
        block_on(upload.complete()).unwrap();
        assert_eq!(block_on(async { store.get(&place).await.unwrap().bytes().await.unwrap() }), "three");
    }

    #[test]
    fn what_is_there_would_outlive_a_power_failure() {
        let store = SyncedFileSystem::default();
        // A folder each, so that what was synced for one does not stand for another.
        let [overwritten, created, uploaded] = std::array::from_fn(|_| tempfile::tempdir().unwrap());
        block_on(store.put(&place(&overwritten, "job/newest"), "one".into())).unwrap();
        let options = PutOptions::from(PutMode::Create);
        block_on(store.put_opts(&place(&created, "job/manifest"), "two".into(), options)).unwrap();
        let mut upload = block_on(store.put_multipart(&place(&uploaded, "job/segments/1"))).unwrap();
        block_on(upload.put_part("three".into())).unwrap();
        block_on(upload.complete()).unwrap();
        [overwritten, created, uploaded].iter().for_each(|folder| assert_lasting(folder.path()));
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_named() {
        let place = Path::from_absolute_path("/proc/nothing/here").unwrap();
        let error = block_on(SyncedFileSystem::default().put(&place, "x".into())).unwrap_err();
        assert!(error.to_string().contains("proc/nothing/here"), "{error}");
    }
}
