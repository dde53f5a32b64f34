//! A sink that drops what it gets: for benchmarks, and to run a query for its side effects.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use tidemill_core::batch::Batch;
use tidemill_core::error::Result;
use tidemill_core::sink::{ChangelogMode, Committer, NothingToCommit, Sink, SinkContext, SinkWriter};

use crate::options::Options;
use crate::registry::{TableContext, refuse_replace};

/// Opens `'connector' = 'blackhole'`.
pub(crate) fn open_sink(_options: &mut Options, _schema: SchemaRef, context: &TableContext) -> Result<Arc<dyn Sink>> {
    refuse_replace(context, "blackhole")?;
    Ok(Arc::new(BlackholeSink))
}

/// Drops every row.
#[derive(Clone, Copy, Debug)]
pub struct BlackholeSink;

impl Sink for BlackholeSink {
    fn changelog_mode(&self) -> ChangelogMode {
        ChangelogMode::Retract
    }

    fn prepare(&self) -> Result<Arc<dyn Committer>> {
        Ok(Arc::new(NothingToCommit))
    }

    fn writer(&self, _context: &SinkContext) -> Result<Box<dyn SinkWriter>> {
        Ok(Box::new(Self))
    }

    fn describe(&self) -> String {
        "blackhole".to_owned()
    }
}

#[async_trait]
impl SinkWriter for BlackholeSink {
    async fn write(&mut self, _batch: Batch) -> Result<()> {
        Ok(())
    }
}
