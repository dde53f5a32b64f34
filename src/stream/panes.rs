//! What a window operator keeps for its keys: for each slot its panes, and when to look at it again.
//!
//! A pane is a slice that windows share, or a session. Each row is added to one pane, however many windows it is in; a window
//! that fires merges the panes within it.

use std::collections::BTreeMap;

use tidemill_core::window::Window;

/// The state of one key for a stretch of time.
#[derive(Clone, Debug)]
pub(super) struct Pane<S> {
    /// The slice or session.
    pub window: Window,
    /// What the window's function keeps.
    pub state: S,
}

/// The panes of one key, by start.
pub(super) type Panes<S> = Vec<Pane<S>>;

/// When to look at which slot. A slot may be noted twice for a time, and it may have nothing left to do then.
#[derive(Debug, Default)]
pub(super) struct Timers {
    slots: BTreeMap<i64, Vec<usize>>,
}

impl Timers {
    /// Notes that something may be due for `slot` at `time`.
    pub fn add(&mut self, time: i64, slot: usize) {
        let slots = self.slots.entry(time).or_default();
        if slots.last() != Some(&slot) {
            slots.push(slot);
        }
    }

    /// The earliest time noted.
    pub fn next(&self) -> Option<i64> {
        self.slots.first_key_value().map(|(time, _)| *time)
    }

    /// The slots of the earliest time, if that is not after `until`.
    pub fn pop(&mut self, until: i64) -> Option<(i64, Vec<usize>)> {
        let entry = self.slots.first_entry().filter(|entry| *entry.key() <= until)?;
        Some(entry.remove_entry())
    }
}
