//! Publishes part files: at each commit, or all together when the job has ended well.

mod clean;
mod rescaled;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStoreExt;
use tidemill_core::error::{Error, Result};
use tidemill_core::sink::{Committable, Committer, Fence, Predecessor, WriterState};

use super::part::{IN_PROGRESS, Part, PartName, PartState, Prepared, READY, UPLOAD, Upload, folder_of, lost};
use super::partition_commit::{PartitionCommit, PartitionCommitter, Progress};
use super::replace::{Replacement, finish_replacement_of, marker_of, names_below, names_in};
use super::target::{STAGED_BYTES, complete_upload};
use crate::formats::Format;
use crate::store::{Location, REPLACE_MARKER, files_in, is_denied, make_folder, publish, sync_directory, sync_file};

/// Parts that are committed at a time: a store that is away makes each of them wait.
const COMMITS: usize = 16;

/// When parts become visible, and as what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Publication {
    /// At each commit, under their own names.
    EachCommit,
    /// When the job has ended, under their own names, in place of the files that were there.
    Replacing,
    /// When the job has ended, those of one subtask as one file of its name.
    Named {
        /// Names by subtask.
        names: Vec<String>,
        /// Whether everything else in the directory goes.
        clears: bool,
    },
}

impl Publication {
    /// The names of files that are known beforehand.
    pub(super) fn names(&self) -> &[String] {
        match self {
            Self::Named { names, .. } => names,
            Self::EachCommit | Self::Replacing => &[],
        }
    }
}

/// What a committer knows of its sink.
#[derive(Clone, Debug)]
pub(super) struct CommitSettings {
    pub(super) table: Location,
    pub(super) job: Arc<str>,
    pub(super) publication: Publication,
    /// Whether files that are there are not replaced.
    pub(super) keeps_old: bool,
    /// Where hidden files of the job are that it wrote when one subtask had become several, or several one.
    pub(super) elsewhere: Option<Location>,
    /// Whether a run of the job that had been killed while it ended has only now got its files there.
    pub(super) has_ended_elsewhere: bool,
    /// Set when a job goes on: parts that its writers begin from now on come behind all that it has committed for its end, even where
    /// a clock is behind that of the machine which wrote those.
    pub(super) opened_min: Arc<AtomicI64>,
    pub(super) format: Format,
    /// Whether parts lie in folders below the table.
    pub(super) is_partitioned: bool,
    pub(super) partition_commit: Option<PartitionCommit>,
}

#[derive(Debug)]
pub(super) struct FileCommitter {
    settings: CommitSettings,
    /// Whether the directory is ours to remove again.
    is_new: bool,
    partitions: Option<PartitionCommitter>,
    /// Whom to ask before anything is removed.
    fence: Arc<Mutex<Option<Arc<dyn Fence>>>>,
}

impl FileCommitter {
    /// Makes the directory, so that a job without rows leaves an empty table and not a missing one.
    pub(super) async fn prepare(settings: CommitSettings) -> Result<Self> {
        let (table, job) = (&settings.table, &settings.job);
        let mut is_new = false;
        if let Some(path) = table.file_path() {
            // A file that has its name goes when it is known that the job may begin.
            let parent_of_file = path.parent().filter(|_| path.is_file());
            is_new = parent_of_file.is_some() || !path.exists();
            let probe = PartName::probe(job, &settings.format.extension());
            let usable = match parent_of_file {
                Some(parent) => check_writable(&parent.join(probe)).map_err(|error| no_files(table, error)),
                None => {
                    make_folder(table).await?;
                    check_writable(&path.join(probe))
                        .map_err(|error| no_files(table, error))
                        .and_then(|()| check_names(table, settings.publication.names()))
                }
            };
            if usable.is_err() && is_new {
                // Not empty means that someone else wrote there meanwhile.
                let _ = std::fs::remove_dir(&path);
            }
            usable?;
        }
        let policy = settings.partition_commit.clone();
        let partitions = policy.map(|policy| PartitionCommitter::new(policy, table.clone(), job.clone()));
        Ok(Self { settings, is_new, partitions, fence: Arc::default() })
    }

    fn table(&self) -> &Location {
        &self.settings.table
    }

    /// Files of the table that begin with this name, hidden ones too: folder and name.
    async fn files_named(&self, beginning: &str) -> Result<Vec<(String, String)>> {
        let mut files = match self.settings.is_partitioned {
            true => names_below(self.table()).await?,
            false => names_in(self.table()).await?.into_iter().map(|name| (String::new(), name)).collect(),
        };
        files.retain(|(_, name)| name.starts_with(beginning));
        Ok(files)
    }

    /// Committed parts that wait for the end of the job, by folder.
    async fn ready_parts(&self) -> Result<BTreeMap<String, Vec<PartName>>> {
        let mut parts = BTreeMap::<String, Vec<PartName>>::new();
        for (folder, name) in self.files_named(&format!(".{}", PartName::prefix(&self.settings.job))).await? {
            if let Some(part) = PartName::of_hidden(&name, &self.settings.job, READY) {
                parts.entry(folder).or_default().push(part);
            }
        }
        Ok(parts)
    }

    /// New parts for all files that are in a directory.
    async fn replacing(&self, directory: &Location, parts: Vec<PartName>) -> Result<Replacement> {
        let files = files_in(directory).await?;
        let own = PartName::prefix(&self.settings.job);
        let old = files.iter().filter_map(|file| file.location.filename()).filter(|name| !name.starts_with(&own));
        Ok(Replacement {
            condemned: old.map(str::to_owned).collect(),
            published: parts.iter().map(|part| (part.ready(), part.as_str().to_owned())).collect(),
        })
    }

    /// One file a subtask: its only part, or its parts one after the other. Those of subtasks that there are no more come with those of
    /// others.
    async fn naming(&self, parts: Vec<PartName>, names: &[String]) -> Result<Replacement> {
        let mut by_name = BTreeMap::<&String, Vec<PartName>>::new();
        for part in parts {
            let name = part.whole(names).ok_or_else(|| Error::corrupt(format!("no part: {}", part.as_str())))?;
            by_name.entry(name).or_default().push(part);
        }
        let mut replacement = Replacement::default();
        for (name, mut parts) in by_name {
            // The rows of a subtask stay in their order.
            parts.sort_by_key(|part| part.order().map(|(subtask, order)| (order, subtask)));
            let hidden = match parts.as_slice() {
                [only] => only.ready(),
                parts => {
                    replacement.condemned.extend(parts.iter().map(PartName::ready));
                    self.concatenate(parts, name).await?
                }
            };
            replacement.published.push((hidden, name.clone()));
        }
        Ok(replacement)
    }

    async fn concatenate(&self, parts: &[PartName], file: &str) -> Result<String> {
        if !self.settings.format.is_concatenable() {
            let message = format!("{} parts of one {} file", parts.len(), self.settings.format.name());
            return Err(Error::internal(message));
        }
        let place = self.settings.publication.names().iter().position(|name| name == file).unwrap_or_default();
        let name = format!(".{}whole-{place}{IN_PROGRESS}", PartName::prefix(&self.settings.job));
        let whole = self.table().child(&name);
        let mut upload = whole.store.put_multipart(&whole.path).await.map_err(|error| whole.error(error))?;
        let mut gathered = Vec::new();
        for part in parts {
            let place = self.table().child(&part.ready());
            let mut blocks = place.store.get(&place.path).await.map_err(|error| place.error(error))?.into_stream();
            while let Some(block) = blocks.try_next().await.map_err(|error| place.error(error))? {
                gathered.extend_from_slice(&block);
                if gathered.len() >= STAGED_BYTES {
                    let bytes = std::mem::take(&mut gathered);
                    upload.put_part(bytes.into()).await.map_err(|error| whole.error(error))?;
                }
            }
        }
        upload.put_part(gathered.into()).await.map_err(|error| whole.error(error))?;
        upload.complete().await.map_err(|error| whole.error(error))?;
        sync_file(&whole).await?;
        Ok(whole.name().to_owned())
    }

    /// Clears the way for the final names: what is there is only now replaced. A folder never is.
    async fn clear(&self, replacement: &Replacement, clears_all: bool) -> Result<()> {
        for (_, name) in &replacement.published {
            let target = self.table().child(name);
            if is_folder(&target).await? {
                return Err(folder_in_the_way(&target));
            }
        }
        if clears_all {
            let names = names_in(self.table()).await?;
            for name in names.iter().filter(|name| !name.starts_with('.')) {
                self.table().child(name).delete().await?;
            }
        }
        Ok(())
    }

    /// Whether a part was committed before.
    async fn is_committed(&self, part: &Part) -> Result<bool> {
        if part.published(self.table()).head().await?.is_some() {
            return Ok(true);
        }
        let waits = self.settings.publication != Publication::EachCommit;
        Ok(waits && part.ready(self.table()).head().await?.is_some())
    }

    /// What to say of a part that is nowhere. Where the job had ended it may have become a piece of another file.
    async fn gone(&self, part: &Part) -> Result<()> {
        if let Publication::Named { names, .. } = &self.settings.publication
            && let Some(name) = part.name.whole(names)
            && self.table().child(name).head().await?.is_some()
        {
            return Ok(());
        }
        Err(lost(part, self.table()))
    }

    /// Commits a part, or gives what a subtask says of partitions.
    async fn commit_one(&self, committable: Committable) -> Result<Option<Progress>> {
        match Prepared::decode(&committable)? {
            Prepared::Part(part, upload) => self.commit_part(&part, upload.as_ref()).await.map(|()| None),
            Prepared::Progress(said) => Ok(Some(said)),
        }
    }

    async fn commit_part(&self, part: &Part, upload: Option<&Upload>) -> Result<()> {
        let shown = match self.settings.publication {
            Publication::EachCommit => part.published(self.table()),
            _ => part.ready(self.table()),
        };
        let Some(upload) = upload else {
            let hidden = part.in_progress(self.table());
            return match hidden.head().await?.is_some() {
                true => publish(&hidden, &shown).await,
                // Whoever committed it may have been killed before that was on the disk.
                false if self.is_committed(part).await? => sync_directory(&shown).await,
                false => self.gone(part).await,
            };
        };
        let note = part.upload_note(self.table());
        if !self.is_committed(part).await?
            && let Err(error) = complete_upload(&shown, upload).await
            // The answer may have been lost on its way, or the upload.
            && !self.is_committed(part).await?
        {
            let is_known = note.head().await?.is_some() && !matches!(error, object_store::Error::NotFound { .. });
            if is_known {
                return Err(shown.error(error));
            }
            self.gone(part).await?;
        }
        note.delete().await
    }

    /// What another run of the job has begun to publish at its end counts already.
    async fn end_other_run(&self) -> Result<()> {
        for (directory, _) in self.markers().await? {
            let shown = finish_replacement_of(&directory, &self.settings.job).await?.published;
            if let Some((_, name)) = shown.first().filter(|_| self.settings.keeps_old) {
                return Err(exists_already(&directory.child(name)));
            }
        }
        Ok(())
    }

    fn own_job(&self) -> BTreeSet<String> {
        BTreeSet::from([self.settings.job.to_string()])
    }

    /// The folders of the table in which a replacement of this job has begun.
    async fn markers(&self) -> Result<Vec<(Location, Location)>> {
        if !self.settings.is_partitioned {
            let marker = marker_of(self.table(), &self.settings.job);
            let found = marker.head().await?.is_some();
            return Ok(found.then(|| (self.table().clone(), marker)).into_iter().collect());
        }
        let name = format!("{REPLACE_MARKER}{}", self.settings.job);
        let mut markers = Vec::new();
        for (folder, found) in self.files_named(&name).await? {
            if found == name {
                let directory = folder_of(self.table(), &folder);
                markers.push((directory.clone(), directory.child(&name)));
            }
        }
        Ok(markers)
    }

    /// Publishes the parts that wait for the end, in all folders, then raises the first error.
    async fn replace(&self) -> Result<()> {
        let (mut outcome, mut unfinished) = (Ok(()), BTreeSet::new());
        let markers = self.markers().await?;
        for (directory, marker) in &markers {
            let resumed = resume_replacement(directory, marker).await;
            if resumed.is_err() {
                // What the marker says counts already: no other may take its place.
                unfinished.insert(directory.path.clone());
            }
            outcome = outcome.and(resumed);
        }
        if !self.settings.is_partitioned && !markers.is_empty() {
            return outcome;
        }
        let mut parts = self.ready_parts().await?;
        if !self.settings.is_partitioned {
            // Without new rows old ones go, too.
            parts.entry(String::new()).or_default();
        }
        for (folder, parts) in parts {
            let directory = folder_of(self.table(), &folder);
            if !unfinished.contains(&directory.path) {
                outcome = outcome.and(self.replace_in(&directory, parts).await);
            }
        }
        outcome
    }

    /// Publishes the parts that wait in one folder.
    async fn replace_in(&self, directory: &Location, parts: Vec<PartName>) -> Result<()> {
        let replacement = match &self.settings.publication {
            Publication::Named { names, clears } => {
                let replacement = self.naming(parts, names).await?;
                if replacement != Replacement::default() {
                    self.clear(&replacement, *clears).await?;
                }
                replacement
            }
            _ => self.replacing(directory, parts).await?,
        };
        if replacement == Replacement::default() {
            return Ok(());
        }
        replacement.begin(directory, &self.settings.job).await?;
        replacement.carry_out(directory, &marker_of(directory, &self.settings.job)).await
    }
}

async fn resume_replacement(directory: &Location, marker: &Location) -> Result<()> {
    Replacement::load(marker).await?.carry_out(directory, marker).await
}

/// It is too late to take a replacement back: since the marker is there the new files count, unless none of them can
/// get its name.
async fn end_replacement(directory: &Location, marker: &Location) -> Result<()> {
    let replacement = Replacement::load(marker).await?;
    let Err(error) = replacement.carry_out(directory, marker).await else { return Ok(()) };
    match replacement.withdraw(directory, marker).await? {
        true => Ok(()),
        false => Err(error),
    }
}

#[async_trait]
impl Committer for FileCommitter {
    fn fenced_by(&self, fence: Arc<dyn Fence>) {
        *self.fence.lock().unwrap_or_else(PoisonError::into_inner) = Some(fence);
    }

    /// Every part is tried, whatever became of the others; then the first error is raised (SUB-08). Of partitions
    /// nothing is said before all parts are there.
    async fn commit(&self, committables: Vec<Committable>) -> Result<()> {
        let commits = stream::iter(committables).map(|committable| self.commit_one(committable));
        let outcomes: Vec<_> = commits.buffered(COMMITS).collect().await;
        let said = outcomes.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
        match &self.partitions {
            Some(partitions) if self.settings.publication == Publication::EachCommit => partitions.observe(said).await,
            // Their files are not there before the end.
            Some(partitions) => partitions.remember(said).await,
            None => Ok(()),
        }
    }

    async fn recover(&self, committables: Vec<Committable>, states: &[WriterState], of: Predecessor) -> Result<()> {
        if of == Predecessor::Other && !states.is_empty() {
            let error = format!("{}: the savepoint holds a file that its job had in progress", self.table());
            return Err(Error::corrupt(error));
        }
        if of == Predecessor::Nobody {
            self.end_other_run().await?;
        }
        // A job that goes on from a checkpoint may have a new name; what that holds tells the old one.
        let (mut jobs, mut keep) = (self.own_job(), BTreeSet::new());
        // One that cannot be read is an error when it is committed, behind the others.
        for prepared in committables.iter().flat_map(Prepared::decode) {
            jobs.insert(match prepared {
                Prepared::Part(part, _) => part.name.job().to_owned(),
                Prepared::Progress(said) => said.job,
            });
        }
        for state in states {
            let part = PartState::decode(state)?.part;
            jobs.insert(part.name.job().to_owned());
            keep.insert(part.name.as_str().to_owned());
        }
        // Those of a job that may be at work are its own.
        let gone = if of == Predecessor::Other { self.own_job() } else { jobs.clone() };
        self.take_over(&committables, states, &gone, of).await?;
        let adopted = match &self.partitions {
            Some(partitions) => partitions.adopt(&jobs, of).await,
            None => Ok(()),
        };
        adopted.and(self.commit(committables).await)?;
        self.come_behind().await?;
        for (_, marker) in self.markers().await? {
            let replacement = Replacement::load(&marker).await?;
            let hidden = replacement.published.iter().filter_map(|(hidden, _)| hidden.strip_prefix('.'));
            keep.extend(hidden.map(|hidden| hidden.trim_end_matches(IN_PROGRESS).trim_end_matches(READY).to_owned()));
        }
        self.clean(&gone, |_, name| {
            let hidden = name.strip_suffix(IN_PROGRESS).or_else(|| name.strip_suffix(UPLOAD));
            // What another run of the job has kept ready for its end is not of this one.
            let in_progress = match of {
                Predecessor::Nobody => hidden.or_else(|| name.strip_suffix(READY)),
                _ => hidden,
            };
            match in_progress.and_then(|name| name.strip_prefix('.')) {
                Some(part) => keep.contains(part),
                // What a local store gathers and has not completed is of nobody.
                None => !name.contains(&format!("{IN_PROGRESS}#")),
            }
        })
        .await
    }

    async fn abort(&self) -> Result<()> {
        let mut outcome = Ok(());
        for (directory, marker) in self.markers().await? {
            outcome = outcome.and(end_replacement(&directory, &marker).await);
        }
        outcome?;
        self.clean(&self.own_job(), |_, _| false).await?;
        if self.is_new
            && let Some(path) = self.table().file_path()
        {
            // Not empty means that someone else wrote there meanwhile.
            let _ = std::fs::remove_dir(path);
        }
        Ok(())
    }

    async fn finish(&self) -> Result<()> {
        if self.settings.publication != Publication::EachCommit {
            self.replace().await?;
        }
        if let Some(partitions) = &self.partitions {
            partitions.finish().await?;
        }
        // Left behind by attempts that failed; what counted is published.
        self.clean(&self.own_job(), |_, _| false).await
    }
}

/// Makes a file and removes it. The local store tries for ever where a directory is there and files cannot be (`/proc`).
fn check_writable(probe: &Path) -> std::io::Result<()> {
    std::fs::File::create(probe)?;
    std::fs::remove_file(probe)
}

/// Refuses names that no file of `directory` can have, by looking for them: nobody is to see a file that comes and goes.
fn check_names(directory: &Location, names: &[String]) -> Result<()> {
    for target in names.iter().map(|name| directory.child(name)) {
        match target.file_path().map(std::fs::symlink_metadata) {
            Some(Err(error)) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::from(error).context(&target).with_hint("choose another name"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether there is a directory, or in an object store anything below that name.
pub(super) async fn is_folder(place: &Location) -> Result<bool> {
    if let Some(path) = place.file_path() {
        return Ok(path.is_dir());
    }
    let first = place.store.list(Some(&place.path)).try_next().await;
    Ok(first.map_err(|error| place.error(error))?.is_some())
}

/// Whether a file has the name of a folder. Where nobody may look it does not matter: only a store denies that, and there a file and a
/// folder can have one name.
pub(super) async fn is_file(folder: &Location) -> Result<bool> {
    match folder.head().await {
        Err(error) if is_denied(&error) => Ok(false),
        found => Ok(found?.is_some()),
    }
}

/// Whether it is a folder of this machine in which nothing is.
pub(super) fn is_empty_folder(place: &Location) -> bool {
    let entries = place.file_path().and_then(|path| std::fs::read_dir(path).ok());
    entries.is_some_and(|mut entries| entries.next().is_none())
}

/// Whether it is a folder in which nothing is but what `job` has hidden there.
pub(super) async fn is_left_by(place: &Location, job: &str) -> Result<bool> {
    if !is_folder(place).await? {
        return Ok(false);
    }
    let own = format!(".{}", PartName::prefix(job));
    let names = names_below(place).await?;
    Ok(!names.is_empty() && names.iter().all(|(folder, name)| folder.is_empty() && name.starts_with(&own)))
}

/// The error for a file that is not to be replaced.
pub(super) fn exists_already(place: &Location) -> Error {
    Error::request(format!("{place} exists already")).with_hint("choose another path or WriteMode OVERWRITE")
}

/// The error for a folder that has the name of a file that is to be written.
pub(super) fn folder_in_the_way(path: impl std::fmt::Display) -> Error {
    Error::request(format!("'{path}' is a folder")).with_hint("name a file")
}

fn no_files(directory: &Location, error: std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::NotFound => {
            let message = format!("{directory}: files cannot be written there");
            Error::unavailable(message).with_hint("choose another path").with_source(error)
        }
        std::io::ErrorKind::InvalidFilename => {
            Error::from(error).context(directory).with_hint("choose a shorter name for the job or its file")
        }
        _ => Error::from(error).context(directory),
    }
}
