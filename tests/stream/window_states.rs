//! What functions of windows remember: for each window of a key until they clear it, and for each key whatever the window.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use tidemill::stream::{
    AggregatingState, Collector, DataStream, Environment, ListState, MapState, OutputTag, ProcessWindowFunction,
    ReducingState, RuntimeContext, Session, Sliding, Tumbling, ValueState, Watermarks, Window, WindowContext, Windows,
};
use tidemill::{Error, Result};

use super::{Setup, SumOf, check, one, restarting};

/// Key, event time.
type Row = (i64, i64);
/// Key, start of the window, and what a test wants to know.
type Seen = (i64, i64, i64);

fn millis(value: i64) -> Duration {
    Duration::from_millis(value as u64)
}

/// Watermarks are judged row by row.
fn row_by_row() -> Environment {
    Setup { parallelism: 1, gate: "0 ms", batch_rows: 1 }.environment()
}

fn timed(rows: &DataStream<Row>, delay: i64) -> DataStream<Row> {
    rows.assign_timestamps_and_watermarks(Watermarks::bounded_out_of_orderness(millis(delay)), |row| row.1)
}

/// How often a window has fired, as it remembers; what it forgets when it is over goes to a side output, with how much that was.
#[derive(Clone)]
struct Firings {
    fired: ValueState<i64>,
    over: OutputTag<Seen>,
    clears: bool,
}

impl Firings {
    fn new(clears: bool) -> Self {
        Self { fired: ValueState::default(), over: OutputTag::new("over"), clears }
    }
}

impl<T> ProcessWindowFunction<T, i64> for Firings {
    type Output = Seen;

    fn open(&mut self, context: &mut RuntimeContext<'_>) -> Result<()> {
        self.fired = context.per_window().value_state("fired")?;
        Ok(())
    }

    fn process(&mut self, _: &[T], context: &mut WindowContext<'_, i64>, out: &mut Collector<Seen>) -> Result<()> {
        let fired = self.fired.get(context.window_state()?)?.copied().unwrap_or(0) + 1;
        self.fired.set(context.window_state()?, fired)?;
        out.collect((*context.key()?, context.window().start, fired));
        Ok(())
    }

    fn clear(&mut self, context: &mut WindowContext<'_, i64>) -> Result<()> {
        let fired = self.fired.get(context.window_state()?)?.copied().unwrap_or(0);
        let over = (*context.key()?, context.window().start, fired);
        context.output(&self.over, over)?;
        match self.clears {
            true => self.fired.clear(context.window_state()?),
            false => Ok(()),
        }
    }
}

/// How often each window fires, and in which order windows are over, by trying every start.
fn oracle(rows: &[Row], (size, slide): (i64, i64), delay: i64, lateness: i64) -> (Vec<Seen>, Vec<Seen>) {
    let (mut watermark, mut highest) = (i64::MIN, i64::MIN);
    let mut open: BTreeMap<(i64, i64), i64> = BTreeMap::new();
    let (mut fired, mut over) = (vec![], vec![]);
    let mut advance = |to: i64, watermark: &mut i64, open: &mut BTreeMap<(i64, i64), i64>, fired: &mut Vec<Seen>| {
        let last = |start: i64| start + size - 1;
        let due = open.iter_mut().filter(|((_, start), _)| last(*start) > *watermark && last(*start) <= to);
        due.for_each(|((key, start), times)| {
            *times += 1;
            fired.push((*key, *start, *times));
        });
        let is_over = |start: i64| last(start) + lateness <= to;
        over.extend(open.iter().filter(|((_, start), _)| is_over(*start)).map(|((key, start), n)| (*key, *start, *n)));
        open.retain(|(_, start), _| !is_over(*start));
        *watermark = to;
    };
    for (key, time) in rows {
        for start in time - size + 1..=*time {
            let last = start + size - 1;
            if start.rem_euclid(slide) != 0 || watermark != i64::MIN && last + lateness <= watermark {
                continue;
            }
            let times = open.entry((*key, start)).or_default();
            if last <= watermark {
                *times += 1;
                fired.push((*key, start, *times));
            }
        }
        highest = highest.max(*time);
        if highest - delay - 1 > watermark {
            advance(highest - delay - 1, &mut watermark, &mut open, &mut fired);
        }
    }
    advance(i64::MAX, &mut watermark, &mut open, &mut fired);
    fired.sort_unstable();
    over.sort_unstable();
    (fired, over)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_window_remembers_its_own_and_is_cleared_once_when_it_is_over(
        rows in prop::collection::vec((0..3i64, 0..80i64), 0..60), size in 1..25i64, slide in 1..25i64, delay in 0..20i64,
        lateness in 0..30i64, aggregates: bool,
    ) {
        let function = Firings::new(true);
        let windows = timed(&row_by_row().from_collection(rows.clone()), delay)
            .key_by(|row| row.0)
            .window(Sliding::of(millis(size), millis(slide)))
            .allowed_lateness(millis(lateness));
        let fired = match aggregates {
            true => windows.aggregate_then_process(SumOf(|_: Row| 1), function.clone()),
            false => windows.rich_process(function.clone()),
        };
        let sorted = |stream: DataStream<Seen>| {
            let mut seen = stream.collect().unwrap();
            seen.sort_unstable();
            seen
        };
        let over = sorted(fired.side_output(&function.over));
        prop_assert_eq!((sorted(fired), over), oracle(&rows, (size, slide), delay, lateness));
    }
}

/// A running total of the key behind what a window counts, and the numbers of its windows so far.
#[derive(Clone, Default)]
struct Totals {
    total: ValueState<i64>,
    starts: ListState<i64>,
}

impl ProcessWindowFunction<i64, i64> for Totals {
    type Output = (i64, i64, i64, i64);

    fn open(&mut self, context: &mut RuntimeContext<'_>) -> Result<()> {
        self.total = context.value_state("total")?;
        self.starts = context.list_state("starts")?;
        Ok(())
    }

    fn process(
        &mut self,
        counts: &[i64],
        context: &mut WindowContext<'_, i64>,
        out: &mut Collector<Self::Output>,
    ) -> Result<()> {
        let [count] = counts else { panic!("{counts:?} is not one result") };
        let start = context.window().start;
        self.total.update(context.global_state(), |total| total.unwrap_or(0) + count)?;
        self.starts.add(context.global_state(), start)?;
        let total = self.total.get(context.global_state())?.copied().unwrap_or(0);
        let windows = self.starts.get(context.global_state())?.count() as i64;
        assert!(self.starts.get(context.global_state())?.is_sorted(), "windows of a key fire in order");
        out.collect((*context.key()?, start, total, windows));
        Ok(())
    }
}

fn rows() -> Vec<Row> {
    (0..300i64).map(|n| (n % 7, n * 13 % 190)).collect()
}

fn totals(starts_of: impl Fn(&[i64]) -> Vec<(i64, i64)>) -> Vec<(i64, i64, i64, i64)> {
    let of_key = |key: i64| {
        let times: Vec<i64> = rows().iter().filter(|row| row.0 == key).map(|row| row.1).collect();
        let (mut total, mut windows) = (0, 0);
        let fired = |(start, count): (i64, i64)| {
            (total, windows) = (total + count, windows + 1);
            (key, start, total, windows)
        };
        starts_of(&times).into_iter().map(fired).collect::<Vec<_>>()
    };
    (0..7).flat_map(of_key).collect()
}

/// Windows of ten milliseconds, with their counts.
fn tens(times: &[i64]) -> Vec<(i64, i64)> {
    let mut counts = BTreeMap::new();
    times.iter().for_each(|time| *counts.entry(time.div_euclid(10) * 10).or_default() += 1);
    counts.into_iter().collect()
}

#[test]
fn what_is_kept_for_a_key_outlives_its_windows() {
    check(totals(tens), |environment| {
        let windows =
            timed(&environment.from_collection(rows()), 200).key_by(|row| row.0).window(Tumbling::of(millis(10)));
        windows.aggregate_then_process(SumOf(|_: Row| 1), Totals::default())
    });
}

#[test]
fn sessions_keep_something_for_their_key() {
    let sessions = |times: &[i64]| {
        let mut times = times.to_vec();
        times.sort_unstable();
        let mut sessions: Vec<(i64, i64)> = vec![];
        let mut end = i64::MIN;
        for time in times {
            match sessions.last_mut().filter(|_| time <= end) {
                Some((_, count)) => *count += 1,
                None => sessions.push((time, 1)),
            }
            end = time + 3;
        }
        sessions
    };
    check(totals(sessions), |environment| {
        let windows =
            timed(&environment.from_collection(rows()), 200).key_by(|row| row.0).window(Session::with_gap(millis(3)));
        windows.aggregate_then_process(SumOf(|_: Row| 1), Totals::default())
    });
}

#[test]
fn a_session_is_over_once_and_what_it_was_merged_of_never_was() {
    #[derive(Clone)]
    struct Over(OutputTag<Seen>);

    impl ProcessWindowFunction<Row, i64> for Over {
        type Output = i64;

        fn process(&mut self, rows: &[Row], _: &mut WindowContext<'_, i64>, out: &mut Collector<i64>) -> Result<()> {
            out.collect(rows.len() as i64);
            Ok(())
        }

        fn clear(&mut self, context: &mut WindowContext<'_, i64>) -> Result<()> {
            let over = (*context.key()?, context.window().start, context.window().end);
            context.output(&self.0, over)
        }
    }

    let tag = OutputTag::new("over");
    // 1 and 7 are bridged by 4, when 1 has fired; 30 is alone.
    let rows = [(1, 1), (1, 7), (1, 4), (1, 30), (1, 60)];
    let fired = timed(&row_by_row().from_elements(rows), 0)
        .key_by(|row| row.0)
        .window(Session::with_gap(millis(4)))
        .allowed_lateness(millis(10))
        .rich_process(Over(tag.clone()));
    assert_eq!(fired.side_output(&tag).collect().unwrap(), [(1, 1, 11), (1, 30, 34), (1, 60, 64)]);
    assert_eq!(fired.collect().unwrap(), [1, 3, 1, 1]);
}

#[test]
fn what_is_not_cleared_stays() {
    let counted = |clears| {
        let numbers = one().from_collection((0..6).map(|n| (1i64, n)).collect::<Vec<Row>>());
        let fired = numbers.key_by(|row| row.0).count_window(2).rich_process(Firings::new(clears)).collect().unwrap();
        fired.into_iter().map(|(_, start, fired)| (start, fired)).collect::<Vec<_>>()
    };
    // All windows of a count go by the same bounds.
    assert_eq!(counted(true), [(i64::MIN, 1); 3]);
    assert_eq!(counted(false), [(i64::MIN, 1), (i64::MIN, 2), (i64::MIN, 3)]);
}

#[test]
fn every_kind_of_state_can_belong_to_a_window() {
    #[derive(Clone, Default)]
    struct Kinds {
        list: ListState<i64>,
        map: MapState<i64, i64>,
        most: ReducingState<i64>,
        count: AggregatingState<i64, i64, i64>,
        all: ValueState<i64>,
    }

    impl ProcessWindowFunction<Row> for Kinds {
        type Output = String;

        fn open(&mut self, context: &mut RuntimeContext<'_>) -> Result<()> {
            self.all = context.value_state("all")?;
            let mut windows = context.per_window();
            self.list = windows.list_state("list")?;
            self.map = windows.map_state("map")?;
            self.most = windows.reducing_state("most", i64::max)?;
            self.count = windows.aggregating_state("count", SumOf(|_: i64| 1))?;
            Ok(())
        }

        fn process(
            &mut self,
            rows: &[Row],
            context: &mut WindowContext<'_, ()>,
            out: &mut Collector<String>,
        ) -> Result<()> {
            self.all.update(context.global_state(), |all| all.unwrap_or(0) + rows.len() as i64)?;
            let Some(last) = rows.last() else { return Ok(()) };
            self.list.add(context.window_state()?, last.1)?;
            self.map.put(context.window_state()?, last.0, last.1)?;
            self.most.add(context.window_state()?, last.1)?;
            self.count.add(context.window_state()?, last.1)?;
            let all = self.all.get(context.global_state())?.copied();
            let state = context.window_state()?;
            let list: Vec<i64> = self.list.get(state)?.copied().collect();
            let map: Vec<(i64, i64)> = self.map.entries(state)?.map(|(key, value)| (*key, *value)).collect();
            let (most, count) = (self.most.get(state)?.copied(), self.count.get(state)?);
            out.collect(format!("{} {list:?} {map:?} {most:?} {count:?} {all:?}", context.window().start));
            Ok(())
        }
    }

    let fired = timed(&row_by_row().from_elements([(1, 5), (2, 12), (3, 7), (3, 6), (1, 40)]), 0)
        .window_all(Tumbling::of(millis(10)))
        .allowed_lateness(millis(20))
        .rich_process(Kinds::default());
    assert_eq!(
        fired.collect().unwrap(),
        [
            "0 [5] [(1, 5)] Some(5) Some(1) Some(1)",
            "0 [5, 7] [(1, 5), (3, 7)] Some(7) Some(2) Some(3)",
            "0 [5, 7, 6] [(1, 5), (3, 6)] Some(7) Some(3) Some(6)",
            "10 [12] [(2, 12)] Some(12) Some(1) Some(7)",
            "40 [40] [(1, 40)] Some(40) Some(1) Some(8)",
        ]
    );
}

#[test]
fn reduced_records_and_whole_groups_have_functions_too() {
    let reduced = timed(&one().from_elements([(1i64, 5i64), (1, 7), (1, 13)]), 0)
        .key_by(|row| row.0)
        .window(Tumbling::of(millis(10)))
        .reduce_then_process(|a, b| (a.0, a.1 + b.1), Firings::new(true));
    assert_eq!(reduced.collect().unwrap(), [(1, 0, 1), (1, 10, 1)]);
    let function = Firings::new(true);
    let groups = one().from_elements([(1i64, 5i64), (2, 7)]).group_by(|row| row.0).rich_process(function.clone());
    let mut over = groups.side_output(&function.over).collect().unwrap();
    over.sort_unstable();
    assert_eq!(over, [(1, i64::MIN, 1), (2, i64::MIN, 1)]);
}

#[test]
fn a_window_knows_the_times() {
    #[derive(Clone)]
    struct Times;

    impl ProcessWindowFunction<Row, i64> for Times {
        type Output = (i64, bool);

        fn process(
            &mut self,
            _: &[Row],
            context: &mut WindowContext<'_, i64>,
            out: &mut Collector<(i64, bool)>,
        ) -> Result<()> {
            let Window { end, .. } = context.window();
            out.collect((context.current_watermark(), context.current_processing_time() >= end));
            Ok(())
        }
    }

    let rows = || timed(&row_by_row().from_elements([(1, 5), (1, 25)]), 0).key_by(|row| row.0);
    let over_event_time = rows().window(Tumbling::of(millis(10))).rich_process(Times);
    assert_eq!(over_event_time.collect().unwrap(), [(24, true), (i64::MAX, true)]);
    let soon = rows().window(Tumbling::of(Duration::from_millis(1)).in_processing_time()).rich_process(Times);
    assert!(!soon.collect().unwrap().is_empty());
}

/// Uses states where they are not.
#[derive(Clone)]
struct Misplaced {
    per_window: bool,
    uses_window: bool,
    state: ValueState<i64>,
}

impl ProcessWindowFunction<Row, i64> for Misplaced {
    type Output = i64;

    fn open(&mut self, context: &mut RuntimeContext<'_>) -> Result<()> {
        self.state = match self.per_window {
            true => context.per_window().value_state("mine")?,
            false => context.value_state("mine")?,
        };
        Ok(())
    }

    fn process(&mut self, _: &[Row], context: &mut WindowContext<'_, i64>, _: &mut Collector<i64>) -> Result<()> {
        match self.uses_window {
            true => self.state.set(context.window_state()?, 1),
            false => self.state.set(context.global_state(), 1),
        }
    }
}

#[test]
fn states_are_used_where_they_were_declared() {
    let run = |windows: Windows, per_window, uses_window| {
        let function = Misplaced { per_window, uses_window, state: ValueState::default() };
        let rows = timed(&one().from_elements([(1, 5)]), 0).key_by(|row| row.0);
        rows.window(windows).rich_process(function).collect().map_err(|error| error.to_string())
    };
    let (tumbling, sessions) = (Tumbling::of(millis(10)), Session::with_gap(millis(10)));
    run(tumbling, true, true).unwrap();
    run(tumbling, false, false).unwrap();
    run(sessions, false, false).unwrap();
    for (windows, per_window, uses_window, expected) in [
        (tumbling, true, false, "a state of windows is used as one of keys"),
        (tumbling, false, true, "a state of keys is used as one of windows"),
        (sessions, true, true, "state 'mine' of each window in 'window process', whose windows are sessions"),
        (sessions, false, true, "states of a window in a function of sessions, which have none"),
    ] {
        let error = run(windows, per_window, uses_window).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn the_names_of_states_are_told_apart_whoever_has_them() {
    #[derive(Clone)]
    struct Named(&'static str, &'static str);

    impl ProcessWindowFunction<Row, i64> for Named {
        type Output = i64;

        fn open(&mut self, context: &mut RuntimeContext<'_>) -> Result<()> {
            context.value_state::<i64>(self.0)?;
            context.per_window().value_state::<i64>(self.1).map(drop)
        }

        fn process(&mut self, _: &[Row], _: &mut WindowContext<'_, i64>, _: &mut Collector<i64>) -> Result<()> {
            Ok(())
        }
    }

    let windows = || timed(&one().from_elements([(1, 5)]), 0).key_by(|row| row.0).window(Tumbling::of(millis(10)));
    windows().rich_process(Named("a", "b")).collect().unwrap();
    for (names, taken) in [(("a", "a"), "'a'"), (("a", "panes"), "'panes'"), (("watermark", "b"), "'watermark'")] {
        let error = windows().rich_process(Named(names.0, names.1)).collect().unwrap_err();
        assert!(error.to_string().contains(&format!("there are two states called {taken}")), "{error}");
    }
}

#[test]
fn states_of_windows_need_windows() {
    #[derive(Clone)]
    struct Mapped;

    impl tidemill::stream::RichMapFunction<Row, i64> for Mapped {
        type Output = i64;

        fn open(&mut self, context: &mut RuntimeContext<'_>) -> Result<()> {
            context.per_window().value_state::<i64>("mine").map(drop)
        }

        fn map(&mut self, row: Row, _: &mut tidemill::stream::Context<'_, i64>) -> Result<i64> {
            Ok(row.0)
        }
    }

    let error = one().from_elements([(1, 5)]).key_by(|row| row.0).rich_map(Mapped).collect().unwrap_err();
    assert!(
        error.to_string().contains("state 'mine' of each window in 'map', which is no function of windows"),
        "{error}"
    );
}

/// How often windows have fired when the first attempt fails.
const FAILS_BEHIND: i64 = 800;

/// The first attempt fails after a while; until then it takes its time, so that there are checkpoints.
#[derive(Clone)]
struct FailsOnce {
    firings: Firings,
    total: ValueState<i64>,
    /// The least total of the second attempt.
    least: Arc<AtomicI64>,
    attempt: u32,
}

impl ProcessWindowFunction<Row, i64> for FailsOnce {
    type Output = Seen;

    fn open(&mut self, context: &mut RuntimeContext<'_>) -> Result<()> {
        self.attempt = context.attempt();
        self.total = context.value_state("total")?;
        ProcessWindowFunction::<Row, i64>::open(&mut self.firings, context)
    }

    fn process(&mut self, rows: &[Row], context: &mut WindowContext<'_, i64>, out: &mut Collector<Seen>) -> Result<()> {
        self.total.update(context.global_state(), |total| total.unwrap_or(0) + 1)?;
        let total = self.total.get(context.global_state())?.copied().unwrap_or(0);
        match self.attempt {
            0 if total >= FAILS_BEHIND => return Err(Error::unavailable("the first attempt fails")),
            0 => std::thread::sleep(Duration::from_millis(1)),
            _ => drop(self.least.fetch_min(total, Ordering::SeqCst)),
        }
        self.firings.process(rows, context, out)
    }

    fn clear(&mut self, context: &mut WindowContext<'_, i64>) -> Result<()> {
        ProcessWindowFunction::<Row, i64>::clear(&mut self.firings, context)
    }
}

#[test]
fn windows_and_keys_remember_across_a_failure() {
    // A row twenty milliseconds ahead, then one that comes late: it fires its window again.
    let rows: Vec<Row> = (0..2_000i64).flat_map(|n| [(1, n + 20), (1, n)]).collect();
    let least = Arc::new(AtomicI64::new(i64::MAX));
    let (firings, total) = (Firings::new(true), ValueState::default());
    let function = FailsOnce { firings, total, least: least.clone(), attempt: 0 };
    let environment = restarting(2);
    environment.set("execution.checkpointing.interval", "20 ms").set("execution.batch-rows", "1");
    let late = timed(&environment.from_collection(rows.clone()).set_parallelism(1), 0).set_parallelism(1);
    let windows = late.key_by(|row| row.0).window(Tumbling::of(millis(10))).allowed_lateness(millis(100));
    let mut fired = windows.rich_process(function).collect().unwrap();
    // What the first attempt has shown since its last checkpoint, the second one shows again.
    fired.sort_unstable();
    fired.dedup();
    let (expected, _) = oracle(&rows, (10, 10), 0, 100);
    assert!(expected.iter().any(|(_, _, times)| *times > 10), "late rows fire windows again");
    assert_eq!(fired, expected);
    let least = least.load(Ordering::SeqCst);
    assert!(1 < least && least <= FAILS_BEHIND, "the second attempt goes on from a checkpoint: {least}");
}
