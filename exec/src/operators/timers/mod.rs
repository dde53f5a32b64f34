//! Timers: a key asks to be called when time has come to a moment (PRF-09, PRF-10).
//!
//! ```text
//! register, delete ── TimerChange ──> TimerColumn   the timers of each key: state like any other
//!                                └──> TimerQueue    the same by time, made anew after a restore
//! advance, wake ──────── due ───────> TimerQueue
//! ```
//!
//! There is one timer for each domain, key, namespace and time: to register it twice is to register it once. Timers fire by
//! (time, key group, encoded key), where the encoded key is that of Arrow's row format. The queue names keys by these bytes and
//! not by their slots, because slots are only valid until the states are released.

mod column;
mod queue;

pub use column::TimerColumn;
pub use queue::{DueTimer, EncodedKeys, TimerQueue};

use arrow::array::ArrayRef;
use tidemill_core::key::hash_columns;
use tidemill_core::operator::{OperatorContext, is_overdue};
use tidemill_core::state::{KeyedStates, StateId};
use tidemill_core::{Error, Result};

/// Whose time a timer waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TimerDomain {
    /// That of the rows: it fires when the watermark has reached it (SUB-21).
    Event,
    /// That of the machine: it fires when the clock has reached it, at once if that was while the job stood still.
    Processing,
}

/// One timer of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timer {
    /// Whose time.
    pub domain: TimerDomain,
    /// When, in milliseconds.
    pub time: i64,
    /// Tells timers of one key and time apart; 0 where there is nothing to tell apart.
    pub namespace: i64,
}

/// What is to become of a timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerChange {
    /// The slot of its key.
    pub slot: usize,
    /// Which timer.
    pub timer: Timer,
    /// Whether it is registered; else it is deleted.
    pub registers: bool,
}

/// The name of the state that timers are.
pub const TIMERS: &str = "$timers";

/// The timers of the keys of one operator in one subtask.
#[derive(Debug)]
pub struct TimerService {
    state: StateId,
    event: TimerQueue,
    processing: TimerQueue,
    keys: EncodedKeys,
    /// The earliest wake-up that was asked for and has not come.
    asked: Option<i64>,
    /// The end has come: what is registered now over processing time would never fire, or keep the end from coming.
    is_ending: bool,
}

impl TimerService {
    /// Declares timers among the states of an operator.
    pub fn new(states: &mut dyn KeyedStates) -> Result<Self> {
        let state = states.register(TIMERS, None, Box::new(TimerColumn::new()))?;
        let keys = EncodedKeys::new(&states.keys(&[])?)?;
        let (event, processing) = (TimerQueue::default(), TimerQueue::default());
        Ok(Self { state, event, processing, keys, asked: None, is_ending: false })
    }

    /// Does what rows or timers have asked for, in their order. Their slots are still valid.
    pub fn apply(&mut self, states: &mut dyn KeyedStates, changes: &mut Vec<TimerChange>) -> Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        let mut slots: Vec<usize> = changes.iter().map(|change| change.slot).collect();
        slots.sort_unstable();
        slots.dedup();
        let encoded = self.keys.encode(&states.keys(&slots)?, slots.len())?;
        for TimerChange { slot, timer, registers } in changes.drain(..) {
            let key = &encoded[slots.partition_point(|other| *other < slot)];
            let group = states.key_group(slot);
            let column: &mut TimerColumn = states.column(self.state)?.downcast()?;
            let queue = match timer.domain {
                TimerDomain::Event => &mut self.event,
                TimerDomain::Processing if registers && self.is_ending => continue,
                TimerDomain::Processing => &mut self.processing,
            };
            let due = DueTimer { time: timer.time, group, key: key.clone(), namespace: timer.namespace };
            match registers {
                true if column.insert(slot, timer) => queue.insert(due),
                false if column.remove(slot, timer) => queue.remove(&due),
                _ => {}
            }
        }
        states.touch(self.state, &slots, 0)
    }

    /// Takes out the first timers that are due at `until`, in the order in which they fire, at most `timers_max`. They are still
    /// part of the state: give them to [`TimerService::fired`] or [`TimerService::put_back`].
    pub fn due(&mut self, domain: TimerDomain, until: i64, timers_max: usize) -> Vec<DueTimer> {
        let queue = self.queue(domain);
        std::iter::from_fn(|| queue.pop(until)).take(timers_max).collect()
    }

    /// Their turn has not come.
    pub fn put_back(&mut self, domain: TimerDomain, timers: impl IntoIterator<Item = DueTimer>) {
        let queue = self.queue(domain);
        timers.into_iter().for_each(|timer| queue.insert(timer));
    }

    /// These timers, of keys in these slots, have fired and are no more.
    pub fn fired(
        &mut self,
        states: &mut dyn KeyedStates,
        domain: TimerDomain,
        timers: &[DueTimer],
        slots: &[usize],
    ) -> Result<()> {
        let column: &mut TimerColumn = states.column(self.state)?.downcast()?;
        for (due, slot) in timers.iter().zip(slots) {
            column.remove(*slot, Timer { domain, time: due.time, namespace: due.namespace });
        }
        states.touch(self.state, slots, 0)
    }

    /// The keys of timers that are due, and their slots.
    pub fn keys_of(&self, states: &mut dyn KeyedStates, timers: &[DueTimer]) -> Result<(Vec<ArrayRef>, Vec<usize>)> {
        let keys = self.keys.decode(timers.iter().map(|timer| &*timer.key))?;
        let mut slots = Vec::with_capacity(timers.len());
        states.find(&keys, &hash_columns(&keys, timers.len())?, &mut slots)?;
        let slots: Option<Vec<usize>> = slots.into_iter().collect();
        Ok((keys, slots.ok_or_else(|| Error::internal("a timer of a key that is not there"))?))
    }

    /// The slots of all keys, by key group and encoded key, and these keys.
    pub fn all_keys(&self, states: &mut dyn KeyedStates) -> Result<(Vec<ArrayRef>, Vec<usize>)> {
        let mut slots = Vec::new();
        states.all(&mut slots)?;
        let encoded = self.keys.encode(&states.keys(&slots)?, slots.len())?;
        let mut ordered: Vec<(u32, Box<[u8]>, usize)> =
            slots.iter().zip(encoded).map(|(slot, key)| (states.key_group(*slot), key, *slot)).collect();
        ordered.sort_unstable();
        let slots: Vec<usize> = ordered.into_iter().map(|(_, _, slot)| slot).collect();
        Ok((states.keys(&slots)?, slots))
    }

    /// Reads again from the states what was restored.
    pub fn restored(&mut self, states: &mut dyn KeyedStates) -> Result<()> {
        let mut slots = Vec::new();
        states.all(&mut slots)?;
        let encoded = self.keys.encode(&states.keys(&slots)?, slots.len())?;
        for (slot, key) in slots.into_iter().zip(encoded) {
            let group = states.key_group(slot);
            let column: &mut TimerColumn = states.column(self.state)?.downcast()?;
            for Timer { domain, time, namespace } in column.timers(slot) {
                let due = DueTimer { time: *time, group, key: key.clone(), namespace: *namespace };
                match domain {
                    TimerDomain::Event => self.event.insert(due),
                    TimerDomain::Processing => self.processing.insert(due),
                }
            }
        }
        Ok(())
    }

    /// No timer over processing time is registered from now on; those that there are may fire.
    pub fn end(&mut self) {
        self.is_ending = true;
    }

    /// A wake-up has come.
    pub fn woken(&mut self) {
        self.asked = None;
    }

    /// Asks for a wake-up at the next timer over processing time, unless an earlier one is on its way, and not late because the
    /// machine's clock was set.
    pub fn ask_to_be_woken(&mut self, context: &OperatorContext) {
        let now = context.clock.now_millis();
        if let Some(next) = self.processing.next()
            && self.asked.is_none_or(|asked| next < asked || is_overdue(asked, now))
        {
            self.asked = Some(next);
            context.wakeups.at(next, 0);
        }
    }

    /// Bytes that the queues hold; the state itself is part of the states.
    pub fn memory_bytes(&self) -> usize {
        self.event.memory_bytes() + self.processing.memory_bytes()
    }

    fn queue(&mut self, domain: TimerDomain) -> &mut TimerQueue {
        match domain {
            TimerDomain::Event => &mut self.event,
            TimerDomain::Processing => &mut self.processing,
        }
    }
}
