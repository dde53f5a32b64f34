//! Windows of a number of records of a key (WIN-07, WIN-08, SUB-03).

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::sync::Arc;

use arrow::array::ArrayRef;
use serde::{Deserialize, Serialize};
use tidemill_core::operator::{Operator, OperatorContext, Output, Progress};
use tidemill_core::state::{KeyedStates, RestoredState, Snapshot, SnapshotScope, StateId};
use tidemill_core::window::Window;
use tidemill_core::{Batch, Error, Result, Watermark};

use super::cells::{Cell, Cells};
use super::data_stream::DataStream;
use super::keyed_stream::{HeadOutputs, KeyedStream};
use super::layout::{KeyedCodec, KeyedRows};
use super::operator::Head;
use super::process::LazyKeys;
use super::program::SideOutput;
use super::record::Record;
use super::rows::Collector;
use super::stage::Tail;
use super::window_function::{At, WindowFunction};
use super::window_functions::{Closure, EmitAll, EmitOne, ProcessAll, ProcessOne, ProcessWindowFunction};
use super::window_logic::{AggregateFunction, Aggregated, KeepThenFinish, Listed, Reduced, WindowLogic};
use super::windows::WHOLE;

/// Keyed records in windows of a number of records.
///
/// Every `slide` records of a key, the last `size` of them are a window; its result has the time of the last one. A window that
/// is not full at the end of the input never fires.
///
/// ```
/// use tidemill::stream::Environment;
///
/// let numbers = Environment::collections().generate_sequence(1, 5);
/// let sums = numbers.map(|n| (n,)).key_by(|_| 0_i64).sliding_count_window(3, 2).reduce(|a, b| (a.0 + b.0,));
/// assert_eq!(sums.collect()?, [(1 + 2,), (2 + 3 + 4,)]);
/// # Ok::<(), tidemill_core::Error>(())
/// ```
#[derive(Debug)]
pub struct CountWindowedStream<K, T> {
    keyed: KeyedStream<K, T>,
    size: usize,
    slide: usize,
}

impl<K: Record, T: Record + Clone> CountWindowedStream<K, T> {
    /// The result of an aggregate for each window.
    pub fn aggregate<A: AggregateFunction<T>>(&self, function: A) -> DataStream<A::Output> {
        self.fired("aggregate", KeepThenFinish::new(Aggregated(function), EmitOne))
    }

    /// The result of an aggregate for each window, given to a function that remembers something for the key (FUN-07).
    pub fn aggregate_then_process<A, F>(&self, aggregate: A, function: F) -> DataStream<F::Output>
    where
        A: AggregateFunction<T>,
        F: ProcessWindowFunction<A::Output, K>,
    {
        self.fired("aggregate", KeepThenFinish::new(Aggregated(aggregate), ProcessOne(function)))
    }

    /// The records of each window reduced to one.
    pub fn reduce(&self, function: impl Fn(T, T) -> T + Send + Sync + 'static) -> DataStream<T> {
        self.fired("reduce", KeepThenFinish::new(Reduced(Arc::new(function)), EmitAll))
    }

    /// A function of the records of each window.
    pub fn process<R: Record>(
        &self,
        function: impl Fn(&K, &[T], &mut Collector<R>) + Send + Sync + 'static,
    ) -> DataStream<R> {
        let function =
            Closure::new(move |key: &K, _: Window, values: &[T], out: &mut Collector<R>| function(key, values, out));
        self.fired("process", KeepThenFinish::new(Listed, function))
    }

    /// A function of the records of each window that remembers something for the key (FUN-06).
    ///
    /// A window fires once and is over: [`clear`](ProcessWindowFunction::clear) comes at once. All windows of a key go by the same
    /// bounds, so what is not cleared there is what the next one finds.
    pub fn rich_process<F: ProcessWindowFunction<T, K>>(&self, function: F) -> DataStream<F::Output> {
        self.fired("process", KeepThenFinish::new(Listed, ProcessAll(function)))
    }

    fn fired<R: Record, L: WindowLogic<K, T, R>>(&self, name: &str, logic: L) -> DataStream<R> {
        let (size, slide) = (self.size, self.slide);
        let text = format!("{name} over COUNT(size={size}, slide={slide})");
        let outputs = HeadOutputs { side: None, is_rich: L::IS_RICH };
        self.keyed.head(&format!("window {name}"), self.keyed.timed, outputs, |codec| {
            Arc::new(CountHead { codec, rule: Rule { size, slide }, logic, text, result: PhantomData })
        })
    }
}

impl<K: Record, T: Record> CountWindowedStream<K, T> {
    pub(super) fn new(keyed: KeyedStream<K, T>, size: usize, slide: usize) -> Self {
        if size == 0 || slide == 0 {
            keyed.fail(
                Error::request(format!("a window of {size} records every {slide}")).with_hint("both must be positive"),
            );
        }
        Self { keyed, size: size.max(1), slide: slide.max(1) }
    }
}

impl<T: Record> DataStream<T> {
    /// Windows of `size` records of all, in one subtask (WIN-11).
    pub fn count_window_all(&self, size: usize) -> CountWindowedStream<(), T> {
        self.key_by_nothing().count_window(size)
    }
}

/// The state that holds what is counted of each key.
const COUNTS: &str = "counts";

struct CountHead<K, T, R, L> {
    codec: Arc<KeyedCodec<K, T>>,
    rule: Rule,
    logic: L,
    text: String,
    result: PhantomData<fn() -> R>,
}

impl<K: Record, T: Record + Clone, R: Record, L: WindowLogic<K, T, R>> Head for CountHead<K, T, R, L> {
    fn create(&self, tail: Tail, sides: &[SideOutput]) -> Result<Box<dyn Operator>> {
        Ok(Box::new(CountOperator::<K, T, R, L> {
            codec: self.codec.clone(),
            rule: self.rule,
            states: None,
            function: WindowFunction::new(self.logic.clone(), sides),
            tail,
        }))
    }

    fn describe(&self) -> String {
        self.text.clone()
    }
}

struct CountOperator<K, T, R, L: WindowLogic<K, T, R>> {
    codec: Arc<KeyedCodec<K, T>>,
    rule: Rule,
    /// From `open` on: the keys, and the state that holds their windows.
    states: Option<(Box<dyn KeyedStates>, StateId)>,
    function: WindowFunction<K, T, R, L>,
    tail: Tail,
}

/// What is kept for a key. Windows side by side keep the aggregate; windows that overlap or leave gaps keep the records.
#[derive(Clone, Serialize, Deserialize)]
struct Count<T, S> {
    since_last: u64,
    /// The state of the window that is being filled, if there is one.
    state: Vec<S>,
    kept: VecDeque<T>,
}

impl<T, S> Default for Count<T, S> {
    fn default() -> Self {
        Self { since_last: 0, state: Vec::new(), kept: VecDeque::new() }
    }
}

impl<T: Record + Clone, S: Record + Clone> Cell for Count<T, S> {
    fn is_vacant(&self) -> bool {
        self.since_last == 0 && self.state.is_empty() && self.kept.is_empty()
    }
}

/// Which records are a window.
#[derive(Clone, Copy)]
struct Rule {
    size: usize,
    slide: usize,
}

impl Rule {
    /// Adds a record; the state of the window that it completes, if it does.
    fn add<K, T: Record + Clone, R, L>(&self, logic: &L, count: &mut Count<T, L::State>, value: T) -> Option<L::State>
    where
        L: WindowLogic<K, T, R>,
    {
        count.since_last += 1;
        let fires = count.since_last == self.slide as u64;
        if self.size == self.slide {
            let mut state = count.state.pop().unwrap_or_else(|| logic.create());
            logic.add(&mut state, value);
            count.state.push(state);
        } else {
            count.kept.push_back(value);
            if count.kept.len() > self.size {
                count.kept.pop_front();
            }
        }
        if !fires {
            return None;
        }
        count.since_last = 0;
        if self.size == self.slide {
            return count.state.pop();
        }
        let mut state = logic.create();
        count.kept.iter().for_each(|value| logic.add(&mut state, value.clone()));
        Some(state)
    }
}

impl<K: Record, T: Record + Clone, R: Record, L: WindowLogic<K, T, R>> Operator for CountOperator<K, T, R, L> {
    fn open(&mut self, context: &OperatorContext) -> Result<()> {
        self.tail.open(context);
        let keys = self.codec.key_fields();
        let mut states = context.backend.keyed_states(&keys)?;
        let id = states.register(COUNTS, None, Box::new(Cells::<Count<T, L::State>>::new("count")?))?;
        let (states, _) = self.states.insert((states, id));
        self.function.open(context, &mut **states, &keys, COUNTS, false)
    }

    fn process(&mut self, _input: usize, batch: Batch, output: &mut Output) -> Result<Progress> {
        let KeyedRows { keys, hashes, rows } = self.codec.split(&batch)?;
        let (states, id) = self.states.as_mut().ok_or_else(not_open)?;
        let mut slots = Vec::with_capacity(hashes.len());
        states.lookup(&keys, &hashes, &mut slots)?;
        let decode = |columns: &[ArrayRef], rows| self.codec.decode_keys(columns, rows);
        let keys = LazyKeys::new(&keys, slots.len(), &decode);
        self.function.begin()?;
        for (row, (value, slot)) in rows.values.into_iter().zip(&slots).enumerate() {
            let cells: &mut Cells<Count<T, L::State>> = states.column(*id)?.downcast()?;
            if let Some(state) = self.rule.add(&self.function.logic, cells.cell(*slot), value) {
                let at = At { keys: &keys, row, slot: *slot };
                self.function.fire(&mut **states, at, WHOLE, &state, rows.times.get(row).copied())?;
                self.function.clear(&mut **states, at, [WHOLE])?;
            }
        }
        states.touch(*id, &slots, 0)?;
        self.function.release(&mut **states, slots.len())?;
        self.function.flush(&mut self.tail, output)?;
        self.tail.end_batch(output);
        Ok(Progress::Done)
    }

    fn advance(&mut self, watermark: Watermark, output: &mut Output) -> Result<Progress> {
        self.function.begin()?;
        self.function.watermark = self.function.watermark.max(watermark);
        self.tail.watermark(watermark, output);
        Ok(Progress::Done)
    }

    fn memory_bytes(&self) -> usize {
        self.states.as_ref().map_or(0, |(states, _)| states.memory_bytes()) + self.function.memory_bytes()
    }

    fn give_back(&mut self, bytes: usize) -> Result<()> {
        let given = self.function.give_back(bytes)?;
        self.states.as_mut().map_or(Ok(()), |(states, _)| states.give_back(bytes.saturating_sub(given)))
    }

    fn snapshot(&mut self, scope: SnapshotScope) -> Result<Snapshot> {
        let mut snapshot = self.states.as_mut().ok_or_else(not_open)?.0.snapshot(scope)?;
        self.function.snapshot(scope, &mut snapshot)?;
        Ok(snapshot)
    }

    fn restore(&mut self, mut state: RestoredState) -> Result<()> {
        self.function.restore(&mut state)?;
        self.states.as_mut().ok_or_else(not_open)?.0.restore(&mut state)
    }

    fn close(&mut self) -> Result<()> {
        self.function.close()
    }
}

fn not_open() -> Error {
    Error::internal("a window of counts that was not opened")
}
