//! Jobs that are killed, whose stores fail, whose parts fail: whatever happens, every row counts once.
//!
//! ```text
//! left (2..4 splits)  ──hash──┐
//!                             ├─> number the rows of each key ──hash──> do they come in order? ──> transactional sink
//! right (1..3 splits) ──hash──┘
//! ```
//!
//! A world outlives its processes: what was read is there to be read again, and a store and a place where sinks publish remain.
//! A process runs the job on one thread in simulated time until it ends or is killed; then the next one goes on, with another
//! parallelism. All chance follows from a seed. Of every key, the rows that were published have the numbers 1 to n, once each:
//! none was lost, none counted twice, and state agrees with output; and on their way none overtook another.
//!
//! `TIDEMILL_SEEDS=FROM..TO` runs other seeds; a seed that fails is printed, and `TIDEMILL_SEEDS=N` runs it again.

#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

mod chance;
mod clock;
mod job;
mod outside;
mod silent;
mod store;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tidemill_core::graph::JobGraph;
use tidemill_core::settings::Origin;
use tidemill_core::{Error, ErrorKind, Settings};
use tidemill_exec::runtime::{
    Begin, Ending, Environment, JobHandle, JobResult, Persistence, StoreFolder, execute_from, simulate,
};

use chance::Chance;
use clock::JumpingClock;
use job::{Plan, graph, settings};
use outside::Outside;
use store::FaultyStore;

/// Processes that are killed or stopped before one may run to the end.
const ENDS_MAX: u64 = 6;
/// Longer than any of these jobs takes, in simulated time.
const PATIENCE: Duration = Duration::from_secs(900);

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
    /// Replies of the store are lost or never come, its disk is full, and it takes its time; and processes are killed.
    Store,
    /// Clocks are set, forwards and backwards; and processes are killed.
    Clocks,
    /// The sink is slow and buffers are small, so that barriers overtake rows; and processes are killed.
    BackPressure,
    /// The job is started once more while it runs, from the same folder.
    Twins,
    /// All of it.
    Everything,
}

impl Troubles {
    const ALL: [Self; 9] = [
        Self::None,
        Self::Failures,
        Self::Kills,
        Self::Stops,
        Self::Store,
        Self::Clocks,
        Self::BackPressure,
        Self::Twins,
        Self::Everything,
    ];
}

#[test]
fn every_row_counts_once() {
    let (mut failed, mut overtaken) = (Vec::new(), 0);
    for seed in seeds() {
        let troubles = Troubles::ALL[seed as usize % Troubles::ALL.len()];
        let outcome = std::panic::catch_unwind(|| run(seed, troubles));
        match outcome {
            Ok(some) => overtaken += some,
            Err(_) => {
                eprintln!("seed {seed} failed: {troubles:?}");
                failed.push(seed);
            }
        }
    }
    assert!(failed.is_empty(), "seeds that failed: {failed:?}");
    assert!(overtaken > 0 || seeds().count() < 200, "barriers overtake rows in some of these worlds");
}

/// A world from its beginning to the end of its job; how many of its checkpoints hold rows that barriers overtook.
fn run(seed: u64, troubles: Troubles) -> usize {
    let chance = Chance::new(seed);
    let plan = Plan::draw(&chance, troubles);
    let outside = Outside::new(chance.clone(), plan.sink_failures, plan.sink_pause_millis);
    let store = FaultyStore::shared(chance.clone(), plan.store);
    let ends = if plan.kills || plan.stops { chance.below(ENDS_MAX) } else { 0 };
    let (mut checkpoints, mut overtaken, mut home) = (0, 0, 0);
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
        let settings = settings(&plan, parallelism);
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
        let twin_comes = plan.twins && !is_last;
        let (clocks, store, jumps) = (chance.clone(), store.clone(), plan.jumps);
        let ended = simulate(seed.wrapping_mul(1000) + process, |mut environment| async move {
            if jumps {
                environment.clock = Arc::new(JumpingClock::new(environment.clock, clocks));
            }
            store.set_clock(environment.clock.clone());
            let persistence = Persistence { folder: Some(folder), begin, ignore_unclaimed: false, claims };
            let first = match twin_comes {
                true => Some(start_before_another(&job, &environment, &settings, &persistence).await),
                false => None,
            };
            // Another process draws other numbers.
            environment.seed ^= 0x7717;
            let handle = execute_from(&job, &environment, &settings, persistence).unwrap();
            let outcome = tokio::select! {
                biased;
                outcome = handle.wait() => Some(outcome),
                () = environment.clock.sleep(lifetime) => None,
            };
            let outcome = match outcome {
                None if stops => stop_behind_a_savepoint(&handle, between, stop).await,
                outcome => outcome,
            };
            let is_finished = matches!(&outcome, Some(Ok(result)) if result.ending == Ending::Finished);
            if let Some(first) = first.as_ref().filter(|_| is_finished) {
                must_have_given_way(first, &environment).await;
            }
            for failure in first.iter().chain([&handle]).flat_map(JobHandle::failures) {
                assert!(failure.error.kind() != ErrorKind::Internal, "{}", failure.error);
            }
            (outcome, handle.checkpoints(), handle.failures())
        });
        let (outcome, taken, failures) = ended.unwrap();
        let failures = || format!("{} failures, at last {:?}", failures.len(), failures.last());
        checkpoints += taken.len();
        overtaken += taken.iter().filter(|taken| taken.in_flight_bytes > 0).count();
        match outcome {
            Some(Ok(result)) if result.ending == Ending::Stopped => {
                from = Some(saved).filter(|_| chance.below(2) == 0);
            }
            Some(Ok(_)) => break,
            // A job may give up when too much goes wrong; somebody starts it again.
            Some(Err(error)) => assert!(!is_last && is_trouble(&error), "process {process}: {error}; {}", failures()),
            None => assert!(!is_last, "process {process} hangs: {}; {:?}", failures(), taken.last()),
        }
    }
    check(&plan, &outside.published());
    let is_long = plan.rows_by_key().values().sum::<i64>() > 200;
    assert!(troubles != Troubles::None || checkpoints > 0 || !is_long, "there are checkpoints");
    // Whoever was fenced may have begun something that nobody goes on with.
    assert!(plan.twins || outside.left_over() == 0, "what was never published is gone");
    overtaken
}

/// Starts the job, and returns once it is at work: somebody is about to start it once more from the same folder. It does not
/// restart by itself.
async fn start_before_another(
    job: &JobGraph,
    environment: &Environment,
    settings: &Settings,
    persistence: &Persistence,
) -> JobHandle {
    let mut once = settings.clone();
    once.set("restart-strategy.type", "none", Origin::Program).unwrap();
    let first = execute_from(job, environment, &once, persistence.clone()).unwrap();
    let ended = first.clone();
    let at_work = async {
        while first.checkpoints().is_empty() {
            environment.clock.sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        _ = ended.wait() => {}
        () = at_work => {}
    }
    first
}

/// The job that was at work first ends with an error once another process has run it to its end.
async fn must_have_given_way(first: &JobHandle, environment: &Environment) {
    tokio::select! {
        biased;
        outcome = first.wait() => {
            let error = outcome.unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::Cancelled | ErrorKind::Unavailable), "{error}");
        }
        () = environment.clock.sleep(PATIENCE) => panic!("the first of two processes goes on for ever"),
    }
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
    matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Cancelled | ErrorKind::Exhausted)
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
