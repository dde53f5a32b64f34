//! What a function is given before the first record: who it is, and where it declares its states (FUN-09).

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::Fields;
use tidemill_core::metrics::Counter;
use tidemill_core::operator::OperatorContext;
use tidemill_core::shared::{Accumulator, AccumulatorRef};
use tidemill_core::state::{
    AggregatingState, Dealing, KeyedStates, ListState, MapState, ReducingState, StateScope, StateTtl, ValueState,
};
use tidemill_core::{Error, Result};
use tidemill_exec::state::{BroadcastMap, OperatorListState, StateRegistry, StateValue, SubtaskStates};

use crate::stream::parameters::Parameters;
use crate::stream::record::{Codec, Record};
use crate::stream::window_context::WindowStates;
use crate::stream::window_logic::AggregateFunction;

/// The subtask that a function runs in, the states that it declares, and what it shares with the other subtasks of the job.
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
    windows: StatesOfWindows<'a>,
    /// Whose states are declared.
    scope: StateScope,
    ttl: Option<StateTtl>,
}

/// Where states of windows are declared.
pub(in crate::stream) enum StatesOfWindows<'a> {
    /// Nowhere: there are no windows.
    Elsewhere,
    /// Nowhere: windows merge.
    Merging,
    /// Here.
    There(&'a mut WindowStates),
}

impl StatesOfWindows<'_> {
    fn reborrow(&mut self) -> StatesOfWindows<'_> {
        match self {
            Self::Elsewhere => StatesOfWindows::Elsewhere,
            Self::Merging => StatesOfWindows::Merging,
            Self::There(windows) => StatesOfWindows::There(windows),
        }
    }
}

impl<'a> RuntimeContext<'a> {
    pub(in crate::stream) fn new(
        context: &'a OperatorContext,
        states: Option<&'a mut dyn KeyedStates>,
        subtask: &'a mut SubtaskStates,
        has_broadcast: bool,
    ) -> Self {
        let (windows, scope) = (StatesOfWindows::Elsewhere, StateScope::Key);
        Self { context, states, subtask, has_broadcast, windows, scope, ttl: None }
    }

    /// The same for a function of windows.
    pub(in crate::stream) fn with_windows(self, windows: StatesOfWindows<'a>) -> Self {
        Self { windows, ..self }
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

    /// How many attempts at the job came before this one.
    pub fn attempt(&self) -> u32 {
        self.context.shared.attempt
    }

    /// What the program gave to all functions, with
    /// [`set_global_job_parameters`](crate::stream::Environment::set_global_job_parameters).
    pub fn parameters(&self) -> Parameters {
        Parameters::from(&*self.context.shared.parameters)
    }

    /// A counter among the metrics of this subtask, which whoever watches the job sees.
    pub fn counter(&self, name: &'static str) -> Counter {
        self.context.metrics.counter(name)
    }

    /// The accumulator called `name`, to be added to; what all subtasks added together is in the job's result (SHR-02). An error that
    /// names both kinds if anything in the job calls another kind so.
    ///
    /// Every attempt at the job begins with nothing, also one that goes on from a checkpoint: see SUB-16 in the guarantees.
    pub fn accumulator<A: Accumulator>(&self, name: &str) -> Result<AccumulatorRef<A>> {
        AccumulatorRef::register(&*self.context.shared.accumulators, name)
    }

    /// The records of the broadcast variable `name`, in no order; one copy for all subtasks of the worker (SHR-01). An error if
    /// [`with_broadcast_set`](crate::stream::DataStream::with_broadcast_set) gave the operator no such one, or one of other records.
    pub fn broadcast_variable<T: Record + Sync>(&self, name: &str) -> Result<Arc<Vec<T>>> {
        self.context.shared.variables.get(name)?.form(None, records_of::<T>)
    }

    /// What `initializer` makes of the records of the broadcast variable `name`. It runs once a worker, and all subtasks of this
    /// operator share its result. So it must make the same in each of them, and a function that passes the same code twice, whatever
    /// that captures, gets what the first made.
    pub fn broadcast_variable_with<T: Record, V: Send + Sync + 'static>(
        &self,
        name: &str,
        initializer: impl FnOnce(Vec<T>) -> Result<V> + 'static,
    ) -> Result<Arc<V>> {
        let variable = self.context.shared.variables.get(name)?;
        variable.form(Some(self.context.shared.operator), move |rows| initializer(records_of::<T>(rows)?))
    }

    /// Where the worker's copy of the file or directory lies that was registered as `name` (SHR-06). It is there until the job's
    /// last task has ended, and must not be changed.
    pub fn cached_file(&self, name: &str) -> Result<PathBuf> {
        self.context.shared.files.path(name)
    }

    /// The same for keyed states that expire (STA-12).
    pub fn with_ttl(&mut self, ttl: StateTtl) -> RuntimeContext<'_> {
        RuntimeContext { ttl: Some(ttl), ..self.reborrow() }
    }

    /// The same for states of each window of a key, in a [`ProcessWindowFunction`](crate::stream::ProcessWindowFunction) (STA-14):
    /// `context.per_window().value_state("fired")?`. What is kept in them stays until the function clears it. Sessions have none.
    pub fn per_window(&mut self) -> RuntimeContext<'_> {
        RuntimeContext { scope: StateScope::Window, ..self.reborrow() }
    }

    fn reborrow(&mut self) -> RuntimeContext<'_> {
        RuntimeContext {
            context: self.context,
            states: match &mut self.states {
                Some(states) => Some(&mut **states),
                None => None,
            },
            subtask: &mut *self.subtask,
            has_broadcast: self.has_broadcast,
            windows: self.windows.reborrow(),
            scope: self.scope,
            ttl: self.ttl,
        }
    }

    /// A value for each key.
    pub fn value_state<T: StateValue>(&mut self, name: &str) -> Result<ValueState<T>> {
        self.registry(name, |registry| registry.value_state(name))
    }

    /// A list for each key. That of a key is in memory as a whole, and a checkpoint stores all of it if it has changed.
    pub fn list_state<T: StateValue>(&mut self, name: &str) -> Result<ListState<T>> {
        self.registry(name, |registry| registry.list_state(name))
    }

    /// A map for each key. Entries are found and changed in place, where a map kept as a value would be taken out and put back whole.
    /// The map of a key is in memory as a whole, and a checkpoint stores all of it if one entry has changed.
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
        let declared = self.subtask.claim(name).and_then(|()| self.subtask.broadcast.declare(name));
        declared.map_err(|error| error.context(format_args!("state '{name}'")))
    }

    /// A list of this subtask, whatever the keys. When the parallelism changes, the elements of all subtasks are dealt one by one
    /// (STA-08).
    pub fn operator_list<T: StateValue>(&mut self, name: &str) -> Result<OperatorListState<T>> {
        self.list(name, Dealing::Split)
    }

    /// A list of this subtask that comes back with the elements of all subtasks, always (STA-09). Each subtask has to keep what is its
    /// own, and to drop the rest, in `initialize_state`: a checkpoint may come before the first record, and what every subtask stores
    /// as a whole multiplies with each restore.
    ///
    /// ```
    /// use tidemill::Result;
    /// use tidemill::stream::{Context, InitializationContext, OperatorListState, RichMapFunction, RuntimeContext};
    ///
    /// /// Numbers, each of which belongs to one subtask.
    /// #[derive(Clone, Default)]
    /// struct Numbers {
    ///     own: OperatorListState<i64>,
    /// }
    ///
    /// impl RichMapFunction<i64> for Numbers {
    ///     type Output = i64;
    ///
    ///     fn open(&mut self, context: &mut RuntimeContext<'_>) -> Result<()> {
    ///         self.own = context.union_list("own")?;
    ///         Ok(())
    ///     }
    ///
    ///     fn initialize_state(&mut self, context: &mut InitializationContext<'_>) -> Result<()> {
    ///         let (subtask, parallelism) = (context.subtask() as i64, context.parallelism() as i64);
    ///         let mut numbers = self.own.take(context.lists())?;
    ///         numbers.retain(|number| number.rem_euclid(parallelism) == subtask);
    ///         self.own.set(context.lists(), numbers)
    ///     }
    ///
    ///     fn map(&mut self, number: i64, context: &mut Context<'_, ()>) -> Result<i64> {
    ///         self.own.add(context.lists(), number)?;
    ///         Ok(number)
    ///     }
    /// }
    /// ```
    pub fn union_list<T: StateValue>(&mut self, name: &str) -> Result<OperatorListState<T>> {
        self.list(name, Dealing::Union)
    }

    /// A list of byte strings, whose meaning nobody but the function knows; dealt like an
    /// [`operator_list`](Self::operator_list) (STA-11).
    pub fn raw_state(&mut self, name: &str) -> Result<OperatorListState<Vec<u8>>> {
        let declared = self.subtask.claim(name).and_then(|()| self.subtask.lists.declare_raw(name));
        declared.map_err(|error| error.context(format_args!("state '{name}'")))
    }

    fn list<T: StateValue>(&mut self, name: &str, dealing: Dealing) -> Result<OperatorListState<T>> {
        let declared = self.subtask.claim(name).and_then(|()| self.subtask.lists.declare(name, dealing));
        declared.map_err(|error| error.context(format_args!("state '{name}'")))
    }

    fn registry<H>(&mut self, name: &str, declare: impl FnOnce(&mut StateRegistry<'_>) -> Result<H>) -> Result<H> {
        let named = |error: Error| error.context(format_args!("state '{name}'"));
        let states = match self.scope {
            StateScope::Key => keyed(&mut self.states, name, self.context)?,
            StateScope::Window => windowed(&mut self.windows, name, self.context)?,
        };
        self.subtask.claim(name).map_err(named)?;
        let mut registry = StateRegistry::new(states).in_scope(self.scope);
        declare(&mut registry.with_ttl(self.ttl)).map_err(named)
    }
}

/// Where the states of keys are.
fn keyed<'s>(
    states: &'s mut Option<&mut dyn KeyedStates>,
    name: &str,
    context: &OperatorContext,
) -> Result<&'s mut dyn KeyedStates> {
    match states {
        Some(states) => Ok(&mut **states),
        None => {
            let operator = &context.operator;
            Err(Error::request(format!("keyed state '{name}' in '{operator}', whose records have no key"))
                .with_hint("call key_by first"))
        }
    }
}

/// Where the states of windows are.
fn windowed<'s>(
    windows: &'s mut StatesOfWindows<'_>,
    name: &str,
    context: &OperatorContext,
) -> Result<&'s mut dyn KeyedStates> {
    let operator = &context.operator;
    match windows {
        StatesOfWindows::There(windows) => {
            windows.is_used = true;
            Ok(&mut *windows.states)
        }
        StatesOfWindows::Merging => {
            Err(Error::request(format!("state '{name}' of each window in '{operator}', whose windows are sessions"))
                .with_hint("sessions grow and merge as records come: declare it without per_window, for the key"))
        }
        StatesOfWindows::Elsewhere => Err(Error::request(format!(
            "state '{name}' of each window in '{operator}', which is no function of windows"
        ))
        .with_hint("declare it without per_window, or use rich_process behind a window")),
    }
}

/// The records of these rows, whose columns must be those of `T`.
fn records_of<T: Record>(rows: &[RecordBatch]) -> Result<Vec<T>> {
    let codec = Codec::<T>::new()?;
    let mut records = Vec::with_capacity(rows.iter().map(RecordBatch::num_rows).sum());
    for batch in rows {
        let there = batch.schema_ref().fields();
        let same = there.len() == codec.fields().len()
            && there.iter().zip(codec.fields()).all(|(there, own)| there.data_type() == own.data_type());
        if !same {
            return Err(Error::request(format!(
                "its columns are {}, and those of {} are {}",
                columns(there),
                std::any::type_name::<T>(),
                columns(codec.fields())
            ))
            .with_hint("read it as the type of the stream that was given to with_broadcast_set"));
        }
        records.extend(codec.decode(there, batch.columns(), batch.num_rows())?);
    }
    Ok(records)
}

fn columns(fields: &Fields) -> String {
    let columns: Vec<String> = fields.iter().map(|field| format!("{} {}", field.name(), field.data_type())).collect();
    format!("({})", columns.join(", "))
}

impl fmt::Debug for RuntimeContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RuntimeContext({} {}/{})", self.name(), self.subtask() + 1, self.parallelism())
    }
}
