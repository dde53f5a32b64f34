//! Lives of a job with checkpoints, crashes and restores: whatever happens, a sink shows every row exactly once in the end
//! ([`check_history`]), or what writing every row once would have left ([`check_upserts`](super::upserts::check_upserts)).
//!
//! The job is the simplest there is: rows are numbered, a checkpoint holds the number of the next row, the committables that
//! are not known to be committed and the states of the writers. After a crash everything begins anew from the last checkpoint
//! that was durable, with any number of writers.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use tidemill_core::batch::Batch;
use tidemill_core::clock::Clock;
use tidemill_core::error::Result;
use tidemill_core::event::CheckpointId;
use tidemill_core::key::hash_columns;
use tidemill_core::metrics::Metrics;
use tidemill_core::sink::{Committable, Committer, Predecessor, Sink, SinkContext, SinkWriter, WriterState};
use tidemill_core::watermark::Watermark;

use super::{ManualClock, rows_as_text};

/// What happens to a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A writer gets rows.
    Write {
        /// Which one, modulo their number.
        subtask: usize,
        /// How many.
        rows: u64,
    },
    /// The input pauses, and time passes.
    Pause(Duration),
    /// A checkpoint is taken.
    Checkpoint(Fate),
    /// All writers and the committer are gone.
    Crash,
}

/// What becomes of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is durable and committed.
    Committed,
    /// It is durable, and the news is late: the next one commits both.
    Unnoticed,
    /// It is given up, and the job goes on: what was prepared for it belongs to the next one.
    Declined,
    /// The job crashes before it is durable.
    Lost,
    /// It is durable, and the job crashes before anything is committed.
    Uncommitted,
    /// It is durable, and the job crashes when half of it is committed.
    HalfCommitted,
    /// It is committed, and the job crashes.
    CommittedInVain,
}

impl Step {
    /// The steps that random bytes stand for, two each.
    pub fn of_bytes(bytes: &[u8]) -> Vec<Self> {
        let step = |pair: &[u8]| {
            let (kind, more) = (pair[0] % 16, pair[1]);
            match kind {
                0..7 => Self::Write { subtask: usize::from(more % 8), rows: u64::from(more / 8) + 1 },
                7 => Self::Pause(Duration::from_secs(u64::from(more))),
                8 => Self::Crash,
                9..12 => Self::Checkpoint(Fate::Committed),
                _ => Self::Checkpoint(match more % 6 {
                    0 => Fate::Unnoticed,
                    5 => Fate::Declined,
                    1 => Fate::Lost,
                    2 => Fate::Uncommitted,
                    3 => Fate::HalfCommitted,
                    _ => Fate::CommittedInVain,
                }),
            }
        };
        bytes.chunks_exact(2).map(step).collect()
    }
}

/// What a durable checkpoint holds.
#[derive(Clone, Debug, Default)]
struct Checkpoint {
    next_row: u64,
    committables: Vec<Committable>,
    states: Vec<WriterState>,
}

pub(super) struct Life<'a> {
    open: &'a dyn Fn() -> Result<Arc<dyn Sink>>,
    rows: &'a dyn Fn(Range<u64>) -> Batch,
    clock: Arc<ManualClock>,
    committer: Arc<dyn Committer>,
    writers: Vec<Box<dyn SinkWriter>>,
    /// Counts attempts, so that each has another number of writers.
    attempt: usize,
    parallelism_max: usize,
    next_row: u64,
    next_checkpoint: CheckpointId,
    /// Prepared, and not known to be committed.
    pending: Vec<Committable>,
    durable: Checkpoint,
    /// Rows before this one may be visible, of a sink that shows them with a checkpoint.
    visible_max: u64,
    /// Rows before this one have been written, in this attempt or an earlier one.
    written_max: u64,
    /// The columns by which the sink wants rows dealt.
    key_columns: Vec<usize>,
}

impl<'a> Life<'a> {
    pub async fn begin(
        open: &'a dyn Fn() -> Result<Arc<dyn Sink>>,
        rows: &'a dyn Fn(Range<u64>) -> Batch,
        parallelism_max: usize,
    ) -> Result<Self> {
        let committer = open()?.prepare()?;
        let mut life = Self {
            open,
            rows,
            clock: Arc::new(ManualClock::default()),
            committer,
            writers: Vec::new(),
            attempt: 0,
            parallelism_max,
            next_row: 0,
            next_checkpoint: 1,
            pending: Vec::new(),
            durable: Checkpoint::default(),
            visible_max: 0,
            written_max: 0,
            key_columns: Vec::new(),
        };
        life.restore().await?;
        Ok(life)
    }

    /// A new attempt, from the last checkpoint that was durable.
    async fn restore(&mut self) -> Result<()> {
        self.writers.clear();
        let sink = (self.open)()?;
        self.committer = sink.prepare()?;
        self.key_columns = sink.key_columns().to_vec();
        let Checkpoint { next_row, committables, states } = self.durable.clone();
        self.committer.recover(committables, &states, Predecessor::Own).await?;
        self.visible_max = next_row;
        self.pending.clear();
        self.next_row = next_row;
        let parallelism =
            sink.parallelism_max().unwrap_or(self.parallelism_max).min(1 + self.attempt % self.parallelism_max);
        self.attempt += 1;
        let schema = (self.rows)(0..0).schema();
        for subtask in 0..parallelism {
            let clock: Arc<dyn Clock> = self.clock.clone();
            let context =
                SinkContext { subtask, parallelism, schema: schema.clone(), clock, metrics: Metrics::default() };
            let mut writer = sink.writer(&context)?;
            let own = states.iter().skip(subtask).step_by(parallelism).cloned();
            writer.restore(own.collect()).await?;
            self.writers.push(writer);
        }
        Ok(())
    }

    /// The rows of the last durable checkpoint, and all that were ever written, as far as their numbers go.
    pub fn numbers(&self) -> (u64, u64) {
        (self.durable.next_row, self.written_max)
    }

    pub async fn step(&mut self, step: Step) -> Result<()> {
        match step {
            Step::Write { subtask, rows } => {
                let batch = (self.rows)(self.next_row..self.next_row + rows);
                self.next_row += rows;
                self.written_max = self.written_max.max(self.next_row);
                self.write(subtask % self.writers.len(), batch).await
            }
            Step::Pause(time) => {
                self.clock.sleep(time).await;
                for writer in &mut self.writers {
                    writer.flush().await?;
                }
                Ok(())
            }
            Step::Checkpoint(fate) => self.checkpoint(fate).await,
            Step::Crash => self.restore().await,
        }
    }

    /// Gives rows to one writer, or each to the one that its key belongs to.
    async fn write(&mut self, subtask: usize, batch: Batch) -> Result<()> {
        if self.key_columns.is_empty() {
            return self.writers[subtask].write(batch).await;
        }
        let keys: Vec<_> = self.key_columns.iter().map(|key| batch.records().column(*key).clone()).collect();
        let hashes = hash_columns(&keys, batch.num_rows())?;
        let count = self.writers.len() as u64;
        for (number, writer) in (0..).zip(&mut self.writers) {
            let own = hashes.iter().map(|hash| Some(hash % count == number)).collect();
            writer.write(batch.filter(&own)?).await?;
        }
        Ok(())
    }

    /// Writes what was written before the last crash and not since: a source gives it again.
    pub async fn catch_up(&mut self) -> Result<()> {
        match self.written_max - self.next_row {
            0 => Ok(()),
            rows => self.step(Step::Write { subtask: 0, rows }).await,
        }
    }

    async fn checkpoint(&mut self, fate: Fate) -> Result<()> {
        let id = self.next_checkpoint;
        self.next_checkpoint += 1;
        let mut taken = Checkpoint { next_row: self.next_row, committables: self.pending.clone(), states: Vec::new() };
        for writer in &mut self.writers {
            writer.watermark(Watermark(self.next_row as i64)).await?;
            taken.committables.extend(writer.prepare_commit(Some(id)).await?);
            taken.states.extend(writer.snapshot(id).await?);
        }
        if fate == Fate::Lost {
            return self.restore().await;
        }
        self.pending = taken.committables.clone();
        if fate == Fate::Declined {
            return Ok(());
        }
        self.durable = taken;
        let half = self.pending.len() / 2;
        match fate {
            Fate::Unnoticed | Fate::Uncommitted | Fate::Lost | Fate::Declined => {}
            Fate::HalfCommitted => self.commit(self.pending[..half].to_vec()).await?,
            Fate::Committed | Fate::CommittedInVain => {
                self.commit(self.pending.clone()).await?;
                self.pending.clear();
            }
        }
        match fate {
            Fate::Committed | Fate::Unnoticed => Ok(()),
            _ => self.restore().await,
        }
    }

    async fn commit(&mut self, committables: Vec<Committable>) -> Result<()> {
        self.visible_max = self.durable.next_row;
        self.committer.commit(committables).await
    }

    /// The end of input, twice: a job that crashes while it ends goes on from its last checkpoint.
    pub async fn end(mut self) -> Result<u64> {
        for writer in &mut self.writers {
            self.pending.extend(writer.prepare_commit(None).await?);
        }
        self.writers.clear();
        self.committer.commit(self.pending.clone()).await?;
        let again = (self.open)()?.prepare()?;
        again.recover(self.pending.clone(), &[], Predecessor::Own).await?;
        again.finish().await?;
        again.commit(self.pending).await?;
        again.finish().await?;
        Ok(self.next_row)
    }
}

/// Runs a sink through `history`, and to its end. `open` opens the same sink again, `rows` gives the rows with these numbers,
/// `visible` tells the rows that a reader sees, as text; what was there before may not be.
pub async fn check_history(
    open: &dyn Fn() -> Result<Arc<dyn Sink>>,
    rows: &dyn Fn(Range<u64>) -> RecordBatch,
    history: &[Step],
    parallelism_max: usize,
    visible: impl AsyncFn() -> Vec<String>,
) -> Result<()> {
    let batches = |range| Batch::append(rows(range));
    let mut life = Life::begin(open, &batches, parallelism_max).await?;
    for (at, step) in history.iter().enumerate() {
        life.step(*step).await?;
        let seen = visible().await;
        let distinct: BTreeSet<&String> = seen.iter().collect();
        assert_eq!(distinct.len(), seen.len(), "no row comes twice after step {at} of {history:?}");
        let texts = rows_as_text(&rows(0..life.visible_max))?;
        let allowed: BTreeSet<&String> = texts.iter().collect();
        assert!(
            distinct.is_subset(&allowed),
            "nothing is visible before its checkpoint after step {at} of {history:?}"
        );
    }
    let end = life.end().await?;
    let mut expected = rows_as_text(&rows(0..end))?;
    expected.sort_unstable();
    let mut seen = visible().await;
    seen.sort_unstable();
    assert_eq!(seen, expected, "every row once after {history:?}");
    Ok(())
}
