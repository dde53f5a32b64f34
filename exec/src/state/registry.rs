//! Where operators and users declare their states by name and type.

use std::fmt;

use tidemill_core::Result;
use tidemill_core::state::{
    AggregatingState, KeyedStates, ListCells, ListState, MapCells, MapState, ReducingState, StateColumn, StateScope,
    StateTtl, Token, ValueCells, ValueState,
};

use crate::state::StateValue;
use crate::state::columns::{ListColumn, MapColumn, Timed, TimedColumn, Untimed, ValueColumn};

/// Declares states, before the first row.
///
/// ```
/// # use std::sync::Arc;
/// # use arrow::array::{ArrayRef, StringArray};
/// # use arrow::datatypes::{DataType, Field, Fields};
/// # use tidemill_core::key::hash_columns;
/// # use tidemill_core::state::{CurrentKey, KeyedStates};
/// # use tidemill_exec::state::{MemoryStates, StateRegistry};
/// let keys = Fields::from(vec![Field::new("user", DataType::Utf8, true)]);
/// let mut states = MemoryStates::new(&keys, 128)?;
/// let visits = StateRegistry::new(&mut states).value_state::<u64>("visits")?;
///
/// let users: Vec<ArrayRef> = vec![Arc::new(StringArray::from(vec!["ann", "bob", "ann"]))];
/// let mut slots = vec![];
/// states.lookup(&users, &hash_columns(&users, 3)?, &mut slots)?;
/// for slot in &slots {
///     let mut user = CurrentKey::new(&mut states, *slot, 0);
///     visits.update(&mut user, |visits| visits.unwrap_or(0) + 1)?;
/// }
/// assert_eq!(visits.get(&mut CurrentKey::new(&mut states, slots[0], 0))?, Some(&2));
/// # Ok::<(), tidemill_core::Error>(())
/// ```
pub struct StateRegistry<'a> {
    states: &'a mut dyn KeyedStates,
    scope: StateScope,
    ttl: Option<StateTtl>,
}

impl<'a> StateRegistry<'a> {
    /// Declares among these states; what is declared does not expire.
    pub fn new(states: &'a mut dyn KeyedStates) -> Self {
        Self { states, scope: StateScope::Key, ttl: None }
    }

    /// The same among states of this scope.
    #[must_use]
    pub fn in_scope(self, scope: StateScope) -> Self {
        Self { scope, ..self }
    }

    /// The same for states that expire, or that do not.
    pub fn with_ttl(&mut self, ttl: impl Into<Option<StateTtl>>) -> StateRegistry<'_> {
        StateRegistry { states: &mut *self.states, scope: self.scope, ttl: ttl.into() }
    }

    /// One value a key.
    pub fn value_state<T: StateValue>(&mut self, name: &str) -> Result<ValueState<T>> {
        let token = match self.ttl {
            None => self.register(name, ValueColumn::<T>::new()?, value_cells::<ValueColumn<T>, T>),
            Some(_) => {
                let column = TimedColumn::new(ValueColumn::<T>::new()?);
                self.register(name, column, value_cells::<TimedColumn<ValueColumn<T>>, T>)
            }
        };
        Ok(ValueState::new(token?))
    }

    /// A list a key.
    pub fn list_state<T: StateValue>(&mut self, name: &str) -> Result<ListState<T>> {
        let token = match self.ttl {
            None => self.register(name, ListColumn::<Untimed<T>>::new()?, list_cells::<ListColumn<Untimed<T>>, T>),
            Some(_) => self.register(name, ListColumn::<Timed<T>>::new()?, list_cells::<ListColumn<Timed<T>>, T>),
        };
        Ok(ListState::new(token?))
    }

    /// A map a key.
    pub fn map_state<K: StateValue + Ord, V: StateValue>(&mut self, name: &str) -> Result<MapState<K, V>> {
        let token = match self.ttl {
            None => {
                self.register(name, MapColumn::<K, Untimed<V>>::new()?, map_cells::<MapColumn<K, Untimed<V>>, K, V>)
            }
            Some(_) => self.register(name, MapColumn::<K, Timed<V>>::new()?, map_cells::<MapColumn<K, Timed<V>>, K, V>),
        };
        Ok(MapState::new(token?))
    }

    /// One value a key, of all that were added.
    pub fn reducing_state<T: StateValue>(
        &mut self,
        name: &str,
        reduce: impl Fn(T, T) -> T + Send + Sync + 'static,
    ) -> Result<ReducingState<T>> {
        Ok(ReducingState::new(self.value_state(name)?, reduce))
    }

    /// One accumulator a key, begun by `create`, which `add` adds to and `result` reads.
    pub fn aggregating_state<I, A: StateValue, O>(
        &mut self,
        name: &str,
        create: impl Fn() -> A + Send + Sync + 'static,
        add: impl Fn(&mut A, I) + Send + Sync + 'static,
        result: impl Fn(&A) -> O + Send + Sync + 'static,
    ) -> Result<AggregatingState<I, A, O>> {
        Ok(AggregatingState::new(self.value_state(name)?, create, add, result))
    }

    fn register<S: StateColumn, C: ?Sized>(
        &mut self,
        name: &str,
        column: S,
        cells: fn(&mut AnyColumn) -> Option<&mut C>,
    ) -> Result<Token<C>> {
        let id = self.states.register(name, self.ttl, Box::new(column))?;
        Ok(Token::new(id, self.ttl, self.scope, cells))
    }
}

impl fmt::Debug for StateRegistry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StateRegistry({:?})", self.ttl)
    }
}

/// A column whose type is not known.
type AnyColumn = dyn StateColumn + 'static;

fn value_cells<C: StateColumn + ValueCells<T>, T: 'static>(
    column: &mut AnyColumn,
) -> Option<&mut (dyn ValueCells<T> + 'static)> {
    column.downcast::<C>().ok().map(|cells| cells as _)
}

fn list_cells<C: StateColumn + ListCells<T>, T: 'static>(
    column: &mut AnyColumn,
) -> Option<&mut (dyn ListCells<T> + 'static)> {
    column.downcast::<C>().ok().map(|cells| cells as _)
}

fn map_cells<C: StateColumn + MapCells<K, V>, K: 'static, V: 'static>(
    column: &mut AnyColumn,
) -> Option<&mut (dyn MapCells<K, V> + 'static)> {
    column.downcast::<C>().ok().map(|cells| cells as _)
}
