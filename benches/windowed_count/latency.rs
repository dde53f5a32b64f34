//! How long a row is on its way: born in a source that keeps a steady pace, through a hash edge, into a sink.
//!
//! ```text
//! source (2 subtasks) ── hash(k), the gate ──> sink (2 subtasks)
//! every millisecond the rows                    now - born, for every row
//! that are due, born now
//! ```
//!
//! There is no window in between: one that lasts ten seconds would hide what the gate does.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use async_trait::async_trait;
use tidemill::{Result, Settings};
use tidemill_core::Batch;
use tidemill_core::clock::Clock;
use tidemill_core::graph::{EdgeOptions, NodeKind, Partitioning, SourceNode, StreamGraph, StreamNode};
use tidemill_core::settings::Origin;
use tidemill_core::sink::{ChangelogMode, Committer, NothingToCommit, Sink, SinkContext, SinkWriter};
use tidemill_core::source::{
    Boundedness, ListEnumerator, Source, SourceContext, SourceEvent, SourceReader, Split, SplitEnumerator,
};
use tidemill_exec::runtime::{Engine, execute};

use crate::common::measure::cpu_seconds;

const SUBTASKS: usize = 2;
/// How many keys there are.
const KEYS: u64 = 100_000;
/// How often a source looks which rows are due: the finest that the runtime's timers tell apart.
const TICK: Duration = Duration::from_millis(1);

/// How many rows come, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Over all subtasks.
    pub rows_per_second: u64,
    /// How long they come.
    pub seconds: u64,
}

/// How the rows fared.
#[derive(Clone, Copy, Debug)]
pub struct Latency {
    /// How many there were.
    pub rows: usize,
    /// Seconds that half of them were on their way, at most.
    pub p50: f64,
    /// The same for 99 of 100.
    pub p99: f64,
    /// User and system time of all threads.
    pub cpu_seconds: f64,
}

/// Runs the job once at this gate.
pub fn run(gate: &str, pace: Pace) -> Result<Latency> {
    let mut settings = Settings::default();
    settings.set("execution.buffer-timeout", gate, Origin::Program)?;
    let arrivals = Arrivals::default();
    let mut graph = StreamGraph::new();
    let source = SourceNode { source: Arc::new(Paced(pace)), projection: None, derive: None, watermarks: None };
    let mut add = |name: &str, kind| graph.add(StreamNode::new(name, kind, schema()).with_parallelism(SUBTASKS));
    let source = add("rows", NodeKind::Source(source));
    let sink = add("arrivals", NodeKind::Sink(Arc::new(arrivals.clone())));
    graph.connect(source, sink, 0, Partitioning::Hash(vec![0]), EdgeOptions::default());
    let job = graph.to_job_graph(&settings)?;
    let engine = Engine::new(Vec::new())?;
    let before = cpu_seconds()?;
    engine.block_on(async { execute(&job, engine.environment(), &settings)?.wait().await })?;
    let cpu_seconds = cpu_seconds()? - before;
    let mut nanos = std::mem::take(&mut *arrivals.0.lock().unwrap_or_else(PoisonError::into_inner));
    nanos.sort_unstable();
    let share = |percent: usize| {
        let place = (nanos.len() * percent / 100).min(nanos.len().saturating_sub(1));
        nanos.get(place).map_or(f64::NAN, |nanos| *nanos as f64 / 1e9)
    };
    Ok(Latency { rows: nanos.len(), p50: share(50), p99: share(99), cpu_seconds })
}

fn schema() -> SchemaRef {
    let number = |name| Field::new(name, DataType::Int64, false);
    Arc::new(Schema::new(vec![number("k"), number("born")]))
}

fn nanos_now(clock: &dyn Clock) -> i64 {
    clock.monotonic().as_nanos() as i64
}

/// Rows at a pace.
#[derive(Debug)]
struct Paced(Pace);

impl Source for Paced {
    fn schema(&self) -> SchemaRef {
        schema()
    }

    fn boundedness(&self) -> Boundedness {
        Boundedness::Bounded
    }

    fn enumerator(&self, context: &SourceContext) -> Result<Box<dyn SplitEnumerator>> {
        let splits = (0..context.parallelism).map(|subtask| Split::new(subtask.to_string()));
        Ok(Box::new(ListEnumerator::new(splits)))
    }

    fn reader(&self, context: &SourceContext) -> Result<Box<dyn SourceReader>> {
        let share = context.parallelism as u64;
        Ok(Box::new(PacedReader {
            rows_per_second: self.0.rows_per_second as f64 / share as f64,
            rows: self.0.rows_per_second * self.0.seconds / share,
            made: 0,
            begin: Duration::ZERO,
            split: None,
            clock: context.clock.clone(),
        }))
    }

    fn describe(&self) -> String {
        format!("paced({} rows a second)", self.0.rows_per_second)
    }
}

/// A share of the rows.
struct PacedReader {
    rows_per_second: f64,
    rows: u64,
    made: u64,
    begin: Duration,
    split: Option<Split>,
    clock: Arc<dyn Clock>,
}

#[async_trait]
impl SourceReader for PacedReader {
    async fn add_splits(&mut self, splits: Vec<Split>) -> Result<()> {
        self.split = splits.into_iter().next();
        self.begin = self.clock.monotonic();
        Ok(())
    }

    async fn next(&mut self) -> Result<SourceEvent> {
        let Some(split) = self.split.as_ref().map(|split| split.id.clone()) else {
            return Ok(SourceEvent::NeedsSplit);
        };
        if self.made == self.rows {
            self.split = None;
            return Ok(SourceEvent::SplitFinished(split));
        }
        let mut due = self.due();
        while due == self.made {
            self.clock.sleep(TICK).await;
            due = self.due();
        }
        let keys = (self.made..due).map(|row| (mixed(row) % KEYS) as i64);
        let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(keys));
        let count = (due - self.made) as usize;
        let born: ArrayRef = Arc::new(Int64Array::from_value(nanos_now(&*self.clock), count));
        self.made = due;
        let records = RecordBatch::try_new(schema(), vec![keys, born])?;
        Ok(SourceEvent::Batch { split, records, position: due.to_le_bytes().to_vec() })
    }
}

impl PacedReader {
    /// How many rows should have been made by now.
    fn due(&self) -> u64 {
        let elapsed = self.clock.monotonic().saturating_sub(self.begin).as_secs_f64();
        ((elapsed * self.rows_per_second) as u64).min(self.rows)
    }
}

/// A number that looks like chance.
fn mixed(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number ^ (number >> 27)
}

/// How many nanoseconds each row was on its way.
#[derive(Clone, Debug, Default)]
struct Arrivals(Arc<Mutex<Vec<i64>>>);

impl Sink for Arrivals {
    fn changelog_mode(&self) -> ChangelogMode {
        ChangelogMode::Append
    }

    fn prepare(&self) -> Result<Arc<dyn Committer>> {
        Ok(Arc::new(NothingToCommit))
    }

    fn writer(&self, context: &SinkContext) -> Result<Box<dyn SinkWriter>> {
        Ok(Box::new(ArrivalsWriter { arrivals: self.clone(), clock: context.clock.clone() }))
    }

    fn describe(&self) -> String {
        "arrivals".to_owned()
    }
}

struct ArrivalsWriter {
    arrivals: Arrivals,
    clock: Arc<dyn Clock>,
}

#[async_trait]
impl SinkWriter for ArrivalsWriter {
    async fn write(&mut self, batch: Batch) -> Result<()> {
        let now = nanos_now(&*self.clock);
        let records = batch.into_records();
        let born = records.column(1).as_primitive::<Int64Type>();
        let mut arrivals = self.arrivals.0.lock().unwrap_or_else(PoisonError::into_inner);
        arrivals.extend(born.values().iter().map(|born| now - born));
        Ok(())
    }
}
