//! The text form of every value, in one place: csv, json, print and the shell all write it.
//!
//! | type | text |
//! | --- | --- |
//! | numbers | plain; `NaN`, `Infinity`, `-Infinity`; decimals with all digits of their scale |
//! | `TIMESTAMP` | `2026-11-21T03:55:24.123` |
//! | `TIMESTAMP_LTZ` | `2026-11-21T03:55:24.123Z`, or with the offset of the style's zone |
//! | `BYTES` | base64 |
//! | `ARRAY`, `MAP`, `ROW` | JSON |
//! | NULL | what the style says |
//!
//! A [`ColumnText`] looks at the type of a column once and then writes row by row.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes as t;
use arrow::datatypes::{ArrowPrimitiveType, DataType, DecimalType, TimeUnit};
use base64::Engine;
use tidemill_core::error::{Error, Result};
use tidemill_core::time::{Calendar, per_second, time_values};

use super::civil::{DAY_SECONDS, write_date, write_digits, write_time};

/// How much of a bad value is shown.
const SHOWN_CHARACTERS: usize = 60;

/// How values are written.
#[derive(Clone, Copy, Debug)]
pub struct TextStyle<'a> {
    /// What stands for NULL.
    pub null: &'a str,
    /// The zone in which `TIMESTAMP_LTZ` is shown.
    pub zone: Calendar,
    /// Whether values are JSON: strings quoted and escaped, decimals and what is no JSON number quoted.
    pub json: bool,
}

impl TextStyle<'static> {
    /// csv fields before quoting: NULL is empty.
    pub const CSV: Self = Self { null: "", zone: Calendar::Utc, json: false };
    /// JSON values.
    pub const JSON: Self = Self { null: "null", zone: Calendar::Utc, json: true };
    /// What people read on a terminal: NULL is visible.
    pub const SHOWN: Self = Self { null: "NULL", zone: Calendar::Utc, json: false };
    /// Flink's printed rows.
    pub const PRINT: Self = Self { null: "null", zone: Calendar::Utc, json: false };
}

impl TextStyle<'_> {
    /// The same style with times shown in another zone.
    #[must_use]
    pub fn in_zone(self, zone: Calendar) -> Self {
        Self { zone, ..self }
    }
}

/// The text of one value. For many rows of a column make a [`ColumnText`].
///
/// ```
/// use arrow::array::Float64Array;
/// use tidemill_connectors::formats::text::{TextStyle, format_value};
/// let column = Float64Array::from(vec![Some(1.5), None]);
/// assert_eq!(format_value(&column, 0, TextStyle::SHOWN)?, "1.5");
/// assert_eq!(format_value(&column, 1, TextStyle::SHOWN)?, "NULL");
/// # Ok::<(), tidemill_core::Error>(())
/// ```
pub fn format_value(column: &dyn Array, row: usize, style: TextStyle<'_>) -> Result<String> {
    let mut out = Vec::new();
    ColumnText::new(column, style)?.write(row, &mut out);
    // Every writer below appends whole UTF-8 strings, so nothing is ever replaced here.
    Ok(String::from_utf8_lossy(&out).into_owned())
}

/// The texts of a whole column.
pub fn format_column(column: &dyn Array, style: TextStyle<'_>) -> Result<Vec<String>> {
    let text = ColumnText::new(column, style)?;
    let mut out = Vec::new();
    let texts = (0..column.len()).map(|row| {
        out.clear();
        text.write(row, &mut out);
        String::from_utf8_lossy(&out).into_owned()
    });
    Ok(texts.collect())
}

/// As much of a value as an error shows.
pub(crate) fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARACTERS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

type WriteValue<'a> = Box<dyn Fn(usize, &mut Vec<u8>) + 'a>;

/// A column whose values can be written one by one.
pub struct ColumnText<'a> {
    /// The logical ones: a column of type NULL has no others, and a dictionary may have NULL among its values.
    nulls: Option<NullBuffer>,
    null: &'a str,
    write: WriteValue<'a>,
}

impl<'a> ColumnText<'a> {
    /// Prepares `column` for writing in `style`; an error names a type that has no text form.
    pub fn new(column: &'a dyn Array, style: TextStyle<'a>) -> Result<Self> {
        Ok(Self { nulls: column.logical_nulls(), null: style.null, write: writer(column, style)? })
    }

    /// Whether `row` is NULL.
    pub fn is_null(&self, row: usize) -> bool {
        self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row))
    }

    /// Appends the text of `row`, always valid UTF-8.
    pub fn write(&self, row: usize, out: &mut Vec<u8>) {
        match self.is_null(row) {
            true => out.extend_from_slice(self.null.as_bytes()),
            false => (self.write)(row, out),
        }
    }
}

fn writer<'a>(column: &'a dyn Array, style: TextStyle<'a>) -> Result<WriteValue<'a>> {
    use DataType as D;
    Ok(match column.data_type() {
        D::Null => Box::new(|_, _| {}),
        D::Boolean => {
            let values = column.as_boolean();
            Box::new(|row, out| out.extend_from_slice(if values.value(row) { b"true" } else { b"false" }))
        }
        D::Int8 => integers::<t::Int8Type>(column),
        D::Int16 => integers::<t::Int16Type>(column),
        D::Int32 => integers::<t::Int32Type>(column),
        D::Int64 => integers::<t::Int64Type>(column),
        D::UInt8 => integers::<t::UInt8Type>(column),
        D::UInt16 => integers::<t::UInt16Type>(column),
        D::UInt32 => integers::<t::UInt32Type>(column),
        D::UInt64 => integers::<t::UInt64Type>(column),
        D::Float32 => {
            let values = column.as_primitive::<t::Float32Type>().values();
            Box::new(move |row, out| {
                let value = values[row];
                write_float(value.is_finite(), f64::from(value), &value, style.json, out);
            })
        }
        D::Float64 => {
            let values = column.as_primitive::<t::Float64Type>().values();
            Box::new(move |row, out| write_float(values[row].is_finite(), values[row], &values[row], style.json, out))
        }
        D::Decimal128(precision, scale) => decimals::<t::Decimal128Type>(column, *precision, *scale, style),
        D::Decimal256(precision, scale) => decimals::<t::Decimal256Type>(column, *precision, *scale, style),
        D::Utf8 => strings(move |row| column.as_string::<i32>().value(row), style),
        D::LargeUtf8 => strings(move |row| column.as_string::<i64>().value(row), style),
        D::Utf8View => strings(move |row| column.as_string_view().value(row), style),
        D::Binary => bytes(move |row| column.as_binary::<i32>().value(row), style),
        D::LargeBinary => bytes(move |row| column.as_binary::<i64>().value(row), style),
        D::BinaryView => bytes(move |row| column.as_binary_view().value(row), style),
        D::FixedSizeBinary(_) => bytes(move |row| column.as_fixed_size_binary().value(row), style),
        D::Date32 | D::Date64 | D::Time32(_) | D::Time64(_) | D::Timestamp(..) => times(column, style)?,
        D::List(_) => list(column.as_list::<i32>().values(), offsets(column.as_list::<i32>().value_offsets()))?,
        D::LargeList(_) => {
            let offsets = column.as_list::<i64>().value_offsets();
            list(column.as_list::<i64>().values(), move |row| (offsets[row] as usize, offsets[row + 1] as usize))?
        }
        D::FixedSizeList(_, width) => {
            let width = *width as usize;
            list(column.as_fixed_size_list().values(), move |row| (row * width, (row + 1) * width))?
        }
        D::Struct(fields) => {
            let names: Vec<&str> = fields.iter().map(|field| field.name().as_str()).collect();
            object(&names, column.as_struct().columns())?
        }
        D::Map(..) => map(column)?,
        D::Dictionary(..) => {
            let dictionary = column.as_any_dictionary();
            let values = ColumnText::new(dictionary.values().as_ref(), style)?;
            let keys = dictionary.normalized_keys();
            Box::new(move |row, out| values.write(keys[row], out))
        }
        D::Interval(_) | D::Duration(_) => debug_text(column, style)?,
        other => return Err(Error::request(format!("type {other} has no text form"))),
    })
}

fn integers<T: ArrowPrimitiveType>(column: &dyn Array) -> WriteValue<'_>
where
    T::Native: std::fmt::Display,
{
    use std::io::Write;
    let values = column.as_primitive::<T>().values();
    Box::new(move |row, out| {
        // Writing to memory does not fail.
        let _ = write!(out, "{}", values[row]);
    })
}

fn write_float(is_finite: bool, value: f64, shortest: &dyn std::fmt::Debug, json: bool, out: &mut Vec<u8>) {
    use std::io::Write;
    if is_finite {
        let _ = write!(out, "{shortest:?}");
        return;
    }
    let name = match (value.is_nan(), value > 0.0) {
        (true, _) => "NaN",
        (false, true) => "Infinity",
        (false, false) => "-Infinity",
    };
    quoted(json, out, |out| out.extend_from_slice(name.as_bytes()));
}

fn decimals<'a, T: DecimalType>(
    column: &'a dyn Array,
    precision: u8,
    scale: i8,
    style: TextStyle<'a>,
) -> WriteValue<'a> {
    let values = column.as_primitive::<T>();
    Box::new(move |row, out| {
        let text = T::format_decimal(values.value(row), precision, scale);
        quoted(style.json, out, |out| out.extend_from_slice(text.as_bytes()));
    })
}

fn strings<'a>(value: impl Fn(usize) -> &'a str + 'a, style: TextStyle<'a>) -> WriteValue<'a> {
    match style.json {
        true => Box::new(move |row, out| write_json_string(value(row), out)),
        false => Box::new(move |row, out| out.extend_from_slice(value(row).as_bytes())),
    }
}

fn bytes<'a>(value: impl Fn(usize) -> &'a [u8] + 'a, style: TextStyle<'a>) -> WriteValue<'a> {
    Box::new(move |row, out| {
        let text = base64::engine::general_purpose::STANDARD.encode(value(row));
        quoted(style.json, out, |out| out.extend_from_slice(text.as_bytes()));
    })
}

fn times<'a>(column: &'a dyn Array, style: TextStyle<'a>) -> Result<WriteValue<'a>> {
    let json = style.json;
    let of_day = move |value: i64, unit: TimeUnit, out: &mut Vec<u8>| {
        let (second, nanos) = seconds_and_nanos(value, unit);
        quoted(json, out, |out| write_time(second.rem_euclid(DAY_SECONDS), nanos, out));
    };
    Ok(match column.data_type() {
        DataType::Date32 => {
            let values = column.as_primitive::<t::Date32Type>().values();
            Box::new(move |row, out| quoted(json, out, |out| write_date(i64::from(values[row]), out)))
        }
        DataType::Date64 => {
            let values = column.as_primitive::<t::Date64Type>().values();
            Box::new(move |row, out| {
                quoted(json, out, |out| write_date(values[row].div_euclid(DAY_SECONDS * 1_000), out));
            })
        }
        DataType::Time32(TimeUnit::Second) => {
            let values = column.as_primitive::<t::Time32SecondType>().values();
            Box::new(move |row, out| of_day(i64::from(values[row]), TimeUnit::Second, out))
        }
        DataType::Time32(_) => {
            let values = column.as_primitive::<t::Time32MillisecondType>().values();
            Box::new(move |row, out| of_day(i64::from(values[row]), TimeUnit::Millisecond, out))
        }
        DataType::Time64(TimeUnit::Microsecond) => {
            let values = column.as_primitive::<t::Time64MicrosecondType>().values();
            Box::new(move |row, out| of_day(values[row], TimeUnit::Microsecond, out))
        }
        DataType::Time64(_) => {
            let values = column.as_primitive::<t::Time64NanosecondType>().values();
            Box::new(move |row, out| of_day(values[row], TimeUnit::Nanosecond, out))
        }
        DataType::Timestamp(unit, zone) => {
            let (unit, is_instant) = (*unit, zone.is_some());
            let (values, _) = time_values(column)?;
            Box::new(move |row, out| {
                quoted(json, out, |out| match is_instant {
                    true => write_instant(values[row], unit, style.zone, out),
                    false => write_timestamp(values[row], unit, out),
                });
            })
        }
        other => return Err(Error::internal(format!("{other} is not a time"))),
    })
}

/// Appends `2026-11-21T03:55:24.123`.
fn write_timestamp(value: i64, unit: TimeUnit, out: &mut Vec<u8>) {
    let (seconds, nanos) = seconds_and_nanos(value, unit);
    write_date(seconds.div_euclid(DAY_SECONDS), out);
    out.push(b'T');
    write_time(seconds.rem_euclid(DAY_SECONDS), nanos, out);
}

/// Appends an instant as the wall clock of `zone` and the offset in force there.
fn write_instant(value: i64, unit: TimeUnit, zone: Calendar, out: &mut Vec<u8>) {
    let local = zone.to_local(value, unit);
    write_timestamp(local, unit, out);
    let Calendar::Zone(_) = zone else { return out.push(b'Z') };
    let minutes = local.saturating_sub(value) / per_second(unit) / 60;
    out.push(if minutes < 0 { b'-' } else { b'+' });
    write_digits((minutes.abs() / 60) as u32, 2, out);
    out.push(b':');
    write_digits((minutes.abs() % 60) as u32, 2, out);
}

fn seconds_and_nanos(value: i64, unit: TimeUnit) -> (i64, i64) {
    let scale = per_second(unit);
    (value.div_euclid(scale), value.rem_euclid(scale) * (1_000_000_000 / scale))
}

fn offsets(offsets: &[i32]) -> impl Fn(usize) -> (usize, usize) + '_ {
    |row| (offsets[row] as usize, offsets[row + 1] as usize)
}

fn list<'a>(values: &'a ArrayRef, range: impl Fn(usize) -> (usize, usize) + 'a) -> Result<WriteValue<'a>> {
    let values = ColumnText::new(values.as_ref(), TextStyle::JSON)?;
    Ok(Box::new(move |row, out| {
        let (start, end) = range(row);
        out.push(b'[');
        for at in start..end {
            if at > start {
                out.push(b',');
            }
            values.write(at, out);
        }
        out.push(b']');
    }))
}

/// Writes rows of `columns` as JSON objects.
pub(crate) fn object<'a>(names: &[&str], columns: &'a [ArrayRef]) -> Result<WriteValue<'a>> {
    let mut members = Vec::with_capacity(columns.len());
    for (at, (name, column)) in names.iter().zip(columns).enumerate() {
        let mut key = vec![if at == 0 { b'{' } else { b',' }];
        write_json_string(name, &mut key);
        key.push(b':');
        members.push((key, ColumnText::new(column.as_ref(), TextStyle::JSON)?));
    }
    Ok(Box::new(move |row, out| {
        for (key, value) in &members {
            out.extend_from_slice(key);
            value.write(row, out);
        }
        out.extend_from_slice(if members.is_empty() { b"{}" } else { b"}" });
    }))
}

fn map(column: &dyn Array) -> Result<WriteValue<'_>> {
    let map = column.as_map();
    // JSON keys are strings: what is none gets its plain text, quoted.
    let keys = ColumnText::new(map.keys().as_ref(), TextStyle::PRINT)?;
    let values = ColumnText::new(map.values().as_ref(), TextStyle::JSON)?;
    let offsets = map.value_offsets();
    Ok(Box::new(move |row, out| {
        let mut key = Vec::new();
        out.push(b'{');
        for at in offsets[row] as usize..offsets[row + 1] as usize {
            if at > offsets[row] as usize {
                out.push(b',');
            }
            key.clear();
            keys.write(at, &mut key);
            write_json_string(&String::from_utf8_lossy(&key), out);
            out.push(b':');
            values.write(at, out);
        }
        out.push(b'}');
    }))
}

/// Intervals have no ISO form that every reader takes; Arrow's own text is as good as any.
fn debug_text<'a>(column: &'a dyn Array, style: TextStyle<'a>) -> Result<WriteValue<'a>> {
    let options = arrow::util::display::FormatOptions::default();
    let formatter = arrow::util::display::ArrayFormatter::try_new(column, &options)?;
    let texts: Vec<String> = (0..column.len()).map(|row| formatter.value(row).to_string()).collect();
    Ok(Box::new(move |row, out| match style.json {
        true => write_json_string(&texts[row], out),
        false => out.extend_from_slice(texts[row].as_bytes()),
    }))
}

fn quoted(json: bool, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    if !json {
        return write(out);
    }
    out.push(b'"');
    write(out);
    out.push(b'"');
}

/// Appends `text` as a JSON string.
pub(crate) fn write_json_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let mut copied = 0;
    for (at, byte) in text.bytes().enumerate() {
        let escape: &[u8] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            0..=0x1F => b"",
            _ => continue,
        };
        out.extend_from_slice(&text.as_bytes()[copied..at]);
        match escape {
            b"" => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            escape => out.extend_from_slice(escape),
        }
        copied = at + 1;
    }
    out.extend_from_slice(&text.as_bytes()[copied..]);
    out.push(b'"');
}

#[cfg(test)]
mod tests;
