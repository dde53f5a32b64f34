//! Apache Parquet: row groups behind a footer. Only the columns that are asked for are fetched and decoded.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::{CastOptions, cast, cast_with_options};
use arrow::datatypes::{DataType, Field, Float32Type, Float64Type, SchemaRef};
use arrow::util::display::FormatOptions;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::TryStreamExt;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::arrow::{ArrowWriter, ParquetRecordBatchStreamBuilder, ProjectionMask};
use parquet::basic::{Compression, GzipLevel, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use parquet::file::properties::WriterProperties;
use tidemill_core::error::{Error, Result, find_name};
use tidemill_core::source::SplitStream;

use super::rows::{batch_of, number_rows, position_in};
use super::text::{TextStyle, format_value, shortened};
use super::{Encoder, FileRange, ReadOptions, sql_name};
use crate::options::Options;
use crate::store::Location;

/// `parquet.compression`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ParquetCompression {
    /// `snappy`, as in Flink.
    #[default]
    Snappy,
    /// `zstd`
    Zstd,
    /// `lz4`
    Lz4,
    /// `gzip`
    Gzip,
    /// `none`
    None,
}

impl ParquetCompression {
    /// Takes the `parquet.*` options of a table.
    pub fn from_options(options: &mut Options) -> Result<Self> {
        let choices = [
            ("snappy", Self::Snappy),
            ("zstd", Self::Zstd),
            ("lz4", Self::Lz4),
            ("gzip", Self::Gzip),
            ("none", Self::None),
        ];
        Ok(options.choice("parquet.compression", &choices)?.unwrap_or_default())
    }

    fn codec(self) -> Compression {
        match self {
            Self::Snappy => Compression::SNAPPY,
            Self::Zstd => Compression::ZSTD(ZstdLevel::default()),
            Self::Lz4 => Compression::LZ4_RAW,
            Self::Gzip => Compression::GZIP(GzipLevel::default()),
            Self::None => Compression::UNCOMPRESSED,
        }
    }
}

/// A file as the parquet crate wants to see it. Our own errors travel through its as external ones.
struct FileReader {
    file: Location,
    size: u64,
}

fn external(error: Error) -> ParquetError {
    ParquetError::External(Box::new(error))
}

impl AsyncFileReader for FileReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, ParquetError>> {
        Box::pin(async move { self.file.read(range).await.map_err(external) })
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, Result<Vec<Bytes>, ParquetError>> {
        Box::pin(async move {
            let read = self.file.store.get_ranges(&self.file.path, &ranges).await;
            read.map_err(|error| external(self.file.error(error)))
        })
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>, ParquetError>> {
        Box::pin(async move {
            let size = self.size;
            let reader = ParquetMetaDataReader::new().with_arrow_reader_options(options);
            Ok(Arc::new(reader.load_and_finish(self, size).await?))
        })
    }
}

async fn open_builder(file: &Location, size: u64) -> Result<ParquetRecordBatchStreamBuilder<FileReader>> {
    let builder = ParquetRecordBatchStreamBuilder::new(FileReader { file: file.clone(), size }).await;
    builder.map_err(|error| parquet_error(file, error))
}

/// Reads a file from the row on that its position names.
pub(crate) async fn open(range: FileRange, options: ReadOptions) -> Result<SplitStream> {
    let start = position_in(&range)?.unwrap_or(0);
    let builder = open_builder(&range.file, range.size).await?;
    let target = options.projected()?;
    let places = places_of(&range.file, builder.schema(), &target)?;
    let mask = ProjectionMask::roots(builder.parquet_schema(), places.iter().copied());
    let first_rows =
        usize::try_from(start).map_err(|_| Error::corrupt(format!("position {start} in {}", range.file)))?;
    let stream = builder
        .with_projection(mask)
        .with_offset(first_rows)
        .with_batch_size(options.batch_rows.max(1))
        .build()
        .map_err(|error| parquet_error(&range.file, error))?;
    // The reader delivers columns in the order of the file.
    let mut in_file_order = places.clone();
    in_file_order.sort_unstable();
    in_file_order.dedup();
    let order: Vec<usize> = places.iter().map(|place| in_file_order.partition_point(|other| other < place)).collect();
    let file = range.file.clone();
    let batches = stream
        .map_err(move |error| parquet_error(&file, error))
        .and_then(move |batch| std::future::ready(conform(&range.file, &batch, &order, &target)));
    Ok(number_rows(batches, start, options.batch_rows))
}

/// The schema that the file itself states.
pub(crate) async fn schema(file: &Location, size: u64) -> Result<SchemaRef> {
    Ok(open_builder(file, size).await?.schema().clone())
}

/// Where the columns of `target` stand in a file, by name.
pub(crate) fn places_of(file: &Location, schema: &SchemaRef, target: &SchemaRef) -> Result<Vec<usize>> {
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    let place = |name: &str| {
        find_name(name, &names).map_err(|hint| Error::data(format!("{file}: no column '{name}'")).with_hint(hint))
    };
    target.fields().iter().map(|field| place(field.name())).collect()
}

/// Brings a batch of a file into the order and the types of the table. `order` holds, for each column, its place in the batch.
pub(crate) fn conform(
    file: &Location,
    batch: &RecordBatch,
    order: &[usize],
    target: &SchemaRef,
) -> Result<RecordBatch> {
    let mut columns = Vec::with_capacity(order.len());
    for (place, field) in order.iter().zip(target.fields()) {
        let column = batch.column(*place);
        columns.push(match column.data_type() == field.data_type() {
            true => column.clone(),
            false => conform_column(column, field).map_err(|error| error.context(file))?,
        });
    }
    batch_of(target, columns, batch.num_rows()).map_err(|error| Error::data(error.reason).context(file))
}

fn conform_column(column: &ArrayRef, field: &Field) -> Result<ArrayRef> {
    let values = cast_with_options(column, field.data_type(), &STRICT)
        .map_err(|error| misfit(column, field, first_misfit(column, field.data_type())).with_source(error))?;
    match first_overflow(column.as_ref(), values.as_ref()) {
        None => Ok(values),
        overflow => Err(misfit(column, field, overflow)),
    }
}

/// A value that does not fit is an error; Arrow's default makes it NULL.
const STRICT: CastOptions<'static> = CastOptions { safe: false, format_options: FormatOptions::new() };

/// The error for a column that does not become the declared one: its first value at fault, else its type.
fn misfit(column: &ArrayRef, field: &Field, value: Option<String>) -> Error {
    let (from, to) = (sql_name(column.data_type()), sql_name(field.data_type()));
    let message = match value {
        Some(value) => format!("'{value}' is no {to} for '{}'", field.name()),
        None => format!("column '{}' is {from}, which does not become {to}", field.name()),
    };
    Error::data(message).with_hint(format!("declare the column as it is in the file: {from}"))
}

/// The first value that is lost on the way to `target`.
fn first_misfit(column: &ArrayRef, target: &DataType) -> Option<String> {
    let lenient = cast(column, target).ok()?;
    let row = (0..column.len()).find(|row| column.is_valid(*row) && lenient.is_null(*row))?;
    let value = format_value(column.as_ref(), row, TextStyle::SHOWN).ok()?;
    Some(shortened(&value))
}

/// The first finite value of `from` that is infinite in `to`, which Arrow does not mind.
fn first_overflow(from: &dyn Array, to: &dyn Array) -> Option<String> {
    let shown = |row: &usize| {
        let value = format_value(from, *row, TextStyle::SHOWN).ok()?;
        (!value.to_ascii_lowercase().contains("inf")).then(|| shortened(&value))
    };
    let infinite = |is_infinite: &dyn Fn(usize) -> bool| {
        (0..to.len()).filter(|row| is_infinite(*row) && to.is_valid(*row)).find_map(|row| shown(&row))
    };
    match (from.data_type(), to.data_type()) {
        _ if from.len() != to.len() => None,
        (_, DataType::Float32) => infinite(&|row| to.as_primitive::<Float32Type>().value(row).is_infinite()),
        (_, DataType::Float64) => infinite(&|row| to.as_primitive::<Float64Type>().value(row).is_infinite()),
        (DataType::List(_), DataType::List(_)) => {
            first_overflow(from.as_list::<i32>().values(), to.as_list::<i32>().values())
        }
        (DataType::LargeList(_), DataType::LargeList(_)) => {
            first_overflow(from.as_list::<i64>().values(), to.as_list::<i64>().values())
        }
        (DataType::Struct(_), DataType::Struct(_)) => {
            let (from, to) = (from.as_struct(), to.as_struct());
            let places = to.column_names().into_iter().enumerate();
            let pairs = places.map(|(place, name)| (from.column_by_name(name).or(from.columns().get(place)), place));
            pairs.into_iter().find_map(|(column, place)| first_overflow(column?, to.column(place)))
        }
        (DataType::Map(..), DataType::Map(..)) => first_overflow(from.as_map().entries(), to.as_map().entries()),
        _ => None,
    }
}

/// What cannot be fetched is the store's fault, what cannot be read the file's.
fn parquet_error(file: &Location, error: ParquetError) -> Error {
    match error {
        ParquetError::External(source) => match source.downcast::<Error>() {
            Ok(error) => *error,
            Err(source) => Error::corrupt(format!("{file}: {source}")).with_source(source),
        },
        ParquetError::NYI(what) => Error::request(format!("{file}: not supported: {what}")),
        other => {
            let reason = other.to_string();
            let reason = reason.strip_prefix("Parquet error: ").unwrap_or(&reason);
            damaged(file, "parquet", reason).with_source(other)
        }
    }
}

/// The error for a file whose bytes are not those of its format.
pub(crate) fn damaged(file: &Location, format: &str, reason: &str) -> Error {
    let reason = reason.trim_end_matches('.');
    Error::corrupt(format!("{file}: no readable {format} file: {reason}"))
        .with_hint(format!("it may be cut off, still being written, or no {format}: fetch or write it again"))
}

/// Writes row groups; their bytes come out as each group is full.
pub(crate) struct ParquetEncoder {
    writer: ArrowWriter<Vec<u8>>,
}

/// Encoded bytes that a row group gathers in memory before it is written.
const ROW_GROUP_BYTES: usize = 64 << 20;

impl ParquetEncoder {
    pub(crate) fn new(compression: ParquetCompression, schema: &SchemaRef) -> Result<Self> {
        let properties = WriterProperties::builder().set_compression(compression.codec()).build();
        let writer = ArrowWriter::try_new(Vec::new(), schema.clone(), Some(properties)).map_err(writing)?;
        Ok(Self { writer })
    }
}

impl Encoder for ParquetEncoder {
    fn encode(&mut self, records: &RecordBatch, out: &mut Vec<u8>) -> Result<()> {
        self.writer.write(records).map_err(writing)?;
        if self.writer.in_progress_size() > ROW_GROUP_BYTES {
            self.writer.flush().map_err(writing)?;
        }
        out.append(self.writer.inner_mut());
        Ok(())
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> Result<()> {
        self.writer.finish().map_err(writing)?;
        out.append(self.writer.inner_mut());
        Ok(())
    }

    fn pending_bytes(&self) -> usize {
        self.writer.in_progress_size()
    }
}

fn writing(error: ParquetError) -> Error {
    Error::internal(format!("rows cannot be written as parquet: {error}")).with_source(error)
}
