//! All of TPC-H through our exchanges, against plain DataFusion.
//!
//! Every query runs at two parallelisms, under three gates, with the joins that the planner chooses, with partitioned joins
//! whose filters reach into the scan, and with merge joins through channels that have room for one batch. What could go wrong:
//! rows dealt by another hash than the one that filters route by, a scan that opens before its filter is complete, producers
//! and consumers that wait for each other.

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
use tidemill_core::settings::Origin;
use tidemill_core::{Gate, Settings};
use tidemill_exec::fragments::{ExchangeExec, bounded_config, cut};
use tidemill_exec::runtime::{Engine, Environment};

const GATES: [Gate; 3] = [Gate::After(Duration::from_millis(100)), Gate::Full, Gate::Infinite];

/// What is asked of the planner, and how much room there is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Shape {
    /// Whatever the planner likes.
    Planned,
    /// Every hash join partitioned, every filter in the scan, every file split.
    Partitioned,
    /// Merge joins over what is sorted, through channels of one small batch.
    MergedNarrow,
}

fn job_settings(parallelism: usize, gate: Gate, shape: Shape) -> Settings {
    let mut settings = settings(parallelism, gate);
    if shape == Shape::MergedNarrow {
        settings.set("taskmanager.memory.network.max", "1", Origin::Program).unwrap();
        settings.set("execution.batch-rows", "500", Origin::Program).unwrap();
    }
    settings
}

fn config(settings: &Settings, environment: &Environment, shape: Shape) -> SessionConfig {
    let mut config = bounded_config(settings, environment);
    let options = config.options_mut();
    match shape {
        Shape::Planned => {}
        Shape::Partitioned => {
            options.optimizer.hash_join_single_partition_threshold = 0;
            options.optimizer.hash_join_single_partition_threshold_rows = 0;
            options.optimizer.repartition_file_min_size = 0;
            options.execution.parquet.pushdown_filters = true;
        }
        Shape::MergedNarrow => {
            options.optimizer.prefer_hash_join = false;
            options.optimizer.prefer_existing_sort = true;
            options.optimizer.repartition_file_min_size = 0;
        }
    }
    config
}

fn check(shape: Shape, gates: &[Gate]) {
    let engine = Engine::new(vec![]).unwrap();
    let environment = engine.environment().clone();
    engine.block_on(async {
        for query in 1..=22 {
            let sql = tpch_query(query);
            let plain = tpch_session(SessionConfig::new().with_target_partitions(2)).await;
            let expected = plain.sql(&sql).await.unwrap().collect().await.unwrap();
            for (parallelism, gate) in [2, 3].into_iter().flat_map(|cores| gates.iter().map(move |gate| (cores, *gate)))
            {
                let settings = job_settings(parallelism, gate, shape);
                let session = tpch_session(config(&settings, &environment, shape)).await;
                let plan = physical_plan(&session, &sql).await;
                let what = format!("q{query} at parallelism {parallelism}, gate {gate}, {shape:?}");
                let rows = run(&session, plan, &environment, &settings).await;
                let rows = rows.unwrap_or_else(|error| panic!("{what}: {error:?}"));
                assert_same(&expected, &rows, &what);
            }
        }
    });
}

#[test]
fn all_queries_are_right_with_the_joins_that_the_planner_chooses() {
    check(Shape::Planned, &GATES);
}

#[test]
fn all_queries_are_right_with_partitioned_joins_and_filters_in_the_scan() {
    check(Shape::Partitioned, &GATES);
}

#[test]
fn all_queries_are_right_with_merge_joins_and_no_room() {
    check(Shape::MergedNarrow, &[Gate::Full]);
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
    let engine = Engine::new(vec![]).unwrap();
    let environment = engine.environment().clone();
    engine.block_on(async {
        let shapes = [(2, Shape::Planned), (3, Shape::Partitioned), (3, Shape::MergedNarrow)];
        for (query, (parallelism, shape)) in (1..=22).flat_map(|query| shapes.map(|shape| (query, shape))) {
            let settings = job_settings(parallelism, Gate::Full, shape);
            let session = tpch_session(config(&settings, &environment, shape)).await;
            let plan = cut(&physical_plan(&session, &tpch_query(query)).await).unwrap();
            look(&plan, &plan);
        }
    });
}
