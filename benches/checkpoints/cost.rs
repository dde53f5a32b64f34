//! A windowed count of a million keys with checkpoints every second, beside the same without.
//!
//! Runs come in pairs, one after the other, so that a machine that is slower for a while is slower for both. Each lasts as long, however
//! fast the machine is, and is then cancelled. CPU time is that of all threads, the encoding of checkpoints included, for each row that
//! the source has emitted.

use std::time::Duration;

use tidemill::stream::Parameters;
use tidemill::{Error, Result};
use tidemill_core::metrics::RECORDS_OUT;

use crate::common::measure::cpu_seconds;
use crate::common::windows::{self, COUNT};
use crate::common::{bytes, head, median, progress, row, sql};
use crate::increments::start;

const KEYS: u64 = 1_000_000;

/// More rows than come before somebody cancels. Not many more: the generator deals so many in longer ranges, so that subtasks are further
/// apart in event time, and more windows stand open.
const ROWS: u64 = 2_000_000_000;

/// What a run took, and its checkpoints.
struct Run {
    rows: u64,
    cpu_nanos_a_row: f64,
    checkpoints: u64,
    new_bytes: Vec<f64>,
    stalled: Vec<f64>,
}

/// Prints the table.
pub fn bench(given: &Parameters) -> Result<()> {
    let seconds: u64 = given.parsed("seconds")?.unwrap_or(62);
    let pairs: usize = given.parsed("pairs")?.unwrap_or(11);
    let interval: String = given.parsed("interval")?.unwrap_or_else(|| "1 s".to_owned());
    println!(
        "Cost: {seconds} s each, a million keys, windows of ten seconds, a checkpoint every {interval}; {pairs} pairs\n"
    );
    head(["pair", "CPU-ns a row without", "with", "ratio", "rows with", "checkpoints", "bytes each", "longest stop"]);
    let mut ratios = Vec::new();
    for pair in 0..pairs {
        progress(format!("pair {} of {pairs}", pair + 1));
        // Who comes first changes with each pair.
        let (without, with) = match pair % 2 {
            0 => (run(seconds, None)?, run(seconds, Some(&interval))?),
            _ => {
                let with = run(seconds, Some(&interval))?;
                (run(seconds, None)?, with)
            }
        };
        let ratio = with.cpu_nanos_a_row / without.cpu_nanos_a_row;
        ratios.push(ratio);
        row([
            (pair + 1).to_string(),
            format!("{:.2}", without.cpu_nanos_a_row),
            format!("{:.2}", with.cpu_nanos_a_row),
            format!("{ratio:.3}"),
            format!("{:.0} M", with.rows as f64 / 1e6),
            with.checkpoints.to_string(),
            bytes(median(with.new_bytes.iter().copied()) as u64),
            format!("{:.1} ms", with.stalled.iter().copied().fold(0.0, f64::max)),
        ]);
    }
    println!("\nmedian ratio {:.3}", median(ratios));
    Ok(())
}

fn run(seconds: u64, interval: Option<&str>) -> Result<Run> {
    let folder = std::env::temp_dir().join(format!("tidemill-checkpoints-{}", std::process::id()));
    let dir = folder.display().to_string();
    let mut settings = vec![("execution.runtime-mode", "streaming"), ("parallelism.default", "2")];
    if let Some(interval) = interval {
        settings
            .extend([("execution.checkpointing.interval", interval), ("execution.checkpointing.dir", dir.as_str())]);
    }
    let mut session = sql::session(settings)?;
    sql::script(&mut session, &windows::tables(ROWS, KEYS))?;
    let before = cpu_seconds()?;
    start(&mut session, COUNT)?;
    std::thread::sleep(Duration::from_secs(seconds));
    let cpu = cpu_seconds()? - before;
    let job = session.jobs().last().ok_or_else(|| Error::internal("no job runs"))?;
    let counters = job.handle.metrics().by_task();
    let rows: u64 = counters.iter().filter_map(|(_, counters)| counters.get(RECORDS_OUT)).sum();
    let (checkpoints, counts) = (job.handle.checkpoints(), job.handle.checkpoint_counts());
    if let Some(ended) = job.handle.outcome() {
        return Err(ended.err().unwrap_or_else(|| Error::internal("the job ended by itself: it needs more rows")));
    }
    job.handle.cancel();
    // Waits for what still works.
    drop(session);
    let _ = std::fs::remove_dir_all(&folder);
    Ok(Run {
        rows,
        cpu_nanos_a_row: cpu * 1e9 / rows as f64,
        checkpoints: counts.completed,
        new_bytes: checkpoints.iter().map(|checkpoint| checkpoint.new_bytes as f64).collect(),
        stalled: checkpoints.iter().map(|checkpoint| checkpoint.stalled.as_secs_f64() * 1e3).collect(),
    })
}
