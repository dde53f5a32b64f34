//! Jobs that are killed, whose stores fail, whose parts fail: whatever happens, every row counts once.
//!
//! ```text
//! left (2..4 splits)  ──hash──┐
//!                             ├─> number the rows of each key ──> transactional sink
//! right (1..3 splits) ──hash──┘
//! ```
//!
//! A world outlives its processes: what was read is there to be read again, and a store and a place where sinks publish remain.
//! A process runs the job on one thread in simulated time until it ends or is killed; then the next one goes on, with another
//! parallelism. All chance follows from a seed. Of every key, the rows that were published have the numbers 1 to n, once each:
//! none was lost, none counted twice, and state agrees with output.
//!
//! `TIDEMILL_SEEDS=FROM..TO` runs other seeds; a seed that fails is printed, and `TIDEMILL_SEEDS=N` runs it again.

#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

mod chance;
mod job;
mod outside;
mod store;

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use tidemill_core::{Error, ErrorKind};
use tidemill_exec::runtime::{Begin, Ending, JobHandle, JobResult, Persistence, StoreFolder, simulate};

use chance::Chance;
use job::{Plan, graph, settings};
use outside::Outside;
use store::FaultyStore;

/// Processes that are killed or stopped before one may run to the end.
const ENDS_MAX: u64 = 6;
/// Longer than any of these jobs takes, in simulated time.
const PATIENCE: Duration = Duration::from_secs(3600 * 24);

fn seeds() -> Range<u64> {
    let asked = std::env::var("TIDEMILL_SEEDS").unwrap_or_default();
    match asked.split_once("..") {
        Some((from, to)) => from.parse().unwrap()..to.parse().unwrap(),
        None => asked.parse().map_or(0..200, |seed| seed..seed + 1),
    }
}

/// What goes wrong in a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Troubles {
    /// Nothing; checkpoints come and go.
    None,
    /// Readers, operators and sinks fail; the job restarts by itself.
    Failures,
    /// Processes are killed at any moment.
    Kills,
    /// Savepoints are taken, and the job is stopped behind one and goes on from it, or from its checkpoints.
    Stops,
    /// The store fails before or after it did what it was asked, and parts of jobs fail, and processes are stopped or killed.
    Everything,
}

impl Troubles {
    const ALL: [Self; 5] = [Self::None, Self::Failures, Self::Kills, Self::Stops, Self::Everything];
}

#[test]
fn every_row_counts_once() {
    let mut failed = Vec::new();
    for seed in seeds() {
        let troubles = Troubles::ALL[seed as usize % Troubles::ALL.len()];
        let outcome = std::panic::catch_unwind(|| run(seed, troubles));
        if outcome.is_err() {
            eprintln!("seed {seed} failed: {troubles:?}");
            failed.push(seed);
        }
    }
    assert!(failed.is_empty(), "seeds that failed: {failed:?}");
}

/// A world from its beginning to the end of its job.
fn run(seed: u64, troubles: Troubles) {
    let chance = Chance::new(seed);
    let plan = Plan::draw(&chance, troubles);
    let outside = Outside::new(chance.clone(), plan.sink_failures);
    let store = FaultyStore::shared(chance.clone(), plan.store_failures);
    let ends = if plan.kills || plan.stops { chance.below(ENDS_MAX) } else { 0 };
    let (mut checkpoints, mut home) = (0, 0);
    let (mut from, mut origin) = (None::<StoreFolder>, None);
    for process in 0.. {
        let is_last = process >= ends;
        if is_last {
            // So that it ends: from now on nothing fails any more.
            chance.be_kind();
        }
        let parallelism = 1 + chance.below(3) as usize;
        let lifetime = if is_last { PATIENCE } else { Duration::from_millis(1 + chance.below(plan.lifetime_millis)) };
        let job = graph(&plan, &outside, &chance, parallelism);
        // Whoever goes on may do so under another backend.
        let (backend, room) = [("memory", None), ("memory", Some(0)), ("rocksdb", Some(0))][chance.below(3) as usize];
        let settings = settings(&plan, parallelism, backend);
        let job = job.to_job_graph(&settings).unwrap();
        let place = |name: String| StoreFolder { store: store.clone(), root: name.as_str().into(), url: name };
        let begin = match from.take() {
            // A savepoint may lie anywhere, and who begins from it has a folder of its own.
            Some(savepoint) => {
                (home, origin) = (process, Some(savepoint.clone()));
                Begin::From(savepoint)
            }
            None => Begin::Resume { origin: origin.clone() },
        };
        let (folder, saved) = (place(format!("job-{home}")), place(format!("savepoint-{process}")));
        let (between, stop) = (place(format!("between-{process}")), saved.clone());
        // Whether a savepoint goes with the oldest checkpoints of who began from it.
        let claims = seed.is_multiple_of(2);
        let stops = plan.stops && chance.below(2) == 0;
        let ended = simulate(seed.wrapping_mul(1000) + process, |mut environment| async move {
            environment.tier = environment.tier.limited(room);
            let persistence = Persistence { folder: Some(folder), begin, ignore_unclaimed: false, claims };
            let handle = tidemill_exec::runtime::execute_from(&job, &environment, &settings, persistence).unwrap();
            let outcome = tokio::select! {
                biased;
                outcome = handle.wait() => Some(outcome),
                () = environment.clock.sleep(lifetime) => None,
            };
            let outcome = match outcome {
                None if stops => stop_behind_a_savepoint(&handle, between, stop).await,
                outcome => outcome,
            };
            (outcome, handle.checkpoints().len())
        });
        let (outcome, taken) = ended.unwrap();
        checkpoints += taken;
        match outcome {
            Some(Ok(result)) if result.ending == Ending::Stopped => {
                from = Some(saved).filter(|_| chance.below(2) == 0);
            }
            Some(Ok(_)) => break,
            // A job may give up when too much goes wrong; somebody starts it again.
            Some(Err(error)) => assert!(!is_last && is_trouble(&error), "process {process}: {error}"),
            None => assert!(!is_last, "process {process} hangs"),
        }
    }
    check(&plan, &outside.published());
    let is_long = plan.rows_by_key().values().sum::<i64>() > 200;
    assert!(troubles != Troubles::None || checkpoints > 0 || !is_long, "there are checkpoints");
    assert!(outside.left_over() == 0, "what was never published is gone");
}

/// Takes a savepoint, then stops the job behind another. `None` if that fails: then the process is killed.
async fn stop_behind_a_savepoint(
    handle: &JobHandle,
    between: StoreFolder,
    stop: StoreFolder,
) -> Option<tidemill_core::Result<JobResult>> {
    let control = handle.control().await.ok()?;
    // A store that fails may spoil it; the job goes on.
    let _ = control.savepoint(between).await;
    control.stop(false, Some(stop)).await.ok()?;
    Some(handle.wait().await)
}

fn is_trouble(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Cancelled)
}

/// Of every key the published rows have the numbers 1 to n.
fn check(plan: &Plan, published: &[(i64, i64)]) {
    let mut numbers = BTreeMap::<i64, Vec<i64>>::new();
    for (key, number) in published {
        numbers.entry(*key).or_default().push(*number);
    }
    numbers.values_mut().for_each(|numbers| numbers.sort_unstable());
    let expected: BTreeMap<i64, Vec<i64>> =
        plan.rows_by_key().into_iter().map(|(key, count)| (key, (1..=count).collect())).collect();
    assert_eq!(numbers, expected);
}
