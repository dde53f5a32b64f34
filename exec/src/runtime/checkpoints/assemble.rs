//! From the parts of subtasks to stored operators: states are encoded, written, and laid over what the checkpoint before holds.

use arrow::array::RecordBatch;
use tidemill_core::graph::OperatorId;
use tidemill_core::state::{Extent, FrozenState, StateDescriptor};
use tidemill_core::{Error, Result};

use crate::checkpoint::{
    CheckpointContent, SavepointWriter, SegmentWriter, StateOwner, StoredLayer, StoredOperator, StoredSegment,
    StoredState, StoredSubtask,
};

/// Where states are written to.
#[derive(Debug)]
pub enum StateWriter {
    /// The segment of a checkpoint.
    Segment(SegmentWriter),
    /// The files of a savepoint.
    Savepoint(SavepointWriter),
}

impl StateWriter {
    async fn write(
        &mut self,
        owner: StateOwner<'_>,
        extent: Extent,
        descriptor: &StateDescriptor,
        batches: &[RecordBatch],
    ) -> Result<StoredLayer> {
        match self {
            Self::Segment(segment) => segment.write_batches(extent, descriptor, batches).await,
            Self::Savepoint(savepoint) => savepoint.write_batches(owner, extent, descriptor, batches).await,
        }
    }

    /// Completes the files; those that there are. They can still be given up.
    pub async fn finish(&mut self) -> Result<Vec<StoredSegment>> {
        match self {
            Self::Segment(segment) => Ok(segment.finish().await?.into_iter().collect()),
            Self::Savepoint(savepoint) => Ok(savepoint.written().to_vec()),
        }
    }

    /// Gives the files up. A segment that is complete stays until the job's next look at what no checkpoint names.
    pub async fn abort(self) {
        match self {
            Self::Segment(segment) => segment.abort().await,
            Self::Savepoint(savepoint) => savepoint.abort().await,
        }
    }
}

/// The parts of one operator.
pub struct OperatorParts {
    pub id: OperatorId,
    pub name: String,
    pub max_parallelism: u32,
    /// One a subtask.
    pub subtasks: Vec<SubtaskPart>,
}

/// The part of one subtask.
#[derive(Default)]
pub struct SubtaskPart {
    /// What it froze.
    pub states: Vec<FrozenState>,
    /// Whether its other states are those of the checkpoint before.
    pub is_carried: bool,
}

/// Writes every state to all `writers`. For each of them the operators as they are stored there; those of the first one go on
/// from `previous`, whose files lie beside it.
pub async fn assemble(
    operators: Vec<OperatorParts>,
    previous: Option<&CheckpointContent>,
    writers: &mut [StateWriter],
) -> Result<Vec<Vec<StoredOperator>>> {
    let mut stored: Vec<Vec<StoredOperator>> = writers.iter().map(|_| Vec::new()).collect();
    for OperatorParts { id, name, max_parallelism, subtasks } in operators {
        for operators in &mut stored {
            let (name, subtasks) = (name.clone(), Vec::with_capacity(subtasks.len()));
            operators.push(StoredOperator { id, name, max_parallelism, subtasks });
        }
        let before = previous.and_then(|content| content.operators.iter().find(|operator| operator.id == id));
        for (index, part) in subtasks.into_iter().enumerate() {
            let before = before.and_then(|operator| operator.subtasks.get(index));
            let owner = StateOwner { operator: id, name: &name, subtask: index };
            let mut states: Vec<Vec<StoredState>> = writers.iter().map(|_| Vec::new()).collect();
            for state in part.states {
                let (descriptor, extent) = (state.descriptor.clone(), state.extent);
                let batches = (state.encode)().map_err(|error| error.context(format_args!("'{name}'")))?;
                for (place, writer) in writers.iter_mut().enumerate() {
                    let layer = writer.write(owner, extent, &descriptor, &batches).await?;
                    let before = before.filter(|_| place == 0);
                    lay_over(&mut states[place], before, &descriptor, layer)?;
                }
            }
            if let (true, Some(before), Some(states)) = (part.is_carried, before, states.first_mut()) {
                let is_new =
                    |state: &&StoredState| states.iter().all(|other| other.descriptor.name != state.descriptor.name);
                let carried: Vec<StoredState> = before.states.iter().filter(is_new).cloned().collect();
                states.extend(carried);
            }
            for (operators, states) in stored.iter_mut().zip(states) {
                if let Some(operator) = operators.last_mut() {
                    operator.subtasks.push(StoredSubtask { index: index as u32, states });
                }
            }
        }
    }
    Ok(stored)
}

/// Puts a layer over those that its state has so far, here or in the checkpoint before.
fn lay_over(
    states: &mut Vec<StoredState>,
    before: Option<&StoredSubtask>,
    descriptor: &StateDescriptor,
    layer: StoredLayer,
) -> Result<()> {
    let named = |state: &&StoredState| state.descriptor.name == descriptor.name;
    let place = match states.iter().position(|state| named(&state)) {
        Some(place) => place,
        None => {
            let state = match (layer.extent, before.and_then(|before| before.states.iter().find(named))) {
                (Extent::Whole, _) => StoredState { descriptor: descriptor.clone(), layers: Vec::new() },
                (_, Some(before)) => before.clone(),
                (_, None) => {
                    let message = format!("changes of state '{}', of which nothing is stored", descriptor.name);
                    return Err(Error::internal(message));
                }
            };
            states.push(state);
            states.len() - 1
        }
    };
    let state = &mut states[place];
    match layer.extent {
        Extent::Whole => {
            state.descriptor = descriptor.clone();
            state.layers = vec![layer];
        }
        Extent::Changed | Extent::Removed | Extent::Added if layer.chunks.is_empty() => {}
        Extent::Changed | Extent::Removed | Extent::Added => state.layers.push(layer),
    }
    Ok(())
}
