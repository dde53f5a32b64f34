//! Stores that never answer, or not in time: whoever waits for them hears of it, and a job bears as much of it as it may.

use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use object_store::ObjectStore;
use tidemill_core::event::CheckpointId;
use tidemill_core::sink::Sink;
use tidemill_core::{ErrorKind, Result};
use tidemill_exec::checkpoint::open_savepoint;
use tidemill_exec::runtime::{
    Begin, CheckpointInfo, CheckpointStatus, Environment, JobHandle, JobResult, StoreFolder, simulate,
};

use crate::chance::Chance;
use crate::job::{self, Plan};
use crate::outside::Outside;
use crate::store::{Access, FaultyStore, StoreTroubles};
use crate::{Troubles, in_time};

/// Longer than `execution.checkpointing.timeout` and `task.cancellation.timeout` together.
const PATIENCE: Duration = Duration::from_secs(60);

fn folder(chance: &Chance, troubles: StoreTroubles) -> StoreFolder {
    FaultyStore::shared(chance.clone(), troubles).folder("job")
}

fn silent(chance: &Chance) -> StoreFolder {
    folder(chance, StoreTroubles { hangs: 1, ..StoreTroubles::default() })
}

/// A job without troubles of its own and without restarts, whose checkpoints go to `folder`.
fn start(chance: &Chance, environment: &Environment, folder: StoreFolder) -> JobHandle {
    let plan = Plan { sources: vec![vec![500], vec![500]], ..Plan::draw(chance, Troubles::None) };
    start_plan(&plan, chance, environment, folder)
}

fn start_plan(plan: &Plan, chance: &Chance, environment: &Environment, folder: StoreFolder) -> JobHandle {
    begin(plan, chance, environment, folder, Begin::Anew, "5 s")
}

/// A job that begins so, and waits for its store no longer than that.
fn begin(
    plan: &Plan,
    chance: &Chance,
    environment: &Environment,
    folder: StoreFolder,
    begin: Begin,
    timeout: &str,
) -> JobHandle {
    let outside: Arc<dyn Sink> = Arc::new(Outside::new(chance.clone(), 0, 0));
    let more = [("restart-strategy.type", "none"), ("execution.checkpointing.timeout", timeout)];
    job::start(environment, plan, [outside], chance, Some(folder), begin, &more)
}

#[test]
fn a_job_whose_folder_never_answers_ends_with_an_error_that_names_it() {
    let chance = Chance::new(1);
    let run = |environment: Environment| async move {
        let job = start(&chance, &environment, silent(&chance));
        in_time(&environment, PATIENCE, job.wait()).await.unwrap_err()
    };
    let error = simulate(1, run).unwrap();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("memory:job: the store has not answered"), "{error}");
}

#[test]
fn who_asks_for_a_savepoint_in_a_folder_that_never_answers_is_told_so() {
    let (mut refused, mut given_up) = (0, 0);
    for seed in 0..24 {
        let chance = Chance::new(seed);
        let run = |environment: Environment| async move {
            let job = start(&chance, &environment, folder(&chance, StoreTroubles::default()));
            let control = job.control().await.unwrap();
            let target = folder(&chance, StoreTroubles { hangs: 3, ..StoreTroubles::default() });
            let asked = in_time(&environment, PATIENCE, control.savepoint(target)).await;
            (asked, in_time(&environment, PATIENCE, job.wait()).await)
        };
        match simulate(seed, run).unwrap() {
            (Ok(_), Ok(_)) => {}
            (Err(asked), Ok(_)) => {
                assert!(asked.to_string().contains("the store has not answered"), "{asked}");
                assert_eq!(asked.kind(), ErrorKind::Unavailable);
                // The folder did not answer when it was looked at, or fell silent afterwards.
                match asked.to_string().contains("checkpoint ") {
                    true => given_up += 1,
                    false => refused += 1,
                }
            }
            (_, Err(ended)) => panic!("a savepoint of somebody is nothing to the job: {ended}"),
        }
    }
    assert!(refused > 0 && given_up > 0, "{refused} refused, {given_up} given up");
}

/// What its user hears of a savepoint into a store in which the first file of a kind takes so long, or is refused; a minute later, what
/// files are there, and how many operators it has if it can be opened.
async fn savepoint_into(
    environment: Environment,
    file: &'static str,
    pause: Option<Duration>,
) -> (Result<CheckpointId>, Vec<String>, Result<usize>) {
    let (chance, clock) = (Chance::new(11), environment.clock.clone());
    let plan = Plan { sources: vec![vec![100_000], vec![100_000]], ..Plan::draw(&chance, Troubles::None) };
    let job = start_plan(&plan, &chance, &environment, folder(&chance, StoreTroubles::default()));
    let control = job.control().await.unwrap();
    let store = FaultyStore::shared(chance.clone(), StoreTroubles::default());
    store.set_clock(clock.clone());
    match pause {
        Some(pause) => store.slow_down(Access::Put, file, 1, pause),
        None => store.refuse(Access::Put, file),
    }
    let target = store.folder("target");
    let asked = in_time(&environment, PATIENCE, control.savepoint(target.clone())).await;
    clock.sleep(Duration::from_secs(60)).await;
    let files = store.list(None).map_ok(|file| file.location.to_string()).try_collect().await.unwrap();
    let opened = open_savepoint(store, &target.root, clock).await.map(|savepoint| savepoint.content.operators.len());
    job.cancel();
    in_time(&environment, PATIENCE, job.wait()).await.unwrap_err();
    (asked, files, opened)
}

/// Longer than the timeout of 5 s.
const LONG: Duration = Duration::from_secs(8);

#[test]
fn a_savepoint_that_takes_too_long_leaves_nothing() {
    let (asked, files, _) = simulate(11, |environment| savepoint_into(environment, ".parquet", Some(LONG))).unwrap();
    let error = asked.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("the store has not answered for 5s"), "{error}");
    assert_eq!(files, Vec::<String>::new());
}

#[test]
fn a_savepoint_with_a_file_that_is_refused_leaves_nothing() {
    for file in [".parquet", "_metadata"] {
        let (asked, files, opened) = simulate(11, move |environment| savepoint_into(environment, file, None)).unwrap();
        let error = asked.unwrap_err();
        assert!(error.to_string().contains("the file is refused"), "{file}: {error}");
        assert_eq!(files, Vec::<String>::new(), "{file}");
        opened.unwrap_err();
    }
}

#[test]
fn a_savepoint_whose_manifest_comes_late_is_whole_when_it_is_there() {
    let (asked, files, opened) =
        simulate(11, |environment| savepoint_into(environment, "_metadata", Some(LONG))).unwrap();
    let error = asked.unwrap_err();
    assert!(error.to_string().contains("the store has not answered for 5s"), "{error}");
    assert!(opened.unwrap() > 0);
    assert!(files.iter().any(|file| file.ends_with(".parquet")), "{files:?}");
}

/// How a job of some thirty seconds ends that takes a checkpoint a second, of which two checkpoints in a row may fail but not a third, when as many files in a
/// folder of its checkpoints take so long; and those checkpoints.
fn slowed(slow: &'static str, files: usize, pause: Duration) -> (Result<JobResult>, Vec<CheckpointInfo>) {
    let chance = Chance::new(7);
    let run = move |environment: Environment| async move {
        let store = FaultyStore::shared(chance.clone(), StoreTroubles::default());
        store.set_clock(environment.clock.clone());
        let folder = store.folder("job");
        let plan = Plan::draw(&chance, Troubles::None);
        let plan = Plan { sources: vec![vec![20_000], vec![20_000]], interval_millis: 1000, concurrent: 1, ..plan };
        let job = start_plan(&plan, &chance, &environment, folder);
        job.control().await.unwrap();
        store.slow_down(Access::Put, slow, files, pause);
        let ended = environment.clock.sleep(Duration::from_secs(600));
        let outcome = tokio::select! {
            biased;
            outcome = job.wait() => outcome,
            () = ended => panic!("the job does not end"),
        };
        (outcome, job.checkpoints())
    };
    simulate(7, run).unwrap()
}

#[test]
fn checkpoints_that_a_slow_store_fails_are_borne_as_often_as_is_tolerated() {
    for tolerated in [1, 2] {
        let (outcome, checkpoints) = slowed("/segments/", tolerated, LONG);
        outcome.unwrap();
        let failed: Vec<&CheckpointInfo> =
            checkpoints.iter().filter(|checkpoint| checkpoint.status == CheckpointStatus::Failed).collect();
        assert_eq!(failed.len(), tolerated, "{failed:#?}");
        for checkpoint in failed {
            let reason = checkpoint.failure.as_deref().unwrap();
            assert!(reason.starts_with("the store has not answered for 5s"), "{reason}");
        }
        assert!(checkpoints.iter().any(|checkpoint| checkpoint.status == CheckpointStatus::Completed));
    }
    let (outcome, _) = slowed("/segments/", 3, LONG);
    let error = outcome.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("the store has not answered for 5s"), "{error}");
    assert!(error.to_string().contains("tolerable-failed-checkpoints"), "{error}");
}

#[test]
fn a_checkpoint_whose_manifest_comes_late_counts_as_failed_until_it_is_there() {
    let (outcome, checkpoints) = slowed("/manifests/", 1, Duration::from_secs(12));
    outcome.unwrap();
    let late = checkpoints.iter().find(|checkpoint| checkpoint.duration >= Duration::from_secs(12));
    let late = late.unwrap_or_else(|| panic!("{checkpoints:#?}"));
    assert_eq!((late.status, late.failure.as_deref()), (CheckpointStatus::Completed, None));
    // Every timeout without an answer counts: a store that never answers is not waited for for ever.
    let (outcome, _) = slowed("/manifests/", 1, Duration::from_secs(10_000));
    assert!(outcome.unwrap_err().to_string().contains("tolerable-failed-checkpoints"));
}

/// How a job ends that goes on from checkpoints whose store keeps silent when their states are read, and is cancelled after so long.
fn goes_on_in_silence(timeout: &'static str, cancelled_after: Option<Duration>) -> tidemill_core::Error {
    let run = move |environment: Environment| async move {
        let chance = Chance::new(5);
        let store = FaultyStore::shared(chance.clone(), StoreTroubles::default());
        store.set_clock(environment.clock.clone());
        let folder = store.folder("job");
        let plan = Plan { sources: vec![vec![20_000], vec![20_000]], ..Plan::draw(&chance, Troubles::None) };
        let job = start_plan(&plan, &chance, &environment, folder.clone());
        job.control().await.unwrap().stop(false, None).await.unwrap();
        in_time(&environment, PATIENCE, job.wait()).await.unwrap();
        store.slow_down(Access::Get, "/segments/", usize::MAX, Duration::from_secs(100_000));
        let job = begin(&plan, &chance, &environment, folder, Begin::Resume { origin: None }, timeout);
        if let Some(pause) = cancelled_after {
            environment.clock.sleep(pause).await;
            job.cancel();
        }
        in_time(&environment, PATIENCE, job.wait()).await.unwrap_err()
    };
    simulate(5, run).unwrap()
}

#[test]
fn a_job_does_not_wait_for_ever_for_the_states_that_it_goes_on_from() {
    let error = goes_on_in_silence("5 s", None);
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let text = error.to_string();
    assert!(text.contains("/segments/") && text.contains("the store has not answered for 5s"), "{text}");
    let error = goes_on_in_silence("1 h", Some(Duration::from_secs(2)));
    assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
}

#[test]
fn who_cancels_a_job_between_two_attempts_does_not_wait_for_its_store() {
    let run = |environment: Environment| async move {
        let chance = Chance::new(13);
        let store = FaultyStore::shared(chance.clone(), StoreTroubles::default());
        store.set_clock(environment.clock.clone());
        let folder = store.folder("job");
        let plan = Plan { reader_failures: 1, interval_millis: 1_000_000, ..Plan::draw(&chance, Troubles::None) };
        let outside: Arc<dyn Sink> = Arc::new(Outside::new(chance.clone(), 0, 0));
        let more = [("execution.checkpointing.timeout", "1 h")];
        let job = job::start(&environment, &plan, [outside], &chance, Some(folder), Begin::Anew, &more);
        job.control().await.unwrap();
        store.slow_down(Access::Get, "/manifests/", usize::MAX, Duration::from_secs(100_000));
        environment.clock.sleep(Duration::from_secs(2)).await;
        assert_eq!((job.failure_count(), job.restart_count()), (1, 1), "{:?}", job.failures());
        job.cancel();
        in_time(&environment, PATIENCE, job.wait()).await.unwrap_err()
    };
    let error = simulate(13, run).unwrap();
    assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
}
