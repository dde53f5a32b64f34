//! Aggregate functions as DataFusion plans them, and where their accumulators come from.

use arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use arrow::datatypes::{DataType, Field, FieldRef, SchemaRef};
use datafusion::logical_expr::{Accumulator, GroupsAccumulator};
use datafusion::physical_expr::GroupsAccumulatorAdapter;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use std::sync::Arc;
use tidemill_core::Result;
use tidemill_core::state::{EVOLUTION_COMPLETE, evolving};

use crate::error::from_datafusion;
use crate::operators::expression::{Expr, evaluate_all, evaluate_predicate};

/// One aggregate of a `SELECT`: a function of its arguments over the rows that pass its `FILTER`.
#[derive(Clone, Debug)]
pub struct Aggregate {
    /// The function, bound to its arguments.
    pub function: Arc<AggregateFunctionExpr>,
    /// `FILTER (WHERE …)`.
    pub filter: Option<Expr>,
    /// Types of the arguments.
    pub argument_types: Vec<DataType>,
}

/// The arguments of an aggregate for the rows of a batch.
#[derive(Clone, Debug)]
pub struct Arguments {
    /// One array an argument.
    pub values: Vec<ArrayRef>,
    /// Rows that count; `None` for all.
    pub filter: Option<BooleanArray>,
}

impl Aggregate {
    /// An aggregate over rows of `schema`.
    pub fn new(function: Arc<AggregateFunctionExpr>, filter: Option<Expr>, schema: &SchemaRef) -> Result<Self> {
        let types = function.expressions().iter().map(|argument| argument.data_type(schema)).collect::<Result<_, _>>();
        Ok(Self { function, filter, argument_types: types.map_err(from_datafusion)? })
    }

    /// The arguments for the rows of `records`.
    pub fn arguments(&self, records: &RecordBatch) -> Result<Arguments> {
        let values = evaluate_all(&self.function.expressions(), records)?;
        let filter = self.filter.as_ref().map(|filter| evaluate_predicate(filter, records)).transpose()?;
        Ok(Arguments { values, filter })
    }

    /// Accumulators for many groups. They give their state away when asked for it: right for a window that closes, wrong for
    /// state that lives on.
    pub fn groups(&self) -> Result<Box<dyn GroupsAccumulator>> {
        if self.function.groups_accumulator_supported() {
            return self.function.create_groups_accumulator().map_err(from_datafusion);
        }
        let function = self.function.clone();
        Ok(Box::new(GroupsAccumulatorAdapter::new(move || function.create_accumulator())))
    }

    /// An accumulator of one group that holds what this state says: a row of its columns.
    pub fn revived(&self, state: &[ArrayRef]) -> Result<Box<dyn Accumulator>> {
        let mut fresh = self.function.create_accumulator().map_err(from_datafusion)?;
        fresh.merge_batch(state).map_err(from_datafusion)?;
        Ok(fresh)
    }

    /// The column in which its accumulators encode their state.
    pub fn state_field(&self) -> Result<FieldRef> {
        let parts = self.function.state_fields().map_err(from_datafusion)?;
        let parts = parts.iter().map(|part| Field::new(part.name(), part.data_type().clone(), true)).collect();
        Ok(self.complete(DataType::Struct(parts)))
    }

    /// The column of what its accumulators keep: what counts all rows does not appear later.
    pub fn complete(&self, kept: DataType) -> FieldRef {
        evolving(&Field::new(self.describe(), kept, true), EVOLUTION_COMPLETE)
    }

    /// How a plan shows it.
    pub fn describe(&self) -> String {
        match &self.filter {
            Some(filter) => format!("{} FILTER {filter}", self.function.name()),
            None => self.function.name().to_owned(),
        }
    }
}
