//! Functions of whole batches as an operator.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::SchemaRef;
use tidemill_core::operator::{Operator, OperatorFactory, Output, Progress};
use tidemill_core::{Batch, Error, Result};

use super::layout::batch_of;

/// A function that a user wrote.
pub(super) type BatchFunction = Arc<dyn Fn(RecordBatch) -> Result<RecordBatch> + Send + Sync>;

/// A function from batches of one schema to batches of another.
#[derive(Clone)]
pub(super) struct WholeBatches {
    pub input: SchemaRef,
    pub output: SchemaRef,
    pub function: BatchFunction,
}

impl fmt::Debug for WholeBatches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WholeBatches({} -> {})", self.input, self.output)
    }
}

impl Operator for WholeBatches {
    fn process(&mut self, _input: usize, batch: Batch, output: &mut Output) -> Result<Progress> {
        let records = renamed(batch.into_records(), &self.input)?;
        output.emit(Batch::append(arranged((self.function)(records)?, &self.output)?));
        Ok(Progress::Done)
    }
}

impl OperatorFactory for WholeBatches {
    fn create(&self) -> Result<Box<dyn Operator>> {
        Ok(Box::new(self.clone()))
    }

    fn describe(&self) -> String {
        "map_batches".to_owned()
    }
}

/// A source calls its columns as it likes; where they are as many as those of the record, the function sees the record's names.
fn renamed(records: RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let same_types = records.num_columns() == schema.fields().len()
        && records.columns().iter().zip(schema.fields()).all(|(column, field)| column.data_type() == field.data_type())
        && (schema.fields().iter().all(|field| field.is_nullable())
            || records.columns().iter().all(|column| column.null_count() == 0));
    match same_types {
        true => batch_of(schema, records.columns().to_vec(), records.num_rows()),
        false => Ok(records),
    }
}

/// The columns of `schema`, found by name and cast to its types.
fn arranged(records: RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let columns = schema.fields().iter().map(|field| -> Result<ArrayRef> {
        let column = records.column_by_name(field.name()).ok_or_else(|| {
            let known = records.schema_ref().fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>();
            Error::request(format!("map_batches returned no column '{}'", field.name()))
                .with_hint(format!("it returned: {}", known.join(", ")))
        })?;
        match column.data_type() == field.data_type() {
            true => Ok(column.clone()),
            false => Ok(cast(column, field.data_type())?),
        }
    });
    batch_of(schema, columns.collect::<Result<_>>()?, records.num_rows())
}
