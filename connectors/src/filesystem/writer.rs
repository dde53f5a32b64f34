//! Writes the part files of one subtask under hidden names.

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use object_store::{MultipartUpload, ObjectStoreExt};
use tidemill_core::batch::Batch;
use tidemill_core::error::{Error, Result};
use tidemill_core::event::CheckpointId;
use tidemill_core::sink::{Committable, SinkContext, SinkWriter};

use crate::formats::compression::Compressor;
use crate::formats::{Encoder, Format};
use crate::store::{Location, sync_file};

/// Bytes that are gathered before they are sent on. Stores refuse parts below 5 MiB.
pub(super) const UPLOAD_BYTES: usize = 8 << 20;

/// The name of a part file: `part-<job>.<opened>-<subtask>-<number>.<extension>`. Together with the time at which its writer
/// opened, a job's name is unique over restarts, and parts of one subtask sort in the order in which they were written. A job's
/// name has no dot here, so that no job takes the files of another whose name goes on behind its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PartName(String);

impl PartName {
    fn new(job: &str, opened: i64, subtask: usize, number: u64, extension: &str) -> Self {
        Self(format!("{}{opened}-{subtask}-{number}.{extension}", Self::prefix(job)))
    }

    /// How the names of all parts of `job` begin.
    pub(super) fn prefix(job: &str) -> String {
        format!("part-{job}.")
    }

    /// The part behind a hidden name with this ending, if it is one of `job`.
    pub(super) fn of_hidden(name: &str, job: &str, ending: &str) -> Option<Self> {
        let name = name.strip_prefix('.')?.strip_suffix(ending)?;
        name.starts_with(&Self::prefix(job)).then(|| Self(name.to_owned()))
    }

    /// A hidden name as long as any that a part gets while a local store gathers it.
    pub(super) fn probe(job: &str, extension: &str) -> String {
        let name = Self::new(job, 9_999_999_999_999, 9_999, 9_999_999, extension);
        format!("{}#1", name.in_progress())
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Written, not yet committed.
    pub(super) fn in_progress(&self) -> String {
        format!(".{}{IN_PROGRESS}", self.0)
    }

    /// Committed, to be published when the job ends.
    pub(super) fn ready(&self) -> String {
        format!(".{}{READY}", self.0)
    }

    /// Subtask, then what orders its parts.
    pub(super) fn order(&self) -> Option<(usize, (i64, u64))> {
        let mut numbers = self.0.split('.').nth(1)?.splitn(3, '-');
        let opened = numbers.next()?.parse().ok()?;
        let subtask = numbers.next()?.parse().ok()?;
        Some((subtask, (opened, numbers.next()?.parse().ok()?)))
    }
}

pub(super) const IN_PROGRESS: &str = ".inprogress";
pub(super) const READY: &str = ".ready";

pub(super) struct PartWriter {
    directory: Location,
    format: Format,
    schema: SchemaRef,
    job: String,
    subtask: usize,
    opened: i64,
    next_number: u64,
    /// Whether there is a file even without rows, and checkpoints cut it into pieces that have to fit together.
    is_whole: bool,
    part: Option<Part>,
}

/// A file that is being written.
struct Part {
    name: PartName,
    place: Location,
    upload: Box<dyn MultipartUpload>,
    encoder: Box<dyn Encoder>,
    encoded: Vec<u8>,
    compressor: Compressor,
}

impl PartWriter {
    pub(super) fn new(
        directory: Location,
        format: Format,
        schema: SchemaRef,
        job: &str,
        context: &SinkContext,
        is_whole: bool,
    ) -> Self {
        Self {
            directory,
            format,
            schema,
            job: job.to_owned(),
            subtask: context.subtask,
            opened: context.clock.now_millis(),
            next_number: 0,
            is_whole,
            part: None,
        }
    }

    async fn open(&mut self) -> Result<&mut Part> {
        if self.part.is_none() {
            let extension = self.format.extension();
            let name = PartName::new(&self.job, self.opened, self.subtask, self.next_number, &extension);
            let place = self.directory.child(&name.in_progress());
            let upload = place.store.put_multipart(&place.path).await.map_err(|error| place.error(error))?;
            let encoder = self.format.encoder(&self.schema)?;
            let compressor = Compressor::new(self.format.compression());
            self.part = Some(Part { name, place, upload, encoder, encoded: Vec::new(), compressor });
            self.next_number += 1;
        }
        self.part.as_mut().ok_or_else(|| Error::internal("a part file that was opened is not there"))
    }
}

impl Part {
    async fn send(&mut self, at_least: usize) -> Result<()> {
        self.compressor.push(&self.encoded).await.map_err(|error| error.context(&self.place))?;
        self.encoded.clear();
        let output = self.compressor.output();
        if output.len() < at_least.max(1) {
            return Ok(());
        }
        let bytes = std::mem::take(output);
        self.upload.put_part(bytes.into()).await.map_err(|error| self.place.error(error))
    }

    /// Ends the file and makes it last. An error leaves nothing behind.
    async fn close(mut self) -> Result<PartName> {
        let closed = self.complete().await;
        if closed.is_err() {
            // The first error counts; what cannot be cleaned up is hidden anyway.
            let _ = self.upload.abort().await;
        }
        closed?;
        Ok(self.name)
    }

    async fn complete(&mut self) -> Result<()> {
        self.encoder.finish(&mut self.encoded)?;
        self.send(UPLOAD_BYTES).await?;
        self.compressor.finish().await.map_err(|error| error.context(&self.place))?;
        self.send(0).await?;
        self.upload.complete().await.map_err(|error| self.place.error(error))?;
        sync_file(&self.place).await
    }
}

#[async_trait]
impl SinkWriter for PartWriter {
    async fn write(&mut self, batch: Batch) -> Result<()> {
        if batch.kinds().is_some() {
            return Err(Error::internal("a file sink was handed a changelog"));
        }
        if batch.is_empty() {
            return Ok(());
        }
        let part = self.open().await?;
        part.encoder.encode(batch.records(), &mut part.encoded)?;
        match part.encoded.len() + part.compressor.output().len() < UPLOAD_BYTES {
            true => Ok(()),
            false => part.send(UPLOAD_BYTES).await,
        }
    }

    async fn prepare_commit(&mut self, checkpoint: Option<CheckpointId>) -> Result<Vec<Committable>> {
        if self.is_whole {
            match checkpoint {
                None => drop(self.open().await?),
                Some(_) if self.format.is_concatenable() => {}
                Some(_) => {
                    let error = format!("one {} file cannot be written over several checkpoints", self.format.name());
                    return Err(Error::request(error).with_hint("write a directory of files, or without checkpoints"));
                }
            }
        }
        let Some(part) = self.part.take() else { return Ok(Vec::new()) };
        let name = part.close().await?;
        Ok(vec![Committable(name.as_str().as_bytes().to_vec())])
    }
}

/// The part that a committable stands for.
pub(super) fn decode_committable(committable: &Committable) -> Result<PartName> {
    let name = std::str::from_utf8(&committable.0).ok().filter(|name| name.starts_with("part-") && !name.contains('/'));
    name.map(|name| PartName(name.to_owned())).ok_or_else(|| Error::corrupt("a committable names no part file"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_job_subtask_and_order() {
        let name = PartName::new("job-7", 1_000, 2, 13, "csv.gz");
        assert_eq!(name.in_progress(), ".part-job-7.1000-2-13.csv.gz.inprogress");
        assert_eq!(name.order(), Some((2, (1_000, 13))));
        assert_eq!(PartName::of_hidden(&name.ready(), "job-7", READY), Some(name.clone()));
        assert_eq!(PartName::of_hidden(&name.ready(), "job-71", READY), None);
        assert_eq!(PartName::of_hidden(&name.ready(), "job", READY), None);
        assert_eq!(PartName::of_hidden(name.as_str(), "job-7", READY), None);
    }
}
