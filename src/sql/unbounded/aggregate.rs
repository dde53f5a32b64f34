//! `GROUP BY`: over the bounds of a window it is a window aggregate, else one that is updated.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::logical_expr::Expr;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::LoweredAggregateBuilder;
use tidemill_core::graph::Partitioning;
use tidemill_core::window::WindowKind;
use tidemill_core::{Error, Result};
use tidemill_exec::error::from_datafusion;
use tidemill_exec::operators::aggregate::Aggregate;
use tidemill_exec::operators::calc::Calc;
use tidemill_exec::operators::group_aggregate::GroupAggregate;
use tidemill_exec::operators::session_aggregate::SessionAggregate;
use tidemill_exec::operators::window_aggregate::{GroupColumn, WindowAggregate};

use super::expr::{Bound, Place, identity, physical_index};
use super::relation::{Lowering, Relation};
use super::window::PendingWindow;
use crate::sql::error::planning;

impl Lowering<'_> {
    pub(super) fn lower_aggregate(&mut self, plan: &datafusion::logical_expr::Aggregate) -> Result<Relation> {
        if plan.group_expr.iter().any(|expr| matches!(expr, Expr::GroupingSet(_))) {
            return Err(super::relation::cannot_stream("GROUPING SETS, ROLLUP or CUBE"));
        }
        let input = self.lower(&plan.input)?;
        let groups = self.physical_exprs(&plan.group_expr, &plan.input)?;
        let schema: SchemaRef = Arc::new(plan.schema.as_arrow().clone());
        let bounds = bounds_of(&input, &groups);
        match &input.window {
            Some(window) if determines_window(window, &bounds) => {
                let window = window.clone();
                self.window_aggregate(plan, input, groups, window, schema)
            }
            _ => {
                let input = self.materialized(input)?;
                self.group_aggregate(plan, input, groups, schema)
            }
        }
    }

    fn window_aggregate(
        &mut self,
        plan: &datafusion::logical_expr::Aggregate,
        input: Relation,
        groups: Vec<Arc<dyn PhysicalExpr>>,
        window: PendingWindow,
        schema: SchemaRef,
    ) -> Result<Relation> {
        let mut keys = Vec::new();
        let mut group_columns = Vec::with_capacity(groups.len());
        for group in &groups {
            let place = physical_index(group).and_then(|index| window.columns.place(index));
            group_columns.push(match place {
                Some(Place::Bound(Bound::Start)) => GroupColumn::WindowStart,
                Some(Place::Bound(Bound::End)) => GroupColumn::WindowEnd,
                Some(Place::Bound(Bound::Time)) => GroupColumn::WindowTime,
                _ => {
                    let key = window.columns.rewrite(group)?.ok_or_else(|| {
                        Error::request("a grouping expression mixes a window's bounds with other columns")
                            .with_hint("group by window_start and window_end as they are")
                    })?;
                    keys.push(key);
                    GroupColumn::Key(keys.len() - 1)
                }
            });
        }
        let (input, keys) = self.with_key_columns(input, keys)?;
        let aggregates = self.aggregates(plan, &input, |expr| {
            window.columns.rewrite(&expr)?.ok_or_else(|| {
                Error::request("an aggregate over a window's bounds does not run as a stream")
                    .with_hint("group by the bounds, and use them in the result")
            })
        })?;
        let time = window.time(&input.schema)?;
        let input_schema = input.schema.clone();
        let (partitioning, parallelism) = dealt_by(&keys);
        if let WindowKind::Session { gap } = window.spec.kind {
            self.check_session_keys(&window, &keys, &input)?;
            let operator =
                SessionAggregate { time, gap, keys, aggregates, group_columns, input_schema, schema: schema.clone() };
            return Ok(self.exchange(&input, partitioning, "session aggregate", operator, schema, false, parallelism));
        }
        let operator = WindowAggregate {
            time,
            spec: window.spec,
            keys,
            aggregates,
            group_columns,
            input_schema,
            schema: schema.clone(),
        };
        Ok(self.exchange(&input, partitioning, "window aggregate", operator, schema, false, parallelism))
    }

    /// Sessions are found within the partition columns of the window function; the keys of the `GROUP BY` must be the same.
    fn check_session_keys(&self, window: &PendingWindow, keys: &[usize], input: &Relation) -> Result<()> {
        let name = |index: &usize| input.schema.field(*index).name().clone();
        let (mut partition, mut grouped): (Vec<usize>, Vec<usize>) = (window.partition_by.clone(), keys.to_vec());
        partition.sort_unstable();
        grouped.sort_unstable();
        match partition == grouped {
            true => Ok(()),
            false => Err(Error::request(format!(
                "sessions are partitioned by [{}] and grouped by [{}]",
                partition.iter().map(name).collect::<Vec<_>>().join(", "),
                grouped.iter().map(name).collect::<Vec<_>>().join(", ")
            ))
            .with_hint("as a stream both lists must be the same")),
        }
    }

    fn group_aggregate(
        &mut self,
        plan: &datafusion::logical_expr::Aggregate,
        input: Relation,
        groups: Vec<Arc<dyn PhysicalExpr>>,
        schema: SchemaRef,
    ) -> Result<Relation> {
        let (input, keys) = self.with_key_columns(input, groups)?;
        let aggregates = self.aggregates(plan, &input, Ok)?;
        // Without aggregates a group never changes: it comes once, and goes only if rows are taken back.
        let updates = input.updates || !aggregates.is_empty();
        let (partitioning, parallelism) = dealt_by(&keys);
        let operator = GroupAggregate {
            keys,
            aggregates,
            input_updates: input.updates,
            ttl: self.settings.state_ttl(),
            input_schema: input.schema.clone(),
            schema: schema.clone(),
        };
        operator.check()?;
        let name = if operator.aggregates.is_empty() { "distinct" } else { "aggregate" };
        Ok(self.exchange(&input, partitioning, name, operator, schema, updates, parallelism))
    }

    /// The places of these expressions as columns; those that are not are appended to the rows.
    pub(super) fn with_key_columns(
        &mut self,
        input: Relation,
        keys: Vec<Arc<dyn PhysicalExpr>>,
    ) -> Result<(Relation, Vec<usize>)> {
        let (mut exprs, mut fields) = (identity(&input.schema), input.schema.fields().to_vec());
        let mut places = Vec::with_capacity(keys.len());
        for key in keys {
            places.push(match physical_index(&key) {
                Some(index) => index,
                None => {
                    let field = key.return_field(&input.schema).map_err(from_datafusion)?;
                    exprs.push(key);
                    fields.push(field);
                    exprs.len() - 1
                }
            });
        }
        if fields.len() == input.schema.fields().len() {
            return Ok((input, places));
        }
        let schema = Arc::new(Schema::new(fields));
        let window = input.window.clone();
        let mut relation = self.push(&input, "keys", Calc::project(exprs, schema.clone()), schema);
        relation.window = window;
        Ok((relation, places))
    }

    /// The aggregates of the plan over the real columns of `input`, their arguments bound by `bind`.
    fn aggregates(
        &self,
        plan: &datafusion::logical_expr::Aggregate,
        input: &Relation,
        bind: impl Fn(Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>>,
    ) -> Result<Vec<Aggregate>> {
        let logical = plan.input.schema();
        let names = plan.schema.fields().iter().skip(plan.group_expr.len());
        let lower = |(expr, field): (&Expr, &Arc<arrow::datatypes::Field>)| {
            let context = Default::default();
            let properties = self.state.execution_props();
            let builder = LoweredAggregateBuilder::new(expr, logical, logical.as_arrow(), properties, &context);
            let lowered = builder.with_name(field.name().clone()).build().map_err(planning)?;
            if !lowered.order_bys.is_empty() {
                return Err(super::relation::cannot_stream(&format!("ORDER BY within {}", field.name())));
            }
            let arguments = lowered.aggregate.expressions().into_iter().map(&bind).collect::<Result<Vec<_>>>()?;
            let function = lowered.aggregate.with_new_expressions(arguments, vec![]).ok_or_else(|| {
                Error::internal(format!("{} cannot be bound to the columns of its stream", field.name()))
            })?;
            let filter = lowered.filter.map(&bind).transpose()?;
            Aggregate::new(Arc::new(function), filter, &input.schema)
        };
        plan.aggr_expr.iter().zip(names).map(lower).collect()
    }
}

/// The bounds of a pending window among grouping expressions.
fn bounds_of(input: &Relation, groups: &[Arc<dyn PhysicalExpr>]) -> Vec<Bound> {
    let columns = input.columns();
    let bound = |group: &Arc<dyn PhysicalExpr>| match columns.place(physical_index(group)?)? {
        Place::Bound(bound) => Some(bound),
        Place::Real(_) => None,
    };
    groups.iter().filter_map(bound).collect()
}

/// Whether these bounds tell which window a row is in. A cumulating window shares its start with its siblings.
fn determines_window(window: &PendingWindow, bounds: &[Bound]) -> bool {
    match window.spec.kind {
        WindowKind::Tumble { .. } | WindowKind::Hop { .. } => !bounds.is_empty(),
        WindowKind::Cumulate { .. } => {
            bounds.contains(&Bound::Start) && (bounds.contains(&Bound::End) || bounds.contains(&Bound::Time))
        }
        WindowKind::Session { .. } => !bounds.is_empty(),
    }
}

/// Equal keys meet in one subtask; without keys everything does.
pub(super) fn dealt_by(keys: &[usize]) -> (Partitioning, Option<usize>) {
    match keys.is_empty() {
        true => (Partitioning::Global, Some(1)),
        false => (Partitioning::Hash(keys.to_vec()), None),
    }
}
