//! The rows of each partition in their order, as a column of state.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, ListArray, RecordBatch, StructArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, SchemaRef};
use arrow::row::{OwnedRow, RowConverter, SortField};
use tidemill_core::state::{StateColumn, resize_cells};
use tidemill_core::{Error, Result};

use super::TopN;
use crate::state::key_index::folded_floats;

/// A row and what it is ordered by.
#[derive(Clone)]
pub struct Ranked {
    /// Bytes whose order is that of the rows.
    pub order: OwnedRow,
    /// The row.
    pub row: OwnedRow,
}

impl Ranked {
    fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.order.as_ref().len() + self.row.as_ref().len()
    }
}

/// Rows by partition. A partition without rows is vacant.
pub struct RankedColumn {
    order_by: Vec<usize>,
    order: RowConverter,
    rows: RowConverter,
    schema: SchemaRef,
    fields: Fields,
    partitions: Vec<Vec<Ranked>>,
    row_bytes: usize,
}

impl RankedColumn {
    /// No partitions yet.
    pub fn new(plan: &TopN) -> Result<Self> {
        let schema = plan.input_schema.clone();
        let data_type = |column: usize| schema.field(column).data_type().clone();
        let order = plan.order_by.iter();
        let order = order.map(|(column, options)| SortField::new_with_options(data_type(*column), *options));
        let order = RowConverter::new(order.collect())?;
        let rows = schema.fields().iter().map(|field| SortField::new(field.data_type().clone()));
        let rows = RowConverter::new(rows.collect())?;
        let list = DataType::List(item(&schema));
        let fields = Fields::from(vec![Field::new("rows", list, false)]);
        let order_by = plan.order_by.iter().map(|(column, _)| *column).collect();
        Ok(Self { order_by, order, rows, schema, fields, partitions: Vec::new(), row_bytes: 0 })
    }

    /// The rows of a batch, each with what it is ordered by.
    pub fn ranked(&self, columns: &[ArrayRef]) -> Result<Vec<Ranked>> {
        let order: Vec<ArrayRef> = self.order_by.iter().map(|column| folded_floats(&columns[*column])).collect();
        let order = self.order.convert_columns(&order)?;
        let rows = self.rows.convert_columns(columns)?;
        let both = order.iter().zip(rows.iter());
        Ok(both.map(|(order, row)| Ranked { order: order.owned(), row: row.owned() }).collect())
    }

    /// The rows of a partition, in order.
    pub fn partition(&self, slot: usize) -> &[Ranked] {
        &self.partitions[slot]
    }

    /// Puts a row behind its equals: who came first stays first. Of more than `most` rows the last is forgotten. Whether the row
    /// is kept.
    pub fn add(&mut self, slot: usize, ranked: Ranked, most: usize) -> bool {
        let rows = &mut self.partitions[slot];
        let place = rows.partition_point(|other| other.order <= ranked.order);
        if place >= most {
            return false;
        }
        self.row_bytes += ranked.memory_bytes();
        rows.insert(place, ranked);
        if rows.len() > most {
            let forgotten = rows.pop().map_or(0, |row| row.memory_bytes());
            self.row_bytes = self.row_bytes.saturating_sub(forgotten);
        }
        true
    }

    /// A row that is not there (its state has expired) is nothing to take back. Whether it was there.
    pub fn take_back(&mut self, slot: usize, ranked: &Ranked) -> bool {
        let rows = &mut self.partitions[slot];
        let begin = rows.partition_point(|other| other.order < ranked.order);
        let equals = rows[begin..].iter().take_while(|other| other.order == ranked.order);
        let Some(place) = equals.into_iter().position(|other| other.row == ranked.row) else { return false };
        let gone = rows.remove(begin + place);
        self.row_bytes = self.row_bytes.saturating_sub(gone.memory_bytes());
        true
    }

    /// Rows as columns.
    pub fn columns<'a>(&self, rows: impl Iterator<Item = &'a OwnedRow>) -> Result<Vec<ArrayRef>> {
        Ok(self.rows.convert_rows(rows.map(OwnedRow::row))?)
    }
}

fn item(schema: &SchemaRef) -> FieldRef {
    Arc::new(Field::new("item", DataType::Struct(schema.fields().clone()), false))
}

impl StateColumn for RankedColumn {
    fn fields(&self) -> &Fields {
        &self.fields
    }

    fn resize(&mut self, slots: usize) {
        resize_cells(&mut self.partitions, slots, Vec::new);
    }

    fn clear(&mut self, slot: usize) {
        let gone: usize = std::mem::take(&mut self.partitions[slot]).iter().map(Ranked::memory_bytes).sum();
        self.row_bytes = self.row_bytes.saturating_sub(gone);
    }

    fn is_vacant(&self, slot: usize) -> bool {
        self.partitions[slot].is_empty()
    }

    fn encode(&self, slots: &[usize]) -> Result<Vec<ArrayRef>> {
        let offsets = OffsetBuffer::from_lengths(slots.iter().map(|slot| self.partitions[*slot].len()));
        let columns = self.columns(slots.iter().flat_map(|slot| &self.partitions[*slot]).map(|ranked| &ranked.row))?;
        // With the names and promises of the input: a row may have become nullable on its way through its bytes.
        let rows = StructArray::from(RecordBatch::try_new(self.schema.clone(), columns)?);
        Ok(vec![Arc::new(ListArray::try_new(item(&self.schema), offsets, Arc::new(rows), None)?)])
    }

    fn decode(&mut self, slots: &[usize], columns: &[ArrayRef]) -> Result<()> {
        let wrong = || Error::corrupt("ranked rows that are no lists of rows");
        let lists: &ListArray = columns.first().and_then(|lists| lists.as_list_opt()).ok_or_else(wrong)?;
        let rows = lists.values().as_struct_opt().ok_or_else(wrong)?;
        let ranked = self.ranked(rows.columns())?;
        for (slot, ends) in slots.iter().zip(lists.value_offsets().windows(2)) {
            self.clear(*slot);
            let mut rows = ranked[ends[0] as usize..ends[1] as usize].to_vec();
            // They may have been saved under another order.
            rows.sort_by(|left, right| left.order.cmp(&right.order));
            self.row_bytes += rows.iter().map(Ranked::memory_bytes).sum::<usize>();
            self.partitions[*slot] = rows;
        }
        Ok(())
    }

    fn memory_bytes(&self) -> usize {
        self.partitions.capacity() * size_of::<Vec<Ranked>>() + self.row_bytes
    }
}
