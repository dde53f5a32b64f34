//! Typed records and Arrow columns, there and back, through serde.
//!
//! A record is wrapped into one column called `item`. If that column is a struct (a Rust struct, a tuple), its fields become
//! the columns of the stream, without a copy: `(String, i64)` has columns `0` and `1`, a `Visit { page, time }` has `page` and
//! `time`, an `i64` has `item`.

use std::marker::PhantomData;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, NullArray, StructArray};
use arrow::datatypes::{DataType, Field, FieldRef, Fields};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_arrow::utils::Items;
use tidemill_core::{Error, Result};
use tidemill_exec::state::item_field;

/// What can be a record of a stream: any type that serde can write and read, and whose columns follow from the type alone.
///
/// Not everything does: `serde_json::Value` says only at run time what it holds.
pub trait Record: Serialize + DeserializeOwned + Send + 'static {}

impl<T: Serialize + DeserializeOwned + Send + 'static> Record for T {}

/// How records of one type become columns and columns records.
#[derive(Debug)]
pub(super) struct Codec<T> {
    /// The column that holds a whole record.
    item: FieldRef,
    layout: Layout,
    fields: Fields,
    record: PhantomData<fn() -> T>,
}

/// How the one column is laid out in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// As it is.
    Single,
    /// The fields of the struct.
    Flat,
    /// Not at all: every record is the same, such as `()`.
    Empty,
}

impl<T> Clone for Codec<T> {
    fn clone(&self) -> Self {
        Self { item: self.item.clone(), layout: self.layout, fields: self.fields.clone(), record: PhantomData }
    }
}

impl<T: Record> Codec<T> {
    /// The codec of `T`; an error names a type whose columns cannot be known.
    pub fn new() -> Result<Self> {
        let item = item_field::<T>().map_err(|error| {
            Error::request(format!(
                "the columns of {} are not known from the type: {error}",
                std::any::type_name::<T>()
            ))
            .with_hint("use structs, tuples, enums, lists, options, numbers, strings and byte buffers")
        })?;
        let (layout, fields) = match item.data_type() {
            DataType::Null => (Layout::Empty, Fields::empty()),
            DataType::Struct(fields) if !item.is_nullable() && !fields.is_empty() => (Layout::Flat, fields.clone()),
            _ => (Layout::Single, Fields::from(vec![item.clone()])),
        };
        Ok(Self { item, layout, fields, record: PhantomData })
    }

    /// A codec of nothing, for a stream whose program has an error that will be reported.
    pub fn unknown() -> Self {
        let item = Arc::new(Field::new("item", DataType::Null, true));
        Self { item, layout: Layout::Empty, fields: Fields::empty(), record: PhantomData }
    }

    /// The columns of a batch of records.
    pub fn fields(&self) -> &Fields {
        &self.fields
    }

    /// The columns of `records`.
    pub fn encode(&self, records: &[T]) -> Result<Vec<ArrayRef>> {
        if self.layout == Layout::Empty {
            return Ok(Vec::new());
        }
        let columns = serde_arrow::to_arrow(std::slice::from_ref(&self.item), Items(records)).map_err(encoding::<T>)?;
        match (self.layout, columns.as_slice()) {
            (Layout::Flat, [item]) => Ok(item.as_struct().columns().to_vec()),
            _ => Ok(columns),
        }
    }

    /// The records in `columns`, which are called and typed as `fields` say: those of this codec, or ones that serde takes in
    /// their place (columns of a source, found by name for structs and by position for tuples).
    pub fn decode(&self, fields: &[FieldRef], columns: &[ArrayRef], rows: usize) -> Result<Vec<T>> {
        let (data_type, item): (DataType, ArrayRef) = match self.layout {
            Layout::Empty => (DataType::Null, Arc::new(NullArray::new(rows))),
            Layout::Flat => {
                let fields = Fields::from(fields);
                let item = StructArray::try_new(fields.clone(), columns.to_vec(), None)?;
                (DataType::Struct(fields), Arc::new(item))
            }
            Layout::Single => match columns {
                [column] => (column.data_type().clone(), column.clone()),
                _ => {
                    let name = std::any::type_name::<T>();
                    return Err(Error::request(format!("{} columns cannot be records of {name}", columns.len()))
                        .with_hint("a record of several columns is a struct or a tuple"));
                }
            },
        };
        let nullable = self.item.is_nullable() || item.is_nullable();
        let field = Field::new("item", data_type, nullable).with_metadata(self.item.metadata().clone());
        let Items(records) = serde_arrow::from_arrow::<Items<Vec<T>>, _>(&[Arc::new(field)], &[item])
            .map_err(|error| Error::data(format!("columns are no {}: {error}", std::any::type_name::<T>())))?;
        Ok(records)
    }
}

fn encoding<T>(error: serde_arrow::Error) -> Error {
    Error::data(format!("a record of {} cannot be written as columns: {error}", std::any::type_name::<T>()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fmt::Debug;

    use serde::Deserialize;

    use super::*;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    enum Colour {
        Red,
        Green,
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Visit {
        page: String,
        time: i64,
        colour: Colour,
        tags: Vec<Option<String>>,
        counts: BTreeMap<String, u32>,
        nested: Option<(i32, f64)>,
    }

    fn check<T: Record + PartialEq + Debug>(columns: &str, records: Vec<T>) {
        let codec = Codec::<T>::new().unwrap();
        let names: Vec<&str> = codec.fields().iter().map(|field| field.name().as_str()).collect();
        assert_eq!(names.join(" "), columns);
        let encoded = codec.encode(&records).unwrap();
        let back = codec.decode(codec.fields(), &encoded, records.len()).unwrap();
        assert_eq!(back, records);
        let types: Vec<_> = encoded.iter().map(|column| column.data_type().clone()).collect();
        let declared: Vec<_> = codec.fields().iter().map(|field| field.data_type().clone()).collect();
        assert_eq!(types, declared);
        if records.len() > 1 {
            let sliced: Vec<ArrayRef> = encoded.iter().map(|column| column.slice(1, records.len() - 1)).collect();
            let back = codec.decode(codec.fields(), &sliced, records.len() - 1).unwrap();
            assert_eq!(back, records[1..]);
        }
    }

    #[test]
    fn records_come_back() {
        check("item", vec![1i64, -2, 3]);
        check("item", vec!["a".to_owned(), String::new()]);
        check("item", vec![Some(1.5), None]);
        check("item", vec![true, false, true]);
        check("item", vec!['a', 'b']);
        check("item", vec![vec![1u8, 2], vec![]]);
        check("item", vec![Colour::Red, Colour::Green, Colour::Red]);
        check("", vec![(), (), ()]);
        check("0 1", vec![("a".to_owned(), 1i64), ("b".to_owned(), 2)]);
        check("0 1", vec![((1i32, 2i32), "x".to_owned()), ((3, 4), "y".to_owned())]);
        let visit = |page: &str, nested| Visit {
            page: page.to_owned(),
            time: 7,
            colour: Colour::Green,
            tags: vec![None, Some("x".to_owned())],
            counts: BTreeMap::from([("a".to_owned(), 1)]),
            nested,
        };
        check("page time colour tags counts nested", vec![visit("p", None), visit("q", Some((1, 0.5)))]);
        check::<(String, i64)>("0 1", vec![]);
    }

    #[test]
    fn columns_of_a_source_are_found_by_name_or_position() {
        use arrow::array::{Int64Array, StringViewArray};
        let fields = [
            Arc::new(Field::new("time", DataType::Int64, true)),
            Arc::new(Field::new("page", DataType::Utf8View, true)),
        ];
        let columns: Vec<ArrayRef> =
            vec![Arc::new(Int64Array::from(vec![5])), Arc::new(StringViewArray::from(vec!["p"]))];
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Page {
            page: String,
            time: i64,
        }
        let by_name = Codec::<Page>::new().unwrap().decode(&fields, &columns, 1).unwrap();
        assert_eq!(by_name, [Page { page: "p".to_owned(), time: 5 }]);
        let by_place = Codec::<(i64, String)>::new().unwrap().decode(&fields, &columns, 1).unwrap();
        assert_eq!(by_place, [(5, "p".to_owned())]);
    }

    #[test]
    fn a_type_without_columns_is_named() {
        let error = Codec::<serde_json::Value>::new().unwrap_err();
        assert!(error.to_string().contains("serde_json::value::Value"), "{error}");
    }
}
