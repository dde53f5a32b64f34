//! Event time in the middle of a program: where records get their timestamp, and how far time has come (TIM-05, TIM-07).

use std::sync::Arc;
use std::time::Duration;

use tidemill_core::{Error, Result, Watermark};

use super::data_stream::DataStream;
use super::record::Record;
use super::rows::{AnyRows, NO_TIME, Rows};
use super::stage::Stage;

/// How far event time has come, judged by the timestamps seen so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermarks {
    delay_millis: i64,
}

impl Watermarks {
    /// Records come at most `delay` behind the latest one: the watermark is the highest timestamp − delay − 1 ms.
    pub fn bounded_out_of_orderness(delay: Duration) -> Self {
        Self { delay_millis: i64::try_from(delay.as_millis()).unwrap_or(i64::MAX) }
    }

    /// Records come in the order of their timestamps.
    pub fn ascending() -> Self {
        Self { delay_millis: 0 }
    }

    /// The watermark behind records up to `highest`.
    fn behind(self, highest: i64) -> Watermark {
        // The 1: a watermark says that nothing at its own time follows, and another record at `highest - delay` may.
        Watermark(highest.saturating_sub(self.delay_millis).saturating_sub(1))
    }
}

impl<T: Record> DataStream<T> {
    /// Gives every record its event time in milliseconds since 1970 and lets time advance with it. Timestamps and watermarks
    /// from above are replaced (SUB-27).
    ///
    /// The watermark is constant during a batch: all of its rows are seen, then it rises. With `execution.batch-rows` of 1 that
    /// is after every row.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tidemill::stream::{Environment, Tumbling, Watermarks};
    ///
    /// let environment = Environment::collections();
    /// let clicks = environment.from_elements([("home".to_owned(), 1_000), ("cart".to_owned(), 2_000), ("home".to_owned(), 7_000)]);
    /// let per_page = clicks
    ///     .assign_timestamps_and_watermarks(Watermarks::ascending(), |click| click.1)
    ///     .map(|click| (click.0, 1_i64))
    ///     .key_by(|click| click.0.clone())
    ///     .window(Tumbling::of(Duration::from_secs(5)))
    ///     .sum(|click| &mut click.1);
    /// let mut counts = per_page.collect()?;
    /// counts.sort();
    /// assert_eq!(counts, [("cart".to_owned(), 1), ("home".to_owned(), 1), ("home".to_owned(), 1)]);
    /// # Ok::<(), tidemill_core::Error>(())
    /// ```
    pub fn assign_timestamps_and_watermarks(
        &self,
        watermarks: Watermarks,
        timestamp: impl Fn(&T) -> i64 + Send + Sync + 'static,
    ) -> DataStream<T> {
        let timestamp: Arc<dyn Fn(&T) -> i64 + Send + Sync> = Arc::new(timestamp);
        let stage = Arc::new(move || {
            let timestamp = timestamp.clone();
            Box::new(Assign { watermarks, timestamp, highest: NO_TIME, said: Watermark::MIN }) as Box<dyn Stage>
        });
        self.rows_timed("timestamps", stage, true)
    }
}

struct Assign<T> {
    watermarks: Watermarks,
    timestamp: Arc<dyn Fn(&T) -> i64 + Send + Sync>,
    highest: i64,
    said: Watermark,
}

impl<T: Record> Stage for Assign<T> {
    fn apply(&mut self, rows: AnyRows) -> Result<AnyRows> {
        let Rows { values, .. } = Rows::<T>::typed(rows)?;
        let times: Vec<i64> = values.iter().map(|value| (self.timestamp)(value)).collect();
        if times.contains(&NO_TIME) {
            return Err(Error::data("a record has the timestamp i64::MIN, which stands for none"));
        }
        self.highest = times.iter().copied().fold(self.highest, i64::max);
        Ok(Rows { values, times }.erase())
    }

    fn end_batch(&mut self) -> Option<Watermark> {
        let watermark = self.watermarks.behind(self.highest);
        let risen = self.highest != NO_TIME && watermark > self.said;
        risen.then(|| {
            self.said = watermark;
            watermark
        })
    }

    fn watermark(&mut self, watermark: Watermark) -> Option<Watermark> {
        // The end of the input is the end of time whoever tells the time.
        Some(watermark).filter(|watermark| *watermark == Watermark::MAX)
    }
}
