//! Top-N: the first rows of each partition under an order, kept up to date (NSQ-03, NSQ-04). `ROW_NUMBER() <= n` in SQL; with
//! `n = 1` it is deduplication.
//!
//! Rows are kept as Arrow rows, sorted by the bytes of their sort key. After each batch the old and the new first `n` of the
//! touched partitions are compared, and what differs is emitted. Without updates in the input, rows behind the first `n` can
//! never come back and are forgotten.

use std::sync::Arc;

use arrow::array::{ArrayRef, UInt64Array};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::row::{OwnedRow, RowConverter, SortField};
use tidemill_core::key::hash_columns;
use tidemill_core::operator::{Operator, OperatorContext, OperatorFactory, Output, Progress};
use tidemill_core::{Batch, Result, RowKind, Watermark};

use crate::operators::expression::batch_of;
use crate::operators::pending::Pending;
use crate::state::KeyIndex;
use crate::state::key_index::folded_floats;

/// What a Top-N keeps.
#[derive(Clone, Debug)]
pub struct TopN {
    /// Partition columns of the input; the exchange in front hashes the same, in the same order.
    pub partition_by: Vec<usize>,
    /// Columns and directions of the order.
    pub order_by: Vec<(usize, SortOptions)>,
    /// Ranks that leave, from 1: those in `first ..= last`.
    pub first: usize,
    /// The highest rank that leaves.
    pub last: usize,
    /// Whether the rank leaves, as the last column.
    pub emits_rank: bool,
    /// Whether the input takes rows back.
    pub input_updates: bool,
    /// Columns of the input.
    pub input_schema: SchemaRef,
    /// Columns of the result: those of the input, and the rank.
    pub schema: SchemaRef,
}

impl OperatorFactory for TopN {
    fn create(&self) -> Result<Box<dyn Operator>> {
        let data_type = |column: usize| self.input_schema.field(column).data_type().clone();
        let types: Vec<DataType> = self.partition_by.iter().map(|column| data_type(*column)).collect();
        let order =
            self.order_by.iter().map(|(column, options)| SortField::new_with_options(data_type(*column), *options));
        let all = self.input_schema.fields().iter().map(|field| SortField::new(field.data_type().clone()));
        Ok(Box::new(TopNOperator {
            plan: Arc::new(self.clone()),
            index: KeyIndex::new(&types)?,
            order: RowConverter::new(order.collect())?,
            rows: RowConverter::new(all.collect())?,
            partitions: Vec::new(),
            row_bytes: 0,
            pending: Pending::default(),
            batch_rows: usize::MAX,
        }))
    }

    fn describe(&self) -> String {
        let name = |column: usize| self.input_schema.field(column).name().as_str();
        let partition: Vec<&str> = self.partition_by.iter().map(|column| name(*column)).collect();
        let direction = |options: &SortOptions| if options.descending { " DESC" } else { "" };
        let order = self.order_by.iter().map(|(column, options)| format!("{}{}", name(*column), direction(options)));
        let order: Vec<String> = order.collect();
        format!("top {}..={} by [{}] of [{}]", self.first, self.last, order.join(", "), partition.join(", "))
    }
}

struct TopNOperator {
    plan: Arc<TopN>,
    index: KeyIndex,
    order: RowConverter,
    rows: RowConverter,
    /// By slot: rows in order.
    partitions: Vec<Vec<Ranked>>,
    /// Bytes that the kept rows occupy.
    row_bytes: usize,
    pending: Pending,
    batch_rows: usize,
}

/// A row and what it is ordered by.
#[derive(Clone)]
struct Ranked {
    order: OwnedRow,
    row: OwnedRow,
}

impl Operator for TopNOperator {
    fn open(&mut self, context: &OperatorContext) -> Result<()> {
        self.batch_rows = context.batch_rows;
        Ok(())
    }

    fn process(&mut self, _input: usize, batch: Batch, output: &mut Output) -> Result<Progress> {
        let plan = self.plan.clone();
        let records = batch.records();
        let column = |column: &usize| records.column(*column).clone();
        let keys: Vec<ArrayRef> = plan.partition_by.iter().map(column).collect();
        let hashes = match batch.hashes() {
            Some(hashes) => hashes.clone(),
            None => hash_columns(&keys, batch.num_rows())?,
        };
        let mut slots = Vec::with_capacity(batch.num_rows());
        self.index.intern(&keys, &hashes, &mut slots)?;
        self.partitions.resize_with(self.index.slots(), Vec::new);
        let order: Vec<ArrayRef> = plan.order_by.iter().map(|(index, _)| folded_floats(&column(index))).collect();
        let order = self.order.convert_columns(&order)?;
        let rows = self.rows.convert_columns(records.columns())?;

        let mut touched: Vec<(usize, Vec<Ranked>)> = Vec::new();
        let mut place_of = vec![usize::MAX; self.partitions.len()];
        for (row, slot) in slots.iter().enumerate() {
            if place_of[*slot] == usize::MAX {
                place_of[*slot] = touched.len();
                touched.push((*slot, self.visible(*slot).to_vec()));
            }
            let ranked = Ranked { order: order.row(row).owned(), row: rows.row(row).owned() };
            match batch.kind(row)?.is_addition() {
                true => self.add(*slot, ranked),
                false => self.take_back(*slot, &ranked),
            }
        }
        let mut changes = Changes::default();
        for (slot, before) in &touched {
            changes.compare(before, self.visible(*slot), &plan);
        }
        self.forget_empty(touched.iter().map(|(slot, _)| *slot));
        self.push(changes)?;
        Ok(self.pending.emit(output))
    }

    fn advance(&mut self, watermark: Watermark, output: &mut Output) -> Result<Progress> {
        self.pending.push_watermark(watermark);
        Ok(self.pending.emit(output))
    }

    fn resume(&mut self, output: &mut Output) -> Result<Progress> {
        Ok(self.pending.emit(output))
    }

    fn memory_bytes(&self) -> usize {
        let slots = self.partitions.capacity() * size_of::<Vec<Ranked>>();
        self.index.size_bytes() + slots + self.row_bytes
    }
}

impl Ranked {
    fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.order.as_ref().len() + self.row.as_ref().len()
    }
}

impl TopNOperator {
    /// The rows of a partition that are seen downstream.
    fn visible(&self, slot: usize) -> &[Ranked] {
        let rows = &self.partitions[slot];
        &rows[(self.plan.first - 1).min(rows.len())..self.plan.last.min(rows.len())]
    }

    /// Behind its equals: who came first stays first.
    fn add(&mut self, slot: usize, ranked: Ranked) {
        let rows = &mut self.partitions[slot];
        let place = rows.partition_point(|other| other.order <= ranked.order);
        if self.plan.input_updates || place < self.plan.last {
            self.row_bytes += ranked.memory_bytes();
            rows.insert(place, ranked);
            if !self.plan.input_updates && rows.len() > self.plan.last {
                let forgotten = rows.pop().map_or(0, |row| row.memory_bytes());
                self.row_bytes = self.row_bytes.saturating_sub(forgotten);
            }
        }
    }

    /// A row that is not there (its state has expired) is nothing to take back.
    fn take_back(&mut self, slot: usize, ranked: &Ranked) {
        let rows = &mut self.partitions[slot];
        let begin = rows.partition_point(|other| other.order < ranked.order);
        let equals = rows[begin..].iter().take_while(|other| other.order == ranked.order);
        if let Some(place) = equals.into_iter().position(|other| other.row == ranked.row) {
            let gone = rows.remove(begin + place);
            self.row_bytes = self.row_bytes.saturating_sub(gone.memory_bytes());
        }
    }

    fn forget_empty(&mut self, slots: impl Iterator<Item = usize>) {
        for slot in slots {
            if self.partitions[slot].is_empty() {
                self.partitions[slot] = Vec::new();
                self.index.remove(slot);
            }
        }
    }

    fn push(&mut self, changes: Changes) -> Result<()> {
        let Changes { rows, ranks, kinds } = changes;
        if rows.is_empty() {
            return Ok(());
        }
        let count = rows.len();
        let mut columns = self.rows.convert_rows(rows.iter().map(OwnedRow::row))?;
        if self.plan.emits_rank {
            columns.push(Arc::new(UInt64Array::from(ranks)));
        }
        let records = batch_of(&self.plan.schema, columns, count)?;
        self.pending.push(Batch::changelog(records, kinds.into())?, self.batch_rows);
        Ok(())
    }
}

/// What differs between two rankings.
#[derive(Default)]
struct Changes {
    rows: Vec<OwnedRow>,
    ranks: Vec<u64>,
    kinds: Vec<u8>,
}

impl Changes {
    fn push(&mut self, ranked: &Ranked, rank: usize, kind: RowKind) {
        self.rows.push(ranked.row.clone());
        self.ranks.push(rank as u64);
        self.kinds.push(kind as u8);
    }

    fn compare(&mut self, before: &[Ranked], after: &[Ranked], plan: &TopN) {
        match plan.emits_rank {
            true => self.compare_by_rank(before, after, plan.first),
            false => self.compare_as_sets(before, after),
        }
    }

    /// With the rank a row of its own: who moved is an update of that rank.
    fn compare_by_rank(&mut self, before: &[Ranked], after: &[Ranked], first: usize) {
        for place in 0..before.len().max(after.len()) {
            let rank = first + place;
            match (before.get(place), after.get(place)) {
                (Some(old), Some(new)) if old.row != new.row => {
                    self.push(old, rank, RowKind::UpdateBefore);
                    self.push(new, rank, RowKind::UpdateAfter);
                }
                (Some(old), None) => self.push(old, rank, RowKind::Delete),
                (None, Some(new)) => self.push(new, rank, RowKind::Insert),
                _ => {}
            }
        }
    }

    /// Without the rank only who entered and who left matters; who left goes first.
    fn compare_as_sets(&mut self, before: &[Ranked], after: &[Ranked]) {
        let mut stays = vec![false; after.len()];
        for old in before {
            let twin = after.iter().enumerate().position(|(place, new)| !stays[place] && new.row == old.row);
            match twin {
                Some(place) => stays[place] = true,
                None => self.push(old, 0, RowKind::Delete),
            }
        }
        for (new, _) in after.iter().zip(stays).filter(|(_, stays)| !stays) {
            self.push(new, 0, RowKind::Insert);
        }
    }
}
