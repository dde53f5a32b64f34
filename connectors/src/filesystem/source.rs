//! The source of files: lists them, cuts large ones, and reads split by split.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use futures::future::BoxFuture;
use futures::stream::{StreamExt, TryStreamExt};
use object_store::ObjectMeta;
use object_store::path::Path;
use serde::{Deserialize, Serialize};
use tidemill_core::error::{Error, ErrorKind, Result};
use tidemill_core::event::CheckpointId;
use tidemill_core::metrics::RECORDS_SKIPPED;
use tidemill_core::source::{
    Boundedness, SequentialReader, Source, SourceContext, SourceReader, Split, SplitAssignment, SplitEnumerator,
    SplitStream,
};

use super::split::SplitName;
use crate::formats::compression::{Compression, split_extension};
use crate::formats::{FileRange, Format, ReadOptions};
use crate::store::{FileSelection, Location, list_files};

/// The least that a piece of a file holds, so that opening it costs little beside reading it.
const PIECE_BYTES_MIN: u64 = 16 << 20;
/// Pieces a subtask, so that a slow one can be helped out.
const PIECES_A_SUBTASK: u64 = 4;

/// Files as a table. The rows of a file come in order; the files are dealt out in the order of their paths.
#[derive(Clone, Debug)]
pub struct FileSource {
    path: String,
    location: Location,
    selection: FileSelection,
    format: Format,
    schema: SchemaRef,
    monitor_interval: Option<Duration>,
    piece_bytes_min: u64,
    is_inferred: bool,
}

impl FileSource {
    /// The files that `location` means, once. `path` is how the user calls them.
    pub fn new(path: impl Into<String>, location: Location, format: Format, schema: SchemaRef) -> Result<Self> {
        format.check_table(&schema)?;
        Ok(Self {
            path: path.into(),
            location,
            selection: FileSelection::default(),
            format,
            schema,
            monitor_interval: None,
            piece_bytes_min: PIECE_BYTES_MIN,
            is_inferred: false,
        })
    }

    /// Reads only files that are selected.
    #[must_use]
    pub fn with_selection(self, selection: FileSelection) -> Self {
        Self { selection, ..self }
    }

    /// Looks for new files for ever. A file that changes after it was found is not read again: rows would come twice.
    #[must_use]
    pub fn with_monitor_interval(self, interval: Duration) -> Self {
        Self { monitor_interval: Some(interval), ..self }
    }

    /// Says that the schema was inferred, so that a row that does not fit tells how to state its type.
    #[must_use]
    pub fn with_inferred_schema(self) -> Self {
        Self { is_inferred: true, ..self }
    }

    /// Where the files are.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// The files as they are now, if they are Parquet and all that will ever be read: a plan that knows what is in them may
    /// scan them by itself.
    pub async fn parquet_files(&self) -> Result<Option<Vec<ObjectMeta>>> {
        match (&self.format, self.boundedness()) {
            (Format::Parquet(_), Boundedness::Bounded) => Ok(Some(list_files(&self.location, &self.selection).await?)),
            _ => Ok(None),
        }
    }

    /// Cuts files into pieces of at least this many bytes. For tests; the default suits disks and stores.
    #[must_use]
    pub fn with_piece_bytes_min(self, piece_bytes_min: u64) -> Self {
        Self { piece_bytes_min, ..self }
    }
}

impl Source for FileSource {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn boundedness(&self) -> Boundedness {
        if self.monitor_interval.is_some() { Boundedness::Unbounded } else { Boundedness::Bounded }
    }

    fn enumerator(&self, context: &SourceContext) -> Result<Box<dyn SplitEnumerator>> {
        Ok(Box::new(FileEnumerator {
            source: self.clone(),
            parallelism: context.parallelism.max(1) as u64,
            pending: VecDeque::new(),
            seen: BTreeSet::new(),
            listed_at: None,
            clock: context.clock.clone(),
        }))
    }

    fn reader(&self, context: &SourceContext) -> Result<Box<dyn SourceReader>> {
        let location = self.location.clone();
        let format = self.format.clone();
        let options = ReadOptions {
            schema: self.schema.clone(),
            projection: context.projection.clone(),
            batch_rows: context.batch_rows,
            skipped: context.metrics.counter(RECORDS_SKIPPED),
        };
        let is_inferred = self.is_inferred;
        let open = move |split: Split| -> BoxFuture<'static, Result<SplitStream>> {
            let opened = open_split(location.clone(), format.clone(), options.clone(), split);
            let format = format.clone();
            let advise = move |error| match is_inferred {
                true => advise_inferred(&format, error),
                false => format.advise(error),
            };
            Box::pin(async move { Ok(opened.await.map_err(&advise)?.map_err(advise).boxed()) })
        };
        Ok(Box::new(SequentialReader::new(open)))
    }

    fn describe(&self) -> String {
        format!("filesystem({}, {})", self.path, self.format.name())
    }
}

async fn open_split(location: Location, format: Format, options: ReadOptions, split: Split) -> Result<SplitStream> {
    let name = SplitName::decode(&split.id)?;
    let path = Path::parse(&name.path)
        .map_err(|error| Error::corrupt(format!("split '{}' has no usable path", split.id)).with_source(error))?;
    let file = location.at(path);
    let found = file.head().await?;
    let size = found.ok_or_else(|| Error::unavailable(format!("{file} does not exist any more")))?.size;
    let range = FileRange { file, size, start: name.start, end: name.end, position: split.position };
    format.open(range, options).await
}

/// What nobody declared can be declared: other types, and that rows which do not parse are left out.
fn advise_inferred(format: &Format, error: Error) -> Error {
    if error.kind() != ErrorKind::Data || error.hint().is_some() {
        return error;
    }
    let rows = crate::formats::infer::ROWS;
    let skip = format.skip_option().map_or(String::new(), |option| format!(", or skip such rows with '{option}'"));
    error.with_hint(format!("the types were inferred from the first {rows} rows; a CREATE TABLE can state them{skip}"))
}

struct FileEnumerator {
    source: FileSource,
    parallelism: u64,
    pending: VecDeque<Split>,
    /// Paths that were found, for sources that look again.
    seen: BTreeSet<String>,
    listed_at: Option<Duration>,
    clock: Arc<dyn tidemill_core::clock::Clock>,
}

#[derive(Serialize, Deserialize)]
struct EnumeratorState {
    pending: Vec<(String, Vec<u8>)>,
    seen: BTreeSet<String>,
    listed: bool,
}

impl FileEnumerator {
    /// Lists the files, unless that was done and need not be done again yet.
    async fn discover(&mut self) -> Result<()> {
        let now = self.clock.monotonic();
        let is_due = match (self.listed_at, self.source.monitor_interval) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(last), Some(interval)) => now.saturating_sub(last) >= interval,
        };
        if !is_due {
            return Ok(());
        }
        let files = list_files(&self.source.location, &self.source.selection).await?;
        for file in files {
            self.add(&file);
        }
        self.listed_at = Some(now);
        Ok(())
    }

    fn add(&mut self, file: &ObjectMeta) {
        let path = file.location.as_ref();
        if self.source.monitor_interval.is_some() && !self.seen.insert(path.to_owned()) {
            return;
        }
        let is_compressed = split_extension(path).1 != Compression::None;
        let piece_bytes = match self.source.format.is_splittable() && !is_compressed && self.parallelism > 1 {
            true => (file.size / (self.parallelism * PIECES_A_SUBTASK)).max(self.source.piece_bytes_min),
            false => u64::MAX,
        };
        let pieces = SplitName::pieces(path, file.size, piece_bytes);
        self.pending.extend(pieces.iter().map(|piece| Split::new(piece.encode())));
    }
}

#[async_trait]
impl SplitEnumerator for FileEnumerator {
    async fn next_split(&mut self, _subtask: usize) -> Result<SplitAssignment> {
        if self.pending.is_empty() {
            self.discover().await?;
        }
        Ok(match (self.pending.pop_front(), self.source.monitor_interval) {
            (Some(split), _) => SplitAssignment::Split(split),
            (None, Some(interval)) => SplitAssignment::Later(interval),
            (None, None) => SplitAssignment::Finished,
        })
    }

    fn add_back(&mut self, split: Split) {
        self.pending.push_front(split);
    }

    fn snapshot(&mut self, _checkpoint: CheckpointId) -> Result<Vec<u8>> {
        let state = EnumeratorState {
            pending: self.pending.iter().map(|split| (split.id.to_string(), split.position.clone())).collect(),
            seen: self.seen.clone(),
            listed: self.listed_at.is_some(),
        };
        serde_json::to_vec(&state).map_err(|error| Error::internal("splits not encodable").with_source(error))
    }

    fn restore(&mut self, state: &[u8]) -> Result<()> {
        let state: EnumeratorState = serde_json::from_slice(state).map_err(|error| {
            Error::corrupt("enumerator state of a filesystem source is not readable").with_source(error)
        })?;
        let split = |(id, position): (String, Vec<u8>)| Split { id: id.into(), position };
        self.pending = state.pending.into_iter().map(split).collect();
        self.seen = state.seen;
        self.listed_at = state.listed.then_some(Duration::ZERO);
        Ok(())
    }
}
