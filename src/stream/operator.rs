//! The operator of a task of typed functions: a head that makes rows, and the functions fused behind it.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use tidemill_core::operator::{Operator, OperatorContext, OperatorFactory, Output, Progress};
use tidemill_core::{Batch, Result, Watermark};

use super::layout::RowCodec;
use super::program::SideOutput;
use super::stage::{StageFactory, Tail};

/// Rows that are decoded at once. A function that multiplies rows can stop between two such pieces when its output is full.
const PIECE_ROWS: usize = 1024;

/// What an operator begins with.
pub(super) trait Head: Send + Sync {
    /// The operator of one subtask, with `tail` behind it. `sides` are the side outputs that are read.
    fn create(&self, tail: Tail, sides: &[SideOutput]) -> Result<Box<dyn Operator>>;

    /// What it does, for plans.
    fn describe(&self) -> String;
}

/// A head and the functions fused behind it.
pub(super) struct Fused {
    /// The head.
    pub head: Arc<dyn Head>,
    /// Its side outputs.
    pub sides: Vec<SideOutput>,
    /// The functions, in order.
    pub stages: Vec<StageFactory>,
    /// How results leave.
    pub codec: Arc<dyn RowCodec>,
    /// What it does, for plans.
    pub text: String,
}

impl fmt::Debug for Fused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fused({})", self.text)
    }
}

impl OperatorFactory for Fused {
    fn create(&self) -> Result<Box<dyn Operator>> {
        self.head.create(Tail::new(&self.stages, self.codec.clone()), &self.sides)
    }

    fn describe(&self) -> String {
        self.text.clone()
    }
}

/// The head that decodes batches: of functions that need nothing but the row.
pub(super) struct Decode(pub Arc<dyn RowCodec>);

impl Head for Decode {
    fn create(&self, tail: Tail, _sides: &[SideOutput]) -> Result<Box<dyn Operator>> {
        Ok(Box::new(RowByRow { codec: self.0.clone(), tail, waiting: VecDeque::new() }))
    }

    fn describe(&self) -> String {
        String::new()
    }
}

struct RowByRow {
    codec: Arc<dyn RowCodec>,
    tail: Tail,
    /// Pieces of the batch at hand that are still to be decoded.
    waiting: VecDeque<RecordBatch>,
}

impl Operator for RowByRow {
    fn open(&mut self, context: &OperatorContext) -> Result<()> {
        self.tail.open(context);
        Ok(())
    }

    fn process(&mut self, _input: usize, batch: Batch, output: &mut Output) -> Result<Progress> {
        let records = batch.into_records();
        let rows = records.num_rows();
        let pieces = (0..rows).step_by(PIECE_ROWS);
        self.waiting.extend(pieces.map(|offset| records.slice(offset, PIECE_ROWS.min(rows - offset))));
        self.resume(output)
    }

    fn advance(&mut self, watermark: Watermark, output: &mut Output) -> Result<Progress> {
        self.tail.watermark(watermark, output);
        Ok(Progress::Done)
    }

    fn resume(&mut self, output: &mut Output) -> Result<Progress> {
        while let Some(records) = self.waiting.pop_front() {
            self.tail.emit(self.codec.decode(&records)?, output)?;
            if self.waiting.is_empty() {
                self.tail.end_batch(output);
            } else if output.is_full() {
                return Ok(Progress::Full);
            }
        }
        Ok(Progress::Done)
    }
}
