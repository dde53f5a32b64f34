//! One value a key (STA-03).

use std::fmt;

use crate::error::Result;
use crate::state::{CurrentKey, Expiry, Token};

/// Cells of one value each.
///
/// Laws: what cannot be seen under `expiry` is as good as not there. A value is used at the moment of the `expiry` with which it
/// was set or renewed.
pub trait ValueCells<T> {
    /// The value, if there is one that can be seen.
    fn get(&self, slot: usize, expiry: Expiry) -> Option<&T>;

    /// Puts a value in place of whatever was there.
    fn set(&mut self, slot: usize, value: T, expiry: Expiry);

    /// Takes out the value that `get` would show, and leaves the slot vacant.
    fn take(&mut self, slot: usize, expiry: Expiry) -> Option<T>;

    /// A value that has not expired is used now; whether there is one.
    fn renew(&mut self, slot: usize, expiry: Expiry) -> bool;
}

/// A handle to one value for each key. `get` is `None` until there was a `set`.
///
/// ```
/// # use tidemill_core::state::{CurrentKey, ValueState};
/// # use tidemill_core::Result;
/// /// Counts the rows of a key.
/// fn count(counter: &ValueState<u64>, key: &mut CurrentKey<'_>) -> Result<u64> {
///     let count = counter.get(key)?.copied().unwrap_or(0) + 1;
///     counter.set(key, count)?;
///     Ok(count)
/// }
/// ```
pub struct ValueState<T: 'static>(Token<dyn ValueCells<T>>);

impl<T: 'static> ValueState<T> {
    /// The handle of a registered state.
    pub fn new(token: Token<dyn ValueCells<T>>) -> Self {
        Self(token)
    }

    /// The value of the key.
    pub fn get<'k>(&self, key: &'k mut CurrentKey<'_>) -> Result<Option<&'k T>> {
        if self.0.renews_on_read(key) {
            let (cells, slot, expiry) = self.0.cells(key)?;
            if cells.renew(slot, expiry) {
                self.0.written(key)?;
            }
        }
        let (cells, slot, expiry) = self.0.cells(key)?;
        Ok(cells.get(slot, expiry))
    }

    /// Sets the value of the key.
    pub fn set(&self, key: &mut CurrentKey<'_>, value: T) -> Result<()> {
        let (cells, slot, expiry) = self.0.cells(key)?;
        cells.set(slot, value, expiry);
        self.0.written(key)
    }

    /// Takes the value out, so that there is none.
    pub fn take(&self, key: &mut CurrentKey<'_>) -> Result<Option<T>> {
        let (cells, slot, expiry) = self.0.cells(key)?;
        let value = cells.take(slot, expiry);
        self.0.written(key)?;
        Ok(value)
    }

    /// Replaces the value by what `change` makes of it.
    pub fn update(&self, key: &mut CurrentKey<'_>, change: impl FnOnce(Option<T>) -> T) -> Result<()> {
        let (cells, slot, expiry) = self.0.cells(key)?;
        let value = cells.take(slot, expiry);
        cells.set(slot, change(value), expiry);
        self.0.written(key)
    }

    /// Removes the value of the key.
    pub fn clear(&self, key: &mut CurrentKey<'_>) -> Result<()> {
        self.0.clear(key)
    }
}

impl<T: 'static> Default for ValueState<T> {
    /// The handle of no state, to be replaced by one that was declared.
    fn default() -> Self {
        Self(Token::undeclared())
    }
}

impl<T: 'static> Clone for ValueState<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: 'static> Copy for ValueState<T> {}

impl<T: 'static> fmt::Debug for ValueState<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ValueState({:?})", self.0)
    }
}
