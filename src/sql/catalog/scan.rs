//! A table opened for reading: what plans scan.
//!
//! ```text
//! source: physical columns ── derive: computed columns ── watermarks ──> declared columns
//! ```
//!
//! DataFusion sees the declared columns. Whoever lowers a scan asks for the [`SourceNode`] that gives those it needs, with
//! only the physical columns read that these are made of.

use std::any::Any;
use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DFSchema, Result as PlanResult, TableReference};
use datafusion::datasource::{DefaultTableSource, TableType};
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{Expr, TableSource};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::utils::{collect_columns, reassign_expr_columns};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::projection::ProjectionExec;
use tidemill_connectors::filesystem::FileSource;
use tidemill_connectors::{Options, TableContext, source};
use tidemill_core::Result;
use tidemill_core::graph::SourceNode;
use tidemill_core::source::{Boundedness, Source};
use tidemill_exec::error::{from_datafusion, to_datafusion};
use tidemill_exec::fragments::{self, ParquetFiles, SourceExec, parquet_scan};
use tidemill_exec::operators::expression::{ComputedColumns, ExpressionWatermarks};

use super::table::{ColumnOrigin, TableDefinition};

/// A table opened for reading.
#[derive(Debug)]
pub struct ScanTable {
    definition: Arc<TableDefinition>,
    source: Arc<dyn Source>,
    /// Declared columns.
    schema: SchemaRef,
    /// Columns of the source.
    physical: SchemaRef,
    /// Each declared column over the physical ones.
    columns: Vec<Arc<dyn PhysicalExpr>>,
    /// The watermark over the declared columns.
    watermark: Option<Arc<dyn PhysicalExpr>>,
}

/// A source that gives some of a table's columns.
#[derive(Clone, Debug)]
pub struct Scan {
    /// The source, its computed columns and watermarks.
    pub node: SourceNode,
    /// What leaves it: the columns asked for, then those that only the watermark needs.
    pub schema: SchemaRef,
    /// Where the columns of `schema` stand among the declared ones.
    pub columns: Vec<usize>,
}

impl ScanTable {
    /// Opens `definition` for reading.
    pub fn open(definition: Arc<TableDefinition>, state: &SessionState, context: &TableContext) -> Result<Self> {
        let physical = definition.physical_schema();
        let options = Options::new(definition.options.iter().cloned());
        let source = source(options, physical, &definition.context(context))
            .map_err(|error| error.context(format!("table '{}'", definition.name)))?;
        Self::over(definition, source, state)
    }

    /// The table that `definition` makes of the rows of `source`, which gives its physical columns.
    pub fn over(definition: Arc<TableDefinition>, source: Arc<dyn Source>, state: &SessionState) -> Result<Self> {
        let (schema, physical) = (definition.schema(), definition.physical_schema());
        let name = TableReference::bare(definition.name.as_str());
        let over =
            |schema: &SchemaRef| DFSchema::try_from_qualified_schema(name.clone(), schema).map_err(from_datafusion);
        let (over_physical, over_declared) = (over(&physical)?, over(&schema)?);
        let columns = definition.columns.iter().map(|column| match &column.origin {
            ColumnOrigin::Physical => Ok(Arc::new(Column::new(&column.name, physical.index_of(&column.name)?)) as _),
            ColumnOrigin::Computed { expr, .. } => {
                state.create_physical_expr(expr.as_ref().clone(), &over_physical).map_err(from_datafusion)
            }
        });
        let columns = columns.collect::<Result<Vec<Arc<dyn PhysicalExpr>>>>()?;
        let watermark = definition.watermark.as_ref().map(|watermark| {
            state.create_physical_expr(watermark.expr.clone(), &over_declared).map_err(from_datafusion)
        });
        Ok(Self { watermark: watermark.transpose()?, definition, source, schema, physical, columns })
    }

    /// What the statement said.
    pub fn definition(&self) -> &Arc<TableDefinition> {
        &self.definition
    }

    /// Where rows come from.
    pub fn source(&self) -> &Arc<dyn Source> {
        &self.source
    }

    /// Whether the table ends.
    pub fn is_bounded(&self) -> bool {
        self.source.boundedness() == Boundedness::Bounded
    }

    /// The place of the event time column among the declared ones.
    pub fn time_column(&self) -> Option<usize> {
        let watermark = self.definition.watermark.as_ref()?;
        self.schema.index_of(&watermark.column).ok()
    }

    /// A source of the declared columns `columns`, in this order. With `watermarks`, those that the watermark is computed
    /// from follow where they are not among them.
    pub fn scan_columns(&self, columns: &[usize], watermarks: bool) -> Result<Scan> {
        let mut columns = columns.to_vec();
        let watermark = self.watermark.as_ref().filter(|_| watermarks);
        for needed in watermark.iter().flat_map(|expr| places(expr)) {
            if !columns.contains(&needed) {
                columns.push(needed);
            }
        }
        let schema = Arc::new(self.schema.project(&columns)?);
        let exprs: Vec<&Arc<dyn PhysicalExpr>> = columns.iter().map(|column| &self.columns[*column]).collect();
        let (projection, derive) = match plain_columns(&exprs).filter(|plain| !plain.is_empty()) {
            Some(plain) => (plain, None),
            None => {
                let read = self.columns_read(&exprs);
                let physical = Arc::new(self.physical.project(&read)?);
                let rebind = |expr: &&Arc<dyn PhysicalExpr>| {
                    reassign_expr_columns(Arc::clone(expr), &physical).map_err(from_datafusion)
                };
                let exprs = exprs.iter().map(rebind).collect::<Result<Vec<_>>>()?;
                (read, Some(Arc::new(ComputedColumns::new(exprs, schema.clone())) as _))
            }
        };
        let all = projection.iter().copied().eq(0..self.physical.fields().len());
        let watermarks = match (watermark, &self.definition.watermark) {
            (Some(expr), Some(definition)) => {
                let expr = reassign_expr_columns(expr.clone(), &schema).map_err(from_datafusion)?;
                Some(Arc::new(ExpressionWatermarks::new(expr, &schema, definition.text.clone())?) as _)
            }
            _ => None,
        };
        let projection = if all { None } else { Some(projection.into()) };
        let node = SourceNode { source: self.source.clone(), projection, derive, watermarks };
        Ok(Scan { node, schema, columns })
    }

    /// A scan of Parquet files that DataFusion does by itself, with their statistics; `None` if the table is no such files.
    async fn scan_parquet(
        &self,
        session: &dyn Session,
        columns: &[usize],
        limit: Option<usize>,
    ) -> PlanResult<Option<Arc<dyn ExecutionPlan>>> {
        let source: &dyn Any = &*self.source;
        let Some(source) = source.downcast_ref::<FileSource>() else { return Ok(None) };
        let Some(files) = source.parquet_files().await.map_err(to_datafusion)? else { return Ok(None) };
        let location = source.location();
        let files = ParquetFiles { prefix: location.store_url(), store: location.store.clone(), files };
        let exprs: Vec<&Arc<dyn PhysicalExpr>> = columns.iter().map(|column| &self.columns[*column]).collect();
        let plain = plain_columns(&exprs);
        let read = plain.clone().unwrap_or_else(|| self.columns_read(&exprs));
        let Some(scan) = parquet_scan(session, files, &self.physical, read, limit).await? else { return Ok(None) };
        if plain.is_some() {
            return Ok(Some(scan));
        }
        let physical = scan.schema();
        let exprs = columns.iter().zip(exprs).map(|(column, expr)| {
            let expr = reassign_expr_columns(expr.clone(), &physical)?;
            Ok((expr, self.schema.field(*column).name().clone()))
        });
        let exprs = exprs.collect::<PlanResult<Vec<_>>>()?;
        Ok(Some(Arc::new(ProjectionExec::try_new(exprs, scan)?)))
    }

    /// The physical columns that `exprs` are made of; a narrow one where they need none, because rows must be counted.
    fn columns_read(&self, exprs: &[&Arc<dyn PhysicalExpr>]) -> Vec<usize> {
        let read: BTreeSet<usize> = exprs.iter().flat_map(|expr| places(expr)).collect();
        if !read.is_empty() {
            return read.into_iter().collect();
        }
        let width = |place: &usize| self.physical.field(*place).data_type().primitive_width().unwrap_or(usize::MAX);
        (0..self.physical.fields().len()).min_by_key(width).into_iter().collect()
    }
}

/// The columns that `exprs` are, if they are no more than that.
fn plain_columns(exprs: &[&Arc<dyn PhysicalExpr>]) -> Option<Vec<usize>> {
    exprs.iter().map(|expr| expr.downcast_ref::<Column>().map(Column::index)).collect()
}

fn places(expr: &Arc<dyn PhysicalExpr>) -> Vec<usize> {
    let mut places: Vec<usize> = collect_columns(expr).iter().map(Column::index).collect();
    places.sort_unstable();
    places
}

#[async_trait]
impl TableProvider for ScanTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> PlanResult<Arc<dyn ExecutionPlan>> {
        let columns = projection.cloned().unwrap_or_else(|| (0..self.schema.fields().len()).collect());
        if let Some(scan) = self.scan_parquet(session, &columns, limit).await? {
            return Ok(scan);
        }
        let SourceNode { source, projection, derive, .. } =
            self.scan_columns(&columns, false).map_err(to_datafusion)?.node;
        let scan = fragments::Scan { source, read: projection, derive, keep: None };
        let partitions = session.config().target_partitions();
        Ok(Arc::new(SourceExec::new(scan, partitions, limit).map_err(to_datafusion)?))
    }
}

/// The table that a plan's scan reads, if it is one of ours.
pub fn scan_table(source: &Arc<dyn TableSource>) -> Option<&ScanTable> {
    source.downcast_ref::<DefaultTableSource>()?.table_provider.downcast_ref()
}
