//! What operators remember: keys as columns, found by the hash that the exchange carried.

pub mod key_index;

pub use key_index::KeyIndex;
