//! The first or the last rows of a result, for a box that does not show them all.

use std::collections::VecDeque;

use arrow::array::RecordBatch;

/// The first `count` rows of `batches`.
pub fn first_rows(batches: &[RecordBatch], count: usize) -> Vec<RecordBatch> {
    let mut head = Head::new(count);
    for batch in batches {
        head.push(batch);
        if head.is_full() {
            break;
        }
    }
    head.batches
}

/// Keeps the first rows and counts all.
#[derive(Debug)]
pub struct Head {
    /// The first rows.
    pub batches: Vec<RecordBatch>,
    /// How many rows came by.
    pub total: u64,
    room: usize,
}

impl Head {
    /// Room for `count` rows.
    pub fn new(count: usize) -> Self {
        Self { batches: Vec::new(), total: 0, room: count }
    }

    /// Takes in rows.
    pub fn push(&mut self, batch: &RecordBatch) {
        self.total += batch.num_rows() as u64;
        let taken = self.room.min(batch.num_rows());
        if taken > 0 {
            self.room -= taken;
            self.batches.push(batch.slice(0, taken));
        }
    }

    /// Whether no further row will be kept.
    pub fn is_full(&self) -> bool {
        self.room == 0
    }
}

/// Keeps the last rows and counts all.
#[derive(Debug)]
pub struct Tail {
    batches: VecDeque<RecordBatch>,
    rows: usize,
    /// How many rows came by.
    pub total: u64,
    count: usize,
}

impl Tail {
    /// Room for `count` rows.
    pub fn new(count: usize) -> Self {
        Self { batches: VecDeque::new(), rows: 0, total: 0, count }
    }

    /// Takes in rows.
    pub fn push(&mut self, batch: &RecordBatch) {
        self.total += batch.num_rows() as u64;
        self.rows += batch.num_rows();
        self.batches.push_back(batch.clone());
        while let Some(first) = self.batches.front()
            && self.rows - first.num_rows() >= self.count
        {
            self.rows -= first.num_rows();
            self.batches.pop_front();
        }
    }

    /// The last rows.
    pub fn rows(&self) -> Vec<RecordBatch> {
        let mut surplus = self.rows.saturating_sub(self.count);
        let kept = self.batches.iter().map(|batch| {
            let skipped = surplus.min(batch.num_rows());
            surplus -= skipped;
            batch.slice(skipped, batch.num_rows() - skipped)
        });
        kept.collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::Int64Type;

    use super::*;

    fn batch(values: std::ops::Range<i64>) -> RecordBatch {
        RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from_iter_values(values)) as _)]).unwrap()
    }

    fn values(batches: &[RecordBatch]) -> Vec<i64> {
        let column = |batch: &RecordBatch| batch.column(0).as_primitive::<Int64Type>().values().to_vec();
        batches.iter().flat_map(column).collect()
    }

    #[test]
    fn first_and_last() {
        let batches = [batch(0..2), batch(2..5), batch(5..6)];
        assert_eq!(values(&first_rows(&batches, 4)), [0, 1, 2, 3]);
        let (mut head, mut tail) = (Head::new(4), Tail::new(3));
        for batch in &batches {
            head.push(batch);
            tail.push(batch);
        }
        assert_eq!((values(&head.batches), head.total), (vec![0, 1, 2, 3], 6));
        assert_eq!((values(&tail.rows()), tail.total), (vec![3, 4, 5], 6));
        assert_eq!(tail.batches.len(), 2);
    }
}
