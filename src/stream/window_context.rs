//! What a function of windows may use while it looks at one window of one key.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use arrow::datatypes::{DataType, Field, Fields};
use tidemill_core::state::{
    CurrentKey, KeyedStates, RestoredState, StateBackend, StateDescriptor, StateKind, StateScope, is_namespace,
    key_hashes, namespace,
};
use tidemill_core::window::Window;
use tidemill_core::{Error, Result, Watermark};
use tidemill_exec::state::OperatorLists;

use super::output_tag::OutputTag;
use super::process::{LazyKeys, SideOutputs};
use super::record::Record;

/// One window of one key: its bounds, states and times.
pub struct WindowContext<'a, K> {
    pub(super) keys: &'a LazyKeys<'a, K>,
    pub(super) row: usize,
    pub(super) window: Window,
    pub(super) watermark: Watermark,
    pub(super) global: CurrentKey<'a>,
    /// `None` where windows have no states.
    pub(super) states: Option<&'a mut WindowStates>,
    /// The states of this window, once they were asked for.
    pub(super) current: Option<CurrentKey<'a>>,
    pub(super) lists: &'a mut OperatorLists,
    pub(super) sides: &'a mut SideOutputs,
    /// The event time of what is emitted.
    pub(super) time: Option<i64>,
}

impl<'a, K> WindowContext<'a, K> {
    /// The key.
    pub fn key(&self) -> Result<&'a K> {
        self.keys.get(self.row)
    }

    /// The window. One over a number of records, and the one of all records, is all of time.
    pub fn window(&self) -> Window {
        self.window
    }

    /// How far event time has come, in milliseconds: `i64::MIN` before the first watermark, `i64::MAX` at the end.
    pub fn current_watermark(&self) -> i64 {
        self.watermark.0
    }

    /// The time of the machine, in milliseconds since 1970.
    pub fn current_processing_time(&self) -> i64 {
        self.global.now_millis()
    }

    /// The states of the key in this window, for handles that were declared with
    /// [`per_window`](super::RuntimeContext::per_window): `self.fired.get(context.window_state()?)?` (STA-14).
    ///
    /// They stay until the function clears them: see [`clear`](super::ProcessWindowFunction::clear). An error in sessions, which
    /// merge, so that there is no telling whose they would be.
    pub fn window_state(&mut self) -> Result<&mut CurrentKey<'a>> {
        if self.current.is_none() {
            let Some(states) = self.states.take() else {
                return Err(Error::request("states of a window in a function of sessions, which have none")
                    .with_hint("sessions grow and merge as records come: keep it for the key, in global_state"));
            };
            let slot = states.lookup(self.keys.columns_of(self.row), 1, self.window)?.first().copied();
            let slot = slot.ok_or_else(|| Error::internal("a window without a slot"))?;
            let current = CurrentKey::new(&mut *states.states, slot, self.global.now_millis());
            self.current = Some(current.in_scope(StateScope::Window));
        }
        self.current.as_mut().ok_or_else(|| Error::internal("the states of a window are gone"))
    }

    /// The states of the key, whatever the window: `self.total.get(context.global_state())?`.
    pub fn global_state(&mut self) -> &mut CurrentKey<'a> {
        &mut self.global
    }

    /// The lists of the subtask, for the handles of operator lists.
    pub fn lists(&mut self) -> &mut OperatorLists {
        self.lists
    }

    /// Emits to a side output, read with [`side_output`](super::DataStream::side_output); where nobody reads it, nothing happens.
    pub fn output<S: Record>(&mut self, tag: &OutputTag<S>, value: S) -> Result<()> {
        self.sides.push(tag, value, self.time)
    }
}

impl<K> fmt::Debug for WindowContext<'_, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WindowContext({:?}, watermark {})", self.window, self.watermark.0)
    }
}

/// What one subtask keeps for keys in windows.
///
/// These are keyed states like any other, but that the bounds of the window stand behind the key as its namespace: so windows are
/// stored, leave memory and come back each for itself, and go where their key goes.
pub(super) struct WindowStates {
    pub states: Box<dyn KeyedStates>,
    fields: Fields,
    /// Whether anything is kept.
    pub is_used: bool,
}

/// The bounds of a window as columns, in milliseconds.
const BOUNDS: [&str; 2] = ["window_start", "window_end"];

impl WindowStates {
    /// Nothing is kept so far, for keys with these columns.
    pub fn new(backend: &dyn StateBackend, keys: &Fields) -> Result<Self> {
        let bound = |name: &str| Arc::new(namespace(Field::new(name, DataType::Int64, false)));
        let fields: Fields = keys.iter().cloned().chain(BOUNDS.map(bound)).collect();
        Ok(Self { states: backend.keyed_states(&fields)?, fields, is_used: false })
    }

    /// The slots of these keys in a window.
    pub fn lookup(&mut self, mut keys: Vec<ArrayRef>, rows: usize, window: Window) -> Result<Vec<usize>> {
        for bound in [window.start, window.end] {
            keys.push(Arc::new(Int64Array::from_value(bound, rows)));
        }
        let mut slots = Vec::with_capacity(rows);
        self.states.lookup(&keys, &key_hashes(&self.fields, &keys, rows)?, &mut slots)?;
        Ok(slots)
    }

    /// Takes what is kept for windows out of `state`.
    pub fn restore(&mut self, state: &mut RestoredState) -> Result<()> {
        let (own, others) = std::mem::take(&mut state.states).into_iter().partition(|(state, _)| is_of_windows(state));
        state.states = others;
        self.states.restore(&mut RestoredState { key_groups: state.key_groups.clone(), states: own })
    }
}

/// Whether a state was kept for windows.
fn is_of_windows(state: &StateDescriptor) -> bool {
    state.kind == StateKind::Keyed && state.schema.fields().iter().any(|field| is_namespace(field))
}
