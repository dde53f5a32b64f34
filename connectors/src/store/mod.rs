//! Where bytes live: from a URL or a plain path to an object store, and what its errors mean to us.

mod clients;
mod durable;
mod fetch;
mod hdfs;
mod list;
mod remote;
mod synced;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use object_store::local::LocalFileSystem;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use tidemill_core::error::{Error, ErrorKind, FREE_SPACE, Result, nearest};
use tidemill_core::settings::StoreSettings;
use tokio::runtime::Handle;

use clients::{Client, Clients, SCHEMES};

#[cfg(test)]
pub(crate) use durable::journal;
pub(crate) use durable::{
    blocking, make_folder, publish, sync_directory, sync_file, sync_open, wait_for, write_durably,
};
pub use fetch::StoreFetcher;
pub use list::{FileSelection, list_files};
pub(crate) use list::{REPLACE_MARKER, files_in, list_partitions};
pub use synced::SyncedFileSystem;

/// How many names of a folder are looked at for one that was meant.
const NEIGHBOURS_MAX: usize = 10_000;

/// How much of what a server says stands in an error.
const MESSAGE_CHARS_MAX: usize = 400;

/// Where it stands how stores are reached.
const STORE_PAGE: &str = "docs/connectors.md";

/// The object stores that URLs can lead to, by scheme.
#[derive(Clone, Debug)]
pub struct Stores {
    entries: Arc<Vec<Entry>>,
    clients: Option<Arc<Clients>>,
    settings: Arc<StoreSettings>,
}

#[derive(Clone)]
struct Entry {
    prefix: String,
    store: Arc<dyn ObjectStore>,
    multipart: Option<Arc<dyn MultipartStore>>,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.prefix)
    }
}

impl Stores {
    /// The files of this machine: `file://` URLs and plain paths.
    pub fn local() -> Self {
        Self { entries: Arc::default(), clients: None, settings: Arc::default() }
    }

    /// The files of this machine, and the stores of the great schemes (`s3://`, `gs://`, `az://`, `hdfs://`), whose clients run
    /// on `runtime`, or on threads of their own. Credentials are those of the environment.
    pub fn new(runtime: Option<Handle>) -> Self {
        Self { clients: Some(Arc::new(Clients::new(runtime))), ..Self::local() }
    }

    /// The same stores, reached as `settings` say.
    #[must_use]
    pub fn with_settings(&self, settings: StoreSettings) -> Self {
        Self { settings: Arc::new(settings), ..self.clone() }
    }

    /// The same stores and one more: URLs that begin with `prefix` (`s3://bucket`) lead to `store`.
    #[must_use]
    pub fn with(&self, prefix: impl Into<String>, store: Arc<dyn ObjectStore>) -> Self {
        self.and(prefix.into(), store, None)
    }

    /// The same for a store whose multipart uploads can be gone on with by their id, so that a file may grow over several
    /// checkpoints: `multipart` is the same store once more (S3, GCS, Azure).
    #[must_use]
    pub fn with_multipart(
        &self,
        prefix: impl Into<String>,
        store: Arc<dyn ObjectStore>,
        multipart: Arc<dyn MultipartStore>,
    ) -> Self {
        self.and(prefix.into(), store, Some(multipart))
    }

    fn and(&self, prefix: String, store: Arc<dyn ObjectStore>, multipart: Option<Arc<dyn MultipartStore>>) -> Self {
        let mut entries = self.entries.to_vec();
        entries.push(Entry { prefix: prefix.trim_end_matches('/').to_owned(), store, multipart });
        Self { entries: Arc::new(entries), ..self.clone() }
    }

    /// The place that `url` names. Nothing is asked of its store yet.
    pub fn resolve(&self, url: &str) -> Result<Location> {
        let leads = |entry: &&Entry| {
            url.strip_prefix(entry.prefix.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        if let Some(Entry { prefix, store, multipart }) = self.entries.iter().find(leads) {
            let path = Path::parse(url[prefix.len()..].trim_matches('/')).map_err(|error| bad_path(url, error))?;
            let (store, multipart) = (store.clone(), multipart.clone());
            return Ok(Location { store, multipart, prefix: prefix.as_str().into(), path, local: false });
        }
        match (url.split_once("://"), &self.settings.default_scheme) {
            (None, Some(scheme)) if url.starts_with('/') && !scheme.starts_with("file:") => {
                self.remote(&format!("{}{url}", scheme.trim_end_matches('/')))
            }
            (None, _) => Location::local(url),
            // RFC 8089: an empty host or `localhost`, then an absolute path.
            (Some(("file", rest)), _) => Location::local(rest.strip_prefix("localhost").unwrap_or(rest)),
            (Some(_), _) => self.remote(url),
        }
    }

    fn remote(&self, url: &str) -> Result<Location> {
        let (scheme, rest) = url.split_once("://").unwrap_or_default();
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let client = match &self.clients {
            Some(clients) => clients.client(scheme, authority, &self.settings)?,
            None => None,
        };
        let Some(Client { store, multipart }) = client else {
            if self.clients.is_some() && matches!(scheme, "http" | "https") {
                return Err(no_web(scheme, url));
            }
            return Err(Error::request(format!("no store for '{scheme}://' of '{url}'")).with_hint(self.known()));
        };
        let path = Path::parse(path.trim_matches('/')).map_err(|error| bad_path(url, error))?;
        Ok(Location { store, multipart, prefix: format!("{scheme}://{authority}").into(), path, local: false })
    }

    /// What paths can begin with here.
    fn known(&self) -> String {
        let remote = SCHEMES.iter().filter(|_| self.clients.is_some()).map(|scheme| format!("{scheme}://"));
        let others: Vec<String> = remote.chain(self.entries.iter().map(|entry| entry.prefix.clone())).collect();
        let others: String = others.iter().map(|other| format!(", {other}")).collect();
        format!("paths of this machine can be read, and file:// URLs{others}")
    }
}

/// Why the web is no store.
///
/// WebDAV would have folders, but creates no name only once, which is what fences one of two writers of checkpoints; plain HTTP has
/// neither.
fn no_web(scheme: &str, url: &str) -> Error {
    let error =
        format!("'{url}' is no place in a store: over {scheme} no name is created only once, and no folder listed");
    Error::request(error).with_hint(format!(
        "copy the file to this machine, or to one of {}; an S3 server that speaks {scheme} is 's3://BUCKET/PATH' with 's3.endpoint' set",
        SCHEMES.map(|scheme| format!("{scheme}://")).join(", ")
    ))
}

/// An object in a store, or a prefix of objects.
#[derive(Clone)]
pub struct Location {
    /// The store.
    pub store: Arc<dyn ObjectStore>,
    /// The path within it.
    pub path: Path,
    multipart: Option<Arc<dyn MultipartStore>>,
    prefix: Arc<str>,
    local: bool,
}

impl Location {
    /// A path of this machine; a relative one starts at the working directory.
    pub fn local(path: &str) -> Result<Self> {
        let absolute = std::path::absolute(path)
            .map_err(|error| Error::request(format!("path '{path}' is not usable")).with_source(error))?;
        let path = Path::from_absolute_path(without_parents(&absolute)).map_err(|error| bad_path(path, error))?;
        Ok(Self { store: Arc::new(LocalFileSystem::new()), multipart: None, path, prefix: "".into(), local: true })
    }

    /// Another path of the same store.
    #[must_use]
    pub fn at(&self, path: Path) -> Self {
        Self { path, ..self.clone() }
    }

    /// The object or prefix `name` below this one.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        // `join` would percent-encode what is special in object paths, and a local file would get that for its name.
        let raw = Path::parse(format!("{}/{name}", self.path));
        self.at(raw.unwrap_or_else(|_| self.path.clone().join(name)))
    }

    /// The prefix that this one is in.
    #[must_use]
    pub fn parent(&self) -> Self {
        self.at(self.path.parent().unwrap_or_default())
    }

    /// The last part of the path.
    pub fn name(&self) -> &str {
        self.path.filename().unwrap_or_default()
    }

    /// Where the URLs of the store begin: `file://`, `s3://bucket`.
    pub fn store_url(&self) -> String {
        if self.local { "file://".to_owned() } else { self.prefix.to_string() }
    }

    /// Whether this is a file of this machine, where renames are atomic and nothing is durable before it is synced.
    pub fn is_local(&self) -> bool {
        self.local
    }

    /// The store's multipart uploads, if they can be gone on with by their id.
    pub fn multipart(&self) -> Option<&Arc<dyn MultipartStore>> {
        self.multipart.as_ref()
    }

    /// The path in the file system, if it is one of this machine.
    pub fn file_path(&self) -> Option<PathBuf> {
        self.local.then(|| PathBuf::from(self.to_string()))
    }

    /// The same place in a store whose word can be relied on when power fails: on this machine files are synced.
    #[must_use]
    pub fn durable(&self) -> Self {
        match self.local {
            true => Self { store: Arc::new(SyncedFileSystem::default()), ..self.clone() },
            false => self.clone(),
        }
    }

    /// Size and age, or `None` if there is no such object.
    pub async fn head(&self) -> Result<Option<ObjectMeta>> {
        match self.store.head(&self.path).await {
            Ok(meta) => Ok(Some(meta)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            // Below a file there is nothing either.
            Err(error) if io_error(&error).is_some_and(|io| io.kind() == std::io::ErrorKind::NotADirectory) => Ok(None),
            Err(error) => Err(self.error(error)),
        }
    }

    /// Bytes `range` of the object.
    pub async fn read(&self, range: std::ops::Range<u64>) -> Result<bytes::Bytes> {
        self.store.get_range(&self.path, range).await.map_err(|error| self.error(error))
    }

    /// Removes the object; that it is gone already is no error.
    pub async fn delete(&self) -> Result<()> {
        match self.store.delete(&self.path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.error(error)),
        }
    }

    /// What a store's error means: its kind from the error below it, its message with this place in front.
    pub fn error(&self, error: object_store::Error) -> Error {
        match error {
            object_store::Error::NotFound { .. } => self.missing().with_source(error),
            error => store_error(self, error),
        }
    }

    /// The error for a place where nothing is; on this machine it knows what is there instead.
    pub(crate) fn missing(&self) -> Error {
        let error = Error::unavailable(format!("{self} does not exist"));
        let Some(path) = self.file_path() else {
            return error.with_hint(format!("check the path, and that '{}' is there", self.prefix));
        };
        let folder = path.parent().unwrap_or(&path);
        let Ok(entries) = std::fs::read_dir(folder) else {
            return error.with_hint(format!("neither does the folder {}", folder.display()));
        };
        let names = entries.flatten().take(NEIGHBOURS_MAX).filter_map(|entry| entry.file_name().into_string().ok());
        let names: Vec<String> = names.filter(|name| !name.starts_with('.')).collect();
        match nearest(self.name(), names.iter().map(String::as_str)) {
            Some(near) => error.with_hint(format!("did you mean '{near}'?")),
            None => error.with_hint(format!("nothing in {} has a name like it", folder.display())),
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.prefix, self.path)
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// An absolute path without `..`, which paths of stores cannot have. It is read as text, as it is in URLs: what a path goes
/// through need not be there yet, and where links lead does not matter.
fn without_parents(path: &std::path::Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            std::path::Component::ParentDir => drop(plain.pop()),
            component => plain.push(component),
        }
    }
    plain
}

fn bad_path(path: &str, error: object_store::path::Error) -> Error {
    Error::request(format!("path '{path}' is not usable")).with_source(error)
}

pub(crate) fn store_error(place: impl fmt::Display, error: object_store::Error) -> Error {
    use object_store::Error as E;
    let message = match &error {
        E::NotFound { .. } => format!("{place} does not exist"),
        E::PermissionDenied { .. } | E::Unauthenticated { .. } => {
            format!("{place}: permission denied ({})", brief(innermost(&error)))
        }
        E::AlreadyExists { .. } => format!("{place} exists already"),
        other => format!("{place}: {}", brief(innermost(other))),
    };
    let kind = kind_of(&error);
    let plain = Error::new(kind, message);
    let plain = if kind == ErrorKind::Exhausted { plain.with_hint(FREE_SPACE) } else { plain };
    plain.with_source(error)
}

/// The kind of the I/O error below `error`, or `Unavailable`.
fn kind_of(error: &(dyn std::error::Error + 'static)) -> ErrorKind {
    use object_store::Error as E;
    match io_error(error).map(std::io::Error::kind) {
        Some(std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded) => ErrorKind::Exhausted,
        // What a store cannot do it will not do later.
        _ if matches!(error.downcast_ref(), Some(E::NotImplemented { .. } | E::NotSupported { .. })) => {
            ErrorKind::Request
        }
        _ => ErrorKind::Unavailable,
    }
}

/// What clients of stores say of an answer that is an error, in front of its status. A denied list is nothing but that text: its type is
/// their own.
const STATUS: &str = "Server returned non-2xx status code: ";

/// Whether a place may not be looked at.
pub(crate) fn is_denied(error: &Error) -> bool {
    use object_store::Error as E;
    let mut current = std::error::Error::source(error);
    while let Some(error) = current {
        let is_denied = match (error.downcast_ref(), error.downcast_ref::<std::io::Error>()) {
            (Some(E::PermissionDenied { .. } | E::Unauthenticated { .. }), _) => true,
            (_, Some(io)) => io.kind() == std::io::ErrorKind::PermissionDenied,
            _ => {
                let message = error.to_string();
                message
                    .strip_prefix(STATUS)
                    .is_some_and(|status| status.starts_with("403") || status.starts_with("401"))
            }
        };
        if is_denied {
            return true;
        }
        current = error.source();
    }
    false
}

fn io_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a std::io::Error> {
    let mut current = Some(error);
    while let Some(error) = current {
        if let Some(io) = error.downcast_ref() {
            return Some(io);
        }
        current = error.source();
    }
    None
}

/// The message at the bottom says what happened; those above it say where, which we know better.
fn innermost<'a>(error: &'a (dyn std::error::Error + 'static)) -> &'a (dyn std::error::Error + 'static) {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest
}

/// The beginning of a message: servers answer with pages.
fn brief(message: impl fmt::Display) -> String {
    let message = message.to_string();
    let line = message.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MESSAGE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_paths_and_file_urls_meet() {
        let stores = Stores::local();
        let plain = stores.resolve("/data/flights #1.csv").unwrap();
        let url = stores.resolve("file:///data/flights #1.csv").unwrap();
        assert_eq!(plain.path, url.path);
        assert_eq!(plain.to_string(), "/data/flights #1.csv");
        let error = stores.resolve("s3://bucket/key").unwrap_err().to_string();
        assert_eq!(
            error,
            "no store for 's3://' of 's3://bucket/key'; paths of this machine can be read, and file:// URLs"
        );
    }

    #[test]
    fn parents_are_left_where_they_stand() {
        let resolved = |path: &str| Stores::local().resolve(path).unwrap().to_string();
        let folder = std::env::current_dir().unwrap();
        assert_eq!(resolved("../n.csv"), format!("{}/n.csv", folder.parent().unwrap().display()));
        assert_eq!(resolved("file:///tmp/a/../b/./n.csv"), "/tmp/b/n.csv");
        assert_eq!(resolved("/tmp/a/../../../*.csv"), "/*.csv");
    }

    #[test]
    fn a_registered_prefix_leads_to_its_store() {
        let stores = Stores::local().with("s3://lake", Arc::new(object_store::memory::InMemory::new()));
        let place = stores.resolve("s3://lake/a/b.csv").unwrap();
        assert_eq!((place.path.as_ref(), place.to_string().as_str()), ("a/b.csv", "s3://lake/a/b.csv"));
        assert!(stores.resolve("s3://lakeside/a").is_err());
    }

    #[test]
    fn schemes_lead_to_their_stores_and_others_are_told_which_there_are() {
        let settings = StoreSettings { default_scheme: Some("hdfs://nn:8020/".into()), ..StoreSettings::default() };
        let stores = Stores::new(None).with_settings(settings);
        for url in ["s3://lake/a/b.csv", "s3a://lake/a/b.csv", "hdfs://nn:8020/a/b.csv"] {
            let place = stores.resolve(url).unwrap();
            assert_eq!((place.to_string().as_str(), place.path.as_ref()), (url, "a/b.csv"));
            assert_eq!((place.multipart().is_some(), place.is_local()), (url.starts_with("s3"), false));
        }
        assert_eq!(stores.resolve("/a/b").unwrap().to_string(), "hdfs://nn:8020/a/b");
        assert!(stores.resolve("a/b").unwrap().is_local() && stores.resolve("file:///a/b").unwrap().is_local());
        let error = stores.resolve("ftp://host/x").unwrap_err().to_string();
        assert!(error.starts_with("no store for 'ftp://'") && error.contains("s3://, s3a://, gs://"), "{error}");
        let error = stores.resolve("s3:///x").unwrap_err().to_string();
        assert!(error.contains("names no bucket"), "{error}");
    }

    #[test]
    fn the_web_is_no_store_unless_somebody_says_so() {
        let stores = Stores::new(None);
        for url in ["http://host:8080/checkpoints", "https://host/data/*.csv"] {
            let error = stores.resolve(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Request);
            let text = error.to_string();
            assert!(text.starts_with(&format!("'{url}' is no place in a store")), "{text}");
            assert!(text.contains("created only once") && text.contains("'s3.endpoint'"), "{text}");
        }
        let stores = stores.with("https://host", Arc::new(object_store::memory::InMemory::new()));
        assert_eq!(stores.resolve("https://host/data").unwrap().to_string(), "https://host/data");
    }

    #[test]
    fn a_denied_list_is_told_by_its_status() {
        let denied = |answer: &'static str| {
            let error = object_store::Error::Generic { store: "S3", source: answer.into() };
            is_denied(&store_error("s3://lake", error))
        };
        assert!(denied("Server returned non-2xx status code: 403 Forbidden: <Code>AccessDenied</Code>"));
        assert!(denied("Server returned non-2xx status code: 401 Unauthorized: "));
        assert!(!denied("Server returned non-2xx status code: 503 Slow Down: 403 times"));
        assert!(!denied("no such file: Server returned non-2xx status code: 403"));
    }

    #[test]
    fn a_full_disk_is_exhausted() {
        let source = Box::new(std::io::Error::from(std::io::ErrorKind::StorageFull));
        let error = store_error("/out/part", object_store::Error::Generic { store: "local", source });
        assert_eq!(error.kind(), ErrorKind::Exhausted);
        assert!(error.to_string().starts_with("/out/part: "));
    }
}
