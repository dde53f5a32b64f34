//! Barriers on their way through a subtask with several channels (CKP-02, CKP-04).
//!
//! ```text
//! exactly once     a | b b b        a channel that has brought its barrier waits until all others have
//!                  a a a |          brought theirs: the snapshot holds exactly what came before
//!
//! at least once    nobody waits: the snapshot is taken with the last barrier, and what came behind the
//!                  others is in it and comes again after a restore; so several checkpoints may be cut
//!                  in one place, when all of them have waited for the same channel
//!
//! unaligned        with the first barrier that is urgent: see the module `overtaking`
//! ```
//!
//! A channel that has ended brings no more barriers; everything that came through it was before all of them. Every barrier
//! that comes is taken, or named as one that never will be: the coordinator waits for one or the other.

use std::collections::{BTreeMap, BTreeSet};

use tidemill_core::event::{Barrier, CheckpointId};

/// Whether channels wait for one another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CheckpointMode {
    /// They do.
    #[default]
    ExactlyOnce,
    /// They do not; rows may count twice after a restore.
    AtLeastOnce,
}

/// What has become of barriers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// Checkpoints whose cut is here, oldest first.
    pub complete: Vec<Barrier>,
    /// Earlier ones that will have none: a channel has passed them over.
    pub passed_over: Vec<CheckpointId>,
}

/// The barriers that have come so far.
#[derive(Debug)]
pub struct Alignment {
    mode: CheckpointMode,
    ended: Vec<bool>,
    /// Checkpoints of which some channels have brought the barrier, and which did.
    pending: BTreeMap<CheckpointId, (Barrier, Vec<bool>)>,
    /// Barriers up to this one are no longer waited for: taken, overtaken or given up.
    settled: CheckpointId,
    /// Later ones that were given up, while an earlier one may still come to be.
    given_up: BTreeSet<CheckpointId>,
}

impl Alignment {
    /// No barriers so far, on so many channels.
    pub fn new(mode: CheckpointMode, channels: usize) -> Self {
        let (pending, given_up) = (BTreeMap::new(), BTreeSet::new());
        Self { mode, ended: vec![false; channels], pending, settled: 0, given_up }
    }

    /// A channel brought a barrier. It is complete if no other channel's is missing.
    pub fn barrier(&mut self, channel: usize, barrier: Barrier) -> Settled {
        if self.is_settled(barrier.id) {
            return Settled::default();
        }
        let channels = self.ended.len();
        let (_, brought) = self.pending.entry(barrier.id).or_insert_with(|| (barrier, vec![false; channels]));
        brought[channel] = true;
        self.complete()
    }

    /// A channel ended. Barriers that were only waiting for it are complete.
    pub fn end(&mut self, channel: usize) -> Settled {
        self.ended[channel] = true;
        self.complete()
    }

    /// Whether a checkpoint is no longer waited for.
    pub fn is_settled(&self, checkpoint: CheckpointId) -> bool {
        checkpoint <= self.settled || self.given_up.contains(&checkpoint)
    }

    /// The barrier of a checkpoint, if a channel has brought it.
    pub fn pending(&self, checkpoint: CheckpointId) -> Option<Barrier> {
        self.pending.get(&checkpoint).map(|(barrier, _)| *barrier)
    }

    /// Whether a channel has brought the barrier of a checkpoint, or never will because it has ended.
    pub fn has_brought(&self, checkpoint: CheckpointId, channel: usize) -> bool {
        self.ended[channel] || self.pending.get(&checkpoint).is_some_and(|(_, brought)| brought[channel])
    }

    /// Whether a channel has ended.
    pub fn has_ended(&self, channel: usize) -> bool {
        self.ended[channel]
    }

    /// Waits no longer for this checkpoint and earlier ones: its barrier overtakes the rows, or none of them can come to be any more.
    pub fn settle(&mut self, checkpoint: CheckpointId) {
        self.settled = self.settled.max(checkpoint);
        self.pending.retain(|id, _| *id > checkpoint);
        self.given_up.retain(|id| *id > checkpoint);
    }

    /// Waits no longer for this checkpoint, which is given up. Earlier ones may still come to be (CKP-07).
    pub fn give_up(&mut self, checkpoint: CheckpointId) {
        self.pending.remove(&checkpoint);
        if !self.is_settled(checkpoint) {
            self.given_up.insert(checkpoint);
        }
    }

    /// Whether a channel has to wait.
    pub fn blocks(&self, channel: usize) -> bool {
        self.mode == CheckpointMode::ExactlyOnce && self.pending.values().any(|(_, brought)| brought[channel])
    }

    /// Settles the barriers that every channel has brought or never will, and all before the newest of them.
    fn complete(&mut self) -> Settled {
        let is_complete = |brought: &[bool]| brought.iter().zip(&self.ended).all(|(brought, ended)| *brought || *ended);
        let newest = self.pending.iter().rev().find(|(_, (_, brought))| is_complete(brought));
        let Some(newest) = newest.map(|(id, _)| *id) else { return Settled::default() };
        let mut settled = Settled::default();
        for (id, (barrier, brought)) in self.pending.range(..=newest) {
            match is_complete(brought) {
                true => settled.complete.push(*barrier),
                false => settled.passed_over.push(*id),
            }
        }
        self.settle(newest);
        settled
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tidemill_core::event::BarrierKind;

    use super::*;

    fn barrier(id: CheckpointId) -> Barrier {
        Barrier { id, timestamp: 0, kind: BarrierKind::Checkpoint }
    }

    fn nothing() -> Settled {
        Settled::default()
    }

    fn complete(ids: &[CheckpointId]) -> Settled {
        Settled { complete: ids.iter().copied().map(barrier).collect(), passed_over: vec![] }
    }

    #[test]
    fn channels_wait_for_one_another_or_not() {
        for mode in [CheckpointMode::ExactlyOnce, CheckpointMode::AtLeastOnce] {
            let waits = mode == CheckpointMode::ExactlyOnce;
            let mut alignment = Alignment::new(mode, 3);
            assert_eq!(alignment.barrier(1, barrier(1)), nothing());
            assert_eq!((0..3).map(|channel| alignment.blocks(channel)).collect::<Vec<_>>(), [false, waits, false]);
            assert_eq!(alignment.barrier(0, barrier(1)), nothing());
            assert_eq!(alignment.barrier(2, barrier(1)), complete(&[1]));
            assert!((0..3).all(|channel| !alignment.blocks(channel)));
        }
    }

    #[test]
    fn who_has_ended_is_not_waited_for() {
        let mut alignment = Alignment::new(CheckpointMode::ExactlyOnce, 2);
        assert_eq!(alignment.barrier(0, barrier(1)), nothing());
        assert_eq!(alignment.end(1), complete(&[1]));
        assert_eq!(alignment.barrier(0, barrier(2)), complete(&[2]));
        assert_eq!(alignment.end(0), nothing());
    }

    #[test]
    fn where_nobody_waits_the_end_of_a_channel_completes_all_that_have_waited_for_it() {
        let mut alignment = Alignment::new(CheckpointMode::AtLeastOnce, 2);
        for id in [1, 2, 3] {
            assert_eq!(alignment.barrier(0, barrier(id)), nothing());
        }
        assert_eq!(alignment.barrier(1, barrier(1)), complete(&[1]));
        assert_eq!(alignment.end(1), complete(&[2, 3]));
    }

    #[test]
    fn a_barrier_that_a_channel_passes_over_is_named() {
        let mut alignment = Alignment::new(CheckpointMode::AtLeastOnce, 2);
        assert_eq!(alignment.barrier(0, barrier(1)), nothing());
        assert_eq!(alignment.barrier(0, barrier(2)), nothing());
        let settled = Settled { complete: vec![barrier(2)], passed_over: vec![1] };
        assert_eq!(alignment.barrier(1, barrier(2)), settled);
        assert_eq!(alignment.barrier(1, barrier(1)), nothing());
    }

    #[test]
    fn what_was_given_up_blocks_nobody_and_its_late_barriers_mean_nothing() {
        let mut alignment = Alignment::new(CheckpointMode::ExactlyOnce, 2);
        assert_eq!(alignment.barrier(0, barrier(1)), nothing());
        alignment.settle(1);
        assert!(!alignment.blocks(0));
        assert_eq!(alignment.barrier(1, barrier(1)), nothing());
        assert!(!alignment.blocks(1));
        assert_eq!(alignment.barrier(1, barrier(2)), nothing());
        assert_eq!(alignment.barrier(0, barrier(2)), complete(&[2]));
    }

    #[test]
    fn what_is_given_up_takes_no_earlier_one_with_it() {
        for mode in [CheckpointMode::ExactlyOnce, CheckpointMode::AtLeastOnce] {
            let mut alignment = Alignment::new(mode, 2);
            assert_eq!(alignment.barrier(0, barrier(1)), nothing());
            alignment.give_up(2);
            assert_eq!(alignment.blocks(0), mode == CheckpointMode::ExactlyOnce);
            assert!(alignment.is_settled(2) && !alignment.is_settled(1) && !alignment.is_settled(3));
            assert_eq!(alignment.barrier(1, barrier(1)), complete(&[1]));
            // The barriers of the other one are on their way all the same.
            assert_eq!((alignment.barrier(0, barrier(2)), alignment.barrier(1, barrier(2))), (nothing(), nothing()));
            assert!(!alignment.blocks(0) && !alignment.blocks(1));
            assert_eq!(alignment.barrier(0, barrier(3)), nothing());
            assert_eq!(alignment.barrier(1, barrier(3)), complete(&[3]));
            assert!(alignment.given_up.is_empty());
        }
    }

    proptest! {
        /// Channels bring rows and barriers in any interleaving that waiting allows; some end early. Rows that were read when
        /// a snapshot is taken are exactly those before its barrier, at least those where nobody waits. Each barrier is taken.
        #[test]
        fn a_snapshot_holds_what_came_before_its_barrier(lengths in prop::collection::vec(0..4u64, 1..5),
                                                         choices in prop::collection::vec(any::<prop::sample::Index>(), 64),
                                                         waits in any::<bool>()) {
            // Channel `c` sends a row, then barrier 1, a row, barrier 2 … up to its length, and ends.
            let mode = if waits { CheckpointMode::ExactlyOnce } else { CheckpointMode::AtLeastOnce };
            let mut alignment = Alignment::new(mode, lengths.len());
            let mut sent: Vec<u64> = vec![0; lengths.len()];
            let mut taken = vec![];
            let longest = lengths.iter().copied().max().unwrap_or(0);
            for choice in choices {
                let open: Vec<usize> = (0..lengths.len())
                    .filter(|channel| sent[*channel] <= lengths[*channel] && !alignment.blocks(*channel))
                    .collect();
                if open.is_empty() {
                    break;
                }
                let channel = open[choice.index(open.len())];
                sent[channel] += 1;
                let settled = match sent[channel] > lengths[channel] {
                    true => alignment.end(channel),
                    false => alignment.barrier(channel, barrier(sent[channel])),
                };
                prop_assert!(settled.passed_over.is_empty(), "{:?}", settled);
                for barrier in settled.complete {
                    let before = |(sent, length): (&u64, &u64)| match sent > length && *length < barrier.id {
                        true => true,
                        false if waits => *sent == barrier.id,
                        false => *sent >= barrier.id,
                    };
                    prop_assert!(sent.iter().zip(&lengths).all(before), "{:?} {:?} {:?}", barrier, sent, lengths);
                    taken.push(barrier.id);
                }
            }
            if sent.iter().zip(&lengths).all(|(sent, length)| sent > length) {
                prop_assert_eq!(taken, (1..=longest).collect::<Vec<_>>());
            }
        }
    }
}
