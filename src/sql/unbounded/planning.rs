//! How a plan that is to run as a stream is optimized.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::execution::context::SessionState;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::optimizer::OptimizerRule;
use datafusion::optimizer::single_distinct_to_groupby::SingleDistinctToGroupBy;
use tidemill_core::window::WindowKind;
use tidemill_core::{Error, Result};
use tidemill_exec::error::from_datafusion;

use crate::sql::logical::WindowAssign;

/// The state that `plan` is optimized under. Scalar subqueries become joins, whose table is their one row; and what sessions
/// are grouped by stays what the text says.
pub fn planning_state(state: &SessionState, plan: &LogicalPlan) -> Result<SessionState> {
    let (mut has_session, mut rows) = (false, Ok(()));
    let visited = plan.apply_with_subqueries(|plan| {
        has_session |= is_session(plan);
        plan.apply_expressions(|expr| {
            expr.apply(|expr| {
                if let Expr::ScalarSubquery(subquery) = expr
                    && subquery.outer_ref_columns.is_empty()
                    && subquery.subquery.max_rows().is_none_or(|rows| rows > 1)
                {
                    rows = Err(Error::request("a subquery in the place of a value may have more than one row")
                        .with_hint("as a stream it must be an aggregate without GROUP BY, or end in LIMIT 1"));
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    visited.map_err(from_datafusion)?;
    rows?;
    let mut builder = SessionStateBuilder::new_from_existing(state.clone());
    if has_session {
        let name = SingleDistinctToGroupBy::new();
        let rules = state.optimizers().iter().filter(|rule| rule.name() != name.name()).cloned();
        builder = builder.with_optimizer_rules(rules.collect());
    }
    let mut state = builder.build();
    state.config_mut().options_mut().optimizer.enable_physical_uncorrelated_scalar_subquery = false;
    Ok(state)
}

fn is_session(plan: &LogicalPlan) -> bool {
    let LogicalPlan::Extension(extension) = plan else { return false };
    let assign = extension.node.as_any().downcast_ref::<WindowAssign>();
    assign.is_some_and(|assign| matches!(assign.spec.kind, WindowKind::Session { .. }))
}
