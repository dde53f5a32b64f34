//! Which partition of an exchange a row goes to, as DataFusion's own operators compute it.
//!
//! A hash join pushes what it learnt of its build side into the scan below its other side, one filter a partition, and routes
//! rows to these filters with the hash of DataFusion's repartitioning. An exchange that dealt by any other hash would have rows
//! filtered by the wrong partition's filter: lost without a word.

use std::sync::Arc;

use datafusion::common::hash_utils::create_hashes;
use datafusion::physical_expr::{PhysicalExpr, PhysicalExprRef};
use datafusion::physical_expr_common::utils::evaluate_expressions_to_arrays;
use datafusion::physical_plan::repartition::{REPARTITION_RANDOM_STATE, RangeExpr};
use datafusion::physical_plan::{Partitioning as PlanPartitioning, RangePartitioning};
use tidemill_core::graph::{CustomPartitioner, Partitioning};
use tidemill_core::{Batch, Error, Result};

use crate::error::from_datafusion;

/// How an edge deals rows so that its consumers see `partitioning`.
pub fn edge_partitioning(partitioning: &PlanPartitioning) -> Result<Partitioning> {
    match partitioning {
        one if one.partition_count() == 1 => Ok(Partitioning::Global),
        PlanPartitioning::RoundRobinBatch(_) => Ok(Partitioning::Rebalance),
        PlanPartitioning::Hash(keys, _) => Ok(Partitioning::Custom(Arc::new(HashRouting { keys: keys.clone() }))),
        PlanPartitioning::Range(range) => Ok(Partitioning::Range(Arc::new(RangeRouting::new(range)?))),
        other => Err(Error::internal(format!("an exchange cannot deal rows by {other}"))),
    }
}

/// By DataFusion's hash of some expressions.
#[derive(Debug)]
struct HashRouting {
    keys: Vec<PhysicalExprRef>,
}

impl CustomPartitioner for HashRouting {
    fn channels(&self, batch: &Batch, channels: usize, channel_of: &mut Vec<u32>) -> Result<()> {
        let keys = evaluate_expressions_to_arrays(&self.keys, batch.records()).map_err(from_datafusion)?;
        let mut hashes = vec![0; batch.num_rows()];
        create_hashes(&keys, REPARTITION_RANDOM_STATE.random_state(), &mut hashes).map_err(from_datafusion)?;
        let count = channels as u64;
        match count.is_power_of_two() {
            true => channel_of.extend(hashes.iter().map(|hash| (hash & (count - 1)) as u32)),
            false => channel_of.extend(hashes.iter().map(|hash| (hash % count) as u32)),
        }
        Ok(())
    }

    fn describe(&self) -> String {
        let keys: Vec<String> = self.keys.iter().map(ToString::to_string).collect();
        format!("hash {}", keys.join(", "))
    }
}

/// By the split points between ranges.
#[derive(Debug)]
struct RangeRouting {
    partition: RangeExpr,
    description: String,
}

impl RangeRouting {
    fn new(range: &RangePartitioning) -> Result<Self> {
        let keys = range.ordering().iter().map(|key| key.expr.clone()).collect();
        let partition = RangeExpr::try_new(keys, range).map_err(from_datafusion)?;
        Ok(Self { partition, description: range.ordering().to_string() })
    }
}

impl CustomPartitioner for RangeRouting {
    fn channels(&self, batch: &Batch, _channels: usize, channel_of: &mut Vec<u32>) -> Result<()> {
        use arrow::array::AsArray;
        use arrow::datatypes::UInt64Type;
        let partitions = self.partition.evaluate(batch.records()).map_err(from_datafusion)?;
        let partitions = partitions.into_array(batch.num_rows()).map_err(from_datafusion)?;
        channel_of.extend(partitions.as_primitive::<UInt64Type>().values().iter().map(|partition| *partition as u32));
        Ok(())
    }

    fn describe(&self) -> String {
        self.description.clone()
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
    use arrow::compute::SortOptions;
    use datafusion::common::ScalarValue;
    use datafusion::physical_expr::expressions::Column;
    use datafusion::physical_expr::{LexOrdering, PhysicalSortExpr};
    use datafusion::physical_plan::SplitPoint;
    use datafusion::physical_plan::metrics::Time;
    use datafusion::physical_plan::repartition::BatchPartitioner;
    use proptest::prelude::*;

    use super::*;

    fn column(name: &str, place: usize) -> PhysicalExprRef {
        Arc::new(Column::new(name, place))
    }

    /// Rows of each channel, by our partitioner and by DataFusion's own.
    fn both(partitioning: &PlanPartitioning, batch: &RecordBatch) -> (Vec<Vec<RecordBatch>>, Vec<Vec<RecordBatch>>) {
        let channels = partitioning.partition_count();
        let (mut ours, mut theirs) = (vec![vec![]; channels], vec![vec![]; channels]);
        let edge = edge_partitioning(partitioning).unwrap();
        let mut partitioner = crate::exchange::Partitioner::new(edge, 0, 1, channels, 128, 0);
        let mut routed = vec![];
        partitioner.partition(Batch::append(batch.clone()), &mut routed).unwrap();
        routed.into_iter().for_each(|(channel, rows)| ours[channel].push(rows.into_records()));
        let mut oracle = BatchPartitioner::try_new(partitioning.clone(), Time::new(), 0, 1).unwrap();
        let take = |channel: usize, rows| {
            theirs[channel].push(rows);
            Ok(())
        };
        oracle.partition(batch.clone(), take).unwrap();
        (ours, theirs)
    }

    proptest! {
        #[test]
        fn rows_go_where_datafusion_sends_them(
            rows in prop::collection::vec((prop::option::of(-9..9i64), "[a-c]{0,2}"), 1..60),
            channels in 2..7usize,
        ) {
            let k: ArrayRef = Arc::new(rows.iter().map(|(k, _)| *k).collect::<Int64Array>());
            let t: ArrayRef = Arc::new(rows.iter().map(|(_, t)| Some(t)).collect::<StringArray>());
            let batch = RecordBatch::try_from_iter([("k", k), ("t", t)]).unwrap();
            let hash = PlanPartitioning::Hash(vec![column("k", 0), column("t", 1)], channels);
            let (ours, theirs) = both(&hash, &batch);
            prop_assert_eq!(ours, theirs);

            let options = SortOptions { descending: true, nulls_first: true };
            let order = LexOrdering::new([PhysicalSortExpr::new(column("k", 0), options)]).unwrap();
            let splits = (1..channels as i64).rev().map(|split| SplitPoint::new(vec![ScalarValue::Int64(Some(split))]));
            let range = RangePartitioning::try_new(order, splits.collect()).unwrap();
            let (ours, theirs) = both(&PlanPartitioning::Range(range), &batch);
            prop_assert_eq!(ours, theirs);
        }
    }
}
