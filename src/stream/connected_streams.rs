//! Two streams that one function reads, types of their own each (SOP-07, SOP-08).

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use tidemill_core::graph::Partitioning;
use tidemill_core::{Error, Result};

use super::data_stream::DataStream;
use super::environment::Environment;
use super::keyed_stream::KeyedStream;
use super::operator::Head;
use super::process::{
    BroadcastProcessFunction, Broadcasting, CoProcessFunction, Context, InputCodec, Inputs, Logic, One,
    ProcessFunction, ProcessHead, Two,
};
use super::program::{Input, Kind, Node};
use super::record::Record;
use super::rows::Collector;

/// Two streams whose records one function sees, one after the other.
///
/// ```
/// use tidemill::stream::Environment;
///
/// let environment = Environment::collections();
/// let numbers = environment.from_elements([1_i64, 2]);
/// let words = environment.from_elements(["three".to_owned()]);
/// let mut texts = numbers.connect(&words).map(|n| n.to_string(), |word| word).collect()?;
/// texts.sort();
/// assert_eq!(texts, ["1", "2", "three"]);
/// # Ok::<(), tidemill::Error>(())
/// ```
#[derive(Debug)]
pub struct ConnectedStreams<A, B> {
    first: DataStream<A>,
    second: DataStream<B>,
}

/// Two streams with keys of one type. Records with equal keys meet, whichever stream they come from, and share states.
#[derive(Debug)]
pub struct KeyedConnectedStreams<K, A, B> {
    first: KeyedStream<K, A>,
    second: KeyedStream<K, B>,
}

/// A stream of which every subtask of the function that reads it gets every record: rules, settings, models (SUB-11).
#[derive(Debug)]
pub struct BroadcastStream<B> {
    stream: DataStream<B>,
}

/// A stream beside one that is broadcast.
#[derive(Debug)]
pub struct BroadcastConnectedStream<T, B> {
    first: DataStream<T>,
    second: DataStream<B>,
}

/// A stream with keys beside one that is broadcast.
#[derive(Debug)]
pub struct KeyedBroadcastConnectedStream<K, T, B> {
    first: KeyedStream<K, T>,
    second: DataStream<B>,
}

impl<T: Record> DataStream<T> {
    /// Gives every record to a function that may emit any number of others, also to side outputs, and that is opened and closed
    /// (PRF-01). Without keys it has neither states nor timers.
    pub fn process<F: ProcessFunction<T>>(&self, function: F) -> DataStream<F::Output> {
        self.with_logic("process", One(function))
    }

    /// Gives every record to what a process function is made of.
    pub(super) fn with_logic<R: Record, L: Logic<(), T, (), R>>(&self, name: &str, logic: L) -> DataStream<R> {
        let inputs = Inputs { first: InputCodec::Plain(self.plain(self.timed)), second: None };
        self.environment.process_node(name, self.inputs.clone(), head(name, inputs, logic), self.timed, None)
    }

    /// Lets one function see the records of this stream and of another.
    pub fn connect<B: Record>(&self, other: &DataStream<B>) -> ConnectedStreams<T, B> {
        self.environment.check_same(&other.environment, "connect");
        ConnectedStreams { first: self.clone(), second: other.clone() }
    }

    /// Lets one function see the records of this stream and all those of another, in every subtask.
    pub fn connect_broadcast<B: Record>(&self, other: &BroadcastStream<B>) -> BroadcastConnectedStream<T, B> {
        self.environment.check_same(&other.stream.environment, "connect_broadcast");
        BroadcastConnectedStream { first: self.clone(), second: other.stream.clone() }
    }

    /// This stream for every subtask of the function that it is connected with.
    pub fn broadcast_stream(&self) -> BroadcastStream<T> {
        BroadcastStream { stream: self.broadcast() }
    }
}

impl<K: Record, T: Record> KeyedStream<K, T> {
    /// Gives every record to a function that remembers something for its key and can ask to be called again (PRF-02).
    pub fn process<F: ProcessFunction<T, K>>(&self, function: F) -> DataStream<F::Output> {
        self.with_logic("process", One(function))
    }

    /// Gives every record to what a process function is made of.
    pub(super) fn with_logic<R: Record, L: Logic<K, T, (), R>>(&self, name: &str, logic: L) -> DataStream<R> {
        let Some(codec) = self.codec() else { return self.broken() };
        let inputs = Inputs { first: InputCodec::Keyed(codec.clone()), second: None };
        let head = head(name, inputs, logic);
        self.environment().process_node(name, vec![self.input(0)], head, self.timed, self.parallelism())
    }

    /// Lets one function see the records of this stream and of another one with keys of the same type.
    pub fn connect<B: Record>(&self, other: &KeyedStream<K, B>) -> KeyedConnectedStreams<K, T, B> {
        self.environment().check_same(other.environment(), "connect");
        KeyedConnectedStreams { first: self.clone(), second: other.clone() }
    }

    /// Lets one function see the records of this stream and all those of another, in every subtask.
    pub fn connect_broadcast<B: Record>(&self, other: &BroadcastStream<B>) -> KeyedBroadcastConnectedStream<K, T, B> {
        self.environment().check_same(&other.stream.environment, "connect_broadcast");
        KeyedBroadcastConnectedStream { first: self.clone(), second: other.stream.clone() }
    }
}

impl<A: Record, B: Record> ConnectedStreams<A, B> {
    /// One record for each record, by a function for each stream.
    pub fn map<R: Record>(
        &self,
        first: impl Fn(A) -> R + Send + Sync + 'static,
        second: impl Fn(B) -> R + Send + Sync + 'static,
    ) -> DataStream<R> {
        let first = move |value: A, out: &mut Collector<R>| out.collect(first(value));
        let second = move |value: B, out: &mut Collector<R>| out.collect(second(value));
        self.with("map", Two(CoFunctions::new(first, second)))
    }

    /// Any number of records for each record, by a function for each stream.
    pub fn flat_map<R: Record>(
        &self,
        first: impl Fn(A, &mut Collector<R>) + Send + Sync + 'static,
        second: impl Fn(B, &mut Collector<R>) + Send + Sync + 'static,
    ) -> DataStream<R> {
        self.with("flat_map", Two(CoFunctions::new(first, second)))
    }

    /// A function that is opened and closed and has side outputs, but no keys (PRF-03).
    pub fn process<F: CoProcessFunction<A, B>>(&self, function: F) -> DataStream<F::Output> {
        self.with("process", Two(function))
    }

    /// Lets records of both streams meet by keys of one type.
    pub fn key_by<K: Record>(
        &self,
        first: impl Fn(&A) -> K + Send + Sync + 'static,
        second: impl Fn(&B) -> K + Send + Sync + 'static,
    ) -> KeyedConnectedStreams<K, A, B> {
        self.first.key_by(first).connect(&self.second.key_by(second))
    }

    fn with<R: Record, L: Logic<(), A, B, R>>(&self, name: &str, logic: L) -> DataStream<R> {
        let second = InputCodec::Plain(self.second.plain(self.second.timed));
        let first = InputCodec::Plain(self.first.plain(self.first.timed));
        let head = head(&format!("co-{name}"), Inputs { first, second: Some((second, false)) }, logic);
        let inputs = self.first.inputs.iter().cloned().chain(into_second(&self.second)).collect();
        let timed = self.first.timed || self.second.timed;
        self.first.environment.process_node(&format!("co-{name}"), inputs, head, timed, None)
    }
}

impl<K: Record, A: Record, B: Record> KeyedConnectedStreams<K, A, B> {
    /// One record for each record, by a function for each stream.
    pub fn map<R: Record>(
        &self,
        first: impl Fn(A) -> R + Send + Sync + 'static,
        second: impl Fn(B) -> R + Send + Sync + 'static,
    ) -> DataStream<R> {
        let first = move |value: A, out: &mut Collector<R>| out.collect(first(value));
        let second = move |value: B, out: &mut Collector<R>| out.collect(second(value));
        self.with("map", Two(CoFunctions::new(first, second)))
    }

    /// Any number of records for each record, by a function for each stream.
    pub fn flat_map<R: Record>(
        &self,
        first: impl Fn(A, &mut Collector<R>) + Send + Sync + 'static,
        second: impl Fn(B, &mut Collector<R>) + Send + Sync + 'static,
    ) -> DataStream<R> {
        self.with("flat_map", Two(CoFunctions::new(first, second)))
    }

    /// A function that remembers something for each key, whichever stream it came from (PRF-03).
    pub fn process<F: CoProcessFunction<A, B, K>>(&self, function: F) -> DataStream<F::Output> {
        self.with("process", Two(function))
    }

    fn with<R: Record, L: Logic<K, A, B, R>>(&self, name: &str, logic: L) -> DataStream<R> {
        let (Some(first), Some(second)) = (self.first.codec(), self.second.codec()) else { return self.first.broken() };
        let second = Some((InputCodec::Keyed(second.clone()), false));
        let head = head(&format!("keyed co-{name}"), Inputs { first: InputCodec::Keyed(first.clone()), second }, logic);
        let inputs = vec![self.first.input(0), self.second.input(1)];
        let (timed, parallelism) = (self.first.timed || self.second.timed, self.first.parallelism());
        self.first.environment().process_node(&format!("co-{name}"), inputs, head, timed, parallelism)
    }
}

impl<T: Record, B: Record> BroadcastConnectedStream<T, B> {
    /// A function that reads what the broadcast stream has written (PRF-05).
    pub fn process<F: BroadcastProcessFunction<T, B>>(&self, function: F) -> DataStream<F::Output> {
        let second: InputCodec<(), B> = InputCodec::Plain(self.second.plain(self.second.timed));
        let first = InputCodec::Plain(self.first.plain(self.first.timed));
        let inputs = Inputs { first, second: Some((second, true)) };
        let head = head("broadcast process", inputs, Broadcasting(function));
        let inputs = self.first.inputs.iter().cloned().chain(into_second(&self.second)).collect();
        let timed = self.first.timed || self.second.timed;
        self.first.environment.process_node("broadcast process", inputs, head, timed, None)
    }
}

impl<K: Record, T: Record, B: Record> KeyedBroadcastConnectedStream<K, T, B> {
    /// A function that remembers something for each key, and reads what the broadcast stream has written (PRF-06).
    pub fn process<F: BroadcastProcessFunction<T, B, K>>(&self, function: F) -> DataStream<F::Output> {
        let Some(codec) = self.first.codec() else { return self.first.broken() };
        let second = InputCodec::Plain(self.second.plain(self.second.timed));
        let inputs = Inputs { first: InputCodec::Keyed(codec.clone()), second: Some((second, true)) };
        let head = head("keyed broadcast process", inputs, Broadcasting(function));
        let inputs = [self.first.input(0)].into_iter().chain(into_second(&self.second)).collect();
        let (timed, parallelism) = (self.first.timed || self.second.timed, self.first.parallelism());
        self.first.environment().process_node("broadcast process", inputs, head, timed, parallelism)
    }
}

/// The records of a stream on the second input.
fn into_second<T>(stream: &DataStream<T>) -> impl Iterator<Item = Input> + '_ {
    stream.inputs.iter().map(|input| Input { to: 1, ..input.clone() })
}

fn head<K, A, B, R, L>(text: &str, inputs: Inputs<K, A, B>, logic: L) -> Arc<dyn Head>
where
    K: Record,
    A: Record,
    B: Record,
    R: Record,
    L: Logic<K, A, B, R>,
{
    Arc::new(ProcessHead { inputs: Arc::new(inputs), logic, text: text.to_owned(), result: PhantomData })
}

impl Environment {
    /// Adds an operator of a process function.
    fn process_node<R: Record>(
        &self,
        name: &str,
        inputs: Vec<Input>,
        head: Arc<dyn Head>,
        timed: bool,
        parallelism: Option<usize>,
    ) -> DataStream<R> {
        let codec = self.codec_of::<R>();
        let output = Arc::new(super::layout::PlainCodec::new(codec.clone(), timed));
        let mut node = Node::typed(name, inputs, Kind::Head(head), output);
        node.parallelism = parallelism;
        (node.takes_sides, node.takes_variables) = (true, true);
        let node = self.program().add(node);
        DataStream { environment: self.clone(), inputs: vec![Input::main(node)], codec, timed }
    }

    fn check_same(&self, other: &Environment, call: &str) {
        if !self.is_same(other) {
            self.program().fail(Error::request(format!("{call} of streams of two environments")));
        }
    }
}

impl<K: Record, T: Record> KeyedStream<K, T> {
    /// The records by their key, on input `to`.
    fn input(&self, to: usize) -> Input {
        let keys = self.codec().map_or(0, |codec| codec.key_columns());
        let partitioning = if keys == 0 { Partitioning::Global } else { Partitioning::Hash((0..keys).collect()) };
        Input { to, partitioning: Some(partitioning), ..Input::main(self.node()) }
    }

    /// A key of no columns is one key, in one subtask.
    fn parallelism(&self) -> Option<usize> {
        self.codec().filter(|codec| codec.key_columns() == 0).map(|_| 1)
    }

    /// A place holder in a program that will not run.
    fn broken<R: Record>(&self) -> DataStream<R> {
        let codec = self.environment().codec_of::<R>();
        let inputs = vec![Input::main(self.node())];
        DataStream { environment: self.environment().clone(), inputs, codec, timed: self.timed }
    }
}

/// A function for each of two streams, neither of which remembers anything.
struct CoFunctions<A, B, R> {
    first: Arc<CoFunction<A, R>>,
    second: Arc<CoFunction<B, R>>,
}

type CoFunction<T, R> = dyn Fn(T, &mut Collector<R>) + Send + Sync;

impl<A, B, R> CoFunctions<A, B, R> {
    fn new(
        first: impl Fn(A, &mut Collector<R>) + Send + Sync + 'static,
        second: impl Fn(B, &mut Collector<R>) + Send + Sync + 'static,
    ) -> Self {
        Self { first: Arc::new(first), second: Arc::new(second) }
    }
}

impl<A, B, R> Clone for CoFunctions<A, B, R> {
    fn clone(&self) -> Self {
        Self { first: self.first.clone(), second: self.second.clone() }
    }
}

impl<A, B, R> fmt::Debug for CoFunctions<A, B, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CoFunctions")
    }
}

impl<K, A: Record, B: Record, R: Record> CoProcessFunction<A, B, K> for CoFunctions<A, B, R> {
    type Output = R;

    fn process_first(&mut self, value: A, _context: &mut Context<'_, K>, out: &mut Collector<R>) -> Result<()> {
        (self.first)(value, out);
        Ok(())
    }

    fn process_second(&mut self, value: B, _context: &mut Context<'_, K>, out: &mut Collector<R>) -> Result<()> {
        (self.second)(value, out);
        Ok(())
    }
}
