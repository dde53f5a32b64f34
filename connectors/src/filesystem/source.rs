//! The source of files: what is read, and how it is read split by split.

use std::time::Duration;

use arrow::datatypes::SchemaRef;
use futures::future::BoxFuture;
use futures::stream::{StreamExt, TryStreamExt};
use object_store::ObjectMeta;
use object_store::path::Path;
use tidemill_core::error::{Error, ErrorKind, Result};
use tidemill_core::metrics::RECORDS_SKIPPED;
use tidemill_core::source::{
    Boundedness, SequentialReader, Source, SourceContext, SourceReader, Split, SplitEnumerator, SplitStream,
};

use super::discovery::FileEnumerator;
use super::partition::Partitioning;
use super::split::SplitName;
use super::version::Version;
use crate::formats::compression::{Compression, split_extension};
use crate::formats::{FileRange, Format, ReadOptions};
use crate::store::{FileSelection, Location, list_files, list_partitions};

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
    partitioning: Option<Partitioning>,
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
            partitioning: None,
            piece_bytes_min: PIECE_BYTES_MIN,
            is_inferred: false,
        })
    }

    /// The files in the folders of a partitioned table, which give some of the columns of `schema`.
    pub(super) fn partitioned(
        path: String,
        location: Location,
        format: Format,
        schema: SchemaRef,
        partitioning: Partitioning,
    ) -> Result<Self> {
        if location.path.as_ref().contains(['*', '?', '[']) {
            return Err(Error::request(format!("the path of a partitioned table is '{path}', a pattern"))
                .with_hint("name the directory that the partitions are in"));
        }
        let source = Self::new(path, location, format, partitioning.file_schema().clone())?;
        Ok(Self { schema, partitioning: Some(partitioning), ..source })
    }

    /// Reads only files that are selected.
    #[must_use]
    pub fn with_selection(self, selection: FileSelection) -> Self {
        Self { selection, ..self }
    }

    /// Looks for new files for ever. A file that changes after it was found is an error: read again, its rows would come twice.
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
        match (&self.format, self.boundedness(), &self.partitioning) {
            (Format::Parquet(_), Boundedness::Bounded, None) => Ok(Some(self.files().await?)),
            _ => Ok(None),
        }
    }

    /// The files as they are now.
    pub(super) async fn files(&self) -> Result<Vec<ObjectMeta>> {
        let listed = match &self.partitioning {
            None => list_files(&self.location, &self.selection).await,
            Some(partitioning) => {
                let columns: Vec<&str> = partitioning.names().collect();
                list_partitions(&self.location, &columns, &self.selection).await
            }
        };
        match listed {
            // A store has no empty directory, and files may come or have been taken away.
            Err(_) if self.monitor_interval.is_some() && is_empty_elsewhere(&self.location).await? => Ok(Vec::new()),
            listed => listed,
        }
    }

    /// How often to look for new files, if more than once.
    pub(super) fn monitor_interval(&self) -> Option<Duration> {
        self.monitor_interval
    }

    /// The splits of a file that `parallelism` readers share. Those of files that must not change remember what it is
    /// like.
    pub(super) fn splits(&self, file: &ObjectMeta, parallelism: usize) -> impl Iterator<Item = Split> {
        let path = file.location.as_ref();
        let is_compressed = split_extension(path).1 != Compression::None;
        let pieces = parallelism as u64 * PIECES_A_SUBTASK;
        let piece_bytes = match self.format.is_splittable() && !is_compressed && parallelism > 1 {
            true => (file.size / pieces).max(self.piece_bytes_min),
            false => u64::MAX,
        };
        let position = self.monitor_interval.map_or_else(Vec::new, |_| Version::of(file).mark(&[]));
        let split = move |piece: SplitName| Split { id: piece.encode(), position: position.clone() };
        SplitName::pieces(path, file.size, piece_bytes).into_iter().map(split)
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
        Ok(Box::new(FileEnumerator::new(self.clone(), context)))
    }

    fn reader(&self, context: &SourceContext) -> Result<Box<dyn SourceReader>> {
        let (location, partitioning) = (self.location.clone(), self.partitioning.clone());
        let format = self.format.clone();
        let schema = partitioning.as_ref().map_or(&self.schema, |partitioning| partitioning.file_schema()).clone();
        let options = ReadOptions {
            schema,
            projection: context.projection.clone(),
            batch_rows: context.batch_rows,
            skipped: context.metrics.counter(RECORDS_SKIPPED),
        };
        let is_inferred = self.is_inferred;
        let open = move |split: Split| -> BoxFuture<'static, Result<SplitStream>> {
            let (location, format_of, options) = (location.clone(), format.clone(), options.clone());
            let partitioning = partitioning.clone();
            let opened = async move {
                match partitioning {
                    None => open_split(location, format_of, options, split).await,
                    Some(partitioning) => open_in_partition(location, format_of, options, split, &partitioning).await,
                }
            };
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

/// Whether nothing is there, in a store that is not this machine's disk.
async fn is_empty_elsewhere(location: &Location) -> Result<bool> {
    if location.is_local() {
        return Ok(false);
    }
    let first = location.store.list(Some(&location.path)).try_next().await;
    Ok(first.map_err(|error| location.error(error))?.is_none())
}

async fn open_split(location: Location, format: Format, options: ReadOptions, split: Split) -> Result<SplitStream> {
    let name = SplitName::decode(&split.id)?;
    let path = Path::parse(&name.path)
        .map_err(|error| Error::corrupt(format!("split '{}' has no usable path", split.id)).with_source(error))?;
    let file = location.at(path);
    let (position, version) = Version::unmark(split.position).map_err(|error| error.context(&file))?;
    let found = file.head().await?;
    let found = found.ok_or_else(|| Error::unavailable(format!("{file} does not exist any more")))?;
    if let Some(version) = &version {
        version.check_opened(&Version::of(&found), &file)?;
    }
    let range = FileRange { file, size: found.size, start: name.start, end: name.end, position };
    let rows = format.open(range, options).await?;
    Ok(match version {
        None => rows,
        Some(version) => rows.map_ok(move |(records, position)| (records, version.mark(&position))).boxed(),
    })
}

/// Reads a split of a file whose path tells some of the columns.
async fn open_in_partition(
    location: Location,
    format: Format,
    options: ReadOptions,
    split: Split,
    partitioning: &Partitioning,
) -> Result<SplitStream> {
    let path = SplitName::decode(&split.id)?.path;
    let below = path.strip_prefix(location.path.as_ref()).unwrap_or_default().trim_start_matches('/');
    let assembly = partitioning
        .values(below.split('/'))
        .and_then(|values| partitioning.assembly(options.projection.as_deref(), &values))
        .map_err(|error| error.context(format!("{location}/{below}")))?;
    let options = ReadOptions { projection: Some(assembly.read.clone()), ..options };
    let rows = open_split(location, format, options, split).await?;
    Ok(rows
        .map(move |batch| {
            let (records, position) = batch?;
            Ok((assembly.assemble(&records)?, position))
        })
        .boxed())
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
