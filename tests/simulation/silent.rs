//! Stores that never answer: whoever waits for them hears of it.

use std::sync::Arc;
use std::time::Duration;

use tidemill_core::settings::Origin;
use tidemill_core::{ErrorKind, Result};
use tidemill_exec::runtime::{Begin, Environment, JobHandle, Persistence, StoreFolder, execute_from, simulate};

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
    let mut settings = settings(&plan, 2, "memory");
    settings.set("restart-strategy.type", "none", Origin::Program).unwrap();
    let outside = Outside::new(chance.clone(), 0, 0);
    let job = graph(&plan, Arc::new(outside), chance, 2).to_job_graph(&settings).unwrap();
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
    let (mut refused, mut failed) = (0, 0);
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
                // The folder did not answer when it was looked at: the job has not noticed.
                assert!(asked.to_string().contains("the store has not answered"), "{asked}");
                refused += 1;
            }
            (Err(asked), Err(ended)) => {
                // It fell silent afterwards.
                assert_eq!((asked.kind(), ended.kind()), (ErrorKind::Unavailable, ErrorKind::Unavailable));
                assert!(ended.to_string().contains("the store has not answered"), "{ended}");
                failed += 1;
            }
            (Ok(_), Err(ended)) => panic!("{ended}"),
        }
    }
    assert!(refused > 0 && failed > 0, "{refused} refused, {failed} failed");
}
