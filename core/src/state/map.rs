//! A map a key (STA-05).

use std::fmt;

use crate::error::Result;
use crate::state::{CurrentKey, Expiry, Token};

/// Cells of a map each. Entries expire each for itself.
///
/// Laws: entries come in the order of their keys, so that it is the same after a restore. Those that cannot be seen under
/// `expiry` are as good as not there. An entry is used at the moment of the `expiry` with which it was put or renewed.
pub trait MapCells<K, V> {
    /// The value under `key`, if there is one that can be seen.
    fn get(&self, slot: usize, key: &K, expiry: Expiry) -> Option<&V>;

    /// The entries that can be seen.
    fn iter<'a>(&'a self, slot: usize, expiry: Expiry) -> Box<dyn Iterator<Item = (&'a K, &'a V)> + 'a>;

    /// Puts a value in place of what was under `key`.
    fn put(&mut self, slot: usize, key: K, value: V, expiry: Expiry);

    /// Takes out what is under `key`; what `get` would have shown.
    fn remove(&mut self, slot: usize, key: &K, expiry: Expiry) -> Option<V>;

    /// What is under `key`, or under any key if there is none, is used now unless it has expired; whether there is something.
    fn renew(&mut self, slot: usize, key: Option<&K>, expiry: Expiry) -> bool;
}

/// A handle to a map for each key, empty until something is put into it.
pub struct MapState<K: 'static, V: 'static>(Token<dyn MapCells<K, V>>);

impl<K: 'static, V: 'static> MapState<K, V> {
    /// The handle of a registered state.
    pub fn new(token: Token<dyn MapCells<K, V>>) -> Self {
        Self(token)
    }

    /// The value under `name` in the map of the key.
    pub fn get<'k>(&self, key: &'k mut CurrentKey<'_>, name: &K) -> Result<Option<&'k V>> {
        self.renew(key, Some(name))?;
        let (cells, slot, expiry) = self.0.cells(key)?;
        Ok(cells.get(slot, name, expiry))
    }

    /// Whether there is a value under `name`.
    pub fn contains(&self, key: &mut CurrentKey<'_>, name: &K) -> Result<bool> {
        Ok(self.get(key, name)?.is_some())
    }

    /// Puts a value under `name`.
    pub fn put(&self, key: &mut CurrentKey<'_>, name: K, value: V) -> Result<()> {
        let (cells, slot, expiry) = self.0.cells(key)?;
        cells.put(slot, name, value, expiry);
        self.0.written(key)
    }

    /// Takes out what is under `name`.
    pub fn remove(&self, key: &mut CurrentKey<'_>, name: &K) -> Result<Option<V>> {
        let (cells, slot, expiry) = self.0.cells(key)?;
        let value = cells.remove(slot, name, expiry);
        self.0.written(key)?;
        Ok(value)
    }

    /// All entries, in the order of their names.
    pub fn entries<'k>(&self, key: &'k mut CurrentKey<'_>) -> Result<Box<dyn Iterator<Item = (&'k K, &'k V)> + 'k>> {
        self.renew(key, None)?;
        let (cells, slot, expiry) = self.0.cells(key)?;
        Ok(cells.iter(slot, expiry))
    }

    /// Whether there is no entry. Prolongs no life.
    pub fn is_empty(&self, key: &mut CurrentKey<'_>) -> Result<bool> {
        let (cells, slot, expiry) = self.0.cells(key)?;
        Ok(cells.iter(slot, expiry).next().is_none())
    }

    /// Empties the map of the key.
    pub fn clear(&self, key: &mut CurrentKey<'_>) -> Result<()> {
        self.0.clear(key)
    }

    fn renew(&self, key: &mut CurrentKey<'_>, name: Option<&K>) -> Result<()> {
        if self.0.renews_on_read(key) {
            let (cells, slot, expiry) = self.0.cells(key)?;
            if cells.renew(slot, name, expiry) {
                self.0.written(key)?;
            }
        }
        Ok(())
    }
}

impl<K: 'static, V: 'static> Default for MapState<K, V> {
    /// The handle of no state, to be replaced by one that was declared.
    fn default() -> Self {
        Self(Token::undeclared())
    }
}

impl<K: 'static, V: 'static> Clone for MapState<K, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K: 'static, V: 'static> Copy for MapState<K, V> {}

impl<K: 'static, V: 'static> fmt::Debug for MapState<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MapState({:?})", self.0)
    }
}
