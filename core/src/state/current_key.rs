//! What the handles of users read and write through: the states of one key at one moment.
//!
//! ```text
//! handle ── Token ──> column of its state ── CellsOf ──> cells: get, set, push … of a slot
//! ```
//!
//! A handle does not know how its cells are laid out. Who made it gave it a function that finds them in the column, and said
//! whose states it is for: those of keys, or those of keys in windows ([`StateScope`]).

use std::fmt;

use crate::error::{Error, Result};
use crate::state::{Expiry, KeyedStates, StateColumn, StateId, StateTtl};

/// What it is that has one cell of a state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum StateScope {
    /// A key (STA-01).
    #[default]
    Key,
    /// A key in a window (STA-14).
    Window,
}

/// The states of one key, or of one key in a window, at one moment of processing time.
pub struct CurrentKey<'a> {
    states: &'a mut dyn KeyedStates,
    slot: usize,
    now_millis: i64,
    scope: StateScope,
}

impl<'a> CurrentKey<'a> {
    /// The key of `slot`, which `states` gave and has not taken back.
    pub fn new(states: &'a mut dyn KeyedStates, slot: usize, now_millis: i64) -> Self {
        Self { states, slot, now_millis, scope: StateScope::Key }
    }

    /// The same with states of this scope: handles that were declared for another are refused.
    #[must_use]
    pub fn in_scope(self, scope: StateScope) -> Self {
        Self { scope, ..self }
    }

    /// Its slot.
    pub fn slot(&self) -> usize {
        self.slot
    }

    /// The moment.
    pub fn now_millis(&self) -> i64 {
        self.now_millis
    }
}

impl fmt::Debug for CurrentKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CurrentKey(slot {} at {})", self.slot, self.now_millis)
    }
}

/// Finds the cells of type `C` in a column; `None` if it is another column.
pub type CellsOf<C> = for<'c> fn(&'c mut (dyn StateColumn + 'static)) -> Option<&'c mut C>;

/// What every handle holds: which state it is, when it expires, and how its cells are found.
pub struct Token<C: ?Sized> {
    id: StateId,
    ttl: Option<StateTtl>,
    scope: StateScope,
    cells: CellsOf<C>,
}

impl<C: ?Sized> Token<C> {
    /// The token of a state of this scope that was registered with this TTL.
    pub fn new(id: StateId, ttl: Option<StateTtl>, scope: StateScope, cells: CellsOf<C>) -> Self {
        Self { id, ttl, scope, cells }
    }

    /// The token of no state: whoever uses it is told that the state has to be declared first.
    pub fn undeclared() -> Self {
        Self { id: StateId::new(usize::MAX), ttl: None, scope: StateScope::Key, cells: |_| None }
    }

    /// The state.
    pub fn id(&self) -> StateId {
        self.id
    }

    /// The cells of the state, with the slot of the key and what has expired.
    pub(super) fn cells<'k>(&self, key: &'k mut CurrentKey<'_>) -> Result<(&'k mut C, usize, Expiry)> {
        self.check(key)?;
        let expiry = Expiry::new(self.ttl, key.now_millis);
        let column = key.states.column(self.id)?;
        let cells = (self.cells)(column).ok_or_else(|| Error::internal("a state handle used with states of others"))?;
        Ok((cells, key.slot, expiry))
    }

    /// Tells the backend that the key's cell was written.
    pub(super) fn written(&self, key: &mut CurrentKey<'_>) -> Result<()> {
        key.states.touch(self.id, &[key.slot], key.now_millis)
    }

    /// Empties the key's cell.
    pub(super) fn clear(&self, key: &mut CurrentKey<'_>) -> Result<()> {
        self.check(key)?;
        key.states.column(self.id)?.clear(key.slot);
        self.written(key)
    }

    /// The state was declared, for states like these.
    fn check(&self, key: &CurrentKey<'_>) -> Result<()> {
        if self.id == StateId::new(usize::MAX) {
            return Err(Error::request("a state is used that was not declared")
                .with_hint("declare it in open, and keep the handle that the runtime context gives"));
        }
        match (self.scope, key.scope) {
            (StateScope::Window, StateScope::Key) => Err(Error::request("a state of windows is used as one of keys")
                .with_hint("it was declared per window: use it with window_state, in functions of windows")),
            (StateScope::Key, StateScope::Window) => Err(Error::request("a state of keys is used as one of windows")
                .with_hint("use it with global_state, or declare it per window")),
            _ => Ok(()),
        }
    }

    /// Whether reads are to renew what they read.
    pub(super) fn renews_on_read(&self, key: &CurrentKey<'_>) -> bool {
        Expiry::new(self.ttl, key.now_millis).renews_on_read()
    }
}

impl<C: ?Sized> Clone for Token<C> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<C: ?Sized> Copy for Token<C> {}

impl<C: ?Sized> fmt::Debug for Token<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "state {}", self.id.index())
    }
}
