//! The columns of stored state.
//!
//! ```text
//! key_group │ key … │ namespace … │ what is kept …
//! ```
//!
//! A *namespace* tells apart what is kept for one key, such as the windows that a key is in. It is the last part of what tells rows
//! apart, and has no part in the key group: a key is in one subtask, whatever it is in beside.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef, UInt32Type};

use crate::error::{Error, Result};
use crate::key::hash_columns;
use crate::state::KEY_COLUMNS;

/// The name of the first column of keyed state.
pub const KEY_GROUP: &str = "key_group";

/// The columns of keyed state: key group, key, and what is kept for it (none for a list of keys).
///
/// How many of them are the key is part of the metadata, for those who read state without the operator that wrote it.
pub fn keyed_schema(keys: &Fields, state: &Fields) -> SchemaRef {
    let group: FieldRef = Arc::new(Field::new(KEY_GROUP, DataType::UInt32, false));
    let fields: Fields = [group].into_iter().chain(keys.iter().cloned()).chain(state.iter().cloned()).collect();
    let key_columns = (1 + keys.len()).to_string();
    Arc::new(Schema::new_with_metadata(fields, HashMap::from([(KEY_COLUMNS.to_owned(), key_columns)])))
}

/// The places of the key's columns in stored columns of keyed state; `None` if these do not say.
pub fn key_columns(schema: &Schema) -> Option<Range<usize>> {
    let end: usize = schema.metadata().get(KEY_COLUMNS)?.parse().ok()?;
    (1..=schema.fields().len()).contains(&end).then_some(1..end)
}

/// Metadata of a key column that is part of the namespace.
pub const NAMESPACE: &str = "tidemill.namespace";

/// The column as part of the namespace of keys.
pub fn namespace(field: Field) -> Field {
    let mut metadata = field.metadata().clone();
    metadata.insert(NAMESPACE.to_owned(), "true".to_owned());
    field.with_metadata(metadata)
}

/// Whether a key column is part of the namespace.
pub fn is_namespace(field: &Field) -> bool {
    field.metadata().contains_key(NAMESPACE)
}

/// The hash of each key in these columns, the namespace being the last of `fields`: the half that chooses the key group is that of
/// the key alone, the other half, which tables use, that of all.
pub fn key_hashes(fields: &Fields, columns: &[ArrayRef], rows: usize) -> Result<ScalarBuffer<u64>> {
    const GROUP_HALF: u64 = !0 << 32;
    let own = fields.iter().position(|field| is_namespace(field)).unwrap_or(columns.len());
    let hashes = hash_columns(&columns[..own], rows)?;
    if own == columns.len() {
        return Ok(hashes);
    }
    let all = hash_columns(columns, rows)?;
    Ok(hashes.iter().zip(all.iter()).map(|(own, all)| own & GROUP_HALF | all & !GROUP_HALF).collect())
}

/// The rows of these key groups, of a batch in the order of its key groups.
pub fn rows_of_groups(batch: &RecordBatch, groups: &Range<u32>) -> Result<RecordBatch> {
    let column = batch.columns().first().and_then(|column| column.as_primitive_opt::<UInt32Type>());
    let column = column.ok_or_else(|| Error::corrupt("keyed state whose first column is no key group"))?;
    let place = |group: u32| column.values().partition_point(|other| *other < group);
    let (begin, end) = (place(groups.start), place(groups.end));
    Ok(batch.slice(begin, end.saturating_sub(begin)))
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, UInt32Array};

    use super::*;
    use crate::key::key_group;

    fn batch(groups: Vec<u32>) -> RecordBatch {
        let values = Int64Array::from_iter_values(0..groups.len() as i64);
        let columns: Vec<ArrayRef> = vec![Arc::new(UInt32Array::from(groups)), Arc::new(values)];
        let fields = Fields::from(vec![Field::new("value", DataType::Int64, false)]);
        RecordBatch::try_new(keyed_schema(&Fields::empty(), &fields), columns).unwrap()
    }

    #[test]
    fn columns_say_which_of_them_are_the_key() {
        let field = |name: &str| Field::new(name, DataType::Int64, false);
        let schema = keyed_schema(&Fields::from(vec![field("a"), field("b")]), &Fields::from(vec![field("value")]));
        assert_eq!(key_columns(&schema), Some(1..3));
        assert_eq!(key_columns(&keyed_schema(&Fields::empty(), &Fields::empty())), Some(1..1));
        assert_eq!(key_columns(&Schema::new(vec![field("a")])), None);
    }

    #[test]
    fn a_namespace_tells_rows_apart_and_leaves_a_key_where_it_is() {
        let field = |name: &str| Field::new(name, DataType::Int64, false);
        let fields = Fields::from(vec![field("key"), namespace(field("window"))]);
        let column = |values: Vec<i64>| Arc::new(Int64Array::from(values)) as ArrayRef;
        let columns = [column(vec![1, 1, 2]), column(vec![10, 20, 10])];
        let (own, hashes) = (hash_columns(&columns[..1], 3).unwrap(), key_hashes(&fields, &columns, 3).unwrap());
        let group = |hash: &u64| key_group(*hash, 1 << 15);
        assert!(hashes.iter().map(group).eq(own.iter().map(group)));
        assert_ne!(hashes[0], hashes[1]);
        assert_eq!(key_hashes(&Fields::from(vec![field("key")]), &columns[..1], 3).unwrap(), own);
    }

    #[test]
    fn key_groups_are_cut_once() {
        let batch = batch(vec![0, 0, 2, 3, 3, 3, 7]);
        let rows = |range: Range<u32>| rows_of_groups(&batch, &range).unwrap().num_rows();
        assert_eq!([rows(0..1), rows(1..3), rows(3..4), rows(4..7), rows(7..8)], [2, 1, 3, 0, 1]);
        assert_eq!([rows(0..8), rows(8..9), rows(3..3)], [7, 0, 0]);
    }
}
