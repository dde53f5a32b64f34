//! What a window computes: the functions that users write, and what the operator makes of them.

use std::marker::PhantomData;
use std::sync::Arc;

use tidemill_core::Result;
use tidemill_core::window::Window;

use super::record::Record;
use super::rows::Collector;

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

/// What the operator asks of the function of its windows.
pub(super) trait WindowLogic<K, T, R>: Send + Sync + 'static {
    /// What is kept for a key and a window, or a slice of windows. It becomes columns in checkpoints.
    type State: Record + Clone;

    /// Nothing yet.
    fn create(&self) -> Self::State;

    /// Adds a record.
    fn add(&self, state: &mut Self::State, value: T);

    /// Adds another state.
    fn merge(&self, state: &mut Self::State, other: &Self::State);

    /// The results of a complete window. The key is there if the logic asks for it.
    fn fire(&self, key: Option<&K>, window: Window, state: &Self::State, out: &mut Collector<R>) -> Result<()>;

    /// Whether `fire` reads the key.
    fn needs_key(&self) -> bool {
        false
    }
}

/// An aggregate, whose result leaves as it is or goes through `finish` with key and window (FUN-07).
pub(super) struct Aggregating<A, F> {
    pub function: A,
    pub finish: F,
    pub needs_key: bool,
}

impl<K, T, R, A, F> WindowLogic<K, T, R> for Aggregating<A, F>
where
    A: AggregateFunction<T>,
    F: Fn(Option<&K>, Window, A::Output, &mut Collector<R>) + Send + Sync + 'static,
{
    type State = A::Accumulator;

    fn create(&self) -> Self::State {
        self.function.create()
    }

    fn add(&self, state: &mut Self::State, value: T) {
        self.function.add(state, value);
    }

    fn merge(&self, state: &mut Self::State, other: &Self::State) {
        self.function.merge(state, other);
    }

    fn fire(&self, key: Option<&K>, window: Window, state: &Self::State, out: &mut Collector<R>) -> Result<()> {
        (self.finish)(key, window, self.function.result(state), out);
        Ok(())
    }

    fn needs_key(&self) -> bool {
        self.needs_key
    }
}

/// All records reduced to one (FUN-04). What is kept is a list of one record, or none: an option would not do, because options of
/// enums have no columns.
pub(super) struct Reducing<T>(pub Arc<dyn Fn(T, T) -> T + Send + Sync>);

impl<K, T: Record + Clone> WindowLogic<K, T, T> for Reducing<T> {
    type State = Vec<T>;

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
        other.iter().for_each(|value| WindowLogic::<K, T, T>::add(self, state, value.clone()));
    }

    fn fire(&self, _key: Option<&K>, _window: Window, state: &Vec<T>, out: &mut Collector<T>) -> Result<()> {
        out.extend(state.iter().cloned());
        Ok(())
    }
}

/// All records kept until the window is complete (FUN-05, FUN-06).
pub(super) struct Keeping<F, E> {
    pub function: F,
    pub error: PhantomData<fn() -> E>,
}

impl<K, T, R, F, E> WindowLogic<K, T, R> for Keeping<F, E>
where
    T: Record + Clone,
    F: Fn(&K, Window, &[T], &mut Collector<R>) -> Result<(), E> + Send + Sync + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
    R: Record,
{
    type State = Vec<T>;

    fn create(&self) -> Vec<T> {
        Vec::new()
    }

    fn add(&self, state: &mut Vec<T>, value: T) {
        state.push(value);
    }

    fn merge(&self, state: &mut Vec<T>, other: &Vec<T>) {
        state.extend_from_slice(other);
    }

    fn fire(&self, key: Option<&K>, window: Window, state: &Vec<T>, out: &mut Collector<R>) -> Result<()> {
        let key = key.ok_or_else(|| tidemill_core::Error::internal("a window without its key"))?;
        (self.function)(key, window, state, out).map_err(super::stage::user_error)
    }

    fn needs_key(&self) -> bool {
        true
    }
}
