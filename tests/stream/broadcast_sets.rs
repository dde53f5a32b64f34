//! Streams that functions get as a whole, on the whole engine: complete before `open`, one copy a worker, part of checkpoints
//! (SHR-01, SUB-25).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tidemill::stream::{
    AccumulatorRef, Collector, Context, Environment, LongCounter, LongMaximum, LongMinimum, OperatorListState,
    RichFlatMapFunction, RichMapFunction, RuntimeContext,
};
use tidemill::{Error, ErrorKind, Result};

use super::{check, environment, restarting};

/// Emits each number with the names that a broadcast variable has for it.
#[derive(Clone, Default)]
struct Named {
    names: Arc<BTreeMap<i64, Vec<String>>>,
}

fn names_of(names: Vec<(i64, String)>) -> BTreeMap<i64, Vec<String>> {
    let mut by_number: BTreeMap<i64, Vec<String>> = BTreeMap::new();
    names.into_iter().for_each(|(n, name)| by_number.entry(n).or_default().push(name));
    by_number.values_mut().for_each(|names| names.sort());
    by_number
}

impl RichFlatMapFunction<i64> for Named {
    type Output = (i64, String);

    fn open(&mut self, context: &mut RuntimeContext<'_>) -> Result<()> {
        let records = context.broadcast_variable::<(i64, String)>("names")?;
        assert_eq!(records.len(), 2_000);
        self.names = context.broadcast_variable_with("names", |names| Ok(names_of(names)))?;
        Ok(())
    }

    fn flat_map(&mut self, n: i64, _: &mut Context<'_, ()>, out: &mut Collector<(i64, String)>) -> Result<()> {
        out.extend(self.names.get(&n).into_iter().flatten().map(|name| (n, name.clone())));
        Ok(())
    }
}

#[test]
fn a_variable_is_complete_before_its_readers_open_also_when_both_come_from_one_source() {
    let expected = (0..1_000).flat_map(|n| [(n, format!("x{n}")), (n, format!("y{n}"))]).collect();
    check(expected, |environment| {
        let numbers = environment.generate_sequence(0, 999);
        let names = numbers.flat_map(|n, out| out.extend([(n, format!("x{n}")), (n, format!("y{n}"))]));
        numbers.rich_flat_map(Named::default()).with_broadcast_set(&names, "names")
    });
}

#[test]
fn subtasks_share_one_copy_which_is_gone_with_the_last_of_them() {
    static INITIALIZED: AtomicUsize = AtomicUsize::new(0);
    static OPENED: AtomicUsize = AtomicUsize::new(0);
    static COPY: std::sync::Mutex<Weak<Vec<i64>>> = std::sync::Mutex::new(Weak::new());

    #[derive(Clone, Default)]
    struct Sum(Arc<i64>);

    impl RichMapFunction<i64> for Sum {
        type Output = i64;

        fn open(&mut self, context: &mut RuntimeContext<'_>) -> Result<()> {
            let records = context.broadcast_variable::<i64>("numbers")?;
            let known = std::mem::replace(&mut *COPY.lock().unwrap(), Arc::downgrade(&records));
            assert!(known.upgrade().is_none_or(|known| Arc::ptr_eq(&known, &records)));
            self.0 = context.broadcast_variable_with("numbers", |numbers: Vec<i64>| {
                INITIALIZED.fetch_add(1, Ordering::SeqCst);
                Ok(numbers.into_iter().sum())
            })?;
            OPENED.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }

        fn map(&mut self, n: i64, _context: &mut Context<'_, ()>) -> Result<i64> {
            Ok(n + *self.0)
        }
    }

    let environment = environment(3);
    let numbers = environment.generate_sequence(1, 10);
    let sums = environment.from_elements([0, 1]).rebalance().rich_map(Sum::default());
    let mut sums = sums.with_broadcast_set(&numbers, "numbers").collect().unwrap();
    sums.sort();
    assert_eq!(sums, [55, 56]);
    assert_eq!((OPENED.load(Ordering::SeqCst), INITIALIZED.load(Ordering::SeqCst)), (3, 1));
    assert!(COPY.lock().unwrap().upgrade().is_none());
}

/// Adds to each number the sum of a variable, so many times.
#[derive(Clone)]
struct Times {
    k: i64,
    sum: Arc<i64>,
}

impl RichMapFunction<i64> for Times {
    type Output = i64;

    fn open(&mut self, context: &mut RuntimeContext<'_>) -> Result<()> {
        let k = self.k;
        self.sum =
            context.broadcast_variable_with("x", move |numbers: Vec<i64>| Ok(k * numbers.iter().sum::<i64>()))?;
        Ok(())
    }

    fn map(&mut self, n: i64, _context: &mut Context<'_, ()>) -> Result<i64> {
        Ok(n + *self.sum)
    }
}

/// Both operators are called 'map', read one set and run the same code, which has captured something else in each.
#[test]
fn operators_that_make_something_else_of_one_set_get_each_its_own() {
    check(vec![20, 21, 30, 31], |environment| {
        let (numbers, set) = (environment.from_elements([0, 1]), environment.generate_sequence(1, 4));
        let times = |k| numbers.rich_map(Times { k, sum: Arc::default() }).with_broadcast_set(&set, "x");
        times(2).union(&times(3))
    });
}

/// Reads a broadcast variable as records of another type.
#[derive(Clone)]
struct Reads(&'static str);

impl RichMapFunction<i64> for Reads {
    type Output = i64;

    fn open(&mut self, context: &mut RuntimeContext<'_>) -> Result<()> {
        context.broadcast_variable::<(String, i64)>(self.0).map(|_| ())
    }

    fn map(&mut self, n: i64, _context: &mut Context<'_, ()>) -> Result<i64> {
        Ok(n)
    }
}

#[test]
fn what_is_wrong_with_a_variable_is_said_with_its_name() {
    let refused = |program: &dyn Fn(&Environment) -> Result<Vec<i64>>, text: &str| {
        let error = program(&environment(2)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Request, "{error:?}");
        assert!(error.to_string().contains(text), "{error}");
    };
    let numbers = |environment: &Environment| environment.generate_sequence(1, 3);
    refused(&|e| numbers(e).rich_map(Reads("sums")).collect(), "unknown broadcast variable 'sums'");
    refused(
        &|e| numbers(e).rich_map(Reads("sumz")).with_broadcast_set(&numbers(e), "sums").collect(),
        "did you mean 'sums'?",
    );
    refused(
        &|e| numbers(e).rich_map(Reads("sums")).with_broadcast_set(&numbers(e), "sums").collect(),
        "broadcast variable 'sums': its columns are (item Int64), and those of (alloc::string::String, i64)",
    );
    refused(
        &|e| numbers(e).map(|n| n).with_broadcast_set(&numbers(e), "sums").collect(),
        "broadcast set 'sums' for 'map', which has no runtime context",
    );
    refused(
        &|e| {
            let named = numbers(e).rich_map(Reads("sums")).with_broadcast_set(&numbers(e), "sums");
            named.with_broadcast_set(&numbers(e), "sums").collect()
        },
        "'map' has two broadcast sets called 'sums'",
    );
    refused(
        &|e| {
            let lines = e.socket_text_stream("127.0.0.1", 9, "\n", None).map(|line| line.len() as i64);
            numbers(e).rich_map(Reads("sums")).with_broadcast_set(&lines, "sums").collect()
        },
        "broadcast set 'sums' of 'map' comes from source 'socket', which never ends",
    );
    refused(
        &|e| {
            let mapped = numbers(e).rich_map(Reads("sums"));
            mapped.with_broadcast_set(&mapped, "sums").collect()
        },
        "form a cycle",
    );
}

#[test]
fn a_variable_that_does_not_fit_into_memory_fails_the_job_with_its_name() {
    let environment = environment(2);
    environment.set("taskmanager.memory.managed.size", "100 kb");
    let numbers = environment.generate_sequence(1, 1_000_000);
    let sums = environment.generate_sequence(1, 3).rich_map(Reads("sums")).with_broadcast_set(&numbers, "sums");
    let error = sums.collect().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exhausted);
    assert!(error.message().contains("broadcast variable 'sums'"), "{error}");
}

#[test]
fn a_job_that_goes_on_from_a_checkpoint_has_its_variables_and_counts_from_zero() {
    static FAILED_AT: AtomicUsize = AtomicUsize::new(0);

    #[derive(Clone, Default)]
    struct Slow {
        attempt: u32,
        begin: Option<Instant>,
        /// How many records the subtask has seen, as operator state.
        count: OperatorListState<i64>,
        seen: AccumulatorRef<LongCounter>,
        least: AccumulatorRef<LongMinimum>,
        counted: AccumulatorRef<LongMaximum>,
    }

    impl RichMapFunction<i64> for Slow {
        type Output = i64;

        fn open(&mut self, context: &mut RuntimeContext<'_>) -> Result<()> {
            assert_eq!(context.broadcast_variable::<i64>("numbers")?.len(), 1_000);
            (self.attempt, self.begin) = (context.attempt(), Some(Instant::now()));
            self.count = context.operator_list("count")?;
            (self.seen, self.least) = (context.accumulator("seen")?, context.accumulator("least")?);
            self.counted = context.accumulator("counted")?;
            Ok(())
        }

        fn map(&mut self, n: i64, context: &mut Context<'_, ()>) -> Result<i64> {
            let count = self.count.get(context.lists())?.first().copied().unwrap_or(0) + 1;
            self.count.set(context.lists(), vec![count])?;
            self.counted.add(count)?;
            self.seen.add(1)?;
            self.least.add(n)?;
            if self.attempt == 0 && self.begin.is_some_and(|begin| begin.elapsed() > Duration::from_secs(2)) {
                FAILED_AT.store(n as usize, Ordering::SeqCst);
                return Err(Error::unavailable("the first attempt fails"));
            }
            Ok(n)
        }
    }

    let environment = restarting(2);
    environment.set("execution.checkpointing.interval", "20 ms").set("execution.batch-rows", "10");
    let numbers = environment.generate_sequence(1, 1_000);
    let slow = environment.generate_sequence(0, 9_999).set_parallelism(1).map(|n| {
        if FAILED_AT.load(Ordering::SeqCst) == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        n
    });
    let slow = slow.set_parallelism(1).rich_map(Slow::default()).set_parallelism(1);
    slow.with_broadcast_set(&numbers, "numbers").filter(|_| false).print();
    let result = environment.execute("goes on").unwrap();
    let least = result.accumulators.get::<LongMinimum>("least").unwrap().unwrap();
    let seen = result.accumulators.get::<LongCounter>("seen").unwrap();
    assert!(least > 0 && least as usize <= FAILED_AT.load(Ordering::SeqCst), "{least}");
    assert_eq!(seen, 10_000 - least);
    let counted = result.accumulators.get::<LongMaximum>("counted").unwrap();
    assert_eq!(counted, Some(10_000), "state goes on where accumulators begin anew");
}
