//! Jobs with checkpoints and crashes, over each of the three kinds of store, in formats that are gone on with and others.

mod apart;
mod in_the_way;
mod neighbours;
mod rescaled;

use std::ops::Range;
use std::path::PathBuf;

use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use proptest::prelude::*;
use tidemill_core::sink::{SinkContext, WriterState};
use tidemill_core::watermark::Watermark;

use super::*;
use crate::conformance::ManualClock;
use crate::conformance::recovery::{Fate, Step, check_history};
use crate::conformance::uploads::Uploads;
use tidemill_core::clock::Clock;

/// Rows whose text is as long as their number says, and whose partitions come and go.
fn numbered(rows: Range<u64>) -> RecordBatch {
    let numbers: Vec<i64> = rows.map(|row| row as i64).collect();
    let text = |n: &i64| if n % 7 == 0 { None } else { Some(format!("{}-{n}", "x".repeat((n % 23) as usize))) };
    let columns: Vec<(&str, ArrayRef, bool)> = vec![
        ("n", Arc::new(Int64Array::from(numbers.clone())), true),
        ("s", Arc::new(StringArray::from(numbers.iter().map(text).collect::<Vec<_>>())), true),
        ("p", Arc::new(Int64Array::from_iter(numbers.iter().map(|n| (n % 5 > 0).then_some(n / 20)))), true),
    ];
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

/// A table somewhere.
struct Place {
    path: String,
    context: TableContext,
    uploads: Option<Arc<Uploads>>,
    store: Arc<dyn object_store::ObjectStore>,
    _directory: tempfile::TempDir,
}

/// The least size of the parts of an upload here, small enough that a test has many.
const UPLOAD_BYTES: usize = 64;

#[derive(Clone, Copy, Debug)]
enum Kind {
    Local,
    Uploads,
    Other,
}

fn place(kind: Kind) -> Place {
    let directory = tempfile::tempdir().unwrap();
    let memory = Arc::new(InMemory::new());
    let context = TableContext::new("job");
    let (path, stores, uploads): (_, _, Option<Arc<Uploads>>) = match kind {
        Kind::Local => (directory.path().join("t").to_str().unwrap().to_owned(), Stores::local(), None),
        Kind::Other => ("mem://lake/t".into(), Stores::local().with("mem://lake", memory.clone()), None),
        Kind::Uploads => {
            let uploads = Arc::new(Uploads::new(memory.clone(), UPLOAD_BYTES));
            let stores = Stores::local().with_multipart("mem://lake", memory.clone(), uploads.clone());
            ("mem://lake/t".into(), stores, Some(uploads))
        }
    };
    let store: Arc<dyn object_store::ObjectStore> = match kind {
        Kind::Local => Arc::new(object_store::local::LocalFileSystem::new_with_prefix(directory.path()).unwrap()),
        _ => memory,
    };
    Place { path, context: TableContext { stores, ..context }, uploads, store, _directory: directory }
}

impl Place {
    fn options(&self, more: &[(&str, &str)]) -> Options {
        Options::new(
            [("connector", "filesystem"), ("path", self.path.as_str())].into_iter().chain(more.iter().copied()),
        )
    }

    fn partitioned(self, columns: &[&str]) -> Self {
        let columns: Vec<String> = columns.iter().map(|column| (*column).to_owned()).collect();
        Self { context: TableContext { partitioned_by: columns.into(), ..self.context }, ..self }
    }

    fn replacing(self) -> Self {
        Self { context: TableContext { disposition: Disposition::Replace, ..self.context }, ..self }
    }

    fn sink(&self, more: &[(&str, &str)]) -> Result<Arc<dyn Sink>> {
        let sink = file_sink_of(&mut self.options(more), numbered(0..0).schema(), &self.context)?;
        Ok(Arc::new(sink.with_upload_bytes(UPLOAD_BYTES)))
    }

    async fn rows(&self, more: &[(&str, &str)]) -> Vec<String> {
        let source = crate::registry::source(self.options(more), numbered(0..0).schema(), &self.context).unwrap();
        let delivered = read_all(&*source, &source_context(1, 1_000)).await;
        match delivered {
            Ok(delivered) => delivered.sorted_rows(),
            // On a store there is no table before there is a file.
            Err(error) if error.kind() == ErrorKind::Unavailable => Vec::new(),
            Err(error) => panic!("{error}"),
        }
    }

    /// Everything that is there, by name.
    async fn names(&self) -> Vec<String> {
        use futures::TryStreamExt;
        let files: Vec<_> = self.store.list(None).try_collect().await.unwrap();
        let mut names: Vec<String> = files.iter().map(|file| file.location.to_string()).collect();
        names.sort_unstable();
        names
    }

    async fn run(&self, history: &[Step], more: &[(&str, &str)]) {
        let visible = async || self.rows(more).await;
        check_history(&|| self.sink(more), &numbered, history, 3, visible).await.unwrap();
        let hidden: Vec<_> = self.names().await.into_iter().filter(|name| name.contains("/.")).collect();
        assert!(hidden.is_empty(), "{hidden:?} after {history:?}");
        let open = self.uploads.as_ref().map_or(0, |uploads| uploads.open());
        assert_eq!(open, 0, "uploads are left after {history:?}");
    }
}

fn histories() -> impl Strategy<Value = Vec<Step>> {
    proptest::collection::vec(any::<u8>(), 0..80).prop_map(|bytes| Step::of_bytes(&bytes))
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::Local), Just(Kind::Uploads), Just(Kind::Other)]
}

const SMALL: (&str, &str) = ("sink.rolling-policy.file-size", "300 b");
const COMMITTED: (&str, &str) = ("sink.partition-commit.policy.kind", "success-file");

const TABLES: [&[(&str, &str)]; 6] = [
    &[("format", "csv"), ("csv.header", "true")],
    &[("format", "csv"), SMALL],
    &[("format", "json"), ("sink.rolling-policy.inactivity-interval", "1 s")],
    &[("format", "json"), ("json.compression", "gzip")],
    &[("format", "parquet"), SMALL],
    &[("format", "arrow")],
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn every_row_comes_once(history in histories(), kind in kinds(), table in 0..TABLES.len()) {
        block_on(place(kind).run(&history, TABLES[table]));
    }

    #[test]
    fn every_row_comes_once_in_partitions(history in histories(), kind in kinds(), table in 0..TABLES.len(), commits: bool) {
        let options: Vec<_> = TABLES[table].iter().copied().chain(commits.then_some(COMMITTED)).collect();
        block_on(place(kind).partitioned(&["p"]).run(&history, &options));
    }

    #[test]
    fn every_row_comes_once_in_the_place_of_old_ones(history in histories(), kind in kinds(), table in 0..TABLES.len(), in_partitions: bool) {
        let place = place(kind).replacing();
        let place = if in_partitions { place.partitioned(&["p"]) } else { place };
        block_on(place.run(&history, TABLES[table]));
    }
}

/// One file, gone on with by name over all that happens.
#[test]
fn one_file_over_crashes() {
    use Fate::{Committed, HalfCommitted, Lost, Uncommitted};
    let write = |rows| Step::Write { subtask: 0, rows };
    let history = [
        write(5),
        Step::Checkpoint(Committed),
        write(7),
        Step::Checkpoint(Uncommitted),
        write(9),
        Step::Checkpoint(Lost),
        write(11),
        Step::Checkpoint(HalfCommitted),
        write(2),
        Step::Crash,
        write(3),
    ];
    for format in ["csv", "json"] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(format!("f.{format}"));
        let open = || {
            let sink = file_sink(&path, format, WriteMode::Overwrite, 1, &[numbered(0..0)])?;
            Ok(Arc::new(sink) as Arc<dyn Sink>)
        };
        let visible = async || visible_rows(&path, &numbered(0..0).schema(), &[]).await;
        block_on(check_history(&open, &numbered, &history, 1, visible)).unwrap();
        assert_eq!(names(directory.path()), [format!("f.{format}")]);
    }
}

/// A writer of a sink with a clock that the test turns.
fn writer(sink: &dyn Sink, clock: &Arc<ManualClock>) -> Box<dyn tidemill_core::sink::SinkWriter> {
    let context = SinkContext { clock: clock.clone(), ..sink_context(0, 1, numbered(0..0).schema()) };
    sink.writer(&context).unwrap()
}

async fn write(writer: &mut Box<dyn tidemill_core::sink::SinkWriter>, rows: Range<u64>) {
    writer.write(Batch::append(numbered(rows))).await.unwrap();
}

#[test]
fn a_file_goes_on_until_the_policy_ends_it() {
    for (kind, format, files_of_checkpoint) in
        [(Kind::Local, "csv", 0), (Kind::Uploads, "csv", 0), (Kind::Other, "csv", 1), (Kind::Local, "parquet", 1)]
    {
        block_on(async {
            let place = place(kind);
            let sink = place.sink(&[("format", format)]).unwrap();
            sink.prepare().unwrap();
            let clock = Arc::new(ManualClock::default());
            let mut writer = writer(&*sink, &clock);
            write(&mut writer, 0..5).await;
            let complete = writer.prepare_commit(Some(1)).await.unwrap();
            assert_eq!(complete.len(), files_of_checkpoint, "{kind:?} {format}");
            assert_eq!(writer.snapshot(1).await.unwrap().len(), 1 - files_of_checkpoint);
            write(&mut writer, 5..9).await;
            clock.sleep(std::time::Duration::from_secs(61)).await;
            writer.flush().await.unwrap();
            assert_eq!(writer.prepare_commit(Some(2)).await.unwrap().len(), 1, "a minute of silence ends it");
            assert!(writer.snapshot(2).await.unwrap().is_empty());
        });
    }
}

#[test]
fn what_is_gone_is_an_error_and_not_less_rows() {
    for kind in [Kind::Local, Kind::Uploads] {
        block_on(async {
            let place = place(kind);
            let sink = place.sink(&[("format", "csv")]).unwrap();
            let clock = Arc::new(ManualClock::default());
            let committer = sink.prepare().unwrap();
            let mut first = writer(&*sink, &clock);
            write(&mut first, 0..40).await;
            assert!(first.prepare_commit(Some(1)).await.unwrap().is_empty());
            let states = first.snapshot(1).await.unwrap();
            let complete = first.prepare_commit(None).await.unwrap();

            // A later checkpoint committed what this one was to go on with.
            committer.commit(complete.clone()).await.unwrap();
            let error = writer(&*sink, &clock).restore(states.clone()).await.unwrap_err().to_string();
            assert!(error.contains("was committed by a later checkpoint than this one"), "{error}");

            for name in place.names().await {
                place.store.delete(&object_store::path::Path::from(name)).await.unwrap();
            }
            let error = writer(&*sink, &clock).restore(states).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            assert!(error.to_string().contains("its rows would be lost"), "{error}");
            let error = committer.commit(complete).await.unwrap_err();
            assert!(error.to_string().contains("its rows would be lost"), "{error}");
            let error = writer(&*sink, &clock).restore(vec![WriterState(b"x".to_vec())]).await.unwrap_err();
            assert_eq!(error.to_string(), "the state of a file sink is not readable");
        });
    }
}

/// The job that took it goes on, and so does any number of others.
#[test]
fn a_savepoint_has_whole_files_and_who_begins_from_it_leaves_the_others_alone() {
    for kind in [Kind::Local, Kind::Uploads, Kind::Other] {
        block_on(async {
            let mut place = place(kind);
            let clock = Arc::new(ManualClock::default());
            let sink = place.sink(&[("format", "csv")]).unwrap();
            let committer = sink.prepare().unwrap();
            let mut first = writer(&*sink, &clock);
            write(&mut first, 0..40).await;
            let saved = first.prepare_savepoint(1).await.unwrap();
            assert!(first.snapshot(1).await.unwrap().is_empty(), "{kind:?}");
            write(&mut first, 40..60).await;
            for name in ["second", "third"] {
                place.context = TableContext { job: name.into(), ..place.context };
                let sink = place.sink(&[("format", "csv")]).unwrap();
                let committer = sink.prepare().unwrap();
                committer.recover(saved.clone(), &[], Predecessor::Other).await.unwrap();
                let mut other = writer(&*sink, &clock);
                write(&mut other, 100..110).await;
                committer.commit(other.prepare_commit(None).await.unwrap()).await.unwrap();
                committer.finish().await.unwrap();
            }
            let rest = first.prepare_commit(None).await.unwrap();
            committer.commit([saved, rest].concat()).await.unwrap();
            committer.finish().await.unwrap();
            let mut expected = rows_as_text(&numbered(0..60)).unwrap();
            let others = rows_as_text(&numbered(100..110)).unwrap();
            expected.extend(others.iter().chain(&others).cloned());
            expected.sort_unstable();
            assert_eq!(place.rows(&[("format", "csv")]).await, expected, "{kind:?}");
        });
    }
}

/// A store that is away when a part ends must not cost what a checkpoint holds of it.
#[test]
fn a_failure_leaves_what_a_checkpoint_holds() {
    block_on(async {
        let place = place(Kind::Uploads);
        let (sink, uploads) = (place.sink(&[("format", "csv")]).unwrap(), place.uploads.clone().unwrap());
        let committer = sink.prepare().unwrap();
        let clock = Arc::new(ManualClock::default());
        let mut first = writer(&*sink, &clock);
        write(&mut first, 0..40).await;
        assert!(first.prepare_commit(Some(1)).await.unwrap().is_empty());
        let states = first.snapshot(1).await.unwrap();
        write(&mut first, 40..41).await;
        uploads.go_away(true);
        assert!(first.prepare_commit(None).await.is_err());
        uploads.go_away(false);
        drop(first);
        committer.recover(Vec::new(), &states, Predecessor::Own).await.unwrap();
        let mut second = writer(&*sink, &clock);
        second.restore(states).await.unwrap();
        write(&mut second, 40..50).await;
        committer.commit(second.prepare_commit(None).await.unwrap()).await.unwrap();
        committer.finish().await.unwrap();
        let mut expected = rows_as_text(&numbered(0..50)).unwrap();
        expected.sort_unstable();
        assert_eq!(place.rows(&[("format", "csv")]).await, expected);
    });
}

#[test]
fn an_aborted_job_leaves_nothing_wherever_it_was() {
    for kind in [Kind::Local, Kind::Uploads, Kind::Other] {
        block_on(async {
            let place = place(kind).partitioned(&["p"]);
            let options = [("format", "csv"), COMMITTED, ("sink.partition-commit.delay", "1 d")];
            let sink = place.sink(&options).unwrap();
            let committer = sink.prepare().unwrap();
            let clock = Arc::new(ManualClock::default());
            let mut writer = writer(&*sink, &clock);
            write(&mut writer, 0..40).await;
            writer.prepare_commit(Some(1)).await.unwrap();
            writer.snapshot(1).await.unwrap();
            write(&mut writer, 40..80).await;
            drop(writer);
            committer.abort().await.unwrap();
            assert!(place.names().await.is_empty(), "{:?}", place.names().await);
            assert_eq!(place.uploads.as_ref().map_or(0, |uploads| uploads.open()), 0);
            assert!(!Path::new(&place.path).exists());
        });
    }
}

#[test]
fn a_partition_is_committed_when_its_time_has_passed() {
    block_on(async {
        let place = place(Kind::Local).partitioned(&["s"]);
        let options = [
            ("format", "csv"),
            COMMITTED,
            ("sink.partition-commit.trigger", "partition-time"),
            ("sink.partition-commit.delay", "1 h"),
            ("sink.partition-commit.success-file.name", "_DONE"),
            ("partition.time-extractor.timestamp-pattern", "$s:00:00"),
        ];
        let sink = place.sink(&options).unwrap();
        let committer = sink.prepare().unwrap();
        let rows = |hour: &str| {
            let columns: Vec<(&str, ArrayRef, bool)> = vec![
                ("n", Arc::new(Int64Array::from(vec![1])), true),
                ("s", Arc::new(StringArray::from(vec![hour])), true),
                ("p", Arc::new(Int64Array::from(vec![1])), true),
            ];
            Batch::append(RecordBatch::try_from_iter_with_nullable(columns).unwrap())
        };
        let clock = Arc::new(ManualClock::default());
        let contexts = [0, 1]
            .map(|subtask| SinkContext { clock: clock.clone(), ..sink_context(subtask, 2, numbered(0..0).schema()) });
        let mut writers = contexts.map(|context| sink.writer(&context).unwrap());
        writers[0].write(rows("1970-01-01 01")).await.unwrap();
        writers[0].write(rows("1970-01-01 02")).await.unwrap();
        writers[1].write(rows("1970-01-01 01")).await.unwrap();
        let done = async || {
            let names = place.names().await;
            names
                .into_iter()
                .filter(|name| name.ends_with("_DONE"))
                .map(|name| name[..16].to_owned())
                .collect::<Vec<_>>()
        };
        let hour = 3_600_000;
        let mut checkpoint = 0;
        for (first, second, expected) in [
            (hour, hour, vec![]),
            (3 * hour, 2 * hour - 1, vec![]),
            (3 * hour, 2 * hour, vec!["t/s=1970-01-01 01"[..16].to_owned()]),
        ] {
            checkpoint += 1;
            let mut complete = Vec::new();
            for (writer, watermark) in writers.iter_mut().zip([first, second]) {
                writer.watermark(Watermark(watermark)).await.unwrap();
                complete.push(writer.prepare_commit(Some(checkpoint)).await.unwrap());
                writer.snapshot(checkpoint).await.unwrap();
            }
            // The committables of a checkpoint may come one by one, and to a committer that begins anew.
            let committer = sink.prepare().unwrap();
            for complete in complete {
                committer.commit(complete).await.unwrap();
            }
            assert_eq!(done().await, expected, "{first} {second}");
        }
        for writer in &mut writers {
            committer.commit(writer.prepare_commit(None).await.unwrap()).await.unwrap();
        }
        committer.finish().await.unwrap();
        assert_eq!(done().await.len(), 2, "at the end all partitions are over");
        assert_eq!(place.rows(&options).await.len(), 3);
    });
}

/// A partition whose time has not passed when its job ends, whether or not its last checkpoint was committed, and whether or not its
/// file was complete by then. The job that goes on writes nothing there.
#[test]
fn a_partition_that_is_pending_over_a_restart_is_committed_once_when_the_clock_says_so() {
    let minutes = |minutes: u64| std::time::Duration::from_secs(60 * minutes);
    let kinds = [Kind::Local, Kind::Uploads, Kind::Other].into_iter();
    let cases = kinds.flat_map(|kind| [(kind, "parquet", true), (kind, "parquet", false), (kind, "csv", true)]);
    for (kind, format, is_committed) in cases.chain([(Kind::Local, "csv", false)]) {
        let options = [
            ("format", format),
            // What can go on does so over the restart.
            ("sink.rolling-policy.inactivity-interval", "1 d"),
            ("sink.rolling-policy.rollover-interval", "1 d"),
            COMMITTED,
            ("sink.partition-commit.trigger", "process-time"),
            ("sink.partition-commit.delay", "1 h"),
        ];
        block_on(async {
            let place = place(kind).partitioned(&["p"]);
            let clock = Arc::new(ManualClock::default());
            let done = async || {
                let names = place.names().await;
                names.into_iter().filter(|name| name.ends_with("/_SUCCESS")).collect::<Vec<_>>()
            };
            let sink = place.sink(&options).unwrap();
            let committer = sink.prepare().unwrap();
            let mut first = writer(&*sink, &clock);
            write(&mut first, 1..5).await;
            clock.sleep(minutes(10)).await;
            let complete = first.prepare_commit(Some(1)).await.unwrap();
            let states = first.snapshot(1).await.unwrap();
            assert_eq!(states.is_empty(), format == "parquet" || matches!(kind, Kind::Other), "{kind:?} {format}");
            if is_committed {
                committer.commit(complete.clone()).await.unwrap();
            }
            drop((first, committer, sink));

            let sink = place.sink(&options).unwrap();
            let committer = sink.prepare().unwrap();
            committer.recover(complete, &states, Predecessor::Own).await.unwrap();
            let mut second = writer(&*sink, &clock);
            second.restore(states).await.unwrap();
            let mut checkpoint = 1;
            let mut goes_on = async |pause: std::time::Duration| {
                checkpoint += 1;
                clock.sleep(pause).await;
                let complete = second.prepare_commit(Some(checkpoint)).await.unwrap();
                second.snapshot(checkpoint).await.unwrap();
                committer.commit(complete).await.unwrap();
                done().await
            };
            assert_eq!(goes_on(minutes(49)).await, Vec::<String>::new(), "{kind:?}: an hour is not over");
            let over = goes_on(minutes(1)).await;
            assert!(matches!(over.as_slice(), [file] if file.ends_with("/p=0/_SUCCESS")), "{kind:?}: {over:?}");
            place.store.delete(&object_store::path::Path::from(over[0].as_str())).await.unwrap();
            assert_eq!(goes_on(minutes(90)).await, Vec::<String>::new(), "{kind:?}: it was committed before");
            committer.finish().await.unwrap();
            assert_eq!(done().await, Vec::<String>::new(), "{kind:?}: nor does the end commit it again");
            let mut expected = rows_as_text(&numbered(1..5)).unwrap();
            expected.sort_unstable();
            assert_eq!(place.rows(&options).await, expected, "{kind:?}");
        });
    }
}

#[test]
fn partitions_beyond_the_bound_are_closed_and_come_back() {
    block_on(async {
        let place = place(Kind::Local).partitioned(&["n"]);
        let sink = place.sink(&[("format", "csv")]).unwrap();
        let committer = sink.prepare().unwrap();
        let clock = Arc::new(ManualClock::default());
        let mut writer = writer(&*sink, &clock);
        write(&mut writer, 0..150).await;
        write(&mut writer, 0..150).await;
        writer.prepare_commit(Some(1)).await.unwrap().len();
        assert_eq!(writer.snapshot(1).await.unwrap().len(), 100);
        drop(committer);
    });
}
