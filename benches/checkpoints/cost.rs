//! A windowed count of a million keys with checkpoints every second, beside the same without.
//!
//! Runs come in pairs, one after the other, so that a machine that is slower for a while is slower for both. CPU time is that of all
//! threads, the encoding of checkpoints included.

use tidemill::stream::Parameters;
use tidemill::{Error, Result};

use crate::common::measure::{cpu_seconds, timed};
use crate::common::windows::{self, COUNT};
use crate::common::{bytes, head, median, progress, row, sql};

const KEYS: u64 = 1_000_000;

/// What a run took, and its checkpoints.
struct Run {
    cpu: f64,
    wall: f64,
    checkpoints: usize,
    new_bytes: Vec<f64>,
    stalled: Vec<f64>,
}

/// Prints the table.
pub fn bench(given: &Parameters) -> Result<()> {
    let rows: u64 = given.parsed("rows")?.unwrap_or(600_000_000);
    let pairs: usize = given.parsed("pairs")?.unwrap_or(11);
    let interval: String = given.parsed("interval")?.unwrap_or_else(|| "1 s".to_owned());
    println!(
        "Cost: {rows} rows, a million keys, windows of ten seconds, a checkpoint every {interval}; {pairs} pairs\n"
    );
    head(["pair", "CPU-s without", "CPU-s with", "ratio", "wall with", "checkpoints", "bytes each", "longest stop"]);
    let mut ratios = Vec::new();
    for pair in 0..pairs {
        progress(format!("pair {} of {pairs}", pair + 1));
        // Who comes first changes with each pair.
        let (without, with) = match pair % 2 {
            0 => (run(rows, None)?, run(rows, Some(&interval))?),
            _ => {
                let with = run(rows, Some(&interval))?;
                (run(rows, None)?, with)
            }
        };
        let ratio = with.cpu / without.cpu;
        ratios.push(ratio);
        row([
            (pair + 1).to_string(),
            format!("{:.2}", without.cpu),
            format!("{:.2}", with.cpu),
            format!("{ratio:.3}"),
            format!("{:.1} s", with.wall),
            with.checkpoints.to_string(),
            bytes(median(with.new_bytes.iter().copied()) as u64),
            format!("{:.1} ms", with.stalled.iter().copied().fold(0.0, f64::max)),
        ]);
    }
    println!("\nmedian ratio {:.3}", median(ratios));
    Ok(())
}

fn run(rows: u64, interval: Option<&str>) -> Result<Run> {
    let folder = std::env::temp_dir().join(format!("tidemill-checkpoints-{}", std::process::id()));
    let dir = folder.display().to_string();
    let mut settings = vec![("execution.runtime-mode", "streaming"), ("parallelism.default", "2")];
    if let Some(interval) = interval {
        settings
            .extend([("execution.checkpointing.interval", interval), ("execution.checkpointing.dir", dir.as_str())]);
    }
    let mut session = sql::session(settings)?;
    sql::script(&mut session, &windows::tables(rows, KEYS))?;
    let before = cpu_seconds()?;
    let (outcome, wall) = timed(|| sql::script(&mut session, COUNT))?;
    drop(outcome);
    let cpu = cpu_seconds()? - before;
    let job = session.jobs().last().ok_or_else(|| Error::internal("no job ran"))?;
    let checkpoints = job.handle.checkpoints();
    let _ = std::fs::remove_dir_all(&folder);
    Ok(Run {
        cpu,
        wall,
        checkpoints: checkpoints.len(),
        new_bytes: checkpoints.iter().map(|checkpoint| checkpoint.new_bytes as f64).collect(),
        stalled: checkpoints.iter().map(|checkpoint| checkpoint.stalled.as_secs_f64() * 1e3).collect(),
    })
}
