//! Timers by time.

use std::collections::BTreeSet;

use arrow::array::ArrayRef;
use arrow::row::{RowConverter, SortField};
use tidemill_core::Result;

/// A timer on its way, in the order in which timers fire.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DueTimer {
    /// When, in milliseconds.
    pub time: i64,
    /// The key group of its key.
    pub group: u32,
    /// Its key, encoded.
    pub key: Box<[u8]>,
    /// What else tells timers apart.
    pub namespace: i64,
}

/// Timers of one domain, by time, key group and encoded key.
#[derive(Debug, Default)]
pub struct TimerQueue {
    timers: BTreeSet<DueTimer>,
    key_bytes: usize,
}

impl TimerQueue {
    /// Adds a timer; one that is there already stays alone.
    pub fn insert(&mut self, timer: DueTimer) {
        let bytes = timer.key.len();
        if self.timers.insert(timer) {
            self.key_bytes += bytes;
        }
    }

    /// Takes out a timer, if it is there.
    pub fn remove(&mut self, timer: &DueTimer) {
        if self.timers.remove(timer) {
            self.key_bytes -= timer.key.len();
        }
    }

    /// Takes out the first timer, unless it is later than `until`.
    pub fn pop(&mut self, until: i64) -> Option<DueTimer> {
        if self.timers.first()?.time > until {
            return None;
        }
        let timer = self.timers.pop_first()?;
        self.key_bytes -= timer.key.len();
        Some(timer)
    }

    /// The time of the first timer.
    pub fn next(&self) -> Option<i64> {
        self.timers.first().map(|timer| timer.time)
    }

    /// Bytes held, roughly.
    pub fn memory_bytes(&self) -> usize {
        self.timers.len() * 2 * size_of::<DueTimer>() + self.key_bytes
    }
}

/// Keys as bytes that are in the order of the keys, and back.
#[derive(Debug)]
pub struct EncodedKeys {
    /// `None` without columns: then there is one key.
    converter: Option<RowConverter>,
}

impl EncodedKeys {
    /// For keys with columns like these.
    pub fn new(columns: &[ArrayRef]) -> Result<Self> {
        let fields: Vec<SortField> = columns.iter().map(|column| SortField::new(column.data_type().clone())).collect();
        let converter = if fields.is_empty() { None } else { Some(RowConverter::new(fields)?) };
        Ok(Self { converter })
    }

    /// The bytes of each key.
    pub fn encode(&self, keys: &[ArrayRef], rows: usize) -> Result<Vec<Box<[u8]>>> {
        let Some(converter) = &self.converter else { return Ok(vec![Box::default(); rows]) };
        let encoded = converter.convert_columns(keys)?;
        Ok(encoded.iter().map(|row| row.as_ref().into()).collect())
    }

    /// The columns of encoded keys.
    pub fn decode<'k>(&self, keys: impl IntoIterator<Item = &'k [u8]>) -> Result<Vec<ArrayRef>> {
        let Some(converter) = &self.converter else { return Ok(Vec::new()) };
        let parser = converter.parser();
        Ok(converter.convert_rows(keys.into_iter().map(|key| parser.parse(key)))?)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringArray};

    use super::*;

    fn timer(time: i64, group: u32, key: &[u8]) -> DueTimer {
        DueTimer { time, group, key: key.into(), namespace: 0 }
    }

    #[test]
    fn timers_come_by_time_then_key_group_then_key_and_once() {
        let mut queue = TimerQueue::default();
        for due in [timer(2, 0, b"a"), timer(1, 7, b"a"), timer(1, 3, b"b"), timer(1, 3, b"a"), timer(1, 3, b"b")] {
            queue.insert(due);
        }
        queue.remove(&timer(9, 9, b"not there"));
        let popped: Vec<DueTimer> = std::iter::from_fn(|| queue.pop(1)).collect();
        assert_eq!(popped, [timer(1, 3, b"a"), timer(1, 3, b"b"), timer(1, 7, b"a")]);
        assert_eq!(queue.next(), Some(2));
        queue.remove(&timer(2, 0, b"a"));
        assert_eq!((queue.next(), queue.memory_bytes()), (None, 0));
    }

    #[test]
    fn keys_come_back_and_bytes_are_in_their_order() {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![Some(-5), None, Some(7)])),
            Arc::new(StringArray::from(vec!["b", "a", ""])),
        ];
        let keys = EncodedKeys::new(&columns).unwrap();
        let encoded = keys.encode(&columns, 3).unwrap();
        assert_eq!(keys.decode(encoded.iter().map(|key| &**key)).unwrap(), columns);
        assert!(encoded[1] < encoded[0] && encoded[0] < encoded[2]);
        let none = EncodedKeys::new(&[]).unwrap();
        assert_eq!(none.encode(&[], 2).unwrap(), [Box::default(), Box::default()]);
    }
}
