//! Columns in types that Parquet has and that other tools know, and back again.
//!
//! | type | plain |
//! | --- | --- |
//! | union (an enum with data) | struct of `variant`, its name, and a column for each variant that has data, NULL in all others |
//! | interval of months, days and nanoseconds | struct of these |
//! | struct without columns | boolean: whether it is there |
//! | dictionary, runs | their values |
//! | lists, maps, structs of these | the same of plain ones |
//!
//! Everything else stays as it is.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, FixedSizeListArray, GenericListArray, Int32Array, Int64Array,
    IntervalMonthDayNanoArray, MapArray, NullArray, OffsetSizeTrait, StringArray, StructArray, UInt32Array, UnionArray,
    make_array,
};
use arrow::buffer::{BooleanBuffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::{cast, take};
use arrow::datatypes::{
    DataType, Field, FieldRef, Fields, Int32Type, Int64Type, IntervalMonthDayNano, IntervalMonthDayNanoType,
    IntervalUnit, UnionFields, UnionMode,
};
use tidemill_core::{Error, Result};

/// The column of a struct that says which variant of a union a row is.
const VARIANT: &str = "variant";

/// A column's name with its plain type.
pub fn plain_field(field: &Field) -> FieldRef {
    Arc::new(Field::new(field.name(), plain_type(field.data_type()), field.is_nullable()))
}

/// The column in its plain type.
pub fn plain(column: &ArrayRef) -> Result<ArrayRef> {
    let data_type = plain_type(column.data_type());
    if *column.data_type() == data_type {
        return Ok(column.clone());
    }
    Ok(match (column.data_type(), &data_type) {
        (DataType::Dictionary(..) | DataType::RunEndEncoded(..), _) => {
            plain(&cast(column, &value_type(column.data_type()))?)?
        }
        (DataType::Interval(IntervalUnit::MonthDayNano), DataType::Struct(fields)) => plain_interval(column, fields),
        (DataType::Union(variants, mode), DataType::Struct(fields)) => {
            plain_union(column.as_union(), variants, *mode, fields)?
        }
        (DataType::Struct(_), DataType::Boolean) => {
            let is_there =
                column.nulls().map_or_else(|| BooleanBuffer::new_set(column.len()), |nulls| nulls.inner().clone());
            Arc::new(BooleanArray::new(is_there, column.nulls().cloned()))
        }
        (DataType::Struct(_), DataType::Struct(fields)) => {
            let columns = column.as_struct().columns().iter().map(plain).collect::<Result<Vec<_>>>()?;
            struct_of(fields, columns, column.nulls().cloned(), column.len())?
        }
        (_, DataType::List(item)) => list(column.as_list::<i32>(), item, plain)?,
        (_, DataType::LargeList(item)) => list(column.as_list::<i64>(), item, plain)?,
        (_, DataType::FixedSizeList(item, size)) => fixed_list(column.as_fixed_size_list(), item, *size, plain)?,
        (_, DataType::Map(entries, sorted)) => map(column.as_map(), entries, *sorted, plain)?,
        (from, _) => return Err(Error::internal(format!("a column of {from} has no plain form"))),
    })
}

/// A plain column back in the type that it had. An error if it is not what [`plain`] makes of that type.
pub fn restored(column: &ArrayRef, data_type: &DataType) -> Result<ArrayRef> {
    if column.data_type() == data_type {
        return Ok(column.clone());
    }
    let other = || Error::corrupt(format!("a column of {} where {data_type} should be", column.data_type()));
    let again = |data_type: &DataType| {
        let data_type = data_type.clone();
        move |column: &ArrayRef| restored(column, &data_type)
    };
    Ok(match (column.data_type(), data_type) {
        (_, DataType::Dictionary(..) | DataType::RunEndEncoded(..)) => {
            let values = restored(column, &value_type(data_type))?;
            cast(&values, data_type)?
        }
        (DataType::Struct(_), DataType::Interval(IntervalUnit::MonthDayNano)) => {
            restored_interval(column.as_struct()).ok_or_else(other)?
        }
        (DataType::Struct(_), DataType::Union(variants, mode)) => restored_union(column.as_struct(), variants, *mode)?,
        (DataType::Boolean, DataType::Struct(fields)) if fields.is_empty() => {
            Arc::new(StructArray::new_empty_fields(column.len(), column.nulls().cloned()))
        }
        (DataType::Struct(_), DataType::Struct(fields)) if column.as_struct().num_columns() == fields.len() => {
            let columns = column.as_struct().columns().iter().zip(fields);
            let columns =
                columns.map(|(column, field)| restored(column, field.data_type())).collect::<Result<Vec<_>>>()?;
            struct_of(fields, columns, column.nulls().cloned(), column.len())?
        }
        (DataType::List(_), DataType::List(item)) => list(column.as_list::<i32>(), item, again(item.data_type()))?,
        (DataType::LargeList(_), DataType::LargeList(item)) => {
            list(column.as_list::<i64>(), item, again(item.data_type()))?
        }
        (DataType::FixedSizeList(_, found), DataType::FixedSizeList(item, size)) if found == size => {
            fixed_list(column.as_fixed_size_list(), item, *size, again(item.data_type()))?
        }
        (DataType::Map(..), DataType::Map(entries, sorted)) => {
            map(column.as_map(), entries, *sorted, again(entries.data_type()))?
        }
        _ => return Err(other()),
    })
}

fn plain_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Dictionary(..) | DataType::RunEndEncoded(..) => plain_type(&value_type(data_type)),
        DataType::Interval(IntervalUnit::MonthDayNano) => DataType::Struct(interval_fields()),
        DataType::Union(variants, _) => DataType::Struct(variant_fields(variants)),
        DataType::Struct(fields) if fields.is_empty() => DataType::Boolean,
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(|field| plain_field(field)).collect()),
        DataType::List(item) => DataType::List(plain_field(item)),
        DataType::LargeList(item) => DataType::LargeList(plain_field(item)),
        DataType::FixedSizeList(item, size) => DataType::FixedSizeList(plain_field(item), *size),
        DataType::Map(entries, sorted) => DataType::Map(plain_field(entries), *sorted),
        other => other.clone(),
    }
}

fn value_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Dictionary(_, values) => values.as_ref().clone(),
        DataType::RunEndEncoded(_, values) => values.data_type().clone(),
        other => other.clone(),
    }
}

fn interval_fields() -> Fields {
    Fields::from(vec![
        Field::new("months", DataType::Int32, false),
        Field::new("days", DataType::Int32, false),
        Field::new("nanoseconds", DataType::Int64, false),
    ])
}

/// Variants without data are told by their names alone.
fn variant_fields(variants: &UnionFields) -> Fields {
    let mut tag = VARIANT.to_owned();
    while variants.iter().any(|(_, variant)| *variant.name() == tag) {
        tag.push('_');
    }
    let with_data = variants.iter().filter(|(_, variant)| *variant.data_type() != DataType::Null);
    let with_data = with_data.map(|(_, variant)| Arc::new(plain_field(variant).as_ref().clone().with_nullable(true)));
    [Arc::new(Field::new(tag, DataType::Utf8, false))].into_iter().chain(with_data).collect()
}

fn plain_interval(column: &ArrayRef, fields: &Fields) -> ArrayRef {
    let values = column.as_primitive::<IntervalMonthDayNanoType>();
    let of = |row: usize| values.value(row);
    let rows = 0..values.len();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int32Array::from_iter_values(rows.clone().map(|row| of(row).months))),
        Arc::new(Int32Array::from_iter_values(rows.clone().map(|row| of(row).days))),
        Arc::new(Int64Array::from_iter_values(rows.map(|row| of(row).nanoseconds))),
    ];
    Arc::new(StructArray::new(fields.clone(), columns, column.nulls().cloned()))
}

fn restored_interval(column: &StructArray) -> Option<ArrayRef> {
    let [months, days, nanoseconds] = column.columns() else { return None };
    let (months, days) = (months.as_primitive_opt::<Int32Type>()?, days.as_primitive_opt::<Int32Type>()?);
    let nanoseconds = nanoseconds.as_primitive_opt::<Int64Type>()?;
    let value = |row| IntervalMonthDayNano::new(months.value(row), days.value(row), nanoseconds.value(row));
    let values: Vec<IntervalMonthDayNano> = (0..column.len()).map(value).collect();
    Some(Arc::new(IntervalMonthDayNanoArray::new(values.into(), column.nulls().cloned())))
}

fn plain_union(column: &UnionArray, variants: &UnionFields, mode: UnionMode, fields: &Fields) -> Result<ArrayRef> {
    let name = |id: &i8| variants.iter().find(|(other, _)| other == id).map(|(_, variant)| variant.name().as_str());
    let names: StringArray = column.type_ids().iter().map(name).collect();
    let mut columns: Vec<ArrayRef> = vec![Arc::new(names)];
    for (id, variant) in variants.iter().filter(|(_, variant)| *variant.data_type() != DataType::Null) {
        let place = |row: usize| match (column.type_id(row) == id, mode) {
            (false, _) => None,
            (true, UnionMode::Dense) => Some(column.value_offset(row) as u32),
            (true, UnionMode::Sparse) => Some(row as u32),
        };
        let places: UInt32Array = (0..column.len()).map(place).collect();
        let values = take(column.child(id), &places, None)
            .map_err(|error| Error::from(error).context(format_args!("variant '{}'", variant.name())))?;
        columns.push(plain(&values)?);
    }
    Ok(Arc::new(StructArray::try_new(fields.clone(), columns, None)?))
}

fn restored_union(column: &StructArray, variants: &UnionFields, mode: UnionMode) -> Result<ArrayRef> {
    let wrong = || Error::corrupt("an enum without the name of its variant");
    let names = column.columns().first().and_then(|names| names.as_string_opt::<i32>()).ok_or_else(wrong)?;
    let id = |name: Option<&str>| {
        let found = variants.iter().find(|(_, variant)| Some(variant.name().as_str()) == name);
        found.map(|(id, _)| id).ok_or_else(wrong)
    };
    let ids = names.iter().map(id).collect::<Result<Vec<i8>>>()?;
    let mut offsets = vec![0i32; ids.len()];
    let mut data = column.columns()[1..].iter();
    let mut children = Vec::with_capacity(variants.len());
    for (id, variant) in variants.iter() {
        let rows: Vec<u32> = (0..ids.len() as u32).filter(|row| ids[*row as usize] == id).collect();
        rows.iter().enumerate().for_each(|(place, row)| offsets[*row as usize] = place as i32);
        let own = match mode {
            UnionMode::Dense => rows,
            UnionMode::Sparse => (0..ids.len() as u32).collect(),
        };
        children.push(match variant.data_type() {
            DataType::Null => Arc::new(NullArray::new(own.len())) as ArrayRef,
            data_type => {
                let values = take(data.next().ok_or_else(wrong)?, &UInt32Array::from(own), None)?;
                restored(&values, data_type)?
            }
        });
    }
    let offsets = (mode == UnionMode::Dense).then(|| ScalarBuffer::from(offsets));
    Ok(Arc::new(UnionArray::try_new(variants.clone(), ids.into(), offsets, children)?))
}

/// A struct of these columns. A union among them may have variants that count as NULL where it stands for a value.
fn struct_of(fields: &Fields, columns: Vec<ArrayRef>, nulls: Option<NullBuffer>, rows: usize) -> Result<ArrayRef> {
    let loose: Fields = fields.iter().map(|field| Arc::new(field.as_ref().clone().with_nullable(true))).collect();
    let is_strict = fields.iter().zip(&columns).all(|(field, column)| field.is_nullable() || !column.is_nullable());
    let of = |fields| StructArray::try_new_with_length(fields, columns, nulls, rows);
    match is_strict {
        true => Ok(Arc::new(of(fields.clone())?)),
        false => retyped(&of(loose)?, DataType::Struct(fields.clone())),
    }
}

/// The list with its values changed; what it does not show is left out.
fn list<O: OffsetSizeTrait>(
    column: &GenericListArray<O>,
    item: &FieldRef,
    change: impl Fn(&ArrayRef) -> Result<ArrayRef>,
) -> Result<ArrayRef> {
    let (values, offsets) = shown(column.values(), column.offsets());
    let values = change(&values)?;
    let is_strict = item.is_nullable() || !values.is_nullable();
    let loose = Arc::new(item.as_ref().clone().with_nullable(true));
    let of = |item| GenericListArray::<O>::try_new(item, offsets, values, column.nulls().cloned());
    match is_strict {
        true => Ok(Arc::new(of(item.clone())?)),
        false => retyped(&of(loose)?, GenericListArray::<O>::DATA_TYPE_CONSTRUCTOR(item.clone())),
    }
}

/// The column in a type that differs in what may be NULL.
fn retyped(column: &dyn Array, data_type: DataType) -> Result<ArrayRef> {
    Ok(make_array(column.to_data().into_builder().data_type(data_type).build()?))
}

fn fixed_list(
    column: &FixedSizeListArray,
    item: &FieldRef,
    size: i32,
    change: impl Fn(&ArrayRef) -> Result<ArrayRef>,
) -> Result<ArrayRef> {
    let values = change(column.values())?;
    let nulls: Option<NullBuffer> = column.nulls().cloned();
    Ok(Arc::new(FixedSizeListArray::try_new_with_length(item.clone(), size, values, nulls, column.len())?))
}

fn map(
    column: &MapArray,
    entries: &FieldRef,
    sorted: bool,
    change: impl Fn(&ArrayRef) -> Result<ArrayRef>,
) -> Result<ArrayRef> {
    let all: ArrayRef = Arc::new(column.entries().clone());
    let (shown, offsets) = shown(&all, column.offsets());
    let changed = change(&shown)?;
    let changed = changed.as_struct_opt().ok_or_else(|| Error::corrupt("a map whose entries are no pairs"))?;
    Ok(Arc::new(MapArray::try_new(entries.clone(), offsets, changed.clone(), column.nulls().cloned(), sorted)?))
}

fn shown<O: OffsetSizeTrait>(values: &ArrayRef, offsets: &OffsetBuffer<O>) -> (ArrayRef, OffsetBuffer<O>) {
    let (first, last) = (offsets[0].as_usize(), offsets[offsets.len() - 1].as_usize());
    (values.slice(first, last - first), OffsetBuffer::from_lengths(offsets.lengths()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fmt::Debug;

    use arrow::array::{DictionaryArray, IntervalMonthDayNanoBuilder};
    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::state::{Codec, StateValue};

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    enum Shape {
        Point,
        Circle(f64),
        Box { width: u8, label: Option<String> },
    }

    fn check(column: &ArrayRef) {
        let field = Field::new("value", column.data_type().clone(), true);
        for column in [column.clone(), column.slice(1, column.len() - 1), column.slice(0, 0)] {
            let plain = plain(&column).unwrap();
            assert_eq!(plain.data_type(), plain_field(&field).data_type());
            assert_eq!(restored(&plain, column.data_type()).unwrap().as_ref(), column.as_ref());
        }
    }

    fn check_values<T: StateValue + PartialEq + Debug>(values: Vec<T>) {
        let codec = Codec::<T>::new("value").unwrap();
        let column = codec.encode(&values).unwrap();
        let plain = plain(&column).unwrap();
        assert_eq!(codec.decode(&restored(&plain, column.data_type()).unwrap()).unwrap(), values);
        let tail = plain.slice(1, values.len() - 1);
        assert_eq!(codec.decode(&restored(&tail, column.data_type()).unwrap()).unwrap(), values[1..]);
    }

    #[test]
    fn what_parquet_has_no_type_for_comes_back() {
        let shapes =
            || vec![Shape::Circle(0.5), Shape::Point, Shape::Box { width: 3, label: None }, Shape::Circle(2.0)];
        check_values(shapes());
        check_values(vec![shapes(), vec![], shapes()]);
        check_values(vec![BTreeMap::from([(1u8, Shape::Point), (2, Shape::Circle(1.0))]), BTreeMap::new()]);
        check_values(vec![Some((Some(1), shapes())), None]);
        check_values(vec![(), ()]);
    }

    #[test]
    fn dictionaries_and_intervals_come_back() {
        check(&(Arc::new(DictionaryArray::<Int32Type>::from_iter([Some("a"), None, Some("b")])) as ArrayRef));
        let mut intervals = IntervalMonthDayNanoBuilder::new();
        intervals.append_value(IntervalMonthDayNano::new(1, -2, 3));
        intervals.append_null();
        check(&(Arc::new(intervals.finish()) as ArrayRef));
        let nothing = StructArray::new_empty_fields(3, Some(NullBuffer::from(vec![true, false, true])));
        check(&(Arc::new(nothing) as ArrayRef));
    }

    #[test]
    fn another_type_is_refused() {
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1]));
        assert!(restored(&numbers, &DataType::Utf8).unwrap_err().message().contains("Utf8"));
    }
}
