//! Windows on slices against the obvious way: every row into every window, evaluated once the watermark is past it.

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray, Int64Array, TimestampMillisecondArray};
use arrow::datatypes::{Field, Int64Type, Schema, TimeUnit, TimestampMillisecondType};
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::physical_expr::aggregate::AggregateExprBuilder;
use datafusion::physical_expr::expressions::col;
use proptest::prelude::*;
use tidemill_core::operator::Emission;
use tidemill_core::time::Calendar;
use tidemill_core::window::WindowKind;

use super::*;

fn input_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("k", DataType::Int64, true),
        Field::new("ts", DataType::Timestamp(TimeUnit::Millisecond, None), false),
        Field::new("v", DataType::Int64, true),
    ]))
}

pub fn plan(spec: WindowSpec) -> WindowAggregate {
    let input_schema = input_schema();
    let aggregate = |udaf, name: &str| {
        let builder = AggregateExprBuilder::new(udaf, vec![col("v", &input_schema).unwrap()]);
        let function = builder.schema(input_schema.clone()).alias(name).build().unwrap();
        Aggregate::new(Arc::new(function), None, &input_schema).unwrap()
    };
    let time_type = DataType::Timestamp(TimeUnit::Millisecond, None);
    WindowAggregate {
        time: TimeColumn { index: 1, name: "ts".into(), unit: TimeUnit::Millisecond, calendar: Calendar::Utc },
        spec,
        keys: vec![0],
        aggregates: vec![aggregate(count_udaf(), "count"), aggregate(sum_udaf(), "sum")],
        group_columns: vec![GroupColumn::Key(0), GroupColumn::WindowStart, GroupColumn::WindowEnd],
        schema: Arc::new(Schema::new(vec![
            Field::new("k", DataType::Int64, true),
            Field::new("window_start", time_type.clone(), false),
            Field::new("window_end", time_type, false),
            Field::new("count", DataType::Int64, false),
            Field::new("sum", DataType::Int64, true),
        ])),
        input_schema,
    }
}

type Row = (Option<i64>, i64, Option<i64>);
type WindowKey = (i64, i64, Option<i64>);
/// A window of a key with its count and sum.
type Counted = (WindowKey, (i64, Option<i64>));

fn batch(rows: &[Row]) -> Batch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter(rows.iter().map(|row| row.0))),
        Arc::new(TimestampMillisecondArray::from_iter_values(rows.iter().map(|row| row.1))),
        Arc::new(Int64Array::from_iter(rows.iter().map(|row| row.2))),
    ];
    Batch::append(RecordBatch::try_new(input_schema(), columns).unwrap())
}

/// Counts and sums by (end, start, key), in the order in which they were emitted, and how many rows were late.
fn run(spec: WindowSpec, steps: &[(Vec<Row>, i64)], output_bytes: usize) -> (Vec<Counted>, u64) {
    let mut operator = plan(spec).create().unwrap();
    let late = tidemill_core::metrics::Metrics::default();
    let mut seen = vec![];
    let mut output = Output::new(output_bytes);
    let mut drain = |output: &mut Output| {
        while let Some(emission) = output.pop() {
            let Emission::Batch(0, batch) = emission else { continue };
            let records = batch.records();
            let ints = |column: usize| records.column(column).as_primitive::<Int64Type>();
            let times = |column: usize| records.column(column).as_primitive::<TimestampMillisecondType>();
            for row in 0..records.num_rows() {
                let value = |column: usize| (!ints(column).is_null(row)).then(|| ints(column).value(row));
                seen.push(((times(2).value(row), times(1).value(row), value(0)), (ints(3).value(row), value(4))));
            }
        }
    };
    operator.open(&crate::operators::test_context(late.clone())).unwrap();
    for (rows, watermark) in steps {
        let mut progress = operator.process(0, batch(rows), &mut output).unwrap();
        assert_eq!(progress, Progress::Done);
        progress = operator.advance(Watermark(*watermark), &mut output).unwrap();
        while progress == Progress::Full {
            drain(&mut output);
            progress = operator.resume(&mut output).unwrap();
        }
        drain(&mut output);
    }
    (seen, late.counter(LATE_RECORDS_DROPPED).get())
}

fn oracle(spec: WindowSpec, steps: &[(Vec<Row>, i64)]) -> (BTreeMap<WindowKey, (i64, Option<i64>)>, u64) {
    let mut groups: BTreeMap<WindowKey, (i64, Option<i64>)> = BTreeMap::new();
    let (mut watermark, mut late) = (i64::MIN, 0);
    for (rows, next) in steps {
        for (key, time, value) in rows {
            let windows: Vec<Window> = spec.windows_of_slice(spec.slice_start(*time).unwrap()).unwrap().collect();
            late += u64::from(!windows.is_empty() && windows.iter().all(|window| window.end - 1 <= watermark));
            for window in windows.into_iter().filter(|window| window.end - 1 > watermark) {
                let group = groups.entry((window.end, window.start, *key)).or_insert((0, None));
                group.0 += i64::from(value.is_some());
                group.1 = match (group.1, value) {
                    (Some(sum), Some(value)) => Some(sum + value),
                    (sum, value) => sum.or(*value),
                };
            }
        }
        watermark = watermark.max(*next);
    }
    (groups, late)
}

fn any_steps() -> impl Strategy<Value = Vec<(Vec<Row>, i64)>> {
    let row = (prop::option::of(0..4i64), -40..100i64, prop::option::of(-9..9i64));
    let step = (prop::collection::vec(row, 1..30), 0..40i64);
    prop::collection::vec(step, 1..6).prop_map(|steps| {
        let mut watermark = -30;
        let advance = |(rows, by): (Vec<Row>, i64)| {
            watermark += by;
            (rows, watermark)
        };
        let mut steps: Vec<_> = steps.into_iter().map(advance).collect();
        steps.push((vec![(None, 1_000, None)], i64::MAX));
        steps
    })
}

proptest! {
    #[test]
    fn slices_agree_with_the_definition(steps in any_steps(), size in 1..12i64, slide in 1..12i64, kind in 0..3, offset in -5..5i64,
                                        output_bytes in prop_oneof![Just(1usize), Just(1 << 20)]) {
        let kind = match kind {
            0 => WindowKind::Tumble { size },
            1 => WindowKind::Hop { size, slide },
            _ => WindowKind::Cumulate { max: size * 3, step: size },
        };
        let spec = WindowSpec::new(kind, offset).unwrap();
        let (seen, late) = run(spec, &steps, output_bytes);
        let (expected, expected_late) = oracle(spec, &steps);
        let ends: Vec<i64> = seen.iter().map(|((end, ..), _)| *end).collect();
        prop_assert!(ends.is_sorted() , "windows fire in the order of their ends");
        let seen_count = seen.len();
        let seen: BTreeMap<_, _> = seen.into_iter().collect();
        prop_assert_eq!(seen_count, seen.len(), "no window fires twice");
        prop_assert_eq!(seen, expected);
        prop_assert_eq!(late, expected_late);
    }
}

#[test]
fn a_key_without_values_has_no_sum_whatever_else_its_slice_has() {
    let spec = WindowSpec::new(WindowKind::Cumulate { max: 12, step: 4 }, 0).unwrap();
    let steps = [
        (vec![(Some(0), 0, None)], 4),
        // In a part with a place for every key, the first one has had nothing so far.
        (vec![(None, 0, Some(0))], 4),
        (vec![(Some(0), 0, None)], 4),
        (vec![(None, 1_000, None)], i64::MAX),
    ];
    let (seen, _) = run(spec, &steps, 1 << 20);
    assert_eq!(seen.into_iter().collect::<BTreeMap<_, _>>(), oracle(spec, &steps).0);
}

#[test]
fn a_row_without_time_is_named() {
    let schema = Arc::new(Schema::new(vec![
        Field::new("k", DataType::Int64, true),
        Field::new("ts", DataType::Timestamp(TimeUnit::Millisecond, None), true),
        Field::new("v", DataType::Int64, true),
    ]));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![1])),
        Arc::new(TimestampMillisecondArray::from(vec![None])),
        Arc::new(Int64Array::from(vec![1])),
    ];
    let batch = Batch::append(RecordBatch::try_new(schema, columns).unwrap());
    let mut operator = plan(WindowSpec::new(WindowKind::Tumble { size: 10 }, 0).unwrap()).create().unwrap();
    let error = operator.process(0, batch, &mut Output::new(1)).unwrap_err();
    assert!(error.to_string().contains("'ts'"), "{error}");
}
