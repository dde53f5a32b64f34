//! The stream front end on the whole engine: the same programs under many settings, against models that are too simple to be
//! wrong.
//!
//! What a program means must not depend on how many subtasks run it, when buffers leave, or how rows are cut into batches. So
//! every program here runs on a grid of those, and its output is compared as a set; only where one subtask does everything is
//! the order part of the answer.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::disallowed_methods, reason = "the tests wait in real time")]

mod accumulators;
mod broadcast_sets;
mod cached_files;
mod connected;
mod delivery;
mod errors;
mod examples;
mod files;
mod keyed;
mod late;
mod process;
mod processing_time;
mod recovery;
mod rich;
mod rows;
mod savepoints;
mod window_states;
mod windows;

use std::fmt::Debug;

use tidemill::stream::{AggregateFunction, DataStream, Environment, Record};
use tidemill_core::Settings;
use tidemill_core::settings::Origin;

/// How a program runs.
#[derive(Clone, Copy, Debug)]
struct Setup {
    parallelism: usize,
    gate: &'static str,
    batch_rows: usize,
}

const GATES: [&str; 4] = ["0 ms", "100 ms", "full", "infinite"];
const BATCH_ROWS: [usize; 3] = [1, 7, 8192];

impl Setup {
    /// A cover of the grid in which every two values meet.
    fn grid() -> Vec<Setup> {
        let mut setups = Vec::new();
        for (place, gate) in GATES.into_iter().enumerate() {
            for (shift, batch_rows) in BATCH_ROWS.into_iter().enumerate() {
                setups.push(Setup { parallelism: (place + shift) % 3 + 1, gate, batch_rows });
            }
        }
        setups
    }

    fn settings(self) -> Settings {
        let mut settings = Settings::default();
        let mut set = |key: &str, value: &str| settings.set(key, value, Origin::Program).unwrap();
        set("parallelism.default", &self.parallelism.to_string());
        set("execution.buffer-timeout", self.gate);
        set("execution.batch-rows", &self.batch_rows.to_string());
        settings
    }

    fn environment(self) -> Environment {
        // Both ways to run a program take part.
        match self.parallelism {
            1 => Environment::collections_with(self.settings()),
            _ => Environment::local_with(self.settings()),
        }
    }
}

/// Runs `program` on the whole grid; its records, sorted, must always be `expected`.
fn check<T: Record + Ord + Debug>(mut expected: Vec<T>, program: impl Fn(&Environment) -> DataStream<T>) {
    expected.sort();
    for setup in Setup::grid() {
        let mut records = program(&setup.environment()).collect().unwrap();
        records.sort();
        assert_eq!(records, expected, "{setup:?}");
    }
}

/// An environment of one subtask, in which order is part of the answer.
fn one() -> Environment {
    Environment::collections()
}

/// An environment like many.
fn environment(parallelism: usize) -> Environment {
    Setup { parallelism, gate: "100 ms", batch_rows: 7 }.environment()
}

/// Lets a job restart at once, a few times.
fn restarting(parallelism: usize) -> Environment {
    let environment = environment(parallelism);
    environment.set("restart-strategy.type", "fixed-delay");
    environment.set("restart-strategy.fixed-delay.attempts", "3").set("restart-strategy.fixed-delay.delay", "1 ms");
    environment
}

/// The sum of what a function says of each record.
struct SumOf<F>(F);

impl<T, F: Fn(T) -> i64 + Send + Sync + 'static> AggregateFunction<T> for SumOf<F> {
    type Accumulator = i64;
    type Output = i64;

    fn create(&self) -> i64 {
        0
    }

    fn add(&self, sum: &mut i64, record: T) {
        *sum += (self.0)(record);
    }

    fn result(&self, sum: &i64) -> i64 {
        *sum
    }

    fn merge(&self, sum: &mut i64, other: &i64) {
        *sum += other;
    }
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}
