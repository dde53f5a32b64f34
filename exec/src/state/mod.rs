//! How operators remember: keys as columns found by the hash that the exchange carried, state as columns over their slots.
//!
//! The contract is that of [`tidemill_core::state`]. Here are its columns ([`columns`]), the way from user types to them
//! ([`StateRegistry`], [`Codec`]), and the backends ([`memory`]) with the local disk behind them ([`tier`]), which all run one
//! suite.

mod broadcast_map;
mod codec;
pub mod columns;
#[cfg(test)]
pub(crate) mod conformance;
mod footprint;
pub(crate) mod group_order;
pub mod key_index;
pub mod memory;
mod operator_lists;
mod registry;
pub mod stored_rows;
mod subtask_states;
pub mod tier;
mod varint;

pub use broadcast_map::{BroadcastMap, BroadcastStates};
pub use codec::{Codec, StateValue, item_field};
pub use footprint::Footprint;
pub use key_index::KeyIndex;
pub use memory::{MemoryBackend, MemoryStates, TieredBackend};
pub use operator_lists::{OperatorListState, OperatorLists};
pub use registry::StateRegistry;
pub use subtask_states::SubtaskStates;
pub use tier::Tier;
