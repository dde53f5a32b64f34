//! Programs that go on where another left off: behind a savepoint, or from the last checkpoint of one that was given up.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidemill::stream::{
    Collector, Context, DataStream, Environment, JobHandle, MapState, OperatorListState, ProcessFunction,
    RuntimeContext, ValueState, Watermarks,
};
use tidemill::{Error, ErrorKind, Result};

use super::Setup;

const ROWS: i64 = 3000;
const KEYS: i64 = 17;

/// Of each key, which of its rows were seen and what its timer found at the end.
#[derive(Debug, Default)]
struct Log {
    rows: BTreeMap<i64, Vec<i64>>,
    fired: BTreeMap<i64, Vec<(i64, i64)>>,
    /// How many rows the subtask remembers that fired last.
    remembered: usize,
    /// How many rows are to be seen before the job is slow, so that it can be stopped on the way.
    fast: usize,
}

impl Log {
    fn seen(&self) -> usize {
        self.rows.values().map(Vec::len).sum()
    }
}

/// Counts the rows of each key, adds up their remainders, and tells at the end of time.
#[derive(Clone)]
struct Counting {
    log: Arc<Mutex<Log>>,
    count: ValueState<i64>,
    by_remainder: MapState<i64, i64>,
    everybody: OperatorListState<i64>,
}

impl Counting {
    fn new(log: &Arc<Mutex<Log>>) -> Self {
        let (count, by_remainder) = (ValueState::default(), MapState::default());
        Self { log: log.clone(), count, by_remainder, everybody: OperatorListState::default() }
    }
}

impl ProcessFunction<i64, i64> for Counting {
    type Output = i64;

    fn open(&mut self, context: &mut RuntimeContext<'_>) -> Result<()> {
        self.count = context.value_state("count")?;
        self.by_remainder = context.map_state("by remainder")?;
        self.everybody = context.operator_list("everybody")?;
        Ok(())
    }

    fn process(&mut self, n: i64, context: &mut Context<'_, i64>, _: &mut Collector<i64>) -> Result<()> {
        let count = self.count.get(context.state())?.copied().unwrap_or(0) + 1;
        self.count.set(context.state(), count)?;
        let sum = self.by_remainder.get(context.state(), &(n % 3))?.copied().unwrap_or(0) + n;
        self.by_remainder.put(context.state(), n % 3, sum)?;
        context.register_event_time_timer(ROWS + 1)?;
        self.everybody.add(context.lists(), n)?;
        let is_slow = {
            let mut log = self.log.lock().unwrap();
            log.rows.entry(n % KEYS).or_default().push(count);
            log.seen() > log.fast
        };
        if is_slow {
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    fn on_timer(&mut self, _: i64, context: &mut Context<'_, i64>, _: &mut Collector<i64>) -> Result<()> {
        let count = self.count.get(context.state())?.copied().unwrap_or(0);
        let mut sum = 0;
        for remainder in 0..3 {
            sum += self.by_remainder.get(context.state(), &remainder)?.copied().unwrap_or(0);
        }
        let (key, remembered) = (*context.key()?, self.everybody.get(context.lists())?.len());
        let mut log = self.log.lock().unwrap();
        log.fired.entry(key).or_default().push((count, sum));
        log.remembered = remembered;
        Ok(())
    }
}

/// Starts the program that counts the numbers to [`ROWS`] by their remainders, and is slow when `fast` of them have been seen.
fn start(log: &Arc<Mutex<Log>>, fast: usize, parallelism: usize, settings: &[(&str, &str)]) -> JobHandle {
    log.lock().unwrap().fast = fast;
    start_with(parallelism, settings, |numbers| drop(counted(numbers, log).uid("counting").print().uid("printed")))
}

/// Starts a program of the numbers to [`ROWS`].
fn start_with(parallelism: usize, settings: &[(&str, &str)], program: impl FnOnce(&DataStream<i64>)) -> JobHandle {
    let environment = Environment::local_with(Setup { parallelism, gate: "0 ms", batch_rows: 4 }.settings());
    for (key, value) in settings {
        environment.set(key, value);
    }
    program(&environment.generate_sequence(1, ROWS));
    environment.execute_async("count").unwrap()
}

fn timed(numbers: &DataStream<i64>) -> DataStream<i64> {
    numbers.assign_timestamps_and_watermarks(Watermarks::ascending(), |n| *n)
}

fn counted(numbers: &DataStream<i64>, log: &Arc<Mutex<Log>>) -> DataStream<i64> {
    timed(numbers).key_by(|n| n % KEYS).process(Counting::new(log)).name("counting")
}

/// Waits until the job is slow.
fn wait(log: &Arc<Mutex<Log>>, job: &JobHandle) {
    loop {
        assert!(job.outcome().is_none(), "{:?}", job.outcome());
        let log = log.lock().unwrap();
        if log.seen() >= log.fast {
            return;
        }
        drop(log);
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn now<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// What every key has in the end.
fn expected() -> BTreeMap<i64, Vec<(i64, i64)>> {
    let rows = |key: i64| (1..=ROWS).filter(move |n| n % KEYS == key);
    (0..KEYS).map(|key| (key, vec![(rows(key).count() as i64, rows(key).sum())])).collect()
}

/// Each row was counted once, none before another of its key; timers fired, and lists have all of their elements.
fn check_whole(log: &Log, of: &str) {
    assert_eq!(log.fired, expected(), "{of}");
    for (key, rows) in &log.rows {
        assert!(rows.iter().copied().eq(1..=expected()[key][0].0), "{of}: key {key}: {rows:?}");
    }
    assert_eq!(log.remembered, ROWS as usize, "{of}: the elements of all lists");
}

#[test]
fn a_program_goes_on_from_a_savepoint_at_another_parallelism() {
    for backend in ["memory", "filesystem", "rocksdb"] {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| folder.path().join(name).display().to_string();
        let (log, kept) = (Arc::new(Mutex::new(Log::default())), place("kept"));
        let settings = [
            ("state.backend.type", backend),
            ("execution.checkpointing.interval", "20 ms"),
            ("execution.checkpointing.dir", &kept),
        ];
        let job = start(&log, 500, 2, &settings);
        wait(&log, &job);
        now(job.stop(false, &place("first"))).unwrap();
        let from = place("first");
        let job = start(&log, 1500, 3, &[&settings[..], &[("execution.state-recovery.path", &from)]].concat());
        wait(&log, &job);
        now(job.stop(false, &place("second"))).unwrap();
        assert!(log.lock().unwrap().fired.is_empty(), "{backend}: a timer fired before its time");
        let from = place("second");
        start(&log, usize::MAX, 1, &[&settings[..], &[("execution.state-recovery.path", &from)]].concat())
            .join()
            .unwrap();
        check_whole(&log.lock().unwrap(), backend);
    }
}

#[test]
fn a_program_goes_on_from_the_checkpoints_of_one_that_was_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let (log, kept) = (Arc::new(Mutex::new(Log::default())), folder.path().join("kept").display().to_string());
    let settings = [("execution.checkpointing.interval", "5 ms"), ("execution.checkpointing.dir", kept.as_str())];
    let job = start(&log, 1500, 2, &settings);
    wait(&log, &job);
    job.cancel();
    assert_eq!(job.join().unwrap_err().kind(), ErrorKind::Cancelled);
    let from = job.checkpoints().unwrap();
    assert!(from.starts_with(&kept) && from.contains("count-"), "{from}");
    let seen = log.lock().unwrap().seen();
    let job = start(&log, usize::MAX, 3, &[&settings[..], &[("execution.state-recovery.path", from)]].concat());
    assert_ne!(job.checkpoints().unwrap(), from);
    job.join().unwrap();
    let log = log.lock().unwrap();
    assert_eq!(log.fired, expected());
    // What the checkpoints hold was not done again.
    let again = log.seen() - seen;
    assert!(again < ROWS as usize, "{again} rows were read by the second job");
}

/// The numbers, in a task that a program did not have before; how many of them there were.
fn passed(numbers: &DataStream<i64>) -> (DataStream<i64>, Arc<AtomicI64>) {
    let count = Arc::new(AtomicI64::new(0));
    let counter = count.clone();
    let negative = numbers.map(move |n| {
        counter.fetch_add(1, Ordering::SeqCst);
        -n
    });
    (negative.rebalance().map(|n| -n), count)
}

/// Starts the program whose source, function and sink have an identity each, and stops it on the way behind a savepoint; how many rows it
/// has read.
fn saved(log: &Arc<Mutex<Log>>, place: &str) -> i64 {
    log.lock().unwrap().fast = 500;
    let job = start_with(2, &[("execution.checkpointing.interval", "20 ms")], |numbers| {
        drop(counted(&numbers.uid("numbers"), log).uid("counting").print().uid("printed"));
    });
    wait(log, &job);
    now(job.stop(false, place)).unwrap();
    let mut log = log.lock().unwrap();
    log.fast = usize::MAX;
    assert!(log.fired.is_empty(), "a timer fired before its time");
    log.seen() as i64
}

#[test]
fn a_changed_program_goes_on_with_the_state_of_an_operator_that_has_kept_its_uid() {
    let folder = tempfile::tempdir().unwrap();
    let (log, place) = (Arc::new(Mutex::new(Log::default())), folder.path().join("saved").display().to_string());
    let read = saved(&log, &place);
    let from = [("execution.state-recovery.path", place.as_str())];
    // Without it the operator is another one, because it reads another.
    let job = start_with(1, &from, |numbers| {
        let (numbers, _) = passed(&numbers.uid("numbers"));
        drop(counted(&numbers, &log).print().uid("printed"));
    });
    let error = job.join().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Request, "{error}");
    assert!(error.message().contains("the checkpoint has state of 'counting"), "{error}");
    assert_eq!(log.lock().unwrap().seen() as i64, read);

    let mut count = Arc::default();
    let job = start_with(1, &from, |numbers| {
        let (numbers, passed) = passed(&numbers.uid("numbers"));
        count = passed;
        drop(counted(&numbers, &log).uid("counting").print().uid("printed"));
    });
    job.join().unwrap();
    assert_eq!(count.load(Ordering::SeqCst), ROWS - read, "the source went on from its position");
    check_whole(&log.lock().unwrap(), "a changed program");
}

#[test]
fn a_program_without_an_operator_that_has_state_is_refused_unless_it_drops_that() {
    let folder = tempfile::tempdir().unwrap();
    let (log, place) = (Arc::new(Mutex::new(Log::default())), folder.path().join("saved").display().to_string());
    let read = saved(&log, &place);
    let begin = |ignores: &str| {
        let mut count = Arc::default();
        let from = [
            ("execution.state-recovery.path", place.as_str()),
            ("execution.state-recovery.ignore-unclaimed-state", ignores),
        ];
        let job = start_with(2, &from, |numbers| {
            let (numbers, passed) = passed(&numbers.uid("numbers"));
            count = passed;
            timed(&numbers).filter(|_| false).print().uid("printed");
        });
        (job.join(), count.load(Ordering::SeqCst))
    };
    let (refused, passed) = begin("false");
    let error = refused.unwrap_err();
    assert_eq!((error.kind(), passed), (ErrorKind::Request, 0), "{error}");
    let message = error.message();
    assert!(message.contains("the checkpoint has state of 'counting") && message.contains("does not have"), "{error}");
    assert!(!message.contains("numbers") && !message.contains("print"), "only what is not there is named: {error}");
    assert!(error.to_string().contains("allow non-restored state to drop it"), "{error}");

    let (accepted, passed) = begin("true");
    accepted.unwrap();
    assert_eq!(passed, ROWS - read, "the source went on from its position");
}

#[test]
fn what_a_program_cannot_begin_from_is_named() {
    let log = Arc::new(Mutex::new(Log::default()));
    let job = start(&log, usize::MAX, 1, &[("execution.state-recovery.path", "/nowhere/at/all")]);
    let error = job.join().unwrap_err();
    assert!(error.message().contains("/nowhere/at/all"), "{error}");
    assert!(log.lock().unwrap().rows.is_empty());
    assert_eq!(job.checkpoints(), None);
}

#[test]
fn the_backend_filesystem_takes_no_checkpoints_without_a_folder() {
    let log = Arc::new(Mutex::new(Log::default()));
    let settings = [("state.backend.type", "filesystem"), ("execution.checkpointing.interval", "5 ms")];
    let error = start(&log, usize::MAX, 1, &settings).join().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Request);
    assert!(error.to_string().contains("set execution.checkpointing.dir"), "{error}");
    assert!(log.lock().unwrap().rows.is_empty());
}

/// What `execution.checkpointing.externalized-checkpoint-retention` may be, and whether checkpoints outlive a program that is cancelled,
/// and one that fails.
const RETENTIONS: [(&str, bool, bool); 3] = [
    ("RETAIN_ON_CANCELLATION", true, true),
    ("DELETE_ON_CANCELLATION", false, true),
    ("NO_EXTERNALIZED_CHECKPOINTS", false, false),
];

fn files_below(folder: &Path) -> Vec<PathBuf> {
    // A job that is at work there deletes what is old.
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

/// The number of the newest manifest below a folder, 0 if there is none.
pub fn newest_manifest(folder: &Path) -> u64 {
    let is_manifest = |path: &PathBuf| path.parent().is_some_and(|parent| parent.ends_with("manifests"));
    let number = |path: PathBuf| path.file_name()?.to_str()?.parse::<u64>().ok();
    files_below(folder).into_iter().filter(is_manifest).filter_map(number).max().unwrap_or(0)
}

/// Whether a checkpoint below a folder is complete. The first manifest says no more than who has taken the folder over.
pub fn has_checkpoint(folder: &Path) -> bool {
    newest_manifest(folder) > 1
}

/// Begins from the checkpoints in a folder, which are there or not.
fn begin_from(folder: &str, settings: &[(&str, &str)], is_there: bool, what: &str) {
    let log = Arc::new(Mutex::new(Log::default()));
    let next = start(&log, usize::MAX, 1, &[settings, &[("execution.state-recovery.path", folder)]].concat());
    match next.join() {
        Ok(_) => assert!(is_there, "{what}: it began from nothing"),
        Err(error) => {
            let is_gone = error.message().contains("holds neither a savepoint nor a complete checkpoint");
            assert!(is_gone && !is_there, "{what}: {error}");
        }
    }
}

#[test]
fn cancelling_a_program_keeps_its_checkpoints_or_deletes_them() {
    for (retention, stays, _) in RETENTIONS {
        let folder = tempfile::tempdir().unwrap();
        let kept = folder.path().join("kept").display().to_string();
        let settings = [
            ("execution.checkpointing.interval", "5 ms"),
            ("execution.checkpointing.dir", kept.as_str()),
            ("execution.checkpointing.externalized-checkpoint-retention", retention),
        ];
        // Slow from its first row on.
        let job = start(&Arc::new(Mutex::new(Log::default())), 0, 2, &settings);
        let own = job.checkpoints().unwrap();
        while !has_checkpoint(Path::new(own)) {
            assert!(job.outcome().is_none(), "{retention}: {:?}", job.outcome());
            std::thread::sleep(Duration::from_millis(1));
        }
        job.cancel();
        assert_eq!(job.join().unwrap_err().kind(), ErrorKind::Cancelled, "{retention}");
        let left = files_below(Path::new(own));
        assert_eq!(!left.is_empty(), stays, "{retention}: {left:?}");
        begin_from(own, &settings[..2], stays, retention);
    }
}

#[test]
fn a_program_that_fails_keeps_its_checkpoints_unless_it_keeps_none() {
    for (retention, _, stays) in RETENTIONS {
        let folder = tempfile::tempdir().unwrap();
        let kept = folder.path().join("kept");
        let environment = Environment::local_with(Setup { parallelism: 2, gate: "0 ms", batch_rows: 4 }.settings());
        environment.set("execution.checkpointing.interval", "5 ms");
        environment.set("execution.checkpointing.dir", &kept.display().to_string());
        environment.set("execution.checkpointing.externalized-checkpoint-retention", retention);
        let numbers = environment.generate_sequence(1, 100_000).try_map(move |n| {
            std::thread::sleep(Duration::from_millis(1));
            match has_checkpoint(&kept) {
                true => Err(Error::data("there is a checkpoint")),
                false => Ok(n),
            }
        });
        numbers.print();
        let job = environment.execute_async("fails").unwrap();
        let error = job.join().unwrap_err();
        assert!(error.message().contains("there is a checkpoint"), "{retention}: {error}");
        let left = files_below(Path::new(job.checkpoints().unwrap()));
        assert_eq!(!left.is_empty(), stays, "{retention}: {left:?}");
    }
}
