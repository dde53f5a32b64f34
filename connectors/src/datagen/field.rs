//! What a generated column holds, read from the `fields.#.*` options.

use std::time::Duration;

use arrow::datatypes::{DataType, Field, TimeUnit};
use tidemill_core::error::{Error, Result};
use tidemill_core::time::{Calendar, per_second};

use super::mix::Stream;
use crate::formats::{parse_instant, sql_name};
use crate::options::{Options, bad_value};

/// One column.
#[derive(Clone, Debug)]
pub struct FieldSpec {
    pub(super) data_type: DataType,
    pub(super) values: Values,
    /// NULL where the random number is below this; `None` for no NULLs.
    pub(super) null_below: Option<u64>,
    pub(super) stream: Stream,
}

/// How the values of a column come about.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Values {
    /// Integers, decimals, dates and times of day: `min ..= min + span`.
    Integers {
        min: i64,
        span: u64,
    },
    /// `min ..= max`
    Floats {
        min: f64,
        max: f64,
    },
    Booleans,
    /// Hexadecimal digits.
    Strings {
        length: usize,
    },
    Bytes {
        length: usize,
    },
    /// Between `now - max_past` and now, in milliseconds.
    Past {
        max_past: u64,
    },
    /// `start + row * step`, `rows` of them.
    Sequence {
        start: i64,
        step: i64,
        rows: Option<u64>,
    },
    /// The same as text.
    SequenceOfStrings {
        start: i64,
        rows: Option<u64>,
    },
}

#[derive(Clone, Copy)]
enum Kind {
    Random,
    Sequence,
}

/// Flink's default length of strings and bytes.
const LENGTH: usize = 100;
/// A value has to fit into memory with the others of its batch.
const LENGTH_MAX: usize = 1 << 20;

impl FieldSpec {
    /// How many rows the column has values for; `None` for any number.
    pub(super) fn rows(&self) -> Option<u64> {
        match self.values {
            Values::Sequence { rows, .. } | Values::SequenceOfStrings { rows, .. } => rows,
            _ => None,
        }
    }

    /// About how many bytes a value takes.
    pub(super) fn width(&self) -> usize {
        match self.values {
            Values::Strings { length } | Values::Bytes { length } => length,
            _ => size_of::<u64>(),
        }
    }

    /// The BIGINT numbers `from` to `to`, both inclusive.
    pub(super) fn sequence(from: i64, to: i64) -> Self {
        let values = Values::Sequence { start: from, step: 1, rows: Some(rows_between(from, to, 1)) };
        Self { data_type: DataType::Int64, values, null_below: None, stream: Stream::new(0, 0) }
    }

    pub(super) fn from_options(field: &Field, column: usize, seed: u64, options: &mut Options) -> Result<Self> {
        let keys = Keys { name: field.name(), options };
        keys.read(field, column, seed)
    }
}

struct Keys<'a> {
    name: &'a str,
    options: &'a mut Options,
}

impl Keys<'_> {
    fn key(&self, option: &str) -> String {
        format!("fields.{}.{option}", self.name)
    }

    fn read(mut self, field: &Field, column: usize, seed: u64) -> Result<FieldSpec> {
        let kinds = [("random", Kind::Random), ("sequence", Kind::Sequence)];
        let values = match self.options.choice(&self.key("kind"), &kinds)?.unwrap_or(Kind::Random) {
            Kind::Random => self.random(field.data_type())?,
            Kind::Sequence => self.sequence(field.data_type())?,
        };
        Ok(FieldSpec {
            data_type: field.data_type().clone(),
            values,
            null_below: self.null_below(field)?,
            stream: Stream::new(seed, column as u64),
        })
    }

    fn null_below(&mut self, field: &Field) -> Result<Option<u64>> {
        let key = self.key("null-rate");
        let Some(rate) = self.options.parsed::<f64>(&key, "a share between 0 and 1")? else { return Ok(None) };
        if !(0.0..=1.0).contains(&rate) {
            return Err(bad_value(&key, &rate.to_string(), "a share between 0 and 1"));
        }
        if rate > 0.0 && !field.is_nullable() {
            return Err(Error::request(format!("option '{key}' is '{rate}', but column '{}' is NOT NULL", self.name)));
        }
        Ok((rate > 0.0).then_some((rate * u64::MAX as f64) as u64))
    }

    fn random(&mut self, data_type: &DataType) -> Result<Values> {
        Ok(match data_type {
            DataType::Boolean => Values::Booleans,
            DataType::Float32 => self.floats(f64::from(f32::MIN), f64::from(f32::MAX))?,
            DataType::Float64 => self.floats(f64::MIN, f64::MAX)?,
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Values::Strings { length: self.length()? },
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView => Values::Bytes { length: self.length()? },
            DataType::Timestamp(..) => Values::Past { max_past: self.max_past()? },
            DataType::Date32 => self.integers(0, i64::from(i32::MAX), 0, 20_000)?,
            other => {
                let (low, high) = integer_range(other).ok_or_else(|| self.no_values(other))?;
                self.integers(low, high, low, high)?
            }
        })
    }

    fn no_values(&self, data_type: &DataType) -> Error {
        Error::request(format!("datagen cannot make values for '{}' of type {}", self.name, sql_name(data_type)))
            .with_hint("make it a computed column over simpler ones")
    }

    fn length(&mut self) -> Result<usize> {
        let key = self.key("length");
        let length = self.options.parsed(&key, "a length")?.unwrap_or(LENGTH);
        match length <= LENGTH_MAX {
            true => Ok(length),
            false => Err(bad_value(&key, &length.to_string(), &format!("a length of at most {LENGTH_MAX}"))),
        }
    }

    fn max_past(&mut self) -> Result<u64> {
        let key = self.key("max-past");
        let past = self.options.duration(&key)?.unwrap_or(Duration::ZERO);
        Ok(u64::try_from(past.as_millis()).unwrap_or(u64::MAX))
    }

    /// `low` and `high` are what the type can hold, `min` and `max` the defaults.
    fn integers(&mut self, low: i64, high: i64, min: i64, max: i64) -> Result<Values> {
        let min = self.integer("min", low, high)?.unwrap_or(min);
        let max = self.integer("max", low, high)?.unwrap_or(max.max(min));
        if min > max {
            return Err(bad_value(&self.key("min"), &min.to_string(), &format!("at most the max, {max}")));
        }
        Ok(Values::Integers { min, span: max.wrapping_sub(min) as u64 })
    }

    fn integer(&mut self, option: &str, low: i64, high: i64) -> Result<Option<i64>> {
        let key = self.key(option);
        let Some(value) = self.options.parsed::<i64>(&key, "a whole number")? else { return Ok(None) };
        match (low..=high).contains(&value) {
            true => Ok(Some(value)),
            false => Err(bad_value(&key, &value.to_string(), &format!("a number from {low} to {high}"))),
        }
    }

    fn floats(&mut self, low: f64, high: f64) -> Result<Values> {
        let (min_key, max_key) = (self.key("min"), self.key("max"));
        let min = self.options.parsed(&min_key, "a number")?.unwrap_or(low);
        let max = self.options.parsed(&max_key, "a number")?.unwrap_or(high);
        match (min..=max).is_empty() || !min.is_finite() || !max.is_finite() {
            true => Err(bad_value(&min_key, &min.to_string(), &format!("at most the max, {max}"))),
            false => Ok(Values::Floats { min, max }),
        }
    }

    fn sequence(&mut self, data_type: &DataType) -> Result<Values> {
        if let DataType::Timestamp(unit, _) = data_type {
            return self.sequence_of_times(*unit);
        }
        let is_text = matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
        let (low, high) = match data_type {
            DataType::Float32 | DataType::Float64 => (-(1 << 53), 1 << 53),
            _ if is_text => (i64::MIN, i64::MAX),
            other => integer_range(other).ok_or_else(|| self.no_values(other))?,
        };
        let start = self.integer("start", low, high)?;
        let start = start.ok_or_else(|| Error::request(format!("datagen needs option '{}'", self.key("start"))))?;
        let end = self.integer("end", low, high)?;
        // What has no end of its own ends where its type does.
        let rows = rows_between(start, end.unwrap_or(high), 1);
        Ok(match is_text {
            true => Values::SequenceOfStrings { start, rows: end.and(Some(rows)) },
            false => Values::Sequence { start, step: 1, rows: (end.is_some() || high < i64::MAX).then_some(rows) },
        })
    }

    fn sequence_of_times(&mut self, unit: TimeUnit) -> Result<Values> {
        let start = self.time("start", unit)?.unwrap_or(0);
        let end = self.time("end", unit)?;
        let key = self.key("step");
        let step = self.options.duration(&key)?.unwrap_or(Duration::from_millis(1));
        let step_nanos = i64::try_from(step.as_nanos()).unwrap_or(i64::MAX);
        let tick = 1_000_000_000 / per_second(unit);
        if step_nanos == 0 || step_nanos % tick != 0 {
            let expected = format!("a duration that TIMESTAMP of {unit:?}s can count");
            return Err(bad_value(&key, &format!("{step:?}"), &expected));
        }
        let step = step_nanos / tick;
        Ok(Values::Sequence { start, step, rows: end.map(|end| rows_between(start, end, step)) })
    }

    /// A time as ISO-8601 text, or as a number of the column's own units since 1970.
    fn time(&mut self, option: &str, unit: TimeUnit) -> Result<Option<i64>> {
        let key = self.key(option);
        let Some(text) = self.options.optional(&key) else { return Ok(None) };
        let number = text.trim().parse().ok();
        let time = number.or_else(|| parse_instant(text.trim(), unit, Calendar::Utc));
        time.map(Some).ok_or_else(|| bad_value(&key, &text, "a time such as 2026-01-01T00:00:00"))
    }
}

fn rows_between(start: i64, end: i64, step: i64) -> u64 {
    match end < start {
        true => 0,
        false => ((end.wrapping_sub(start) as u64) / step.unsigned_abs()).saturating_add(1),
    }
}

/// The least and the greatest whole number that a column can hold.
fn integer_range(data_type: &DataType) -> Option<(i64, i64)> {
    Some(match data_type {
        DataType::Int8 => (i8::MIN.into(), i8::MAX.into()),
        DataType::Int16 => (i16::MIN.into(), i16::MAX.into()),
        DataType::Int32 => (i32::MIN.into(), i32::MAX.into()),
        DataType::Int64 => (i64::MIN, i64::MAX),
        DataType::UInt8 => (0, u8::MAX.into()),
        DataType::UInt16 => (0, u16::MAX.into()),
        DataType::UInt32 => (0, u32::MAX.into()),
        DataType::UInt64 => (0, i64::MAX),
        // Whole numbers of the last digit: the default range is every value of the type that fits 64 bits.
        DataType::Decimal128(precision, _) => {
            let digits = u32::from(*precision).min(18);
            (1 - 10i64.pow(digits), 10i64.pow(digits) - 1)
        }
        DataType::Date32 => (i64::from(i32::MIN), i64::from(i32::MAX)),
        DataType::Time32(unit) | DataType::Time64(unit) => (0, 86_400 * per_second(*unit) - 1),
        _ => return None,
    })
}
