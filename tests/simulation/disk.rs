//! The local disk, where state goes that memory has no room for: one that fails costs a job restarts, and no row.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tidemill_core::ErrorKind;
use tidemill_core::settings::Origin;
use tidemill_exec::runtime::{Begin, Environment, JobHandle, Persistence, StoreFolder, execute_from, simulate};
use tidemill_exec::state::Tier;

use crate::chance::Chance;
use crate::job::{Plan, graph, settings};
use crate::outside::Outside;
use crate::store::{FaultyStore, StoreTroubles};
use crate::{PATIENCE, Troubles, check};

/// A job that keeps nothing in memory that it can put away.
struct World {
    plan: Plan,
    chance: Chance,
    store: Arc<FaultyStore>,
    outside: Outside,
    backend: &'static str,
}

impl World {
    fn new(backend: &'static str) -> Self {
        let chance = Chance::new(17);
        let sources = vec![vec![1000, 1000], vec![1000]];
        let plan = Plan { sources, interval_millis: 50, ..Plan::draw(&chance, Troubles::None) };
        let store = FaultyStore::shared(chance.clone(), StoreTroubles::default());
        let outside = Outside::new(chance.clone(), 0, 0);
        Self { plan, chance, store, outside, backend }
    }

    /// Starts it, or goes on with it, on a machine whose one temporary folder this is.
    fn start(&self, environment: Environment, disk: &Path) -> JobHandle {
        let tier = Tier::new([disk.to_owned()], environment.memory.clone()).limited(Some(0));
        let environment = Environment { tier, ..environment };
        let mut settings = settings(&self.plan, 2, self.backend);
        settings.set("restart-strategy.fixed-delay.delay", "100 ms", Origin::Program).unwrap();
        let sink = Arc::new(self.outside.clone());
        let job = graph(&self.plan, sink, &self.chance, 2).to_job_graph(&settings).unwrap();
        let folder = StoreFolder { store: self.store.clone(), root: "job".into(), url: "memory:job".to_owned() };
        let begin = Begin::Resume { origin: None };
        let persistence = Persistence { folder: Some(folder), begin, ignore_unclaimed: false, claims: false };
        execute_from(&job, &environment, &settings, persistence).unwrap()
    }
}

/// A process is killed when the job has a checkpoint, the next one finds a file where the folder was, and after some time somebody puts
/// that right.
#[test]
fn a_disk_that_fails_costs_restarts_from_the_last_checkpoint_and_no_row() {
    for backend in ["memory", "rocksdb"] {
        let (world, parent) = (&World::new(backend), tempfile::tempdir().unwrap());
        let disk = &parent.path().join("disk");
        std::fs::create_dir(disk).unwrap();

        let killed = |environment: Environment| async move {
            let clock = environment.clock.clone();
            let job = world.start(environment, disk);
            clock.sleep(Duration::from_millis(800)).await;
            assert!(job.outcome().is_none() && job.checkpoint_counts().completed > 0, "{backend}");
            assert!(std::fs::read_dir(disk).unwrap().count() > 0, "{backend}: no state is on the disk");
        };
        simulate(17, killed).unwrap();
        world.outside.kill();

        std::fs::remove_dir_all(disk).unwrap();
        std::fs::write(disk, "no folder").unwrap();
        let next = |environment: Environment| async move {
            let clock = environment.clock.clone();
            let job = world.start(environment, disk);
            assert!(job.resumed_from().await.unwrap().is_some_and(|from| from.checkpoint > 0), "{backend}");
            clock.sleep(Duration::from_secs(2)).await;
            std::fs::remove_file(disk).unwrap();
            std::fs::create_dir(disk).unwrap();
            tokio::select! {
                biased;
                outcome = job.wait() => drop(outcome.unwrap()),
                () = clock.sleep(PATIENCE) => panic!("{backend}: the job hangs"),
            }
            job.failures()
        };
        let failures = simulate(18, next).unwrap();
        assert!(failures.len() > 2, "{backend}: {failures:?}");
        for failure in failures {
            let (error, folder) = (failure.error, disk.display().to_string());
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{backend}: {error}");
            let said = error.to_string();
            assert!(said.contains(&folder) && said.contains("check io.tmp.dirs"), "{backend}: {said}");
        }
        check(&world.plan, &world.outside.published());
    }
}
