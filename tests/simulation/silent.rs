//! Stores that never answer, or not in time: whoever waits for them hears of it, and a job bears as much of it as it may.

use std::sync::Arc;
use std::time::Duration;

use tidemill_core::settings::Origin;
use tidemill_core::{ErrorKind, Result};
use tidemill_exec::runtime::{
    Begin, CheckpointInfo, CheckpointStatus, Environment, JobHandle, JobResult, Persistence, StoreFolder, execute_from,
    simulate,
};

use crate::Troubles;
use crate::chance::Chance;
use crate::job::{Plan, graph, settings};
use crate::outside::Outside;
use crate::store::{FaultyStore, StoreTroubles};

/// Longer than `execution.checkpointing.timeout` and `task.cancellation.timeout` together.
const PATIENCE: Duration = Duration::from_secs(60);

fn folder(chance: &Chance, troubles: StoreTroubles) -> StoreFolder {
    let store = FaultyStore::shared(chance.clone(), troubles);
    StoreFolder { store, root: "job".into(), url: "memory:job".to_owned() }
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
    let mut settings = settings(plan, 2, "memory");
    settings.set("restart-strategy.type", "none", Origin::Program).unwrap();
    let outside = Outside::new(chance.clone(), 0, 0);
    let job = graph(plan, Arc::new(outside), chance, 2).to_job_graph(&settings).unwrap();
    let persistence = Persistence { folder: Some(folder), begin: Begin::Anew, ignore_unclaimed: false, claims: false };
    execute_from(&job, environment, &settings, persistence).unwrap()
}

/// What comes of `work`, which must not take for ever.
async fn in_time<T>(environment: &Environment, work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::select! {
        biased;
        done = work => done,
        () = environment.clock.sleep(PATIENCE) => panic!("nobody answered"),
    }
}

#[test]
fn a_job_whose_folder_never_answers_ends_with_an_error_that_names_it() {
    let chance = Chance::new(1);
    let run = |environment: Environment| async move {
        let job = start(&chance, &environment, silent(&chance));
        in_time(&environment, job.wait()).await.unwrap_err()
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
            let asked = in_time(&environment, control.savepoint(target)).await;
            (asked, in_time(&environment, job.wait()).await)
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

/// How a job of some thirty seconds ends that takes a checkpoint a second, of which two checkpoints in a row may fail but not a third, when as many files in a
/// folder of its checkpoints take so long; and those checkpoints.
fn slowed(slow: &'static str, files: usize, pause: Duration) -> (Result<JobResult>, Vec<CheckpointInfo>) {
    let chance = Chance::new(7);
    let run = move |environment: Environment| async move {
        let store = FaultyStore::shared(chance.clone(), StoreTroubles::default());
        store.set_clock(environment.clock.clone());
        let folder = StoreFolder { store: store.clone(), root: "job".into(), url: "memory:job".to_owned() };
        let plan = Plan::draw(&chance, Troubles::None);
        let plan = Plan { sources: vec![vec![20_000], vec![20_000]], interval_millis: 1000, concurrent: 1, ..plan };
        let job = start_plan(&plan, &chance, &environment, folder);
        job.control().await.unwrap();
        store.slow_down(slow, files, pause);
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
    // Longer than the timeout of 5 s, for one file each.
    let pause = Duration::from_secs(8);
    for tolerated in [1, 2] {
        let (outcome, checkpoints) = slowed("/segments/", tolerated, pause);
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
    let (outcome, _) = slowed("/segments/", 3, pause);
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
