//! Updating aggregates against the obvious way: fold what they emit, compare with the aggregate of the rows that are left.

use std::collections::BTreeMap;

use arrow::array::{AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, Schema};
use datafusion::functions_aggregate::average::avg_udaf;
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::functions_aggregate::min_max::{max_udaf, min_udaf};
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::physical_expr::aggregate::AggregateExprBuilder;
use datafusion::physical_expr::expressions::{cast, col};
use proptest::prelude::*;
use tidemill_core::metrics::Metrics;
use tidemill_core::operator::{Emission, Output};

use super::*;

pub fn input_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, true), Field::new("v", DataType::Int64, true)]))
}

pub fn plan(keys: Vec<usize>) -> GroupAggregate {
    let input_schema = input_schema();
    let aggregate = |udaf, distinct: bool, name: &str| {
        let argument = match name {
            "avg" => cast(col("v", &input_schema).unwrap(), &input_schema, DataType::Float64).unwrap(),
            _ => col("v", &input_schema).unwrap(),
        };
        let builder = AggregateExprBuilder::new(udaf, vec![argument]);
        let function = builder.schema(input_schema.clone()).alias(name).with_distinct(distinct).build().unwrap();
        Aggregate::new(Arc::new(function), None, &input_schema).unwrap()
    };
    let mut fields = vec![Field::new("k", DataType::Int64, true); keys.len()];
    let names = ["count", "sum", "min", "max", "distinct"];
    fields.extend(names.iter().map(|name| Field::new(*name, DataType::Int64, true)));
    fields.push(Field::new("avg", DataType::Float64, true));
    GroupAggregate {
        keys,
        aggregates: vec![
            aggregate(count_udaf(), false, "count"),
            aggregate(sum_udaf(), false, "sum"),
            aggregate(min_udaf(), false, "min"),
            aggregate(max_udaf(), false, "max"),
            aggregate(count_udaf(), true, "distinct"),
            aggregate(avg_udaf(), false, "avg"),
        ],
        input_updates: true,
        ttl: None,
        input_schema,
        schema: Arc::new(Schema::new(fields)),
    }
}

pub type Input = (Option<i64>, Option<i64>);

pub fn batch(rows: &[(Input, bool)]) -> Batch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter(rows.iter().map(|(row, _)| row.0))),
        Arc::new(Int64Array::from_iter(rows.iter().map(|(row, _)| row.1))),
    ];
    let kinds: Vec<u8> = rows.iter().map(|(_, adds)| if *adds { 0 } else { 3 }).collect();
    Batch::changelog(RecordBatch::try_new(input_schema(), columns).unwrap(), kinds.into()).unwrap()
}

/// The table that a changelog describes: rows as text, with their counts; a negative one would be a row taken back twice.
fn fold(table: &mut BTreeMap<String, i64>, batch: &Batch) {
    let columns = batch.records().columns();
    for row in 0..batch.num_rows() {
        let text: Vec<String> = columns
            .iter()
            .map(|column| match column.data_type() {
                _ if column.is_null(row) => "null".to_owned(),
                DataType::Float64 => format!("{:.6}", column.as_primitive::<Float64Type>().value(row)),
                _ => column.as_primitive::<Int64Type>().value(row).to_string(),
            })
            .collect();
        let count = table.entry(text.join(",")).or_default();
        *count += if batch.kind(row).unwrap().is_addition() { 1 } else { -1 };
        assert!(*count >= 0, "{text:?} was taken back before it was given");
    }
    table.retain(|_, count| *count != 0);
}

fn oracle(rows: &[Input], keyed: bool) -> BTreeMap<String, i64> {
    let mut groups: BTreeMap<Option<i64>, Vec<i64>> = BTreeMap::new();
    if !keyed {
        groups.entry(None).or_default();
    }
    for (key, value) in rows {
        groups.entry(if keyed { *key } else { None }).or_default().extend(value.iter());
    }
    let show = |value: Option<i64>| value.map_or("null".to_owned(), |value| value.to_string());
    let result = |(key, values): (Option<i64>, Vec<i64>)| {
        let count = values.len() as f64;
        let distinct: std::collections::BTreeSet<i64> = values.iter().copied().collect();
        let mean = values.iter().sum::<i64>() as f64 / count;
        let mut columns = if keyed { vec![show(key)] } else { vec![] };
        columns.push(values.len().to_string());
        columns.push(show((!values.is_empty()).then(|| values.iter().sum())));
        columns.push(show(distinct.first().copied()));
        columns.push(show(distinct.last().copied()));
        columns.push(distinct.len().to_string());
        columns.push(if values.is_empty() { "null".to_owned() } else { format!("{mean:.6}") });
        (columns.join(","), 1)
    };
    groups.into_iter().map(result).collect()
}

proptest! {
    #[test]
    fn what_is_emitted_folds_to_the_aggregate(steps in prop::collection::vec((prop::option::of(0..3i64), prop::option::of(-3..4i64), any::<bool>(), any::<prop::sample::Index>()), 1..60),
                                              batch_rows in 1..9usize, keyed in any::<bool>()) {
        let mut operator = plan(if keyed { vec![0] } else { vec![] }).create().unwrap();
        operator.open(&crate::operators::test_context(Metrics::default())).unwrap();
        // A change either adds a row or takes back one that is there.
        let mut living: Vec<Input> = vec![];
        let mut changes = vec![];
        for (key, value, takes_back, which) in steps {
            if takes_back && !living.is_empty() {
                changes.push((living.remove(which.index(living.len())), false));
            } else {
                living.push((key, value));
                changes.push(((key, value), true));
            }
        }
        let mut table = BTreeMap::new();
        let mut output = Output::new(usize::MAX);
        for rows in changes.chunks(batch_rows) {
            let _ = operator.process(0, batch(rows), &mut output).unwrap();
        }
        let _ = operator.end_of_input(0, &mut output).unwrap();
        while let Some(Emission::Batch(0, batch)) = output.pop() {
            fold(&mut table, &batch);
        }
        // Zero and minus zero come from rounding alone.
        let clean = |table: BTreeMap<String, i64>| -> BTreeMap<String, i64> {
            table.into_iter().map(|(row, count)| (row.replace("-0.000000", "0.000000"), count)).collect()
        };
        prop_assert_eq!(clean(table), clean(oracle(&living, keyed)));
    }
}

#[test]
fn a_global_aggregate_over_nothing_has_a_row() {
    let mut operator = plan(vec![]).create().unwrap();
    operator.open(&crate::operators::test_context(Metrics::default())).unwrap();
    let mut output = Output::new(usize::MAX);
    let _ = operator.end_of_input(0, &mut output).unwrap();
    let mut table = BTreeMap::new();
    while let Some(Emission::Batch(0, batch)) = output.pop() {
        fold(&mut table, &batch);
    }
    assert_eq!(table, oracle(&[], false));
}

#[test]
fn an_update_is_two_adjacent_rows() {
    let mut operator = plan(vec![0]).create().unwrap();
    operator.open(&crate::operators::test_context(Metrics::default())).unwrap();
    let mut output = Output::new(usize::MAX);
    for value in [1, 2] {
        let _ = operator.process(0, batch(&[((Some(1), Some(value)), true)]), &mut output).unwrap();
    }
    let kinds = |emission| match emission {
        Some(Emission::Batch(0, batch)) => (0..batch.num_rows()).map(|row| batch.kind(row).unwrap().symbol()).collect(),
        _ => vec![],
    };
    assert_eq!(kinds(output.pop()), ["+I"]);
    assert_eq!(kinds(output.pop()), ["-U", "+U"]);
}

#[test]
fn a_function_that_cannot_take_rows_back_says_so() {
    let mut plan = plan(vec![0]);
    let argument = cast(col("v", &plan.input_schema).unwrap(), &plan.input_schema, DataType::Float64).unwrap();
    let udaf = datafusion::functions_aggregate::stddev::stddev_udaf();
    let function = AggregateExprBuilder::new(udaf, vec![argument]).schema(plan.input_schema.clone()).alias("s").build();
    plan.aggregates = vec![Aggregate::new(Arc::new(function.unwrap()), None, &plan.input_schema).unwrap()];
    assert!(plan.check().unwrap_err().to_string().contains("cannot take back rows"));
    plan.input_updates = false;
    plan.check().unwrap();
}

#[test]
fn groups_that_are_appended_are_those_that_would_be_decoded() {
    let plan = plan(vec![0]);
    let aggregates = &plan.aggregates;
    let rows: Vec<(Input, bool)> = (0..300).map(|n| ((Some(0), (n % 7 != 0).then_some(n * n % 31)), true)).collect();
    let (batch, slots) = (batch(&rows), (0..300).map(|n| n * n % 37).collect::<Vec<usize>>());
    let arguments: Vec<_> = aggregates.iter().map(|aggregate| aggregate.arguments(batch.records()).unwrap()).collect();
    let mut groups = GroupColumn::new(aggregates, true).unwrap();
    groups.resize(37);
    groups.update(&Changes { slots: &slots, additions: None }, &arguments).unwrap();
    let all: Vec<usize> = (0..37).collect();
    let encoded = groups.encode(&all).unwrap();
    let part = |begin: usize, rows: usize| encoded.iter().map(|column| column.slice(begin, rows)).collect::<Vec<_>>();

    let mut appended = GroupColumn::new(aggregates, true).unwrap();
    appended.append(0..20, &part(0, 20)).unwrap();
    // Three slots of other keys, of which this column was not told.
    appended.append(23..40, &part(20, 17)).unwrap();
    assert!((20..23).all(|slot| appended.is_vacant(slot)));
    let places: Vec<usize> = (0..20).chain(23..40).collect();
    assert_eq!(appended.encode(&places).unwrap(), encoded);
    assert_eq!(appended.evaluate(&places).unwrap(), groups.evaluate(&all).unwrap());
    let error = appended.append(40..42, &part(0, 3)).unwrap_err();
    assert_eq!(error.message(), "3 values for 2 slots");
}
