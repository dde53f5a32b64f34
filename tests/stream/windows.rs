//! Windows of event time against a slow oracle that puts each row into each of its windows.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use tidemill::stream::{DataStream, Session, Sliding, Tumbling, Watermarks, Windows};

use super::{Setup, SumOf, check, one};

/// Key, event time, value.
type Row = (i64, i64, i64);
/// Key, start, end, sum of the values.
type Fired = (i64, i64, i64, i64);

#[derive(Clone, Copy, Debug)]
enum Shape {
    Tumbling { size: i64, offset: i64 },
    Sliding { size: i64, slide: i64, offset: i64 },
    Session { gap: i64 },
}

fn millis(value: i64) -> Duration {
    Duration::from_millis(value as u64)
}

impl Shape {
    fn windows(self) -> Windows {
        match self {
            Self::Tumbling { size, offset } => Tumbling::of(millis(size)).with_offset_millis(offset),
            Self::Sliding { size, slide, offset } => {
                Sliding::of(millis(size), millis(slide)).with_offset_millis(offset)
            }
            Self::Session { gap } => Session::with_gap(millis(gap)),
        }
    }

    /// Every window with its rows, found by trying every start.
    fn oracle(self, rows: &[Row]) -> Vec<Fired> {
        let mut windows: BTreeMap<(i64, i64, i64), i64> = BTreeMap::new();
        match self {
            Self::Session { gap } => return sessions(rows, gap),
            Self::Tumbling { size, offset } => return Self::Sliding { size, slide: size, offset }.oracle(rows),
            Self::Sliding { size, slide, offset } => {
                for (key, time, value) in rows {
                    for start in time - size + 1..=*time {
                        if (start - offset).rem_euclid(slide) == 0 {
                            *windows.entry((*key, start, start + size)).or_default() += value;
                        }
                    }
                }
            }
        }
        windows.into_iter().map(|((key, start, end), sum)| (key, start, end, sum)).collect()
    }
}

/// Sorts the rows of a key by time and cuts where the distance is more than the gap.
fn sessions(rows: &[Row], gap: i64) -> Vec<Fired> {
    let mut by_key: BTreeMap<i64, Vec<(i64, i64)>> = BTreeMap::new();
    rows.iter().for_each(|(key, time, value)| by_key.entry(*key).or_default().push((*time, *value)));
    let mut fired: Vec<Fired> = Vec::new();
    for (key, mut times) in by_key {
        times.sort();
        let mut open: Option<Fired> = None;
        for (time, value) in times {
            open = Some(match open {
                Some((_, start, end, sum)) if time <= end => (key, start, time + gap, sum + value),
                other => {
                    fired.extend(other);
                    (key, time, time + gap, value)
                }
            });
        }
        fired.extend(open);
    }
    fired
}

fn any_shape() -> impl Strategy<Value = Shape> {
    prop_oneof![
        (1..40i64, -50..50i64).prop_map(|(size, offset)| Shape::Tumbling { size, offset }),
        (1..40i64, 1..40i64, -50..50i64).prop_map(|(size, slide, offset)| Shape::Sliding { size, slide, offset }),
        (1..15i64).prop_map(|gap| Shape::Session { gap }),
    ]
}

fn value(row: Row) -> i64 {
    row.2
}

fn timed(rows: &DataStream<Row>) -> DataStream<Row> {
    // Nothing is late: what lateness does depends on how rows were cut, and has tests of its own.
    rows.assign_timestamps_and_watermarks(Watermarks::bounded_out_of_orderness(millis(200)), |row| row.1)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_way_to_compute_a_window_gives_the_answer_of_the_oracle(
        rows in prop::collection::vec((0..4i64, -100..100i64, -9..9i64), 0..120),
        shape in any_shape(),
        setup in 0..12usize,
    ) {
        let environment = Setup::grid()[setup].environment();
        let windowed = timed(&environment.from_collection(rows.clone())).key_by(|row| row.0).window(shape.windows());
        let aggregated = windowed.aggregate_with(SumOf(value), |key, window, sum, out| out.collect((*key, window.start, window.end, sum)));
        let processed = windowed.process(|key, window, rows, out| {
            out.collect((*key, window.start, window.end, rows.iter().map(|row| row.2).sum()));
        });
        let reduced = windowed.reduce(|a, b| (a.0, 0, a.2 + b.2));
        let expected = shape.oracle(&rows);
        for stream in [aggregated, processed] {
            let mut fired = stream.collect().unwrap();
            fired.sort();
            prop_assert_eq!(&fired, &expected);
        }
        let mut sums: Vec<(i64, i64)> = reduced.collect().unwrap().into_iter().map(|row| (row.0, row.2)).collect();
        sums.sort();
        let mut expected: Vec<(i64, i64)> = expected.iter().map(|fired| (fired.0, fired.3)).collect();
        expected.sort();
        prop_assert_eq!(sums, expected);
    }
}

fn rows() -> Vec<Row> {
    (0..300i64).map(|n| (n % 7, n * 13 % 190, n % 11)).collect()
}

#[test]
fn windows_over_windows_line_up() {
    // The sums of each key and ten milliseconds, then the greatest of them: both in the same window of time.
    let mut greatest: BTreeMap<i64, i64> = BTreeMap::new();
    for (_, start, _, sum) in (Shape::Tumbling { size: 10, offset: 0 }).oracle(&rows()) {
        let place = greatest.entry(start).or_insert(sum);
        *place = (*place).max(sum);
    }
    let expected: Vec<(i64, i64)> = greatest.into_iter().collect();
    check(expected, |environment| {
        let keyed = timed(&environment.from_collection(rows()).map(|row| row)).key_by(|row| row.0);
        let sums = keyed.window(Tumbling::of(millis(10))).aggregate(SumOf(value));
        sums.window_all(Tumbling::of(millis(10))).process(|_, window, sums, out| {
            out.extend(sums.iter().max().map(|greatest| (window.start, *greatest)));
        })
    });
}

#[test]
fn what_fires_together_fires_in_the_order_of_time_then_key() {
    let fired = timed(&one().from_collection(rows()))
        .key_by(|row| row.0)
        .window(Tumbling::of(millis(100)))
        .process(|key, window, _, out| out.collect((window.end, *key)))
        .collect()
        .unwrap();
    let mut by_time = fired.clone();
    by_time.sort_by_key(|fired| fired.0);
    assert_eq!(fired, by_time);
    let again = timed(&one().from_collection(rows().into_iter().rev()))
        .key_by(|row| row.0)
        .window(Tumbling::of(millis(100)))
        .process(|key, window, _, out| out.collect((window.end, *key)));
    assert_eq!(fired, again.collect().unwrap());
}

#[test]
fn min_and_min_by_in_a_window() {
    let rows = vec![(1i64, 1i64, 5i64), (1, 2, 3), (1, 3, 3), (1, 4, 9)];
    let environment = one();
    let windowed = timed(&environment.from_collection(rows)).key_by(|row| row.0).window(Tumbling::of(millis(10)));
    assert_eq!(windowed.min(|row| &mut row.2).collect().unwrap(), [(1, 1, 3)]);
    assert_eq!(windowed.max(|row| &mut row.2).collect().unwrap(), [(1, 1, 9)]);
    assert_eq!(windowed.min_by(|row| row.2).collect().unwrap(), [(1, 2, 3)]);
    assert_eq!(windowed.max_by(|row| row.2).collect().unwrap(), [(1, 4, 9)]);
}

#[test]
fn a_union_waits_for_the_slower_clock() {
    let expected = (Shape::Tumbling { size: 50, offset: 0 }).oracle(&[rows(), rows()].concat());
    check(expected, |environment| {
        let (left, right) = (environment.from_collection(rows()), environment.from_collection(rows()));
        let all = timed(&left).union(&timed(&right));
        let windowed = all.key_by(|row| row.0).window(Tumbling::of(millis(50)));
        windowed
            .aggregate_with(SumOf(value), |key, window, sum, out| out.collect((*key, window.start, window.end, sum)))
    });
}
