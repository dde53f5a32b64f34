//! What a job goes on from: a checkpoint, and how its parts come back to sources, operators and sinks.
//!
//! Damage is met only when states are read, by several subtasks at once. Whoever meets it says which checkpoint it is of and which
//! older one is whole; that is looked for once.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use object_store::ObjectStore;
use object_store::path::Path;
use tidemill_core::clock::Clock;
use tidemill_core::graph::{JobGraph, OperatorId, Partitioning, VertexHead};
use tidemill_core::sink::{Committable, WriterState};
use tidemill_core::source::Split;
use tidemill_core::{Error, ErrorKind, Result, Watermark};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::OnceCell;

use crate::checkpoint::{
    CheckpointContent, CheckpointKind, StoredOperator, StoredSubtask, newest_whole, patient_reader, read_layer,
    restored_state,
};
use crate::exchange::Partitioner;
use crate::runtime::chain::Chain;
use crate::runtime::checkpoints::StoreFolder;
use crate::runtime::in_flight::{InputEdge, Replay, TIME, is_in_flight, name_of, place_of, thaw, times};
use crate::runtime::input::TaskInput;
use crate::runtime::job::ResumedFrom;
use crate::runtime::job_state::{
    COMMITTABLES, ENUMERATOR, SPLITS, WRITER_STATES, bytes, committables, splits, writer_states,
};
use crate::runtime::output::TaskOutput;

/// A checkpoint to go on from, and where it lies.
#[derive(Clone, Debug)]
pub struct RestoredJob {
    /// The store.
    pub store: Arc<dyn ObjectStore>,
    /// What the paths in the checkpoint are relative to.
    pub root: Path,
    /// The checkpoint.
    pub content: Arc<CheckpointContent>,
    /// How users know the place.
    url: String,
    clock: Arc<dyn Clock>,
    /// What there is beside the checkpoint, once somebody has asked.
    instead: OnceCell<String>,
}

impl RestoredJob {
    /// A checkpoint that lies in `folder`, whose store is asked with patience, but for no answer longer than `timeout`.
    pub fn new(folder: StoreFolder, content: Arc<CheckpointContent>, clock: Arc<dyn Clock>, timeout: Duration) -> Self {
        let StoreFolder { store, root, url } = folder;
        let store = patient_reader(store, clock.clone(), timeout);
        Self { store, root, content, url, clock, instead: OnceCell::new() }
    }

    /// What users are told of it.
    pub fn described(&self) -> ResumedFrom {
        let CheckpointContent { checkpoint, source_positions, .. } = &*self.content;
        let (checkpoint, source_positions) = (*checkpoint, source_positions.clone());
        ResumedFrom { checkpoint, url: self.url.clone(), source_positions }
    }

    /// Refuses state that no operator of `job` claims, unless that is allowed, and rows in flight that nobody reads.
    pub fn check(&self, job: &JobGraph, ignore_unclaimed: bool) -> Result<()> {
        for operator in &self.content.operators {
            let inputs = job.vertices.iter().position(|vertex| vertex.id == operator.id);
            let inputs = inputs.map_or(0, |vertex| job.inputs(vertex).count());
            let states = operator.subtasks.iter().flat_map(|subtask| &subtask.states);
            if states.filter_map(|state| place_of(&state.descriptor.name)).any(|place| place >= inputs) {
                let error =
                    format!("the checkpoint has rows in flight to '{}', which the job does not have", operator.name);
                return Err(
                    Error::request(error).with_hint("change the job behind a savepoint, which holds no rows in flight")
                );
            }
        }
        let claimed: BTreeSet<OperatorId> = job.vertices.iter().flat_map(claims).collect();
        let is_unclaimed = |operator: &&StoredOperator| {
            !claimed.contains(&operator.id) && operator.subtasks.iter().any(|subtask| !subtask.states.is_empty())
        };
        let unclaimed: Vec<String> = (self.content.operators.iter().filter(is_unclaimed))
            .map(|operator| format!("'{}' ({})", operator.name, operator.id))
            .collect();
        let is_uncommitted = |operator: &&StoredOperator| {
            let mut states = operator.subtasks.iter().flat_map(|subtask| &subtask.states);
            states.any(|state| {
                let name = state.descriptor.name.as_str();
                let holds_rows = state.layers.iter().any(|layer| !layer.chunks.is_empty());
                holds_rows && (name == COMMITTABLES || name == WRITER_STATES)
            })
        };
        let mut unclaimed_operators = self.content.operators.iter().filter(is_unclaimed);
        // Whoever took a savepoint commits what it holds; of a checkpoint nobody else does.
        if self.content.kind == CheckpointKind::Checkpoint
            && let Some(sink) = unclaimed_operators.find(is_uncommitted)
        {
            let error = format!(
                "the checkpoint holds rows that the sink '{}' ({}) has yet to commit, and the job does not have it",
                sink.name, sink.id
            );
            return Err(Error::request(error).with_hint("change the job back, or end it behind a savepoint first"));
        }
        if unclaimed.is_empty() || ignore_unclaimed {
            return Ok(());
        }
        let message = format!("the checkpoint has state of {}, which the job does not have", unclaimed.join(", "));
        Err(Error::request(message).with_hint("change the job back, or allow non-restored state to drop it"))
    }

    /// What the enumerator of a source remembers, and the splits that its readers had.
    pub async fn source(&self, source: OperatorId) -> Result<Option<(Vec<u8>, Vec<Split>)>> {
        let read = async {
            let enumerator = bytes(ENUMERATOR, &self.list(source, ENUMERATOR).await?)?.pop();
            let Some(enumerator) = enumerator else { return Ok(None) };
            Ok(Some((enumerator, splits(&self.list(source, SPLITS).await?)?)))
        };
        self.named(read).await
    }

    /// What a sink has to commit.
    pub async fn committables(&self, sink: OperatorId) -> Result<Vec<Committable>> {
        self.named(async { committables(&self.list(sink, COMMITTABLES).await?) }).await
    }

    /// What the writers of a sink go on with.
    pub async fn writer_states(&self, sink: OperatorId) -> Result<Vec<WriterState>> {
        self.named(async { writer_states(&self.list(sink, WRITER_STATES).await?) }).await
    }

    /// What is read of the checkpoint; damage is named with the checkpoint, and with what there is beside it.
    async fn named<T>(&self, read: impl Future<Output = Result<T>>) -> Result<T> {
        match read.await {
            Err(error) if error.kind() == ErrorKind::Corrupt => Err(self.damaged(error).await),
            read => read,
        }
    }

    async fn damaged(&self, error: Error) -> Error {
        let (url, number) = (&self.url, self.content.checkpoint);
        if self.content.kind == CheckpointKind::Savepoint {
            return error.context(format_args!("the savepoint in {url} is damaged"));
        }
        let find = || newest_whole(self.store.clone(), &self.root, self.clock.clone(), number);
        let instead = self.instead.get_or_init(|| async move {
            match find().await {
                Ok(Some((older, manifest))) => format!(
                    "the newest good one is checkpoint {older}: deleting the manifests behind '{manifest}' goes on from it, \
                     and what sinks have shown since comes again"
                ),
                Ok(None) => "there is no good one before it".to_owned(),
                Err(error) => format!("whether an older one is good is not known: {error}"),
            }
        });
        let hint = format!("restore the file; {}", instead.await);
        error.context(format_args!("checkpoint {number} in {url} is damaged")).with_hint(hint)
    }

    /// The rows of a list, of all subtasks.
    async fn list(&self, operator: OperatorId, name: &str) -> Result<Vec<RecordBatch>> {
        let mut batches = Vec::new();
        let subtasks = self.operator(operator).into_iter().flat_map(|operator| &operator.subtasks);
        let states = subtasks.flat_map(|subtask| &subtask.states).filter(|state| state.descriptor.name == name);
        for layer in states.flat_map(|state| &state.layers) {
            batches.extend(read_layer(&*self.store, &self.root, layer, None).await?);
        }
        Ok(batches)
    }

    fn operator(&self, id: OperatorId) -> Option<&StoredOperator> {
        self.content.operators.iter().find(|operator| operator.id == id)
    }
}

/// The identities under which a task files state.
fn claims(vertex: &tidemill_core::graph::JobVertex) -> impl Iterator<Item = OperatorId> {
    let source = matches!(vertex.head, VertexHead::Source(_)).then_some(vertex.id);
    let sink = vertex.sink.as_ref().map(|sink| sink.id);
    source.into_iter().chain(vertex.chain.iter().map(|operator| operator.id)).chain(sink)
}

/// What one subtask goes on from.
#[derive(Clone, Debug)]
pub struct RestoredSubtask {
    /// The checkpoint.
    pub job: Arc<RestoredJob>,
    /// The operators of the chain, in their order.
    pub operators: Vec<OperatorId>,
    /// The sink behind them.
    pub sink: Option<OperatorId>,
    /// The first of all these.
    pub head: OperatorId,
    /// What the random choices of partitionings follow from.
    pub seed: u64,
    /// Which subtask, from 0.
    pub subtask: usize,
    /// How many there are now.
    pub parallelism: usize,
    /// How many key groups there are.
    pub max_parallelism: u32,
}

/// Works for as long as it takes while other tasks go on: more subtasks than there are threads share the cores from the beginning, where
/// the last of them would wait for the first ones to be done, and other jobs do not wait at all.
fn beside_others<T>(work: impl FnOnce() -> T) -> T {
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::MultiThread => tokio::task::block_in_place(work),
        _ => work(),
    }
}

impl RestoredSubtask {
    /// Reads the states of the operators, of the sink's writers and of the rows in flight, and gives them back; writer states are
    /// dealt in turn.
    pub async fn give_back(self, chain: &mut Chain, input: &mut TaskInput, output: &mut TaskOutput) -> Result<()> {
        if let Some(replay) = self.job.named(self.replay(input.edges())).await? {
            input.replay(replay);
        }
        let Self { job, operators, sink, subtask, parallelism, max_parallelism, .. } = self;
        if let (Some(id), Some(sink)) = (sink, &mut output.sink) {
            let states = job.writer_states(id).await?.into_iter();
            let own: Vec<WriterState> = states.skip(subtask).step_by(parallelism).collect();
            if !own.is_empty() {
                sink.restore(own).await?;
            }
        }
        for (place, id) in operators.into_iter().enumerate() {
            if let Some(stored) = job.operator(id) {
                let stored = &without_in_flight(stored);
                let share = restored_state(&*job.store, &job.root, stored, subtask, parallelism, max_parallelism);
                let share =
                    async { share.await.map_err(|error| error.context(format_args!("state of '{}'", stored.name))) };
                let share = job.named(share).await?;
                // Rows are decoded when the operator puts them back.
                let restored = beside_others(|| chain.restore(place, share));
                let of_state = |error: Error| match error.kind() {
                    ErrorKind::Corrupt => error.context(format_args!("state of '{}'", stored.name)),
                    _ => error,
                };
                job.named(async { restored.map_err(of_state) }).await?;
            }
        }
        Ok(())
    }

    /// The rows that were in flight to this subtask, if there were any: its own; of another number of subtasks, those that the
    /// partitioning of their edge deals to it now.
    async fn replay(&self, edges: &[InputEdge]) -> Result<Option<Replay>> {
        let Some(stored) = self.job.operator(self.head) else { return Ok(None) };
        let has_some =
            |subtask: &StoredSubtask| subtask.states.iter().any(|state| is_in_flight(&state.descriptor.name));
        if !stored.subtasks.iter().any(has_some) {
            return Ok(None);
        }
        let is_same = stored.subtasks.len() == self.parallelism && stored.max_parallelism == self.max_parallelism;
        let own = if is_same { self.subtask..self.subtask + 1 } else { 0..stored.subtasks.len() };
        let sources = &stored.subtasks[own];
        let (begin, end) = self.times(sources).await?;
        let mut replay = Replay { edges: Vec::with_capacity(edges.len()), begin, end };
        for edge in edges {
            let mut partitioner =
                Partitioner::new(edge.partitioning.clone(), 0, 1, self.parallelism, edge.max_parallelism, self.seed);
            // Where no key says who gets a row, whoever was to get it does.
            let is_kept = is_same && !matches!(edge.partitioning, Partitioning::Hash(_));
            let mut rows = VecDeque::new();
            let mut routed = Vec::new();
            for batch in self.rows(sources, &name_of(edge.place)).await? {
                partitioner.partition(thaw(edge, &batch)?, &mut routed)?;
                for (channel, batch) in routed.drain(..) {
                    if channel == self.subtask || is_kept {
                        rows.push_back(batch);
                    } else if is_same {
                        let error =
                            format!("rows in flight to subtask {} have keys of subtask {channel}", self.subtask);
                        return Err(Error::corrupt(error).with_hint("pipeline.max-parallelism has to stay what it was"));
                    }
                }
            }
            replay.edges.push((edge.clone(), rows));
        }
        Ok(Some(replay))
    }

    /// How far event time had come in all of some subtasks, before and behind the rows in flight; where one does not say, that is
    /// not known.
    async fn times(&self, subtasks: &[StoredSubtask]) -> Result<(Watermark, Watermark)> {
        let mut least = None;
        for subtask in subtasks {
            let stored = self.rows(std::slice::from_ref(subtask), TIME).await?;
            let Some(stored) = stored.first() else { return Ok((Watermark::MIN, Watermark::MIN)) };
            let (begin, end) = times(stored)?;
            let (least_begin, least_end) = least.unwrap_or((begin, end));
            least = Some((begin.min(least_begin), end.min(least_end)));
        }
        Ok(least.unwrap_or((Watermark::MIN, Watermark::MIN)))
    }

    /// The rows of a state, of some subtasks.
    async fn rows(&self, subtasks: &[StoredSubtask], name: &str) -> Result<Vec<RecordBatch>> {
        let mut rows = Vec::new();
        let states = subtasks.iter().flat_map(|subtask| &subtask.states).filter(|state| state.descriptor.name == name);
        for layer in states.flat_map(|state| &state.layers) {
            rows.extend(read_layer(&*self.job.store, &self.job.root, layer, None).await?);
        }
        Ok(rows)
    }
}

/// The states of an operator itself.
fn without_in_flight(stored: &StoredOperator) -> StoredOperator {
    let mut own = stored.clone();
    for subtask in &mut own.subtasks {
        subtask.states.retain(|state| !is_in_flight(&state.descriptor.name));
    }
    own
}
