//! A process function for the tests, over rows `(k, ts, v)`, and what is not among the laws that every operator keeps.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Fields, Int64Type, Schema, SchemaRef, TimeUnit, TimestampMillisecondType};
use futures::future::BoxFuture;
use tidemill_core::clock::Clock;
use tidemill_core::metrics::Metrics;
use tidemill_core::operator::{Emission, OperatorFactory, Wakeups};
use tidemill_core::state::{Dealing, StateLayer, StateTtl, ValueState};

use super::*;
use crate::operators::test_context;
use crate::state::{BroadcastMap, OperatorListState, StateRegistry};

/// Adds up the values of a key. Every value leaves with the sum so far; what else happens is up to the variant.
#[derive(Clone, Debug, Default)]
pub struct Sums {
    /// Whether values that are not negative register timers over event time, and negative ones delete them.
    pub has_timers: bool,
    /// Whether every row registers a timer over processing time.
    pub is_clocked: bool,
    /// What input 1 is, if there is one.
    pub second: Option<ProcessInput>,
    pub ttl: Option<StateTtl>,
    pub sum: ValueState<i64>,
    pub rules: BroadcastMap<i64, i64>,
    /// The values of all keys, in the order in which they came.
    pub order: OperatorListState<i64>,
}

pub fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("k", DataType::Int64, true),
        Field::new("ts", DataType::Timestamp(TimeUnit::Millisecond, None), false),
        Field::new("sum", DataType::Int64, false),
    ]))
}

impl OperatorFactory for Sums {
    fn create(&self) -> Result<Box<dyn Operator>> {
        let keys = Fields::from(vec![schema().field(0).clone()]);
        let inputs = [ProcessInput::Keyed(vec![0])].into_iter().chain(self.second.clone()).collect();
        let plan = ProcessPlan { inputs, keys: Some(keys) };
        Ok(Box::new(ProcessOperator::new(Arc::new(plan), self.clone())))
    }

    fn describe(&self) -> String {
        format!("{self:?}")
    }
}

impl Sums {
    fn emit(rows: &[(Option<i64>, i64, i64)], output: &mut Output) -> Result<()> {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(rows.iter().map(|row| row.0).collect::<Int64Array>()),
            Arc::new(TimestampMillisecondArray::from_iter_values(rows.iter().map(|row| row.1))),
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.2))),
        ];
        output.emit(Batch::append(RecordBatch::try_new(schema(), columns)?));
        Ok(())
    }
}

fn number(column: &ArrayRef, row: usize) -> Option<i64> {
    let numbers = column.as_primitive::<Int64Type>();
    numbers.is_valid(row).then(|| numbers.value(row))
}

impl ProcessFunction for Sums {
    fn open(
        &mut self,
        _context: &OperatorContext,
        states: Option<&mut dyn KeyedStates>,
        subtask: &mut SubtaskStates,
    ) -> Result<()> {
        self.sum = StateRegistry::new(states.unwrap()).with_ttl(self.ttl).value_state("sum")?;
        self.rules = subtask.broadcast.declare("rules")?;
        self.order = subtask.lists.declare("order", Dealing::Split)?;
        Ok(())
    }

    fn rows(&mut self, input: usize, batch: Batch, scope: &mut Scope<'_>, output: &mut Output) -> Result<()> {
        let (columns, mut out) = (batch.records().columns(), vec![]);
        let times = columns[1].as_primitive::<TimestampMillisecondType>();
        for row in 0..batch.num_rows() {
            let (key, time, value) = (number(&columns[0], row), times.value(row), number(&columns[2], row));
            if input == 1 && self.second == Some(ProcessInput::Broadcast) {
                self.rules.put(scope.broadcast(), key.unwrap_or(-1), value.unwrap_or(0))?;
                continue;
            }
            let (mut state, mut timers, beside) = scope.at(row);
            let rule = self.rules.get(beside.broadcast, &key.unwrap_or(-1))?.copied().unwrap_or(0);
            let sum = self.sum.get(&mut state)?.copied().unwrap_or(0) + value.unwrap_or(100) + rule;
            self.sum.set(&mut state, sum)?;
            self.order.add(beside.lists, sum)?;
            out.push((key, time, sum));
            match value {
                Some(value) if self.has_timers && value < 0 => timers.delete(TimerDomain::Event, time + 10)?,
                _ if self.has_timers => timers.register(TimerDomain::Event, time + 10)?,
                _ => {}
            }
            if self.is_clocked {
                timers.register(TimerDomain::Processing, time)?;
            }
        }
        Self::emit(&out, output)
    }

    fn timers(&mut self, due: &DueTimers, scope: &mut Scope<'_>, output: &mut Output) -> Result<usize> {
        let mut out = vec![];
        for (row, timer) in due.timers.iter().enumerate() {
            let (mut state, mut timers, _) = scope.at(row);
            let sum = self.sum.get(&mut state)?.copied().unwrap_or(0);
            out.push((number(&due.keys[0], row), timer.time, 1_000_000 + sum));
            // Some timers stand in for others, some of which are due as well.
            if timer.time % 4 == 0 {
                timers.delete(due.domain, timer.time + 1)?;
                timers.register(due.domain, timer.time + 3)?;
            }
            if sum % 5 == 0 {
                self.sum.clear(&mut state)?;
            }
            if scope.is_interrupted() {
                break;
            }
        }
        Self::emit(&out, output)?;
        Ok(out.len())
    }
}

fn batch(rows: &[(i64, i64, i64)]) -> Batch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0))),
        Arc::new(TimestampMillisecondArray::from_iter_values(rows.iter().map(|row| row.1))),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.2))),
    ];
    Batch::append(RecordBatch::try_new(schema(), columns).unwrap())
}

fn drain(output: &mut Output) -> Vec<(i64, i64, i64)> {
    let mut rows = vec![];
    while let Some(emission) = output.pop() {
        let Emission::Batch(0, batch) = emission else { continue };
        let columns = batch.records().columns();
        let times = columns[1].as_primitive::<TimestampMillisecondType>();
        let row = |row| (number(&columns[0], row).unwrap(), times.value(row), number(&columns[2], row).unwrap());
        rows.extend((0..batch.num_rows()).map(row));
    }
    rows
}

/// A clock that is put by hand, and the wake-ups that were asked for.
#[derive(Debug, Default)]
pub struct Hand(pub AtomicI64, std::sync::Mutex<Vec<i64>>);

impl Clock for Hand {
    fn now_millis(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }

    fn sleep(&self, _duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }
}

impl Wakeups for Hand {
    fn at(&self, millis: i64, _token: u64) {
        self.1.lock().unwrap().push(millis);
    }

    fn after(&self, _work: BoxFuture<'static, ()>, _token: u64) {}
}

fn opened(factory: &Sums, hand: &Arc<Hand>) -> Box<dyn Operator> {
    let mut operator = factory.create().unwrap();
    let context = OperatorContext { clock: hand.clone(), wakeups: hand.clone(), ..test_context(Metrics::default()) };
    operator.open(&context).unwrap();
    operator
}

fn asked(hand: &Hand) -> Vec<i64> {
    std::mem::take(&mut hand.1.lock().unwrap())
}

/// What a checkpoint of the operator gives back to one subtask.
fn stored(operator: &mut dyn Operator) -> RestoredState {
    let states = operator.snapshot(SnapshotScope::Copy).unwrap().states;
    let states = states
        .into_iter()
        .map(|state| (state.descriptor.clone(), vec![StateLayer::Rows(state.rows().unwrap().into())]));
    RestoredState { key_groups: 0..128, states: states.collect() }
}

#[test]
fn one_wakeup_is_asked_for_and_the_clock_fires_timers_in_order() {
    let (factory, hand) = (Sums { is_clocked: true, ..Sums::default() }, Arc::new(Hand::default()));
    let (mut operator, mut output) = (opened(&factory, &hand), Output::new(usize::MAX));
    let _ = operator.process(0, batch(&[(1, 50, 1), (2, 30, 1), (1, 50, 1), (1, 70, 1)]), &mut output).unwrap();
    let _ = operator.process(0, batch(&[(3, 90, 1)]), &mut output).unwrap();
    drain(&mut output);
    assert_eq!(asked(&hand), [30]);
    hand.0.store(60, Ordering::Relaxed);
    let _ = operator.wake(0, &mut output).unwrap();
    // The timer of 50 was registered twice and is one.
    assert_eq!(drain(&mut output), [(2, 30, 1_000_001), (1, 50, 1_000_003)]);
    assert_eq!(asked(&hand), [70]);
    // One that comes before what was asked for needs a wake-up of its own.
    let _ = operator.process(0, batch(&[(4, 65, 1)]), &mut output).unwrap();
    assert_eq!(asked(&hand), [65]);
}

#[test]
fn timers_that_came_due_while_the_job_stood_fire_at_once() {
    let (factory, hand) = (Sums { is_clocked: true, ..Sums::default() }, Arc::new(Hand::default()));
    let (mut operator, mut output) = (opened(&factory, &hand), Output::new(usize::MAX));
    let _ = operator.process(0, batch(&[(1, 50, 1), (2, 90, 1)]), &mut output).unwrap();
    drain(&mut output);
    let state = stored(&mut *operator);
    hand.0.store(60, Ordering::Relaxed);
    asked(&hand);
    let mut restored = opened(&factory, &hand);
    restored.restore(state).unwrap();
    assert_eq!(asked(&hand), [50]);
    let _ = restored.wake(0, &mut output).unwrap();
    assert_eq!((drain(&mut output), asked(&hand)), (vec![(1, 50, 1_000_001)], vec![90]));
}

#[test]
fn the_end_fires_what_waits_for_the_clock_once() {
    let (factory, hand) = (Sums { is_clocked: true, ..Sums::default() }, Arc::new(Hand::default()));
    let (mut operator, mut output) = (opened(&factory, &hand), Output::new(usize::MAX));
    // The function registers another timer behind one whose time is a multiple of four: not any more.
    let _ = operator.process(0, batch(&[(1, 40, 1)]), &mut output).unwrap();
    drain(&mut output);
    let _ = operator.advance(Watermark::MAX, &mut output).unwrap();
    assert_eq!(drain(&mut output), [(1, 40, 1_000_001)]);
}

#[test]
fn a_timer_that_another_one_deletes_or_registers_in_the_same_advance_is_gone_or_there() {
    let (factory, hand) = (Sums { has_timers: true, ..Sums::default() }, Arc::new(Hand::default()));
    let (mut operator, mut output) = (opened(&factory, &hand), Output::new(usize::MAX));
    // Timers at 40 and 41: that of 40 deletes that of 41 and registers one at 43.
    let _ = operator.process(0, batch(&[(1, 30, 1), (1, 31, 1), (2, 35, 1)]), &mut output).unwrap();
    drain(&mut output);
    let _ = operator.advance(Watermark(60), &mut output).unwrap();
    assert_eq!(drain(&mut output), [(1, 40, 1_000_002), (1, 43, 1_000_002), (2, 45, 1_000_001)]);
}

#[test]
fn state_that_nobody_uses_expires() {
    let ttl = Some(StateTtl::new(Duration::from_millis(10)));
    let (factory, hand) = (Sums { ttl, ..Sums::default() }, Arc::new(Hand::default()));
    let (mut operator, mut output) = (opened(&factory, &hand), Output::new(usize::MAX));
    let mut sum_at = |now: i64| {
        hand.0.store(now, Ordering::Relaxed);
        let _ = operator.process(0, batch(&[(1, 0, 1)]), &mut output).unwrap();
        drain(&mut output)[0].2
    };
    assert_eq!([sum_at(0), sum_at(9), sum_at(18), sum_at(28)], [1, 2, 3, 1]);
}

#[test]
fn snapshots_of_changes_hold_timers_too() {
    let (factory, hand) = (Sums { has_timers: true, ..Sums::default() }, Arc::new(Hand::default()));
    let (mut operator, mut output) = (opened(&factory, &hand), Output::new(usize::MAX));
    let mut layers = vec![];
    for (scope, rows) in [
        (SnapshotScope::Base, [(1, 1, 1), (2, 2, 2)]),
        (SnapshotScope::Changes, [(1, 1, -1), (3, 3, 3)]),
        (SnapshotScope::Changes, [(2, 9, 1), (2, 2, -1)]),
    ] {
        let _ = operator.process(0, batch(&rows), &mut output).unwrap();
        for state in operator.snapshot(scope).unwrap().states {
            layers.push((state.descriptor.clone(), state.extent, state.rows().unwrap()));
        }
    }
    let mut state = RestoredState { key_groups: 0..128, states: vec![] };
    for (descriptor, extent, batches) in layers {
        let place = state.states.iter().position(|(other, _)| other.name == descriptor.name);
        let place = place.unwrap_or_else(|| {
            state.states.push((descriptor, vec![]));
            state.states.len() - 1
        });
        match extent {
            Extent::Whole => state.states[place].1 = vec![StateLayer::Rows(batches.into())],
            Extent::Changed | Extent::Added => state.states[place].1.push(StateLayer::Rows(batches.into())),
            Extent::Removed => state.states[place].1.push(StateLayer::Removed(batches.into())),
        }
    }
    let mut restored = opened(&factory, &hand);
    restored.restore(state).unwrap();
    drain(&mut output);
    let _ = restored.advance(Watermark(100), &mut output).unwrap();
    let changed = drain(&mut output);
    let _ = operator.advance(Watermark(100), &mut output).unwrap();
    assert_eq!(changed, drain(&mut output));
    assert_eq!(changed, [(3, 13, 1_000_003), (2, 19, 1_000_002)]);
}
