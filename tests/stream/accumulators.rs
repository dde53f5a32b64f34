//! Accumulators on the whole engine: every kind, merged over subtasks, of the attempt that ended well alone (SHR-02 … SHR-05, SUB-16).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tidemill::stream::{
    Accumulator, AccumulatorRef, Average, Context, DoubleCounter, DoubleMaximum, DoubleMinimum, Environment, Histogram,
    IntCounter, IntMaximum, IntMinimum, JobResult, ListAccumulator, LongCounter, LongMaximum, LongMinimum,
    RichMapFunction, RuntimeContext,
};
use tidemill::{Error, ErrorKind, Result};

use super::{environment, restarting};

/// How often each digit came.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Digits(BTreeMap<char, u64>);

impl Accumulator for Digits {
    type Input = String;
    type Output = String;

    fn add(&mut self, text: String) {
        text.chars().for_each(|digit| *self.0.entry(digit).or_default() += 1);
    }

    fn merge(&mut self, other: Self) {
        other.0.into_iter().for_each(|(digit, count)| *self.0.entry(digit).or_default() += count);
    }

    fn value(&self) -> String {
        self.0.iter().map(|(digit, count)| format!("{digit}{count}")).collect::<Vec<_>>().join(" ")
    }
}

/// Adds every number to an accumulator of every kind. In attempts before `good_from` it fails at `fails_at`.
#[derive(Clone, Default)]
struct AddToAll {
    good_from: u32,
    fails_at: Option<i64>,
    attempt: u32,
    ints: (AccumulatorRef<IntCounter>, AccumulatorRef<IntMinimum>, AccumulatorRef<IntMaximum>),
    longs: (AccumulatorRef<LongCounter>, AccumulatorRef<LongMinimum>, AccumulatorRef<LongMaximum>),
    doubles: (AccumulatorRef<DoubleCounter>, AccumulatorRef<DoubleMinimum>, AccumulatorRef<DoubleMaximum>),
    average: AccumulatorRef<Average>,
    histogram: AccumulatorRef<Histogram>,
    list: AccumulatorRef<ListAccumulator<(String, i64)>>,
    digits: AccumulatorRef<Digits>,
}

impl RichMapFunction<i64> for AddToAll {
    type Output = i64;

    fn open(&mut self, context: &mut RuntimeContext<'_>) -> Result<()> {
        self.attempt = context.attempt();
        self.ints = (context.accumulator("int")?, context.accumulator("int min")?, context.accumulator("int max")?);
        self.longs = (context.accumulator("long")?, context.accumulator("long min")?, context.accumulator("long max")?);
        self.doubles =
            (context.accumulator("double")?, context.accumulator("double min")?, context.accumulator("double max")?);
        self.average = context.accumulator("average")?;
        self.histogram = context.accumulator("histogram")?;
        self.list = context.accumulator("list")?;
        self.digits = context.accumulator("digits")?;
        Ok(())
    }

    fn map(&mut self, n: i64, _context: &mut Context<'_, ()>) -> Result<i64> {
        if self.attempt < self.good_from && self.fails_at == Some(n) {
            return Err(Error::unavailable(format!("attempt {} fails", self.attempt)));
        }
        self.ints.0.add(n as i32)?;
        self.ints.1.add(n as i32)?;
        self.ints.2.add(n as i32)?;
        self.longs.0.add(n)?;
        self.longs.1.add(n)?;
        self.longs.2.add(n)?;
        self.doubles.0.add(n as f64 / 2.0)?;
        self.doubles.1.add(n as f64 / 2.0)?;
        self.doubles.2.add(n as f64 / 2.0)?;
        self.average.add(n as f64)?;
        self.histogram.add(n % 3)?;
        self.list.add((format!("n{n}"), n))?;
        self.digits.add(n.to_string())?;
        Ok(n)
    }
}

/// What `AddToAll` has to add up over 1 to 100.
fn check_all(result: &JobResult) {
    let sums = &result.accumulators;
    assert_eq!(sums.get::<IntCounter>("int").unwrap(), 5050);
    assert_eq!(
        (sums.get::<IntMinimum>("int min").unwrap(), sums.get::<IntMaximum>("int max").unwrap()),
        (Some(1), Some(100))
    );
    assert_eq!(sums.get::<LongCounter>("long").unwrap(), 5050);
    assert_eq!(
        (sums.get::<LongMinimum>("long min").unwrap(), sums.get::<LongMaximum>("long max").unwrap()),
        (Some(1), Some(100))
    );
    assert_eq!(sums.get::<DoubleCounter>("double").unwrap(), 2525.0);
    assert_eq!(sums.get::<DoubleMinimum>("double min").unwrap(), Some(0.5));
    assert_eq!(sums.get::<DoubleMaximum>("double max").unwrap(), Some(50.0));
    assert_eq!(sums.get::<Average>("average").unwrap(), Some(50.5));
    assert_eq!(sums.get::<Histogram>("histogram").unwrap(), BTreeMap::from([(0, 33), (1, 34), (2, 33)]));
    let mut list = sums.get::<ListAccumulator<(String, i64)>>("list").unwrap();
    list.sort_by_key(|(_, n)| *n);
    assert_eq!(list, (1..=100).map(|n| (format!("n{n}"), n)).collect::<Vec<_>>());
    assert_eq!(sums.get::<Digits>("digits").unwrap(), "011 121 220 320 420 520 620 720 820 920");
    assert_eq!(sums.shown()["average"], 50.5);
}

#[test]
fn every_kind_of_accumulator_is_merged_over_the_subtasks() {
    for parallelism in [1, 3] {
        let environment = environment(parallelism);
        environment.generate_sequence(1, 100).rebalance().rich_map(AddToAll::default()).filter(|_| false).print();
        check_all(&environment.execute("sums").unwrap());
    }
}

#[test]
fn what_a_failed_attempt_added_does_not_count() {
    for parallelism in [1, 3] {
        let environment = restarting(parallelism);
        let function = AddToAll { good_from: 2, fails_at: Some(90), ..AddToAll::default() };
        environment.generate_sequence(1, 100).rich_map(function).filter(|_| false).print();
        check_all(&environment.execute("sums").unwrap());
    }
}

#[test]
fn a_name_of_two_kinds_is_an_error_that_names_both() {
    #[derive(Clone)]
    struct Other;

    impl RichMapFunction<i64> for Other {
        type Output = i64;

        fn open(&mut self, context: &mut RuntimeContext<'_>) -> Result<()> {
            context.accumulator::<Histogram>("long").map(|_| ())
        }

        fn map(&mut self, n: i64, _context: &mut Context<'_, ()>) -> Result<i64> {
            Ok(n)
        }
    }

    let environment = restarting(3);
    environment
        .generate_sequence(1, 9)
        .rich_map(AddToAll::default())
        .rebalance()
        .rich_map(Other)
        .filter(|_| false)
        .print();
    let error = environment.execute("conflict").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Request);
    assert!(error.message().contains("accumulator 'long' is both '"), "{error}");
    assert!(error.message().contains("long counter") && error.message().contains("histogram"), "{error}");
}

#[test]
fn results_are_asked_for_by_name_and_kind() {
    let environment = environment(1);
    environment.generate_sequence(1, 9).rich_map(AddToAll::default()).filter(|_| false).print();
    let result = environment.execute("sums").unwrap();
    let error = result.accumulators.get::<LongCounter>("lonng").unwrap_err();
    assert!(error.to_string().contains("unknown accumulator 'lonng'; did you mean 'long'?"), "{error}");
    let error = result.accumulators.get::<Average>("long").unwrap_err();
    assert!(error.message().contains("accumulator 'long' is both 'long counter' and 'average'"), "{error}");
    let error = AccumulatorRef::<LongCounter>::default().add(1).unwrap_err();
    assert!(error.message().contains("long counter) is used that was not registered"), "{error}");
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn values_are_seen_while_the_job_runs() {
    static GO_ON: AtomicBool = AtomicBool::new(false);

    #[derive(Clone, Default)]
    struct Halting(AccumulatorRef<LongCounter>);

    impl RichMapFunction<i64> for Halting {
        type Output = i64;

        fn open(&mut self, context: &mut RuntimeContext<'_>) -> Result<()> {
            self.0 = context.accumulator("seen")?;
            Ok(())
        }

        fn map(&mut self, n: i64, _context: &mut Context<'_, ()>) -> Result<i64> {
            if n > 5 {
                eventually("somebody lets the job go on", || GO_ON.load(Ordering::SeqCst));
            }
            self.0.add(1)?;
            assert!(self.0.local_value()? > 0);
            Ok(n)
        }
    }

    let environment = Environment::local();
    environment
        .generate_sequence(1, 10)
        .set_parallelism(1)
        .rich_map(Halting::default())
        .set_parallelism(1)
        .filter(|_| false)
        .print();
    let job = environment.execute_async("live").unwrap();
    eventually("the first five are seen", || job.accumulators().get::<LongCounter>("seen").is_ok_and(|seen| seen == 5));
    assert!(job.outcome().is_none());
    GO_ON.store(true, Ordering::SeqCst);
    assert_eq!(job.join().unwrap().accumulators.get::<LongCounter>("seen").unwrap(), 10);
    assert_eq!(job.accumulators().get::<LongCounter>("seen").unwrap(), 10);
}

/// Counts how often each number comes.
#[derive(Clone, Default)]
struct Counts(AccumulatorRef<Histogram>);

impl RichMapFunction<i64> for Counts {
    type Output = i64;

    fn open(&mut self, context: &mut RuntimeContext<'_>) -> Result<()> {
        self.0 = context.accumulator("counts")?;
        Ok(())
    }

    fn map(&mut self, n: i64, _context: &mut Context<'_, ()>) -> Result<i64> {
        self.0.add(n)?;
        Ok(n)
    }
}

/// Keeps every number as a text of some length.
#[derive(Clone, Default)]
struct Texts(AccumulatorRef<ListAccumulator<String>>);

impl RichMapFunction<i64> for Texts {
    type Output = i64;

    fn open(&mut self, context: &mut RuntimeContext<'_>) -> Result<()> {
        self.0 = context.accumulator("texts")?;
        Ok(())
    }

    fn map(&mut self, n: i64, _context: &mut Context<'_, ()>) -> Result<i64> {
        self.0.add(format!("{n:01000}"))?;
        Ok(n)
    }
}

#[test]
fn a_list_counts_in_the_budget_with_what_its_values_hold() {
    let environment = environment(1);
    environment.set("taskmanager.memory.managed.size", "2 mb").set("execution.batch-rows", "100");
    // Their places in the list are 24 bytes each.
    let numbers = environment.generate_sequence(1, 20_000).rich_map(Texts::default());
    let error = numbers.filter(|_| false).collect().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exhausted, "{error}");
    assert!(error.to_string().contains("map"), "{error}");
}

#[test]
fn a_histogram_of_more_values_than_fit_into_memory_fails_the_job() {
    let environment = environment(2);
    environment.set("taskmanager.memory.managed.size", "1 mb").set("execution.batch-rows", "1000");
    let numbers = environment.generate_sequence(1, 1_000_000).rich_map(Counts::default());
    let error = numbers.filter(|_| false).collect().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exhausted, "{error}");
    assert!(error.to_string().contains("map"), "{error}");
}
