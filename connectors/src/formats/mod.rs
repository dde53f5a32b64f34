//! From bytes to columns and back: csv, json, raw, parquet, arrow.
//!
//! ```text
//! text formats   blocks of bytes -> decompressed -> RowDecoder (whole rows of a block at once) -> batch, byte offset
//! parquet        footer, row groups                                                            -> batch, row number
//! arrow          blocks of the file or the stream                                              -> batch, row number
//! ```
//!
//! Whatever the format, a [`FileRange`] read with [`Format::open`] is a stream of batches with the position behind each. Writing
//! goes through an [`Encoder`], which turns batches into bytes and knows nothing of files.

mod arrow_ipc;
mod bytes;
mod civil;
pub mod compression;
mod csv;
pub mod infer;
mod json;
mod parquet;
mod raw;
mod rows;
pub mod text;

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, IntervalUnit, Schema, SchemaRef};
use futures::future::BoxFuture;
use tidemill_core::error::{Error, ErrorKind, Result};
use tidemill_core::metrics::Counter;
use tidemill_core::source::SplitStream;

use crate::options::Options;
use crate::store::Location;
use compression::Compression;

pub use self::csv::CsvOptions;
pub use self::json::JsonOptions;
pub use self::parquet::ParquetCompression;
pub use arrow_ipc::ArrowCompression;
pub(crate) use rows::{RowDecoder, RowError, RowText, number_rows};

/// A file format with its options.
#[derive(Clone, Debug)]
pub enum Format {
    /// Delimited text.
    Csv(CsvOptions, Compression),
    /// One JSON object a line.
    Json(JsonOptions, Compression),
    /// One line a row, in one STRING column.
    Raw(Compression),
    /// Apache Parquet.
    Parquet(ParquetCompression),
    /// Arrow IPC, file or stream.
    Arrow(ArrowCompression),
}

/// The part of a file that one reader reads.
#[derive(Clone, Debug)]
pub struct FileRange {
    /// The file.
    pub file: Location,
    /// Its size in bytes.
    pub size: u64,
    /// Rows that begin at or behind this byte belong to it …
    pub start: u64,
    /// … and before this one; `None` for the end of the file.
    pub end: Option<u64>,
    /// Where to go on: what was delivered with the last batch that counts; empty for the beginning.
    pub position: Vec<u8>,
}

impl FileRange {
    /// All of a file.
    pub fn whole(file: Location, size: u64) -> Self {
        Self { file, size, start: 0, end: None, position: Vec::new() }
    }
}

/// How a file is to be read.
#[derive(Clone, Debug)]
pub struct ReadOptions {
    /// Physical columns of the table.
    pub schema: SchemaRef,
    /// Which of them to deliver, in this order; `None` for all.
    pub projection: Option<Arc<[usize]>>,
    /// The most rows in one batch.
    pub batch_rows: usize,
    /// Counts rows that did not parse and may be ignored.
    pub skipped: Counter,
}

impl ReadOptions {
    /// The columns that are delivered.
    pub fn projected(&self) -> Result<SchemaRef> {
        Ok(match &self.projection {
            Some(columns) => Arc::new(self.schema.project(columns)?),
            None => self.schema.clone(),
        })
    }

    /// Positions in the table's schema of the columns that are delivered.
    pub(crate) fn columns(&self) -> Vec<usize> {
        self.projection.as_ref().map_or_else(|| (0..self.schema.fields().len()).collect(), |columns| columns.to_vec())
    }
}

/// Turns batches into the bytes of a file. Bytes are appended to `out`; nothing is kept that `finish` does not give.
pub trait Encoder: Send {
    /// Appends rows.
    fn encode(&mut self, records: &RecordBatch, out: &mut Vec<u8>) -> Result<()>;

    /// Appends what ends the file.
    fn finish(&mut self, out: &mut Vec<u8>) -> Result<()>;

    /// About how many bytes of rows it has not appended yet.
    fn pending_bytes(&self) -> usize {
        0
    }
}

const FORMATS: [&str; 5] = ["csv", "json", "raw", "parquet", "arrow"];

impl Format {
    /// The format named `name`, with its options taken from the table's.
    pub fn from_options(name: &str, options: &mut Options) -> Result<Self> {
        Ok(match name.to_ascii_lowercase().as_str() {
            "csv" => Self::Csv(CsvOptions::from_options(options)?, Compression::from_options("csv", options)?),
            "json" => Self::Json(JsonOptions::from_options(options)?, Compression::from_options("json", options)?),
            "raw" => Self::Raw(Compression::from_options("raw", options)?),
            "parquet" => Self::Parquet(ParquetCompression::from_options(options)?),
            "arrow" => Self::Arrow(ArrowCompression::from_options(options)?),
            _ => return Err(tidemill_core::error::unknown("format", name, FORMATS)),
        })
    }

    /// The format that a file name ends in, a compression ending apart: `csv` for `flights.csv.gz`.
    pub fn of_file_name(name: &str) -> Option<&'static str> {
        let (stem, _) = compression::split_extension(name);
        match stem.rsplit_once('.')?.1.to_ascii_lowercase().as_str() {
            "csv" | "tsv" => Some("csv"),
            "json" | "ndjson" | "jsonl" => Some("json"),
            "txt" | "log" | "text" | "raw" => Some("raw"),
            "parquet" | "parq" => Some("parquet"),
            "arrow" | "arrows" | "ipc" | "feather" => Some("arrow"),
            _ => None,
        }
    }

    /// The name that options use.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Csv(..) => "csv",
            Self::Json(..) => "json",
            Self::Raw(..) => "raw",
            Self::Parquet(..) => "parquet",
            Self::Arrow(..) => "arrow",
        }
    }

    /// How names of files in this format end: `csv.gz`.
    pub fn extension(&self) -> String {
        let own = self.name();
        match self {
            Self::Csv(_, compression) | Self::Json(_, compression) | Self::Raw(compression) => {
                compression.extension().map_or_else(|| own.to_owned(), |ending| format!("{own}.{ending}"))
            }
            _ => own.to_owned(),
        }
    }

    /// The same format, text compressed as the name of the file that is written asks for.
    #[must_use]
    pub fn compressed_for(self, name: &str) -> Self {
        match (self, compression::split_extension(name).1) {
            (Self::Csv(options, Compression::None), compression) => Self::Csv(options, compression),
            (Self::Json(options, Compression::None), compression) => Self::Json(options, compression),
            (Self::Raw(Compression::None), compression) => Self::Raw(compression),
            (format, _) => format,
        }
    }

    /// The compression around the format's own bytes.
    pub fn compression(&self) -> Compression {
        match self {
            Self::Csv(_, compression) | Self::Json(_, compression) | Self::Raw(compression) => *compression,
            _ => Compression::None,
        }
    }

    /// Whether several readers may share one uncompressed file: line ends can be found from any byte.
    pub fn is_splittable(&self) -> bool {
        match self {
            Self::Csv(options, _) => options.quote.is_none() && options.escape.is_none(),
            Self::Json(..) | Self::Raw(..) => true,
            Self::Parquet(..) | Self::Arrow(..) => false,
        }
    }

    /// Whether the bytes of two files, one after the other, are again a file.
    pub fn is_concatenable(&self) -> bool {
        match self {
            Self::Csv(options, _) => !options.header,
            Self::Json(..) | Self::Raw(..) => true,
            Self::Parquet(..) | Self::Arrow(..) => false,
        }
    }

    /// Whether a file can be cut off behind any row, and gone on with from there.
    pub fn is_appendable(&self) -> bool {
        matches!(self, Self::Csv(..) | Self::Json(..) | Self::Raw(..)) && self.compression() == Compression::None
    }

    /// The option that leaves out rows which do not parse, where the format has one that is not set.
    pub(crate) fn skip_option(&self) -> Option<&'static str> {
        match self {
            Self::Csv(options, _) if !options.ignore_parse_errors => Some("csv.ignore-parse-errors"),
            Self::Json(options, _) if !options.ignore_parse_errors => Some("json.ignore-parse-errors"),
            _ => None,
        }
    }

    /// `error` with what to do about a row that does not parse, unless it says so itself.
    pub(crate) fn advise(&self, error: Error) -> Error {
        match self.skip_option() {
            Some(option) if error.kind() == ErrorKind::Data && error.hint().is_none() => {
                error.with_hint(format!("mend it, or skip and count such rows: '{option}' = 'true'"))
            }
            _ => error,
        }
    }

    /// Refuses columns of a table that the format would not read as it wrote them, beside those that it has no form for.
    pub fn check_table(&self, schema: &Schema) -> Result<()> {
        self.check_schema(schema)?;
        let is_one_way = |data_type: &DataType| match self {
            Self::Csv(..) | Self::Json(..) => matches!(data_type, DataType::Interval(_)),
            Self::Parquet(..) => *data_type == DataType::Interval(IntervalUnit::MonthDayNano),
            Self::Raw(..) | Self::Arrow(..) => false,
        };
        match schema.fields().iter().find(|field| holds(field.data_type(), &is_one_way)) {
            None => Ok(()),
            Some(field) => {
                let message =
                    format!("column '{}' is INTERVAL, for which format '{}' has no form", field.name(), self.name());
                Err(Error::request(message).with_hint("declare it STRING, and CAST to and from that"))
            }
        }
    }

    /// Refuses columns that the format has no form for.
    pub fn check_schema(&self, schema: &Schema) -> Result<()> {
        match self {
            Self::Raw(..) => raw::check_schema(schema),
            Self::Json(..) => json::check_schema(schema),
            _ => Ok(()),
        }
    }

    /// Reads a part of a file: batches, and behind each the position from which reading can go on.
    pub fn open(&self, range: FileRange, options: ReadOptions) -> BoxFuture<'static, Result<SplitStream>> {
        match self.clone() {
            Self::Csv(csv, _) => Box::pin(rows::open_csv(range, csv, options)),
            Self::Json(json, _) => Box::pin(async move {
                let decoder = json::JsonDecoder::new(&json, &options)?;
                rows::open(range, Box::new(decoder), &options).await
            }),
            Self::Raw(_) => Box::pin(async move {
                let decoder = raw::RawDecoder::new(&options)?;
                rows::open(range, Box::new(decoder), &options).await
            }),
            Self::Parquet(_) => Box::pin(parquet::open(range, options)),
            Self::Arrow(_) => Box::pin(arrow_ipc::open(range, options)),
        }
    }

    /// A decoder of the format's rows outside of files (a socket), for formats whose rows are lines.
    /// `delimiter` ends a raw row.
    pub(crate) fn row_decoder(&self, options: &ReadOptions, delimiter: &[u8]) -> Result<Box<dyn RowDecoder>> {
        Ok(match self {
            Self::Csv(csv, _) => Box::new(csv::CsvDecoder::new(csv, options, None)?),
            Self::Json(json, _) => Box::new(json::JsonDecoder::new(json, options)?),
            Self::Raw(_) => Box::new(raw::RawDecoder::new(options)?.with_delimiter(delimiter)),
            other => return Err(Error::request(format!("format '{}' has no lines", other.name()))),
        })
    }

    /// An encoder of rows outside of files. `delimiter` ends a raw row.
    pub(crate) fn row_encoder(&self, schema: &SchemaRef, delimiter: &[u8]) -> Result<Box<dyn Encoder>> {
        match self {
            Self::Raw(_) => Ok(Box::new(raw::RawEncoder::new(delimiter))),
            _ => self.encoder(schema),
        }
    }

    /// An encoder for the rest of a file that has `bytes` already, of an appendable format.
    pub(crate) fn encoder_behind(&self, schema: &SchemaRef, bytes: u64) -> Result<Box<dyn Encoder>> {
        match self {
            Self::Csv(options, compression) if bytes > 0 => {
                Self::Csv(CsvOptions { header: false, ..options.clone() }, *compression).encoder(schema)
            }
            _ => self.encoder(schema),
        }
    }

    /// An encoder for one file of rows with `schema`.
    pub fn encoder(&self, schema: &SchemaRef) -> Result<Box<dyn Encoder>> {
        self.check_schema(schema)?;
        Ok(match self {
            Self::Csv(options, _) => Box::new(csv::CsvEncoder::new(options, schema)?),
            Self::Json(..) => Box::new(json::JsonEncoder::new(schema)?),
            Self::Raw(..) => Box::new(raw::RawEncoder::new(b"\n")),
            Self::Parquet(compression) => Box::new(parquet::ParquetEncoder::new(*compression, schema)?),
            Self::Arrow(compression) => Box::new(arrow_ipc::ArrowEncoder::new(*compression, schema)?),
        })
    }
}

/// Whether `data_type` is, or nests, a type that `is_meant`.
pub(crate) fn holds(data_type: &DataType, is_meant: &impl Fn(&DataType) -> bool) -> bool {
    match data_type {
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::FixedSizeList(field, _)
        | DataType::Map(field, _) => holds(field.data_type(), is_meant),
        DataType::Struct(fields) => fields.iter().any(|field| holds(field.data_type(), is_meant)),
        other => is_meant(other),
    }
}

/// The SQL name of a type, for messages to people who declared the table in SQL.
pub(crate) fn sql_name(data_type: &DataType) -> String {
    use arrow::datatypes::TimeUnit::{Microsecond, Millisecond, Nanosecond, Second};
    match data_type {
        DataType::Boolean => "BOOLEAN".into(),
        DataType::Int8 => "TINYINT".into(),
        DataType::Int16 => "SMALLINT".into(),
        DataType::Int32 => "INT".into(),
        DataType::Int64 => "BIGINT".into(),
        DataType::Float32 => "FLOAT".into(),
        DataType::Float64 => "DOUBLE".into(),
        DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) => {
            format!("DECIMAL({precision}, {scale})")
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "STRING".into(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "BYTES".into(),
        DataType::Date32 | DataType::Date64 => "DATE".into(),
        DataType::Time32(_) | DataType::Time64(_) => "TIME".into(),
        DataType::Timestamp(unit, zone) => {
            let precision = match unit {
                Second => 0,
                Millisecond => 3,
                Microsecond => 6,
                Nanosecond => 9,
            };
            let suffix = if zone.is_some() { "_LTZ" } else { "" };
            format!("TIMESTAMP{suffix}({precision})")
        }
        DataType::Interval(_) => "INTERVAL".into(),
        DataType::List(_) | DataType::LargeList(_) => "ARRAY".into(),
        DataType::Map(..) => "MAP".into(),
        DataType::Struct(_) => "ROW".into(),
        other => other.to_string(),
    }
}

/// Reads a time as ISO-8601 text into `unit`; without a zone the text is a wall clock of `calendar`.
pub(crate) fn parse_instant(
    text: &str,
    unit: arrow::datatypes::TimeUnit,
    calendar: tidemill_core::time::Calendar,
) -> Option<i64> {
    civil::of_unit(civil::parse_timestamp(text, calendar)?, unit)
}
