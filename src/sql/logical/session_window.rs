//! Sessions in bounded plans: window functions that DataFusion has, in place of [`WindowAssign`].
//!
//! ```text
//! previous = LAG(time) OVER (PARTITION BY keys ORDER BY time)
//! session  = SUM(CASE WHEN time - previous > gap THEN 1 ELSE 0 END) OVER (PARTITION BY keys ORDER BY time ROWS …)
//! bounds   = MIN(time), MAX(time) + gap OVER (PARTITION BY keys, session)
//! ```
//!
//! The gap must be exceeded: rows exactly as far apart as the gap are one session (SUB-04).

use arrow::datatypes::DataType;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, Result, ScalarValue};
use datafusion::functions_aggregate::expr_fn::{max, min, sum};
use datafusion::functions_window::expr_fn::lag;
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::{
    Expr, ExprFunctionExt, LogicalPlan, LogicalPlanBuilder, WindowFrame, WindowFrameBound, WindowFrameUnits, cast, lit,
    when,
};
use tidemill_core::window::WindowKind;

use super::window_assign::{WINDOW_END, WINDOW_START, WINDOW_TIME, WindowAssign};
use crate::sql::functions::not_null::known_time;
use crate::sql::functions::session_bound::session_bound;
use crate::sql::functions::window_bound::Bound;

/// Every session window of the plan as window functions.
pub fn expand_sessions(plan: LogicalPlan) -> Result<LogicalPlan> {
    let expanded = plan.transform_up_with_subqueries(|plan| {
        let assign = match &plan {
            LogicalPlan::Extension(extension) => extension.node.as_any().downcast_ref::<WindowAssign>(),
            _ => None,
        };
        match assign.map(|assign| (assign, assign.spec.kind)) {
            Some((assign, WindowKind::Session { gap })) => expand(assign, gap).map(Transformed::yes),
            _ => Ok(Transformed::no(plan)),
        }
    })?;
    Ok(expanded.data)
}

fn expand(assign: &WindowAssign, gap: i64) -> Result<LogicalPlan> {
    let schema = assign.input.schema();
    let column = |place: usize| Expr::Column(Column::from(schema.qualified_field(place)));
    let named = |name: &str| Expr::Column(Column::new_unqualified(name));
    let keys: Vec<Expr> = assign.partition_by.iter().map(|place| column(*place)).collect();
    let inputs: Vec<Expr> = (0..schema.fields().len()).map(column).collect();
    let with = |exprs: Vec<Expr>| inputs.iter().cloned().chain(exprs).collect::<Vec<_>>();
    let time_type = schema.field(assign.time_column).data_type();

    let time = cast(known_time(column(assign.time_column), schema.field(assign.time_column).name()), DataType::Int64);
    let by_time = || vec![named(TIME).sort(true, false)];
    let plan = LogicalPlanBuilder::from(assign.input.clone()).project(with(vec![time.alias(TIME)]))?;
    // Without an offset of its own this `lag` looks at the row itself.
    let previous = lag(named(TIME), Some(1), None).partition_by(keys.clone()).order_by(by_time()).build()?;
    let plan = plan.window(vec![previous.alias(PREVIOUS)])?;

    let begins = when((named(TIME) - named(PREVIOUS)).gt(lit(gap)), lit(1_i64)).otherwise(lit(0_i64))?;
    let plan = plan.project(with(vec![named(TIME), begins.alias(BEGINS)]))?;
    let so_far = WindowFrame::new_bounds(
        WindowFrameUnits::Rows,
        WindowFrameBound::Preceding(ScalarValue::UInt64(None)),
        WindowFrameBound::CurrentRow,
    );
    let session =
        over(sum(named(BEGINS))).partition_by(keys.clone()).order_by(by_time()).window_frame(so_far).build()?;
    let plan = plan.window(vec![session.alias(SESSION)])?;

    let within: Vec<Expr> = keys.into_iter().chain([named(SESSION)]).collect();
    let first = over(min(named(TIME))).partition_by(within.clone()).build()?;
    let last = over(max(named(TIME))).partition_by(within).build()?;
    let plan = plan.window(vec![first.alias(FIRST), last.alias(LAST)])?;

    let bound = |row: &str, bound| session_bound(named(row), bound, gap, &assign.calendar_name, time_type);
    let columns = with(vec![
        bound(FIRST, Bound::Start)?.alias(WINDOW_START),
        bound(LAST, Bound::End)?.alias(WINDOW_END),
        bound(LAST, Bound::RowTime)?.alias(WINDOW_TIME),
    ]);
    plan.project(columns)?.build()
}

/// An aggregate as the window function that it is, too.
fn over(aggregate: Expr) -> Expr {
    match aggregate {
        Expr::AggregateFunction(aggregate) => Expr::from(WindowFunction::new(aggregate.func, aggregate.params.args)),
        other => other,
    }
}

const TIME: &str = "__session_time";
const PREVIOUS: &str = "__session_previous";
const BEGINS: &str = "__session_begins";
const SESSION: &str = "__session";
const FIRST: &str = "__session_first";
const LAST: &str = "__session_last";
