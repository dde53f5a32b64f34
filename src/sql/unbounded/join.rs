//! Joins with a bounded side: that side is read first and kept as a table.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::JoinType;
use datafusion::logical_expr::{Expr, Join, LogicalPlan};
use tidemill_core::graph::{NodeKind, Partitioning, StreamNode};
use tidemill_core::{Error, Result};
use tidemill_exec::operators::lookup_join::{LookupJoin, LookupJoinKind};

use super::expr::physical;
use super::relation::{Lowering, Relation};

/// Which side of the join is the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TableSide {
    Left,
    Right,
}

impl Lowering<'_> {
    pub(super) fn lower_join(&mut self, join: &Join) -> Result<Relation> {
        if join.null_equality == datafusion::common::NullEquality::NullEqualsNull && !join.on.is_empty() {
            return Err(super::relation::cannot_stream("a join in which NULL equals NULL (INTERSECT, EXCEPT)"));
        }
        let left = self.lower(&join.left)?;
        let left = self.materialized(left)?;
        let right = self.lower(&join.right)?;
        let right = self.materialized(right)?;
        let (side, kind) = table_side(join, &left, &right)?;
        let left_keys =
            self.physical_exprs(&join.on.iter().map(|(left, _)| left.clone()).collect::<Vec<_>>(), &join.left)?;
        let right_keys =
            self.physical_exprs(&join.on.iter().map(|(_, right)| right.clone()).collect::<Vec<_>>(), &join.right)?;
        let (left_width, right_width) = (left.schema.fields().len(), right.schema.fields().len());
        let (left, left_keys) = self.with_key_columns(left, left_keys)?;
        let (right, right_keys) = self.with_key_columns(right, right_keys)?;
        let (stream, table, stream_keys, table_keys) = match side {
            TableSide::Right => (left, right, left_keys, right_keys),
            TableSide::Left => (right, left, right_keys, left_keys),
        };
        let stream_width = stream.schema.fields().len();
        // Places of the logical left and right columns among those of stream and table.
        let (left_first, right_first) = match side {
            TableSide::Right => (0, stream_width),
            TableSide::Left => (stream_width, 0),
        };
        let left_places = left_first..left_first + left_width;
        let right_places = right_first..right_first + right_width;
        let condition = match &join.filter {
            None => None,
            Some(filter) => Some(self.join_condition(filter, join, left_places.clone(), right_places.clone())?),
        };
        let output: Vec<usize> = match join.join_type {
            JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => left_places.collect(),
            JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => right_places.collect(),
            _ => left_places.chain(right_places).collect(),
        };
        let mut fields = stream.schema.fields().to_vec();
        // A table column may be NULL where nothing fits.
        fields.extend(table.schema.fields().iter().map(|field| Arc::new(field.as_ref().clone().with_nullable(true))));
        let schema: SchemaRef = Arc::new(join.schema.as_arrow().clone());
        let table_everywhere = stream_keys.is_empty() || kind == LookupJoinKind::NotIn;
        let operator = LookupJoin {
            kind,
            stream_keys: stream_keys.clone(),
            table_keys: table_keys.clone(),
            condition,
            joined_schema: Arc::new(Schema::new(fields)),
            output,
            table_schema: table.schema.clone(),
            table_everywhere,
            schema: schema.clone(),
        };
        let node = self.graph.add(StreamNode::new("join", NodeKind::Operator(Arc::new(operator)), schema.clone()));
        match table_everywhere {
            true => {
                self.connect(&stream, node, 0, Partitioning::Rebalance);
                self.connect(&table, node, 1, Partitioning::Broadcast);
            }
            false => {
                self.connect(&stream, node, 0, Partitioning::Hash(stream_keys));
                self.connect(&table, node, 1, Partitioning::Hash(table_keys));
            }
        }
        self.mark(node, stream.updates);
        Ok(Relation { nodes: vec![node], schema, updates: stream.updates, bounded: stream.bounded, window: None })
    }

    /// The condition beside the keys, over the columns of stream and table.
    fn join_condition(
        &self,
        filter: &Expr,
        join: &Join,
        left: std::ops::Range<usize>,
        right: std::ops::Range<usize>,
    ) -> Result<Arc<dyn datafusion::physical_expr::PhysicalExpr>> {
        let both = join.left.schema().join(join.right.schema()).map_err(tidemill_exec::error::from_datafusion)?;
        let condition = physical(filter, &both, self.state)?;
        let places = left.chain(right).map(super::expr::Place::Real).collect();
        let rewritten = super::expr::Columns(places).rewrite(&condition)?;
        rewritten.ok_or_else(|| Error::internal("a join condition reads a window"))
    }
}

/// Which side is the table, and what the join is from the stream's point of view.
fn table_side(join: &Join, left: &Relation, right: &Relation) -> Result<(TableSide, LookupJoinKind)> {
    use LookupJoinKind::{Anti, Inner, Left as Outer, Mark, Semi};
    let candidates: &[(TableSide, LookupJoinKind)] = match join.join_type {
        JoinType::Inner => &[(TableSide::Right, Inner), (TableSide::Left, Inner)],
        JoinType::Left => &[(TableSide::Right, Outer)],
        JoinType::Right => &[(TableSide::Left, Outer)],
        JoinType::LeftSemi => &[(TableSide::Right, Semi)],
        JoinType::LeftAnti => &[(TableSide::Right, Anti)],
        JoinType::RightSemi => &[(TableSide::Left, Semi)],
        JoinType::RightAnti => &[(TableSide::Left, Anti)],
        JoinType::LeftMark => &[(TableSide::Right, Mark)],
        JoinType::RightMark => &[(TableSide::Left, Mark)],
        _ => &[],
    };
    let fits = |(side, _): &&(TableSide, LookupJoinKind)| {
        let table = if *side == TableSide::Right { right } else { left };
        table.bounded
    };
    if let Some((side, kind)) = candidates.iter().find(fits).copied() {
        return match (join.null_aware, kind) {
            (true, Anti) if join.on.len() == 1 && join.filter.is_none() => Ok((side, LookupJoinKind::NotIn)),
            (true, _) => Err(super::relation::cannot_stream("NOT IN with a subquery that reads columns around it")),
            (false, kind) => Ok((side, kind)),
        };
    }
    Err({
        let sources = |plan: &LogicalPlan| {
            plan.schema().iter().filter_map(|(qualifier, _)| qualifier.map(|q| q.to_string())).next()
        };
        let names: Vec<String> = [sources(&join.left), sources(&join.right)].into_iter().flatten().collect();
        let kind = match join.join_type {
            JoinType::LeftMark | JoinType::RightMark => "a subquery".to_owned(),
            JoinType::LeftSemi | JoinType::RightSemi => "IN or EXISTS".to_owned(),
            JoinType::LeftAnti | JoinType::RightAnti => "NOT IN or NOT EXISTS".to_owned(),
            other => format!("{other} JOIN"),
        };
        Error::request(format!("{kind} of {} has no bounded side to keep as a table", names.join(" and "))).with_hint(
            "a stream can be joined with a bounded table: INNER on either side, LEFT with the table on the right",
        )
    })
}
