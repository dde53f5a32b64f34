//! Where a job's checkpoints go, and how one gets there.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use tidemill_core::clock::Clock;
use tidemill_core::event::{Barrier, BarrierKind, CheckpointId};
use tidemill_core::graph::{JobGraph, VertexHead};
use tidemill_core::sink::{Committable, WriterState};
use tidemill_core::source::Split;
use tidemill_core::state::{Extent, FrozenState};
use tidemill_core::{Error, ErrorKind, Result};

use super::Committers;
use super::assemble::{OperatorParts, StateWriter, SubtaskPart, assemble};
use super::command::StoreFolder;
use super::pending::{Ended, Pending, SubtaskKey};
use crate::checkpoint::{
    CheckpointContent, CheckpointKind, CheckpointStore, SavepointWriter, SegmentWriter, StoredOperator, StoredSegment,
    Writer, dispose_savepoint, find_checkpoint, write_savepoint,
};
use crate::runtime::job_state::{freeze_committables, freeze_enumerator, freeze_writer_states};

/// The folder of one job's checkpoints, which this process has taken over.
#[derive(Debug)]
pub struct JobStore {
    folder: StoreFolder,
    writer: Writer,
    nonce: u64,
    /// Whether anything is left of it when the process has ended.
    is_durable: bool,
    /// The savepoint that the job began from and owns, as long as it is there.
    claimed: Option<StoreFolder>,
}

impl JobStore {
    /// A store that is gone with the job.
    pub async fn in_memory(clock: Arc<dyn Clock>) -> Result<Self> {
        let folder = StoreFolder { store: Arc::new(InMemory::new()), root: Path::default(), url: "memory".to_owned() };
        Ok(Self { is_durable: false, ..Self::open(folder, 0, clock).await? })
    }

    /// Takes over the checkpoints in `folder`: whoever wrote there before is fenced. `nonce` tells this writer from all others.
    pub async fn open(folder: StoreFolder, nonce: u64, clock: Arc<dyn Clock>) -> Result<Self> {
        let store = CheckpointStore::open(folder.store.clone(), folder.root.clone(), clock).await;
        let store = store.map_err(|error| error.context(&folder.url))?;
        let writer = store.take_over(nonce).await.map_err(|error| error.context(&folder.url))?;
        Ok(Self { folder, writer, nonce, is_durable: true, claimed: None })
    }

    /// Takes the folder over once more.
    pub async fn reopen(&mut self, nonce: u64, clock: Arc<dyn Clock>) -> Result<()> {
        let reopened = Self::open(self.folder.clone(), nonce, clock).await?;
        *self = Self { is_durable: self.is_durable, claimed: self.claimed.take(), ..reopened };
        Ok(())
    }

    /// The savepoint in `folder` belongs to the job from now on (SVP-09): it is deleted as if it were the oldest of its
    /// checkpoints. A job whose checkpoints do not outlive it leaves it where it is.
    pub fn claim(&mut self, folder: StoreFolder) {
        self.claimed = Some(folder).filter(|_| self.is_durable);
    }

    /// Deletes old checkpoints until `count` are left, and what the job has claimed once there are as many.
    async fn retain(&mut self, count: usize, clock: Arc<dyn Clock>) -> Result<()> {
        self.writer.retain(count).await?;
        if self.writer.checkpoints_kept() >= count.max(1) {
            self.dispose_claimed(clock).await?;
        }
        Ok(())
    }

    async fn dispose_claimed(&mut self, clock: Arc<dyn Clock>) -> Result<()> {
        let Some(StoreFolder { store, root, .. }) = &self.claimed else { return Ok(()) };
        match find_checkpoint(store.clone(), root, clock.clone(), None).await {
            Ok(_) => dispose_savepoint(store.clone(), root, clock).await?,
            // It is gone already.
            Err(error) if error.kind() == ErrorKind::Request => {}
            Err(error) => return Err(error),
        }
        self.claimed = None;
        Ok(())
    }

    /// Deletes all checkpoints, and what the job has claimed.
    pub async fn discard(mut self, clock: Arc<dyn Clock>) -> Result<()> {
        self.dispose_claimed(clock).await?;
        self.writer.discard().await
    }

    /// The folder.
    pub fn folder(&self) -> &StoreFolder {
        &self.folder
    }

    /// The newest checkpoint in it.
    pub fn newest(&self) -> Option<&CheckpointContent> {
        self.writer.checkpoint()
    }

    /// The highest number that a checkpoint has had.
    pub fn highest_id(&self) -> CheckpointId {
        self.writer.newest().content.checkpoint
    }

    /// How users know it.
    pub fn url(&self) -> &str {
        &self.folder.url
    }

    /// Says that the job has ended, with what its sinks have yet to commit.
    pub async fn publish_end(
        &mut self,
        job: &JobGraph,
        checkpoint: CheckpointId,
        timestamp_millis: i64,
        committables: &BTreeMap<SubtaskKey, Vec<Committable>>,
        clock: Arc<dyn Clock>,
    ) -> Result<()> {
        if !self.is_durable {
            return Ok(());
        }
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
        let [segment] = writers;
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
        let _ = self.retain(1, clock).await;
        Ok(())
    }

    /// Leaves a segment in peace that no checkpoint names yet, or no segment any more.
    pub fn spare(&mut self, segment: Option<&str>) {
        self.writer.spare(segment);
    }

    /// The file for what is compacted of this checkpoint.
    pub fn compaction_segment(&self, checkpoint: CheckpointId) -> SegmentWriter {
        self.numbered_segment(checkpoint, 1)
    }

    fn segment(&self, checkpoint: CheckpointId) -> SegmentWriter {
        self.numbered_segment(checkpoint, 0)
    }

    fn numbered_segment(&self, checkpoint: CheckpointId, number: u32) -> SegmentWriter {
        let path = self.writer.segment_path(checkpoint, number);
        SegmentWriter::create(self.folder.store.clone(), &self.folder.root, path)
    }
}

/// A complete checkpoint on its way into the store.
pub struct StoreStep {
    pub name: Arc<str>,
    pub job: Arc<JobGraph>,
    pub committers: Committers,
    pub store: JobStore,
    pub previous: Option<Arc<CheckpointContent>>,
    /// How many bytes of the previous checkpoint's files no manifest names yet.
    pub compacted_bytes: u64,
    pub pending: Pending,
    pub ended: BTreeMap<SubtaskKey, Ended>,
    pub committables: BTreeMap<SubtaskKey, Vec<Committable>>,
    pub num_retained: usize,
    pub clock: Arc<dyn Clock>,
}

/// What became of it.
pub struct Stored {
    pub store: JobStore,
    pub pending: Pending,
    /// Subtasks that took part by themselves.
    pub parts: BTreeSet<SubtaskKey>,
    pub outcome: Result<Durable>,
}

/// A checkpoint that is durable.
pub struct Durable {
    pub content: CheckpointContent,
    /// What kept its committables from being committed.
    pub not_committed: Option<Error>,
}

impl StoreStep {
    /// Stores the checkpoint, then commits what it holds.
    pub async fn run(mut self) -> Stored {
        let parts = self.pending.parts.keys().copied().collect();
        let outcome = AssertUnwindSafe(self.store_and_commit()).catch_unwind().await;
        let outcome = outcome.unwrap_or_else(|_| Err(Error::internal("storing a checkpoint panicked")));
        Stored { store: self.store, pending: self.pending, parts, outcome }
    }

    async fn store_and_commit(&mut self) -> Result<Durable> {
        let Barrier { id, kind, .. } = self.pending.barrier;
        let is_checkpoint = kind != BarrierKind::Savepoint;
        let source_positions = self.source_positions();
        let operators = self.operators();
        let target = self.pending.target.clone();
        let previous = self.previous.clone().filter(|_| is_checkpoint);
        let mut writers = Vec::new();
        writers.extend(is_checkpoint.then(|| StateWriter::Segment(self.store.segment(id))));
        if let Some(target) = &target {
            let begun = SavepointWriter::create(target.store.clone(), &target.root, self.clock.clone()).await;
            writers.push(StateWriter::Savepoint(begun.map_err(|error| error.context(&target.url))?));
        }
        let stored = match assemble(operators, previous.as_deref(), &mut writers).await {
            Ok(stored) => stored,
            Err(error) => {
                for writer in writers {
                    writer.abort().await;
                }
                return Err(error);
            }
        };
        let mut contents = Vec::new();
        for (writer, operators) in writers.into_iter().zip(stored) {
            let segments = writer.finish().await?;
            contents.push(self.content(segments, operators, source_positions.clone()));
        }
        let savepoint = if target.is_some() { contents.pop() } else { None };
        if let (Some(target), Some(content)) = (&target, &savepoint) {
            let clock = self.clock.clone();
            let (store, root) = (target.store.clone(), &target.root);
            let written = write_savepoint(store, root, clock, self.store.nonce, content.clone()).await;
            written.map_err(|error| error.context(&target.url))?;
        }
        let Some(mut content) = contents.pop() else {
            return Ok(Durable { content: savepoint.unwrap_or_default(), not_committed: None });
        };
        let needed = needed_files(&content.operators);
        let old = previous.iter().flat_map(|content| &content.segments);
        content.segments.extend(old.filter(|segment| needed.contains(&segment.path)).cloned());
        content.new_bytes += self.compacted_bytes;
        self.store.writer.publish(content.clone()).await?;
        let not_committed = self.commit().await.err();
        // Old files cost room, not correctness.
        let _ = self.store.retain(self.num_retained, self.clock.clone()).await;
        Ok(Durable { content, not_committed })
    }

    /// A checkpoint of these operators, whose new states lie in `segments`.
    fn content(
        &self,
        segments: Vec<StoredSegment>,
        operators: Vec<StoredOperator>,
        source_positions: Vec<(String, String)>,
    ) -> CheckpointContent {
        let Barrier { id, timestamp, kind } = self.pending.barrier;
        CheckpointContent {
            checkpoint: id,
            timestamp_millis: timestamp,
            kind: CheckpointKind::Checkpoint,
            is_final: kind == (BarrierKind::Stop { drain: true }),
            job: self.name.to_string(),
            source_positions,
            new_bytes: bytes_of(&segments),
            segments,
            operators,
            took_millis: self.clock.monotonic().saturating_sub(self.pending.triggered).as_millis() as u64,
        }
    }

    async fn commit(&mut self) -> Result<()> {
        for (vertex, committer) in self.committers.iter() {
            let own = self.committables.iter().filter(|((owner, _), _)| owner == vertex);
            let own: Vec<Committable> = own.flat_map(|(_, committables)| committables.clone()).collect();
            if !own.is_empty() {
                committer.commit(own).await?;
            }
        }
        Ok(())
    }

    /// The parts of all operators of the job.
    fn operators(&mut self) -> Vec<OperatorParts> {
        let mut operators = Vec::new();
        let carries = self.pending.target.is_none() && self.pending.barrier.kind != BarrierKind::Savepoint;
        let job = self.job.clone();
        for (vertex, task) in job.vertices.iter().enumerate() {
            let mut parts: Vec<SubtaskParts> =
                (0..task.parallelism).map(|index| self.subtask((vertex, index), carries)).collect();
            let writer_states: Vec<Vec<WriterState>> =
                parts.iter_mut().map(|part| std::mem::take(&mut part.writer_states)).collect();
            let mut operator = |id, name: &str, extra: &dyn Fn(usize) -> Vec<FrozenState>| {
                let part = |(index, parts): (usize, &mut SubtaskParts)| {
                    let own = parts.states.extract_if(.., |(owner, _)| *owner == id).map(|(_, state)| state);
                    let states = own.chain(extra(index)).collect();
                    SubtaskPart { states, is_carried: parts.is_carried }
                };
                let subtasks = parts.iter_mut().enumerate().map(part).collect();
                operators.push(OperatorParts {
                    id,
                    name: name.to_owned(),
                    max_parallelism: task.max_parallelism,
                    subtasks,
                });
            };
            if let VertexHead::Source(_) = &task.head {
                let state = self.pending.enumerators.remove(&vertex).unwrap_or_default();
                let enumerator = |index| match index {
                    0 => vec![whole(freeze_enumerator(state.clone()))],
                    _ => Vec::new(),
                };
                operator(task.id, &task.name, &enumerator);
            }
            for chained in &task.chain {
                operator(chained.id, &chained.name, &|_| Vec::new());
            }
            if let Some(sink) = &task.sink {
                let committables = &self.committables;
                let open = &writer_states;
                let written = |index| {
                    let written = committables.get(&(vertex, index)).map_or(&[][..], Vec::as_slice);
                    vec![whole(freeze_committables(written)), whole(freeze_writer_states(&open[index]))]
                };
                operator(sink.id, &sink.name, &written);
            }
        }
        operators
    }

    fn subtask(&mut self, subtask: SubtaskKey, carries: bool) -> SubtaskParts {
        if let Some(part) = self.pending.parts.remove(&subtask) {
            return SubtaskParts { writer_states: part.writer_states, states: part.states, is_carried: false };
        }
        match self.ended.get(&subtask) {
            Some(ended) if carries && ended.is_stored => SubtaskParts { is_carried: true, ..SubtaskParts::default() },
            Some(ended) => {
                let states = ended.states.iter().map(|(operator, state)| (*operator, state.freeze())).collect();
                SubtaskParts { states, ..SubtaskParts::default() }
            }
            None => SubtaskParts::default(),
        }
    }

    /// Each source and where it stands, for people.
    fn source_positions(&self) -> Vec<(String, String)> {
        let of_subtask = |(subtask, part): (&SubtaskKey, &crate::runtime::participant::SubtaskSnapshot)| {
            let name = &self.job.vertices[subtask.0].name;
            part.splits.iter().map(|split| (name.clone(), position_text(split))).collect::<Vec<_>>()
        };
        self.pending.parts.iter().flat_map(of_subtask).collect()
    }
}

fn bytes_of(segments: &[StoredSegment]) -> u64 {
    segments.iter().map(|segment| segment.bytes).sum()
}

/// The files that layers of these operators lie in.
fn needed_files(operators: &[StoredOperator]) -> BTreeSet<Arc<str>> {
    let states = operators.iter().flat_map(|operator| &operator.subtasks).flat_map(|subtask| &subtask.states);
    let layers = states.flat_map(|state| &state.layers).filter(|layer| !layer.chunks.is_empty());
    layers.map(|layer| layer.segment.clone()).collect()
}

#[derive(Default)]
struct SubtaskParts {
    writer_states: Vec<WriterState>,
    states: Vec<(tidemill_core::graph::OperatorId, FrozenState)>,
    is_carried: bool,
}

fn whole(
    (descriptor, encode): (tidemill_core::state::StateDescriptor, tidemill_core::state::EncodeState),
) -> FrozenState {
    FrozenState { descriptor, extent: Extent::Whole, encode }
}

/// A split and its position: as it is where that is text, else in hexadecimal digits.
fn position_text(split: &Split) -> String {
    let printable = std::str::from_utf8(&split.position).ok().filter(|text| !text.contains(char::is_control));
    match (printable, split.position.is_empty()) {
        (_, true) => format!("{} from its beginning", split.id),
        (Some(text), _) => format!("{} at {text}", split.id),
        (None, _) => {
            let digits: String = split.position.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{} at 0x{digits}", split.id)
        }
    }
}
