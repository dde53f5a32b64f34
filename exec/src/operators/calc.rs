//! Filter and projection in one pass (Flink's Calc): no row is built that the filter drops.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use tidemill_core::operator::{Operator, OperatorFactory, Output, Progress};
use tidemill_core::{Batch, Result};

use crate::operators::expression::{Expr, batch_of, evaluate_all, evaluate_predicate};

/// Keeps the rows for which the filter is true, and computes the columns that leave.
///
/// Row kinds pass unchanged: both are functions of one row, so a retraction is filtered and projected as its insertion was.
#[derive(Clone, Debug)]
pub struct Calc {
    filter: Option<Expr>,
    /// `None` keeps the columns as they are.
    project: Option<Arc<[Expr]>>,
    schema: SchemaRef,
}

impl Calc {
    /// A filter.
    pub fn filter(filter: Expr, schema: SchemaRef) -> Self {
        Self { filter: Some(filter), project: None, schema }
    }

    /// A projection to `schema`.
    pub fn project(project: Vec<Expr>, schema: SchemaRef) -> Self {
        Self { filter: None, project: Some(project.into()), schema }
    }
}

impl Operator for Calc {
    fn process(&mut self, _input: usize, batch: Batch, output: &mut Output) -> Result<Progress> {
        let batch = match &self.filter {
            Some(filter) => batch.filter(&evaluate_predicate(filter, batch.records())?)?,
            None => batch,
        };
        if batch.is_empty() {
            return Ok(Progress::Done);
        }
        let batch = match &self.project {
            Some(project) => {
                let columns = evaluate_all(project, batch.records())?;
                let records = batch_of(&self.schema, columns, batch.num_rows())?;
                batch.with_records(records)?.without_hashes()
            }
            None => batch,
        };
        output.emit(batch);
        Ok(Progress::Done)
    }
}

impl OperatorFactory for Calc {
    fn create(&self) -> Result<Box<dyn Operator>> {
        Ok(Box::new(self.clone()))
    }

    fn describe(&self) -> String {
        let filter = self.filter.iter().map(|filter| format!("filter {filter}"));
        let project = self.project.iter().map(|exprs| {
            let named = exprs.iter().zip(self.schema.fields());
            let named: Vec<String> = named.map(|(expr, field)| format!("{expr} AS {}", field.name())).collect();
            format!("project {}", named.join(", "))
        });
        filter.chain(project).collect::<Vec<_>>().join(", ")
    }
}
