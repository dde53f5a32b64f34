//! Starts that are refused: whoever is at work in the folder does not notice, and the end of a job is no place to begin from.

use std::sync::Arc;

use futures::TryStreamExt;
use object_store::ObjectStore;
use tidemill_core::sink::Sink;
use tidemill_core::{Error, ErrorKind};
use tidemill_exec::runtime::{Begin, CheckpointStatus, Ending, Environment, JobHandle, StoreFolder, simulate};

use crate::chance::Chance;
use crate::job::{self, Plan};
use crate::outside::Outside;
use crate::store::{FaultyStore, StoreTroubles};
use crate::{Troubles, check};

/// Where jobs and savepoints are.
struct Places(Arc<FaultyStore>);

impl Places {
    fn new(chance: &Chance) -> Self {
        Self(FaultyStore::shared(chance.clone(), StoreTroubles::default()))
    }

    fn at(&self, name: &str) -> StoreFolder {
        self.0.folder(name)
    }
}

/// A plan of a job that takes checkpoints when it is asked, and runs for some seconds.
fn plan(chance: &Chance) -> Plan {
    Plan { sources: vec![vec![2000], vec![2000]], interval_millis: 1_000_000, ..Plan::draw(chance, Troubles::None) }
}

/// Starts a job without restarts in a folder.
fn start(environment: &Environment, plan: &Plan, outside: &Outside, folder: StoreFolder, begin: Begin) -> JobHandle {
    let (sink, chance): (Arc<dyn Sink>, _) = (Arc::new(outside.clone()), Chance::new(8));
    job::start(environment, plan, [sink], &chance, Some(folder), begin, &[("restart-strategy.type", "none")])
}

/// Why a job with a sink of its own is refused.
async fn refused(environment: &Environment, plan: &Plan, folder: StoreFolder, begin: Begin) -> Error {
    let outside = Outside::new(Chance::new(9), 0, 0);
    let error = start(environment, plan, &outside, folder, begin).wait().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Request, "{error}");
    error
}

#[test]
fn a_start_that_is_refused_leaves_the_job_that_is_at_work_in_the_folder_alone() {
    let run = |environment: Environment| async move {
        let chance = Chance::new(2);
        let (plan, places) = (plan(&chance), Places::new(&chance));
        let outside = Outside::new(chance.clone(), 0, 0);
        let job = start(&environment, &plan, &outside, places.at("job"), Begin::Anew);
        let control = job.control().await.unwrap();

        let missing = Begin::From(places.at("missing"));
        let error = refused(&environment, &plan, places.at("job"), missing).await;
        assert!(error.to_string().contains("holds neither a savepoint"), "{error}");
        control.checkpoint().await.unwrap();

        control.savepoint(places.at("saved")).await.unwrap();
        // It has an operator less, whose state is in the checkpoints.
        let other = Plan { mode: "AT_LEAST_ONCE", ..plan.clone() };
        let starts = [
            (&plan, Begin::Anew, "memory:job holds checkpoints of this job"),
            (&plan, Begin::From(places.at("saved")), "memory:job holds checkpoints of this job"),
            (&other, Begin::Resume { origin: None }, "the job does not have"),
        ];
        for (plan, begin, reason) in starts {
            let error = refused(&environment, plan, places.at("job"), begin).await;
            assert!(error.to_string().contains(reason), "{error}");
            control.checkpoint().await.unwrap();
        }
        assert_eq!(job.wait().await.unwrap().ending, Ending::Finished);
        assert!(job.failures().is_empty(), "{:?}", job.failures());
        assert!(job.checkpoints().iter().all(|checkpoint| checkpoint.status == CheckpointStatus::Completed));
        check(&plan, &outside.published());
    };
    simulate(2, run).unwrap();
}

#[test]
fn nothing_begins_from_the_end_of_a_job() {
    let run = |environment: Environment| async move {
        let chance = Chance::new(4);
        let (plan, places) = (plan(&chance), Places::new(&chance));
        let outsides = [(); 2].map(|()| Outside::new(chance.clone(), 0, 0));
        let drained = start(&environment, &plan, &outsides[0], places.at("drained"), Begin::Anew);
        drained.control().await.unwrap().stop(true, Some(places.at("saved"))).await.unwrap();
        assert_eq!(drained.wait().await.unwrap().ending, Ending::Drained);
        let finished = start(&environment, &plan, &outsides[1], places.at("finished"), Begin::Anew);
        assert_eq!(finished.wait().await.unwrap().ending, Ending::Finished);

        let ends = [
            ("saved", "memory:saved is a savepoint of a job that was drained"),
            ("drained", "memory:drained holds the checkpoints of a job that has finished"),
            ("finished", "memory:finished holds the checkpoints of a job that has finished"),
        ];
        for (from, reason) in ends {
            let resumed = Begin::Resume { origin: Some(places.at(from)) };
            for begin in [Begin::From(places.at(from)), resumed] {
                let error = refused(&environment, &plan, places.at("next"), begin).await;
                assert!(error.to_string().contains(reason), "{error}");
                assert!(error.hint().is_some_and(|hint| hint.contains("without --drain")), "{error}");
            }
        }
        let next: Vec<_> = places.0.list(Some(&"next".into())).try_collect().await.unwrap();
        assert!(next.is_empty(), "{next:?}");

        // Whoever goes on with such a job hears that there is nothing to do.
        for (own, outside) in ["drained", "finished"].into_iter().zip(&outsides) {
            let resume = Begin::Resume { origin: None };
            let again = start(&environment, &plan, outside, places.at(own), resume).wait().await.unwrap();
            assert_eq!(again.ending, Ending::FinishedBefore);
        }
    };
    simulate(4, run).unwrap();
}
