//! Which rows of a batch go to which channel.
//!
//! Row by row partitionings compute one channel a row, then a counting scatter orders the rows by channel in one pass, without
//! sorting. If all rows go to one channel the batch passes through untouched.

use arrow::array::{ArrayRef, UInt32Array};
use arrow::buffer::ScalarBuffer;
use tidemill_core::graph::Partitioning;
use tidemill_core::key::{hash_columns, key_group, scatter, subtask_of};
use tidemill_core::{Batch, Error, Result};

/// A partitioning at work in one producing subtask.
#[derive(Debug)]
pub struct Partitioner {
    partitioning: Partitioning,
    channels: usize,
    max_parallelism: u32,
    /// Channel of each key group: division happens here, once.
    channel_of_group: Vec<u32>,
    /// Channel that the next batch goes to (round robin), or state of the generator (shuffle).
    next: u64,
    /// First channel and count of this subtask's share (rescale).
    share: (usize, usize),
    channel_of: Vec<u32>,
}

/// Rows for one channel.
pub type Routed = (usize, Batch);

impl Partitioner {
    /// The partitioner of subtask `subtask` of `producers`, dealing to `channels` consumers.
    pub fn new(
        partitioning: Partitioning,
        subtask: usize,
        producers: usize,
        channels: usize,
        max_parallelism: u32,
        seed: u64,
    ) -> Self {
        let groups = 0..max_parallelism;
        Self {
            channel_of_group: groups.map(|group| subtask_of(group, channels, max_parallelism) as u32).collect(),
            next: match partitioning {
                Partitioning::Shuffle => seed ^ (subtask as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15),
                // Producers begin at different consumers, so that the first batches do not all meet in one.
                _ => (subtask * channels / producers.max(1)) as u64,
            },
            share: rescale_share(subtask, producers, channels),
            channel_of: Vec::new(),
            partitioning,
            channels,
            max_parallelism,
        }
    }

    /// Calls `route` with the rows for each channel that gets any; order within a channel is that of the batch.
    pub fn partition(&mut self, batch: Batch, routed: &mut Vec<Routed>) -> Result<()> {
        match &self.partitioning {
            Partitioning::Forward | Partitioning::Global => routed.push((0, batch.without_hashes())),
            Partitioning::Broadcast => {
                let batch = batch.without_hashes();
                routed.extend((0..self.channels).map(|channel| (channel, batch.clone())));
            }
            Partitioning::Rebalance => {
                routed.push(((self.next % self.channels as u64) as usize, batch.without_hashes()));
                self.next += 1;
            }
            Partitioning::Rescale => {
                let (first, count) = self.share;
                routed.push((first + (self.next % count as u64) as usize, batch.without_hashes()));
                self.next += 1;
            }
            Partitioning::Hash(columns) => {
                let keys: Vec<ArrayRef> =
                    columns.iter().map(|column| batch.records().column(*column).clone()).collect();
                let hashes = hash_columns(&keys, batch.num_rows())?;
                let batch = batch.with_hashes(hashes)?;
                self.by_hash(batch, routed)?;
            }
            Partitioning::Shuffle => {
                self.channel_of.clear();
                for _ in 0..batch.num_rows() {
                    self.next = split_mix(self.next);
                    self.channel_of.push((((self.next >> 32) * self.channels as u64) >> 32) as u32);
                }
                self.scatter(batch.without_hashes(), routed)?;
            }
            Partitioning::Range(by) | Partitioning::Custom(by) => {
                self.channel_of.clear();
                by.channels(&batch, self.channels, &mut self.channel_of)?;
                let (expected, count) = (batch.num_rows(), self.channel_of.len());
                let out_of_range = self.channel_of.iter().find(|channel| **channel as usize >= self.channels);
                if let Some(channel) = out_of_range {
                    let error = format!("partitioner {} chose channel {channel} of {}", by.describe(), self.channels);
                    return Err(Error::request(error));
                }
                if count != expected {
                    let error = format!("partitioner {} chose {count} channels for {expected} rows", by.describe());
                    return Err(Error::request(error));
                }
                self.scatter(batch.without_hashes(), routed)?;
            }
        }
        Ok(())
    }

    fn by_hash(&mut self, batch: Batch, routed: &mut Vec<Routed>) -> Result<()> {
        if self.channels == 1 {
            routed.push((0, batch));
            return Ok(());
        }
        let hashes: Option<&ScalarBuffer<u64>> = batch.hashes();
        let (groups, table) = (self.max_parallelism, &self.channel_of_group);
        self.channel_of.clear();
        self.channel_of.extend(hashes.into_iter().flatten().map(|hash| table[key_group(*hash, groups) as usize]));
        self.scatter(batch, routed)
    }

    fn scatter(&self, batch: Batch, routed: &mut Vec<Routed>) -> Result<()> {
        let (order, ends) = scatter(&self.channel_of, self.channels);
        let mut begin = 0;
        if let Some(channel) = ends.iter().position(|end| *end == batch.num_rows())
            && (channel == 0 || ends[channel - 1] == 0)
        {
            routed.push((channel, batch));
            return Ok(());
        }
        let ordered = batch.take(&UInt32Array::from(order))?;
        for (channel, end) in ends.into_iter().enumerate() {
            if end > begin {
                routed.push((channel, ordered.slice(begin, end - begin)));
            }
            begin = end;
        }
        Ok(())
    }
}

/// The consumers that a producer deals to under rescale: those nearest, as evenly as possible.
fn rescale_share(subtask: usize, producers: usize, channels: usize) -> (usize, usize) {
    let producers = producers.max(1);
    match channels >= producers {
        true => {
            let (first, next) = (subtask * channels / producers, (subtask + 1) * channels / producers);
            (first, (next - first).max(1))
        }
        false => (subtask * channels / producers, 1),
    }
}

/// One step of SplitMix64: a full-period generator whose whole state is one number.
fn split_mix(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{AsArray, Int64Array, RecordBatch};
    use arrow::datatypes::Int64Type;
    use proptest::prelude::*;

    use super::*;

    fn batch(values: &[i64]) -> Batch {
        let column: ArrayRef = Arc::new(Int64Array::from(values.to_vec()));
        Batch::append(RecordBatch::try_from_iter([("k", column)]).unwrap())
    }

    fn route(partitioner: &mut Partitioner, values: &[i64]) -> Vec<(usize, Vec<i64>)> {
        let mut routed = vec![];
        partitioner.partition(batch(values), &mut routed).unwrap();
        let column = |batch: &Batch| batch.records().column(0).as_primitive::<Int64Type>().values().to_vec();
        routed.iter().map(|(channel, batch)| (*channel, column(batch))).collect()
    }

    fn partitioner(partitioning: Partitioning, channels: usize) -> Partitioner {
        Partitioner::new(partitioning, 0, 1, channels, 128, 42)
    }

    #[test]
    fn rebalance_takes_turns() {
        let mut rebalance = partitioner(Partitioning::Rebalance, 2);
        assert_eq!(route(&mut rebalance, &[1]), [(0, vec![1])]);
        assert_eq!(route(&mut rebalance, &[2]), [(1, vec![2])]);
        assert_eq!(route(&mut rebalance, &[3]), [(0, vec![3])]);
    }

    #[test]
    fn rescale_deals_within_a_share() {
        let shares: Vec<_> = (0..2).map(|subtask| rescale_share(subtask, 2, 4)).collect();
        assert_eq!(shares, [(0, 2), (2, 2)]);
        let shares: Vec<_> = (0..4).map(|subtask| rescale_share(subtask, 4, 2)).collect();
        assert_eq!(shares, [(0, 1), (0, 1), (1, 1), (1, 1)]);
    }

    #[test]
    fn broadcast_reaches_everyone() {
        assert_eq!(route(&mut partitioner(Partitioning::Broadcast, 2), &[5]), [(0, vec![5]), (1, vec![5])]);
    }

    proptest! {
        #[test]
        fn every_row_goes_to_one_channel_in_order(values in prop::collection::vec(-50..50i64, 1..200), channels in 1..5usize) {
            for partitioning in [Partitioning::Hash(vec![0]), Partitioning::Shuffle] {
                let by_key = matches!(partitioning, Partitioning::Hash(_));
                let routed = route(&mut partitioner(partitioning, channels), &values);
                let mut all: Vec<i64> = routed.iter().flat_map(|(_, rows)| rows.clone()).collect();
                all.sort_unstable();
                let mut expected = values.clone();
                expected.sort_unstable();
                prop_assert_eq!(all, expected);
                for (channel, rows) in &routed {
                    if by_key {
                        let others = routed.iter().filter(|(other, _)| other != channel);
                        prop_assert!(others.flat_map(|(_, rows)| rows).all(|row| !rows.contains(row)));
                        let kept: Vec<i64> = values.iter().copied().filter(|value| rows.contains(value)).collect();
                        prop_assert_eq!(&kept, rows);
                    }
                }
            }
        }
    }
}
