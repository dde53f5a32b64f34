//! Windows that are runs of whole slices: tumbling, sliding, and the one of everything.

use tidemill_core::{Error, Result};

use super::panes::{Pane, Panes};
use super::record::Record;
use super::window_logic::WindowLogic;
use super::window_operator::{At, WindowOperator};
use super::windows::last_moment;
use tidemill_core::window::Window;

impl<K: Record, T: Record, R: Record, L: WindowLogic<K, T, R>> WindowOperator<K, T, R, L> {
    /// Adds a row to its slice, unless all its windows are over.
    pub(super) fn add_to_slice(&mut self, panes: &mut Panes<L::State>, at: At, time: i64, value: T) -> Result<()> {
        let slice = self.plan.assigner.slice_start(time)?;
        let (known, mut windows) = std::mem::take(&mut self.windows);
        if windows.is_empty() || known != slice {
            windows = self.plan.assigner.windows_of_slice(slice)?;
        }
        let result = self.add_to_windows(panes, at, time, value, (slice, &windows));
        self.windows = (slice, windows);
        result
    }

    fn add_to_windows(
        &mut self,
        panes: &mut Panes<L::State>,
        at: At,
        time: i64,
        value: T,
        (slice, windows): (i64, &[Window]),
    ) -> Result<()> {
        // The last window ends last: when it is over, all are.
        let Some(last) = windows.last().filter(|last| !self.is_over(last)) else {
            self.skip(time, value);
            return Ok(());
        };
        let place = match panes.binary_search_by_key(&slice, |pane| pane.window.start) {
            Ok(place) => place,
            Err(place) => {
                let pane = Pane { window: Window { start: slice, end: last.end }, state: self.plan.logic.create() };
                self.look_again(at.slot, &pane.window)?;
                panes.insert(place, pane);
                place
            }
        };
        self.plan.logic.add(&mut panes[place].state, value);
        // A window that has fired fires again, at once, with every row that it still takes (SUB-02).
        let fired = windows.iter().filter(|window| last_moment(window) <= self.passed && !self.is_over(window));
        for window in fired.copied().collect::<Vec<_>>() {
            let key = self.key(at)?;
            self.fire_window(panes, window, key.as_ref())?;
        }
        Ok(())
    }

    /// Fires the window whose last moment is `time`, if it has rows.
    pub(super) fn fire_window_ending(&mut self, panes: &Panes<L::State>, time: i64, key: Option<&K>) -> Result<()> {
        match self.plan.assigner.window_ending_with(time) {
            Some(window) => self.fire_window(panes, window, key),
            // A time that is there to forget.
            None => Ok(()),
        }
    }

    fn fire_window(&mut self, panes: &Panes<L::State>, window: Window, key: Option<&K>) -> Result<()> {
        let from = panes.partition_point(|pane| pane.window.start < window.start);
        let to = panes.partition_point(|pane| pane.window.start < window.end);
        match panes.get(from..to) {
            None => Err(Error::internal("the panes of a key are out of order")),
            Some([]) => Ok(()),
            Some([only]) => self.fire(key, window, &only.state),
            Some([first, rest @ ..]) => {
                let mut state = first.state.clone();
                rest.iter().for_each(|pane| self.plan.logic.merge(&mut state, &pane.state));
                self.fire(key, window, &state)
            }
        }
    }
}
