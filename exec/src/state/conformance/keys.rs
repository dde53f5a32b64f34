//! Keys of all kinds: numbers, texts, floats with two zeros, dictionaries, NULL, and several columns together.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, DictionaryArray, Float64Array, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, Fields, Int32Type};
use proptest::prelude::*;

/// A key before it has a shape; each shape looks at its part.
pub type Key = (Option<i64>, Option<String>);

/// Which columns the key has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Number,
    Text,
    Float,
    Dictionary,
    Both,
}

const NUMBERS: [Option<i64>; 5] = [None, Some(0), Some(1), Some(2), Some(3)];
const TEXTS: [Option<&str>; 4] = [None, Some(""), Some("a"), Some("a longer one than fits")];

pub fn any_shape() -> impl Strategy<Value = Shape> {
    prop::sample::select(vec![Shape::Number, Shape::Text, Shape::Float, Shape::Dictionary, Shape::Both])
}

pub fn any_key() -> impl Strategy<Value = Key> {
    (prop::sample::select(&NUMBERS[..]), prop::sample::select(&TEXTS[..]))
        .prop_map(|(number, text)| (number, text.map(str::to_owned)))
}

impl Shape {
    /// The key columns.
    pub fn fields(self) -> Fields {
        let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
        let types = match self {
            Shape::Number => vec![DataType::Int64],
            Shape::Text => vec![DataType::Utf8],
            Shape::Float => vec![DataType::Float64],
            Shape::Dictionary => vec![dictionary],
            Shape::Both => vec![DataType::Int64, DataType::Utf8],
        };
        types
            .into_iter()
            .enumerate()
            .map(|(place, data_type)| Field::new(format!("k{place}"), data_type, true))
            .collect()
    }

    /// The keys as columns.
    pub fn columns(self, keys: &[Key]) -> Vec<ArrayRef> {
        let numbers = || -> ArrayRef { Arc::new(Int64Array::from_iter(keys.iter().map(|key| key.0))) };
        let texts = || keys.iter().map(|key| key.1.as_deref());
        let strings = || -> ArrayRef { Arc::new(StringArray::from_iter(texts())) };
        match self {
            Shape::Number => vec![numbers()],
            Shape::Text => vec![strings()],
            Shape::Float => vec![Arc::new(Float64Array::from_iter(keys.iter().map(|key| key.0.map(float))))],
            Shape::Dictionary => vec![Arc::new(DictionaryArray::<Int32Type>::from_iter(texts()))],
            Shape::Both => vec![numbers(), strings()],
        }
    }

    /// The key with everything folded that does not tell it from another.
    pub fn folded(self, (number, text): &Key) -> Key {
        match self {
            Shape::Number => (*number, None),
            // 0 and 1 are the two zeros.
            Shape::Float => (number.map(|number| if number == 1 { 0 } else { number }), None),
            Shape::Text | Shape::Dictionary => (None, text.clone()),
            Shape::Both => (*number, text.clone()),
        }
    }

    /// One of each key.
    pub fn all_keys(self) -> Vec<Key> {
        let pairs = NUMBERS.iter().flat_map(|number| TEXTS.iter().map(|text| (*number, text.map(str::to_owned))));
        pairs.map(|key| self.folded(&key)).collect::<BTreeSet<Key>>().into_iter().collect()
    }
}

fn float(number: i64) -> f64 {
    [0.0, -0.0, f64::NAN].get(number as usize).copied().unwrap_or(number as f64)
}
