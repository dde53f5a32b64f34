//! How long TPC-H takes through our exchanges, and in plain DataFusion on the same threads. Run it by name:
//!
//! ```text
//! TPCH=folder RUNS=3 CORES=2 cargo test --release --test tpch_ratio -- --ignored --nocapture
//! ```

#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

mod common;

use std::time::Duration;

use common::{physical_plan, run, settings, tpch_query, tpch_session};
use datafusion::physical_plan::collect;
use tidemill_core::Gate;
use tidemill_exec::fragments::bounded_config;
use tidemill_exec::runtime::Engine;

#[test]
#[ignore = "a measurement"]
fn ratio_to_plain_datafusion() {
    let number = |name: &str, default: usize| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let (runs, cores) = (number("RUNS", 3), number("CORES", 2));
    let gate: Gate = std::env::var("GATE").map_or(Gate::default(), |text| text.parse().unwrap());
    let pushdown = number("PUSHDOWN", 0) == 1;
    let only = number("QUERY", 0);
    let engine = Engine::new(64, vec![]).unwrap();
    let environment = engine.environment().clone();
    let mut totals = [Duration::ZERO; 2];
    engine.block_on(async {
        for query in (1..=22).filter(|query| only == 0 || *query == only) {
            let mut best = [Duration::MAX; 2];
            for _ in 0..runs {
                for (way, best) in best.iter_mut().enumerate() {
                    let settings = settings(cores, gate);
                    let mut config = bounded_config(&settings, &environment);
                    config.options_mut().execution.parquet.pushdown_filters = pushdown;
                    let session = tpch_session(config).await;
                    let plan = physical_plan(&session, &tpch_query(query)).await;
                    let begin = environment.clock.monotonic();
                    match way {
                        0 => drop(tokio::spawn(collect(plan, session.task_ctx())).await.unwrap().unwrap()),
                        _ => drop(run(&session, plan, &environment, &settings).await.unwrap()),
                    }
                    *best = (*best).min(environment.clock.monotonic() - begin);
                }
            }
            let ratio = best[1].as_secs_f64() / best[0].as_secs_f64();
            println!("q{query:<3} plain {:>8.1?}  ours {:>8.1?}  ratio {ratio:.2}", best[0], best[1]);
            totals.iter_mut().zip(best).for_each(|(total, best)| *total += best);
        }
    });
    let ratio = totals[1].as_secs_f64() / totals[0].as_secs_f64();
    println!("all  plain {:>8.1?}  ours {:>8.1?}  ratio {ratio:.2}", totals[0], totals[1]);
}
