//! What happens when the time of a window has come: it fires, its function is told when it is over, its panes are forgotten.
//!
//! While a key is at work its panes are taken out of the states, which are then free for the function.

use arrow::array::ArrayRef;
use tidemill_core::Result;
use tidemill_core::window::Window;

use super::panes::{Pane, Panes};
use super::process::LazyKeys;
use super::record::Record;
use super::window_function::At;
use super::window_logic::WindowLogic;
use super::window_operator::{Kept, WindowOperator};
use super::windows::{Assigner, last_moment};

impl<K: Record, T: Record, R: Record, L: WindowLogic<K, T, R>> WindowOperator<K, T, R, L> {
    /// Fires what ends at `time` for these slots, and forgets what is over then.
    pub(super) fn fire_due(
        &mut self,
        kept: &mut Kept,
        time: i64,
        keys: &[ArrayRef],
        slots: &[Option<usize>],
    ) -> Result<()> {
        let plan = self.plan.clone();
        let decode = |columns: &[ArrayRef], rows| plan.codec.decode_keys(columns, rows);
        let keys = LazyKeys::new(keys, slots.len(), &decode);
        self.function.begin()?;
        let has_fired = time <= self.fired;
        let ending = self.plan.assigner.window_ending_with(time).filter(|_| !has_fired);
        let over = self.plan.assigner.window_ending_with(time.saturating_sub(self.plan.lateness));
        for window in ending.into_iter().chain(over.filter(|over| Some(*over) != ending)) {
            self.function.bring_in(&keys, window)?;
        }
        for (row, slot) in slots.iter().enumerate() {
            // A key whose panes have all gone has nothing left to do.
            let Some(slot) = *slot else { continue };
            let mut panes = std::mem::take(kept.panes::<L::State>()?.cell(slot));
            let at = At { keys: &keys, row, slot };
            let ending = match self.plan.assigner {
                Assigner::Session { .. } if has_fired => Vec::new(),
                Assigner::Session { .. } => sessions_ending(&panes, time),
                // A time that ends none is there to forget.
                Assigner::Sliced(_) | Assigner::Whole => ending.into_iter().collect(),
            };
            self.fire(kept, at, &panes, ending)?;
            if L::IS_RICH {
                let over = self.windows_over(&panes, time)?;
                self.function.clear(&mut *kept.states, at, over)?;
            }
            self.forget_over(&mut panes, time)?;
            *kept.panes()?.cell(slot) = panes;
        }
        let slots: Vec<usize> = slots.iter().flatten().copied().collect();
        kept.states.touch(kept.panes, &slots, 0)?;
        self.function.release(&mut *kept.states, slots.len())
    }

    /// Fires windows of a key that have fired before.
    pub(super) fn fire_again(&mut self, kept: &mut Kept, at: At<'_, K>, windows: Vec<Window>) -> Result<()> {
        let panes = std::mem::take(kept.panes::<L::State>()?.cell(at.slot));
        self.fire(kept, at, &panes, windows)?;
        *kept.panes()?.cell(at.slot) = panes;
        Ok(())
    }

    /// Fires those of the windows that have rows, with what their panes hold together.
    fn fire(&mut self, kept: &mut Kept, at: At<'_, K>, panes: &Panes<L::State>, windows: Vec<Window>) -> Result<()> {
        for window in windows {
            let from = panes.partition_point(|pane| pane.window.start < window.start);
            let to = panes.partition_point(|pane| pane.window.start < window.end).max(from);
            let merged;
            let state = match &panes[from..to] {
                [] => continue,
                [only] => &only.state,
                [first, rest @ ..] => {
                    let mut state = first.state.clone();
                    rest.iter().for_each(|pane| self.function.logic.merge(&mut state, &pane.state));
                    merged = state;
                    &merged
                }
            };
            let time = self.plan.timed.then(|| last_moment(&window));
            self.function.fire(&mut *kept.states, at, window, state, time)?;
        }
        Ok(())
    }

    /// The windows of these panes that take no more rows from `time` on.
    fn windows_over(&self, panes: &Panes<L::State>, time: i64) -> Result<Vec<Window>> {
        let mut windows = Vec::new();
        for pane in panes {
            match self.plan.assigner {
                Assigner::Session { .. } => windows.push(pane.window),
                _ => windows.extend(self.plan.assigner.windows_of_slice(pane.window.start)?),
            }
        }
        windows.retain(|window| self.cleanup_time(window) == time);
        windows.sort_unstable();
        windows.dedup();
        Ok(windows)
    }

    /// Drops panes that no window needs after `time`.
    fn forget_over(&mut self, panes: &mut Panes<L::State>, time: i64) -> Result<()> {
        let mut kept = Vec::new();
        for pane in std::mem::take(panes) {
            if self.last_window(&pane.window)?.is_some_and(|window| self.cleanup_time(&window) > time) {
                kept.push(pane);
            }
        }
        *panes = kept;
        Ok(())
    }

    /// The window that needs a pane the longest.
    fn last_window(&self, pane: &Window) -> Result<Option<Window>> {
        Ok(match self.plan.assigner {
            Assigner::Session { .. } => Some(*pane),
            _ => self.plan.assigner.windows_of_slice(pane.start)?.last().copied(),
        })
    }
}

/// The sessions whose last moment is `time`; one that has grown since has another.
fn sessions_ending<S>(panes: &[Pane<S>], time: i64) -> Vec<Window> {
    panes.iter().map(|pane| pane.window).filter(|window| last_moment(window) == time).collect()
}
