//! Watermarks of rows that are out of order by so much and no more.

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::TimestampMillisecondType;
use tidemill_core::source::{WatermarkGenerator, WatermarkStrategy};
use tidemill_core::{Result, Watermark};

/// The highest time so far less what rows may be behind it.
#[derive(Clone, Debug)]
pub struct Bounded {
    /// Which column has the time.
    column: usize,
    disorder_millis: i64,
    highest: Option<i64>,
}

impl Bounded {
    /// Of rows whose time is in this column.
    pub fn new(column: usize, disorder_millis: i64) -> Self {
        Self { column, disorder_millis, highest: None }
    }
}

impl WatermarkStrategy for Bounded {
    fn generator(&self) -> Box<dyn WatermarkGenerator> {
        Box::new(self.clone())
    }

    fn describe(&self) -> String {
        format!("ts - {} ms", self.disorder_millis)
    }
}

impl WatermarkGenerator for Bounded {
    fn observe(&mut self, records: &RecordBatch) -> Result<Option<Watermark>> {
        let times = records.column(self.column).as_primitive::<TimestampMillisecondType>().values();
        self.highest = self.highest.max(times.iter().copied().max());
        Ok(self.highest.map(|highest| Watermark(highest - self.disorder_millis - 1)))
    }
}
