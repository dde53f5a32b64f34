//! The exchange: one abstraction with three behaviours, chosen by the gate of an edge (SUB-01, ARC-18 … ARC-21).
//!
//! ```text
//! producer: rows -> partition -> buffers -> channel ~~~ credit in bytes ~~~> gate -> consumer
//!                                   ^ gate: 0 ms | n ms | full      channel: waits | spills | holds back until done
//! ```
//!
//! In one process a channel hands over the `Arc`s of a batch; nothing is serialised.

pub mod channel;
pub mod demand;
pub mod gate;
pub mod partition;
pub mod spill;
pub mod urgency;
pub mod writer;

pub use channel::{Overflow, Overtaken, Ready, Receiver, Sender, channel};
pub use demand::Demand;
pub use gate::InputGate;
pub use partition::Partitioner;
pub use spill::{SpillDirs, SpillFile};
pub use urgency::Urgency;
pub use writer::{BufferLimits, EdgeWriter};
