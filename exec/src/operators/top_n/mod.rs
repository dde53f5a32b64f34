//! Top-N: the first rows of each partition under an order, kept up to date (NSQ-03, NSQ-04). `ROW_NUMBER() <= n` in SQL; with
//! `n = 1` it is deduplication.
//!
//! Rows are kept as Arrow rows, sorted by the bytes of their sort key. After each batch the old and the new first `n` of the
//! touched partitions are compared, and what differs is emitted. Without updates in the input, rows behind the first `n` can
//! never come back and are forgotten. With a TTL a partition is forgotten that no row has entered or left for that long; rows
//! that do not make it among the first do not prolong its life.

mod changes;
mod column;

use std::collections::HashSet;
use std::hash::BuildHasherDefault;
use std::sync::Arc;

use arrow::array::UInt64Array;
use arrow::compute::SortOptions;
use arrow::datatypes::SchemaRef;
use tidemill_core::operator::{Operator, OperatorFactory};
use tidemill_core::state::StateTtl;
use tidemill_core::{Batch, Result};
use xxhash_rust::xxh3::Xxh3Default;

use crate::operators::expression::batch_of;
use crate::operators::keyed::{Declared, IdleState, KeyedUpdate, KeyedUpdates, Rows};
use changes::Changes;
use column::{Ranked, RankedColumn};

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
    /// How long a partition is kept into which no row comes.
    pub ttl: Option<StateTtl>,
    /// Columns of the input.
    pub input_schema: SchemaRef,
    /// Columns of the result: those of the input, and the rank.
    pub schema: SchemaRef,
}

impl OperatorFactory for TopN {
    fn create(&self) -> Result<Box<dyn Operator>> {
        Ok(Box::new(KeyedUpdates::new(Partitions(Arc::new(self.clone())))))
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

/// The rows of each partition.
struct Partitions(Arc<TopN>);

impl KeyedUpdate for Partitions {
    type Column = RankedColumn;

    fn declare(&self) -> Result<Declared<RankedColumn>> {
        let keys = self.0.partition_by.iter().map(|key| self.0.input_schema.fields()[*key].clone());
        let keys = (self.0.partition_by.clone(), keys.collect());
        let (input, column) = (self.0.input_schema.clone(), RankedColumn::new(&self.0)?);
        Ok(Declared { name: "rows", input, keys, column, ttl: self.0.ttl })
    }

    fn update(&mut self, states: &mut IdleState<RankedColumn>, rows: Rows<'_>) -> Result<Option<Batch>> {
        let Rows { batch, slots, now_millis } = rows;
        let plan = &self.0;
        let mut written: HashSet<usize, BuildHasherDefault<Xxh3Default>> = HashSet::default();
        written.extend(states.expire(slots, now_millis)?);
        let column = states.column()?;

        let most = if plan.input_updates { usize::MAX } else { plan.last };
        let mut touched: Vec<(usize, Vec<Ranked>)> = Vec::new();
        let mut known: HashSet<usize, BuildHasherDefault<Xxh3Default>> = HashSet::default();
        for (row, ranked) in column.ranked(batch.records().columns())?.into_iter().enumerate() {
            let slot = slots[row];
            if known.insert(slot) {
                touched.push((slot, plan.visible(column.partition(slot)).to_vec()));
            }
            let changes = match batch.kind(row)?.is_addition() {
                true => column.add(slot, ranked, most),
                false => column.take_back(slot, &ranked),
            };
            if changes {
                written.insert(slot);
            }
        }
        let mut changes = Changes::default();
        for (slot, before) in &touched {
            changes.compare(before, plan.visible(column.partition(*slot)), plan);
        }
        let changed = plan.changelog(changes, column)?;
        let written: Vec<usize> = written.into_iter().collect();
        states.written(&written, batch.num_rows(), now_millis)?;
        Ok(changed)
    }
}

impl TopN {
    /// The rows of a partition that are seen downstream.
    fn visible<'a>(&self, rows: &'a [Ranked]) -> &'a [Ranked] {
        &rows[(self.first - 1).min(rows.len())..self.last.min(rows.len())]
    }

    /// Changes as a batch, if there are any.
    fn changelog(&self, changes: Changes, column: &RankedColumn) -> Result<Option<Batch>> {
        let Changes { rows, ranks, kinds } = changes;
        if rows.is_empty() {
            return Ok(None);
        }
        let mut columns = column.columns(rows.iter())?;
        if self.emits_rank {
            columns.push(Arc::new(UInt64Array::from(ranks)));
        }
        let records = batch_of(&self.schema, columns, rows.len())?;
        Batch::changelog(records, kinds.into()).map(Some)
    }
}
