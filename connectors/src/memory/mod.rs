//! Rows of the program itself: collections and sequences as sources, and a sink whose rows come back through a channel.

mod collect;
mod collection;
mod sequence;

pub use collect::{CollectHandle, CollectSink};
pub use collection::CollectionSource;
pub use sequence::SequenceSource;

#[cfg(test)]
mod tests;
