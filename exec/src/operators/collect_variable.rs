//! Collects the rows of a broadcast variable: everything that comes is kept, and at the end those who wait for it may begin
//! (SHR-01).
//!
//! Its state is the variable, so that a job that goes on from a checkpoint finds it where its sources have nothing more to say. Until
//! the variable is complete there is no checkpoint, as with a join that is still reading its table.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use tidemill_core::operator::{InputSelection, Operator, OperatorContext, OperatorFactory, Output, Progress};
use tidemill_core::shared::BroadcastVariables;
use tidemill_core::state::{Dealing, OperatorList, RestoredState, Snapshot, SnapshotScope, adapt};
use tidemill_core::{Batch, Error, Result, Watermark};

/// The state: the rows.
const ROWS: &str = "rows";

/// What collects rows of these columns, in one subtask a worker.
#[derive(Clone, Debug)]
pub struct CollectVariable {
    /// The columns.
    pub schema: SchemaRef,
}

impl OperatorFactory for CollectVariable {
    fn create(&self) -> Result<Box<dyn Operator>> {
        let (schema, rows) = (self.schema.clone(), OperatorList::new(self.schema.clone()));
        Ok(Box::new(CollectVariableOperator { schema, rows, variables: None, is_complete: false }))
    }

    fn describe(&self) -> String {
        "collect for all subtasks".to_owned()
    }
}

struct CollectVariableOperator {
    schema: SchemaRef,
    /// The same rows as in the variable, which the budget is charged with once.
    rows: OperatorList,
    variables: Option<Arc<dyn BroadcastVariables>>,
    is_complete: bool,
}

impl CollectVariableOperator {
    fn variables(&self) -> Result<&dyn BroadcastVariables> {
        self.variables.as_deref().ok_or_else(|| Error::internal("a collector that was not opened"))
    }
}

impl Operator for CollectVariableOperator {
    fn open(&mut self, context: &OperatorContext) -> Result<()> {
        self.variables = Some(context.shared.variables.clone());
        Ok(())
    }

    fn selection(&self) -> InputSelection {
        match self.is_complete {
            false => InputSelection::Only(0),
            true => InputSelection::Any,
        }
    }

    fn process(&mut self, _input: usize, batch: Batch, _output: &mut Output) -> Result<Progress> {
        if batch.kinds().is_some() {
            return Err(Error::internal("a broadcast variable got an update; its input must be append-only"));
        }
        let rows = batch.compact().into_records().with_schema(self.schema.clone())?;
        self.rows.add(rows.clone())?;
        self.variables()?.add(rows)?;
        Ok(Progress::Done)
    }

    fn advance(&mut self, _watermark: Watermark, _output: &mut Output) -> Result<Progress> {
        Ok(Progress::Done)
    }

    fn end_of_input(&mut self, _input: usize, _output: &mut Output) -> Result<Progress> {
        if !std::mem::replace(&mut self.is_complete, true) {
            self.variables()?.complete()?;
        }
        Ok(Progress::Done)
    }

    fn snapshot(&mut self, _scope: SnapshotScope) -> Result<Snapshot> {
        Ok(Snapshot::whole([self.rows.freeze(ROWS, Dealing::Split)]))
    }

    fn restore(&mut self, mut state: RestoredState) -> Result<()> {
        for batch in state.take(ROWS)? {
            let rows = adapt(ROWS, &batch, &self.schema)?;
            self.rows.add(rows.clone())?;
            self.variables()?.add(rows)?;
        }
        Ok(())
    }
}
