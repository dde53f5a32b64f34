//! What the settings of checkpoints promise: at least once where barriers do not wait for one another, and pauses between two.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidemill_core::settings::Origin;
use tidemill_exec::runtime::{
    Begin, CheckpointInfo, CheckpointStatus, Environment, Persistence, execute_from, simulate,
};

use crate::chance::Chance;
use crate::job::{Plan, graph, settings};
use crate::outside::Outside;
use crate::{PATIENCE, Troubles};

/// How often each key's rows were published, and the highest number that one got, of a job whose readers fail now and then and whose
/// sink is slow, so that barriers come through one channel later than through another; and how often they failed.
fn counted(seed: u64, mode: &'static str) -> (Plan, BTreeMap<i64, (i64, i64)>, usize) {
    let chance = Chance::new(seed);
    let plan = Plan {
        mode,
        sources: vec![vec![120, 90], vec![100]],
        interval_millis: 10,
        reader_failures: 60,
        sink_pause_millis: 40,
        ..Plan::draw(&chance, Troubles::None)
    };
    let drawn = plan.clone();
    let run = |environment: Environment| async move {
        let settings = settings(&plan, 2, "memory");
        let outside = Outside::new(chance.clone(), 0, plan.sink_pause_millis);
        let job = graph(&plan, Arc::new(outside.clone()), &chance, 2).to_job_graph(&settings).unwrap();
        let persistence = Persistence { folder: None, begin: Begin::Anew, ignore_unclaimed: false, claims: false };
        let handle = execute_from(&job, &environment, &settings, persistence).unwrap();
        tokio::select! {
            biased;
            outcome = handle.wait() => drop(outcome.unwrap()),
            () = environment.clock.sleep(PATIENCE) => panic!("seed {seed} hangs"),
        }
        (outside.published(), handle.failures().len())
    };
    let (published, failures) = simulate(seed, run).unwrap();
    let mut counts = BTreeMap::<i64, (i64, i64)>::new();
    for (key, number) in published {
        let (rows, highest) = counts.entry(key).or_default();
        (*rows, *highest) = (*rows + 1, number.max(*highest));
    }
    (drawn, counts, failures)
}

#[test]
fn at_least_once_loses_no_row_over_failures_and_counts_some_again() {
    let (mut again, mut failures) = (0, 0);
    for seed in 0..40 {
        let (plan, counts, failed) = counted(seed, "AT_LEAST_ONCE");
        for (key, rows) in plan.rows_by_key() {
            let (published, highest) = counts[&key];
            assert!(published >= rows && highest >= rows, "seed {seed}, key {key}: {published} of {rows} rows");
            again += published - rows;
        }
        failures += failed;
    }
    assert!(failures > 40, "{failures} failures");
    // Or it would be what costs more.
    assert!(again > 0, "barriers have waited for one another");
}

#[test]
fn a_pause_between_checkpoints_that_may_overlap_is_refused_before_a_job_starts() {
    let chance = Chance::new(1);
    let plan = Plan { concurrent: 2, aligned_millis: None, ..Plan::draw(&chance, Troubles::None) };
    let mut settings = settings(&plan, 2, "memory");
    settings.set("execution.checkpointing.min-pause", "1 s", Origin::Program).unwrap();
    let run = |environment: Environment| async move {
        let job =
            graph(&plan, Arc::new(Outside::new(chance.clone(), 0, 0)), &chance, 2).to_job_graph(&settings).unwrap();
        let persistence = Persistence { folder: None, begin: Begin::Anew, ignore_unclaimed: false, claims: false };
        execute_from(&job, &environment, &settings, persistence).unwrap_err().to_string()
    };
    let error = simulate(1, run).unwrap();
    for part in ["max-concurrent-checkpoints is 2", "min-pause is 1s"] {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn between_the_end_of_one_checkpoint_and_the_next_is_the_least_pause() {
    let chance = Chance::new(5);
    let plan = Plan {
        sources: vec![vec![2000], vec![2000]],
        interval_millis: 10,
        concurrent: 1,
        ..Plan::draw(&chance, Troubles::None)
    };
    let run = |environment: Environment| async move {
        let mut settings = settings(&plan, 2, "memory");
        settings.set("execution.checkpointing.min-pause", "300 ms", Origin::Program).unwrap();
        let outside = Outside::new(chance.clone(), 0, 0);
        let job = graph(&plan, Arc::new(outside.clone()), &chance, 2).to_job_graph(&settings).unwrap();
        let persistence = Persistence { folder: None, begin: Begin::Anew, ignore_unclaimed: false, claims: false };
        let handle = execute_from(&job, &environment, &settings, persistence).unwrap();
        handle.wait().await.unwrap();
        handle.checkpoints()
    };
    let taken: Vec<CheckpointInfo> = simulate(5, run).unwrap();
    assert!(taken.len() >= 5, "{}", taken.len());
    for pair in taken.windows(2) {
        assert_eq!(pair[0].status, CheckpointStatus::Completed, "{:?}", pair[0]);
        let pause = pair[1].triggered_at - pair[0].triggered_at - pair[0].duration.as_millis() as i64;
        let pause = Duration::from_millis(u64::try_from(pause).unwrap());
        assert!((300..330).contains(&pause.as_millis()), "{pause:?} before checkpoint {}", pair[1].id);
    }
}
