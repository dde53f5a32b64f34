//! A windowed count of a million keys with checkpoints every second, beside the same without.
//!
//! Runs come in pairs of two processes, of which one works and the other one is stopped, in turns of a few seconds, so that a machine
//! that is slower for a while is slower for both. Each works as long, however fast the machine is. CPU time is that of all threads, the
//! encoding of checkpoints included, for each row that the source has emitted. A process that goes on makes a checkpoint at once, so
//! there are a few more of them than one an interval.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tidemill::stream::Parameters;
use tidemill::{Error, Result};
use tidemill_core::metrics::RECORDS_OUT;

use crate::common::measure::cpu_seconds;
use crate::common::windows::{self, COUNT};
use crate::common::{bytes, head, median, process, progress, row, sql};
use crate::increments::start;

/// How long one of a pair works before it is the other one's turn.
const TURN: Duration = Duration::from_secs(5);

const KEYS: u64 = 1_000_000;

/// More rows than come before somebody cancels. Not many more: the generator deals so many in longer ranges, so that subtasks are further
/// apart in event time, and more windows stand open.
const ROWS: u64 = 2_000_000_000;

/// What a run took, and its checkpoints.
struct Run {
    rows: f64,
    cpu_nanos_a_row: f64,
    checkpoints: f64,
    new_bytes: f64,
    stalled_millis: f64,
}

/// Prints the table.
pub fn bench(given: &Parameters) -> Result<()> {
    let seconds: u64 = given.parsed("seconds")?.unwrap_or(62);
    let pairs: usize = given.parsed("pairs")?.unwrap_or(11);
    let interval: String = given.parsed("interval")?.unwrap_or_else(|| "1 s".to_owned());
    println!(
        "Cost: {seconds} s each, a million keys, windows of ten seconds, a checkpoint every {interval}; {pairs} pairs\n"
    );
    head(["pair", "CPU-ns a row without", "with", "ratio", "rows with", "checkpoints", "bytes each", "stop p50"]);
    let (mut ratios, mut all) = (Vec::new(), [0.0, 0.0]);
    for pair in 0..pairs {
        progress(format!("pair {} of {pairs}", pair + 1));
        // Who comes first changes with each pair.
        let [without, with] = match pair % 2 {
            0 => in_turns(seconds, ["none", &interval])?,
            _ => {
                let [with, without] = in_turns(seconds, [&interval, "none"])?;
                [without, with]
            }
        };
        let ratio = with.cpu_nanos_a_row / without.cpu_nanos_a_row;
        ratios.push(ratio);
        all = [all[0] + without.cpu_nanos_a_row, all[1] + with.cpu_nanos_a_row];
        row([
            (pair + 1).to_string(),
            format!("{:.2}", without.cpu_nanos_a_row),
            format!("{:.2}", with.cpu_nanos_a_row),
            format!("{ratio:.3}"),
            format!("{:.0} M", with.rows / 1e6),
            format!("{:.0}", with.checkpoints),
            bytes(with.new_bytes as u64),
            format!("{:.1} ms", with.stalled_millis),
        ]);
    }
    println!("\nmedian ratio {:.3}, of the sums {:.3}", median(ratios), all[1] / all[0]);
    Ok(())
}

/// A process that is stopped and goes on; ended with this value.
struct Worker(Child);

impl Worker {
    fn start(interval: &str, seconds: u64) -> Result<Self> {
        let mut command = process::again()?;
        command.args(["--cost-of", interval, "--seconds", &seconds.to_string()]);
        Ok(Self(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?))
    }

    fn signal(&self, name: &str) -> Result<()> {
        process::lines(Command::new("kill").args([name, &self.0.id().to_string()])).map(drop)
    }

    fn run(mut self) -> Result<Run> {
        let mut said = String::new();
        if let Some(output) = &mut self.0.stdout {
            std::io::Read::read_to_string(output, &mut said)?;
        }
        let numbers: Vec<f64> = said.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        match numbers.as_slice() {
            &[rows, cpu_nanos_a_row, checkpoints, new_bytes, stalled_millis] => {
                Ok(Run { rows, cpu_nanos_a_row, checkpoints, new_bytes, stalled_millis })
            }
            _ => Err(Error::internal(format!("the other process said {said:?}"))),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It has ended, unless something failed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs one job for each interval, so many seconds each, in turns.
fn in_turns(seconds: u64, intervals: [&str; 2]) -> Result<[Run; 2]> {
    let turns = 2 * seconds.div_ceil(TURN.as_secs());
    let [one, other] = intervals.map(|interval| Worker::start(interval, turns * TURN.as_secs()));
    let workers = [one?, other?];
    let mut order = [&workers[0], &workers[1]];
    for _ in 0..turns {
        let [now, next] = order;
        next.signal("-STOP")?;
        now.signal("-CONT")?;
        std::thread::sleep(TURN);
        order = [next, now];
    }
    order[0].signal("-CONT")?;
    let [one, other] = workers;
    Ok([one.run()?, other.run()?])
}

/// Works for so many seconds, of which it may be stopped for some, and prints what that took.
pub fn work(given: &Parameters, interval: &str) -> Result<()> {
    let seconds: u64 = given.parsed("seconds")?.unwrap_or(62);
    let folder = std::env::temp_dir().join(format!("tidemill-checkpoints-{}", std::process::id()));
    let dir = folder.display().to_string();
    let mut settings = vec![("execution.runtime-mode", "streaming"), ("parallelism.default", "2")];
    if interval != "none" {
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
    let new_bytes = median(checkpoints.iter().map(|checkpoint| checkpoint.new_bytes as f64));
    let stalled = median(checkpoints.iter().map(|checkpoint| checkpoint.stalled.as_secs_f64() * 1e3));
    println!("{rows} {} {} {new_bytes} {stalled}", cpu * 1e9 / rows as f64, counts.completed);
    Ok(())
}
