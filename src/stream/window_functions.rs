//! The functions of complete windows: what users write, and how each gets what a window holds.

use std::marker::PhantomData;
use std::slice;
use std::sync::Arc;

use tidemill_core::Result;
use tidemill_core::window::Window;

use super::process::{InitializationContext, RuntimeContext};
use super::record::Record;
use super::rows::Collector;
use super::stage::user_error;
use super::window_context::WindowContext;

/// A function of what a window holds, that remembers something for each window and for each key (FUN-06, PRF-07, PRF-08).
///
/// For [`rich_process`](super::WindowedStream::rich_process), where it gets all records of a window, and for
/// [`aggregate_then_process`](super::WindowedStream::aggregate_then_process) and
/// [`reduce_then_process`](super::WindowedStream::reduce_then_process), where it gets one result (FUN-07). `K` is the type of the key;
/// over [`window_all`](super::DataStream::window_all) it is `()`.
///
/// Every subtask has a copy of the function. States are declared in `open`. Those of a window are declared with
/// [`per_window`](RuntimeContext::per_window) and used with [`window_state`](WindowContext::window_state); all others belong to the
/// key, whatever window it is in, and are used with [`global_state`](WindowContext::global_state). Both are part of checkpoints.
///
/// What is kept for a window stays until the function clears it, and nothing but [`clear`](Self::clear) tells it when: a window whose
/// states are not cleared there leaves them behind for ever (STA-14).
///
/// How a window has changed since it last fired, where late records fire it again, and which windows of a sensor had more records
/// than any before:
///
/// ```
/// use std::time::Duration;
/// use tidemill::Result;
/// use tidemill::stream::{
///     Collector, Environment, ProcessWindowFunction, RuntimeContext, Tumbling, ValueState, Watermarks, WindowContext,
/// };
///
/// #[derive(Clone, Default)]
/// struct Counted {
///     /// How many records the window had when it last fired.
///     before: ValueState<i64>,
///     /// How many records a window of the sensor ever had.
///     most: ValueState<i64>,
/// }
///
/// impl ProcessWindowFunction<(String, i64), String> for Counted {
///     type Output = String;
///
///     fn open(&mut self, context: &mut RuntimeContext<'_>) -> Result<()> {
///         self.before = context.per_window().value_state("before")?;
///         self.most = context.value_state("most")?;
///         Ok(())
///     }
///
///     fn process(
///         &mut self,
///         records: &[(String, i64)],
///         context: &mut WindowContext<'_, String>,
///         out: &mut Collector<String>,
///     ) -> Result<()> {
///         let count = records.len() as i64;
///         let before = self.before.get(context.window_state()?)?.copied().unwrap_or(0);
///         let most = self.most.get(context.global_state())?.copied().unwrap_or(0);
///         self.before.set(context.window_state()?, count)?;
///         self.most.set(context.global_state(), most.max(count))?;
///         let record = if count > most { ", a record" } else { "" };
///         out.collect(format!("{} from {}: {count}, {} more{record}", context.key()?, context.window().start, count - before));
///         Ok(())
///     }
///
///     fn clear(&mut self, context: &mut WindowContext<'_, String>) -> Result<()> {
///         self.before.clear(context.window_state()?)
///     }
/// }
///
/// let environment = Environment::collections();
/// environment.set("execution.batch-rows", "1");
/// let record = |time: i64| ("left".to_owned(), time);
/// let counts = environment
///     .from_elements([record(1), record(2), record(1_000), record(3), record(9_000)])
///     .assign_timestamps_and_watermarks(Watermarks::ascending(), |record| record.1)
///     .key_by(|record| record.0.clone())
///     .window(Tumbling::of(Duration::from_secs(1)))
///     .allowed_lateness(Duration::from_secs(5))
///     .rich_process(Counted::default());
/// assert_eq!(
///     counts.collect()?,
///     [
///         "left from 0: 2, 2 more, a record",
///         "left from 0: 3, 1 more, a record",
///         "left from 1000: 1, 1 more",
///         "left from 9000: 1, 1 more",
///     ]
/// );
/// # Ok::<(), tidemill::Error>(())
/// ```
pub trait ProcessWindowFunction<T, K = ()>: Clone + Send + Sync + 'static {
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

    /// A window that is complete, or that a late record has fired again. What it emits has the window's last moment as its event
    /// time; over a number of records, that of the last of them.
    fn process(
        &mut self,
        values: &[T],
        context: &mut WindowContext<'_, K>,
        out: &mut Collector<Self::Output>,
    ) -> Result<()>;

    /// The window is over: its allowed lateness has passed, and it never fires again. Here what is kept for it is cleared. Comes
    /// once for each window of a key that had a record; a session that was merged into another does not come.
    fn clear(&mut self, _context: &mut WindowContext<'_, K>) -> Result<()> {
        Ok(())
    }

    /// Gives back what `open` took. Called after the last record, and also when the job failed or was cancelled; it may find
    /// that `open` failed half way (FUN-02).
    fn close(&mut self) -> Result<()> {
        Ok(())
    }
}

/// What is made of what a window holds, a `V`.
pub(super) trait Finish<K, V, R>: Clone + Send + Sync + 'static {
    /// Whether it has a runtime context, states and `clear`. Who says no is asked for `finish` alone.
    const IS_RICH: bool = false;

    fn open(&mut self, _context: &mut RuntimeContext<'_>) -> Result<()> {
        Ok(())
    }

    fn initialize_state(&mut self, _context: &mut InitializationContext<'_>) -> Result<()> {
        Ok(())
    }

    fn finish(&mut self, value: V, context: &mut WindowContext<'_, K>, out: &mut Collector<R>) -> Result<()>;

    fn clear(&mut self, _context: &mut WindowContext<'_, K>) -> Result<()> {
        Ok(())
    }

    fn close(&mut self) -> Result<()> {
        Ok(())
    }
}

/// The result as it is.
#[derive(Clone, Copy)]
pub(super) struct EmitOne;

impl<K, R: Record> Finish<K, R, R> for EmitOne {
    fn finish(&mut self, value: R, _context: &mut WindowContext<'_, K>, out: &mut Collector<R>) -> Result<()> {
        out.collect(value);
        Ok(())
    }
}

/// All records as they are.
#[derive(Clone, Copy)]
pub(super) struct EmitAll;

impl<'v, K, R: Record + Clone> Finish<K, &'v [R], R> for EmitAll {
    fn finish(&mut self, values: &'v [R], _context: &mut WindowContext<'_, K>, out: &mut Collector<R>) -> Result<()> {
        out.extend(values.iter().cloned());
        Ok(())
    }
}

/// A closure of key, window and all records, which may fail.
pub(super) struct FallibleClosure<F, E> {
    function: Arc<F>,
    error: PhantomData<fn() -> E>,
}

impl<F, E> FallibleClosure<F, E> {
    /// The closure for all subtasks.
    pub fn new(function: F) -> Self {
        Self { function: Arc::new(function), error: PhantomData }
    }
}

impl<F, E> Clone for FallibleClosure<F, E> {
    fn clone(&self) -> Self {
        Self { function: self.function.clone(), error: PhantomData }
    }
}

impl<'v, K, T, R, F, E> Finish<K, &'v [T], R> for FallibleClosure<F, E>
where
    F: Fn(&K, Window, &[T], &mut Collector<R>) -> Result<(), E> + Send + Sync + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
{
    fn finish(&mut self, values: &'v [T], context: &mut WindowContext<'_, K>, out: &mut Collector<R>) -> Result<()> {
        (self.function)(context.key()?, context.window(), values, out).map_err(user_error)
    }
}

/// A closure of key, window and what it holds.
pub(super) struct Closure<F>(Arc<F>);

impl<F> Closure<F> {
    /// The closure for all subtasks.
    pub fn new(function: F) -> Self {
        Self(Arc::new(function))
    }
}

impl<F> Clone for Closure<F> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K, V, R, F> Finish<K, V, R> for Closure<F>
where
    F: Fn(&K, Window, V, &mut Collector<R>) + Send + Sync + 'static,
{
    fn finish(&mut self, value: V, context: &mut WindowContext<'_, K>, out: &mut Collector<R>) -> Result<()> {
        (self.0)(context.key()?, context.window(), value, out);
        Ok(())
    }
}

/// The calls of a [`ProcessWindowFunction`] that do not depend on what the window holds.
macro_rules! process_window_function {
    () => {
        const IS_RICH: bool = true;

        fn open(&mut self, context: &mut RuntimeContext<'_>) -> Result<()> {
            self.0.open(context)
        }

        fn initialize_state(&mut self, context: &mut InitializationContext<'_>) -> Result<()> {
            self.0.initialize_state(context)
        }

        fn clear(&mut self, context: &mut WindowContext<'_, K>) -> Result<()> {
            self.0.clear(context)
        }

        fn close(&mut self) -> Result<()> {
            self.0.close()
        }
    };
}

/// A function of all records.
#[derive(Clone)]
pub(super) struct ProcessAll<P>(pub P);

impl<'v, K, T, P: ProcessWindowFunction<T, K>> Finish<K, &'v [T], P::Output> for ProcessAll<P> {
    fn finish(
        &mut self,
        values: &'v [T],
        context: &mut WindowContext<'_, K>,
        out: &mut Collector<P::Output>,
    ) -> Result<()> {
        self.0.process(values, context, out)
    }

    process_window_function!();
}

/// A function of one result.
#[derive(Clone)]
pub(super) struct ProcessOne<P>(pub P);

impl<K, V, P: ProcessWindowFunction<V, K>> Finish<K, V, P::Output> for ProcessOne<P> {
    fn finish(&mut self, value: V, context: &mut WindowContext<'_, K>, out: &mut Collector<P::Output>) -> Result<()> {
        self.0.process(slice::from_ref(&value), context, out)
    }

    process_window_function!();
}
