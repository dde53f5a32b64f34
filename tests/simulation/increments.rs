//! Checkpoints that build on one another: what each of them stores, and which of them a damaged file takes along.
//!
//! ```text
//! checkpoint 1    everything
//! checkpoint 2    everything    what changed
//! checkpoint 3    everything    what changed    what changed since
//! file of         1             2               3
//! ```

use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use tidemill_core::sink::Sink;
use tidemill_core::{Error, ErrorKind};
use tidemill_exec::runtime::{Begin, CheckpointInfo, CheckpointStatus, Environment, JobHandle, simulate};

use crate::chance::Chance;
use crate::job::{self, Plan};
use crate::outside::Outside;
use crate::store::{Access, FaultyStore, StoreTroubles};
use crate::{Troubles, in_time};

/// Longer than anything takes here.
const PATIENCE: Duration = Duration::from_secs(60);

/// What processes of one job have in common.
struct World {
    environment: Environment,
    store: Arc<FaultyStore>,
    outside: Outside,
}

impl World {
    fn new(environment: Environment) -> Self {
        let store = FaultyStore::shared(Chance::new(6), StoreTroubles::default());
        Self { environment, store, outside: Outside::new(Chance::new(6), 0, 0) }
    }

    /// Starts the job, which takes checkpoints when it is asked and runs for longer than anybody looks. No subtask of it ends before.
    fn start(&self, incremental: bool, begin: Begin) -> JobHandle {
        let chance = Chance::new(6);
        let plan = Plan {
            sources: vec![vec![20_000; 3], vec![20_000]],
            interval_millis: 100_000_000,
            incremental,
            gate: "0 ms",
            ..Plan::draw(&chance, Troubles::None)
        };
        let sink: Arc<dyn Sink> = Arc::new(self.outside.clone());
        let more = [("restart-strategy.type", "none"), ("execution.checkpointing.num-retained", "3")];
        job::start(&self.environment, &plan, [sink], &chance, Some(self.store.folder("job")), begin, &more)
    }

    /// Starts the job, has it take so many checkpoints with rows between them, and cancels it.
    async fn checkpoints(&self, incremental: bool, count: u64) -> Vec<CheckpointInfo> {
        let job = self.start(incremental, Begin::Anew);
        let control = job.control().await.unwrap();
        for number in 1..=count {
            self.environment.clock.sleep(Duration::from_secs(1)).await;
            let taken = in_time(&self.environment, PATIENCE, control.checkpoint()).await;
            assert_eq!(taken.unwrap(), number);
        }
        job.cancel();
        in_time(&self.environment, PATIENCE, job.wait()).await.unwrap_err();
        job.checkpoints()
    }

    /// The segments of the job, in the order of their checkpoints.
    async fn segments(&self) -> Vec<Path> {
        let listed = self.store.list(Some(&Path::from("job/segments"))).map_ok(|file| file.location);
        let mut segments: Vec<Path> = listed.try_collect().await.unwrap();
        segments.sort();
        segments
    }
}

#[test]
fn checkpoints_that_are_not_incremental_hold_everything_and_need_no_other() {
    const FULL: &str = "full checkpoint";
    for (incremental, kinds) in [(false, [FULL; 4]), (true, [FULL, "checkpoint", "checkpoint", "checkpoint"])] {
        let run = |environment: Environment| async move { World::new(environment).checkpoints(incremental, 4).await };
        let taken = simulate(6, run).unwrap();
        assert_eq!(taken.iter().map(|taken| taken.kind).collect::<Vec<_>>(), kinds, "incremental: {incremental}");
        for checkpoint in &taken {
            assert_eq!(checkpoint.status, CheckpointStatus::Completed, "{checkpoint:?}");
            assert!(checkpoint.new_bytes > 0, "{checkpoint:?}");
            let needs_others = checkpoint.total_bytes > checkpoint.new_bytes;
            assert_eq!(needs_others, checkpoint.kind != FULL, "{checkpoint:?}");
        }
    }
}

/// How a job ends that goes on from the last of three checkpoints, when the file of one of them is damaged; and that file. Something
/// else may be there that cannot be read.
fn goes_on_from_damage(checkpoint: usize, withheld: Option<&'static str>) -> (Error, Path) {
    let run = |environment: Environment| async move {
        let world = World::new(environment);
        world.checkpoints(true, 3).await;
        let segments = world.segments().await;
        assert_eq!(segments.len(), 3, "{segments:?}");
        let damaged = segments[checkpoint - 1].clone();
        let bytes = world.store.get(&damaged).await.unwrap().bytes().await.unwrap();
        let bytes: Vec<u8> = bytes.iter().map(|byte| byte ^ 0x11).collect();
        world.store.put(&damaged, bytes.into()).await.unwrap();
        if let Some(file) = withheld {
            world.store.refuse(Access::Get, file);
        }
        let job = world.start(true, Begin::Resume { origin: None });
        let error = in_time(&world.environment, PATIENCE, job.wait()).await.unwrap_err();
        (error, damaged)
    };
    simulate(6, run).unwrap()
}

#[test]
fn a_damaged_file_takes_along_the_checkpoints_that_need_it_and_the_newest_good_one_is_named() {
    let good = |checkpoint: u64, manifest: u64| {
        format!(
            "the newest good one is checkpoint {checkpoint}: deleting the manifests behind 'job/manifests/{manifest:020}' goes \
             on from it, and what sinks have shown since comes again"
        )
    };
    let none = "there is no good one before it".to_owned();
    // Manifest 1 is that of the takeover.
    for (damaged, instead) in [(3, good(2, 3)), (2, good(1, 2)), (1, none)] {
        let (error, file) = goes_on_from_damage(damaged, None);
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        let message = error.message();
        assert!(message.contains("checkpoint 3 in memory:job is damaged: "), "file of {damaged}: {message}");
        assert!(message.contains(file.as_ref()), "file of {damaged}: {message}");
        assert_eq!(error.hint(), Some(format!("restore the file; {instead}").as_str()), "file of {damaged}");
    }
}

#[test]
fn an_older_checkpoint_that_cannot_be_read_is_neither_good_nor_damaged() {
    let (error, file) = goes_on_from_damage(3, Some("manifests/00000000000000000003"));
    assert!(error.message().contains(file.as_ref()), "{error}");
    let hint = error.hint().unwrap();
    let unknown = "restore the file; whether an older one is good is not known: ";
    assert!(hint.starts_with(unknown) && hint.contains("the file is refused"), "{hint}");
}
