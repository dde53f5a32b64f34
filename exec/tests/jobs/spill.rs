//! Spill files are the job's own business: none is left behind however it ends, and one that somebody else wrote into is
//! reported, not read.
//!
//! The source hands out all its rows at once, so that a blocking edge with room for one batch spills, then pauses before it
//! ends, fails or goes on for ever. In the pause the files lie in the temporary directories, and a test does what it likes.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use futures::StreamExt;
use futures::future::BoxFuture;
use tidemill_core::clock::Clock;
use tidemill_core::graph::Partitioning;
use tidemill_core::source::{
    Boundedness, ListEnumerator, SequentialReader, Source, SourceContext, SourceReader, Split, SplitEnumerator,
    SplitStream,
};
use tidemill_core::{Error, ErrorKind, Result, Settings};
use tidemill_exec::exchange::SpillDirs;
use tidemill_exec::runtime::{Engine, Environment, JobHandle, simulate};

use crate::graph::{Pipeline, Rows, ended, settings};

const BATCHES: i64 = 20;
const BATCH_ROWS: i64 = 50;
const PAUSE: Duration = Duration::from_millis(200);

/// Rows `(n)`, then a pause, then the end.
#[derive(Clone, Debug)]
struct Burst(End);

#[derive(Clone, Copy, Debug)]
enum End {
    Well,
    Failure,
    Never,
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]))
}

impl Source for Burst {
    fn schema(&self) -> SchemaRef {
        schema()
    }

    fn boundedness(&self) -> Boundedness {
        Boundedness::Bounded
    }

    fn enumerator(&self, context: &SourceContext) -> Result<Box<dyn SplitEnumerator>> {
        Ok(Box::new(ListEnumerator::new((0..context.parallelism).map(|split| Split::new(split.to_string())))))
    }

    fn reader(&self, context: &SourceContext) -> Result<Box<dyn SourceReader>> {
        let (end, clock) = (self.0, context.clock.clone());
        let open = move |_split: Split| -> BoxFuture<'static, Result<SplitStream>> {
            let stream = burst(end, clock.clone());
            Box::pin(async move { Ok(stream) })
        };
        Ok(Box::new(SequentialReader::new(open)))
    }

    fn describe(&self) -> String {
        "burst".into()
    }
}

fn burst(end: End, clock: Arc<dyn Clock>) -> SplitStream {
    let batch = |batch: i64| {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(batch * BATCH_ROWS..(batch + 1) * BATCH_ROWS));
        Ok((RecordBatch::try_new(schema(), vec![numbers]).unwrap(), Vec::new()))
    };
    let last = async move {
        clock.sleep(PAUSE).await;
        match end {
            End::Well => None,
            End::Failure => Some(Err(Error::data("row 7 is torn"))),
            End::Never => std::future::pending().await,
        }
    };
    let last = futures::stream::once(last).filter_map(std::future::ready);
    // A step of the scheduler for each batch.
    let steps = futures::stream::iter(0..BATCHES).then(|number| async move {
        tokio::task::yield_now().await;
        number
    });
    steps.map(batch).chain(last).boxed()
}

/// Two producers and two consumers of a blocking edge that keeps one batch a channel in memory.
fn start(end: End, environment: &Environment) -> (JobHandle, Rows) {
    let read = Pipeline::read(Burst(end), None, 2);
    let blocking: Settings = settings(&[
        ("execution.buffer-timeout", "infinite"),
        ("execution.batch-rows", "10"),
        ("taskmanager.memory.network.max", "1"),
    ]);
    read.then_pass("n", Partitioning::Hash(vec![0]), 2).start(environment, &blocking).unwrap()
}

fn files(dirs: &[&Path]) -> Vec<PathBuf> {
    let entries = dirs.iter().flat_map(|dir| std::fs::read_dir(dir).unwrap());
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// A simulated job that spills into `dir`.
fn simulated_in<F: Future>(dir: &Path, program: impl FnOnce(Environment) -> F) -> F::Output {
    let spill = Arc::new(SpillDirs::new([dir.to_owned()]));
    simulate(5, |environment| program(Environment { spill, ..environment })).unwrap()
}

#[test]
fn a_job_that_ends_well_or_fails_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for end in [End::Well, End::Failure] {
        simulated_in(dir, |environment| async move {
            let (job, rows) = start(end, &environment);
            environment.clock.sleep(PAUSE / 2).await;
            assert!(environment.spill.spilled_bytes() > 0);
            assert_eq!(files(&[dir]).len(), 2, "one for each subtask of the source");
            match (end, ended(&job, &environment).await) {
                (End::Well, outcome) => {
                    outcome.unwrap();
                    assert_eq!(rows.count() as i64, 2 * BATCHES * BATCH_ROWS);
                }
                (_, outcome) => {
                    let error = outcome.unwrap_err();
                    assert_eq!((error.kind(), rows.count()), (ErrorKind::Data, 0));
                    assert!(error.to_string().starts_with("row 7 is torn (in source ("), "{error}");
                }
            }
            assert!(files(&[dir]).is_empty(), "{end:?}");
        });
    }
}

#[test]
fn a_job_that_is_cancelled_at_any_moment_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let mut held = 0;
    // By steps of the scheduler, so that the files are in every state; in the end by time.
    for steps in (0..60).chain([usize::MAX]) {
        held += simulated_in(dir, |environment| async move {
            let (job, rows) = start(End::Never, &environment);
            match steps {
                usize::MAX => environment.clock.sleep(PAUSE * 2).await,
                _ => {
                    for _ in 0..steps {
                        tokio::task::yield_now().await;
                    }
                }
            }
            let held = files(&[dir]).len();
            job.cancel();
            assert_eq!(ended(&job, &environment).await.unwrap_err().kind(), ErrorKind::Cancelled);
            assert!(files(&[dir]).is_empty(), "after {steps} steps");
            assert_eq!(rows.count(), 0);
            held
        });
    }
    assert!(held > 60, "most of them were cancelled while files lay there: {held}");
}

#[test]
fn real_threads_leave_no_file_in_any_directory_either() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let paths = [dirs[0].path(), dirs[1].path()];
    let engine = Engine::new(paths.map(Path::to_owned).to_vec()).unwrap();
    let environment = engine.environment();
    engine.block_on(async {
        for end in [End::Never, End::Failure, End::Well] {
            let (job, _) = start(end, environment);
            while files(&paths).len() < 2 && job.outcome().is_none() {
                environment.clock.sleep(Duration::from_millis(1)).await;
            }
            if matches!(end, End::Never) {
                job.cancel();
            }
            let outcome = ended(&job, environment).await;
            assert!(files(&paths).is_empty(), "{end:?}: {outcome:?}");
        }
    });
}

#[test]
fn a_flipped_bit_anywhere_is_reported_with_the_path_of_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for place in 0..24 {
        simulated_in(dir, |environment| async move {
            let (job, _) = start(End::Well, &environment);
            environment.clock.sleep(PAUSE / 2).await;
            let spilled = files(&[dir]);
            let path = &spilled[place % spilled.len()];
            let length = path.metadata().unwrap().len();
            let offset = length * place as u64 / 24;
            flip(path, offset);
            let error = ended(&job, &environment).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "byte {offset} of {length}: {error}");
            let (text, name) = (error.to_string(), path.display().to_string());
            assert!(text.contains(&name) && text.contains("(in pass ("), "{name}: {text}");
            assert!(files(&[dir]).is_empty());
        });
    }
}

fn flip(path: &Path, offset: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], offset).unwrap();
}
