//! What a task reads: the events of its input gate with watermarks merged, or those of a source.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tidemill_core::clock::Clock;
use tidemill_core::event::{Barrier, CheckpointId};
use tidemill_core::source::Split;
use tidemill_core::watermark::{Merged, WatermarkMerge};
use tidemill_core::{Batch, Event, Result, Watermark};

use crate::exchange::{InputGate, Overtaken};
use crate::runtime::alignment::{Alignment, CheckpointMode, Settled};
use crate::runtime::in_flight::{InFlight, InputEdge, Replay};
use crate::runtime::overtaking::Recording;
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
    Barrier(Cut),
    /// What the cut of this checkpoint overtook, all of it.
    InFlight(CheckpointId, InFlight),
    /// The subtask takes no part in this checkpoint, and why: no cut of it will come, or what its cut overtook is too much.
    Declined(CheckpointId, &'static str),
    /// Nothing follows on this port.
    EndOfPort(usize),
}

/// Where a checkpoint cuts the input of a subtask.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// The checkpoint.
    pub barrier: Barrier,
    /// From the first channel's barrier until here.
    pub alignment: Duration,
    /// Whether rows in flight belong to the checkpoint too; [`InputEvent::InFlight`] follows.
    pub is_overtaking: bool,
}

impl From<Barrier> for Cut {
    fn from(barrier: Barrier) -> Self {
        Self { barrier, alignment: Duration::ZERO, is_overtaking: false }
    }
}

impl InputEvent {
    /// The same as it would have come over a channel; `None` for what never does.
    pub fn to_event(&self) -> Option<Event> {
        match self {
            Self::Rows(_, batch) => Some(Event::Batch(batch.clone())),
            Self::Advance(watermark) => Some(Event::Watermark(*watermark)),
            Self::SetIdle(true) => Some(Event::Idle),
            Self::SetIdle(false) => Some(Event::Active),
            Self::Barrier(cut) => Some(Event::Barrier(cut.barrier)),
            Self::EndOfPort(_) => Some(Event::EndOfInput),
            Self::Declined(..) | Self::InFlight(..) => None,
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
            Self::Gate(gate) => gate.pending.is_empty() && gate.replay.is_none() && gate.gate.has_ended(),
            Self::Source(source) => source.has_ended(),
        }
    }

    /// Asks for rows.
    pub fn demand(&self) {
        if let Self::Gate(gate) = self {
            gate.gate.demand();
        }
    }

    /// Gives up the alignment of a checkpoint. None before `oldest` can come to be any more.
    pub fn abort_checkpoint(&mut self, checkpoint: CheckpointId, oldest: CheckpointId) {
        if let Self::Gate(gate) = self {
            gate.alignment.settle(oldest.saturating_sub(1));
            gate.alignment.give_up(checkpoint);
            gate.recording.take_if(|recording| recording.checkpoint == checkpoint);
        }
    }

    /// Begins with rows that were in flight in a checkpoint. Before anything is read.
    pub fn replay(&mut self, replay: Replay) {
        if let Self::Gate(gate) = self {
            gate.replay(replay);
        }
    }

    /// The edges that it reads.
    pub fn edges(&self) -> &[InputEdge] {
        match self {
            Self::Gate(gate) => &gate.edges,
            Self::Source(_) => &[],
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
    edges: Vec<InputEdge>,
    merge: WatermarkMerge,
    alignment: Alignment,
    /// The checkpoint that channels align for, and since when.
    aligning: Option<(CheckpointId, Duration)>,
    /// What a barrier overtakes.
    recording: Option<Recording>,
    /// What is read before anything else.
    replay: Option<Replay>,
    pending: VecDeque<InputEvent>,
    clock: Arc<dyn Clock>,
    trace: Option<TaskTrace>,
}

impl GateInput {
    /// Reads `gate`, whose channels belong to `edges`.
    pub fn new(
        gate: InputGate,
        edges: Vec<InputEdge>,
        mode: CheckpointMode,
        clock: Arc<dyn Clock>,
        trace: Option<TaskTrace>,
    ) -> Self {
        Self {
            merge: WatermarkMerge::new(gate.channels()),
            alignment: Alignment::new(mode, gate.channels()),
            gate,
            edges,
            aligning: None,
            recording: None,
            replay: None,
            pending: VecDeque::new(),
            clock,
            trace,
        }
    }

    fn replay(&mut self, replay: Replay) {
        let risen = self.merge.begin_at(replay.begin);
        self.take_in_time(risen);
        self.replay = Some(replay);
    }

    async fn try_next(&mut self, only: Option<usize>) -> Result<Option<InputEvent>> {
        loop {
            if self.pending.is_empty() && only.is_none() {
                self.overtake();
                self.record_what_came();
            }
            if let Some(event) = self.pending.pop_front() {
                return Ok(Some(event));
            }
            if let Some(event) = self.replay_next(only) {
                return Ok(Some(event));
            }
            if !self.pending.is_empty() {
                continue;
            }
            let blocked = |channel| self.alignment.blocks(channel);
            let Some((channel, event)) = self.gate.try_next(only, blocked).await? else { return Ok(None) };
            if let Some(trace) = &self.trace {
                trace.event(channel, &event);
            }
            match event {
                // The barriers of the other inputs cannot come before this one has been read to its end.
                Event::Barrier(barrier) if only.is_some() && !self.is_recorded(channel, barrier.id) => {
                    self.alignment.give_up(barrier.id);
                    self.pending
                        .push_back(InputEvent::Declined(barrier.id, "an input that is read first has not ended"));
                }
                event => self.take_in(channel, event),
            }
        }
    }

    fn take_in(&mut self, channel: usize, event: Event) {
        let port = self.gate.port(channel);
        let merged = match event {
            Event::Batch(batch) => {
                if let Some(given_up) = self.recording.take_if(|recording| !recording.rows(channel, &batch)) {
                    let reason = "more rows than a checkpoint may hold were in flight to a task";
                    self.pending.push_back(InputEvent::Declined(given_up.checkpoint, reason));
                }
                return self.pending.push_back(InputEvent::Rows(port, batch));
            }
            Event::Barrier(barrier) if self.is_recorded(channel, barrier.id) => {
                let time = self.merge.channel(channel);
                return self.close_recording_of(channel, time);
            }
            // Late, of a checkpoint that was given up: nobody aligns for it.
            Event::Barrier(barrier) if self.alignment.is_settled(barrier.id) => return,
            Event::Barrier(barrier) => {
                self.aligning_for(barrier.id);
                let settled = self.alignment.barrier(channel, barrier);
                return self.settled(settled);
            }
            Event::Watermark(watermark) => self.merge.watermark(channel, watermark),
            Event::Idle => self.merge.idle(channel),
            Event::Active => self.merge.active(channel),
            Event::EndOfInput => self.merge.end(channel),
        };
        self.take_in_time(merged);
        if !matches!(event, Event::EndOfInput) {
            return;
        }
        if self.gate.port_has_ended(port) {
            self.pending.push_back(InputEvent::EndOfPort(port));
        }
        let settled = self.alignment.end(channel);
        self.settled(settled);
        if self.recording.as_ref().is_some_and(|recording| recording.waits_for(channel)) {
            self.close_recording_of(channel, Watermark::MAX);
        }
    }

    fn take_in_time(&mut self, merged: Option<Merged>) {
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
    }

    /// A channel brought a barrier, or was the last that these waited for.
    fn settled(&mut self, Settled { complete, passed_over }: Settled) {
        let declined = |checkpoint| InputEvent::Declined(checkpoint, "a later one came first");
        self.pending.extend(passed_over.into_iter().map(declined));
        for barrier in complete {
            let alignment = self.aligning_for(barrier.id);
            self.aligning = None;
            self.pending.push_back(InputEvent::Barrier(Cut { barrier, alignment, is_overtaking: false }));
        }
    }

    /// How long the channels have been aligning for a checkpoint.
    fn aligning_for(&mut self, checkpoint: CheckpointId) -> Duration {
        let now = self.clock.monotonic();
        match self.aligning {
            Some((pending, since)) if pending == checkpoint => now.saturating_sub(since),
            _ => {
                self.aligning = Some((checkpoint, now));
                Duration::ZERO
            }
        }
    }

    /// The next rows of an earlier checkpoint; behind the last of them event time comes to where they bring it.
    fn replay_next(&mut self, only: Option<usize>) -> Option<InputEvent> {
        let replay = self.replay.as_mut()?;
        if let Some((edge, batch)) = replay.next(only) {
            if let Some(trace) = &self.trace {
                trace.event(edge.channels.start, &Event::Batch(batch.clone()));
            }
            return Some(InputEvent::Rows(edge.port, batch));
        }
        if let Some(over) = self.replay.take_if(|replay| replay.is_over()) {
            let risen = self.merge.begin_at(over.end);
            self.take_in_time(risen);
        }
        None
    }

    /// Has the barriers of an urgent checkpoint overtake what they can. Channels where they may not come first.
    fn overtake(&mut self) {
        let Some(checkpoint) = self.gate.ready().urgency().due() else { return };
        let must_align = self.edges.iter().filter(|edge| !edge.may_be_overtaken).flat_map(|edge| edge.channels.clone());
        if self.alignment.is_settled(checkpoint)
            || !{ must_align }.all(|channel| self.alignment.has_brought(checkpoint, channel))
        {
            return;
        }
        let controls = self.gate.ready().controls();
        let time = |channel| match self.alignment.has_ended(channel) {
            true => Watermark::MAX,
            false => self.merge.channel(channel),
        };
        let times = (0..self.gate.channels()).map(time).collect();
        let mut recording = Recording::new(checkpoint, &self.edges, self.replay.as_ref(), self.merge.output(), times);
        let mut found = self.alignment.pending(checkpoint);
        for channel in 0..self.gate.channels() {
            if !self.alignment.has_brought(checkpoint, channel) {
                recording.miss(channel);
                found = found.or(record(&self.gate, &self.merge, &mut recording, channel));
            }
        }
        let Some(barrier) = found else { return };
        recording.controls = controls;
        let alignment = self.aligning_for(checkpoint);
        self.aligning = None;
        self.alignment.settle(checkpoint);
        self.pending.push_back(InputEvent::Barrier(Cut { barrier, alignment, is_overtaking: true }));
        self.recording = Some(recording);
        self.look_at_recording();
    }

    /// Looks through the channels whose barrier was missing, if barriers have come since.
    fn record_what_came(&mut self) {
        let controls = self.gate.ready().controls();
        let Some(recording) = self.recording.as_mut().filter(|recording| recording.controls != controls) else {
            return;
        };
        recording.controls = controls;
        for channel in recording.missing() {
            record(&self.gate, &self.merge, recording, channel);
        }
        self.look_at_recording();
    }

    /// Whether a barrier is one that has been overtaking already.
    fn is_recorded(&self, channel: usize, checkpoint: CheckpointId) -> bool {
        let recording = self.recording.as_ref();
        recording.is_some_and(|recording| recording.checkpoint == checkpoint && recording.waits_for(channel))
    }

    fn close_recording_of(&mut self, channel: usize, time: Watermark) {
        if let Some(recording) = &mut self.recording {
            recording.close(channel, Vec::new(), time);
        }
        self.look_at_recording();
    }

    fn look_at_recording(&mut self) {
        let Some(recording) = &mut self.recording else { return };
        if let Some(in_flight) = recording.complete() {
            self.pending.push_back(InputEvent::InFlight(recording.checkpoint, in_flight));
            self.recording = None;
        }
    }
}

/// Takes the barrier out of a channel's queue if it is there, and records what it overtook. Returns it.
fn record(gate: &InputGate, merge: &WatermarkMerge, recording: &mut Recording, channel: usize) -> Option<Barrier> {
    match gate.receiver(channel).overtake(recording.checkpoint) {
        Overtaken::Nothing => None,
        Overtaken::Rows { barrier, rows, watermark } => {
            let time = match barrier {
                Some(_) => watermark.unwrap_or(Watermark::MIN).max(merge.channel(channel)),
                None => Watermark::MAX,
            };
            recording.close(channel, rows, time);
            barrier
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use futures::executor::block_on;
    use tidemill_core::event::BarrierKind;

    use super::*;
    use crate::exchange::{Demand, Overflow, Ready, Sender, channel};
    use crate::runtime::simulation::SimulatedClock;

    const SECOND: Duration = Duration::from_secs(1);

    /// A task with two channels that do not wait for one another.
    struct World {
        clock: SimulatedClock,
        senders: Vec<Sender>,
        input: TaskInput,
    }

    impl World {
        fn new() -> Self {
            let (clock, ready) = (SimulatedClock::default(), Ready::new(2, Arc::default()));
            let (mut senders, mut receivers) = (Vec::new(), Vec::new());
            for place in 0..2 {
                let demand = Arc::new(Demand::new(Arc::default(), 1));
                let (sender, receiver) = channel(1000, Overflow::Wait, demand, Arc::default(), &ready, place);
                senders.push(sender);
                receivers.push((0, receiver));
            }
            let gate = InputGate::new(receivers, ready);
            let input = GateInput::new(gate, Vec::new(), CheckpointMode::AtLeastOnce, Arc::new(clock.clone()), None);
            Self { clock, senders, input: TaskInput::Gate(input) }
        }

        /// A channel brings the barrier of a checkpoint, and a second goes by.
        fn barrier(&mut self, channel: usize, id: CheckpointId) -> Option<InputEvent> {
            let barrier = Barrier { id, timestamp: 0, kind: BarrierKind::Checkpoint };
            let _sent = block_on(self.senders[channel].send(Event::Barrier(barrier))).unwrap();
            let event = block_on(self.input.try_next(None)).unwrap();
            let mut second = self.clock.sleep(SECOND);
            assert!((&mut second).now_or_never().is_none());
            self.clock.advance();
            event
        }
    }

    #[test]
    fn a_late_barrier_of_a_checkpoint_that_was_given_up_takes_nothing_from_the_alignment_of_another() {
        let mut world = World::new();
        assert!(world.barrier(0, 1).is_none());
        world.input.abort_checkpoint(2, 1);
        assert!(world.barrier(0, 2).is_none());
        let Some(InputEvent::Barrier(cut)) = world.barrier(1, 1) else { panic!("both have brought it") };
        assert_eq!((cut.barrier.id, cut.alignment), (1, SECOND * 2));
    }
}
