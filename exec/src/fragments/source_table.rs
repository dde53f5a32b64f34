//! A table over a source of ours, for bounded plans.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result as PlanResult;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use tidemill_core::source::{BatchFunction, Source};

use crate::error::to_datafusion;
use crate::fragments::source_exec::{Scan, SourceExec};

/// The rows of a source, with computed columns if there are any.
#[derive(Debug)]
pub struct SourceTable {
    source: Arc<dyn Source>,
    derive: Option<Arc<dyn BatchFunction>>,
    schema: SchemaRef,
}

impl SourceTable {
    /// A table over all columns of `source`, or over those that `derive` computes of them.
    pub fn new(source: Arc<dyn Source>, derive: Option<Arc<dyn BatchFunction>>) -> Self {
        let schema = derive.as_ref().map_or_else(|| source.schema(), |derive| derive.schema());
        Self { source, derive, schema }
    }
}

#[async_trait]
impl TableProvider for SourceTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> PlanResult<Arc<dyn ExecutionPlan>> {
        let columns: Option<Arc<[usize]>> = projection.map(|columns| columns.as_slice().into());
        // What computed columns need is their own affair: under them the source reads all.
        let (read, keep) = if self.derive.is_some() { (None, columns) } else { (columns, None) };
        let scan = Scan { source: self.source.clone(), read, derive: self.derive.clone(), keep };
        let partitions = state.config().target_partitions();
        Ok(Arc::new(SourceExec::new(scan, partitions, limit).map_err(to_datafusion)?))
    }
}
