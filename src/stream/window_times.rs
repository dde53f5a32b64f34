//! When a window operator looks at which key again. It follows from the panes, so it is no state.

use arrow::array::ArrayRef;
use tidemill_core::Result;
use tidemill_core::key::hash_columns;
use tidemill_core::state::KeyedStates;
use tidemill_exec::operators::timers::{DueTimer, EncodedKeys, TimerQueue};

/// Keys by time, then by key group, then by encoded key, so that the order does not depend on when keys came. A key that is there
/// may have nothing left to do then.
pub(super) struct WindowTimes {
    queue: TimerQueue,
    keys: EncodedKeys,
}

/// Keys that are due at one time: their columns, and their slots where something is kept for them.
pub(super) type Due = (i64, Vec<ArrayRef>, Vec<Option<usize>>);

impl WindowTimes {
    /// Nothing is due, for keys of these states.
    pub fn new(states: &dyn KeyedStates) -> Result<Self> {
        Ok(Self { queue: TimerQueue::default(), keys: EncodedKeys::new(&states.keys(&[])?)? })
    }

    /// Notes times of the keys in these slots, and forgets the list.
    pub fn add(&mut self, states: &dyn KeyedStates, times: &mut Vec<(usize, i64)>) -> Result<()> {
        if times.is_empty() {
            return Ok(());
        }
        times.sort_unstable();
        times.dedup();
        let mut slots: Vec<usize> = times.iter().map(|(slot, _)| *slot).collect();
        slots.dedup();
        let encoded = self.keys.encode(&states.keys(&slots)?, slots.len())?;
        let mut place = 0;
        for (slot, time) in times.drain(..) {
            place += usize::from(slots[place] != slot);
            let (group, key) = (states.key_group(slot), encoded[place].clone());
            self.queue.insert(DueTimer { time, group, key, namespace: 0 });
        }
        Ok(())
    }

    /// The earliest time.
    pub fn next(&self) -> Option<i64> {
        self.queue.next()
    }

    /// The first keys of the earliest time, at most `keys_max`, if that is not after `until`.
    pub fn due(&mut self, states: &mut dyn KeyedStates, until: i64, keys_max: usize) -> Result<Option<Due>> {
        let Some(time) = self.queue.next().filter(|time| *time <= until) else { return Ok(None) };
        let due: Vec<DueTimer> = std::iter::from_fn(|| self.queue.pop(time)).take(keys_max.max(1)).collect();
        let keys = self.keys.decode(due.iter().map(|due| &*due.key))?;
        let mut slots = Vec::with_capacity(due.len());
        states.find(&keys, &hash_columns(&keys, due.len())?, &mut slots)?;
        Ok(Some((time, keys, slots)))
    }

    /// Bytes held, roughly.
    pub fn memory_bytes(&self) -> usize {
        self.queue.memory_bytes()
    }
}
