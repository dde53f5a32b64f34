//! The order in which rows of keyed state are stored: that of their key groups.

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::interleave_record_batch;
use arrow::datatypes::UInt32Type;
use tidemill_core::key::scatter;
use tidemill_core::{Error, Result};

/// The most rows of a batch: so few that the texts of a column stay below what 32 bits can count.
pub const BATCH_ROWS: usize = 8192;

/// The rows of `batches`, whose first column is the key group, in the order of their groups; within a group they stay in theirs.
/// At most [`BATCH_ROWS`] in a batch, none empty: what is in memory beside the rows are four bytes for each.
pub fn in_group_order(batches: &[RecordBatch], max_parallelism: u32) -> Result<Vec<RecordBatch>> {
    let mut groups: Vec<u32> = Vec::with_capacity(batches.iter().map(RecordBatch::num_rows).sum());
    let mut ends = Vec::with_capacity(batches.len());
    for batch in batches {
        let of_batch = batch.columns().first().and_then(|column| column.as_primitive_opt::<UInt32Type>());
        groups.extend_from_slice(of_batch.ok_or_else(|| Error::internal("rows without their key group"))?.values());
        ends.push(groups.len());
    }
    let (order, _) = scatter(&groups, max_parallelism as usize);
    drop(groups);
    let batches: Vec<&RecordBatch> = batches.iter().collect();
    let place = |row: &u32| {
        let row = *row as usize;
        let batch = ends.partition_point(|end| *end <= row);
        (batch, row - batch.checked_sub(1).map_or(0, |before| ends[before]))
    };
    let mut places = Vec::with_capacity(BATCH_ROWS.min(order.len()));
    let ordered = order.chunks(BATCH_ROWS).map(|rows| {
        places.clear();
        places.extend(rows.iter().map(place));
        Ok(interleave_record_batch(&batches, &places)?)
    });
    ordered.collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, UInt32Array};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};

    use super::*;

    #[test]
    fn rows_of_several_batches_come_by_group_and_keep_their_order_within_one() {
        let fields = vec![Field::new("group", DataType::UInt32, false), Field::new("row", DataType::Int64, false)];
        let schema = Arc::new(Schema::new(fields));
        let groups: Vec<u32> = (0..3 * BATCH_ROWS as u32).map(|row| row.wrapping_mul(2_654_435_761) % 7).collect();
        let mut batches = Vec::new();
        let mut begin = 0;
        for rows in [0, 5, BATCH_ROWS, 0, groups.len() - 5 - BATCH_ROWS] {
            let range = begin..begin + rows;
            let numbers = Int64Array::from_iter_values(range.clone().map(|row| row as i64));
            let columns: Vec<arrow::array::ArrayRef> =
                vec![Arc::new(UInt32Array::from(groups[range].to_vec())), Arc::new(numbers)];
            batches.push(RecordBatch::try_new(schema.clone(), columns).unwrap());
            begin += rows;
        }
        let ordered = in_group_order(&batches, 7).unwrap();
        assert_eq!(ordered.iter().map(RecordBatch::num_rows).collect::<Vec<_>>(), [BATCH_ROWS; 3]);
        let rows: Vec<i64> =
            ordered.iter().flat_map(|batch| batch.column(1).as_primitive::<Int64Type>().values().to_vec()).collect();
        let mut expected: Vec<i64> = (0..groups.len() as i64).collect();
        expected.sort_by_key(|row| groups[*row as usize]);
        assert_eq!(rows, expected);
        assert!(in_group_order(&[], 7).unwrap().is_empty());
    }
}
