//! Group windows: `GROUP BY TUMBLE(ts, INTERVAL '1' HOUR)` becomes an aggregate over [`WindowAssign`].
//!
//! ```text
//! 1. in the tree:   GROUP BY TUMBLE(ts, i), k   ->  GROUP BY TUMBLE_START(ts, i), TUMBLE_END(ts, i), TUMBLE_ROWTIME(ts, i), k
//! 2. DataFusion plans that: the three are functions, and the same calls in SELECT and HAVING are columns of the aggregate
//! 3. in the plan:   Aggregate [tumble_start(ts, i), …, k]
//!               ->  Projection [window_start AS "tumble_start(ts, i)", …, k]
//!                     Aggregate [window_start, window_end, window_time, k]
//!                       WindowAssign
//! ```
//!
//! So the auxiliary functions need no rules of their own: which one belongs to which window is a matter of equal expressions.

use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, DataFusionError, Result};
use datafusion::logical_expr::{Aggregate, Expr, Extension, LogicalPlan, LogicalPlanBuilder};
use datafusion::sql::sqlparser::ast::{
    Expr as SqlExpr, Function, GroupByExpr, Ident, ObjectName, ObjectNamePart, Query, Select, VisitorMut,
};
use tidemill_core::Error;

use super::window_assign::{WINDOW_END, WINDOW_START, WINDOW_TIME, WindowAssign};
use crate::sql::functions::window_bound::{Bound, WindowBound};
use crate::sql::parser::walk_mut;
use crate::sql::planner::window::{WindowCall, WindowName, column_place};

/// Step 1: splits the window functions in every `GROUP BY` of `query` into their three bounds.
pub fn split_group_windows(query: &mut Query) {
    walk_mut(query, &mut Splitter);
}

struct Splitter;

impl VisitorMut for Splitter {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        if let GroupByExpr::Expressions(exprs, _) = &mut select.group_by {
            *exprs = std::mem::take(exprs).into_iter().flat_map(split).collect();
        }
        ControlFlow::Continue(())
    }
}

fn split(expr: SqlExpr) -> Vec<SqlExpr> {
    match expr {
        SqlExpr::Function(function) => match window_name(&function.name) {
            Some((window, ident)) => [Bound::Start, Bound::End, Bound::RowTime]
                .map(|bound| {
                    let name = Ident { value: format!("{}_{}", window.name(), bound.suffix()), ..ident.clone() };
                    let name = ObjectName(vec![ObjectNamePart::Identifier(name)]);
                    SqlExpr::Function(Function { name, ..function.clone() })
                })
                .into(),
            None => vec![SqlExpr::Function(function)],
        },
        SqlExpr::GroupingSets(sets) => vec![SqlExpr::GroupingSets(sets.into_iter().map(split_all).collect())],
        SqlExpr::Rollup(sets) => vec![SqlExpr::Rollup(sets.into_iter().map(split_all).collect())],
        SqlExpr::Cube(sets) => vec![SqlExpr::Cube(sets.into_iter().map(split_all).collect())],
        other => vec![other],
    }
}

fn split_all(exprs: Vec<SqlExpr>) -> Vec<SqlExpr> {
    exprs.into_iter().flat_map(split).collect()
}

fn window_name(name: &ObjectName) -> Option<(WindowName, Ident)> {
    let [name] = name.0.as_slice() else { return None };
    let ident = name.as_ident()?;
    Some((WindowName::find(&ident.value)?, ident.clone()))
}

/// Step 3: every aggregate over a group window becomes one over [`WindowAssign`].
pub fn assign_group_windows(plan: LogicalPlan, zone: &str) -> Result<LogicalPlan> {
    let plan = plan.transform_up_with_subqueries(|plan| match plan {
        LogicalPlan::Aggregate(aggregate) => match bounds_of(&aggregate)?.is_empty() {
            true => Ok(Transformed::no(LogicalPlan::Aggregate(aggregate))),
            false => rewrite(aggregate, zone).map(Transformed::yes),
        },
        other => Ok(Transformed::no(other)),
    })?;
    refuse_leftovers(&plan.data)?;
    Ok(plan.data)
}

/// The bounds of windows among the group keys.
fn bounds_of(aggregate: &Aggregate) -> Result<Vec<(WindowBound, Vec<Expr>)>> {
    let mut bounds = Vec::new();
    for expr in &aggregate.group_expr {
        expr.apply(|expr| {
            bounds.extend(bound(expr));
            Ok(TreeNodeRecursion::Continue)
        })?;
    }
    Ok(bounds)
}

fn bound(expr: &Expr) -> Option<(WindowBound, Vec<Expr>)> {
    let Expr::ScalarFunction(call) = expr else { return None };
    let function = call.func.inner().as_ref() as &dyn std::any::Any;
    Some((function.downcast_ref::<WindowBound>()?.clone(), call.args.clone()))
}

fn rewrite(aggregate: Aggregate, zone: &str) -> Result<LogicalPlan> {
    let bounds = bounds_of(&aggregate)?;
    let Some((first, args)) = bounds.first() else { return Ok(LogicalPlan::Aggregate(aggregate)) };
    if bounds.iter().any(|(other, other_args)| other.window() != first.window() || other_args != args) {
        return Err(request("GROUP BY has two different windows", "one query groups by one window; nest the other"));
    }
    let call = WindowCall::of_group(first.window(), args)?;
    let Keyed { plan: input, places: partition_by, computed } = match first.window() {
        WindowName::Session => with_columns(aggregate.input.clone(), &other_keys(&aggregate))?,
        _ => Keyed { plan: Arc::unwrap_or_clone(aggregate.input.clone()), places: Vec::new(), computed: Vec::new() },
    };
    let time_column = column_place(&call.time, input.schema(), first.window().name())?;
    let spec = call.spec(input.schema().field(time_column))?;
    let assign = WindowAssign::try_new(input, spec, zone, time_column, partition_by)?;
    let assign = LogicalPlan::Extension(Extension { node: Arc::new(assign) });

    let group = aggregate.group_expr.iter().map(|expr| to_columns(expr.clone(), &computed));
    let names = aggregate.schema.iter().map(|(qualifier, field)| (qualifier.cloned(), field.name().clone()));
    let names: Vec<_> = names.collect();
    let inner = Aggregate::try_new(Arc::new(assign), group.collect::<Result<_>>()?, aggregate.aggr_expr.clone())?;
    // The parents know the columns by the names that the calls gave them.
    let columns = inner.schema.iter().zip(names).map(|((qualifier, field), (old_qualifier, old_name))| {
        let column = Column::from((qualifier, field));
        match qualifier == old_qualifier.as_ref() && *field.name() == old_name {
            true => Expr::Column(column),
            false => Expr::Column(column).alias_qualified(old_qualifier, old_name),
        }
    });
    let columns: Vec<Expr> = columns.collect();
    LogicalPlanBuilder::from(LogicalPlan::Aggregate(inner)).project(columns)?.build()
}

/// A bound of the window is a column once windows are assigned, and so is a computed key of a session.
fn to_columns(expr: Expr, computed: &[(Expr, Column)]) -> Result<Expr> {
    let rewritten = expr.transform(|expr| {
        let column = match bound(&expr) {
            Some((bound, _)) => Some(Column::new_unqualified(match bound.bound() {
                Bound::Start => WINDOW_START,
                Bound::End => WINDOW_END,
                Bound::RowTime => WINDOW_TIME,
            })),
            None => computed.iter().find(|(key, _)| *key == expr).map(|(_, column)| column.clone()),
        };
        Ok(column.map_or_else(|| Transformed::no(expr), |column| Transformed::yes(Expr::Column(column))))
    })?;
    Ok(rewritten.data)
}

/// What is grouped by beside the window.
fn other_keys(aggregate: &Aggregate) -> Vec<Expr> {
    let exprs = match aggregate.group_expr.as_slice() {
        [Expr::GroupingSet(set)] => set.distinct_expr().into_iter().cloned().collect(),
        exprs => exprs.to_vec(),
    };
    exprs.into_iter().filter(|expr| bound(expr).is_none()).collect()
}

/// A plan whose columns hold some keys.
struct Keyed {
    plan: LogicalPlan,
    /// Where the keys are.
    places: Vec<usize>,
    /// The keys that were no columns before, and the columns that they are now.
    computed: Vec<(Expr, Column)>,
}

/// The plan with each key as a column of it: sessions are found within the values of columns.
fn with_columns(plan: Arc<LogicalPlan>, keys: &[Expr]) -> Result<Keyed> {
    let schema: &DFSchema = plan.schema();
    let mut exprs: Vec<Expr> = schema.columns().into_iter().map(Expr::Column).collect();
    let (mut places, mut computed) = (Vec::new(), Vec::new());
    for key in keys {
        match key {
            Expr::Column(column) => places.push(schema.index_of_column(column)?),
            other => {
                let name = format!("session_key_{}", computed.len());
                places.push(exprs.len());
                exprs.push(other.clone().alias(&name));
                computed.push((other.clone(), Column::new_unqualified(name)));
            }
        }
    }
    let plan = Arc::unwrap_or_clone(plan);
    let plan = if computed.is_empty() { plan } else { LogicalPlanBuilder::from(plan).project(exprs)?.build()? };
    Ok(Keyed { plan, places, computed })
}

/// A bound that no `GROUP BY` accounts for has no meaning.
fn refuse_leftovers(plan: &LogicalPlan) -> Result<()> {
    let mut found = None;
    plan.apply_with_subqueries(|plan| {
        plan.apply_expressions(|expr| {
            expr.apply(|expr| {
                found = found.take().or_else(|| bound(expr));
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    match found {
        None => Ok(()),
        Some((bound, _)) => {
            let (function, window) = (bound.to_string(), bound.window().name());
            let hint = format!("the query must be grouped by {window} with the same arguments");
            Err(request(&format!("{function} without its window"), &hint))
        }
    }
}

fn request(message: &str, hint: &str) -> DataFusionError {
    DataFusionError::External(Box::new(Error::request(message.to_owned()).with_hint(hint.to_owned())))
}
