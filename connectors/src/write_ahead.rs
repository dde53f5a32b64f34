//! Writes at completed checkpoints to places that know nothing of checkpoints (CON-05).
//!
//! ```text
//! write -> encoded rows, in memory | prepare_commit -> committables: a marker and rows (Arrow IPC), stored in the checkpoint
//!                                  | commit         -> was the marker written? if not: write marker and rows outside
//! ```
//!
//! A place that can tell which markers it has seen, and takes marker and rows at once (a table of markers in the same
//! transaction, a document whose id is the marker), gets every row exactly once; any other at least once: what a write left
//! before it failed, or before the news of it was lost, is there beside what comes when the same rows are written again
//! (SNK-20).
//!
//! What cannot be written keeps nothing else from being written: everything is tried, then the first error is raised
//! (SUB-08). Only where a place takes changes does what one writer wrote wait behind its piece that failed: an older
//! change must not come to be after a newer one of the same key. Pieces of other writers have other keys, or no order
//! among them.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, RecordBatchOptions, UInt8Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt8Type};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use async_trait::async_trait;
use tidemill_core::batch::Batch;
use tidemill_core::error::{Error, Result};
use tidemill_core::event::CheckpointId;
use tidemill_core::sink::{ChangelogMode, Committable, Committer, Delivery, Sink, SinkContext, SinkWriter};

/// Encoded bytes of one committable, after which the next one begins: as much as is written outside at once.
const PIECE_BYTES: usize = 8 << 20;

/// A place that rows are written to.
///
/// Laws: when `write` returns without an error the rows are there and stay. Where `was_written` tells the truth, rows and
/// marker come to be at once or not at all.
#[async_trait]
pub trait Outside: Send + Sync + Debug {
    /// Which changes it takes.
    fn changelog_mode(&self) -> ChangelogMode;

    /// How it stands up to failures: [`Delivery::ExactlyOnce`] where `was_written` tells the truth, and [`Delivery::Idempotent`]
    /// where rows are written by key.
    fn delivery(&self) -> Delivery {
        Delivery::AtLeastOnce
    }

    /// Whether rows with this marker are there. Always `false` where that cannot be told.
    async fn was_written(&self, _marker: &str) -> Result<bool> {
        Ok(false)
    }

    /// Writes rows, in order. A marker stands for the same rows whenever it comes.
    async fn write(&self, marker: &str, batches: Vec<Batch>) -> Result<()>;

    /// What it is, for plans.
    fn describe(&self) -> String;
}

/// A sink that keeps the rows of a checkpoint in the checkpoint, and writes them outside when that is complete.
///
/// What comes between two checkpoints is in memory, encoded: the time between them bounds it.
#[derive(Debug)]
pub struct WriteAheadSink<O> {
    outside: Arc<O>,
    job: Arc<str>,
}

impl<O: Outside + 'static> WriteAheadSink<O> {
    /// A sink that writes to `outside` for `job`, whose name begins the markers.
    pub fn new(outside: O, job: impl Into<Arc<str>>) -> Self {
        Self { outside: Arc::new(outside), job: job.into() }
    }
}

impl<O: Outside + 'static> Sink for WriteAheadSink<O> {
    fn changelog_mode(&self) -> ChangelogMode {
        self.outside.changelog_mode()
    }

    fn delivery(&self) -> Delivery {
        self.outside.delivery()
    }

    fn prepare(&self) -> Result<Arc<dyn Committer>> {
        Ok(Arc::new(WriteAheadCommitter { outside: self.outside.clone() }))
    }

    fn writer(&self, context: &SinkContext) -> Result<Box<dyn SinkWriter>> {
        Ok(Box::new(WriteAheadWriter {
            markers: format!("{}.{}-{}", self.job, context.clock.now_millis(), context.subtask),
            next_piece: 0,
            piece: None,
            complete: Vec::new(),
        }))
    }

    fn describe(&self) -> String {
        self.outside.describe()
    }
}

struct WriteAheadWriter {
    /// How markers begin; they go on with the checkpoint and a number.
    markers: String,
    next_piece: u64,
    piece: Option<Piece>,
    complete: Vec<Vec<u8>>,
}

/// Rows on their way into one committable.
struct Piece {
    writer: StreamWriter<Vec<u8>>,
    schema: SchemaRef,
    has_kinds: bool,
}

impl Piece {
    fn new(batch: &Batch) -> Result<Self> {
        let (schema, has_kinds) = (batch.schema(), batch.kinds().is_some());
        let encoded = if has_kinds { with_kinds(&schema) } else { schema.clone() };
        Ok(Self { writer: StreamWriter::try_new(Vec::new(), &encoded)?, schema, has_kinds })
    }

    fn takes(&self, batch: &Batch) -> bool {
        self.has_kinds == batch.kinds().is_some() && self.schema == batch.schema()
    }

    fn write(&mut self, batch: Batch) -> Result<()> {
        let (records, kinds, _) = batch.into_parts();
        let Some(kinds) = kinds else { return Ok(self.writer.write(&records)?) };
        let mut columns = records.columns().to_vec();
        columns.push(Arc::new(UInt8Array::new(kinds, None)) as ArrayRef);
        Ok(self.writer.write(&RecordBatch::try_new(with_kinds(&self.schema), columns)?)?)
    }

    /// The rows as bytes, whether they have kinds in front.
    fn finish(mut self) -> Result<Vec<u8>> {
        self.writer.finish()?;
        let mut bytes = self.writer.into_inner()?;
        bytes.insert(0, u8::from(self.has_kinds));
        Ok(bytes)
    }
}

/// The columns of `schema`, then the kinds of rows.
fn with_kinds(schema: &SchemaRef) -> SchemaRef {
    let mut fields: Vec<_> = schema.fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new("kind", DataType::UInt8, false)));
    Arc::new(Schema::new(fields))
}

impl WriteAheadWriter {
    fn end_piece(&mut self) -> Result<()> {
        if let Some(piece) = self.piece.take() {
            self.complete.push(piece.finish()?);
        }
        Ok(())
    }
}

#[async_trait]
impl SinkWriter for WriteAheadWriter {
    async fn write(&mut self, batch: Batch) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        if self.piece.as_ref().is_some_and(|piece| !piece.takes(&batch)) {
            self.end_piece()?;
        }
        let piece = match &mut self.piece {
            Some(piece) => piece,
            none => none.insert(Piece::new(&batch)?),
        };
        piece.write(batch)?;
        match piece.writer.get_ref().len() >= PIECE_BYTES {
            true => self.end_piece(),
            false => Ok(()),
        }
    }

    async fn prepare_commit(&mut self, checkpoint: Option<CheckpointId>) -> Result<Vec<Committable>> {
        self.end_piece()?;
        let checkpoint = checkpoint.map_or("end".to_owned(), |checkpoint| checkpoint.to_string());
        let committables = self.complete.drain(..).map(|rows| {
            let marker = format!("{}-{checkpoint}-{}", self.markers, self.next_piece);
            self.next_piece += 1;
            encode(&marker, &rows)
        });
        committables.collect()
    }
}

/// `length of the marker (4 bytes) | marker | whether there are kinds (1 byte) | rows as an Arrow IPC stream`
fn encode(marker: &str, rows: &[u8]) -> Result<Committable> {
    let length = u32::try_from(marker.len()).map_err(|_| Error::internal("a marker is longer than 4 GiB"))?;
    Ok(Committable([&length.to_le_bytes()[..], marker.as_bytes(), rows].concat()))
}

fn decode(committable: &Committable) -> Result<(&str, Vec<Batch>)> {
    let (marker, rows) = cut(committable)?;
    let (has_kinds, rows) = rows.split_first().ok_or_else(corrupt)?;
    let rows = StreamReader::try_new(rows, None).map_err(|error| corrupt().with_source(error))?;
    let batch = |records: Result<RecordBatch, arrow::error::ArrowError>| {
        let records = records.map_err(|error| corrupt().with_source(error))?;
        if *has_kinds == 0 {
            return Ok(Batch::append(records));
        }
        let (kinds, columns) = records.columns().split_last().ok_or_else(corrupt)?;
        let kinds = kinds.as_primitive_opt::<UInt8Type>().ok_or_else(corrupt)?.values().clone();
        let schema = Arc::new(records.schema().project(&(0..columns.len()).collect::<Vec<_>>())?);
        let options = RecordBatchOptions::new().with_row_count(Some(records.num_rows()));
        Batch::changelog(RecordBatch::try_new_with_options(schema, columns.to_vec(), &options)?, kinds)
    };
    Ok((marker, rows.map(batch).collect::<Result<_>>()?))
}

/// Marker and rows.
fn cut(committable: &Committable) -> Result<(&str, &[u8])> {
    let (length, rest) = committable.0.split_first_chunk::<4>().ok_or_else(corrupt)?;
    let (marker, rows) = rest.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or_else(corrupt)?;
    Ok((std::str::from_utf8(marker).map_err(|error| corrupt().with_source(error))?, rows))
}

/// The part of a marker that all those of its writer have; `None` if it cannot be told.
fn writer_of(committable: &Committable) -> Option<&str> {
    let (marker, _) = cut(committable).ok()?;
    // Behind it come the checkpoint and a number.
    marker.rsplitn(3, '-').nth(2)
}

fn corrupt() -> Error {
    Error::corrupt("a committable of a write-ahead sink is not readable")
}

#[derive(Debug)]
struct WriteAheadCommitter<O> {
    outside: Arc<O>,
}

impl<O: Outside> WriteAheadCommitter<O> {
    async fn write_once(&self, committable: &Committable) -> Result<()> {
        let (marker, batches) = decode(committable)?;
        match self.outside.was_written(marker).await? {
            true => Ok(()),
            false => self.outside.write(marker, batches).await,
        }
    }
}

#[async_trait]
impl<O: Outside> Committer for WriteAheadCommitter<O> {
    async fn commit(&self, committables: Vec<Committable>) -> Result<()> {
        let is_ordered = self.outside.changelog_mode() != ChangelogMode::Append;
        let (mut outcome, mut failed) = (Ok(()), BTreeSet::new());
        for committable in &committables {
            let writer = writer_of(committable);
            if is_ordered && writer.is_some_and(|writer| failed.contains(writer)) {
                continue;
            }
            let written = self.write_once(committable).await;
            if written.is_err() {
                failed.extend(writer);
            }
            outcome = outcome.and(written);
        }
        outcome
    }

    async fn abort(&self) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::ops::Range;
    use std::sync::Mutex;

    use arrow::array::Int64Array;
    use futures::executor::block_on;
    use proptest::prelude::*;

    use super::*;
    use crate::conformance::recovery::{Step, check_history};
    use crate::conformance::{check_sink, rows_as_text, sink_context};

    /// A database: rows by marker.
    #[derive(Clone, Debug)]
    struct Database {
        rows: Arc<Mutex<BTreeMap<String, Vec<Batch>>>>,
        changelog_mode: ChangelogMode,
        /// The marker that is refused.
        refused: Arc<Mutex<Option<String>>>,
    }

    impl Default for Database {
        fn default() -> Self {
            Self { rows: Arc::default(), changelog_mode: ChangelogMode::Retract, refused: Arc::default() }
        }
    }

    impl Database {
        fn rows(&self) -> Vec<String> {
            let rows = self.rows.lock().unwrap();
            rows.values().flatten().flat_map(|batch| rows_as_text(batch.records()).unwrap()).collect()
        }
    }

    #[async_trait]
    impl Outside for Database {
        fn changelog_mode(&self) -> ChangelogMode {
            self.changelog_mode
        }

        fn delivery(&self) -> Delivery {
            Delivery::ExactlyOnce
        }

        async fn was_written(&self, marker: &str) -> Result<bool> {
            Ok(self.rows.lock().unwrap().contains_key(marker))
        }

        async fn write(&self, marker: &str, batches: Vec<Batch>) -> Result<()> {
            if self.refused.lock().unwrap().as_deref() == Some(marker) {
                return Err(Error::unavailable(format!("{marker} is refused")));
            }
            let before = self.rows.lock().unwrap().insert(marker.to_owned(), batches);
            assert!(before.is_none(), "a marker is written once");
            Ok(())
        }

        fn describe(&self) -> String {
            "database".into()
        }
    }

    fn numbers(rows: Range<u64>) -> RecordBatch {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.map(|row| row as i64)));
        RecordBatch::try_from_iter([("n", column)]).unwrap()
    }

    #[test]
    fn rows_are_written_when_they_are_committed() {
        let database = Database::default();
        let sink = || Ok(Arc::new(WriteAheadSink::new(database.clone(), "job")) as Arc<dyn Sink>);
        let traces = || database.rows.lock().unwrap().len();
        block_on(check_sink(sink, &[numbers(0..5), numbers(5..9)], async || database.rows(), traces)).unwrap();
    }

    #[test]
    fn changes_keep_their_kinds() {
        let database = Database::default();
        let sink = WriteAheadSink::new(database.clone(), "job");
        let mut writer = sink.writer(&sink_context(0, 1, numbers(0..0).schema())).unwrap();
        let changes = Batch::changelog(numbers(0..3), vec![0, 1, 2].into()).unwrap();
        block_on(async {
            writer.write(changes.clone()).await.unwrap();
            writer.write(Batch::append(numbers(3..4))).await.unwrap();
            let committables = writer.prepare_commit(Some(7)).await.unwrap();
            sink.prepare().unwrap().commit(committables).await.unwrap();
        });
        let rows = database.rows.lock().unwrap();
        let batches: Vec<&Batch> = rows.values().flatten().collect();
        assert_eq!((batches[0].kinds(), batches[0].records()), (changes.kinds(), changes.records()));
        assert_eq!((batches[1].kinds(), batches[1].num_rows()), (None, 1));
    }

    #[test]
    fn damaged_committables_are_corrupt() {
        let whole = encode("m", &{
            let batch = Batch::append(numbers(0..3));
            let mut piece = Piece::new(&batch).unwrap();
            piece.write(batch).unwrap();
            piece.finish().unwrap()
        })
        .unwrap();
        assert_eq!(decode(&whole).unwrap().0, "m");
        for cut in [0, 3, 4, 5, 6, 40] {
            let error = decode(&Committable(whole.0[..cut].to_vec())).unwrap_err();
            assert_eq!(error.kind(), tidemill_core::ErrorKind::Corrupt, "{cut}");
        }
    }

    /// Two pieces each of two writers, the first of which is refused.
    #[test]
    fn what_fails_keeps_nothing_back_but_later_changes_of_its_writer() {
        use ChangelogMode::{Append, Retract, Upsert};
        for (changelog_mode, written) in [(Append, 3), (Upsert, 2), (Retract, 2)] {
            let database = Database { changelog_mode, ..Database::default() };
            let sink = WriteAheadSink::new(database.clone(), "job-with-dashes");
            let committer = sink.prepare().unwrap();
            block_on(async {
                let mut committables = Vec::new();
                for subtask in 0..2 {
                    let mut writer = sink.writer(&sink_context(subtask, 2, numbers(0..0).schema())).unwrap();
                    for (checkpoint, row) in (7..9).zip(subtask as u64 * 10..) {
                        writer.write(Batch::append(numbers(row..row + 1))).await.unwrap();
                        committables.extend(writer.prepare_commit(Some(checkpoint)).await.unwrap());
                    }
                }
                let first = cut(&committables[0]).unwrap().0.to_owned();
                *database.refused.lock().unwrap() = Some(first.clone());
                let error = committer.commit(committables.clone()).await.unwrap_err().to_string();
                assert_eq!(error, format!("{first} is refused"));
                assert_eq!(database.rows().len(), written, "{changelog_mode:?}: {:?}", database.rows());
                *database.refused.lock().unwrap() = None;
                committer.commit(committables).await.unwrap();
                assert_eq!(database.rows(), ["0", "1", "10", "11"]);
            });
        }
    }

    proptest! {
        #[test]
        fn every_row_comes_once(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let database = Database::default();
            let open = || Ok(Arc::new(WriteAheadSink::new(database.clone(), "job")) as Arc<dyn Sink>);
            let visible = async || database.rows();
            block_on(check_history(&open, &numbers, &Step::of_bytes(&bytes), 3, visible)).unwrap();
        }
    }
}
