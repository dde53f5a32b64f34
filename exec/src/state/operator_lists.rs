//! Operator state of user types: lists that belong to a subtask rather than to a key (STA-06, SUB-10).

use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use tidemill_core::state::{Dealing, EncodeState, RestoredState, StateDescriptor, StateKind, adapt};
use tidemill_core::{Error, Result};

use crate::state::{Codec, StateValue};

/// The operator states of one operator in one subtask.
///
/// When the parallelism changes, the elements of a list are dealt out again, one by one or all to everybody, as was declared.
#[derive(Default)]
pub struct OperatorLists {
    lists: Vec<Declared>,
    /// Names of states of other kinds.
    taken: Vec<String>,
}

struct Declared {
    name: String,
    list: Box<dyn AnyList>,
}

impl OperatorLists {
    /// Declares a list. An error if the name is taken, or if the type has no columns.
    pub fn declare<T: StateValue>(&mut self, name: &str, dealing: Dealing) -> Result<OperatorListState<T>> {
        if self.taken.iter().any(|taken| taken == name) {
            return Err(two_states(name));
        }
        self.reserve(name)?;
        self.lists.push(Declared { name: name.to_owned(), list: Box::new(TypedList::<T>::new(dealing)?) });
        Ok(OperatorListState { place: Some(self.lists.len() - 1), element: PhantomData })
    }

    /// Keeps a name for a state of another kind. An error if a list has it.
    pub fn reserve(&mut self, name: &str) -> Result<()> {
        if self.lists.iter().any(|declared| declared.name == name) {
            return Err(two_states(name));
        }
        self.taken.push(name.to_owned());
        Ok(())
    }

    /// The states frozen, for a snapshot.
    pub fn freeze(&self) -> impl Iterator<Item = (StateDescriptor, EncodeState)> {
        self.lists.iter().map(|Declared { name, list }| {
            let descriptor = StateDescriptor { name: name.clone(), kind: list.kind(), schema: list.schema() };
            (descriptor, list.freeze())
        })
    }

    /// Takes the operator states out of `state`, after they were declared.
    pub fn restore(&mut self, state: &mut RestoredState) -> Result<()> {
        for Declared { name, list } in &mut self.lists {
            let schema = list.schema();
            let batches = state.take(name).into_iter().map(|batch| adapt(name, &batch, &schema));
            list.restore(batches.collect::<Result<_>>()?)?;
        }
        Ok(())
    }

    /// How many elements there are times their size, without what they hold on the heap.
    pub fn memory_bytes(&self) -> usize {
        self.lists.iter().map(|declared| declared.list.memory_bytes()).sum()
    }

    fn list<T: StateValue>(&self, handle: &OperatorListState<T>) -> Result<&TypedList<T>> {
        let declared = handle.place.and_then(|place| self.lists.get(place));
        let list: &dyn Any = &*declared.ok_or_else(undeclared)?.list;
        list.downcast_ref().ok_or_else(foreign)
    }

    fn list_mut<T: StateValue>(&mut self, handle: &OperatorListState<T>) -> Result<&mut TypedList<T>> {
        let declared = handle.place.and_then(|place| self.lists.get_mut(place));
        let list: &mut dyn Any = &mut *declared.ok_or_else(undeclared)?.list;
        list.downcast_mut().ok_or_else(foreign)
    }
}

fn two_states(name: &str) -> Error {
    Error::request(format!("there are two states called '{name}'"))
        .with_hint("every state of an operator has a name of its own")
}

fn undeclared() -> Error {
    Error::request("an operator state is used that was not declared")
        .with_hint("declare it in open, and keep the handle that the runtime context gives")
}

fn foreign() -> Error {
    Error::internal("a handle of an operator state used with states of others")
}

impl fmt::Debug for OperatorLists {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.lists.iter().map(|declared| &declared.name)).finish()
    }
}

/// A handle to a list of a subtask.
///
/// ```
/// # use tidemill_core::state::Dealing;
/// # use tidemill_exec::state::OperatorLists;
/// let mut states = OperatorLists::default();
/// let buffered = states.declare::<String>("buffered", Dealing::Split)?;
/// buffered.add(&mut states, "row".to_owned())?;
/// assert_eq!(buffered.get(&states)?, ["row"]);
/// assert_eq!(buffered.take(&mut states)?, ["row"]);
/// # Ok::<(), tidemill_core::Error>(())
/// ```
pub struct OperatorListState<T> {
    /// `None` where no state was declared.
    place: Option<usize>,
    element: PhantomData<fn() -> T>,
}

impl<T: StateValue> OperatorListState<T> {
    /// The elements, in the order in which they were added.
    pub fn get<'s>(&self, states: &'s OperatorLists) -> Result<&'s [T]> {
        Ok(&states.list(self)?.elements)
    }

    /// Adds an element at the end.
    pub fn add(&self, states: &mut OperatorLists, element: T) -> Result<()> {
        states.list_mut(self)?.elements.push(element);
        Ok(())
    }

    /// Takes all elements out.
    pub fn take(&self, states: &mut OperatorLists) -> Result<Vec<T>> {
        Ok(std::mem::take(&mut states.list_mut(self)?.elements))
    }

    /// Replaces all elements.
    pub fn set(&self, states: &mut OperatorLists, elements: Vec<T>) -> Result<()> {
        states.list_mut(self)?.elements = elements;
        Ok(())
    }
}

impl<T> Default for OperatorListState<T> {
    /// The handle of no state, to be replaced by one that was declared.
    fn default() -> Self {
        Self { place: None, element: PhantomData }
    }
}

impl<T> Clone for OperatorListState<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for OperatorListState<T> {}

impl<T> fmt::Debug for OperatorListState<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OperatorListState({:?})", self.place)
    }
}

/// A list whose type is not known.
trait AnyList: Any + Send {
    fn kind(&self) -> StateKind;

    fn schema(&self) -> SchemaRef;

    fn freeze(&self) -> EncodeState;

    fn restore(&mut self, batches: Vec<RecordBatch>) -> Result<()>;

    fn memory_bytes(&self) -> usize;
}

struct TypedList<T> {
    elements: Vec<T>,
    dealing: Dealing,
    codec: Arc<Codec<T>>,
    schema: SchemaRef,
}

impl<T: StateValue> TypedList<T> {
    fn new(dealing: Dealing) -> Result<Self> {
        let codec = Arc::new(Codec::new("element")?);
        let schema = Arc::new(Schema::new(vec![codec.field().clone()]));
        Ok(Self { elements: Vec::new(), dealing, codec, schema })
    }
}

impl<T: StateValue> AnyList for TypedList<T> {
    fn kind(&self) -> StateKind {
        match self.dealing {
            Dealing::Split => StateKind::List,
            Dealing::Union => StateKind::UnionList,
        }
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn freeze(&self) -> EncodeState {
        let (elements, codec, schema) = (self.elements.clone(), self.codec.clone(), self.schema.clone());
        Box::new(move || Ok(vec![RecordBatch::try_new(schema, vec![codec.encode(&elements)?])?]))
    }

    fn restore(&mut self, batches: Vec<RecordBatch>) -> Result<()> {
        for batch in batches {
            self.elements.extend(self.codec.decode(batch.column(0))?);
        }
        Ok(())
    }

    fn memory_bytes(&self) -> usize {
        self.elements.capacity() * size_of::<T>()
    }
}

#[cfg(test)]
mod tests {
    use tidemill_core::state::StateLayer;

    use super::*;

    #[test]
    fn lists_come_back_under_their_names_and_as_they_are_dealt() {
        let mut states = OperatorLists::default();
        let rows = states.declare::<(String, i64)>("rows", Dealing::Split).unwrap();
        let offsets = states.declare::<i64>("offsets", Dealing::Union).unwrap();
        rows.add(&mut states, ("a".into(), 1)).unwrap();
        rows.add(&mut states, ("b".into(), 2)).unwrap();
        offsets.set(&mut states, vec![7]).unwrap();
        let frozen: Vec<_> = states.freeze().collect();
        assert_eq!(rows.take(&mut states).unwrap().len(), 2, "what is frozen does not change");
        let kinds: Vec<StateKind> = frozen.iter().map(|(descriptor, _)| descriptor.kind).collect();
        assert_eq!(kinds, [StateKind::List, StateKind::UnionList]);
        let stored = frozen.into_iter().map(|(state, encode)| (state, vec![StateLayer::Rows(encode().unwrap())]));
        let mut stored = RestoredState { key_groups: 0..1, states: stored.collect() };

        let mut later = OperatorLists::default();
        let offsets = later.declare::<i64>("offsets", Dealing::Union).unwrap();
        let rows = later.declare::<(String, i64)>("rows", Dealing::Split).unwrap();
        later.restore(&mut stored).unwrap();
        assert_eq!(offsets.get(&later).unwrap(), [7]);
        assert_eq!(rows.get(&later).unwrap(), [("a".to_owned(), 1), ("b".to_owned(), 2)]);
    }

    #[test]
    fn names_and_handles_are_checked() {
        let mut states = OperatorLists::default();
        states.declare::<i64>("rows", Dealing::Split).unwrap();
        let twice = states.declare::<i64>("rows", Dealing::Union).unwrap_err();
        assert!(twice.message().contains("two states called 'rows'"), "{twice}");
        states.reserve("keyed").unwrap();
        assert!(states.declare::<i64>("keyed", Dealing::Union).is_err() && states.reserve("rows").is_err());
        let undeclared = OperatorListState::<i64>::default().get(&states).unwrap_err();
        assert!(undeclared.message().contains("was not declared"), "{undeclared}");
    }
}
