//! One channel: the queue between a producing and a consuming subtask of one edge.
//!
//! Credits are bytes: the sender waits while the receiver has not taken enough away. An empty channel always has room for one
//! batch, however large, so every job makes progress. Control events need no credit. What happens without credit is the
//! channel's [`Overflow`]: wait (pipelined), or go to the producer's spill file (blocking edges, and consumers that read in
//! an order of their own, which could otherwise deadlock).
//!
//! A barrier keeps its place behind the rows before it, unless its checkpoint is urgent in the consumer: that takes the barrier
//! out of the queue, and the rows that it so overtakes into the checkpoint ([`Receiver::overtake`]). Who has to send such a
//! barrier does not wait for credit either ([`Urgency`]).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidemill_core::event::{Barrier, CheckpointId};
use tidemill_core::{Batch, Event, Result, Watermark};
use tokio::sync::Notify;

use crate::exchange::demand::Demand;
use crate::exchange::spill::{SpillFile, SpilledBatch};
use crate::exchange::urgency::Urgency;

/// Whether a receiver still wants rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Sent {
    /// The event is in the queue.
    Queued,
    /// The receiver closed the channel; nobody will read the event.
    Closed,
}

/// What a channel does without credit.
#[derive(Clone, Debug)]
pub enum Overflow {
    /// The sender waits.
    Wait,
    /// Batches go to the producer's spill file.
    Spill {
        /// Shared by all channels of one producing subtask.
        file: Arc<SpillFile>,
        /// Hold everything back until the producer is done.
        blocking: bool,
    },
}

/// Makes a channel with `credit` bytes whose receiver is told through `ready` under the number `index`.
///
/// `demand` is that for the producer, shared by its channels. A pulled producer begins only when its consumers ask, so that what
/// they prepare first (the build side of a join, a scalar subquery, a filter for the scan) is complete. `urgency` is that of the
/// producer.
pub fn channel(
    credit: usize,
    overflow: Overflow,
    demand: Arc<Demand>,
    urgency: Arc<Urgency>,
    ready: &Arc<Ready>,
    index: usize,
) -> (Sender, Receiver) {
    let shared = Arc::new(Shared {
        state: Mutex::new(State { queue: VecDeque::new(), bytes: 0, released: false, closed: false }),
        credit,
        overflow,
        writable: Notify::new(),
        ready: ready.clone(),
        index,
        demand,
        urgency,
    });
    (Sender(shared.clone()), Receiver(shared))
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    credit: usize,
    overflow: Overflow,
    /// Told when the receiver took something or closed.
    writable: Notify,
    ready: Arc<Ready>,
    index: usize,
    demand: Arc<Demand>,
    urgency: Arc<Urgency>,
}

#[derive(Debug)]
struct State {
    queue: VecDeque<Queued>,
    /// Bytes of the batches in memory.
    bytes: usize,
    /// A blocking channel whose producer is done may be read.
    released: bool,
    closed: bool,
}

#[derive(Debug)]
enum Queued {
    Memory(Event, usize),
    Disk(SpilledBatch),
}

/// The producer's end.
#[derive(Debug)]
pub struct Sender(Arc<Shared>);

/// The consumer's end.
#[derive(Debug)]
pub struct Receiver(Arc<Shared>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_blocking(&self) -> bool {
        matches!(self.overflow, Overflow::Spill { blocking: true, .. })
    }
}

impl Sender {
    /// Sends one event; waits for credit if it is a batch and the channel is one that waits.
    pub async fn send(&self, event: Event) -> Result<Sent> {
        let size = match &event {
            Event::Batch(batch) => batch.size_bytes(),
            _ => return Ok(self.push(event, 0)),
        };
        loop {
            // Registered before the look, so that a take between the look and the wait is not missed.
            let writable = self.0.writable.notified();
            {
                let state = self.0.lock();
                if state.closed {
                    return Ok(Sent::Closed);
                }
                if state.bytes == 0 || state.bytes + size <= self.0.credit || self.0.urgency.overdraw(size) {
                    drop(state);
                    return Ok(self.push(event, size));
                }
            }
            match &self.0.overflow {
                Overflow::Wait => tokio::select! {
                    biased;
                    () = writable => {}
                    () = self.0.urgency.changed() => {}
                },
                Overflow::Spill { file, .. } => return self.spill(file, event).await,
            }
        }
    }

    /// Whether the consumer closed the channel.
    pub fn is_closed(&self) -> bool {
        self.0.lock().closed
    }

    /// The demand for this producer's rows.
    pub fn demand(&self) -> &Arc<Demand> {
        &self.0.demand
    }

    async fn spill(&self, file: &Arc<SpillFile>, event: Event) -> Result<Sent> {
        let Event::Batch(batch) = event else { return Ok(self.push(event, 0)) };
        let spilled = file.write(batch).await?;
        Ok(self.enqueue(Queued::Disk(spilled), 0, false))
    }

    fn push(&self, event: Event, size: usize) -> Sent {
        let last = matches!(event, Event::EndOfInput);
        // Told once it is in the queue, so that whoever hears of it finds it.
        let barrier = if let Event::Barrier(barrier) = event { Some(barrier.id) } else { None };
        let sent = self.enqueue(Queued::Memory(event, size), size, last);
        if last || barrier.is_some() {
            self.0.ready.tell_of_control(barrier);
        }
        sent
    }

    fn enqueue(&self, queued: Queued, size: usize, last: bool) -> Sent {
        let mut state = self.0.lock();
        if state.closed {
            return Sent::Closed;
        }
        state.queue.push_back(queued);
        state.bytes += size;
        state.released |= last;
        let readable = state.released || !self.0.is_blocking();
        drop(state);
        if readable {
            self.0.ready.tell(self.0.index);
        }
        Sent::Queued
    }
}

impl Receiver {
    /// The next event, if there is one.
    pub async fn take(&self) -> Result<Option<Event>> {
        let queued = {
            let mut state = self.0.lock();
            if self.0.is_blocking() && !state.released {
                return Ok(None);
            }
            let queued = state.queue.pop_front();
            if let Some(Queued::Memory(_, size)) = &queued {
                state.bytes -= size;
            }
            queued
        };
        match queued {
            None => Ok(None),
            Some(Queued::Memory(event, size)) => {
                if size > 0 {
                    self.0.writable.notify_one();
                }
                Ok(Some(event))
            }
            Some(Queued::Disk(spilled)) => Ok(Some(Event::Batch(spilled.read().await?))),
        }
    }

    /// Takes the barrier of a checkpoint out of the queue if it is there, and says what it overtakes; of a queue whose producer
    /// has ended without one, what is in it. Rows stay where they are. Not for channels that spill.
    pub fn overtake(&self, checkpoint: CheckpointId) -> Overtaken {
        let mut state = self.0.lock();
        let is_it =
            |queued: &Queued| matches!(queued, Queued::Memory(Event::Barrier(barrier), _) if barrier.id == checkpoint);
        let place = state.queue.iter().position(is_it);
        let barrier = match place.and_then(|place| state.queue.remove(place)) {
            Some(Queued::Memory(Event::Barrier(barrier), _)) => Some(barrier),
            _ => None,
        };
        let has_ended = matches!(state.queue.back(), Some(Queued::Memory(Event::EndOfInput, _)));
        if barrier.is_none() && !has_ended {
            return Overtaken::Nothing;
        }
        let mut rows = Vec::new();
        let mut watermark = None;
        for queued in state.queue.iter().take(place.unwrap_or(state.queue.len())) {
            match queued {
                Queued::Memory(Event::Batch(batch), _) => rows.push(batch.clone()),
                Queued::Memory(Event::Watermark(latest), _) => watermark = Some(*latest),
                _ => {}
            }
        }
        Overtaken::Rows { barrier, rows, watermark }
    }

    /// Whether something waits (for a gate that keeps its ready list).
    pub fn has_more(&self) -> bool {
        let state = self.0.lock();
        !state.queue.is_empty() && (state.released || !self.0.is_blocking())
    }

    /// Tells the producer that rows of this edge are wanted now.
    pub fn demand(&self) {
        self.0.demand.ask();
    }

    /// Wants no more: queued rows are dropped, the sender learns it at its next send.
    pub fn close(&self) {
        let mut state = self.0.lock();
        if std::mem::replace(&mut state.closed, true) {
            return;
        }
        let unread = std::mem::take(&mut state.queue);
        state.bytes = 0;
        drop(state);
        // Freed outside the lock: the rows may be many, and the sender may be waiting for it.
        drop(unread);
        self.0.writable.notify_one();
        self.0.demand.close_one();
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.close();
    }
}

/// What a barrier overtook.
#[derive(Debug)]
pub enum Overtaken {
    /// The barrier has not come yet.
    Nothing,
    /// Everything that had come before it.
    Rows {
        /// The barrier; `None` if the producer has ended and sends none.
        barrier: Option<Barrier>,
        /// Rows, in order.
        rows: Vec<Batch>,
        /// The last watermark among them.
        watermark: Option<Watermark>,
    },
}

/// Which channels of a gate have something to read, in the order in which it came.
#[derive(Debug, Default)]
pub struct Ready {
    channels: Mutex<ReadyChannels>,
    notify: Notify,
    /// How many barriers and ends have come so far.
    controls: AtomicU64,
    urgency: Arc<Urgency>,
}

#[derive(Debug, Default)]
struct ReadyChannels {
    queue: VecDeque<usize>,
    /// A channel stands in the queue at most once.
    queued: Vec<bool>,
}

impl Ready {
    /// For a gate of `channels` channels, of the subtask whose urgency this is.
    pub fn new(channels: usize, urgency: Arc<Urgency>) -> Arc<Self> {
        let channels = ReadyChannels { queue: VecDeque::new(), queued: vec![false; channels] };
        let channels = Mutex::new(channels);
        Arc::new(Self { channels, notify: Notify::new(), controls: AtomicU64::new(0), urgency })
    }

    /// The urgency of the subtask that reads.
    pub fn urgency(&self) -> &Arc<Urgency> {
        &self.urgency
    }

    /// How many barriers and ends have come so far.
    pub fn controls(&self) -> u64 {
        self.controls.load(Ordering::Acquire)
    }

    fn tell_of_control(&self, barrier: Option<CheckpointId>) {
        self.controls.fetch_add(1, Ordering::AcqRel);
        if let Some(checkpoint) = barrier {
            self.urgency.arrive(checkpoint);
        }
    }

    /// Channel `index` has something.
    pub fn tell(&self, index: usize) {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if !std::mem::replace(&mut channels.queued[index], true) {
            channels.queue.push_back(index);
            drop(channels);
            self.notify.notify_one();
        }
    }

    /// The channel that has waited longest among those that `wanted` accepts.
    pub fn take(&self, wanted: impl Fn(usize) -> bool) -> Option<usize> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let place = channels.queue.iter().position(|index| wanted(*index))?;
        let index = channels.queue.remove(place)?;
        channels.queued[index] = false;
        Some(index)
    }

    /// Completes when a channel was told of since the last wait.
    pub async fn wait(&self) {
        self.notify.notified().await;
    }
}
