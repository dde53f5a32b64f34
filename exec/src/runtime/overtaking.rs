//! Barriers that overtake rows on their way through a subtask (NCK-01).
//!
//! ```text
//! channel 0    a a a |        the barrier is there: it is taken out, and a a a go into the checkpoint
//! channel 1    b b            it is not: b b go into the checkpoint, and what follows until it comes
//! channel 2    . . .          it has been read before: nothing was overtaken
//! ```
//!
//! State is frozen and the barrier sent on with the first barrier that is urgent. The rows are read and worked off as ever; what
//! is read of channel 1 meanwhile is recorded. The subtask hands its part in once no channel is missing.
//!
//! What stands in the queues is bounded by their credit. What is recorded while a barrier is missing has a bound of its own,
//! behind which the subtask takes no part in the checkpoint.

use tidemill_core::event::CheckpointId;
use tidemill_core::{Batch, Watermark};

use crate::runtime::in_flight::{InFlight, InputEdge, Replay};

/// Bytes that one subtask records for one checkpoint while it waits for barriers that are missing.
const RECORDED_BYTES_MAX: usize = 64 << 20;

/// What a barrier has overtaken so far.
#[derive(Debug)]
pub struct Recording {
    pub checkpoint: CheckpointId,
    /// Channels whose barrier has not come.
    missing: Vec<bool>,
    /// How far event time has come on each channel before its barrier.
    times: Vec<Watermark>,
    in_flight: InFlight,
    /// Bytes of the rows that came while their barrier was missing.
    recorded_bytes: usize,
    /// How many barriers and ends had come when the channels were last looked through.
    pub controls: u64,
}

impl Recording {
    /// Begins with what has not been replayed yet of an earlier checkpoint; `times` are those of the channels.
    pub fn new(
        checkpoint: CheckpointId,
        edges: &[InputEdge],
        replay: Option<&Replay>,
        begin: Watermark,
        times: Vec<Watermark>,
    ) -> Self {
        let mut edges: Vec<(InputEdge, Vec<Batch>)> = edges.iter().map(|edge| (edge.clone(), Vec::new())).collect();
        for (edge, rows) in replay.into_iter().flat_map(|replay| &replay.edges) {
            edges[edge.place].1.extend(rows.iter().cloned());
        }
        // What is behind the replay holds for every channel once that is over.
        let end = replay.map_or(Watermark::MIN, |replay| replay.end);
        let in_flight = InFlight { edges, begin, end };
        Self { checkpoint, missing: vec![false; times.len()], times, in_flight, recorded_bytes: 0, controls: 0 }
    }

    /// A channel has not brought its barrier.
    pub fn miss(&mut self, channel: usize) {
        self.missing[channel] = true;
    }

    /// The channels that are missing.
    pub fn missing(&self) -> Vec<usize> {
        (0..self.missing.len()).filter(|channel| self.missing[*channel]).collect()
    }

    /// Rows of a channel; they are recorded if its barrier has not come. `false` if that is more than may be.
    pub fn rows(&mut self, channel: usize, batch: &Batch) -> bool {
        if self.missing[channel] {
            self.recorded_bytes += batch.size_bytes();
            self.record(channel, [batch.clone()]);
        }
        self.recorded_bytes <= RECORDED_BYTES_MAX
    }

    /// Nothing more of a channel belongs to the checkpoint: its barrier has come, and overtook these rows, or it has ended. Event
    /// time before it had come to `time`.
    pub fn close(&mut self, channel: usize, rows: Vec<Batch>, time: Watermark) {
        self.record(channel, rows);
        self.missing[channel] = false;
        self.times[channel] = time;
    }

    /// Whether a channel's barrier is still to come.
    pub fn waits_for(&self, channel: usize) -> bool {
        self.missing[channel]
    }

    /// The rows in flight, once no channel is missing.
    pub fn complete(&mut self) -> Option<InFlight> {
        if self.missing.iter().any(|missing| *missing) {
            return None;
        }
        let InFlight { edges, begin, end } = &mut self.in_flight;
        let edges = std::mem::take(edges).into_iter().filter(|(_, rows)| !rows.is_empty()).collect();
        let floor = (*begin).max(*end);
        // Where all have ended their producers say so again.
        let least = self.times.iter().copied().filter(|time| *time < Watermark::MAX).min().unwrap_or(floor);
        Some(InFlight { edges, begin: *begin, end: least.max(floor) })
    }

    fn record(&mut self, channel: usize, rows: impl IntoIterator<Item = Batch>) {
        let edge = self.in_flight.edges.iter_mut().find(|(edge, _)| edge.channels.contains(&channel));
        if let Some((_, recorded)) = edge {
            recorded.extend(rows);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
    use arrow::datatypes::Int64Type;
    use futures::FutureExt;
    use futures::executor::block_on;
    use tidemill_core::Event;
    use tidemill_core::event::{Barrier, BarrierKind};
    use tidemill_core::graph::{CustomPartitioner, Partitioning};

    use super::*;
    use crate::exchange::{Demand, InputGate, Overflow, Ready, Sender, Urgency, channel};
    use crate::runtime::alignment::CheckpointMode;
    use crate::runtime::input::{Cut, GateInput, InputEvent, TaskInput};
    use crate::runtime::simulation::SimulatedClock;

    fn batch(number: i64) -> Batch {
        let column: ArrayRef = Arc::new(Int64Array::from(vec![number]));
        Batch::append(RecordBatch::try_from_iter([("n", column)]).unwrap())
    }

    fn barrier() -> Event {
        Event::Barrier(Barrier { id: 1, timestamp: 0, kind: BarrierKind::Checkpoint })
    }

    /// One task with an edge for each partitioning, of one channel each.
    struct World {
        senders: Vec<Sender>,
        producer: Arc<Urgency>,
        consumer: Arc<Urgency>,
        input: TaskInput,
    }

    impl World {
        fn new(credit: usize, partitionings: &[Partitioning]) -> Self {
            let (producer, consumer) = (Arc::new(Urgency::default()), Arc::new(Urgency::default()));
            let ready = Ready::new(partitionings.len(), consumer.clone());
            let (mut senders, mut receivers, mut edges) = (vec![], vec![], vec![]);
            for (place, partitioning) in partitionings.iter().enumerate() {
                let demand = Arc::new(Demand::new(Arc::default(), 1));
                let (sender, receiver) = channel(credit, Overflow::Wait, demand, producer.clone(), &ready, place);
                senders.push(sender);
                receivers.push((0, receiver));
                edges.push(InputEdge {
                    place,
                    port: 0,
                    channels: place..place + 1,
                    may_be_overtaken: partitioning.may_deal_again(),
                    partitioning: partitioning.clone(),
                    max_parallelism: 4,
                    schema: batch(0).schema(),
                });
            }
            let gate = InputGate::new(receivers, ready);
            let clock = Arc::new(SimulatedClock::default());
            let gate = GateInput::new(gate, edges, CheckpointMode::ExactlyOnce, clock, None);
            Self { senders, producer, consumer, input: TaskInput::Gate(gate) }
        }

        fn send(&self, channel: usize, event: Event) {
            let sent = self.senders[channel].send(event).now_or_never();
            assert!(sent.is_some(), "there is no credit");
        }

        /// What the input says next: a number for a row, words for the rest.
        fn next(&mut self) -> String {
            match block_on(self.input.try_next(None)).unwrap() {
                None => "nothing".to_owned(),
                Some(InputEvent::Rows(_, batch)) => number(&batch),
                Some(InputEvent::Barrier(Cut { is_overtaking, .. })) => {
                    self.consumer.pass(1);
                    if is_overtaking { "overtakes".to_owned() } else { "aligned".to_owned() }
                }
                Some(InputEvent::Advance(watermark)) => format!("at {watermark}"),
                Some(InputEvent::InFlight(1, in_flight)) => {
                    let rows: Vec<String> = in_flight.edges.iter().flat_map(|(_, rows)| rows).map(number).collect();
                    format!("in flight {} from {} to {}", rows.join(" "), in_flight.begin, in_flight.end)
                }
                Some(other) => format!("{other:?}"),
            }
        }

        fn says(&mut self, expected: &[&str]) {
            let said: Vec<String> = expected.iter().map(|_| self.next()).collect();
            assert_eq!(said, expected);
        }
    }

    fn number(batch: &Batch) -> String {
        batch.records().column(0).as_primitive::<Int64Type>().value(0).to_string()
    }

    #[test]
    fn a_barrier_overtakes_rows_and_they_go_into_the_checkpoint_and_on_to_the_task() {
        let mut world = World::new(1 << 20, &[Partitioning::Rebalance, Partitioning::Rebalance]);
        for channel in [0, 1] {
            world.send(channel, Event::Watermark(Watermark(3)));
        }
        world.says(&["at 3", "nothing"]);
        world.send(0, Event::Batch(batch(1)));
        world.send(0, Event::Watermark(Watermark(8)));
        world.send(0, barrier());
        world.send(0, Event::Batch(batch(9)));
        world.send(1, Event::Batch(batch(2)));
        world.consumer.overtake(1);
        world.says(&["overtakes", "1", "2", "9", "nothing"]);
        world.send(1, Event::Batch(batch(3)));
        world.send(1, Event::Watermark(Watermark(5)));
        world.send(1, barrier());
        world.says(&["in flight 1 2 3 from 3 to 5", "3", "at 5", "nothing"]);
    }

    #[test]
    fn a_barrier_that_is_not_urgent_waits_behind_rows_and_turns_urgent_while_channels_align() {
        let mut world = World::new(1 << 20, &[Partitioning::Rebalance, Partitioning::Rebalance]);
        world.send(0, barrier());
        world.send(0, Event::Batch(batch(9)));
        world.send(1, Event::Batch(batch(1)));
        world.says(&["1", "nothing"]);
        world.send(1, Event::Batch(batch(2)));
        world.send(1, barrier());
        world.consumer.overtake(1);
        world.says(&["overtakes", "in flight 2 from min to min"]);
    }

    #[test]
    fn what_is_recorded_is_bounded_and_beyond_that_there_is_no_part_of_the_checkpoint() {
        let mut world = World::new(usize::MAX, &[Partitioning::Rebalance, Partitioning::Rebalance]);
        world.send(0, barrier());
        world.consumer.overtake(1);
        world.says(&["overtakes", "nothing"]);
        let column: ArrayRef = Arc::new(Int64Array::from(vec![7; RECORDED_BYTES_MAX / 8 / 2]));
        let half = Batch::append(RecordBatch::try_from_iter([("n", column)]).unwrap());
        for _ in 0..2 {
            world.send(1, Event::Batch(half.clone()));
            world.says(&["7", "nothing"]);
        }
        world.send(1, Event::Batch(batch(1)));
        assert!(world.next().starts_with("Declined(1, \"more rows"));
        world.send(1, barrier());
        world.send(1, Event::Batch(batch(2)));
        world.says(&["1", "2", "nothing"]);
    }

    #[test]
    fn a_producer_that_has_ended_sends_no_barrier_and_its_rows_count() {
        let mut world = World::new(1 << 20, &[Partitioning::Rebalance, Partitioning::Rebalance]);
        world.send(0, Event::Batch(batch(1)));
        world.send(0, Event::EndOfInput);
        world.send(1, barrier());
        world.consumer.overtake(1);
        world.says(&["overtakes", "in flight 1 from min to min", "1"]);
    }

    /// A function of somebody else.
    #[derive(Debug)]
    struct ToTheFirst;

    impl CustomPartitioner for ToTheFirst {
        fn channels(&self, batch: &Batch, _channels: usize, channel_of: &mut Vec<u32>) -> tidemill_core::Result<()> {
            channel_of.resize(batch.num_rows(), 0);
            Ok(())
        }

        fn describe(&self) -> String {
            "to the first".to_owned()
        }
    }

    #[test]
    fn where_rows_cannot_be_dealt_again_barriers_come_in_their_turn_and_then_overtake_the_others() {
        let of_function: Arc<dyn CustomPartitioner> = Arc::new(ToTheFirst);
        for aligned in [
            Partitioning::Broadcast,
            Partitioning::Forward,
            Partitioning::Range(of_function.clone()),
            Partitioning::Custom(of_function.clone()),
        ] {
            let partitionings = [aligned, Partitioning::Rebalance];
            let mut world = World::new(1 << 20, &partitionings);
            world.send(0, Event::Batch(batch(1)));
            world.send(1, barrier());
            world.consumer.overtake(1);
            world.says(&["1", "nothing"]);
            world.send(0, barrier());
            world.says(&["aligned", "nothing"]);

            let mut world = World::new(1 << 20, &partitionings);
            world.send(0, barrier());
            world.send(1, Event::Batch(batch(2)));
            world.consumer.overtake(1);
            world.says(&["overtakes", "2", "nothing"]);
        }
    }

    #[test]
    fn a_barrier_that_was_given_up_overtakes_nothing() {
        let mut world = World::new(1 << 20, &[Partitioning::Rebalance, Partitioning::Rebalance]);
        world.send(0, Event::Batch(batch(1)));
        world.send(0, barrier());
        world.input.abort_checkpoint(1, 2);
        world.consumer.overtake(1);
        world.says(&["1", "nothing"]);
    }

    #[test]
    fn rows_in_flight_are_recorded_although_a_later_checkpoint_is_given_up() {
        let mut world = World::new(1 << 20, &[Partitioning::Rebalance, Partitioning::Rebalance]);
        world.send(0, barrier());
        world.consumer.overtake(1);
        world.says(&["overtakes", "nothing"]);
        world.input.abort_checkpoint(2, 1);
        world.send(1, Event::Batch(batch(3)));
        world.send(1, barrier());
        world.says(&["in flight 3 from min to min", "3", "nothing"]);
    }

    #[test]
    fn channels_align_for_a_checkpoint_although_a_later_one_is_given_up() {
        let mut world = World::new(1 << 20, &[Partitioning::Rebalance, Partitioning::Rebalance]);
        world.send(0, barrier());
        world.says(&["nothing"]);
        world.input.abort_checkpoint(2, 1);
        world.send(1, Event::Batch(batch(3)));
        world.send(1, barrier());
        world.says(&["3", "aligned", "nothing"]);
    }

    #[test]
    fn an_urgent_barrier_leaves_although_there_is_no_credit() {
        let mut world = World::new(1, &[Partitioning::Rebalance]);
        world.send(0, Event::Batch(batch(1)));
        let mut waits = Box::pin(world.senders[0].send(Event::Batch(batch(2))));
        assert!((&mut waits).now_or_never().is_none());
        world.producer.overtake(1);
        assert!((&mut waits).now_or_never().is_none(), "its own barrier has not come");
        world.producer.arrive(1);
        assert!((&mut waits).now_or_never().is_some());
        drop(waits);
        world.send(0, barrier());
        world.producer.pass(1);
        let waits = world.senders[0].send(Event::Batch(batch(3))).now_or_never();
        assert!(waits.is_none(), "behind the barrier credit counts again");
        world.consumer.overtake(1);
        world.says(&["overtakes", "in flight 1 2 from min to min", "1", "2", "nothing"]);
    }
}
