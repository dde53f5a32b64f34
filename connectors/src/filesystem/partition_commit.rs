//! Says of partitions that they are complete: a success file, once the time has come and no subtask writes there any more.
//!
//! Files are visible as soon as they are committed. A partition is over when its time has passed by the trigger, and when every
//! subtask has said, at one checkpoint, that it has no file open there; rows that come later make it pending again. What is
//! pending is kept beside the table, so that a committer that begins anew does not forget a partition that no writer knows of
//! any more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::lock::Mutex;
use object_store::ObjectStoreExt;
use serde::{Deserialize, Serialize};
use tidemill_core::error::{Error, Result};
use tidemill_core::event::CheckpointId;
use tidemill_core::sink::Predecessor;
use tidemill_core::time::Calendar;
use tidemill_core::watermark::Watermark;

use super::part::{PartName, folder_of};
use super::partition::Partitioning;
use super::rolling::has_passed;
use crate::formats::parse_instant;
use crate::options::{Options, bad_value};
use crate::store::{Location, write_durably};

/// Ends the name of the file that remembers what is pending.
const PENDING: &str = "partitions";

/// What tells that a partition is over (`sink.partition-commit.trigger`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trigger {
    /// The clock, from the moment in which the partition was opened.
    ProcessTime,
    /// The watermark, against the time that the partition's values tell.
    PartitionTime,
}

/// When and how partitions are committed.
#[derive(Clone, Debug)]
pub(super) struct PartitionCommit {
    trigger: Trigger,
    delay: Duration,
    success_file: String,
    pattern: Vec<Piece>,
    partitioning: Partitioning,
}

/// A piece of `partition.time-extractor.timestamp-pattern`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// The value of the partition column with this number.
    Value(usize),
}

impl PartitionCommit {
    /// What the options of a table say; `None` without a policy.
    pub(super) fn from_options(options: &mut Options, partitioning: Option<&Partitioning>) -> Result<Option<Self>> {
        let key = |name: &str| format!("sink.partition-commit.{name}");
        let kinds = options.optional(&key("policy.kind"));
        let triggers = [("process-time", Trigger::ProcessTime), ("partition-time", Trigger::PartitionTime)];
        let trigger = options.choice(&key("trigger"), &triggers)?;
        let delay = options.duration(&key("delay"))?;
        let success_file = options.optional(&key("success-file.name"));
        let pattern = options.optional("partition.time-extractor.timestamp-pattern");
        for kind in kinds.iter().flat_map(|kinds| kinds.split(',')) {
            match kind.trim() {
                "success-file" => {}
                "metastore" => {
                    let message = format!("option '{}' is 'metastore', and files here have none", key("policy.kind"));
                    return Err(Error::request(message).with_hint("use success-file"));
                }
                other => return Err(bad_value(&key("policy.kind"), other, "success-file")),
            }
        }
        if kinds.is_none() {
            return Ok(None);
        }
        let partitioning = partitioning.ok_or_else(|| {
            Error::request(format!("option '{}' is set, and the table has no partitions", key("policy.kind")))
                .with_hint("declare them with PARTITIONED BY")
        })?;
        let success_file = success_file.unwrap_or_else(|| "_SUCCESS".to_owned());
        if success_file.is_empty() || success_file.contains('/') {
            return Err(bad_value(&key("success-file.name"), &success_file, "the name of a file"));
        }
        Ok(Some(Self {
            trigger: trigger.unwrap_or(Trigger::ProcessTime),
            delay: delay.unwrap_or_default(),
            success_file,
            pattern: parse_pattern(pattern.as_deref(), partitioning)?,
            partitioning: partitioning.clone(),
        }))
    }

    /// Whether the partition is over as far as one who knows these times can tell.
    pub(super) fn is_due(&self, folder: &str, created: i64, now: i64, watermark: Watermark) -> Result<bool> {
        match self.trigger {
            Trigger::ProcessTime => Ok(has_passed(self.delay, created, now)),
            Trigger::PartitionTime => {
                let delay = i64::try_from(self.delay.as_millis()).unwrap_or(i64::MAX);
                let time = self.time_of(folder)?;
                Ok(time.is_some_and(|time| watermark.has_passed(time.saturating_add(delay))))
            }
        }
    }

    /// The time that a partition's values tell, in milliseconds since the epoch; `None` where one of them is NULL.
    fn time_of(&self, folder: &str) -> Result<Option<i64>> {
        let values = self.partitioning.values(folder.split('/'))?;
        let mut text = String::new();
        for piece in &self.pattern {
            match piece {
                Piece::Text(piece) => text.push_str(piece),
                Piece::Value(column) => match values.get(*column) {
                    Some(Some(value)) => text.push_str(value),
                    _ => return Ok(None),
                },
            }
        }
        let millis = parse_instant(&text, arrow::datatypes::TimeUnit::Millisecond, Calendar::Utc);
        millis.map(Some).ok_or_else(|| {
            Error::data(format!("partition '{folder}' has the time '{text}', which is none")).with_hint(
                "'partition.time-extractor.timestamp-pattern' says how its values make one: '$day $hour:00:00'",
            )
        })
    }
}

/// Cuts `$day $hour:00:00` into pieces; without a pattern the first partition column is the time.
fn parse_pattern(pattern: Option<&str>, partitioning: &Partitioning) -> Result<Vec<Piece>> {
    let Some(pattern) = pattern else { return Ok(vec![Piece::Value(0)]) };
    let names: Vec<&str> = partitioning.names().collect();
    let mut pieces = Vec::new();
    let mut parts = pattern.split('$');
    pieces.extend(parts.next().filter(|text| !text.is_empty()).map(|text| Piece::Text(text.to_owned())));
    for part in parts {
        // Where one name begins with another the longer one is meant.
        let named = names.iter().enumerate().filter(|(_, name)| part.starts_with(**name));
        let Some((column, name)) = named.max_by_key(|(_, name)| name.len()) else {
            let expected = format!("${} and text around it", names.join(", $"));
            return Err(bad_value("partition.time-extractor.timestamp-pattern", pattern, &expected));
        };
        pieces.push(Piece::Value(column));
        pieces.extend(part.get(name.len()..).filter(|text| !text.is_empty()).map(|text| Piece::Text(text.to_owned())));
    }
    Ok(pieces)
}

/// How far a subtask had come at a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Progress {
    /// The job, which may go on under another name.
    pub(super) job: String,
    pub(super) subtask: usize,
    pub(super) parallelism: usize,
    /// `None` at its end.
    pub(super) checkpoint: Option<CheckpointId>,
    pub(super) now: i64,
    pub(super) watermark: i64,
    /// The partitions in which it opened files since the last checkpoint, and when first.
    pub(super) touched: BTreeMap<String, i64>,
    /// Those in which it has files open.
    pub(super) open: BTreeSet<String>,
}

/// Partitions that are not over, and when they were opened.
type Pending = BTreeMap<String, i64>;

/// Writes success files; one a job.
#[derive(Debug)]
pub(super) struct PartitionCommitter {
    policy: PartitionCommit,
    table: Location,
    job: Arc<str>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    progress: BTreeMap<usize, Progress>,
    pending: Pending,
    /// What is stored; `None` before it was looked for.
    stored: Option<Pending>,
}

impl State {
    fn note(&mut self, progress: Vec<Progress>) {
        for said in progress {
            for (folder, created) in &said.touched {
                let known = self.pending.entry(folder.clone()).or_insert(*created);
                *known = (*created).min(*known);
            }
            // Those of a job that went on at another parallelism say nothing about this one.
            self.progress.retain(|_, known| known.parallelism == said.parallelism);
            self.progress.insert(said.subtask, said);
        }
    }
}

impl PartitionCommitter {
    pub(super) fn new(policy: PartitionCommit, table: Location, job: Arc<str>) -> Self {
        Self { policy, table, job, state: Mutex::default() }
    }

    /// Takes note of what subtasks say, and commits the partitions that are over with it.
    pub(super) async fn observe(&self, progress: Vec<Progress>) -> Result<()> {
        if progress.is_empty() {
            return Ok(());
        }
        let mut state = self.state.lock().await;
        self.load(&mut state).await?;
        state.note(progress);
        let over = self.over(&state)?;
        self.succeed(&over).await?;
        state.pending.retain(|folder, _| !over.contains(folder));
        self.store(&mut state).await
    }

    /// Takes note of what subtasks say, for the end: no partition has files that anybody sees before it. Whoever comes to it after a
    /// restart hears all of that again.
    pub(super) async fn remember(&self, progress: Vec<Progress>) -> Result<()> {
        let mut state = self.state.lock().await;
        self.load(&mut state).await?;
        state.note(progress);
        Ok(())
    }

    /// The job has ended: all partitions are over.
    pub(super) async fn finish(&self) -> Result<()> {
        let mut state = self.state.lock().await;
        self.load(&mut state).await?;
        self.succeed(&state.pending.keys().cloned().collect()).await?;
        state.pending.clear();
        self.store(&mut state).await
    }

    /// The partitions that are over once all subtasks have spoken at one checkpoint; none before.
    fn over(&self, state: &State) -> Result<BTreeSet<String>> {
        let said = || state.progress.values();
        let checkpoints: BTreeSet<CheckpointId> = said().filter_map(|progress| progress.checkpoint).collect();
        if said().any(|progress| progress.parallelism != state.progress.len()) || checkpoints.len() > 1 {
            return Ok(BTreeSet::new());
        }
        let now = said().map(|progress| progress.now).max().unwrap_or(i64::MIN);
        let watermark = Watermark(said().map(|progress| progress.watermark).min().unwrap_or(i64::MIN));
        let mut over = BTreeSet::new();
        for (folder, created) in &state.pending {
            let is_open = said().any(|progress| progress.open.contains(folder));
            if !is_open && self.policy.is_due(folder, *created, now, watermark)? {
                over.insert(folder.clone());
            }
        }
        Ok(over)
    }

    /// Writes the success files of all these partitions, then raises the first error.
    async fn succeed(&self, folders: &BTreeSet<String>) -> Result<()> {
        let mut outcome = Ok(());
        for folder in folders {
            let file = folder_of(&self.table, folder).child(&self.policy.success_file);
            outcome = outcome.and(write_durably(&file, Vec::new()).await);
        }
        outcome
    }

    /// Takes over what jobs have left pending that this one goes on from; those that may be at work keep it as well.
    pub(super) async fn adopt(&self, jobs: &BTreeSet<String>, of: Predecessor) -> Result<()> {
        let mut state = self.state.lock().await;
        self.load(&mut state).await?;
        for job in jobs.iter().filter(|job| **job != *self.job) {
            let theirs = self.stored_by(job).await?;
            if !theirs.is_empty() {
                state.pending.extend(theirs);
                self.store(&mut state).await?;
                if of == Predecessor::Own {
                    self.place_of(job).delete().await?;
                }
            }
        }
        Ok(())
    }

    fn place_of(&self, job: &str) -> Location {
        self.table.child(&format!(".{}{PENDING}", PartName::prefix(job)))
    }

    async fn stored_by(&self, job: &str) -> Result<Pending> {
        let place = self.place_of(job);
        match place.store.get(&place.path).await {
            Ok(found) => {
                let bytes = found.bytes().await.map_err(|error| place.error(error))?;
                serde_json::from_slice(&bytes)
                    .map_err(|error| Error::corrupt(format!("{place}: no readable partitions")).with_source(error))
            }
            Err(object_store::Error::NotFound { .. }) => Ok(Pending::new()),
            Err(error) => Err(place.error(error)),
        }
    }

    async fn load(&self, state: &mut State) -> Result<()> {
        if state.stored.is_none() {
            let stored = self.stored_by(&self.job).await?;
            state.pending.extend(stored.clone());
            state.stored = Some(stored);
        }
        Ok(())
    }

    async fn store(&self, state: &mut State) -> Result<()> {
        if state.stored.as_ref() == Some(&state.pending) {
            return Ok(());
        }
        match state.pending.is_empty() {
            true => self.place_of(&self.job).delete().await?,
            false => {
                let bytes = serde_json::to_vec(&state.pending)
                    .map_err(|error| Error::internal("partitions are not encodable").with_source(error))?;
                write_durably(&self.place_of(&self.job), bytes).await?;
            }
        }
        state.stored = Some(state.pending.clone());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    fn policy(more: &[(&str, &str)]) -> Result<PartitionCommit> {
        let text = |name: &str| Field::new(name, DataType::Utf8, true);
        let schema = Arc::new(Schema::new(vec![text("v"), text("day"), text("day_hour")]));
        let names = ["day".to_owned(), "day_hour".to_owned()];
        let partitioning = Partitioning::new(&schema, &names, super::super::partition::DEFAULT_NAME.to_owned())?;
        let kind = [("sink.partition-commit.policy.kind", "success-file")];
        let mut options = Options::new(kind.into_iter().chain(more.iter().copied()));
        Ok(PartitionCommit::from_options(&mut options, Some(&partitioning))?.unwrap())
    }

    #[test]
    fn the_time_of_a_partition_follows_the_pattern() {
        let pattern = "partition.time-extractor.timestamp-pattern";
        let time = |policy: &PartitionCommit, folder: &str| policy.time_of(folder);
        let plain = policy(&[]).unwrap();
        assert_eq!(time(&plain, "day=1970-01-02/day_hour=x").unwrap(), Some(86_400_000));
        let hours = policy(&[(pattern, "$day $day_hour:00:00")]).unwrap();
        assert_eq!(time(&hours, "day=1970-01-01/day_hour=03").unwrap(), Some(3 * 3_600_000));
        assert_eq!(time(&hours, "day=1970-01-01/day_hour=__HIVE_DEFAULT_PARTITION__").unwrap(), None);
        let error = time(&hours, "day=soon/day_hour=03").unwrap_err().to_string();
        assert!(
            error.starts_with("partition 'day=soon/day_hour=03' has the time 'soon 03:00:00', which is none"),
            "{error}"
        );
        let error = policy(&[(pattern, "$dt")]).unwrap_err().to_string();
        assert_eq!(error, format!("option '{pattern}' is '$dt'; expected $day, $day_hour and text around it"));
    }

    #[test]
    fn a_metastore_is_refused() {
        let error = policy(&[("sink.partition-commit.policy.kind", "metastore,success-file")]).unwrap_err().to_string();
        let message = "option 'sink.partition-commit.policy.kind' is 'metastore', and files here have none";
        assert_eq!(error, format!("{message}; use success-file"));
    }

    #[test]
    fn triggers_wait_for_their_time() {
        let minute = ("sink.partition-commit.delay", "1 min");
        let clock = policy(&[minute]).unwrap();
        let due = |policy: &PartitionCommit, now: i64, watermark: i64| {
            policy.is_due("day=1970-01-02/day_hour=x", 1_000, now, Watermark(watermark)).unwrap()
        };
        assert!(!due(&clock, 60_999, i64::MAX));
        assert!(due(&clock, 61_000, i64::MIN));
        let time = policy(&[minute, ("sink.partition-commit.trigger", "partition-time")]).unwrap();
        assert!(!due(&time, i64::MAX, 86_459_999));
        assert!(due(&time, i64::MIN, 86_460_000));
    }
}
