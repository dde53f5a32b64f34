//! The fields of one column to an Arrow array.

use std::str::FromStr;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BinaryViewBuilder, BooleanBuilder, LargeBinaryBuilder, LargeStringBuilder,
    PrimitiveBuilder, StringBuilder, StringViewBuilder, new_null_array,
};
use arrow::compute::kernels::cast_utils::parse_decimal;
use arrow::datatypes as t;
use arrow::datatypes::{ArrowPrimitiveType, DataType, DecimalType, Field, TimeUnit};
use base64::Engine;
use tidemill_core::time::Calendar;

use super::super::civil::{DAY_SECONDS, of_unit, parse_date, parse_time, parse_timestamp};
use super::super::text::shortened;
use super::super::{json, sql_name};
use super::tokens::Tokens;

/// One column of the rows that were cut.
pub(super) struct FieldColumn<'a> {
    pub(super) tokens: &'a Tokens,
    pub(super) text: &'a str,
    pub(super) scratch: &'a str,
    pub(super) null_literal: Option<&'a str>,
    pub(super) column: usize,
    /// Whether the first problem makes the rest pointless.
    pub(super) stops_early: bool,
}

/// A value that does not fit its column.
pub(super) struct Problem {
    pub(super) row: usize,
    pub(super) column: Option<usize>,
    pub(super) reason: String,
}

impl<'a> FieldColumn<'a> {
    fn rows(&self) -> usize {
        self.tokens.rows()
    }

    /// The text of a field; `None` is NULL.
    #[inline]
    fn string(&self, row: usize) -> Option<&'a str> {
        let (field, is_quoted) = self.tokens.field(self.text, self.scratch, row, self.column);
        let is_null = !is_quoted && (field.is_empty() || Some(field) == self.null_literal);
        (!is_null).then_some(field)
    }

    /// The text of a field that is no string, so that quotes around it mean nothing.
    #[inline]
    fn value(&self, row: usize) -> Option<&'a str> {
        let (field, _) = self.tokens.field(self.text, self.scratch, row, self.column);
        (!field.is_empty() && Some(field) != self.null_literal).then_some(field)
    }
}

/// Parses a column. Where a field is at fault it adds a problem and puts NULL.
pub(super) fn parse_column(field: &Field, column: FieldColumn<'_>, problems: &mut Vec<Problem>) -> ArrayRef {
    let array = parse(field, &column, problems);
    if !field.is_nullable() && array.null_count() > 0 {
        let rows = (0..array.len()).filter(|row| array.is_null(*row));
        let rows = rows.take(if column.stops_early { 1 } else { usize::MAX });
        let known: Vec<usize> = problems.iter().map(|problem| problem.row).collect();
        problems.extend(rows.filter(|row| !known.contains(row)).map(|row| Problem {
            row,
            column: Some(column.column),
            reason: format!("column '{}' is NOT NULL and the field is empty", field.name()),
        }));
    }
    array
}

fn parse(field: &Field, column: &FieldColumn<'_>, problems: &mut Vec<Problem>) -> ArrayRef {
    use DataType as D;
    use TimeUnit::{Microsecond, Millisecond, Nanosecond, Second};
    let mut parser = Parser { field, column, problems };
    match field.data_type() {
        D::Int8 => parser.numbers::<t::Int8Type>(),
        D::Int16 => parser.numbers::<t::Int16Type>(),
        D::Int32 => parser.numbers::<t::Int32Type>(),
        D::Int64 => parser.numbers::<t::Int64Type>(),
        D::UInt8 => parser.numbers::<t::UInt8Type>(),
        D::UInt16 => parser.numbers::<t::UInt16Type>(),
        D::UInt32 => parser.numbers::<t::UInt32Type>(),
        D::UInt64 => parser.numbers::<t::UInt64Type>(),
        D::Float32 => parser.numbers::<t::Float32Type>(),
        D::Float64 => parser.numbers::<t::Float64Type>(),
        D::Decimal128(precision, scale) => parser.decimals::<t::Decimal128Type>(*precision, *scale),
        D::Decimal256(precision, scale) => parser.decimals::<t::Decimal256Type>(*precision, *scale),
        D::Boolean => parser.booleans(),
        D::Utf8 => parser.strings(StringBuilder::new(), StringBuilder::append_option, |mut done| done.finish()),
        D::LargeUtf8 => {
            parser.strings(LargeStringBuilder::new(), LargeStringBuilder::append_option, |mut done| done.finish())
        }
        D::Utf8View => {
            parser.strings(StringViewBuilder::new(), StringViewBuilder::append_option, |mut done| done.finish())
        }
        D::Binary => parser.bytes(BinaryBuilder::new(), BinaryBuilder::append_option, |mut done| done.finish()),
        D::LargeBinary => {
            parser.bytes(LargeBinaryBuilder::new(), LargeBinaryBuilder::append_option, |mut done| done.finish())
        }
        D::BinaryView => {
            parser.bytes(BinaryViewBuilder::new(), BinaryViewBuilder::append_option, |mut done| done.finish())
        }
        D::Date32 => parser.values::<t::Date32Type>(|text| parse_date(text)?.try_into().ok()),
        D::Date64 => parser.values::<t::Date64Type>(|text| parse_date(text)?.checked_mul(DAY_SECONDS * 1_000)),
        D::Time32(Second) => parser.values::<t::Time32SecondType>(|text| parse_time(text)?.0.try_into().ok()),
        D::Time32(_) => {
            parser.values::<t::Time32MillisecondType>(|text| of_unit(parse_time(text)?, Millisecond)?.try_into().ok())
        }
        D::Time64(Microsecond) => {
            parser.values::<t::Time64MicrosecondType>(|text| of_unit(parse_time(text)?, Microsecond))
        }
        D::Time64(_) => parser.values::<t::Time64NanosecondType>(|text| of_unit(parse_time(text)?, Nanosecond)),
        D::Timestamp(unit, zone) => {
            let calendar = zone.as_deref().map_or(Ok(Calendar::Utc), Calendar::parse).unwrap_or(Calendar::Utc);
            let instant = |text: &str| parse_timestamp(text, calendar);
            match unit {
                Second => parser.values::<t::TimestampSecondType>(|text| of_unit(instant(text)?, Second)),
                Millisecond => {
                    parser.values::<t::TimestampMillisecondType>(|text| of_unit(instant(text)?, Millisecond))
                }
                Microsecond => {
                    parser.values::<t::TimestampMicrosecondType>(|text| of_unit(instant(text)?, Microsecond))
                }
                Nanosecond => parser.values::<t::TimestampNanosecondType>(|text| of_unit(instant(text)?, Nanosecond)),
            }
        }
        D::Null => new_null_array(&D::Null, column.rows()),
        _ => parser.json(),
    }
}

struct Parser<'a> {
    field: &'a Field,
    column: &'a FieldColumn<'a>,
    problems: &'a mut Vec<Problem>,
}

impl<'a> Parser<'a> {
    fn numbers<T: ArrowPrimitiveType>(&mut self) -> ArrayRef
    where
        T::Native: FromStr,
    {
        self.values::<T>(|text| text.parse().ok())
    }

    fn decimals<T: DecimalType>(&mut self, precision: u8, scale: i8) -> ArrayRef {
        self.values::<T>(|text| parse_decimal::<T>(text, precision, scale).ok())
    }

    fn values<T: ArrowPrimitiveType>(&mut self, parse: impl Fn(&str) -> Option<T::Native>) -> ArrayRef {
        let data_type = self.field.data_type().clone();
        let mut builder = PrimitiveBuilder::<T>::with_capacity(self.column.rows()).with_data_type(data_type);
        self.each(FieldColumn::value, parse, |value| builder.append_option(value));
        Arc::new(builder.finish())
    }

    fn booleans(&mut self) -> ArrayRef {
        let mut builder = BooleanBuilder::with_capacity(self.column.rows());
        let parse = |text: &str| match text {
            _ if text.eq_ignore_ascii_case("true") => Some(true),
            _ if text.eq_ignore_ascii_case("false") => Some(false),
            _ => None,
        };
        self.each(FieldColumn::value, parse, |value| builder.append_option(value));
        Arc::new(builder.finish())
    }

    fn bytes<B, A: arrow::array::Array + 'static>(
        &mut self,
        mut builder: B,
        append: impl Fn(&mut B, Option<Vec<u8>>),
        finish: impl FnOnce(B) -> A,
    ) -> ArrayRef {
        let parse = |text: &str| base64::engine::general_purpose::STANDARD.decode(text).ok();
        // As with strings, quotes tell what is empty from what is not there.
        self.each(FieldColumn::string, parse, |value| append(&mut builder, value));
        Arc::new(finish(builder))
    }

    fn strings<'b, B, A: arrow::array::Array + 'static>(
        &'b mut self,
        mut builder: B,
        append: impl Fn(&mut B, Option<&'b str>),
        finish: impl FnOnce(B) -> A,
    ) -> ArrayRef {
        (0..self.column.rows()).for_each(|row| append(&mut builder, self.column.string(row)));
        Arc::new(finish(builder))
    }

    /// Nested values stand in the field as JSON.
    fn json(&mut self) -> ArrayRef {
        let rows = self.column.rows();
        let texts = (0..rows).map(|row| self.column.value(row));
        if let Ok(array) = json::parse_values(self.field, texts) {
            return array;
        }
        let good: Vec<Option<&str>> = (0..rows)
            .map(|row| {
                let text = self.column.value(row)?;
                if json::parse_values(self.field, std::iter::once(Some(text))).is_ok() {
                    return Some(text);
                }
                self.problem(row, text);
                None
            })
            .collect();
        let array = json::parse_values(self.field, good.into_iter());
        array.unwrap_or_else(|_| new_null_array(self.field.data_type(), rows))
    }

    /// Parses field by field. Blanks around a value are forgiven, but looked for only when it does not parse.
    fn each<V>(
        &mut self,
        text: impl Fn(&FieldColumn<'a>, usize) -> Option<&'a str>,
        parse: impl Fn(&str) -> Option<V>,
        mut push: impl FnMut(Option<V>),
    ) {
        for row in 0..self.column.rows() {
            let Some(text) = text(self.column, row) else {
                push(None);
                continue;
            };
            let value = parse(text).or_else(|| parse(text.trim()));
            let is_bad = value.is_none();
            push(value);
            if is_bad {
                self.problem(row, text);
                if self.column.stops_early {
                    break;
                }
            }
        }
    }

    fn problem(&mut self, row: usize, text: &str) {
        let shown = shortened(text);
        let reason = format!("'{shown}' is no {} for '{}'", sql_name(self.field.data_type()), self.field.name());
        self.problems.push(Problem { row, column: Some(self.column.column), reason });
    }
}
