//! The rows of a Parquet file of states, chunk by chunk, each checked before anything of it is decoded.

use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use bytes::{Buf, Bytes};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::ParquetMetaDataReader;
use parquet::file::reader::{ChunkReader, Length};
use tidemill_core::Result;
use xxhash_rust::xxh3::Xxh3Default;

use super::measure::{measure_column, measure_footer};
use super::plain::restored;
use crate::checkpoint::codec::groups_of_rows;
use crate::checkpoint::content::StoredChunk;

/// The most rows that come in one batch.
const BATCH_ROWS: usize = 8192;

/// The file of a layer, opened.
#[derive(Clone, Debug)]
pub struct ParquetLayer {
    schema: SchemaRef,
    /// Where the chunks end, and what follows.
    footer: (u64, Bytes),
    /// What is wrong with that, once somebody has looked.
    measured: Arc<OnceLock<Result<(), String>>>,
}

impl ParquetLayer {
    /// A layer of these columns, whose chunks end at `end`, where `footer` begins.
    pub fn new(schema: SchemaRef, end: u64, footer: Bytes) -> Self {
        Self { schema, footer: (end, footer), measured: Arc::default() }
    }

    /// The rows of the chunk in this place among those of the layer, or what is wrong with its bytes. Never panics.
    pub fn decode(&self, place: usize, chunk: &StoredChunk, bytes: Bytes) -> Result<Vec<RecordBatch>, String> {
        let read = || self.checked(place, chunk, bytes);
        catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| Err("what Parquet cannot read".to_owned()))
    }

    /// What is wrong with the bytes of a chunk.
    pub fn check(&self, chunk: &StoredChunk, bytes: &Bytes) -> Result<(), String> {
        if bytes.len() as u64 != chunk.length {
            return Err(format!("there are {} bytes of {}", bytes.len(), chunk.length));
        }
        let mut checksum = Xxh3Default::new();
        checksum.update(bytes);
        checksum.update(&self.footer.1);
        let checksum = checksum.digest();
        if checksum != chunk.checksum {
            return Err(format!("checksum {checksum:016x} instead of {:016x}", chunk.checksum));
        }
        Ok(())
    }

    fn checked(&self, place: usize, chunk: &StoredChunk, bytes: Bytes) -> Result<Vec<RecordBatch>, String> {
        self.check(chunk, &bytes)?;
        self.measured.get_or_init(|| measure_footer(&self.footer.1)).clone()?;
        let batches = self.rows(place, chunk, Parts { chunk: (chunk.offset, bytes), footer: self.footer.clone() })?;
        let rows: u64 = batches.iter().map(|batch| batch.num_rows() as u64).sum();
        if rows != chunk.rows {
            return Err(format!("{rows} rows instead of {}", chunk.rows));
        }
        if let Some(groups) = chunk.groups
            && groups_of_rows(&batches)? != groups
        {
            return Err(format!("key groups other than {} to {}", groups.0, groups.1));
        }
        Ok(batches)
    }

    fn rows(&self, place: usize, chunk: &StoredChunk, parts: Parts) -> Result<Vec<RecordBatch>, String> {
        let text = |error: ParquetError| error.to_string();
        let metadata = ParquetMetaDataReader::new().parse_and_finish(&parts).map_err(text)?;
        let group = metadata.row_groups().get(place).ok_or_else(|| format!("no row group {place}"))?;
        if u64::try_from(group.num_rows()) != Ok(chunk.rows) {
            return Err(format!("{} rows instead of {}", group.num_rows(), chunk.rows));
        }
        group.columns().iter().try_for_each(|column| measure_column(column, &parts.chunk.1, chunk.offset))?;
        let metadata = ArrowReaderMetadata::try_new(Arc::new(metadata), ArrowReaderOptions::new()).map_err(text)?;
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(parts, metadata);
        let reader = reader.with_row_groups(vec![place]).with_batch_size(BATCH_ROWS).build().map_err(text)?;
        let mut batches = Vec::new();
        for batch in reader {
            self.restore(&batch.map_err(|error| error.to_string())?, &mut batches)?;
        }
        Ok(batches)
    }

    /// Appends rows in the columns of the layer; in more batches than they came in where their dictionaries do not fit into one.
    fn restore(&self, stored: &RecordBatch, batches: &mut Vec<RecordBatch>) -> Result<(), String> {
        let rows = stored.num_rows();
        match self.restored_batch(stored) {
            Ok(batch) => batches.push(batch),
            Err(_) if rows > 1 => {
                self.restore(&stored.slice(0, rows / 2), batches)?;
                self.restore(&stored.slice(rows / 2, rows - rows / 2), batches)?;
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn restored_batch(&self, stored: &RecordBatch) -> Result<RecordBatch, String> {
        let fields = self.schema.fields();
        let is_alike =
            stored.schema_ref().fields().iter().map(|field| field.name()).eq(fields.iter().map(|field| field.name()));
        if !is_alike {
            return Err("other columns than those of its state".to_owned());
        }
        let columns = stored.columns().iter().zip(fields);
        let columns = columns.map(|(column, field)| restored(column, field.data_type()));
        let columns = columns.collect::<Result<Vec<ArrayRef>>>().map_err(|error| error.to_string())?;
        let options = RecordBatchOptions::new().with_row_count(Some(stored.num_rows()));
        RecordBatch::try_new_with_options(self.schema.clone(), columns, &options).map_err(|error| error.to_string())
    }
}

/// What is there of a file: one chunk, and what stands behind all chunks.
#[derive(Clone)]
struct Parts {
    chunk: (u64, Bytes),
    footer: (u64, Bytes),
}

impl Parts {
    /// What is there from `start` on.
    fn from(&self, start: u64) -> ParquetResult<Bytes> {
        let within = |(offset, bytes): &(u64, Bytes)| {
            let skipped = usize::try_from(start.checked_sub(*offset)?).ok()?;
            (skipped <= bytes.len()).then(|| bytes.slice(skipped..))
        };
        let found = within(&self.footer).or_else(|| within(&self.chunk));
        found.ok_or_else(|| ParquetError::EOF(format!("bytes at {start} were not asked for")))
    }
}

impl Length for Parts {
    fn len(&self) -> u64 {
        self.footer.0 + self.footer.1.len() as u64
    }
}

impl ChunkReader for Parts {
    type T = Box<dyn Read + Send>;

    fn get_read(&self, start: u64) -> ParquetResult<Self::T> {
        Ok(Box::new(self.from(start)?.reader()))
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        let bytes = self.from(start)?;
        match length <= bytes.len() {
            true => Ok(bytes.slice(..length)),
            false => Err(ParquetError::EOF(format!("{length} bytes at {start} of {}", bytes.len()))),
        }
    }
}
