//! Streams whose records meet by key, and the aggregates that roll along with them.

use std::fmt;
use std::ops::AddAssign;
use std::sync::Arc;

use tidemill_core::Error;
use tidemill_core::graph::Partitioning;

use super::count_window::CountWindowedStream;
use super::data_stream::DataStream;
use super::environment::Environment;
use super::layout::{KeyedCodec, RowCodec};
use super::operator::Head;
use super::program::{Input, Kind, Node, NodeId, SideOutput};
use super::record::{Codec, Record};
use super::rolling::Rolling;
use super::windowed_stream::WindowedStream;
use super::windows::Windows;

/// A stream in which records with equal keys meet in one subtask, in the order in which each producer emitted them (SOP-02).
///
/// A key is any type that serde can write, but for enums whose variants hold data.
///
/// ```
/// use tidemill::stream::Environment;
///
/// let words = Environment::collections().from_elements(["to", "be", "to"].map(str::to_owned));
/// let counts = words.map(|word| (word, 1_i64)).key_by(|word| word.0.clone()).sum(|word| &mut word.1);
/// assert_eq!(counts.collect()?, [("to".to_owned(), 1), ("be".to_owned(), 1), ("to".to_owned(), 2)]);
/// # Ok::<(), tidemill_core::Error>(())
/// ```
pub struct KeyedStream<K, T> {
    environment: Environment,
    /// Where records get their key columns.
    node: NodeId,
    codec: Option<Arc<KeyedCodec<K, T>>>,
    values: Codec<T>,
    pub(super) timed: bool,
}

impl<K, T> Clone for KeyedStream<K, T> {
    fn clone(&self) -> Self {
        Self {
            environment: self.environment.clone(),
            node: self.node,
            codec: self.codec.clone(),
            values: self.values.clone(),
            timed: self.timed,
        }
    }
}

impl<K, T> fmt::Debug for KeyedStream<K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyedStream<{}, {}>({})", std::any::type_name::<K>(), std::any::type_name::<T>(), self.node)
    }
}

impl<T: Record> DataStream<T> {
    /// Lets records meet by the key that `selector` finds. It must find the same key for a record whenever it is asked.
    pub fn key_by<K: Record>(&self, selector: impl Fn(&T) -> K + Send + Sync + 'static) -> KeyedStream<K, T> {
        let codec = KeyedCodec::new(self.codec_of::<K>(), Arc::new(selector), self.plain(self.timed));
        let codec = codec.map(Arc::new).map_err(|error| self.fail(error)).ok();
        let output: Arc<dyn RowCodec> = match &codec {
            Some(codec) => codec.clone(),
            None => Arc::new(self.plain(self.timed)),
        };
        let keyed = self.recoded("key_by", output, self.timed, true);
        let node = keyed.inputs.first().map_or(0, |input| input.node);
        let (values, timed) = (self.codec.clone(), self.timed);
        KeyedStream { environment: self.environment.clone(), node, codec, values, timed }
    }

    /// All records in one subtask, as if they had one key.
    pub(super) fn key_by_nothing(&self) -> KeyedStream<(), T> {
        self.key_by(|_| ())
    }
}

impl<K: Record, T: Record> KeyedStream<K, T> {
    /// Emits, for each record, everything with its key so far reduced to one (SOP-03).
    pub fn reduce(&self, function: impl Fn(T, T) -> T + Send + Sync + 'static) -> DataStream<T>
    where
        T: Clone,
    {
        self.rolling("reduce", function)
    }

    /// Emits, for each record, the first one with its key, where `field` is the sum so far (SOP-05).
    pub fn sum<V>(&self, field: impl Fn(&mut T) -> &mut V + Send + Sync + 'static) -> DataStream<T>
    where
        T: Clone,
        V: AddAssign + Clone + 'static,
    {
        self.rolling("sum", summed(field))
    }

    /// Emits, for each record, the first one with its key, where `field` is the least so far (SUB-13).
    pub fn min<V>(&self, field: impl Fn(&mut T) -> &mut V + Send + Sync + 'static) -> DataStream<T>
    where
        T: Clone,
        V: PartialOrd + Clone + 'static,
    {
        self.rolling("min", kept(field, |new, old| new < old))
    }

    /// Emits, for each record, the first one with its key, where `field` is the greatest so far (SUB-13).
    pub fn max<V>(&self, field: impl Fn(&mut T) -> &mut V + Send + Sync + 'static) -> DataStream<T>
    where
        T: Clone,
        V: PartialOrd + Clone + 'static,
    {
        self.rolling("max", kept(field, |new, old| new > old))
    }

    /// Emits, for each record, the one with its key whose `field` is the least so far, the first of them (SUB-13).
    pub fn min_by<V: PartialOrd>(&self, field: impl Fn(&T) -> V + Send + Sync + 'static) -> DataStream<T>
    where
        T: Clone,
    {
        self.rolling("min_by", move |old: T, new: T| if field(&new) < field(&old) { new } else { old })
    }

    /// Emits, for each record, the one with its key whose `field` is the greatest so far, the first of them (SUB-13).
    pub fn max_by<V: PartialOrd>(&self, field: impl Fn(&T) -> V + Send + Sync + 'static) -> DataStream<T>
    where
        T: Clone,
    {
        self.rolling("max_by", move |old: T, new: T| if field(&new) > field(&old) { new } else { old })
    }

    /// Puts the records of each key into windows of time (SOP-12).
    pub fn window(&self, windows: Windows) -> WindowedStream<K, T> {
        WindowedStream::new(self.clone(), windows)
    }

    /// Windows of `size` records of each key. What is left at the end of the input makes no window.
    pub fn count_window(&self, size: usize) -> CountWindowedStream<K, T> {
        CountWindowedStream::new(self.clone(), size, size)
    }

    /// Every `slide` records of a key, the last `size` of them (SUB-03).
    pub fn sliding_count_window(&self, size: usize, slide: usize) -> CountWindowedStream<K, T> {
        CountWindowedStream::new(self.clone(), size, slide)
    }

    fn rolling(&self, name: &str, function: impl Fn(T, T) -> T + Send + Sync + 'static) -> DataStream<T>
    where
        T: Clone,
    {
        let function: Arc<dyn Fn(T, T) -> T + Send + Sync> = Arc::new(function);
        let timed = self.timed;
        let text = name.to_owned();
        self.head(name, timed, HeadOutputs::default(), move |codec| Arc::new(Rolling { codec, function, text }))
    }

    /// Adds a keyed operator that emits `R`.
    pub(super) fn head<R: Record>(
        &self,
        name: &str,
        timed: bool,
        outputs: HeadOutputs,
        create: impl FnOnce(Arc<KeyedCodec<K, T>>) -> Arc<dyn Head>,
    ) -> DataStream<R> {
        let results = self.environment.codec_of::<R>();
        // The error that left no codec is known to the program, which will not run.
        let place = match &self.codec {
            None => self.node,
            Some(codec) => {
                let keys = codec.key_columns();
                let partitioning =
                    if keys == 0 { Partitioning::Global } else { Partitioning::Hash((0..keys).collect()) };
                let inputs = vec![Input { partitioning: Some(partitioning), ..Input::main(self.node) }];
                let output = Arc::new(super::layout::PlainCodec::new(results.clone(), timed));
                let mut node = Node::typed(name, inputs, Kind::Head(create(codec.clone())), output);
                node.parallelism = (keys == 0).then_some(1);
                node.sides = outputs.side.into_iter().collect();
                (node.takes_sides, node.takes_variables) = (outputs.is_rich, outputs.is_rich);
                self.environment.program().add(node)
            }
        };
        DataStream { environment: self.environment.clone(), inputs: vec![Input::main(place)], codec: results, timed }
    }

    pub(super) fn environment(&self) -> &Environment {
        &self.environment
    }

    /// Where records get their key columns.
    pub(super) fn node(&self) -> NodeId {
        self.node
    }

    /// `None` if the key has an error that the program knows.
    pub(super) fn codec(&self) -> Option<&Arc<KeyedCodec<K, T>>> {
        self.codec.as_ref()
    }

    pub(super) fn values(&self) -> &Codec<T> {
        &self.values
    }

    pub(super) fn fail(&self, error: Error) {
        self.environment.program().fail(error);
    }
}

/// What a keyed operator offers beside its main output.
#[derive(Default)]
pub(super) struct HeadOutputs {
    /// A side output of its own.
    pub side: Option<SideOutput>,
    /// Whether it is a function with a runtime context: it may have more side outputs, and read broadcast variables.
    pub is_rich: bool,
}

/// Adds the field of a new record to that of the old one.
pub(super) fn summed<T, V>(field: impl Fn(&mut T) -> &mut V + Send + Sync + 'static) -> impl Fn(T, T) -> T + Send + Sync
where
    V: AddAssign + Clone,
{
    move |mut old: T, mut new: T| {
        *field(&mut old) += field(&mut new).clone();
        old
    }
}

/// Replaces the field of the old record by that of a new one where it is `better`.
pub(super) fn kept<T, V>(
    field: impl Fn(&mut T) -> &mut V + Send + Sync + 'static,
    better: fn(&V, &V) -> bool,
) -> impl Fn(T, T) -> T + Send + Sync
where
    V: Clone,
{
    move |mut old: T, mut new: T| {
        let (kept, candidate) = (field(&mut old), field(&mut new));
        if better(candidate, kept) {
            *kept = candidate.clone();
        }
        old
    }
}
