//! A column whose slots expire as a whole: any other column, and beside it when each slot was used.
//!
//! State that was saved without times may go on with them, and the other way round: of a slot whose time is not known, the time
//! begins when it is first looked at.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Int64Type};
use tidemill_core::state::{EncodeColumn, Expiry, StateColumn, ValueCells, resize_cells};
use tidemill_core::{Error, Result};

use super::ValueColumn;
use crate::state::StateValue;

/// What stands for a time that is not known: no clock shows it.
const UNKNOWN: i64 = i64::MIN;

/// `C` with the column `used_millis` behind its own, NULL where the time is not known.
#[derive(Debug)]
pub struct TimedColumn<C> {
    /// The column that expires. Who writes to it says so by `touch`.
    pub inner: C,
    used_millis: Vec<i64>,
    fields: Fields,
}

impl<C: StateColumn> TimedColumn<C> {
    /// The column with times; it has no slots yet.
    pub fn new(inner: C) -> Self {
        let time: FieldRef = Arc::new(Field::new("used_millis", DataType::Int64, true));
        let fields = inner.fields().iter().cloned().chain([time]).collect();
        Self { inner, used_millis: Vec::new(), fields }
    }

    fn times(&self, slots: &[usize]) -> ArrayRef {
        let time = |slot: &usize| Some(self.used_millis[*slot]).filter(|used| *used != UNKNOWN);
        Arc::new(slots.iter().map(time).collect::<Int64Array>())
    }
}

impl<C: StateColumn> StateColumn for TimedColumn<C> {
    fn fields(&self) -> &Fields {
        &self.fields
    }

    fn resize(&mut self, slots: usize) {
        self.inner.resize(slots);
        resize_cells(&mut self.used_millis, slots, || 0);
    }

    fn clear(&mut self, slot: usize) {
        self.inner.clear(slot);
        self.used_millis[slot] = 0;
    }

    fn is_vacant(&self, slot: usize) -> bool {
        self.inner.is_vacant(slot)
    }

    fn encode(&self, slots: &[usize]) -> Result<Vec<ArrayRef>> {
        let mut columns = self.inner.encode(slots)?;
        columns.push(self.times(slots));
        Ok(columns)
    }

    fn freeze(&self, slots: &[usize]) -> Result<EncodeColumn> {
        let (inner, times) = (self.inner.freeze(slots)?, self.times(slots));
        Ok(Box::new(move || {
            let mut columns = inner()?;
            columns.push(times);
            Ok(columns)
        }))
    }

    fn decode(&mut self, slots: &[usize], columns: &[ArrayRef]) -> Result<()> {
        let Some((times, inner)) = columns.split_last() else {
            return Err(Error::internal("state without its times"));
        };
        self.inner.decode(slots, inner)?;
        let times = times.as_primitive_opt::<Int64Type>().ok_or_else(|| Error::corrupt("times that are no numbers"))?;
        slots.iter().zip(times).for_each(|(slot, time)| self.used_millis[*slot] = time.unwrap_or(UNKNOWN));
        Ok(())
    }

    fn touch(&mut self, slots: &[usize], now_millis: i64) {
        slots.iter().for_each(|slot| self.used_millis[*slot] = now_millis);
    }

    fn is_undated(&self, slot: usize) -> bool {
        self.used_millis[slot] == UNKNOWN && !self.inner.is_vacant(slot)
    }

    fn expire(&mut self, slot: usize, expiry: Expiry) -> bool {
        let used = self.used_millis[slot];
        let expires = used != UNKNOWN && !self.inner.is_vacant(slot) && expiry.is_expired(used);
        if expires {
            self.clear(slot);
        }
        expires
    }

    fn memory_bytes(&self) -> usize {
        self.inner.memory_bytes() + self.used_millis.capacity() * size_of::<i64>()
    }
}

fn is_visible(used_millis: i64, expiry: Expiry) -> bool {
    used_millis == UNKNOWN || expiry.is_visible(used_millis)
}

impl<T: StateValue> ValueCells<T> for TimedColumn<ValueColumn<T>> {
    fn get(&self, slot: usize, expiry: Expiry) -> Option<&T> {
        self.inner.get(slot, expiry).filter(|_| is_visible(self.used_millis[slot], expiry))
    }

    fn set(&mut self, slot: usize, value: T, expiry: Expiry) {
        self.inner.set(slot, value, expiry);
        self.used_millis[slot] = expiry.now_millis();
    }

    fn take(&mut self, slot: usize, expiry: Expiry) -> Option<T> {
        let used = std::mem::take(&mut self.used_millis[slot]);
        self.inner.take(slot, expiry).filter(|_| is_visible(used, expiry))
    }

    fn renew(&mut self, slot: usize, expiry: Expiry) -> bool {
        let used = self.used_millis[slot];
        let renews = !self.inner.is_vacant(slot) && (used == UNKNOWN || !expiry.is_expired(used));
        if renews {
            self.used_millis[slot] = expiry.now_millis();
        }
        renews
    }
}
