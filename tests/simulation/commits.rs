//! Sinks that fail to commit: at the end of a job whose checkpoints are in memory, where a restart must not begin behind what was
//! committed already, and beside other sinks, which have nothing to do with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tidemill_core::sink::{
    ChangelogMode, Committable, Committer, Predecessor, Sink, SinkContext, SinkWriter, WriterState,
};
use tidemill_core::{Error, ErrorKind, Result};
use tidemill_exec::runtime::{Begin, CheckpointStatus, Environment, JobHandle, JobResult, StoreFolder, simulate};

use crate::chance::Chance;
use crate::job::{self, Plan};
use crate::outside::Outside;
use crate::store::{FaultyStore, StoreTroubles};
use crate::{PATIENCE, Troubles, check, in_time};

/// What becomes of a commit.
#[derive(Clone, Debug)]
enum Temper {
    Willing,
    /// It fails once in so many times.
    Moody(Chance, u64),
    /// It fails.
    Unwilling,
    /// It panics.
    Wild,
    /// It is done, and nobody ever hears of it; nor that everything was taken back.
    Silent,
}

/// A place to publish, and how it takes that.
#[derive(Clone, Debug)]
struct Moods {
    name: &'static str,
    outside: Outside,
    temper: Temper,
    /// How often it was told to take everything back.
    aborts: Arc<AtomicUsize>,
}

impl Moods {
    fn new(name: &'static str, chance: &Chance, temper: Temper) -> Self {
        Self { name, outside: Outside::new(chance.clone(), 0, 0), temper, aborts: Arc::default() }
    }

    /// The same place, which takes it otherwise now.
    fn now(&self, temper: Temper) -> Self {
        Self { temper, ..self.clone() }
    }

    fn trouble(&self, what: &'static str) -> Result<()> {
        let fails = match &self.temper {
            Temper::Willing | Temper::Silent => false,
            Temper::Moody(chance, every) => chance.strikes(what, *every),
            Temper::Unwilling => true,
            Temper::Wild => panic!("the {} sink has had enough", self.name),
        };
        match fails {
            true => Err(Error::unavailable(format!("the {} sink does not {what}", self.name))),
            false => Ok(()),
        }
    }

    async fn commit_one(&self, committable: Committable) -> Result<()> {
        self.trouble("commit")?;
        self.outside.commit(vec![committable]).await?;
        self.fall_silent().await;
        self.trouble("say that it committed")
    }

    async fn fall_silent(&self) {
        if let Temper::Silent = self.temper {
            std::future::pending::<()>().await;
        }
    }
}

impl Sink for Moods {
    fn changelog_mode(&self) -> ChangelogMode {
        self.outside.changelog_mode()
    }

    fn prepare(&self) -> Result<Arc<dyn Committer>> {
        Ok(Arc::new(self.clone()))
    }

    fn writer(&self, context: &SinkContext) -> Result<Box<dyn SinkWriter>> {
        self.outside.writer(context)
    }

    fn describe(&self) -> String {
        self.name.to_owned()
    }
}

#[async_trait]
impl Committer for Moods {
    async fn commit(&self, committables: Vec<Committable>) -> Result<()> {
        let mut outcome = Ok(());
        for committable in committables {
            outcome = outcome.and(self.commit_one(committable).await);
        }
        outcome
    }

    async fn recover(&self, committables: Vec<Committable>, states: &[WriterState], of: Predecessor) -> Result<()> {
        self.commit(committables).await?;
        self.outside.recover(Vec::new(), states, of).await
    }

    async fn abort(&self) -> Result<()> {
        self.aborts.fetch_add(1, Ordering::Relaxed);
        self.outside.abort().await?;
        self.fall_silent().await;
        Ok(())
    }
}

/// Starts the job of a plan with these sinks; with checkpoints in memory if there is no folder.
fn start(
    environment: &Environment,
    chance: &Chance,
    plan: &Plan,
    sinks: &[Moods],
    folder: Option<StoreFolder>,
    restarts: &str,
) -> JobHandle {
    let sinks = sinks.iter().map(|sink| Arc::new(sink.clone()) as Arc<dyn Sink>);
    let begin = if folder.is_some() { Begin::Resume { origin: None } } else { Begin::Anew };
    job::start(environment, plan, sinks, chance, folder, begin, &[("restart-strategy.type", restarts)])
}

async fn ended(environment: &Environment, job: &JobHandle) -> Result<JobResult> {
    in_time(environment, PATIENCE, job.wait()).await
}

#[test]
fn with_checkpoints_in_memory_every_row_counts_once_over_commits_that_fail_also_at_the_end() {
    let (mut at_the_end, mut with_checkpoints) = (0, 0);
    for seed in 0..40 {
        let chance = Chance::new(seed);
        let drawn = Plan::draw(&chance, Troubles::None);
        // Some jobs come to their end without a checkpoint.
        let plan = Plan { interval_millis: if seed % 4 < 2 { 1_000_000 } else { drawn.interval_millis }, ..drawn };
        let moody = || Temper::Moody(chance.clone(), 8);
        let sinks = [Moods::new("first", &chance, moody()), Moods::new("second", &chance, moody())];
        let sinks = &sinks[..1 + seed as usize % 2];
        let (chance, plan) = (&chance, &plan);
        let run = |environment: Environment| async move {
            let job = start(&environment, chance, plan, sinks, None, "fixed-delay");
            ended(&environment, &job).await.unwrap();
            job.failures()
        };
        for failure in simulate(seed, run).unwrap() {
            // A restart that fails to commit what it goes on from counts as neither.
            let said = failure.error.to_string();
            with_checkpoints += usize::from(said.contains("cannot be committed"));
            at_the_end += usize::from(failure.number == 1 && !said.contains("cannot be committed"));
        }
        for sink in sinks {
            check(plan, &sink.outside.published());
            assert_eq!(sink.outside.left_over(), 0, "seed {seed}");
        }
    }
    assert!(at_the_end > 0 && with_checkpoints > 0, "{at_the_end} at the end, {with_checkpoints} with checkpoints");
}

/// A plan of a job that takes checkpoints when it is asked, and runs for about a second.
fn on_demand(chance: &Chance) -> Plan {
    Plan { sources: vec![vec![500], vec![500]], interval_millis: 1_000_000, ..Plan::draw(chance, Troubles::None) }
}

fn folder(chance: &Chance) -> StoreFolder {
    FaultyStore::shared(chance.clone(), StoreTroubles::default()).folder("job")
}

/// Stops a job behind a checkpoint; what its user hears, and how it ends.
async fn stop(environment: &Environment, job: &JobHandle) -> (Error, Error) {
    let control = job.control().await.unwrap();
    environment.clock.sleep(Duration::from_millis(300)).await;
    let asked = control.stop(false, None).await.unwrap_err();
    (asked, ended(environment, job).await.unwrap_err())
}

/// Two sinks behind a checkpoint that neither has committed.
async fn neither_has_committed(
    environment: &Environment,
    chance: &Chance,
    plan: &Plan,
    folder: &StoreFolder,
) -> [Moods; 2] {
    let sinks = ["first", "second"].map(|name| Moods::new(name, chance, Temper::Unwilling));
    let job = start(environment, chance, plan, &sinks, Some(folder.clone()), "none");
    stop(environment, &job).await;
    assert!(sinks.iter().all(|sink| sink.outside.published().is_empty() && sink.outside.left_over() > 0));
    sinks
}

/// Goes on with sinks that are willing now, to the end of the job.
async fn every_row_counts_once(
    environment: &Environment,
    chance: &Chance,
    plan: &Plan,
    sinks: &[Moods; 2],
    folder: StoreFolder,
) {
    let willing = sinks.each_ref().map(|sink| sink.now(Temper::Willing));
    let job = start(environment, chance, plan, &willing, Some(folder), "none");
    ended(environment, &job).await.unwrap();
    sinks.iter().for_each(|sink| check(plan, &sink.outside.published()));
}

#[test]
fn a_sink_that_does_not_commit_keeps_no_other_from_it() {
    let run = |environment: Environment| async move {
        let chance = Chance::new(3);
        let (plan, folder) = (on_demand(&chance), folder(&chance));
        let first = Moods::new("first", &chance, Temper::Unwilling);
        let second = Moods::new("second", &chance, Temper::Willing);

        // With a checkpoint.
        let sinks = [first.clone(), second.clone()];
        let job = start(&environment, &chance, &plan, &sinks, Some(folder.clone()), "none");
        let (asked, ended_with) = stop(&environment, &job).await;
        for error in [asked, ended_with] {
            assert!(error.to_string().contains("the first sink does not commit"), "{error}");
        }
        assert!(first.outside.published().is_empty());
        let shown = second.outside.published().len();
        assert!(shown > 0 && second.outside.left_over() == 0, "{shown}");

        // At the end of a job.
        let sinks = [first.now(Temper::Unwilling), Moods::new("third", &chance, Temper::Willing)];
        let job = start(&environment, &chance, &plan, &sinks, None, "none");
        let error = ended(&environment, &job).await.unwrap_err();
        assert!(error.to_string().contains("the first sink does not commit"), "{error}");
        check(&plan, &sinks[1].outside.published());
    };
    simulate(3, run).unwrap();
}

#[test]
fn a_sink_that_never_says_whether_it_has_committed_is_not_waited_for_and_nobody_says_that_it_has_not() {
    let run = |environment: Environment| async move {
        let chance = Chance::new(9);
        let (plan, folder) = (on_demand(&chance), folder(&chance));
        let sinks = [Moods::new("first", &chance, Temper::Silent), Moods::new("second", &chance, Temper::Willing)];
        let job = start(&environment, &chance, &plan, &sinks, Some(folder.clone()), "none");
        let (asked, ended_with) = stop(&environment, &job).await;
        // The timeout is 5 s.
        let now = environment.clock.monotonic();
        assert!(now < Duration::from_secs(7), "{now:?}");
        for error in [asked, ended_with] {
            assert_eq!(error.kind(), ErrorKind::Unavailable);
            let unknown =
                "checkpoint 1 is complete, but whether 'sink' has committed it is not known: no answer for 5s";
            assert!(error.to_string().contains(unknown), "{error}");
        }
        let taken = job.checkpoints();
        assert_eq!(taken.iter().map(|taken| taken.status).collect::<Vec<_>>(), [CheckpointStatus::Completed]);
        let shown = sinks.each_ref().map(|sink| sink.outside.published().len());
        assert!(shown[0] > 0 && shown[1] > 0, "{shown:?}");

        every_row_counts_once(&environment, &chance, &plan, &sinks, folder).await;
    };
    simulate(9, run).unwrap();
}

#[test]
fn a_sink_that_does_not_answer_when_a_job_goes_on_keeps_no_other_from_committing_and_nobody_from_cancelling() {
    let run = |environment: Environment| async move {
        let chance = Chance::new(10);
        let (plan, folder) = (on_demand(&chance), folder(&chance));
        let sinks = neither_has_committed(&environment, &chance, &plan, &folder).await;

        let again = [sinks[0].now(Temper::Silent), sinks[1].now(Temper::Willing)];
        let job = start(&environment, &chance, &plan, &again, Some(folder.clone()), "fixed-delay");
        // One after the other, but nobody waits longer than the timeout of checkpoints.
        environment.clock.sleep(Duration::from_secs(3)).await;
        assert!(sinks[1].outside.published().is_empty());
        environment.clock.sleep(Duration::from_secs(9)).await;
        assert!(job.failures().is_empty() && job.outcome().is_none());
        assert!(!sinks[1].outside.published().is_empty());
        job.cancel();
        assert_eq!(ended(&environment, &job).await.unwrap_err().kind(), ErrorKind::Cancelled);

        every_row_counts_once(&environment, &chance, &plan, &sinks, folder).await;
    };
    simulate(10, run).unwrap();
}

#[test]
fn a_sink_that_does_not_answer_at_the_end_of_a_job_keeps_no_other_from_committing_and_nobody_from_cancelling() {
    let run = |environment: Environment| async move {
        let chance = Chance::new(11);
        let plan = on_demand(&chance);
        let both = || [Moods::new("first", &chance, Temper::Silent), Moods::new("second", &chance, Temper::Willing)];

        // To take back takes no longer than the timeout, which is 5 s.
        let sinks = both();
        let job = start(&environment, &chance, &plan, &sinks, None, "none");
        environment.clock.sleep(Duration::from_secs(20)).await;
        assert!(job.outcome().is_none());
        check(&plan, &sinks[1].outside.published());
        job.cancel();
        assert_eq!(ended(&environment, &job).await.unwrap_err().kind(), ErrorKind::Cancelled);
        let now = environment.clock.monotonic();
        assert!(now < Duration::from_secs(27), "{now:?}");
        assert!(sinks.iter().all(|sink| sink.aborts.load(Ordering::Relaxed) == 1));

        let (sinks, folder) = (both(), folder(&chance));
        let job = start(&environment, &chance, &plan, &sinks, Some(folder.clone()), "fixed-delay");
        environment.clock.sleep(Duration::from_secs(20)).await;
        assert!(job.failures().is_empty() && job.outcome().is_none());
        check(&plan, &sinks[1].outside.published());
        job.cancel();
        assert_eq!(ended(&environment, &job).await.unwrap_err().kind(), ErrorKind::Cancelled);
        every_row_counts_once(&environment, &chance, &plan, &sinks, folder).await;
    };
    simulate(11, run).unwrap();
}

#[test]
fn a_sink_that_does_not_recover_keeps_no_other_from_it() {
    let run = |environment: Environment| async move {
        let chance = Chance::new(5);
        let (plan, folder) = (on_demand(&chance), folder(&chance));
        let sinks = neither_has_committed(&environment, &chance, &plan, &folder).await;

        let again = [sinks[0].clone(), sinks[1].now(Temper::Willing)];
        let job = start(&environment, &chance, &plan, &again, Some(folder.clone()), "none");
        let error = ended(&environment, &job).await.unwrap_err();
        assert!(error.to_string().contains("the first sink does not commit"), "{error}");
        assert!(sinks[0].outside.published().is_empty() && !sinks[1].outside.published().is_empty());

        every_row_counts_once(&environment, &chance, &plan, &sinks, folder).await;
    };
    simulate(5, run).unwrap();
}

#[test]
fn a_panic_behind_a_checkpoint_is_told_with_its_words() {
    let run = |environment: Environment| async move {
        let chance = Chance::new(6);
        let sinks = [Moods::new("first", &chance, Temper::Wild)];
        let job = start(&environment, &chance, &on_demand(&chance), &sinks, None, "none");
        stop(&environment, &job).await
    };
    let (asked, ended_with) = simulate(6, run).unwrap();
    for error in [asked, ended_with] {
        assert!(error.to_string().contains("panicked: the first sink has had enough"), "{error}");
    }
}

#[test]
fn what_could_not_be_committed_at_the_end_is_committed_by_who_goes_on() {
    let run = |environment: Environment| async move {
        let chance = Chance::new(7);
        let (plan, folder) = (on_demand(&chance), folder(&chance));
        let sinks = [Moods::new("first", &chance, Temper::Unwilling), Moods::new("second", &chance, Temper::Willing)];
        // It has come to its end without a checkpoint.
        let job = start(&environment, &chance, &plan, &sinks, Some(folder.clone()), "none");
        let error = ended(&environment, &job).await.unwrap_err();
        assert!(error.to_string().contains("the first sink does not commit"), "{error}");
        assert!(sinks[0].outside.published().is_empty());

        every_row_counts_once(&environment, &chance, &plan, &sinks, folder).await;
    };
    simulate(7, run).unwrap();
}

#[test]
fn who_cancels_a_job_that_has_no_checkpoint_leaves_nothing_behind() {
    let run = |environment: Environment| async move {
        let chance = Chance::new(8);
        let (plan, folder) = (on_demand(&chance), folder(&chance));
        let sink = Moods::new("only", &chance, Temper::Willing);
        let job = start(&environment, &chance, &plan, std::slice::from_ref(&sink), Some(folder), "none");
        environment.clock.sleep(Duration::from_millis(300)).await;
        job.cancel();
        assert_eq!(ended(&environment, &job).await.unwrap_err().kind(), ErrorKind::Cancelled);
        assert_eq!(sink.aborts.load(Ordering::Relaxed), 1);
        assert_eq!((sink.outside.published().len(), sink.outside.left_over()), (0, 0));
    };
    simulate(8, run).unwrap();
}
