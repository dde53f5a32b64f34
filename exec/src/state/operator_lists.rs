//! Lists of user types that belong to a subtask rather than to a key (STA-02, STA-08, STA-09, STA-11, SUB-10).
//!
//! | declared as | when the parallelism changes |
//! | --- | --- |
//! | list | the elements of all subtasks are dealt one by one; with as many subtasks as before lists stay where they are |
//! | union list | every subtask gets the elements of all, always, and keeps what is its own: who keeps all multiplies them |
//! | raw list | as a list, of byte strings of which nobody but the user knows what they mean |

use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use tidemill_core::state::{
    Dealing, EncodeState, RestoredState, StateDescriptor, StateKind, StateLayer, adapt, not_restorable,
};
use tidemill_core::{Error, Result};

use crate::state::footprint::{batch_bytes, heap_bytes};
use crate::state::{Codec, StateValue};

/// The lists of one operator in one subtask.
#[derive(Default)]
pub struct OperatorLists {
    lists: Vec<Declared>,
    /// What was restored and not declared.
    others: Vec<(StateDescriptor, Vec<RecordBatch>)>,
}

struct Declared {
    name: String,
    dealing: Dealing,
    list: Box<dyn AnyList>,
}

impl OperatorLists {
    /// Declares a list. An error if the name is taken, or if the type has no columns.
    pub fn declare<T: StateValue>(&mut self, name: &str, dealing: Dealing) -> Result<OperatorListState<T>> {
        let codec = Arc::new(Codec::<T>::new("value")?);
        let schema = Arc::new(Schema::new(vec![codec.field().clone()]));
        let encode = codec.clone();
        let decode = move |column: &ArrayRef| codec.decode(column);
        self.add(name, dealing, schema, heap_bytes, move |values| encode.encode(values), decode)
    }

    /// Declares a list of byte strings.
    pub fn declare_raw(&mut self, name: &str) -> Result<OperatorListState<Vec<u8>>> {
        let schema = Arc::new(Schema::new(vec![Field::new("bytes", DataType::Binary, false)]));
        let encode = |values: &[Vec<u8>]| -> Result<ArrayRef> { Ok(Arc::new(BinaryArray::from_iter_values(values))) };
        let decode = |column: &ArrayRef| -> Result<Vec<Vec<u8>>> {
            let bytes = column.as_binary_opt::<i32>().ok_or_else(|| Error::corrupt("raw state that is no bytes"))?;
            Ok((0..bytes.len()).map(|row| bytes.value(row).to_vec()).collect())
        };
        self.add(name, Dealing::Split, schema, Vec::len, encode, decode)
    }

    fn add<T: StateValue>(
        &mut self,
        name: &str,
        dealing: Dealing,
        schema: SchemaRef,
        weigh: fn(&T) -> usize,
        encode: impl Fn(&[T]) -> Result<ArrayRef> + Send + Sync + 'static,
        decode: impl Fn(&ArrayRef) -> Result<Vec<T>> + Send + Sync + 'static,
    ) -> Result<OperatorListState<T>> {
        if self.lists.iter().any(|declared| declared.name == name) {
            return Err(Error::request(format!("there are two operator lists called '{name}'"))
                .with_hint("every state of an operator has a name of its own"));
        }
        let (encode, decode) = (Arc::new(encode), Arc::new(decode));
        let list = TypedList { elements: Vec::new(), heap_bytes: 0, schema, weigh, encode, decode };
        self.lists.push(Declared { name: name.to_owned(), dealing, list: Box::new(list) });
        Ok(OperatorListState { place: Some(self.lists.len() - 1), element: PhantomData })
    }

    /// The lists frozen, for a snapshot.
    pub fn freeze(&self) -> Vec<(StateDescriptor, EncodeState)> {
        let declared = self.lists.iter().map(|Declared { name, dealing, list }| {
            let kind = kind_of(*dealing);
            (StateDescriptor { name: name.clone(), kind, schema: list.schema() }, list.freeze())
        });
        let others = self.others.iter().cloned().map(|(descriptor, batches)| {
            let encode: EncodeState = Box::new(move || Ok(batches));
            (descriptor, encode)
        });
        declared.chain(others).collect()
    }

    /// Takes what was declared out of `state`, and what is a split list and was not: that goes along. (Union lists that nobody
    /// declares stay: carried along by every subtask they would multiply.)
    ///
    /// Errors: a list that was dealt out otherwise, or whose elements cannot become those that are declared.
    pub fn restore(&mut self, state: &mut RestoredState) -> Result<()> {
        for Declared { name, dealing, list } in &mut self.lists {
            let schema = list.schema();
            let saved = state.states.iter().find(|(descriptor, _)| descriptor.name == *name);
            if let Some((saved, _)) = saved.filter(|(saved, _)| saved.kind != kind_of(*dealing)) {
                let (saved, declared) = (saved.kind, kind_of(*dealing));
                return Err(Error::request(format!(
                    "state '{name}' was saved as {saved:?} and is declared as {declared:?}"
                ))
                .with_hint("give the new form a name of its own, or change it back"));
            }
            for batch in state.take(name)? {
                let restored = list.restore(&adapt(name, &batch, &schema)?);
                restored.map_err(|error| match batch.schema().fields() == schema.fields() {
                    true => error,
                    false => not_restorable(name, &batch.schema(), &schema, error.message()),
                })?;
            }
        }
        let (others, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut state.states).into_iter().partition(|(state, _)| state.kind == StateKind::List);
        state.states = rest;
        let decoded = |(descriptor, layers): (_, Vec<StateLayer>)| Ok((descriptor, StateLayer::decode_all(&layers)?));
        self.others = others.into_iter().map(decoded).collect::<Result<_>>()?;
        Ok(())
    }

    /// Bytes that the elements occupy, roughly, and what is carried along.
    pub fn memory_bytes(&self) -> usize {
        let lists = self.lists.iter().map(|declared| declared.list.memory_bytes());
        lists.sum::<usize>() + self.others.iter().map(|(_, batches)| batch_bytes(batches)).sum::<usize>()
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

fn kind_of(dealing: Dealing) -> StateKind {
    match dealing {
        Dealing::Split => StateKind::List,
        Dealing::Union => StateKind::UnionList,
    }
}

fn undeclared() -> Error {
    Error::request("an operator list is used that was not declared")
        .with_hint("declare it in open, and keep the handle that the runtime context gives")
}

fn foreign() -> Error {
    Error::internal("a handle of an operator list used with lists of others")
}

impl fmt::Debug for OperatorLists {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.lists.iter().map(|declared| declared.name.as_str()).collect();
        write!(f, "OperatorLists({})", names.join(", "))
    }
}

/// A handle to a list of a subtask.
///
/// ```
/// # use tidemill_core::state::Dealing;
/// # use tidemill_exec::state::OperatorLists;
/// let mut lists = OperatorLists::default();
/// let waiting = lists.declare::<String>("waiting", Dealing::Split)?;
/// waiting.add(&mut lists, "ann".to_owned())?;
/// assert_eq!(waiting.get(&lists)?, ["ann"]);
/// # Ok::<(), tidemill_core::Error>(())
/// ```
pub struct OperatorListState<T> {
    /// `None` where no state was declared.
    place: Option<usize>,
    element: PhantomData<fn() -> T>,
}

impl<T: StateValue> OperatorListState<T> {
    /// The elements, in the order in which they were added.
    pub fn get<'s>(&self, lists: &'s OperatorLists) -> Result<&'s [T]> {
        Ok(&lists.list(self)?.elements)
    }

    /// Adds an element at the end.
    pub fn add(&self, lists: &mut OperatorLists, element: T) -> Result<()> {
        lists.list_mut(self)?.extend([element]);
        Ok(())
    }

    /// Replaces all elements.
    pub fn set(&self, lists: &mut OperatorLists, elements: impl IntoIterator<Item = T>) -> Result<()> {
        let list = lists.list_mut(self)?;
        list.take();
        list.extend(elements);
        Ok(())
    }

    /// Takes all elements out.
    pub fn take(&self, lists: &mut OperatorLists) -> Result<Vec<T>> {
        Ok(lists.list_mut(self)?.take())
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
    fn schema(&self) -> SchemaRef;

    fn freeze(&self) -> EncodeState;

    /// Adds the elements of a batch.
    fn restore(&mut self, elements: &RecordBatch) -> Result<()>;

    fn memory_bytes(&self) -> usize;
}

type Encode<T> = Arc<dyn Fn(&[T]) -> Result<ArrayRef> + Send + Sync>;
type Decode<T> = Arc<dyn Fn(&ArrayRef) -> Result<Vec<T>> + Send + Sync>;

struct TypedList<T> {
    elements: Vec<T>,
    /// What the elements keep on the heap, kept up with every change: it is asked for after every batch.
    heap_bytes: usize,
    schema: SchemaRef,
    /// What an element keeps on the heap.
    weigh: fn(&T) -> usize,
    encode: Encode<T>,
    decode: Decode<T>,
}

impl<T> TypedList<T> {
    fn extend(&mut self, elements: impl IntoIterator<Item = T>) {
        let before = self.elements.len();
        self.elements.extend(elements);
        self.heap_bytes += self.elements[before..].iter().map(self.weigh).sum::<usize>();
    }

    fn take(&mut self) -> Vec<T> {
        self.heap_bytes = 0;
        std::mem::take(&mut self.elements)
    }
}

impl<T: StateValue> AnyList for TypedList<T> {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn freeze(&self) -> EncodeState {
        let (elements, encode, schema) = (self.elements.clone(), self.encode.clone(), self.schema.clone());
        Box::new(move || match elements.is_empty() {
            true => Ok(Vec::new()),
            false => Ok(vec![RecordBatch::try_new(schema, vec![encode(&elements)?])?]),
        })
    }

    fn restore(&mut self, elements: &RecordBatch) -> Result<()> {
        self.extend((self.decode)(elements.column(0))?);
        Ok(())
    }

    fn memory_bytes(&self) -> usize {
        self.elements.capacity() * size_of::<T>() + self.heap_bytes
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tidemill_core::state::OperatorList;

    use super::*;

    /// What so many new subtasks get of what these have stored.
    fn dealt(subtasks: &[OperatorLists], parallelism: usize) -> Vec<RestoredState> {
        let mut states = vec![RestoredState { key_groups: 0..1, states: vec![] }; parallelism];
        let stored: Vec<Vec<_>> = subtasks.iter().map(OperatorLists::freeze).collect();
        let descriptors: Vec<StateDescriptor> = stored[0].iter().map(|(descriptor, _)| descriptor.clone()).collect();
        let mut lists: Vec<Vec<OperatorList>> = vec![vec![]; descriptors.len()];
        for subtask in stored {
            for (place, (descriptor, encode)) in subtask.into_iter().enumerate() {
                let batches = encode().unwrap();
                assert!(batches.iter().all(|batch| batch.schema() == descriptor.schema));
                lists[place].push(OperatorList::restore(descriptor.schema, batches).unwrap());
            }
        }
        for (descriptor, lists) in descriptors.into_iter().zip(lists) {
            let dealing = if descriptor.kind == StateKind::List { Dealing::Split } else { Dealing::Union };
            for (state, list) in states.iter_mut().zip(OperatorList::deal(&lists, dealing, parallelism).unwrap()) {
                state.states.push((descriptor.clone(), vec![StateLayer::Rows(list.batches().to_vec().into())]));
            }
        }
        states
    }

    #[derive(Default)]
    struct Subtask {
        lists: OperatorLists,
        names: OperatorListState<(String, Option<u8>)>,
        offsets: OperatorListState<i64>,
        blobs: OperatorListState<Vec<u8>>,
    }

    impl Subtask {
        fn new() -> Self {
            let mut lists = OperatorLists::default();
            let names = lists.declare("names", Dealing::Split).unwrap();
            let offsets = lists.declare("offsets", Dealing::Union).unwrap();
            let blobs = lists.declare_raw("blobs").unwrap();
            Self { lists, names, offsets, blobs }
        }

        fn restored(mut state: RestoredState) -> Self {
            let mut subtask = Self::new();
            subtask.lists.restore(&mut state).unwrap();
            assert!(state.states.is_empty());
            subtask
        }
    }

    fn name(number: u8) -> (String, Option<u8>) {
        (format!("name {number}"), number.is_multiple_of(2).then_some(number))
    }

    #[test]
    fn elements_are_dealt_or_given_to_all() {
        let subtasks = [0u8, 10].map(|first| {
            let mut subtask = Subtask::new();
            for number in first..first + 3 {
                subtask.names.add(&mut subtask.lists, name(number)).unwrap();
                subtask.blobs.add(&mut subtask.lists, vec![number, 0xff]).unwrap();
            }
            subtask.offsets.set(&mut subtask.lists, [i64::from(first)]).unwrap();
            subtask.lists
        });
        for (parallelism, numbers) in
            [(2, vec![vec![0, 1, 2], vec![10, 11, 12]]), (3, vec![vec![0, 10], vec![1, 11], vec![2, 12]])]
        {
            for (state, numbers) in dealt(&subtasks, parallelism).into_iter().zip(numbers) {
                let mut subtask = Subtask::restored(state);
                let lists = &subtask.lists;
                assert_eq!(subtask.names.get(lists).unwrap(), numbers.iter().copied().map(name).collect::<Vec<_>>());
                let blobs: Vec<Vec<u8>> = numbers.iter().map(|number| vec![*number, 0xff]).collect();
                assert_eq!(subtask.blobs.get(lists).unwrap(), blobs);
                assert_eq!(subtask.offsets.get(lists).unwrap(), [0, 10]);
                assert!(lists.memory_bytes() > 0);
                assert_eq!(subtask.blobs.take(&mut subtask.lists).unwrap(), blobs);
                assert!(subtask.blobs.get(&subtask.lists).unwrap().is_empty());
            }
        }
    }

    #[test]
    fn elements_evolve_and_what_nobody_declares_goes_along() {
        let mut before = OperatorLists::default();
        let numbers = before.declare::<i32>("numbers", Dealing::Split).unwrap();
        let others = before.declare::<u8>("others", Dealing::Split).unwrap();
        numbers.set(&mut before, [1, -2]).unwrap();
        others.add(&mut before, 7).unwrap();
        let mut after = OperatorLists::default();
        let numbers = after.declare::<Option<i64>>("numbers", Dealing::Split).unwrap();
        after.restore(&mut dealt(&[before], 1)[0]).unwrap();
        assert_eq!(numbers.get(&after).unwrap(), [Some(1), Some(-2)]);

        let saved = dealt(&[after], 1);
        let mut latest = OperatorLists::default();
        let others = latest.declare::<u8>("others", Dealing::Split).unwrap();
        latest.restore(&mut saved[0].clone()).unwrap();
        assert_eq!(others.get(&latest).unwrap(), [7]);

        let refused = |declare: fn(&mut OperatorLists)| {
            let mut lists = OperatorLists::default();
            declare(&mut lists);
            lists.restore(&mut saved[0].clone()).unwrap_err().to_string()
        };
        let narrow = refused(|lists| drop(lists.declare::<Option<i8>>("numbers", Dealing::Split)));
        assert!(narrow.contains("'numbers' was saved as (value Int64) and is declared as (value Int8)"), "{narrow}");
        let union = refused(|lists| drop(lists.declare::<Option<i64>>("numbers", Dealing::Union)));
        assert!(union.contains("was saved as List and is declared as UnionList"), "{union}");
    }

    thread_local! {
        static WRITTEN: Cell<usize> = const { Cell::new(0) };
    }

    /// A text that counts how often it is written.
    #[derive(Clone, serde::Deserialize)]
    struct Counted(String);

    impl serde::Serialize for Counted {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
            WRITTEN.set(WRITTEN.get() + 1);
            serializer.serialize_newtype_struct("Counted", &self.0)
        }
    }

    #[test]
    fn what_elements_occupy_is_known_without_looking_at_all_of_them() {
        let mut lists = OperatorLists::default();
        let texts = lists.declare::<Counted>("texts", Dealing::Split).unwrap();
        let blobs = lists.declare_raw("blobs").unwrap();
        let before = WRITTEN.get();
        for _batch in 0..10 {
            for _row in 0..100 {
                texts.add(&mut lists, Counted("x".repeat(1_000))).unwrap();
            }
            assert!(lists.memory_bytes() > 100_000);
        }
        assert_eq!(WRITTEN.get() - before, 1_000, "an element is looked at once");
        blobs.set(&mut lists, vec![vec![7; 500_000]; 2]).unwrap();
        assert!((2_000_000..2_100_000).contains(&lists.memory_bytes()), "{}", lists.memory_bytes());

        let mut later = OperatorLists::default();
        let texts_only = later.declare::<Counted>("texts", Dealing::Split).unwrap();
        later.restore(&mut dealt(&[lists], 1)[0]).unwrap();
        assert!(later.memory_bytes() > 2_000_000, "what is carried along counts");
        let held = later.memory_bytes();
        texts_only.take(&mut later).unwrap();
        assert!((1_000_000..held - 1_000_000).contains(&later.memory_bytes()), "{}", later.memory_bytes());
        texts_only.set(&mut later, [Counted("y".repeat(70))]).unwrap();
        assert!(later.memory_bytes() < held - 900_000);
    }

    #[test]
    fn names_and_handles_are_checked() {
        let mut lists = OperatorLists::default();
        lists.declare::<i64>("numbers", Dealing::Split).unwrap();
        let twice = lists.declare_raw("numbers").unwrap_err();
        assert!(twice.message().contains("two operator lists called 'numbers'"), "{twice}");
        let undeclared = OperatorListState::<i64>::default().get(&lists).unwrap_err();
        assert!(undeclared.message().contains("was not declared"), "{undeclared}");
    }
}
