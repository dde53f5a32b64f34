//! What the jobs of these tests are made of.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, SchemaRef};
use datafusion::physical_expr::expressions::{col, is_not_null};
use tidemill_core::graph::{EdgeOptions, NodeIndex, NodeKind, Partitioning, SourceNode, StreamGraph, StreamNode};
use tidemill_core::operator::OperatorFactory;
use tidemill_core::settings::Origin;
use tidemill_core::source::{Source, WatermarkStrategy};
use tidemill_core::{Result, Settings};
use tidemill_exec::operators::calc::Calc;
use tidemill_exec::runtime::{Environment, JobHandle, JobResult, execute};

use crate::collect::Collect;

/// Longer than any of these jobs takes, on whichever clock: who needs more waits for ever.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A program whose nodes stand in a row.
pub struct Pipeline {
    graph: StreamGraph,
    last: NodeIndex,
    rows: Collect,
}

impl Pipeline {
    /// Begins with `source`, read by `parallelism` subtasks.
    pub fn read(source: impl Source, watermarks: Option<Arc<dyn WatermarkStrategy>>, parallelism: usize) -> Self {
        let schema = source.schema();
        let node = SourceNode { source: Arc::new(source), projection: None, derive: None, watermarks };
        let mut graph = StreamGraph::new();
        let node = StreamNode::new("source", NodeKind::Source(node), schema).with_parallelism(parallelism);
        let last = graph.add(node);
        Self { graph, last, rows: Collect::default() }
    }

    /// Goes on with `operator` behind an exchange.
    pub fn then(
        mut self,
        name: &str,
        partitioning: Partitioning,
        operator: impl OperatorFactory + 'static,
        schema: SchemaRef,
        parallelism: usize,
    ) -> Self {
        self.add(StreamNode::new(name, NodeKind::Operator(Arc::new(operator)), schema), partitioning, parallelism);
        self
    }

    /// Goes on with an operator that lets every row with a value in column `name` pass.
    pub fn then_pass(self, name: &str, partitioning: Partitioning, parallelism: usize) -> Self {
        let schema = self.graph.node(self.last).schema.clone();
        let filter = is_not_null(col(name, &schema).unwrap()).unwrap();
        self.then("pass", partitioning, Calc::filter(filter, schema.clone()), schema, parallelism)
    }

    /// Ends in a sink of one subtask that keeps all rows, and starts.
    pub fn start(mut self, environment: &Environment, settings: &Settings) -> Result<(JobHandle, Rows)> {
        let schema = self.graph.node(self.last).schema.clone();
        let sink = StreamNode::new("sink", NodeKind::Sink(Arc::new(self.rows.clone())), schema);
        let alone = self.graph.node(self.last).parallelism == Some(1);
        self.add(sink, if alone { Partitioning::Forward } else { Partitioning::Global }, 1);
        let job = self.graph.to_job_graph(settings)?;
        Ok((execute(&job, environment, settings)?, Rows(self.rows)))
    }

    fn add(&mut self, node: StreamNode, partitioning: Partitioning, parallelism: usize) {
        let node = self.graph.add(node.with_parallelism(parallelism));
        self.graph.connect(self.last, node, 0, partitioning, EdgeOptions::default());
        self.last = node;
    }
}

/// The outcome of a job that must come within [`PATIENCE`] of the environment's time.
pub async fn ended(job: &JobHandle, environment: &Environment) -> Result<JobResult> {
    tokio::select! {
        biased;
        outcome = job.wait() => outcome,
        () = environment.clock.sleep(PATIENCE) => panic!("the job hangs"),
    }
}

/// Default settings and these.
pub fn settings(pairs: &[(&str, &str)]) -> Settings {
    let mut settings = Settings::default();
    for (key, value) in pairs {
        settings.set(key, value, Origin::Program).unwrap();
    }
    settings
}

/// What came to the sink, in the order in which it came.
#[derive(Clone, Debug)]
pub struct Rows(Collect);

impl Rows {
    pub fn count(&self) -> usize {
        self.0.0.lock().unwrap().iter().map(RecordBatch::num_rows).sum()
    }

    /// Rows of `BIGINT`s and of what is stored like them, in order of their values.
    pub fn sorted(&self) -> Vec<Vec<i64>> {
        let batches = self.0.0.lock().unwrap();
        let mut rows: Vec<Vec<i64>> = batches.iter().flat_map(rows_of).collect();
        rows.sort();
        rows
    }
}

fn rows_of(records: &RecordBatch) -> Vec<Vec<i64>> {
    let column = |column: &dyn Array| {
        let numbers = arrow::compute::cast(column, &arrow::datatypes::DataType::Int64).unwrap();
        numbers.as_primitive::<Int64Type>().values().to_vec()
    };
    let columns: Vec<Vec<i64>> = records.columns().iter().map(|values| column(values)).collect();
    (0..records.num_rows()).map(|row| columns.iter().map(|values| values[row]).collect()).collect()
}
