//! What evolves and what is refused, column by column.

use std::collections::HashMap;

use arrow::array::{Int32Array, Int64Array, StringArray, UInt32Array};
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};

use super::*;
use crate::state::keyed_schema;

fn field(name: &str, data_type: DataType) -> Field {
    Field::new(name, data_type, true)
}

fn required(name: &str, data_type: DataType) -> Field {
    Field::new(name, data_type, false)
}

fn structs(fields: Vec<Field>) -> DataType {
    DataType::Struct(fields.into())
}

/// An empty state of these columns behind a key `user`.
fn empty(fields: Vec<Field>) -> RecordBatch {
    RecordBatch::new_empty(keyed(fields))
}

fn keyed(fields: Vec<Field>) -> SchemaRef {
    keyed_schema(&Fields::from(vec![field("user", DataType::Utf8)]), &fields.into())
}

fn reason(saved: Vec<Field>, declared: Vec<Field>) -> String {
    let error = adapt("s", &empty(saved), &keyed(declared)).unwrap_err().to_string();
    assert!(error.starts_with("state 's' was saved as (key_group UInt32 NOT NULL, user Utf8"), "{error}");
    assert!(error.contains(") and is declared as (key_group UInt32 NOT NULL, user Utf8"), "{error}");
    let (_, reason) = error.split_once("): ").unwrap();
    reason.split(';').next().unwrap().to_owned()
}

#[test]
fn columns_come_and_go_and_numbers_widen() {
    let saved = keyed(vec![required("n", DataType::Int32), field("old", DataType::Utf8)]);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(UInt32Array::from(vec![3, 4])),
        Arc::new(StringArray::from(vec!["ann", "bob"])),
        Arc::new(Int32Array::from(vec![i32::MIN, 7])),
        Arc::new(StringArray::from(vec!["x", "y"])),
    ];
    let batch = RecordBatch::try_new(saved, columns).unwrap();
    let declared = keyed(vec![field("new", DataType::Float64), field("n", DataType::Int64)]);
    let adapted = adapt("s", &batch, &declared).unwrap();
    assert_eq!(adapted.schema(), declared);
    assert_eq!(adapted.column(2).null_count(), 2);
    let expected: ArrayRef = Arc::new(Int64Array::from(vec![i64::from(i32::MIN), 7]));
    assert_eq!((&adapted.columns()[..2], adapted.column(3)), (&batch.columns()[..2], &expected));
}

#[test]
fn what_is_refused_says_which_column_and_names_both_schemas() {
    let n = |data_type| vec![field("n", data_type)];
    let cases = [
        (n(DataType::Int64), n(DataType::Int32), "column 'n' cannot go from Int64 to Int32"),
        (n(DataType::Int64), n(DataType::Utf8), "column 'n' cannot go from Int64 to Utf8"),
        (n(DataType::Int64), vec![required("n", DataType::Int64)], "column 'n' may hold NULL and is declared NOT NULL"),
        (vec![], vec![required("m", DataType::Int64)], "column 'm' is new and NOT NULL"),
    ];
    for (saved, declared, expected) in cases {
        assert_eq!(reason(saved.clone(), declared.clone()), expected);
        let within = |fields: Vec<Field>| vec![field("rows", DataType::new_list(structs(fields), true))];
        let nested = expected.replacen("column '", "column 'rows.", 1);
        assert_eq!(reason(within(saved), within(declared)), nested);
    }
    let twice = vec![field("n", DataType::Int64), field("n", DataType::Int64)];
    assert_eq!(reason(twice, n(DataType::Int64)), "there were 2 columns 'n' and are 1");
    expect_test::expect![[r#"
        state 'count' was saved as (value Int64 NOT NULL) and is declared as (value Utf8): column 'value' cannot go from Int64 to Utf8; give the new form a name of its own, or change it back"#]]
    .assert_eq(&{
        let saved = RecordBatch::new_empty(Arc::new(Schema::new(vec![required("value", DataType::Int64)])));
        let declared = Arc::new(Schema::new(vec![field("value", DataType::Utf8)]));
        adapt("count", &saved, &declared).unwrap_err().to_string()
    });
}

#[test]
fn keys_stay_as_they_were() {
    let keys = |keys: Vec<Field>, kept: Vec<Field>| keyed_schema(&keys.into(), &kept.into());
    let (a, b) = (field("a", DataType::Int32), field("b", DataType::Int32));
    let saved = RecordBatch::new_empty(keys(vec![a.clone(), b.clone()], vec![]));
    let wider = field("a", DataType::Int64);
    for declared in [
        keys(vec![a.clone()], vec![]),
        keys(vec![b.clone(), a.clone()], vec![]),
        keys(vec![wider, b.clone()], vec![]),
        // The same columns, but `b` is no key any more.
        keys(vec![a.clone()], vec![b.clone()]),
        keys(vec![], vec![a.clone(), b.clone()]),
    ] {
        let error = adapt("s", &saved, &declared).unwrap_err().to_string();
        assert!(error.contains("its key columns must stay as they were"), "{error}");
    }
    let of_no_known_keys = Arc::new(Schema::new(saved.schema().fields().clone()));
    let more = keys(vec![a, b], vec![field("c", DataType::Int32)]);
    assert!(adapt("s", &RecordBatch::new_empty(of_no_known_keys), &more).is_err());
}

#[test]
fn keys_of_maps_lose_nothing() {
    let map = |key: DataType, value: DataType| {
        let entries = structs(vec![required("key", key), field("value", value)]);
        vec![field("entries", DataType::Map(Arc::new(required("entries", entries)), false))]
    };
    let pair = structs(vec![field("a", DataType::Int32), field("b", DataType::Int32)]);
    let one = structs(vec![field("a", DataType::Int32)]);
    let adapts = |saved: Vec<Field>, declared| adapt("s", &empty(saved), &keyed(declared)).is_ok();
    assert!(adapts(map(DataType::Int32, pair.clone()), map(DataType::Int64, one.clone())));
    assert!(adapts(map(one.clone(), one.clone()), map(pair.clone(), one.clone())));
    assert_eq!(reason(map(pair, one.clone()), map(one.clone(), one)), "column 'entries.key.b' of a key is gone");
}

#[test]
fn what_serde_reads_may_lack_what_it_must_have() {
    let user = |fields| evolving(&required("value", structs(fields)), EVOLUTION_SERDE).as_ref().clone();
    let saved = empty(vec![user(vec![field("a", DataType::Int32)])]);
    let declared = keyed(vec![user(vec![required("b", DataType::Utf8), field("a", DataType::Int64)])]);
    let adapted = adapt("s", &saved, &declared).unwrap();
    assert_eq!(adapted.column(2).data_type(), &structs(vec![field("a", DataType::Int64)]));
    let whole = keyed(vec![user(vec![]), evolving(&required("w", DataType::Int32), EVOLUTION_SERDE).as_ref().clone()]);
    assert!(adapt("s", &saved, &whole).is_err(), "a whole column has no default");
}

#[test]
fn what_counts_all_rows_is_not_added_later() {
    let complete = |name, fields| evolving(&field(name, structs(fields)), EVOLUTION_COMPLETE).as_ref().clone();
    let sum = |data_type| complete("sum(x)", vec![field("sum", data_type)]);
    let count = || complete("count(x)", vec![field("count", DataType::Int64)]);
    let adapts = |saved, declared| adapt("s", &empty(saved), &keyed(declared)).is_ok();
    assert!(adapts(vec![sum(DataType::Int32), count()], vec![sum(DataType::Int64)]));
    let new = "column 'count(x)' is new, and the rows before are not in it";
    assert_eq!(reason(vec![sum(DataType::Int32)], vec![sum(DataType::Int32), count()]), new);
    let best = complete("sum(x)", vec![field("best", DataType::Int32)]);
    let gone = "column 'sum(x).sum' of an aggregate is gone";
    assert_eq!(reason(vec![sum(DataType::Int32)], vec![best]), gone);
}

#[test]
fn values_within_lists_structs_and_nulls_stay_where_they_are() {
    let item = |fields| Arc::new(field("item", structs(fields)));
    let rows = StructArray::try_new(
        vec![field("n", DataType::Int32)].into(),
        vec![Arc::new(Int32Array::from(vec![Some(1), None, Some(3)]))],
        Some(NullBuffer::from(vec![true, true, false])),
    );
    let offsets = OffsetBuffer::from_lengths([2, 0, 1]);
    let nulls = NullBuffer::from(vec![true, false, true]);
    let list =
        ListArray::try_new(item(vec![field("n", DataType::Int32)]), offsets, Arc::new(rows.unwrap()), Some(nulls));
    let saved = RecordBatch::try_from_iter([("rows", Arc::new(list.unwrap()) as ArrayRef)]).unwrap();
    let fields = vec![field("m", DataType::Utf8), field("n", DataType::Int64)];
    let declared = Arc::new(Schema::new(vec![field("rows", DataType::List(item(fields)))]));
    // A slice, so that what is not in it is not looked at.
    let adapted = adapt("s", &saved.slice(1, 2), &declared).unwrap();
    let list = adapted.column(0).as_list::<i32>();
    assert!(list.is_null(0) && list.value(1).is_null(0) && list.len() == 2);
    let all = adapt("s", &saved, &declared).unwrap();
    let first = all.column(0).as_list::<i32>().value(0);
    let expected: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None]));
    assert_eq!((first.as_struct().column(0).null_count(), first.as_struct().column(1)), (2, &expected));
}

#[test]
fn variants_are_found_by_name() {
    let union = |variants: &[(i8, Field)]| -> UnionFields {
        variants.iter().map(|(id, field)| (*id, Arc::new(field.clone()))).collect()
    };
    let fields = union(&[(0, required("a", DataType::Int32)), (1, required("b", DataType::Utf8))]);
    let children: Vec<ArrayRef> =
        vec![Arc::new(Int32Array::from(vec![5])), Arc::new(StringArray::from(vec!["x", "y"]))];
    let (ids, offsets) = (ScalarBuffer::from(vec![1, 0, 1]), ScalarBuffer::from(vec![0, 0, 1]));
    let values = UnionArray::try_new(fields, ids, Some(offsets), children).unwrap();
    let saved = RecordBatch::try_new(
        Arc::new(Schema::new(vec![required("v", values.data_type().clone())])),
        vec![Arc::new(values)],
    );
    let declared = |variants: &[(i8, Field)]| {
        let data_type = DataType::Union(union(variants), UnionMode::Dense);
        Arc::new(Schema::new(vec![required("v", data_type)]))
    };
    let more =
        [(0, required("b", DataType::Utf8)), (1, required("c", DataType::Date32)), (2, required("a", DataType::Int64))];
    let saved = saved.unwrap();
    let adapted = adapt("s", &saved, &declared(&more)).unwrap();
    let values = adapted.column(0).as_any().downcast_ref::<UnionArray>().unwrap();
    assert_eq!(values.type_ids().to_vec(), [0, 2, 0]);
    assert_eq!(values.value(1).as_primitive::<arrow::datatypes::Int64Type>().values(), &[5]);
    assert_eq!(values.value(2).as_string::<i32>().value(0), "y");
    let error = adapt("s", &saved, &declared(&more[..2])).unwrap_err().to_string();
    assert!(error.contains("variant 'v.a' is gone"), "{error}");
}

#[test]
fn what_is_no_column_does_not_count() {
    let metadata = HashMap::from([("who".to_owned(), "somebody".to_owned())]);
    let saved = Schema::new_with_metadata(keyed(vec![]).fields().clone(), metadata);
    let declared = keyed(vec![]);
    assert_eq!(adapt("s", &RecordBatch::new_empty(Arc::new(saved)), &declared).unwrap().schema(), declared);
}

/// Of the state itself, not of lists within its values.
#[test]
fn elements_lose_their_times_and_get_none() {
    let item = |data_type| required("item", data_type);
    let list = |element: DataType| required("values", DataType::List(Arc::new(item(element))));
    let timed = |value| structs(vec![required("value", value), required("used_millis", DataType::Int64)]);
    let declared = |field: Field, evolution: &str| evolving(&field, evolution).as_ref().clone();
    let adapts = |saved, new| adapt("s", &empty(vec![saved]), &keyed(vec![new]));
    let (untimed, with_times) = (EVOLUTION_SERDE_ELEMENTS, EVOLUTION_SERDE_TIMED_ELEMENTS);
    let own = structs(vec![field("a", DataType::Int64)]);
    assert!(adapts(list(timed(own.clone())), declared(list(own.clone()), untimed)).is_ok());
    assert!(adapts(list(timed(DataType::Int32)), declared(list(DataType::Int64), untimed)).is_ok());
    let error = adapts(list(own.clone()), declared(list(timed(own.clone())), with_times)).unwrap_err().to_string();
    assert!(error.contains("what is in column 'values' begins to expire"), "{error}");

    // A user may call fields so: such a struct gains fields as any other, and may have had a time of its own.
    let named = structs(vec![
        required("value", DataType::Int64),
        required("used_millis", DataType::Int64),
        field("more", DataType::Utf8),
    ]);
    let item_type = |batch: RecordBatch| match batch.schema().field(2).data_type() {
        DataType::List(item) => item.data_type().clone(),
        other => panic!("{other}"),
    };
    for saved in [timed(DataType::Int64), timed(timed(DataType::Int64))] {
        let adapted = adapts(list(saved), declared(list(named.clone()), untimed)).unwrap();
        assert_eq!(item_type(adapted), named);
    }
    let within = |element| required("value", structs(vec![list(element)]));
    assert!(adapts(within(timed(DataType::Int64)), declared(within(DataType::Int64), EVOLUTION_SERDE)).is_err());
}
