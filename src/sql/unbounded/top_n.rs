//! `ROW_NUMBER() OVER (PARTITION BY … ORDER BY …) <= n` and `ORDER BY … LIMIT n`: the first rows, kept up to date.

use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::WindowFunctionDefinition;
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{BinaryExpr, Expr, Filter, LogicalPlan, Operator, Projection, Sort, SortExpr, Window};
use tidemill_core::Result;
use tidemill_exec::error::from_datafusion;
use tidemill_exec::operators::calc::Calc;
use tidemill_exec::operators::top_n::TopN;

use super::aggregate::dealt_by;
use super::expr::{column, column_index};
use super::relation::{Lowering, Relation};

impl Lowering<'_> {
    /// The Top-N that `filter` makes of `window`; `None` if it is none.
    pub(super) fn lower_top_n(
        &mut self,
        filter: &Filter,
        window: &Window,
        shows_rank: bool,
    ) -> Result<Option<Relation>> {
        let [expr] = window.window_expr.as_slice() else { return Ok(None) };
        let Some((partition_by, order_by)) = row_number(expr) else { return Ok(None) };
        let rank = window.schema.fields().len() - 1;
        let (mut ranks, mut rest) = ((1, u64::MAX), Vec::new());
        for predicate in split_conjunction(&filter.predicate) {
            match rank_bounds(predicate, &|expr| column_index(expr, &window.schema) == Some(rank)) {
                Some((first, last)) => ranks = (ranks.0.max(first), ranks.1.min(last)),
                None => rest.push(predicate.clone()),
            }
        }
        if ranks.1 == u64::MAX {
            return Ok(None);
        }
        let rest_shows_rank = rest
            .iter()
            .any(|expr| expr.column_refs().iter().any(|c| window.schema.maybe_index_of_column(c) == Some(rank)));
        let emits_rank = shows_rank || rest_shows_rank;
        let input = self.lower(&window.input)?;
        let input = self.materialized(input)?;
        let partition_by = self.physical_exprs(partition_by, &window.input)?;
        let (input, mut keys) = self.with_key_columns(input, partition_by)?;
        let partitions = keys.len();
        let (input, order_by) = self.order_columns(input, order_by, &window.input)?;
        keys.truncate(partitions);
        let relation = self.top_n(input, keys, order_by, (ranks.0 as usize, ranks.1 as usize), emits_rank);
        let relation = self.without_order_columns(relation, window, emits_rank)?;
        match conjunction(rest) {
            None => Ok(Some(relation)),
            Some(rest) => {
                let predicate = self.physical_expr(&rest, &filter.input)?;
                self.filter(relation, predicate).map(Some)
            }
        }
    }

    /// The same behind a projection that only picks columns: the filter reads below it what it reads above.
    pub(super) fn lower_projected_top_n(
        &mut self,
        filter: &Filter,
        projection: &Projection,
        window: &Window,
        shows_rank: bool,
    ) -> Result<Option<Relation>> {
        let rank = window.schema.fields().len() - 1;
        let picks = |expr: &Expr| match expr {
            Expr::Column(_) => column_index(expr, &window.schema),
            _ => None,
        };
        let Some(picked) = projection.expr.iter().map(picks).collect::<Option<Vec<usize>>>() else { return Ok(None) };
        // A hidden rank can only be left out behind all others.
        let shows_rank = shows_rank || picked.last() != Some(&rank);
        let below = Filter::try_new(filter.predicate.clone(), projection.input.clone()).map_err(from_datafusion)?;
        let Some(relation) = self.lower_top_n(&below, window, shows_rank)? else { return Ok(None) };
        let width = relation.schema.fields().len();
        let exprs = picked.iter().filter(|index| **index < width).map(|index| column(&relation.schema, *index));
        let exprs: Vec<_> = exprs.collect();
        let fields: Vec<Arc<Field>> = projection.schema.fields().iter().take(exprs.len()).cloned().collect();
        self.project_to(relation, exprs, Arc::new(Schema::new(fields))).map(Some)
    }

    /// `ORDER BY … LIMIT`: the Top-N of everything.
    pub(super) fn lower_sorted_limit(&mut self, sort: &Sort, skip: usize, fetch: usize) -> Result<Relation> {
        let input = self.lower(&sort.input)?;
        let input = self.materialized(input)?;
        let schema = input.schema.clone();
        let (input, order_by) = self.order_columns(input, &sort.expr, &sort.input)?;
        let relation = self.top_n(input, vec![], order_by, (skip + 1, skip.saturating_add(fetch)), false);
        match relation.schema.fields().len() == schema.fields().len() {
            true => Ok(relation),
            false => {
                let columns = (0..schema.fields().len()).map(|index| column(&schema, index)).collect();
                Ok(self.push(&relation, "project", Calc::project(columns, schema.clone()), schema))
            }
        }
    }

    fn top_n(
        &mut self,
        input: Relation,
        partition_by: Vec<usize>,
        order_by: Vec<(usize, SortOptions)>,
        (first, last): (usize, usize),
        emits_rank: bool,
    ) -> Relation {
        let mut fields = input.schema.fields().to_vec();
        if emits_rank {
            fields.push(Arc::new(Field::new("rank", arrow::datatypes::DataType::UInt64, false)));
        }
        let schema: SchemaRef = Arc::new(Schema::new(fields));
        let (partitioning, parallelism) = dealt_by(&partition_by);
        let operator = TopN {
            partition_by,
            order_by,
            first,
            last,
            emits_rank,
            input_updates: input.updates,
            ttl: self.settings.state_ttl(),
            input_schema: input.schema.clone(),
            schema: schema.clone(),
        };
        self.exchange(&input, partitioning, "top-n", operator, schema, true, parallelism)
    }

    fn order_columns(
        &mut self,
        input: Relation,
        order_by: &[SortExpr],
        plan: &LogicalPlan,
    ) -> Result<(Relation, Vec<(usize, SortOptions)>)> {
        let exprs = order_by.iter().map(|order| self.physical_expr(&order.expr, plan)).collect::<Result<Vec<_>>>()?;
        let (input, places) = self.with_key_columns(input, exprs)?;
        let options =
            order_by.iter().map(|order| SortOptions { descending: !order.asc, nulls_first: order.nulls_first });
        Ok((input, places.into_iter().zip(options).collect()))
    }

    /// The columns of the window node alone: what was only ordered or partitioned by goes.
    fn without_order_columns(&mut self, input: Relation, window: &Window, emits_rank: bool) -> Result<Relation> {
        let width = window.input.schema().fields().len();
        let mut places: Vec<usize> = (0..width).collect();
        if emits_rank {
            places.push(input.schema.fields().len() - 1);
        }
        let logical: SchemaRef = Arc::new(window.schema.as_arrow().clone());
        let fields: Vec<Arc<Field>> = logical.fields().iter().take(places.len()).cloned().collect();
        let schema: SchemaRef = Arc::new(Schema::new(fields));
        let exprs = places.iter().map(|place| column(&input.schema, *place)).collect();
        self.project_to(input, exprs, schema)
    }
}

/// Partition and order of a plain `ROW_NUMBER()`.
fn row_number(expr: &Expr) -> Option<(&[Expr], &[SortExpr])> {
    let expr = match expr {
        Expr::Alias(alias) => alias.expr.as_ref(),
        other => other,
    };
    let Expr::WindowFunction(function) = expr else { return None };
    let WindowFunctionDefinition::WindowUDF(udf) = &function.fun else { return None };
    let params = &function.params;
    let plain = udf.name() == "row_number" && params.filter.is_none() && !params.order_by.is_empty();
    plain.then_some((params.partition_by.as_slice(), params.order_by.as_slice()))
}

/// The ranks that a comparison of the rank with a number lets through.
fn rank_bounds(predicate: &Expr, is_rank: &dyn Fn(&Expr) -> bool) -> Option<(u64, u64)> {
    if let Expr::Between(between) = predicate {
        return (is_rank(&between.expr) && !between.negated)
            .then(|| Some((number(&between.low)?, number(&between.high)?)))
            .flatten();
    }
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = predicate else { return None };
    let (op, bound) = match (is_rank(left), is_rank(right)) {
        (true, false) => (*op, number(right)?),
        (false, true) => (op.swap()?, number(left)?),
        _ => return None,
    };
    Some(match op {
        Operator::LtEq => (1, bound),
        Operator::Lt => (1, bound.saturating_sub(1)),
        Operator::Eq => (bound, bound),
        Operator::GtEq => (bound.max(1), u64::MAX),
        Operator::Gt => (bound.saturating_add(1), u64::MAX),
        _ => return None,
    })
}

fn number(expr: &Expr) -> Option<u64> {
    match expr {
        Expr::Literal(ScalarValue::UInt64(number), _) => *number,
        Expr::Literal(ScalarValue::Int64(number), _) => number.and_then(|number| u64::try_from(number).ok()),
        _ => None,
    }
}
