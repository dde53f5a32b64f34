//! Sessions: windows that grow and merge as rows come (SUB-04).

use tidemill_core::window::Window;
use tidemill_core::{Error, Result};

use super::panes::{Pane, Panes};
use super::record::Record;
use super::window_logic::WindowLogic;
use super::window_operator::WindowOperator;
use super::windows::last_moment;

impl<K: Record, T: Record, R: Record, L: WindowLogic<K, T, R>> WindowOperator<K, T, R, L> {
    /// Merges the row's own window with every session that it meets, and adds the row; the session, if it has fired and is to fire
    /// again.
    ///
    /// Sessions whose distance is exactly the gap meet. Whether the row is late is judged by the merged session, so a live one
    /// can save it, and it can bridge two.
    pub(super) fn add_to_session(
        &mut self,
        panes: &mut Panes<L::State>,
        slot: usize,
        time: i64,
        gap: i64,
        value: T,
    ) -> Result<Vec<Window>> {
        let end = time.checked_add(gap);
        let end = end.ok_or_else(|| Error::data(format!("time {time} is too far from 1970 for a session")))?;
        let own = Window { start: time, end };
        let from = panes.partition_point(|pane| pane.window.end < own.start);
        let to = panes.partition_point(|pane| pane.window.start <= own.end).max(from);
        let met = &panes[from..to];
        let merged = Window {
            start: met.first().map_or(own.start, |pane| pane.window.start.min(own.start)),
            end: met.last().map_or(own.end, |pane| pane.window.end.max(own.end)),
        };
        if self.is_over(&merged) {
            self.skip(time, value);
            return Ok(Vec::new());
        }
        let had_end = met.iter().any(|pane| pane.window.end == merged.end);
        let mut state: Option<L::State> = None;
        for pane in panes.drain(from..to) {
            match &mut state {
                None => state = Some(pane.state),
                Some(state) => self.function.logic.merge(state, &pane.state),
            }
        }
        let mut state = state.unwrap_or_else(|| self.function.logic.create());
        self.function.logic.add(&mut state, value);
        if !had_end {
            self.look_again(slot, &merged, self.over_until())?;
        }
        panes.insert(from, Pane { window: merged, state });
        let again = last_moment(&merged) <= self.passed;
        Ok(again.then_some(merged).into_iter().collect())
    }
}
