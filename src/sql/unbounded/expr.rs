//! Expressions, and where the columns that they name really are.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::Expr;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use tidemill_core::Result;
use tidemill_exec::error::from_datafusion;

use crate::sql::error::planning;

/// A logical expression bound to the places of `schema`.
pub(super) fn physical(expr: &Expr, schema: &DFSchema, state: &SessionState) -> Result<Arc<dyn PhysicalExpr>> {
    datafusion::physical_expr::create_physical_expr(expr, schema, state.execution_props(), &Default::default())
        .map_err(planning)
}

/// The place of a plain column, under an alias or not.
pub(super) fn column_index(expr: &Expr, schema: &DFSchema) -> Option<usize> {
    match expr {
        Expr::Column(column) => schema.maybe_index_of_column(column),
        Expr::Alias(alias) => column_index(&alias.expr, schema),
        _ => None,
    }
}

/// The place of a plain physical column.
pub(super) fn physical_index(expr: &Arc<dyn PhysicalExpr>) -> Option<usize> {
    expr.downcast_ref::<Column>().map(Column::index)
}

/// Every column of `schema` as it is.
pub(super) fn identity(schema: &SchemaRef) -> Vec<Arc<dyn PhysicalExpr>> {
    (0..schema.fields().len()).map(|index| column(schema, index)).collect()
}

/// One column of `schema`.
pub(super) fn column(schema: &Schema, index: usize) -> Arc<dyn PhysicalExpr> {
    Arc::new(Column::new(schema.field(index).name(), index))
}

/// Whether `exprs` are the first columns of `schema`, in order.
pub(super) fn is_identity(exprs: &[Arc<dyn PhysicalExpr>], schema: &SchemaRef) -> bool {
    let in_place = |(place, expr): (usize, &Arc<dyn PhysicalExpr>)| physical_index(expr) == Some(place);
    exprs.len() <= schema.fields().len() && exprs.iter().enumerate().all(in_place)
}

/// Where a logical column is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In this column of the rows.
    Real(usize),
    /// Nowhere yet: it is this bound of the row's window.
    Bound(Bound),
}

/// A bound of a window as a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bound {
    Start,
    End,
    Time,
}

/// Where the logical columns of a relation are.
#[derive(Clone, Debug)]
pub(super) struct Columns(pub Vec<Place>);

impl Columns {
    /// Each where it seems to be.
    pub fn identity(count: usize) -> Self {
        Self((0..count).map(Place::Real).collect())
    }

    /// The place of a logical column.
    pub fn place(&self, index: usize) -> Option<Place> {
        self.0.get(index).copied()
    }

    /// An expression over logical columns as one over real ones; `None` if it reads a bound of a window.
    pub fn rewrite(&self, expr: &Arc<dyn PhysicalExpr>) -> Result<Option<Arc<dyn PhysicalExpr>>> {
        let mut reads_bound = false;
        let rewritten = expr.clone().transform(|node| {
            let Some(column) = node.downcast_ref::<Column>() else { return Ok(Transformed::no(node)) };
            match self.place(column.index()) {
                Some(Place::Real(index)) if index == column.index() => Ok(Transformed::no(node)),
                Some(Place::Real(index)) => {
                    Ok(Transformed::yes(Arc::new(Column::new(column.name(), index)) as Arc<dyn PhysicalExpr>))
                }
                _ => {
                    reads_bound = true;
                    Ok(Transformed::no(node))
                }
            }
        });
        let rewritten = rewritten.map_err(from_datafusion)?.data;
        Ok((!reads_bound).then_some(rewritten))
    }
}
