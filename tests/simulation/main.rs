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
//! parallelism. Where processes are killed, time goes by before and after everything that they have the store and the sinks do,
//! so that they are killed between any two of these steps: a manifest is durable, and nothing or a part of it is committed. All
//! chance follows from a seed. Of every key, the rows that were published have the numbers 1 to n, once each: none was lost, none
//! counted twice, and state agrees with output; and on their way none overtook another.
//!
//! `TIDEMILL_SEEDS=FROM..TO` runs other seeds than 0..200, `TIDEMILL_TEST_FULL` more of them; a seed that fails is printed, and
//! `TIDEMILL_SEEDS=N` runs it again.

#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

mod chance;
mod clock;
mod commits;
mod disk;
mod everywhere;
mod in_flight;
mod increments;
mod job;
mod manifests;
mod modes;
mod outside;
mod pace;
mod refused;
mod restarts;
mod silent;
mod sinks;
mod store;
#[path = "../../exec/tests/common/watermarks.rs"]
mod watermarks;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tidemill_core::graph::JobGraph;
use tidemill_core::settings::Origin;
use tidemill_core::{Error, ErrorKind, Result, Settings};
use tidemill_exec::runtime::{
    Begin, CheckpointInfo, Ending, Environment, JobFailure, JobHandle, JobResult, Persistence, StoreFolder,
    execute_from, simulate,
};

use chance::{Chance, Tally};
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
    let usual = if std::env::var_os("TIDEMILL_TEST_FULL").is_some() { 0..5000 } else { 0..200 };
    match asked.split_once("..") {
        Some((from, to)) => from.parse().unwrap()..to.parse().unwrap(),
        None if asked.is_empty() => usual,
        None => asked.parse().map(|seed| seed..seed + 1).unwrap(),
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
    /// The store is away, replies of it are lost or never come, its disk is full, and it takes its time; and processes are killed.
    Store,
    /// Clocks are set, forwards and backwards; and processes are killed.
    Clocks,
    /// The sink is slow and buffers are small, so that barriers overtake rows; and processes are killed.
    BackPressure,
    /// The job is started once more while it runs, from the same folder.
    Twins,
    /// All of it; in half of these worlds a job is started twice, too.
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

/// What has to happen in some of two hundred worlds, or they would prove nothing.
const HAPPENS: [&str; 27] = [
    "a reader fails",
    "take rows",
    "prepare",
    "commit",
    "say that it committed",
    "a process is killed",
    "killed between manifest and commit",
    "killed between two committables",
    "a process ends early",
    "a job is stopped",
    "a job goes on from a savepoint",
    "the store is away",
    "the reply is lost",
    "the store hangs",
    "the disk is full",
    "the store is slow",
    "a file comes in parts",
    "a part is not taken",
    "the reply to a part is lost",
    "a file is not completed",
    "the reply to a completion is lost",
    "a clock is set",
    "barriers overtake rows",
    "layers become fewer",
    "one of two processes gives way",
    "one of two processes has a store that fails",
    "an attempt fails",
];

#[test]
fn every_row_counts_once() {
    let (mut failed, mut tally) = (Vec::new(), Tally::new());
    for seed in seeds() {
        let troubles = Troubles::ALL[seed as usize % Troubles::ALL.len()];
        match std::panic::catch_unwind(|| World::new(seed, troubles).run()) {
            Ok(happened) => happened.into_iter().for_each(|(what, times)| *tally.entry(what).or_default() += times),
            Err(_) => {
                eprintln!("seed {seed} failed: {troubles:?}");
                failed.push(seed);
            }
        }
    }
    assert!(failed.is_empty(), "seeds that failed: {failed:?}");
    let never: Vec<_> = HAPPENS.iter().filter(|what| tally.get(*what).is_none_or(|times| *times == 0)).collect();
    assert!(never.is_empty() || seeds().count() < 200, "what never happened: {never:?}; what did: {tally:?}");
}

/// What outlives processes.
struct World {
    seed: u64,
    troubles: Troubles,
    plan: Plan,
    chance: Chance,
    outside: Outside,
    store: Arc<FaultyStore>,
    /// The process whose folder the next one goes on in.
    home: u64,
    /// The savepoint that the next process begins from.
    from: Option<StoreFolder>,
    /// The one that the job in that folder began from.
    origin: Option<StoreFolder>,
    /// How many checkpoints there were.
    checkpoints: usize,
    /// Whether the last process found another one at work.
    was_second: bool,
}

/// What one process is to do.
struct Process {
    job: JobGraph,
    settings: Settings,
    persistence: Persistence,
    /// When it is killed or stopped.
    lifetime: Duration,
    /// Where savepoints go: one that is taken while the job runs, and the one that stops it. `None` if it is killed.
    savepoints: Option<[StoreFolder; 2]>,
    /// How many bytes of state may be in memory, if that is bounded.
    room: Option<usize>,
    /// The process that it finds at work, if there is one.
    first: Option<First>,
}

/// A process of a job that is about to be started once more from the same folder.
struct First {
    /// Whether it restarts by itself, and may take over again. Not where other things fail, too: writers that go on with a transaction are
    /// not told who has come last, and the one that has lost may cut off what the other has prepared.
    restarts: bool,
    /// Whether it may have run out of room.
    may_be_full: bool,
}

impl World {
    fn new(seed: u64, troubles: Troubles) -> Self {
        let chance = Chance::new(seed);
        let plan = Plan::draw(&chance, troubles);
        let store = FaultyStore::shared(chance.clone(), plan.store);
        let outside = Outside::new(chance.clone(), plan.sink_failures, plan.sink_pause_millis);
        let outside = outside.with_pace(store.pace().with_steps(plan.commit_millis));
        let (home, from, origin) = (0, None, None);
        Self { seed, troubles, plan, chance, outside, store, home, from, origin, checkpoints: 0, was_second: false }
    }

    /// From its beginning to the end of its job; what happened in it.
    fn run(mut self) -> Tally {
        let ends = if self.plan.kills || self.plan.stops { self.chance.below(ENDS_MAX) } else { 0 };
        let mut number = 0;
        while !self.live(number, number >= ends) {
            number += 1;
        }
        check(&self.plan, &self.outside.published());
        let is_long = self.plan.rows_by_key().values().sum::<i64>() > 200;
        assert!(self.troubles != Troubles::None || self.checkpoints > 0 || !is_long, "there are checkpoints");
        // Whoever was fenced may have begun something that nobody goes on with.
        assert!(self.was_second || self.outside.left_over() == 0, "what was never published is gone");
        self.chance.tally()
    }

    /// Runs one process; whether the job has ended with it.
    fn live(&mut self, number: u64, is_last: bool) -> bool {
        if is_last {
            // So that it ends: from now on nothing fails any more.
            self.chance.be_kind();
        }
        let process = self.process(number, is_last);
        self.was_second = process.first.is_some();
        let stopped = process.savepoints.clone().map(|[_, stopped]| stopped);
        let (jumps, chance, store) = (self.plan.jumps, self.chance.clone(), self.store.clone());
        let ended = simulate(self.seed.wrapping_mul(1000) + number, |mut environment| {
            if jumps {
                environment.clock = Arc::new(JumpingClock::new(environment.clock, chance.clone()));
            }
            store.set_clock(environment.clock.clone());
            process.run(environment, chance)
        });
        let (outcome, taken, failures) = ended.unwrap();
        self.checkpoints += taken.len();
        let overtaken = taken.iter().filter(|taken| taken.in_flight_bytes > 0).count();
        self.chance.count("barriers overtake rows", overtaken as u64);
        self.chance.count("an attempt fails", failures.len() as u64);
        let failures = || format!("{} failures, at last {:?}", failures.len(), failures.last());
        match outcome {
            Some(Ok(result)) if result.ending == Ending::Stopped => {
                self.chance.count("a job is stopped", 1);
                self.from = stopped.filter(|_| self.chance.below(2) == 0);
                false
            }
            Some(Ok(_)) => true,
            Some(Err(error)) => {
                // A job may give up when too much goes wrong; somebody starts it again.
                assert!(!is_last && is_trouble(&error), "process {number}: {error}; {}", failures());
                self.chance.count("a process ends early", 1);
                false
            }
            None => {
                assert!(!is_last, "process {number} hangs: {}; {:?}", failures(), taken.last());
                self.chance.count("a process is killed", 1);
                self.outside.kill();
                false
            }
        }
    }

    /// Draws what the next process does.
    fn process(&mut self, number: u64, is_last: bool) -> Process {
        let Self { plan, chance, store, .. } = self;
        let parallelism = 1 + chance.below(3) as usize;
        let lifetime = if is_last { PATIENCE } else { Duration::from_millis(1 + chance.below(plan.lifetime_millis)) };
        // Whoever goes on may do so under another backend.
        let backends = [("memory", None), ("filesystem", Some(0)), ("rocksdb", Some(0)), ("memory", Some(0))];
        let (backend, room) = backends[self.seed.wrapping_add(number) as usize % backends.len()];
        let settings = settings(plan, parallelism, backend);
        let job = graph(plan, Arc::new(self.outside.clone()), chance, parallelism).to_job_graph(&settings).unwrap();
        let place = |name: String| StoreFolder { store: store.clone(), root: name.as_str().into(), url: name };
        // Whether a savepoint goes with the oldest checkpoints of who began from it.
        let claims = self.seed.is_multiple_of(2);
        let begin = match self.from.take() {
            // A savepoint may lie anywhere, and who begins from it has a folder of its own.
            Some(savepoint) => {
                chance.count("a job goes on from a savepoint", 1);
                (self.home, self.origin) = (number, Some(savepoint.clone()));
                Begin::From(savepoint)
            }
            None => Begin::Resume { origin: self.origin.clone() },
        };
        let folder = Some(place(format!("job-{}", self.home)));
        // Who owns what it began from may delete it while another one looks for it.
        let has_first = plan.twins && !is_last && !(claims && self.origin.is_some());
        let first = has_first.then(|| First { restarts: chance.below(2) == 0, may_be_full: plan.store.full_disk > 0 });
        chance.count("one of two processes has a store that fails", u64::from(has_first && plan.store.away > 0));
        let persistence = Persistence { folder, begin, ignore_unclaimed: false, claims };
        let savepoints = [place(format!("between-{number}")), place(format!("savepoint-{number}"))];
        let savepoints = Some(savepoints).filter(|_| plan.stops && chance.below(2) == 0);
        Process { job, settings, persistence, lifetime, savepoints, room, first }
    }
}

/// How a process ended, what checkpoints it took, and what failed in it. `None` if it was killed.
type Ended = (Option<Result<JobResult>>, Vec<CheckpointInfo>, Vec<JobFailure>);

impl Process {
    async fn run(self, mut environment: Environment, chance: Chance) -> Ended {
        let Self { job, settings, mut persistence, lifetime, savepoints, room, first } = self;
        environment.tier = environment.tier.limited(room);
        let may_be_full = first.as_ref().is_some_and(|first| first.may_be_full);
        let first = match first {
            Some(First { restarts, .. }) => {
                let first = start_before_another(&job, &environment, &settings, &persistence, restarts).await;
                // What that one has begun from, this one goes on from.
                if let Begin::From(savepoint) = persistence.begin {
                    persistence.begin = Begin::Resume { origin: Some(savepoint) };
                }
                Some(first)
            }
            None => None,
        };
        // Another process draws other numbers.
        environment.seed ^= 0x7717;
        environment.nonce ^= 0x7717;
        let handle = execute_from(&job, &environment, &settings, persistence).unwrap();
        let outcome = tokio::select! {
            biased;
            outcome = handle.wait() => Some(outcome),
            () = environment.clock.sleep(lifetime) => None,
        };
        let outcome = match (outcome, savepoints) {
            (None, Some([between, stop])) => stop_behind_a_savepoint(&handle, between, stop).await,
            (outcome, _) => outcome,
        };
        let is_finished = matches!(&outcome, Some(Ok(result)) if result.ending == Ending::Finished);
        if let Some(first) = first.as_ref().filter(|_| is_finished) {
            must_have_given_way(first, &environment, may_be_full).await;
            chance.count("one of two processes gives way", 1);
        }
        for failure in first.iter().chain([&handle]).flat_map(JobHandle::failures) {
            assert!(failure.error.kind() != ErrorKind::Internal, "{}", failure.error);
        }
        (outcome, handle.checkpoints(), handle.failures())
    }
}

/// Starts the job, and returns once it is at work.
async fn start_before_another(
    job: &JobGraph,
    environment: &Environment,
    settings: &Settings,
    persistence: &Persistence,
    restarts: bool,
) -> JobHandle {
    let mut settings = settings.clone();
    if !restarts {
        settings.set("restart-strategy.type", "none", Origin::Program).unwrap();
    }
    let first = execute_from(job, environment, &settings, persistence.clone()).unwrap();
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

/// The job that was at work first ends once another process has run it to its end; with an error, unless it finds that end when
/// it restarts.
async fn must_have_given_way(first: &JobHandle, environment: &Environment, may_be_full: bool) {
    tokio::select! {
        biased;
        outcome = first.wait() => {
            let Err(error) = outcome else { return };
            let is_full = may_be_full && error.kind() == ErrorKind::Exhausted;
            assert!(is_full || matches!(error.kind(), ErrorKind::Cancelled | ErrorKind::Unavailable), "{error}");
        }
        () = environment.clock.sleep(PATIENCE) => panic!("the first of two processes goes on for ever"),
    }
}

/// What comes of `work`, which must not take longer than that.
async fn in_time<T>(environment: &Environment, patience: Duration, work: impl Future<Output = T>) -> T {
    tokio::select! {
        biased;
        done = work => done,
        () = environment.clock.sleep(patience) => panic!("nothing came of it for {patience:?}"),
    }
}

/// Takes a savepoint, then stops the job behind another. `None` if that fails: then the process is killed.
async fn stop_behind_a_savepoint(
    handle: &JobHandle,
    between: StoreFolder,
    stop: StoreFolder,
) -> Option<Result<JobResult>> {
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
