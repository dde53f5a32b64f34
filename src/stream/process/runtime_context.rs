//! What a function is given before the first record: who it is, and where it declares its states (FUN-09).

use std::fmt;

use tidemill_core::operator::OperatorContext;
use tidemill_core::state::{
    AggregatingState, Dealing, KeyedStates, ListState, MapState, ReducingState, StateTtl, ValueState,
};
use tidemill_core::{Error, Result};
use tidemill_exec::state::{BroadcastMap, OperatorListState, StateRegistry, StateValue, SubtaskStates};

use crate::stream::window_logic::AggregateFunction;

/// The subtask that a function runs in, and the states that it declares.
///
/// States have names, each of its own within a function; under them they are found again after a failure, in a changed program,
/// or at another parallelism. What a name stands for must then have the same columns.
pub struct RuntimeContext<'a> {
    context: &'a OperatorContext,
    /// `None` where there are no keys.
    states: Option<&'a mut dyn KeyedStates>,
    /// What belongs to no key.
    subtask: &'a mut SubtaskStates,
    /// Whether a stream is broadcast.
    has_broadcast: bool,
    ttl: Option<StateTtl>,
}

impl<'a> RuntimeContext<'a> {
    pub(super) fn new(
        context: &'a OperatorContext,
        states: Option<&'a mut dyn KeyedStates>,
        subtask: &'a mut SubtaskStates,
        has_broadcast: bool,
    ) -> Self {
        Self { context, states, subtask, has_broadcast, ttl: None }
    }

    /// Name of the operator.
    pub fn name(&self) -> &str {
        &self.context.operator
    }

    /// Which subtask this is, from 0.
    pub fn subtask(&self) -> usize {
        self.context.subtask
    }

    /// How many subtasks there are.
    pub fn parallelism(&self) -> usize {
        self.context.parallelism
    }

    /// How many key groups there are, and so how many subtasks there may ever be.
    pub fn max_parallelism(&self) -> u32 {
        self.context.max_parallelism
    }

    /// The same for keyed states that expire (STA-12).
    pub fn with_ttl(&mut self, ttl: StateTtl) -> RuntimeContext<'_> {
        RuntimeContext {
            context: self.context,
            states: match &mut self.states {
                Some(states) => Some(&mut **states),
                None => None,
            },
            subtask: &mut *self.subtask,
            has_broadcast: self.has_broadcast,
            ttl: Some(ttl),
        }
    }

    /// A value for each key.
    pub fn value_state<T: StateValue>(&mut self, name: &str) -> Result<ValueState<T>> {
        self.registry(name, |registry| registry.value_state(name))
    }

    /// A list for each key.
    pub fn list_state<T: StateValue>(&mut self, name: &str) -> Result<ListState<T>> {
        self.registry(name, |registry| registry.list_state(name))
    }

    /// A map for each key. Where one would keep a map as a value: only the entries that are used are touched.
    pub fn map_state<K: StateValue + Ord, V: StateValue>(&mut self, name: &str) -> Result<MapState<K, V>> {
        self.registry(name, |registry| registry.map_state(name))
    }

    /// A value for each key, made of all that were added.
    pub fn reducing_state<T: StateValue>(
        &mut self,
        name: &str,
        reduce: impl Fn(T, T) -> T + Send + Sync + 'static,
    ) -> Result<ReducingState<T>> {
        self.registry(name, |registry| registry.reducing_state(name, reduce))
    }

    /// An accumulator for each key, to which records are added.
    pub fn aggregating_state<T, A: AggregateFunction<T>>(
        &mut self,
        name: &str,
        function: A,
    ) -> Result<AggregatingState<T, A::Accumulator, A::Output>> {
        let function = std::sync::Arc::new(function);
        let (add, result) = (function.clone(), function.clone());
        self.registry(name, |registry| {
            registry.aggregating_state(
                name,
                move || function.create(),
                move |accumulator, value| add.add(accumulator, value),
                move |accumulator| result.result(accumulator),
            )
        })
    }

    /// A map that is the same in every subtask, for functions beside a broadcast stream.
    pub fn broadcast_state<K: StateValue + Ord, V: StateValue>(&mut self, name: &str) -> Result<BroadcastMap<K, V>> {
        let operator = &self.context.operator;
        if !self.has_broadcast {
            let error = format!("broadcast state '{name}' in '{operator}', which no stream is broadcast to");
            return Err(Error::request(error).with_hint("connect the stream with a BroadcastStream and process both"));
        }
        self.subtask.broadcast.declare(name).map_err(|error| error.context(format_args!("state '{name}'")))
    }

    /// A list of this subtask, whatever the keys. When the parallelism changes, the elements of all subtasks are dealt one by one
    /// (STA-08).
    pub fn operator_list<T: StateValue>(&mut self, name: &str) -> Result<OperatorListState<T>> {
        self.list(name, Dealing::Split)
    }

    /// A list of this subtask that comes back with the elements of all subtasks, always. Who takes it over keeps what is its own:
    /// what every subtask stores as a whole multiplies with each restore (STA-09).
    pub fn union_list<T: StateValue>(&mut self, name: &str) -> Result<OperatorListState<T>> {
        self.list(name, Dealing::Union)
    }

    /// A list of byte strings, whose meaning nobody but the function knows; dealt like an
    /// [`operator_list`](Self::operator_list) (STA-11).
    pub fn raw_state(&mut self, name: &str) -> Result<OperatorListState<Vec<u8>>> {
        self.subtask.lists.declare_raw(name).map_err(|error| error.context(format_args!("state '{name}'")))
    }

    fn list<T: StateValue>(&mut self, name: &str, dealing: Dealing) -> Result<OperatorListState<T>> {
        let declared = self.subtask.lists.declare(name, dealing);
        declared.map_err(|error| error.context(format_args!("state '{name}'")))
    }

    fn registry<H>(&mut self, name: &str, declare: impl FnOnce(&mut StateRegistry<'_>) -> Result<H>) -> Result<H> {
        let operator = &self.context.operator;
        let Some(states) = &mut self.states else {
            return Err(Error::request(format!("keyed state '{name}' in '{operator}', whose records have no key"))
                .with_hint("call key_by first"));
        };
        let mut registry = StateRegistry::new(&mut **states);
        declare(&mut registry.with_ttl(self.ttl)).map_err(|error| error.context(format_args!("state '{name}'")))
    }
}

impl fmt::Debug for RuntimeContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RuntimeContext({} {}/{})", self.name(), self.subtask() + 1, self.parallelism())
    }
}
