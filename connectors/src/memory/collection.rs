//! Batches that the program holds, as a bounded source (SRC-01, SRC-02).

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::future::BoxFuture;
use futures::stream::StreamExt;
use tidemill_core::error::{Error, Result};
use tidemill_core::source::{
    Boundedness, ListEnumerator, SequentialReader, Source, SourceContext, SourceReader, Split, SplitEnumerator,
    SplitStream, decode_position,
};

/// The rows of a collection, in order, read by one subtask.
#[derive(Clone, Debug)]
pub struct CollectionSource {
    schema: SchemaRef,
    batches: Arc<[RecordBatch]>,
}

impl CollectionSource {
    /// A source of `batches`, all of which have `schema`.
    pub fn new(schema: SchemaRef, batches: Vec<RecordBatch>) -> Result<Self> {
        let other = batches.iter().find(|batch| batch.schema().fields() != schema.fields());
        match other {
            None => Ok(Self { schema, batches: batches.into() }),
            Some(batch) => Err(Error::request(format!(
                "a batch of the collection has columns {}, the collection {schema}",
                batch.schema()
            ))),
        }
    }
}

impl Source for CollectionSource {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn boundedness(&self) -> Boundedness {
        Boundedness::Bounded
    }

    fn parallelism_max(&self) -> Option<usize> {
        Some(1)
    }

    fn enumerator(&self, _context: &SourceContext) -> Result<Box<dyn SplitEnumerator>> {
        Ok(Box::new(ListEnumerator::new([Split::new("collection")])))
    }

    fn reader(&self, context: &SourceContext) -> Result<Box<dyn SourceReader>> {
        let batches = self.batches.clone();
        let projection = context.projection.clone();
        let batch_rows = context.batch_rows;
        let open = move |split: Split| -> BoxFuture<'static, Result<SplitStream>> {
            let opened = from_position(&batches, projection.clone(), batch_rows, &split.position);
            Box::pin(std::future::ready(opened))
        };
        Ok(Box::new(SequentialReader::new(open)))
    }

    fn describe(&self) -> String {
        format!("collection({} rows)", self.batches.iter().map(RecordBatch::num_rows).sum::<usize>())
    }
}

/// The rows from a position on; a position counts rows.
fn from_position(
    batches: &Arc<[RecordBatch]>,
    projection: Option<Arc<[usize]>>,
    batch_rows: usize,
    position: &[u8],
) -> Result<SplitStream> {
    let start = decode_position(position).map_err(|error| error.context("a collection"))?.unwrap_or(0);
    let mut skip = usize::try_from(start).unwrap_or(usize::MAX);
    let mut rest = Vec::with_capacity(batches.len());
    for batch in batches.iter() {
        let skipped = skip.min(batch.num_rows());
        skip -= skipped;
        if skipped < batch.num_rows() {
            rest.push(batch.slice(skipped, batch.num_rows() - skipped));
        }
    }
    let project = move |batch: RecordBatch| match &projection {
        Some(columns) => batch.project(columns).map_err(Error::from),
        None => Ok(batch),
    };
    Ok(crate::formats::number_rows(futures::stream::iter(rest).map(project), start, batch_rows))
}
