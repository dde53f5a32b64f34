//! Windows that the plan has assigned: kept apart from the rows until someone needs them as columns.
//!
//! A `GROUP BY` over the bounds of a window never multiplies rows: it takes the specification, and its slices do the rest. Only
//! what reads a bound in another way makes the columns real.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::physical_expr::PhysicalExpr;
use tidemill_core::time::{Calendar, time_type};
use tidemill_core::window::{WindowKind, WindowSpec};
use tidemill_core::{Error, Result};
use tidemill_exec::operators::window_assign::{TimeColumn, WindowAssignOperator};

use super::expr::{Bound, Columns, Place, column, physical_index};
use super::relation::{Lowering, Relation};
use crate::sql::logical::WindowAssign;
use crate::sql::logical::window_assign::{WINDOW_END, WINDOW_START, WINDOW_TIME};

/// A window that has been assigned and is not a column yet.
#[derive(Clone, Debug)]
pub(super) struct PendingWindow {
    pub spec: WindowSpec,
    pub calendar: Calendar,
    /// The real column that holds the time.
    pub time_column: usize,
    /// Real columns within whose values sessions are found.
    pub partition_by: Vec<usize>,
    /// Where the logical columns are.
    pub columns: Columns,
    /// The logical columns, bounds included.
    pub logical_schema: SchemaRef,
}

impl PendingWindow {
    /// The time column as the operators want it.
    pub fn time(&self, schema: &Schema) -> Result<TimeColumn> {
        let field = schema.field(self.time_column);
        let (unit, _) = time_type(field.name(), field.data_type())?;
        Ok(TimeColumn { index: self.time_column, name: field.name().as_str().into(), unit, calendar: self.calendar })
    }
}

impl Lowering<'_> {
    pub(super) fn lower_window(&mut self, assign: &WindowAssign) -> Result<Relation> {
        let input = self.lower(&assign.input)?;
        let mut input = self.materialized(input)?;
        if input.updates {
            return Err(Error::request("a window over rows that are updated does not run as a stream")
                .with_hint("put the window below the aggregate or Top-N whose rows are updated"));
        }
        self.check_watermarks()?;
        let width = input.schema.fields().len();
        let mut columns = Columns::identity(width);
        columns.0.extend([Bound::Start, Bound::End, Bound::Time].map(Place::Bound));
        input.window = Some(PendingWindow {
            spec: assign.spec,
            calendar: Calendar::parse(&assign.calendar_name)?,
            time_column: assign.time_column,
            partition_by: assign.partition_by.clone(),
            columns,
            logical_schema: Arc::new(assign.schema.as_arrow().clone()),
        });
        Ok(input)
    }

    /// The same relation with the bounds of its windows as real columns, all logical columns in their places.
    pub(super) fn materialized(&mut self, input: Relation) -> Result<Relation> {
        let Some(window) = input.window.clone() else { return Ok(input) };
        if matches!(window.spec.kind, WindowKind::Session { .. }) {
            return Err(Error::request("the bounds of a session are known only when it ends")
                .with_hint("group by window_start and window_end, and use the bounds in the result"));
        }
        let schema = with_bounds(&input.schema, &window)?;
        let operator = WindowAssignOperator {
            time_column: window.time_column,
            spec: window.spec,
            calendar: window.calendar,
            schema: schema.clone(),
        };
        let plain = Relation { window: None, ..input };
        let width = plain.schema.fields().len();
        let assigned = self.push(&plain, "window", operator, schema.clone());
        let real = window.columns.0.iter().map(|place| match place {
            Place::Real(index) => *index,
            Place::Bound(Bound::Start) => width,
            Place::Bound(Bound::End) => width + 1,
            Place::Bound(Bound::Time) => width + 2,
        });
        let exprs = real.map(|index| column(&schema, index)).collect();
        self.project_to(assigned, exprs, window.logical_schema)
    }
}

fn with_bounds(schema: &SchemaRef, window: &PendingWindow) -> Result<SchemaRef> {
    let time = schema.field(window.time_column);
    let (unit, _) = time_type(time.name(), time.data_type())?;
    let bound = arrow::datatypes::DataType::Timestamp(unit, None);
    let mut fields: Vec<Arc<Field>> = schema.fields().to_vec();
    fields.push(Arc::new(Field::new(WINDOW_START, bound.clone(), false)));
    fields.push(Arc::new(Field::new(WINDOW_END, bound, false)));
    fields.push(Arc::new(Field::new(WINDOW_TIME, time.data_type().clone(), false)));
    Ok(Arc::new(Schema::new(fields)))
}

/// The real expressions, real schema and pending window of a projection.
type Projected = (Vec<Arc<dyn PhysicalExpr>>, SchemaRef, PendingWindow);

/// A projection of a relation whose windows are pending, if they can stay so: the bounds are passed on as they are or left
/// out. What the windows need of the rows (their time, the keys of sessions) goes along.
pub(super) fn project(
    input: &Relation,
    exprs: &[Arc<dyn PhysicalExpr>],
    schema: &SchemaRef,
) -> Result<Option<Projected>> {
    let Some(window) = &input.window else { return Ok(None) };
    let (mut real_exprs, mut fields, mut places) = (Vec::new(), Vec::new(), Vec::new());
    for (expr, field) in exprs.iter().zip(schema.fields()) {
        let place = physical_index(expr).and_then(|index| window.columns.place(index));
        if let Some(Place::Bound(bound)) = place {
            places.push(Place::Bound(bound));
            continue;
        }
        let Some(real) = window.columns.rewrite(expr)? else { return Ok(None) };
        places.push(Place::Real(real_exprs.len()));
        real_exprs.push(real);
        fields.push(field.clone());
    }
    let mut carry = |index: usize| {
        let carried = real_exprs.iter().position(|expr| physical_index(expr) == Some(index));
        carried.unwrap_or_else(|| {
            real_exprs.push(column(&input.schema, index));
            fields.push(input.schema.fields()[index].clone());
            real_exprs.len() - 1
        })
    };
    let time_column = carry(window.time_column);
    let partition_by = window.partition_by.iter().map(|index| carry(*index)).collect();
    let window = PendingWindow {
        time_column,
        partition_by,
        columns: Columns(places),
        logical_schema: schema.clone(),
        ..window.clone()
    };
    Ok(Some((real_exprs, Arc::new(Schema::new(fields)), window)))
}
