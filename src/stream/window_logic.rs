//! What a window computes: what is kept of its records, and what is made of that when it is complete.
//!
//! ```text
//! records ── Keep ──> state of a pane ── Keep::value ──> Finish ──> results
//!            Aggregated, Reduced, Listed                 what users write: window_functions.rs
//! ```

use std::sync::Arc;

use tidemill_core::Result;

use super::process::{InitializationContext, RuntimeContext};
use super::record::Record;
use super::rows::Collector;
use super::window_context::WindowContext;
use super::window_functions::Finish;

/// An aggregate that is kept up to date with every record (FUN-03).
///
/// Laws: `merge` of two accumulators is as if all records had been added to one; the order of records does not matter more than
/// it does to `add`.
///
/// ```
/// use tidemill::stream::AggregateFunction;
///
/// struct Mean;
///
/// impl AggregateFunction<f64> for Mean {
///     type Accumulator = (f64, u64);
///     type Output = f64;
///
///     fn create(&self) -> (f64, u64) {
///         (0.0, 0)
///     }
///
///     fn add(&self, (sum, count): &mut (f64, u64), value: f64) {
///         *sum += value;
///         *count += 1;
///     }
///
///     fn result(&self, (sum, count): &(f64, u64)) -> f64 {
///         sum / *count as f64
///     }
///
///     fn merge(&self, (sum, count): &mut (f64, u64), other: &(f64, u64)) {
///         *sum += other.0;
///         *count += other.1;
///     }
/// }
/// ```
pub trait AggregateFunction<T>: Send + Sync + 'static {
    /// What is remembered. It becomes columns in checkpoints.
    type Accumulator: Record + Clone;

    /// What comes out.
    type Output: Record;

    /// The accumulator of no records.
    fn create(&self) -> Self::Accumulator;

    /// Adds a record.
    fn add(&self, accumulator: &mut Self::Accumulator, value: T);

    /// The result so far. The accumulator goes on after it.
    fn result(&self, accumulator: &Self::Accumulator) -> Self::Output;

    /// Adds all records of another accumulator: of a slice that windows share, or of a session that was bridged.
    fn merge(&self, accumulator: &mut Self::Accumulator, other: &Self::Accumulator);
}

/// What is kept of the records of a key and a window, or a slice of windows.
pub(super) trait Keep<T>: Send + Sync + 'static {
    /// What is kept. It becomes columns in checkpoints.
    type State: Record + Clone;

    /// What it is to whoever gets it when the window is complete.
    type Value<'s>;

    /// Nothing yet.
    fn create(&self) -> Self::State;

    /// Adds a record.
    fn add(&self, state: &mut Self::State, value: T);

    /// Adds another state.
    fn merge(&self, state: &mut Self::State, other: &Self::State);

    /// The value of a state that has records.
    fn value<'s>(&self, state: &'s Self::State) -> Self::Value<'s>;
}

/// An aggregate, whose value is its result.
pub(super) struct Aggregated<A>(pub A);

impl<T, A: AggregateFunction<T>> Keep<T> for Aggregated<A> {
    type State = A::Accumulator;
    type Value<'s> = A::Output;

    fn create(&self) -> Self::State {
        self.0.create()
    }

    fn add(&self, state: &mut Self::State, value: T) {
        self.0.add(state, value);
    }

    fn merge(&self, state: &mut Self::State, other: &Self::State) {
        self.0.merge(state, other);
    }

    fn value(&self, state: &Self::State) -> A::Output {
        self.0.result(state)
    }
}

/// All records reduced to one (FUN-04). What is kept is a list of one record, or none: an option would not do, because options of
/// enums have no columns.
pub(super) struct Reduced<T>(pub Arc<dyn Fn(T, T) -> T + Send + Sync>);

impl<T: Record + Clone> Keep<T> for Reduced<T> {
    type State = Vec<T>;
    type Value<'s> = &'s [T];

    fn create(&self) -> Vec<T> {
        Vec::new()
    }

    fn add(&self, state: &mut Vec<T>, value: T) {
        let reduced = match state.pop() {
            Some(old) => (self.0)(old, value),
            None => value,
        };
        state.push(reduced);
    }

    fn merge(&self, state: &mut Vec<T>, other: &Vec<T>) {
        other.iter().for_each(|value| self.add(state, value.clone()));
    }

    fn value<'s>(&self, state: &'s Vec<T>) -> &'s [T] {
        state
    }
}

/// All records, in the order in which they came (FUN-05, FUN-06).
pub(super) struct Listed;

impl<T: Record + Clone> Keep<T> for Listed {
    type State = Vec<T>;
    type Value<'s> = &'s [T];

    fn create(&self) -> Vec<T> {
        Vec::new()
    }

    fn add(&self, state: &mut Vec<T>, value: T) {
        state.push(value);
    }

    fn merge(&self, state: &mut Vec<T>, other: &Vec<T>) {
        state.extend_from_slice(other);
    }

    fn value<'s>(&self, state: &'s Vec<T>) -> &'s [T] {
        state
    }
}

/// What the operator asks of the function of its windows. Every subtask has a copy.
pub(super) trait WindowLogic<K, T, R>: Clone + Send + Sync + 'static {
    /// Whether it has a runtime context, states and `clear`. Who says no is asked for neither.
    const IS_RICH: bool;

    /// What is kept for a key and a window, or a slice of windows.
    type State: Record + Clone;

    fn open(&mut self, context: &mut RuntimeContext<'_>) -> Result<()>;

    fn initialize_state(&mut self, context: &mut InitializationContext<'_>) -> Result<()>;

    fn create(&self) -> Self::State;

    fn add(&self, state: &mut Self::State, value: T);

    fn merge(&self, state: &mut Self::State, other: &Self::State);

    /// The results of a complete window.
    fn fire(&mut self, state: &Self::State, context: &mut WindowContext<'_, K>, out: &mut Collector<R>) -> Result<()>;

    /// The window is over.
    fn clear(&mut self, context: &mut WindowContext<'_, K>) -> Result<()>;

    fn close(&mut self) -> Result<()>;
}

/// What is kept, and what is made of it when the window is complete.
pub(super) struct KeepThenFinish<P, F> {
    keep: Arc<P>,
    finish: F,
}

impl<P, F> KeepThenFinish<P, F> {
    /// The two together.
    pub fn new(keep: P, finish: F) -> Self {
        Self { keep: Arc::new(keep), finish }
    }
}

impl<P, F: Clone> Clone for KeepThenFinish<P, F> {
    fn clone(&self) -> Self {
        Self { keep: self.keep.clone(), finish: self.finish.clone() }
    }
}

impl<K, T, R, P, F> WindowLogic<K, T, R> for KeepThenFinish<P, F>
where
    P: Keep<T>,
    F: for<'s> Finish<K, P::Value<'s>, R>,
{
    const IS_RICH: bool = <F as Finish<K, P::Value<'static>, R>>::IS_RICH;

    type State = P::State;

    fn open(&mut self, context: &mut RuntimeContext<'_>) -> Result<()> {
        Finish::<K, P::Value<'static>, R>::open(&mut self.finish, context)
    }

    fn initialize_state(&mut self, context: &mut InitializationContext<'_>) -> Result<()> {
        Finish::<K, P::Value<'static>, R>::initialize_state(&mut self.finish, context)
    }

    fn create(&self) -> P::State {
        self.keep.create()
    }

    fn add(&self, state: &mut P::State, value: T) {
        self.keep.add(state, value);
    }

    fn merge(&self, state: &mut P::State, other: &P::State) {
        self.keep.merge(state, other);
    }

    fn fire(&mut self, state: &P::State, context: &mut WindowContext<'_, K>, out: &mut Collector<R>) -> Result<()> {
        self.finish.finish(self.keep.value(state), context, out)
    }

    fn clear(&mut self, context: &mut WindowContext<'_, K>) -> Result<()> {
        Finish::<K, P::Value<'static>, R>::clear(&mut self.finish, context)
    }

    fn close(&mut self) -> Result<()> {
        Finish::<K, P::Value<'static>, R>::close(&mut self.finish)
    }
}
