//! Any aggregate function of DataFusion, one accumulator a group: slower than ours, but all of them.
//!
//! Its accumulators give their state away when they are asked. So to ask one, its state is taken, and merged into two fresh
//! accumulators: one lives on, the other answers.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, FieldRef, Fields, Int64Type};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::Accumulator;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use tidemill_core::state::resize_cells;
use tidemill_core::{Error, Result};

use super::accumulate::{Changes, LiveAccumulator, column};
use crate::error::from_datafusion;
use crate::operators::aggregate::{Aggregate, Arguments};

/// Functions whose accumulators take back any row exactly. Deviations and correlations are not among them: what their rounding
/// leaves can be a NaN.
const TAKES_BACK_ANY: &[&str] = &["avg", "sum", "count"];

/// One boxed accumulator a group.
pub struct Fallback {
    function: Arc<AggregateFunctionExpr>,
    /// In cells, because an accumulator that is asked for its state has to be made anew.
    groups: Vec<Option<RefCell<Box<dyn Accumulator>>>>,
    state_fields: Vec<FieldRef>,
    /// Rows in each group whose arguments are not NULL. When the last one is taken back the accumulator begins anew: what is
    /// left in it could only be rounding.
    counted: Vec<i64>,
    /// Bytes that the accumulators occupy.
    group_bytes: usize,
}

impl Fallback {
    /// The accumulators of `aggregate`; an error if rows are taken back and it cannot.
    pub fn new(aggregate: &Aggregate, retracts: bool) -> Result<Self> {
        let function = aggregate.function.clone();
        if retracts {
            let known = TAKES_BACK_ANY.contains(&function.fun().name()) && !function.is_distinct();
            let able = known && function.create_accumulator().map_err(from_datafusion)?.supports_retract_batch();
            if !able {
                return Err(Error::request(format!(
                    "{} cannot take back rows, and its input is updated",
                    function.name()
                ))
                .with_hint("aggregate the rows before they are updated, or run the query as a batch"));
            }
        }
        let state_fields = function.state_fields().map_err(from_datafusion)?;
        Ok(Self { function, groups: Vec::new(), state_fields, counted: Vec::new(), group_bytes: 0 })
    }

    /// Puts an accumulator, or none, into a slot.
    fn put(&mut self, slot: usize, group: Option<Box<dyn Accumulator>>) {
        self.group_bytes += group.as_ref().map_or(0, |group| group.size());
        let old = std::mem::replace(&mut self.groups[slot], group.map(RefCell::new));
        self.group_bytes = self.group_bytes.saturating_sub(old.map_or(0, |old| old.borrow().size()));
    }

    fn group(&mut self, slot: usize) -> Result<&mut Box<dyn Accumulator>> {
        let group = &mut self.groups[slot];
        match group {
            Some(_) => {}
            None => *group = Some(RefCell::new(self.function.create_accumulator().map_err(from_datafusion)?)),
        }
        group.as_mut().map(RefCell::get_mut).ok_or_else(|| Error::internal("a group without accumulator"))
    }

    /// An accumulator that holds what this state says: a row of the columns.
    fn revived(&self, state: &[ArrayRef]) -> Result<Box<dyn Accumulator>> {
        let mut fresh = self.function.create_accumulator().map_err(from_datafusion)?;
        fresh.merge_batch(state).map_err(from_datafusion)?;
        Ok(fresh)
    }

    /// The state of a group, which goes on as it was.
    fn state(&self, slot: usize) -> Result<Vec<ScalarValue>> {
        let Some(group) = &self.groups[slot] else {
            let mut fresh = self.function.create_accumulator().map_err(from_datafusion)?;
            return fresh.state().map_err(from_datafusion);
        };
        let mut group = group.borrow_mut();
        let state = group.state().map_err(from_datafusion)?;
        *group = self.revived(&arrays(&state)?)?;
        Ok(state)
    }
}

fn arrays(state: &[ScalarValue]) -> Result<Vec<ArrayRef>> {
    state.iter().map(|value| value.to_array().map_err(from_datafusion)).collect()
}

impl LiveAccumulator for Fallback {
    fn fields(&self) -> Fields {
        let state = self.state_fields.iter().map(|field| column(field.name(), field.data_type()));
        state.chain([column("rows", &DataType::Int64)]).collect()
    }

    fn encode(&self, slots: &[usize]) -> Result<Vec<ArrayRef>> {
        let mut values = vec![Vec::with_capacity(slots.len()); self.state_fields.len()];
        for slot in slots {
            self.state(*slot)?.into_iter().zip(&mut values).for_each(|(value, values)| values.push(value));
        }
        let column = |(values, field): (Vec<ScalarValue>, &FieldRef)| match values.is_empty() {
            true => Ok(arrow::array::new_empty_array(field.data_type())),
            false => ScalarValue::iter_to_array(values).map_err(from_datafusion),
        };
        let mut columns = values.into_iter().zip(&self.state_fields).map(column).collect::<Result<Vec<_>>>()?;
        columns.push(Arc::new(slots.iter().map(|slot| Some(self.counted[*slot])).collect::<Int64Array>()));
        Ok(columns)
    }

    fn decode(&mut self, slots: &[usize], columns: &[ArrayRef]) -> Result<()> {
        let (counted, state) = columns.split_last().ok_or_else(|| Error::corrupt("an aggregate without columns"))?;
        for (row, slot) in slots.iter().enumerate() {
            let state: Vec<ArrayRef> = state.iter().map(|column| column.slice(row, 1)).collect();
            let group = self.revived(&state)?;
            self.put(*slot, Some(group));
            self.counted[*slot] = counted.as_primitive::<Int64Type>().value(row);
        }
        Ok(())
    }

    fn resize(&mut self, slots: usize) {
        resize_cells(&mut self.groups, slots, || None);
        resize_cells(&mut self.counted, slots, || 0);
    }

    fn update(&mut self, changes: &Changes<'_>, arguments: &Arguments) -> Result<()> {
        // NULL is the function's business; only the filter is ours.
        let mut rows_of: BTreeMap<(usize, bool), Vec<u32>> = BTreeMap::new();
        for (row, slot) in changes.slots.iter().enumerate() {
            let passes = arguments.filter.as_ref().is_none_or(|filter| filter.value(row));
            if passes {
                // Additions first: nothing is taken back before it was given.
                rows_of.entry((*slot, !changes.adds(row))).or_default().push(row as u32);
            }
        }
        for ((slot, takes_back), rows) in rows_of {
            let adds = !takes_back;
            let rows = UInt32Array::from(rows);
            let values =
                arguments.values.iter().map(|values| Ok(take(values, &rows, None)?)).collect::<Result<Vec<_>>>()?;
            let counted =
                (0..rows.len()).filter(|row| values.iter().all(|values| !values.is_null(*row))).count() as i64;
            self.counted[slot] += if adds { counted } else { -counted };
            if !adds && self.counted[slot] == 0 {
                self.put(slot, None);
                continue;
            }
            let before = self.groups[slot].as_ref().map_or(0, |group| group.borrow().size());
            let group = self.group(slot)?;
            let done = if adds { group.update_batch(&values) } else { group.retract_batch(&values) };
            done.map_err(from_datafusion)?;
            let after = group.size();
            self.group_bytes = (self.group_bytes + after).saturating_sub(before);
        }
        Ok(())
    }

    fn evaluate(&mut self, slots: &[usize]) -> Result<ArrayRef> {
        let mut results = Vec::with_capacity(slots.len());
        for slot in slots {
            let state = arrays(&self.group(*slot)?.state().map_err(from_datafusion)?)?;
            let (living, mut answering) = (self.revived(&state)?, self.revived(&state)?);
            self.put(*slot, Some(living));
            results.push(answering.evaluate().map_err(from_datafusion)?);
        }
        if results.is_empty() {
            return Ok(arrow::array::new_empty_array(self.function.field().data_type()));
        }
        ScalarValue::iter_to_array(results).map_err(from_datafusion)
    }

    fn clear(&mut self, slot: usize) {
        self.put(slot, None);
        self.counted[slot] = 0;
    }

    fn memory_bytes(&self) -> usize {
        let slots = size_of::<Option<RefCell<Box<dyn Accumulator>>>>() + size_of::<i64>();
        self.groups.capacity() * slots + self.group_bytes
    }
}
