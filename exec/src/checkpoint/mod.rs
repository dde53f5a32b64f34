//! Checkpoints at rest: the files that a job's state lies in, who may add to them, and the way back.
//!
//! ```text
//! Snapshot ──> SegmentWriter ──> segments/…          rows of states, many in one file
//!                    │
//!              CheckpointContent ──> Writer ──> manifests/…    names segments, old and new
//!                                                   │
//! RestoredState <── restored_state <── CheckpointContent <── CheckpointStore
//! rows to look at <── StateRows <── find_checkpoint <────────── or savepoint
//! ```
//!
//! Suggested order of reading: [`content`] (what there is), [`segment`] (rows), [`manifest`] (the rest), [`store`] (who may
//! write), `retention` (what may go), [`savepoint`] with `savepoint_writer` and `parquet`, [`restore`] (the way back),
//! `compaction` (layers become one), `inspect` (state for people). Stores are those of the `object_store`
//! crate; clocks and random numbers are arguments.

#[doc(hidden)]
pub mod codec;
mod compaction;
#[doc(hidden)]
pub mod conformance;
pub mod content;
mod files;
mod fold;
#[rustfmt::skip]
#[allow(missing_docs, dead_code, unused_imports, unsafe_op_in_unsafe_fn, clippy::all, clippy::unwrap_used)]
mod generated;
mod inspect;
mod layer;
pub mod manifest;
mod parquet;
mod patient;
pub mod restore;
mod retention;
pub mod savepoint;
mod savepoint_writer;
pub mod segment;
pub mod store;
#[cfg(test)]
mod tests;
mod upload;

pub use compaction::{Compactable, Compaction};
pub use content::{
    CheckpointContent, CheckpointKind, Manifest, StoredChunk, StoredLayer, StoredOperator, StoredSegment, StoredState,
    StoredSubtask,
};
pub use inspect::{FoundCheckpoint, StateRows, find_checkpoint};
pub use patient::{patient, patient_reader};
pub use restore::restored_state;
pub use savepoint::{dispose_savepoint, open_savepoint, write_savepoint};
pub use savepoint_writer::{SavepointWriter, StateOwner, check_savepoint_folder};
pub use segment::{SegmentWriter, read_layer};
pub use store::{CheckpointStore, Tenure, Writer, manifest_name, newest_whole};
