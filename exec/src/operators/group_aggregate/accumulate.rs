//! Accumulators that live on: columns over slots that take rows in and back, and can be asked at any time.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowNativeTypeOp, ArrowPrimitiveType, AsArray, BooleanArray, Float64Array, Int64Array,
    PrimitiveArray, UInt32Array,
};
use arrow::buffer::NullBuffer;
use arrow::compute::take;
use arrow::datatypes::{
    DataType, Decimal128Type, Decimal256Type, Field, FieldRef, Fields, Float64Type, Int64Type, UInt64Type,
};
use arrow::row::{RowConverter, SortField};
use tidemill_core::state::{append_cells, resize_cells};
use tidemill_core::{Error, Result};
use xxhash_rust::xxh3::Xxh3Default;

use super::counted_values::{counted_values_field, decode_counted_values, encode_counted_values};
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
/// can be seen. A cleared slot is as new. `decode` of what `encode` gave, into any slots, cannot be told apart from what was encoded.
pub trait LiveAccumulator: Send {
    /// The columns that it encodes to.
    fn fields(&self) -> Fields;

    /// What these slots hold, as columns.
    fn encode(&self, slots: &[usize]) -> Result<Vec<ArrayRef>>;

    /// Fills these slots with what `encode` gave for others.
    fn decode(&mut self, slots: &[usize], columns: &[ArrayRef]) -> Result<()>;

    /// Adds these slots behind all others, filled as by `decode`.
    fn append(&mut self, slots: Range<usize>, columns: &[ArrayRef]) -> Result<()> {
        self.resize(slots.end);
        self.decode(&slots.collect::<Vec<_>>(), columns)
    }

    /// There are `slots` slots now.
    fn resize(&mut self, slots: usize);

    /// So many more slots are coming.
    fn reserve(&mut self, _slots: usize) {}

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

/// A column of encoded state.
pub fn column(name: &str, data_type: &DataType) -> FieldRef {
    Arc::new(Field::new(name, data_type.clone(), true))
}

/// Puts values into slots.
fn put<T: ArrowPrimitiveType>(cells: &mut [T::Native], slots: &[usize], values: &PrimitiveArray<T>) {
    slots.iter().zip(values.values()).for_each(|(slot, value)| cells[*slot] = *value);
}

/// `COUNT`.
#[derive(Default)]
struct Count(Vec<i64>);

impl LiveAccumulator for Count {
    fn fields(&self) -> Fields {
        [column("count", &DataType::Int64)].into()
    }

    fn encode(&self, slots: &[usize]) -> Result<Vec<ArrayRef>> {
        Ok(vec![Arc::new(Int64Array::from_iter_values(slots.iter().map(|slot| self.0[*slot])))])
    }

    fn decode(&mut self, slots: &[usize], columns: &[ArrayRef]) -> Result<()> {
        put(&mut self.0, slots, columns[0].as_primitive::<Int64Type>());
        Ok(())
    }

    fn append(&mut self, slots: Range<usize>, columns: &[ArrayRef]) -> Result<()> {
        append_cells(&mut self.0, slots, columns[0].as_primitive::<Int64Type>().values())
    }

    fn resize(&mut self, slots: usize) {
        resize_cells(&mut self.0, slots, || 0);
    }

    fn reserve(&mut self, slots: usize) {
        self.0.reserve(slots);
    }

    fn update(&mut self, changes: &Changes<'_>, arguments: &Arguments) -> Result<()> {
        for (row, slot) in changes.rows(arguments) {
            self.0[slot] += if changes.adds(row) { 1 } else { -1 };
        }
        Ok(())
    }

    fn evaluate(&mut self, slots: &[usize]) -> Result<ArrayRef> {
        Ok(Arc::new(Int64Array::from_iter_values(slots.iter().map(|slot| self.0[*slot]))))
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
    fn fields(&self) -> Fields {
        [column("sum", &self.data_type), column("count", &DataType::Int64)].into()
    }

    fn encode(&self, slots: &[usize]) -> Result<Vec<ArrayRef>> {
        let sums: Vec<T::Native> = slots.iter().map(|slot| self.sums[*slot]).collect();
        let sums = PrimitiveArray::<T>::new(sums.into(), None).with_data_type(self.data_type.clone());
        let counts = Int64Array::from_iter_values(slots.iter().map(|slot| self.counts[*slot]));
        Ok(vec![Arc::new(sums), Arc::new(counts)])
    }

    fn decode(&mut self, slots: &[usize], columns: &[ArrayRef]) -> Result<()> {
        put(&mut self.sums, slots, columns[0].as_primitive::<T>());
        put(&mut self.counts, slots, columns[1].as_primitive::<Int64Type>());
        Ok(())
    }

    fn append(&mut self, slots: Range<usize>, columns: &[ArrayRef]) -> Result<()> {
        append_cells(&mut self.sums, slots.clone(), columns[0].as_primitive::<T>().values())?;
        append_cells(&mut self.counts, slots, columns[1].as_primitive::<Int64Type>().values())
    }

    fn resize(&mut self, slots: usize) {
        resize_cells(&mut self.sums, slots, || T::Native::ZERO);
        resize_cells(&mut self.counts, slots, || 0);
    }

    fn reserve(&mut self, slots: usize) {
        self.sums.reserve(slots);
        self.counts.reserve(slots);
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
    fn fields(&self) -> Fields {
        [column("sum", &DataType::Float64), column("count", &DataType::Int64)].into()
    }

    fn encode(&self, slots: &[usize]) -> Result<Vec<ArrayRef>> {
        let sums: Float64Array = slots.iter().map(|slot| Some(self.sums[*slot])).collect();
        let counts = Int64Array::from_iter_values(slots.iter().map(|slot| self.counts[*slot]));
        Ok(vec![Arc::new(sums), Arc::new(counts)])
    }

    fn decode(&mut self, slots: &[usize], columns: &[ArrayRef]) -> Result<()> {
        put(&mut self.sums, slots, columns[0].as_primitive::<Float64Type>());
        put(&mut self.counts, slots, columns[1].as_primitive::<Int64Type>());
        Ok(())
    }

    fn resize(&mut self, slots: usize) {
        resize_cells(&mut self.sums, slots, || 0.0);
        resize_cells(&mut self.counts, slots, || 0);
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
    types: Vec<DataType>,
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
        let converter = RowConverter::new(fields)?;
        Ok(Self { inner, types: types.to_vec(), converter, seen: Vec::new(), value_bytes: 0 })
    }
}

impl LiveAccumulator for Distinct {
    fn fields(&self) -> Fields {
        let seen = counted_values_field(self.types.clone());
        self.inner.fields().iter().cloned().chain([seen]).collect()
    }

    fn encode(&self, slots: &[usize]) -> Result<Vec<ArrayRef>> {
        let mut columns = self.inner.encode(slots)?;
        let of_slot = |slot: &usize| {
            let mut values: Vec<(&[u8], i64)> =
                self.seen[*slot].iter().map(|(value, count)| (value.as_ref(), *count)).collect();
            values.sort_unstable();
            values
        };
        columns.push(encode_counted_values(&self.converter, &self.types, slots.iter().map(of_slot))?);
        Ok(columns)
    }

    fn decode(&mut self, slots: &[usize], columns: &[ArrayRef]) -> Result<()> {
        let (seen, inner) = columns.split_last().ok_or_else(|| Error::corrupt("an aggregate without columns"))?;
        slots.iter().for_each(|slot| self.clear(*slot));
        self.inner.decode(slots, inner)?;
        let (all, bytes) = (&mut self.seen, &mut self.value_bytes);
        decode_counted_values(&self.converter, seen, |row, value, count| {
            *bytes += value.len() + VALUE_OVERHEAD;
            all[slots[row]].insert(value.into(), count);
        })
    }

    fn resize(&mut self, slots: usize) {
        self.inner.resize(slots);
        resize_cells(&mut self.seen, slots, ValueCounts::default);
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
