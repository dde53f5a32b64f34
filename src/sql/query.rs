//! A running query: its rows come as the job makes them.

use arrow::array::RecordBatch;
use arrow::compute::{SortColumn, SortOptions, lexsort_to_indices, take_record_batch};
use arrow::datatypes::SchemaRef;
use tidemill_connectors::CollectHandle;
use tidemill_core::{Batch, Result};
use tidemill_exec::runtime::JobHandle;

use super::fold::Folded;
use super::rows::Rows;

/// A running query. Dropping it cancels its job.
#[derive(Debug)]
pub struct Query {
    /// The columns.
    pub schema: SchemaRef,
    /// Whether the rows end.
    pub bounded: bool,
    /// Whether every change is an insert.
    pub append_only: bool,
    /// The job that makes the rows.
    pub job: JobHandle,
    /// What `ORDER BY` asks of the folded result, where the plan itself does not see to it.
    pub order: Option<Order>,
    pub(super) rows: CollectHandle,
}

/// The order of a result.
#[derive(Clone, Debug)]
pub struct Order {
    /// By which columns, the strongest first.
    pub keys: Vec<(usize, SortOptions)>,
}

impl Query {
    /// The next changes; `None` when the job has ended, well or not.
    pub async fn next(&mut self) -> Option<Batch> {
        self.rows.next().await
    }

    /// Runs to the end and folds all changes, in the order asked for.
    pub async fn collect(mut self) -> Result<Rows> {
        let mut folded = Folded::new(self.schema.clone());
        while let Some(batch) = self.next().await {
            folded.apply(&batch)?;
        }
        self.job.wait().await?;
        self.ordered(folded.rows()?)
    }

    /// `rows` as `ORDER BY` asks for.
    pub fn ordered(&self, rows: Rows) -> Result<Rows> {
        match &self.order {
            Some(order) => order.apply(rows),
            None => Ok(rows),
        }
    }
}

impl Drop for Query {
    fn drop(&mut self) {
        if self.job.outcome().is_none() {
            self.job.cancel();
        }
    }
}

impl Order {
    /// The rows in this order.
    pub fn apply(&self, rows: Rows) -> Result<Rows> {
        let batch: RecordBatch = rows.to_batch()?;
        let columns = self
            .keys
            .iter()
            .map(|(column, options)| SortColumn { values: batch.column(*column).clone(), options: Some(*options) });
        let columns: Vec<SortColumn> = columns.collect();
        if columns.is_empty() || batch.num_rows() < 2 {
            return Ok(rows);
        }
        let indices = lexsort_to_indices(&columns, None)?;
        let batch = take_record_batch(&batch, &indices)?;
        Ok(Rows { schema: rows.schema, batches: vec![batch] })
    }
}
