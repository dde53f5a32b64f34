//! Which subtask a row goes to, and how an operator is placed, named and gated.

use std::fmt;
use std::sync::Arc;

use tidemill_core::graph::{Chaining, CustomPartitioner, Partitioning};
use tidemill_core::{Batch, Error, Gate, Result};

use super::data_stream::DataStream;
use super::layout::PlainCodec;
use super::program::Node;
use super::record::Record;

impl<T: Record> DataStream<T> {
    /// Deals batches out in turns: evens out skew (BOP-16).
    pub fn rebalance(&self) -> Self {
        self.partitioned(Partitioning::Rebalance)
    }

    /// Deals batches out in turns among the consumers nearby.
    pub fn rescale(&self) -> Self {
        self.partitioned(Partitioning::Rescale)
    }

    /// Deals each record to a consumer drawn at random.
    pub fn shuffle(&self) -> Self {
        self.partitioned(Partitioning::Shuffle)
    }

    /// Gives every record to every consumer.
    pub fn broadcast(&self) -> Self {
        self.partitioned(Partitioning::Broadcast)
    }

    /// Gives every record to the first consumer.
    pub fn global(&self) -> Self {
        self.partitioned(Partitioning::Global)
    }

    /// Gives the records of subtask `i` to consumer `i`, of which there must be as many.
    pub fn forward(&self) -> Self {
        self.partitioned(Partitioning::Forward)
    }

    /// Deals each record to the consumer that `partitioner` picks for its key, in `0 .. consumers` (BOP-19).
    pub fn partition_custom<K>(
        &self,
        key: impl Fn(&T) -> K + Send + Sync + 'static,
        partitioner: impl Fn(&K, usize) -> usize + Send + Sync + 'static,
    ) -> Self {
        let pick = move |record: &T, consumers: usize| partitioner(&key(record), consumers);
        let by = ByRecord { codec: self.plain(self.timed), pick: Box::new(pick) };
        self.partitioned(Partitioning::Custom(Arc::new(by)))
    }

    fn partitioned(&self, partitioning: Partitioning) -> Self {
        let mut stream = self.clone();
        stream.inputs.iter_mut().for_each(|input| input.partitioning = Some(partitioning.clone()));
        stream
    }

    /// Runs the operator that made this stream in so many subtasks (ENV-06).
    pub fn set_parallelism(&self, parallelism: usize) -> Self {
        self.tuned("set_parallelism", |node| node.parallelism = Some(parallelism))
    }

    /// Names the operator that made this stream, for plans, errors and metrics.
    pub fn name(&self, name: impl Into<String>) -> Self {
        self.tuned("name", |node| node.name = name.into())
    }

    /// Gives the operator that made this stream an identity for its state, so that it finds it again in a changed program.
    pub fn uid(&self, uid: impl Into<String>) -> Self {
        self.tuned("uid", |node| node.uid = Some(uid.into()))
    }

    /// Keeps the operator that made this stream in a task of its own (ARC-08).
    pub fn disable_chaining(&self) -> Self {
        self.tuned("disable_chaining", |node| node.chaining = Chaining::Never)
    }

    /// Begins a task with the operator that made this stream.
    pub fn start_new_chain(&self) -> Self {
        self.tuned("start_new_chain", |node| node.chaining = Chaining::Head)
    }

    /// Puts the operator that made this stream, and those behind it that choose none, into a slot sharing group. A slot holds one
    /// subtask of each operator of one group: a job needs as many slots as the highest parallelism of each group together (ARC-10).
    pub fn slot_sharing_group(&self, group: impl Into<Arc<str>>) -> Self {
        self.tuned("slot_sharing_group", |node| node.slot_sharing_group = Some(group.into()))
    }

    /// Sets when the rows of this stream leave their task, whatever the job says (ARC-19).
    pub fn set_buffer_timeout(&self, gate: Gate) -> Self {
        self.tuned("set_buffer_timeout", |node| node.gate = Some(gate))
    }

    fn tuned(&self, call: &str, change: impl FnOnce(&mut Node)) -> Self {
        match self.inputs.as_slice() {
            [input] => change(self.environment.program().node_mut(input.node)),
            _ => self.fail(
                Error::request(format!("{call} on a union, which is no operator"))
                    .with_hint("call it on the streams that are united"),
            ),
        }
        self.clone()
    }
}

type Pick<T> = Box<dyn Fn(&T, usize) -> usize + Send + Sync>;

/// A partitioner that looks at typed records.
struct ByRecord<T> {
    codec: PlainCodec<T>,
    pick: Pick<T>,
}

impl<T> fmt::Debug for ByRecord<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ByRecord")
    }
}

impl<T: Record> CustomPartitioner for ByRecord<T> {
    fn channels(&self, batch: &Batch, channels: usize, channel_of: &mut Vec<u32>) -> Result<()> {
        let rows = self.codec.decode_rows(batch.records())?;
        for record in &rows.values {
            let channel = (self.pick)(record, channels);
            if channel >= channels {
                return Err(Error::request(format!("partition_custom picked consumer {channel} of {channels}")));
            }
            channel_of.push(channel as u32);
        }
        Ok(())
    }

    fn describe(&self) -> String {
        std::any::type_name::<T>().to_owned()
    }
}
