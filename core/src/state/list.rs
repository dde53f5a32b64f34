//! A list a key (STA-04).

use std::fmt;

use crate::error::Result;
use crate::state::{CurrentKey, Expiry, Token};

/// Cells of a list each. Elements expire each for itself.
///
/// Laws: elements stay in the order in which they came. Those that cannot be seen under `expiry` are as good as not there. An
/// element is used at the moment of the `expiry` with which it was pushed or renewed.
pub trait ListCells<T> {
    /// The elements that can be seen.
    fn iter<'a>(&'a self, slot: usize, expiry: Expiry) -> Box<dyn Iterator<Item = &'a T> + 'a>;

    /// Appends an element.
    fn push(&mut self, slot: usize, value: T, expiry: Expiry);

    /// Elements that have not expired are used now; whether there are any.
    fn renew(&mut self, slot: usize, expiry: Expiry) -> bool;
}

/// A handle to a list for each key, empty until something is added.
pub struct ListState<T: 'static>(Token<dyn ListCells<T>>);

impl<T: 'static> ListState<T> {
    /// The handle of a registered state.
    pub fn new(token: Token<dyn ListCells<T>>) -> Self {
        Self(token)
    }

    /// The elements of the key, in the order in which they were added.
    pub fn get<'k>(&self, key: &'k mut CurrentKey<'_>) -> Result<Box<dyn Iterator<Item = &'k T> + 'k>> {
        if self.0.renews_on_read(key) {
            let (cells, slot, expiry) = self.0.cells(key)?;
            if cells.renew(slot, expiry) {
                self.0.written(key)?;
            }
        }
        let (cells, slot, expiry) = self.0.cells(key)?;
        Ok(cells.iter(slot, expiry))
    }

    /// Adds an element at the end.
    pub fn add(&self, key: &mut CurrentKey<'_>, value: T) -> Result<()> {
        self.extend(key, [value])
    }

    /// Adds elements at the end.
    pub fn extend(&self, key: &mut CurrentKey<'_>, values: impl IntoIterator<Item = T>) -> Result<()> {
        let (cells, slot, expiry) = self.0.cells(key)?;
        values.into_iter().for_each(|value| cells.push(slot, value, expiry));
        self.0.written(key)
    }

    /// Replaces the whole list.
    pub fn set(&self, key: &mut CurrentKey<'_>, values: impl IntoIterator<Item = T>) -> Result<()> {
        self.0.clear(key)?;
        self.extend(key, values)
    }

    /// Whether there is no element.
    pub fn is_empty(&self, key: &mut CurrentKey<'_>) -> Result<bool> {
        Ok(self.get(key)?.next().is_none())
    }

    /// Empties the list of the key.
    pub fn clear(&self, key: &mut CurrentKey<'_>) -> Result<()> {
        self.0.clear(key)
    }
}

impl<T: 'static> Default for ListState<T> {
    /// The handle of no state, to be replaced by one that was declared.
    fn default() -> Self {
        Self(Token::undeclared())
    }
}

impl<T: 'static> Clone for ListState<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: 'static> Copy for ListState<T> {}

impl<T: 'static> fmt::Debug for ListState<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ListState({:?})", self.0)
    }
}
