//! What travels between tasks: batches, and typed control events that nothing overtakes.

use crate::batch::Batch;
use crate::state::SnapshotScope;
use crate::watermark::Watermark;

/// Number of a checkpoint of one job, counted from 1.
pub type CheckpointId = u64;

/// One element of a channel. Order within a channel is kept; control events need no data credit.
#[derive(Clone, Debug)]
pub enum Event {
    /// Rows.
    Batch(Batch),
    /// No row with a time at or before this one follows on this channel.
    Watermark(Watermark),
    /// This channel has nothing to say for now; its watermark does not hold others back (SUB-06).
    Idle,
    /// This channel speaks again.
    Active,
    /// Everything before belongs to the checkpoint, everything after does not.
    Barrier(Barrier),
    /// Nothing follows.
    EndOfInput,
}

/// The cut of a checkpoint on its way through the graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Barrier {
    /// The checkpoint that this barrier cuts.
    pub id: CheckpointId,
    /// When the coordinator triggered it, in milliseconds since the epoch.
    pub timestamp: i64,
    /// What is being taken.
    pub kind: BarrierKind,
}

/// Why a barrier travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarrierKind {
    /// A checkpoint, owned and deleted by the engine: what changed since the last one, where that is known.
    Checkpoint,
    /// A checkpoint that stores everything and is the base of those that follow.
    FullCheckpoint,
    /// A savepoint, owned by the user.
    Savepoint,
    /// A savepoint after which the job stops; with `drain` all windows fire first.
    Stop {
        /// Send the final watermark before stopping.
        drain: bool,
    },
}

impl BarrierKind {
    /// Whether tasks end behind this barrier.
    pub fn stops(self) -> bool {
        matches!(self, Self::Stop { .. })
    }

    /// How much operators put into their snapshots.
    pub fn scope(self) -> SnapshotScope {
        match self {
            Self::Checkpoint => SnapshotScope::Changes,
            Self::FullCheckpoint => SnapshotScope::Base,
            Self::Savepoint | Self::Stop { .. } => SnapshotScope::Copy,
        }
    }
}
