//! Where jobs keep their checkpoints and what they begin from, as the settings say: the same for every front end.

use std::sync::atomic::{AtomicU64, Ordering};

use tidemill_connectors::store::{Location, Stores};
use tidemill_core::chance::process_chance;
use tidemill_core::{Result, Settings};
use tidemill_exec::runtime::{Begin, Environment, Persistence, StoreFolder};

/// A place in a store, for the engine. What is written there stays when power fails.
pub fn store_folder(place: &Location) -> StoreFolder {
    let place = place.durable();
    StoreFolder { store: place.store.clone(), root: place.path.clone(), url: place.to_string() }
}

/// What a job keeps and begins from. `own` names its folder within `execution.checkpointing.dir`, which no other job or run has, as
/// nobody asked to go on from another; without a name it keeps nothing beyond the process, like one whose rows go to a program that
/// is gone with it.
pub fn from_settings(settings: &Settings, stores: &Stores, own: Option<String>) -> Result<Persistence> {
    let recovery = settings.state_recovery();
    let (begin, claims) = match &recovery.path {
        Some(path) => (Begin::From(store_folder(&stores.resolve(path)?)), recovery.claims),
        None => (Begin::Anew, false),
    };
    let folder = match (own, settings.checkpoints().dir) {
        (Some(own), Some(dir)) => Some(store_folder(&stores.resolve(&dir)?.child(&own))),
        _ => None,
    };
    Ok(Persistence { folder, begin, ignore_unclaimed: recovery.ignore_unclaimed, claims })
}

/// A name that no other run of a job has, wherever it is, and that is not given twice: the time, so that names sort by it, what tells
/// the process from others, and a number.
pub fn run_id(engine: &Environment) -> String {
    static RUNS: AtomicU64 = AtomicU64::new(0);
    let number = RUNS.fetch_add(1, Ordering::Relaxed);
    format!("{:x}-{:x}-{number}", engine.clock.now_millis(), process_chance())
}
