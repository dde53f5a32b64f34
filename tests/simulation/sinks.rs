//! Sinks that are no transactions: one that keeps rows in checkpoints until they are complete, and one that writes by key.
//!
//! The job is that of the other worlds. It fails by itself, and its processes are killed and go on with another parallelism. What is
//! at its other end outlives all of them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use async_trait::async_trait;
use object_store::ObjectStore;
use tidemill_connectors::conformance::ManualClock;
use tidemill_connectors::{KeyedTable, Outside, WriteAheadSink};
use tidemill_core::event::CheckpointId;
use tidemill_core::sink::{ChangelogMode, Committer, Delivery, Sink, SinkContext, SinkWriter};
use tidemill_core::{Batch, Error, Result};
use tidemill_exec::checkpoint::CheckpointStore;
use tidemill_exec::runtime::{Begin, Environment, Persistence, StoreFolder, execute_from, simulate};

use crate::chance::{Chance, Tally};
use crate::job::{Plan, graph, settings};
use crate::store::{FaultyStore, StoreTroubles};
use crate::{PATIENCE, Troubles, check};

const SEEDS: Range<u64> = 0..60;
/// Processes that are killed before one may run to the end.
const KILLS_MAX: u64 = 4;
/// Where the job has its checkpoints.
const FOLDER: &str = "job";
/// Once in how many calls a sink fails.
const FAILURES: u64 = 12;

/// Rows `(key, number)`.
type Rows = Vec<(i64, i64)>;

fn rows_of(records: &RecordBatch) -> Rows {
    let column = |place: usize| records.column(place).as_primitive::<Int64Type>().values().iter().copied();
    column(0).zip(column(1)).collect()
}

/// Processes that are killed, and one that comes to the end.
fn live(seed: u64, plan: &Plan, sink: &Arc<dyn Sink>, store: &Arc<FaultyStore>, chance: &Chance) {
    let kills = chance.below(KILLS_MAX);
    for number in 0..=kills {
        let is_last = number == kills;
        if is_last {
            chance.be_kind();
        }
        let parallelism = 1 + chance.below(3) as usize;
        let settings = settings(plan, parallelism, "memory");
        let job = graph(plan, sink.clone(), chance, parallelism).to_job_graph(&settings).unwrap();
        let folder = StoreFolder { store: store.clone(), root: FOLDER.into(), url: FOLDER.to_owned() };
        let begin = Begin::Resume { origin: None };
        let persistence = Persistence { folder: Some(folder), begin, ignore_unclaimed: false, claims: false };
        let lifetime = if is_last { PATIENCE } else { Duration::from_millis(1 + chance.below(600)) };
        let run = |environment: Environment| async move {
            let handle = execute_from(&job, &environment, &settings, persistence).unwrap();
            tokio::select! {
                biased;
                outcome = handle.wait() => Some(outcome),
                () = environment.clock.sleep(lifetime) => None,
            }
        };
        match simulate(seed.wrapping_mul(1000) + number, run).unwrap() {
            Some(outcome) => drop(outcome.unwrap()),
            None => assert!(!is_last, "the job hangs"),
        }
    }
}

/// What happened in worlds that end well, of which each is checked by what it makes of its seed.
fn worlds(world: impl Fn(u64, &Plan, &Chance, Arc<FaultyStore>)) -> Tally {
    let mut tally = Tally::new();
    for seed in SEEDS {
        let chance = Chance::new(seed);
        let plan = Plan::draw(&chance, Troubles::Failures);
        let store = FaultyStore::shared(chance.clone(), StoreTroubles::default());
        world(seed, &plan, &chance, store);
        chance.tally().into_iter().for_each(|(what, times)| *tally.entry(what).or_default() += times);
    }
    tally
}

fn must_have_happened(tally: &Tally, what: &[&str]) {
    let never: Vec<_> = what.iter().filter(|what| tally.get(**what).is_none_or(|times| *times == 0)).collect();
    assert!(never.is_empty(), "what never happened: {never:?}; what did: {tally:?}");
}

/// A place that rows are written to when their checkpoint is complete.
#[derive(Clone, Debug)]
struct Ledger {
    /// What each write left, by its marker.
    writes: Arc<Mutex<BTreeMap<String, Vec<Rows>>>>,
    /// Whether it knows its markers, and takes marker and rows at once.
    knows_markers: bool,
    store: Arc<FaultyStore>,
    chance: Chance,
}

impl Ledger {
    fn fail(&self, what: &'static str) -> Result<()> {
        match self.chance.strikes(what, FAILURES) {
            true => Err(Error::unavailable(format!("the ledger fails to {what}"))),
            false => Ok(()),
        }
    }

    fn written(&self) -> BTreeMap<String, Vec<Rows>> {
        self.writes.lock().unwrap().clone()
    }

    /// The checkpoint that a marker belongs to is complete: the newest one is no older. What comes at the end of the input comes
    /// when the job has ended.
    async fn check_complete(&self, marker: &str) {
        let store: Arc<dyn ObjectStore> = self.store.clone();
        let clock = Arc::new(ManualClock::default());
        let found = CheckpointStore::open(store, FOLDER.into(), clock).await.unwrap();
        let newest = found.checkpoint().unwrap_or_else(|| panic!("{marker} before the first checkpoint"));
        match marker.split('-').nth_back(1).unwrap() {
            "end" => assert!(newest.is_final, "{marker} before the job has ended"),
            number => {
                let number: CheckpointId = number.parse().unwrap();
                assert!(newest.checkpoint >= number, "{marker}, and the newest checkpoint is {}", newest.checkpoint);
                self.chance.count("rows come out while the job runs", 1);
            }
        }
    }
}

#[async_trait]
impl Outside for Ledger {
    fn changelog_mode(&self) -> ChangelogMode {
        ChangelogMode::Append
    }

    fn delivery(&self) -> Delivery {
        if self.knows_markers { Delivery::ExactlyOnce } else { Delivery::AtLeastOnce }
    }

    async fn was_written(&self, marker: &str) -> Result<bool> {
        Ok(self.knows_markers && self.writes.lock().unwrap().contains_key(marker))
    }

    async fn write(&self, marker: &str, batches: Vec<Batch>) -> Result<()> {
        self.check_complete(marker).await;
        self.fail("take rows")?;
        let rows: Rows = batches.iter().flat_map(|batch| rows_of(batch.records())).collect();
        let half = if self.knows_markers { rows.len() } else { rows.len() / 2 };
        {
            let mut writes = self.writes.lock().unwrap();
            writes.entry(marker.to_owned()).or_default().push(rows[..half].to_vec());
        }
        if !self.knows_markers {
            self.fail("take the other half")?;
            let mut writes = self.writes.lock().unwrap();
            writes.get_mut(marker).unwrap().last_mut().unwrap().extend(&rows[half..]);
        }
        self.fail("say that it wrote")
    }

    fn describe(&self) -> String {
        "ledger".to_owned()
    }
}

/// Writes to a ledger through checkpoints; what each write left.
fn write_ahead(
    seed: u64,
    plan: &Plan,
    chance: &Chance,
    store: Arc<FaultyStore>,
    knows_markers: bool,
) -> Vec<(String, Vec<Rows>)> {
    let ledger = Ledger { writes: Arc::default(), knows_markers, store: store.clone(), chance: chance.clone() };
    let sink: Arc<dyn Sink> = Arc::new(WriteAheadSink::new(ledger.clone(), "numbers"));
    live(seed, plan, &sink, &store, chance);
    ledger.written().into_iter().collect()
}

#[test]
fn rows_come_out_when_their_checkpoint_is_complete_and_once_where_the_place_knows_its_markers() {
    let tally = worlds(|seed, plan, chance, store| {
        let writes = write_ahead(seed, plan, chance, store, true);
        assert!(writes.iter().all(|(_, writes)| writes.len() == 1), "seed {seed}: {writes:?}");
        check(plan, &writes.into_iter().flat_map(|(_, writes)| writes).flatten().collect::<Rows>());
    });
    must_have_happened(
        &tally,
        &["rows come out while the job runs", "take rows", "say that it wrote", "a reader fails"],
    );
}

#[test]
fn where_a_place_knows_no_markers_nothing_is_lost_and_what_comes_twice_is_what_was_half_written() {
    let tally = worlds(|seed, plan, chance, store| {
        let writes = write_ahead(seed, plan, chance, store, false);
        // The last write of each marker is whole; what is there beside it is the beginning of the same rows.
        let mut whole = Rows::new();
        for (marker, mut writes) in writes {
            let last = writes.pop().unwrap();
            assert!(
                writes.iter().all(|rows| last.starts_with(rows)),
                "seed {seed}: {marker}: {writes:?}, then {last:?}"
            );
            chance.count("rows are written twice", writes.iter().map(Vec::len).sum::<usize>() as u64);
            whole.extend(last);
        }
        check(plan, &whole);
    });
    must_have_happened(&tally, &["take the other half", "say that it wrote", "rows are written twice"]);
}

/// A keyed table, watched: how often the value of a key goes back.
#[derive(Clone, Debug)]
struct Watched {
    table: KeyedTable,
    newest: Arc<Mutex<BTreeMap<i64, i64>>>,
    chance: Chance,
}

impl Sink for Watched {
    fn changelog_mode(&self) -> ChangelogMode {
        self.table.changelog_mode()
    }

    fn delivery(&self) -> Delivery {
        self.table.delivery()
    }

    fn key_columns(&self) -> &[usize] {
        self.table.key_columns()
    }

    fn prepare(&self) -> Result<Arc<dyn Committer>> {
        self.table.prepare()
    }

    fn writer(&self, context: &SinkContext) -> Result<Box<dyn SinkWriter>> {
        Ok(Box::new(WatchedWriter { sink: self.clone(), inner: self.table.writer(context)? }))
    }

    fn describe(&self) -> String {
        self.table.describe()
    }
}

struct WatchedWriter {
    sink: Watched,
    inner: Box<dyn SinkWriter>,
}

#[async_trait]
impl SinkWriter for WatchedWriter {
    async fn write(&mut self, batch: Batch) -> Result<()> {
        let Watched { newest, chance, .. } = &self.sink;
        for (key, number) in rows_of(batch.records()) {
            let before = newest.lock().unwrap().insert(key, number);
            chance.count("a value goes back", u64::from(before.is_some_and(|before| before > number)));
        }
        self.inner.write(batch).await?;
        match chance.strikes("say that it wrote", FAILURES) {
            true => Err(Error::unavailable("the table fails to say that it wrote")),
            false => Ok(()),
        }
    }
}

#[test]
fn a_table_that_is_written_by_key_is_in_the_end_what_it_would_be_without_failures() {
    let schema = Arc::new(Schema::new(["key", "number"].map(|name| Field::new(name, DataType::Int64, false)).to_vec()));
    let tally = worlds(|seed, plan, chance, store| {
        let table = KeyedTable::new(schema.clone(), &["key"], 100).unwrap();
        let sink = Watched { table: table.clone(), newest: Arc::default(), chance: chance.clone() };
        live(seed, plan, &(Arc::new(sink) as Arc<dyn Sink>), &store, chance);
        let newest: BTreeMap<i64, i64> = rows_of(&table.rows().unwrap()).into_iter().collect();
        assert_eq!(newest, plan.rows_by_key(), "seed {seed}");
    });
    must_have_happened(&tally, &["say that it wrote", "a reader fails", "a value goes back"]);
}
