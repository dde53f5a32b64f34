//! A sink that keeps all rows.

use std::sync::{Arc, Mutex};

use arrow::array::RecordBatch;
use async_trait::async_trait;
use tidemill_core::sink::{ChangelogMode, Committer, NothingToCommit, Sink, SinkContext, SinkWriter};
use tidemill_core::{Batch, Result};

/// Keeps all rows. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct Collect(pub Arc<Mutex<Vec<RecordBatch>>>);

impl Sink for Collect {
    fn changelog_mode(&self) -> ChangelogMode {
        ChangelogMode::Append
    }

    fn prepare(&self) -> Result<Arc<dyn Committer>> {
        Ok(Arc::new(NothingToCommit))
    }

    fn writer(&self, _context: &SinkContext) -> Result<Box<dyn SinkWriter>> {
        Ok(Box::new(self.clone()))
    }

    fn describe(&self) -> String {
        "collect".into()
    }
}

#[async_trait]
impl SinkWriter for Collect {
    async fn write(&mut self, batch: Batch) -> Result<()> {
        self.0.lock().unwrap().push(batch.into_records());
        Ok(())
    }
}
