//! Streams of typed records, and the functions of rows on them.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use tidemill_core::{Error, Result};

use super::environment::Environment;
use super::layout::{PlainCodec, RowCodec};
use super::program::{Input, Kind, Node, NodeId};
use super::record::{Codec, Record};
use super::rows::Collector;
use super::stage::{self, StageFactory, user_error};
use super::whole_batch::WholeBatches;

/// A stream of records of one type, bounded or not.
///
/// Every method adds to the program and returns at once; nothing runs before [`Environment::execute`] or
/// [`DataStream::collect`]. A stream can be used any number of times: each consumer gets every record. Functions that follow
/// each other are fused into one operator, so that a record is decoded once and encoded once a task.
///
/// A function that panics fails the job; the `try_` forms return an error instead.
///
/// ```
/// use tidemill::stream::Environment;
///
/// let environment = Environment::collections();
/// let words = environment
///     .from_elements(["to be or".to_owned(), "not to be".to_owned()])
///     .flat_map(|line, words| words.extend(line.split(' ').map(str::to_owned)))
///     .filter(|word| word.len() > 2);
/// assert_eq!(words.collect()?, ["not"]);
/// # Ok::<(), tidemill_core::Error>(())
/// ```
pub struct DataStream<T> {
    pub(super) environment: Environment,
    /// Where the records come from; several are a union.
    pub(super) inputs: Vec<Input>,
    pub(super) codec: Codec<T>,
    /// Whether the records have event time.
    pub(super) timed: bool,
}

impl<T> Clone for DataStream<T> {
    fn clone(&self) -> Self {
        Self {
            environment: self.environment.clone(),
            inputs: self.inputs.clone(),
            codec: self.codec.clone(),
            timed: self.timed,
        }
    }
}

impl<T> fmt::Debug for DataStream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes: Vec<NodeId> = self.inputs.iter().map(|input| input.node).collect();
        write!(f, "DataStream<{}>({nodes:?})", std::any::type_name::<T>())
    }
}

impl<T: Record> DataStream<T> {
    /// One record for each record (SOP-01).
    pub fn map<U: Record>(&self, function: impl Fn(T) -> U + Send + Sync + 'static) -> DataStream<U> {
        self.rows("map", stage::map(move |record| Ok(function(record))))
    }

    /// One record for each record, or the failure of the job.
    ///
    /// ```
    /// use tidemill::stream::Environment;
    /// let numbers = Environment::collections().from_elements(["1".to_owned(), "x".to_owned()]);
    /// let error = numbers.try_map(|text| text.parse::<i64>()).collect().unwrap_err();
    /// assert!(error.to_string().starts_with("invalid digit found in string"));
    /// ```
    pub fn try_map<U, E>(&self, function: impl Fn(T) -> Result<U, E> + Send + Sync + 'static) -> DataStream<U>
    where
        U: Record,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.rows("map", stage::map(move |record| function(record).map_err(user_error)))
    }

    /// Any number of records for each record.
    pub fn flat_map<U: Record>(
        &self,
        function: impl Fn(T, &mut Collector<U>) + Send + Sync + 'static,
    ) -> DataStream<U> {
        let function = move |record: T, out: &mut Collector<U>| {
            function(record, out);
            Ok(())
        };
        self.rows("flat_map", stage::flat_map(function))
    }

    /// Any number of records for each record, or the failure of the job.
    pub fn try_flat_map<U, E>(
        &self,
        function: impl Fn(T, &mut Collector<U>) -> Result<(), E> + Send + Sync + 'static,
    ) -> DataStream<U>
    where
        U: Record,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let function = move |record: T, out: &mut Collector<U>| function(record, out).map_err(user_error);
        self.rows("flat_map", stage::flat_map(function))
    }

    /// The records for which `function` is true.
    pub fn filter(&self, function: impl Fn(&T) -> bool + Send + Sync + 'static) -> DataStream<T> {
        self.rows("filter", stage::filter(move |record: &T| Ok(function(record))))
    }

    /// The records for which `function` is true, or the failure of the job.
    pub fn try_filter<E>(&self, function: impl Fn(&T) -> Result<bool, E> + Send + Sync + 'static) -> DataStream<T>
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.rows("filter", stage::filter(move |record: &T| function(record).map_err(user_error)))
    }

    /// A function of whole batches: columns in, columns out, no record is made.
    ///
    /// It sees the columns of `T`, behind the column [`ROWTIME`](super::ROWTIME) if the records have event time, and returns
    /// those of `U`, found by their names, with [`ROWTIME`](super::ROWTIME) if it got it. How rows are cut into batches is not
    /// part of the program's meaning, so neither should its result be.
    ///
    /// ```
    /// use arrow::array::{AsArray, Int64Array, RecordBatch};
    /// use arrow::datatypes::Int64Type;
    /// use tidemill::stream::Environment;
    ///
    /// let numbers = Environment::collections().generate_sequence(1, 3);
    /// let doubled = numbers.map_batches::<i64>(|batch| {
    ///     let doubled = batch.column(0).as_primitive::<Int64Type>().unary::<_, Int64Type>(|n| n * 2);
    ///     Ok(RecordBatch::try_from_iter([("item", std::sync::Arc::new(doubled) as _)])?)
    /// });
    /// assert_eq!(doubled.collect()?, [2, 4, 6]);
    /// # Ok::<(), tidemill_core::Error>(())
    /// ```
    pub fn map_batches<U: Record>(
        &self,
        function: impl Fn(RecordBatch) -> Result<RecordBatch> + Send + Sync + 'static,
    ) -> DataStream<U> {
        let codec = self.codec_of::<U>();
        let schema = PlainCodec::new(codec.clone(), self.timed).schema();
        let own = self.plain(self.timed).schema();
        let factory = WholeBatches { input: own, output: schema.clone(), function: Arc::new(function) };
        let node = Node::untyped("map_batches", self.inputs.clone(), Kind::Batches(Arc::new(factory)), schema);
        self.added(node, codec, self.timed)
    }

    /// All records of both streams, in no order between them; a stream united with itself has every record twice (SOP-06).
    pub fn union(&self, other: &DataStream<T>) -> DataStream<T> {
        if !self.environment.is_same(&other.environment) {
            self.fail(Error::request("a union of streams of two environments"));
        }
        let timed = self.timed || other.timed;
        let (left, right) = (self.with_time_column(timed), other.with_time_column(timed));
        DataStream { inputs: [left.inputs, right.inputs].concat(), timed, ..self.clone() }
    }

    /// The same records with or without the column of event time.
    pub(super) fn with_time_column(&self, timed: bool) -> DataStream<T> {
        match self.timed == timed {
            true => self.clone(),
            false => self.recoded("", Arc::new(self.plain(timed)), timed, true),
        }
    }

    /// A function of rows.
    pub(super) fn rows<U: Record>(&self, name: &str, stage: StageFactory) -> DataStream<U> {
        self.rows_timed(name, stage, self.timed)
    }

    /// A function of rows that decides whether they have event time.
    pub(super) fn rows_timed<U: Record>(&self, name: &str, stage: StageFactory, timed: bool) -> DataStream<U> {
        let codec = self.codec_of::<U>();
        let kind = Kind::Rows(Arc::new(self.plain(self.timed)), Some(stage));
        let output = Arc::new(PlainCodec::new(codec.clone(), timed));
        self.added(Node::typed(name, self.inputs.clone(), kind, output), codec, timed)
    }

    /// The same records in another encoding.
    pub(super) fn recoded(&self, name: &str, output: Arc<dyn RowCodec>, timed: bool, follows: bool) -> DataStream<T> {
        let kind = Kind::Rows(Arc::new(self.plain(self.timed)), None);
        let mut node = Node::typed(name, self.inputs.clone(), kind, output);
        node.follows_producer = follows;
        self.added(node, self.codec.clone(), timed)
    }

    pub(super) fn added<U>(&self, node: Node, codec: Codec<U>, timed: bool) -> DataStream<U> {
        let node = self.environment.program().add(node);
        DataStream { environment: self.environment.clone(), inputs: vec![Input::main(node)], codec, timed }
    }

    pub(super) fn plain(&self, timed: bool) -> PlainCodec<T> {
        PlainCodec::new(self.codec.clone(), timed)
    }

    /// The codec of `U`; what is wrong with it is reported by the execution.
    pub(super) fn codec_of<U: Record>(&self) -> Codec<U> {
        self.environment.codec_of()
    }

    pub(super) fn fail(&self, error: Error) {
        self.environment.program().fail(error);
    }
}

impl Environment {
    /// The codec of `U`; what is wrong with it is reported by the execution.
    pub(super) fn codec_of<U: Record>(&self) -> Codec<U> {
        Codec::new().unwrap_or_else(|error| {
            self.program().fail(error);
            Codec::unknown()
        })
    }
}
