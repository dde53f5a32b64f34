//! Process functions on the whole engine: what they mean, under many settings, and what they refuse.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tidemill::stream::{
    BroadcastContext, BroadcastMap, BroadcastProcessFunction, CoProcessFunction, Collector, Context, DataStream,
    Environment, ListState, OperatorListState, OutputTag, ProcessFunction, RuntimeContext, ValueState, Watermarks,
};
use tidemill::{Error, ErrorKind, Result};

use super::{Setup, check, one};

type Row = (String, i64, i64);

fn rows() -> Vec<Row> {
    (0..150i64).map(|n| (format!("k{}", n * 7 % 5), n * 3, (n * 37) % 23)).collect()
}

fn timed(environment: &Environment, rows: Vec<Row>) -> DataStream<Row> {
    environment.from_collection(rows).assign_timestamps_and_watermarks(Watermarks::ascending(), |row| row.1)
}

/// Emits how many records of its key came within `quiet` milliseconds of each other, once none has come for so long.
#[derive(Clone)]
struct Bursts {
    quiet: i64,
    times: ListState<i64>,
    timer: ValueState<i64>,
}

impl Bursts {
    fn of(quiet: i64) -> Self {
        Self { quiet, times: ListState::default(), timer: ValueState::default() }
    }
}

impl ProcessFunction<Row, String> for Bursts {
    type Output = (String, i64, Vec<i64>);

    fn open(&mut self, context: &mut RuntimeContext<'_>) -> Result<()> {
        assert!(context.subtask() < context.parallelism() && context.parallelism() as u32 <= context.max_parallelism());
        assert!(context.name().contains("bursts"), "{}", context.name());
        self.times = context.list_state("times")?;
        self.timer = context.value_state("timer")?;
        Ok(())
    }

    fn process(
        &mut self,
        (key, time, _): Row,
        context: &mut Context<'_, String>,
        _out: &mut Collector<Self::Output>,
    ) -> Result<()> {
        assert_eq!((context.key()?, context.timestamp()), (&key, Some(time)));
        if let Some(timer) = self.timer.take(context.state())? {
            context.delete_event_time_timer(timer)?;
        }
        self.times.add(context.state(), time)?;
        self.timer.set(context.state(), time + self.quiet)?;
        // To ask twice is to ask once.
        context.register_event_time_timer(time + self.quiet)?;
        context.register_event_time_timer(time + self.quiet)
    }

    fn on_timer(
        &mut self,
        time: i64,
        context: &mut Context<'_, String>,
        out: &mut Collector<Self::Output>,
    ) -> Result<()> {
        assert!(context.current_watermark() >= time, "the watermark is set before its timers run");
        let times = self.times.get(context.state())?.copied().collect();
        self.times.clear(context.state())?;
        self.timer.clear(context.state())?;
        out.collect((context.key()?.clone(), time, times));
        Ok(())
    }
}

fn bursts(rows: &[Row], quiet: i64) -> Vec<(String, i64, Vec<i64>)> {
    let mut open: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    let (mut done, mut watermark) = (vec![], i64::MIN);
    for (key, time, _) in rows {
        let times = open.entry(key.clone()).or_default();
        if times.last().is_some_and(|last| last + quiet <= watermark) {
            let burst = std::mem::take(times);
            done.push((key.clone(), burst[burst.len() - 1] + quiet, burst));
        }
        watermark = time - 1;
        times.push(*time);
    }
    done.extend(open.into_iter().map(|(key, times)| (key, times[times.len() - 1] + quiet, times)));
    done
}

/// Rows one by one, because which records a timer sees depends on where the watermark stands.
#[test]
fn timers_fire_once_and_those_that_were_deleted_do_not() {
    let mut uneven = rows();
    uneven.iter_mut().enumerate().for_each(|(n, row)| row.1 += (n as i64 / 20) * 100);
    for parallelism in [1, 3] {
        for quiet in [10, 20, 60] {
            let environment = Setup { parallelism, gate: "0 ms", batch_rows: 1 }.environment();
            let rows = timed(&environment, uneven.clone()).set_parallelism(1);
            let bursts_of = rows.key_by(|row| row.0.clone()).process(Bursts::of(quiet)).name("bursts").uid("bursts");
            let mut seen = bursts_of.collect().unwrap();
            let mut expected = bursts(&uneven, quiet);
            seen.sort();
            expected.sort();
            assert_eq!(seen, expected, "quiet for {quiet}");
        }
    }
}

#[derive(Clone, Default)]
struct InOrder;

impl ProcessFunction<Row, String> for InOrder {
    type Output = (i64, String);

    fn process(&mut self, row: Row, context: &mut Context<'_, String>, _: &mut Collector<(i64, String)>) -> Result<()> {
        context.register_event_time_timer(1_000 + row.2)?;
        context.register_event_time_timer(500)
    }

    fn on_timer(
        &mut self,
        time: i64,
        context: &mut Context<'_, String>,
        out: &mut Collector<(i64, String)>,
    ) -> Result<()> {
        out.collect((time, context.key()?.clone()));
        Ok(())
    }
}

#[test]
fn timers_come_in_the_order_of_their_times() {
    let fired = timed(&one(), rows()).key_by(|row| row.0.clone()).process(InOrder).collect().unwrap();
    assert!(fired.iter().map(|(time, _)| *time).is_sorted());
    let mut expected: Vec<(i64, String)> = rows().into_iter().map(|row| (1_000 + row.2, row.0)).collect();
    expected.extend((0..5).map(|n| (500, format!("k{n}"))));
    expected.sort();
    expected.dedup();
    let mut fired = fired;
    fired.sort();
    assert_eq!(fired, expected);
}

/// Passes small values on, and gives large and negative ones to side outputs, one of which nobody reads.
#[derive(Clone)]
struct Sorted {
    large: OutputTag<(String, i64)>,
    unread: OutputTag<i64>,
}

impl<K> ProcessFunction<Row, K> for Sorted {
    type Output = i64;

    fn process(&mut self, row: Row, context: &mut Context<'_, K>, out: &mut Collector<i64>) -> Result<()> {
        match row.2 {
            0..10 => out.collect(row.2),
            10.. => context.output(&self.large, (row.0, row.2))?,
            _ => context.output(&self.unread, row.2)?,
        }
        Ok(())
    }
}

#[test]
fn side_outputs_are_streams_of_their_own() {
    let sorted = || Sorted { large: OutputTag::new("large"), unread: OutputTag::new("unread") };
    let small: Vec<i64> = rows().into_iter().map(|row| row.2).filter(|value| *value < 10).collect();
    let large: Vec<(String, i64)> = rows().into_iter().filter(|row| row.2 >= 10).map(|row| (row.0, row.2)).collect();
    check(small, |environment| environment.from_collection(rows()).process(sorted()));
    check(large.clone(), |environment| {
        environment.from_collection(rows()).process(sorted()).side_output(&sorted().large)
    });
    // Functions are fused behind both, and both are read by one job.
    let environment = one();
    let main = timed(&environment, rows()).key_by(|row| row.0.clone()).process(sorted()).map(|value| value * 2);
    assert_eq!(main.collect().unwrap().len(), 150 - large.len());
    let environment = one();
    let passed = timed(&environment, rows()).key_by(|row| row.0.clone()).process(sorted());
    let texts = passed.side_output(&sorted().large).map(|row| row.0).union(&passed.map(|value| value.to_string()));
    assert_eq!(texts.collect().unwrap().len(), 150);
}

/// Joins each record of the first stream with all of the second that have its key, whichever comes first.
#[derive(Clone, Default)]
struct Join {
    first: ListState<i64>,
    second: ListState<i64>,
}

impl CoProcessFunction<(i64, i64), (i64, String), i64> for Join {
    type Output = (i64, i64, i64);

    fn open(&mut self, context: &mut RuntimeContext<'_>) -> Result<()> {
        self.first = context.list_state("first")?;
        self.second = context.list_state("second")?;
        Ok(())
    }

    fn process_first(
        &mut self,
        (key, value): (i64, i64),
        context: &mut Context<'_, i64>,
        out: &mut Collector<Self::Output>,
    ) -> Result<()> {
        out.extend(self.second.get(context.state())?.map(|other| (key, value, *other)));
        self.first.add(context.state(), value)
    }

    fn process_second(
        &mut self,
        (key, text): (i64, String),
        context: &mut Context<'_, i64>,
        out: &mut Collector<Self::Output>,
    ) -> Result<()> {
        let value = text.len() as i64;
        out.extend(self.first.get(context.state())?.map(|other| (key, *other, value)));
        self.second.add(context.state(), value)
    }
}

#[test]
fn two_streams_share_the_states_of_a_key() {
    let first: Vec<(i64, i64)> = (0..40).map(|n| (n % 6, n)).collect();
    let second: Vec<(i64, String)> = (0..20).map(|n| (n % 9, "x".repeat(n as usize))).collect();
    let pairs = first.iter().flat_map(|(key, value)| {
        let matching = second.iter().filter(move |(other, _)| other == key);
        matching.map(move |(_, text)| (*key, *value, text.len() as i64))
    });
    check(pairs.collect(), |environment| {
        let first = environment.from_collection(first.clone());
        let second = environment.from_collection(second.clone());
        first.connect(&second).key_by(|row| row.0, |row| row.0).process(Join::default())
    });
}

/// Holds records back, whatever their keys, and lets two go at a time.
#[derive(Clone, Default)]
struct Pairs {
    waiting: OperatorListState<i64>,
    seen: OperatorListState<Vec<u8>>,
    parts: OperatorListState<u64>,
}

impl ProcessFunction<i64, i64> for Pairs {
    type Output = (i64, i64, usize);

    fn open(&mut self, context: &mut RuntimeContext<'_>) -> Result<()> {
        self.waiting = context.operator_list("waiting")?;
        self.seen = context.raw_state("seen")?;
        self.parts = context.union_list("parts")?;
        Ok(())
    }

    fn process(&mut self, value: i64, context: &mut Context<'_, i64>, out: &mut Collector<Self::Output>) -> Result<()> {
        self.waiting.add(context.lists(), value)?;
        self.seen.add(context.lists(), vec![value as u8])?;
        self.parts.set(context.lists(), [value as u64])?;
        if let [first, second] = *self.waiting.get(context.lists())? {
            self.waiting.set(context.lists(), [])?;
            out.collect((first, second, self.seen.get(context.lists())?.len()));
        }
        Ok(())
    }
}

#[test]
fn lists_belong_to_the_subtask_and_not_to_a_key() {
    let environment = one();
    let pairs = environment.generate_sequence(1, 5).key_by(|n| *n).process(Pairs::default());
    assert_eq!(pairs.collect().unwrap(), [(1, 2, 2), (3, 4, 4)]);
}

#[test]
fn functions_of_connected_streams_see_every_record() {
    let expected: Vec<String> = (1..=30i64).map(|n| n.to_string()).chain((1..=9i64).map(|n| format!("#{n}"))).collect();
    check(expected.clone(), |environment| {
        let (left, right) = (environment.generate_sequence(1, 30), environment.generate_sequence(1, 9).map(|n| (n,)));
        left.connect(&right).map(|n| n.to_string(), |(n,)| format!("#{n}"))
    });
    check([expected.clone(), expected].concat(), |environment| {
        let (left, right) = (environment.generate_sequence(1, 30), environment.generate_sequence(1, 9).map(|n| (n,)));
        let connected = left.key_by(|n| n % 4).connect(&right.key_by(|row| row.0 % 4));
        connected.flat_map(
            |n, out| out.extend([n.to_string(), n.to_string()]),
            |(n,), out| out.extend([format!("#{n}"), format!("#{n}")]),
        )
    });
}

/// Emits at the end, for each record, how many rules hold for it, and for each key what rules have added to its sum.
#[derive(Clone, Default)]
struct Rules {
    rules: BroadcastMap<String, i64>,
    values: ListState<i64>,
    added: ValueState<i64>,
}

impl BroadcastProcessFunction<Row, (String, i64), String> for Rules {
    type Output = (String, i64, i64);

    fn open(&mut self, context: &mut RuntimeContext<'_>) -> Result<()> {
        self.rules = context.broadcast_state("rules")?;
        self.values = context.list_state("values")?;
        self.added = context.value_state("added")?;
        Ok(())
    }

    fn process(
        &mut self,
        row: Row,
        context: &mut Context<'_, String>,
        _out: &mut Collector<Self::Output>,
    ) -> Result<()> {
        // What was added before this key was known.
        let known = self.added.get(context.state())?.is_some();
        if !known {
            let sum = self.rules.entries(context.broadcast())?.map(|(_, least)| *least).sum();
            self.added.set(context.state(), sum)?;
        }
        self.values.add(context.state(), row.2)?;
        context.register_event_time_timer(i64::MAX)
    }

    fn process_broadcast(
        &mut self,
        (name, least): (String, i64),
        context: &mut BroadcastContext<'_, String>,
        _out: &mut Collector<Self::Output>,
    ) -> Result<()> {
        self.rules.put(context.broadcast(), name, least)?;
        let added = self.added;
        context.apply_to_keyed_state(|key, state| {
            assert!(key.starts_with('k'));
            added.update(state, |sum| sum.unwrap_or(0) + least)
        })
    }

    fn on_timer(
        &mut self,
        _time: i64,
        context: &mut Context<'_, String>,
        out: &mut Collector<Self::Output>,
    ) -> Result<()> {
        let values: Vec<i64> = self.values.get(context.state())?.copied().collect();
        let rules: Vec<i64> = self.rules.entries(context.broadcast())?.map(|(_, least)| *least).collect();
        let held = values.iter().flat_map(|value| rules.iter().filter(move |least| value >= least)).count();
        let added = self.added.get(context.state())?.copied().unwrap_or(0);
        out.collect((context.key()?.clone(), held as i64, added));
        Ok(())
    }
}

#[test]
fn rules_reach_every_subtask_and_every_key() {
    let rules: Vec<(String, i64)> = [5, 9, 20].map(|least| (format!("at least {least}"), least)).to_vec();
    let mut expected: BTreeMap<String, i64> = BTreeMap::new();
    for (key, _, value) in rows() {
        *expected.entry(key).or_default() += rules.iter().filter(|(_, least)| value >= *least).count() as i64;
    }
    let expected = expected.into_iter().map(|(key, held)| (key, held, 5 + 9 + 20)).collect();
    check(expected, |environment| {
        let rules = environment.from_collection(rules.clone()).broadcast_stream();
        let rows = environment.from_collection(rows());
        rows.key_by(|row| row.0.clone()).connect_broadcast(&rules).process(Rules::default())
    });
}

/// Counts how often it was opened and closed, and fails or panics if it is told to.
#[derive(Clone)]
struct Resource {
    open: Arc<AtomicUsize>,
    closed: Arc<AtomicUsize>,
    fails_at: i64,
    panics: bool,
}

impl ProcessFunction<i64> for Resource {
    type Output = i64;

    fn open(&mut self, _context: &mut RuntimeContext<'_>) -> Result<()> {
        self.open.fetch_add(1, Ordering::SeqCst);
        match self.fails_at {
            0 => Err(Error::unavailable("nobody answers")),
            _ => Ok(()),
        }
    }

    fn process(&mut self, value: i64, _context: &mut Context<'_, ()>, out: &mut Collector<i64>) -> Result<()> {
        match (value == self.fails_at, self.panics) {
            (true, true) => panic!("it has come to {value}"),
            (true, false) => Err(Error::data(format!("it has come to {value}"))),
            _ => {
                out.collect(value);
                Ok(())
            }
        }
    }

    fn close(&mut self) -> Result<()> {
        self.closed.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

#[test]
fn what_was_opened_is_closed_once_whatever_happens() {
    for (fails_at, panics) in [(-1, false), (0, false), (50, false), (50, true)] {
        let (open, closed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let function = Resource { open: open.clone(), closed: closed.clone(), fails_at, panics };
        let environment = Environment::local();
        environment.set_parallelism(2);
        let result = environment.generate_sequence(1, 100).process(function).collect();
        assert_eq!(result.is_ok(), fails_at < 0, "{result:?}");
        // The last task may end a moment after the job has.
        for _ in 0..200 {
            if closed.load(Ordering::SeqCst) == open.load(Ordering::SeqCst) {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let (open, closed) = (open.load(Ordering::SeqCst), closed.load(Ordering::SeqCst));
        assert!(open > 0 && open == closed, "opened {open} times and closed {closed} times");
    }
}

/// Does one wrong thing.
#[derive(Clone, Copy, Debug)]
enum Wrong {
    NameTwice,
    /// The name of a value by key once more, for another kind of state.
    NameOfAList,
    NameOfAUnion,
    NameOfRawState,
    /// The same without keys.
    NameOfTwoLists,
    NoColumns,
    StateWithoutKey,
    TimerWithoutKey,
    KeyWithoutKey,
    Undeclared,
    BroadcastWithoutStream,
    OtherTag,
}

impl<K> ProcessFunction<i64, K> for Wrong {
    type Output = i64;

    fn open(&mut self, context: &mut RuntimeContext<'_>) -> Result<()> {
        match self {
            Self::NameTwice => {
                context.value_state::<i64>("count")?;
                context.list_state::<i64>("count").map(drop)
            }
            Self::NameOfAList => {
                context.value_state::<i64>("count")?;
                context.operator_list::<i64>("count").map(drop)
            }
            Self::NameOfAUnion => {
                context.union_list::<i64>("count")?;
                context.value_state::<i64>("count").map(drop)
            }
            Self::NameOfRawState => {
                context.map_state::<i64, i64>("count")?;
                context.raw_state("count").map(drop)
            }
            Self::NameOfTwoLists => {
                context.operator_list::<i64>("count")?;
                context.union_list::<i64>("count").map(drop)
            }
            Self::NoColumns => context.value_state::<serde_json::Value>("anything").map(drop),
            Self::StateWithoutKey => context.value_state::<i64>("count").map(drop),
            Self::BroadcastWithoutStream => context.broadcast_state::<i64, i64>("rules").map(drop),
            _ => Ok(()),
        }
    }

    fn process(&mut self, value: i64, context: &mut Context<'_, K>, _out: &mut Collector<i64>) -> Result<()> {
        match self {
            Self::TimerWithoutKey => context.register_event_time_timer(7),
            Self::KeyWithoutKey => context.key().map(drop),
            Self::Undeclared => ValueState::default().set(context.state(), value),
            Self::OtherTag => context.output(&OutputTag::new("side"), value),
            _ => Ok(()),
        }
    }
}

#[test]
fn what_is_wrong_with_a_function_is_said() {
    let numbers = || one().generate_sequence(1, 3);
    let keyed = |wrong: Wrong| numbers().key_by(|n| *n).process(wrong).collect().unwrap_err();
    let plain = |wrong: Wrong| numbers().process(wrong).collect().unwrap_err();
    let said = |error: Error, text: &str| {
        assert!(error.to_string().contains(text), "{error}");
        assert_eq!(error.kind(), ErrorKind::Request, "{error}");
    };
    for twice in [Wrong::NameTwice, Wrong::NameOfAList, Wrong::NameOfAUnion, Wrong::NameOfRawState] {
        said(keyed(twice), "state 'count': there are two states called 'count'");
    }
    said(plain(Wrong::NameOfTwoLists), "state 'count': there are two states called 'count'");
    said(keyed(Wrong::NoColumns), "the columns of serde_json::value::Value are not known");
    said(keyed(Wrong::BroadcastWithoutStream), "broadcast state 'rules' in 'process', which no stream is broadcast to");
    said(keyed(Wrong::Undeclared), "a state is used that was not declared");
    said(plain(Wrong::StateWithoutKey), "keyed state 'count' in 'process', whose records have no key");
    said(plain(Wrong::TimerWithoutKey), "a timer at 7 in a function that has no key");
    said(plain(Wrong::KeyWithoutKey), "the key of a record that has none");
    said(plain(Wrong::Undeclared), "a state is used that was not declared");
    let tag: OutputTag<String> = OutputTag::new("side");
    let error = numbers().process(Wrong::OtherTag).side_output(&tag).collect().unwrap_err();
    said(error, "side output 'side', which is read as another type");
    let environment = one();
    let passed = environment.generate_sequence(1, 3).process(Wrong::OtherTag);
    passed.side_output(&tag);
    let error = passed.side_output(&OutputTag::<i64>::new("side")).collect().unwrap_err();
    said(error, "there is no side output 'side' of i64 here");
    let elsewhere = numbers().connect(&numbers()).map(|a| a, |b| b).collect().unwrap_err();
    said(elsewhere, "connect of streams of two environments");
}

/// A timer by the clock, on a stream that goes on.
#[derive(Clone)]
struct Later(std::sync::mpsc::SyncSender<(String, bool)>);

impl ProcessFunction<String, String> for Later {
    type Output = String;

    fn process(&mut self, _: String, context: &mut Context<'_, String>, _: &mut Collector<String>) -> Result<()> {
        let now = context.current_processing_time();
        context.register_processing_time_timer(now + 50)?;
        context.register_processing_time_timer(now + 60)?;
        context.delete_processing_time_timer(now + 60)
    }

    fn on_timer(&mut self, time: i64, context: &mut Context<'_, String>, out: &mut Collector<String>) -> Result<()> {
        let is_due = context.current_processing_time() >= time && context.timestamp().is_none();
        self.0.send((context.key()?.clone(), is_due)).map_err(|error| Error::internal(error.to_string()))?;
        out.collect(context.key()?.clone());
        Ok(())
    }
}

#[test]
fn the_clock_fires_timers_without_another_record() {
    use std::io::Write;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let environment = Environment::local();
    environment.set_parallelism(2).set("execution.buffer-timeout", "0 ms");
    let (sender, fired) = std::sync::mpsc::sync_channel(16);
    environment
        .socket_text_stream("127.0.0.1", listener.local_addr().unwrap().port(), "\n", Some(0))
        .key_by(|word| word.clone())
        .process(Later(sender))
        .print_to_err();
    let job = environment.execute_async("timers").unwrap();
    let (mut peer, _) = listener.accept().unwrap();
    peer.write_all(b"a\nb\n").unwrap();
    let mut keys: Vec<(String, bool)> = (0..2).map(|_| fired.recv_timeout(Duration::from_secs(20)).unwrap()).collect();
    keys.sort();
    assert_eq!(keys, [("a".to_owned(), true), ("b".to_owned(), true)]);
    drop(peer);
    job.join().unwrap();
    assert!(fired.try_recv().is_err());
}
