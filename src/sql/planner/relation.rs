//! Relations that DataFusion does not plan: window table functions and `read_checkpoint`. And those that it plans without what was
//! asked of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::common::Result;
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, LogicalPlanBuilder};
use datafusion::sql::sqlparser::ast::{Expr as SqlExpr, Spanned, TableAlias, TableFactor};
use tidemill_core::Error;

use super::window::{WindowCall, WindowName, column_place, external};
use crate::sql::checkpoints::READ_CHECKPOINT;
use crate::sql::error::at;
use crate::sql::logical::WindowAssign;
use crate::sql::parser::{ReadCheckpoint, WindowKind, WindowTvf, read_checkpoint, window_tvf};

/// Plans `TABLE(TUMBLE(…))` and its kin, and `read_checkpoint(…)`.
#[derive(Debug)]
pub struct TableFunctions {
    /// The session's zone, in which windows over `TIMESTAMP_LTZ` align.
    pub zone: String,
    /// The checkpoints that have been opened.
    pub checkpoints: BTreeMap<ReadCheckpoint, Arc<dyn TableProvider>>,
}

impl RelationPlanner for TableFunctions {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        if let Some(call) = read_checkpoint(&relation) {
            let plan = self.checkpoint(&call.map_err(external)?.0)?;
            return Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias_of(&relation)))));
        }
        match window_tvf(&relation) {
            Some(tvf) => {
                let plan = self.plan(tvf.map_err(external)?, context)?;
                let planned = PlannedRelation::new(plan, alias_of(&relation));
                Ok(RelationPlanning::Planned(Box::new(planned)))
            }
            None => {
                refuse(&relation)?;
                Ok(RelationPlanning::Original(Box::new(relation)))
            }
        }
    }
}

impl TableFunctions {
    fn checkpoint(&self, call: &ReadCheckpoint) -> Result<LogicalPlan> {
        let opened = self.checkpoints.get(call).cloned();
        let opened = opened.ok_or_else(|| external(Error::internal("a checkpoint that was not opened")))?;
        LogicalPlanBuilder::scan(READ_CHECKPOINT, provider_as_source(opened), None)?.build()
    }

    fn plan(&self, tvf: WindowTvf, context: &mut dyn RelationPlannerContext) -> Result<LogicalPlan> {
        let input = context.plan(tvf.input.to_relation().map_err(external)?)?;
        let schema = input.schema().clone();
        let mut planned = |expr: SqlExpr| context.sql_to_expr(expr, &schema);
        let (name, lengths) = match tvf.kind {
            WindowKind::Tumble { size } => (WindowName::Tumble, vec![size]),
            WindowKind::Hop { slide, size } => (WindowName::Hop, vec![slide, size]),
            WindowKind::Cumulate { step, size } => (WindowName::Cumulate, vec![step, size]),
            WindowKind::Session { gap } => (WindowName::Session, vec![gap]),
        };
        let call = WindowCall {
            name,
            time: planned(SqlExpr::Identifier(tvf.time_column))?,
            lengths: lengths.into_iter().map(&mut planned).collect::<Result<_>>()?,
            offset: tvf.offset.map(&mut planned).transpose()?,
        };
        let keys: Vec<Expr> = tvf.partition_by.into_iter().map(&mut planned).collect::<Result<_>>()?;
        let keys = keys.iter().map(|key| column_place(key, &schema, "PARTITION BY")).collect::<Result<Vec<_>>>()?;
        let time_column = column_place(&call.time, &schema, "DESCRIPTOR")?;
        let spec = call.spec(schema.field(time_column))?;
        // Only sessions are found within a partition; other windows are the same with and without.
        let partition_by = if name == WindowName::Session { keys } else { Vec::new() };
        let assign = WindowAssign::try_new(input, spec, &self.zone, time_column, partition_by)?;
        Ok(LogicalPlan::Extension(Extension { node: Arc::new(assign) }))
    }
}

fn alias_of(relation: &TableFactor) -> Option<TableAlias> {
    match relation {
        TableFactor::TableFunction { alias, .. }
        | TableFactor::Table { alias, .. }
        | TableFactor::Function { alias, .. } => alias.clone(),
        _ => None,
    }
}

/// DataFusion plans these as if the clause were not there, or answers with the tree: better no answer than a wrong one.
fn refuse(relation: &TableFactor) -> Result<()> {
    let what = match relation {
        TableFactor::Table { version: Some(_), .. } => "FOR SYSTEM_TIME AS OF",
        TableFactor::Table { sample: Some(_), .. } | TableFactor::Derived { sample: Some(_), .. } => "TABLESAMPLE",
        TableFactor::Table { with_ordinality: true, .. } => "WITH ORDINALITY",
        TableFactor::MatchRecognize { .. } => "MATCH_RECOGNIZE",
        TableFactor::Pivot { .. } => "PIVOT",
        TableFactor::Unpivot { .. } => "UNPIVOT",
        TableFactor::JsonTable { .. } => "JSON_TABLE",
        TableFactor::OpenJsonTable { .. } => "OPENJSON",
        TableFactor::XmlTable { .. } => "XMLTABLE",
        TableFactor::SemanticView { .. } => "SEMANTIC_VIEW",
        TableFactor::TableFunction { expr: SqlExpr::Function(function), .. } => {
            let known = WindowName::ALL.map(WindowName::name).into_iter().chain([READ_CHECKPOINT]);
            let error = tidemill_core::error::unknown("table function", &function.name.to_string(), known);
            return Err(external(at(error, relation.span().start)));
        }
        TableFactor::TableFunction { .. } => "TABLE(…) around this expression",
        _ => return Ok(()),
    };
    let error = Error::request(format!("{what} is not supported yet"));
    Err(external(at(error, relation.span().start)))
}
