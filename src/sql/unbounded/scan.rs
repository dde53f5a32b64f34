//! Tables: a source task that computes columns and watermarks as it reads.

use std::any::Any;

use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::TableScan;
use tidemill_core::graph::NodeKind;
use tidemill_core::source::Boundedness;
use tidemill_core::{Error, Result};
use tidemill_exec::error::from_datafusion;
use tidemill_exec::operators::calc::Calc;

use super::expr::column;
use super::relation::{Lowering, Relation, cannot_stream};
use crate::sql::catalog::ScanTable;

impl Lowering<'_> {
    pub(super) fn lower_scan(&mut self, scan: &TableScan) -> Result<Relation> {
        let provider = source_as_provider(&scan.source).map_err(from_datafusion)?;
        let provider: &dyn Any = provider.as_ref();
        let table = provider.downcast_ref::<ScanTable>().ok_or_else(|| cannot_stream(&scan.table_name.to_string()))?;
        let all: Vec<usize> = (0..scan.source.schema().fields().len()).collect();
        let wanted = scan.projection.as_ref().unwrap_or(&all);
        let read = table.scan_columns(wanted, true)?;
        let mut relation = self.source(&scan.table_name.to_string(), read.node, read.schema.clone());
        for filter in &scan.filters {
            let schema = scan.projected_schema.as_ref();
            let predicate = super::expr::physical(filter, schema, self.state)?;
            relation = self.filter(relation, predicate)?;
        }
        // Columns that only the watermark was computed from end here.
        if read.columns.len() > wanted.len() {
            let schema = std::sync::Arc::new(read.schema.project(&(0..wanted.len()).collect::<Vec<_>>())?);
            let columns = (0..wanted.len()).map(|index| column(&read.schema, index)).collect();
            relation = self.push(&relation, "project", Calc::project(columns, schema.clone()), schema);
        }
        Ok(relation)
    }

    /// Windows fire when the watermark passes them, so every endless source needs one.
    pub(super) fn check_watermarks(&self) -> Result<()> {
        for node in self.graph.nodes() {
            if let NodeKind::Source(source) = &node.kind
                && source.source.boundedness() == Boundedness::Unbounded
                && source.watermarks.is_none()
            {
                return Err(Error::request(format!(
                    "windows over '{}' would never fire: it has no watermark",
                    node.name
                ))
                .with_hint("declare one: WATERMARK FOR ts AS ts - INTERVAL '5' SECOND"));
            }
        }
        Ok(())
    }
}
