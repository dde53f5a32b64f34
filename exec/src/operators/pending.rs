//! Batches that an operator has made and not yet emitted, because its output was full.

use std::collections::VecDeque;

use tidemill_core::operator::{Output, Progress};
use tidemill_core::{Batch, Watermark};

/// What waits to be emitted, in order.
#[derive(Debug, Default)]
pub struct Pending {
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
enum Waiting {
    Batch(Batch),
    Watermark(Watermark),
}

impl Pending {
    /// Queues rows, in pieces of at most `rows`.
    pub fn push(&mut self, batch: Batch, rows: usize) {
        let total = batch.num_rows();
        let pieces = (0..total).step_by(rows.max(1)).map(|offset| match total <= rows {
            true => batch.clone(),
            false => batch.slice(offset, rows.min(total - offset)),
        });
        self.waiting.extend(pieces.map(Waiting::Batch));
    }

    /// Queues a watermark behind the rows.
    pub fn push_watermark(&mut self, watermark: Watermark) {
        self.waiting.push_back(Waiting::Watermark(watermark));
    }

    /// Emits until the output is full or nothing waits.
    pub fn emit(&mut self, output: &mut Output) -> Progress {
        while let Some(next) = self.waiting.pop_front() {
            match next {
                Waiting::Batch(batch) if output.is_full() => {
                    self.waiting.push_front(Waiting::Batch(batch));
                    return Progress::Full;
                }
                Waiting::Batch(batch) => output.emit(batch),
                Waiting::Watermark(watermark) => output.watermark(watermark),
            }
        }
        Progress::Done
    }
}
