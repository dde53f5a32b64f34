//! The timers of each key as state: `(key group, key, timers: list of (domain, namespace, time_millis))`.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, ListArray, StringArray, StructArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Int64Type};
use tidemill_core::state::{StateColumn, resize_cells};
use tidemill_core::{Error, Result};

use super::{Timer, TimerDomain};

const EVENT: &str = "event";
const PROCESSING: &str = "processing";

/// A set of timers a slot.
#[derive(Debug)]
pub struct TimerColumn {
    slots: Vec<BTreeSet<Timer>>,
    timers: usize,
    fields: Fields,
}

impl TimerColumn {
    /// A column without slots.
    pub fn new() -> Self {
        let list = Field::new("timers", DataType::List(item()), false);
        Self { slots: Vec::new(), timers: 0, fields: Fields::from(vec![list]) }
    }

    /// The timers of a slot.
    pub fn timers(&self, slot: usize) -> impl Iterator<Item = &Timer> {
        self.slots[slot].iter()
    }

    /// Adds a timer; whether it was not there.
    pub fn insert(&mut self, slot: usize, timer: Timer) -> bool {
        let is_new = self.slots[slot].insert(timer);
        self.timers += usize::from(is_new);
        is_new
    }

    /// Takes out a timer; whether it was there.
    pub fn remove(&mut self, slot: usize, timer: Timer) -> bool {
        let was_there = self.slots[slot].remove(&timer);
        self.timers -= usize::from(was_there);
        was_there
    }
}

impl Default for TimerColumn {
    fn default() -> Self {
        Self::new()
    }
}

fn timer_fields() -> Fields {
    Fields::from(vec![
        Field::new("domain", DataType::Utf8, false),
        Field::new("namespace", DataType::Int64, false),
        Field::new("time_millis", DataType::Int64, false),
    ])
}

fn item() -> FieldRef {
    Arc::new(Field::new("item", DataType::Struct(timer_fields()), false))
}

impl StateColumn for TimerColumn {
    fn fields(&self) -> &Fields {
        &self.fields
    }

    fn resize(&mut self, slots: usize) {
        resize_cells(&mut self.slots, slots, BTreeSet::new);
    }

    fn clear(&mut self, slot: usize) {
        self.timers -= std::mem::take(&mut self.slots[slot]).len();
    }

    fn is_vacant(&self, slot: usize) -> bool {
        self.slots[slot].is_empty()
    }

    fn encode(&self, slots: &[usize]) -> Result<Vec<ArrayRef>> {
        let timers: Vec<&Timer> = slots.iter().flat_map(|slot| &self.slots[*slot]).collect();
        let domain = |timer: &&Timer| match timer.domain {
            TimerDomain::Event => EVENT,
            TimerDomain::Processing => PROCESSING,
        };
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(timers.iter().map(domain))),
            Arc::new(Int64Array::from_iter_values(timers.iter().map(|timer| timer.namespace))),
            Arc::new(Int64Array::from_iter_values(timers.iter().map(|timer| timer.time))),
        ];
        let items = Arc::new(StructArray::try_new(timer_fields(), columns, None)?);
        let offsets = OffsetBuffer::from_lengths(slots.iter().map(|slot| self.slots[*slot].len()));
        Ok(vec![Arc::new(ListArray::try_new(item(), offsets, items, None)?)])
    }

    fn decode(&mut self, slots: &[usize], columns: &[ArrayRef]) -> Result<()> {
        let lists = columns.first().and_then(|lists| lists.as_list_opt::<i32>());
        let lists = lists.ok_or_else(|| Error::corrupt("timers that are no lists"))?;
        let timers = read(lists.values())?;
        for (slot, ends) in slots.iter().zip(lists.value_offsets().windows(2)) {
            self.clear(*slot);
            let own: BTreeSet<Timer> = timers[ends[0] as usize..ends[1] as usize].iter().copied().collect();
            self.timers += own.len();
            self.slots[*slot] = own;
        }
        Ok(())
    }

    fn memory_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<BTreeSet<Timer>>() + self.timers * 2 * size_of::<Timer>()
    }
}

/// The timers of encoded rows.
fn read(items: &ArrayRef) -> Result<Vec<Timer>> {
    let wrong = || Error::corrupt("timers without domain, namespace and time");
    let items = items.as_struct_opt().ok_or_else(wrong)?;
    let [domains, namespaces, times] = items.columns() else { return Err(wrong()) };
    let domains = domains.as_string_opt::<i32>().ok_or_else(wrong)?;
    let namespaces = namespaces.as_primitive_opt::<Int64Type>().ok_or_else(wrong)?;
    let times = times.as_primitive_opt::<Int64Type>().ok_or_else(wrong)?;
    let timer = |row: usize| {
        let domain = match domains.value(row) {
            EVENT => TimerDomain::Event,
            PROCESSING => TimerDomain::Processing,
            other => return Err(Error::corrupt(format!("a timer over the time '{other}'"))),
        };
        Ok(Timer { domain, time: times.value(row), namespace: namespaces.value(row) })
    };
    (0..items.len()).map(timer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_come_back_each_once() {
        let timer = |domain, time, namespace| Timer { domain, time, namespace };
        let (first, second) = (timer(TimerDomain::Event, -5, 1), timer(TimerDomain::Processing, i64::MAX, 0));
        let mut column = TimerColumn::new();
        column.resize(3);
        assert!(column.insert(2, first) && column.insert(2, second) && column.insert(0, second));
        assert!(!column.insert(2, first) && !column.remove(1, first));
        let encoded = column.encode(&[2, 0]).unwrap();
        assert_eq!(encoded[0].data_type(), column.fields()[0].data_type());

        let mut other = TimerColumn::new();
        other.resize(2);
        other.insert(0, timer(TimerDomain::Event, 9, 9));
        other.decode(&[1, 0], &encoded).unwrap();
        assert_eq!(other.timers(1).collect::<Vec<_>>(), [&first, &second]);
        assert_eq!(other.timers(0).collect::<Vec<_>>(), [&second]);
        assert!(other.remove(0, second) && other.is_vacant(0) && other.timers == 2);
        other.clear(1);
        assert!(other.is_vacant(1) && other.timers == 0);
    }
}
