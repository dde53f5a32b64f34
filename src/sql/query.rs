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
    /// The columns, and behind them those that only order the result.
    pub(super) all_columns: SchemaRef,
}

/// The order of a result.
#[derive(Clone, Debug)]
pub struct Order {
    /// By which columns, the strongest first.
    pub keys: Vec<(usize, SortOptions)>,
}

impl Query {
    /// The next changes; `None` when the job has ended, well or not.
    pub async fn next(&mut self) -> Option<Result<Batch>> {
        let batch = self.rows.next().await?;
        if self.all_columns.fields().len() == self.schema.fields().len() {
            return Some(Ok(batch));
        }
        let shown = shown_columns(&self.schema, batch.records());
        Some(shown.and_then(|records| batch.with_records(records)))
    }

    /// The next changes for [`Query::table`]: with the columns that only order the result.
    pub async fn next_for_table(&mut self) -> Option<Batch> {
        self.rows.next().await
    }

    /// The table that the changes describe, still empty; [`Query::ordered`] makes its rows the result.
    pub fn table(&self) -> Folded {
        Folded::new(self.all_columns.clone())
    }

    /// Runs to the end and folds all changes, in the order asked for.
    pub async fn collect(mut self) -> Result<Rows> {
        let mut folded = self.table();
        while let Some(batch) = self.next_for_table().await {
            folded.apply(&batch)?;
        }
        self.job.wait().await?;
        self.ordered(folded.rows()?)
    }

    /// The rows of [`Query::table`] as `ORDER BY` asks for, without the columns that were only there for that.
    pub fn ordered(&self, rows: Rows) -> Result<Rows> {
        let rows = match &self.order {
            Some(order) => order.apply(rows)?,
            None => rows,
        };
        if self.all_columns.fields().len() == self.schema.fields().len() {
            return Ok(rows);
        }
        let batches = rows.batches.iter().map(|batch| shown_columns(&self.schema, batch));
        Ok(Rows { schema: self.schema.clone(), batches: batches.collect::<Result<_>>()? })
    }
}

impl Drop for Query {
    fn drop(&mut self) {
        if self.job.outcome().is_none() {
            self.job.cancel();
        }
    }
}

/// The columns of `schema`, which stand before all others.
fn shown_columns(schema: &SchemaRef, records: &RecordBatch) -> Result<RecordBatch> {
    Ok(records.project(&(0..schema.fields().len()).collect::<Vec<_>>())?)
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
