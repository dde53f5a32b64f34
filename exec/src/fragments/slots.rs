//! Where the channels of an exchange wait for whoever reads them.
//!
//! Channels come from outside the plan, with the subtask that owns them; they are wanted inside it, by the stream of one
//! partition, and that stream may be driven by another subtask (the one build side of a join with many probing partitions).
//! So both meet in the plan node, one slot a partition:
//!
//! ```text
//! awaited --place--> placed --take--> taken          a second take is an error: rows are read once
//!    `------------close-------'`---> closed          nobody will take: the producers are told at once
//! ```

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tidemill_core::graph::BatchStream;
use tidemill_core::{Error, Result};
use tokio::sync::Notify;

/// One slot for every partition of an exchange.
pub struct Slots {
    slots: Mutex<Vec<Slot>>,
    placed: Notify,
}

enum Slot {
    Awaited,
    /// A stream for each producing subtask.
    Placed(Vec<BatchStream>),
    Taken,
    Closed,
}

impl Slots {
    /// Slots for `partitions` partitions.
    pub fn new(partitions: usize) -> Self {
        Self { slots: Mutex::new((0..partitions).map(|_| Slot::Awaited).collect()), placed: Notify::new() }
    }

    /// The channels of `partition` have come.
    pub fn place(&self, partition: usize, producers: Vec<BatchStream>) {
        let mut slots = self.lock();
        // A slot that is closed by now drops them, which closes them.
        if let Some(slot @ Slot::Awaited) = slots.get_mut(partition) {
            *slot = Slot::Placed(producers);
            drop(slots);
            self.placed.notify_waiters();
        }
    }

    /// Takes the channels of `partition`; waits until they have come.
    pub async fn take(&self, partition: usize) -> Result<Vec<BatchStream>> {
        loop {
            let placed = self.placed.notified();
            tokio::pin!(placed);
            // Enabled before the look: what is placed between the look and the wait is not missed.
            placed.as_mut().enable();
            if let Some(producers) = self.try_take(partition)? {
                return Ok(producers);
            }
            placed.await;
        }
    }

    /// Nobody will take the channels of `partition`. Means nothing once they have been taken.
    pub fn close(&self, partition: usize) {
        let closed = match self.lock().get_mut(partition) {
            Some(slot @ (Slot::Awaited | Slot::Placed(_))) => Some(std::mem::replace(slot, Slot::Closed)),
            _ => None,
        };
        // Outside the lock: closing a channel wakes its producer.
        drop(closed);
    }

    /// Nobody will take anything any more.
    pub fn close_all(&self) {
        let partitions = self.lock().len();
        (0..partitions).for_each(|partition| self.close(partition));
    }

    fn try_take(&self, partition: usize) -> Result<Option<Vec<BatchStream>>> {
        let mut slots = self.lock();
        let Some(slot) = slots.get_mut(partition) else {
            return Err(Error::internal(format!("partition {partition} of an exchange of {}", slots.len())));
        };
        match std::mem::replace(slot, Slot::Taken) {
            Slot::Placed(producers) => Ok(Some(producers)),
            Slot::Awaited => {
                *slot = Slot::Awaited;
                Ok(None)
            }
            // An operator that ran out of memory and begins again finds its input gone.
            Slot::Taken => Err(Error::exhausted("an operator ran out of memory and wants to read its input again")
                .with_hint("raise taskmanager.memory.process.size")),
            Slot::Closed => {
                *slot = Slot::Closed;
                Err(Error::internal(format!("partition {partition} of an exchange was read after its end")))
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = |slot: &Slot| match slot {
            Slot::Awaited => "awaited",
            Slot::Placed(_) => "placed",
            Slot::Taken => "taken",
            Slot::Closed => "closed",
        };
        f.debug_list().entries(self.lock().iter().map(state)).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::StreamExt;
    use tidemill_core::ErrorKind;

    use super::*;

    fn nothing() -> Vec<BatchStream> {
        vec![futures::stream::empty().boxed()]
    }

    #[tokio::test]
    async fn a_reader_waits_for_its_channels_and_reads_them_once() {
        let slots = Arc::new(Slots::new(2));
        let reader = tokio::spawn({
            let slots = slots.clone();
            async move { slots.take(1).await.map(|producers| producers.len()) }
        });
        tokio::task::yield_now().await;
        slots.place(1, nothing());
        assert_eq!(reader.await.unwrap().unwrap(), 1);
        assert_eq!(slots.take(1).await.err().unwrap().kind(), ErrorKind::Exhausted);
    }

    #[tokio::test]
    async fn what_comes_to_a_closed_slot_is_dropped() {
        let (slots, dropped) = (Slots::new(1), Arc::new(()));
        slots.close(0);
        let held = dropped.clone();
        slots.place(
            0,
            vec![
                futures::stream::poll_fn(move |_| {
                    let _ = &held;
                    std::task::Poll::Ready(None)
                })
                .boxed(),
            ],
        );
        assert_eq!(Arc::strong_count(&dropped), 1);
        assert_eq!(slots.take(0).await.err().unwrap().kind(), ErrorKind::Internal);
    }
}
