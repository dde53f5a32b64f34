//! Where a key lives: the fixed hash, key groups, and the subtask that owns a group (SUB-07).
//!
//! The hash places state, so it never changes: it is versioned in every checkpoint and pinned by golden tests. A row's key
//! bytes are its key columns one after the other, each `0` for NULL or `1` and the value:
//!
//! | type | bytes |
//! | --- | --- |
//! | integers, decimals, dates, times, timestamps, intervals | little-endian, in the type's own width |
//! | floats | the same, after `-0.0` became `0.0` and every NaN the canonical one |
//! | boolean | one byte |
//! | strings, binary (plain, large, view) | length as `u32` little-endian, then the bytes |
//! | dictionary, run-end encoded | those of the value, never of the code |
//! | struct | its fields, each with its own NULL byte |
//! | list, map | length as `u32`, then the elements |
//!
//! The hash is xxh3-64 with seed 0 over those bytes.

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray};
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::{ArrowNativeType, DataType, Float16Type, Float32Type, Float64Type, ToByteSlice};
use arrow::downcast_primitive_array;
use xxhash_rust::xxh3::xxh3_64;

use crate::error::{Error, Result};

/// Version of the key encoding and hash, stored in every manifest.
pub const HASH_VERSION: u32 = 1;

/// The key group of a hash: its *high* 32 bits scaled to `0 .. max_parallelism`.
///
/// Hash tables use the low bits; were both taken from the same end, all keys of a subtask would share their tag.
#[inline]
pub fn key_group(hash: u64, max_parallelism: u32) -> u32 {
    (((hash >> 32) * u64::from(max_parallelism)) >> 32) as u32
}

/// The subtask that owns a key group.
///
/// ```
/// # use tidemill_core::key::subtask_of;
/// assert_eq!((0..6).map(|group| subtask_of(group, 3, 6)).collect::<Vec<_>>(), [0, 0, 1, 1, 2, 2]);
/// ```
pub fn subtask_of(group: u32, parallelism: usize, max_parallelism: u32) -> usize {
    group as usize * parallelism / max_parallelism as usize
}

/// The key groups that a subtask owns, as a half-open range: the inverse of [`subtask_of`].
pub fn groups_of(subtask: usize, parallelism: usize, max_parallelism: u32) -> std::ops::Range<u32> {
    let bound = |subtask: usize| (subtask * max_parallelism as usize).div_ceil(parallelism) as u32;
    bound(subtask)..bound(subtask + 1)
}

/// The hash of every row's key, made of `columns` (all of one length).
pub fn hash_columns(columns: &[ArrayRef], rows: usize) -> Result<ScalarBuffer<u64>> {
    if let [column] = columns
        && let Some(hashes) = hash_primitive(column)
    {
        return Ok(hashes);
    }
    let columns = columns.iter().map(decoded).collect::<Result<Vec<_>>>()?;
    let mut bytes = Vec::with_capacity(64);
    let mut hashes = Vec::with_capacity(rows);
    for row in 0..rows {
        bytes.clear();
        for column in &columns {
            append_key_bytes(column.as_ref(), row, &mut bytes)?;
        }
        hashes.push(xxh3_64(&bytes));
    }
    Ok(hashes.into())
}

/// Whether values of this type can be a key; checked when a plan is made, so that no row meets the error.
pub fn is_hashable(data_type: &DataType) -> bool {
    match data_type {
        DataType::Union(..) => false,
        DataType::Dictionary(_, value) => is_hashable(value),
        DataType::RunEndEncoded(_, values) => is_hashable(values.data_type()),
        DataType::Struct(fields) => fields.iter().all(|field| is_hashable(field.data_type())),
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::FixedSizeList(item, _)
        | DataType::Map(item, _) => is_hashable(item.data_type()),
        DataType::ListView(_) | DataType::LargeListView(_) => false,
        _ => true,
    }
}

/// One primitive column, the usual key: no byte vector, the key bytes live in a register.
fn hash_primitive(column: &ArrayRef) -> Option<ScalarBuffer<u64>> {
    fn hash<T: ArrowPrimitiveType>(array: &PrimitiveArray<T>) -> Option<ScalarBuffer<u64>> {
        // Put together in a register: bytes that were just written one by one are read again some ten nanoseconds later.
        fn narrow<const N: usize, V: ToByteSlice>(value: &V) -> u64 {
            let mut bytes = [0; 16];
            bytes[..N].copy_from_slice(value.to_byte_slice());
            let tagged = u128::from_le_bytes(bytes) << 8 | 1;
            xxh3_64(&tagged.to_le_bytes()[..=N])
        }
        fn wide<V: ToByteSlice>(value: &V) -> u64 {
            let mut bytes = [1; 17];
            bytes[1..].copy_from_slice(value.to_byte_slice());
            xxh3_64(&bytes)
        }
        let one = |value: &T::Native| match size_of::<T::Native>() {
            1 => narrow::<1, _>(value),
            2 => narrow::<2, _>(value),
            4 => narrow::<4, _>(value),
            8 => narrow::<8, _>(value),
            _ => wide(value),
        };
        (size_of::<T::Native>() <= 16).then(|| match array.nulls() {
            None => array.values().iter().map(one).collect(),
            Some(nulls) => {
                let null = xxh3_64(&[0]);
                let rows = array.values().iter().zip(nulls.iter());
                rows.map(|(value, valid)| if valid { one(value) } else { null }).collect()
            }
        })
    }
    let column = column.as_ref();
    match column.data_type() {
        DataType::Float16 | DataType::Float32 | DataType::Float64 => None,
        _ => downcast_primitive_array!(column => hash(column), _ => None),
    }
}

/// A column as plain values: codes of a dictionary and run ends never reach the hash.
fn decoded(column: &ArrayRef) -> Result<ArrayRef> {
    let target = match column.data_type() {
        DataType::Dictionary(_, value) => value.as_ref(),
        DataType::RunEndEncoded(_, values) => values.data_type(),
        _ => return Ok(column.clone()),
    };
    Ok(arrow::compute::cast(column, target)?)
}

/// Appends the key bytes of one value. Public for encoded keys in state, which must agree with the hash.
pub fn append_key_bytes(array: &dyn Array, row: usize, bytes: &mut Vec<u8>) -> Result<()> {
    if array.is_null(row) {
        bytes.push(0);
        return Ok(());
    }
    fn fixed<T: ArrowPrimitiveType>(array: &PrimitiveArray<T>, row: usize, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(array.value(row).to_byte_slice());
    }
    fn sized(value: &[u8], bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&(value.len() as u32).to_le_bytes());
        bytes.extend_from_slice(value);
    }
    fn elements(list: ArrayRef, bytes: &mut Vec<u8>) -> Result<()> {
        bytes.extend_from_slice(&(list.len() as u32).to_le_bytes());
        (0..list.len()).try_for_each(|row| append_key_bytes(list.as_ref(), row, bytes))
    }
    if !matches!(array.data_type(), DataType::Dictionary(..) | DataType::RunEndEncoded(..)) {
        bytes.push(1);
    }
    match array.data_type() {
        DataType::Boolean => bytes.push(u8::from(array.as_boolean().value(row))),
        DataType::Float16 => {
            let value = array.as_primitive::<Float16Type>().value(row);
            let value = if value == Default::default() { Default::default() } else { value };
            let bits = if value.is_nan() { 0x7e00u16 } else { value.to_bits() };
            bytes.extend_from_slice(&bits.to_le_bytes());
        }
        DataType::Float32 => {
            let value = array.as_primitive::<Float32Type>().value(row);
            let value = if value.is_nan() { f32::NAN } else { value + 0.0 };
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        DataType::Float64 => {
            let value = array.as_primitive::<Float64Type>().value(row);
            let value = if value.is_nan() { f64::NAN } else { value + 0.0 };
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        DataType::Utf8 => sized(array.as_string::<i32>().value(row).as_bytes(), bytes),
        DataType::LargeUtf8 => sized(array.as_string::<i64>().value(row).as_bytes(), bytes),
        DataType::Utf8View => sized(array.as_string_view().value(row).as_bytes(), bytes),
        DataType::Binary => sized(array.as_binary::<i32>().value(row), bytes),
        DataType::LargeBinary => sized(array.as_binary::<i64>().value(row), bytes),
        DataType::BinaryView => sized(array.as_binary_view().value(row), bytes),
        DataType::FixedSizeBinary(_) => sized(array.as_fixed_size_binary().value(row), bytes),
        DataType::Null => {}
        DataType::Struct(_) => {
            for column in array.as_struct().columns() {
                append_key_bytes(column.as_ref(), row, bytes)?;
            }
        }
        DataType::List(_) => elements(array.as_list::<i32>().value(row), bytes)?,
        DataType::LargeList(_) => elements(array.as_list::<i64>().value(row), bytes)?,
        DataType::FixedSizeList(..) => elements(array.as_fixed_size_list().value(row), bytes)?,
        DataType::Map(..) => elements(std::sync::Arc::new(array.as_map().value(row)), bytes)?,
        DataType::Dictionary(..) | DataType::RunEndEncoded(..) => {
            let plain = decoded(&array.slice(row, 1))?;
            append_key_bytes(plain.as_ref(), 0, bytes)?;
        }
        _ => downcast_primitive_array!(
            array => fixed(array, row, bytes),
            other => return Err(Error::request(format!("a value of type {other} cannot be a key")))
        ),
    }
    Ok(())
}

/// Row indices by channel: a counting scatter of `channels` over `rows`, stable within a channel.
///
/// Returns the permutation and, for each channel, where its run ends.
pub fn scatter<T: ArrowNativeType>(channel_of: &[T], channels: usize) -> (Vec<u32>, Vec<usize>) {
    let (mut next, ends) = runs(channel_of, channels);
    let mut order = vec![0u32; channel_of.len()];
    for (row, channel) in channel_of.iter().enumerate() {
        let place = &mut next[channel.as_usize()];
        order[*place] = row as u32;
        *place += 1;
    }
    (order, ends)
}

/// The same the other way round: for each row its place among the rows by channel, and for each channel where its run ends.
pub fn places<T: ArrowNativeType>(channel_of: &[T], channels: usize) -> (Vec<u32>, Vec<usize>) {
    let (mut next, ends) = runs(channel_of, channels);
    let place = |channel: &T| {
        let place = &mut next[channel.as_usize()];
        *place += 1;
        (*place - 1) as u32
    };
    (channel_of.iter().map(place).collect(), ends)
}

/// Where the rows of each channel begin and end, when they lie one channel after the other.
fn runs<T: ArrowNativeType>(channel_of: &[T], channels: usize) -> (Vec<usize>, Vec<usize>) {
    let mut ends = vec![0usize; channels];
    for channel in channel_of {
        ends[channel.as_usize()] += 1;
    }
    let mut begins = Vec::with_capacity(channels);
    let mut total = 0;
    for end in &mut ends {
        begins.push(total);
        total += *end;
        *end = total;
    }
    (begins, ends)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        Decimal128Array, DictionaryArray, Float64Array, Int8Array, Int32Array, Int64Array, StringArray,
        StringViewArray, TimestampMillisecondArray, UInt16Array,
    };
    use arrow::datatypes::Int32Type;

    use super::*;

    fn hashes(columns: &[ArrayRef]) -> Vec<u64> {
        hash_columns(columns, columns[0].len()).unwrap().to_vec()
    }

    /// These numbers may never change: state lies where they say.
    #[test]
    fn golden_hashes() {
        let ints: ArrayRef = Arc::new(Int64Array::from(vec![Some(0), Some(1), Some(-1), None]));
        let texts: ArrayRef = Arc::new(StringArray::from(vec![Some(""), Some("a"), Some("tidemill"), None]));
        expect_test::expect![[r#"
            [
                3547760990396968576,
                11549681130057114999,
                6027492765397423756,
                14144645293874801883,
            ]
        "#]]
        .assert_debug_eq(&hashes(std::slice::from_ref(&ints)));
        expect_test::expect![[r#"
            [
                15122404197219825512,
                13331215162615822711,
                2805592030347201790,
                14144645293874801883,
            ]
        "#]]
        .assert_debug_eq(&hashes(std::slice::from_ref(&texts)));
        expect_test::expect![[r#"
            [
                5717887947403374759,
                15528593997631933901,
                15570431436813800799,
                3685390413631870213,
            ]
        "#]]
        .assert_debug_eq(&hashes(&[ints, texts]));
    }

    #[test]
    fn equal_values_hash_alike_whatever_their_encoding() {
        let plain: ArrayRef = Arc::new(StringArray::from(vec![Some("x"), None, Some("yy")]));
        let view: ArrayRef = Arc::new(StringViewArray::from(vec![Some("x"), None, Some("yy")]));
        let coded: ArrayRef = Arc::new(DictionaryArray::<Int32Type>::from_iter([Some("x"), None, Some("yy")]));
        assert_eq!(hashes(std::slice::from_ref(&plain)), hashes(&[view]));
        assert_eq!(hashes(&[plain]), hashes(&[coded]));
        let zeros: ArrayRef = Arc::new(Float64Array::from(vec![0.0, -0.0, f64::NAN, -f64::NAN]));
        let zeros = hashes(&[zeros]);
        assert_eq!((zeros[0], zeros[2]), (zeros[1], zeros[3]));
    }

    #[test]
    fn one_primitive_column_hashes_like_its_bytes() {
        let columns: [ArrayRef; 6] = [
            Arc::new(Int8Array::from(vec![Some(7), None, Some(-7)])),
            Arc::new(UInt16Array::from(vec![Some(7), None, Some(0xfff7)])),
            Arc::new(Int32Array::from(vec![Some(7), None, Some(-7)])),
            Arc::new(Int64Array::from(vec![i64::MAX, 0x0102_0304_0506_0708, -7])),
            Arc::new(TimestampMillisecondArray::from(vec![Some(7), None, Some(-7)])),
            Arc::new(Decimal128Array::from(vec![Some(7), None, Some(i128::MIN)])),
        ];
        for column in columns {
            for (row, hash) in hashes(std::slice::from_ref(&column)).into_iter().enumerate() {
                let mut bytes = vec![];
                append_key_bytes(column.as_ref(), row, &mut bytes).unwrap();
                assert_eq!(hash, xxh3_64(&bytes), "row {row} of {}", column.data_type());
            }
        }
    }

    #[test]
    fn groups_belong_to_exactly_one_subtask() {
        for parallelism in 1..=9 {
            for group in 0..128 {
                let owner = subtask_of(group, parallelism, 128);
                assert!(owner < parallelism && groups_of(owner, parallelism, 128).contains(&group));
            }
        }
    }

    #[test]
    fn scatter_keeps_order_within_a_channel() {
        let (order, ends) = scatter(&[1u32, 0, 1, 2, 0], 4);
        assert_eq!((order, ends), (vec![1, 4, 0, 2, 3], vec![2, 4, 5, 5]));
    }
}
