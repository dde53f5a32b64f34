//! Rows of the program itself: collections and sequences as sources, a sink whose rows come back through a channel, and one that
//! keeps the newest row of each key.

mod collect;
mod collection;
mod keyed_table;
mod sequence;

pub use collect::{CollectHandle, CollectSink};
pub use collection::CollectionSource;
pub use keyed_table::KeyedTable;
pub use sequence::SequenceSource;

#[cfg(test)]
mod tests;
