//! Accumulators that live on: columns over slots that take rows in and back, and can be asked at any time.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowNativeTypeOp, ArrowPrimitiveType, AsArray, BooleanArray, Int64Array, PrimitiveArray,
    UInt32Array,
};
use arrow::buffer::NullBuffer;
use arrow::compute::take;
use arrow::datatypes::{DataType, Decimal128Type, Decimal256Type, Float64Type, Int64Type, UInt64Type};
use arrow::row::{RowConverter, SortField};
use tidemill_core::Result;
use xxhash_rust::xxh3::Xxh3Default;

use super::fallback::Fallback;
use super::min_max::MinMax;
use crate::operators::aggregate::{Aggregate, Arguments};

/// Rows that come and go: a slot each, and whether it comes.
#[derive(Clone, Copy, Debug)]
pub struct Changes<'a> {
    /// The group of each row.
    pub slots: &'a [usize],
    /// `false` takes the row back; `None` adds all.
    pub additions: Option<&'a [bool]>,
}

impl Changes<'_> {
    /// Whether this row is added.
    pub fn adds(&self, row: usize) -> bool {
        self.additions.is_none_or(|additions| additions[row])
    }

    /// Rows that count: those that pass the filter and have a value.
    pub fn rows<'a>(&'a self, arguments: &'a Arguments) -> impl Iterator<Item = (usize, usize)> + 'a {
        let nulls = arguments.values.first().and_then(|values| values.logical_nulls());
        let counts = move |row: usize| {
            let passes = |filter: &BooleanArray| filter.is_valid(row) && filter.value(row);
            arguments.filter.as_ref().is_none_or(passes) && nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row))
        };
        self.slots.iter().copied().enumerate().filter(move |(row, _)| counts(*row))
    }
}

/// One aggregate of all groups.
///
/// Laws: taking back what was added leaves what was there before (floats: but for rounding). `evaluate` changes nothing that
/// can be seen. A cleared slot is as new.
pub trait LiveAccumulator: Send {
    /// There are `slots` slots now.
    fn resize(&mut self, slots: usize);

    /// Rows come and go.
    fn update(&mut self, changes: &Changes<'_>, arguments: &Arguments) -> Result<()>;

    /// The results of these slots.
    fn evaluate(&mut self, slots: &[usize]) -> Result<ArrayRef>;

    /// The slot is empty and may be used for another key.
    fn clear(&mut self, slot: usize);

    /// Bytes that it occupies, roughly.
    fn memory_bytes(&self) -> usize;
}

/// What a value in a tree or table of values occupies beside its own bytes: its pointers, its count and its share of the nodes.
pub const VALUE_OVERHEAD: usize = 48;

/// The accumulator of `aggregate`; an error if it would have to take rows back and cannot.
pub fn live_accumulator(aggregate: &Aggregate, retracts: bool) -> Result<Box<dyn LiveAccumulator>> {
    let Some(plain) = plain_accumulator(aggregate, retracts)? else {
        return Ok(Box::new(Fallback::new(aggregate, retracts)?));
    };
    // The least of distinct values is the least of all.
    let ignores_copies = matches!(aggregate.function.fun().name(), "min" | "max");
    match aggregate.function.is_distinct() && !ignores_copies {
        true => Ok(Box::new(Distinct::new(plain, &aggregate.argument_types)?)),
        false => Ok(plain),
    }
}

/// Our own accumulator for this function, if there is one; `DISTINCT` is not its business.
fn plain_accumulator(aggregate: &Aggregate, retracts: bool) -> Result<Option<Box<dyn LiveAccumulator>>> {
    let function = &aggregate.function;
    let result = function.field().data_type().clone();
    let [argument] = aggregate.argument_types.as_slice() else { return Ok(None) };
    let argument = argument.clone();
    Ok(match (function.fun().name(), &result) {
        ("count", DataType::Int64) => Some(Box::new(Count::default())),
        ("sum", DataType::Int64) if argument == result => Some(Box::new(Sum::<Int64Type>::new(result))),
        ("sum", DataType::UInt64) if argument == result => Some(Box::new(Sum::<UInt64Type>::new(result))),
        ("sum", DataType::Float64) if argument == result => Some(Box::new(Sum::<Float64Type>::new(result))),
        ("sum", DataType::Decimal128(..)) if same_width(&argument, &result) => {
            Some(Box::new(Sum::<Decimal128Type>::new(result)))
        }
        ("sum", DataType::Decimal256(..)) if same_width(&argument, &result) => {
            Some(Box::new(Sum::<Decimal256Type>::new(result)))
        }
        ("avg", DataType::Float64) if argument == DataType::Float64 => Some(Box::new(Average::default())),
        ("min", _) => Some(Box::new(MinMax::new(&argument, false, retracts)?)),
        ("max", _) => Some(Box::new(MinMax::new(&argument, true, retracts)?)),
        _ => None,
    })
}

fn same_width(argument: &DataType, result: &DataType) -> bool {
    match (argument, result) {
        (DataType::Decimal128(_, from), DataType::Decimal128(_, to)) => from == to,
        (DataType::Decimal256(_, from), DataType::Decimal256(_, to)) => from == to,
        _ => false,
    }
}

/// `COUNT`.
#[derive(Default)]
struct Count(Vec<i64>);

impl LiveAccumulator for Count {
    fn resize(&mut self, slots: usize) {
        self.0.resize(slots, 0);
    }

    fn update(&mut self, changes: &Changes<'_>, arguments: &Arguments) -> Result<()> {
        for (row, slot) in changes.rows(arguments) {
            self.0[slot] += if changes.adds(row) { 1 } else { -1 };
        }
        Ok(())
    }

    fn evaluate(&mut self, slots: &[usize]) -> Result<ArrayRef> {
        Ok(Arc::new(slots.iter().map(|slot| Some(self.0[*slot])).collect::<Int64Array>()))
    }

    fn clear(&mut self, slot: usize) {
        self.0[slot] = 0;
    }

    fn memory_bytes(&self) -> usize {
        self.0.capacity() * size_of::<i64>()
    }
}

/// `SUM`: wraps on overflow as DataFusion's does; NULL while no value is in it.
struct Sum<T: ArrowPrimitiveType> {
    data_type: DataType,
    sums: Vec<T::Native>,
    counts: Vec<i64>,
}

impl<T: ArrowPrimitiveType> Sum<T> {
    fn new(data_type: DataType) -> Self {
        Self { data_type, sums: Vec::new(), counts: Vec::new() }
    }
}

impl<T: ArrowPrimitiveType> LiveAccumulator for Sum<T>
where
    T::Native: ArrowNativeTypeOp,
{
    fn resize(&mut self, slots: usize) {
        self.sums.resize(slots, T::Native::ZERO);
        self.counts.resize(slots, 0);
    }

    fn update(&mut self, changes: &Changes<'_>, arguments: &Arguments) -> Result<()> {
        let values = arguments.values[0].as_primitive::<T>().values();
        for (row, slot) in changes.rows(arguments) {
            let sum = &mut self.sums[slot];
            match changes.adds(row) {
                true => {
                    *sum = sum.add_wrapping(values[row]);
                    self.counts[slot] += 1;
                }
                false => {
                    *sum = sum.sub_wrapping(values[row]);
                    self.counts[slot] -= 1;
                }
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, slots: &[usize]) -> Result<ArrayRef> {
        let valid: NullBuffer = slots.iter().map(|slot| self.counts[*slot] > 0).collect::<Vec<bool>>().into();
        let sums: Vec<T::Native> = slots.iter().map(|slot| self.sums[*slot]).collect();
        let array = PrimitiveArray::<T>::new(sums.into(), Some(valid)).with_data_type(self.data_type.clone());
        Ok(Arc::new(array))
    }

    fn clear(&mut self, slot: usize) {
        self.sums[slot] = T::Native::ZERO;
        self.counts[slot] = 0;
    }

    fn memory_bytes(&self) -> usize {
        self.sums.capacity() * size_of::<T::Native>() + self.counts.capacity() * size_of::<i64>()
    }
}

/// `AVG` of doubles; integers were cast before.
#[derive(Default)]
struct Average {
    sums: Vec<f64>,
    counts: Vec<i64>,
}

impl LiveAccumulator for Average {
    fn resize(&mut self, slots: usize) {
        self.sums.resize(slots, 0.0);
        self.counts.resize(slots, 0);
    }

    fn update(&mut self, changes: &Changes<'_>, arguments: &Arguments) -> Result<()> {
        let values = arguments.values[0].as_primitive::<Float64Type>().values();
        for (row, slot) in changes.rows(arguments) {
            let sign = if changes.adds(row) { 1 } else { -1 };
            self.sums[slot] += values[row] * sign as f64;
            self.counts[slot] += sign;
        }
        Ok(())
    }

    fn evaluate(&mut self, slots: &[usize]) -> Result<ArrayRef> {
        let average = |slot: &usize| (self.counts[*slot] > 0).then(|| self.sums[*slot] / self.counts[*slot] as f64);
        Ok(Arc::new(slots.iter().map(average).collect::<PrimitiveArray<Float64Type>>()))
    }

    fn clear(&mut self, slot: usize) {
        self.sums[slot] = 0.0;
        self.counts[slot] = 0;
    }

    fn memory_bytes(&self) -> usize {
        self.sums.capacity() * size_of::<f64>() + self.counts.capacity() * size_of::<i64>()
    }
}

/// `DISTINCT` before another aggregate: a value is added when it comes for the first time, taken back when it is gone.
struct Distinct {
    inner: Box<dyn LiveAccumulator>,
    converter: RowConverter,
    /// How often each value is there, by slot.
    seen: Vec<ValueCounts>,
    value_bytes: usize,
}

/// Occurrences by encoded value, under a hasher that is the same in every run.
type ValueCounts = HashMap<Box<[u8]>, i64, BuildHasherDefault<Xxh3Default>>;

impl Distinct {
    fn new(inner: Box<dyn LiveAccumulator>, types: &[DataType]) -> Result<Self> {
        let fields = types.iter().map(|data_type| SortField::new(data_type.clone())).collect();
        Ok(Self { inner, converter: RowConverter::new(fields)?, seen: Vec::new(), value_bytes: 0 })
    }
}

impl LiveAccumulator for Distinct {
    fn resize(&mut self, slots: usize) {
        self.inner.resize(slots);
        self.seen.resize_with(slots, ValueCounts::default);
    }

    fn update(&mut self, changes: &Changes<'_>, arguments: &Arguments) -> Result<()> {
        let columns: Vec<ArrayRef> = arguments.values.iter().map(crate::state::key_index::folded_floats).collect();
        let encoded = self.converter.convert_columns(&columns)?;
        let (mut rows, mut slots, mut additions) = (Vec::new(), Vec::new(), Vec::new());
        for (row, slot) in changes.rows(arguments) {
            let adds = changes.adds(row);
            let value = encoded.row(row);
            let count = self.seen[slot].entry(value.as_ref().into()).or_insert(0);
            *count += if adds { 1 } else { -1 };
            let (first, gone) = (adds && *count == 1, !adds && *count == 0);
            let bytes = value.as_ref().len() + VALUE_OVERHEAD;
            if first {
                self.value_bytes += bytes;
            }
            if gone {
                self.seen[slot].remove(value.as_ref());
                self.value_bytes = self.value_bytes.saturating_sub(bytes);
            }
            if first || gone {
                rows.push(row as u32);
                slots.push(slot);
                additions.push(first);
            }
        }
        let rows = UInt32Array::from(rows);
        let values = arguments.values.iter().map(|values| Ok(take(values, &rows, None)?)).collect::<Result<_>>()?;
        let changes = Changes { slots: &slots, additions: Some(&additions) };
        self.inner.update(&changes, &Arguments { values, filter: None })
    }

    fn evaluate(&mut self, slots: &[usize]) -> Result<ArrayRef> {
        self.inner.evaluate(slots)
    }

    fn clear(&mut self, slot: usize) {
        self.inner.clear(slot);
        let seen = std::mem::take(&mut self.seen[slot]);
        let bytes: usize = seen.keys().map(|value| value.len() + VALUE_OVERHEAD).sum();
        self.value_bytes = self.value_bytes.saturating_sub(bytes);
    }

    fn memory_bytes(&self) -> usize {
        self.inner.memory_bytes() + self.seen.capacity() * size_of::<ValueCounts>() + self.value_bytes
    }
}
