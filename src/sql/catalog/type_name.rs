//! The SQL types of columns that no statement declared: those of files and query results.

use arrow::datatypes::{DataType, Field, IntervalUnit, TimeUnit};

use crate::sql::parser::{Element, RowField, SqlType};

/// The SQL type that `data_type` holds; `None` for Arrow types that SQL has no name for.
pub fn sql_type(data_type: &DataType) -> Option<SqlType> {
    let element = |field: &Field| {
        Some(Box::new(Element { sql_type: sql_type(field.data_type())?, nullable: field.is_nullable() }))
    };
    Some(match data_type {
        DataType::Boolean => SqlType::Boolean,
        DataType::Int8 => SqlType::TinyInt,
        DataType::Int16 => SqlType::SmallInt,
        DataType::Int32 => SqlType::Int,
        DataType::Int64 => SqlType::BigInt,
        DataType::Float32 => SqlType::Float,
        DataType::Float64 => SqlType::Double,
        DataType::Decimal128(precision, scale) => SqlType::Decimal(*precision, u8::try_from(*scale).ok()?),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => SqlType::String,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => SqlType::Bytes,
        DataType::Date32 => SqlType::Date,
        DataType::Time32(unit) | DataType::Time64(unit) => SqlType::Time(digits(*unit)),
        DataType::Timestamp(unit, None) => SqlType::Timestamp(digits(*unit)),
        DataType::Timestamp(unit, Some(_)) => SqlType::TimestampLtz(digits(*unit)),
        DataType::Interval(IntervalUnit::YearMonth) => SqlType::IntervalYearMonth,
        DataType::Interval(_) => SqlType::IntervalDaySecond,
        DataType::Dictionary(_, value) => sql_type(value)?,
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            SqlType::Array(element(item)?)
        }
        DataType::Map(entry, _) => match entry.data_type() {
            DataType::Struct(fields) if fields.len() == 2 => SqlType::Map(element(&fields[0])?, element(&fields[1])?),
            _ => return None,
        },
        DataType::Struct(fields) => {
            let fields = fields
                .iter()
                .map(|field| Some(RowField { name: field.name().clone(), element: *element(field)?, comment: None }));
            SqlType::Row(fields.collect::<Option<_>>()?)
        }
        _ => return None,
    })
}

/// The SQL name of a type. Those that SQL cannot declare, which files and functions bring, have the names nearest to it.
pub fn type_name(data_type: &DataType) -> String {
    sql_type(data_type).map_or_else(|| foreign_name(data_type), |sql_type| sql_type.to_string())
}

fn foreign_name(data_type: &DataType) -> String {
    let element = |field: &Field| {
        format!("{}{}", type_name(field.data_type()), if field.is_nullable() { "" } else { " NOT NULL" })
    };
    match data_type {
        DataType::Null => "NULL".to_owned(),
        DataType::UInt8 => "TINYINT UNSIGNED".to_owned(),
        DataType::UInt16 => "SMALLINT UNSIGNED".to_owned(),
        DataType::UInt32 => "INT UNSIGNED".to_owned(),
        DataType::UInt64 => "BIGINT UNSIGNED".to_owned(),
        DataType::Decimal256(precision, scale) | DataType::Decimal128(precision, scale) => {
            format!("DECIMAL({precision}, {scale})")
        }
        DataType::FixedSizeBinary(length) => format!("BINARY({length})"),
        DataType::Date64 => "DATE".to_owned(),
        DataType::Duration(_) => "INTERVAL DAY TO SECOND".to_owned(),
        DataType::Dictionary(_, value) => type_name(value),
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            format!("ARRAY<{}>", element(item))
        }
        DataType::Map(entry, _) => match entry.data_type() {
            DataType::Struct(fields) if fields.len() == 2 => {
                format!("MAP<{}, {}>", element(&fields[0]), element(&fields[1]))
            }
            other => format!("MAP<{other}>"),
        },
        DataType::Struct(fields) => {
            let fields: Vec<String> = fields
                .iter()
                .map(|field| format!("`{}` {}", field.name().replace('`', "``"), element(field)))
                .collect();
            format!("ROW<{}>", fields.join(", "))
        }
        other => other.to_string(),
    }
}

fn digits(unit: TimeUnit) -> u8 {
    match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        TimeUnit::Microsecond => 6,
        TimeUnit::Nanosecond => 9,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn types_that_sql_cannot_declare_have_names_of_sql() {
        let list = DataType::List(Arc::new(Field::new("item", DataType::UInt8, true)));
        assert_eq!(type_name(&list), "ARRAY<TINYINT UNSIGNED>");
        let row = DataType::Struct(
            vec![Field::new("a", DataType::UInt64, false), Field::new("b", DataType::Int32, true)].into(),
        );
        assert_eq!(type_name(&row), "ROW<`a` BIGINT UNSIGNED NOT NULL, `b` INT>");
        assert_eq!(type_name(&DataType::Duration(TimeUnit::Microsecond)), "INTERVAL DAY TO SECOND");
        assert_eq!(type_name(&DataType::Null), "NULL");
    }
}
