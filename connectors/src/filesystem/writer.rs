//! Writes the part files of one subtask, one at a time for each partition.
//!
//! ```text
//! rows -> partition -> encoder -> compressor -> target (a hidden file, an upload)
//!                                                  | over: size, age, silence, a checkpoint it cannot live through
//! finished  ------------- prepare_commit --------> committables
//! open      ------------- snapshot --------------> states
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use tidemill_core::batch::Batch;
use tidemill_core::clock::Clock;
use tidemill_core::error::{Error, Result};
use tidemill_core::event::CheckpointId;
use tidemill_core::sink::{Committable, SinkContext, SinkWriter, WriterState};
use tidemill_core::watermark::Watermark;

use super::part::{Part, PartName, PartState, Prepared, Upload};
use super::partition::Partitioning;
use super::partition_commit::{PartitionCommit, Progress};
use super::rolling::{RollingPolicy, has_passed};
use super::target::{Destination, Target};
use crate::formats::compression::Compressor;
use crate::formats::{Encoder, Format};

/// Partitions that a subtask has files open for; of more, the one that got no rows for longest is closed. Each may hold a
/// buffer, or a row group.
const OPEN_PARTS_MAX: usize = 100;

/// What all writers of a sink share.
#[derive(Clone, Debug)]
pub(super) struct PartSettings {
    pub(super) destination: Destination,
    pub(super) format: Format,
    /// The columns of the files.
    pub(super) schema: SchemaRef,
    pub(super) job: Arc<str>,
    /// Parts of now are not named as of a moment before this one, whatever the clock says.
    pub(super) opened_min: Arc<AtomicI64>,
    pub(super) rolling: RollingPolicy,
    pub(super) partitioning: Option<Partitioning>,
    pub(super) partition_commit: Option<PartitionCommit>,
    /// Whether there is a file even without rows, and what checkpoints cut it into has to fit together.
    pub(super) is_whole: bool,
}

impl PartSettings {
    /// Whether parts are gone on with behind a checkpoint.
    fn goes_on(&self) -> bool {
        self.destination.can_go_on() && self.format.is_appendable()
    }
}

pub(super) struct PartWriter {
    settings: PartSettings,
    subtask: usize,
    parallelism: usize,
    clock: Arc<dyn Clock>,
    opened: i64,
    next_number: u64,
    /// Parts being written, by the folder of their partition.
    open: BTreeMap<String, OpenPart>,
    finished: Vec<(Part, Option<Upload>)>,
    /// Counts writes, to find the part that waits for longest.
    writes: u64,
    checked: i64,
    watermark: Watermark,
    /// The partitions in which files were opened since the last checkpoint, and when first.
    touched: BTreeMap<String, i64>,
}

/// A part that is being written.
struct OpenPart {
    part: Part,
    target: Target,
    encoder: Box<dyn Encoder>,
    encoded: Vec<u8>,
    compressor: Compressor,
    /// Bytes that went to the target.
    sent: u64,
    created: i64,
    written: i64,
    last_write: u64,
    /// Whether a checkpoint may hold it.
    is_remembered: bool,
}

impl PartWriter {
    pub(super) fn new(settings: PartSettings, context: &SinkContext) -> Self {
        let now = context.clock.now_millis();
        Self {
            settings,
            subtask: context.subtask,
            parallelism: context.parallelism,
            clock: context.clock.clone(),
            opened: now,
            next_number: 0,
            open: BTreeMap::new(),
            finished: Vec::new(),
            writes: 0,
            checked: now,
            watermark: Watermark::MIN,
            touched: BTreeMap::new(),
        }
    }

    async fn write_rows(&mut self, folder: String, records: &RecordBatch) -> Result<()> {
        if !self.open.contains_key(&folder) {
            self.open(&folder).await?;
        }
        let now = self.clock.now_millis();
        self.writes += 1;
        let Some(open) = self.open.get_mut(&folder) else { return Err(not_there()) };
        (open.written, open.last_write) = (now, self.writes);
        open.write(records).await?;
        match open.bytes() >= self.settings.rolling.file_bytes {
            true => self.close(&folder).await,
            false => Ok(()),
        }
    }

    /// Begins a part under a name that nobody has. A clock that was set back could give one a second time.
    async fn open(&mut self, folder: &str) -> Result<()> {
        if self.open.len() >= OPEN_PARTS_MAX {
            let oldest = self.open.iter().min_by_key(|(_, open)| open.last_write).map(|(folder, _)| folder.clone());
            self.close(&oldest.ok_or_else(not_there)?).await?;
        }
        self.opened = self.opened.max(self.settings.opened_min.load(Ordering::Relaxed));
        let (table, job) = (&self.settings.destination.table, &self.settings.job);
        let extension = self.settings.format.extension();
        let part = loop {
            let name = PartName::new(job, self.opened, self.subtask, self.next_number, &extension);
            let part = Part { folder: folder.to_owned(), name };
            self.next_number += 1;
            let places = [part.published(table), part.in_progress(table), part.upload_note(table), part.ready(table)];
            let mut is_taken = false;
            for place in places {
                is_taken |= place.head().await?.is_some();
            }
            if !is_taken {
                break part;
            }
            self.opened += 1;
        };
        let now = self.clock.now_millis();
        let target = self.settings.destination.create(&part).await?;
        let encoder = self.settings.format.encoder(&self.settings.schema)?;
        let compressor = Compressor::new(self.settings.format.compression());
        self.touched.entry(folder.to_owned()).or_insert(now);
        let open = OpenPart {
            part,
            target,
            encoder,
            encoded: Vec::new(),
            compressor,
            sent: 0,
            created: now,
            written: now,
            last_write: self.writes,
            is_remembered: false,
        };
        self.open.insert(folder.to_owned(), open);
        Ok(())
    }

    async fn close(&mut self, folder: &str) -> Result<()> {
        let open = self.open.remove(folder).ok_or_else(not_there)?;
        let part = open.part.clone();
        self.finished.push((part, open.close().await?));
        Ok(())
    }

    async fn close_those(&mut self, is_over: impl Fn(&str, &OpenPart) -> Result<bool>) -> Result<()> {
        let mut over = Vec::new();
        for (folder, open) in &self.open {
            if is_over(folder, open)? {
                over.push(folder.clone());
            }
        }
        for folder in over {
            self.close(&folder).await?;
        }
        Ok(())
    }

    /// Closes what is over by time, if it is time to look.
    async fn roll_by_time(&mut self) -> Result<()> {
        let (now, rolling) = (self.clock.now_millis(), self.settings.rolling);
        if self.settings.is_whole || !has_passed(rolling.check_interval, self.checked, now) {
            return Ok(());
        }
        self.checked = now;
        self.close_those(|_, open| Ok(rolling.is_over(open.created, open.written, now))).await
    }

    /// Closes what a checkpoint ends.
    async fn roll_at(&mut self, checkpoint: Option<CheckpointId>) -> Result<()> {
        if checkpoint.is_none() || !self.settings.goes_on() {
            return self.close_those(|_, _| Ok(true)).await;
        }
        let (now, rolling, watermark) = (self.clock.now_millis(), self.settings.rolling, self.watermark);
        let (is_whole, policy) = (self.settings.is_whole, self.settings.partition_commit.clone());
        self.close_those(|folder, open| {
            let is_due = policy.as_ref().map(|policy| policy.is_due(folder, open.created, now, watermark));
            Ok(!is_whole && rolling.is_over(open.created, open.written, now) || is_due.transpose()?.unwrap_or(false))
        })
        .await
    }

    /// What is to be committed of the parts that are over.
    fn finished(&mut self, checkpoint: Option<CheckpointId>) -> Result<Vec<Committable>> {
        let mut committables = Vec::new();
        for (part, upload) in self.finished.drain(..) {
            committables.push(Prepared::Part(part, upload).encode()?);
        }
        if self.settings.partition_commit.is_some() {
            committables.push(Prepared::Progress(self.progress(checkpoint)).encode()?);
        }
        Ok(committables)
    }

    fn progress(&mut self, checkpoint: Option<CheckpointId>) -> Progress {
        Progress {
            job: self.settings.job.to_string(),
            subtask: self.subtask,
            parallelism: self.parallelism,
            checkpoint,
            now: self.clock.now_millis(),
            watermark: self.watermark.0,
            touched: std::mem::take(&mut self.touched),
            open: self.open.keys().cloned().collect::<BTreeSet<_>>(),
        }
    }

    /// One file in one piece needs no more than its bytes; in several pieces they have to fit together.
    fn check_whole(&self) -> Result<()> {
        if self.settings.goes_on() || self.settings.format.is_concatenable() {
            return Ok(());
        }
        let error = format!("one {} file cannot be written over several checkpoints", self.settings.format.name());
        Err(Error::request(error).with_hint("write a directory of files, or without checkpoints"))
    }
}

impl OpenPart {
    async fn write(&mut self, records: &RecordBatch) -> Result<()> {
        self.encoder.encode(records, &mut self.encoded)?;
        let worthwhile = self.target.worthwhile();
        match self.encoded.len() + self.compressor.output().len() < worthwhile {
            true => Ok(()),
            false => self.send(worthwhile).await,
        }
    }

    /// How long the part is so far, as far as its encoder tells.
    fn bytes(&mut self) -> u64 {
        let waiting = self.encoder.pending_bytes() + self.encoded.len() + self.compressor.output().len();
        self.sent + waiting as u64
    }

    async fn send(&mut self, at_least: usize) -> Result<()> {
        let name = &self.part.name;
        self.compressor.push(&self.encoded).await.map_err(|error| error.context(name.as_str()))?;
        self.encoded.clear();
        let output = self.compressor.output();
        if output.len() < at_least.max(1) {
            return Ok(());
        }
        let bytes = std::mem::take(output);
        self.sent += bytes.len() as u64;
        self.target.write(bytes).await
    }

    /// Ends the file and makes it last. An error leaves nothing behind but what a checkpoint may hold.
    async fn close(mut self) -> Result<Option<Upload>> {
        let closed = match self.complete().await {
            Ok(()) => self.target.close().await,
            Err(error) => Err(error),
        };
        if closed.is_err() && !self.is_remembered {
            self.target.discard().await;
        }
        closed
    }

    async fn complete(&mut self) -> Result<()> {
        self.encoder.finish(&mut self.encoded)?;
        self.send(0).await?;
        self.compressor.finish().await.map_err(|error| error.context(self.part.name.as_str()))?;
        self.send(0).await
    }

    /// What is needed to go on behind what was written.
    async fn snapshot(&mut self) -> Result<PartState> {
        self.send(0).await?;
        let (upload, tail) = self.target.sync().await?;
        self.is_remembered = true;
        let (part, created, written) = (self.part.clone(), self.created, self.written);
        Ok(PartState { part, created, written, bytes: self.sent, upload, tail })
    }
}

#[async_trait]
impl SinkWriter for PartWriter {
    async fn restore(&mut self, states: Vec<WriterState>) -> Result<()> {
        for state in &states {
            let state = PartState::decode(state)?;
            if !self.settings.format.is_appendable()
                || state.part.folder.is_empty() != self.settings.partitioning.is_none()
            {
                let part = state.part.published(&self.settings.destination.table);
                let message = format!("{part} was begun with other options than the table has now");
                return Err(Error::request(message).with_hint("bring them back, or begin without the checkpoint"));
            }
            // Parts of this writer come behind all that it goes on with, even if the clock was set back.
            self.opened = self.opened.max(state.part.name.opened().saturating_add(1));
            let target = self.settings.destination.resume(&state).await?;
            let folder = state.part.folder.clone();
            let open = OpenPart {
                target,
                encoder: self.settings.format.encoder_behind(&self.settings.schema, state.bytes)?,
                encoded: Vec::new(),
                compressor: Compressor::new(self.settings.format.compression()),
                sent: state.bytes,
                created: state.created,
                written: state.written,
                last_write: self.writes,
                is_remembered: true,
                part: state.part,
            };
            // After a rescale there may be several of one partition: all but one are as long as they get.
            if self.open.len() >= OPEN_PARTS_MAX || self.open.contains_key(&folder) {
                let part = open.part.clone();
                self.finished.push((part, open.close().await?));
            } else {
                self.open.insert(folder, open);
            }
        }
        Ok(())
    }

    async fn write(&mut self, batch: Batch) -> Result<()> {
        if batch.kinds().is_some() {
            return Err(Error::internal("a file sink was handed a changelog"));
        }
        if batch.is_empty() {
            return Ok(());
        }
        self.roll_by_time().await?;
        match &self.settings.partitioning {
            None => self.write_rows(String::new(), batch.records()).await,
            Some(partitioning) => {
                for (folder, records) in partitioning.split(batch.records())? {
                    self.write_rows(folder, &records).await?;
                }
                Ok(())
            }
        }
    }

    async fn watermark(&mut self, watermark: Watermark) -> Result<()> {
        self.watermark = self.watermark.max(watermark);
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        self.roll_by_time().await
    }

    async fn prepare_commit(&mut self, checkpoint: Option<CheckpointId>) -> Result<Vec<Committable>> {
        if self.settings.is_whole {
            match checkpoint {
                None if self.open.is_empty() => self.open("").await?,
                None => {}
                Some(_) => self.check_whole()?,
            }
        }
        self.roll_at(checkpoint).await?;
        self.finished(checkpoint)
    }

    async fn prepare_savepoint(&mut self, savepoint: CheckpointId) -> Result<Vec<Committable>> {
        if self.settings.is_whole {
            self.check_whole()?;
            // Its hidden parts go when the whole is there. Who begins from the savepoint sees by one of them whether they have gone,
            // also where all of its rows were committed before.
            if self.open.is_empty() && self.finished.is_empty() {
                self.open("").await?;
            }
        }
        self.close_those(|_, _| Ok(true)).await?;
        self.finished(Some(savepoint))
    }

    async fn snapshot(&mut self, _checkpoint: CheckpointId) -> Result<Vec<WriterState>> {
        let mut states = Vec::with_capacity(self.open.len());
        for open in self.open.values_mut() {
            states.push(open.snapshot().await?.encode()?);
        }
        Ok(states)
    }
}

fn not_there() -> Error {
    Error::internal("a part file that was opened is not there")
}
