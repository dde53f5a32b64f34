//! Windows of a number of records of a key (WIN-07, WIN-08, SUB-03).

use std::collections::VecDeque;
use std::convert::Infallible;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tidemill_core::operator::{Operator, OperatorContext, Output, Progress};
use tidemill_core::state::{KeyedStates, RestoredState, Snapshot, SnapshotScope, StateId};
use tidemill_core::window::Window;
use tidemill_core::{Batch, Error, Result, Watermark};

use super::cells::{Cell, Cells};
use super::data_stream::DataStream;
use super::keyed_stream::KeyedStream;
use super::layout::{KeyedCodec, KeyedRows};
use super::operator::Head;
use super::program::SideOutput;
use super::record::Record;
use super::rows::{Collector, Rows};
use super::stage::Tail;
use super::window_logic::{AggregateFunction, Aggregating, Keeping, Reducing, WindowLogic};
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
        let finish = |_: Option<&K>, _: Window, result: A::Output, out: &mut Collector<A::Output>| out.collect(result);
        self.fired("aggregate", Aggregating { function, finish, needs_key: false })
    }

    /// The records of each window reduced to one.
    pub fn reduce(&self, function: impl Fn(T, T) -> T + Send + Sync + 'static) -> DataStream<T> {
        self.fired("reduce", Reducing(Arc::new(function)))
    }

    /// A function of the records of each window.
    pub fn process<R: Record>(
        &self,
        function: impl Fn(&K, &[T], &mut Collector<R>) + Send + Sync + 'static,
    ) -> DataStream<R> {
        let function = move |key: &K, _: Window, values: &[T], out: &mut Collector<R>| {
            function(key, values, out);
            Ok::<(), Infallible>(())
        };
        self.fired("process", Keeping { function, error: PhantomData })
    }

    fn fired<R: Record, L: WindowLogic<K, T, R>>(&self, name: &str, logic: L) -> DataStream<R> {
        let (size, slide) = (self.size, self.slide);
        let text = format!("{name} over COUNT(size={size}, slide={slide})");
        self.keyed.head(&format!("window {name}"), self.keyed.timed, None, |codec| {
            Arc::new(CountHead { codec, size, slide, logic: Arc::new(logic), text, result: PhantomData })
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

struct CountHead<K, T, R, L> {
    codec: Arc<KeyedCodec<K, T>>,
    size: usize,
    slide: usize,
    logic: Arc<L>,
    text: String,
    result: PhantomData<fn() -> R>,
}

impl<K: Record, T: Record + Clone, R: Record, L: WindowLogic<K, T, R>> Head for CountHead<K, T, R, L> {
    fn create(&self, tail: Tail, _sides: &[SideOutput]) -> Result<Box<dyn Operator>> {
        let rule = Rule { logic: self.logic.clone(), size: self.size, slide: self.slide };
        Ok(Box::new(CountOperator::<K, T, R, L> {
            codec: self.codec.clone(),
            rule,
            states: None,
            tail,
            result: PhantomData,
        }))
    }

    fn describe(&self) -> String {
        self.text.clone()
    }
}

struct CountOperator<K, T, R, L: WindowLogic<K, T, R>> {
    codec: Arc<KeyedCodec<K, T>>,
    rule: Rule<L>,
    /// From `open` on: the keys, and the one state that they have.
    states: Option<(Box<dyn KeyedStates>, StateId)>,
    tail: Tail,
    result: PhantomData<fn() -> R>,
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

/// Which records are a window, and what it computes.
struct Rule<L> {
    logic: Arc<L>,
    size: usize,
    slide: usize,
}

impl<L> Rule<L> {
    /// Adds a record; the state of the window that it completes, if it does.
    fn add<K, T: Record + Clone, R>(&self, count: &mut Count<T, L::State>, value: T) -> Option<L::State>
    where
        L: WindowLogic<K, T, R>,
    {
        count.since_last += 1;
        let fires = count.since_last == self.slide as u64;
        if self.size == self.slide {
            let mut state = count.state.pop().unwrap_or_else(|| self.logic.create());
            self.logic.add(&mut state, value);
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
        let mut state = self.logic.create();
        count.kept.iter().for_each(|value| self.logic.add(&mut state, value.clone()));
        Some(state)
    }
}

impl<K: Record, T: Record + Clone, R: Record, L: WindowLogic<K, T, R>> Operator for CountOperator<K, T, R, L> {
    fn open(&mut self, context: &OperatorContext) -> Result<()> {
        self.tail.open(context);
        let mut states = context.backend.keyed_states(&self.codec.key_fields())?;
        let id = states.register("counts", None, Box::new(Cells::<Count<T, L::State>>::new("count")?))?;
        self.states = Some((states, id));
        Ok(())
    }

    fn process(&mut self, _input: usize, batch: Batch, output: &mut Output) -> Result<Progress> {
        let KeyedRows { keys, hashes, rows } = self.codec.split(&batch)?;
        let (states, id) = self.states.as_mut().ok_or_else(not_open)?;
        let mut slots = Vec::with_capacity(hashes.len());
        states.lookup(&keys, &hashes, &mut slots)?;
        let keys = match self.rule.logic.needs_key() {
            true => self.codec.decode_keys(&keys, slots.len())?,
            false => Vec::new(),
        };
        let cells: &mut Cells<Count<T, L::State>> = states.column(*id)?.downcast()?;
        let (mut results, mut times) = (Collector::new(), Vec::new());
        for (row, (value, slot)) in rows.values.into_iter().zip(&slots).enumerate() {
            if let Some(state) = self.rule.add(cells.cell(*slot), value) {
                self.rule.logic.fire(keys.get(row), WHOLE, &state, &mut results)?;
                if let Some(time) = rows.times.get(row) {
                    times.resize(results.values.len(), *time);
                }
            }
        }
        states.touch(*id, &slots, 0)?;
        states.release()?;
        self.tail.emit(Rows { values: results.values, times }.erase(), output)?;
        self.tail.end_batch(output);
        Ok(Progress::Done)
    }

    fn advance(&mut self, watermark: Watermark, output: &mut Output) -> Result<Progress> {
        self.tail.watermark(watermark, output);
        Ok(Progress::Done)
    }

    fn memory_bytes(&self) -> usize {
        self.states.as_ref().map_or(0, |(states, _)| states.memory_bytes())
    }

    fn give_back(&mut self, bytes: usize) -> Result<()> {
        self.states.as_mut().map_or(Ok(()), |(states, _)| states.give_back(bytes))
    }

    fn snapshot(&mut self, scope: SnapshotScope) -> Result<Snapshot> {
        self.states.as_mut().ok_or_else(not_open)?.0.snapshot(scope)
    }

    fn restore(&mut self, mut state: RestoredState) -> Result<()> {
        self.states.as_mut().ok_or_else(not_open)?.0.restore(&mut state)
    }
}

fn not_open() -> Error {
    Error::internal("a window of counts that was not opened")
}
