//! Values with how often each is there, by slot, as a column of lists: what `DISTINCT`, `MIN` and `MAX` remember.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, ListArray, StructArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, FieldRef, Fields, Int64Type};
use arrow::row::{RowConverter, Rows};
use tidemill_core::{Error, Result};

use super::accumulate::column;

/// The column `values`: lists of values, whose parts have these types, with their counts.
pub fn counted_values_field(types: Vec<DataType>) -> FieldRef {
    column("values", &DataType::List(item_field(&types)))
}

fn item_field(types: &[DataType]) -> FieldRef {
    column("item", &DataType::Struct(parts(types)))
}

fn parts(types: &[DataType]) -> Fields {
    let value = |(place, data_type): (usize, &DataType)| match types.len() {
        1 => column("value", data_type),
        _ => column(&format!("value_{place}"), data_type),
    };
    types.iter().enumerate().map(value).chain([column("count", &DataType::Int64)]).collect()
}

/// Lists of values that `converter` encoded, one a slot.
pub fn encode_counted_values<'a>(
    converter: &RowConverter,
    types: &[DataType],
    slots: impl Iterator<Item = Vec<(&'a [u8], i64)>>,
) -> Result<ArrayRef> {
    let (mut values, mut counts, mut lengths) = (Vec::new(), Vec::new(), Vec::new());
    for of_slot in slots {
        lengths.push(of_slot.len());
        values.extend(of_slot.iter().map(|(value, _)| *value));
        counts.extend(of_slot.iter().map(|(_, count)| *count));
    }
    let parser = converter.parser();
    let mut columns = converter.convert_rows(values.into_iter().map(|value| parser.parse(value)))?;
    columns.push(Arc::new(Int64Array::from(counts)));
    let items = StructArray::try_new(parts(types), columns, None)?;
    let offsets = OffsetBuffer::from_lengths(lengths);
    Ok(Arc::new(ListArray::try_new(item_field(types), offsets, Arc::new(items), None)?))
}

/// Calls `put` with the row, the encoded value and the count of each value in `lists`.
pub fn decode_counted_values(
    converter: &RowConverter,
    lists: &ArrayRef,
    mut put: impl FnMut(usize, &[u8], i64),
) -> Result<()> {
    let wrong = || Error::corrupt(format!("counted values of type {}", lists.data_type()));
    let lists: &ListArray = lists.as_list_opt().ok_or_else(wrong)?;
    let items = lists.values().as_struct_opt().ok_or_else(wrong)?;
    let (counts, values) = items.columns().split_last().ok_or_else(wrong)?;
    let counts = counts.as_primitive_opt::<Int64Type>().ok_or_else(wrong)?;
    let rows: Rows = converter.convert_columns(values)?;
    for (row, ends) in lists.value_offsets().windows(2).enumerate() {
        for place in ends[0] as usize..ends[1] as usize {
            put(row, rows.row(place).as_ref(), counts.value(place));
        }
    }
    Ok(())
}
