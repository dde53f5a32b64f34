//! From a checkpoint to what one new subtask of an operator gets, at the old parallelism or another (SUB-09, SVP-10).
//!
//! | state | a new subtask gets |
//! | --- | --- |
//! | keyed | the rows of its key groups, from every old subtask that has some |
//! | list | its own; of another number of subtasks, rows that are dealt round-robin |
//! | union list | the rows of all |
//! | broadcast | its own copy; if it is new, that of another, in turn |

use std::collections::BTreeMap;
use std::ops::Range;

use arrow::array::RecordBatch;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use object_store::ObjectStore;
use object_store::path::Path;
use tidemill_core::key::groups_of;
use tidemill_core::state::{Dealing, Extent, OperatorList, RestoredState, StateDescriptor, StateKind, StateLayer};
use tidemill_core::{Error, Result};

use super::content::{StoredLayer, StoredOperator, StoredState};
use super::segment::read_encoded;

/// How many layers are read at a time.
const READS_MAX: usize = 8;

/// The state of an operator for subtask `subtask` of `parallelism`. Only what it needs is read.
///
/// Errors: the number of key groups is another one than before; files that are missing or damaged.
pub async fn restored_state(
    store: &dyn ObjectStore,
    root: &Path,
    operator: &StoredOperator,
    subtask: usize,
    parallelism: usize,
    max_parallelism: u32,
) -> Result<RestoredState> {
    if operator.max_parallelism != max_parallelism {
        let (name, before) = (&operator.name, operator.max_parallelism);
        let error = format!(
            "operator '{name}' was saved with a max parallelism of {before} and is to go on with one of {max_parallelism}"
        );
        return Err(Error::request(error).with_hint(format!("set pipeline.max-parallelism to {before}")));
    }
    if subtask >= parallelism {
        return Err(Error::internal(format!("state for subtask {subtask} of {parallelism}")));
    }
    let key_groups = groups_of(subtask, parallelism, max_parallelism);
    let mut states = Vec::new();
    for (descriptor, stored) in by_name(operator) {
        let read = Read { store, root, key_groups: key_groups.clone() };
        let layers = match descriptor.kind {
            StateKind::Keyed => read.layers(all(&stored)).await?,
            StateKind::List if stored.len() == parallelism => read.layers(all(&stored[subtask..=subtask])).await?,
            StateKind::List => {
                vec![StateLayer::Rows(read.dealt(descriptor, &stored, subtask, parallelism).await?.into())]
            }
            StateKind::UnionList => read.layers(all(&stored)).await?,
            StateKind::Broadcast => {
                let copies = all(&stored);
                let own = stored.get(subtask).copied().flatten();
                read.layers(vec![own.unwrap_or(copies[subtask % copies.len()])]).await?
            }
        };
        states.push((descriptor.clone(), layers));
    }
    Ok(RestoredState { key_groups, states })
}

/// Every state with what each of the old subtasks stored of it, in the order in which they are first met.
fn by_name(operator: &StoredOperator) -> Vec<(&StateDescriptor, Vec<Option<&StoredState>>)> {
    let mut places = BTreeMap::new();
    let mut states: Vec<(&StateDescriptor, Vec<Option<&StoredState>>)> = Vec::new();
    for (number, subtask) in operator.subtasks.iter().enumerate() {
        for state in &subtask.states {
            let place = *places.entry(&state.descriptor.name).or_insert_with(|| {
                states.push((&state.descriptor, vec![None; operator.subtasks.len()]));
                states.len() - 1
            });
            states[place].1[number] = Some(state);
        }
    }
    states
}

/// What there is of a state; of each that [`by_name`] lists there is something.
fn all<'a>(stored: &[Option<&'a StoredState>]) -> Vec<&'a StoredState> {
    stored.iter().copied().flatten().collect()
}

struct Read<'a> {
    store: &'a dyn ObjectStore,
    root: &'a Path,
    key_groups: Range<u32>,
}

impl Read<'_> {
    /// The layers of some subtasks, one after the other; those without rows are left out.
    async fn layers(&self, states: Vec<&StoredState>) -> Result<Vec<StateLayer>> {
        let layers = states.into_iter().flat_map(StoredState::effective);
        let reads: Vec<BoxFuture<'_, Result<StateLayer>>> = layers.map(|layer| self.layer(layer).boxed()).collect();
        let read: Vec<StateLayer> = stream::iter(reads).buffered(READS_MAX).try_collect().await?;
        Ok(read.into_iter().filter(|layer| !layer.rows().is_empty()).collect())
    }

    async fn layer(&self, layer: &StoredLayer) -> Result<StateLayer> {
        let rows = read_encoded(self.store, self.root, layer, Some(self.key_groups.clone())).await?;
        Ok(match layer.extent {
            Extent::Whole | Extent::Changed | Extent::Added => StateLayer::Rows(rows),
            Extent::Removed => StateLayer::Removed(rows),
        })
    }

    /// The rows of a list that fall to a subtask when all are dealt.
    async fn dealt(
        &self,
        descriptor: &StateDescriptor,
        stored: &[Option<&StoredState>],
        subtask: usize,
        parallelism: usize,
    ) -> Result<Vec<RecordBatch>> {
        let mut lists = Vec::with_capacity(stored.len());
        for state in stored {
            let layers = self.layers(state.iter().copied().collect()).await?;
            lists.push(OperatorList::restore(descriptor.schema.clone(), StateLayer::decode_all(&layers)?)?);
        }
        let mut dealt = OperatorList::deal(&lists, Dealing::Split, parallelism)?;
        Ok(dealt.swap_remove(subtask).batches().to_vec())
    }
}
