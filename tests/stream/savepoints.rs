//! The state of a process function, read back with SQL from a savepoint of the running job.
//!
//! The source gives its numbers and never ends, so that what is kept is known when the savepoint is taken.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use arrow::util::pretty::pretty_format_batches;
use async_trait::async_trait;
use expect_test::{Expect, expect};
use serde::{Deserialize, Serialize};
use tidemill::Result;
use tidemill::stream::{
    Collector, Context, Environment, ListState, MapState, ProcessFunction, RuntimeContext, ValueState, Watermarks,
};
use tidemill_connectors::SequenceSource;
use tidemill_core::event::CheckpointId;
use tidemill_core::source::{
    Boundedness, Source, SourceContext, SourceReader, Split, SplitAssignment, SplitEnumerator,
};

use super::Setup;

/// A source that has more splits to come, which never come.
#[derive(Debug)]
struct NeverEnding(SequenceSource);

struct Waiting(Box<dyn SplitEnumerator>);

impl Source for NeverEnding {
    fn schema(&self) -> SchemaRef {
        self.0.schema()
    }

    fn boundedness(&self) -> Boundedness {
        Boundedness::Unbounded
    }

    fn enumerator(&self, context: &SourceContext) -> Result<Box<dyn SplitEnumerator>> {
        Ok(Box::new(Waiting(self.0.enumerator(context)?)))
    }

    fn reader(&self, context: &SourceContext) -> Result<Box<dyn SourceReader>> {
        self.0.reader(context)
    }

    fn describe(&self) -> String {
        "never ending".to_owned()
    }
}

#[async_trait]
impl SplitEnumerator for Waiting {
    async fn next_split(&mut self, subtask: usize) -> Result<SplitAssignment> {
        Ok(match self.0.next_split(subtask).await? {
            SplitAssignment::Finished => SplitAssignment::Later(Duration::from_millis(10)),
            other => other,
        })
    }

    fn add_back(&mut self, split: Split) {
        self.0.add_back(split);
    }

    fn snapshot(&mut self, checkpoint: CheckpointId) -> Result<Vec<u8>> {
        self.0.snapshot(checkpoint)
    }

    fn restore(&mut self, state: &[u8]) -> Result<()> {
        self.0.restore(state)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Seen {
    Never,
    Once(i64),
    Often { first: i64, times: u32 },
}

#[derive(Clone)]
struct Remembering {
    rows: Arc<AtomicUsize>,
    seen: ValueState<Seen>,
    all: ListState<i64>,
    halves: MapState<String, i64>,
}

impl ProcessFunction<i64, String> for Remembering {
    type Output = i64;

    fn open(&mut self, context: &mut RuntimeContext<'_>) -> Result<()> {
        self.seen = context.value_state("seen")?;
        self.all = context.list_state("all")?;
        self.halves = context.map_state("halves")?;
        Ok(())
    }

    fn process(&mut self, n: i64, context: &mut Context<'_, String>, _: &mut Collector<i64>) -> Result<()> {
        let seen = match self.seen.get(context.state())?.cloned().unwrap_or(Seen::Never) {
            Seen::Never => Seen::Once(n),
            Seen::Once(first) => Seen::Often { first, times: 2 },
            Seen::Often { first, times } => Seen::Often { first, times: times + 1 },
        };
        self.seen.set(context.state(), seen)?;
        self.all.add(context.state(), n)?;
        self.halves.put(context.state(), if n % 2 == 0 { "even" } else { "odd" }.to_owned(), n)?;
        if n % 5 == 0 {
            context.register_event_time_timer(1_000_000 + n)?;
        }
        if n == 7 {
            context.register_processing_time_timer(i64::MAX)?;
        }
        self.rows.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

fn check(query: &str, expected: &Expect) {
    let rows = tidemill::sql(query).unwrap();
    expected.assert_eq(&pretty_format_batches(&rows.batches).unwrap().to_string());
}

#[test]
fn values_lists_maps_and_timers_can_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let environment = Environment::local_with(Setup { parallelism: 2, gate: "0 ms", batch_rows: 4 }.settings());
    let rows = Arc::new(AtomicUsize::new(0));
    let function = Remembering {
        rows: rows.clone(),
        seen: ValueState::default(),
        all: ListState::default(),
        halves: MapState::default(),
    };
    let numbers = environment.from_source::<i64>(Arc::new(NeverEnding(SequenceSource::new("item", 1, 11))));
    let timed = numbers.assign_timestamps_and_watermarks(Watermarks::ascending(), |n| *n);
    let kept = timed.key_by(|n| if *n < 11 { format!("k{}", n % 2) } else { "last".to_owned() }).process(function);
    kept.name("remembering").uid("mine").print();
    let job = environment.execute_async("remember").unwrap();
    while rows.load(Ordering::SeqCst) < 11 {
        assert!(job.outcome().is_none(), "{:?}", job.outcome());
        std::thread::sleep(Duration::from_millis(5));
    }
    let saved = folder.path().join("saved");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(job.savepoint(saved.to_str().unwrap())).unwrap();
    let again = runtime.block_on(job.savepoint(saved.to_str().unwrap())).unwrap_err();
    assert!(again.message().contains("is not empty"), "{again}");
    job.cancel();
    job.join().unwrap_err();

    let read = |state: &str| format!("read_checkpoint('{}', operator => 'mine', state => '{state}')", saved.display());
    let key = "\"key\"";
    check(
        &format!("SELECT {key}, value FROM {} ORDER BY 1", read("seen")),
        &expect![[r#"
        +------+-------------------------------------------------------+
        | key  | value                                                 |
        +------+-------------------------------------------------------+
        | k0   | {variant: Often, Once: , Often: {first: 2, times: 5}} |
        | k1   | {variant: Often, Once: , Often: {first: 1, times: 5}} |
        | last | {variant: Once, Once: 11, Often: }                    |
        +------+-------------------------------------------------------+"#]],
    );
    check(
        &format!("SELECT {key}, array_sort(\"values\") AS list FROM {} ORDER BY 1", read("all")),
        &expect![[r#"
        +------+------------------+
        | key  | list             |
        +------+------------------+
        | k0   | [2, 4, 6, 8, 10] |
        | k1   | [1, 3, 5, 7, 9]  |
        | last | [11]             |
        +------+------------------+"#]],
    );
    check(
        &format!("SELECT {key}, entries FROM {} ORDER BY 1", read("halves")),
        &expect![[r#"
        +------+------------+
        | key  | entries    |
        +------+------------+
        | k0   | {even: 10} |
        | k1   | {odd: 9}   |
        | last | {odd: 11}  |
        +------+------------+"#]],
    );
    check(
        &format!("SELECT {key}, domain, time_millis, \"time\" FROM {} ORDER BY 2, 3", read("$timers")),
        &expect![[r#"
            +-----+------------+---------------------+--------------------------+
            | key | domain     | time_millis         | time                     |
            +-----+------------+---------------------+--------------------------+
            | k1  | event      | 1000005             | 1970-01-01T00:16:40.005Z |
            | k0  | event      | 1000010             | 1970-01-01T00:16:40.010Z |
            | k1  | processing | 9223372036854775807 |                          |
            +-----+------------+---------------------+--------------------------+"#]],
    );
    let states = format!("SELECT state, kind, SUM(\"rows\") AS n FROM read_checkpoint('{}')", saved.display());
    check(
        &format!("{states} WHERE operator = 'remembering' GROUP BY state, kind ORDER BY 1"),
        &expect![[r#"
        +-----------+------------+---+
        | state     | kind       | n |
        +-----------+------------+---+
        | $timers   | keyed      | 2 |
        | all       | keyed      | 3 |
        | halves    | keyed      | 3 |
        | seen      | keyed      | 3 |
        | watermark | union list | 2 |
        +-----------+------------+---+"#]],
    );
}
