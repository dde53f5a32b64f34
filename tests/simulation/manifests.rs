//! Manifests come last: whatever one names, the store has taken before it is written. Of a store that keeps what it has taken when power
//! fails (the disk of this machine syncs it, see `connectors/src/store/synced.rs`) no manifest then names what is not there.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use tidemill_core::ErrorKind;
use tidemill_core::clock::Clock;
use tidemill_exec::checkpoint::find_checkpoint;
use tidemill_exec::runtime::{Begin, Ending, Environment, Persistence, StoreFolder, execute_from, simulate};

use crate::Troubles;
use crate::chance::Chance;
use crate::job::{Plan, graph, settings};
use crate::outside::Outside;
use crate::store::{FaultyStore, Put, StoreTroubles};

/// The manifest of a savepoint.
const SAVEPOINT: &str = "_metadata";

/// Whether a file is a manifest, and of a savepoint.
fn manifest(file: &Path) -> Option<bool> {
    let is_numbered = file.parent().is_some_and(|folder| folder.filename() == Some("manifests"));
    let is_savepoint = file.filename() == Some(SAVEPOINT);
    (is_numbered || is_savepoint).then_some(is_savepoint)
}

/// The files that a manifest names; none if it says no more than who has taken the folder over.
async fn named(file: &Path, payload: &PutPayload, clock: &Arc<dyn Clock>) -> BTreeSet<Path> {
    let alone: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    alone.put(file, payload.clone()).await.unwrap();
    let place = if file.filename() == Some(SAVEPOINT) { file.parent().unwrap() } else { file.clone() };
    match find_checkpoint(alone, &place, clock.clone(), None).await {
        Ok(found) => {
            let segments = found.content.segments.iter();
            segments.map(|segment| Path::from(format!("{}/{}", found.root, segment.path))).collect()
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Request, "{error}");
            BTreeSet::new()
        }
    }
}

/// What a store of its own has been given by a job that takes checkpoints and a savepoint and is stopped behind another. It takes its
/// time for each file, so that one that is not waited for comes late.
async fn journal(environment: &Environment) -> Vec<Put> {
    let chance = Chance::new(21);
    let troubles = StoreTroubles { pause_millis: 40, step_millis: 3, ..StoreTroubles::default() };
    let store = FaultyStore::shared(chance.clone(), troubles);
    store.set_clock(environment.clock.clone());
    store.keep_journal();
    let sources = vec![vec![20_000], vec![20_000]];
    let plan =
        Plan { sources, interval_millis: 50, concurrent: 3, incremental: true, ..Plan::draw(&chance, Troubles::None) };
    let settings = settings(&plan, 2, "memory");
    let outside = Outside::new(chance.clone(), 0, 0);
    let job = graph(&plan, Arc::new(outside), &chance, 2).to_job_graph(&settings).unwrap();
    let place = |name: &str| StoreFolder { store: store.clone(), root: name.into(), url: name.to_owned() };
    let persistence =
        Persistence { folder: Some(place("job")), begin: Begin::Anew, ignore_unclaimed: false, claims: false };
    let job = execute_from(&job, environment, &settings, persistence).unwrap();
    let control = job.control().await.unwrap();
    environment.clock.sleep(Duration::from_secs(3)).await;
    control.savepoint(place("saved")).await.unwrap();
    environment.clock.sleep(Duration::from_secs(3)).await;
    control.stop(false, Some(place("stopped"))).await.unwrap();
    assert_eq!(job.wait().await.unwrap().ending, Ending::Stopped);
    store.journal()
}

#[test]
fn a_manifest_is_written_when_all_that_it_names_is_there() {
    let run = |environment: Environment| async move {
        let (mut there, mut checkpoints, mut savepoints) = (BTreeSet::new(), 0, 0);
        for put in journal(&environment).await {
            match put {
                Put::Done(file) => drop(there.insert(file)),
                Put::Begun(file, payload) => {
                    let Some(is_savepoint) = manifest(&file) else { continue };
                    let files = named(&file, &payload, &environment.clock).await;
                    let missing: Vec<&Path> = files.difference(&there).collect();
                    assert!(missing.is_empty(), "{file} names {missing:?}");
                    let names_files = usize::from(!files.is_empty());
                    if is_savepoint { savepoints += names_files } else { checkpoints += names_files }
                }
            }
        }
        (checkpoints, savepoints)
    };
    let (checkpoints, savepoints) = simulate(21, run).unwrap();
    assert!(
        checkpoints > 10 && savepoints == 2,
        "{checkpoints} checkpoints and {savepoints} savepoints that hold state"
    );
}
