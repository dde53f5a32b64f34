//! The sink of files: where they go, under which names, and what becomes of those that are there (SUB-14).

use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::SchemaRef;
use tidemill_core::error::{Error, Result};
use tidemill_core::sink::{ChangelogMode, Committer, Delivery, Sink, SinkContext, SinkWriter};
use xxhash_rust::xxh3::xxh3_64;

use super::commit::{
    CommitSettings, FileCommitter, Publication, exists_already, folder_in_the_way, is_empty_folder, is_file, is_folder,
    is_left_by,
};
use super::partition::Partitioning;
use super::partition_commit::PartitionCommit;
use super::replace::{Replacement, finish_replacement_of, finish_replacements, finish_replacements_below, marker_of};
use super::rolling::RollingPolicy;
use super::target::{Destination, UPLOAD_BYTES};
use super::writer::{PartSettings, PartWriter};
use crate::formats::Format;
use crate::registry::Disposition;
use crate::store::{Location, is_denied, wait_for};

/// What `write_as_text` and `write_as_csv` do where something is already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WriteMode {
    /// Refuse.
    #[default]
    NoOverwrite,
    /// Replace.
    Overwrite,
}

/// Files as a destination. Until committed, the name of a file begins with `.`; no file is half written under its final name.
#[derive(Clone, Debug)]
pub struct FileSink {
    /// How the user calls the destination.
    path: String,
    layout: Layout,
    /// Where files are written: the destination, or the directory that it is in.
    directory: Location,
    format: Format,
    /// The columns of the files.
    schema: SchemaRef,
    job: Arc<str>,
    rolling: RollingPolicy,
    partitioning: Option<Partitioning>,
    partition_commit: Option<PartitionCommit>,
    upload_bytes: usize,
    /// Set by the committer and read by writers: see [`CommitSettings::opened_min`].
    opened_min: Arc<AtomicI64>,
}

/// Which files a sink leaves behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// A directory of part files, any number a subtask.
    Parts(Disposition),
    /// One file of this name.
    Single(String, WriteMode),
    /// A directory of files `1` to `n`, one a subtask.
    Numbered(usize, WriteMode),
}

/// Two sinks of one process must not both find a path free and then both take it.
static PREPARING: Mutex<()> = Mutex::new(());

impl FileSink {
    /// A directory of part files, as SQL writes it. `job` becomes part of their names: a sink takes those for its own,
    /// so no other sink may have the name. Names that differ in signs which no file name has stay apart.
    pub fn directory(
        path: impl Into<String>,
        location: Location,
        format: Format,
        schema: SchemaRef,
        job: &str,
        disposition: Disposition,
    ) -> Result<Self> {
        format.check_table(&schema)?;
        Self::new(path.into(), location, Layout::Parts(disposition), format, schema, &told_apart(job))
    }

    /// `write_as_text` and `write_as_csv`: one file with a parallelism of 1, else a directory of files `1` to `n`.
    /// `job` becomes part of hidden names, as of those of [`directory`](Self::directory).
    pub fn write_as(
        path: impl Into<String>,
        location: Location,
        format: Format,
        schema: SchemaRef,
        job: &str,
        mode: WriteMode,
        parallelism: usize,
    ) -> Result<Self> {
        let job = told_apart(job);
        if parallelism > 1 {
            return Self::new(path.into(), location, Layout::Numbered(parallelism, mode), format, schema, &job);
        }
        let name = location.name().to_owned();
        let format = format.compressed_for(&name);
        Self::new(path.into(), location.parent(), Layout::Single(name, mode), format, schema, &job)
    }

    /// Closes files by this policy.
    #[must_use]
    pub fn with_rolling_policy(self, rolling: RollingPolicy) -> Self {
        Self { rolling, ..self }
    }

    /// Cuts multipart uploads into parts of this many bytes. For tests; stores refuse smaller ones than the default.
    #[must_use]
    pub fn with_upload_bytes(self, upload_bytes: usize) -> Self {
        Self { upload_bytes, ..self }
    }

    /// Puts rows into folders by partition, and says of partitions that they are complete.
    pub(super) fn with_partitions(
        self,
        partitioning: Option<Partitioning>,
        partition_commit: Option<PartitionCommit>,
    ) -> Self {
        Self { partitioning, partition_commit, ..self }
    }

    fn new(
        path: String,
        directory: Location,
        layout: Layout,
        format: Format,
        schema: SchemaRef,
        job: &str,
    ) -> Result<Self> {
        format.check_schema(&schema)?;
        if matches!(&layout, Layout::Single(name, _) if name.is_empty()) {
            return Err(Error::request(format!("'{path}' names no file")));
        }
        let rolling = match layout {
            Layout::Parts(_) => RollingPolicy::default(),
            Layout::Single(..) | Layout::Numbered(..) => RollingPolicy::never(),
        };
        Ok(Self {
            path,
            layout,
            directory,
            format,
            schema,
            job: job.into(),
            rolling,
            partitioning: None,
            partition_commit: None,
            upload_bytes: UPLOAD_BYTES,
            opened_min: Arc::new(AtomicI64::new(i64::MIN)),
        })
    }

    /// Checks the destination and makes room (SUB-14). On a local disk an existing directory is accepted by a parallel write,
    /// and only the files that would collide count; on a distributed store anything that exists does.
    async fn make_room(&self) -> Result<()> {
        let refuse = |place: &Location| Err(exists_already(place));
        match &self.layout {
            Layout::Parts(_) => {
                if self.directory.is_local() && self.directory.head().await?.is_some() {
                    let error = Error::request(format!("{} is a file, not a directory", self.directory));
                    return Err(error.with_hint("a table is written as a directory of part files"));
                }
            }
            // What subtasks of this job have hidden there is taken from there, or away, before rows come. They may have made the folder
            // and hidden nothing yet: who goes on takes an empty one away, who begins anew is refused then.
            Layout::Single(name, _) if is_left_by(&self.directory.child(name), &self.job).await? => {}
            Layout::Single(name, _) if is_empty_folder(&self.directory.child(name)) => {}
            Layout::Single(name, WriteMode::NoOverwrite) => {
                let target = self.directory.child(name);
                if exists(&target).await? {
                    return refuse(&target);
                }
            }
            // The file that is there is replaced when the new one is complete, and stays when the job fails.
            Layout::Single(name, WriteMode::Overwrite) => {
                if is_folder(&self.directory.child(name)).await? {
                    return Err(folder_in_the_way(&self.path));
                }
            }
            Layout::Numbered(count, mode) => {
                let is_file = is_file(&self.directory).await?;
                if *mode == WriteMode::Overwrite && !is_file {
                    for number in 1..=*count {
                        let target = self.directory.child(&number.to_string());
                        if is_folder(&target).await? {
                            return Err(folder_in_the_way(&target));
                        }
                    }
                }
                match (mode, self.directory.is_local()) {
                    (WriteMode::NoOverwrite, true) if is_file => return refuse(&self.directory),
                    (WriteMode::NoOverwrite, true) => {
                        for number in 1..=*count {
                            let target = self.directory.child(&number.to_string());
                            if exists(&target).await? {
                                return refuse(&target);
                            }
                        }
                    }
                    (WriteMode::NoOverwrite, false)
                        if (is_file || is_folder(&self.directory).await?)
                            && !is_left_by(&self.directory, &self.job).await? =>
                    {
                        return refuse(&self.directory);
                    }
                    // A file where the directory has to be cannot stay until the new ones are complete, and goes in `recover`: by
                    // then it is known that the job may begin.
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Where the hidden files of this job are if it has had one subtask and now has several, or the other way round.
    fn elsewhere(&self) -> Option<Location> {
        match &self.layout {
            Layout::Parts(_) => None,
            Layout::Single(name, _) => Some(self.directory.child(name)),
            Layout::Numbered(..) => Some(self.directory.parent()).filter(|parent| parent.path != self.directory.path),
        }
    }

    /// Shows what the job wrote where it had several subtasks or one, if it came to its end as that: whether there was anything. Where
    /// nobody may look the job has not written.
    async fn end_elsewhere(&self) -> Result<bool> {
        let Some(elsewhere) = self.elsewhere() else { return Ok(false) };
        match marker_of(&elsewhere, &self.job).head().await {
            Ok(None) => Ok(false),
            Err(error) if is_denied(&error) => Ok(false),
            Err(error) => Err(error),
            Ok(Some(_)) => Ok(finish_replacement_of(&elsewhere, &self.job).await? != Replacement::default()),
        }
    }

    /// Whether the files of this sink and what another job has left to do get into each other's way.
    fn collides_with(&self, other: &Replacement) -> bool {
        match self.publication() {
            Publication::EachCommit => false,
            // All that readers see is to be replaced, what the other has published included.
            Publication::Replacing | Publication::Named { clears: true, .. } => true,
            Publication::Named { names, .. } => names.iter().any(|name| other.touches(name)),
        }
    }

    fn publication(&self) -> Publication {
        match &self.layout {
            Layout::Parts(Disposition::Append) => Publication::EachCommit,
            Layout::Parts(Disposition::Replace) => Publication::Replacing,
            Layout::Single(name, _) => Publication::Named { names: vec![name.clone()], clears: false },
            Layout::Numbered(count, mode) => Publication::Named {
                names: (1..=*count).map(|number| number.to_string()).collect(),
                // Flink keeps an existing directory on a local disk, stale files and all, and clears it elsewhere.
                clears: *mode == WriteMode::Overwrite && !self.directory.is_local(),
            },
        }
    }
}

/// Whether there is an object or anything below it.
async fn exists(place: &Location) -> Result<bool> {
    if let Some(path) = place.file_path() {
        return Ok(path.exists());
    }
    let below = || place.store.list(Some(&place.path));
    let first = futures::TryStreamExt::try_next(&mut below()).await.map_err(|error| place.error(error))?;
    Ok(first.is_some() || place.head().await?.is_some())
}

/// A job's name as names of files have it, with a checksum where that is not all of it. No name has `=` otherwise.
pub(super) fn told_apart(job: &str) -> String {
    let part = file_name_part(job);
    if part == job { part } else { format!("{part}={:016x}", xxh3_64(job.as_bytes())) }
}

/// A job's name with everything that file names cannot hold replaced.
fn file_name_part(job: &str) -> String {
    job.chars().map(|c| if c.is_ascii_alphanumeric() || matches!(c, '_' | '-') { c } else { '_' }).collect()
}

impl Sink for FileSink {
    fn changelog_mode(&self) -> ChangelogMode {
        ChangelogMode::Append
    }

    fn delivery(&self) -> Delivery {
        Delivery::ExactlyOnce
    }

    fn parallelism_max(&self) -> Option<usize> {
        match &self.layout {
            Layout::Parts(_) => None,
            Layout::Single(..) => Some(1),
            Layout::Numbered(count, _) => Some(*count),
        }
    }

    fn prepare(&self) -> Result<Arc<dyn Committer>> {
        let _guard = PREPARING.lock().unwrap_or_else(PoisonError::into_inner);
        wait_for(async {
            let has_ended_elsewhere = self.end_elsewhere().await?;
            // A job that goes on finishes its own replacement when it ends; the room for it was made when it began.
            if marker_of(&self.directory, &self.job).head().await?.is_none() {
                match &self.partitioning {
                    None => finish_replacements(&self.directory, |other| self.collides_with(other)).await?,
                    Some(_) => finish_replacements_below(&self.directory, &self.job).await?,
                }
                self.make_room().await?;
            }
            let committer = FileCommitter::prepare(CommitSettings {
                table: self.directory.clone(),
                job: self.job.clone(),
                publication: self.publication(),
                keeps_old: matches!(
                    self.layout,
                    Layout::Single(_, WriteMode::NoOverwrite) | Layout::Numbered(_, WriteMode::NoOverwrite)
                ),
                elsewhere: self.elsewhere(),
                has_ended_elsewhere,
                opened_min: self.opened_min.clone(),
                format: self.format.clone(),
                is_partitioned: self.partitioning.is_some(),
                partition_commit: self.partition_commit.clone(),
            });
            Ok(Arc::new(committer.await?) as Arc<dyn Committer>)
        })
    }

    fn writer(&self, context: &SinkContext) -> Result<Box<dyn SinkWriter>> {
        let settings = PartSettings {
            destination: Destination {
                table: self.directory.clone(),
                is_published_at_once: self.publication() == Publication::EachCommit,
                upload_bytes: self.upload_bytes,
            },
            format: self.format.clone(),
            schema: self.schema.clone(),
            job: self.job.clone(),
            opened_min: self.opened_min.clone(),
            rolling: self.rolling,
            partitioning: self.partitioning.clone(),
            partition_commit: self.partition_commit.clone(),
            is_whole: !matches!(self.layout, Layout::Parts(_)),
        };
        Ok(Box::new(PartWriter::new(settings, context)))
    }

    fn describe(&self) -> String {
        format!("filesystem({}, {})", self.path, self.format.name())
    }
}
