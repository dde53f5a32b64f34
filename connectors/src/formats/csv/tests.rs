//! What is written is read back, whatever the dialect; what cannot be read is named by line and column.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit, TimestampMillisecondType};
use expect_test::{Expect, expect};
use proptest::prelude::*;
use tidemill_core::metrics::Counter;

use super::*;
use crate::conformance::rows_as_text;
use crate::formats::rows::Rows;
use crate::formats::{Encoder, ReadOptions, RowDecoder, RowError, RowText};

fn schema(types: &[DataType]) -> SchemaRef {
    let field = |(at, kind): (usize, &DataType)| Field::new(format!("c{at}"), kind.clone(), true);
    Arc::new(Schema::new(types.iter().enumerate().map(field).collect::<Vec<_>>()))
}

fn options(schema: &SchemaRef) -> ReadOptions {
    ReadOptions { schema: schema.clone(), projection: None, batch_rows: 8_192, skipped: Counter::default() }
}

fn text(bytes: &[u8]) -> RowText<'_> {
    RowText { bytes, rows_max: usize::MAX, starts_before: usize::MAX, is_last: true }
}

fn decode(csv: &CsvOptions, schema: &SchemaRef, bytes: &[u8]) -> Result<Rows, RowError> {
    CsvDecoder::new(csv, &options(schema), None).unwrap().decode(text(bytes))
}

/// Decodes into INT, STRING, DOUBLE and compares the rows, or the error.
fn check(csv: &CsvOptions, bytes: &[u8], expected: Expect) {
    let schema = schema(&[DataType::Int64, DataType::Utf8, DataType::Float64]);
    let shown = match decode(csv, &schema, bytes) {
        Ok(rows) => {
            let mut lines = rows_as_text(&rows.records).unwrap();
            if rows.skipped > 0 {
                lines.push(format!("skipped {}", rows.skipped));
            }
            lines.join("\n")
        }
        Err(error) => {
            let lines = memchr::memchr_iter(b'\n', &bytes[..error.offset]).count() as u64;
            error.at_line(lines).to_string()
        }
    };
    expected.assert_eq(&shown);
}

#[test]
fn empty_is_null_and_quoted_empty_is_not() {
    let csv = CsvOptions::default();
    check(
        &csv,
        b"1,,\n,\"\",2.5\n\"\",\" x \",\"3\"",
        expect![[r#"
        1|null|null
        null|""|2.5
        null|" x "|3.0"#]],
    );
    let csv = CsvOptions { null_literal: Some("NA".into()), ..csv };
    check(
        &csv,
        b"NA,NA,NA\n1,\"NA\",NA\n",
        expect![[r#"
        null|null|null
        1|"NA"|null"#]],
    );
}

#[test]
fn bytes_of_no_length_are_quoted() {
    let schema = schema(&[DataType::Binary]);
    let column = arrow::array::BinaryArray::from_opt_vec(vec![Some(b"".as_slice()), None, Some(b"a")]);
    let records = RecordBatch::try_new(schema.clone(), vec![Arc::new(column)]).unwrap();
    let csv = CsvOptions::default();
    let mut written = Vec::new();
    CsvEncoder::new(&csv, &schema).unwrap().encode(&records, &mut written).unwrap();
    assert_eq!(written, b"\"\"\n\nYQ==\n");
    let read = decode(&csv, &schema, &written).unwrap();
    let values: Vec<Option<&[u8]>> = read.records.column(0).as_binary::<i32>().iter().collect();
    assert_eq!(values, [Some(b"".as_slice()), None, Some(b"a")]);
}

#[test]
fn quotes_line_ends_and_comments() {
    let csv = CsvOptions { comments: true, ..CsvOptions::default() };
    check(
        &csv,
        b"# a,b\r\n1,\"a \"\"b\"\"\nc\",NaN\r\n\r\n2,\"x,y\",-Infinity",
        expect![[r#"
        1|"a \"b\"\nc"|"NaN"
        2|"x,y"|"-Infinity""#]],
    );
    let csv = CsvOptions { escape: Some(b'\\'), delimiter: b';', ..CsvOptions::default() };
    check(
        &csv,
        b"1;\"a\\\"b\";1\n2;c\\;d;2\n",
        expect![[r#"
        1|"a\"b"|1.0
        2|"c;d"|2.0"#]],
    );
    let csv = CsvOptions { quote: None, ..CsvOptions::default() };
    check(&csv, b"1,\"a\",2\n", expect![[r#"1|"\"a\""|2.0"#]]);
}

#[test]
fn errors_name_line_and_column() {
    let csv = CsvOptions::default();
    check(&csv, b"1,a,2\n2,b\n", expect!["line 2, column 3: row has 2 fields instead of 3"]);
    check(&csv, b"1,a,2,\n", expect!["line 1, column 4: row has 4 fields instead of 3"]);
    check(&csv, b"1,\"a\nb\",2\nx,b,2\n", expect!["line 3, column 1: 'x' is no BIGINT for 'c0'"]);
    check(&csv, b"1,a,2\n2,b,2.5.1\nz,c,3\n", expect!["line 2, column 3: '2.5.1' is no DOUBLE for 'c2'"]);
    check(&csv, b"1,\"a,2\n2,b,1\n", expect!["line 1, column 2: quote is not closed"]);
    check(&csv, b"1,\"a\"b,2\n", expect!["line 1, column 2: text follows a closing quote"]);
    check(&csv, b"1,a,2\n2,\xFF,3\n", expect!["line 2: byte 0xff is not UTF-8"]);
}

#[test]
fn bad_rows_can_be_skipped() {
    let csv = CsvOptions { ignore_parse_errors: true, ..CsvOptions::default() };
    check(
        &csv,
        b"1,a,2\n2,b\nx,c,3\n4,\xFF\xFE,4\n5,\"q\"q,5\n6,d,6\n",
        expect![[r#"
        1|"a"|2.0
        6|"d"|6.0
        skipped 4"#]],
    );
}

#[test]
fn not_null_is_checked() {
    let fields = vec![Field::new("a", DataType::Int64, false), Field::new("b", DataType::Utf8, true)];
    let schema = Arc::new(Schema::new(fields));
    let error = decode(&CsvOptions::default(), &schema, b"1,x\n,y\n").unwrap_err();
    assert_eq!(error.at_line(1).to_string(), "line 2, column 1: column 'a' is NOT NULL and the field is empty");
    let csv = CsvOptions { ignore_parse_errors: true, ..CsvOptions::default() };
    let rows = decode(&csv, &schema, b"1,x\n,y\n").unwrap();
    assert_eq!((rows.records.num_rows(), rows.skipped), (1, 1));
}

#[test]
fn columns_are_matched_by_header() {
    let schema = schema(&[DataType::Int64, DataType::Utf8]);
    let header = ["c1", "other", "c0"].map(str::to_owned);
    let mut decoder = CsvDecoder::new(&CsvOptions::default(), &options(&schema), Some(&header)).unwrap();
    let rows = decoder.decode(text(b"x,0,1\ny,0,2\n")).unwrap();
    assert_eq!(rows_as_text(&rows.records).unwrap(), ["1|\"x\"", "2|\"y\""]);
    let header = ["c1".to_owned(), "c2".to_owned()];
    let error = CsvDecoder::new(&CsvOptions::default(), &options(&schema), Some(&header)).err().unwrap();
    assert!(
        CsvDecoder::new(&CsvOptions::default(), &options(&schema), Some(&["C0".to_owned(), "c1".to_owned()])).is_ok()
    );
    assert_eq!(error.to_string(), "no column 'c0' in the header; known: c1, c2");
}

#[test]
fn instants_parse_with_zones() {
    let schema = schema(&[DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())), DataType::Int64]);
    let rows =
        decode(&CsvOptions::default(), &schema, b"1970-01-01T00:00:01Z,1\n1970-01-01 01:00:02+01:00,2\n").unwrap();
    let times = rows.records.column(0).as_primitive::<TimestampMillisecondType>();
    assert_eq!(times.values(), &[1_000, 2_000]);
}

#[test]
fn nested_values_are_json_in_a_field() {
    let item = Arc::new(Field::new("item", DataType::Int64, true));
    let schema = schema(&[DataType::List(item), DataType::Int64]);
    let rows = decode(&CsvOptions::default(), &schema, b"\"[1,2]\",1\n,2\n").unwrap();
    assert_eq!(rows_as_text(&rows.records).unwrap(), ["[1,2]|1", "null|2"]);
    let error = decode(&CsvOptions::default(), &schema, b"\"[1,2]\",1\n\"[1\",2\n").unwrap_err();
    assert_eq!(error.at_line(1).to_string(), "line 2, column 1: '[1' is no ARRAY for 'c0'");
}

/// Text cut anywhere decodes to the same rows, as long as every call sees whole rows or waits for more.
#[test]
fn cuts_do_not_matter() {
    let csv = CsvOptions::default();
    let schema = schema(&[DataType::Int64, DataType::Utf8]);
    let bytes = b"1,\"a\r\nb\"\r\n2,\"c\"\"\"\r\n3,d\r\n";
    let whole = rows_as_text(&decode(&csv, &schema, bytes).unwrap().records).unwrap();
    for cut in 0..bytes.len() {
        let mut decoder = CsvDecoder::new(&csv, &options(&schema), None).unwrap();
        let head = decoder.decode(RowText { is_last: false, ..text(&bytes[..cut]) }).unwrap();
        let mut rows = rows_as_text(&head.records).unwrap();
        let tail = decoder.decode(text(&bytes[head.consumed..])).unwrap();
        rows.extend(rows_as_text(&tail.records).unwrap());
        assert_eq!(rows, whole, "cut at {cut}");
    }
}

fn dialects() -> impl Strategy<Value = CsvOptions> {
    let escape = prop_oneof![Just(None), Just(Some(b'\\'))];
    let null = prop_oneof![Just(None), Just(Some("NA".to_owned()))];
    let delimiter = prop_oneof![Just(b','), Just(b';'), Just(b'\t')];
    let quote = prop_oneof![Just(Some(b'"')), Just(Some(b'\''))];
    (delimiter, quote, escape, null, any::<bool>()).prop_map(|(delimiter, quote, escape, null_literal, comments)| {
        CsvOptions { delimiter, quote, escape, null_literal, comments, ..CsvOptions::default() }
    })
}

fn texts() -> impl Strategy<Value = Option<String>> {
    let tricky = prop::sample::select(vec!["", "NA", "#", "\"", "'", "\\", ",", ";", "\n", "\r\n", "é", "日本", "a b"]);
    let joined = prop::collection::vec(tricky, 0..4).prop_map(|parts| parts.concat());
    prop_oneof![Just(None), joined.prop_map(Some), "\\PC{0,8}".prop_map(Some)]
}

proptest! {
    #[test]
    fn written_rows_are_read_back(
        csv in dialects(),
        rows in prop::collection::vec((texts(), any::<Option<i64>>(), any::<Option<f64>>()), 1..20),
    ) {
        let schema = schema(&[DataType::Utf8, DataType::Int64, DataType::Float64]);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(rows.iter().map(|row| row.0.clone()).collect::<StringArray>()),
            Arc::new(rows.iter().map(|row| row.1).collect::<Int64Array>()),
            Arc::new(rows.iter().map(|row| row.2).collect::<Float64Array>()),
        ];
        let written = RecordBatch::try_new(schema.clone(), columns).unwrap();
        let mut bytes = Vec::new();
        let mut encoder = CsvEncoder::new(&csv, &schema).unwrap();
        encoder.encode(&written, &mut bytes).unwrap();
        encoder.finish(&mut bytes).unwrap();
        let read = decode(&csv, &schema, &bytes).map_err(|error| TestCaseError::fail(format!("{error:?}")))?;
        prop_assert_eq!(rows_as_text(&read.records).unwrap(), rows_as_text(&written).unwrap());
    }

    #[test]
    fn nothing_makes_it_panic(bytes in prop::collection::vec(prop::sample::select(b"1a,\"\n\r\\#\xFF".to_vec()), 0..40)) {
        let schema = schema(&[DataType::Int64, DataType::Utf8]);
        for csv in [
            CsvOptions { comments: true, escape: Some(b'\\'), ..CsvOptions::default() },
            CsvOptions { ignore_parse_errors: true, ..CsvOptions::default() },
        ] {
            let _ = decode(&csv, &schema, &bytes);
        }
    }
}

#[test]
fn a_column_of_nulls_keeps_its_rows() {
    let schema = schema(&[DataType::Int64]);
    let written =
        RecordBatch::try_new(schema.clone(), vec![Arc::new(Int64Array::from(vec![Some(1), None, None]))]).unwrap();
    let mut bytes = Vec::new();
    CsvEncoder::new(&CsvOptions::default(), &schema).unwrap().encode(&written, &mut bytes).unwrap();
    let read = decode(&CsvOptions::default(), &schema, &bytes).unwrap().records;
    assert_eq!(read.column(0).as_primitive::<Int64Type>().null_count(), 2);
}
