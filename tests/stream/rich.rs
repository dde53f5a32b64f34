//! Rich functions on the whole engine: states of keys, what `open` and `close` are called for, what they know and refuse.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tidemill::stream::{
    Collector, Context, Parameters, RichFilterFunction, RichFlatMapFunction, RichMapFunction, RichReduceFunction,
    RuntimeContext, ValueState,
};
use tidemill::{Error, Result};

use super::{Setup, check, environment};

type Row = (String, i64);

fn rows() -> Vec<Row> {
    (0..200i64).map(|n| (format!("k{}", n * 7 % 5), n)).collect()
}

/// Numbers the records of each key.
#[derive(Clone, Default)]
struct Numbered(ValueState<i64>);

impl Numbered {
    fn open(&mut self, context: &mut RuntimeContext<'_>) -> Result<()> {
        self.0 = context.value_state("count")?;
        Ok(())
    }

    fn next(&self, context: &mut Context<'_, String>) -> Result<i64> {
        let number = self.0.get(context.state())?.copied().unwrap_or(0);
        self.0.set(context.state(), number + 1)?;
        Ok(number)
    }
}

impl RichMapFunction<Row, String> for Numbered {
    type Output = (String, i64, i64);

    fn open(&mut self, context: &mut RuntimeContext<'_>) -> Result<()> {
        self.open(context)
    }

    fn map(&mut self, (key, n): Row, context: &mut Context<'_, String>) -> Result<Self::Output> {
        assert_eq!(context.key()?, &key);
        Ok((key, n, self.next(context)?))
    }
}

impl RichFilterFunction<Row, String> for Numbered {
    fn open(&mut self, context: &mut RuntimeContext<'_>) -> Result<()> {
        self.open(context)
    }

    fn filter(&mut self, _row: &Row, context: &mut Context<'_, String>) -> Result<bool> {
        Ok(self.next(context)? % 10 == 0)
    }
}

impl RichFlatMapFunction<Row, String> for Numbered {
    type Output = Row;

    fn open(&mut self, context: &mut RuntimeContext<'_>) -> Result<()> {
        self.open(context)
    }

    fn flat_map(&mut self, row: Row, context: &mut Context<'_, String>, out: &mut Collector<Row>) -> Result<()> {
        let copies = self.next(context)? % 3;
        out.extend((0..copies).map(|_| row.clone()));
        Ok(())
    }
}

/// The sum of a key's numbers, and beside it how many there were.
#[derive(Clone, Default)]
struct Sum {
    count: ValueState<i64>,
}

impl RichReduceFunction<Row, String> for Sum {
    fn open(&mut self, context: &mut RuntimeContext<'_>) -> Result<()> {
        self.count = context.value_state("count")?;
        Ok(())
    }

    fn reduce(&mut self, (key, sum): Row, (_, n): Row, context: &mut Context<'_, String>) -> Result<Row> {
        let count = self.count.get(context.state())?.copied().unwrap_or(1) + 1;
        self.count.set(context.state(), count)?;
        Ok((key, sum + n))
    }
}

fn numbered() -> Vec<(String, i64, i64)> {
    let mut counts: BTreeMap<String, i64> = BTreeMap::new();
    let number = |(key, n): Row| {
        let count = counts.entry(key.clone()).or_default();
        *count += 1;
        (key, n, *count - 1)
    };
    rows().into_iter().map(number).collect()
}

#[test]
fn rich_functions_of_keyed_streams_remember_something_for_each_key() {
    check(numbered(), |e| e.from_collection(rows()).key_by(|row| row.0.clone()).rich_map(Numbered::default()));
    let passed = numbered().into_iter().filter(|(_, _, number)| number % 10 == 0).map(|(key, n, _)| (key, n));
    check(passed.collect(), |e| e.from_collection(rows()).key_by(|row| row.0.clone()).rich_filter(Numbered::default()));
    let copied = numbered().into_iter().flat_map(|(key, n, number)| vec![(key, n); (number % 3) as usize]);
    check(copied.collect(), |e| {
        e.from_collection(rows()).key_by(|row| row.0.clone()).rich_flat_map(Numbered::default())
    });
    let mut sums: BTreeMap<String, i64> = BTreeMap::new();
    let summed = rows().into_iter().map(|(key, n)| {
        let sum = sums.entry(key.clone()).or_default();
        *sum += n;
        (key, *sum)
    });
    let summed = summed.collect();
    check(summed, |e| e.from_collection(rows()).key_by(|row| row.0.clone()).rich_reduce(Sum::default()));
}

/// Counts how often it is opened and closed, and fails at a number.
#[derive(Clone)]
struct Counted {
    opened: Arc<AtomicUsize>,
    closed: Arc<AtomicUsize>,
    fails_at: i64,
}

impl RichMapFunction<i64> for Counted {
    type Output = i64;

    fn open(&mut self, _context: &mut RuntimeContext<'_>) -> Result<()> {
        self.opened.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn map(&mut self, n: i64, _context: &mut Context<'_, ()>) -> Result<i64> {
        if n == self.fails_at { Err(Error::data(format!("no {n}, please"))) } else { Ok(n) }
    }

    fn close(&mut self) -> Result<()> {
        self.closed.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

#[test]
fn every_subtask_is_opened_and_closed_once_also_when_the_job_fails() {
    for parallelism in [1, 3] {
        for fails_at in [-1, 50] {
            let environment = Setup { parallelism, gate: "0 ms", batch_rows: 7 }.environment();
            let (opened, closed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
            let counted = Counted { opened: opened.clone(), closed: closed.clone(), fails_at };
            let result = environment.generate_sequence(1, 100).rich_map(counted).collect();
            assert_eq!(result.is_ok(), fails_at < 0);
            drop(environment);
            let (opened, closed) = (opened.load(Ordering::SeqCst), closed.load(Ordering::SeqCst));
            assert_eq!(opened, closed);
            assert!(opened <= parallelism && (fails_at > 0 || opened == parallelism), "{opened} of {parallelism}");
        }
    }
}

#[test]
fn a_rich_function_has_no_timers_and_without_keys_no_states() {
    #[derive(Clone)]
    struct Timed;

    impl RichMapFunction<i64, i64> for Timed {
        type Output = i64;

        fn map(&mut self, n: i64, context: &mut Context<'_, i64>) -> Result<i64> {
            context.register_event_time_timer(n)?;
            Ok(n)
        }
    }

    #[derive(Clone)]
    struct Stateful;

    impl RichMapFunction<i64> for Stateful {
        type Output = i64;

        fn open(&mut self, context: &mut RuntimeContext<'_>) -> Result<()> {
            context.value_state::<i64>("count").map(|_| ())
        }

        fn map(&mut self, n: i64, _context: &mut Context<'_, ()>) -> Result<i64> {
            Ok(n)
        }
    }

    let numbers = super::one().generate_sequence(1, 3);
    let error = numbers.key_by(|n| *n).rich_map(Timed).collect().unwrap_err();
    assert!(error.message().contains("a timer in a rich function"), "{error}");
    let error = numbers.rich_map(Stateful).collect().unwrap_err();
    assert!(error.message().contains("keyed state 'count' in 'map', whose records have no key"), "{error}");
}

#[test]
fn parameters_and_counters_reach_functions() {
    #[derive(Clone, Default)]
    struct Scaled(i64);

    impl RichMapFunction<i64> for Scaled {
        type Output = i64;

        fn open(&mut self, context: &mut RuntimeContext<'_>) -> Result<()> {
            self.0 = context.parameters().parsed("scale")?.unwrap_or(1);
            context.counter("opened").add(1);
            Ok(())
        }

        fn map(&mut self, n: i64, _context: &mut Context<'_, ()>) -> Result<i64> {
            Ok(n * self.0)
        }
    }

    let environment = environment(3);
    environment.set_global_job_parameters(Parameters::from_args(["--scale", "7"]).unwrap());
    let scaled = environment.generate_sequence(1, 3).rich_map(Scaled::default());
    let mut numbers = scaled.collect().unwrap();
    numbers.sort();
    assert_eq!(numbers, [7, 14, 21]);
    scaled.filter(|_| false).print();
    assert_eq!(environment.execute("counted").unwrap().total("opened"), 3);
}
