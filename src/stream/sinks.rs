//! Where streams end: the program itself, the terminal, files, and any sink that somebody wrote.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use tidemill_connectors::filesystem::FileSink;
use tidemill_connectors::formats::compression::Compression;
use tidemill_connectors::formats::{CsvOptions, Format};
use tidemill_connectors::store::Stores;
use tidemill_connectors::{CollectHandle, CollectSink, KeyedTable};
use tidemill_core::sink::Sink;
use tidemill_core::{Batch, Result};

pub use tidemill_connectors::filesystem::WriteMode;

use super::data_stream::DataStream;
use super::environment::Environment;
use super::layout::RowCodec;
use super::lines::LineCodec;
use super::print_lines::PrintLines;
use super::program::{Kind, Node, NodeId, SinkFactory};
use super::record::Record;

/// Batches between the job and the program that collects.
const COLLECT_BATCHES: usize = 16;

/// A sink that was added to a program, to be placed and named.
#[derive(Clone, Debug)]
pub struct DataSink {
    environment: Environment,
    /// The sink, and what makes it its rows.
    nodes: Vec<NodeId>,
}

impl DataSink {
    /// Writes with so many subtasks (ENV-06).
    pub fn set_parallelism(&self, parallelism: usize) -> Self {
        for node in &self.nodes {
            self.environment.program().node_mut(*node).parallelism = Some(parallelism);
        }
        self.clone()
    }

    /// Names the sink, for plans, errors and metrics.
    pub fn name(&self, name: &str) -> Self {
        self.tuned(|sink| sink.name = name.to_owned())
    }

    /// Gives the sink an identity for what it keeps in checkpoints, so that it finds it again in a changed program.
    pub fn uid(&self, uid: impl Into<String>) -> Self {
        self.tuned(|sink| sink.uid = Some(uid.into()))
    }

    fn tuned(&self, tune: impl FnOnce(&mut Node)) -> Self {
        if let Some(sink) = self.nodes.last() {
            tune(self.environment.program().node_mut(*sink));
        }
        self.clone()
    }
}

impl<T: Record> DataStream<T> {
    /// Prints every record as a line, behind the number of the subtask if several print (SNK-02).
    pub fn print(&self) -> DataSink {
        self.lines_to("print", Arc::new(|_, _| Ok(Arc::new(PrintLines::standard_output()))))
    }

    /// Prints to standard error.
    pub fn print_to_err(&self) -> DataSink {
        self.lines_to("print to stderr", Arc::new(|_, _| Ok(Arc::new(PrintLines::standard_error()))))
    }

    /// Writes every record as a line: one file with a parallelism of 1, else a directory of files `1` to `n` (SNK-03, SUB-14).
    /// Files appear when the job has ended well. A job that goes on with another parallelism leaves the files of that.
    pub fn write_as_text(&self, path: &str, mode: WriteMode) -> DataSink {
        let schema = LineCodec(self.codec.clone()).schema();
        self.lines_to(
            "write as text",
            file_sink(self.environment.stores(), path, Format::Raw(Compression::None), schema, mode),
        )
    }

    /// Writes every record as a line of fields (SNK-06), in files as [`DataStream::write_as_text`] does.
    pub fn write_as_csv(&self, path: &str, mode: WriteMode) -> DataSink {
        let format = Format::Csv(CsvOptions::default(), Compression::None);
        self.to_sink(
            "write as csv",
            file_sink(self.environment.stores(), path, format, self.plain(false).schema(), mode),
        )
    }

    /// Gives every record to a sink, as the columns that it has. Event time, if there is any, does not leave with them.
    pub fn add_sink(&self, sink: Arc<dyn Sink>) -> DataSink {
        self.to_sink("sink", Arc::new(move |_, _| Ok(sink.clone())))
    }

    /// Keeps the newest record of each key in a table of at most `rows_max` rows, for the program to read while the job runs and when it
    /// has ended. `key` names the columns that tell records apart; those of a tuple are called `0`, `1` and so on. After a failure the
    /// table is in the end as if there had been none (CON-04).
    ///
    /// ```
    /// use arrow::array::AsArray;
    /// use arrow::datatypes::Int64Type;
    /// use tidemill::stream::Environment;
    ///
    /// let environment = Environment::local();
    /// let words = environment.from_elements(["to", "be", "or", "not", "to", "be"].map(str::to_owned));
    /// let counts = words.map(|word| (word, 1_i64)).key_by(|word| word.0.clone()).sum(|word| &mut word.1);
    /// let table = counts.keep_by_key(&["0"], 1_000)?;
    /// environment.execute("count words")?;
    /// let rows = table.rows()?;
    /// let words: Vec<_> = rows.column(0).as_string::<i32>().iter().flatten().zip(rows.column(1).as_primitive::<Int64Type>().values()).collect();
    /// assert_eq!(words, [("be", &2), ("not", &1), ("or", &1), ("to", &2)]);
    /// # Ok::<(), tidemill_core::Error>(())
    /// ```
    pub fn keep_by_key(&self, key: &[&str], rows_max: usize) -> Result<KeyedTable> {
        let table = KeyedTable::new(self.plain(false).schema(), key, rows_max)?;
        let sink: Arc<dyn Sink> = Arc::new(table.clone());
        self.to_sink("keep by key", Arc::new(move |_, _| Ok(sink.clone())));
        Ok(table)
    }

    /// Runs everything that leads here and returns the records (SNK-01), in no order if several subtasks made them.
    ///
    /// Sinks that were added to the program wait for [`Environment::execute`] as before.
    pub fn collect(&self) -> Result<Vec<T>> {
        let environment = &self.environment;
        environment.runner().check_blocking("collect")?;
        let (sink, handle) = self.collecting();
        let (job, settings) = environment.job("collect", &[sink])?;
        self.decoded(environment.runner().run_and_collect(&job, &settings, handle)?)
    }

    /// The same within an async task.
    pub async fn collect_async(&self) -> Result<Vec<T>> {
        let (sink, handle) = self.collecting();
        let (job, settings) = self.environment.job("collect", &[sink])?;
        self.decoded(self.environment.runner().start_and_collect(&job, &settings, handle).await?)
    }

    fn collecting(&self) -> (NodeId, CollectHandle) {
        let (sink, handle) = CollectSink::new(COLLECT_BATCHES);
        let sink: Arc<dyn Sink> = Arc::new(sink);
        let create: SinkFactory = Arc::new(move |_, _| Ok(sink.clone()));
        let schema = self.plain(self.timed).schema();
        let mut node = Node::untyped("collect", self.inputs.clone(), Kind::Sink(create), schema);
        // Where the rows are made, they are handed over.
        node.follows_producer = true;
        (self.environment.program().add(node), handle)
    }

    fn decoded(&self, batches: Vec<Batch>) -> Result<Vec<T>> {
        let codec = self.plain(self.timed);
        let mut records = Vec::with_capacity(batches.iter().map(Batch::num_rows).sum());
        for batch in batches {
            records.extend(codec.decode_rows(batch.records())?.values);
        }
        Ok(records)
    }

    fn lines_to(&self, name: &str, create: SinkFactory) -> DataSink {
        let lines = self.recoded("", Arc::new(LineCodec(self.codec.clone())), false, false);
        lines.sink_node(name, create)
    }

    fn to_sink(&self, name: &str, create: SinkFactory) -> DataSink {
        // A source may have other columns than its records: the sink gets those of the records.
        let plain = self.recoded("", Arc::new(self.plain(false)), false, false);
        plain.sink_node(name, create)
    }

    fn sink_node(&self, name: &str, create: SinkFactory) -> DataSink {
        let mut program = self.environment.program();
        let schema = self.inputs.first().map(|input| program.node(input.node).schema.clone());
        let schema = schema.unwrap_or_else(|| self.plain(false).schema());
        let sink = program.add(Node::untyped(name, self.inputs.clone(), Kind::Sink(create), schema));
        program.add_pending(sink);
        let above = self.inputs.iter().map(|input| input.node);
        let nodes = above.chain([sink]).collect();
        DataSink { environment: self.environment.clone(), nodes }
    }
}

/// One file or a directory of numbered ones, according to how many subtasks write.
fn file_sink(stores: Stores, path: &str, format: Format, schema: SchemaRef, mode: WriteMode) -> SinkFactory {
    let path = path.to_owned();
    Arc::new(move |parallelism, job| {
        let location = stores.resolve(&path)?;
        // Two sinks of one job may write into one directory; until they are published, files are told apart by this name.
        let writer = format!("{job}-{}", location.name());
        let (format, schema) = (format.clone(), schema.clone());
        Ok(Arc::new(FileSink::write_as(path.as_str(), location, format, schema, &writer, mode, parallelism)?))
    })
}
