//! Broadcast state of user types: maps that are the same in every subtask (STA-07, SUB-11).

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{Schema, SchemaRef};
use tidemill_core::state::{
    EncodeState, KEY_COLUMNS, RestoredState, StateDescriptor, StateKind, StateLayer, adapt, not_restorable,
};
use tidemill_core::{Error, Result};

use crate::state::footprint::{ENTRY_OVERHEAD, batch_bytes, heap_bytes};
use crate::state::{Codec, StateValue};

/// The broadcast states of one operator in one subtask.
///
/// Who changes them must do so in every subtask alike: only because of rows that reach all of them, and in a way that does not
/// depend on their order. Then each subtask stores its own copy and finds it again.
#[derive(Default)]
pub struct BroadcastStates {
    maps: Vec<Declared>,
    /// What was restored and not declared.
    others: Vec<(StateDescriptor, Vec<RecordBatch>)>,
}

struct Declared {
    name: String,
    map: Box<dyn AnyMap>,
}

impl BroadcastStates {
    /// Declares a map. An error if the name is taken, or if one of the types has no columns.
    pub fn declare<K: StateValue + Ord, V: StateValue>(&mut self, name: &str) -> Result<BroadcastMap<K, V>> {
        if self.maps.iter().any(|declared| declared.name == name) {
            return Err(Error::request(format!("there are two broadcast states called '{name}'"))
                .with_hint("every state of an operator has a name of its own"));
        }
        self.maps.push(Declared { name: name.to_owned(), map: Box::new(TypedMap::<K, V>::new()?) });
        Ok(BroadcastMap { place: Some(self.maps.len() - 1), types: PhantomData })
    }

    /// The states frozen, for a snapshot.
    pub fn freeze(&self) -> Vec<(StateDescriptor, EncodeState)> {
        let declared = self.maps.iter().map(|Declared { name, map }| {
            let descriptor = StateDescriptor { name: name.clone(), kind: StateKind::Broadcast, schema: map.schema() };
            (descriptor, map.freeze())
        });
        let others = self.others.iter().cloned().map(|(descriptor, batches)| {
            let encode: EncodeState = Box::new(move || Ok(batches));
            (descriptor, encode)
        });
        declared.chain(others).collect()
    }

    /// Takes the broadcast states out of `state`, after they were declared.
    pub fn restore(&mut self, state: &mut RestoredState) -> Result<()> {
        for Declared { name, map } in &mut self.maps {
            let schema = map.schema();
            for batch in state.take(name)? {
                let restored = map.restore(&adapt(name, &batch, &schema)?);
                restored.map_err(|error| match batch.schema().fields() == schema.fields() {
                    true => error,
                    false => not_restorable(name, &batch.schema(), &schema, error.message()),
                })?;
            }
        }
        let (others, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut state.states).into_iter().partition(|(state, _)| state.kind == StateKind::Broadcast);
        state.states = rest;
        let decoded = |(descriptor, layers): (_, Vec<StateLayer>)| Ok((descriptor, StateLayer::decode_all(&layers)?));
        self.others = others.into_iter().map(decoded).collect::<Result<_>>()?;
        Ok(())
    }

    /// Bytes that all entries occupy, roughly, and what is carried along.
    pub fn memory_bytes(&self) -> usize {
        let maps = self.maps.iter().map(|declared| declared.map.memory_bytes());
        maps.sum::<usize>() + self.others.iter().map(|(_, batches)| batch_bytes(batches)).sum::<usize>()
    }

    fn map<K: StateValue + Ord, V: StateValue>(&self, handle: &BroadcastMap<K, V>) -> Result<&TypedMap<K, V>> {
        let declared = handle.place.and_then(|place| self.maps.get(place));
        let map: &dyn Any = &*declared.ok_or_else(undeclared)?.map;
        map.downcast_ref().ok_or_else(foreign)
    }

    fn map_mut<K: StateValue + Ord, V: StateValue>(
        &mut self,
        handle: &BroadcastMap<K, V>,
    ) -> Result<&mut TypedMap<K, V>> {
        let declared = handle.place.and_then(|place| self.maps.get_mut(place));
        let map: &mut dyn Any = &mut *declared.ok_or_else(undeclared)?.map;
        map.downcast_mut().ok_or_else(foreign)
    }
}

fn undeclared() -> Error {
    Error::request("a broadcast state is used that was not declared")
        .with_hint("declare it in open, and keep the handle that the runtime context gives")
}

fn foreign() -> Error {
    Error::internal("a handle of a broadcast state used with states of others")
}

impl fmt::Debug for BroadcastStates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.maps.iter().map(|declared| declared.name.as_str()).collect();
        write!(f, "BroadcastStates({})", names.join(", "))
    }
}

/// A handle to a map that is the same in every subtask. Entries come in the order of their keys.
///
/// ```
/// # use tidemill_exec::state::BroadcastStates;
/// let mut states = BroadcastStates::default();
/// let limits = states.declare::<String, i64>("limits")?;
/// limits.put(&mut states, "engine".to_owned(), 90)?;
/// assert_eq!(limits.get(&states, &"engine".to_owned())?, Some(&90));
/// assert_eq!(limits.entries(&states)?.count(), 1);
/// # Ok::<(), tidemill_core::Error>(())
/// ```
pub struct BroadcastMap<K, V> {
    /// `None` where no state was declared.
    place: Option<usize>,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K: StateValue + Ord, V: StateValue> BroadcastMap<K, V> {
    /// The value under `key`.
    pub fn get<'s>(&self, states: &'s BroadcastStates, key: &K) -> Result<Option<&'s V>> {
        Ok(states.map(self)?.entries.get(key))
    }

    /// All entries.
    pub fn entries<'s>(
        &self,
        states: &'s BroadcastStates,
    ) -> Result<impl Iterator<Item = (&'s K, &'s V)> + use<'s, K, V>> {
        Ok(states.map(self)?.entries.iter())
    }

    /// Puts a value in place of what was under `key`.
    pub fn put(&self, states: &mut BroadcastStates, key: K, value: V) -> Result<()> {
        states.map_mut(self)?.put(key, value);
        Ok(())
    }

    /// Takes out what is under `key`.
    pub fn remove(&self, states: &mut BroadcastStates, key: &K) -> Result<Option<V>> {
        Ok(states.map_mut(self)?.remove(key))
    }

    /// Removes all entries.
    pub fn clear(&self, states: &mut BroadcastStates) -> Result<()> {
        let map = states.map_mut(self)?;
        (map.entries, map.bytes) = (BTreeMap::new(), 0);
        Ok(())
    }
}

impl<K, V> Default for BroadcastMap<K, V> {
    /// The handle of no state, to be replaced by one that was declared.
    fn default() -> Self {
        Self { place: None, types: PhantomData }
    }
}

impl<K, V> Clone for BroadcastMap<K, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, V> Copy for BroadcastMap<K, V> {}

impl<K, V> fmt::Debug for BroadcastMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BroadcastMap({:?})", self.place)
    }
}

/// A map whose types are not known.
trait AnyMap: Any + Send {
    fn schema(&self) -> SchemaRef;

    fn freeze(&self) -> EncodeState;

    /// Adds the entries of a batch.
    fn restore(&mut self, entries: &RecordBatch) -> Result<()>;

    fn memory_bytes(&self) -> usize;
}

struct TypedMap<K, V> {
    entries: BTreeMap<K, V>,
    /// What they occupy, kept up with every change.
    bytes: usize,
    keys: Arc<Codec<K>>,
    values: Arc<Codec<V>>,
    schema: SchemaRef,
}

impl<K: StateValue + Ord, V: StateValue> TypedMap<K, V> {
    fn new() -> Result<Self> {
        let (keys, values) = (Arc::new(Codec::new("key")?), Arc::new(Codec::new("value")?));
        let fields = vec![keys.field().clone(), values.field().clone()];
        let metadata = HashMap::from([(KEY_COLUMNS.to_owned(), "1".to_owned())]);
        let schema = Arc::new(Schema::new_with_metadata(fields, metadata));
        Ok(Self { entries: BTreeMap::new(), bytes: 0, keys, values, schema })
    }

    fn put(&mut self, key: K, value: V) {
        // The key that is there goes too; equal keys may differ in size.
        self.remove(&key);
        self.bytes += bytes_of(&key, &value);
        self.entries.insert(key, value);
    }

    fn remove(&mut self, key: &K) -> Option<V> {
        let (key, value) = self.entries.remove_entry(key)?;
        self.bytes = self.bytes.saturating_sub(bytes_of(&key, &value));
        Some(value)
    }
}

fn bytes_of<K: StateValue, V: StateValue>(key: &K, value: &V) -> usize {
    ENTRY_OVERHEAD + size_of::<(K, V)>() + heap_bytes(key) + heap_bytes(value)
}

impl<K: StateValue + Ord, V: StateValue> AnyMap for TypedMap<K, V> {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn freeze(&self) -> EncodeState {
        let (keys, values): (Vec<K>, Vec<V>) = self.entries.clone().into_iter().unzip();
        let (key_codec, value_codec, schema) = (self.keys.clone(), self.values.clone(), self.schema.clone());
        Box::new(move || {
            let columns: Vec<ArrayRef> = vec![key_codec.encode(&keys)?, value_codec.encode(&values)?];
            Ok(vec![RecordBatch::try_new(schema, columns)?])
        })
    }

    fn restore(&mut self, entries: &RecordBatch) -> Result<()> {
        let keys = self.keys.decode(entries.column(0))?;
        let values = self.values.decode(entries.column(1))?;
        keys.into_iter().zip(values).for_each(|(key, value)| self.put(key, value));
        Ok(())
    }

    fn memory_bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a checkpoint of these states gives back.
    fn stored(states: &BroadcastStates) -> RestoredState {
        let encode = |(descriptor, encode): (StateDescriptor, EncodeState)| {
            assert_eq!(descriptor.kind, StateKind::Broadcast);
            let batches = encode().unwrap();
            assert!(batches.iter().all(|batch| batch.schema() == descriptor.schema));
            (descriptor, vec![StateLayer::Rows(batches.into())])
        };
        RestoredState { key_groups: 0..1, states: states.freeze().into_iter().map(encode).collect() }
    }

    #[test]
    fn maps_come_back_and_those_that_nobody_declares_go_along() {
        let mut states = BroadcastStates::default();
        let rules = states.declare::<String, (i64, Option<bool>)>("rules").unwrap();
        let limits = states.declare::<i64, f64>("limits").unwrap();
        rules.put(&mut states, "b".into(), (1, None)).unwrap();
        rules.put(&mut states, "a".into(), (2, Some(true))).unwrap();
        rules.put(&mut states, "c".into(), (3, None)).unwrap();
        assert_eq!(rules.remove(&mut states, &"c".into()).unwrap(), Some((3, None)));
        limits.put(&mut states, 7, 0.5).unwrap();

        let mut later = BroadcastStates::default();
        let rules = later.declare::<String, (i64, Option<bool>)>("rules").unwrap();
        later.restore(&mut stored(&states)).unwrap();
        let entries: Vec<_> = rules.entries(&later).unwrap().map(|(key, value)| (key.as_str(), value.0)).collect();
        assert_eq!(entries, [("a", 2), ("b", 1)]);

        let mut latest = BroadcastStates::default();
        let limits = latest.declare::<i64, f64>("limits").unwrap();
        latest.restore(&mut stored(&later)).unwrap();
        assert_eq!(limits.get(&latest, &7).unwrap(), Some(&0.5));
    }

    proptest! {
        /// And what it is said to occupy is what is in it, also after it was restored.
        #[test]
        fn it_is_a_map(steps in prop::collection::vec((prop::option::of("[ab]{0,2}"), prop::option::of("[ab]{0,40}")), 0..40)) {
            let mut states = BroadcastStates::default();
            let map = states.declare::<Option<String>, String>("map").unwrap();
            let mut model = BTreeMap::new();
            for (key, value) in steps {
                match value {
                    Some(value) => {
                        map.put(&mut states, key.clone(), value.clone()).unwrap();
                        model.insert(key, value);
                    }
                    None => prop_assert_eq!(map.remove(&mut states, &key).unwrap(), model.remove(&key)),
                }
            }
            let mut later = BroadcastStates::default();
            later.declare::<Option<String>, String>("map").unwrap();
            later.restore(&mut stored(&states)).unwrap();
            let bytes: usize = model.iter().map(|(key, value)| bytes_of(key, value)).sum();
            for states in [&states, &later] {
                prop_assert!(map.entries(states).unwrap().eq(model.iter()));
                prop_assert_eq!(map.get(states, &None).unwrap(), model.get(&None));
                prop_assert_eq!(states.memory_bytes(), bytes);
            }
            map.clear(&mut states).unwrap();
            prop_assert_eq!((map.entries(&states).unwrap().count(), states.memory_bytes()), (0, 0));
        }
    }

    #[test]
    fn what_is_on_the_heap_is_counted_and_what_is_carried_along() {
        let mut states = BroadcastStates::default();
        let texts = states.declare::<i64, Vec<String>>("texts").unwrap();
        for key in 0..10 {
            texts.put(&mut states, key, vec!["x".repeat(50_000); 2]).unwrap();
        }
        assert!((1_000_000..1_010_000).contains(&states.memory_bytes()), "{}", states.memory_bytes());
        let mut later = BroadcastStates::default();
        later.restore(&mut stored(&states)).unwrap();
        assert!(later.memory_bytes() >= 1_000_000, "{}", later.memory_bytes());
        texts.put(&mut states, 0, vec![]).unwrap();
        (1..10).for_each(|key| drop(texts.remove(&mut states, &key).unwrap()));
        assert!((1..1_000).contains(&states.memory_bytes()), "{}", states.memory_bytes());
    }

    #[test]
    fn names_and_handles_are_checked() {
        let mut states = BroadcastStates::default();
        states.declare::<i64, i64>("rules").unwrap();
        let twice = states.declare::<i64, i64>("rules").unwrap_err();
        assert!(twice.message().contains("two broadcast states called 'rules'"), "{twice}");
        let undeclared = BroadcastMap::<i64, i64>::default().get(&states, &1).unwrap_err();
        assert!(undeclared.message().contains("was not declared"), "{undeclared}");
    }
}
