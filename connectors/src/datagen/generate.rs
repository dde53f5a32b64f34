//! Makes columns: hot loops over row numbers, one per type.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Float32Array, Float64Array, PrimitiveArray, StringArray, make_array,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::cast;
use arrow::datatypes as t;
use arrow::datatypes::{ArrowNativeType, ArrowPrimitiveType, DataType};
use tidemill_core::error::{Error, Result};
use tidemill_core::time::{millis_to_unit, time_type};

use super::field::{FieldSpec, Values};
use super::mix::{Stream, unit, up_to};

/// Forks of a column's stream: values take the stream itself.
const NULLS: u64 = 1;
const DIGITS: u64 = 2;

impl FieldSpec {
    /// The values of rows `first .. first + count`. `now` is the time of day, which only random times look at.
    pub(super) fn generate(&self, first: u64, count: usize, now: i64) -> Result<ArrayRef> {
        let rows = Rows { first, count };
        let nulls = self.null_below.map(|below| {
            let stream = self.stream.fork(NULLS);
            NullBuffer::new(BooleanBuffer::collect_bool(count, |at| stream.at(rows.at(at)) >= below))
        });
        let values = self.values(rows, now)?;
        let Some(nulls) = nulls else { return Ok(values) };
        let data = values.to_data().into_builder().nulls(Some(nulls)).build()?;
        Ok(make_array(data))
    }

    fn values(&self, rows: Rows, now: i64) -> Result<ArrayRef> {
        let stream = self.stream;
        match &self.values {
            Values::Integers { min, span } => {
                let (min, span) = (*min, *span);
                self.integers(rows, move |row| min.wrapping_add(up_to(stream.at(row), span) as i64))
            }
            Values::Sequence { start, step, .. } => {
                let (start, step) = (*start, *step);
                self.integers(rows, move |row| start.wrapping_add((row as i64).wrapping_mul(step)))
            }
            Values::Past { max_past } => {
                let (unit, _) = time_type("datagen", &self.data_type)?;
                let (scale, now) = (millis_to_unit(1_000, unit)?, millis_to_unit(now, unit)?);
                let span = (*max_past).saturating_mul(scale as u64) / 1_000;
                self.integers(rows, move |row| now.saturating_sub(up_to(stream.at(row), span) as i64))
            }
            Values::Floats { min, max } => {
                let (min, max) = (*min, *max);
                // Not `min + u * (max - min)`: the width of the whole range is more than a double can hold.
                let value = move |row| {
                    let share = unit(stream.at(row));
                    (min * (1.0 - share) + max * share).clamp(min, max)
                };
                Ok(match self.data_type {
                    DataType::Float32 => {
                        Arc::new(Float32Array::from_iter_values(rows.iter().map(|row| value(row) as f32)))
                    }
                    _ => Arc::new(Float64Array::from_iter_values(rows.iter().map(value))),
                })
            }
            Values::Booleans => {
                let bits = BooleanBuffer::collect_bool(rows.count, |at| stream.at(rows.at(at)) >> 63 == 1);
                Ok(Arc::new(BooleanArray::new(bits, None)))
            }
            Values::Strings { length } => self.strings(hexadecimal(stream.fork(DIGITS), rows, *length)?),
            Values::Bytes { length } => {
                let bytes = random_bytes(stream.fork(DIGITS), rows, *length);
                let offsets = OffsetBuffer::from_lengths(std::iter::repeat_n(*length, rows.count));
                let array = BinaryArray::try_new(offsets, bytes.into(), None)?;
                Ok(cast(&array, &self.data_type)?)
            }
            Values::SequenceOfStrings { start, .. } => {
                let numbers = rows.iter().map(|row| start.wrapping_add(row as i64).to_string());
                self.strings(StringArray::from_iter_values(numbers))
            }
        }
    }

    fn strings(&self, array: StringArray) -> Result<ArrayRef> {
        match self.data_type {
            DataType::Utf8 => Ok(Arc::new(array)),
            ref other => Ok(cast(&array, other)?),
        }
    }

    /// Whole numbers as whatever type of fixed width the column has.
    fn integers(&self, rows: Rows, value: impl Fn(u64) -> i64 + Copy) -> Result<ArrayRef> {
        use DataType as D;
        use arrow::datatypes::TimeUnit::{Microsecond, Millisecond, Nanosecond, Second};
        Ok(match self.data_type {
            D::Int8 => self.primitive::<t::Int8Type>(rows, |row| value(row) as i8),
            D::Int16 => self.primitive::<t::Int16Type>(rows, |row| value(row) as i16),
            D::Int32 => self.primitive::<t::Int32Type>(rows, |row| value(row) as i32),
            D::Int64 => self.primitive::<t::Int64Type>(rows, value),
            D::UInt8 => self.primitive::<t::UInt8Type>(rows, |row| value(row) as u8),
            D::UInt16 => self.primitive::<t::UInt16Type>(rows, |row| value(row) as u16),
            D::UInt32 => self.primitive::<t::UInt32Type>(rows, |row| value(row) as u32),
            D::UInt64 => self.primitive::<t::UInt64Type>(rows, |row| value(row) as u64),
            D::Float32 => self.primitive::<t::Float32Type>(rows, |row| value(row) as f32),
            D::Float64 => self.primitive::<t::Float64Type>(rows, |row| value(row) as f64),
            D::Decimal128(..) => self.primitive::<t::Decimal128Type>(rows, |row| i128::from(value(row))),
            D::Date32 => self.primitive::<t::Date32Type>(rows, |row| value(row) as i32),
            D::Time32(Second) => self.primitive::<t::Time32SecondType>(rows, |row| value(row) as i32),
            D::Time32(_) => self.primitive::<t::Time32MillisecondType>(rows, |row| value(row) as i32),
            D::Time64(Microsecond) => self.primitive::<t::Time64MicrosecondType>(rows, value),
            D::Time64(_) => self.primitive::<t::Time64NanosecondType>(rows, value),
            D::Timestamp(Second, _) => self.primitive::<t::TimestampSecondType>(rows, value),
            D::Timestamp(Millisecond, _) => self.primitive::<t::TimestampMillisecondType>(rows, value),
            D::Timestamp(Microsecond, _) => self.primitive::<t::TimestampMicrosecondType>(rows, value),
            D::Timestamp(Nanosecond, _) => self.primitive::<t::TimestampNanosecondType>(rows, value),
            ref other => return Err(Error::internal(format!("datagen has no whole numbers for {other}"))),
        })
    }

    fn primitive<T: ArrowPrimitiveType>(&self, rows: Rows, value: impl Fn(u64) -> T::Native) -> ArrayRef
    where
        T::Native: ArrowNativeType,
    {
        let values: Vec<T::Native> = rows.iter().map(value).collect();
        let array = PrimitiveArray::<T>::new(ScalarBuffer::from(values), None);
        Arc::new(array.with_data_type(self.data_type.clone()))
    }
}

/// Consecutive row numbers.
#[derive(Clone, Copy)]
struct Rows {
    first: u64,
    count: usize,
}

impl Rows {
    fn at(self, at: usize) -> u64 {
        self.first + at as u64
    }

    fn iter(self) -> impl ExactSizeIterator<Item = u64> {
        (0..self.count).map(move |at| self.at(at))
    }
}

/// Strings of `length` hexadecimal digits, sixteen a random number.
fn hexadecimal(stream: Stream, rows: Rows, length: usize) -> Result<StringArray> {
    const DIGIT: &[u8; 16] = b"0123456789abcdef";
    let words = length.div_ceil(16) as u64;
    let mut text = Vec::with_capacity(rows.count * length);
    for row in rows.iter() {
        let end = text.len() + length;
        for word in 0..words {
            let random = stream.at(row.wrapping_mul(words).wrapping_add(word));
            let digits = (0..16).map(|digit| DIGIT[(random >> (4 * digit)) as usize & 15]);
            text.extend(digits.take(end - text.len()));
        }
    }
    let offsets = OffsetBuffer::from_lengths(std::iter::repeat_n(length, rows.count));
    Ok(StringArray::try_new(offsets, Buffer::from_vec(text), None)?)
}

fn random_bytes(stream: Stream, rows: Rows, length: usize) -> Vec<u8> {
    let words = length.div_ceil(8) as u64;
    let mut bytes = Vec::with_capacity(rows.count * length);
    for row in rows.iter() {
        let end = bytes.len() + length;
        for word in 0..words {
            let random = stream.at(row.wrapping_mul(words).wrapping_add(word)).to_le_bytes();
            bytes.extend_from_slice(&random[..random.len().min(end - bytes.len())]);
        }
    }
    bytes
}
