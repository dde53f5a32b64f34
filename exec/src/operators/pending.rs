//! Batches that an operator has made and not yet emitted, because its output was full.

use std::collections::VecDeque;

use tidemill_core::operator::{Emission, Output, Progress};
use tidemill_core::{Batch, RowKind, Watermark};

/// What waits to be emitted, in order.
#[derive(Debug, Default)]
pub struct Pending {
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
enum Waiting {
    Batch(usize, Batch),
    Watermark(Watermark),
}

impl Pending {
    /// Queues rows, in pieces of at most `rows`, but at least the two of an update, which are not cut apart.
    pub fn push(&mut self, batch: Batch, rows: usize) {
        self.push_to(0, batch, rows);
    }

    /// The same for an output port.
    pub fn push_to(&mut self, port: usize, batch: Batch, rows: usize) {
        let (total, mut begin) = (batch.num_rows(), 0);
        while begin < total {
            let end = piece_end(&batch, begin, rows.max(1));
            let whole = end - begin == total;
            let piece = if whole { batch.clone() } else { batch.slice(begin, end - begin) };
            self.waiting.push_back(Waiting::Batch(port, piece));
            begin = end;
        }
    }

    /// Queues a watermark behind the rows.
    pub fn push_watermark(&mut self, watermark: Watermark) {
        self.waiting.push_back(Waiting::Watermark(watermark));
    }

    /// Queues all that was emitted into `output`.
    pub fn take(&mut self, output: &mut Output, rows: usize) {
        while let Some(emission) = output.pop() {
            match emission {
                Emission::Batch(port, batch) => self.push_to(port, batch, rows),
                Emission::Watermark(watermark) => self.push_watermark(watermark),
            }
        }
    }

    /// Emits until the output is full or nothing waits.
    pub fn emit(&mut self, output: &mut Output) -> Progress {
        while let Some(next) = self.waiting.pop_front() {
            match next {
                Waiting::Batch(port, batch) if output.is_full() => {
                    self.waiting.push_front(Waiting::Batch(port, batch));
                    return Progress::Full;
                }
                Waiting::Batch(port, batch) => output.emit_to(port, batch),
                Waiting::Watermark(watermark) => output.watermark(watermark),
            }
        }
        Progress::Done
    }
}

/// Where a piece of at most `rows` rows that begins at `begin` ends, so that it does not end between `-U` and `+U`.
pub fn piece_end(batch: &Batch, begin: usize, rows: usize) -> usize {
    let end = begin.saturating_add(rows).min(batch.num_rows());
    let parts = |row: usize| batch.kinds().is_some_and(|kinds| kinds[row] == RowKind::UpdateBefore as u8);
    match end < batch.num_rows() && parts(end - 1) {
        false => end,
        true if end - begin > 1 => end - 1,
        true => end + 1,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use arrow::array::{ArrayRef, Int64Array, RecordBatch};

    /// The kinds of the rows of each piece.
    fn pieces(kinds: &[RowKind], rows: usize) -> Vec<String> {
        let column: ArrayRef = Arc::new(Int64Array::from(vec![0; kinds.len()]));
        let records = RecordBatch::try_from_iter([("n", column)]).unwrap();
        let kinds: Vec<u8> = kinds.iter().map(|kind| *kind as u8).collect();
        let mut pending = Pending::default();
        pending.push(Batch::changelog(records, kinds.into()).unwrap(), rows);
        let mut output = Output::new(usize::MAX);
        assert_eq!(pending.emit(&mut output), Progress::Done);
        let mut pieces = vec![];
        while let Some(Emission::Batch(0, batch)) = output.pop() {
            pieces.push((0..batch.num_rows()).map(|row| batch.kind(row).unwrap().symbol()).collect());
        }
        pieces
    }

    #[test]
    fn pieces_are_as_large_as_they_may_be_and_updates_stay_whole() {
        use RowKind::{Delete, Insert, UpdateAfter, UpdateBefore};
        assert_eq!(pieces(&[Insert; 5], 2), ["+I+I", "+I+I", "+I"]);
        let update = [Insert, UpdateBefore, UpdateAfter, UpdateBefore, UpdateAfter, Delete];
        assert_eq!(pieces(&update, 1), ["+I", "-U+U", "-U+U", "-D"]);
        assert_eq!(pieces(&update, 2), ["+I", "-U+U", "-U+U", "-D"]);
        assert_eq!(pieces(&update, 4), ["+I-U+U", "-U+U-D"]);
        assert_eq!(pieces(&update, usize::MAX), ["+I-U+U-U+U-D"]);
    }
}
