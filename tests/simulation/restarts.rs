//! Restart strategies in whole jobs, in simulated time: when the next attempt comes, when none does, and that what a job comes to
//! in the end is every row once.

use std::sync::Arc;
use std::time::Duration;

use tidemill_core::settings::Origin;
use tidemill_core::{Error, Result};
use tidemill_exec::runtime::{
    Begin, Environment, JobFailure, JobHandle, JobResult, Persistence, execute_from, simulate,
};

use crate::chance::Chance;
use crate::job::{Plan, graph, settings};
use crate::outside::Outside;
use crate::{Troubles, check};

/// What reading costs beside the pauses: a reader fails within so many milliseconds.
const READING_MILLIS: i64 = 300;

/// Runs a job whose readers fail for so long, whenever they read, under a restart strategy; how it ends and what failed.
fn run(failing: Duration, strategy: &[(&str, &str)]) -> (Result<JobResult>, Vec<JobFailure>) {
    let chance = Chance::new(3);
    let plan = Plan { reader_failures: 1, ..Plan::draw(&chance, Troubles::None) };
    let (outcome, handle) = run_plan(plan, chance, failing, strategy);
    (outcome, handle.failures())
}

/// The same for a job whose readers fail as often as its plan says.
fn run_plan(
    plan: Plan,
    chance: Chance,
    failing: Duration,
    strategy: &[(&str, &str)],
) -> (Result<JobResult>, JobHandle) {
    let run = |environment: Environment| async move {
        let mut settings = settings(&plan, 2, "memory");
        for (key, value) in strategy {
            settings.set(&format!("restart-strategy.{key}"), value, Origin::Program).unwrap();
        }
        let outside = Outside::new(chance.clone(), 0, 0);
        let job = graph(&plan, Arc::new(outside.clone()), &chance, 2).to_job_graph(&settings).unwrap();
        let persistence = Persistence { folder: None, begin: Begin::Anew, ignore_unclaimed: false, claims: false };
        let handle = execute_from(&job, &environment, &settings, persistence).unwrap();
        let repaired = environment.clock.sleep(failing);
        let outcome = tokio::select! {
            biased;
            outcome = handle.wait() => outcome,
            () = repaired => {
                chance.be_kind();
                handle.wait().await
            }
        };
        if outcome.is_ok() {
            check(&plan, &outside.published());
        }
        // No restart follows the failure that ends a job.
        assert_eq!(handle.restart_count() + usize::from(outcome.is_err()), handle.failure_count());
        (outcome, handle)
    };
    simulate(3, run).unwrap()
}

/// The pauses between failures in seconds, and that nothing but they and reading took time.
fn pauses(failures: &[JobFailure]) -> Vec<i64> {
    let between = |pair: &[JobFailure]| {
        let millis = pair[1].at - pair[0].at;
        assert!(millis % 1000 <= READING_MILLIS, "{millis} ms between two failures");
        millis / 1000
    };
    failures.windows(2).map(between).collect()
}

const FOR_EVER: Duration = Duration::from_secs(100_000);

/// The first cause stands in the error of a job that gives up.
fn gave_up(error: &Error, restarts: usize) {
    let said = error.to_string();
    assert!(said.contains("the disk is away"), "{said}");
    let history = format!("after {restarts} restarts, the first of them because of: ");
    assert!(said.contains(&history), "{said}");
}

#[test]
fn more_failures_than_are_borne_in_the_interval_end_a_job() {
    let strategy = [
        ("type", "failure-rate"),
        ("failure-rate.max-failures-per-interval", "3"),
        ("failure-rate.failure-rate-interval", "1 min"),
        ("failure-rate.delay", "2 s"),
    ];
    let (outcome, failures) = run(FOR_EVER, &strategy);
    gave_up(&outcome.unwrap_err(), 3);
    assert_eq!(pauses(&failures), [2, 2, 2]);
}

#[test]
fn failures_that_are_far_enough_apart_are_borne_for_ever() {
    let strategy = [
        ("type", "failure-rate"),
        ("failure-rate.max-failures-per-interval", "3"),
        ("failure-rate.failure-rate-interval", "5 s"),
        ("failure-rate.delay", "2 s"),
    ];
    let (outcome, failures) = run(Duration::from_secs(60), &strategy);
    outcome.unwrap();
    assert!(failures.len() > 4, "{}", failures.len());
}

#[test]
fn pauses_grow_up_to_the_longest_and_the_attempts_are_counted() {
    let strategy = [
        ("type", "exponential-delay"),
        ("exponential-delay.initial-backoff", "1 s"),
        ("exponential-delay.max-backoff", "5 s"),
        ("exponential-delay.backoff-multiplier", "2"),
        ("exponential-delay.jitter-factor", "0"),
        ("exponential-delay.attempts-before-reset-backoff", "5"),
    ];
    let (outcome, failures) = run(FOR_EVER, &strategy);
    gave_up(&outcome.unwrap_err(), 5);
    assert_eq!(pauses(&failures), [1, 2, 4, 5, 5]);
}

#[test]
fn a_job_that_recovers_from_growing_pauses_counts_every_row_once() {
    let strategy = [("type", "exponential-delay"), ("exponential-delay.max-backoff", "4 s")];
    let (outcome, failures) = run(Duration::from_secs(10), &strategy);
    outcome.unwrap();
    assert!((4..8).contains(&failures.len()), "{}", failures.len());
}

#[test]
fn without_restarts_the_first_failure_is_the_last() {
    let (outcome, failures) = run(FOR_EVER, &[("type", "none")]);
    let said = outcome.unwrap_err().to_string();
    assert!(said.contains("the disk is away") && !said.contains("restarts"), "{said}");
    assert_eq!(failures.len(), 1);
}

/// Every attempt reads some rows before it fails, up to the one that comes when nothing fails any more.
#[test]
fn a_job_that_holds_everything_back_has_no_checkpoints_and_begins_anew() {
    let strategy = [("type", "fixed-delay"), ("fixed-delay.delay", "1 s")];
    for (gate, has_checkpoints) in [("infinite", false), ("full", true)] {
        let chance = Chance::new(3);
        let sources = vec![vec![300, 300], vec![300]];
        let plan = Plan { gate, sources, reader_failures: 40, ..Plan::draw(&chance, Troubles::None) };
        let (outcome, handle) = run_plan(plan, chance, Duration::from_secs(10), &strategy);
        outcome.unwrap();
        assert!(handle.restart_count() > 0, "{gate}");
        assert_eq!(!handle.checkpoints().is_empty(), has_checkpoints, "{gate}: {:?}", handle.checkpoints());
    }
}
