//! HDFS as a store that keeps the promises of one: a file has its name when it is whole, and of several that create a name one
//! gets it.
//!
//! ```text
//! put       .name#<chance>-<number>   written, closed ── rename, over or not over what is there ──> name
//! ```
//!
//! A rename is one step of the NameNode, which is what makes creating a file atomic: it refuses where the name is taken. What a
//! process that died leaves under its hidden name, whoever cleans the folder removes. Files can be neither cut nor gone on with
//! through this client. A file is closed when its DataNodes have it; whether that is their memory or their disks is theirs to
//! say (`dfs.datanode.synconclose`).

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures::TryStreamExt;
use futures::stream::{BoxStream, StreamExt};
use hdfs_native::client::{Client, ClientBuilder, WriteOptions};
use hdfs_native::file::FileWriter;
use hdfs_native_object_store::HdfsObjectStore;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart,
};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::durable::staged_name;

/// How many hidden names are tried, all of which somebody else would have to have.
const NAMES_MAX: usize = 1000;

/// The files of one HDFS. Its calls have to be made on the runtime that it was given.
#[derive(Debug)]
pub(super) struct Hdfs {
    client: Client,
    files: HdfsObjectStore,
}

impl Hdfs {
    /// The file system at `url`, with the configuration of a Hadoop folder. Nothing is asked of it yet.
    pub(super) fn new(url: &str, configuration: Option<&str>, runtime: Handle) -> hdfs_native::Result<Self> {
        let builder = ClientBuilder::new().with_url(url).with_io_runtime(runtime);
        let client = match configuration {
            Some(folder) => builder.with_config_dir(folder).build()?,
            None => builder.build()?,
        };
        Ok(Self { files: HdfsObjectStore::new(client.clone()), client })
    }

    /// Begins a hidden file beside `location`, whose name nobody has.
    async fn stage(&self, location: &Path) -> Result<(String, FileWriter)> {
        let name = location.filename().unwrap_or_default();
        let folder = location.parent().map_or_else(String::new, |folder| format!("/{folder}"));
        for _ in 0..NAMES_MAX {
            let staged = format!("{folder}/{}", staged_name(name));
            match self.client.create(&staged, WriteOptions::default()).await {
                Ok(file) => return Ok((staged, file)),
                Err(hdfs_native::HdfsError::AlreadyExists(_)) => {}
                Err(error) => return Err(known(error)),
            }
        }
        Err(failure(format!("{location}: no hidden name beside it is free")))
    }

    /// Gives a hidden file that is whole its name; if that fails it is removed.
    async fn publish(&self, staged: &str, location: &Path, mode: &PutMode) -> Result<PutResult> {
        let path = format!("/{location}");
        let is_create = matches!(mode, PutMode::Create);
        let error = match self.client.rename(staged, &path, !is_create).await {
            Ok(()) => return Ok(PutResult { e_tag: None, version: None }),
            Err(error) => known(error),
        };
        match error {
            // The reply to a first try was lost, or somebody has cleaned up here.
            Error::NotFound { .. } if self.client.get_file_info(&path).await.is_ok() => match is_create {
                true => Err(Error::AlreadyExists { path, source: "renamed before, or by another".into() }),
                false => Ok(PutResult { e_tag: None, version: None }),
            },
            error => {
                // It is hidden and belongs to nobody; the error that counts is the other one.
                let _ = self.client.delete(staged, false).await;
                Err(error)
            }
        }
    }
}

impl fmt::Display for Hdfs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HDFS")
    }
}

#[async_trait]
impl ObjectStore for Hdfs {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        if let PutMode::Update(_) = options.mode {
            return self.files.put_opts(location, payload, options).await;
        }
        if matches!(options.mode, PutMode::Create) && self.client.get_file_info(&format!("/{location}")).await.is_ok() {
            return Err(Error::AlreadyExists { path: location.to_string(), source: "it is there".into() });
        }
        let (staged, mut file) = self.stage(location).await?;
        if let Err(error) = fill(&mut file, payload).await {
            let _ = self.client.delete(&staged, false).await;
            return Err(known(error));
        }
        self.publish(&staged, location, &options.mode).await
    }

    async fn put_multipart_opts(&self, location: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let (staged, file) = self.stage(location).await?;
        let (parts, received) = mpsc::unbounded_channel();
        let writing = Some(tokio::spawn(write_parts(file, received)));
        let store = Arc::new(Self { client: self.client.clone(), files: self.files.clone() });
        Ok(Box::new(HdfsUpload { store, staged, location: location.clone(), parts: Some(parts), writing }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.files.get_opts(location, options).await.map_err(translated)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.files.delete_stream(locations).map_err(translated).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.files.list(prefix).map_err(translated).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.files.list_with_delimiter(prefix).await.map_err(translated)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.files.copy_opts(from, to, options).await.map_err(translated)
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.files.rename_opts(from, to, options).await.map_err(translated)
    }
}

async fn fill(file: &mut FileWriter, payload: PutPayload) -> hdfs_native::Result<()> {
    for bytes in payload {
        file.write(bytes).await?;
    }
    file.close().await
}

/// A part, and who waits for it.
type Part = (PutPayload, oneshot::Sender<Result<()>>);

/// A file that a task of its own writes, part after part. How many wait is up to whoever puts them.
#[derive(Debug)]
struct HdfsUpload {
    store: Arc<Hdfs>,
    staged: String,
    location: Path,
    parts: Option<mpsc::UnboundedSender<Part>>,
    writing: Option<JoinHandle<Result<()>>>,
}

#[async_trait]
impl MultipartUpload for HdfsUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (sender, written) = oneshot::channel();
        let sent = self.parts.as_ref().is_some_and(|parts| parts.send((data, sender)).is_ok());
        Box::pin(async move {
            match sent {
                true => written.await.unwrap_or_else(|_| Err(ended())),
                false => Err(ended()),
            }
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        // Without a sender the task closes the file.
        self.parts = None;
        let writing = self.writing.take().ok_or_else(ended)?;
        writing.await??;
        self.store.publish(&self.staged, &self.location, &PutMode::Overwrite).await
    }

    async fn abort(&mut self) -> Result<()> {
        self.parts = None;
        if let Some(writing) = self.writing.take() {
            writing.abort();
            // The file is to be let go of before it is removed.
            let _ = writing.await;
        }
        self.store.client.delete(&self.staged, false).await.map(drop).map_err(known)
    }
}

async fn write_parts(mut file: FileWriter, mut parts: mpsc::UnboundedReceiver<Part>) -> Result<()> {
    while let Some((payload, sender)) = parts.recv().await {
        for bytes in payload {
            if let Err(error) = file.write(bytes).await {
                // Whoever waits for the part tells why; whoever completes the upload, that it cannot be.
                let _ = sender.send(Err(known(error)));
                return Err(ended());
            }
        }
        let _ = sender.send(Ok(()));
    }
    file.close().await.map_err(known)
}

/// What the NameNode said, in the words of stores.
fn known(error: hdfs_native::HdfsError) -> Error {
    use hdfs_native::HdfsError as H;
    match &error {
        H::FileNotFound(path) => Error::NotFound { path: path.clone(), source: error.into() },
        H::AlreadyExists(path) => Error::AlreadyExists { path: path.clone(), source: error.into() },
        H::RPCError(class, message) => {
            let path = message.lines().next().unwrap_or_default().to_owned();
            match class.rsplit('.').next() {
                Some("FileNotFoundException") => Error::NotFound { path, source: error.into() },
                Some("AccessControlException") => Error::PermissionDenied { path, source: error.into() },
                _ => failure(error),
            }
        }
        _ => failure(error),
    }
}

/// The same for errors that the plain store has put into words already.
fn translated(error: Error) -> Error {
    match error {
        Error::Generic { store, source } => match source.downcast::<hdfs_native::HdfsError>() {
            Ok(error) => known(*error),
            Err(source) => Error::Generic { store, source },
        },
        error => error,
    }
}

fn ended() -> Error {
    failure("the upload has ended")
}

fn failure(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Generic { store: "HDFS", source: source.into() }
}
