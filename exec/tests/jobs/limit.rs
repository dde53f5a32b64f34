//! `LIMIT` over a source that never ends: the last operator has had enough, closes its channels, and whoever feeds it notices,
//! task by task up to the source. (Pulled plans: `a_limit_ends_an_endless_source` in `tests/fragments.rs`.)

use std::sync::Arc;
use std::time::Duration;

use tidemill_core::Settings;
use tidemill_core::graph::Partitioning;
use tidemill_core::source::Source;
use tidemill_exec::operators::limit::Limit;
use tidemill_exec::runtime::{Engine, Environment, simulate};

use crate::graph::{Pipeline, ended, settings};
use crate::source::Numbers;

const GATES: [&str; 3] = ["0 ms", "10 ms", "full"];

/// The first row of an endless source, behind one exchange or two; then every reader is gone.
async fn first_row(environment: &Environment, settings: &Settings, exchanges: usize) {
    let endless = Numbers::endless("endless");
    let (alive, schema) = (Arc::downgrade(&endless.log), endless.schema());
    let read = Pipeline::read(endless, None, 2);
    let dealt = match exchanges {
        1 => read.then("limit", Partitioning::Hash(vec![0]), Limit { skip: 0, fetch: 1 }, schema, 1),
        _ => read.then_pass("k", Partitioning::Hash(vec![0]), 2).then(
            "limit",
            Partitioning::Global,
            Limit { skip: 0, fetch: 1 },
            schema,
            1,
        ),
    };
    let (job, rows) = dealt.start(environment, settings).unwrap();
    ended(&job, environment).await.unwrap();
    assert_eq!(rows.count(), 1);
    let stopped = async {
        while alive.strong_count() > 0 {
            environment.clock.sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        () = stopped => {}
        () = environment.clock.sleep(crate::graph::PATIENCE) => panic!("a reader goes on"),
    }
}

/// Runs `program` in simulated time. That stands still while an endless source has rows to give, so patience is counted in turns
/// of all tasks.
fn on_one_thread<F: Future<Output = ()>>(program: impl FnOnce(Environment) -> F) {
    let turns = async {
        for _ in 0..100_000 {
            tokio::task::yield_now().await;
        }
    };
    let run = |environment| async move {
        tokio::select! {
            biased;
            () = program(environment) => {}
            () = turns => panic!("the job hangs"),
        }
    };
    simulate(3, run).unwrap();
}

/// Batches of any size, channels with room for all of a buffer or for one batch only.
fn each_setting(check: impl Fn(&Settings, usize)) {
    for (gate, rows) in GATES.into_iter().flat_map(|gate| ["1", "7", "8192"].map(|rows| (gate, rows))) {
        for network in ["1", "1 gb"] {
            let pairs = [
                ("execution.buffer-timeout", gate),
                ("execution.batch-rows", rows),
                ("taskmanager.memory.network.max", network),
            ];
            [1, 2].into_iter().for_each(|exchanges| check(&settings(&pairs), exchanges));
        }
    }
}

#[test]
fn limit_1_over_an_endless_source_ends() {
    let engine = Engine::new(vec![]).unwrap();
    let environment = engine.environment();
    each_setting(|settings, exchanges| engine.block_on(first_row(environment, settings, exchanges)));
}

#[test]
fn limit_1_over_an_endless_source_ends_on_one_thread() {
    each_setting(|settings, exchanges| {
        on_one_thread(|environment| async move { first_row(&environment, settings, exchanges).await });
    });
}

#[test]
fn limit_0_reads_nothing() {
    on_one_thread(|environment| async move {
        let endless = Numbers::endless("endless");
        let schema = endless.schema();
        let read = Pipeline::read(endless, None, 2);
        let none = read.then("limit", Partitioning::Hash(vec![0]), Limit { skip: 0, fetch: 0 }, schema, 1);
        let (job, rows) = none.start(&environment, &Settings::default()).unwrap();
        ended(&job, &environment).await.unwrap();
        assert_eq!(rows.count(), 0);
    });
}
