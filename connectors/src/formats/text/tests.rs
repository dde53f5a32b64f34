//! The text form of every type, in every style.

use std::sync::Arc;

use arrow::array::{
    BinaryArray, Date32Array, Decimal128Array, Float64Array, Int64Array, ListArray, StringArray, StructArray,
    TimestampMicrosecondArray, TimestampMillisecondArray,
};
use arrow::datatypes::{Field, Int32Type};

use super::*;

fn both(column: &dyn Array, row: usize) -> (String, String) {
    let plain = format_value(column, row, TextStyle::SHOWN).unwrap();
    (plain, format_value(column, row, TextStyle::JSON).unwrap())
}

fn pair(plain: &str, json: &str) -> (String, String) {
    (plain.to_owned(), json.to_owned())
}

#[test]
fn scalars() {
    let floats = Float64Array::from(vec![Some(1.0), Some(f64::NAN), Some(f64::NEG_INFINITY), None]);
    assert_eq!(both(&floats, 0), pair("1.0", "1.0"));
    assert_eq!(both(&floats, 1), pair("NaN", "\"NaN\""));
    assert_eq!(both(&floats, 2), pair("-Infinity", "\"-Infinity\""));
    assert_eq!(both(&floats, 3), pair("NULL", "null"));
    let decimals = Decimal128Array::from(vec![-1_050]).with_precision_and_scale(10, 2).unwrap();
    assert_eq!(both(&decimals, 0), pair("-10.50", "\"-10.50\""));
    let bytes = BinaryArray::from_vec(vec![b"tide"]);
    assert_eq!(both(&bytes, 0), pair("dGlkZQ==", "\"dGlkZQ==\""));
    let strings = StringArray::from(vec!["say \"hi\"\n\u{1}é"]);
    assert_eq!(both(&strings, 0), pair("say \"hi\"\n\u{1}é", "\"say \\\"hi\\\"\\n\\u0001é\""));
}

#[test]
fn times() {
    assert_eq!(both(&Date32Array::from(vec![20_778]), 0), pair("2026-11-21", "\"2026-11-21\""));
    let local = TimestampMillisecondArray::from(vec![0, -1, 1_500]);
    assert_eq!(both(&local, 0).0, "1970-01-01T00:00:00");
    assert_eq!(both(&local, 1).0, "1969-12-31T23:59:59.999");
    assert_eq!(both(&local, 2).0, "1970-01-01T00:00:01.500");
    let instant = TimestampMicrosecondArray::from(vec![1_000_001]).with_timezone("UTC");
    assert_eq!(both(&instant, 0).0, "1970-01-01T00:00:01.000001Z");
    let berlin = TextStyle::SHOWN.in_zone(Calendar::parse("Europe/Berlin").unwrap());
    assert_eq!(format_value(&instant, 0, berlin).unwrap(), "1970-01-01T01:00:01.000001+01:00");
}

#[test]
fn nested_values_are_json() {
    let list = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None]), Some(vec![])]);
    assert_eq!(both(&list, 0), pair("[1,null]", "[1,null]"));
    assert_eq!(both(&list, 1), pair("[]", "[]"));
    let row = StructArray::from(vec![
        (Arc::new(Field::new("n", DataType::Int64, true)), Arc::new(Int64Array::from(vec![7])) as ArrayRef),
        (Arc::new(Field::new("s", DataType::Utf8, true)), Arc::new(StringArray::from(vec!["x"])) as ArrayRef),
    ]);
    assert_eq!(both(&row, 0).0, "{\"n\":7,\"s\":\"x\"}");
}

#[test]
fn null_without_a_type_is_null() {
    let nulls = arrow::array::NullArray::new(2);
    assert_eq!(both(&nulls, 1), pair("NULL", "null"));
    let offsets = arrow::buffer::OffsetBuffer::from_lengths([2]);
    let field = Arc::new(Field::new("item", DataType::Null, true));
    let list = ListArray::new(field, offsets, Arc::new(nulls), None);
    assert_eq!(both(&list, 0), pair("[null,null]", "[null,null]"));
}
