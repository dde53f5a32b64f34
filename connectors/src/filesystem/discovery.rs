//! Finds files and deals them out: once, or again and again (SRC-09).
//!
//! A source that looks again remembers what it has seen by path, with size, time and tag. A file is immutable: one that
//! changes is an error, since which of its rows were read already cannot be told; whoever opens it looks, too. What is
//! remembered is bounded by what is there: a file that is gone is forgotten, and would be new if it came back.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use object_store::ObjectMeta;
use serde::{Deserialize, Serialize};
use tidemill_core::clock::Clock;
use tidemill_core::error::{Error, Result};
use tidemill_core::event::CheckpointId;
use tidemill_core::source::{SourceContext, Split, SplitAssignment, SplitEnumerator};

use super::source::FileSource;
use super::version::Version;

pub(super) struct FileEnumerator {
    source: FileSource,
    parallelism: usize,
    pending: VecDeque<Split>,
    /// What was found, for sources that look again.
    seen: BTreeMap<String, Version>,
    /// When it was last looked for files.
    listed: Option<Duration>,
    clock: Arc<dyn Clock>,
}

#[derive(Serialize, Deserialize)]
struct EnumeratorState {
    pending: Vec<(String, Vec<u8>)>,
    seen: BTreeMap<String, Version>,
    listed: bool,
}

impl FileEnumerator {
    pub(super) fn new(source: FileSource, context: &SourceContext) -> Self {
        Self {
            source,
            parallelism: context.parallelism.max(1),
            pending: VecDeque::new(),
            seen: BTreeMap::new(),
            listed: None,
            clock: context.clock.clone(),
        }
    }

    /// Lists the files, unless that was done and need not be done again yet.
    async fn discover(&mut self) -> Result<()> {
        let now = self.clock.monotonic();
        let is_due = match (self.listed, self.source.monitor_interval()) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(last), Some(interval)) => now.saturating_sub(last) >= interval,
        };
        if !is_due {
            return Ok(());
        }
        let files = self.source.files().await?;
        let new = match self.source.monitor_interval() {
            None => files,
            Some(_) => self.unseen(files)?,
        };
        for file in &new {
            self.pending.extend(self.source.splits(file, self.parallelism));
        }
        self.listed = Some(now);
        Ok(())
    }

    /// The files that were not there before; those that are gone are forgotten.
    fn unseen(&mut self, files: Vec<ObjectMeta>) -> Result<Vec<ObjectMeta>> {
        let mut seen = BTreeMap::new();
        let mut new = Vec::new();
        for file in files {
            let version = Version::of(&file);
            match self.seen.get(file.location.as_ref()) {
                Some(known) => known.check_listed(&version, &self.source.location().at(file.location.clone()))?,
                None => new.push(file.clone()),
            }
            seen.insert(file.location.to_string(), version);
        }
        self.seen = seen;
        Ok(new)
    }
}

#[async_trait]
impl SplitEnumerator for FileEnumerator {
    async fn next_split(&mut self, _subtask: usize) -> Result<SplitAssignment> {
        if self.pending.is_empty() {
            self.discover().await?;
        }
        Ok(match (self.pending.pop_front(), self.source.monitor_interval()) {
            (Some(split), _) => SplitAssignment::Split(split),
            (None, Some(interval)) => SplitAssignment::Later(interval),
            (None, None) => SplitAssignment::Finished,
        })
    }

    fn add_back(&mut self, split: Split) {
        self.pending.push_front(split);
    }

    fn snapshot(&mut self, _checkpoint: CheckpointId) -> Result<Vec<u8>> {
        let state = EnumeratorState {
            pending: self.pending.iter().map(|split| (split.id.to_string(), split.position.clone())).collect(),
            seen: self.seen.clone(),
            listed: self.listed.is_some(),
        };
        serde_json::to_vec(&state).map_err(|error| Error::internal("splits not encodable").with_source(error))
    }

    fn restore(&mut self, state: &[u8]) -> Result<()> {
        let state: EnumeratorState = serde_json::from_slice(state).map_err(|error| {
            Error::corrupt("enumerator state of a filesystem source is not readable").with_source(error)
        })?;
        let split = |(id, position): (String, Vec<u8>)| Split { id: id.into(), position };
        self.pending = state.pending.into_iter().map(split).collect();
        self.seen = state.seen;
        // Who looks again and again may look at once; who looked once has.
        let looks_again = self.source.monitor_interval().is_some();
        self.listed = (state.listed && !looks_again).then_some(Duration::ZERO);
        Ok(())
    }
}
