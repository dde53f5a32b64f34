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
use tidemill_core::clock::Clock;
use tidemill_core::operator::{Operator, OperatorContext, OperatorFactory, Output, Progress};
use tidemill_core::state::{RestoredState, Snapshot, SnapshotScope, StateTtl};
use tidemill_core::{Batch, Error, Result, Watermark};
use xxhash_rust::xxh3::Xxh3Default;

use crate::operators::expression::batch_of;
use crate::operators::idle::IdleState;
use crate::operators::pending::Pending;
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
        Ok(Box::new(TopNOperator {
            plan: Arc::new(self.clone()),
            partitions: None,
            clock: None,
            slots: Vec::new(),
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
    /// From `open` on: the partitions.
    partitions: Option<IdleState<RankedColumn>>,
    /// From `open` on.
    clock: Option<Arc<dyn Clock>>,
    /// Slots of this batch.
    slots: Vec<usize>,
    pending: Pending,
    batch_rows: usize,
}

impl Operator for TopNOperator {
    fn open(&mut self, context: &OperatorContext) -> Result<()> {
        self.batch_rows = context.batch_rows;
        let keys = self.plan.partition_by.iter().map(|key| self.plan.input_schema.fields()[*key].clone());
        let column = RankedColumn::new(&self.plan)?;
        self.partitions = Some(IdleState::new(context, &keys.collect(), "rows", column, self.plan.ttl)?);
        self.clock = Some(context.clock.clone());
        Ok(())
    }

    fn process(&mut self, _input: usize, batch: Batch, output: &mut Output) -> Result<Progress> {
        let mut partitions = self.partitions.take().ok_or_else(not_open)?;
        let batch = partitions.take_in(batch, &self.plan.partition_by, &mut self.slots)?;
        self.update(&mut partitions, &batch)?;
        self.partitions = Some(partitions);
        self.resume(output)
    }

    fn advance(&mut self, watermark: Watermark, output: &mut Output) -> Result<Progress> {
        self.partitions.as_mut().ok_or_else(not_open)?.backlog.advance(watermark);
        self.resume(output)
    }

    fn wake(&mut self, _token: u64, output: &mut Output) -> Result<Progress> {
        self.partitions.as_mut().ok_or_else(not_open)?.wake(&self.plan.partition_by)?;
        self.resume(output)
    }

    fn flush(&mut self, output: &mut Output) -> Result<Progress> {
        self.partitions.as_mut().ok_or_else(not_open)?.fall_due(&self.plan.partition_by)?;
        self.resume(output)
    }

    fn end_of_input(&mut self, _input: usize, output: &mut Output) -> Result<Progress> {
        self.flush(output)
    }

    fn resume(&mut self, output: &mut Output) -> Result<Progress> {
        while self.pending.emit(output) == Progress::Done {
            let mut partitions = self.partitions.take().ok_or_else(not_open)?;
            let due = partitions.next_due(&self.plan.partition_by, self.batch_rows, &mut self.slots)?;
            if let Some(batch) = &due {
                self.update(&mut partitions, batch)?;
            }
            let watermark = partitions.backlog.watermark();
            self.partitions = Some(partitions);
            match watermark {
                Some(watermark) => self.pending.push_watermark(watermark),
                None if due.is_none() => return Ok(Progress::Done),
                None => {}
            }
        }
        Ok(Progress::Full)
    }

    fn memory_bytes(&self) -> usize {
        self.partitions.as_ref().map_or(0, IdleState::memory_bytes)
    }

    fn give_back(&mut self, bytes: usize) -> Result<()> {
        self.partitions.as_mut().map_or(Ok(()), |partitions| partitions.states.give_back(bytes))
    }

    fn snapshot(&mut self, scope: SnapshotScope) -> Result<Snapshot> {
        self.partitions.as_mut().ok_or_else(not_open)?.snapshot(scope)
    }

    fn restore(&mut self, mut state: RestoredState) -> Result<()> {
        self.partitions.as_mut().ok_or_else(not_open)?.states.restore(&mut state)
    }
}

impl TopNOperator {
    /// Works on rows whose slots were found.
    fn update(&mut self, partitions: &mut IdleState<RankedColumn>, batch: &Batch) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let (plan, records) = (self.plan.clone(), batch.records());
        let now_millis = self.clock.as_ref().ok_or_else(not_open)?.now_millis();
        let mut written: HashSet<usize, BuildHasherDefault<Xxh3Default>> = HashSet::default();
        written.extend(partitions.expire(&self.slots, now_millis)?);
        let column = partitions.column()?;

        let most = if plan.input_updates { usize::MAX } else { plan.last };
        let mut touched: Vec<(usize, Vec<Ranked>)> = Vec::new();
        let mut known: HashSet<usize, BuildHasherDefault<Xxh3Default>> = HashSet::default();
        for (row, ranked) in column.ranked(records.columns())?.into_iter().enumerate() {
            let slot = self.slots[row];
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
            changes.compare(before, plan.visible(column.partition(*slot)), &plan);
        }
        let changed = plan.changelog(changes, column)?;
        let written: Vec<usize> = written.into_iter().collect();
        partitions.written(&written, batch.num_rows(), now_millis)?;
        changed.into_iter().for_each(|batch| self.pending.push(batch, self.batch_rows));
        Ok(())
    }
}

fn not_open() -> Error {
    Error::internal("a Top-N that was not opened")
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
