//! Rows whose keys are not in memory wait until there are many of them: keys that are neighbours on the local disk are then read
//! and written together.
//!
//! Only they wait, and the watermark behind them: what came for keys in memory overtakes them, but no row overtakes another of its
//! own key, because a key comes into memory only with all the rows that wait for it.

use arrow::array::UInt32Array;
use arrow::buffer::ScalarBuffer;
use tidemill_core::{Batch, Error, Result, Watermark};

use crate::operators::expression::keys_and_hashes;
use crate::operators::pending::piece_end;
use crate::state::tier::Place;

/// What a batch occupies beside its values, in bytes.
const BATCH_BYTES: usize = 512;

/// Rows that wait, and those that are being worked off.
#[derive(Debug, Default)]
pub struct Backlog {
    waiting: Vec<Batch>,
    bytes: usize,
    /// Some of those that wait were restored: their keys may be in memory by now.
    has_restored: bool,
    due: Option<Due>,
    watermark: Option<Watermark>,
}

#[derive(Debug)]
struct Due {
    rows: Batch,
    /// Those of the rows' keys.
    hashes: ScalarBuffer<u64>,
    /// Rows from here on are left, in the order of the places of their keys.
    next: usize,
    order: Vec<u32>,
}

impl Backlog {
    /// These `far` rows of a batch have to wait; the others come back.
    pub fn keep_back(&mut self, batch: &Batch, far: Vec<u32>) -> Result<Batch> {
        let mut next = far.iter().copied().peekable();
        let near: Vec<u32> = (0..batch.num_rows() as u32).filter(|row| next.next_if_eq(row).is_none()).collect();
        let near = batch.take(&near.into())?;
        // To hash them again is cheaper than to have fewer of them wait.
        let far = batch.clone().without_hashes().take(&far.into())?.compact();
        self.bytes += far.size_bytes() + BATCH_BYTES;
        self.waiting.push(far);
        Ok(near)
    }

    /// These rows waited when a checkpoint was taken, and wait again; they come before all others of their keys.
    pub fn put_back(&mut self, rows: Batch) {
        self.has_restored = true;
        self.bytes += rows.size_bytes() + BATCH_BYTES;
        self.waiting.push(rows);
    }

    /// Whether rows wait that no other may overtake, whatever its key is.
    pub fn has_restored(&self) -> bool {
        self.has_restored
    }

    /// The rows that wait, in their order.
    ///
    /// Errors: some are being worked off.
    pub fn waiting(&self) -> Result<&[Batch]> {
        match self.due {
            None => Ok(&self.waiting),
            Some(_) => Err(Error::internal("rows are asked for while they are worked off")),
        }
    }

    /// Bytes of the rows that wait.
    pub fn size_bytes(&self) -> usize {
        self.bytes
    }

    /// Whether no row waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.due.is_none()
    }

    /// Event time has come so far, behind the rows that wait.
    pub fn advance(&mut self, watermark: Watermark) {
        self.watermark = Some(watermark);
    }

    /// The last watermark, once, if nothing waits before it.
    pub fn watermark(&mut self) -> Option<Watermark> {
        if self.is_empty() { self.watermark.take() } else { None }
    }

    /// All rows that wait are due now; `keys` are the columns of their keys.
    pub fn fall_due(&mut self, keys: &[usize], max_parallelism: u32) -> Result<()> {
        if self.due.is_some() {
            return Err(Error::internal("rows fall due while others are worked off"));
        }
        self.has_restored = false;
        let waiting = std::mem::take(&mut self.waiting);
        let Some(first) = waiting.first() else { return Ok(()) };
        let rows = Batch::concat(&first.schema(), &waiting)?;
        drop(waiting);
        let hashes = keys_and_hashes(&rows, keys)?.1;
        // As keys lie in the tier; rows of one key stay in their order.
        let mut order: Vec<u32> = (0..rows.num_rows() as u32).collect();
        order.sort_by_cached_key(|row| Place::of(hashes[*row as usize], max_parallelism));
        self.due = Some(Due { rows: rows.with_hashes(hashes.clone())?, hashes, next: 0, order });
        Ok(())
    }

    /// The next rows that are due, `rows` at the most, of so many keys.
    pub fn next_due(&mut self, rows: usize, keys: usize) -> Result<Option<Batch>> {
        let Some(due) = &mut self.due else { return Ok(None) };
        // A row more than are wanted, for the two rows of an update that would be cut apart.
        let most = due.next.saturating_add(rows).saturating_add(1).min(due.order.len());
        let (mut end, mut left, mut last) = (due.next, keys, None);
        while end < most {
            let hash = due.hashes[due.order[end] as usize];
            if last != Some(hash) {
                if left == 0 {
                    break;
                }
                (last, left) = (Some(hash), left - 1);
            }
            end += 1;
        }
        let batch = due.rows.take(&UInt32Array::from(due.order[due.next..end].to_vec()))?;
        let length = piece_end(&batch, 0, rows);
        due.next += length;
        if due.next == due.order.len() {
            (self.due, self.bytes) = (None, 0);
        }
        Ok(Some(batch.slice(0, length)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
    use arrow::datatypes::Int64Type;
    use tidemill_core::key::hash_columns;

    use super::*;

    fn numbers(batch: &Batch) -> Vec<i64> {
        batch.records().column(0).as_primitive::<Int64Type>().values().to_vec()
    }

    #[test]
    fn rows_come_back_by_the_places_of_their_keys_and_in_their_order() {
        let batch = |keys: [i64; 4], first: i64| {
            let keys: ArrayRef = Arc::new(Int64Array::from(keys.to_vec()));
            let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(first..first + 4));
            Batch::append(RecordBatch::try_from_iter([("n", numbers), ("k", keys)]).unwrap())
        };
        let mut backlog = Backlog::default();
        assert_eq!(numbers(&backlog.keep_back(&batch([7, 8, 9, 8], 1), vec![0, 1, 3]).unwrap()), [3]);
        assert_eq!(numbers(&backlog.keep_back(&batch([1, 7, 8, 1], 5), vec![1, 2]).unwrap()), [5, 8]);
        assert_eq!((backlog.is_empty(), backlog.size_bytes()), (false, 5 * 16 + 2 * BATCH_BYTES));
        backlog.advance(Watermark(3));
        assert!(backlog.next_due(10, 10).unwrap().is_none() && backlog.watermark().is_none());
        backlog.fall_due(&[1], 128).unwrap();
        let mut seen = vec![];
        while let Some(batch) = backlog.next_due(2, 1).unwrap() {
            seen.push(numbers(&batch));
        }
        let place = |key: i64| {
            let key: ArrayRef = Arc::new(Int64Array::from(vec![key]));
            Place::of(hash_columns(&[key], 1).unwrap()[0], 128)
        };
        assert_eq!(
            seen,
            if place(7) < place(8) { [vec![1, 6], vec![2, 4], vec![7]] } else { [vec![2, 4], vec![7], vec![1, 6]] }
        );
        assert_eq!((backlog.is_empty(), backlog.size_bytes()), (true, 0));
        assert_eq!((backlog.watermark(), backlog.watermark()), (Some(Watermark(3)), None));
    }
}
