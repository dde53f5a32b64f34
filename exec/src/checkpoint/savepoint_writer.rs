//! The files of a savepoint that is being written: one Parquet file for each state of each subtask of an operator.
//!
//! ```text
//! state/<operator>-<id>/<state>/<subtask>-<nonce>.parquet            all of it
//! state/<operator>-<id>/<state>.changes/<subtask>-<n>-<nonce>.parquet     what is laid over it, where a state comes in several layers
//! ```
//!
//! So `state/<operator>-<id>/<state>/*.parquet` is a table. States without rows have no file. The nonce is the writer's: of two
//! that found the same folder empty neither writes over files of the other, nor takes them away when it gives up (SVP-01).

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use bytes::Bytes;
use object_store::ObjectStore;
use object_store::path::Path;
use tidemill_core::clock::Clock;
use tidemill_core::graph::OperatorId;
use tidemill_core::state::{Extent, StateDescriptor, StateKind};
use tidemill_core::{Error, Result};

use super::content::{StoredLayer, StoredSegment};
use super::files::{Files, below};
use super::parquet::{EXTENSION, Label, write_file};
use super::patient::patient;
use super::segment::CHUNK_ROWS_MAX;
use super::upload::Upload;

/// A file that is there for a moment while somebody looks whether a savepoint can be written.
const PROBE: &str = "_writable";
/// The folder of states.
const STATE: &str = "state";
/// The most characters of a name that go into the name of a folder.
const NAME_CHARACTERS_MAX: usize = 60;

/// Whose state it is.
#[derive(Clone, Copy, Debug)]
pub struct StateOwner<'a> {
    /// The operator.
    pub operator: OperatorId,
    /// Its name.
    pub name: &'a str,
    /// Which subtask of it, from 0.
    pub subtask: usize,
}

/// The files of a savepoint without its manifest. Each is there as soon as it is written.
pub struct SavepointWriter {
    files: Files,
    /// Ends the names of its files, and of no other writer's.
    nonce: u64,
    /// Names are those of the states, as far as files can be called so; it tells apart those that become the same.
    taken: BTreeSet<String>,
    written: Vec<StoredSegment>,
    /// The file that is being written.
    begun: Option<(Arc<str>, Upload)>,
    chunk_rows: usize,
}

impl SavepointWriter {
    /// Begins a savepoint in the folder `root`. `nonce` is drawn anew for each: it tells this writer from all others that may have
    /// begun one there.
    ///
    /// Errors: there is something in it.
    pub async fn create(store: Arc<dyn ObjectStore>, root: &Path, clock: Arc<dyn Clock>, nonce: u64) -> Result<Self> {
        let files = Files { store, root: root.clone(), clock };
        check_empty(&files).await?;
        let (taken, written) = (BTreeSet::new(), Vec::new());
        Ok(Self { files, nonce, taken, written, begun: None, chunk_rows: CHUNK_ROWS_MAX })
    }

    /// The same with at most `rows` rows a chunk, so that ranges of key groups are read more finely.
    #[must_use]
    pub fn with_chunk_rows(self, rows: usize) -> Self {
        Self { chunk_rows: rows.clamp(1, CHUNK_ROWS_MAX), ..self }
    }

    /// Writes rows of a state.
    pub async fn write_batches(
        &mut self,
        owner: StateOwner<'_>,
        extent: Extent,
        descriptor: &StateDescriptor,
        batches: &[RecordBatch],
    ) -> Result<StoredLayer> {
        let schema = descriptor.schema.clone();
        if batches.iter().all(|batch| batch.num_rows() == 0) {
            return Ok(StoredLayer { extent, schema, segment: "".into(), chunks: Vec::new() });
        }
        let path: Arc<str> = self.path(owner, extent, descriptor).into();
        let store = patient(self.files.store.clone(), self.files.clock.clone());
        let upload = Upload::new(store, below(&self.files.root, &path));
        // Kept here, where whoever drops this call midway can take back what the store has got.
        let (_, upload) = self.begun.insert((path.clone(), upload));
        let written = write_file(upload, labels(owner, extent, descriptor), descriptor, batches, self.chunk_rows).await;
        let (chunks, bytes) =
            written.map_err(|error| error.context(format!("state '{}' of '{}'", descriptor.name, owner.name)))?;
        self.written.push(StoredSegment { path: path.clone(), bytes });
        self.begun = None;
        Ok(StoredLayer { extent, schema, segment: path, chunks })
    }

    /// The files so far.
    pub fn written(&self) -> &[StoredSegment] {
        &self.written
    }

    /// Deletes what was written, as well as it can.
    pub async fn abort(mut self) {
        if let Some((_, upload)) = &mut self.begun {
            upload.abort().await;
        }
        let begun = self.begun.iter().map(|(path, _)| path);
        let paths = begun.chain(self.written.iter().map(|segment| &segment.path));
        let paths: Vec<Path> = paths.map(|path| self.files.path(path)).collect();
        self.files.delete_all(&paths).await;
    }

    /// A name that no other file has.
    fn path(&mut self, owner: StateOwner<'_>, extent: Extent, descriptor: &StateDescriptor) -> String {
        let StateOwner { operator, name, subtask } = owner;
        let state = format!("{STATE}/{}-{operator}/{}", file_name(name), file_name(&descriptor.name));
        let whole = format!("{state}/{subtask}");
        let mut path = if extent == Extent::Whole { whole } else { format!("{state}.changes/{subtask}-1") };
        let mut number = 2;
        while !self.taken.insert(path.clone()) {
            path = match extent {
                Extent::Whole => format!("{state}.{number}/{subtask}"),
                _ => format!("{state}.changes/{subtask}-{number}"),
            };
            number += 1;
        }
        format!("{path}-{:016x}{EXTENSION}", self.nonce)
    }
}

impl fmt::Debug for SavepointWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SavepointWriter({}, {} files)", self.files.root, self.written.len())
    }
}

/// Looks whether a savepoint can be written into the folder `root`, before anybody relies on it: nothing is in it, and a file
/// can be created there.
///
/// Errors: something is in it; the error of the store.
pub async fn check_savepoint_folder(store: Arc<dyn ObjectStore>, root: &Path, clock: Arc<dyn Clock>) -> Result<()> {
    let files = Files { store, root: root.clone(), clock };
    check_empty(&files).await?;
    let probe = files.path(PROBE);
    // One that a killed process has left is as good.
    files.create(&probe, &Bytes::from_static(PROBE.as_bytes())).await?;
    files.delete(&probe).await
}

async fn check_empty(files: &Files) -> Result<()> {
    let probe = files.path(PROBE);
    match files.list("", None).await?.iter().find(|path| **path != probe) {
        None => Ok(()),
        Some(found) => {
            let error = format!("the folder for a savepoint, '{}', is not empty: it holds '{found}'", files.root);
            Err(Error::request(error).with_hint("give another folder, or dispose of the savepoint there"))
        }
    }
}

/// What a file says about itself.
fn labels(owner: StateOwner<'_>, extent: Extent, descriptor: &StateDescriptor) -> Vec<Label> {
    let kind = kind_name(descriptor.kind);
    let mut labels = vec![
        ("tidemill.operator", owner.name.to_owned()),
        ("tidemill.operator.id", owner.operator.to_string()),
        ("tidemill.subtask", owner.subtask.to_string()),
        ("tidemill.state", descriptor.name.clone()),
        ("tidemill.kind", kind.to_owned()),
        ("tidemill.extent", extent_name(extent).to_owned()),
    ];
    let keys = tidemill_core::state::key_columns(&descriptor.schema);
    labels.extend(keys.map(|keys| ("tidemill.key_columns", keys.len().to_string())));
    labels
}

/// A kind of state in one word.
pub(super) fn kind_name(kind: StateKind) -> &'static str {
    match kind {
        StateKind::Keyed => "keyed",
        StateKind::List => "list",
        StateKind::UnionList => "union list",
        StateKind::Broadcast => "broadcast",
    }
}

/// An extent in one word.
pub(super) fn extent_name(extent: Extent) -> &'static str {
    match extent {
        Extent::Whole => "whole",
        Extent::Changed => "changed",
        Extent::Added => "added",
        Extent::Removed => "removed",
    }
}

/// A name as part of a path that needs no quotes anywhere: whatever is not plain becomes one `_`.
fn file_name(name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let words = name.split(|c| !is_plain(c)).filter(|word| !word.is_empty());
    let name: String = words.collect::<Vec<_>>().join("_").chars().take(NAME_CHARACTERS_MAX).collect();
    if name.is_empty() { "_".to_owned() } else { name }
}
