//! User types and Arrow columns, there and back, through serde.

use std::any::type_name;
use std::marker::PhantomData;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::{DataType, Field, FieldRef, Fields};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_arrow::schema::{SchemaLike, TracingOptions};
use serde_arrow::utils::{Item, Items};
use tidemill_core::state::{EVOLUTION_SERDE, evolving, retyped};
use tidemill_core::{Error, Result};

/// What can be kept as state: any type that serde can write and read, and whose columns follow from the type alone.
///
/// Not everything does: `serde_json::Value` says only at run time what it holds.
pub trait StateValue: Serialize + DeserializeOwned + Clone + Send + 'static {}

impl<T: Serialize + DeserializeOwned + Clone + Send + 'static> StateValue for T {}

/// How values of one type become a column and a column values.
#[derive(Debug)]
pub struct Codec<T> {
    /// The column as serde_arrow wants it to be called.
    item: FieldRef,
    field: FieldRef,
    value: PhantomData<fn() -> T>,
}

impl<T: Serialize + DeserializeOwned> Codec<T> {
    /// The codec of `T`, as a column of this name; an error names a type whose columns cannot be known.
    pub fn new(name: &str) -> Result<Self> {
        let item = item_field::<T>().map_err(|error| {
            Error::request(format!("the columns of {} are not known from the type: {error}", type_name::<T>()))
                .with_hint("use structs, tuples, enums, lists, maps, options, numbers, strings and byte buffers")
        })?;
        if let Some(reason) = not_encodable(&item) {
            return Err(Error::request(format!("{} cannot be kept as columns: {reason}", type_name::<T>()))
                .with_hint("put the option into a tuple or struct, or what it may lack into a variant"));
        }
        let stored = item.as_ref().clone().with_name(name).with_data_type(storable(item.data_type()));
        let field = evolving(&stored, EVOLUTION_SERDE);
        Ok(Self { item, field, value: PhantomData })
    }

    /// The column.
    pub fn field(&self) -> &FieldRef {
        &self.field
    }

    /// The column of these values: of `T`, or of references to it.
    pub fn encode<R: Serialize>(&self, values: &[R]) -> Result<ArrayRef> {
        let columns = serde_arrow::to_arrow(std::slice::from_ref(&self.item), Items(values))
            .map_err(|error| Error::data(format!("{} cannot be written as a column: {error}", type_name::<T>())))?;
        let column = columns.into_iter().next().ok_or_else(|| Error::internal("a value without a column"))?;
        retyped(&column, &self.item, &self.field)
    }

    /// The values of a column. Fields of structs may be missing that serde has a default for.
    pub fn decode(&self, column: &ArrayRef) -> Result<Vec<T>> {
        let nullable = self.item.is_nullable() || column.is_nullable();
        let field = Field::new(self.item.name(), column.data_type().clone(), nullable);
        let field = Arc::new(field.with_metadata(self.item.metadata().clone()));
        let Items(values) = serde_arrow::from_arrow::<Items<Vec<T>>, _>(&[field], std::slice::from_ref(column))
            .map_err(|error| Error::corrupt(format!("a column holds no {}: {error}", type_name::<T>())))?;
        Ok(values)
    }
}

/// The type with which values are stored. An enum within another type may be NULL there: Arrow takes a variant without data for
/// NULL, and would not read it again as what it was written.
fn storable(data_type: &DataType) -> DataType {
    let retyped = |field: &FieldRef| field.as_ref().clone().with_data_type(storable(field.data_type()));
    let within = |field: &FieldRef| {
        let is_enum = matches!(field.data_type(), DataType::Union(..));
        Arc::new(retyped(field).with_nullable(field.is_nullable() || is_enum))
    };
    match data_type {
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(within).collect()),
        DataType::List(item) => DataType::List(within(item)),
        DataType::FixedSizeList(item, size) => DataType::FixedSizeList(within(item), *size),
        DataType::Union(variants, mode) => {
            DataType::Union(variants.iter().map(|(id, variant)| (id, within(variant))).collect(), *mode)
        }
        DataType::Map(entries, sorted) => {
            let entries = match entries.data_type() {
                // Keys are never NULL.
                DataType::Struct(fields) if fields.len() == 2 => {
                    let fields = Fields::from(vec![Arc::new(retyped(&fields[0])), within(&fields[1])]);
                    Arc::new(entries.as_ref().clone().with_data_type(DataType::Struct(fields)))
                }
                _ => entries.clone(),
            };
            DataType::Map(entries, *sorted)
        }
        other => other.clone(),
    }
}

/// What Arrow has no form for, though the type has columns: found here, it does not wait for the first checkpoint.
fn not_encodable(field: &Field) -> Option<&'static str> {
    let nested = |fields: &[FieldRef]| fields.iter().find_map(|field| not_encodable(field));
    match field.data_type() {
        DataType::Union(..) if field.is_nullable() => Some("an option of an enum with data"),
        DataType::Union(variants, _) => variants.iter().find_map(|(_, variant)| not_encodable(variant)),
        DataType::Struct(fields) => nested(fields),
        DataType::List(item) => not_encodable(item),
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) if fields.first().is_some_and(|key| key.is_nullable()) => {
                Some("a map whose keys are options")
            }
            _ => not_encodable(entries),
        },
        _ => None,
    }
}

/// The column that a type becomes, from the type alone: the same for state and for records.
pub fn item_field<T: DeserializeOwned>() -> serde_arrow::Result<FieldRef> {
    let options = TracingOptions::default()
        .allow_null_fields(true)
        .map_as_struct(false)
        .sequence_as_large_list(false)
        .strings_as_large_utf8(false)
        .bytes_as_large_binary(false)
        .enums_without_data_as_strings(true)
        .from_type_budget(10_000);
    let fields = Vec::<FieldRef>::from_type::<Item<T>>(options)?;
    Ok(fields.into_iter().next().unwrap_or_else(|| Arc::new(Field::new("item", DataType::Null, true))))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fmt::Debug;

    use arrow::array::RecordBatch;
    use arrow::datatypes::Schema;
    use serde::Deserialize;

    use super::*;
    use crate::state::conformance::snapshots::through_ipc;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    enum Shape {
        Point,
        Circle(f64),
        Box { width: u8, height: u8 },
    }

    fn check<T: StateValue + PartialEq + Debug>(values: Vec<T>) {
        let codec = Codec::<T>::new("value").unwrap();
        let column = codec.encode(&values).unwrap();
        assert_eq!((codec.field().name().as_str(), codec.field().data_type()), ("value", column.data_type()));
        assert_eq!(codec.decode(&column).unwrap(), values);
        assert_eq!(codec.decode(&stored(&codec, &column)).unwrap(), values);
        let tail = column.slice(values.len() / 2, values.len() - values.len() / 2);
        assert_eq!(codec.decode(&tail).unwrap(), values[values.len() / 2..]);
        let borrowed: Vec<&T> = values.iter().collect();
        assert_eq!(&codec.encode(&borrowed).unwrap(), &column);
    }

    /// The column as it comes back from a file.
    fn stored<T>(codec: &Codec<T>, column: &ArrayRef) -> ArrayRef {
        let schema = Arc::new(Schema::new(vec![codec.field.clone()]));
        let batch = RecordBatch::try_new(schema, vec![column.clone()]).unwrap();
        through_ipc(vec![batch])[0].column(0).clone()
    }

    #[test]
    fn values_come_back() {
        check(vec![1i64, -2, 3]);
        check(vec!["a".to_owned(), String::new()]);
        check(vec![Some(1.5), None]);
        check(vec![(), ()]);
        check(vec![('x', [1u8, 2]), ('y', [3, 4])]);
        check(vec![Shape::Point, Shape::Circle(0.5), Shape::Box { width: 1, height: 2 }]);
        check(vec![BTreeMap::from([((1i32, "k".to_owned()), vec![true])]), BTreeMap::new()]);
        check(vec![BTreeMap::from([(7u16, Some((Shape::Circle(1.0),))), (8, None)])]);
        check(vec![vec![Shape::Point, Shape::Circle(1.5)], vec![]]);
        check(vec![BTreeMap::from([("k".to_owned(), Shape::Point)])]);
        check(vec![vec![Some((1u64, "z".to_owned())), None], vec![]]);
        check::<(String, i64)>(vec![]);
    }

    #[test]
    fn a_type_without_columns_is_named() {
        #[derive(Clone, Serialize, Deserialize)]
        struct Tree {
            children: Vec<Tree>,
        }
        let error = Codec::<Tree>::new("value").map(drop).unwrap_err();
        assert!(error.to_string().contains("Tree"), "{error}");
    }

    /// They have columns, but not for every value: that would show when a checkpoint meets the first NULL.
    #[test]
    fn a_type_that_some_checkpoint_could_not_write_is_refused() {
        type Nested = Vec<BTreeMap<String, (u8, Option<Shape>)>>;
        type Keys = Option<BTreeMap<Option<String>, u8>>;
        for (error, part) in [
            (Codec::<Option<Shape>>::new("value").map(drop), "an option of an enum with data"),
            (Codec::<Nested>::new("value").map(drop), "an option of an enum with data"),
            (Codec::<Keys>::new("value").map(drop), "a map whose keys are options"),
        ] {
            let error = error.unwrap_err();
            assert!(error.message().contains(part), "{error}");
        }
    }
}
