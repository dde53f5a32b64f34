//! `LIMIT` over a stream: the first rows pass, then the task ends and its sources with it.

use tidemill_core::operator::{Operator, OperatorFactory, Output, Progress};
use tidemill_core::state::{RestoredState, Snapshot, SnapshotScope};
use tidemill_core::{Batch, Error, Result};

use crate::operators::saved::{freeze_numbers, restored_numbers};

/// The state: how many rows are still to be skipped, and how many may pass after them.
const LEFT: &str = "left";

/// Passes `fetch` rows after the first `skip`, in the order in which they come. The input is append-only and in one task.
#[derive(Clone, Debug)]
pub struct Limit {
    /// Rows that do not pass.
    pub skip: usize,
    /// Rows that pass after them.
    pub fetch: usize,
}

impl Operator for Limit {
    fn process(&mut self, _input: usize, batch: Batch, output: &mut Output) -> Result<Progress> {
        if batch.kinds().is_some() {
            return Err(Error::internal("LIMIT got an update; its input must be append-only"));
        }
        let skipped = self.skip.min(batch.num_rows());
        self.skip -= skipped;
        let passed = self.fetch.min(batch.num_rows() - skipped);
        self.fetch -= passed;
        output.emit(batch.slice(skipped, passed));
        Ok(Progress::Done)
    }

    fn is_finished(&self) -> bool {
        self.fetch == 0
    }

    fn snapshot(&mut self, _scope: SnapshotScope) -> Result<Snapshot> {
        let left = freeze_numbers(LEFT, &[self.skip as i64, self.fetch as i64])?;
        Ok(Snapshot::whole([left]))
    }

    fn restore(&mut self, mut state: RestoredState) -> Result<()> {
        if let [skip, fetch] = restored_numbers(&mut state, LEFT)?.as_slice() {
            (self.skip, self.fetch) = (*skip as usize, *fetch as usize);
        }
        Ok(())
    }
}

impl OperatorFactory for Limit {
    fn create(&self) -> Result<Box<dyn Operator>> {
        Ok(Box::new(self.clone()))
    }

    fn describe(&self) -> String {
        match self.skip {
            0 => format!("limit {}", self.fetch),
            skip => format!("limit {} offset {skip}", self.fetch),
        }
    }
}
