//! Whole numbers from one to another, both inclusive (SRC-03).

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use tidemill_core::error::Result;
use tidemill_core::source::{Boundedness, Source, SourceContext, SourceReader, SplitEnumerator};

use crate::datagen::GeneratedSource;

/// The numbers `from` to `to` in one BIGINT column, read in parallel.
#[derive(Clone, Debug)]
pub struct SequenceSource {
    from: i64,
    to: i64,
    rows: GeneratedSource,
}

impl SequenceSource {
    /// The numbers `from` to `to`, both inclusive, in a column called `column`; none if `to` is the smaller one.
    pub fn new(column: impl Into<String>, from: i64, to: i64) -> Self {
        let schema = Arc::new(Schema::new(vec![Field::new(column, DataType::Int64, false)]));
        Self { from, to, rows: GeneratedSource::sequence(schema, from, to) }
    }
}

impl Source for SequenceSource {
    fn schema(&self) -> SchemaRef {
        self.rows.schema()
    }

    fn boundedness(&self) -> Boundedness {
        Boundedness::Bounded
    }

    fn enumerator(&self, context: &SourceContext) -> Result<Box<dyn SplitEnumerator>> {
        self.rows.enumerator(context)
    }

    fn reader(&self, context: &SourceContext) -> Result<Box<dyn SourceReader>> {
        self.rows.reader(context)
    }

    fn describe(&self) -> String {
        format!("sequence({} to {})", self.from, self.to)
    }
}
