//! All of TPC-H through our exchanges, against plain DataFusion.
//!
//! Every query runs at two parallelisms, under three gates, with the joins that the planner chooses and with partitioned joins
//! whose filters reach into the scan. What could go wrong: rows dealt by another hash than the one that filters route by, a
//! scan that opens before its filter is complete, producers and consumers that wait for each other.

#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{assert_same, physical_plan, run, settings, tpch_query, tpch_session};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, displayable};
use datafusion::prelude::SessionConfig;
use tidemill_core::{Gate, Settings};
use tidemill_exec::fragments::{ExchangeExec, bounded_config, cut};
use tidemill_exec::runtime::{Engine, Environment};

const GATES: [Gate; 3] = [Gate::After(Duration::from_millis(100)), Gate::Full, Gate::Infinite];

/// As the planner likes it, or every join partitioned and every filter in the scan.
fn config(settings: &Settings, environment: &Environment, forced: bool) -> SessionConfig {
    let mut config = bounded_config(settings, environment);
    if forced {
        let options = config.options_mut();
        options.optimizer.hash_join_single_partition_threshold = 0;
        options.optimizer.hash_join_single_partition_threshold_rows = 0;
        options.optimizer.repartition_file_min_size = 0;
        options.execution.parquet.pushdown_filters = true;
    }
    config
}

fn check(forced: bool) {
    let engine = Engine::new(8, vec![]).unwrap();
    let environment = engine.environment().clone();
    engine.block_on(async {
        for query in 1..=22 {
            let sql = tpch_query(query);
            let plain = tpch_session(SessionConfig::new().with_target_partitions(2)).await;
            let expected = plain.sql(&sql).await.unwrap().collect().await.unwrap();
            for parallelism in [2, 3] {
                for gate in GATES {
                    let settings = settings(parallelism, gate);
                    let session = tpch_session(config(&settings, &environment, forced)).await;
                    let plan = physical_plan(&session, &sql).await;
                    let what = format!("q{query} at parallelism {parallelism}, gate {gate}, forced {forced}");
                    let rows = run(&session, plan, &environment, &settings).await;
                    let rows = rows.unwrap_or_else(|error| panic!("{what}: {error:?}"));
                    assert_same(&expected, &rows, &what);
                }
            }
        }
    });
}

#[test]
fn all_queries_are_right_with_the_joins_that_the_planner_chooses() {
    check(false);
}

#[test]
fn all_queries_are_right_with_partitioned_joins_and_filters_in_the_scan() {
    check(true);
}

#[test]
fn nothing_but_our_exchanges_moves_rows_between_partitions() {
    fn look(plan: &Arc<dyn ExecutionPlan>, whole: &Arc<dyn ExecutionPlan>) {
        let moves =
            plan.is::<RepartitionExec>() || plan.is::<CoalescePartitionsExec>() || plan.is::<SortPreservingMergeExec>();
        assert!(!moves, "{} is left in\n{}", plan.name(), displayable(&**whole).indent(true));
        let alone = plan.children().into_iter().all(|child| !child.is::<ExchangeExec>());
        assert!(!plan.is::<ExchangeExec>() || alone || plan.output_partitioning().partition_count() == 1);
        plan.children().into_iter().for_each(|child| look(child, whole));
    }
    let engine = Engine::new(8, vec![]).unwrap();
    let environment = engine.environment().clone();
    engine.block_on(async {
        for (query, parallelism, forced) in (1..=22).flat_map(|query| [(query, 2, false), (query, 3, true)]) {
            let settings = settings(parallelism, Gate::Full);
            let session = tpch_session(config(&settings, &environment, forced)).await;
            let plan = cut(&physical_plan(&session, &tpch_query(query)).await).unwrap();
            look(&plan, &plan);
        }
    });
}
