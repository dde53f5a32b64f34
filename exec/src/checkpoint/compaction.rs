//! Compaction: the layers of a state that has changed much become fewer, behind the job's back (CKP-12).
//!
//! ```text
//! before      whole 90 | changed 20 | removed 2 | changed 75      the newest checkpoint
//! meanwhile   whole 90 | changed 20 | removed 2 | changed 75 | changed 10
//! after       whole 95                                       | changed 10      the checkpoint after that
//! ```
//!
//! | where | becomes |
//! | --- | --- |
//! | a state has changed by more than it holds | one whole layer, so that nobody reads more than twice what there is |
//! | it has many layers | the newest ones become what they changed and removed together; large old ones stay, so that no row is written again and again |
//!
//! Nothing but a new segment is written. The next checkpoint names it, and no longer names what it takes the place of.
//!
//! States whose layers stand beside one another ([`Extent::Added`]) are none of this: only their operator knows what has become
//! of older rows, and it has to store all again.

use std::sync::Arc;

use object_store::ObjectStore;
use object_store::path::Path;
use tidemill_core::Result;
use tidemill_core::graph::OperatorId;
use tidemill_core::state::{Extent, StateDescriptor, StateKind};

use super::content::{CheckpointContent, StoredLayer, StoredSegment, StoredState};
use super::fold::Folding;
use super::segment::{CHUNK_ROWS_MAX, SegmentWriter};

/// Changes of fewer bytes are not worth the work unless they are in many layers.
const CHANGES_MIN: u64 = 64 << 10;
/// How many layers are many, however small they are.
const LAYERS_MANY: usize = 16;
/// How many layers a state may have.
const LAYERS_MAX: usize = 128;
/// How many times as large as all newer ones together a layer is that stays where there are too many.
const LARGE: u64 = 4;

/// Layers of one state of one subtask that are to become fewer.
#[derive(Clone, Debug, PartialEq)]
pub struct Compactable {
    operator: OperatorId,
    subtask: u32,
    state: StoredState,
    /// Where the layers begin that do.
    begin: usize,
}

/// Layers that have become others.
#[derive(Clone, Debug, PartialEq)]
struct Compacted {
    of: Compactable,
    layers: Vec<StoredLayer>,
}

/// What has been compacted, and the file that it lies in.
#[derive(Clone, Debug, PartialEq)]
pub struct Compaction {
    states: Vec<Compacted>,
    segment: StoredSegment,
}

impl CheckpointContent {
    /// What is worth compacting.
    pub fn compactable(&self) -> Vec<Compactable> {
        let mut found = Vec::new();
        for operator in &self.operators {
            for subtask in &operator.subtasks {
                found.extend(subtask.states.iter().filter_map(|state| {
                    let (begin, state) = (state.compactable_from()?, state.clone());
                    Some(Compactable { operator: operator.id, subtask: subtask.index, state, begin })
                }));
            }
        }
        found
    }

    /// Whether a state that cannot be compacted has changed by more than it holds, so that everything has to be stored again.
    pub fn needs_full(&self) -> bool {
        let subtasks = self.operators.iter().flat_map(|operator| &operator.subtasks);
        let mut states = subtasks.flat_map(|subtask| &subtask.states);
        states.any(|state| state.has_parts() && state.replays_too_much())
    }
}

impl StoredState {
    fn has_parts(&self) -> bool {
        self.effective().iter().any(|layer| layer.extent == Extent::Added)
    }

    /// Whether going on from it would read more changes than state.
    fn replays_too_much(&self) -> bool {
        let bytes = |is_whole: bool| -> u64 {
            let layers = self.effective().iter().filter(|layer| (layer.extent == Extent::Whole) == is_whole);
            layers.map(StoredLayer::bytes).sum()
        };
        let is_worth_it = bytes(false) > CHANGES_MIN || self.effective().len() > LAYERS_MANY;
        is_worth_it && bytes(false) > bytes(true)
    }

    /// The first of the layers that should become fewer, if any should.
    fn compactable_from(&self) -> Option<usize> {
        if self.descriptor.kind != StateKind::Keyed || self.has_parts() {
            return None;
        }
        let whole = self.layers.len() - self.effective().len();
        if self.replays_too_much() {
            return Some(whole);
        }
        if self.layers.len() - whole <= LAYERS_MAX {
            return None;
        }
        let mut newer = 0;
        let stays = |layer: &StoredLayer| {
            let is_large = layer.extent == Extent::Whole || newer > 0 && layer.bytes() > newer * LARGE;
            newer += layer.bytes();
            is_large
        };
        let last_that_stays = self.layers.iter().rposition(stays);
        last_that_stays.map(|last| last + 1).filter(|begin| begin + 1 < self.layers.len())
    }
}

impl Compaction {
    /// Folds layers that lie below `root` into `segment`. In memory are a chunk of each layer and the keys of one key group at a
    /// time.
    ///
    /// Errors: of the store; files that are missing or damaged. Then nothing is left.
    pub async fn run(
        store: Arc<dyn ObjectStore>,
        root: &Path,
        states: Vec<Compactable>,
        mut segment: SegmentWriter,
    ) -> Result<Self> {
        let path = segment.path().clone();
        let mut compacted = Vec::with_capacity(states.len());
        for of in states {
            match of.fold(&store, root, &mut segment).await {
                Ok(layers) => compacted.push(Compacted { of, layers }),
                Err(error) => {
                    segment.abort().await;
                    return Err(error.context(format_args!("compacting state '{}'", of.state.descriptor.name)));
                }
            }
        }
        let segment = segment.finish().await?.unwrap_or(StoredSegment { path, bytes: 0 });
        Ok(Self { states: compacted, segment })
    }

    /// The file.
    pub fn segment(&self) -> &StoredSegment {
        &self.segment
    }

    /// Puts the new layers in place of those that they were made of, where these are still there. Whether there were any.
    pub fn apply(&self, content: &mut CheckpointContent) -> bool {
        let mut is_used = false;
        for Compacted { of, layers } in &self.states {
            let operator = content.operators.iter_mut().find(|operator| operator.id == of.operator);
            let subtask = operator.and_then(|operator| operator.subtasks.get_mut(of.subtask as usize));
            let states = subtask.into_iter().flat_map(|subtask| &mut subtask.states);
            let named = states.into_iter().find(|state| state.descriptor.name == of.state.descriptor.name);
            if let Some(state) = named.filter(|state| state.layers.starts_with(&of.state.layers)) {
                // Layers before the last whole one count no more.
                let begin =
                    if layers.first().is_some_and(|layer| layer.extent == Extent::Whole) { 0 } else { of.begin };
                state.layers.splice(begin..of.state.layers.len(), layers.iter().cloned());
                is_used = true;
            }
        }
        if is_used && self.segment.bytes > 0 {
            content.segments.push(self.segment.clone());
        }
        is_used
    }
}

impl Compactable {
    async fn fold(
        &self,
        store: &Arc<dyn ObjectStore>,
        root: &Path,
        segment: &mut SegmentWriter,
    ) -> Result<Vec<StoredLayer>> {
        let StoredState { descriptor, layers } = &self.state;
        let layers = &layers[self.begin..];
        let is_whole = layers.first().is_some_and(|layer| layer.extent == Extent::Whole);
        let mut folding = Folding::new(store, root, descriptor, layers, CHUNK_ROWS_MAX)?;
        let mut kept = segment.begin_layer(if is_whole { Extent::Whole } else { Extent::Changed }, descriptor);
        let mut removed = layers.iter().find(|layer| layer.extent == Extent::Removed && !is_whole).map(|layer| {
            let descriptor = StateDescriptor { schema: layer.schema.clone(), ..descriptor.clone() };
            segment.begin_layer(Extent::Removed, &descriptor)
        });
        while let Some(rows) = folding.next().await? {
            for (layer, batch) in rows {
                match (folding.extent(layer), &mut removed) {
                    (Extent::Removed, Some(removed)) => segment.push(removed, &batch).await?,
                    (Extent::Removed, None) => {}
                    _ => segment.push(&mut kept, &batch).await?,
                }
            }
        }
        let mut folded: Vec<StoredLayer> = Vec::new();
        for layer in [Some(kept), removed].into_iter().flatten() {
            folded.push(segment.end_layer(layer).await?);
        }
        // Of changes that come to nothing there is no layer; of a state that holds nothing there is.
        folded.retain(|layer| layer.extent == Extent::Whole || !layer.chunks.is_empty());
        Ok(folded)
    }
}
