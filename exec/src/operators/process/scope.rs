//! What a process function may use while it looks at rows or timers.

use arrow::array::ArrayRef;
use tidemill_core::state::{CurrentKey, KeyedStates};
use tidemill_core::{Error, Result, Watermark};

use crate::operators::process::no_keys::NoKeys;
use crate::operators::timers::{DueTimer, Timer, TimerChange, TimerDomain, TimerService};
use crate::state::{BroadcastStates, OperatorLists, SubtaskStates};

/// Where a call stands: at which keys, and when.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The slot of each row or timer; none for rows that have no key.
    pub slots: &'a [usize],
    /// How far event time has come.
    pub watermark: Watermark,
    /// Processing time.
    pub now_millis: i64,
}

/// Timers that are due, in the order in which they fire.
#[derive(Debug)]
pub struct DueTimers {
    /// Whose time has come.
    pub domain: TimerDomain,
    /// The keys of the timers, as columns.
    pub keys: Vec<ArrayRef>,
    /// The timers.
    pub timers: Vec<DueTimer>,
}

/// States, timers and times of one call.
pub struct Scope<'a> {
    states: &'a mut dyn KeyedStates,
    subtask: &'a mut SubtaskStates,
    changes: &'a mut Vec<TimerChange>,
    place: Place<'a>,
    /// What finds all keys, for rows that reach every subtask.
    service: Option<&'a TimerService>,
    /// The slots that were found.
    all_slots: Vec<usize>,
    no_keys: NoKeys,
    /// The domain of the timers that are being fired, and the time of the last of them.
    firing: Option<(TimerDomain, i64)>,
    is_interrupted: bool,
}

impl<'a> Scope<'a> {
    pub(super) fn new(
        states: &'a mut dyn KeyedStates,
        subtask: &'a mut SubtaskStates,
        changes: &'a mut Vec<TimerChange>,
        place: Place<'a>,
    ) -> Self {
        let (service, all_slots, firing) = (None, Vec::new(), None);
        Self { states, subtask, changes, place, service, all_slots, no_keys: NoKeys, firing, is_interrupted: false }
    }

    pub(super) fn set_firing(&mut self, domain: TimerDomain, last: i64) {
        self.firing = Some((domain, last));
    }

    pub(super) fn set_service(&mut self, service: &'a TimerService) {
        self.service = Some(service);
    }

    /// How far event time has come.
    pub fn watermark(&self) -> Watermark {
        self.place.watermark
    }

    /// Processing time.
    pub fn now_millis(&self) -> i64 {
        self.place.now_millis
    }

    /// The states of the key of row or timer number `row`, its timers, and the states that belong to no key. Where there are no
    /// keys, to use the first two is an error that says so.
    pub fn at(&mut self, row: usize) -> (CurrentKey<'_>, RowTimers<'_>, BesideKeys<'_>) {
        let Self { states, subtask, changes, place, no_keys, firing, is_interrupted, .. } = self;
        let slot = place.slots.get(row).copied();
        let key = match slot {
            Some(slot) => CurrentKey::new(&mut **states, slot, place.now_millis),
            None => CurrentKey::new(no_keys, 0, place.now_millis),
        };
        let beside = BesideKeys { broadcast: &subtask.broadcast, lists: &mut subtask.lists };
        (key, RowTimers { changes, slot, firing: *firing, is_interrupted }, beside)
    }

    /// Whether the function has to stop behind the timer at hand, because it has changed which one is next.
    pub fn is_interrupted(&self) -> bool {
        self.is_interrupted
    }

    /// The broadcast states, for rows that reach every subtask.
    pub fn broadcast(&mut self) -> &mut BroadcastStates {
        &mut self.subtask.broadcast
    }

    /// The lists of the subtask.
    pub fn lists(&mut self) -> &mut OperatorLists {
        &mut self.subtask.lists
    }

    /// Finds the keys for which something is kept, by key group and then by encoded key, for rows that reach every subtask: their
    /// columns, and how many there are. Without keys there are none.
    pub fn all_keys(&mut self) -> Result<(Vec<ArrayRef>, usize)> {
        let Some(service) = self.service else { return Ok((Vec::new(), 0)) };
        let (keys, slots) = service.all_keys(&mut *self.states)?;
        self.all_slots = slots;
        Ok((keys, self.all_slots.len()))
    }

    /// The states of key number `place` of [`Scope::all_keys`].
    pub fn at_key(&mut self, place: usize) -> CurrentKey<'_> {
        match self.all_slots.get(place) {
            Some(slot) => CurrentKey::new(&mut *self.states, *slot, self.place.now_millis),
            None => CurrentKey::new(&mut self.no_keys, 0, self.place.now_millis),
        }
    }
}

impl std::fmt::Debug for Scope<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Scope({:?})", self.place)
    }
}

/// The states that belong to no key, as one row or timer may use them.
#[derive(Debug)]
pub struct BesideKeys<'a> {
    /// Only to be read: the row reaches one subtask.
    pub broadcast: &'a BroadcastStates,
    /// The lists of the subtask.
    pub lists: &'a mut OperatorLists,
}

/// The timers of the key of one row or timer.
#[derive(Debug)]
pub struct RowTimers<'a> {
    changes: &'a mut Vec<TimerChange>,
    /// `None` where there are no timers.
    slot: Option<usize>,
    firing: Option<(TimerDomain, i64)>,
    is_interrupted: &'a mut bool,
}

impl RowTimers<'_> {
    /// Registers a timer. One that is there already stays alone; one whose time has passed fires as soon as it can.
    pub fn register(&mut self, domain: TimerDomain, time: i64) -> Result<()> {
        self.change(domain, time, true)
    }

    /// Deletes the timer of exactly this time, if there is one.
    pub fn delete(&mut self, domain: TimerDomain, time: i64) -> Result<()> {
        self.change(domain, time, false)
    }

    fn change(&mut self, domain: TimerDomain, time: i64, registers: bool) -> Result<()> {
        let Some(slot) = self.slot else {
            return Err(Error::request(format!("a timer at {time} in a function that has no key"))
                .with_hint("timers belong to keys: call key_by first; rows of a broadcast stream have none"));
        };
        *self.is_interrupted |= self.firing.is_some_and(|(firing, last)| firing == domain && time <= last);
        self.changes.push(TimerChange { slot, timer: Timer { domain, time, namespace: 0 }, registers });
        Ok(())
    }
}
