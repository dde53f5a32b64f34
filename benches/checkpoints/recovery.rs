//! The way back: the state of many keys from a savepoint, or a checkpoint with what changed behind it, into a job of another
//! parallelism, beside reading and decoding the same files. Each in a process of its own, whose memory is told.
//!
//! A virtual machine may give memory back to its host that has been free for two seconds, and then pays many times over for the first
//! touch of every page, which has nothing to do with the work. So everything is measured twice: as it comes, and right behind a process
//! that touched as much memory as is needed, so that it is there.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use tidemill::stream::Parameters;
use tidemill::{Error, Result};
use tidemill_core::Event;
use tidemill_exec::checkpoint::{find_checkpoint, restored_state};
use tidemill_exec::runtime::EventTrace;

use crate::common::measure::{resident_bytes_max, timed};
use crate::common::{bytes, head, median, process, progress, row, sql};
use crate::increments::{Kept, memory, start, statements};

/// The savepoint was taken at another.
const PARALLELISM: usize = 3;
const RUNS: usize = 7;
/// Touched before a run that finds its memory at hand: more than either kind of run needs.
const TOUCHED_BYTES: usize = 1 << 30;
const TOUCHED_BLOCK: usize = 1 << 20;
/// By then free memory is given back.
const GIVEN_BACK: Duration = Duration::from_secs(3);

/// Prints the table.
pub fn bench(keys: u64, backend: &str, budget: Option<&str>, kept: &Kept) -> Result<()> {
    let keys = keys.to_string();
    println!("\nRecovery of it at parallelism {PARALLELISM}, medians of {RUNS} runs, processes of their own\n");
    head([
        "from",
        "memory",
        "until every subtask works",
        "read and decode alone",
        "ratio",
        "peak resident",
        "state in memory",
        "ratio",
    ]);
    let kept = [("savepoint", &kept.savepoint), ("checkpoint", &kept.checkpoint)];
    for ((from, path), is_at_hand) in kept.into_iter().flat_map(|kept| [(kept, true), (kept, false)]) {
        let path = path.display().to_string();
        let of = |arguments: &[&str]| {
            if is_at_hand {
                // Of what others freed nothing is left to be given back meanwhile.
                std::thread::sleep(GIVEN_BACK);
                process::lines(process::again()?.arg("--touch"))?;
            }
            measured(arguments)
        };
        let (mut recovered, mut decoded) = (Vec::new(), Vec::new());
        let (mut peaks, mut states) = (Vec::new(), Vec::new());
        for run in 0..RUNS {
            progress(format!("recovery {} of {RUNS}", run + 1));
            let mut arguments = vec!["--recover", &path, "--keys", &keys, "--backend", backend];
            arguments.extend(budget.iter().flat_map(|budget| ["--budget", budget]));
            let [seconds, peak, state] = of(&arguments)?;
            recovered.push(seconds);
            peaks.push(peak);
            states.push(state);
            decoded.push(of(&["--decode", &path])?[0]);
        }
        let (recovered, decoded) = (median(recovered), median(decoded));
        let (peak, state) = (median(peaks), median(states));
        row([
            from.to_owned(),
            if is_at_hand { "at hand" } else { "as it comes" }.to_owned(),
            format!("{recovered:.2} s"),
            format!("{decoded:.2} s"),
            format!("{:.2}", recovered / decoded),
            bytes(peak as u64),
            bytes(state as u64),
            format!("{:.2}", peak / state),
        ]);
    }
    Ok(())
}

/// What this program prints when it is run once more with these arguments: seconds, most memory and state.
fn measured(arguments: &[&str]) -> Result<[f64; 3]> {
    let lines = process::lines(process::again()?.args(arguments))?;
    let words = lines.iter().flat_map(|line| line.split(' '));
    let numbers: Vec<f64> = words.filter_map(|word| word.parse().ok()).collect();
    <[f64; 3]>::try_from(numbers).map_err(|_| Error::internal(format!("the other process said {lines:?}")))
}

/// Writes to so much memory that the next process finds its own at hand: in blocks for which the allocator takes as large pages.
pub fn touch() {
    let blocks = (0..TOUCHED_BYTES / TOUCHED_BLOCK).map(|_| vec![1u8; TOUCHED_BLOCK]);
    std::hint::black_box(blocks.collect::<Vec<_>>());
}

/// Tells when every subtask of a task has taken in its first event, which it does when it has its state.
#[derive(Debug, Default)]
struct FirstEvents {
    subtasks: AtomicUsize,
    all: Mutex<bool>,
    changed: Condvar,
}

impl EventTrace for FirstEvents {
    fn event(&self, task: &str, subtask: usize, _channel: usize, _event: &Event) {
        let all = (1 << PARALLELISM) - 1;
        if task.contains("aggregate") && self.subtasks.fetch_or(1 << subtask, Ordering::Relaxed) | 1 << subtask == all {
            *self.all.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = true;
            self.changed.notify_all();
        }
    }
}

/// Goes on from a savepoint or the newest checkpoint in a folder; seconds until every subtask works, the most memory, and what of it is state.
pub fn recover(given: &Parameters, kept: &str) -> Result<()> {
    let keys: u64 = given.parsed("keys")?.unwrap_or(10_000_000);
    let parallelism = PARALLELISM.to_string();
    let trace = Arc::new(FirstEvents::default());
    let settings = [
        ("execution.runtime-mode", "streaming"),
        ("parallelism.default", parallelism.as_str()),
        ("state.backend.type", given.get("backend").unwrap_or("memory")),
        ("execution.state-recovery.path", kept),
    ];
    let mut session = sql::traced(settings.into_iter().chain(memory(given.get("budget"))), trace.clone())?;
    let ((), seconds) = timed(|| {
        start(&mut session, &statements(keys))?;
        let done = trace.all.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let wait = trace.changed.wait_timeout_while(done, Duration::from_secs(300), |done| !*done);
        match wait {
            Ok((_, timeout)) if !timeout.timed_out() => Ok(()),
            _ => Err(Error::internal("the job does not work")),
        }
    })?;
    let peak = resident_bytes_max()?;
    // Operators tell what they hold after a call.
    std::thread::sleep(Duration::from_secs(1));
    println!("{seconds} {peak} {}", session.engine().environment().memory.reserved());
    Ok(())
}

/// Reads and decodes what such a job reads, and keeps none of it.
pub fn decode(kept: &str) -> Result<()> {
    let session = sql::session([])?;
    let folder = Path::new(kept).canonicalize().map_err(Error::from)?;
    let store: Arc<dyn object_store::ObjectStore> = Arc::new(
        object_store::local::LocalFileSystem::new_with_prefix(&folder)
            .map_err(|error| Error::internal(error.to_string()))?,
    );
    let root = object_store::path::Path::default();
    let ((), seconds) = timed(|| {
        session.block_on(async {
            let clock = session.engine().environment().clock.clone();
            let found = Arc::new(find_checkpoint(store.clone(), &root, clock, None).await?);
            let reads = (0..PARALLELISM).map(|subtask| {
                let (store, found) = (store.clone(), found.clone());
                tokio::spawn(async move {
                    for operator in &found.content.operators {
                        let groups = operator.max_parallelism;
                        let state =
                            restored_state(&*store, &found.root, operator, subtask, PARALLELISM, groups).await?;
                        let layers = state.states.into_iter().flat_map(|(_, layers)| layers);
                        for batch in layers.flat_map(|layer| layer.rows().clone()) {
                            drop(batch?);
                        }
                    }
                    Ok::<(), Error>(())
                })
            });
            for read in futures::future::join_all(reads).await {
                read.map_err(|error| Error::internal(error.to_string()))??;
            }
            Ok(())
        })
    })?;
    println!("{seconds} {} 0", resident_bytes_max()?);
    Ok(())
}
