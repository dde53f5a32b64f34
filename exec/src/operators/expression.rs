//! Expressions over batches: what filters, projections, computed columns and watermarks evaluate.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::SchemaRef;
use datafusion::physical_expr::PhysicalExpr;
use tidemill_core::key::hash_columns;
use tidemill_core::source::{BatchFunction, WatermarkGenerator, WatermarkStrategy};
use tidemill_core::time::{floor_to_millis, time_type, time_values};
use tidemill_core::{Batch, Result, Watermark};

use crate::error::from_datafusion;

/// An expression of DataFusion, bound to the columns of its input.
pub type Expr = Arc<dyn PhysicalExpr>;

/// The value of `expr` for each row.
pub fn evaluate(expr: &Expr, records: &RecordBatch) -> Result<ArrayRef> {
    let value = expr.evaluate(records).map_err(from_datafusion)?;
    value.into_array(records.num_rows()).map_err(from_datafusion)
}

/// The value of each expression for each row.
pub fn evaluate_all(exprs: &[Expr], records: &RecordBatch) -> Result<Vec<ArrayRef>> {
    exprs.iter().map(|expr| evaluate(expr, records)).collect()
}

/// Where a predicate is true; NULL is not.
pub fn evaluate_predicate(expr: &Expr, records: &RecordBatch) -> Result<BooleanArray> {
    let mask = evaluate(expr, records)?;
    let mask = mask.as_boolean();
    Ok(match mask.nulls() {
        None => mask.clone(),
        Some(_) => arrow::compute::prep_null_mask_filter(mask),
    })
}

/// A batch of `columns`, also when there are none.
pub fn batch_of(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
}

/// The computed columns of a table: every column of it as an expression over the physical ones.
#[derive(Debug)]
pub struct ComputedColumns {
    exprs: Vec<Expr>,
    schema: SchemaRef,
}

impl ComputedColumns {
    /// One expression for each column of `schema`.
    pub fn new(exprs: Vec<Expr>, schema: SchemaRef) -> Self {
        Self { exprs, schema }
    }
}

impl BatchFunction for ComputedColumns {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn apply(&self, records: &RecordBatch) -> Result<RecordBatch> {
        batch_of(&self.schema, evaluate_all(&self.exprs, records)?, records.num_rows())
    }

    fn describe(&self) -> String {
        let exprs = self.exprs.iter().zip(self.schema.fields());
        let named: Vec<String> = exprs.map(|(expr, field)| format!("{expr} AS {}", field.name())).collect();
        format!("project {}", named.join(", "))
    }
}

/// `WATERMARK FOR ts AS expression`: the watermark is the highest value that the expression has had (SQL-11).
///
/// Unlike a bounded out-of-orderness strategy it subtracts nothing of its own: a row that equals the watermark is late.
#[derive(Clone, Debug)]
pub struct ExpressionWatermarks {
    expr: Expr,
    text: String,
}

impl ExpressionWatermarks {
    /// The strategy of `expr`, a time over the columns of `schema`; `text` is how the user wrote it.
    pub fn new(expr: Expr, schema: &SchemaRef, text: impl Into<String>) -> Result<Self> {
        let text = text.into();
        time_type(&text, &expr.data_type(schema).map_err(from_datafusion)?)?;
        Ok(Self { expr, text })
    }

    /// The watermark that these rows tell.
    pub fn highest(&self, records: &RecordBatch) -> Result<Option<Watermark>> {
        let times = evaluate(&self.expr, records)?;
        let (unit, _) = time_type(&self.text, times.data_type())?;
        let (values, nulls) = time_values(times.as_ref())?;
        let highest = match nulls {
            None => values.iter().copied().max(),
            Some(nulls) => nulls.valid_indices().map(|row| values[row]).max(),
        };
        Ok(highest.map(|highest| Watermark(floor_to_millis(highest, unit))))
    }
}

impl WatermarkStrategy for ExpressionWatermarks {
    fn generator(&self) -> Box<dyn WatermarkGenerator> {
        Box::new(self.clone())
    }

    fn describe(&self) -> String {
        self.text.clone()
    }
}

impl WatermarkGenerator for ExpressionWatermarks {
    fn observe(&mut self, records: &RecordBatch) -> Result<Option<Watermark>> {
        self.highest(records)
    }
}

/// The key columns of a batch and the hash of each row's key, which an exchange may have brought along.
pub fn keys_and_hashes(batch: &Batch, columns: &[usize]) -> Result<(Vec<ArrayRef>, ScalarBuffer<u64>)> {
    let keys: Vec<ArrayRef> = columns.iter().map(|column| batch.records().column(*column).clone()).collect();
    let hashes = match batch.hashes() {
        Some(hashes) => hashes.clone(),
        None => hash_columns(&keys, batch.num_rows())?,
    };
    Ok((keys, hashes))
}
