//! Joins of a stream with a bounded table: the table is read first and kept, then the stream flows through.
//!
//! Input 1 is the table (build), input 0 the stream (probe). Rows of the stream may be updates: each is joined for itself, and
//! what was joined once is joined the same when it is taken back, because the table does not change.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, UInt32Array, UInt32Builder};
use arrow::compute::{concat_batches, take};
use arrow::datatypes::{DataType, SchemaRef};
use tidemill_core::key::hash_columns;
use tidemill_core::operator::{InputSelection, Operator, OperatorContext, OperatorFactory, Output, Progress};
use tidemill_core::{Batch, Error, Result, Watermark};

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
        }))
    }

    fn describe(&self) -> String {
        let keys = self.stream_keys.iter().zip(&self.table_keys).map(|(stream, table)| {
            let stream_column = self.joined_schema.field(*stream).name();
            format!("{stream_column} = {}", self.table_schema.field(*table).name())
        });
        let condition = self.condition.iter().map(|condition| condition.to_string());
        let on: Vec<String> = keys.chain(condition).collect();
        format!("{:?} join with a bounded table on {}", self.kind, on.join(" AND "))
    }
}

struct LookupJoinOperator {
    plan: Arc<LookupJoin>,
    /// The table's batches while it is being read.
    building: Vec<RecordBatch>,
    table: Option<Table>,
    table_bytes: usize,
    pending: Pending,
    batch_rows: usize,
}

/// The whole table, with the rows of each key chained.
struct Table {
    records: RecordBatch,
    index: KeyIndex,
    /// First row of each slot, one more than its number; 0 for none.
    first: Vec<u32>,
    /// The row behind each row with the same key, in the same way.
    next: Vec<u32>,
}

impl Operator for LookupJoinOperator {
    fn open(&mut self, context: &OperatorContext) -> Result<()> {
        self.batch_rows = context.batch_rows;
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
            if batch.kinds().is_some() {
                return Err(Error::internal("the table side of a join got an update; it must be append-only"));
            }
            // Twice: it is copied into one piece in the end.
            self.table_bytes += 2 * batch.size_bytes();
            self.building.push(batch.into_records());
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
            let records = concat_batches(&self.plan.table_schema, &std::mem::take(&mut self.building))?;
            let table = Table::build(records, &self.plan.table_keys)?;
            self.table_bytes = table.size_bytes();
            self.table = Some(table);
        }
        Ok(Progress::Done)
    }

    fn memory_bytes(&self) -> usize {
        self.table_bytes
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
            LookupJoinKind::Semi | LookupJoinKind::Anti => {
                let mut matched = vec![false; batch.num_rows()];
                stream_rows.values().iter().for_each(|row| matched[*row as usize] = true);
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
        Ok(Self { records, index, first, next })
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
            if columns.iter().any(|column| column.is_null(row)) {
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
