//! Windows and timers of processing time: nothing is late, nothing is lost, the end of the input completes what is open, and a clock
//! that is set forward keeps nothing waiting.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use futures::StreamExt;
use futures::future::BoxFuture;
use tidemill::Result;
use tidemill::stream::{Collector, Context, DataStream, Environment, ProcessFunction, Session, Sliding, Tumbling};
use tidemill_core::clock::Clock;
use tidemill_core::source::{
    Boundedness, ListEnumerator, SequentialReader, Source, SourceContext, SourceReader, Split, SplitEnumerator,
    SplitStream,
};
use tidemill_exec::runtime::simulate;

use super::Setup;

#[test]
fn the_end_of_the_input_completes_every_window() {
    let environment = Environment::local();
    environment.set_parallelism(2);
    let numbers = environment.generate_sequence(1, 1_000).map(|n| (n % 3, n));
    for windows in [Tumbling::of(Duration::from_secs(3600)), Session::with_gap(Duration::from_secs(3600))] {
        let sums = numbers.key_by(|row| row.0).window(windows.in_processing_time()).sum(|row| &mut row.1);
        let mut totals: BTreeMap<i64, i64> = BTreeMap::new();
        for (key, sum) in sums.collect().unwrap() {
            *totals.entry(key).or_default() += sum;
        }
        let expected = (0..3).map(|key| (key, (1..=1_000).filter(|n| n % 3 == key).sum()));
        assert_eq!(totals, expected.collect());
    }
}

#[test]
fn a_window_fires_when_its_end_has_come_without_another_row() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("fired");
    let environment = Environment::local();
    environment.set_parallelism(1).set("execution.buffer-timeout", "0 ms");
    let (sender, fired) = std::sync::mpsc::channel();
    let sender = std::sync::Mutex::new(sender);
    environment
        .socket_text_stream("127.0.0.1", port, "\n", Some(0))
        .map(|word| (word, 1i64))
        .key_by(|row| row.0.clone())
        .window(Sliding::of(Duration::from_millis(100), Duration::from_millis(50)).in_processing_time())
        .sum(|row| &mut row.1)
        .map(move |row| {
            sender.lock().unwrap().send(row.clone()).unwrap();
            row
        })
        .write_as_text(path.to_str().unwrap(), Default::default());
    let job = environment.execute_async("processing time").unwrap();
    let (mut peer, _) = listener.accept().unwrap();
    peer.write_all(b"a\na\n").unwrap();
    // The connection stays open: only the clock can have fired these.
    let first = fired.recv_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!(first.0, "a");
    let mut total = first.1;
    while total < 4 {
        total += fired.recv_timeout(Duration::from_secs(20)).unwrap().1;
    }
    // Each row is in two windows.
    assert_eq!(total, 4);
    drop(peer);
    job.join().unwrap();
}

/// A clock that somebody sets: ahead, by so many milliseconds, of time that only goes on.
#[derive(Debug)]
struct SetClock {
    inner: Arc<dyn Clock>,
    ahead_millis: AtomicI64,
}

impl Clock for SetClock {
    fn now_millis(&self) -> i64 {
        self.inner.now_millis() + self.ahead_millis.load(Ordering::Relaxed)
    }

    fn monotonic(&self) -> Duration {
        self.inner.monotonic()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.inner.sleep(duration)
    }
}

const HOUR_MILLIS: i64 = 3_600_000;
/// When the numbers 1 to 3 come, and the end behind them, in seconds.
const COMES: [i64; 4] = [10, 20, 60, 70];

/// A source of these numbers.
#[derive(Debug)]
struct Paced;

impl Source for Paced {
    fn schema(&self) -> SchemaRef {
        Arc::new(Schema::new(vec![Field::new("item", DataType::Int64, false)]))
    }

    fn boundedness(&self) -> Boundedness {
        Boundedness::Bounded
    }

    fn enumerator(&self, _: &SourceContext) -> Result<Box<dyn SplitEnumerator>> {
        Ok(Box::new(ListEnumerator::new([Split::new("numbers")])))
    }

    fn reader(&self, context: &SourceContext) -> Result<Box<dyn SourceReader>> {
        let (schema, clock) = (self.schema(), context.clock.clone());
        let open = move |_: Split| -> BoxFuture<'static, Result<SplitStream>> {
            let stream = paced(schema.clone(), clock.clone());
            Box::pin(async move { Ok(stream) })
        };
        Ok(Box::new(SequentialReader::new(open)))
    }

    fn describe(&self) -> String {
        "paced".to_owned()
    }
}

fn paced(schema: SchemaRef, clock: Arc<dyn Clock>) -> SplitStream {
    let step = move |number: i64| {
        let (schema, clock) = (schema.clone(), clock.clone());
        async move {
            let until = Duration::from_secs(COMES[number as usize - 1] as u64);
            clock.sleep(until.saturating_sub(clock.monotonic())).await;
            let column: ArrayRef = Arc::new(Int64Array::from(vec![number]));
            // Behind the last number comes nothing.
            (number < 4).then(|| Ok((RecordBatch::try_new(schema, vec![column]).unwrap(), Vec::new())))
        }
    };
    futures::stream::iter(1..=4).then(step).filter_map(std::future::ready).boxed()
}

/// Tells of the number 1 an hour after it came.
#[derive(Clone)]
struct AnHourLater;

impl ProcessFunction<i64, i64> for AnHourLater {
    type Output = i64;

    fn process(&mut self, number: i64, context: &mut Context<'_, i64>, _: &mut Collector<i64>) -> Result<()> {
        match number {
            1 => context.register_processing_time_timer(context.current_processing_time() + HOUR_MILLIS),
            _ => Ok(()),
        }
    }

    fn on_timer(&mut self, _: i64, context: &mut Context<'_, i64>, out: &mut Collector<i64>) -> Result<()> {
        out.collect(*context.key()?);
        Ok(())
    }
}

/// What a program says of the paced numbers, and in which second, when the clock is set forward by two hours as number 2 comes.
fn set_forward(program: impl Fn(DataStream<i64>) -> DataStream<i64>) -> Vec<(i64, i64)> {
    let run = |mut engine: tidemill_exec::runtime::Environment| async move {
        let clock = Arc::new(SetClock { inner: engine.clock, ahead_millis: AtomicI64::new(0) });
        engine.clock = clock.clone();
        let settings = Setup { parallelism: 1, gate: "0 ms", batch_rows: 1 }.settings();
        let environment = Environment::within(engine, settings);
        let set = clock.clone();
        let numbers = environment.from_source::<i64>(Arc::new(Paced)).map(move |number| {
            if number == 2 {
                set.ahead_millis.store(2 * HOUR_MILLIS, Ordering::Relaxed);
            }
            number
        });
        let said = program(numbers).map(move |what| (what, clock.monotonic().as_secs() as i64));
        said.collect_async().await.unwrap()
    };
    simulate(1, run).unwrap()
}

/// The hour of number 1 is over when the clock is set, though not the hour that its wake-up sleeps; number 2 has it looked at. The end
/// completes what has begun behind.
#[test]
fn what_a_clock_that_is_set_forward_makes_due_fires_with_the_next_row() {
    let timers = set_forward(|numbers| numbers.key_by(|_| 0i64).process(AnHourLater));
    assert_eq!(timers, [(0, COMES[1])]);
    let windows = set_forward(|numbers| {
        let hours = Tumbling::of(Duration::from_millis(HOUR_MILLIS as u64)).in_processing_time();
        numbers.map(|number| (0i64, number)).key_by(|row| row.0).window(hours).sum(|row| &mut row.1).map(|row| row.1)
    });
    assert_eq!(windows, [(1, COMES[1]), (5, COMES[3])]);
}
