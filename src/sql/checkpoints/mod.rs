//! `read_checkpoint(…)`: the state of a job as a table (NCK-06).
//!
//! Without an operator the table has a row for each state of each subtask; with one it has the rows of a state. It is opened
//! when a statement is planned, and reads what it found then.

mod overview;
mod source;

use std::sync::Arc;

use datafusion::execution::session_state::SessionState;
use tidemill_core::Result;
use tidemill_exec::checkpoint::find_checkpoint;

use crate::persistence::store_folder;

use super::catalog::{ScanTable, definition_of_schema};
use super::parser::ReadCheckpoint;
use super::session::Session;
use source::CheckpointSource;

/// The name of the function.
pub const READ_CHECKPOINT: &str = "read_checkpoint";

impl Session {
    /// The table that a call of `read_checkpoint` stands for.
    ///
    /// Errors: there is no checkpoint, no such operator or state.
    pub(super) async fn checkpoint_table(&self, state: &SessionState, call: &ReadCheckpoint) -> Result<ScanTable> {
        let folder = store_folder(&self.resolve(&call.url)?);
        let clock = self.engine().environment().clock.clone();
        let found = find_checkpoint(folder.store, &folder.root, clock, call.checkpoint).await;
        let found = found.map_err(|error| error.context(&folder.url))?;
        let described = describe(call);
        let source = match &call.operator {
            None => CheckpointSource::of_rows(overview::overview(&found)?, described),
            Some(operator) => {
                let parts = found.operator(operator).and_then(|operator| found.state(operator, call.state.as_deref()));
                CheckpointSource::of_state(parts.map_err(|error| error.context(&folder.url))?, described)?
            }
        };
        let source = Arc::new(source);
        let definition = definition_of_schema(READ_CHECKPOINT, source.columns(), Vec::new());
        ScanTable::over(Arc::new(definition), source, state)
    }
}

/// The call, for plans.
fn describe(call: &ReadCheckpoint) -> String {
    let ReadCheckpoint { url, operator, state, checkpoint } = call;
    let mut parts = vec![format!("'{url}'")];
    parts.extend(operator.iter().map(|operator| format!("operator => '{operator}'")));
    parts.extend(state.iter().map(|state| format!("state => '{state}'")));
    parts.extend(checkpoint.iter().map(|checkpoint| format!("checkpoint => {checkpoint}")));
    format!("{READ_CHECKPOINT}({})", parts.join(", "))
}
