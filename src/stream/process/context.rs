//! What a function may use while it looks at one record or timer.

use std::cell::OnceCell;
use std::fmt;

use arrow::array::ArrayRef;
use tidemill_core::operator::OperatorContext;
use tidemill_core::state::CurrentKey;
use tidemill_core::{Error, Result, Watermark};
use tidemill_exec::operators::process::{BesideKeys, RowTimers, Scope};
use tidemill_exec::operators::timers::TimerDomain;
use tidemill_exec::state::{BroadcastStates, OperatorLists, SubtaskStates};

use super::side_outputs::SideOutputs;
use crate::stream::output_tag::OutputTag;
use crate::stream::record::Record;

/// Keys of a batch from their columns.
pub(in crate::stream) type DecodeKeys<'a, K> = dyn Fn(&[ArrayRef], usize) -> Result<Vec<K>> + 'a;

/// The keys of a batch, made when the first is asked for.
pub(in crate::stream) struct LazyKeys<'a, K> {
    keys: OnceCell<Vec<K>>,
    columns: &'a [ArrayRef],
    rows: usize,
    decode: &'a DecodeKeys<'a, K>,
}

impl<'a, K> LazyKeys<'a, K> {
    /// The keys in `columns`.
    pub fn new(columns: &'a [ArrayRef], rows: usize, decode: &'a DecodeKeys<'a, K>) -> Self {
        Self { keys: OnceCell::new(), columns, rows, decode }
    }

    /// The columns of all keys.
    pub fn columns(&self) -> &'a [ArrayRef] {
        self.columns
    }

    /// How many keys there are.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The columns of one key.
    pub fn columns_of(&self, row: usize) -> Vec<ArrayRef> {
        self.columns.iter().map(|column| column.slice(row, 1)).collect()
    }

    /// One key.
    pub fn get(&self, row: usize) -> Result<&K> {
        let keys = match self.keys.get() {
            Some(keys) => keys,
            None => {
                let keys = (self.decode)(self.columns, self.rows)?;
                self.keys.get_or_init(|| keys)
            }
        };
        keys.get(row).ok_or_else(|| Error::internal("a record without its key"))
    }
}

/// What a subtask goes on from, before its first record: the states that belong to no key, as they were restored. Nothing can be
/// emitted yet.
pub struct InitializationContext<'a> {
    pub(in crate::stream) context: &'a OperatorContext,
    pub(in crate::stream) is_restored: bool,
    pub(in crate::stream) subtask: &'a mut SubtaskStates,
}

impl InitializationContext<'_> {
    /// Whether the function goes on from a checkpoint or savepoint that holds states of it.
    pub fn is_restored(&self) -> bool {
        self.is_restored
    }

    /// Which subtask this is, from 0.
    pub fn subtask(&self) -> usize {
        self.context.subtask
    }

    /// How many subtasks there are, which may have been others when the lists were stored.
    pub fn parallelism(&self) -> usize {
        self.context.parallelism
    }

    /// The lists of the subtask, for the handles of operator lists.
    pub fn lists(&mut self) -> &mut OperatorLists {
        &mut self.subtask.lists
    }

    /// The broadcast states. Who changes them must do the same in every subtask.
    pub fn broadcast(&mut self) -> &mut BroadcastStates {
        &mut self.subtask.broadcast
    }
}

impl fmt::Debug for InitializationContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InitializationContext({}/{})", self.subtask() + 1, self.parallelism())
    }
}

/// One record or timer: its key, time and states.
pub struct Context<'a, K> {
    pub(super) keys: &'a LazyKeys<'a, K>,
    pub(super) row: usize,
    pub(super) state: CurrentKey<'a>,
    pub(super) timers: RowTimers<'a>,
    pub(super) beside: BesideKeys<'a>,
    pub(super) sides: &'a mut SideOutputs,
    pub(super) time: Option<i64>,
    pub(super) domain: Option<TimerDomain>,
    pub(super) watermark: Watermark,
    /// Whether somebody is called when a timer comes.
    pub(super) has_timers: bool,
}

impl<'a, K> Context<'a, K> {
    /// The key. An error where records have none.
    pub fn key(&self) -> Result<&'a K> {
        self.keys.get(self.row)
    }

    /// The states of the key, for the handles that `open` declared: `self.count.get(context.state())?`.
    pub fn state(&mut self) -> &mut CurrentKey<'a> {
        &mut self.state
    }

    /// The broadcast states, to be read.
    pub fn broadcast(&self) -> &'a BroadcastStates {
        self.beside.broadcast
    }

    /// The lists of the subtask, for the handles of operator lists: `self.waiting.add(context.lists(), order)?`.
    pub fn lists(&mut self) -> &mut OperatorLists {
        self.beside.lists
    }

    /// Event time of the record, or of the timer if it was one over event time.
    pub fn timestamp(&self) -> Option<i64> {
        self.time
    }

    /// Whose time has come, in `on_timer`.
    pub fn timer_domain(&self) -> Option<TimerDomain> {
        self.domain
    }

    /// How far event time has come, in milliseconds: `i64::MIN` before the first watermark, `i64::MAX` at the end.
    pub fn current_watermark(&self) -> i64 {
        self.watermark.0
    }

    /// The time of the machine, in milliseconds since 1970.
    pub fn current_processing_time(&self) -> i64 {
        self.state.now_millis()
    }

    /// Asks for a call of `on_timer` when the watermark has reached `time`. To ask twice for one time is to ask once. A time that
    /// has passed already comes with the next watermark. An error where there is no key.
    ///
    /// At the end of the input all of them come. One that registers the next one for ever should not do so when
    /// [`current_watermark`](Self::current_watermark) is `i64::MAX`.
    pub fn register_event_time_timer(&mut self, time: i64) -> Result<()> {
        self.timers()?.register(TimerDomain::Event, time)
    }

    /// Asks for a call of `on_timer` when the clock has reached `time`. What is left at the end of the input comes then.
    pub fn register_processing_time_timer(&mut self, time: i64) -> Result<()> {
        self.timers()?.register(TimerDomain::Processing, time)
    }

    /// Takes back the timer of exactly this time, if there is one (PRF-10).
    pub fn delete_event_time_timer(&mut self, time: i64) -> Result<()> {
        self.timers()?.delete(TimerDomain::Event, time)
    }

    /// Takes back the timer of exactly this time, if there is one.
    pub fn delete_processing_time_timer(&mut self, time: i64) -> Result<()> {
        self.timers()?.delete(TimerDomain::Processing, time)
    }

    /// The same for a function that has no `on_timer`.
    pub(in crate::stream) fn without_timers(&mut self) -> &mut Self {
        self.has_timers = false;
        self
    }

    fn timers(&mut self) -> Result<&mut RowTimers<'a>> {
        match self.has_timers {
            true => Ok(&mut self.timers),
            false => Err(Error::request("a timer in a rich function, which nobody would call when it comes")
                .with_hint("write a process function")),
        }
    }

    /// Emits to a side output, read with [`side_output`](crate::stream::DataStream::side_output); where nobody reads it, nothing
    /// happens (PRF-11).
    pub fn output<S: Record>(&mut self, tag: &OutputTag<S>, value: S) -> Result<()> {
        self.sides.push(tag, value, self.time)
    }
}

impl<K> fmt::Debug for Context<'_, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Context({:?}, time {:?}, watermark {})", self.state, self.time, self.watermark.0)
    }
}

/// What the engine offers for rows that reach every subtask.
pub(super) trait BroadcastScope {
    fn broadcast(&mut self) -> &mut BroadcastStates;

    fn lists(&mut self) -> &mut OperatorLists;

    fn all_keys(&mut self) -> Result<(Vec<ArrayRef>, usize)>;

    fn at_key(&mut self, place: usize) -> CurrentKey<'_>;

    fn watermark(&self) -> Watermark;

    fn now_millis(&self) -> i64;
}

impl BroadcastScope for Scope<'_> {
    fn broadcast(&mut self) -> &mut BroadcastStates {
        self.broadcast()
    }

    fn lists(&mut self) -> &mut OperatorLists {
        self.lists()
    }

    fn all_keys(&mut self) -> Result<(Vec<ArrayRef>, usize)> {
        self.all_keys()
    }

    fn at_key(&mut self, place: usize) -> CurrentKey<'_> {
        self.at_key(place)
    }

    fn watermark(&self) -> Watermark {
        self.watermark()
    }

    fn now_millis(&self) -> i64 {
        self.now_millis()
    }
}

/// One record that reaches every subtask.
pub struct BroadcastContext<'a, K> {
    pub(super) scope: &'a mut (dyn BroadcastScope + 'a),
    pub(super) decode: &'a DecodeKeys<'a, K>,
    pub(super) sides: &'a mut SideOutputs,
    pub(super) time: Option<i64>,
}

impl<K> BroadcastContext<'_, K> {
    /// The broadcast states, to be read and written.
    pub fn broadcast(&mut self) -> &mut BroadcastStates {
        self.scope.broadcast()
    }

    /// The lists of the subtask.
    pub fn lists(&mut self) -> &mut OperatorLists {
        self.scope.lists()
    }

    /// Calls `function` for every key of this subtask for which something is kept, with its states (PRF-06).
    ///
    /// ```
    /// # use tidemill::Result;
    /// # use tidemill::stream::{BroadcastContext, ValueState};
    /// fn forget(count: ValueState<i64>, context: &mut BroadcastContext<'_, String>) -> Result<()> {
    ///     context.apply_to_keyed_state(|_user, state| count.clear(state))
    /// }
    /// ```
    pub fn apply_to_keyed_state(
        &mut self,
        mut function: impl FnMut(&K, &mut CurrentKey<'_>) -> Result<()>,
    ) -> Result<()> {
        let (columns, count) = self.scope.all_keys()?;
        let keys = (self.decode)(&columns, count)?;
        for (place, key) in keys.iter().take(count).enumerate() {
            function(key, &mut self.scope.at_key(place))?;
        }
        Ok(())
    }

    /// Event time of the record.
    pub fn timestamp(&self) -> Option<i64> {
        self.time
    }

    /// How far event time has come, in milliseconds.
    pub fn current_watermark(&self) -> i64 {
        self.scope.watermark().0
    }

    /// The time of the machine, in milliseconds since 1970.
    pub fn current_processing_time(&self) -> i64 {
        self.scope.now_millis()
    }

    /// Emits to a side output, as [`Context::output`] does. Every subtask does.
    pub fn output<S: Record>(&mut self, tag: &OutputTag<S>, value: S) -> Result<()> {
        self.sides.push(tag, value, self.time)
    }
}

impl<K> fmt::Debug for BroadcastContext<'_, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BroadcastContext(time {:?})", self.time)
    }
}
