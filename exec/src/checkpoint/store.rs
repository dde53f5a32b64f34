//! The checkpoints of one job in a folder, and the right to add to them.
//!
//! ```text
//! manifests/00000000000000000007                                  generation 2: checkpoint 5
//! manifests/00000000000000000008                                  generation 3 took over: checkpoint 5
//! manifests/00000000000000000009                                  generation 3: checkpoint 6
//! segments/0000000003-00000000000000000006-9e37…-0                generation, checkpoint, nonce, number
//! ```
//!
//! Manifests are one dense sequence; the newest one counts. All that is asked of the store is that it creates a file only if
//! there is none of that name, and that it lists what is there. Who takes over creates the next number with a higher generation.
//! Whoever comes second to a number is fenced: it stops.
//!
//! Numbers get free again when old manifests are deleted, so a writer that slept through all of that could create one that was
//! taken before. It looks therefore, after it has created a manifest, whether there is a newer one. The newest one is never
//! deleted, so if its number had been taken there is.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use object_store::ObjectStore;
use object_store::path::Path;
use tidemill_core::clock::Clock;
use tidemill_core::event::CheckpointId;
use tidemill_core::sink::Fence;
use tidemill_core::{Error, ErrorKind, Result};

use super::content::{CheckpointContent, Manifest};
use super::files::{Created, Files};
use super::layer::LayerRows;
use super::manifest::{decode, encode};
use super::retention::Retention;

/// The folder of manifests.
const MANIFESTS: &str = "manifests";
/// The folder of segments.
const SEGMENTS: &str = "segments";
/// How often the folder is looked through again when its newest manifest went away meanwhile.
const LOOKS: usize = 5;

/// A folder of checkpoints, as [`CheckpointStore::open`] finds it.
#[derive(Clone, Debug)]
pub struct CheckpointStore {
    files: Files,
    newest: Option<Manifest>,
}

/// The right to add checkpoints to a folder, until somebody takes over.
#[derive(Debug)]
pub struct Writer {
    files: Files,
    newest: Manifest,
    retention: Retention,
    /// A segment that is not named yet, and may be.
    spared: Option<Path>,
}

/// Whether a [`Writer`] still has its right, for those who do not hold it.
#[derive(Clone, Debug)]
pub struct Tenure {
    files: Files,
    /// A manifest of the writer's.
    number: u64,
    generation: u64,
    nonce: u64,
}

#[async_trait]
impl Fence for Tenure {
    async fn check(&self) -> Result<()> {
        let newer = manifests(&self.files, Some(self.number)).await?;
        let Some(newest) = newer.last() else { return Ok(()) };
        match read_numbered(&self.files, newest).await? {
            Some(manifest) if (manifest.generation, manifest.nonce) == (self.generation, self.nonce) => Ok(()),
            _ => Err(taken_over(format!("another process has taken over the checkpoints in '{}'", self.files.root))),
        }
    }
}

/// The error of a process that has lost its job to another one.
fn taken_over(message: String) -> Error {
    Error::cancelled(message).with_hint("another process runs this job; only one of them can go on")
}

impl CheckpointStore {
    /// Looks for the newest checkpoint of a folder. It need not exist.
    ///
    /// Errors: the newest manifest is damaged or of a newer version: that names it and the newest good one, and none is
    /// passed over in silence.
    pub async fn open(store: Arc<dyn ObjectStore>, root: Path, clock: Arc<dyn Clock>) -> Result<Self> {
        let files = Files { store, root, clock };
        for _ in 0..LOOKS {
            let manifests = manifests(&files, None).await?;
            let Some(last) = manifests.last() else { return Ok(Self { files, newest: None }) };
            match read_numbered(&files, last).await {
                Ok(Some(newest)) => return Ok(Self { files, newest: Some(newest) }),
                // A job is at work there, and deletes what is old.
                Ok(None) => continue,
                Err(error) => return Err(name_good_one(&files, &manifests, error).await),
            }
        }
        Err(Error::unavailable(format!("manifests in '{}' go away while they are read", files.path(MANIFESTS))))
    }

    /// The newest manifest, if there is one.
    pub fn newest(&self) -> Option<&Manifest> {
        self.newest.as_ref()
    }

    /// The newest checkpoint, if one has been completed.
    pub fn checkpoint(&self) -> Option<&CheckpointContent> {
        self.newest.as_ref().and_then(|newest| newest.content.completed())
    }

    /// The checkpoint with this number, of those that are kept; `None` if there are none at all.
    ///
    /// Errors: there are others, which it lists.
    pub async fn numbered(&self, checkpoint: CheckpointId) -> Result<Option<CheckpointContent>> {
        let mut known = BTreeSet::new();
        for numbered in manifests(&self.files, None).await?.iter().rev() {
            // Its job may delete it meanwhile.
            let Some(manifest) = read_numbered(&self.files, numbered).await? else { continue };
            match manifest.content.completed() {
                Some(content) if content.checkpoint == checkpoint => return Ok(Some(manifest.content)),
                Some(content) => drop(known.insert(content.checkpoint)),
                None => {}
            }
        }
        if known.is_empty() {
            return Ok(None);
        }
        let known: Vec<String> = known.iter().map(CheckpointId::to_string).collect();
        let error = Error::request(format!("'{}' has no checkpoint {checkpoint}", self.files.root));
        Err(error.with_hint(format!("it has {}", known.join(", "))))
    }

    /// Takes the right to add checkpoints from whoever has it, and removes what was left half done. `nonce` is drawn anew each
    /// time.
    ///
    /// Errors: [`Cancelled`](ErrorKind::Cancelled) if somebody else took over since the folder was opened.
    pub async fn take_over(self, nonce: u64) -> Result<Writer> {
        let Self { files, newest } = self;
        let newest = newest.unwrap_or_default();
        let next =
            Manifest { number: newest.number + 1, generation: newest.generation + 1, nonce, content: newest.content };
        create(&files, &next).await?;
        let mut writer = Writer { files, newest: next, retention: Retention::default(), spared: None };
        // What cannot be removed now is removed later.
        let _ = writer.forget_takeovers().await;
        let _ = writer.sweep().await;
        Ok(writer)
    }
}

impl Writer {
    /// The newest manifest, which is its own.
    pub fn newest(&self) -> &Manifest {
        &self.newest
    }

    /// The newest checkpoint, if one has been completed.
    pub fn checkpoint(&self) -> Option<&CheckpointContent> {
        self.newest.content.completed()
    }

    /// Whether somebody else has taken over.
    pub async fn is_fenced(&self) -> Result<bool> {
        Ok(!manifests(&self.files, Some(self.newest.number)).await?.is_empty())
    }

    /// Tells others, however long they ask, whether this writer still has the right to add checkpoints.
    pub fn tenure(&self) -> Tenure {
        let Manifest { number, generation, nonce, .. } = self.newest;
        Tenure { files: self.files.clone(), number, generation, nonce }
    }

    /// Where a checkpoint's new segment lies, relative to the root; `number` tells those of one checkpoint apart.
    pub fn segment_path(&self, checkpoint: CheckpointId, number: u32) -> Arc<str> {
        let Manifest { generation, nonce, .. } = self.newest;
        format!("{SEGMENTS}/{generation:010}-{checkpoint:020}-{nonce:016x}-{number}").into()
    }

    /// Makes a checkpoint the newest one. When this returns it is complete, and a restart begins from it.
    ///
    /// Errors: [`Cancelled`](ErrorKind::Cancelled) names who took over: the job stops here and commits nothing for this
    /// checkpoint. Should it have been in time, then whoever took over begins from it, and commits. After any other error it is
    /// not known whether the checkpoint is complete; trying again with the same content is safe, and so is a restart.
    pub async fn publish(&mut self, content: CheckpointContent) -> Result<&Manifest> {
        let (before, now) = (self.newest.content.checkpoint, content.checkpoint);
        if now <= before {
            return Err(Error::internal(format!("checkpoint {now} is published after checkpoint {before}")));
        }
        let Manifest { number, generation, nonce, .. } = self.newest;
        let next = Manifest { number: number.saturating_add(1), generation, nonce, content };
        create(&self.files, &next).await?;
        self.newest = next;
        Ok(&self.newest)
    }

    /// Keeps the newest `count` checkpoints, at least one. Older manifests are deleted, then the segments that none of the
    /// remaining manifests names. How many files went away; what could not be deleted stays for the next time.
    pub async fn retain(&mut self, count: usize) -> Result<usize> {
        let Self { files, newest, retention, .. } = self;
        let manifests = manifests(files, None).await?;
        let deleted = retention.delete_manifests(files, newest, &manifests, count.max(1)).await?;
        Ok(deleted + self.sweep().await?)
    }

    /// Leaves a segment in peace that no checkpoint names yet, or no segment any more.
    pub fn spare(&mut self, segment: Option<&str>) {
        self.spared = segment.map(|segment| self.files.path(segment));
    }

    /// How many checkpoints are kept, as of the last [`Writer::retain`].
    pub fn checkpoints_kept(&self) -> usize {
        self.retention.checkpoints()
    }

    /// Deletes all checkpoints, the newest one last: whoever comes next begins anew.
    ///
    /// Errors: of the store; what was not deleted yet stays.
    pub async fn discard(self) -> Result<()> {
        let Self { files, newest, .. } = self;
        // Of what a later generation has written nothing is ours.
        for (_, path) in manifests(&files, None).await?.into_iter().filter(|(number, _)| *number <= newest.number) {
            files.delete(&path).await?;
        }
        for path in files.list(SEGMENTS, None).await?.iter().filter(|path| is_of_generation(path, newest.generation)) {
            files.delete(path).await?;
        }
        Ok(())
    }

    /// Deletes manifests of earlier writers that went on from the same checkpoint and completed none, or thousands of restarts
    /// would leave as many. The one before its own stays, should its own be damaged.
    async fn forget_takeovers(&mut self) -> Result<usize> {
        let Self { files, newest, retention, .. } = self;
        let mut earlier = manifests(files, None).await?;
        earlier.retain(|(number, _)| *number + 1 < newest.number);
        retention.delete_manifests(files, newest, &earlier, usize::MAX).await
    }

    /// Deletes the segments of earlier writers and earlier checkpoints that no manifest names. How many went away.
    async fn sweep(&mut self) -> Result<usize> {
        // Segments first: one that is named by a manifest that was not there yet has to be a newer one.
        let mut segments = self.files.list(SEGMENTS, None).await?;
        let spared = self.spared.as_ref().and_then(|spared| spared.filename());
        // A file that is being written may have a name that is made of its own.
        segments.retain(|path| spared.is_none_or(|spared| !path.filename().is_some_and(|name| name.contains(spared))));
        let manifests = manifests(&self.files, None).await?;
        self.retention.delete_segments(&self.files, &self.newest, &manifests, &segments).await
    }
}

/// The manifests of a folder by number, and their places. Other files are none of ours.
async fn manifests(files: &Files, after: Option<u64>) -> Result<Vec<(u64, Path)>> {
    let after = after.map(|number| manifest_path(files, number));
    let listed = files.list(MANIFESTS, after.as_ref()).await?;
    let numbered = listed.into_iter().filter_map(|path| {
        let (_, number) = manifest_at(&path)?;
        (path == manifest_path(files, number)).then_some((number, path))
    });
    Ok(numbered.collect())
}

/// Whether a segment was written by this generation or an earlier one.
fn is_of_generation(path: &Path, newest: u64) -> bool {
    let generation = path.filename().and_then(|name| name.split('-').next()).and_then(|part| part.parse::<u64>().ok());
    generation.is_some_and(|generation| generation <= newest)
}

fn manifest_path(files: &Files, number: u64) -> Path {
    files.path(&manifest_name(number))
}

/// The name of a manifest below the folder of its checkpoints.
pub fn manifest_name(number: u64) -> String {
    format!("{MANIFESTS}/{number:020}")
}

/// The folder of checkpoints and the number of the manifest in it that a path names, if it is that of a manifest.
pub(super) fn manifest_at(path: &Path) -> Option<(Path, u64)> {
    let number = path.filename().filter(|name| name.len() == 20)?.parse().ok()?;
    let manifests = path.parent().filter(|folder| folder.filename() == Some(MANIFESTS))?;
    Some((manifests.parent().unwrap_or_default(), number))
}

/// A manifest, if it is there.
pub(super) async fn read_manifest(files: &Files, path: &Path) -> Result<Option<Manifest>> {
    let Some(bytes) = files.read(path).await? else { return Ok(None) };
    decode(&bytes).map(Some).map_err(|error| error.context(format!("manifest '{path}'")))
}

/// A manifest of the sequence, if it is there.
pub(super) async fn read_numbered(files: &Files, (number, path): &(u64, Path)) -> Result<Option<Manifest>> {
    match read_manifest(files, path).await? {
        Some(manifest) if manifest.number != *number => {
            Err(Error::corrupt(format!("manifest '{path}': it is number {} in truth", manifest.number)))
        }
        manifest => Ok(manifest),
    }
}

/// The manifest of this number.
///
/// Errors: it is not there; its job may have deleted it.
pub(super) async fn numbered_manifest(files: &Files, number: u64) -> Result<Manifest> {
    let path = manifest_path(files, number);
    read_numbered(files, &(number, path.clone())).await?.ok_or_else(|| {
        let error = Error::request(format!("'{path}' is not there: its job may have deleted it"));
        error.with_hint("name the folder of the checkpoints for the newest of them")
    })
}

/// Creates a manifest, or says who came first.
async fn create(files: &Files, manifest: &Manifest) -> Result<()> {
    let bytes = Bytes::from(encode(manifest)?);
    let created = files.create(&manifest_path(files, manifest.number), &bytes).await?;
    let newer = manifests(files, Some(manifest.number)).await?;
    if created == Created::Ours && newer.is_empty() {
        return Ok(());
    }
    if created == Created::Ours {
        // It took a number that was free again. Nobody reads it; the winner's next retention would delete it too.
        let _ = files.delete(&manifest_path(files, manifest.number)).await;
    }
    let winner = match newer.last() {
        Some((_, path)) => path.clone(),
        None => manifest_path(files, manifest.number),
    };
    let winner = match read_manifest(files, &winner).await {
        Ok(Some(winner)) => format!("generation {}, manifest {}", winner.generation, winner.number),
        Ok(None) => format!("'{winner}', which is gone again"),
        Err(error) => format!("'{winner}', which cannot be read: {error}"),
    };
    let Manifest { number, generation, .. } = manifest;
    let error = format!(
        "another writer has taken over the checkpoints in '{}' ({winner}); generation {generation} comes too late with \
         manifest {number}",
        files.root
    );
    Err(taken_over(error))
}

/// Whether an error is about what a manifest holds: it is damaged, or of another version. Else it was not to be had.
fn is_about_content(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Request)
}

/// The error of the newest manifest, with where one could begin instead.
async fn name_good_one(files: &Files, manifests: &[(u64, Path)], error: Error) -> Error {
    if !is_about_content(&error) {
        return error;
    }
    let (kind, hint) = (error.kind(), error.hint().map(str::to_owned));
    let mut good = "there is no good one".to_owned();
    for numbered in manifests.iter().rev().skip(1) {
        let path = &numbered.1;
        good = match read_numbered(files, numbered).await.map(|found| found.map(|found| found.content.checkpoint)) {
            Ok(Some(0)) => format!("the newest good manifest is '{path}', before the first checkpoint"),
            Ok(Some(checkpoint)) => format!("the newest good one is checkpoint {checkpoint}, manifest '{path}'"),
            Ok(None) => continue,
            Err(error) if is_about_content(&error) => continue,
            // It may be the good one.
            Err(error) => format!("whether an older one is good is not known: {error}"),
        };
        break;
    }
    let hint = hint.unwrap_or_else(|| {
        "restore the file; deleting it goes on from the good one, and what sinks have shown since may come again"
            .to_owned()
    });
    Error::new(kind, format!("{}; {good}", error.message())).with_hint(hint).with_source(error)
}

/// The newest checkpoint before number `before` of which every byte is as it was written, and the last manifest that names it.
/// All of its state is read, one chunk in memory.
///
/// Errors: of the store. What cannot be read now may be whole.
pub async fn newest_whole(
    store: Arc<dyn ObjectStore>,
    root: &Path,
    clock: Arc<dyn Clock>,
    before: CheckpointId,
) -> Result<Option<(CheckpointId, Path)>> {
    let files = Files { store, root: root.clone(), clock };
    let mut checked = None;
    for numbered in manifests(&files, None).await?.iter().rev() {
        let manifest = match read_numbered(&files, numbered).await {
            Ok(Some(manifest)) => manifest,
            Ok(None) => continue,
            Err(error) if is_about_content(&error) => continue,
            // It may be the good one.
            Err(error) => return Err(error),
        };
        let Some(content) = manifest.content.completed().filter(|content| content.checkpoint < before) else {
            continue;
        };
        if checked.replace(content.checkpoint) != Some(content.checkpoint) && is_whole(&files, content).await? {
            return Ok(Some((content.checkpoint, numbered.1.clone())));
        }
    }
    Ok(None)
}

/// Whether all states of a checkpoint can be read.
async fn is_whole(files: &Files, content: &CheckpointContent) -> Result<bool> {
    let states = content.operators.iter().flat_map(|operator| &operator.subtasks).flat_map(|subtask| &subtask.states);
    for layer in states.flat_map(|state| &state.layers).filter(|layer| !layer.chunks.is_empty()) {
        let mut rows = LayerRows::new(files.store.clone(), &files.root, layer.clone());
        loop {
            match rows.peek().await {
                Ok(Some(_)) => drop(rows.take(usize::MAX)),
                Ok(None) => break,
                Err(error) if error.kind() == ErrorKind::Corrupt => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }
    Ok(true)
}

/// The manifest at a path that must be there.
pub(super) async fn required_manifest(files: &Files, path: &Path) -> Result<Manifest> {
    read_manifest(files, path).await?.ok_or_else(|| Error::unavailable(format!("'{path}' is missing")))
}
