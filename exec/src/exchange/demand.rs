//! What a producing subtask hears of its consumers beside credit: that they have begun to ask, and that nobody is left.
//!
//! ```text
//! asked: one latch an edge       any consumer asks        -> all producers of the edge begin
//! gone:  one latch a producer    all its channels closed  -> that producer ends, also while it waits for something else
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::latch::Latch;

/// The demand for the rows of one producing subtask over one edge.
#[derive(Debug)]
pub struct Demand {
    /// Shared by all producers of the edge: a consumer that reads its producers one after the other, or joins what several
    /// channels bring, needs all of them at work as soon as it needs one.
    asked: Arc<Latch>,
    gone: Latch,
    /// Channels that are not closed.
    open: AtomicUsize,
}

impl Demand {
    /// Demand over `channels` channels, on an edge whose consumers raise `asked`.
    pub fn new(asked: Arc<Latch>, channels: usize) -> Self {
        let demand = Self { asked, gone: Latch::default(), open: AtomicUsize::new(channels) };
        if channels == 0 {
            demand.gone.raise();
        }
        demand
    }

    /// A consumer wants rows now.
    pub fn ask(&self) {
        self.asked.raise();
    }

    /// One channel was closed by its consumer. To be called once a channel.
    pub fn close_one(&self) {
        if self.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.gone.raise();
        }
    }

    /// Completes when a consumer first asks, or when nobody is left to ask.
    pub async fn begun(&self) {
        tokio::select! {
            () = self.asked.wait() => {}
            () = self.gone.wait() => {}
        }
    }

    /// Whether every channel is closed.
    pub fn has_ended(&self) -> bool {
        self.gone.is_raised()
    }

    /// Completes when every channel is closed.
    pub async fn ended(&self) {
        self.gone.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn one_consumer_asks_and_all_producers_begin() {
        let asked = Arc::new(Latch::default());
        let producers = [Demand::new(asked.clone(), 2), Demand::new(asked, 2)];
        assert!(producers.iter().all(|demand| demand.begun().now_or_never().is_none()));
        producers[0].ask();
        assert!(producers.iter().all(|demand| demand.begun().now_or_never().is_some()));
        assert!(producers.iter().all(|demand| demand.ended().now_or_never().is_none()));
    }

    #[test]
    fn demand_ends_with_the_last_channel_and_wakes_who_never_began() {
        let demand = Demand::new(Arc::default(), 2);
        demand.close_one();
        assert!(!demand.has_ended() && demand.begun().now_or_never().is_none());
        demand.close_one();
        assert!(demand.has_ended() && demand.begun().now_or_never().is_some());
    }
}
