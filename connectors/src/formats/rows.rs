//! Text files: blocks of text go through a decoder that takes whole rows from the front.
//!
//! ```text
//! bytes    …ends here\n12,Rome,3\n13,"two\nlines",4\n14,Oslo,5\n15,Par
//! buffer              |--------------- whole rows ------------|-- kept until more comes
//! position            ^ byte offset in the (decompressed) text
//! ```
//!
//! The position is a byte offset and nothing else: the line number that an error names is counted from the start of the file
//! when there is an error.

use std::sync::Arc;

use arrow::array::RecordBatch;
use bytes::{Buf, BytesMut};
use futures::stream::{StreamExt, TryStreamExt};
use tidemill_core::error::{Error, Result};
use tidemill_core::metrics::Counter;
use tidemill_core::source::{SplitStream, decode_position, encode_position};

use super::bytes::{ByteStream, count_lines, read_text};
use super::csv::{CsvDecoder, CsvOptions, header_fields};
use super::{FileRange, ReadOptions};
use crate::store::Location;

/// The text that is gathered before rows are first decoded; later the size of rows seen decides.
const TEXT_BYTES_MIN: usize = 64 << 10;
/// The text that is gathered for a batch at most, however long its rows are.
const TEXT_BYTES_MAX: usize = 16 << 20;
/// The longest row that is read. Spans are 32 bits wide, and nobody means a longer one.
const ROW_BYTES_MAX: usize = 1 << 30;
pub(crate) const BYTE_ORDER_MARK: [u8; 3] = [0xEF, 0xBB, 0xBF];

/// Text for a [`RowDecoder`]; it begins at the start of a row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowText<'a> {
    pub(crate) bytes: &'a [u8],
    /// The most rows to decode.
    pub(crate) rows_max: usize,
    /// Rows that begin at or behind this byte belong to someone else.
    pub(crate) starts_before: usize,
    /// Whether the input ends with these bytes, so that the last row needs no line end.
    pub(crate) is_last: bool,
}

/// Rows that were decoded.
#[derive(Debug)]
pub(crate) struct Rows {
    pub(crate) records: RecordBatch,
    /// Bytes of whole rows, good or skipped. None when there is not one whole row.
    pub(crate) consumed: usize,
    /// Rows that did not parse and were left out.
    pub(crate) skipped: usize,
}

/// A row that does not parse.
#[derive(Debug)]
pub(crate) struct RowError {
    /// Where the row begins in the text.
    pub(crate) offset: usize,
    /// The column, from 0, where one is at fault.
    pub(crate) column: Option<usize>,
    pub(crate) reason: String,
}

impl RowError {
    /// The error for people: `line 17, column 3: …`. `lines` is how many lines come before the row.
    pub(crate) fn at_line(&self, lines: u64) -> Error {
        let line = lines + 1;
        match self.column {
            Some(column) => Error::data(format!("line {line}, column {}: {}", column + 1, self.reason)),
            None => Error::data(format!("line {line}: {}", self.reason)),
        }
    }
}

/// Cuts text into rows and rows into columns. Knows nothing of files, offsets and line numbers.
pub(crate) trait RowDecoder: Send {
    /// Decodes whole rows from the front of `text`.
    fn decode(&mut self, text: RowText<'_>) -> Result<Rows, RowError>;
}

/// Opens a range of a CSV file; its header, if it has one, is read first wherever the range begins.
pub(crate) async fn open_csv(range: FileRange, csv: CsvOptions, options: ReadOptions) -> Result<SplitStream> {
    if !csv.header {
        return open(range, Box::new(CsvDecoder::new(&csv, &options, None)?), &options).await;
    }
    let Some((header, length)) = read_header(&range, &csv).await? else {
        return Ok(futures::stream::empty().boxed());
    };
    let decoder = CsvDecoder::new(&csv, &options, Some(&header)).map_err(|error| error.context(&range.file))?;
    let mut reader = TextReader::open(range, Box::new(decoder), &options).await?;
    reader.skip_to(length).await?;
    Ok(reader.into_stream())
}

/// Opens a range of a text file.
pub(crate) async fn open(range: FileRange, decoder: Box<dyn RowDecoder>, options: &ReadOptions) -> Result<SplitStream> {
    Ok(TextReader::open(range, decoder, options).await?.into_stream())
}

/// The names in the first row of a file and the bytes that it takes; `None` for an empty file.
pub(crate) async fn read_header(range: &FileRange, csv: &CsvOptions) -> Result<Option<(Vec<String>, u64)>> {
    let mut text = Text::open(&range.file, range.size, 0).await?;
    loop {
        let is_last = !text.fill(text.buffer.len() + 1).await?;
        match header_fields(csv, &text.buffer, is_last) {
            Ok(Some((names, consumed))) => return Ok(Some((names, text.offset + consumed as u64))),
            Ok(None) if is_last => return Ok(None),
            Ok(None) => {}
            Err(error) => {
                let lines = count_lines(&range.file, range.size, text.offset + error.offset as u64).await?;
                return Err(error.at_line(lines).context(&range.file));
            }
        }
    }
}

/// Text that has been read and not yet used.
struct Text {
    blocks: ByteStream,
    buffer: BytesMut,
    /// Where `buffer` begins in the text.
    offset: u64,
    is_last: bool,
}

impl Text {
    async fn open(file: &Location, size: u64, offset: u64) -> Result<Self> {
        let blocks = read_text(file, size, offset).await?;
        let mut text = Self { blocks, buffer: BytesMut::new(), offset, is_last: false };
        if offset == 0 {
            text.fill(BYTE_ORDER_MARK.len()).await?;
            if text.buffer.starts_with(&BYTE_ORDER_MARK) {
                text.consume(BYTE_ORDER_MARK.len());
            }
        }
        Ok(text)
    }

    /// Reads until there are `target` bytes; `false` when the input ends before.
    async fn fill(&mut self, target: usize) -> Result<bool> {
        while self.buffer.len() < target && !self.is_last {
            match self.blocks.try_next().await? {
                Some(block) => self.buffer.extend_from_slice(&block),
                None => self.is_last = true,
            }
        }
        Ok(self.buffer.len() >= target)
    }

    fn consume(&mut self, count: usize) {
        self.buffer.advance(count);
        self.offset += count as u64;
    }

    /// Skips through the next line end.
    async fn skip_line(&mut self) -> Result<()> {
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.buffer) {
                self.consume(end + 1);
                return Ok(());
            }
            self.consume(self.buffer.len());
            if !self.fill(1).await? {
                return Ok(());
            }
        }
    }
}

struct TextReader {
    range: FileRange,
    text: Text,
    decoder: Box<dyn RowDecoder>,
    batch_rows: usize,
    skipped: Counter,
    /// How much text a batch takes, as far as rows seen tell.
    target: usize,
}

impl TextReader {
    async fn open(range: FileRange, decoder: Box<dyn RowDecoder>, options: &ReadOptions) -> Result<Self> {
        let resumed = position_in(&range)?;
        // A range that begins in the middle starts behind the first line end at or behind the byte before it: the line
        // that reaches over the border belongs to the range where it begins.
        let offset = resumed.unwrap_or_else(|| range.start.saturating_sub(1));
        let mut text = Text::open(&range.file, range.size, offset).await?;
        if resumed.is_none() && range.start > 0 {
            text.skip_line().await?;
        }
        Ok(Self {
            range,
            text,
            decoder,
            batch_rows: options.batch_rows.max(1),
            skipped: options.skipped.clone(),
            target: TEXT_BYTES_MIN,
        })
    }

    /// Skips to `offset` if that is ahead.
    async fn skip_to(&mut self, offset: u64) -> Result<()> {
        while self.text.offset < offset && self.text.fill(1).await? {
            let ahead = usize::try_from(offset - self.text.offset).unwrap_or(usize::MAX);
            self.text.consume(ahead.min(self.text.buffer.len()));
        }
        Ok(())
    }

    fn into_stream(self) -> SplitStream {
        futures::stream::try_unfold(self, |mut reader| async move {
            let batch = reader.next().await?;
            Ok(batch.map(|records| ((records, encode_position(reader.text.offset)), reader)))
        })
        .boxed()
    }

    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            let has_more = self.text.fill(self.target).await?;
            let left = self.range.end.map_or(u64::MAX, |end| end.saturating_sub(self.text.offset));
            if left == 0 || self.text.buffer.is_empty() {
                return Ok(None);
            }
            let text = RowText {
                bytes: &self.text.buffer,
                rows_max: self.batch_rows,
                starts_before: usize::try_from(left).unwrap_or(usize::MAX),
                is_last: !has_more,
            };
            let rows = match self.decoder.decode(text) {
                Ok(rows) => rows,
                Err(error) => {
                    let FileRange { file, size, .. } = self.range.clone();
                    return Err(explain(file, size, self.text.offset, error).await);
                }
            };
            self.skipped.add(rows.skipped);
            self.adapt(&rows, has_more)?;
            if rows.consumed == 0 && !has_more {
                return Ok(None);
            }
            self.text.consume(rows.consumed);
            if rows.records.num_rows() > 0 {
                return Ok(Some(rows.records));
            }
        }
    }

    /// Gathers as much text for the next batch as this one took, and a little more; twice as much when a row did not fit.
    fn adapt(&mut self, rows: &Rows, has_more: bool) -> Result<()> {
        if rows.consumed == 0 && has_more {
            if self.text.buffer.len() >= ROW_BYTES_MAX {
                let message = format!("a row is longer than {ROW_BYTES_MAX} bytes");
                return Err(Error::data(message).context(&self.range.file));
            }
            self.target = self.text.buffer.len() * 2;
            return Ok(());
        }
        let decoded = rows.records.num_rows() + rows.skipped;
        if let Some(row_bytes) = rows.consumed.checked_div(decoded) {
            let batch_bytes = row_bytes * self.batch_rows;
            self.target = (batch_bytes + batch_bytes / 8).clamp(TEXT_BYTES_MIN, TEXT_BYTES_MAX);
        }
        Ok(())
    }
}

/// The error of a row with file and line.
async fn explain(file: Location, size: u64, text_offset: u64, error: RowError) -> Error {
    match count_lines(&file, size, text_offset + error.offset as u64).await {
        Ok(lines) => error.at_line(lines).context(file),
        Err(failure) => failure,
    }
}

/// The number that the position of a file holds; `None` for the beginning.
pub(crate) fn position_in(range: &FileRange) -> Result<Option<u64>> {
    decode_position(&range.position).map_err(|error| error.context(&range.file))
}

/// A stream that numbers rows: cuts batches to `batch_rows` and puts the row number behind each, for formats whose position
/// is a count of rows.
pub(crate) fn number_rows(
    batches: impl futures::Stream<Item = Result<RecordBatch>> + Send + 'static,
    start: u64,
    batch_rows: usize,
) -> SplitStream {
    let pieces = batches.map_ok(move |batch| {
        let cuts: Vec<_> = (0..batch.num_rows()).step_by(batch_rows.max(1)).collect();
        let pieces = cuts.into_iter().map(move |at| batch.slice(at, batch_rows.min(batch.num_rows() - at)));
        futures::stream::iter(pieces.map(Ok))
    });
    let mut row = start;
    pieces
        .try_flatten()
        .map_ok(move |batch: RecordBatch| {
            row += batch.num_rows() as u64;
            (batch, encode_position(row))
        })
        .boxed()
}

/// The batch of `columns`; without any, it still knows its number of rows.
pub(crate) fn batch_of(
    schema: &arrow::datatypes::SchemaRef,
    columns: Vec<arrow::array::ArrayRef>,
    rows: usize,
) -> Result<RecordBatch, RowError> {
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options).map_err(|error| RowError {
        offset: 0,
        column: None,
        reason: error.to_string(),
    })
}
