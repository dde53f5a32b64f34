//! A complete checkpoint on its way into the store, and the commit behind it.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, TryFutureExt};
use tidemill_core::clock::{Clock, Spawner};
use tidemill_core::event::{Barrier, BarrierKind};
use tidemill_core::graph::{JobGraph, OperatorId, VertexHead};
use tidemill_core::sink::{Committable, WriterState};
use tidemill_core::source::Split;
use tidemill_core::state::FrozenState;
use tidemill_core::{Error, Result};
use tokio::sync::oneshot;

use super::Committers;
use super::assemble::{OperatorParts, StateWriter, SubtaskPart, assemble};
use super::pending::{Ended, Pending, SubtaskKey};
use super::store::{JobStore, bytes_of, not_answered, whole};
use crate::checkpoint::{
    CheckpointContent, CheckpointKind, SavepointWriter, StoredOperator, StoredSegment, write_savepoint,
};
use crate::latch::Latch;
use crate::runtime::committing::Committing;
use crate::runtime::job_state::{freeze_committables, freeze_enumerator, freeze_writer_states};
use crate::runtime::participant::SubtaskSnapshot;
use crate::runtime::task::panic_text;

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
    /// Where a savepoint is completed that nobody waits for any more.
    pub background: Arc<dyn Spawner>,
    /// How long writing may take, and then how long taking back what was written, or what each sink has to commit.
    pub timeout: Duration,
    /// Thrown when it has taken too long.
    pub expired: Arc<Latch>,
    /// Thrown when it is durable.
    pub published: Arc<Latch>,
}

/// What became of it.
pub struct Stored {
    pub store: JobStore,
    pub pending: Pending,
    /// Subtasks that took part by themselves.
    pub parts: BTreeSet<SubtaskKey>,
    pub outcome: Result<Durable>,
}

/// What lies in the store and no manifest names yet.
struct Written {
    /// What is to be published.
    checkpoint: Option<CheckpointContent>,
    /// The savepoint, of which the manifest is missing.
    savepoint: Option<CheckpointContent>,
}

/// A checkpoint that is durable.
pub struct Durable {
    pub content: CheckpointContent,
    /// What to begin from it with.
    pub path: String,
    /// What kept its committables from being committed.
    pub not_committed: Option<Error>,
}

impl StoreStep {
    /// Stores the checkpoint, then commits what it holds.
    pub async fn run(mut self) -> Stored {
        let parts = self.pending.parts.keys().copied().collect();
        let outcome = AssertUnwindSafe(self.store_and_commit()).catch_unwind().await;
        let panicked = |text: &str| Error::internal(format!("storing a checkpoint panicked: {text}"));
        let outcome = outcome.unwrap_or_else(|panic| Err(panicked(panic_text(&*panic))));
        Stored { store: self.store, pending: self.pending, parts, outcome }
    }

    async fn store_and_commit(&mut self) -> Result<Durable> {
        let (timeout, expired, clock) = (self.timeout, self.expired.clone(), self.clock.clone());
        let mut writers = Vec::new();
        let written = tokio::select! {
            biased;
            written = self.write(&mut writers) => written,
            () = expired.wait() => Err(not_answered(timeout)),
        };
        let written = match written {
            Ok(_) if expired.is_raised() => Err(not_answered(timeout)),
            written => written,
        };
        let Written { checkpoint, savepoint } = match written {
            Ok(written) => written,
            Err(error) => {
                let abort = async {
                    for writer in writers {
                        writer.abort().await;
                    }
                };
                // A store that does not take it back keeps it.
                tokio::select! {
                    () = abort => {}
                    () = clock.sleep(timeout) => {}
                }
                return Err(error);
            }
        };
        let target = self.pending.target.as_ref().map(|target| target.url.clone());
        if let Some(content) = &savepoint {
            self.complete_savepoint(content.clone(), writers.pop()).await?;
        }
        let Some(content) = checkpoint else {
            let (content, path) = (savepoint.unwrap_or_default(), target.unwrap_or_default());
            return Ok(Durable { content, path, not_committed: None });
        };
        let published = self.store.publish(content.clone()).await?;
        self.published.raise();
        let not_committed = self.commit().await.err();
        // Old files cost room, not correctness.
        tokio::select! {
            _ = self.store.retain(self.num_retained) => {}
            () = clock.sleep(timeout) => {}
        }
        Ok(Durable { content, path: target.unwrap_or(published), not_committed })
    }

    /// Writes the manifest of a savepoint whose files are there, and gives those up if that fails. A store that does not answer is
    /// waited for elsewhere: what is not known to have failed may come to be, and nobody else needs the right to write here.
    async fn complete_savepoint(&mut self, content: CheckpointContent, writer: Option<StateWriter>) -> Result<()> {
        let (Some(target), Some(writer)) = (self.pending.target.clone(), writer) else {
            return Err(Error::internal("a savepoint without a place"));
        };
        let (clock, nonce) = (self.clock.clone(), self.store.nonce);
        let (done, heard) = oneshot::channel();
        let work = async move {
            let written = write_savepoint(target.store.clone(), &target.root, clock, nonce, content).await;
            if written.is_err() {
                writer.abort().await;
            }
            // Who asked may have heard already that it takes too long.
            let _ = done.send(written.map(drop).map_err(|error| error.context(&target.url)));
        };
        self.background.spawn("complete a savepoint", Box::pin(work));
        tokio::select! {
            biased;
            written = heard => written.unwrap_or_else(|_| Err(Error::internal("completing a savepoint panicked"))),
            () = self.expired.wait() => Err(not_answered(self.timeout)),
        }
    }

    /// Writes all that the checkpoint names, and what the savepoint does if there is to be one.
    async fn write(&mut self, writers: &mut Vec<StateWriter>) -> Result<Written> {
        let Barrier { id, kind, .. } = self.pending.barrier;
        let is_checkpoint = kind != BarrierKind::Savepoint;
        let source_positions = self.source_positions();
        let operators = self.operators();
        let target = self.pending.target.clone();
        let previous = self.previous.clone().filter(|_| is_checkpoint);
        writers.extend(is_checkpoint.then(|| StateWriter::Segment(self.store.segment(id))));
        if let Some(target) = &target {
            let (clock, nonce) = (self.clock.clone(), self.savepoint_nonce());
            let begun = SavepointWriter::create(target.store.clone(), &target.root, clock, nonce).await;
            writers.push(StateWriter::Savepoint(begun.map_err(|error| error.context(&target.url))?));
        }
        let stored = assemble(operators, previous.as_deref(), writers).await?;
        let mut contents = Vec::new();
        for (writer, operators) in writers.iter_mut().zip(stored) {
            let segments = writer.finish().await?;
            contents.push(self.content(segments, operators, source_positions.clone()));
        }
        let savepoint = if target.is_some() { contents.pop() } else { None };
        let Some(mut content) = contents.pop() else { return Ok(Written { checkpoint: None, savepoint }) };
        let needed = needed_files(&content.operators);
        let old = previous.iter().flat_map(|content| &content.segments);
        content.segments.extend(old.filter(|segment| needed.contains(&segment.path)).cloned());
        content.new_bytes += self.compacted_bytes;
        Ok(Written { checkpoint: Some(content), savepoint })
    }

    /// A number that no other writer of a savepoint has drawn, be it a job of this process in the same moment.
    fn savepoint_nonce(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let (store, now) = (&self.store, (self.clock.now_millis(), self.clock.monotonic()));
        (store.nonce, store.url(), &self.name, self.pending.barrier.id, now).hash(&mut hasher);
        hasher.finish()
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

    /// Commits what the checkpoint holds: every sink's, whatever becomes of the others', and the first error counts (SUB-08). A sink
    /// that does not answer is not waited for; whoever goes on from the checkpoint has it commit the same again.
    async fn commit(&mut self) -> Result<()> {
        let id = self.pending.barrier.id;
        let committing = Committing { job: &self.job, clock: &*self.clock, timeout: self.timeout };
        let mut outcome = Ok(());
        for (vertex, committer) in self.committers.iter() {
            let own = self.committables.iter().filter(|((owner, _), _)| owner == vertex);
            let own: Vec<Committable> = own.flat_map(|(_, committables)| committables.clone()).collect();
            if own.is_empty() {
                continue;
            }
            let failed =
                |error: Error| error.context(format_args!("checkpoint {id} is complete and cannot be committed"));
            let commit = committer.commit(own).map_err(failed);
            let unknown =
                |sink: &str| format!("checkpoint {id} is complete, but whether '{sink}' has committed it is not known");
            outcome = outcome.and(committing.wait(*vertex, commit, unknown).await);
        }
        outcome
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
        let of_subtask = |(subtask, part): (&SubtaskKey, &SubtaskSnapshot)| {
            let name = &self.job.vertices[subtask.0].name;
            part.splits.iter().map(|split| (name.clone(), position_text(split))).collect::<Vec<_>>()
        };
        self.pending.parts.iter().flat_map(of_subtask).collect()
    }
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
    states: Vec<(OperatorId, FrozenState)>,
    is_carried: bool,
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
