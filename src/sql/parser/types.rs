//! The types of SQL: their text, and the Arrow types that hold them.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, IntervalUnit, TimeUnit};

/// A type as a statement declares it.
///
/// The bounds that Arrow has no place for (lengths of strings, digits of a second) are kept, so that `SHOW CREATE TABLE`
/// gives back what was declared.
///
/// ```
/// use tidemill::sql::parser::SqlType;
/// use arrow::datatypes::{DataType, TimeUnit};
/// assert_eq!(SqlType::Timestamp(3).to_string(), "TIMESTAMP(3)");
/// assert_eq!(SqlType::Timestamp(3).to_arrow(), DataType::Timestamp(TimeUnit::Millisecond, None));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SqlType {
    /// `BOOLEAN`
    Boolean,
    /// `TINYINT`, 8 bits
    TinyInt,
    /// `SMALLINT`, 16 bits
    SmallInt,
    /// `INT`, 32 bits
    Int,
    /// `BIGINT` or `LONG`, 64 bits
    BigInt,
    /// `FLOAT`, 32 bits
    Float,
    /// `DOUBLE`, 64 bits
    Double,
    /// `DECIMAL(precision, scale)`
    Decimal(u8, u8),
    /// `CHAR(n)`; without `n`, of any length
    Char(Option<u32>),
    /// `VARCHAR(n)`; without `n`, of any length
    Varchar(Option<u32>),
    /// `STRING`
    String,
    /// `BINARY(n)`; without `n`, of any length
    Binary(Option<u32>),
    /// `VARBINARY(n)`; without `n`, of any length
    Varbinary(Option<u32>),
    /// `BYTES`
    Bytes,
    /// `DATE`
    Date,
    /// `TIME(p)`, with `p` digits of a second
    Time(u8),
    /// `TIMESTAMP(p)`: a reading of a calendar and a clock, in no zone
    Timestamp(u8),
    /// `TIMESTAMP_LTZ(p)`: an instant, shown in the session's zone
    TimestampLtz(u8),
    /// `INTERVAL YEAR TO MONTH` and its parts
    IntervalYearMonth,
    /// `INTERVAL DAY TO SECOND` and its parts
    IntervalDaySecond,
    /// `ARRAY<t>`
    Array(Box<Element>),
    /// `MAP<k, v>`
    Map(Box<Element>, Box<Element>),
    /// `MULTISET<t>`: each element with its count
    Multiset(Box<Element>),
    /// `ROW<name t, …>`
    Row(Vec<RowField>),
}

/// The type of the elements of an array, of the keys or values of a map, or of a field.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Element {
    /// The type.
    pub sql_type: SqlType,
    /// False for `NOT NULL`.
    pub nullable: bool,
}

/// One field of a row type.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RowField {
    /// The field's name.
    pub name: String,
    /// The field's type.
    pub element: Element,
    /// The text after the type.
    pub comment: Option<String>,
}

impl SqlType {
    /// The Arrow type that holds values of this type.
    pub fn to_arrow(&self) -> DataType {
        match self {
            Self::Boolean => DataType::Boolean,
            Self::TinyInt => DataType::Int8,
            Self::SmallInt => DataType::Int16,
            Self::Int => DataType::Int32,
            Self::BigInt => DataType::Int64,
            Self::Float => DataType::Float32,
            Self::Double => DataType::Float64,
            // `read_type` admits no scale above the precision, nor a precision above 38.
            Self::Decimal(precision, scale) => DataType::Decimal128(*precision, *scale as i8),
            Self::Char(_) | Self::Varchar(_) | Self::String => DataType::Utf8,
            Self::Binary(_) | Self::Varbinary(_) | Self::Bytes => DataType::Binary,
            Self::Date => DataType::Date32,
            Self::Time(digits) => match time_unit(*digits) {
                unit @ (TimeUnit::Second | TimeUnit::Millisecond) => DataType::Time32(unit),
                unit => DataType::Time64(unit),
            },
            Self::Timestamp(digits) => DataType::Timestamp(time_unit(*digits), None),
            Self::TimestampLtz(digits) => DataType::Timestamp(time_unit(*digits), Some("UTC".into())),
            Self::IntervalYearMonth => DataType::Interval(IntervalUnit::YearMonth),
            Self::IntervalDaySecond => DataType::Interval(IntervalUnit::MonthDayNano),
            Self::Array(element) => DataType::List(element.to_field(Field::LIST_FIELD_DEFAULT_NAME)),
            Self::Map(key, value) => map_of(key.sql_type.to_arrow(), value.to_field("values")),
            Self::Multiset(element) => {
                map_of(element.sql_type.to_arrow(), Arc::new(Field::new("values", DataType::Int32, false)))
            }
            Self::Row(fields) => {
                DataType::Struct(fields.iter().map(|field| field.element.to_field(&field.name)).collect())
            }
        }
    }
}

impl Element {
    /// The Arrow field `name` that holds this element.
    pub fn to_field(&self, name: &str) -> FieldRef {
        Arc::new(Field::new(name, self.sql_type.to_arrow(), self.nullable))
    }
}

/// A map with the field names of Arrow's builders; a map's keys are never null.
fn map_of(key: DataType, values: FieldRef) -> DataType {
    let entry = Fields::from(vec![Arc::new(Field::new("keys", key, false)), values]);
    DataType::Map(Arc::new(Field::new("entries", DataType::Struct(entry), false)), false)
}

/// Arrow's unit for `digits` of a second: the next of 0, 3, 6 and 9.
fn time_unit(digits: u8) -> TimeUnit {
    match digits {
        0 => TimeUnit::Second,
        1..=3 => TimeUnit::Millisecond,
        4..=6 => TimeUnit::Microsecond,
        _ => TimeUnit::Nanosecond,
    }
}

/// Flink's text of the type, which `read_type` reads back.
impl fmt::Display for SqlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bounded = |f: &mut fmt::Formatter<'_>, name: &str, length: &Option<u32>| match length {
            Some(length) => write!(f, "{name}({length})"),
            None => f.write_str(name),
        };
        match self {
            Self::Boolean => f.write_str("BOOLEAN"),
            Self::TinyInt => f.write_str("TINYINT"),
            Self::SmallInt => f.write_str("SMALLINT"),
            Self::Int => f.write_str("INT"),
            Self::BigInt => f.write_str("BIGINT"),
            Self::Float => f.write_str("FLOAT"),
            Self::Double => f.write_str("DOUBLE"),
            Self::Decimal(precision, scale) => write!(f, "DECIMAL({precision}, {scale})"),
            Self::Char(length) => bounded(f, "CHAR", length),
            Self::Varchar(length) => bounded(f, "VARCHAR", length),
            Self::String => f.write_str("STRING"),
            Self::Binary(length) => bounded(f, "BINARY", length),
            Self::Varbinary(length) => bounded(f, "VARBINARY", length),
            Self::Bytes => f.write_str("BYTES"),
            Self::Date => f.write_str("DATE"),
            Self::Time(digits) => write!(f, "TIME({digits})"),
            Self::Timestamp(digits) => write!(f, "TIMESTAMP({digits})"),
            Self::TimestampLtz(digits) => write!(f, "TIMESTAMP_LTZ({digits})"),
            Self::IntervalYearMonth => f.write_str("INTERVAL YEAR TO MONTH"),
            Self::IntervalDaySecond => f.write_str("INTERVAL DAY TO SECOND"),
            Self::Array(element) => write!(f, "ARRAY<{element}>"),
            Self::Map(key, value) => write!(f, "MAP<{key}, {value}>"),
            Self::Multiset(element) => write!(f, "MULTISET<{element}>"),
            Self::Row(fields) => {
                f.write_str("ROW<")?;
                for (index, field) in fields.iter().enumerate() {
                    write!(f, "{}{field}", if index == 0 { "" } else { ", " })?;
                }
                f.write_str(">")
            }
        }
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.sql_type, if self.nullable { "" } else { " NOT NULL" })
    }
}

impl fmt::Display for RowField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {}", self.name.replace('`', "``"), self.element)?;
        match &self.comment {
            Some(comment) => write!(f, " '{}'", comment.replace('\'', "''")),
            None => Ok(()),
        }
    }
}
