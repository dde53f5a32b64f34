//! One node of the plan at a time.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::SchemaRef;
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::{
    Expr, FetchType, Filter, Limit, LogicalPlan, Projection, SkipType, Sort, Union, Values,
};
use datafusion::physical_expr::PhysicalExpr;
use tidemill_connectors::CollectionSource;
use tidemill_core::graph::{EdgeOptions, NodeIndex, NodeKind, Partitioning, SourceNode, StreamGraph, StreamNode};
use tidemill_core::operator::OperatorFactory;
use tidemill_core::{Error, Result, Settings};
use tidemill_exec::error::from_datafusion;
use tidemill_exec::operators::calc::Calc;
use tidemill_exec::operators::expression::batch_of;
use tidemill_exec::operators::limit::Limit as LimitOperator;

use super::Lowered;
use super::expr::{self, Columns};
use super::window::PendingWindow;
use crate::sql::logical::WindowAssign;

/// Rows between two operators.
#[derive(Clone, Debug)]
pub(super) struct Relation {
    /// Who emits them. Several are a union.
    pub nodes: Vec<NodeIndex>,
    /// Columns as they really flow.
    pub schema: SchemaRef,
    /// Whether rows are ever updated.
    pub updates: bool,
    /// Whether they end.
    pub bounded: bool,
    /// Windows that the plan has assigned and nobody has needed as columns yet.
    pub window: Option<PendingWindow>,
}

/// The graph while it grows.
pub(super) struct Lowering<'a> {
    pub graph: StreamGraph,
    pub state: &'a SessionState,
    pub settings: &'a Settings,
    updating_nodes: BTreeMap<NodeIndex, bool>,
}

impl<'a> Lowering<'a> {
    pub fn new(state: &'a SessionState, settings: &'a Settings) -> Self {
        Self { graph: StreamGraph::new(), state, settings, updating_nodes: BTreeMap::new() }
    }

    /// Lowers the whole plan. An order at its top is that of the result as a table.
    pub fn finish(mut self, plan: &LogicalPlan) -> Result<Lowered> {
        let (relation, order) = self.lower_top(plan)?;
        let relation = self.materialized(relation)?;
        let root = match relation.nodes.as_slice() {
            [root] => *root,
            _ => {
                let columns = expr::identity(&relation.schema);
                let calc = Calc::project(columns, relation.schema.clone());
                self.push(&relation, "union", calc, relation.schema.clone()).nodes[0]
            }
        };
        Ok(Lowered {
            graph: self.graph,
            root,
            schema: relation.schema,
            updates: relation.updates,
            order,
            updating_nodes: self.updating_nodes,
        })
    }

    fn lower_top(&mut self, plan: &LogicalPlan) -> Result<(Relation, Vec<(usize, SortOptions)>)> {
        match plan {
            LogicalPlan::Sort(sort) => {
                let order = self.order_of(sort)?;
                let relation = match sort.fetch {
                    Some(fetch) => self.lower_sorted_limit(sort, 0, fetch)?,
                    None => self.lower(&sort.input)?,
                };
                Ok((relation, order))
            }
            LogicalPlan::Limit(limit) => {
                let order = match limit.input.as_ref() {
                    LogicalPlan::Sort(sort) => self.order_of(sort)?,
                    _ => Vec::new(),
                };
                Ok((self.lower(plan)?, order))
            }
            // A projection that only hides columns keeps the order of those that stay.
            LogicalPlan::Projection(projection) => {
                let sorted = matches!(projection.input.as_ref(), LogicalPlan::Sort(_) | LogicalPlan::Limit(_));
                let (input, order) = match sorted {
                    true => self.lower_top(&projection.input)?,
                    false => (self.lower(&projection.input)?, Vec::new()),
                };
                let order = order.into_iter().map_while(|(column, options)| {
                    let shown = |expr: &Expr| expr::column_index(expr, projection.input.schema()) == Some(column);
                    projection.expr.iter().position(shown).map(|place| (place, options))
                });
                let order = order.collect();
                Ok((self.project(input, projection)?, order))
            }
            other => Ok((self.lower(other)?, Vec::new())),
        }
    }

    pub fn lower(&mut self, plan: &LogicalPlan) -> Result<Relation> {
        match plan {
            LogicalPlan::TableScan(scan) => self.lower_scan(scan),
            LogicalPlan::SubqueryAlias(alias) => self.lower(&alias.input),
            LogicalPlan::Projection(projection) => self.lower_projection(projection),
            LogicalPlan::Filter(filter) => self.lower_filter(filter, true),
            LogicalPlan::Aggregate(aggregate) => self.lower_aggregate(aggregate),
            LogicalPlan::Union(union) => self.lower_union(union),
            LogicalPlan::Join(join) => self.lower_join(join),
            LogicalPlan::Limit(limit) => self.lower_limit(limit),
            LogicalPlan::Sort(sort) => match sort.fetch {
                Some(fetch) => self.lower_sorted_limit(sort, 0, fetch),
                // An order below the top of a plan says nothing about its result.
                None => self.lower(&sort.input),
            },
            LogicalPlan::EmptyRelation(empty) => {
                let rows = usize::from(empty.produce_one_row);
                let schema = Arc::new(plan.schema().as_arrow().clone());
                let nulls = schema.fields().iter().map(|field| arrow::array::new_null_array(field.data_type(), rows));
                let records = batch_of(&schema, nulls.collect(), rows)?;
                self.collection(schema, records)
            }
            LogicalPlan::Values(values) => self.lower_values(values),
            LogicalPlan::Window(_) => Err(Error::request("OVER windows do not run as a stream yet")
                .with_hint("ROW_NUMBER() with a filter on it (Top-N) does; or SET 'execution.runtime-mode' = 'batch'")),
            LogicalPlan::Extension(extension) => match extension.node.as_any().downcast_ref::<WindowAssign>() {
                Some(assign) => self.lower_window(assign),
                None => Err(cannot_stream(extension.node.name())),
            },
            other => Err(cannot_stream(&other.display().to_string())),
        }
    }

    fn lower_projection(&mut self, projection: &Projection) -> Result<Relation> {
        // Whoever does not show the rank of a Top-N spares everyone the updates of those who only moved.
        let input = match projection.input.as_ref() {
            LogicalPlan::Filter(filter) => {
                let width = filter.input.schema().fields().len();
                let shows_rank = projection.expr.iter().any(|expr| {
                    expr.column_refs()
                        .iter()
                        .any(|column| filter.input.schema().maybe_index_of_column(column) == Some(width - 1))
                });
                self.lower_filter(filter, shows_rank)?
            }
            other => self.lower(other)?,
        };
        self.project(input, projection)
    }

    fn project(&mut self, input: Relation, projection: &Projection) -> Result<Relation> {
        let schema = Arc::new(projection.schema.as_arrow().clone());
        let exprs = self.physical_exprs(&projection.expr, &projection.input)?;
        self.project_to(input, exprs, schema)
    }

    /// Projects to physical expressions over the logical columns of `input`.
    pub fn project_to(
        &mut self,
        input: Relation,
        exprs: Vec<Arc<dyn PhysicalExpr>>,
        schema: SchemaRef,
    ) -> Result<Relation> {
        let input = match super::window::project(&input, &exprs, &schema)? {
            Some((exprs, real_schema, window)) => {
                let keeps_rows = expr::is_identity(&exprs, &input.schema) && real_schema == input.schema;
                if keeps_rows {
                    return Ok(Relation { window: Some(window), ..input });
                }
                let calc = Calc::project(exprs, real_schema.clone());
                let mut relation = self.push(&input, "project", calc, real_schema);
                relation.window = Some(window);
                return Ok(relation);
            }
            None => self.materialized(input)?,
        };
        if expr::is_identity(&exprs, &input.schema)
            && input.schema.fields().len() == exprs.len()
            && input.schema == schema
        {
            return Ok(input);
        }
        Ok(self.push(&input, "project", Calc::project(exprs, schema.clone()), schema))
    }

    /// Filters; a filter on the rank of a Top-N becomes the Top-N.
    fn lower_filter(&mut self, filter: &Filter, shows_rank: bool) -> Result<Relation> {
        if let LogicalPlan::Window(window) = filter.input.as_ref()
            && let Some(relation) = self.lower_top_n(filter, window, shows_rank)?
        {
            return Ok(relation);
        }
        if let LogicalPlan::Projection(projection) = filter.input.as_ref()
            && let LogicalPlan::Window(window) = projection.input.as_ref()
            && let Some(relation) = self.lower_projected_top_n(filter, projection, window, shows_rank)?
        {
            return Ok(relation);
        }
        let input = self.lower(&filter.input)?;
        let predicate = self.physical_expr(&filter.predicate, &filter.input)?;
        self.filter(input, predicate)
    }

    /// Keeps the rows for which a physical expression over the logical columns of `input` is true.
    pub fn filter(&mut self, input: Relation, predicate: Arc<dyn PhysicalExpr>) -> Result<Relation> {
        let (input, predicate) = match &input.window {
            None => (input, predicate),
            Some(window) => match window.columns.rewrite(&predicate)? {
                Some(predicate) => (input, predicate),
                None => (self.materialized(input)?, predicate),
            },
        };
        let (schema, window) = (input.schema.clone(), input.window.clone());
        let mut relation = self.push(&input, "filter", Calc::filter(predicate, schema.clone()), schema);
        relation.window = window;
        Ok(relation)
    }

    fn lower_union(&mut self, union: &Union) -> Result<Relation> {
        let schema: SchemaRef = Arc::new(union.schema.as_arrow().clone());
        let mut all = Relation { nodes: vec![], schema: schema.clone(), updates: false, bounded: true, window: None };
        for input in &union.inputs {
            let relation = self.lower(input)?;
            let relation = self.materialized(relation)?;
            // Names and nullability may differ; rows of one relation have one schema.
            let relation = match relation.schema == schema {
                true => relation,
                false => {
                    let columns = expr::identity(&relation.schema);
                    self.push(&relation, "union", Calc::project(columns, schema.clone()), schema.clone())
                }
            };
            all.updates |= relation.updates;
            all.bounded &= relation.bounded;
            all.nodes.extend(relation.nodes);
        }
        Ok(all)
    }

    fn lower_limit(&mut self, limit: &Limit) -> Result<Relation> {
        let (SkipType::Literal(skip), FetchType::Literal(fetch)) =
            (limit.get_skip_type().map_err(from_datafusion)?, limit.get_fetch_type().map_err(from_datafusion)?)
        else {
            return Err(Error::request("LIMIT is not a number").with_hint("write the number of rows"));
        };
        let fetch = fetch.unwrap_or(usize::MAX);
        if let LogicalPlan::Sort(sort) = limit.input.as_ref() {
            return self.lower_sorted_limit(sort, skip, fetch);
        }
        let input = self.lower(&limit.input)?;
        let input = self.materialized(input)?;
        if input.updates {
            return Err(Error::request("LIMIT over rows that are updated has no meaning without an order")
                .with_hint("add ORDER BY before LIMIT"));
        }
        let schema = input.schema.clone();
        let operator = LimitOperator { skip, fetch };
        Ok(self.exchange(&input, Partitioning::Global, "limit", operator, schema, false, Some(1)))
    }

    fn lower_values(&mut self, values: &Values) -> Result<Relation> {
        let schema: SchemaRef = Arc::new(values.schema.as_arrow().clone());
        let empty = datafusion::common::DFSchema::empty();
        let one_row = batch_of(&Arc::new(arrow::datatypes::Schema::empty()), vec![], 1)?;
        let mut columns = Vec::with_capacity(schema.fields().len());
        for column in 0..schema.fields().len() {
            let mut cells = Vec::with_capacity(values.values.len());
            for row in &values.values {
                let cell = self.state.create_physical_expr(row[column].clone(), &empty).map_err(from_datafusion)?;
                cells.push(tidemill_exec::operators::expression::evaluate(&cell, &one_row)?);
            }
            let cells: Vec<&dyn arrow::array::Array> = cells.iter().map(AsRef::as_ref).collect();
            columns.push(arrow::compute::concat(&cells)?);
        }
        let records = batch_of(&schema, columns, values.values.len())?;
        self.collection(schema, records)
    }

    fn collection(&mut self, schema: SchemaRef, records: arrow::array::RecordBatch) -> Result<Relation> {
        let source = Arc::new(CollectionSource::new(schema.clone(), vec![records])?);
        let source = SourceNode { source, projection: None, derive: None, watermarks: None };
        Ok(self.source("values", source, schema))
    }

    /// A source.
    pub fn source(&mut self, name: &str, source: SourceNode, schema: SchemaRef) -> Relation {
        let bounded = source.source.boundedness() == tidemill_core::source::Boundedness::Bounded;
        let node = self.graph.add(StreamNode::new(name, NodeKind::Source(source), schema.clone()));
        self.updating_nodes.insert(node, false);
        Relation { nodes: vec![node], schema, updates: false, bounded, window: None }
    }

    /// An operator behind `input`, in the same task where that is possible.
    pub fn push(
        &mut self,
        input: &Relation,
        name: &str,
        operator: impl OperatorFactory + 'static,
        schema: SchemaRef,
    ) -> Relation {
        // Forward edges need equal parallelism: what reads a source that runs less wide runs as it does.
        let parallelism = input.nodes.iter().map(|node| self.parallelism(*node)).max().flatten();
        self.exchange(input, Partitioning::Forward, name, operator, schema, input.updates, parallelism)
    }

    fn parallelism(&self, node: NodeIndex) -> Option<usize> {
        let node = self.graph.node(node);
        let limit = match &node.kind {
            NodeKind::Source(source) => source.source.parallelism_max(),
            _ => None,
        };
        let limit = limit.map(|limit| limit.min(self.settings.parallelism()));
        node.parallelism.or(limit)
    }

    /// An operator behind an exchange.
    #[expect(clippy::too_many_arguments, reason = "an edge and a node have this many properties")]
    pub fn exchange(
        &mut self,
        input: &Relation,
        partitioning: Partitioning,
        name: &str,
        operator: impl OperatorFactory + 'static,
        schema: SchemaRef,
        updates: bool,
        parallelism: Option<usize>,
    ) -> Relation {
        let mut node = StreamNode::new(name, NodeKind::Operator(Arc::new(operator)), schema.clone());
        node.parallelism = parallelism;
        let node = self.graph.add(node);
        self.connect(input, node, 0, partitioning);
        self.updating_nodes.insert(node, updates);
        Relation { nodes: vec![node], schema, updates, bounded: input.bounded, window: None }
    }

    /// Notes whether the rows that leave `node` are ever updated.
    pub fn mark(&mut self, node: NodeIndex, updates: bool) {
        self.updating_nodes.insert(node, updates);
    }

    /// Connects all of `input` to a port; members of a union that run less wide than their consumer are dealt out.
    pub fn connect(&mut self, input: &Relation, node: NodeIndex, port: usize, partitioning: Partitioning) {
        for source in &input.nodes {
            let equal = self.parallelism(*source) == self.parallelism(node);
            let partitioning = match &partitioning {
                Partitioning::Forward if !equal => Partitioning::Rebalance,
                other => other.clone(),
            };
            self.graph.connect(*source, node, port, partitioning, EdgeOptions::default());
        }
    }

    /// A logical expression over the columns of `input`, bound to their places.
    pub fn physical_expr(&self, expr: &Expr, input: &LogicalPlan) -> Result<Arc<dyn PhysicalExpr>> {
        expr::physical(expr, input.schema(), self.state)
    }

    pub fn physical_exprs(&self, exprs: &[Expr], input: &LogicalPlan) -> Result<Vec<Arc<dyn PhysicalExpr>>> {
        exprs.iter().map(|expr| self.physical_expr(expr, input)).collect()
    }

    fn order_of(&self, sort: &Sort) -> Result<Vec<(usize, SortOptions)>> {
        let column = |expr: &datafusion::logical_expr::SortExpr| {
            let options = SortOptions { descending: !expr.asc, nulls_first: expr.nulls_first };
            expr::column_index(&expr.expr, sort.input.schema()).map(|column| (column, options))
        };
        // What is ordered by an expression is projected below the sort when its rows are limited; else the table keeps the
        // order of the columns in front of it.
        Ok(sort.expr.iter().map_while(column).collect())
    }
}

impl Relation {
    /// Where each logical column is.
    pub fn columns(&self) -> Columns {
        match &self.window {
            Some(window) => window.columns.clone(),
            None => Columns::identity(self.schema.fields().len()),
        }
    }
}

/// The error for a node that only runs as a batch.
pub(super) fn cannot_stream(what: &str) -> Error {
    Error::request(format!("this part of the query does not run as a stream: {what}"))
        .with_hint("SET 'execution.runtime-mode' = 'batch' runs it over bounded sources")
}
