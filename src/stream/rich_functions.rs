//! Functions of records that are opened and closed, and know where they run (FUN-02, FUN-09).

use tidemill_core::Result;

use super::process::{Context, InitializationContext, RuntimeContext};
use super::record::Record;
use super::rows::Collector;

/// One record for each record, by a function that is opened and closed.
///
/// For [`DataStream::rich_map`](super::DataStream::rich_map), and for [`KeyedStream::rich_map`](super::KeyedStream::rich_map), where
/// `K` is the type of the key and the function has states. Every subtask has a copy of the function. A rich function has no timers;
/// a [`ProcessFunction`](super::ProcessFunction) has.
///
/// ```
/// use std::collections::BTreeMap;
/// use std::sync::Arc;
///
/// use tidemill::Result;
/// use tidemill::stream::{
///     AccumulatorRef, Context, Environment, LongCounter, RichMapFunction, RuntimeContext,
/// };
///
/// /// Amounts in euros, by rates that every subtask reads.
/// #[derive(Clone, Default)]
/// struct ToEuros {
///     rates: Arc<BTreeMap<String, f64>>,
///     unknown: AccumulatorRef<LongCounter>,
/// }
///
/// impl RichMapFunction<(String, f64)> for ToEuros {
///     type Output = f64;
///
///     fn open(&mut self, context: &mut RuntimeContext<'_>) -> Result<()> {
///         let rates = context.broadcast_variable_with("rates", |rates: Vec<(String, f64)>| Ok(rates.into_iter().collect()));
///         self.rates = rates?;
///         self.unknown = context.accumulator("unknown currencies")?;
///         Ok(())
///     }
///
///     fn map(&mut self, (currency, amount): (String, f64), _context: &mut Context<'_, ()>) -> Result<f64> {
///         match self.rates.get(&currency) {
///             Some(rate) => Ok(amount * rate),
///             None => {
///                 self.unknown.add(1)?;
///                 Ok(0.0)
///             }
///         }
///     }
/// }
///
/// let environment = Environment::local();
/// let rates = environment.from_elements([("usd".to_owned(), 0.5), ("gbp".to_owned(), 2.0)]);
/// let amounts = environment.from_elements([("usd".to_owned(), 10.0), ("gbp".to_owned(), 10.0), ("xxx".to_owned(), 1.0)]);
/// amounts.rich_map(ToEuros::default()).with_broadcast_set(&rates, "rates").print();
/// let result = environment.execute("euros")?;
/// assert_eq!(result.accumulators.get::<LongCounter>("unknown currencies")?, 1);
/// # Ok::<(), tidemill::Error>(())
/// ```
pub trait RichMapFunction<T, K = ()>: Clone + Send + Sync + 'static {
    /// What it makes of a record.
    type Output: Record;

    /// Called once in every subtask, before the first record: declares states, registers accumulators, reads what was broadcast.
    fn open(&mut self, _context: &mut RuntimeContext<'_>) -> Result<()> {
        Ok(())
    }

    /// Called once in every subtask, behind `open` and before the first record and the first checkpoint: looks at the lists
    /// and broadcast states that `open` declared, as they were restored, and may change them. Of a union list it keeps what
    /// is its own ([`RuntimeContext::union_list`], SUB-10).
    fn initialize_state(&mut self, _context: &mut InitializationContext<'_>) -> Result<()> {
        Ok(())
    }

    /// The record for a record.
    fn map(&mut self, value: T, context: &mut Context<'_, K>) -> Result<Self::Output>;

    /// Gives back what `open` took. Called after the last record, and also when the job failed or was cancelled; it may find
    /// that `open` failed half way (FUN-02).
    fn close(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Any number of records for each record, by a function that is opened and closed.
pub trait RichFlatMapFunction<T, K = ()>: Clone + Send + Sync + 'static {
    /// What it emits.
    type Output: Record;

    /// Called once in every subtask, before the first record.
    fn open(&mut self, _context: &mut RuntimeContext<'_>) -> Result<()> {
        Ok(())
    }

    /// Looks at what was restored of the states that belong to no key, as [`RichMapFunction::initialize_state`] does.
    fn initialize_state(&mut self, _context: &mut InitializationContext<'_>) -> Result<()> {
        Ok(())
    }

    /// One record. What it emits has the event time of the record.
    fn flat_map(&mut self, value: T, context: &mut Context<'_, K>, out: &mut Collector<Self::Output>) -> Result<()>;

    /// Gives back what `open` took, as [`RichMapFunction::close`] does.
    fn close(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Which records pass, by a function that is opened and closed.
///
/// ```
/// use tidemill::Result;
/// use tidemill::stream::{Context, Environment, RichFilterFunction, RuntimeContext, ValueState};
///
/// /// The first record of each key.
/// #[derive(Clone, Default)]
/// struct First {
///     seen: ValueState<bool>,
/// }
///
/// impl RichFilterFunction<String, String> for First {
///     fn open(&mut self, context: &mut RuntimeContext<'_>) -> Result<()> {
///         self.seen = context.value_state("seen")?;
///         Ok(())
///     }
///
///     fn filter(&mut self, _word: &String, context: &mut Context<'_, String>) -> Result<bool> {
///         let seen = self.seen.get(context.state())?.is_some();
///         self.seen.set(context.state(), true)?;
///         Ok(!seen)
///     }
/// }
///
/// let words = Environment::collections().from_elements(["to", "be", "or", "not", "to", "be"].map(str::to_owned));
/// assert_eq!(words.key_by(String::clone).rich_filter(First::default()).collect()?, ["to", "be", "or", "not"]);
/// # Ok::<(), tidemill::Error>(())
/// ```
pub trait RichFilterFunction<T, K = ()>: Clone + Send + Sync + 'static {
    /// Called once in every subtask, before the first record.
    fn open(&mut self, _context: &mut RuntimeContext<'_>) -> Result<()> {
        Ok(())
    }

    /// Looks at what was restored of the states that belong to no key, as [`RichMapFunction::initialize_state`] does.
    fn initialize_state(&mut self, _context: &mut InitializationContext<'_>) -> Result<()> {
        Ok(())
    }

    /// Whether a record passes.
    fn filter(&mut self, value: &T, context: &mut Context<'_, K>) -> Result<bool>;

    /// Gives back what `open` took, as [`RichMapFunction::close`] does.
    fn close(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Everything with one key reduced to one record, by a function that is opened and closed.
pub trait RichReduceFunction<T, K>: Clone + Send + Sync + 'static {
    /// Called once in every subtask, before the first record.
    fn open(&mut self, _context: &mut RuntimeContext<'_>) -> Result<()> {
        Ok(())
    }

    /// Looks at what was restored of the states that belong to no key, as [`RichMapFunction::initialize_state`] does.
    fn initialize_state(&mut self, _context: &mut InitializationContext<'_>) -> Result<()> {
        Ok(())
    }

    /// What was reduced so far and the record that has come, as one.
    fn reduce(&mut self, reduced: T, value: T, context: &mut Context<'_, K>) -> Result<T>;

    /// Gives back what `open` took, as [`RichMapFunction::close`] does.
    fn close(&mut self) -> Result<()> {
        Ok(())
    }
}
