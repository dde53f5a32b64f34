//! What comes of rows when a job fails and restarts, where a connector can neither take rows back nor ask for them again.
//!
//! Sinks that show rows at once: the job fails behind a checkpoint and goes on from it, so what was shown since comes again, and nothing
//! is missing. A source without positions: what was on its way is gone, and what came before comes once.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arrow::datatypes::{DataType, Field, Schema};
use tidemill::stream::{Context, DataStream, Environment, JobHandle, RichMapFunction, RuntimeContext};
use tidemill::{Error, Result};
use tidemill_connectors::formats::Format;
use tidemill_connectors::formats::compression::Compression;
use tidemill_connectors::print::PrintSink;
use tidemill_connectors::socket::{SocketOptions, SocketSink};
use tidemill_core::sink::Sink;

use super::recovery::newest_manifest;
use super::restarting;

const ROWS: i64 = 10_000;

/// How many rows are read before the first attempt looks for checkpoints.
const FAST: i64 = 100;

/// The first attempt fails when two more checkpoints are complete than when it had read so many rows: the second of them began later.
#[derive(Clone)]
struct FailsOnce {
    checkpoints: PathBuf,
    attempt: u32,
    /// The manifest that the first attempt waits for.
    awaited: Option<u64>,
    /// The row at which it failed.
    failed_at: Arc<AtomicI64>,
    /// The first row of the second attempt.
    from: Arc<AtomicI64>,
}

impl RichMapFunction<i64> for FailsOnce {
    type Output = i64;

    fn open(&mut self, context: &mut RuntimeContext<'_>) -> Result<()> {
        self.attempt = context.attempt();
        Ok(())
    }

    fn map(&mut self, n: i64, _context: &mut Context<'_, ()>) -> Result<i64> {
        if self.attempt > 0 {
            self.from.fetch_min(n, Ordering::SeqCst);
            return Ok(n);
        }
        if n >= FAST {
            std::thread::sleep(Duration::from_millis(1));
            let newest = newest_manifest(&self.checkpoints);
            if newest >= *self.awaited.get_or_insert(newest + 2) {
                self.failed_at.store(n, Ordering::SeqCst);
                return Err(Error::unavailable("the first attempt fails"));
            }
        }
        Ok(n)
    }
}

/// A job that restarts at once, and keeps checkpoints in a folder.
fn with_checkpoints(folder: &Path) -> Environment {
    let environment = restarting(2);
    environment.set("execution.checkpointing.interval", "5 ms").set("execution.buffer-timeout", "0 ms");
    environment.set("execution.checkpointing.dir", &folder.display().to_string());
    environment
}

/// Runs a job that fails once into a sink; the rows that `shown` finds there afterwards must be what at least once promises.
fn check_at_least_once(sink: impl FnOnce(&DataStream<i64>), shown: impl FnOnce() -> Vec<i64>) {
    let folder = tempfile::tempdir().unwrap();
    let (failed_at, from) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicI64::new(i64::MAX)));
    let function = FailsOnce {
        checkpoints: folder.path().to_owned(),
        attempt: 0,
        awaited: None,
        failed_at: failed_at.clone(),
        from: from.clone(),
    };
    let environment = with_checkpoints(folder.path());
    environment.set("execution.batch-rows", "1");
    let numbers = environment.generate_sequence(1, ROWS).set_parallelism(1);
    sink(&numbers.rich_map(function).set_parallelism(1));
    environment.execute("fails once").unwrap();
    let (failed_at, from) = (failed_at.load(Ordering::SeqCst), from.load(Ordering::SeqCst));
    assert!(FAST < from && from <= failed_at, "it failed at {failed_at} and went on from {from}");
    let mut times: BTreeMap<i64, usize> = BTreeMap::new();
    shown().into_iter().for_each(|n| *times.entry(n).or_default() += 1);
    for n in 1..=ROWS {
        let times = times.remove(&n).unwrap_or(0);
        // Only what came between the checkpoint and the failure may come again.
        let times_max = if (from..failed_at).contains(&n) { 2 } else { 1 };
        assert!(
            (1..=times_max).contains(&times),
            "{n} is there {times} times; failed at {failed_at}, then from {from}"
        );
    }
    assert!(times.is_empty(), "{times:?}");
}

/// What was printed.
#[derive(Clone, Default)]
struct Printed(Arc<Mutex<Vec<u8>>>);

impl Write for Printed {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Printed {
    fn sink(&self) -> Arc<dyn Sink> {
        Arc::new(PrintSink::new(self.clone()))
    }

    /// The values of all rows, of whichever subtask.
    fn rows(&self) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let value = |line: &str| Some(line.split_once("+I[")?.1.strip_suffix(']')?.to_owned());
        text.lines().map(|line| value(line).unwrap()).collect()
    }
}

#[test]
fn every_row_is_printed_at_least_once() {
    for parallelism in [1, 2] {
        let printed = Printed::default();
        check_at_least_once(
            |numbers| drop(numbers.add_sink(printed.sink()).set_parallelism(parallelism)),
            || printed.rows().iter().map(|row| row.parse().unwrap()).collect(),
        );
    }
}

/// What the peer of a socket sink hears last.
const END: &str = "end";

#[test]
fn every_row_is_sent_at_least_once() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // Each attempt has a connection of its own.
    let hearing = std::thread::spawn(move || {
        let mut heard = vec![];
        loop {
            let mut text = String::new();
            listener.accept().unwrap().0.read_to_string(&mut text).unwrap();
            if text == END {
                return heard;
            }
            // An attempt that failed may have been cut off in the middle of a line.
            let whole = text.rfind('\n').map_or(0, |end| end + 1);
            heard.extend(text[..whole].lines().map(|line| line.parse::<i64>().unwrap()));
        }
    });
    let options = SocketOptions {
        hostname: "127.0.0.1".to_owned(),
        port,
        delimiter: "\n".to_owned(),
        retries_max: Some(0),
        format: Format::Raw(Compression::None),
    };
    let schema = Arc::new(Schema::new(vec![Field::new("item", DataType::Utf8, false)]));
    let sink = Arc::new(SocketSink::new(options, schema).unwrap());
    let heard = || {
        TcpStream::connect(("127.0.0.1", port)).unwrap().write_all(END.as_bytes()).unwrap();
        hearing.join().unwrap()
    };
    check_at_least_once(
        |numbers| drop(numbers.map(|n| n.to_string()).set_parallelism(1).add_sink(sink).set_parallelism(1)),
        heard,
    );
}

/// Notes every line, and fails at a certain one.
#[derive(Clone, Default)]
struct Noting(Arc<Mutex<Vec<String>>>);

impl RichMapFunction<String> for Noting {
    type Output = String;

    fn map(&mut self, line: String, _context: &mut Context<'_, ()>) -> Result<String> {
        self.0.lock().unwrap().push(line.clone());
        match line.as_str() {
            "fail" => Err(Error::unavailable("it was told to")),
            _ => Ok(line),
        }
    }
}

/// Tries again until it is so, while the job runs.
fn until<T>(what: &str, job: &JobHandle, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(job.outcome().is_none(), "{what}: {:?}", job.outcome());
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn every_line_of_a_socket_is_read_at_most_once() {
    for batch_rows in ["1", "8192"] {
        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let (noted, printed) = (Noting::default(), Printed::default());
        let environment = with_checkpoints(folder.path());
        environment.set("execution.batch-rows", batch_rows);
        environment
            .socket_text_stream("127.0.0.1", listener.local_addr().unwrap().port(), "\n", Some(0))
            .rich_map(noted.clone())
            .set_parallelism(1)
            .add_sink(printed.sink())
            .set_parallelism(1);
        let job = environment.execute_async("lines").unwrap();
        let accept = || until("somebody connects", &job, || listener.accept().ok()).0;

        let mut peer = accept();
        peer.write_all(b"a\nb\n").unwrap();
        until("the first lines are printed", &job, || (printed.rows() == ["a", "b"]).then_some(()));
        let before = newest_manifest(folder.path());
        until("a checkpoint holds them", &job, || (newest_manifest(folder.path()) >= before + 2).then_some(()));
        // What stands behind the line that fails goes with the connection.
        peer.write_all(b"c\nfail\nd\n").unwrap();

        let mut peer = accept();
        peer.write_all(b"e\nf\n").unwrap();
        drop(peer);
        job.join().unwrap();
        assert_eq!(*noted.0.lock().unwrap(), ["a", "b", "c", "fail", "e", "f"]);
        // What was on its way to the sink is not read again.
        let rows: Vec<String> = printed.rows().into_iter().filter(|row| row != "c").collect();
        assert_eq!(rows, ["a", "b", "e", "f"]);
        assert!(printed.rows().len() <= 5, "{:?}", printed.rows());
    }
}
