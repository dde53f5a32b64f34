//! A window table function as a node of the logical plan: its input with the window of each row as three further columns.
//!
//! ```text
//! columns of the input …, window_start, window_end, window_time
//! ```
//!
//! The bounds are wall-clock times of the calendar in which windows align. `window_time`, the last millisecond of the window
//! as an instant, has the type of the time column and is a time attribute itself, so that windows can follow windows.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, TimeUnit};
use datafusion::common::{Column, DFSchema, DFSchemaRef, DataFusionError, Result, TableReference};
use datafusion::logical_expr::{Expr, LogicalPlan, UserDefinedLogicalNodeCore};
use tidemill_core::window::{WindowKind, WindowSpec};

use crate::sql::catalog::type_name;

/// First column behind the input's: where the window begins.
pub const WINDOW_START: &str = "window_start";
/// Where the window ends, exclusive.
pub const WINDOW_END: &str = "window_end";
/// The last millisecond of the window: the row's new event time.
pub const WINDOW_TIME: &str = "window_time";

/// Assigns windows to rows.
#[derive(Clone, Debug)]
pub struct WindowAssign {
    /// The rows.
    pub input: LogicalPlan,
    /// Which windows, in the unit of the time column.
    pub spec: WindowSpec,
    /// The zone in which windows align; `UTC` for `TIMESTAMP`.
    pub calendar_name: String,
    /// The time column's place in the input.
    pub time_column: usize,
    /// The places of the columns within whose values sessions are found; empty for other windows.
    pub partition_by: Vec<usize>,
    /// The input's columns and the three of the window.
    pub schema: DFSchemaRef,
}

impl WindowAssign {
    /// Assigns the windows of `spec` to the rows of `input`. `zone` is the session's; a time without a zone ignores it.
    pub fn try_new(
        input: LogicalPlan,
        spec: WindowSpec,
        zone: &str,
        time_column: usize,
        partition_by: Vec<usize>,
    ) -> Result<Self> {
        let time = input.schema().field(time_column);
        let (unit, own_zone) = match time.data_type() {
            DataType::Timestamp(unit, own_zone) => (*unit, own_zone.clone()),
            other => return Err(not_a_time(time.name(), other)),
        };
        let calendar_name = if own_zone.is_some() { zone.to_owned() } else { "UTC".to_owned() };
        let schema = Arc::new(output_schema(input.schema(), unit, time.data_type())?);
        Ok(Self { input, spec, calendar_name, time_column, partition_by, schema })
    }

    /// Columns of the input.
    pub fn input_width(&self) -> usize {
        self.schema.fields().len() - 3
    }

    /// The unit of the time column.
    pub fn unit(&self) -> Result<TimeUnit> {
        let time = self.input.schema().field(self.time_column);
        match time.data_type() {
            DataType::Timestamp(unit, _) => Ok(*unit),
            other => Err(not_a_time(time.name(), other)),
        }
    }

    fn column(&self, place: usize) -> Expr {
        Expr::Column(Column::from(self.input.schema().qualified_field(place)))
    }
}

/// The error for a column that windows cannot be made over.
pub fn not_a_time(name: &str, data_type: &DataType) -> DataFusionError {
    let message = format!("column '{name}' is {}, not a time", type_name(data_type));
    let hint = "a time attribute is a TIMESTAMP(p) or TIMESTAMP_LTZ(p) column";
    DataFusionError::External(Box::new(tidemill_core::Error::request(message).with_hint(hint)))
}

fn output_schema(input: &DFSchema, unit: TimeUnit, time_type: &DataType) -> Result<DFSchema> {
    for name in [WINDOW_START, WINDOW_END, WINDOW_TIME] {
        if input.has_column_with_unqualified_name(name) {
            let error = tidemill_core::Error::request(format!("the input of the window has a column '{name}' already"))
                .with_hint("select it under another name first");
            return Err(DataFusionError::External(Box::new(error)));
        }
    }
    let bound = DataType::Timestamp(unit, None);
    let added = [(WINDOW_START, bound.clone()), (WINDOW_END, bound), (WINDOW_TIME, time_type.clone())];
    let mut fields: Vec<(Option<TableReference>, Arc<Field>)> =
        input.iter().map(|(qualifier, field)| (qualifier.cloned(), field.clone())).collect();
    fields.extend(added.map(|(name, data_type)| (None, Arc::new(Field::new(name, data_type, false)))));
    DFSchema::new_with_metadata(fields, input.metadata().clone())
}

impl UserDefinedLogicalNodeCore for WindowAssign {
    fn name(&self) -> &str {
        "WindowAssign"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        std::iter::once(&self.time_column).chain(&self.partition_by).map(|place| self.column(*place)).collect()
    }

    /// A predicate on input columns may be judged before windows are assigned, unless it could take rows out of a session.
    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        let stays = |place: &usize| match self.spec.kind {
            WindowKind::Session { .. } => !self.partition_by.contains(place),
            _ => *place >= self.input_width(),
        };
        let kept = (0..self.schema.fields().len()).filter(stays);
        kept.map(|place| self.schema.field(place).name().clone()).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "WindowAssign: {} of {}", self.spec, self.column(self.time_column))?;
        if !self.partition_by.is_empty() {
            let keys: Vec<String> = self.partition_by.iter().map(|place| self.column(*place).to_string()).collect();
            write!(f, " by [{}]", keys.join(", "))?;
        }
        if self.calendar_name != "UTC" {
            write!(f, " in {}", self.calendar_name)?;
        }
        Ok(())
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Self> {
        let (Some(input), true) = (inputs.pop(), inputs.is_empty()) else {
            return Err(DataFusionError::Internal("WindowAssign has one input".into()));
        };
        // The optimizer may have pruned or moved the input's columns: their places are found again.
        let places = exprs.iter().map(|expr| match expr {
            Expr::Column(column) => input.schema().index_of_column(column),
            other => Err(DataFusionError::Internal(format!("WindowAssign over {other}, not a column"))),
        });
        let mut places = places.collect::<Result<Vec<usize>>>()?.into_iter();
        let time_column = places.next().ok_or_else(|| DataFusionError::Internal("WindowAssign without time".into()))?;
        Self::try_new(input, self.spec, &self.calendar_name, time_column, places.collect())
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let width = self.input_width();
        let mut needed: Vec<usize> = output_columns.iter().copied().filter(|place| *place < width).collect();
        needed.push(self.time_column);
        needed.extend(&self.partition_by);
        needed.sort_unstable();
        needed.dedup();
        Some(vec![needed])
    }
}

/// All that tells two nodes apart; the schema follows from it.
impl WindowAssign {
    fn identity(&self) -> (&LogicalPlan, &WindowSpec, &str, usize, &[usize]) {
        (&self.input, &self.spec, &self.calendar_name, self.time_column, &self.partition_by)
    }
}

impl PartialEq for WindowAssign {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for WindowAssign {}

impl Hash for WindowAssign {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}

impl PartialOrd for WindowAssign {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        let key = |node: &Self| (node.spec.to_string(), node.time_column, node.partition_by.clone());
        match self.input.partial_cmp(&other.input)? {
            Ordering::Equal => key(self).partial_cmp(&key(other)),
            different => Some(different),
        }
    }
}
