//! What a window operator keeps for its keys: for each its panes.
//!
//! A pane is a slice that windows share, or a session. Each row is added to one pane, however many windows it is in; a window
//! that fires merges the panes within it.

use serde::{Deserialize, Serialize};
use tidemill_core::window::Window;

use super::cells::Cell;
use super::record::Record;

/// The state of one key for a stretch of time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Pane<S> {
    /// The slice or session.
    pub window: Window,
    /// What the window's function keeps.
    pub state: S,
}

/// The panes of one key, by start.
pub(super) type Panes<S> = Vec<Pane<S>>;

impl<S: Record + Clone> Cell for Panes<S> {
    fn is_vacant(&self) -> bool {
        self.is_empty()
    }
}
