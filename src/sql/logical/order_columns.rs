//! `SELECT a FROM t ORDER BY b`: what a result is ordered by and does not show.

use datafusion::common::{Column, Result};
use datafusion::logical_expr::{Expr, Limit, LogicalPlan, LogicalPlanBuilder, Sort};

/// The plan with a column behind those it shows for each expression that it is ordered by, if one of them is not shown; the order is
/// then by those columns.
pub fn with_order_columns(plan: LogicalPlan) -> Result<LogicalPlan> {
    let Some(sort) = sort_of(&plan) else { return Ok(plan) };
    let shown = |expr: &Expr| matches!(expr, Expr::Column(column) if plan.schema().has_column(column));
    if sort.expr.iter().all(|key| shown(&key.expr)) {
        return Ok(plan);
    }
    let keys: Vec<_> = sort.expr.iter().enumerate().map(|(place, key)| (name(place), key.clone())).collect();
    let plan = exposed(&plan, &keys.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>())?;
    let order = keys.into_iter().map(|(name, key)| column(&name).sort(key.asc, key.nulls_first));
    LogicalPlanBuilder::from(plan).sort(order.collect::<Vec<_>>())?.build()
}

fn name(place: usize) -> String {
    format!("__order_{place}")
}

fn column(name: &str) -> Expr {
    Expr::Column(Column::new_unqualified(name))
}

/// The order of a plan's result.
fn sort_of(plan: &LogicalPlan) -> Option<&Sort> {
    match plan {
        LogicalPlan::Sort(sort) => Some(sort),
        LogicalPlan::Limit(limit) => sort_of(&limit.input),
        LogicalPlan::Projection(projection) => sort_of(&projection.input),
        _ => None,
    }
}

/// The plan with the keys of its order as columns of these names.
fn exposed(plan: &LogicalPlan, names: &[String]) -> Result<LogicalPlan> {
    match plan {
        LogicalPlan::Limit(limit) => {
            let input = exposed(&limit.input, names)?.into();
            Ok(LogicalPlan::Limit(Limit { skip: limit.skip.clone(), fetch: limit.fetch.clone(), input }))
        }
        LogicalPlan::Projection(projection) => {
            let hidden = names.iter().map(|name| column(name));
            let exprs: Vec<Expr> = projection.expr.iter().cloned().chain(hidden).collect();
            LogicalPlanBuilder::from(exposed(&projection.input, names)?).project(exprs)?.build()
        }
        LogicalPlan::Sort(sort) => {
            let keys = sort.expr.iter().zip(names).map(|(key, name)| key.expr.clone().alias(name));
            let all = plan.schema().columns().into_iter().map(Expr::Column).chain(keys);
            LogicalPlanBuilder::from(plan.clone()).project(all.collect::<Vec<_>>())?.build()
        }
        other => Ok(other.clone()),
    }
}
