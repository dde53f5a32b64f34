//! Values that are added up as they come, by a function of the user (STA-06).

use std::fmt;
use std::sync::Arc;

use crate::error::Result;
use crate::state::{CurrentKey, ValueState};

/// A handle to one value for each key, made of all that were added.
pub struct ReducingState<T: 'static> {
    value: ValueState<T>,
    reduce: Arc<dyn Fn(T, T) -> T + Send + Sync>,
}

impl<T: 'static> ReducingState<T> {
    /// Keeps in `value` what `reduce` makes of the value so far and the one that is added.
    pub fn new(value: ValueState<T>, reduce: impl Fn(T, T) -> T + Send + Sync + 'static) -> Self {
        Self { value, reduce: Arc::new(reduce) }
    }

    /// The value of the key, `None` before the first.
    pub fn get<'k>(&self, key: &'k mut CurrentKey<'_>) -> Result<Option<&'k T>> {
        self.value.get(key)
    }

    /// Adds a value.
    pub fn add(&self, key: &mut CurrentKey<'_>, value: T) -> Result<()> {
        self.value.update(key, |sum| match sum {
            None => value,
            Some(sum) => (self.reduce)(sum, value),
        })
    }

    /// Forgets what was added.
    pub fn clear(&self, key: &mut CurrentKey<'_>) -> Result<()> {
        self.value.clear(key)
    }
}

impl<T: 'static> Default for ReducingState<T> {
    /// The handle of no state, to be replaced by one that was declared.
    fn default() -> Self {
        Self::new(ValueState::default(), |first, _| first)
    }
}

impl<T: 'static> Clone for ReducingState<T> {
    fn clone(&self) -> Self {
        Self { value: self.value, reduce: self.reduce.clone() }
    }
}

impl<T: 'static> fmt::Debug for ReducingState<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReducingState({:?})", self.value)
    }
}

/// A handle to one accumulator for each key: takes values of one type in, gives results of another.
pub struct AggregatingState<I, A: 'static, O> {
    accumulator: ValueState<A>,
    /// `None` where no state was declared.
    functions: Option<Arc<Functions<I, A, O>>>,
}

/// The functions of an aggregate.
struct Functions<I, A, O> {
    create: Box<dyn Fn() -> A + Send + Sync>,
    add: Add<I, A>,
    result: Box<dyn Fn(&A) -> O + Send + Sync>,
}

type Add<I, A> = Box<dyn Fn(&mut A, I) + Send + Sync>;

impl<I, A: 'static, O> AggregatingState<I, A, O> {
    /// Keeps in `accumulator` what `create` began and `add` went on with; `result` says what it stands for.
    pub fn new(
        accumulator: ValueState<A>,
        create: impl Fn() -> A + Send + Sync + 'static,
        add: impl Fn(&mut A, I) + Send + Sync + 'static,
        result: impl Fn(&A) -> O + Send + Sync + 'static,
    ) -> Self {
        let functions = Functions { create: Box::new(create), add: Box::new(add), result: Box::new(result) };
        Self { accumulator, functions: Some(Arc::new(functions)) }
    }

    /// The result for the key, `None` before the first value.
    pub fn get(&self, key: &mut CurrentKey<'_>) -> Result<Option<O>> {
        let accumulator = self.accumulator.get(key)?;
        Ok(self.functions.as_ref().zip(accumulator).map(|(functions, accumulator)| (functions.result)(accumulator)))
    }

    /// Adds a value.
    pub fn add(&self, key: &mut CurrentKey<'_>, value: I) -> Result<()> {
        // Without functions there is no state, and this is the error that says so.
        let Some(functions) = &self.functions else { return self.clear(key) };
        self.accumulator.update(key, |accumulator| {
            let mut accumulator = accumulator.unwrap_or_else(|| (functions.create)());
            (functions.add)(&mut accumulator, value);
            accumulator
        })
    }

    /// Forgets what was added.
    pub fn clear(&self, key: &mut CurrentKey<'_>) -> Result<()> {
        self.accumulator.clear(key)
    }
}

impl<I, A: 'static, O> Default for AggregatingState<I, A, O> {
    /// The handle of no state, to be replaced by one that was declared.
    fn default() -> Self {
        Self { accumulator: ValueState::default(), functions: None }
    }
}

impl<I, A: 'static, O> Clone for AggregatingState<I, A, O> {
    fn clone(&self) -> Self {
        Self { accumulator: self.accumulator, functions: self.functions.clone() }
    }
}

impl<I, A: 'static, O> fmt::Debug for AggregatingState<I, A, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AggregatingState({:?})", self.accumulator)
    }
}
