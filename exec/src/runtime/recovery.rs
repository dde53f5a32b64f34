//! What a job goes on from: a checkpoint, and how its parts come back to sources, operators and sinks.

use std::collections::BTreeSet;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::path::Path;
use tidemill_core::graph::{JobGraph, OperatorId, VertexHead};
use tidemill_core::sink::{Committable, WriterState};
use tidemill_core::source::Split;
use tidemill_core::{Error, Result};

use crate::checkpoint::{CheckpointContent, StoredOperator, read_layer, restored_state};
use crate::runtime::chain::Chain;
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
}

impl RestoredJob {
    /// Refuses state that no operator of `job` claims, unless that is allowed.
    pub fn check(&self, job: &JobGraph, ignore_unclaimed: bool) -> Result<()> {
        let claimed: BTreeSet<OperatorId> = job.vertices.iter().flat_map(claims).collect();
        let is_unclaimed = |operator: &&StoredOperator| {
            !claimed.contains(&operator.id) && operator.subtasks.iter().any(|subtask| !subtask.states.is_empty())
        };
        let unclaimed: Vec<String> = (self.content.operators.iter().filter(is_unclaimed))
            .map(|operator| format!("'{}' ({})", operator.name, operator.id))
            .collect();
        if unclaimed.is_empty() || ignore_unclaimed {
            return Ok(());
        }
        let message = format!("the checkpoint has state of {}, which the job does not have", unclaimed.join(", "));
        Err(Error::request(message).with_hint("change the job back, or allow non-restored state to drop it"))
    }

    /// What the enumerator of a source remembers, and the splits that its readers had.
    pub async fn source(&self, source: OperatorId) -> Result<Option<(Vec<u8>, Vec<Split>)>> {
        let Some(enumerator) = bytes(ENUMERATOR, &self.list(source, ENUMERATOR).await?)?.pop() else { return Ok(None) };
        Ok(Some((enumerator, splits(&self.list(source, SPLITS).await?)?)))
    }

    /// What a sink has to commit.
    pub async fn committables(&self, sink: OperatorId) -> Result<Vec<Committable>> {
        committables(&self.list(sink, COMMITTABLES).await?)
    }

    /// What the writers of a sink go on with.
    pub async fn writer_states(&self, sink: OperatorId) -> Result<Vec<WriterState>> {
        writer_states(&self.list(sink, WRITER_STATES).await?)
    }

    /// The rows of a list, of all subtasks.
    async fn list(&self, operator: OperatorId, name: &str) -> Result<Vec<arrow::array::RecordBatch>> {
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
    /// Which subtask, from 0.
    pub subtask: usize,
    /// How many there are now.
    pub parallelism: usize,
    /// How many key groups there are.
    pub max_parallelism: u32,
}

impl RestoredSubtask {
    /// Reads the states of the operators and of the sink's writers and gives them back; writer states are dealt in turn.
    pub async fn give_back(self, chain: &mut Chain, output: &mut TaskOutput) -> Result<()> {
        let Self { job, operators, sink, subtask, parallelism, max_parallelism } = self;
        if let (Some(id), Some(sink)) = (sink, &mut output.sink) {
            let states = job.writer_states(id).await?.into_iter();
            let own: Vec<WriterState> = states.skip(subtask).step_by(parallelism).collect();
            if !own.is_empty() {
                sink.restore(own).await?;
            }
        }
        for (place, id) in operators.into_iter().enumerate() {
            if let Some(stored) = job.operator(id) {
                let share = restored_state(&*job.store, &job.root, stored, subtask, parallelism, max_parallelism);
                let state = share.await.map_err(|error| error.context(format_args!("state of '{}'", stored.name)))?;
                chain.restore(place, state)?;
            }
        }
        Ok(())
    }
}
