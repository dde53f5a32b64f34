//! Reading a type from sqlparser's tree, for whoever plans a `CAST`.

use datafusion::sql::sqlparser::ast::{
    ArrayElemTypeDef, BinaryLength, CharacterLength, DataType, ExactNumberInfo, TimezoneInfo,
};
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::Tokenizer;

use super::dialect::DIALECT;
use super::read_type::{decimal, read_type};
use super::types::{Element, SqlType};
use super::words::Words;

/// The SQL type that sqlparser's tree names, for `CAST`; `None` leaves the type to DataFusion.
///
/// Types that only we know are `DataType::Custom`, whose name is the text of the type. Widths that change nothing
/// (`INT(11)`) and types that only DataFusion knows (`INT UNSIGNED`, `UUID`) are `None`.
pub fn sql_type_of(data_type: &DataType) -> Option<SqlType> {
    let digits = |given: &Option<u64>, default: u8| match given {
        None => Some(default),
        Some(digits) => u8::try_from(*digits).ok().filter(|digits| *digits <= 9),
    };
    let length = |given: u64| u32::try_from(given).ok();
    let nullable = |data_type: &DataType| Some(Box::new(Element { sql_type: sql_type_of(data_type)?, nullable: true }));
    Some(match data_type {
        DataType::Boolean | DataType::Bool => SqlType::Boolean,
        DataType::TinyInt(None) => SqlType::TinyInt,
        DataType::SmallInt(None) => SqlType::SmallInt,
        DataType::Int(None) | DataType::Integer(None) => SqlType::Int,
        DataType::BigInt(None) => SqlType::BigInt,
        DataType::Float(ExactNumberInfo::None) | DataType::Real => SqlType::Float,
        DataType::Double(ExactNumberInfo::None) | DataType::DoublePrecision => SqlType::Double,
        DataType::Decimal(info) | DataType::Dec(info) | DataType::Numeric(info) => {
            let (precision, scale) = match info {
                ExactNumberInfo::None => (10, 0),
                ExactNumberInfo::Precision(precision) => (*precision, 0),
                ExactNumberInfo::PrecisionAndScale(precision, scale) => (*precision, u64::try_from(*scale).ok()?),
            };
            decimal(precision, scale)?
        }
        DataType::Char(None) | DataType::Character(None) => SqlType::Char(None),
        DataType::Char(Some(CharacterLength::IntegerLength { length: n, .. }))
        | DataType::Character(Some(CharacterLength::IntegerLength { length: n, .. })) => {
            SqlType::Char(Some(length(*n)?))
        }
        DataType::Varchar(None) | DataType::CharVarying(None) | DataType::CharacterVarying(None) => {
            SqlType::Varchar(None)
        }
        DataType::Varchar(Some(CharacterLength::IntegerLength { length: n, .. }))
        | DataType::CharVarying(Some(CharacterLength::IntegerLength { length: n, .. }))
        | DataType::CharacterVarying(Some(CharacterLength::IntegerLength { length: n, .. })) => {
            SqlType::Varchar(Some(length(*n)?))
        }
        DataType::String(None) | DataType::Text => SqlType::String,
        DataType::Binary(None) => SqlType::Binary(None),
        DataType::Binary(Some(n)) => SqlType::Binary(Some(length(*n)?)),
        DataType::Varbinary(None) => SqlType::Varbinary(None),
        DataType::Varbinary(Some(BinaryLength::IntegerLength { length: n })) => SqlType::Varbinary(Some(length(*n)?)),
        DataType::Bytes(None) => SqlType::Bytes,
        DataType::Date => SqlType::Date,
        DataType::Time(given, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => SqlType::Time(digits(given, 0)?),
        DataType::Timestamp(given, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => {
            SqlType::Timestamp(digits(given, 6)?)
        }
        DataType::Array(ArrayElemTypeDef::AngleBracket(element) | ArrayElemTypeDef::SquareBracket(element, None)) => {
            SqlType::Array(nullable(element)?)
        }
        DataType::Map(key, value) => SqlType::Map(nullable(key)?, nullable(value)?),
        DataType::Custom(name, modifiers) => {
            let [name] = name.0.as_slice() else { return None };
            let name = &name.as_ident()?.value;
            match modifiers.as_slice() {
                [] => from_text(name)?,
                modifiers => from_text(&format!("{name}({})", modifiers.join(", ")))?,
            }
        }
        _ => return None,
    })
}

/// The type whose whole text is `text`.
fn from_text(text: &str) -> Option<SqlType> {
    let tokens = Tokenizer::new(&DIALECT, text).tokenize_with_location().ok()?;
    let mut parser = Parser::new(&DIALECT).with_tokens_with_locations(tokens);
    read_type(&mut parser).ok().filter(|_| parser.at_end())
}
