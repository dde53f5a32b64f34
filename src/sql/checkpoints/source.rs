//! A checkpoint as a source that ends: a split for each subtask that has stored something. A position counts rows.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use tidemill_core::source::{
    Boundedness, ListEnumerator, SequentialReader, Source, SourceContext, SourceReader, Split, SplitEnumerator,
    SplitStream, decode_position, encode_position,
};
use tidemill_core::{Error, Result};
use tidemill_exec::checkpoint::StateRows;

/// Rows of a checkpoint.
#[derive(Debug)]
pub struct CheckpointSource {
    schema: SchemaRef,
    rows: Arc<[Part]>,
    described: String,
}

/// What one split reads.
#[derive(Clone, Debug)]
enum Part {
    /// Rows that are there.
    Rows(RecordBatch),
    /// The rows of a state of one subtask.
    State(Box<StateRows>),
}

impl CheckpointSource {
    /// Rows that are known already.
    pub fn of_rows(rows: RecordBatch, described: String) -> Self {
        Self { schema: rows.schema(), rows: Arc::new([Part::Rows(rows)]), described }
    }

    /// The rows of one state, by subtask. There is at least one.
    pub fn of_state(parts: Vec<StateRows>, described: String) -> Result<Self> {
        let schema = parts.first().map(|part| part.schema().clone());
        let schema = schema.ok_or_else(|| Error::internal("a state that nobody has stored"))?;
        let rows = parts.into_iter().map(|part| Part::State(Box::new(part))).collect();
        Ok(Self { schema, rows, described })
    }

    /// The columns.
    pub fn columns(&self) -> &SchemaRef {
        &self.schema
    }
}

impl Source for CheckpointSource {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn boundedness(&self) -> Boundedness {
        Boundedness::Bounded
    }

    fn enumerator(&self, _context: &SourceContext) -> Result<Box<dyn SplitEnumerator>> {
        Ok(Box::new(ListEnumerator::new((0..self.rows.len()).map(|part| Split::new(part.to_string())))))
    }

    fn reader(&self, context: &SourceContext) -> Result<Box<dyn SourceReader>> {
        let (parts, batch_rows, projection) = (self.rows.clone(), context.batch_rows, context.projection.clone());
        Ok(Box::new(SequentialReader::new(move |split| {
            let opened = open(&parts, &split, batch_rows, projection.clone());
            std::future::ready(opened).boxed()
        })))
    }

    fn describe(&self) -> String {
        self.described.clone()
    }
}

/// The rows of a split behind its position.
fn open(parts: &[Part], split: &Split, batch_rows: usize, projection: Option<Arc<[usize]>>) -> Result<SplitStream> {
    let unknown = || Error::corrupt(format!("a split '{}' of a checkpoint that has {}", split.id, parts.len()));
    let part = split.id.parse().ok().and_then(|place: usize| parts.get(place)).ok_or_else(unknown)?;
    let skipped = decode_position(&split.position)?.unwrap_or(0);
    let rows: BoxStream<'static, Result<RecordBatch>> = match part {
        Part::Rows(rows) => {
            let (rows, step) = (rows.clone(), batch_rows.max(1));
            let begins = (0..rows.num_rows()).step_by(step);
            let pieces: Vec<Result<RecordBatch>> =
                begins.map(|begin| Ok(rows.slice(begin, step.min(rows.num_rows() - begin)))).collect();
            stream::iter(pieces).boxed()
        }
        Part::State(state) => state.read(batch_rows),
    };
    let mut count = 0;
    let behind = rows.filter_map(move |batch| {
        let batch = batch.and_then(|batch| {
            let before = count;
            count += batch.num_rows() as u64;
            let begin = skipped.saturating_sub(before).min(batch.num_rows() as u64) as usize;
            let batch = batch.slice(begin, batch.num_rows() - begin);
            let batch = match &projection {
                Some(columns) => batch.project(columns)?,
                None => batch,
            };
            Ok((batch, encode_position(count)))
        });
        let is_empty = batch.as_ref().is_ok_and(|(batch, _)| batch.num_rows() == 0);
        std::future::ready((!is_empty).then_some(batch))
    });
    Ok(behind.boxed())
}
