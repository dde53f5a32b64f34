//! The laws of accumulators, for every kind that there is.

use std::fmt::Debug;
use std::sync::Arc;

use proptest::prelude::*;

use super::accumulator::AccumulatorCell;
use super::values::{decode, encode};
use super::*;
use crate::error::ErrorKind;

/// However inputs are dealt to parts and parts are merged, and also when they were bytes on the way, the value is that of one
/// accumulator that got everything.
fn check<A: Accumulator>(inputs: &[A::Input], parts: usize)
where
    A::Input: Clone,
    A::Output: PartialEq + Debug,
{
    let mut whole = A::default();
    inputs.iter().for_each(|input| whole.add(input.clone()));
    let mut dealt = vec![A::default(); parts];
    inputs.iter().enumerate().for_each(|(place, input)| dealt[place % parts].add(input.clone()));

    let kind = AccumulatorKind::of::<A>();
    let partials: Vec<Partial> = dealt.iter().map(|part| encode(part).unwrap()).collect();
    let merged = kind.merge(&partials).unwrap();
    assert_eq!(decode::<A>(&merged).unwrap().value(), whole.value());
    let (left, right) = partials.split_at(parts / 2);
    let halves = [kind.merge(right).unwrap(), kind.merge(left).unwrap()];
    assert_eq!(decode::<A>(&kind.merge(&halves).unwrap()).unwrap().value(), whole.value());
    assert_eq!(kind.show(&merged).unwrap(), serde_json::to_value(whole.value()).unwrap());
    assert_eq!(merged.kind(), A::kind());
}

proptest! {
    #[test]
    fn parts_merge_in_any_order(numbers in prop::collection::vec(-1_000i32..1_000, 0..40), parts in 1..6usize) {
        let longs: Vec<i64> = numbers.iter().map(|n| i64::from(*n) << 40).collect();
        // Multiples of a quarter, whose sums are exact in any order.
        let doubles: Vec<f64> = numbers.iter().map(|n| f64::from(*n) / 4.0).collect();
        check::<IntCounter>(&numbers, parts);
        check::<IntMinimum>(&numbers, parts);
        check::<IntMaximum>(&numbers, parts);
        check::<LongCounter>(&longs, parts);
        check::<LongMinimum>(&longs, parts);
        check::<LongMaximum>(&longs, parts);
        check::<DoubleCounter>(&doubles, parts);
        check::<DoubleMinimum>(&doubles, parts);
        check::<DoubleMaximum>(&doubles, parts);
        check::<Average>(&doubles, parts);
        check::<Histogram>(&longs, parts);
    }

    #[test]
    fn a_list_has_everything_once(numbers in prop::collection::vec(any::<(i64, Option<String>)>(), 0..40), parts in 1..6usize) {
        let mut dealt = vec![ListAccumulator::default(); parts];
        numbers.iter().enumerate().for_each(|(place, number)| dealt[place % parts].add(number.clone()));
        let partials: Vec<Partial> = dealt.iter().map(|part| encode(part).unwrap()).collect();
        let merged = AccumulatorKind::of::<ListAccumulator<(i64, Option<String>)>>().merge(&partials).unwrap();
        let mut all = decode::<ListAccumulator<(i64, Option<String>)>>(&merged).unwrap().value();
        let mut expected = numbers;
        all.sort();
        expected.sort();
        prop_assert_eq!(all, expected);
    }
}

#[test]
fn what_is_no_number_for_others_is_one_here() {
    let mut sum = DoubleCounter::default();
    sum.add(f64::INFINITY);
    assert_eq!(decode::<DoubleCounter>(&encode(&sum).unwrap()).unwrap().value(), f64::INFINITY);
    sum.add(f64::NEG_INFINITY);
    assert!(decode::<DoubleCounter>(&encode(&sum).unwrap()).unwrap().value().is_nan());
    let mut count = LongCounter::default();
    [i64::MAX, 1].into_iter().for_each(|n| count.add(n));
    assert_eq!(count.value(), i64::MAX);
}

#[test]
fn cells_are_merged_by_name() {
    let context = [SharedContext::default(), SharedContext::default()];
    let cell = |of: &SharedContext, name: &str, n: i64| {
        let handle = AccumulatorRef::<LongCounter>::register(&*of.accumulators, name).unwrap();
        handle.add(n).unwrap();
        let other: Arc<dyn AccumulatorCell> = of.accumulators.register(name, handle.cell.clone().unwrap()).unwrap();
        other
    };
    let cells = [("a", cell(&context[0], "a", 1)), ("b", cell(&context[0], "b", 2)), ("a", cell(&context[1], "a", 3))];
    let values = AccumulatorValues::merge(cells.iter().map(|(name, cell)| (Arc::from(*name), &**cell)));
    assert_eq!((values.get::<LongCounter>("a").unwrap(), values.get::<LongCounter>("b").unwrap()), (4, 2));
    assert_eq!(values.names().collect::<Vec<_>>(), ["a", "b"]);
    let error = values.get::<Histogram>("a").unwrap_err();
    assert!(error.message().contains("accumulator 'a' is both 'long counter' and 'histogram'"), "{error}");
}

#[test]
fn a_histogram_occupies_what_its_entries_do() {
    let mut histogram = Histogram::default();
    (0..2_000).for_each(|n| histogram.add(n % 1_000));
    assert!((16_000..100_000).contains(&histogram.memory_bytes()), "{}", histogram.memory_bytes());
}

#[test]
fn a_list_occupies_what_its_values_do() {
    let mut list = ListAccumulator::default();
    (0..100).for_each(|_| list.add("x".repeat(10_000)));
    assert!((1_000_000..1_100_000).contains(&list.memory_bytes()), "{}", list.memory_bytes());
    let before = list.memory_bytes();
    list.merge(list.clone());
    assert!(list.memory_bytes() > before + 1_000_000, "{}", list.memory_bytes());
    // Bytes on the way are those of its values alone.
    let partial = encode(&list).unwrap();
    assert_eq!(decode::<ListAccumulator<String>>(&partial).unwrap(), list);
}

#[test]
fn what_lies_in_a_list_itself_counts_once() {
    let mut list = ListAccumulator::default();
    (0..100_000).for_each(|n| list.add(i64::MAX - n));
    assert!((800_000..1_100_000).contains(&list.memory_bytes()), "{}", list.memory_bytes());
}

#[test]
fn a_list_that_is_too_large_is_an_error_with_its_name() {
    let context = SharedContext::default();
    let list = AccumulatorRef::<ListAccumulator<String>>::register(&*context.accumulators, "words").unwrap();
    let megabyte = "x".repeat(1 << 20);
    let error = (0..70).find_map(|_| list.add(megabyte.clone()).err()).unwrap();
    // Final: a restart would only bring it about again.
    assert_eq!(error.kind(), ErrorKind::Request);
    assert!(error.message().contains("accumulator 'words' occupies more than 64 MB in one subtask"), "{error}");
    assert_eq!(list.local_value().unwrap().len(), super::kinds::LIST_BYTES_MAX >> 20);
}
