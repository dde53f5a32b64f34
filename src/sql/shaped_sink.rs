//! A sink behind a plan: batches get the table's own schema.
//!
//! A plan knows more about its columns than the table does (a literal is never NULL), and writers compare schemas. A plan also
//! counts in 128 bits where the type promises 38 digits: what has one digit more is stopped here.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Decimal128Type, Decimal256Type, SchemaRef};
use async_trait::async_trait;
use tidemill_core::event::CheckpointId;
use tidemill_core::sink::{
    ChangelogMode, Committable, Committer, Delivery, Sink, SinkContext, SinkWriter, WriterState,
};
use tidemill_core::watermark::Watermark;
use tidemill_core::{Batch, Error, Result};

use super::catalog::type_name;

/// A sink that is given exactly the columns it was made for.
#[derive(Debug)]
pub struct ShapedSink {
    inner: Arc<dyn Sink>,
    schema: SchemaRef,
}

impl ShapedSink {
    /// `inner` behind a plan whose columns have the types of `schema`.
    pub fn new(inner: Arc<dyn Sink>, schema: SchemaRef) -> Self {
        Self { inner, schema }
    }
}

impl Sink for ShapedSink {
    fn changelog_mode(&self) -> ChangelogMode {
        self.inner.changelog_mode()
    }

    fn delivery(&self) -> Delivery {
        self.inner.delivery()
    }

    fn key_columns(&self) -> &[usize] {
        self.inner.key_columns()
    }

    fn parallelism_max(&self) -> Option<usize> {
        self.inner.parallelism_max()
    }

    fn prepare(&self) -> Result<Arc<dyn Committer>> {
        self.inner.prepare()
    }

    fn writer(&self, context: &SinkContext) -> Result<Box<dyn SinkWriter>> {
        let context = SinkContext { schema: self.schema.clone(), ..context.clone() };
        Ok(Box::new(ShapedWriter { inner: self.inner.writer(&context)?, schema: self.schema.clone() }))
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}

struct ShapedWriter {
    inner: Box<dyn SinkWriter>,
    schema: SchemaRef,
}

#[async_trait]
impl SinkWriter for ShapedWriter {
    async fn restore(&mut self, states: Vec<WriterState>) -> Result<()> {
        self.inner.restore(states).await
    }

    async fn write(&mut self, batch: Batch) -> Result<()> {
        let records = RecordBatch::try_new_with_options(
            self.schema.clone(),
            batch.records().columns().to_vec(),
            &arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows())),
        )?;
        check_digits(&records)?;
        self.inner.write(batch.with_records(records)?).await
    }

    async fn watermark(&mut self, watermark: Watermark) -> Result<()> {
        self.inner.watermark(watermark).await
    }

    async fn flush(&mut self) -> Result<()> {
        self.inner.flush().await
    }

    async fn prepare_commit(&mut self, checkpoint: Option<CheckpointId>) -> Result<Vec<Committable>> {
        self.inner.prepare_commit(checkpoint).await
    }

    async fn prepare_savepoint(&mut self, savepoint: CheckpointId) -> Result<Vec<Committable>> {
        self.inner.prepare_savepoint(savepoint).await
    }

    async fn snapshot(&mut self, checkpoint: CheckpointId) -> Result<Vec<WriterState>> {
        self.inner.snapshot(checkpoint).await
    }
}

/// An error that names the first decimal with more digits than its type has.
fn check_digits(records: &RecordBatch) -> Result<()> {
    for (field, column) in records.schema_ref().fields().iter().zip(records.columns()) {
        let checked = match field.data_type() {
            DataType::Decimal128(precision, _) => {
                column.as_primitive::<Decimal128Type>().validate_decimal_precision(*precision)
            }
            DataType::Decimal256(precision, _) => {
                column.as_primitive::<Decimal256Type>().validate_decimal_precision(*precision)
            }
            _ => Ok(()),
        };
        checked.map_err(|_| {
            let error =
                format!("a value of column '{}' has more digits than {}", field.name(), type_name(field.data_type()));
            Error::data(error).with_hint(
                "CAST what it is computed from to DOUBLE, or to a DECIMAL with fewer digits behind the point",
            )
        })?;
    }
    Ok(())
}
