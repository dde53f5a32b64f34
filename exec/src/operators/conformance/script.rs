//! What goes into the operators: rows and watermarks, drawn at random.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use proptest::prelude::*;
use proptest::sample::Index;
use tidemill_core::{Batch, RowKind};

/// A row of the columns that every operator is given, or takes its pick of: `(k, ts, v)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub key: Option<i64>,
    pub time: i64,
    pub value: Option<i64>,
    /// `false` takes back a row that came before.
    pub adds: bool,
}

/// Rows, then a watermark.
#[derive(Clone, Debug)]
pub struct Step {
    pub rows: Vec<Row>,
    pub watermark: i64,
}

/// All that one operator is given.
#[derive(Clone, Debug)]
pub struct Script {
    /// Rows of a second input that is read to its end first, for those that have one.
    pub table: Vec<Row>,
    pub steps: Vec<Step>,
    /// Rows that came and were not taken back.
    living: Vec<Row>,
}

impl Script {
    /// Step by step the same rows; then all that are left are taken back.
    pub fn undone(mut self) -> Self {
        let rows = self.living.drain(..).map(|row| Row { adds: false, ..row }).collect();
        self.steps.insert(self.steps.len() - 1, Step { rows, watermark: i64::MAX - 1 });
        self
    }

    /// The same without a row.
    pub fn emptied(mut self) -> Self {
        self.steps.iter_mut().for_each(|step| step.rows.clear());
        self
    }
}

/// What an operator is ready for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demands {
    /// Rows are taken back.
    pub updates: bool,
    /// Rows come behind the watermark.
    pub late_rows: bool,
}

/// The columns of a [`Row`].
pub fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("k", DataType::Int64, true),
        Field::new("ts", DataType::Timestamp(TimeUnit::Millisecond, None), false),
        Field::new("v", DataType::Int64, true),
    ]))
}

/// Rows as a batch of these columns.
pub fn batch(rows: &[Row], columns: &[usize]) -> Batch {
    let all: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter(rows.iter().map(|row| row.key))),
        Arc::new(TimestampMillisecondArray::from_iter_values(rows.iter().map(|row| row.time))),
        Arc::new(Int64Array::from_iter(rows.iter().map(|row| row.value))),
    ];
    let records = RecordBatch::try_new(schema(), all).unwrap().project(columns).unwrap();
    let kind = |row: &Row| if row.adds { RowKind::Insert } else { RowKind::Delete };
    Batch::changelog(records, rows.iter().map(|row| kind(row) as u8).collect()).unwrap()
}

/// A drawn script, from which one for any demands can be made.
#[derive(Clone, Debug)]
pub struct Draft {
    table: Vec<DraftRow>,
    /// Rows, and by how much the watermark rises behind them.
    steps: Vec<(Vec<DraftRow>, i64)>,
}

#[derive(Clone, Debug)]
struct DraftRow {
    key: Option<i64>,
    /// From the watermark.
    offset: i64,
    value: Option<i64>,
    /// Rather than come itself, it takes back one of those that are there.
    takes_back: Option<Index>,
}

/// Scripts in which keys, values and times often meet.
pub fn any_draft() -> impl Strategy<Value = Draft> {
    let takes_back = prop::option::weighted(0.3, any::<Index>());
    let row = (prop::option::weighted(0.9, 0..4i64), -30..40i64, prop::option::weighted(0.9, -3..4i64), takes_back);
    let row = row.prop_map(|(key, offset, value, takes_back)| DraftRow { key, offset, value, takes_back });
    let table = prop::collection::vec(row.clone(), 0..8);
    let steps = prop::collection::vec((prop::collection::vec(row, 0..25), 0..35i64), 0..5);
    (table, steps).prop_map(|(table, steps)| Draft { table, steps })
}

impl Draft {
    /// The script that an operator with these demands is ready for; its last watermark is the final one.
    pub fn script(&self, demands: Demands) -> Script {
        let (mut watermark, mut living, mut steps) = (-40, vec![], vec![]);
        for (rows, rise) in &self.steps {
            let rows = rows.iter().map(|row| row.settle(watermark, demands, &mut living)).collect();
            watermark += rise;
            steps.push(Step { rows, watermark });
        }
        steps.extend([Step { rows: vec![], watermark: i64::MAX }]);
        let plain = Demands { updates: false, late_rows: false };
        Script { table: self.table.iter().map(|row| row.settle(0, plain, &mut vec![])).collect(), steps, living }
    }
}

impl DraftRow {
    fn settle(&self, watermark: i64, demands: Demands, living: &mut Vec<Row>) -> Row {
        match self.takes_back {
            Some(which) if demands.updates && !living.is_empty() => {
                let row = living.remove(which.index(living.len()));
                Row { adds: false, ..row }
            }
            _ => {
                let offset = if demands.late_rows { self.offset } else { self.offset.abs() + 1 };
                let row = Row { key: self.key, time: watermark + offset, value: self.value, adds: true };
                living.push(row.clone());
                row
            }
        }
    }
}
