//! `MIN` and `MAX` over any ordered type.
//!
//! Values are compared as order-preserving bytes. Where rows can be taken back, every value is kept with its count in order
//! (DataFusion's sliding accumulators take back first in, first out, which is wrong for a changelog); otherwise only the best.

use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, new_null_array};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Fields};
use arrow::row::{RowConverter, SortField};
use tidemill_core::Result;
use tidemill_core::state::resize_cells;

use super::accumulate::{Changes, LiveAccumulator, VALUE_OVERHEAD, column};
use super::counted_values::{counted_values_field, decode_counted_values, encode_counted_values};
use crate::operators::aggregate::Arguments;

/// The least of each group under an order of bytes; for `MAX` the order is reversed.
pub struct MinMax {
    data_type: DataType,
    converter: RowConverter,
    values: Values,
    value_bytes: usize,
}

enum Values {
    /// The best of each slot.
    Best(Vec<Option<Box<[u8]>>>),
    /// All of each slot with their counts.
    All(Vec<BTreeMap<Box<[u8]>, i64>>),
}

impl MinMax {
    /// `MAX` if `descending`; keeps what is needed to take rows back if `retracts`.
    pub fn new(data_type: &DataType, descending: bool, retracts: bool) -> Result<Self> {
        let options = SortOptions { descending, nulls_first: false };
        let field = SortField::new_with_options(data_type.clone(), options);
        let values = if retracts { Values::All(Vec::new()) } else { Values::Best(Vec::new()) };
        Ok(Self { data_type: data_type.clone(), converter: RowConverter::new(vec![field])?, values, value_bytes: 0 })
    }
}

impl MinMax {
    /// The best value of each of these slots.
    fn best(&self, slots: &[usize]) -> Result<ArrayRef> {
        let best = |slot: usize| match &self.values {
            Values::Best(best) => best[slot].as_deref(),
            Values::All(all) => all[slot].first_key_value().map(|(value, _)| value.as_ref()),
        };
        let null = self.converter.convert_columns(&[new_null_array(&self.data_type, 1)])?;
        let parser = self.converter.parser();
        let rows = slots.iter().map(|slot| best(*slot).map_or_else(|| null.row(0), |value| parser.parse(value)));
        let mut columns = self.converter.convert_rows(rows)?;
        debug_assert!(columns.len() == 1 && columns[0].len() == slots.len());
        Ok(columns.remove(0))
    }
}

impl LiveAccumulator for MinMax {
    fn fields(&self) -> Fields {
        match &self.values {
            Values::Best(_) => [column("best", &self.data_type)].into(),
            Values::All(_) => [counted_values_field(vec![self.data_type.clone()])].into(),
        }
    }

    fn encode(&self, slots: &[usize]) -> Result<Vec<ArrayRef>> {
        Ok(vec![match &self.values {
            Values::Best(_) => self.best(slots)?,
            Values::All(all) => {
                let of_slot = |slot: &usize| all[*slot].iter().map(|(value, count)| (value.as_ref(), *count)).collect();
                encode_counted_values(
                    &self.converter,
                    std::slice::from_ref(&self.data_type),
                    slots.iter().map(of_slot),
                )?
            }
        }])
    }

    fn decode(&mut self, slots: &[usize], columns: &[ArrayRef]) -> Result<()> {
        slots.iter().for_each(|slot| self.clear(*slot));
        let bytes = &mut self.value_bytes;
        match &mut self.values {
            Values::Best(best) => {
                let encoded = self.converter.convert_columns(&columns[..1])?;
                for (row, slot) in slots.iter().enumerate().filter(|(row, _)| columns[0].is_valid(*row)) {
                    *bytes += encoded.row(row).as_ref().len();
                    best[*slot] = Some(encoded.row(row).as_ref().into());
                }
                Ok(())
            }
            Values::All(all) => decode_counted_values(&self.converter, &columns[0], |row, value, count| {
                *bytes += value.len() + VALUE_OVERHEAD;
                all[slots[row]].insert(value.into(), count);
            }),
        }
    }

    fn resize(&mut self, slots: usize) {
        match &mut self.values {
            Values::Best(best) => resize_cells(best, slots, || None),
            Values::All(all) => resize_cells(all, slots, BTreeMap::new),
        }
    }

    fn update(&mut self, changes: &Changes<'_>, arguments: &Arguments) -> Result<()> {
        let encoded = self.converter.convert_columns(&arguments.values[..1])?;
        for (row, slot) in changes.rows(arguments) {
            let value = encoded.row(row);
            let value = value.as_ref();
            match &mut self.values {
                Values::Best(best) => match &mut best[slot] {
                    Some(known) if known.as_ref() <= value => {}
                    better => {
                        let worse = better.replace(value.into()).map_or(0, |worse| worse.len());
                        self.value_bytes = self.value_bytes + value.len() - worse;
                    }
                },
                Values::All(all) => {
                    let count = all[slot].entry(value.into()).or_insert(0);
                    let before = *count;
                    *count += if changes.adds(row) { 1 } else { -1 };
                    let after = *count;
                    if after == 0 {
                        all[slot].remove(value);
                    }
                    let bytes = value.len() + VALUE_OVERHEAD;
                    match (before == 0, after == 0) {
                        (true, false) => self.value_bytes += bytes,
                        (false, true) => self.value_bytes = self.value_bytes.saturating_sub(bytes),
                        _ => {}
                    }
                }
            }
        }
        Ok(())
    }

    fn evaluate(&mut self, slots: &[usize]) -> Result<ArrayRef> {
        self.best(slots)
    }

    fn clear(&mut self, slot: usize) {
        let bytes = match &mut self.values {
            Values::Best(best) => best[slot].take().map_or(0, |value| value.len()),
            Values::All(all) => std::mem::take(&mut all[slot]).keys().map(|value| value.len() + VALUE_OVERHEAD).sum(),
        };
        self.value_bytes = self.value_bytes.saturating_sub(bytes);
    }

    fn memory_bytes(&self) -> usize {
        let slots = match &self.values {
            Values::Best(best) => best.capacity() * size_of::<Option<Box<[u8]>>>(),
            Values::All(all) => all.capacity() * size_of::<BTreeMap<Box<[u8]>, i64>>(),
        };
        slots + self.value_bytes
    }
}
