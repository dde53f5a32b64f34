//! Late rows (SUB-02, SUB-04). One subtask and one row a batch, so that the watermark rises behind every row, and a model that
//! goes row by row and window by window.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use tidemill::stream::{OutputTag, Session, Sliding, Watermarks, Windows};
use tidemill_core::metrics::LATE_RECORDS_DROPPED;

use super::Setup;

/// Key and event time; a row is its own value.
type Row = (i64, i64);
/// Key, start, end, times of the rows within, sorted.
type Fired = (i64, i64, i64, Vec<i64>);

const ROW_BY_ROW: Setup = Setup { parallelism: 1, gate: "0 ms", batch_rows: 1 };

/// What comes out, in order within one place: all firings, and the rows that came too late.
type Outcome = (Vec<Fired>, Vec<Row>);

struct Model {
    delay: i64,
    lateness: i64,
    watermark: i64,
    /// Rows by (end, key, start), so that they fire in that order up to the order of keys.
    windows: BTreeMap<(i64, i64, i64), Vec<i64>>,
    outcome: Outcome,
}

impl Model {
    fn new(delay: i64, lateness: i64) -> Self {
        Self { delay, lateness, watermark: i64::MIN, windows: BTreeMap::new(), outcome: Default::default() }
    }

    fn is_over(&self, end: i64) -> bool {
        self.watermark != i64::MIN && end - 1 + self.lateness <= self.watermark
    }

    fn fire(&mut self, window: (i64, i64, i64)) {
        let mut times = self.windows[&window].clone();
        times.sort();
        self.outcome.0.push((window.1, window.2, window.0, times));
    }

    fn advance(&mut self, watermark: i64) {
        if watermark <= self.watermark {
            return;
        }
        let before = std::mem::replace(&mut self.watermark, watermark);
        let due: Vec<_> =
            self.windows.keys().copied().filter(|(end, ..)| end - 1 > before && end - 1 <= watermark).collect();
        due.into_iter().for_each(|window| self.fire(window));
        let over: Vec<_> = self.windows.keys().copied().filter(|(end, ..)| self.is_over(*end)).collect();
        over.into_iter().for_each(|window| drop(self.windows.remove(&window)));
    }

    fn late(&mut self, row: Row) {
        if self.watermark != i64::MIN && row.1 + self.lateness <= self.watermark {
            self.outcome.1.push(row);
        }
    }

    fn sliding(mut self, rows: &[Row], size: i64, slide: i64) -> Outcome {
        let mut highest = i64::MIN;
        for (key, time) in rows {
            let mut taken = false;
            for start in time - size + 1..=*time {
                let window = (start + size, *key, start);
                if start.rem_euclid(slide) != 0 || self.is_over(window.0) {
                    continue;
                }
                taken = true;
                self.windows.entry(window).or_default().push(*time);
                if window.0 - 1 <= self.watermark {
                    self.fire(window);
                }
            }
            if !taken {
                self.late((*key, *time));
            }
            highest = highest.max(*time);
            self.advance(highest - self.delay - 1);
        }
        self.advance(i64::MAX);
        self.outcome
    }

    fn sessions(mut self, rows: &[Row], gap: i64) -> Outcome {
        let mut highest = i64::MIN;
        for (key, time) in rows {
            let mut merged = (time + gap, *key, *time);
            let met: Vec<_> = self
                .windows
                .keys()
                .copied()
                .filter(|(end, other, start)| other == key && *start <= time + gap && *end >= *time)
                .collect();
            for window in &met {
                merged = (merged.0.max(window.0), *key, merged.2.min(window.2));
            }
            if self.is_over(merged.0) {
                self.late((*key, *time));
            } else {
                let mut times: Vec<i64> = met.iter().flat_map(|window| self.windows.remove(window).unwrap()).collect();
                times.push(*time);
                self.windows.insert(merged, times);
                if merged.0 - 1 <= self.watermark {
                    self.fire(merged);
                }
            }
            highest = highest.max(*time);
            self.advance(highest - self.delay - 1);
        }
        self.advance(i64::MAX);
        self.outcome
    }
}

fn millis(value: i64) -> Duration {
    Duration::from_millis(value as u64)
}

fn run(rows: &[Row], windows: Windows, delay: i64, lateness: i64) -> Outcome {
    let environment = ROW_BY_ROW.environment();
    let tag = OutputTag::new("late");
    let fired = environment
        .from_collection(rows.to_vec())
        .assign_timestamps_and_watermarks(Watermarks::bounded_out_of_orderness(millis(delay)), |row| row.1)
        .key_by(|row| row.0)
        .window(windows)
        .allowed_lateness(millis(lateness))
        .side_output_late(&tag)
        .process(|key, window, rows, out| {
            let mut times: Vec<i64> = rows.iter().map(|row| row.1).collect();
            times.sort();
            out.collect((*key, window.start, window.end, times));
        });
    let late = fired.side_output(&tag).collect().unwrap();
    (fired.collect().unwrap(), late)
}

fn sorted(mut outcome: Outcome) -> Outcome {
    outcome.0.sort();
    outcome
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn late_rows_of_sliding_windows(rows in prop::collection::vec((0..3i64, 0..80i64), 0..60), size in 1..25i64,
                                    slide in 1..25i64, delay in 0..20i64, lateness in 0..30i64) {
        let windows = Sliding::of(millis(size), millis(slide));
        let model = Model::new(delay, lateness).sliding(&rows, size, slide);
        prop_assert_eq!(sorted(run(&rows, windows, delay, lateness)), sorted(model));
    }

    #[test]
    fn late_rows_of_sessions(rows in prop::collection::vec((0..3i64, 0..80i64), 0..60), gap in 1..12i64, delay in 0..20i64,
                             lateness in 0..30i64) {
        let model = Model::new(delay, lateness).sessions(&rows, gap);
        prop_assert_eq!(sorted(run(&rows, Session::with_gap(millis(gap)), delay, lateness)), sorted(model));
    }
}

#[test]
fn a_late_row_fires_its_window_again_at_once() {
    let rows = [(1, 5), (1, 25), (1, 6), (1, 7), (1, 60), (1, 8)];
    let (fired, late) = run(&rows, tidemill::stream::Tumbling::of(millis(10)), 0, 20);
    let first: Vec<Vec<i64>> = fired.iter().filter(|fired| fired.1 == 0).map(|fired| fired.3.clone()).collect();
    assert_eq!(first, [vec![5], vec![5, 6], vec![5, 6, 7]]);
    assert_eq!(late, [(1, 8)]);
}

#[test]
fn late_rows_are_counted_when_nobody_wants_them() {
    let environment = ROW_BY_ROW.environment();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sums");
    environment
        .from_elements([(1i64, 5i64), (1, 100), (1, 6), (1, 7)])
        .assign_timestamps_and_watermarks(Watermarks::ascending(), |row| row.1)
        .key_by(|row| row.0)
        .window(tidemill::stream::Tumbling::of(millis(10)))
        .sum(|row| &mut row.1)
        .write_as_text(path.to_str().unwrap(), Default::default());
    let result = environment.execute("late").unwrap();
    assert_eq!(result.late_records_dropped(), 2);
    assert_eq!(result.total(LATE_RECORDS_DROPPED), 2);
}
