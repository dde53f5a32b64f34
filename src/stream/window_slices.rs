//! Windows that are runs of whole slices: tumbling, sliding, and the one of everything.

use tidemill_core::{Error, Result};

use super::panes::Pane;
use super::record::Record;
use super::window_logic::WindowLogic;
use super::window_operator::WindowOperator;
use super::windows::last_moment;
use tidemill_core::window::Window;

impl<K: Record, T: Record, R: Record, L: WindowLogic<K, T, R>> WindowOperator<K, T, R, L> {
    /// Adds a row to its slice, unless all its windows are over.
    pub(super) fn add_to_slice(&mut self, slot: usize, time: i64, value: T) -> Result<()> {
        let slice = self.plan.assigner.slice_start(time)?;
        let (known, mut windows) = std::mem::take(&mut self.windows);
        if windows.is_empty() || known != slice {
            windows = self.plan.assigner.windows_of_slice(slice)?;
        }
        let result = self.add_to_windows(slot, time, value, slice, &windows);
        self.windows = (slice, windows);
        result
    }

    fn add_to_windows(&mut self, slot: usize, time: i64, value: T, slice: i64, windows: &[Window]) -> Result<()> {
        // The last window ends last: when it is over, all are.
        let Some(last) = windows.last().filter(|last| !self.is_over(last)) else {
            self.skip(time, value);
            return Ok(());
        };
        let place = match self.panes[slot].binary_search_by_key(&slice, |pane| pane.window.start) {
            Ok(place) => place,
            Err(place) => {
                let pane = Pane { window: Window { start: slice, end: last.end }, state: self.plan.logic.create() };
                self.panes[slot].insert(place, pane);
                for window in windows.iter().filter(|window| last_moment(window) > self.passed) {
                    self.timers.add(last_moment(window), slot);
                }
                if self.cleanup_time(last) != last_moment(last) {
                    self.timers.add(self.cleanup_time(last), slot);
                }
                place
            }
        };
        self.plan.logic.add(&mut self.panes[slot][place].state, value);
        // A window that has fired fires again, at once, with every row that it still takes (SUB-02).
        let fired = windows.iter().filter(|window| last_moment(window) <= self.passed && !self.is_over(window));
        for window in fired.copied().collect::<Vec<_>>() {
            let key = self.key(slot)?;
            self.fire_window(slot, window, key.as_ref())?;
        }
        Ok(())
    }

    /// Fires the window of `slot` whose last moment is `time`, if it has rows.
    pub(super) fn fire_window_ending(&mut self, slot: usize, time: i64, key: Option<&K>) -> Result<()> {
        match self.plan.assigner.window_ending_with(time) {
            Some(window) => self.fire_window(slot, window, key),
            // A timer that is there to forget.
            None => Ok(()),
        }
    }

    fn fire_window(&mut self, slot: usize, window: Window, key: Option<&K>) -> Result<()> {
        let panes = std::mem::take(&mut self.panes[slot]);
        let from = panes.partition_point(|pane| pane.window.start < window.start);
        let to = panes.partition_point(|pane| pane.window.start < window.end);
        let result = match panes.get(from..to) {
            None => Err(Error::internal("the panes of a key are out of order")),
            Some([]) => Ok(()),
            Some([only]) => self.fire(key, window, &only.state),
            Some([first, rest @ ..]) => {
                let mut state = first.state.clone();
                rest.iter().for_each(|pane| self.plan.logic.merge(&mut state, &pane.state));
                self.fire(key, window, &state)
            }
        };
        self.panes[slot] = panes;
        result
    }
}
