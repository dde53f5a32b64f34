//! The corners of bounded plans: shapes of plans that line up partitions oddly, readers that read in an order, endless inputs,
//! failures. Answers are compared with plain DataFusion's.

#![allow(clippy::unwrap_used, reason = "tests may fail loudly")]

mod common;
#[path = "common/source.rs"]
mod source;

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::Int64Type;
use common::{assert_same, physical_plan, run, settings, start};
use datafusion::datasource::MemTable;
use datafusion::logical_expr::{SortExpr, col};
use datafusion::physical_plan::displayable;
use datafusion::prelude::{SessionConfig, SessionContext};
use expect_test::expect;
use source::{Log, Numbers};
use tidemill_core::graph::StreamGraph;
use tidemill_core::settings::Origin;
use tidemill_core::{ErrorKind, Gate, Settings};
use tidemill_exec::fragments::{FragmentOptions, SourceTable, bounded_config, bounded_runtime, cut, lower};
use tidemill_exec::memory::managed_pool;
use tidemill_exec::runtime::{Engine, Environment, simulated};

const GATES: [Gate; 4] = [Gate::IMMEDIATE, Gate::After(Duration::from_millis(100)), Gate::Full, Gate::Infinite];

/// Tables `a`, `b` and `c` of `(k, v)`, each of some sorted partitions.
fn tables(session: &SessionContext) {
    for (name, partitions, rows, step) in [("a", 2, 700, 1), ("b", 1, 300, 3), ("c", 3, 90, 7)] {
        let batch = |first: i64, rows: i64| {
            let keys = (first..first + rows).map(|row| row * step);
            let k: ArrayRef = Arc::new(Int64Array::from_iter_values(keys.clone()));
            let v: ArrayRef = Arc::new(Int64Array::from_iter_values(keys.map(|key| key % 10)));
            RecordBatch::try_from_iter([("k", k), ("v", v)]).unwrap()
        };
        let partition = |number: i64| (0..rows / 10).map(|part| batch(number * rows + part * 10, 10)).collect();
        let partitions: Vec<Vec<RecordBatch>> = (0..partitions).map(partition).collect();
        let table = MemTable::try_new(partitions[0][0].schema(), partitions).unwrap();
        let sorted = SortExpr::new(col("k"), true, false);
        session.register_table(name, Arc::new(table.with_sort_order(vec![vec![sorted]]))).unwrap();
    }
}

/// Channels of one batch, batches of seven rows: whatever can wait, waits.
fn narrow(parallelism: usize, gate: Gate) -> Settings {
    let mut settings = settings(parallelism, gate);
    settings.set("taskmanager.memory.network.max", "1", Origin::Program).unwrap();
    settings.set("execution.batch-rows", "7", Origin::Program).unwrap();
    settings
}

fn check_with(sql: &str, change: impl Fn(&mut SessionConfig)) {
    let engine = Engine::new(vec![]).unwrap();
    let environment = engine.environment().clone();
    engine.block_on(async {
        let plain = SessionContext::new();
        tables(&plain);
        let expected = plain.sql(sql).await.unwrap().collect().await.unwrap();
        for (parallelism, gate) in [1, 2, 3].into_iter().flat_map(|parallelism| GATES.map(|gate| (parallelism, gate))) {
            let settings = narrow(parallelism, gate);
            let mut config = bounded_config(&settings, &environment);
            change(&mut config);
            let session = SessionContext::new_with_config(config);
            tables(&session);
            let plan = physical_plan(&session, sql).await;
            let what = format!("{sql} at {parallelism}, {gate}:\n{}", displayable(&*plan).indent(false));
            let rows = run(&session, plan, &environment, &settings).await;
            assert_same(&expected, &rows.unwrap_or_else(|error| panic!("{what}: {error:?}")), &what);
        }
    });
}

fn check(sql: &str) {
    check_with(sql, |_| ());
}

#[test]
fn unions_line_up_partitions() {
    check("SELECT k FROM a UNION ALL SELECT k FROM b UNION ALL SELECT k FROM c");
    let counts = |table| format!("SELECT v, count(*) AS n FROM {table} GROUP BY v");
    let union = format!("{} UNION ALL {} UNION ALL {}", counts("a"), counts("b"), counts("c"));
    check(&union);
    check(&format!("SELECT v, sum(n) FROM ({union}) GROUP BY v"));
    check(&format!("SELECT x.v, x.n, c.k FROM ({union}) x JOIN c ON x.v = c.v"));
    check("SELECT k FROM (SELECT k FROM a UNION SELECT k FROM b) WHERE k % 2 = 0");
}

#[test]
fn joins_that_share_one_build_side() {
    check("SELECT a.k, b.v FROM a JOIN b ON a.k = b.k");
    check("SELECT a.k, b.k FROM a JOIN b ON a.k < b.k WHERE a.k < 40 AND b.k < 70");
    check("SELECT a.v, b.v, c.v FROM a CROSS JOIN b CROSS JOIN c WHERE a.k < 5 AND b.k < 20 AND c.k < 100");
    check("SELECT a.k, b.k FROM a FULL JOIN b ON a.k = b.k");
    check("SELECT a.k FROM a WHERE a.k NOT IN (SELECT k FROM b WHERE v > 3)");
    check("SELECT a.k FROM a JOIN (SELECT k FROM b WHERE k < 0) e ON a.k = e.k");
}

#[test]
fn partitioned_joins_wait_for_each_other() {
    let partitioned = |config: &mut SessionConfig| {
        config.options_mut().optimizer.hash_join_single_partition_threshold = 0;
        config.options_mut().optimizer.hash_join_single_partition_threshold_rows = 0;
    };
    check_with("SELECT a.k, b.v, c.v FROM a JOIN b ON a.k = b.k JOIN c ON b.k = c.k", partitioned);
    check_with("SELECT a.k, b.v FROM a LEFT JOIN b ON a.k = b.k AND a.v > b.v", partitioned);
    check_with("SELECT a.k FROM a JOIN (SELECT k FROM b WHERE k < 0) e ON a.k = e.k", partitioned);
    check_with("SELECT count(*) FROM a LEFT JOIN (SELECT k FROM b WHERE k = 3) e ON a.k = e.k", partitioned);
}

#[test]
fn subqueries_are_there_before_the_rows_that_need_them() {
    check("SELECT k FROM a WHERE k > (SELECT avg(k) FROM b) AND v < (SELECT max(v) FROM c)");
    check("SELECT k, (SELECT max(k) FROM b), (SELECT v FROM c WHERE k = 14) FROM a WHERE v = 3");
    check(
        "SELECT v, sum(k) FROM a GROUP BY v HAVING sum(k) > (SELECT sum(k) / 20 FROM a WHERE k > (SELECT min(k) FROM c))",
    );
}

#[test]
fn readers_that_read_in_an_order_do_not_deadlock() {
    let sorted = |config: &mut SessionConfig| {
        config.options_mut().optimizer.prefer_existing_sort = true;
        config.options_mut().optimizer.prefer_hash_join = false;
    };
    check_with("SELECT k, v FROM a ORDER BY k", sorted);
    check_with("SELECT a.k, b.v FROM a JOIN b ON a.k = b.k", sorted);
    check_with("SELECT a.k, b.v FROM a JOIN b ON a.k = b.k JOIN c ON c.k = a.k ORDER BY a.k", sorted);
    check_with("SELECT k, count(*) FROM a GROUP BY k ORDER BY k", sorted);
    check_with("SELECT k, sum(v) OVER (PARTITION BY k ORDER BY k) FROM a ORDER BY k", sorted);
    check_with("SELECT k FROM b WHERE v > 2 UNION ALL SELECT k FROM a ORDER BY k", sorted);
}

#[test]
fn a_recursive_query_stays_whole() {
    check(
        "WITH RECURSIVE r(k, n) AS (SELECT k, 0 FROM b WHERE k < 30 UNION ALL \
         SELECT r.k + 1, r.n + 1 FROM r JOIN a ON a.k = r.k WHERE r.n < 5) SELECT n, count(*), max(k) FROM r GROUP BY n",
    );
}

#[test]
fn rows_without_columns_are_counted() {
    check("SELECT count(*) FROM a");
    check("SELECT count(*) FROM a CROSS JOIN c");
    check("SELECT 1 WHERE false");
    check("SELECT count(*) FROM (SELECT k FROM a LIMIT 13)");
}

#[test]
fn order_and_limit_hold() {
    let engine = Engine::new(vec![]).unwrap();
    let environment = engine.environment().clone();
    engine.block_on(async {
        for (parallelism, gate) in [2, 3].into_iter().flat_map(|parallelism| GATES.map(|gate| (parallelism, gate))) {
            let settings = narrow(parallelism, gate);
            let session = SessionContext::new_with_config(bounded_config(&settings, &environment));
            tables(&session);
            // The union has more partitions than the job subtasks: each subtask merges its own before they are merged.
            let sql = "SELECT k FROM (SELECT k, count(*) FROM a GROUP BY k UNION ALL SELECT k, count(*) FROM b GROUP BY k \
                       UNION ALL SELECT k, count(*) FROM c GROUP BY k) ORDER BY k LIMIT 500";
            let plan = physical_plan(&session, sql).await;
            let rows = run(&session, plan, &environment, &settings).await.unwrap();
            let keys: Vec<i64> = rows.iter().flat_map(|rows| rows.column(0).as_primitive::<Int64Type>().values()).copied().collect();
            assert!(keys.len() == 500 && keys.is_sorted(), "{parallelism}, {gate}: {keys:?}");
        }
    });
}

/// A session over sources of ours.
fn session_over(sources: &[Numbers], settings: &Settings, environment: &Environment) -> SessionContext {
    let config = bounded_config(settings, environment);
    let session = SessionContext::new_with_config_rt(config, bounded_runtime(settings, environment).unwrap());
    for source in sources {
        let table = SourceTable::new(Arc::new(source.clone()), None);
        session.register_table(source.name, Arc::new(table)).unwrap();
    }
    session
}

#[test]
fn a_limit_ends_an_endless_source() {
    let engine = Engine::new(vec![]).unwrap();
    let environment = engine.environment().clone();
    engine.block_on(async {
        for gate in [Gate::IMMEDIATE, Gate::After(Duration::from_millis(10)), Gate::Full] {
            let settings = settings(2, gate);
            let session = session_over(&[Numbers::endless("endless")], &settings, &environment);
            let limits = ["SELECT k FROM endless LIMIT 1", "SELECT k FROM endless WHERE v = 3 LIMIT 1"];
            for sql in limits {
                let plan = physical_plan(&session, sql).await;
                let rows = run(&session, plan, &environment, &settings).await.unwrap();
                assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 1, "{sql}, {gate}");
            }
        }
    });
}

#[test]
fn a_join_reads_its_build_side_first_and_only_what_it_needs() {
    let engine = Engine::new(vec![]).unwrap();
    let environment = engine.environment().clone();
    engine.block_on(async {
        for gate in GATES {
            let (settings, log) = (settings(2, gate), Log::default());
            let small = Numbers { log: log.clone(), ..Numbers::new("small", 2, 1) };
            let large = Numbers { log: log.clone(), ..Numbers::new("large", 2, 20) };
            let session = session_over(&[small, large], &settings, &environment);
            session.state_ref().write().config_mut().options_mut().optimizer.join_reordering = false;
            let sql = "SELECT s.k FROM small s JOIN large l ON s.k = l.k";
            let plan = physical_plan(&session, sql).await;
            let rows = run(&session, plan, &environment, &settings).await.unwrap();
            assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 200);
            let log = std::mem::take(&mut *log.lock().unwrap());
            let first = log.iter().position(|event| event.starts_with("large")).unwrap();
            assert_eq!(log[..first].iter().filter(|event| *event == "small ends").count(), 2, "{gate}: {log:?}");

            let sql = "SELECT s.k FROM (SELECT * FROM small WHERE k < 0) s JOIN large l ON s.k = l.k";
            let plan = physical_plan(&session, sql).await;
            assert!(run(&session, plan, &environment, &settings).await.unwrap().is_empty());
        }
    });
}

#[test]
fn computed_columns_projections_and_counters_of_sources() {
    let engine = Engine::new(vec![]).unwrap();
    let environment = engine.environment().clone();
    engine.block_on(async {
        let settings = settings(2, Gate::Full);
        let session = session_over(&[Numbers::new("numbers", 3, 2)], &settings, &environment);
        let plan = physical_plan(&session, "SELECT v, v + 1 FROM numbers WHERE k < 5").await;
        let (job, rows) = start(&session, plan, &environment, &settings).unwrap();
        let result = job.wait().await.unwrap();
        assert_eq!(rows.lock().unwrap().iter().map(RecordBatch::num_rows).sum::<usize>(), 5);
        assert_eq!(result.records_skipped(), 3, "one a split");
    });
}

#[test]
fn a_failure_is_reported_once_and_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::new(vec![dir.path().to_owned()]).unwrap();
    let environment = engine.environment().clone();
    engine.block_on(async {
        let settings = narrow(2, Gate::Infinite);
        let torn = Numbers { fails_at: Some(30), ..Numbers::new("torn", 4, 40) };
        let session = session_over(&[torn], &settings, &environment);
        let plan = physical_plan(&session, "SELECT k, row_number() OVER (PARTITION BY v ORDER BY k) FROM torn").await;
        let error = run(&session, plan, &environment, &settings).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data);
        assert!(error.to_string().starts_with("row 7 is torn (in stage "), "{error}");
        assert!(environment.spill.spilled_bytes() > 0, "the channels of one batch spilled");
    });
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

/// A plan that is pulled is used up by one attempt. Of a source that is away any other job would have another.
#[test]
fn a_batch_that_fails_does_not_restart_whatever_the_strategy() {
    let engine = Engine::new(vec![]).unwrap();
    let environment = engine.environment().clone();
    engine.block_on(async {
        for (gate, strategy) in GATES.into_iter().flat_map(|gate| [(gate, "fixed-delay"), (gate, "exponential-delay")])
        {
            let mut settings = settings(2, gate);
            for (key, value) in [
                ("type", strategy),
                ("fixed-delay.attempts", "5"),
                ("fixed-delay.delay", "1 ms"),
                ("exponential-delay.initial-backoff", "1 ms"),
                ("exponential-delay.attempts-before-reset-backoff", "5"),
            ] {
                settings.set(&format!("restart-strategy.{key}"), value, Origin::Program).unwrap();
            }
            let away = Numbers { fails_at: Some(3), failure: ErrorKind::Unavailable, ..Numbers::new("away", 1, 10) };
            let log = away.log.clone();
            let session = session_over(&[away], &settings, &environment);
            let plan = physical_plan(&session, "SELECT v, count(*) FROM away GROUP BY v").await;
            let (job, rows) = start(&session, plan, &environment, &settings).unwrap();
            let error = tokio::time::timeout(common::PATIENCE, job.wait()).await.unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{gate}, {strategy}: {error}");
            assert!(error.to_string().starts_with("row 7 is torn (in "), "{gate}, {strategy}: {error}");
            assert!(!error.to_string().contains("restarts"), "{gate}, {strategy}: {error}");
            assert_eq!((job.failure_count(), job.restart_count()), (1, 0), "{gate}, {strategy}");
            assert_eq!(*log.lock().unwrap(), ["away begins"], "{gate}, {strategy}");
            assert!(rows.lock().unwrap().is_empty(), "{gate}, {strategy}");
        }
    });
}

#[test]
fn a_small_budget_spills_and_one_that_is_too_small_says_so() {
    let mut settings = settings(2, Gate::Full);
    settings.set("taskmanager.memory.managed.size", "24 mb", Origin::Program).unwrap();
    let engine = Engine::new(vec![]).unwrap().with_memory(managed_pool(&settings));
    let environment = engine.environment().clone();
    engine.block_on(async {
        let many = Numbers { batch_rows: 8192, ..Numbers::new("many", 4, 40) };
        let session = session_over(&[many], &settings, &environment);
        let sql = "SELECT count(*), min(k), max(k) FROM (SELECT k, v FROM many ORDER BY v DESC, k)";
        let plan = physical_plan(&session, sql).await;
        let rows = run(&session, plan, &environment, &settings).await.unwrap();
        assert_eq!(rows[0].column(0).as_primitive::<Int64Type>().value(0), 4 * 40 * 8192);

        let sql = "SELECT x.k FROM many x JOIN many y ON x.k = y.k JOIN many z ON y.k = z.k";
        let plan = physical_plan(&session, sql).await;
        let error = run(&session, plan, &environment, &settings).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Exhausted, "{error}");
        assert!(error.hint().unwrap().contains("taskmanager.memory.process.size"), "{error}");
        assert!(error.message().contains("24.0 MB"), "the budget: {error}");
    });
}

#[test]
fn a_cancelled_job_ends_at_once_and_its_readers_stop() {
    let engine = Engine::new(vec![]).unwrap();
    let environment = engine.environment().clone();
    engine.block_on(async {
        let settings = settings(2, Gate::IMMEDIATE);
        let endless = Numbers::endless("endless");
        let alive = Arc::downgrade(&endless.log);
        let session = session_over(&[endless], &settings, &environment);
        let plan = physical_plan(&session, "SELECT v FROM endless WHERE k < 0").await;
        let (job, _) = start(&session, plan, &environment, &settings).unwrap();
        tokio::time::sleep(Duration::from_millis(30)).await;
        assert!(job.outcome().is_none());
        job.cancel();
        let outcome = tokio::time::timeout(common::PATIENCE, job.wait()).await.unwrap();
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Cancelled);
        drop(session);
        let stopped = async {
            while alive.strong_count() > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(common::PATIENCE, stopped).await.unwrap();
    });
}

#[test]
fn plans_that_write_and_plans_that_explain() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::new(vec![]).unwrap();
    let environment = engine.environment().clone();
    engine.block_on(async {
        let settings = settings(3, Gate::Full);
        let session = SessionContext::new_with_config(bounded_config(&settings, &environment));
        tables(&session);
        let query = "SELECT v, count(*) AS n FROM a GROUP BY v";
        let plan = physical_plan(&session, &format!("EXPLAIN ANALYZE {query}")).await;
        let rows = run(&session, plan, &environment, &settings).await.unwrap();
        let text = arrow::util::pretty::pretty_format_batches(&rows).unwrap().to_string();
        assert!(text.contains("ExchangeExec") && text.contains("output_rows=10"), "{text}");

        let path = dir.path().join("out.csv");
        let plan = physical_plan(&session, &format!("COPY ({query}) TO '{}'", path.display())).await;
        run(&session, plan, &environment, &settings).await.unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 11);
    });
}

#[test]
fn a_plan_runs_once() {
    let engine = Engine::new(vec![]).unwrap();
    let environment = engine.environment().clone();
    engine.block_on(async {
        let settings = settings(2, Gate::Full);
        let session = SessionContext::new_with_config(bounded_config(&settings, &environment));
        tables(&session);
        let plan = physical_plan(&session, "SELECT v, count(*) FROM a GROUP BY v").await;
        let mut graph = StreamGraph::new();
        lower(plan, session.task_ctx(), &mut graph, &FragmentOptions { parallelism: 2, gate: None }).unwrap();
        let job = graph.to_job_graph(&settings).unwrap();
        let run = || tidemill_exec::runtime::execute(&job, &environment, &settings).unwrap();
        run().wait().await.unwrap();
        assert_eq!(run().wait().await.unwrap_err().kind(), ErrorKind::Internal);
    });
}

#[tokio::test]
async fn a_simulation_of_one_thread_runs_it_too() {
    let (settings, environment) = (narrow(3, Gate::After(Duration::from_millis(5))), simulated(7));
    let sources = [Numbers::new("x", 3, 4), Numbers::new("y", 2, 4)];
    let session = session_over(&sources, &settings, &environment);
    let sql = "SELECT x.v, count(*) FROM x JOIN y ON x.k = y.k GROUP BY x.v ORDER BY x.v LIMIT 4";
    let plan = physical_plan(&session, sql).await;
    let rows = run(&session, plan, &environment, &settings).await.unwrap();
    assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 4);
}

#[tokio::test]
async fn the_graph_prints() {
    let settings = settings(2, Gate::Full);
    let session = SessionContext::new_with_config(bounded_config(&settings, &simulated(0)));
    tables(&session);
    let sql = "SELECT c.v, count(*) AS n FROM a JOIN c ON a.k = c.k GROUP BY c.v ORDER BY n LIMIT 3";
    let plan = physical_plan(&session, sql).await;
    assert_eq!(format!("{}", displayable(&*cut(&plan).unwrap()).indent(false)).matches("ExchangeExec").count(), 3);
    let mut graph = StreamGraph::new();
    lower(plan, session.task_ctx(), &mut graph, &FragmentOptions { parallelism: 2, gate: None }).unwrap();
    expect![[r#"
        [0] stage 1: DataSource (parallelism 2)
            DataSourceExec: partitions=3, partition_sizes=[9, 9, 9], output_ordering=k@0 ASC NULLS LAST
        [1] stage 2: Aggregate (parallelism 2)
            <- [0] global, full, channels 1
            AggregateExec: mode=Partial, gby=[v@0 as v], aggr=[count(Int64(1))]
              HashJoinExec: mode=CollectLeft, join_type=Inner, on=[(k@0, k@0)], projection=[v@1]
                ExchangeExec: input 0
                DataSourceExec: partitions=2, partition_sizes=[70, 70], output_ordering=k@0 ASC NULLS LAST
        [2] stage 3: Projection (parallelism 2)
            <- [1] custom(hash v@0), full
            ProjectionExec: expr=[v@0 as v, count(Int64(1))@1 as n]
              SortExec: TopK(fetch=3), expr=[count(Int64(1))@1 ASC NULLS LAST], preserve_partitioning=[true]
                AggregateExec: mode=FinalPartitioned, gby=[v@0 as v], aggr=[count(Int64(1))]
                  ExchangeExec: input 0
        [3] stage 4: Merge (parallelism 1)
            <- [2] global, full
            ExchangeExec: input 0, merge=[n@1 ASC NULLS LAST], fetch=3
    "#]]
    .assert_eq(&graph.to_job_graph(&settings).unwrap().to_string());
}
