//! Rolling aggregates, groups and windows of counts.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tidemill::stream::{DataStream, Environment};

use super::{Setup, check, one};

type Row = (String, i64, i64);

fn rows() -> Vec<Row> {
    (0..120i64).map(|n| (format!("k{}", n * 7 % 5), (n * 37) % 23, n)).collect()
}

/// What a rolling reduce emits, key by key in order.
fn rolled(rows: &[Row], reduce: impl Fn(Row, Row) -> Row) -> Vec<Row> {
    let mut values: BTreeMap<String, Row> = BTreeMap::new();
    let roll = |row: &Row| {
        let next = match values.remove(&row.0) {
            Some(old) => reduce(old, row.clone()),
            None => row.clone(),
        };
        values.insert(row.0.clone(), next.clone());
        next
    };
    rows.iter().map(roll).collect()
}

/// A keyed program whose input comes from one subtask, so that the order within a key is that of the rows.
fn check_rolled(reduce: impl Fn(Row, Row) -> Row, program: impl Fn(&DataStream<Row>) -> DataStream<Row>) {
    check(rolled(&rows(), reduce), |environment| program(&environment.from_collection(rows())));
}

#[test]
fn a_rolling_aggregate_emits_for_every_record() {
    check_rolled(
        |a, b| (a.0, a.1 + b.1, b.2),
        |rows| rows.key_by(|row| row.0.clone()).reduce(|a, b| (a.0, a.1 + b.1, b.2)),
    );
    check_rolled(|a, b| (a.0, a.1 + b.1, a.2), |rows| rows.key_by(|row| row.0.clone()).sum(|row| &mut row.1));
}

#[test]
fn min_keeps_the_first_record_and_min_by_takes_the_best() {
    let key = |row: &Row| row.0.clone();
    check_rolled(|a, b| (a.0, a.1.min(b.1), a.2), |rows| rows.key_by(key).min(|row| &mut row.1));
    check_rolled(|a, b| (a.0, a.1.max(b.1), a.2), |rows| rows.key_by(key).max(|row| &mut row.1));
    // Ties keep the first, which the third field tells.
    check_rolled(|a, b| if b.1 < a.1 { b } else { a }, |rows| rows.key_by(key).min_by(|row| row.1));
    check_rolled(|a, b| if b.1 > a.1 { b } else { a }, |rows| rows.key_by(key).max_by(|row| row.1));
}

#[test]
fn any_type_can_be_a_key() {
    let expected = rolled(&rows(), |a, b| (a.0, a.1 + b.1, a.2));
    let total: i64 = expected.len() as i64;
    let count = |stream: DataStream<Row>| stream.collect().unwrap().len() as i64;
    let environment = one();
    environment.set_parallelism(2);
    let rows = environment.from_collection(rows());
    assert_eq!(count(rows.key_by(|row| (row.0.clone(), row.1 % 2)).sum(|row| &mut row.1)), total);
    assert_eq!(count(rows.key_by(|row| Some(row.1).filter(|n| n % 2 == 0)).sum(|row| &mut row.1)), total);
    assert_eq!(count(rows.key_by(|row| row.1 as f64).sum(|row| &mut row.1)), total);
    assert_eq!(count(rows.key_by(|row| vec![row.1; 2]).sum(|row| &mut row.1)), total);
    assert_eq!(count(rows.key_by(|row| row.1 % 2 == 0).sum(|row| &mut row.1)), total);
}

#[test]
fn a_group_emits_once_at_the_end() {
    let mut sums: BTreeMap<String, (i64, i64)> = BTreeMap::new();
    for row in rows() {
        let sum = sums.entry(row.0).or_insert((0, row.2));
        sum.0 += row.1;
    }
    let expected = sums.into_iter().map(|(key, (sum, first))| (key, sum, first)).collect();
    check(expected, |environment| {
        environment.from_collection(rows()).group_by(|row| row.0.clone()).sum(|row| &mut row.1)
    });
}

#[test]
fn keyed_streams_may_follow_each_other() {
    // Counts a key's records, then how many records came at each count.
    let mut seen: BTreeMap<String, i64> = BTreeMap::new();
    let mut at: BTreeMap<i64, i64> = BTreeMap::new();
    for row in rows() {
        let count = seen.entry(row.0).or_default();
        *count += 1;
        *at.entry(*count).or_default() += 1;
    }
    check(at.into_iter().collect(), |environment| {
        let counted = environment.from_collection(rows()).map(|row| (row.0, 1i64)).key_by(|row| row.0.clone());
        let counts = counted.sum(|row| &mut row.1).map(|row| (row.1, 1i64));
        counts.group_by(|row| row.0).sum(|row| &mut row.1)
    });
}

/// Every firing of a count window, by definition: after each `slide` rows of a key, the sum of its last `size`.
fn count_windows(rows: &[(i64, i64)], size: usize, slide: usize) -> Vec<(i64, i64)> {
    let mut by_key: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    let mut fired = Vec::new();
    for (key, value) in rows {
        let values = by_key.entry(*key).or_default();
        values.push(*value);
        if values.len().is_multiple_of(slide) {
            fired.push((*key, values[values.len().saturating_sub(size)..].iter().sum()));
        }
    }
    fired.sort();
    fired
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn count_windows_fire_as_defined(rows in prop::collection::vec((0..4i64, -9..9i64), 0..120), size in 1..6usize,
                                     slide in 1..6usize, setup in 0..12usize) {
        let environment: Environment = Setup::grid()[setup].environment();
        let keyed = environment.from_collection(rows.clone()).key_by(|row| row.0);
        let sums = keyed.sliding_count_window(size, slide).reduce(|a, b| (a.0, a.1 + b.1));
        let mut sums = sums.collect().unwrap();
        sums.sort();
        prop_assert_eq!(sums, count_windows(&rows, size, slide));
    }
}

#[test]
fn a_batch_may_complete_many_windows() {
    let numbers = one().generate_sequence(1, 1_000);
    let triples = numbers.count_window_all(3).process(|_, values, out| out.collect(values.to_vec()));
    let triples = triples.collect().unwrap();
    assert_eq!(triples.len(), 333);
    assert_eq!(triples[332], [997, 998, 999]);
}
