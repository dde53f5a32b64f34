//! Joins of a stream with a bounded table: the table is read first and kept, then the stream flows through.
//!
//! Input 1 is the table (build), input 0 the stream (probe). The table may be updated while it is read: what counts is what is
//! left at its end. Rows of the stream may be updates: each is joined for itself, and what was joined once is joined the same
//! when it is taken back, because the table does not change.

mod state;

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, UInt32Array, UInt32Builder};
use arrow::compute::take;
use arrow::datatypes::{DataType, SchemaRef};
use tidemill_core::key::hash_columns;
use tidemill_core::operator::{InputSelection, Operator, OperatorContext, OperatorFactory, Output, Progress};
use tidemill_core::state::{RestoredState, Snapshot, SnapshotScope};
use tidemill_core::{Batch, Error, Result, RowKind, Watermark};

use crate::operators::expression::{Expr, batch_of, evaluate_predicate};
use crate::operators::pending::Pending;
use crate::state::KeyIndex;

/// Which rows of the stream leave, and with what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupJoinKind {
    /// Each with every row of the table that fits.
    Inner,
    /// The same; those that nothing fits once with NULLs.
    Left,
    /// Those that something fits, once, alone.
    Semi,
    /// Those that nothing fits, alone.
    Anti,
    /// Those of which `key NOT IN (the table's key)` is true, alone: none if a key of the table is NULL, no NULL key itself, all
    /// if the table is empty. Every subtask needs the whole table.
    NotIn,
    /// All, each with whether something fits as the last column.
    Mark,
}

/// A join of a stream with a bounded table on equal keys.
#[derive(Clone, Debug)]
pub struct LookupJoin {
    /// Which rows leave.
    pub kind: LookupJoinKind,
    /// Key columns of the stream; NULL fits nothing.
    pub stream_keys: Vec<usize>,
    /// Key columns of the table.
    pub table_keys: Vec<usize>,
    /// A condition beside the keys, over the stream's columns followed by the table's.
    pub condition: Option<Expr>,
    /// Columns of the stream followed by those of the table.
    pub joined_schema: SchemaRef,
    /// Which of those leave, in order.
    pub output: Vec<usize>,
    /// Columns of the table.
    pub table_schema: SchemaRef,
    /// Whether every subtask has the whole table, and not only the rows of its keys.
    pub table_everywhere: bool,
    /// Columns that leave.
    pub schema: SchemaRef,
}

impl OperatorFactory for LookupJoin {
    fn create(&self) -> Result<Box<dyn Operator>> {
        Ok(Box::new(LookupJoinOperator {
            plan: Arc::new(self.clone()),
            building: Vec::new(),
            table: None,
            table_bytes: 0,
            pending: Pending::default(),
            batch_rows: usize::MAX,
            max_parallelism: 1,
        }))
    }

    fn describe(&self) -> String {
        let keys = self.stream_keys.iter().zip(&self.table_keys).map(|(stream, table)| {
            let stream_column = self.joined_schema.field(*stream).name();
            format!("{stream_column} = {}", self.table_schema.field(*table).name())
        });
        let condition = self.condition.iter().map(|condition| condition.to_string());
        let on: Vec<String> = keys.chain(condition).collect();
        let kind = match self.kind {
            LookupJoinKind::NotIn => "NOT IN".to_owned(),
            kind => format!("{kind:?}"),
        };
        format!("{kind} join with a bounded table on {}", on.join(" AND "))
    }
}

struct LookupJoinOperator {
    plan: Arc<LookupJoin>,
    /// The table's rows and updates while it is being read.
    building: Vec<Batch>,
    table: Option<Table>,
    table_bytes: usize,
    pending: Pending,
    batch_rows: usize,
    max_parallelism: u32,
}

/// The whole table, with the rows of each key chained.
struct Table {
    records: RecordBatch,
    index: KeyIndex,
    /// First row of each slot, one more than its number; 0 for none.
    first: Vec<u32>,
    /// The row behind each row with the same key, in the same way.
    next: Vec<u32>,
    has_null_key: bool,
}

impl Operator for LookupJoinOperator {
    fn open(&mut self, context: &OperatorContext) -> Result<()> {
        self.batch_rows = context.batch_rows;
        self.max_parallelism = context.max_parallelism;
        Ok(())
    }

    fn selection(&self) -> InputSelection {
        match self.table {
            None => InputSelection::Only(1),
            Some(_) => InputSelection::Any,
        }
    }

    fn process(&mut self, input: usize, batch: Batch, output: &mut Output) -> Result<Progress> {
        if input == 1 {
            // Twice: it is copied into one piece in the end.
            self.table_bytes += 2 * batch.size_bytes();
            self.building.push(batch);
            return Ok(Progress::Done);
        }
        let joined = self.probe(&batch)?;
        self.pending.push(joined, self.batch_rows);
        Ok(self.pending.emit(output))
    }

    fn advance(&mut self, watermark: Watermark, output: &mut Output) -> Result<Progress> {
        self.pending.push_watermark(watermark);
        Ok(self.pending.emit(output))
    }

    fn resume(&mut self, output: &mut Output) -> Result<Progress> {
        Ok(self.pending.emit(output))
    }

    fn end_of_input(&mut self, input: usize, _output: &mut Output) -> Result<Progress> {
        if input == 1 && self.table.is_none() {
            let all = Batch::concat(&self.plan.table_schema, &std::mem::take(&mut self.building))?;
            let table = Table::build(fold(all)?, &self.plan.table_keys)?;
            self.table_bytes = table.size_bytes();
            self.table = Some(table);
        }
        Ok(Progress::Done)
    }

    fn memory_bytes(&self) -> usize {
        self.table_bytes
    }

    fn snapshot(&mut self, _scope: SnapshotScope) -> Result<Snapshot> {
        self.frozen_state()
    }

    fn restore(&mut self, state: RestoredState) -> Result<()> {
        self.restore_state(state)
    }
}

impl LookupJoinOperator {
    fn probe(&mut self, batch: &Batch) -> Result<Batch> {
        let plan = self.plan.clone();
        let Some(table) = &mut self.table else {
            return Err(Error::internal("a join got rows of its stream before its table"));
        };
        let (stream_rows, table_rows) = table.candidates(batch, &plan.stream_keys)?;
        let (stream_rows, table_rows) = match &plan.condition {
            None => (stream_rows, table_rows),
            Some(condition) => {
                let pairs = joined(batch.records(), &stream_rows, &table.records, &table_rows, &plan.joined_schema)?;
                let fits = evaluate_predicate(condition, &pairs)?;
                (keep(&stream_rows, &fits), keep(&table_rows, &fits))
            }
        };
        let (stream_rows, table_rows) = match plan.kind {
            LookupJoinKind::Inner => (stream_rows, table_rows),
            LookupJoinKind::Left => with_unmatched(stream_rows, table_rows, batch.num_rows()),
            LookupJoinKind::Mark => {
                let matched = matched(&stream_rows, batch.num_rows());
                let mut columns = batch.records().project(&plan.output)?.columns().to_vec();
                columns.push(Arc::new(BooleanArray::from(matched)));
                let records = batch_of(&plan.schema, columns, batch.num_rows())?;
                return Ok(batch.clone().with_records(records)?.without_hashes());
            }
            LookupJoinKind::Semi | LookupJoinKind::Anti | LookupJoinKind::NotIn => {
                let mut matched = matched(&stream_rows, batch.num_rows());
                if plan.kind == LookupJoinKind::NotIn && table.records.num_rows() > 0 {
                    let unknown = |row| table.has_null_key || has_null(batch.records(), &plan.stream_keys, row);
                    (0..batch.num_rows()).for_each(|row| matched[row] |= unknown(row));
                }
                let wanted = plan.kind == LookupJoinKind::Semi;
                let mask: BooleanArray = matched.into_iter().map(|matched| Some(matched == wanted)).collect();
                let kept = batch.filter(&mask)?;
                let records = kept.records().project(&plan.output)?;
                let records = batch_of(&plan.schema, records.columns().to_vec(), kept.num_rows())?;
                return Ok(kept.with_records(records)?.without_hashes());
            }
        };
        let pairs = joined(batch.records(), &stream_rows, &table.records, &table_rows, &plan.joined_schema)?;
        let columns = plan.output.iter().map(|column| pairs.column(*column).clone()).collect();
        let records = batch_of(&plan.schema, columns, stream_rows.len())?;
        match batch.kinds() {
            None => Ok(Batch::append(records)),
            Some(kinds) => {
                let kinds: Vec<u8> = stream_rows.values().iter().map(|row| kinds[*row as usize]).collect();
                Batch::changelog(records, kinds.into())
            }
        }
    }
}

impl Table {
    fn build(records: RecordBatch, keys: &[usize]) -> Result<Self> {
        let rows = u32::try_from(records.num_rows())
            .map_err(|_| Error::exhausted(format!("the table side of a join has {} rows", records.num_rows())))?;
        let types: Vec<DataType> =
            keys.iter().map(|key| records.schema_ref().field(*key).data_type().clone()).collect();
        let columns: Vec<ArrayRef> = keys.iter().map(|key| records.column(*key).clone()).collect();
        let mut index = KeyIndex::new(&types)?;
        let mut slots = Vec::with_capacity(records.num_rows());
        index.intern(&columns, &hash_columns(&columns, records.num_rows())?, &mut slots)?;
        let (mut first, mut next) = (vec![0; index.slots()], vec![0; records.num_rows()]);
        // Backwards, so that chains run in the order of the table.
        for row in (0..rows).rev() {
            let slot = slots[row as usize];
            next[row as usize] = first[slot];
            first[slot] = row + 1;
        }
        let has_null_key = columns.iter().any(|column| column.null_count() > 0);
        Ok(Self { records, index, first, next, has_null_key })
    }

    fn size_bytes(&self) -> usize {
        let chains = (self.first.capacity() + self.next.capacity()) * size_of::<u32>();
        self.records.get_array_memory_size() + self.index.size_bytes() + chains
    }

    /// Pairs of rows with equal keys that are not NULL.
    fn candidates(&mut self, batch: &Batch, keys: &[usize]) -> Result<(UInt32Array, UInt32Array)> {
        let columns: Vec<ArrayRef> = keys.iter().map(|key| batch.records().column(*key).clone()).collect();
        let hashes = hash_columns(&columns, batch.num_rows())?;
        let mut slots = Vec::with_capacity(batch.num_rows());
        self.index.find(&columns, &hashes, &mut slots)?;
        let (mut stream_rows, mut table_rows) = (Vec::new(), Vec::new());
        for (row, slot) in slots.into_iter().enumerate() {
            let Some(slot) = slot else { continue };
            if has_null(batch.records(), keys, row) {
                continue;
            }
            let mut place = self.first[slot];
            while place != 0 {
                stream_rows.push(row as u32);
                table_rows.push(place - 1);
                place = self.next[place as usize - 1];
            }
        }
        Ok((stream_rows.into(), table_rows.into()))
    }
}

/// Which of `rows` rows are among these.
fn matched(among: &UInt32Array, rows: usize) -> Vec<bool> {
    let mut matched = vec![false; rows];
    among.values().iter().for_each(|row| matched[*row as usize] = true);
    matched
}

/// The rows that are left of a changelog.
fn fold(changelog: Batch) -> Result<RecordBatch> {
    let Some(kinds) = changelog.kinds().cloned() else { return Ok(changelog.into_records()) };
    let records = changelog.into_records();
    let types: Vec<DataType> = records.schema_ref().fields().iter().map(|field| field.data_type().clone()).collect();
    let mut slots = Vec::with_capacity(records.num_rows());
    let mut index = KeyIndex::new(&types)?;
    index.intern(records.columns(), &hash_columns(records.columns(), records.num_rows())?, &mut slots)?;
    // Equal rows stand for each other: the first of each kind stays as often as it was added and not taken back.
    let mut left = vec![(0, 0_i64); index.slots()];
    for (row, slot) in slots.into_iter().enumerate().rev() {
        let change = if RowKind::from_u8(kinds[row])?.is_addition() { 1 } else { -1 };
        left[slot] = (row as u32, left[slot].1 + change);
    }
    let mut rows: Vec<u32> = left.into_iter().flat_map(|(row, count)| (0..count).map(move |_| row)).collect();
    rows.sort_unstable();
    let rows = UInt32Array::from(rows);
    let columns = records.columns().iter().map(|column| take(column, &rows, None)).collect::<Result<Vec<_>, _>>()?;
    batch_of(records.schema_ref(), columns, rows.len())
}

fn has_null(records: &RecordBatch, columns: &[usize], row: usize) -> bool {
    columns.iter().any(|column| records.column(*column).is_null(row))
}

fn joined(
    stream: &RecordBatch,
    stream_rows: &UInt32Array,
    table: &RecordBatch,
    table_rows: &UInt32Array,
    schema: &SchemaRef,
) -> Result<RecordBatch> {
    let left = stream.columns().iter().map(|column| take(column, stream_rows, None));
    let right = table.columns().iter().map(|column| take(column, table_rows, None));
    let columns = left.chain(right).collect::<Result<Vec<_>, _>>()?;
    batch_of(schema, columns, stream_rows.len())
}

fn keep(rows: &UInt32Array, mask: &BooleanArray) -> UInt32Array {
    rows.values().iter().zip(mask.values()).filter(|(_, keep)| *keep).map(|(row, _)| *row).collect::<Vec<_>>().into()
}

/// The pairs, and each row of the stream that has none with NULL, in the order of the stream.
fn with_unmatched(stream_rows: UInt32Array, table_rows: UInt32Array, rows: usize) -> (UInt32Array, UInt32Array) {
    let mut stream = Vec::with_capacity(rows.max(stream_rows.len()));
    let mut table = UInt32Builder::with_capacity(rows.max(stream_rows.len()));
    let mut pair = 0;
    for row in 0..rows as u32 {
        let first = pair;
        while pair < stream_rows.len() && stream_rows.value(pair) == row {
            stream.push(row);
            table.append_value(table_rows.value(pair));
            pair += 1;
        }
        if pair == first {
            stream.push(row);
            table.append_null();
        }
    }
    (stream.into(), table.finish())
}
