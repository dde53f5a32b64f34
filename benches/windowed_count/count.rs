//! Rows into windows: a key drawn uniformly from 100,000, one microsecond apart, windows of ten seconds.

use tidemill::Result;
use tidemill::sql::Session;

use crate::common::measure::{cpu_seconds, timed};
use crate::common::sql;
use crate::common::windows::{self, COUNT};

const KEYS: u64 = 100_000;

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
    sql::script(&mut session, &windows::tables(rows, KEYS))?;
    Ok(session)
}
