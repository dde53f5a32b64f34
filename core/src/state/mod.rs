//! What operators remember: the contract between operators, the backends that keep their state, and checkpoints.
//!
//! ```text
//! user code       ValueState, ListState, MapState …      one key at a time, through CurrentKey
//!                      │
//! operators       StateColumn                            one state of all keys, a cell for each slot
//!                      │
//! backends        KeyedStates                            keys to slots; columns of slots in and out of memory
//!                      │
//! checkpoints     Snapshot, RestoredState                record batches, in the order of key groups
//! ```
//!
//! A *slot* is a small dense number that stands for a key while it is in memory. Vectorised operators look up the slots of a
//! whole batch and work on columns; what users write works on one slot, through handles. Backends differ in where they put
//! columns that are not in use; they move them as Arrow arrays, the same that stand in checkpoints.
//!
//! Beside the state of keys there is the state of a subtask: lists, dealt out by [`OperatorList`], and maps that are the same in every
//! subtask ([`StateKind::Broadcast`]).
//!
//! Nothing here reads a clock: where time matters it is an argument, in milliseconds.

mod backend;
mod column;
mod current_key;
mod evolution;
mod keyed;
mod layer;
mod list;
mod map;
pub mod narrow;
mod operator_list;
mod reducing;
mod schema;
mod snapshot;
mod ttl;
mod value;
mod widening;

pub use backend::{PartStore, StateBackend, StatePart, portions};
pub use column::{EncodeColumn, StateColumn, append_cells, resize_cells};
pub use current_key::{CellsOf, CurrentKey, StateScope, Token};
pub use evolution::{
    ELEMENT_FIELDS, EVOLUTION, EVOLUTION_COMPLETE, EVOLUTION_SERDE, EVOLUTION_SERDE_ELEMENTS,
    EVOLUTION_SERDE_TIMED_ELEMENTS, KEY_COLUMNS, adapt, evolving, not_restorable, retyped,
};
pub use keyed::{BacklogLimits, KeyedStates, StateId};
pub use layer::{EncodedRows, LayerRows, StateLayer};
pub use list::{ListCells, ListState};
pub use map::{MapCells, MapState};
pub use operator_list::{Dealing, OperatorList};
pub use reducing::{AggregatingState, ReducingState};
pub use schema::{
    KEY_GROUP, NAMESPACE, is_namespace, key_columns, key_hashes, keyed_schema, namespace, rows_of_groups,
};
pub use snapshot::{
    EncodeState, Extent, FrozenState, RestoredState, Snapshot, SnapshotScope, StateDescriptor, StateKind,
};
pub use ttl::{Expiry, StateTtl, TtlUpdate, TtlVisibility};
pub use value::{ValueCells, ValueState};
pub use widening::widens;
