//! The consumer's side: all channels of a subtask's inputs, read fairly, one event at a time.

use std::sync::Arc;

use tidemill_core::{Event, Result};

use crate::exchange::channel::{Ready, Receiver};

/// The input channels of one subtask.
#[derive(Debug)]
pub struct InputGate {
    channels: Vec<GateChannel>,
    ready: Arc<Ready>,
    open: usize,
}

#[derive(Debug)]
struct GateChannel {
    port: usize,
    receiver: Receiver,
    ended: bool,
}

impl InputGate {
    /// A gate over `channels`, each with the input port that it feeds; their numbers are their places in `ready`.
    pub fn new(channels: Vec<(usize, Receiver)>, ready: Arc<Ready>) -> Self {
        let channels: Vec<GateChannel> =
            channels.into_iter().map(|(port, receiver)| GateChannel { port, receiver, ended: false }).collect();
        Self { open: channels.len(), channels, ready }
    }

    /// How many channels.
    pub fn channels(&self) -> usize {
        self.channels.len()
    }

    /// The input port that a channel feeds.
    pub fn port(&self, channel: usize) -> usize {
        self.channels[channel].port
    }

    /// One of the channels.
    pub fn receiver(&self, channel: usize) -> &Receiver {
        &self.channels[channel].receiver
    }

    /// What tells which channels have something.
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// Whether every channel has ended.
    pub fn has_ended(&self) -> bool {
        self.open == 0
    }

    /// Whether every channel of `port` has ended.
    pub fn port_has_ended(&self, port: usize) -> bool {
        self.channels.iter().all(|channel| channel.port != port || channel.ended)
    }

    /// Asks pulled producers to begin.
    pub fn demand(&self) {
        self.channels.iter().for_each(|channel| channel.receiver.demand());
    }

    /// The next event and its channel, if one is there. With `only`, other ports wait, and so do channels that are blocked.
    pub async fn try_next(
        &mut self,
        only: Option<usize>,
        is_blocked: impl Fn(usize) -> bool,
    ) -> Result<Option<(usize, Event)>> {
        let channels = &self.channels;
        let wanted = |index: usize| only.is_none_or(|port| channels[index].port == port) && !is_blocked(index);
        while let Some(index) = self.ready.take(wanted) {
            let receiver = &self.channels[index].receiver;
            let Some(event) = receiver.take().await? else { continue };
            if receiver.has_more() {
                self.ready.tell(index);
            }
            if matches!(event, Event::EndOfInput) && !std::mem::replace(&mut self.channels[index].ended, true) {
                self.open -= 1;
            }
            return Ok(Some((index, event)));
        }
        Ok(None)
    }

    /// The next event and its channel; waits for one. `None` when every channel has ended. Cancel safe up to a spilled batch
    /// being read.
    pub async fn next(&mut self, only: Option<usize>) -> Result<Option<(usize, Event)>> {
        loop {
            if let Some(event) = self.try_next(only, |_| false).await? {
                return Ok(Some(event));
            }
            if self.has_ended() {
                return Ok(None);
            }
            self.ready.wait().await;
        }
    }

    /// Completes when a channel has something new.
    pub async fn wait(&self) {
        self.ready.wait().await;
    }

    /// Wants no more from anyone.
    pub fn close(&mut self) {
        self.channels.iter().for_each(|channel| channel.receiver.close());
    }
}
