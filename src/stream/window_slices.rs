//! Windows that are runs of whole slices: tumbling, sliding, and the one of everything.

use tidemill_core::Result;

use super::panes::{Pane, Panes};
use super::record::Record;
use super::window_logic::WindowLogic;
use super::window_operator::WindowOperator;
use super::windows::last_moment;
use tidemill_core::window::Window;

impl<K: Record, T: Record, R: Record, L: WindowLogic<K, T, R>> WindowOperator<K, T, R, L> {
    /// Adds a row to its slice, unless all its windows are over; the windows that have fired and are to fire again.
    pub(super) fn add_to_slice(
        &mut self,
        panes: &mut Panes<L::State>,
        slot: usize,
        time: i64,
        value: T,
    ) -> Result<Vec<Window>> {
        let slice = self.plan.assigner.slice_start(time)?;
        let (known, mut windows) = std::mem::take(&mut self.windows);
        if windows.is_empty() || known != slice {
            windows = self.plan.assigner.windows_of_slice(slice)?;
        }
        let result = self.add_to_windows(panes, slot, time, value, (slice, &windows));
        self.windows = (slice, windows);
        result
    }

    fn add_to_windows(
        &mut self,
        panes: &mut Panes<L::State>,
        slot: usize,
        time: i64,
        value: T,
        (slice, windows): (i64, &[Window]),
    ) -> Result<Vec<Window>> {
        // The last window ends last: when it is over, all are.
        let Some(last) = windows.last().filter(|last| !self.is_over(last)) else {
            self.skip(time, value);
            return Ok(Vec::new());
        };
        let place = match panes.binary_search_by_key(&slice, |pane| pane.window.start) {
            Ok(place) => place,
            Err(place) => {
                let pane = Pane { window: Window { start: slice, end: last.end }, state: self.function.logic.create() };
                self.look_again(slot, &pane.window, self.over_until())?;
                panes.insert(place, pane);
                place
            }
        };
        self.function.logic.add(&mut panes[place].state, value);
        // A window that has fired fires again, at once, with every row that it still takes (SUB-02).
        let fired = windows.iter().filter(|window| last_moment(window) <= self.passed && !self.is_over(window));
        Ok(fired.copied().collect())
    }
}
