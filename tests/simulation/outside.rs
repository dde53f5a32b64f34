//! The world's other end: a place where a transactional sink publishes. A transaction belongs to the writer that has opened it
//! or gone on with it last: whoever else still writes to it is turned away.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;
use async_trait::async_trait;
use tidemill_core::clock::Clock;
use tidemill_core::event::CheckpointId;
use tidemill_core::sink::{
    ChangelogMode, Committable, Committer, Fence, Predecessor, Sink, SinkContext, SinkWriter, WriterState,
};
use tidemill_core::{Batch, Error, Result};

use crate::chance::Chance;
use crate::pace::Pace;

/// Rows `(key, number)`.
type Rows = Vec<(i64, i64)>;

/// What sinks have written, by the names of their transactions. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Outside {
    transactions: Arc<Mutex<Transactions>>,
    chance: Chance,
    /// Once in how many calls a sink fails.
    every: u64,
    /// How long it takes for rows, at most.
    pause_millis: u64,
    /// How long each commit takes.
    pace: Pace,
    /// Whom the committer of a process asks before it removes anything.
    fence: Asked,
}

/// Whom a committer asks.
type Asked = Arc<Mutex<Option<Arc<dyn Fence>>>>;

#[derive(Debug, Default)]
struct Transactions {
    opened: u64,
    staged: BTreeMap<String, Rows>,
    /// The writer of each that is staged.
    owners: BTreeMap<String, u64>,
    /// How many writers there have been.
    writers: u64,
    published: BTreeMap<String, Rows>,
    /// Whether the last process was killed, and nobody has looked yet what it left.
    was_killed: bool,
}

impl Outside {
    pub fn new(chance: Chance, every: u64, pause_millis: u64) -> Self {
        let pace = Pace::new(chance.clone(), 0);
        Self { transactions: Arc::default(), chance, every, pause_millis, pace, fence: Asked::default() }
    }

    /// The same, where a process can be killed before and after each commit.
    pub fn with_pace(self, pace: Pace) -> Self {
        Self { pace, ..self }
    }

    /// The process was killed.
    pub fn kill(&self) {
        self.transactions.lock().unwrap().was_killed = true;
    }

    /// Takes note of what a process had done that was killed, as the checkpoint and this place tell: these are what the checkpoint
    /// is to commit. Where sinks fail it may not have been the kill.
    fn look_back(&self, committables: &[Committable]) {
        let mut transactions = self.transactions.lock().unwrap();
        if !std::mem::take(&mut transactions.was_killed) || self.every > 0 {
            return;
        }
        let is_staged = |name: &[u8]| transactions.staged.contains_key(std::str::from_utf8(name).unwrap());
        match committables.iter().filter(|committable| is_staged(&committable.0)).count() {
            0 => {}
            all if all == committables.len() => self.chance.count("killed between manifest and commit", 1),
            _ => self.chance.count("killed between two committables", 1),
        }
    }

    pub fn published(&self) -> Rows {
        self.transactions.lock().unwrap().published.values().flatten().copied().collect()
    }

    /// Transactions that were never published.
    pub fn left_over(&self) -> usize {
        self.transactions.lock().unwrap().staged.len()
    }

    fn fail(&self, what: &'static str) -> Result<()> {
        match self.chance.strikes(what, self.every) {
            true => Err(Error::unavailable(format!("the outside does not do this: {what}"))),
            false => Ok(()),
        }
    }
}

impl Sink for Outside {
    fn changelog_mode(&self) -> ChangelogMode {
        ChangelogMode::Append
    }

    fn prepare(&self) -> Result<Arc<dyn Committer>> {
        Ok(Arc::new(Self { fence: Asked::default(), ..self.clone() }))
    }

    fn writer(&self, context: &SinkContext) -> Result<Box<dyn SinkWriter>> {
        let mut transactions = self.transactions.lock().unwrap();
        transactions.writers += 1;
        let (number, clock) = (transactions.writers, context.clock.clone());
        Ok(Box::new(Writer { outside: self.clone(), number, clock, open: None, complete: Vec::new() }))
    }

    fn describe(&self) -> String {
        "outside".to_owned()
    }
}

struct Writer {
    outside: Outside,
    number: u64,
    clock: Arc<dyn Clock>,
    open: Option<String>,
    /// Restored ones beside it.
    complete: Vec<String>,
}

/// A writer meets what belongs to another one.
fn turned_away(name: &str) -> Error {
    Error::unavailable(format!("{name} belongs to somebody else"))
}

/// The name of a transaction that goes on, and how many rows it had.
fn decode(state: &WriterState) -> (String, usize) {
    let text = std::str::from_utf8(&state.0).unwrap();
    let (name, rows) = text.split_once(':').unwrap();
    (name.to_owned(), rows.parse().unwrap())
}

#[async_trait]
impl SinkWriter for Writer {
    async fn write(&mut self, batch: Batch) -> Result<()> {
        let pause = self.outside.pause_millis;
        if pause > 0 {
            self.clock.sleep(Duration::from_millis(self.outside.chance.below(pause))).await;
        }
        self.outside.fail("take rows")?;
        let mut transactions = self.outside.transactions.lock().unwrap();
        let name = match &self.open {
            Some(name) if transactions.owners.get(name) != Some(&self.number) => return Err(turned_away(name)),
            Some(name) => name.clone(),
            None => {
                transactions.opened += 1;
                let name = self.open.insert(format!("transaction {}", transactions.opened)).clone();
                transactions.owners.insert(name.clone(), self.number);
                name
            }
        };
        let column = |place: usize| batch.records().column(place).as_primitive::<Int64Type>().values().to_vec();
        assert_eq!(batch.records().column(0).null_count(), 0);
        transactions.staged.entry(name).or_default().extend(column(0).into_iter().zip(column(1)));
        Ok(())
    }

    async fn restore(&mut self, states: Vec<WriterState>) -> Result<()> {
        for (name, rows) in states.iter().map(decode) {
            let mut transactions = self.outside.transactions.lock().unwrap();
            // Another process may have gone on from here, and have published it.
            let Some(staged) = transactions.staged.get_mut(&name) else { return Err(turned_away(&name)) };
            assert!(staged.len() >= rows, "{name} has {} rows of {rows}", staged.len());
            if transactions.owners.get(&name).is_some_and(|owner| *owner > self.number) {
                return Err(turned_away(&name));
            }
            let staged = transactions.staged.entry(name.clone()).or_default();
            staged.truncate(rows);
            transactions.owners.insert(name.clone(), self.number);
            // One goes on, others are complete as they are.
            self.complete.extend(self.open.replace(name));
        }
        Ok(())
    }

    async fn prepare_commit(&mut self, checkpoint: Option<CheckpointId>) -> Result<Vec<Committable>> {
        self.outside.fail("prepare")?;
        {
            // What another writer goes on with is not complete, whatever this one has written to it.
            let transactions = self.outside.transactions.lock().unwrap();
            let mut own = self.complete.iter().chain(&self.open);
            if let Some(name) = own.find(|name| transactions.owners.get(*name) != Some(&self.number)) {
                return Err(turned_away(name));
            }
        }
        let mut complete = std::mem::take(&mut self.complete);
        // Some transactions go on over checkpoints.
        if checkpoint.is_none() || self.outside.chance.below(3) == 0 {
            complete.extend(self.open.take());
        }
        Ok(complete.into_iter().map(|name| Committable(name.into_bytes())).collect())
    }

    async fn snapshot(&mut self, _checkpoint: CheckpointId) -> Result<Vec<WriterState>> {
        let transactions = self.outside.transactions.lock().unwrap();
        if let Some(name) = self.open.iter().find(|name| transactions.owners.get(*name) != Some(&self.number)) {
            return Err(turned_away(name));
        }
        let state = |name: &String| WriterState(format!("{name}:{}", transactions.staged[name].len()).into_bytes());
        Ok(self.open.iter().map(state).collect())
    }
}

impl Outside {
    /// Removes what is staged, but for these.
    async fn remove_all_but(&self, open: &[String]) -> Result<()> {
        let gone: Vec<String> = {
            let transactions = self.transactions.lock().unwrap();
            transactions.staged.keys().filter(|name| !open.contains(name)).cloned().collect()
        };
        let fence = self.fence.lock().unwrap().clone();
        if let Some(fence) = fence {
            fence.check().await?;
        }
        self.pace.step().await;
        let mut transactions = self.transactions.lock().unwrap();
        for name in gone {
            transactions.staged.remove(&name);
            transactions.owners.remove(&name);
        }
        Ok(())
    }
}

#[async_trait]
impl Committer for Outside {
    fn fenced_by(&self, fence: Arc<dyn Fence>) {
        *self.fence.lock().unwrap() = Some(fence);
    }

    async fn commit(&self, committables: Vec<Committable>) -> Result<()> {
        for Committable(name) in committables {
            self.pace.step().await;
            self.fail("commit")?;
            let name = String::from_utf8(name).unwrap();
            {
                let mut transactions = self.transactions.lock().unwrap();
                match transactions.staged.remove(&name) {
                    Some(rows) => drop(transactions.published.insert(name, rows)),
                    None => assert!(transactions.published.contains_key(&name), "{name} is lost"),
                }
            }
            self.pace.step().await;
            self.fail("say that it committed")?;
        }
        Ok(())
    }

    async fn recover(&self, committables: Vec<Committable>, states: &[WriterState], of: Predecessor) -> Result<()> {
        if of == Predecessor::Own {
            self.look_back(&committables);
        }
        self.commit(committables).await?;
        let open: Vec<String> = states.iter().map(|state| decode(state).0).collect();
        self.remove_all_but(&open).await
    }

    async fn abort(&self) -> Result<()> {
        self.remove_all_but(&[]).await
    }
}
