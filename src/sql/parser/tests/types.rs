//! Types: their text, Arrow's types, and types in `CAST`.

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::sql::sqlparser::ast::{Expr, SelectItem, SetExpr};

use super::*;

/// The type of the only column of a table.
fn column_type(text: &str) -> SqlType {
    match one(&format!("CREATE TABLE t (c {text})")) {
        Statement::CreateTable(create) => match create.columns.into_iter().next().map(|column| column.kind) {
            Some(Kind::Physical { data_type, .. }) => data_type,
            kind => panic!("{kind:?}"),
        },
        statement => panic!("{statement:?}"),
    }
}

/// The type that a planner finds in `CAST(x AS text)`.
fn cast_type(text: &str) -> Option<SqlType> {
    let Statement::Query(query) = one(&format!("SELECT CAST(x AS {text}) FROM t")) else { panic!("{text}") };
    let SetExpr::Select(select) = query.body.as_ref() else { panic!("{text}") };
    match &select.projection[0] {
        SelectItem::UnnamedExpr(Expr::Cast { data_type, .. }) => sql_type_of(data_type),
        item => panic!("{item:?}"),
    }
}

#[test]
fn text_and_casts() {
    let cases = [
        ("BOOLEAN", "BOOLEAN"),
        ("tinyint", "TINYINT"),
        ("SMALLINT", "SMALLINT"),
        ("INTEGER", "INT"),
        ("LONG", "BIGINT"),
        ("FLOAT", "FLOAT"),
        ("DOUBLE PRECISION", "DOUBLE"),
        ("DECIMAL", "DECIMAL(10, 0)"),
        ("DEC(5)", "DECIMAL(5, 0)"),
        ("NUMERIC(38, 38)", "DECIMAL(38, 38)"),
        ("CHAR(3)", "CHAR(3)"),
        ("VARCHAR(255)", "VARCHAR(255)"),
        ("CHARACTER VARYING(7)", "VARCHAR(7)"),
        ("VARCHAR", "VARCHAR"),
        ("STRING", "STRING"),
        ("BINARY(4)", "BINARY(4)"),
        ("VARBINARY(4)", "VARBINARY(4)"),
        ("BYTES", "BYTES"),
        ("DATE", "DATE"),
        ("TIME", "TIME(0)"),
        ("TIME(3) WITHOUT TIME ZONE", "TIME(3)"),
        ("TIMESTAMP", "TIMESTAMP(6)"),
        ("TIMESTAMP(3)", "TIMESTAMP(3)"),
        ("TIMESTAMP(9) WITHOUT TIME ZONE", "TIMESTAMP(9)"),
        ("TIMESTAMP_LTZ", "TIMESTAMP_LTZ(6)"),
        ("TIMESTAMP_LTZ(3)", "TIMESTAMP_LTZ(3)"),
        ("TIMESTAMP(0) WITH LOCAL TIME ZONE", "TIMESTAMP_LTZ(0)"),
        ("ARRAY<INT>", "ARRAY<INT>"),
        ("INT ARRAY", "ARRAY<INT>"),
        ("MAP<STRING, BIGINT NOT NULL>", "MAP<STRING, BIGINT NOT NULL>"),
        ("MULTISET<STRING>", "MULTISET<STRING>"),
        (
            "ROW<a INT, `b c` ROW<d ARRAY<MAP<STRING, INT>>> 'it''s'>",
            "ROW<`a` INT, `b c` ROW<`d` ARRAY<MAP<STRING, INT>>> 'it''s'>",
        ),
        ("ROW(a INT NOT NULL, b STRING 'text')", "ROW<`a` INT NOT NULL, `b` STRING 'text'>"),
        ("ROW<>", "ROW<>"),
        ("ROW<a ARRAY<ARRAY<ARRAY<INT>>>, b INT>", "ROW<`a` ARRAY<ARRAY<ARRAY<INT>>>, `b` INT>"),
    ];
    for (text, expected) in cases {
        assert_eq!(column_type(text).to_string(), expected, "for: {text}");
        assert_eq!(column_type(expected).to_string(), expected, "for: {expected}");
        assert_eq!(cast_type(text), Some(column_type(text)), "for: CAST AS {text}");
    }
    assert_eq!(column_type("INTERVAL DAY(3) TO SECOND(3)").to_string(), "INTERVAL DAY TO SECOND");
    assert_eq!(column_type("INTERVAL YEAR TO MONTH").to_string(), "INTERVAL YEAR TO MONTH");
    // What only DataFusion knows stays with it.
    for text in ["INT UNSIGNED", "UUID", "INTERVAL", "TIMESTAMP WITH TIME ZONE", "NONSENSE"] {
        assert_eq!(cast_type(text), None, "for: {text}");
    }
}

#[test]
fn errors() {
    check_all([
        (
            "CREATE TABLE t (a DECIMAL(39, 1))",
            "error: DECIMAL(39, 1) does not exist at line 1, column 19; the precision is 1 to 38, the scale 0 to the precision",
        ),
        (
            "CREATE TABLE t (a TIMESTAMP(10))",
            "error: a precision is a number from 0 to 9, not '10' at line 1, column 29",
        ),
        (
            "CREATE TABLE t (a VARCHAR(0))",
            "error: a length is a number from 1 to 2147483647, not '0' at line 1, column 27",
        ),
        ("CREATE TABLE t (a ARRAY<INT>>)", "error: one '>' too many after a type at line 1, column 30"),
        ("CREATE TABLE t (a ARRAY<INT)", "error: expected '>', found ')' at line 1, column 28"),
        (
            "CREATE TABLE t (a TIMESTAMP(3) WITH TIME ZONE)",
            "error: TIMESTAMP WITH TIME ZONE keeps a zone with every value, which no column does at line 1, column 32; use TIMESTAMP_LTZ for an instant",
        ),
        ("SELECT CAST(x AS ROW<a STRNG>)", "error: unknown type 'STRNG' at line 1, column 24; did you mean 'STRING'?"),
        ("SELECT CAST(x AS ROW<a INT)", "error: expected '>', found ')' at line 1, column 27"),
        (
            "CREATE TABLE t (a INTERVAL DAY TO MONTH)",
            "error: an interval is in months or in seconds, not in both at line 1, column 40",
        ),
    ]);
    let deep = format!("CREATE TABLE t (a {}INT{})", "ARRAY<".repeat(60), ">".repeat(60));
    check(&deep, "error: a type nests more than 50 levels deep at line 1, column 325");
}

#[test]
fn arrow_types() {
    for (text, expected) in [
        ("LONG", DataType::Int64),
        ("VARCHAR(3)", DataType::Utf8),
        ("BINARY(3)", DataType::Binary),
        ("DECIMAL(10, 2)", DataType::Decimal128(10, 2)),
        ("TIME", DataType::Time32(TimeUnit::Second)),
        ("TIME(3)", DataType::Time32(TimeUnit::Millisecond)),
        ("TIME(6)", DataType::Time64(TimeUnit::Microsecond)),
        ("TIME(9)", DataType::Time64(TimeUnit::Nanosecond)),
        ("TIMESTAMP(0)", DataType::Timestamp(TimeUnit::Second, None)),
        ("TIMESTAMP(1)", DataType::Timestamp(TimeUnit::Millisecond, None)),
        ("TIMESTAMP", DataType::Timestamp(TimeUnit::Microsecond, None)),
        ("TIMESTAMP_LTZ(7)", DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()))),
    ] {
        assert_eq!(column_type(text).to_arrow(), expected, "for: {text}");
    }
    let nested = column_type("MAP<STRING, ARRAY<ROW<a INT NOT NULL>>>").to_arrow();
    let DataType::Map(entries, false) = nested else { panic!("{nested}") };
    let DataType::Struct(fields) = entries.data_type() else { panic!("{entries}") };
    assert_eq!((fields[0].name().as_str(), fields[0].is_nullable()), ("keys", false));
    let DataType::List(item) = fields[1].data_type() else { panic!("{fields:?}") };
    let DataType::Struct(row) = item.data_type() else { panic!("{item}") };
    assert!(!row[0].is_nullable() && row[0].data_type() == &DataType::Int32);
    let bag = column_type("MULTISET<STRING>").to_arrow();
    assert!(matches!(bag, DataType::Map(..)), "{bag}");
}
