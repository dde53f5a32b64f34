//! `IN` and `NOT IN` of a subquery where NULL and false are not the same.
//!
//! As a condition of its own, `WHERE a IN (…)`, it does not matter that NULLs make the answer unknown, and `WHERE a NOT IN (…)` is a join
//! that knows of NULLs. Anywhere else (below `OR`, `NOT`, `IS NULL`, or over a correlated subquery) DataFusion joins as if nothing were
//! unknown. Here such a condition says what it means:
//!
//! ```text
//! CASE WHEN a IN S THEN true  WHEN S has a NULL, or a IS NULL and S is not empty THEN NULL  ELSE false END
//! ```

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Result, ScalarValue};
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::logical_expr::expr::{Exists, InSubquery};
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    Expr, ExprSchemable, Filter, LogicalPlan, LogicalPlanBuilder, Subquery, lit, not, when,
};
use datafusion::optimizer::AnalyzerRule;

/// The rule.
#[derive(Debug)]
pub struct ThreeValuedIn;

impl AnalyzerRule for ThreeValuedIn {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let rewritten = plan.transform_up_with_subqueries(|plan| match plan {
            LogicalPlan::Filter(filter) => rewrite(filter),
            other => Ok(Transformed::no(other)),
        });
        Ok(rewritten?.data)
    }

    fn name(&self) -> &str {
        "three_valued_in"
    }
}

fn rewrite(filter: Filter) -> Result<Transformed<LogicalPlan>> {
    let schema = filter.input.schema().clone();
    let mut changed = false;
    let mut conditions = Vec::new();
    for condition in split_conjunction_owned(filter.predicate.clone()) {
        let is_join = match &condition {
            Expr::InSubquery(within) => !within.negated || within.subquery.outer_ref_columns.is_empty(),
            _ => false,
        };
        if is_join {
            conditions.push(condition);
            continue;
        }
        // From above, so that what is put in the place of an IN is not looked at again.
        let condition = condition.transform_down(|expr| match expr {
            Expr::InSubquery(within) if knows_nulls(&within, &schema)? => {
                let mut replaced = Transformed::yes(three_valued(within)?);
                replaced.tnr = datafusion::common::tree_node::TreeNodeRecursion::Jump;
                Ok(replaced)
            }
            other => Ok(Transformed::no(other)),
        })?;
        changed |= condition.transformed;
        conditions.push(condition.data);
    }
    match (changed, conjunction(conditions)) {
        (true, Some(predicate)) => Ok(Transformed::yes(LogicalPlan::Filter(Filter::try_new(predicate, filter.input)?))),
        _ => Ok(Transformed::no(LogicalPlan::Filter(filter))),
    }
}

/// Whether a NULL can be on either side.
fn knows_nulls(within: &InSubquery, schema: &datafusion::common::DFSchema) -> Result<bool> {
    Ok(within.expr.nullable(schema)? || within.subquery.subquery.schema().field(0).is_nullable())
}

fn three_valued(within: InSubquery) -> Result<Expr> {
    let InSubquery { expr, subquery, negated } = within;
    let found = Expr::InSubquery(InSubquery { expr: expr.clone(), subquery: subquery.clone(), negated: false });
    let is_null = (*expr).is_null();
    let is_unknown = match subquery.outer_ref_columns.is_empty() {
        true => {
            let (rows, nulls) = (counted(&subquery, false)?, counted(&subquery, true)?);
            nulls.gt(lit(0_i64)).or(is_null.and(rows.gt(lit(0_i64))))
        }
        // What reads columns around it can be asked for rows, not for their number.
        false => exists(&subquery, true)?.or(is_null.and(exists(&subquery, false)?)),
    };
    let answer = when(found, lit(true)).when(is_unknown, lit(ScalarValue::Boolean(None))).otherwise(lit(false))?;
    Ok(if negated { not(answer) } else { answer })
}

/// The rows of a subquery, or those that are NULL.
fn rows_of(subquery: &Subquery, nulls: bool) -> Result<LogicalPlanBuilder> {
    let column = Expr::Column(subquery.subquery.schema().columns().swap_remove(0));
    let rows = LogicalPlanBuilder::from(subquery.subquery.as_ref().clone());
    if nulls { rows.filter(column.is_null()) } else { Ok(rows) }
}

/// How many there are.
fn counted(subquery: &Subquery, nulls: bool) -> Result<Expr> {
    let count = rows_of(subquery, nulls)?.aggregate(Vec::<Expr>::new(), vec![count(lit(1_i64))])?;
    Ok(Expr::ScalarSubquery(subquery.with_plan(Arc::new(count.build()?))))
}

/// Whether there is one.
fn exists(subquery: &Subquery, nulls: bool) -> Result<Expr> {
    let rows = Arc::new(rows_of(subquery, nulls)?.build()?);
    Ok(Expr::Exists(Exists { subquery: subquery.with_plan(rows), negated: false }))
}
