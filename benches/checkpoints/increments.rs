//! Many keys, one in a hundred drawn at random between two checkpoints: what a checkpoint writes, beside a savepoint of the same
//! state, and how long it holds a task up.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tidemill::sql::parser::parse_script;
use tidemill::sql::{Outcome, Session};
use tidemill::stream::Parameters;
use tidemill::{Error, Result};
use tidemill_exec::runtime::CheckpointStatus;

use crate::common::measure::resident_bytes_max;
use crate::common::{bytes, head, median, progress, row, sql};
use crate::recovery;

/// How many checkpoints count, the last ones; as many as a job remembers.
const CHECKPOINTS: u64 = 100;
/// How long the job is given to take in every key once.
const LOADING: Duration = Duration::from_secs(30);

/// Counts each key: all of them once, then some at random every second.
pub fn statements(keys: u64) -> String {
    let (last, changed) = (keys - 1, keys / 100);
    format!(
        "CREATE TABLE every (k BIGINT) WITH ('connector' = 'datagen', 'number-of-rows' = '{keys}',
           'fields.k.kind' = 'sequence', 'fields.k.start' = '0', 'fields.k.end' = '{last}');
         CREATE TABLE some (k BIGINT) WITH ('connector' = 'datagen', 'rows-per-second' = '{changed}', 'seed' = '1',
           'fields.k.kind' = 'random', 'fields.k.min' = '0', 'fields.k.max' = '{last}');
         CREATE TABLE nowhere (k BIGINT, n BIGINT) WITH ('connector' = 'blackhole');
         INSERT INTO nowhere SELECT k, COUNT(*) FROM (SELECT k FROM every UNION ALL SELECT k FROM some) AS both GROUP BY k;"
    )
}

/// The setting for so much memory for state.
pub fn memory(budget: Option<&str>) -> Option<(&str, &str)> {
    budget.map(|budget| ("taskmanager.memory.managed.size", budget))
}

/// Starts a script that ends with a job, and leaves it running.
pub fn start(session: &mut Session, text: &str) -> Result<()> {
    for parsed in parse_script(text)? {
        if let Outcome::Table(_) | Outcome::Query(_) = session.run(&parsed)? {
            return Err(Error::internal("a script that does not only declare and insert"));
        }
    }
    Ok(())
}

/// Prints the tables.
pub fn bench(given: &Parameters) -> Result<()> {
    let keys: u64 = given.parsed("keys")?.unwrap_or(10_000_000);
    let backend = given.get("backend").unwrap_or("memory");
    let folder = std::env::temp_dir().join(format!("tidemill-increments-{}", std::process::id()));
    let measured = increments(keys, backend, given.get("budget"), &folder)
        .and_then(|kept| recovery::bench(keys, backend, given.get("budget"), &kept));
    let _ = std::fs::remove_dir_all(&folder);
    measured
}

/// What is left of a job that was stopped.
#[derive(Debug)]
pub struct Kept {
    /// A savepoint of all of its state: each key once, in Parquet.
    pub savepoint: PathBuf,
    /// Its last checkpoint: all of the state as it was once, and what changed since, as it was written.
    pub checkpoint: PathBuf,
}

fn increments(keys: u64, backend: &str, budget: Option<&str>, folder: &Path) -> Result<Kept> {
    let (checkpoints, savepoints) = (folder.join("checkpoints"), folder.join("savepoints"));
    let (dir, savepoint_dir) = (checkpoints.display().to_string(), savepoints.display().to_string());
    let settings = [
        ("execution.runtime-mode", "streaming"),
        ("parallelism.default", "2"),
        ("state.backend.type", backend),
        ("execution.checkpointing.interval", "1 s"),
        ("execution.checkpointing.dir", dir.as_str()),
        ("execution.checkpointing.savepoint-dir", savepoint_dir.as_str()),
    ];
    let mut session = sql::session(settings.into_iter().chain(memory(budget)))?;
    start(&mut session, &statements(keys))?;
    let job = session.jobs().last().ok_or_else(|| Error::internal("no job runs"))?.clone();
    let (mut first, mut waited) = (None, Duration::ZERO);
    let done = loop {
        std::thread::sleep(Duration::from_secs(1));
        waited += Duration::from_secs(1);
        if let Some(ended) = job.handle.outcome() {
            return Err(ended.err().unwrap_or_else(|| Error::internal("the job ended by itself")));
        }
        let all = job.handle.checkpoints();
        let newest = all.last().map_or(0, |checkpoint| checkpoint.id);
        if waited < LOADING {
            continue;
        }
        let begin = *first.get_or_insert(newest);
        progress(format!("checkpoint {} of {CHECKPOINTS}", newest - begin));
        if newest > begin + CHECKPOINTS {
            break all;
        }
    };
    start(&mut session, "STOP JOB '1' WITH SAVEPOINT")?;
    let kept = Kept { savepoint: only_entry(&savepoints)?, checkpoint: only_entry(&checkpoints)? };
    let full = size_of_files(&kept.savepoint)? as f64;
    // The newest was under way, most likely.
    let done: Vec<_> = done.into_iter().filter(|checkpoint| checkpoint.status != CheckpointStatus::Pending).collect();
    if let Some(failed) = done.iter().find(|checkpoint| checkpoint.status != CheckpointStatus::Completed) {
        return Err(Error::internal(format!("checkpoint {} failed: {:?}", failed.id, failed.failure)));
    }
    let new: Vec<f64> = done.iter().map(|checkpoint| checkpoint.new_bytes as f64).collect();
    let mean = new.iter().sum::<f64>() / new.len() as f64;
    let mut stalls: Vec<f64> = done.iter().map(|checkpoint| checkpoint.stalled.as_secs_f64() * 1e3).collect();
    stalls.sort_by(f64::total_cmp);
    let mut longest: Vec<_> = done.iter().enumerate().collect();
    longest.sort_by_key(|(_, checkpoint)| std::cmp::Reverse(checkpoint.stalled));
    for (place, checkpoint) in longest.into_iter().take(5) {
        let (stalled, new) = (checkpoint.stalled.as_secs_f64() * 1e3, bytes(checkpoint.new_bytes));
        progress(format!("checkpoint {place} of {} stopped a task for {stalled:.1} ms and wrote {new}", done.len()));
    }
    let at = |share: f64| stalls.get(((stalls.len() as f64 * share) as usize).min(stalls.len() - 1)).copied();
    println!(
        "Increments: {keys} keys, one in a hundred changed a second, state backend {backend}, memory {}, {} checkpoints\n",
        budget.unwrap_or("for all"),
        done.len()
    );
    head([
        "savepoint",
        "mean of a checkpoint",
        "share",
        "median",
        "greatest",
        "longest stop p50",
        "p99",
        "greatest",
        "peak resident",
    ]);
    row([
        bytes(full as u64),
        bytes(mean as u64),
        format!("{:.2} %", mean / full * 100.0),
        bytes(median(new.iter().copied()) as u64),
        bytes(new.iter().copied().fold(0.0, f64::max) as u64),
        format!("{:.1} ms", at(0.5).unwrap_or(f64::NAN)),
        format!("{:.1} ms", at(0.99).unwrap_or(f64::NAN)),
        format!("{:.1} ms", at(1.0).unwrap_or(f64::NAN)),
        bytes(resident_bytes_max()?),
    ]);
    Ok(kept)
}

/// What alone is in a folder.
fn only_entry(folder: &Path) -> Result<PathBuf> {
    let entries = std::fs::read_dir(folder).map_err(Error::from)?;
    let entry = entries.filter_map(|entry| Some(entry.ok()?.path())).next();
    entry.ok_or_else(|| Error::internal(format!("nothing was written to {}", folder.display())))
}

/// Bytes of all files below a folder.
pub fn size_of_files(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder).map_err(Error::from)? {
        let entry = entry.map_err(Error::from)?;
        let meta = entry.metadata().map_err(Error::from)?;
        bytes += if meta.is_dir() { size_of_files(&entry.path())? } else { meta.len() };
    }
    Ok(bytes)
}
