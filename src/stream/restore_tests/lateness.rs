//! Windows that are kept longer, or not as long, from a restore on.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::*;

/// How often something happened to each window of a key, before the stop and after it.
type Counts = Arc<Mutex<BTreeMap<(String, Window), [usize; 2]>>>;

/// How often windows fired and were told to be over.
#[derive(Clone, Default)]
struct Told {
    fired: Counts,
    over: Counts,
    /// Whether the stop is over.
    is_after: bool,
}

impl<T: 'static> ProcessWindowFunction<T, String> for Told {
    type Output = String;

    fn process(
        &mut self,
        _values: &[T],
        context: &mut WindowContext<'_, String>,
        out: &mut Collector<String>,
    ) -> Result<()> {
        let window = (context.key()?.clone(), context.window());
        out.collect(format!("{window:?}"));
        self.fired.lock().unwrap().entry(window).or_default()[usize::from(self.is_after)] += 1;
        Ok(())
    }

    fn clear(&mut self, context: &mut WindowContext<'_, String>) -> Result<()> {
        let window = (context.key()?.clone(), context.window());
        self.over.lock().unwrap().entry(window).or_default()[usize::from(self.is_after)] += 1;
        Ok(())
    }
}

/// A run that keeps windows for so long, and from a step on for another time.
fn told(lateness: [u64; 2], windows: impl Fn(&DataStream<Row>, Told, Duration) -> DataSink) -> Told {
    let told = Told::default();
    let after = Told { is_after: true, ..told.clone() };
    let before = |rows: &DataStream<Row>, _: &DataStream<Row>| windows(rows, told.clone(), millis(lateness[0]));
    let after = |rows: &DataStream<Row>, _: &DataStream<Row>| windows(rows, after.clone(), millis(lateness[1]));
    // The second time before any watermark has come.
    run_changed([&before, &after], &[(4, 3), (4, 2)]);
    told
}

#[test]
fn windows_that_are_over_by_a_smaller_lateness_are_told_so_once_and_do_not_fire_again() {
    let sliding = |rows: &DataStream<Row>, told: Told, lateness: Duration| {
        let windows = rows.key_by(key).window(Sliding::of(millis(30), millis(10)));
        windows.allowed_lateness(lateness).rich_process(told).print_to_err()
    };
    let sessions = |rows: &DataStream<Row>, told: Told, lateness: Duration| {
        let windows = rows.filter(|row| row.1 % 7 < 3).key_by(key).window(Session::with_gap(millis(20)));
        windows.allowed_lateness(lateness).rich_process(told).print_to_err()
    };
    for lateness in [0, 8, 40] {
        for (told, is_session) in [(told([40, lateness], sliding), false), (told([40, lateness], sessions), true)] {
            let (fired, over) = (told.fired.lock().unwrap(), told.over.lock().unwrap());
            assert!(fired.values().any(|[before, _]| *before > 0) && fired.values().any(|[_, after]| *after > 0));
            for (window, [before, after]) in fired.iter() {
                let told = over.get(window).copied().unwrap_or_default();
                let (key, Window { start, end }) = window;
                // A session that became part of another one is not over by itself.
                let contains = |(other, wide): &(String, Window)| {
                    other == key && wide.start <= *start && wide.end >= *end && wide != &window.1
                };
                let is_part = is_session && fired.keys().any(contains);
                assert_eq!(
                    told.iter().sum::<usize>(),
                    usize::from(!is_part),
                    "{window:?} with {lateness} ms: {told:?}"
                );
                if lateness == 0 {
                    assert!(*before == 0 || *after == 0, "{window:?} fired {before} and {after} times");
                }
            }
            assert!(over.keys().all(|window| fired.contains_key(window)));
        }
    }
}

#[test]
fn windows_that_are_kept_for_longer_are_told_that_they_are_over_behind_what_they_fire() {
    let sliding = |rows: &DataStream<Row>, told: Told, lateness: Duration| {
        let windows = rows.key_by(key).window(Sliding::of(millis(30), millis(10)));
        windows.allowed_lateness(lateness).rich_process(told).print_to_err()
    };
    let told = told([0, 60], sliding);
    let (fired, over) = (told.fired.lock().unwrap(), told.over.lock().unwrap());
    assert!(fired.values().any(|[before, after]| *before > 0 && *after > 0), "none fired again");
    for (window, [_, after]) in fired.iter() {
        let told = over.get(window).copied().unwrap_or_default();
        assert!(told.iter().sum::<usize>() >= 1 && (*after == 0 || told[1] >= 1), "{window:?}: {told:?}");
    }
}
