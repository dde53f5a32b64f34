//! The same seed makes the same rows however many subtasks make them, and options mean what the table says.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit, TimestampMillisecondType};
use proptest::prelude::*;
use tidemill_core::source::{Boundedness, Source, SourceEvent, SplitAssignment, SplitEnumerator};

use super::*;
use crate::conformance::{check_source, read_all, source_context};

fn schema(fields: &[(&str, DataType)]) -> SchemaRef {
    Arc::new(Schema::new(fields.iter().map(|(name, kind)| Field::new(*name, kind.clone(), true)).collect::<Vec<_>>()))
}

fn open(schema: &SchemaRef, options: &[(&str, &str)]) -> Result<Arc<dyn Source>> {
    let connector = ("connector", "datagen");
    let options = Options::new(options.iter().copied().chain([connector]));
    crate::registry::source(options, schema.clone(), &TableContext::new("test"))
}

fn every_type() -> SchemaRef {
    schema(&[
        ("a", DataType::Int64),
        ("b", DataType::Int32),
        ("c", DataType::Float64),
        ("d", DataType::Utf8),
        ("e", DataType::Boolean),
        ("f", DataType::Decimal128(10, 2)),
        ("g", DataType::Binary),
        ("h", DataType::Timestamp(TimeUnit::Millisecond, None)),
        ("i", DataType::Date32),
        ("j", DataType::Utf8View),
        ("k", DataType::Time64(TimeUnit::Microsecond)),
    ])
}

fn collect(source: &dyn Source, parallelism: usize) -> RecordBatch {
    let delivered = futures::executor::block_on(read_all(source, &source_context(parallelism, 1_000))).unwrap();
    concat_batches(&source.schema(), &delivered.batches).unwrap()
}

#[test]
fn keeps_the_laws_of_sources() {
    let options = [
        ("number-of-rows", "3000"),
        ("fields.a.null-rate", "0.3"),
        ("fields.d.length", "5"),
        ("fields.h.kind", "sequence"),
        ("fields.h.start", "2026-01-01T00:00:00"),
    ];
    let source = open(&every_type(), &options).unwrap();
    futures::executor::block_on(check_source(&*source)).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]

    #[test]
    fn rows_do_not_depend_on_parallelism(seed in any::<u64>(), parallelism in 1usize..5) {
        let seed = seed.to_string();
        let options = [("number-of-rows", "200000"), ("seed", &seed), ("fields.n.min", "0"), ("fields.n.max", "999")];
        let source = open(&schema(&[("n", DataType::Int64), ("s", DataType::Int32)]), &options).unwrap();
        let sums = |batch: &RecordBatch| {
            let columns = [batch.column(0).as_primitive::<Int64Type>().values().iter().sum::<i64>()];
            (batch.num_rows(), columns)
        };
        prop_assert_eq!(sums(&collect(&*source, parallelism)), sums(&collect(&*source, 1)));
    }
}

#[test]
fn seeds_and_columns_differ() {
    let columns = schema(&[("n", DataType::Int64), ("m", DataType::Int64)]);
    let of_seed = |seed: &str| collect(&*open(&columns, &[("number-of-rows", "100"), ("seed", seed)]).unwrap(), 1);
    assert_eq!(of_seed("7"), of_seed("7"));
    assert_ne!(of_seed("7"), of_seed("8"));
    let batch = of_seed("7");
    assert_ne!(batch.column(0), batch.column(1));
}

#[test]
fn ranges_are_inclusive_and_nulls_have_their_share() {
    let options = [
        ("number-of-rows", "20000"),
        ("fields.n.min", "-2"),
        ("fields.n.max", "2"),
        ("fields.n.null-rate", "0.25"),
        ("fields.s.length", "7"),
    ];
    let batch = collect(&*open(&schema(&[("n", DataType::Int64), ("s", DataType::Utf8)]), &options).unwrap(), 1);
    let numbers = batch.column(0).as_primitive::<Int64Type>();
    let distinct: std::collections::BTreeSet<i64> = numbers.iter().flatten().collect();
    assert_eq!(distinct.into_iter().collect::<Vec<_>>(), [-2, -1, 0, 1, 2]);
    assert!((4_500..5_500).contains(&numbers.null_count()), "{}", numbers.null_count());
    assert!(batch.column(1).as_string::<i32>().iter().flatten().all(|text| text.len() == 7));
}

#[test]
fn long_values_have_a_maximum_and_small_batches() {
    let columns = schema(&[("s", DataType::Utf8)]);
    let open = |length: &str| open(&columns, &[("number-of-rows", "100"), ("fields.s.length", length)]);
    for length in ["1048577", "1000000000"] {
        assert_eq!(
            open(length).unwrap_err().to_string(),
            format!("option 'fields.s.length' is '{length}'; expected a length of at most 1048576")
        );
    }
    let source = open("1048576").unwrap();
    let delivered = futures::executor::block_on(read_all(&*source, &source_context(1, 8_192))).unwrap();
    let rows: Vec<usize> = delivered.batches.iter().map(RecordBatch::num_rows).collect();
    assert_eq!(rows, [32, 32, 32, 4]);
}

#[test]
fn sequences_end_the_table() {
    let options = [
        ("fields.n.kind", "sequence"),
        ("fields.n.start", "5"),
        ("fields.n.end", "9"),
        ("fields.t.kind", "sequence"),
        ("fields.t.start", "1970-01-01T00:00:01"),
        ("fields.t.step", "2 s"),
    ];
    let columns = schema(&[("n", DataType::Int64), ("t", DataType::Timestamp(TimeUnit::Millisecond, None))]);
    let source = open(&columns, &options).unwrap();
    assert_eq!(source.boundedness(), Boundedness::Bounded);
    let batch = collect(&*source, 1);
    assert_eq!(batch.column(0).as_primitive::<Int64Type>().values(), &[5, 6, 7, 8, 9]);
    let times = batch.column(1).as_primitive::<TimestampMillisecondType>();
    assert_eq!(times.values(), &[1_000, 3_000, 5_000, 7_000, 9_000]);
}

#[test]
fn a_rate_is_kept() {
    let columns = schema(&[("n", DataType::Int64)]);
    let source = open(&columns, &[("rows-per-second", "500"), ("number-of-rows", "1000")]).unwrap();
    let context = source_context(1, 8_192);
    let delivered = futures::executor::block_on(read_all(&*source, &context)).unwrap();
    assert_eq!(delivered.sorted_rows().len(), 1_000);
    let seconds = context.clock.monotonic().as_secs_f64();
    assert!((1.9..2.1).contains(&seconds), "{seconds}");
}

#[test]
fn splits_that_come_back_are_read_in_the_order_of_their_rows() {
    let source =
        open(&schema(&[("n", DataType::Int64)]), &[("rows-per-second", "100"), ("number-of-rows", "100")]).unwrap();
    futures::executor::block_on(async {
        let mut enumerator = source.enumerator(&source_context(2, 8_192)).unwrap();
        let next = async |enumerator: &mut Box<dyn SplitEnumerator>| match enumerator.next_split(0).await.unwrap() {
            SplitAssignment::Split(split) => split,
            other => panic!("{other:?}"),
        };
        let (first, second) = (next(&mut enumerator).await, next(&mut enumerator).await);
        assert_eq!([&*first.id, &*second.id], ["0-10", "10-20"]);
        let left = enumerator.snapshot(1).unwrap();
        // As after a restore with one reader, to which the subtask that was further comes first.
        let mut enumerator = source.enumerator(&source_context(1, 8_192)).unwrap();
        enumerator.restore(&left).unwrap();
        enumerator.add_back(first.clone());
        enumerator.add_back(second.clone());
        let again = [next(&mut enumerator).await, next(&mut enumerator).await, next(&mut enumerator).await];
        assert_eq!(again.map(|split| split.id), [first.id, second.id, "20-30".into()]);
    });
}

#[test]
fn without_an_end_it_never_ends() {
    let source = open(&schema(&[("n", DataType::Int64)]), &[("rows-per-second", "1000000")]).unwrap();
    assert_eq!(source.boundedness(), Boundedness::Unbounded);
    futures::executor::block_on(async {
        let context = source_context(1, 1_000);
        let SplitAssignment::Split(split) = source.enumerator(&context).unwrap().next_split(0).await.unwrap() else {
            panic!("a split")
        };
        let mut reader = source.reader(&context).unwrap();
        // Splits that never end are read together, so a reader asks until it has all of its own.
        assert!(matches!(reader.next().await.unwrap(), SourceEvent::NeedsSplit));
        reader.add_splits(vec![split]).await.unwrap();
        reader.no_more_splits();
        for _ in 0..50 {
            assert!(matches!(reader.next().await.unwrap(), SourceEvent::Batch { .. }));
        }
    });
}

#[test]
fn bad_options_are_named() {
    let columns = schema(&[("n", DataType::Int64), ("b", DataType::Int8)]);
    let error = |options: &[(&str, &str)]| open(&columns, options).unwrap_err().to_string();
    assert_eq!(
        error(&[("fields.n.kid", "random")]),
        "unknown option 'fields.n.kid' of connector 'datagen'; did you mean 'fields.n.kind'?"
    );
    assert_eq!(error(&[("fields.b.max", "300")]), "option 'fields.b.max' is '300'; expected a number from -128 to 127");
    assert_eq!(error(&[("rows-per-second", "0")]), "option 'rows-per-second' is '0'; expected a number above 0");
    assert_eq!(error(&[("fields.n.kind", "sequence")]), "datagen needs option 'fields.n.start'");
    assert!(error(&[("fields.n.min", "5"), ("fields.n.max", "4")]).starts_with("option 'fields.n.min' is '5'"));
}
