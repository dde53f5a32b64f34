//! How many bytes a value of the user keeps on the heap, roughly: what serde sees of it, added up.

use std::fmt;

use arrow::array::RecordBatch;
use serde::Serialize;
use serde::ser::{
    SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple, SerializeTupleStruct,
    SerializeTupleVariant, Serializer,
};

/// Pointer, length and capacity of what is on the heap, where it is an element itself.
const HEADER: usize = 24;

/// What an entry of a map occupies beside itself: its share of the nodes of the tree.
pub const ENTRY_OVERHEAD: usize = 16;

/// What a value keeps on the heap, and what it takes to find out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Bytes beside those of the value itself, which are `size_of`.
    pub heap_bytes: usize,
    /// Numbers, texts and the like that were looked at.
    pub parts: usize,
}

impl Footprint {
    /// That of `value`.
    ///
    /// ```
    /// # use tidemill_exec::state::Footprint;
    /// assert_eq!(Footprint::of(&vec![1_u64, 2, 3]), Footprint { heap_bytes: 24, parts: 3 });
    /// ```
    pub fn of<T: Serialize>(value: &T) -> Self {
        let mut footprint = Self::default();
        // What has nothing to drop has nothing on the heap.
        if std::mem::needs_drop::<T>() {
            // What cannot be written counts as far as it could; encoding it will name the error.
            let _ = value.serialize(Counter { footprint: &mut footprint, on_heap: false });
        }
        footprint
    }
}

/// Bytes that `value` keeps on the heap. Those of the value itself are `size_of`.
pub fn heap_bytes<T: Serialize>(value: &T) -> usize {
    Footprint::of(value).heap_bytes
}

/// Bytes that these batches hold.
pub fn batch_bytes<'a>(batches: impl IntoIterator<Item = &'a RecordBatch>) -> usize {
    batches.into_iter().map(RecordBatch::get_array_memory_size).sum()
}

/// Adds up what it is given.
struct Counter<'a> {
    footprint: &'a mut Footprint,
    /// Whether this is part of a list or map: then all of it counts.
    on_heap: bool,
}

impl Counter<'_> {
    fn fixed(self, bytes: usize) -> Result<(), Never> {
        self.footprint.parts += 1;
        if self.on_heap {
            self.footprint.heap_bytes += bytes;
        }
        Ok(())
    }

    fn sized(self, bytes: usize) -> Result<(), Never> {
        self.footprint.parts += 1;
        self.footprint.heap_bytes += bytes + if self.on_heap { HEADER } else { 0 };
        Ok(())
    }

    fn same(&mut self) -> Counter<'_> {
        Counter { footprint: self.footprint, on_heap: self.on_heap }
    }

    fn elements(self) -> Self {
        if self.on_heap {
            self.footprint.heap_bytes += HEADER;
        }
        Self { on_heap: true, ..self }
    }
}

/// Counting does not fail, but a user's `Serialize` may.
#[derive(Debug)]
struct Never;

impl fmt::Display for Never {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cannot be written")
    }
}

impl std::error::Error for Never {}

impl serde::ser::Error for Never {
    fn custom<T: fmt::Display>(_message: T) -> Self {
        Self
    }
}

macro_rules! fixed {
    ($($method:ident $type:ty),*) => {
        $(fn $method(self, _value: $type) -> Result<(), Never> {
            self.fixed(size_of::<$type>())
        })*
    };
}

impl Serializer for Counter<'_> {
    type Ok = ();
    type Error = Never;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = Self;
    type SerializeStruct = Self;
    type SerializeStructVariant = Self;

    fixed!(serialize_bool bool, serialize_char char, serialize_f32 f32, serialize_f64 f64);
    fixed!(serialize_i8 i8, serialize_i16 i16, serialize_i32 i32, serialize_i64 i64, serialize_i128 i128);
    fixed!(serialize_u8 u8, serialize_u16 u16, serialize_u32 u32, serialize_u64 u64, serialize_u128 u128);

    fn serialize_str(self, value: &str) -> Result<(), Never> {
        self.sized(value.len())
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), Never> {
        self.sized(value.len())
    }

    fn serialize_none(self) -> Result<(), Never> {
        self.fixed(8)
    }

    fn serialize_some<T: ?Sized + Serialize>(self, value: &T) -> Result<(), Never> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Never> {
        Ok(())
    }

    fn serialize_unit_struct(self, _name: &'static str) -> Result<(), Never> {
        Ok(())
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, _: &'static str) -> Result<(), Never> {
        self.fixed(1)
    }

    fn serialize_newtype_struct<T: ?Sized + Serialize>(self, _: &'static str, value: &T) -> Result<(), Never> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: ?Sized + Serialize>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Result<(), Never> {
        value.serialize(self)
    }

    fn serialize_seq(self, _length: Option<usize>) -> Result<Self, Never> {
        Ok(self.elements())
    }

    fn serialize_tuple(self, _length: usize) -> Result<Self, Never> {
        Ok(self)
    }

    fn serialize_tuple_struct(self, _: &'static str, _length: usize) -> Result<Self, Never> {
        Ok(self)
    }

    fn serialize_tuple_variant(self, _: &'static str, _: u32, _: &'static str, _: usize) -> Result<Self, Never> {
        Ok(self)
    }

    fn serialize_map(self, _length: Option<usize>) -> Result<Self, Never> {
        Ok(self.elements())
    }

    fn serialize_struct(self, _: &'static str, _length: usize) -> Result<Self, Never> {
        Ok(self)
    }

    fn serialize_struct_variant(self, _: &'static str, _: u32, _: &'static str, _: usize) -> Result<Self, Never> {
        Ok(self)
    }
}

macro_rules! compound {
    ($($of:ident $method:ident $(($name:ty))?),*) => {
        $(impl $of for Counter<'_> {
            type Ok = ();
            type Error = Never;

            fn $method<T: ?Sized + Serialize>(&mut self, $(_name: $name,)? value: &T) -> Result<(), Never> {
                value.serialize(self.same())
            }

            fn end(self) -> Result<(), Never> {
                Ok(())
            }
        })*
    };
}

compound!(
    SerializeSeq serialize_element,
    SerializeTuple serialize_element,
    SerializeTupleStruct serialize_field,
    SerializeTupleVariant serialize_field,
    SerializeStruct serialize_field (&'static str),
    SerializeStructVariant serialize_field (&'static str)
);

impl SerializeMap for Counter<'_> {
    type Ok = ();
    type Error = Never;

    fn serialize_key<T: ?Sized + Serialize>(&mut self, key: &T) -> Result<(), Never> {
        key.serialize(self.same())
    }

    fn serialize_value<T: ?Sized + Serialize>(&mut self, value: &T) -> Result<(), Never> {
        value.serialize(self.same())
    }

    fn end(self) -> Result<(), Never> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn what_is_on_the_heap_is_counted() {
        assert_eq!(heap_bytes(&(1u64, 2.0f64, 'c')), 0);
        assert_eq!(heap_bytes(&"four".to_owned()), 4);
        assert_eq!(heap_bytes(&(7u64, "four".to_owned())), 4);
        assert_eq!(heap_bytes(&vec![1u64, 2, 3]), 24);
        assert_eq!(heap_bytes(&vec!["a".to_owned(), "bc".to_owned()]), 2 * HEADER + 3);
        assert_eq!(heap_bytes(&BTreeMap::from([(1u32, vec![2u8, 3])])), 4 + HEADER + 2);
        assert_eq!(heap_bytes(&Some(vec![(1u8, Some(2u16)), (3, None)])), 1 + 2 + 1 + 8);
    }
}
