//! Keyed records in windows of time, waiting for the function of the window.

use std::any::TypeId;
use std::fmt;
use std::marker::PhantomData;
use std::ops::AddAssign;
use std::sync::Arc;
use std::time::Duration;

use tidemill_core::window::Window;
use tidemill_core::{Error, Result};

use super::data_stream::DataStream;
use super::keyed_stream::{HeadOutputs, KeyedStream, kept, summed};
use super::layout::{PlainCodec, RowCodec};
use super::output_tag::OutputTag;
use super::program::SideOutput;
use super::record::Record;
use super::rows::Collector;
use super::window_functions::{
    Closure, EmitAll, EmitOne, FallibleClosure, ProcessAll, ProcessOne, ProcessWindowFunction,
};
use super::window_logic::{AggregateFunction, Aggregated, KeepThenFinish, Listed, Reduced, WindowLogic};
use super::window_operator::{WindowHead, WindowPlan};
use super::windows::{TimeDomain, Windows, millis};

/// Keyed records in windows of time.
///
/// A window fires when the watermark has reached its last moment, and its results have that moment as their time, so that
/// windows over windows line up (SUB-26). Windows that fire together do so by time, then key group, then key.
///
/// A record that comes too late for every one of its windows is dropped and counted
/// ([`late_records_dropped`](super::JobResult::late_records_dropped)), or goes to a side output:
///
/// ```
/// use std::time::Duration;
/// use tidemill::stream::{Environment, OutputTag, Tumbling, Watermarks};
///
/// let environment = Environment::collections();
/// environment.set("execution.batch-rows", "1");
/// let late = OutputTag::new("late");
/// let counts = environment
///     .from_elements([(1_i64, 500_i64), (1, 2_500), (1, 700)])
///     .assign_timestamps_and_watermarks(Watermarks::ascending(), |row| row.1)
///     .key_by(|row| row.0)
///     .window(Tumbling::of(Duration::from_secs(1)))
///     .side_output_late(&late)
///     .process(|_key, window, rows, out| out.collect((window.start, rows.len() as i64)));
/// assert_eq!(counts.collect()?, [(0, 1), (2_000, 1)]);
/// assert_eq!(counts.side_output(&late).collect()?, [(1, 700)]);
/// # Ok::<(), tidemill_core::Error>(())
/// ```
pub struct WindowedStream<K, T> {
    keyed: KeyedStream<K, T>,
    windows: Windows,
    lateness_millis: i64,
    late: Option<OutputTag<T>>,
}

impl<K, T> fmt::Debug for WindowedStream<K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WindowedStream({:?}, {:?})", self.keyed, self.windows)
    }
}

impl<K: Record, T: Record> WindowedStream<K, T> {
    pub(super) fn new(keyed: KeyedStream<K, T>, windows: Windows) -> Self {
        if windows.needs_event_time() && !keyed.timed {
            keyed.fail(
                Error::request("windows over event time of records that have none")
                    .with_hint("call assign_timestamps_and_watermarks first, or in_processing_time on the windows"),
            );
        }
        Self { keyed, windows, lateness_millis: 0, late: None }
    }

    /// Keeps a window so long after it fired; a record that comes within that time fires it again (SUB-02).
    #[must_use]
    pub fn allowed_lateness(self, lateness: Duration) -> Self {
        Self { lateness_millis: millis(lateness), ..self }
    }

    /// Sends records that are too late to the side output `tag` of the window's results (TRG-13).
    #[must_use]
    pub fn side_output_late(self, tag: &OutputTag<T>) -> Self {
        if self.windows.domain() == TimeDomain::Event && !self.keyed.timed {
            return self;
        }
        Self { late: Some(tag.clone()), ..self }
    }

    /// The result of an aggregate for each key and window.
    pub fn aggregate<A: AggregateFunction<T>>(&self, function: A) -> DataStream<A::Output> {
        self.fired("aggregate", KeepThenFinish::new(Aggregated(function), EmitOne))
    }

    /// The result of an aggregate for each key and window, together with both (FUN-07).
    pub fn aggregate_with<A, R>(
        &self,
        function: A,
        finish: impl Fn(&K, Window, A::Output, &mut Collector<R>) + Send + Sync + 'static,
    ) -> DataStream<R>
    where
        A: AggregateFunction<T>,
        R: Record,
    {
        self.fired("aggregate", KeepThenFinish::new(Aggregated(function), Closure::new(finish)))
    }

    /// The result of an aggregate for each key and window, given to a function that remembers something for them (FUN-06, FUN-07).
    /// It gets one value for each window.
    pub fn aggregate_then_process<A, F>(&self, aggregate: A, function: F) -> DataStream<F::Output>
    where
        A: AggregateFunction<T>,
        F: ProcessWindowFunction<A::Output, K>,
    {
        self.fired("aggregate", KeepThenFinish::new(Aggregated(aggregate), ProcessOne(function)))
    }

    /// The records of each key and window reduced to one.
    pub fn reduce(&self, function: impl Fn(T, T) -> T + Send + Sync + 'static) -> DataStream<T>
    where
        T: Clone,
    {
        self.reduced("reduce", function)
    }

    /// The records of each key and window reduced to one, given to a function that remembers something for them (FUN-07). It gets one
    /// value for each window.
    pub fn reduce_then_process<F>(
        &self,
        reduce: impl Fn(T, T) -> T + Send + Sync + 'static,
        function: F,
    ) -> DataStream<F::Output>
    where
        T: Clone,
        F: ProcessWindowFunction<T, K>,
    {
        self.fired("reduce", KeepThenFinish::new(Reduced(Arc::new(reduce)), ProcessAll(function)))
    }

    /// The first record of each key and window, where `field` is the sum.
    pub fn sum<V>(&self, field: impl Fn(&mut T) -> &mut V + Send + Sync + 'static) -> DataStream<T>
    where
        T: Clone,
        V: AddAssign + Clone + 'static,
    {
        self.reduced("sum", summed(field))
    }

    /// The first record of each key and window, where `field` is the least (SUB-13).
    pub fn min<V>(&self, field: impl Fn(&mut T) -> &mut V + Send + Sync + 'static) -> DataStream<T>
    where
        T: Clone,
        V: PartialOrd + Clone + 'static,
    {
        self.reduced("min", kept(field, |new, old| new < old))
    }

    /// The first record of each key and window, where `field` is the greatest (SUB-13).
    pub fn max<V>(&self, field: impl Fn(&mut T) -> &mut V + Send + Sync + 'static) -> DataStream<T>
    where
        T: Clone,
        V: PartialOrd + Clone + 'static,
    {
        self.reduced("max", kept(field, |new, old| new > old))
    }

    /// The record of each key and window whose `field` is the least, the first of them (SUB-13).
    pub fn min_by<V: PartialOrd>(&self, field: impl Fn(&T) -> V + Send + Sync + 'static) -> DataStream<T>
    where
        T: Clone,
    {
        let least = move |old: T, new: T| if field(&new) < field(&old) { new } else { old };
        self.reduced("min_by", least)
    }

    /// The record of each key and window whose `field` is the greatest, the first of them (SUB-13).
    pub fn max_by<V: PartialOrd>(&self, field: impl Fn(&T) -> V + Send + Sync + 'static) -> DataStream<T>
    where
        T: Clone,
    {
        let greatest = move |old: T, new: T| if field(&new) > field(&old) { new } else { old };
        self.reduced("max_by", greatest)
    }

    /// A function of all records of each key and window, in the order in which they came (FUN-05). They are kept until then:
    /// where an aggregate will do, it takes less memory.
    pub fn process<R: Record>(
        &self,
        function: impl Fn(&K, Window, &[T], &mut Collector<R>) + Send + Sync + 'static,
    ) -> DataStream<R>
    where
        T: Clone,
    {
        self.fired("process", KeepThenFinish::new(Listed, Closure::new(function)))
    }

    /// The same, or the failure of the job.
    pub fn try_process<R, E>(
        &self,
        function: impl Fn(&K, Window, &[T], &mut Collector<R>) -> Result<(), E> + Send + Sync + 'static,
    ) -> DataStream<R>
    where
        T: Clone,
        R: Record,
        E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
    {
        self.fired("process", KeepThenFinish::new(Listed, FallibleClosure::new(function)))
    }

    /// A function of all records of each key and window that remembers something for them, and for the key whatever the window
    /// (FUN-06, STA-14).
    pub fn rich_process<F>(&self, function: F) -> DataStream<F::Output>
    where
        T: Clone,
        F: ProcessWindowFunction<T, K>,
    {
        self.fired("process", KeepThenFinish::new(Listed, ProcessAll(function)))
    }

    fn reduced(&self, name: &str, function: impl Fn(T, T) -> T + Send + Sync + 'static) -> DataStream<T>
    where
        T: Clone,
    {
        self.fired(name, KeepThenFinish::new(Reduced(Arc::new(function)), EmitAll))
    }

    fn fired<R, L>(&self, name: &str, logic: L) -> DataStream<R>
    where
        R: Record,
        L: WindowLogic<K, T, R>,
    {
        let assigner = match self.windows.assigner() {
            Ok(assigner) => assigner,
            Err(error) => {
                self.keyed.fail(error);
                super::windows::Assigner::Whole
            }
        };
        // Windows have a time in both domains (SUB-26); the end of the input has none.
        let timed = self.windows.needs_event_time() || self.windows.domain() == TimeDomain::Processing;
        let late = self.late.as_ref().map(|tag| {
            let codec = Arc::new(PlainCodec::new(self.keyed.values().clone(), true));
            let schema = codec.schema();
            let side = SideOutput { tag: tag.name.clone(), record: TypeId::of::<T>(), schema, timed: true };
            (codec, side)
        });
        let (late_codec, side) = late.unzip();
        let (domain, lateness) = (self.windows.domain(), self.lateness_millis);
        let text = format!("{name} over {assigner}");
        let name = format!("window {name}");
        self.keyed.head(&name, timed, HeadOutputs { side, is_rich: L::IS_RICH }, |codec| {
            let plan = WindowPlan { codec, assigner, domain, lateness, logic, late: late_codec, timed, text };
            Arc::new(WindowHead { plan: Arc::new(plan), result: PhantomData })
        })
    }
}

impl<T: Record> DataStream<T> {
    /// Puts all records into windows of time, in one subtask (WIN-11).
    pub fn window_all(&self, windows: Windows) -> WindowedStream<(), T> {
        self.key_by_nothing().window(windows)
    }

    /// Groups the records of a bounded stream by key. Results come once, at the end of the input (BOP-23).
    ///
    /// ```
    /// use tidemill::stream::Environment;
    ///
    /// let words = Environment::collections().from_elements(["to", "be", "to"].map(str::to_owned));
    /// let counts = words.map(|word| (word, 1_i64)).group_by(|word| word.0.clone()).sum(|word| &mut word.1);
    /// let mut counts = counts.collect()?;
    /// counts.sort();
    /// assert_eq!(counts, [("be".to_owned(), 1), ("to".to_owned(), 2)]);
    /// # Ok::<(), tidemill_core::Error>(())
    /// ```
    pub fn group_by<K: Record>(&self, selector: impl Fn(&T) -> K + Send + Sync + 'static) -> WindowedStream<K, T> {
        self.key_by(selector).window(Windows::whole())
    }
}
