//! Rich functions on streams: each is a process function that is asked less (FUN-02).

use tidemill_core::Result;
use tidemill_core::state::ValueState;

use super::data_stream::DataStream;
use super::keyed_stream::KeyedStream;
use super::process::{Context, InitializationContext, Logic, RuntimeContext};
use super::record::Record;
use super::rich_functions::{RichFilterFunction, RichFlatMapFunction, RichMapFunction, RichReduceFunction};
use super::rows::Collector;

impl<T: Record> DataStream<T> {
    /// One record for each record, by a function that is opened and closed (FUN-02).
    pub fn rich_map<F: RichMapFunction<T>>(&self, function: F) -> DataStream<F::Output> {
        self.with_logic("map", Map(function))
    }

    /// Any number of records for each record, by a function that is opened and closed.
    pub fn rich_flat_map<F: RichFlatMapFunction<T>>(&self, function: F) -> DataStream<F::Output> {
        self.with_logic("flat_map", FlatMap(function))
    }

    /// The records that pass a function that is opened and closed.
    pub fn rich_filter<F: RichFilterFunction<T>>(&self, function: F) -> DataStream<T> {
        self.with_logic("filter", Filter(function))
    }
}

impl<K: Record, T: Record> KeyedStream<K, T> {
    /// One record for each record, by a function that remembers something for its key (FUN-02, FUN-09).
    pub fn rich_map<F: RichMapFunction<T, K>>(&self, function: F) -> DataStream<F::Output> {
        self.with_logic("map", Map(function))
    }

    /// Any number of records for each record, by a function that remembers something for its key.
    pub fn rich_flat_map<F: RichFlatMapFunction<T, K>>(&self, function: F) -> DataStream<F::Output> {
        self.with_logic("flat_map", FlatMap(function))
    }

    /// The records that pass a function that remembers something for their key.
    pub fn rich_filter<F: RichFilterFunction<T, K>>(&self, function: F) -> DataStream<T> {
        self.with_logic("filter", Filter(function))
    }

    /// Emits, for each record, everything with its key so far reduced to one by a function that is opened and closed (SOP-03).
    pub fn rich_reduce<F: RichReduceFunction<T, K>>(&self, function: F) -> DataStream<T>
    where
        T: Clone,
    {
        self.with_logic("reduce", Reduce { function, reduced: ValueState::default() })
    }
}

/// What all of these have in common: no timers.
macro_rules! no_timers {
    ($result:ty) => {
        fn on_timer(&mut self, _time: i64, _: &mut Context<'_, K>, _: &mut Collector<$result>) -> Result<()> {
            Ok(())
        }
    };
}

#[derive(Clone)]
struct Map<F>(F);

impl<K, T, F: RichMapFunction<T, K>> Logic<K, T, (), F::Output> for Map<F> {
    fn open(&mut self, context: &mut RuntimeContext<'_>) -> Result<()> {
        self.0.open(context)
    }

    fn initialize_state(&mut self, context: &mut InitializationContext<'_>) -> Result<()> {
        self.0.initialize_state(context)
    }

    fn first(&mut self, value: T, context: &mut Context<'_, K>, out: &mut Collector<F::Output>) -> Result<()> {
        out.collect(self.0.map(value, context.without_timers())?);
        Ok(())
    }

    no_timers!(F::Output);

    fn close(&mut self) -> Result<()> {
        self.0.close()
    }
}

#[derive(Clone)]
struct FlatMap<F>(F);

impl<K, T, F: RichFlatMapFunction<T, K>> Logic<K, T, (), F::Output> for FlatMap<F> {
    fn open(&mut self, context: &mut RuntimeContext<'_>) -> Result<()> {
        self.0.open(context)
    }

    fn initialize_state(&mut self, context: &mut InitializationContext<'_>) -> Result<()> {
        self.0.initialize_state(context)
    }

    fn first(&mut self, value: T, context: &mut Context<'_, K>, out: &mut Collector<F::Output>) -> Result<()> {
        self.0.flat_map(value, context.without_timers(), out)
    }

    no_timers!(F::Output);

    fn close(&mut self) -> Result<()> {
        self.0.close()
    }
}

#[derive(Clone)]
struct Filter<F>(F);

impl<K, T, F: RichFilterFunction<T, K>> Logic<K, T, (), T> for Filter<F> {
    fn open(&mut self, context: &mut RuntimeContext<'_>) -> Result<()> {
        self.0.open(context)
    }

    fn initialize_state(&mut self, context: &mut InitializationContext<'_>) -> Result<()> {
        self.0.initialize_state(context)
    }

    fn first(&mut self, value: T, context: &mut Context<'_, K>, out: &mut Collector<T>) -> Result<()> {
        if self.0.filter(&value, context.without_timers())? {
            out.collect(value);
        }
        Ok(())
    }

    no_timers!(T);

    fn close(&mut self) -> Result<()> {
        self.0.close()
    }
}

/// The state of a reduction. States that the function declares have names of their own.
const REDUCED: &str = "$reduced";

#[derive(Clone)]
struct Reduce<F, T: 'static> {
    function: F,
    reduced: ValueState<T>,
}

impl<K, T: Record + Clone, F: RichReduceFunction<T, K>> Logic<K, T, (), T> for Reduce<F, T> {
    fn open(&mut self, context: &mut RuntimeContext<'_>) -> Result<()> {
        self.reduced = context.value_state(REDUCED)?;
        self.function.open(context)
    }

    fn initialize_state(&mut self, context: &mut InitializationContext<'_>) -> Result<()> {
        self.function.initialize_state(context)
    }

    fn first(&mut self, value: T, context: &mut Context<'_, K>, out: &mut Collector<T>) -> Result<()> {
        let reduced = match self.reduced.take(context.state())? {
            Some(reduced) => self.function.reduce(reduced, value, context.without_timers())?,
            None => value,
        };
        self.reduced.set(context.state(), reduced.clone())?;
        out.collect(reduced);
        Ok(())
    }

    no_timers!(T);

    fn close(&mut self) -> Result<()> {
        self.function.close()
    }
}
