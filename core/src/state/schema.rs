//! The columns of stored state.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef, UInt32Type};

use crate::error::{Error, Result};
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
    use arrow::array::{ArrayRef, Int64Array, UInt32Array};

    use super::*;

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
    fn key_groups_are_cut_once() {
        let batch = batch(vec![0, 0, 2, 3, 3, 3, 7]);
        let rows = |range: Range<u32>| rows_of_groups(&batch, &range).unwrap().num_rows();
        assert_eq!([rows(0..1), rows(1..3), rows(3..4), rows(4..7), rows(7..8)], [2, 1, 3, 0, 1]);
        assert_eq!([rows(0..8), rows(8..9), rows(3..3)], [7, 0, 0]);
    }
}
