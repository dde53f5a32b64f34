//! The functions that users write.

use tidemill_core::Result;

use crate::stream::process::{BroadcastContext, Context, InitializationContext, RuntimeContext};
use crate::stream::record::Record;
use crate::stream::rows::Collector;

/// A function of records that remembers something for each key and can ask to be called again later.
///
/// For [`KeyedStream::process`](crate::stream::KeyedStream::process), where `K` is the type of the key, and for
/// [`DataStream::process`](crate::stream::DataStream::process), where there are no keys and so neither states nor timers.
///
/// Every subtask has a copy of the function. What is to survive a failure is kept in states, declared in `open`; the function's own
/// fields are lost with the subtask.
///
/// An alert for every engine whose temperature has risen for ten seconds without a fall. A timer says that the time is over; the
/// fall before that deletes it. (A fall behind it may be seen before the timer fires: time advances behind a batch of records.)
///
/// ```
/// use tidemill::Result;
/// use tidemill::stream::{Collector, Context, Environment, ProcessFunction, RuntimeContext, ValueState, Watermarks};
///
/// type Reading = (String, i64, f64);
///
/// #[derive(Clone, Default)]
/// struct Rising {
///     last: ValueState<f64>,
///     timer: ValueState<i64>,
/// }
///
/// impl ProcessFunction<Reading, String> for Rising {
///     type Output = String;
///
///     fn open(&mut self, context: &mut RuntimeContext<'_>) -> Result<()> {
///         self.last = context.value_state("last")?;
///         self.timer = context.value_state("timer")?;
///         Ok(())
///     }
///
///     fn process(
///         &mut self,
///         (_, time, temperature): Reading,
///         context: &mut Context<'_, String>,
///         _out: &mut Collector<String>,
///     ) -> Result<()> {
///         let last = self.last.get(context.state())?.copied();
///         self.last.set(context.state(), temperature)?;
///         let timer = self.timer.get(context.state())?.copied();
///         match timer {
///             Some(timer) if time < timer && last.is_some_and(|last| temperature < last) => {
///                 context.delete_event_time_timer(timer)?;
///                 self.timer.clear(context.state())
///             }
///             None if last.is_some_and(|last| temperature > last) => {
///                 context.register_event_time_timer(time + 10_000)?;
///                 self.timer.set(context.state(), time + 10_000)
///             }
///             _ => Ok(()),
///         }
///     }
///
///     fn on_timer(&mut self, time: i64, context: &mut Context<'_, String>, out: &mut Collector<String>) -> Result<()> {
///         out.collect(format!("{} has become hotter until {time}", context.key()?));
///         self.timer.clear(context.state())
///     }
/// }
///
/// let reading = |engine: &str, second: i64, temperature| (engine.to_owned(), second * 1_000, temperature);
/// let alerts = Environment::collections()
///     .from_elements([
///         reading("left", 0, 70.0),
///         reading("right", 0, 70.0),
///         reading("left", 1, 71.0),
///         reading("right", 1, 71.0),
///         reading("right", 5, 69.0),
///         reading("left", 8, 75.0),
///         reading("left", 20, 74.0),
///     ])
///     .assign_timestamps_and_watermarks(Watermarks::ascending(), |reading| reading.1)
///     .key_by(|reading| reading.0.clone())
///     .process(Rising::default());
/// assert_eq!(alerts.collect()?, ["left has become hotter until 11000"]);
/// # Ok::<(), tidemill::Error>(())
/// ```
pub trait ProcessFunction<T, K = ()>: Clone + Send + Sync + 'static {
    /// What it emits.
    type Output: Record;

    /// Called once in every subtask, before the first record: declares states.
    fn open(&mut self, _context: &mut RuntimeContext<'_>) -> Result<()> {
        Ok(())
    }

    /// Called once in every subtask, behind `open` and before the first record and the first checkpoint: looks at the lists
    /// and broadcast states that `open` declared, as they were restored, and may change them. Of a union list it keeps what
    /// is its own ([`RuntimeContext::union_list`], SUB-10).
    fn initialize_state(&mut self, _context: &mut InitializationContext<'_>) -> Result<()> {
        Ok(())
    }

    /// One record. What it emits has the event time of the record.
    fn process(&mut self, value: T, context: &mut Context<'_, K>, out: &mut Collector<Self::Output>) -> Result<()>;

    /// A timer of `context.key()` has come. What it emits has the timer's time as its event time, and none if the timer was one
    /// over processing time.
    fn on_timer(
        &mut self,
        _time: i64,
        _context: &mut Context<'_, K>,
        _out: &mut Collector<Self::Output>,
    ) -> Result<()> {
        Ok(())
    }

    /// Gives back what `open` took. Called after the last record, and also when the job failed or was cancelled; it may find
    /// that `open` failed half way (FUN-02).
    fn close(&mut self) -> Result<()> {
        Ok(())
    }
}

/// A function of the records of two streams that shares states between them (PRF-03).
///
/// Which of two records comes first is not known, unless they are of one stream and key. The watermark is the lesser of both.
///
/// ```
/// use tidemill::Result;
/// use tidemill::stream::{CoProcessFunction, Collector, Context, Environment, RuntimeContext, ValueState};
///
/// /// Orders of customers whose names are known, whichever came first.
/// #[derive(Clone, Default)]
/// struct Named {
///     name: ValueState<String>,
///     waiting: ValueState<Vec<i64>>,
/// }
///
/// impl CoProcessFunction<(i64, i64), (i64, String), i64> for Named {
///     type Output = (String, i64);
///
///     fn open(&mut self, context: &mut RuntimeContext<'_>) -> Result<()> {
///         self.name = context.value_state("name")?;
///         self.waiting = context.value_state("waiting")?;
///         Ok(())
///     }
///
///     fn process_first(
///         &mut self,
///         (_, order): (i64, i64),
///         context: &mut Context<'_, i64>,
///         out: &mut Collector<(String, i64)>,
///     ) -> Result<()> {
///         match self.name.get(context.state())? {
///             Some(name) => out.collect((name.clone(), order)),
///             None => self.waiting.update(context.state(), |waiting| [waiting.unwrap_or_default(), vec![order]].concat())?,
///         }
///         Ok(())
///     }
///
///     fn process_second(
///         &mut self,
///         (_, name): (i64, String),
///         context: &mut Context<'_, i64>,
///         out: &mut Collector<(String, i64)>,
///     ) -> Result<()> {
///         let waiting = self.waiting.take(context.state())?.unwrap_or_default();
///         out.extend(waiting.into_iter().map(|order| (name.clone(), order)));
///         self.name.set(context.state(), name)
///     }
/// }
///
/// let environment = Environment::collections();
/// let orders = environment.from_elements([(7_i64, 100_i64), (8, 200)]);
/// let names = environment.from_elements([(7_i64, "ann".to_owned())]);
/// let named = orders.key_by(|order| order.0).connect(&names.key_by(|name| name.0)).process(Named::default());
/// assert_eq!(named.collect()?, [("ann".to_owned(), 100)]);
/// # Ok::<(), tidemill::Error>(())
/// ```
pub trait CoProcessFunction<A, B, K = ()>: Clone + Send + Sync + 'static {
    /// What it emits.
    type Output: Record;

    /// Called once in every subtask, before the first record: declares states.
    fn open(&mut self, _context: &mut RuntimeContext<'_>) -> Result<()> {
        Ok(())
    }

    /// Looks at what was restored of the states that belong to no key, as [`ProcessFunction::initialize_state`] does.
    fn initialize_state(&mut self, _context: &mut InitializationContext<'_>) -> Result<()> {
        Ok(())
    }

    /// A record of the first stream.
    fn process_first(
        &mut self,
        value: A,
        context: &mut Context<'_, K>,
        out: &mut Collector<Self::Output>,
    ) -> Result<()>;

    /// A record of the second stream.
    fn process_second(
        &mut self,
        value: B,
        context: &mut Context<'_, K>,
        out: &mut Collector<Self::Output>,
    ) -> Result<()>;

    /// A timer of `context.key()` has come.
    fn on_timer(
        &mut self,
        _time: i64,
        _context: &mut Context<'_, K>,
        _out: &mut Collector<Self::Output>,
    ) -> Result<()> {
        Ok(())
    }

    /// Gives back what `open` took, as [`ProcessFunction::close`] does.
    fn close(&mut self) -> Result<()> {
        Ok(())
    }
}

/// A function of the records of a stream beside those of another that reach every subtask (PRF-05, PRF-06).
///
/// The broadcast states that the second stream writes are the same in every subtask. For that `process_broadcast` must do the same
/// in all of them, whatever the order in which its records come; it has no timers, and no key, but can go through the states of
/// all keys.
///
/// ```
/// use tidemill::Result;
/// use tidemill::stream::{
///     BroadcastContext, BroadcastMap, BroadcastProcessFunction, Collector, Context, Environment, RuntimeContext,
/// };
///
/// /// Amounts above the limit of their currency. Without a rule there is no limit.
/// #[derive(Clone, Default)]
/// struct AboveLimit {
///     limits: BroadcastMap<String, i64>,
/// }
///
/// impl BroadcastProcessFunction<(String, i64), (String, i64), String> for AboveLimit {
///     type Output = (String, i64);
///
///     fn open(&mut self, context: &mut RuntimeContext<'_>) -> Result<()> {
///         self.limits = context.broadcast_state("limits")?;
///         Ok(())
///     }
///
///     fn process(
///         &mut self,
///         payment: (String, i64),
///         context: &mut Context<'_, String>,
///         out: &mut Collector<(String, i64)>,
///     ) -> Result<()> {
///         if self.limits.get(context.broadcast(), &payment.0)?.is_some_and(|limit| payment.1 > *limit) {
///             out.collect(payment);
///         }
///         Ok(())
///     }
///
///     fn process_broadcast(
///         &mut self,
///         (currency, limit): (String, i64),
///         context: &mut BroadcastContext<'_, String>,
///         _out: &mut Collector<(String, i64)>,
///     ) -> Result<()> {
///         self.limits.put(context.broadcast(), currency, limit)
///     }
/// }
///
/// let environment = Environment::collections();
/// let payments = environment.from_elements([("eur".to_owned(), 5_i64), ("eur".to_owned(), 500)]);
/// let rules = environment.from_elements([("eur".to_owned(), 100_i64)]).broadcast_stream();
/// let above = payments.key_by(|payment| payment.0.clone()).connect_broadcast(&rules).process(AboveLimit::default());
/// // Which of the two streams is read first is not known, so a payment may come before its rule.
/// assert!(above.collect()?.iter().all(|payment| payment.1 == 500));
/// # Ok::<(), tidemill::Error>(())
/// ```
pub trait BroadcastProcessFunction<T, B, K = ()>: Clone + Send + Sync + 'static {
    /// What it emits.
    type Output: Record;

    /// Called once in every subtask, before the first record: declares states.
    fn open(&mut self, _context: &mut RuntimeContext<'_>) -> Result<()> {
        Ok(())
    }

    /// Looks at what was restored of the states that belong to no key, as [`ProcessFunction::initialize_state`] does.
    fn initialize_state(&mut self, _context: &mut InitializationContext<'_>) -> Result<()> {
        Ok(())
    }

    /// A record of the stream. Broadcast states may be read.
    fn process(&mut self, value: T, context: &mut Context<'_, K>, out: &mut Collector<Self::Output>) -> Result<()>;

    /// A record that reaches every subtask. Broadcast states may be written.
    fn process_broadcast(
        &mut self,
        value: B,
        context: &mut BroadcastContext<'_, K>,
        out: &mut Collector<Self::Output>,
    ) -> Result<()>;

    /// A timer of `context.key()` has come.
    fn on_timer(
        &mut self,
        _time: i64,
        _context: &mut Context<'_, K>,
        _out: &mut Collector<Self::Output>,
    ) -> Result<()> {
        Ok(())
    }

    /// Gives back what `open` took, as [`ProcessFunction::close`] does.
    fn close(&mut self) -> Result<()> {
        Ok(())
    }
}
