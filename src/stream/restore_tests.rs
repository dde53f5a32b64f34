//! Every operator of this API that remembers something, stopped in the middle and gone on with at another parallelism: what leaves
//! cannot be told from what leaves one that was never stopped.
//!
//! The operators are those that programs are lowered to. Rows go through the task above, over an exchange that deals them by key
//! group, and into as many subtasks as there are; twice on the way all of these are replaced by new ones, which know no more than
//! what the old ones gave to snapshots. States are in memory or out of it, and are stored as copies or in increments.

mod broadcast;
mod lateness;
mod lists;
mod subtasks;

use std::time::Duration;

use tidemill_core::graph::{JobGraph, Partitioning};
use tidemill_core::operator::{Emission, Operator, Output};
use tidemill_core::settings::BackendType;
use tidemill_core::{Batch, Result, Watermark};

use super::layout::PlainCodec;
use super::record::Codec;
use super::rows::Rows;
use super::*;
use subtasks::{Stored, Subtasks, Way, context, drain, drop_progress};

/// A key, a time, a value.
type Row = (String, i64, i64);

/// Everything in memory, and copies of it.
const PLAIN: Way = Way { backends: &[None], in_increments: false };

/// Every state out of memory when it is not in use, and checkpoints that build on one another.
const WAYS: [Way; 6] = [
    PLAIN,
    Way { in_increments: true, ..PLAIN },
    Way { backends: &[Some(BackendType::Memory)], in_increments: true },
    Way { backends: &[Some(BackendType::RocksDb)], in_increments: false },
    Way { backends: &[Some(BackendType::RocksDb)], in_increments: true },
    Way { backends: &[Some(BackendType::Filesystem), None, Some(BackendType::RocksDb)], in_increments: true },
];

/// Some come late: after windows that they belong to have fired, where these are kept for longer.
fn rows() -> Vec<Row> {
    let time = |n: i64| n * 2 + n * 31 % 9 - if n % 13 == 12 { 60 } else { 0 };
    (0..90i64).map(|n| (format!("k{}", n * 7 % 5), time(n), (n * 37) % 23 - 5)).collect()
}

/// What comes of two streams of rows.
type Program<'a> = &'a dyn Fn(&DataStream<Row>, &DataStream<Row>) -> DataSink;

/// The job of a program.
fn job(program: Program<'_>) -> JobGraph {
    let environment = Environment::collections();
    let timed = || {
        let watermarks = Watermarks::bounded_out_of_orderness(Duration::from_millis(12));
        environment.from_collection(Vec::<Row>::new()).assign_timestamps_and_watermarks(watermarks, |row| row.1)
    };
    program(&timed(), &timed());
    let sinks = environment.program().pending().to_vec();
    environment.job("test", &sinks).unwrap().0
}

/// The lines of a run in which the operator is replaced at some steps, by so many subtasks.
fn run(program: Program<'_>, stops: &[(usize, usize)], way: Way) -> Vec<Vec<String>> {
    run_to_snapshot([program, program], stops, way).0
}

/// The same, where a program goes on from the first stop on with what another one kept.
fn run_changed(programs: [Program<'_>; 2], stops: &[(usize, usize)]) -> Vec<Vec<String>> {
    run_to_snapshot(programs, stops, PLAIN).0
}

/// The task under test: it reads over an exchange by key, or what is broadcast.
fn tested(job: &JobGraph) -> usize {
    let is_dealt =
        |partitioning: &Partitioning| matches!(partitioning, Partitioning::Hash(_) | Partitioning::Broadcast);
    job.edges.iter().find(|edge| is_dealt(&edge.partitioning)).unwrap().target
}

/// The same, and what a snapshot holds at the end.
fn run_to_snapshot(
    [before, after]: [Program<'_>; 2],
    stops: &[(usize, usize)],
    way: Way,
) -> (Vec<Vec<String>>, Stored) {
    let (job, changed) = (job(before), job(after));
    // What feeds its inputs are the sources.
    let mut above: Vec<(usize, Box<dyn Operator>)> = vec![];
    for (_, edge) in job.inputs(tested(&job)) {
        let mut operator = job.vertices[edge.source].chain[0].factory.create().unwrap();
        operator.open(&context(0, 1, None)).unwrap();
        above.push((edge.input_port, operator));
    }
    let codec = PlainCodec::new(Codec::<Row>::new().unwrap(), false);
    let mut subtasks = Subtasks::open(&job, 1, way);
    let mut watermarks = vec![Watermark::MIN; above.len()];
    let mut seen = vec![];
    for (step, values) in rows().chunks(10).enumerate() {
        for (place, (input, operator)) in above.iter_mut().enumerate() {
            let mut output = Output::new(usize::MAX);
            let records = codec.encode_rows(&Rows { values: values.to_vec(), times: vec![] }).unwrap();
            drop_progress(operator.process(0, Batch::append(records), &mut output).unwrap());
            for emission in drain(&mut output) {
                match emission {
                    Emission::Batch(_, batch) => subtasks.process(*input, &batch),
                    Emission::Watermark(watermark) => watermarks[place] = watermark,
                }
            }
        }
        for (_, parallelism) in stops.iter().filter(|(stop, _)| *stop == step) {
            subtasks = subtasks.replace(&changed, *parallelism);
        }
        subtasks.advance(watermarks.iter().copied().min().unwrap());
        subtasks.end_step();
        let mut lines = std::mem::take(&mut subtasks.lines);
        lines.sort();
        seen.push(lines);
    }
    subtasks.advance(Watermark::MAX);
    subtasks.lines.sort();
    seen.push(std::mem::take(&mut subtasks.lines));
    (seen, subtasks.snapshot())
}

fn check(program: impl Fn(&DataStream<Row>, &DataStream<Row>) -> DataSink) {
    let expected = run(&program, &[], PLAIN);
    assert!(expected.iter().map(Vec::len).sum::<usize>() >= 5, "{expected:?}");
    for way in WAYS {
        for stops in [&[][..], &[(3, 1), (6, 1)], &[(0, 3), (1, 2)], &[(4, 2), (7, 3)], &[(2, 5), (5, 1)]] {
            assert_eq!(run(&program, stops, way), expected, "{stops:?}, {way:?}");
        }
    }
}

fn key(row: &Row) -> String {
    row.0.clone()
}

#[test]
fn rolling_aggregates_are_restored() {
    check(|rows, _| rows.key_by(key).sum(|row| &mut row.2).print_to_err());
    check(|rows, _| rows.key_by(key).reduce(|a, b| (a.0, b.1, a.2 * 3 + b.2)).print_to_err());
}

#[test]
fn windows_of_counts_are_restored() {
    check(|rows, _| rows.key_by(key).count_window(4).reduce(|a, b| (a.0, b.1, a.2 * 3 + b.2)).print_to_err());
    check(|rows, _| {
        let windows = rows.key_by(key).sliding_count_window(5, 2);
        windows.process(|key, rows, out| out.collect((key.clone(), rows.len() as i64, rows[0].1))).print_to_err()
    });
}

struct Spread;

impl AggregateFunction<Row> for Spread {
    type Accumulator = (i64, i64, Vec<i64>);
    type Output = (i64, i64, usize);

    fn create(&self) -> Self::Accumulator {
        (i64::MAX, i64::MIN, vec![])
    }

    fn add(&self, (least, most, all): &mut Self::Accumulator, row: Row) {
        (*least, *most) = (row.2.min(*least), row.2.max(*most));
        all.push(row.2);
    }

    fn result(&self, (least, most, all): &Self::Accumulator) -> Self::Output {
        (*least, *most, all.len())
    }

    fn merge(&self, (least, most, all): &mut Self::Accumulator, other: &Self::Accumulator) {
        (*least, *most) = (other.0.min(*least), other.1.max(*most));
        all.extend(&other.2);
    }
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn windows_of_time_are_restored() {
    check(|rows, _| rows.key_by(key).window(Tumbling::of(millis(15))).sum(|row| &mut row.2).print_to_err());
    check(|rows, _| {
        let windows = rows.key_by(key).window(Sliding::of(millis(30), millis(10))).allowed_lateness(millis(8));
        let text = |key: &String, window: Window, spread: (i64, i64, usize), out: &mut Collector<String>| {
            out.collect(format!("{key} {window:?} {spread:?}"));
        };
        windows.aggregate_with(Spread, text).print_to_err()
    });
    check(|rows, _| rows.group_by(key).max_by(|row| row.2).print_to_err());
}

#[test]
fn sessions_are_restored() {
    check(|rows, _| {
        let sessions = rows.filter(|row| row.1 % 7 < 3).key_by(key).window(Session::with_gap(millis(20)));
        let text = |key: &String, window: Window, rows: &[Row], out: &mut Collector<String>| {
            let values: Vec<i64> = rows.iter().map(|row| row.2).collect();
            out.collect(format!("{key} {window:?} {values:?}"));
        };
        sessions.allowed_lateness(millis(5)).process(text).print_to_err()
    });
}

/// What windows and keys remember, in windows that fire again.
#[derive(Clone, Default)]
struct Remembering {
    fired: ValueState<i64>,
    texts: MapState<i64, String>,
    total: ReducingState<i64>,
    /// Whether windows have states.
    per_window: bool,
}

impl<T: 'static> ProcessWindowFunction<T, String> for Remembering {
    type Output = String;

    fn open(&mut self, context: &mut RuntimeContext<'_>) -> Result<()> {
        self.total = context.reducing_state("total", |a, b| a + b)?;
        if self.per_window {
            self.fired = context.per_window().value_state("fired")?;
            self.texts = context.with_ttl(StateTtl::new(Duration::from_secs(1))).per_window().map_state("texts")?;
        }
        Ok(())
    }

    fn process(
        &mut self,
        values: &[T],
        context: &mut WindowContext<'_, String>,
        out: &mut Collector<String>,
    ) -> Result<()> {
        let (key, window) = (context.key()?, context.window());
        self.total.add(context.global_state(), values.len() as i64)?;
        let total = self.total.get(context.global_state())?.copied();
        let mut text = format!("{key} {window:?} {} {total:?}", values.len());
        if self.per_window {
            let state = context.window_state()?;
            let fired = self.fired.get(state)?.copied().unwrap_or(0) + 1;
            self.fired.set(state, fired)?;
            self.texts.put(state, fired, key.clone())?;
            text += &format!(" {fired} {}", self.texts.entries(state)?.count());
        }
        out.collect(text);
        Ok(())
    }

    fn clear(&mut self, context: &mut WindowContext<'_, String>) -> Result<()> {
        if !self.per_window {
            return Ok(());
        }
        self.total.add(context.global_state(), 1_000)?;
        // What is kept of some windows stays.
        if context.window().start % 20 != 0 {
            self.texts.clear(context.window_state()?)?;
        }
        self.fired.clear(context.window_state()?)
    }
}

#[test]
fn what_windows_and_their_keys_remember_is_restored() {
    let function = || Remembering { per_window: true, ..Remembering::default() };
    check(|rows, _| {
        let windows = rows.key_by(key).window(Sliding::of(millis(30), millis(10))).allowed_lateness(millis(25));
        windows.rich_process(function()).print_to_err()
    });
    check(|rows, _| {
        let windows = rows.key_by(key).window(Tumbling::of(millis(15))).allowed_lateness(millis(40));
        windows.aggregate_then_process(Spread, function()).print_to_err()
    });
    check(|rows, _| rows.key_by(key).count_window(4).rich_process(function()).print_to_err());
    check(|rows, _| {
        let sessions = rows.filter(|row| row.1 % 7 < 3).key_by(key).window(Session::with_gap(millis(20)));
        sessions.rich_process(Remembering::default()).print_to_err()
    });
}

type SpreadState =
    AggregatingState<Row, <Spread as AggregateFunction<Row>>::Accumulator, <Spread as AggregateFunction<Row>>::Output>;

/// States of every kind, timers of both domains, a map that is broadcast.
#[derive(Clone, Default)]
struct Everything {
    last: ValueState<i64>,
    all: ListState<(i64, String)>,
    by_value: MapState<i64, u32>,
    most: ReducingState<i64>,
    spread: SpreadState,
    rules: BroadcastMap<i64, String>,
}

impl Everything {
    fn open(&mut self, context: &mut RuntimeContext<'_>) -> Result<()> {
        self.last = context.value_state("last")?;
        self.all = context.list_state("all")?;
        self.by_value = context.with_ttl(StateTtl::new(Duration::from_secs(1))).map_state("by_value")?;
        self.most = context.reducing_state("most", i64::max)?;
        self.spread = context.aggregating_state("spread", Spread)?;
        Ok(())
    }

    fn add(&mut self, row: Row, context: &mut Context<'_, String>) -> Result<()> {
        let seen = self.by_value.get(context.state(), &row.2)?.copied().unwrap_or(0);
        self.by_value.put(context.state(), row.2, seen + 1)?;
        self.most.add(context.state(), row.2)?;
        self.all.add(context.state(), (row.1, row.0.clone()))?;
        self.last.set(context.state(), row.1)?;
        if row.2 % 3 == 0 {
            context.delete_event_time_timer(row.1 + 15)?;
        } else {
            context.register_event_time_timer(row.1 + 15)?;
            context.register_processing_time_timer(row.1)?;
        }
        self.spread.add(context.state(), row)
    }

    fn text(&mut self, time: i64, context: &mut Context<'_, String>) -> Result<String> {
        let most = self.most.get(context.state())?.copied();
        let spread = self.spread.get(context.state())?;
        let values: Vec<(i64, u32)> = self.by_value.entries(context.state())?.map(|(value, n)| (*value, *n)).collect();
        let count = self.all.get(context.state())?.count();
        let last = self.last.get(context.state())?.copied();
        if time % 2 == 0 {
            self.all.clear(context.state())?;
            self.most.clear(context.state())?;
        }
        let domain = context.timer_domain();
        Ok(format!("{} {time} {domain:?} {most:?} {spread:?} {values:?} {count} {last:?}", context.key()?))
    }
}

impl ProcessFunction<Row, String> for Everything {
    type Output = String;

    fn open(&mut self, context: &mut RuntimeContext<'_>) -> Result<()> {
        self.open(context)
    }

    fn process(&mut self, row: Row, context: &mut Context<'_, String>, _out: &mut Collector<String>) -> Result<()> {
        self.add(row, context)
    }

    fn on_timer(&mut self, time: i64, context: &mut Context<'_, String>, out: &mut Collector<String>) -> Result<()> {
        out.collect(self.text(time, context)?);
        Ok(())
    }
}

impl CoProcessFunction<Row, Row, String> for Everything {
    type Output = String;

    fn open(&mut self, context: &mut RuntimeContext<'_>) -> Result<()> {
        self.open(context)
    }

    fn process_first(&mut self, row: Row, context: &mut Context<'_, String>, _: &mut Collector<String>) -> Result<()> {
        self.add(row, context)
    }

    fn process_second(
        &mut self,
        row: Row,
        context: &mut Context<'_, String>,
        out: &mut Collector<String>,
    ) -> Result<()> {
        out.collect(self.text(row.1, context)?);
        Ok(())
    }

    fn on_timer(&mut self, time: i64, context: &mut Context<'_, String>, out: &mut Collector<String>) -> Result<()> {
        out.collect(self.text(time, context)?);
        Ok(())
    }
}

impl BroadcastProcessFunction<Row, Row, String> for Everything {
    type Output = String;

    fn open(&mut self, context: &mut RuntimeContext<'_>) -> Result<()> {
        self.rules = context.broadcast_state("rules")?;
        self.open(context)
    }

    fn process(&mut self, row: Row, context: &mut Context<'_, String>, out: &mut Collector<String>) -> Result<()> {
        if let Some(rule) = self.rules.get(context.broadcast(), &row.2)? {
            out.collect(format!("{row:?} {rule}"));
        }
        self.add(row, context)
    }

    fn process_broadcast(
        &mut self,
        row: Row,
        context: &mut BroadcastContext<'_, String>,
        _out: &mut Collector<String>,
    ) -> Result<()> {
        self.rules.put(context.broadcast(), row.2, format!("{} {}", row.0, row.1))?;
        let most = self.most.clone();
        context.apply_to_keyed_state(|key, state| match key.ends_with('3') {
            true => most.add(state, 100 + row.2),
            false => Ok(()),
        })
    }

    fn on_timer(&mut self, time: i64, context: &mut Context<'_, String>, out: &mut Collector<String>) -> Result<()> {
        out.collect(self.text(time, context)?);
        Ok(())
    }
}

#[test]
fn process_functions_are_restored() {
    check(|rows, _| rows.key_by(key).process(Everything::default()).print_to_err());
    check(|rows, others| rows.key_by(key).connect(&others.key_by(key)).process(Everything::default()).print_to_err());
    check(|rows, others| {
        let rules = others.filter(|row| row.2 % 4 == 0).broadcast_stream();
        rows.key_by(key).connect_broadcast(&rules).process(Everything::default()).print_to_err()
    });
}
