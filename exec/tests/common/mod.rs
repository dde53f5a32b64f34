//! What the tests of bounded plans share: TPC-H tables, a way to run a plan through our exchanges, a comparison of results.

#![allow(dead_code, clippy::unwrap_used, reason = "every test file uses its own part of this; tests may fail loudly")]

mod collect;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Float64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};
use tidemill_core::graph::{EdgeOptions, NodeKind, Partitioning, StreamGraph, StreamNode};
use tidemill_core::settings::Origin;
use tidemill_core::{Gate, Result, Settings};
use tidemill_exec::fragments::{FragmentOptions, lower};
use tidemill_exec::runtime::{Environment, JobHandle, execute};

use collect::Collect;

/// Longer than any of these jobs takes: who needs more waits for ever.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub const TABLES: [&str; 8] = ["customer", "lineitem", "nation", "orders", "part", "partsupp", "region", "supplier"];

/// The folder of TPC-H tables: that of the variable `TPCH`, or one at scale factor 0.02, written if it is not there.
pub fn tpch_data() -> &'static Path {
    // Tests run side by side, and one of them is enough to write the tables.
    static DATA: OnceLock<PathBuf> = OnceLock::new();
    DATA.get_or_init(find_or_write_tpch_data)
}

fn find_or_write_tpch_data() -> PathBuf {
    if let Some(folder) = std::env::var_os("TPCH") {
        return folder.into();
    }
    let cache = std::env::var_os("TIDEMILL_CACHE").map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/tidemill"));
    let folder = cache.join("data/tpch-sf0.02");
    if !folder.exists() {
        let script = root().join("scripts/tpch.py");
        let python = cache.join("venv/bin/python");
        let status = Command::new(&python).arg(script).arg("0.02").arg(&folder).status();
        assert!(
            status.is_ok_and(|status| status.success()),
            "no TPC-H tables, and {} cannot write them",
            python.display()
        );
    }
    folder
}

/// The text of TPC-H query `number`.
pub fn tpch_query(number: usize) -> String {
    std::fs::read_to_string(root().join(format!("tests/tpch/q{number}.sql"))).unwrap()
}

/// The checkout, from where cargo runs the tests of this crate. Not as it was when they were compiled: clones share their builds.
fn root() -> &'static Path {
    Path::new("..")
}

/// A session over the TPC-H tables.
pub async fn tpch_session(config: SessionConfig) -> SessionContext {
    let session = SessionContext::new_with_config(config);
    let folder = tpch_data();
    for table in TABLES {
        let path = folder.join(format!("{table}.parquet"));
        session.register_parquet(table, path.to_str().unwrap(), ParquetReadOptions::default()).await.unwrap();
    }
    session
}

pub async fn physical_plan(session: &SessionContext, sql: &str) -> Arc<dyn ExecutionPlan> {
    session.sql(sql).await.unwrap().create_physical_plan().await.unwrap()
}

pub fn settings(parallelism: usize, gate: Gate) -> Settings {
    let mut settings = Settings::default();
    let gate = if gate == Gate::Full { "full".into() } else { gate.to_string() };
    settings.set("parallelism.default", &parallelism.to_string(), Origin::Program).unwrap();
    settings.set("execution.buffer-timeout", &gate, Origin::Program).unwrap();
    settings
}

/// Runs `plan` through our exchanges and returns its rows.
pub async fn run(
    session: &SessionContext,
    plan: Arc<dyn ExecutionPlan>,
    environment: &Environment,
    settings: &Settings,
) -> Result<Vec<RecordBatch>> {
    let (job, rows) = start(session, plan, environment, settings)?;
    match tokio::time::timeout(PATIENCE, job.wait()).await {
        Ok(outcome) => outcome?,
        Err(_) => {
            job.cancel();
            panic!("the job hangs");
        }
    };
    Ok(std::mem::take(&mut *rows.lock().unwrap()))
}

/// Starts `plan`; its rows gather in what is returned.
pub fn start(
    session: &SessionContext,
    plan: Arc<dyn ExecutionPlan>,
    environment: &Environment,
    settings: &Settings,
) -> Result<(JobHandle, Arc<Mutex<Vec<RecordBatch>>>)> {
    let options = FragmentOptions { parallelism: settings.parallelism(), gate: None };
    let mut graph = StreamGraph::new();
    let root = lower(plan, session.task_ctx(), &mut graph, &options)?;
    let collect = Collect::default();
    let rows = collect.0.clone();
    let (parallelism, schema) = (graph.node(root).parallelism.unwrap(), graph.node(root).schema.clone());
    let sink = StreamNode::new("collect", NodeKind::Sink(Arc::new(collect)), schema).with_parallelism(parallelism);
    let sink = graph.add(sink);
    graph.connect(root, sink, 0, Partitioning::Forward, EdgeOptions::default());
    let job = graph.to_job_graph(settings)?;
    Ok((execute(&job, environment, settings)?, rows))
}

/// One value of a result.
#[derive(Clone, Debug, PartialEq, PartialOrd)]
pub enum Cell {
    Text(String),
    Float(f64),
}

/// Rows of a result in an order of their own, exact values first.
pub fn sorted_rows(batches: &[RecordBatch]) -> Vec<Vec<Cell>> {
    let mut rows: Vec<Vec<Cell>> = batches.iter().flat_map(rows_of).collect();
    let exact = |row: &[Cell]| row.iter().filter(|cell| matches!(cell, Cell::Text(_))).cloned().collect::<Vec<_>>();
    rows.sort_by(|left, right| {
        exact(left).partial_cmp(&exact(right)).unwrap().then_with(|| left.partial_cmp(right).unwrap())
    });
    rows
}

fn rows_of(batch: &RecordBatch) -> Vec<Vec<Cell>> {
    let columns: Vec<Vec<Cell>> = batch.columns().iter().map(cells).collect();
    (0..batch.num_rows()).map(|row| columns.iter().map(|column| column[row].clone()).collect()).collect()
}

fn cells(column: &ArrayRef) -> Vec<Cell> {
    use arrow::array::AsArray;
    if column.data_type() == &DataType::Float64 && column.null_count() == 0 {
        return column.as_primitive::<Float64Type>().values().iter().map(|value| Cell::Float(*value)).collect();
    }
    let options = FormatOptions::default().with_null("NULL");
    let formatter = ArrayFormatter::try_new(column, &options).unwrap();
    (0..column.len()).map(|row| Cell::Text(formatter.value(row).to_string())).collect()
}

/// Whether two results hold the same rows; sums of floats depend on their order, a little.
pub fn assert_same(expected: &[RecordBatch], actual: &[RecordBatch], what: &str) {
    let (expected, actual) = (sorted_rows(expected), sorted_rows(actual));
    assert_eq!(expected.len(), actual.len(), "{what}: number of rows");
    for (expected, actual) in expected.iter().zip(&actual) {
        let same = expected.len() == actual.len()
            && expected.iter().zip(actual).all(|pair| match pair {
                (Cell::Float(left), Cell::Float(right)) => (left - right).abs() <= 1e-9 * left.abs().max(1.0),
                (left, right) => left == right,
            });
        assert!(same, "{what}: expected {expected:?}, got {actual:?}");
    }
}
