//! Whole numbers in the smallest type that holds them, chunk by chunk, and back.
//!
//! Counts are small, keys come from some range: most bytes of a 64 bit column say nothing, and a compressor takes long to find
//! that out. With them gone, zstd takes a tenth of the time on such columns and leaves less, and whoever moves rows before they are
//! compressed moves fewer bytes. They stay what anybody's Arrow reads: a schema says what the columns are.

use std::ops::BitOr;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, RecordBatch, RecordBatchOptions, StructArray};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Field, FieldRef, Fields, Int8Type, Int16Type, Int32Type, Int64Type, Schema, SchemaRef, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use arrow::error::ArrowError;

/// A batch with its whole numbers as narrow as they can be, also those within structs.
pub fn narrowed(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let (fields, columns) = narrow_all(batch.schema_ref().fields(), batch.columns())?;
    let schema = Schema::new_with_metadata(fields, batch.schema_ref().metadata().clone());
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(schema), columns, &options)
}

/// A narrow batch with the columns of `declared` again; `None` if it is none of them.
pub fn widened(batch: &RecordBatch, declared: &SchemaRef) -> Result<Option<RecordBatch>, ArrowError> {
    if !are_narrow(batch.schema_ref().fields(), declared.fields()) {
        return Ok(None);
    }
    if batch.schema_ref() == declared {
        return Ok(Some(batch.clone()));
    }
    let columns = widen_all(batch.columns(), declared.fields())?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(declared.clone(), columns, &options).map(Some)
}

fn narrow_all(fields: &Fields, columns: &[ArrayRef]) -> Result<(Fields, Vec<ArrayRef>), ArrowError> {
    let columns: Vec<ArrayRef> = columns.iter().map(narrow).collect::<Result<_, _>>()?;
    Ok((fields_of(fields, &columns), columns))
}

/// The fields with the types of these columns.
pub fn fields_of(fields: &Fields, columns: &[ArrayRef]) -> Fields {
    let field = |(field, column): (&FieldRef, &ArrayRef)| match field.data_type() == column.data_type() {
        true => field.clone(),
        false => Arc::new(Field::clone(field).with_data_type(column.data_type().clone())),
    };
    fields.iter().zip(columns).map(field).collect()
}

fn narrow(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    /// Converts a column where it stands.
    struct InPlace<'a>(&'a ArrayRef);
    impl Convert for InPlace<'_> {
        fn convert<From: ArrowPrimitiveType, To: ArrowPrimitiveType>(
            self,
            to: impl Fn(From::Native) -> To::Native,
        ) -> ArrayRef {
            Arc::new(self.0.as_primitive::<From>().unary::<_, To>(to))
        }
    }
    if let DataType::Struct(fields) = column.data_type() {
        let of_struct = column.as_struct();
        let (fields, columns) = narrow_all(fields, of_struct.columns())?;
        let nulls = of_struct.nulls().cloned();
        return Ok(Arc::new(StructArray::try_new_with_length(fields, columns, nulls, of_struct.len())?));
    }
    let narrow = in_narrowest(column.data_type(), std::slice::from_ref(column), InPlace(column));
    Ok(narrow.unwrap_or_else(|| column.clone()))
}

/// What is done with whole numbers once a type is found that holds all of them.
pub trait Convert {
    /// The numbers in their new type, each of them as `to` says.
    fn convert<From: ArrowPrimitiveType, To: ArrowPrimitiveType>(
        self,
        to: impl Fn(From::Native) -> To::Native,
    ) -> ArrayRef;
}

/// Converts the whole numbers of a column, which lies in parts, to the narrowest type that holds all of them; `None` if that is
/// their own, or they are none. What stands behind NULLs does not count.
pub fn in_narrowest(data_type: &DataType, parts: &[ArrayRef], convert: impl Convert) -> Option<ArrayRef> {
    macro_rules! first_of {
        ($from:ty, $fold:expr, $($to:ty),*) => {{
            type From = <$from as ArrowPrimitiveType>::Native;
            let bounds = [$(<$to as ArrowPrimitiveType>::Native::MAX as From),*];
            let bits = bits::<$from>(parts, $fold, bounds[bounds.len() - 1]);
            $(if bits <= <$to as ArrowPrimitiveType>::Native::MAX as From {
                Some(convert.convert::<$from, $to>(|number| number as <$to as ArrowPrimitiveType>::Native))
            } else)* {
                None
            }
        }};
    }
    match data_type {
        DataType::Int16 => first_of!(Int16Type, |number| number ^ (number >> 15), Int8Type),
        DataType::Int32 => first_of!(Int32Type, |number| number ^ (number >> 31), Int8Type, Int16Type),
        DataType::Int64 => first_of!(Int64Type, |number| number ^ (number >> 63), Int8Type, Int16Type, Int32Type),
        DataType::UInt16 => first_of!(UInt16Type, |number| number, UInt8Type),
        DataType::UInt32 => first_of!(UInt32Type, |number| number, UInt8Type, UInt16Type),
        DataType::UInt64 => first_of!(UInt64Type, |number| number, UInt8Type, UInt16Type, UInt32Type),
        _ => None,
    }
}

/// The bits that any of the numbers has, where `fold` makes as many bits of a negative number as of the greatest that comes with
/// it (-128 of 127): a type holds all of them if it holds this. Looks no further once it is above `most`.
fn bits<T: ArrowPrimitiveType>(parts: &[ArrayRef], fold: impl Fn(T::Native) -> T::Native, most: T::Native) -> T::Native
where
    T::Native: BitOr<Output = T::Native> + Ord,
{
    /// So few that it does not matter how many are looked at in vain.
    const AT_ONCE: usize = 1024;
    let mut bits = T::Native::default();
    for part in parts.iter().map(|part| part.as_primitive::<T>()) {
        if part.null_count() > 0 {
            bits = part.iter().flatten().fold(bits, |bits, number| bits | fold(number));
            continue;
        }
        for numbers in part.values().chunks(AT_ONCE) {
            bits = numbers.iter().fold(bits, |bits, number| bits | fold(*number));
            if bits > most {
                return bits;
            }
        }
    }
    bits
}

/// Whether these are the declared columns, though perhaps with narrower whole numbers.
pub fn are_narrow(found: &Fields, declared: &Fields) -> bool {
    let is_narrow = |(found, declared): (&FieldRef, &FieldRef)| {
        let is_narrow = match (found.data_type(), declared.data_type()) {
            (DataType::Struct(found), DataType::Struct(declared)) => are_narrow(found, declared),
            (found, declared) => found == declared || is_narrow_number(found, declared),
        };
        is_narrow
            && found.name() == declared.name()
            && found.is_nullable() == declared.is_nullable()
            && found.metadata() == declared.metadata()
    };
    found.len() == declared.len() && found.iter().zip(declared).all(is_narrow)
}

fn is_narrow_number(found: &DataType, declared: &DataType) -> bool {
    let is_of_a_kind = found.is_signed_integer() && declared.is_signed_integer()
        || found.is_unsigned_integer() && declared.is_unsigned_integer();
    is_of_a_kind && found.primitive_width() < declared.primitive_width()
}

fn widen_all(columns: &[ArrayRef], declared: &Fields) -> Result<Vec<ArrayRef>, ArrowError> {
    columns.iter().zip(declared).map(|(column, field)| widen(column, field.data_type())).collect()
}

fn widen(column: &ArrayRef, declared: &DataType) -> Result<ArrayRef, ArrowError> {
    match (column.data_type(), declared) {
        (found, declared) if found == declared => Ok(column.clone()),
        (DataType::Struct(_), DataType::Struct(fields)) => {
            let of_struct = column.as_struct();
            let (columns, nulls) = (widen_all(of_struct.columns(), fields)?, of_struct.nulls().cloned());
            Ok(Arc::new(StructArray::try_new_with_length(fields.clone(), columns, nulls, of_struct.len())?))
        }
        _ => cast(column, declared),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, StringArray, UInt32Array, UInt64Array};

    use super::*;

    fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))
            .unwrap()
    }

    fn types(batch: &RecordBatch) -> Vec<DataType> {
        batch.columns().iter().map(|column| column.data_type().clone()).collect()
    }

    #[test]
    fn numbers_are_as_narrow_as_their_values_and_come_back() {
        let numbers = |values: &[i64]| Arc::new(Int64Array::from(values.to_vec())) as ArrayRef;
        let of_struct = StructArray::from(RecordBatch::try_from_iter([("n", numbers(&[1, 300]))]).unwrap());
        let batch = batch(vec![
            ("group", Arc::new(UInt32Array::from(vec![0, 127]))),
            ("byte", numbers(&[-128, 127])),
            ("short", numbers(&[-129, 127])),
            ("int", numbers(&[0, i64::from(i32::MAX)])),
            ("long", numbers(&[0, i64::from(i32::MAX) + 1])),
            ("least", numbers(&[i64::MIN, 0])),
            ("greatest", Arc::new(UInt64Array::from(vec![u64::MAX, 0]))),
            ("unknown", Arc::new(Int64Array::from(vec![None, Some(7)]))),
            ("hidden", Arc::new(Int64Array::new(vec![i64::MAX, 7].into(), Some(vec![false, true].into())))),
            ("nothing", Arc::new(Int64Array::from(vec![None, None]))),
            ("text", Arc::new(StringArray::from(vec!["a", "b"]))),
            ("struct", Arc::new(of_struct)),
        ]);
        let narrow = narrowed(&batch).unwrap();
        use DataType::{Int8, Int16, Int32, Int64, UInt8, UInt64, Utf8};
        let of_struct = DataType::Struct(Fields::from(vec![Field::new("n", Int16, false)]));
        assert_eq!(
            types(&narrow),
            [UInt8, Int8, Int16, Int32, Int64, Int64, UInt64, Int8, Int8, Int8, Utf8, of_struct]
        );
        assert_eq!(widened(&narrow, &batch.schema()).unwrap(), Some(batch));
    }

    #[test]
    fn what_is_no_narrow_form_of_the_declared_columns_is_refused() {
        let numbers = batch(vec![("n", Arc::new(Int64Array::from(vec![1])))]);
        let declared = |name: &str, data_type| Arc::new(Schema::new(vec![Field::new(name, data_type, true)]));
        assert!(widened(&numbers, &declared("n", DataType::Int64)).unwrap().is_some());
        for other in [declared("m", DataType::Int64), declared("n", DataType::UInt64), declared("n", DataType::Int32)] {
            assert_eq!(widened(&numbers, &other).unwrap(), None, "{other:?}");
        }
    }
}
