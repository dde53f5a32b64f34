//! Rows of a keyed state with one number for each key.

use super::*;

pub const GROUPS: u32 = 6;

/// Key and value, which is none where the key is removed.
pub type Row = (i64, Option<i64>);

pub fn group_of(key: i64) -> u32 {
    (key as u32).wrapping_mul(7) % GROUPS
}

pub fn fields(name: &str) -> Fields {
    Fields::from(vec![Field::new(name, DataType::Int64, false)])
}

pub fn keyed(name: &str) -> StateDescriptor {
    StateDescriptor {
        name: name.to_owned(),
        kind: StateKind::Keyed,
        schema: keyed_schema(&fields("key"), &fields("value")),
    }
}

/// Rows with or without values, in the order of their groups.
pub fn batch(schema: &SchemaRef, mut rows: Vec<Row>) -> RecordBatch {
    rows.sort_by_key(|(key, _)| group_of(*key));
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(UInt32Array::from_iter_values(rows.iter().map(|(key, _)| group_of(*key)))),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|(key, _)| *key))),
    ];
    if schema.fields().len() == 3 {
        columns.push(Arc::new(rows.iter().map(|(_, value)| *value).collect::<Int64Array>()));
    }
    RecordBatch::try_new(schema.clone(), columns).unwrap()
}
