//! The three kinds of process functions as one, for the operator.

use tidemill_core::{Error, Result};

use super::context::{BroadcastContext, Context, InitializationContext};
use super::functions::{BroadcastProcessFunction, CoProcessFunction, ProcessFunction};
use super::runtime_context::RuntimeContext;
use crate::stream::rows::Collector;

/// What the operator asks of a process function over records `A` and, of a second stream, `B`.
pub(in crate::stream) trait Logic<K, A, B, R>: Clone + Send + Sync + 'static {
    fn open(&mut self, context: &mut RuntimeContext<'_>) -> Result<()>;

    fn initialize_state(&mut self, context: &mut InitializationContext<'_>) -> Result<()>;

    fn first(&mut self, value: A, context: &mut Context<'_, K>, out: &mut Collector<R>) -> Result<()>;

    fn second(&mut self, _value: B, _context: &mut Context<'_, K>, _out: &mut Collector<R>) -> Result<()> {
        Err(Error::internal("a record of a second stream that there is not"))
    }

    fn broadcast(&mut self, _value: B, _context: &mut BroadcastContext<'_, K>, _out: &mut Collector<R>) -> Result<()> {
        Err(Error::internal("a record of a broadcast stream that there is not"))
    }

    fn on_timer(&mut self, time: i64, context: &mut Context<'_, K>, out: &mut Collector<R>) -> Result<()>;

    fn close(&mut self) -> Result<()>;
}

/// A function of one stream.
#[derive(Clone)]
pub(in crate::stream) struct One<F>(pub F);

impl<K, T, F: ProcessFunction<T, K>> Logic<K, T, (), F::Output> for One<F> {
    fn open(&mut self, context: &mut RuntimeContext<'_>) -> Result<()> {
        self.0.open(context)
    }

    fn initialize_state(&mut self, context: &mut InitializationContext<'_>) -> Result<()> {
        self.0.initialize_state(context)
    }

    fn first(&mut self, value: T, context: &mut Context<'_, K>, out: &mut Collector<F::Output>) -> Result<()> {
        self.0.process(value, context, out)
    }

    fn on_timer(&mut self, time: i64, context: &mut Context<'_, K>, out: &mut Collector<F::Output>) -> Result<()> {
        self.0.on_timer(time, context, out)
    }

    fn close(&mut self) -> Result<()> {
        self.0.close()
    }
}

/// A function of two streams.
#[derive(Clone)]
pub(in crate::stream) struct Two<F>(pub F);

impl<K, A, B, F: CoProcessFunction<A, B, K>> Logic<K, A, B, F::Output> for Two<F> {
    fn open(&mut self, context: &mut RuntimeContext<'_>) -> Result<()> {
        self.0.open(context)
    }

    fn initialize_state(&mut self, context: &mut InitializationContext<'_>) -> Result<()> {
        self.0.initialize_state(context)
    }

    fn first(&mut self, value: A, context: &mut Context<'_, K>, out: &mut Collector<F::Output>) -> Result<()> {
        self.0.process_first(value, context, out)
    }

    fn second(&mut self, value: B, context: &mut Context<'_, K>, out: &mut Collector<F::Output>) -> Result<()> {
        self.0.process_second(value, context, out)
    }

    fn on_timer(&mut self, time: i64, context: &mut Context<'_, K>, out: &mut Collector<F::Output>) -> Result<()> {
        self.0.on_timer(time, context, out)
    }

    fn close(&mut self) -> Result<()> {
        self.0.close()
    }
}

/// A function of a stream beside one that is broadcast.
#[derive(Clone)]
pub(in crate::stream) struct Broadcasting<F>(pub F);

impl<K, T, B, F: BroadcastProcessFunction<T, B, K>> Logic<K, T, B, F::Output> for Broadcasting<F> {
    fn open(&mut self, context: &mut RuntimeContext<'_>) -> Result<()> {
        self.0.open(context)
    }

    fn initialize_state(&mut self, context: &mut InitializationContext<'_>) -> Result<()> {
        self.0.initialize_state(context)
    }

    fn first(&mut self, value: T, context: &mut Context<'_, K>, out: &mut Collector<F::Output>) -> Result<()> {
        self.0.process(value, context, out)
    }

    fn broadcast(
        &mut self,
        value: B,
        context: &mut BroadcastContext<'_, K>,
        out: &mut Collector<F::Output>,
    ) -> Result<()> {
        self.0.process_broadcast(value, context, out)
    }

    fn on_timer(&mut self, time: i64, context: &mut Context<'_, K>, out: &mut Collector<F::Output>) -> Result<()> {
        self.0.on_timer(time, context, out)
    }

    fn close(&mut self) -> Result<()> {
        self.0.close()
    }
}
