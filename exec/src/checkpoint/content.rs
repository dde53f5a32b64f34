//! What a checkpoint is made of, as plain data, and what holds for all that is stored.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use tidemill_core::event::CheckpointId;
use tidemill_core::graph::OperatorId;
use tidemill_core::state::{Extent, StateDescriptor, StateKind};

/// One of the numbered files that say, the newest of them, which checkpoint counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Manifest {
    /// Its place in the sequence, counted from 1.
    pub number: u64,
    /// Who wrote it: every takeover counts one up.
    pub generation: u64,
    /// Drawn by its writer, so that it knows its own files.
    pub nonce: u64,
    /// The checkpoint.
    pub content: CheckpointContent,
}

/// A complete checkpoint or savepoint.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CheckpointContent {
    /// Its number, counted from 1; 0 as long as there is none.
    pub checkpoint: CheckpointId,
    /// When it was triggered.
    pub timestamp_millis: i64,
    /// Who owns it.
    pub kind: CheckpointKind,
    /// Whether the job has ended with it.
    pub is_final: bool,
    /// The name of the job.
    pub job: String,
    /// Each source and where it stood, for people.
    pub source_positions: Vec<(String, String)>,
    /// The files that the layers lie in, old and new.
    pub segments: Vec<StoredSegment>,
    /// The state of every operator.
    pub operators: Vec<StoredOperator>,
    /// From its trigger to its completion.
    pub took_millis: u64,
    /// How much was written for it.
    pub new_bytes: u64,
}

/// Who owns a checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CheckpointKind {
    /// The job: it is removed when newer ones have taken its place, and may share files with them.
    #[default]
    Checkpoint,
    /// The user: it shares nothing and is removed on request alone (SVP-01).
    Savepoint,
}

/// A file of states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSegment {
    /// Relative to the root.
    pub path: Arc<str>,
    /// Its length.
    pub bytes: u64,
}

/// The state of an operator.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredOperator {
    /// What it is filed under.
    pub id: OperatorId,
    /// For people.
    pub name: String,
    /// The number of key groups.
    pub max_parallelism: u32,
    /// All subtasks, in their order.
    pub subtasks: Vec<StoredSubtask>,
}

/// The state of an operator in one subtask.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredSubtask {
    /// Its number; also its place among the subtasks.
    pub index: u32,
    /// One for each name.
    pub states: Vec<StoredState>,
}

/// One state of one subtask.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredState {
    /// Name, kind and columns.
    pub descriptor: StateDescriptor,
    /// Its rows, to be laid one over the other.
    pub layers: Vec<StoredLayer>,
}

/// What one checkpoint added to a state.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredLayer {
    /// What the rows are to those of the layers before.
    pub extent: Extent,
    /// The columns of the rows: of keys alone where they are [`Extent::Removed`].
    pub schema: SchemaRef,
    /// The file, relative to the root; empty if there are no rows.
    pub segment: Arc<str>,
    /// The rows, in order; none is empty.
    pub chunks: Vec<StoredChunk>,
}

/// Rows that are read together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredChunk {
    /// Where in the file it begins.
    pub offset: u64,
    /// How many bytes it has.
    pub length: u64,
    /// How many rows it has.
    pub rows: u64,
    /// xxh3-64 of its bytes.
    pub checksum: u64,
    /// The key groups of the first and the last row, of keyed state.
    pub groups: Option<(u32, u32)>,
}

impl CheckpointContent {
    /// The content as long as there is no checkpoint: `None`, else itself.
    pub fn completed(&self) -> Option<&Self> {
        (self.checkpoint > 0).then_some(self)
    }

    /// What is wrong, if anything is. Checked before a manifest is written and after it was read; what follows relies on it.
    ///
    /// Numbers of subtasks are their places, names and files are there once, every chunk lies within its file and is not empty,
    /// key groups go up and are below the operator's `max_parallelism`, and only keyed state comes in more than whole layers.
    pub(super) fn check(&self) -> Result<(), String> {
        let segments = self.segments.iter();
        let files: BTreeMap<&str, u64> = segments.map(|segment| (&*segment.path, segment.bytes)).collect();
        if files.len() != self.segments.len() {
            return Err("a file is listed twice".to_owned());
        }
        if let Some(path) = files.keys().find(|path| !is_relative(path)) {
            return Err(format!("'{path}' is no path below the root"));
        }
        let mut ids = BTreeSet::new();
        for operator in &self.operators {
            let name = &operator.name;
            if !ids.insert(operator.id) {
                return Err(format!("operator '{name}' ({}) is there twice", operator.id));
            }
            operator
                .check(|path| files.get(path).copied())
                .map_err(|error| format!("operator '{name}' ({}): {error}", operator.id))?;
        }
        Ok(())
    }
}

impl StoredOperator {
    fn check(&self, bytes_of: impl Fn(&str) -> Option<u64>) -> Result<(), String> {
        if self.max_parallelism == 0 {
            return Err("there are no key groups".to_owned());
        }
        if self.subtasks.len() > self.max_parallelism as usize {
            return Err(format!("{} subtasks of at most {}", self.subtasks.len(), self.max_parallelism));
        }
        let mut kinds = BTreeMap::new();
        for (place, subtask) in self.subtasks.iter().enumerate() {
            if subtask.index as usize != place {
                return Err(format!("subtask {} in place {place}", subtask.index));
            }
            let mut names = BTreeSet::new();
            for state in &subtask.states {
                let StateDescriptor { name, kind, .. } = &state.descriptor;
                if !names.insert(name) {
                    return Err(format!("state '{name}' is twice in subtask {place}"));
                }
                if kinds.insert(name, *kind).is_some_and(|other| other != *kind) {
                    return Err(format!("state '{name}' is of two kinds"));
                }
                state
                    .check(self.max_parallelism, &bytes_of)
                    .map_err(|error| format!("state '{name}' of subtask {place}: {error}"))?;
            }
        }
        Ok(())
    }
}

impl StoredState {
    /// The layers that count: from the last whole one on.
    pub fn effective(&self) -> &[StoredLayer] {
        let whole = self.layers.iter().rposition(|layer| layer.extent == Extent::Whole);
        &self.layers[whole.unwrap_or_default()..]
    }

    fn check(&self, max_parallelism: u32, bytes_of: impl Fn(&str) -> Option<u64>) -> Result<(), String> {
        let is_keyed = self.descriptor.kind == StateKind::Keyed;
        let schemas = self.layers.iter().map(|layer| &layer.schema);
        for schema in schemas.chain([&self.descriptor.schema]) {
            if is_keyed && schema.fields().first().is_none_or(|field| *field.data_type() != DataType::UInt32) {
                return Err("the first column is no key group".to_owned());
            }
        }
        for layer in &self.layers {
            if !is_keyed && layer.extent != Extent::Whole {
                return Err("a part of a state that is always stored whole".to_owned());
            }
            if layer.chunks.is_empty() {
                continue;
            }
            let path = &layer.segment;
            let bytes = bytes_of(path).ok_or_else(|| format!("its file '{path}' is not listed"))?;
            let mut group = 0;
            for chunk in &layer.chunks {
                chunk.check(bytes, is_keyed, &mut group, max_parallelism).map_err(|error| {
                    format!("rows at {} of file '{path}', {} bytes: {error}", chunk.offset, chunk.length)
                })?;
            }
        }
        Ok(())
    }
}

impl StoredLayer {
    /// How many bytes its rows have.
    pub fn bytes(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.length).sum()
    }
}

impl StoredChunk {
    /// Where in the file it ends.
    pub(super) fn end(&self) -> u64 {
        self.offset.saturating_add(self.length)
    }

    /// `group` is the last one so far.
    fn check(&self, bytes: u64, is_keyed: bool, group: &mut u32, max_parallelism: u32) -> Result<(), String> {
        if self.offset.checked_add(self.length).is_none_or(|end| end > bytes) {
            return Err(format!("the file has {bytes}"));
        }
        if self.rows == 0 || self.length == 0 {
            return Err("nothing is there".to_owned());
        }
        match self.groups {
            None if !is_keyed => Ok(()),
            Some((first, last)) if is_keyed && *group <= first && first <= last && last < max_parallelism => {
                *group = last;
                Ok(())
            }
            groups => Err(format!("key groups {groups:?} after {group}, of {max_parallelism}")),
        }
    }
}

/// Whether a path leads to a place below the root and nowhere else.
fn is_relative(path: &str) -> bool {
    object_store::path::Path::parse(path).is_ok_and(|parsed| parsed.as_ref() == path && !path.is_empty())
}
