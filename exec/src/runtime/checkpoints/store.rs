//! Where a job's checkpoints go, and who has the right to write there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use object_store::memory::InMemory;
use object_store::path::Path;
use tidemill_core::clock::Clock;
use tidemill_core::event::CheckpointId;
use tidemill_core::graph::JobGraph;
use tidemill_core::sink::{Committable, Fence};
use tidemill_core::state::{EncodeState, Extent, FrozenState, StateDescriptor};
use tidemill_core::{Error, ErrorKind, Result};

use super::assemble::{OperatorParts, StateWriter, SubtaskPart, assemble};
use super::command::StoreFolder;
use super::pending::SubtaskKey;
use crate::checkpoint::{
    CheckpointContent, CheckpointStore, SegmentWriter, StoredSegment, Tenure, Writer, dispose_savepoint,
    find_checkpoint, manifest_name, patient,
};
use crate::runtime::job_state::freeze_committables;

/// The folder of one job's checkpoints as it was found. Nothing of it is touched: whoever is at work there goes on.
#[derive(Debug)]
pub struct FoundStore {
    place: StorePlace,
    store: CheckpointStore,
    clock: Arc<dyn Clock>,
}

/// The folder of one job's checkpoints, which this process has taken over.
#[derive(Debug)]
pub struct JobStore {
    place: StorePlace,
    pub(super) writer: Writer,
    clock: Arc<dyn Clock>,
    pub(super) nonce: u64,
}

/// Where the checkpoints of a job go, whoever has the right to write there.
#[derive(Clone, Debug)]
pub struct StorePlace {
    pub folder: StoreFolder,
    /// Whether anything is left of it when the process has ended.
    is_durable: bool,
    /// The savepoint that the job began from and owns.
    claimed: Option<StoreFolder>,
}

impl FoundStore {
    /// A store that is gone with the job.
    pub async fn in_memory(clock: Arc<dyn Clock>) -> Result<Self> {
        let folder = StoreFolder { store: Arc::new(InMemory::new()), root: Path::default(), url: "memory".to_owned() };
        let mut found = Self::look(folder, clock).await?;
        found.place.is_durable = false;
        Ok(found)
    }

    /// Looks for the checkpoints in `folder`.
    pub async fn look(folder: StoreFolder, clock: Arc<dyn Clock>) -> Result<Self> {
        let store = CheckpointStore::open(folder.store.clone(), folder.root.clone(), clock.clone()).await;
        let store = store.map_err(|error| error.context(&folder.url))?;
        let place = StorePlace { folder, is_durable: true, claimed: None };
        Ok(Self { place, store, clock })
    }

    /// The folder.
    pub fn folder(&self) -> &StoreFolder {
        &self.place.folder
    }

    /// The newest checkpoint in it.
    pub fn newest(&self) -> Option<&CheckpointContent> {
        self.store.checkpoint()
    }

    /// Takes the checkpoints over: whoever wrote there before is fenced. `nonce` tells this writer from all others.
    ///
    /// Errors: [`Cancelled`](ErrorKind::Cancelled) if somebody has written there since the look.
    pub async fn take_over(self, nonce: u64) -> Result<JobStore> {
        let Self { place, store, clock } = self;
        let writer = store.take_over(nonce).await.map_err(|error| error.context(&place.folder.url))?;
        Ok(JobStore { place, writer, clock, nonce })
    }
}

impl JobStore {
    /// Takes over the checkpoints in `folder`, whatever they are (see [`FoundStore::take_over`]).
    pub async fn open(folder: StoreFolder, nonce: u64, clock: Arc<dyn Clock>) -> Result<Self> {
        FoundStore::look(folder, clock).await?.take_over(nonce).await
    }

    /// Takes the folder of another one over.
    pub async fn reopen(place: &StorePlace, nonce: u64, clock: Arc<dyn Clock>) -> Result<Self> {
        let opened = Self::open(place.folder.clone(), nonce, clock).await?;
        Ok(Self { place: place.clone(), ..opened })
    }

    /// Where it is.
    pub fn place(&self) -> &StorePlace {
        &self.place
    }

    /// The savepoint in `folder` belongs to the job from now on (SVP-09): it is deleted as if it were the oldest of its
    /// checkpoints. A job whose checkpoints do not outlive it leaves it where it is.
    pub fn claim(&mut self, folder: StoreFolder) {
        self.place.claimed = Some(folder).filter(|_| self.place.is_durable);
    }

    /// Deletes old checkpoints until `count` are left, and what the job has claimed once there are as many.
    pub(super) async fn retain(&mut self, count: usize) -> Result<()> {
        self.writer.retain(count).await?;
        if self.writer.checkpoints_kept() >= count.max(1) {
            self.dispose_claimed().await?;
        }
        Ok(())
    }

    async fn dispose_claimed(&mut self) -> Result<()> {
        let Some(StoreFolder { store, root, .. }) = &self.place.claimed else { return Ok(()) };
        match find_checkpoint(store.clone(), root, self.clock.clone(), None).await {
            Ok(_) => dispose_savepoint(store.clone(), root, self.clock.clone()).await?,
            // It is gone already.
            Err(error) if error.kind() == ErrorKind::Request => {}
            Err(error) => return Err(error),
        }
        self.place.claimed = None;
        Ok(())
    }

    /// Deletes all checkpoints, and what the job has claimed.
    pub async fn discard(mut self) -> Result<()> {
        self.dispose_claimed().await?;
        self.writer.discard().await
    }

    /// The folder.
    pub fn folder(&self) -> &StoreFolder {
        &self.place.folder
    }

    /// The newest checkpoint in it.
    pub fn newest(&self) -> Option<&CheckpointContent> {
        self.writer.checkpoint()
    }

    /// Whether another process has taken the folder over.
    pub async fn is_fenced(&self) -> Result<bool> {
        self.writer.is_fenced().await
    }

    /// What sinks ask before they remove anything; an answer that takes longer than `patience` is an error.
    pub fn fence(&self, patience: Duration) -> Arc<dyn Fence> {
        let (clock, url) = (self.clock.clone(), self.place.folder.url.clone());
        Arc::new(PatientFence { tenure: self.writer.tenure(), clock, patience, url })
    }

    /// The highest number that a checkpoint has had.
    pub fn highest_id(&self) -> CheckpointId {
        self.writer.newest().content.checkpoint
    }

    /// How users know it.
    pub fn url(&self) -> &str {
        &self.place.folder.url
    }

    /// Says that the job has ended, with what its sinks have yet to commit (CKP-17, SUB-23). In memory too: the attempt
    /// behind one that failed to commit it does nothing else.
    pub async fn publish_end(
        &mut self,
        job: &JobGraph,
        checkpoint: CheckpointId,
        timestamp_millis: i64,
        committables: &BTreeMap<SubtaskKey, Vec<Committable>>,
    ) -> Result<()> {
        let mut operators = Vec::new();
        for (vertex, task) in job.vertices.iter().enumerate() {
            let Some(sink) = &task.sink else { continue };
            let part = |index| {
                let written = committables.get(&(vertex, index)).map_or(&[][..], Vec::as_slice);
                SubtaskPart { states: vec![whole(freeze_committables(written))], is_carried: false }
            };
            let subtasks = (0..task.parallelism).map(part).collect();
            let (id, name, max_parallelism) = (sink.id, sink.name.clone(), task.max_parallelism);
            operators.push(OperatorParts { id, name, max_parallelism, subtasks });
        }
        let mut writers = [StateWriter::Segment(self.segment(checkpoint))];
        let stored = assemble(operators, None, &mut writers).await?;
        let [mut segment] = writers;
        let segments = segment.finish().await?;
        let content = CheckpointContent {
            checkpoint,
            timestamp_millis,
            is_final: true,
            new_bytes: bytes_of(&segments),
            segments,
            operators: stored.into_iter().flatten().collect(),
            ..CheckpointContent::default()
        };
        self.writer.publish(content).await?;
        // Old files cost room, not correctness.
        let _ = self.retain(1).await;
        Ok(())
    }

    /// Makes a checkpoint the newest one (see [`Writer::publish`]); what to begin from it with.
    pub(super) async fn publish(&mut self, content: CheckpointContent) -> Result<String> {
        let number = self.writer.publish(content).await?.number;
        Ok(format!("{}/{}", self.url().trim_end_matches('/'), manifest_name(number)))
    }

    /// Leaves a segment in peace that no checkpoint names yet, or no segment any more.
    pub fn spare(&mut self, segment: Option<&str>) {
        self.writer.spare(segment);
    }

    /// The file for what is compacted of this checkpoint.
    pub fn compaction_segment(&self, checkpoint: CheckpointId) -> SegmentWriter {
        self.numbered_segment(checkpoint, 1)
    }

    pub(super) fn segment(&self, checkpoint: CheckpointId) -> SegmentWriter {
        self.numbered_segment(checkpoint, 0)
    }

    fn numbered_segment(&self, checkpoint: CheckpointId, number: u32) -> SegmentWriter {
        let path = self.writer.segment_path(checkpoint, number);
        let StoreFolder { store, root, .. } = &self.place.folder;
        SegmentWriter::create(patient(store.clone(), self.clock.clone()), root, path)
    }
}

/// Whether a job is still this process's, from a store that may hang.
#[derive(Debug)]
struct PatientFence {
    tenure: Tenure,
    clock: Arc<dyn Clock>,
    patience: Duration,
    url: String,
}

#[async_trait]
impl Fence for PatientFence {
    async fn check(&self) -> Result<()> {
        answered(&*self.clock, self.patience, &self.url, self.tenure.check()).await
    }
}

/// What becomes of `work`, which asks the store at `url`, unless that takes longer than `patience`.
pub async fn answered<T>(
    clock: &dyn Clock,
    patience: Duration,
    url: &str,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    tokio::select! {
        biased;
        done = work => done,
        () = clock.sleep(patience) => {
            Err(not_answered(patience).context(url))
        }
    }
}

/// The error of a store that takes longer than it may.
pub fn not_answered(patience: Duration) -> Error {
    let error = Error::unavailable(format!("the store has not answered for {patience:?}"));
    error.with_hint("execution.checkpointing.timeout says how long it may take")
}

/// How many bytes files have together.
pub fn bytes_of(segments: &[StoredSegment]) -> u64 {
    segments.iter().map(|segment| segment.bytes).sum()
}

/// A state that is stored as it is.
pub fn whole((descriptor, encode): (StateDescriptor, EncodeState)) -> FrozenState {
    FrozenState { descriptor, extent: Extent::Whole, encode }
}
