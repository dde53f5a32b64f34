//! The producer's side of an edge: rows are dealt to channels, gathered there until the gate opens, and sent.
//!
//! A watermark waits behind the rows that came before it on each channel, and goes when they go. It may be overtaken by no row
//! that came earlier and closes no buffer early: were it to, a watermark a batch would make every gate an open one. A barrier,
//! a change of activity and the end close every buffer.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use tidemill_core::clock::Clock;
use tidemill_core::event::Barrier;
use tidemill_core::metrics::Counter;
use tidemill_core::{Batch, Event, Gate, Result, Watermark};

use crate::exchange::channel::{Sender, Sent};
use crate::exchange::demand::Demand;
use crate::exchange::partition::{Partitioner, Routed};

/// How large a buffer may grow before it is sent, whatever the gate says.
#[derive(Clone, Copy, Debug)]
pub struct BufferLimits {
    /// Rows.
    pub rows: usize,
    /// Bytes.
    pub bytes: usize,
}

/// One output edge of one producing subtask.
#[derive(Debug)]
pub struct EdgeWriter {
    partitioner: Partitioner,
    channels: Vec<OutputChannel>,
    schema: SchemaRef,
    gate: Gate,
    limits: BufferLimits,
    clock: Arc<dyn Clock>,
    /// When the oldest waiting row has to leave.
    deadline: Option<Duration>,
    bytes_exchanged: Counter,
    routed: Vec<Routed>,
}

#[derive(Debug)]
struct OutputChannel {
    sender: Sender,
    waiting: Vec<Batch>,
    rows: usize,
    bytes: usize,
    watermark: Option<Watermark>,
    closed: bool,
}

impl EdgeWriter {
    /// A writer over one sender a consumer.
    pub fn new(
        partitioner: Partitioner,
        senders: Vec<Sender>,
        schema: SchemaRef,
        gate: Gate,
        limits: BufferLimits,
        clock: Arc<dyn Clock>,
        bytes_exchanged: Counter,
    ) -> Self {
        let channel =
            |sender| OutputChannel { sender, waiting: Vec::new(), rows: 0, bytes: 0, watermark: None, closed: false };
        let channels = senders.into_iter().map(channel).collect();
        Self { partitioner, channels, schema, gate, limits, clock, deadline: None, bytes_exchanged, routed: Vec::new() }
    }

    /// Deals out rows; sends what is full, and everything if the gate is open.
    pub async fn write(&mut self, batch: Batch) -> Result<()> {
        let mut routed = std::mem::take(&mut self.routed);
        self.partitioner.partition(batch, &mut routed)?;
        for (channel, rows) in routed.drain(..) {
            self.append(channel, rows).await?;
        }
        self.routed = routed;
        match self.gate {
            Gate::After(Duration::ZERO) => self.flush().await,
            Gate::After(timeout) if self.deadline.is_none() && self.channels.iter().any(|channel| channel.rows > 0) => {
                self.deadline = Some(self.clock.monotonic() + timeout);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Event time has come to `watermark`.
    pub async fn watermark(&mut self, watermark: Watermark) -> Result<()> {
        for channel in &mut self.channels {
            channel.watermark = Some(watermark);
            if channel.rows == 0 {
                channel.send_watermark().await?;
            }
        }
        Ok(())
    }

    /// The producer has nothing to say for now, or speaks again.
    pub async fn set_idle(&mut self, idle: bool) -> Result<()> {
        self.broadcast(|| if idle { Event::Idle } else { Event::Active }).await
    }

    /// The cut of a checkpoint.
    pub async fn barrier(&mut self, barrier: Barrier) -> Result<()> {
        self.broadcast(|| Event::Barrier(barrier)).await
    }

    /// Nothing follows.
    pub async fn end(&mut self) -> Result<()> {
        self.broadcast(|| Event::EndOfInput).await
    }

    /// When [`EdgeWriter::flush_due`] has something to do, in [`Clock::monotonic`] time.
    pub fn deadline(&self) -> Option<Duration> {
        self.deadline
    }

    /// Sends everything if the oldest row has waited long enough.
    pub async fn flush_due(&mut self) -> Result<()> {
        match self.deadline {
            Some(deadline) if deadline <= self.clock.monotonic() => self.flush().await,
            _ => Ok(()),
        }
    }

    /// Whether no consumer wants rows any more.
    pub fn is_closed(&self) -> bool {
        self.channels.iter().all(|channel| channel.closed)
    }

    /// The demand for this producer's rows over this edge; `None` if it has no channel.
    pub fn demand(&self) -> Option<&Arc<Demand>> {
        self.channels.first().map(|channel| channel.sender.demand())
    }

    async fn append(&mut self, channel: usize, rows: Batch) -> Result<()> {
        let (limits, schema, counter) = (self.limits, self.schema.clone(), self.bytes_exchanged.clone());
        let channel = &mut self.channels[channel];
        if channel.closed {
            return Ok(());
        }
        let size = rows.size_bytes();
        counter.add(size);
        // What alone makes a good buffer is not copied into one. A smaller one is filled up first: consumers work by the batch.
        let room = limits.rows.saturating_sub(channel.rows);
        let is_good = rows.num_rows() > room && room <= limits.rows / 4 || channel.bytes + size > limits.bytes;
        if channel.rows > 0 && is_good {
            channel.flush(&schema).await?;
        }
        let first = if channel.rows > 0 { room.min(rows.num_rows()) } else { 0 };
        let rest = rows.slice(first, rows.num_rows() - first);
        for part in pieces(rows.slice(0, first), limits.rows).chain(pieces(rest, limits.rows)) {
            channel.rows += part.num_rows();
            channel.bytes += part.size_bytes();
            channel.waiting.push(part);
            if channel.rows >= limits.rows || channel.bytes >= limits.bytes {
                channel.flush(&schema).await?;
            }
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        self.deadline = None;
        for channel in &mut self.channels {
            channel.flush(&self.schema).await?;
        }
        Ok(())
    }

    async fn broadcast(&mut self, event: impl Fn() -> Event) -> Result<()> {
        self.flush().await?;
        for channel in &mut self.channels {
            channel.send(event()).await?;
        }
        Ok(())
    }
}

impl OutputChannel {
    async fn flush(&mut self, schema: &SchemaRef) -> Result<()> {
        if !self.waiting.is_empty() {
            let batch = Batch::concat(schema, &self.waiting)?.compact();
            self.waiting.clear();
            (self.rows, self.bytes) = (0, 0);
            self.send(Event::Batch(batch)).await?;
        }
        self.send_watermark().await
    }

    async fn send_watermark(&mut self) -> Result<()> {
        match self.watermark.take() {
            Some(watermark) => self.send(Event::Watermark(watermark)).await,
            None => Ok(()),
        }
    }

    async fn send(&mut self, event: Event) -> Result<()> {
        if !self.closed && self.sender.send(event).await? == Sent::Closed {
            self.closed = true;
        }
        Ok(())
    }
}

/// A batch in pieces of at most `rows` rows.
fn pieces(batch: Batch, rows: usize) -> impl Iterator<Item = Batch> {
    let total = batch.num_rows();
    (0..total).step_by(rows.max(1)).map(move |offset| match total <= rows {
        true => batch.clone(),
        false => batch.slice(offset, rows.min(total - offset)),
    })
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    use futures::executor::block_on;
    use proptest::prelude::*;
    use tidemill_core::graph::Partitioning;

    use super::*;
    use crate::exchange::channel::{Overflow, Ready, channel};
    use crate::operators::test_context;

    const LIMITS: BufferLimits = BufferLimits { rows: 8, bytes: 1 << 20 };

    fn batch(first: i64, rows: usize) -> Batch {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(first..first + rows as i64));
        Batch::append(RecordBatch::try_from_iter([("n", column)]).unwrap())
    }

    /// How many rows each buffer has that leaves a shut gate, when batches of these sizes come.
    fn buffers(sizes: &[usize]) -> (Vec<usize>, Vec<i64>) {
        let ready = Ready::new(1, Arc::default());
        let demand = Arc::new(Demand::new(Arc::default(), 1));
        let (sender, receiver) = channel(1 << 30, Overflow::Wait, demand, Arc::default(), &ready, 0);
        let context = test_context(Default::default());
        let partitioner = Partitioner::new(Partitioning::Forward, 0, 1, 1, 128, 0);
        let (schema, counter) = (batch(0, 0).schema(), context.metrics.counter("bytes"));
        let mut writer =
            EdgeWriter::new(partitioner, vec![sender], schema, Gate::Full, LIMITS, context.clock.clone(), counter);
        block_on(async {
            let mut first = 0;
            for size in sizes {
                writer.write(batch(first, *size)).await.unwrap();
                first += *size as i64;
            }
            writer.end().await.unwrap();
            let (mut rows, mut values) = (vec![], vec![]);
            while let Some(Event::Batch(batch)) = receiver.take().await.unwrap() {
                use arrow::array::AsArray;
                rows.push(batch.num_rows());
                let column = batch.records().column(0).as_primitive::<arrow::datatypes::Int64Type>();
                values.extend_from_slice(column.values());
            }
            (rows, values)
        })
    }

    #[test]
    fn small_buffers_are_filled_up_and_large_ones_go_as_they_are() {
        assert_eq!(buffers(&[5, 5, 5, 5]).0, [8, 7, 5]);
        assert_eq!(buffers(&[6, 6, 6]).0, [6, 6, 6]);
        assert_eq!(buffers(&[20, 3]).0, [8, 8, 7]);
        assert_eq!(buffers(&[8, 8]).0, [8, 8]);
    }

    proptest! {
        #[test]
        fn every_row_leaves_once_in_order_in_buffers_that_are_not_too_large(sizes in prop::collection::vec(0..30usize, 0..20)) {
            let (rows, values) = buffers(&sizes);
            let total: usize = sizes.iter().sum();
            prop_assert_eq!(values, (0..total as i64).collect::<Vec<_>>());
            prop_assert!(rows.iter().all(|rows| (1..=LIMITS.rows).contains(rows)), "{:?}", rows);
        }
    }
}
