//! What a task reads: the events of its input gate with watermarks merged, or those of a source.

use std::collections::VecDeque;

use tidemill_core::event::{Barrier, CheckpointId};
use tidemill_core::source::Split;
use tidemill_core::watermark::{Merged, WatermarkMerge};
use tidemill_core::{Batch, Event, Result, Watermark};

use crate::exchange::InputGate;
use crate::runtime::alignment::{Alignment, CheckpointMode};
use crate::runtime::source::SourceInput;
use crate::runtime::trace::TaskTrace;

/// One thing that a task has to do.
#[derive(Debug)]
pub enum InputEvent {
    /// Rows of an input port.
    Rows(usize, Batch),
    /// Event time of all inputs together.
    Advance(Watermark),
    /// Whether all inputs are idle.
    SetIdle(bool),
    /// The cut of a checkpoint: everything that was handed out before belongs to it.
    Barrier(Barrier),
    /// No cut of this checkpoint will come.
    Declined(CheckpointId),
    /// Nothing follows on this port.
    EndOfPort(usize),
}

impl InputEvent {
    /// The same as it would have come over a channel; `None` for what never does.
    pub fn to_event(&self) -> Option<Event> {
        match self {
            Self::Rows(_, batch) => Some(Event::Batch(batch.clone())),
            Self::Advance(watermark) => Some(Event::Watermark(*watermark)),
            Self::SetIdle(true) => Some(Event::Idle),
            Self::SetIdle(false) => Some(Event::Active),
            Self::Barrier(barrier) => Some(Event::Barrier(*barrier)),
            Self::EndOfPort(_) => Some(Event::EndOfInput),
            Self::Declined(_) => None,
        }
    }
}

/// Where a task's events come from.
#[derive(Debug)]
pub enum TaskInput {
    /// Other tasks.
    Gate(GateInput),
    /// The outside.
    Source(SourceInput),
}

impl TaskInput {
    /// The next event if one is there; with `only`, other ports wait.
    pub async fn try_next(&mut self, only: Option<usize>) -> Result<Option<InputEvent>> {
        match self {
            Self::Gate(gate) => gate.try_next(only).await,
            Self::Source(source) => source.try_next(),
        }
    }

    /// Completes when a look might find something. Cancel safe.
    pub async fn wait(&mut self) -> Result<()> {
        match self {
            Self::Gate(gate) => gate.gate.wait().await,
            Self::Source(source) => source.wait().await,
        }
        Ok(())
    }

    /// Whether everything has been read.
    pub fn has_ended(&self) -> bool {
        match self {
            Self::Gate(gate) => gate.pending.is_empty() && gate.gate.has_ended(),
            Self::Source(source) => source.has_ended(),
        }
    }

    /// Asks for rows.
    pub fn demand(&self) {
        if let Self::Gate(gate) = self {
            gate.gate.demand();
        }
    }

    /// Gives up the alignment of a checkpoint and of earlier ones.
    pub fn abort_checkpoint(&mut self, checkpoint: CheckpointId) {
        if let Self::Gate(gate) = self {
            gate.alignment.abort(checkpoint);
        }
    }

    /// The splits that are being read, each with its position; empty for what reads other tasks.
    pub fn splits(&self) -> Vec<Split> {
        match self {
            Self::Gate(_) => Vec::new(),
            Self::Source(source) => source.splits(),
        }
    }

    /// Wants no more.
    pub fn close(&mut self) {
        match self {
            Self::Gate(gate) => gate.gate.close(),
            Self::Source(source) => source.close(),
        }
    }
}

/// A gate whose channels' watermarks are merged (SUB-06).
#[derive(Debug)]
pub struct GateInput {
    gate: InputGate,
    merge: WatermarkMerge,
    alignment: Alignment,
    pending: VecDeque<InputEvent>,
    trace: Option<TaskTrace>,
}

impl GateInput {
    /// Reads `gate`.
    pub fn new(gate: InputGate, mode: CheckpointMode, trace: Option<TaskTrace>) -> Self {
        let (merge, alignment) = (WatermarkMerge::new(gate.channels()), Alignment::new(mode, gate.channels()));
        Self { merge, alignment, gate, pending: VecDeque::new(), trace }
    }

    async fn try_next(&mut self, only: Option<usize>) -> Result<Option<InputEvent>> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Ok(Some(event));
            }
            let blocked = |channel: usize| self.alignment.blocks(channel);
            let Some((channel, event)) = self.gate.try_next(only, blocked).await? else { return Ok(None) };
            if let Some(trace) = &self.trace {
                trace.event(channel, &event);
            }
            match event {
                // The barriers of the other inputs cannot come before this one has been read to its end.
                Event::Barrier(barrier) if only.is_some() => {
                    self.alignment.abort(barrier.id);
                    self.pending.push_back(InputEvent::Declined(barrier.id));
                }
                event => self.take_in(channel, event),
            }
        }
    }

    fn take_in(&mut self, channel: usize, event: Event) {
        let port = self.gate.port(channel);
        let merged = match event {
            Event::Batch(batch) => return self.pending.push_back(InputEvent::Rows(port, batch)),
            Event::Barrier(barrier) => {
                return self.pending.extend(self.alignment.barrier(channel, barrier).map(InputEvent::Barrier));
            }
            Event::Watermark(watermark) => self.merge.watermark(channel, watermark),
            Event::Idle => self.merge.idle(channel),
            Event::Active => self.merge.active(channel),
            Event::EndOfInput => self.merge.end(channel),
        };
        match merged {
            None => {}
            Some(Merged::Watermark(watermark)) => self.pending.push_back(InputEvent::Advance(watermark)),
            Some(Merged::Idle(flushed)) => {
                self.pending.extend(flushed.map(InputEvent::Advance));
                self.pending.push_back(InputEvent::SetIdle(true));
            }
            Some(Merged::Active(risen)) => {
                self.pending.push_back(InputEvent::SetIdle(false));
                self.pending.extend(risen.map(InputEvent::Advance));
            }
        }
        if matches!(event, Event::EndOfInput) && self.gate.port_has_ended(port) {
            self.pending.push_back(InputEvent::EndOfPort(port));
        }
        if matches!(event, Event::EndOfInput) {
            self.pending.extend(self.alignment.end(channel).map(InputEvent::Barrier));
        }
    }
}
