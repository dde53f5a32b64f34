//! Cuts a plan: every node that moves rows between partitions becomes an [`ExchangeExec`].
//!
//! The plan is rewritten once, before anything runs, and then shared by all fragments and subtasks: operators keep what their
//! partitions share (the build side of a join, filters for scans, results of scalar subqueries) in the nodes themselves, and a
//! copy of a node would wait for ever for partitions that report to the original.
//!
//! What stays uncut:
//! * a recursive query and all below it, because it runs its recursive part again and again;
//! * an exchange of one partition into one, which moves nothing.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::recursive_query::RecursiveQueryExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::scalar_subquery::ScalarSubqueryExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, replace_children_if_necessary};

use crate::fragments::exchange_exec::ExchangeExec;

/// The same plan with our exchanges.
pub fn cut(plan: &Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    if plan.is::<RecursiveQueryExec>() {
        return Ok(plan.clone());
    }
    if let Some(exchange) = exchange_for(plan)? {
        return Ok(Arc::new(exchange));
    }
    let children = plan.children().into_iter().enumerate().map(|(place, child)| {
        let subquery = plan.is::<ScalarSubqueryExec>() && place > 0;
        match subquery && partitions(child) > 1 {
            // A subquery is read as one stream; were it not cut here, its node would gather its partitions on its own.
            true => cut(&(Arc::new(CoalescePartitionsExec::new(child.clone())) as _)),
            false => cut(child),
        }
    });
    let children = children.collect::<Result<Vec<_>>>()?;
    replace_children_if_necessary(plan.clone(), children)
}

/// The exchange that does what `plan` does, over its cut input, if `plan` moves rows between partitions.
fn exchange_for(plan: &Arc<dyn ExecutionPlan>) -> Result<Option<ExchangeExec>> {
    let (input, ordering, fetch) = if let Some(node) = plan.downcast_ref::<RepartitionExec>() {
        let ordering = node.preserve_order().then(|| node.input().output_ordering().cloned()).flatten();
        (node.input(), ordering, None)
    } else if let Some(node) = plan.downcast_ref::<SortPreservingMergeExec>() {
        (node.input(), Some(node.expr().clone()), node.fetch())
    } else if let Some(node) = plan.downcast_ref::<CoalescePartitionsExec>() {
        (node.input(), None, node.fetch())
    } else {
        return Ok(None);
    };
    if partitions(input) == 1 && partitions(plan) == 1 {
        return Ok(None);
    }
    let input = if ordering.is_none() { below_rebalance(input) } else { input };
    Ok(Some(ExchangeExec::new(cut(input)?, plan.properties().clone(), ordering, fetch)))
}

/// Rows that are dealt anew need not be dealt before.
fn below_rebalance(plan: &Arc<dyn ExecutionPlan>) -> &Arc<dyn ExecutionPlan> {
    match plan.downcast_ref::<RepartitionExec>() {
        Some(node) if !node.preserve_order() => below_rebalance(node.input()),
        _ => plan,
    }
}

fn partitions(plan: &Arc<dyn ExecutionPlan>) -> usize {
    plan.output_partitioning().partition_count()
}
