//! Rows into windows: a key drawn uniformly from 100,000, one microsecond apart, windows of ten seconds.

use tidemill::Result;
use tidemill::sql::Session;

use crate::common::measure::{cpu_seconds, timed};
use crate::common::sql;

const TABLES: &str = "
CREATE TABLE rows (k BIGINT, ts TIMESTAMP(6), WATERMARK FOR ts AS ts) WITH (
  'connector' = 'datagen', 'number-of-rows' = '{rows}', 'seed' = '1',
  'fields.k.kind' = 'random', 'fields.k.min' = '0', 'fields.k.max' = '99999',
  'fields.ts.kind' = 'sequence', 'fields.ts.start' = '2024-01-01 00:00:00', 'fields.ts.step' = '1 us');
CREATE TABLE nowhere (k BIGINT, n BIGINT) WITH ('connector' = 'blackhole');
";

const COUNT: &str = "
INSERT INTO nowhere SELECT k, COUNT(*) FROM TABLE(TUMBLE(TABLE rows, DESCRIPTOR(ts), INTERVAL '10' SECOND))
GROUP BY k, window_start, window_end";

/// What a run took, in seconds.
#[derive(Clone, Copy, Debug)]
pub struct Spent {
    /// User and system time of all threads.
    pub cpu: f64,
    /// Time that passed.
    pub wall: f64,
}

impl Spent {
    /// What `work` takes.
    pub fn on(work: impl FnOnce() -> Result<()>) -> Result<Self> {
        let before = cpu_seconds()?;
        let ((), wall) = timed(work)?;
        Ok(Self { cpu: cpu_seconds()? - before, wall })
    }
}

/// The job graph, as `EXPLAIN` prints it.
pub fn job_graph(rows: u64) -> Result<String> {
    sql::job_graph(&mut session("100 ms", rows)?, COUNT)
}

/// One run.
pub fn run(gate: &str, rows: u64) -> Result<Spent> {
    let mut session = session(gate, rows)?;
    Spent::on(|| sql::script(&mut session, COUNT).map(drop))
}

fn session(gate: &str, rows: u64) -> Result<Session> {
    let streaming = ("execution.runtime-mode", "streaming");
    let mut session = sql::session([streaming, ("execution.buffer-timeout", gate), ("parallelism.default", "2")])?;
    sql::script(&mut session, &TABLES.replace("{rows}", &rows.to_string()))?;
    Ok(session)
}
