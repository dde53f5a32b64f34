//! Batches on local disk: one file a producing subtask, indexed by channel through the handles it returns.
//!
//! ```text
//! file:   | block | block | block | …          a block is an Arrow IPC stream of one batch; row kinds and key hashes
//! handle: { offset, length, checksum }          travel as two more columns
//! ```
//!
//! The file is made at the first write, under a name of its own in one of the temporary directories, and removed when the last
//! handle is gone: also when the job fails.

use std::fs::File;
use std::io::Cursor;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{ArrayRef, AsArray, RecordBatch, UInt8Array, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, UInt8Type, UInt64Type};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use tidemill_core::metrics::Counter;
use tidemill_core::{Batch, Error, ErrorKind, Result};
use xxhash_rust::xxh3::xxh3_64;

use crate::error::FREE_SPACE;

const KINDS: &str = "$kinds";
const HASHES: &str = "$hashes";

/// Directories for spill files, used in turn, and how many bytes went there.
#[derive(Debug)]
pub struct SpillDirs {
    dirs: Vec<PathBuf>,
    next: AtomicU64,
    spilled: Counter,
}

impl SpillDirs {
    /// Spills into `dirs`; into the system's temporary directory if there are none.
    pub fn new(dirs: impl IntoIterator<Item = PathBuf>) -> Self {
        let mut dirs: Vec<PathBuf> = dirs.into_iter().collect();
        if dirs.is_empty() {
            dirs.push(std::env::temp_dir());
        }
        Self { dirs, next: AtomicU64::new(0), spilled: Counter::default() }
    }

    /// Bytes written so far.
    pub fn spilled_bytes(&self) -> u64 {
        self.spilled.get()
    }

    /// The directories.
    pub fn paths(&self) -> &[PathBuf] {
        &self.dirs
    }

    fn next_path(&self) -> PathBuf {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let dir = &self.dirs[number as usize % self.dirs.len()];
        // The address of this object tells apart two engines in one process, the process id two processes.
        dir.join(format!("tidemill-spill-{}-{:x}-{number}", std::process::id(), std::ptr::from_ref(self).addr()))
    }
}

/// The spill file of one producing subtask.
#[derive(Debug)]
pub struct SpillFile {
    dirs: Arc<SpillDirs>,
    open: Mutex<Option<OpenFile>>,
}

#[derive(Debug, Clone)]
struct OpenFile {
    file: Arc<NamedFile>,
    end: u64,
}

/// A file that is removed when nobody needs it.
#[derive(Debug)]
struct NamedFile {
    file: File,
    path: PathBuf,
}

impl Drop for NamedFile {
    fn drop(&mut self) {
        // Nothing can be done about a file that someone else removed first.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl SpillFile {
    /// A file that does not exist yet.
    pub fn new(dirs: Arc<SpillDirs>) -> Self {
        Self { dirs, open: Mutex::new(None) }
    }

    /// Writes a batch behind what was written so far.
    pub async fn write(&self, batch: Batch) -> Result<SpilledBatch> {
        let block = encode(batch)?;
        let (file, offset) = {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            if open.is_none() {
                *open = Some(OpenFile { file: Arc::new(create(self.dirs.next_path())?), end: 0 });
            }
            let Some(open) = open.as_mut() else { return Err(Error::internal("no spill file after opening one")) };
            let offset = open.end;
            open.end += block.len() as u64;
            (open.file.clone(), offset)
        };
        file.file.write_all_at(&block, offset).map_err(|error| disk_error("write", &file.path, error))?;
        self.dirs.spilled.add(block.len());
        Ok(SpilledBatch { file, offset, length: block.len(), checksum: xxh3_64(&block) })
    }
}

/// Where a batch lies on disk.
#[derive(Debug)]
pub struct SpilledBatch {
    file: Arc<NamedFile>,
    offset: u64,
    length: usize,
    checksum: u64,
}

impl SpilledBatch {
    /// Reads it back; bytes that are not what was written are an error.
    pub async fn read(self) -> Result<Batch> {
        let mut block = vec![0; self.length];
        let path = &self.file.path;
        self.file.file.read_exact_at(&mut block, self.offset).map_err(|error| disk_error("read", path, error))?;
        if xxh3_64(&block) != self.checksum {
            return Err(Error::corrupt(format!("spill file {} differs from what was written", path.display())));
        }
        decode(&block)
    }
}

fn create(path: PathBuf) -> Result<NamedFile> {
    let mut options = std::fs::OpenOptions::new();
    let file = options.read(true).write(true).create_new(true).open(&path);
    let file = file.map_err(|error| disk_error("create", &path, error))?;
    Ok(NamedFile { file, path })
}

fn disk_error(verb: &str, path: &Path, error: std::io::Error) -> Error {
    let plain = Error::from(error);
    let hint = match plain.kind() {
        ErrorKind::Exhausted => FREE_SPACE,
        _ => "check io.tmp.dirs",
    };
    plain.context(format!("cannot {verb} spill file {}", path.display())).with_hint(hint)
}

fn encode(batch: Batch) -> Result<Vec<u8>> {
    let (records, kinds, hashes) = batch.compact().into_parts();
    let (schema, mut columns, rows) = (records.schema(), records.columns().to_vec(), records.num_rows());
    let mut fields: Vec<Arc<Field>> = schema.fields().to_vec();
    if let Some(kinds) = kinds {
        fields.push(Arc::new(Field::new(KINDS, DataType::UInt8, false)));
        columns.push(Arc::new(UInt8Array::new(kinds, None)));
    }
    if let Some(hashes) = hashes {
        fields.push(Arc::new(Field::new(HASHES, DataType::UInt64, false)));
        columns.push(Arc::new(UInt64Array::new(hashes, None)));
    }
    let schema = Schema::new_with_metadata(fields, schema.metadata().clone());
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows));
    let records = RecordBatch::try_new_with_options(Arc::new(schema), columns, &options)?;
    let mut writer = StreamWriter::try_new(Vec::new(), &records.schema())?;
    writer.write(&records)?;
    Ok(writer.into_inner()?)
}

fn decode(block: &[u8]) -> Result<Batch> {
    let mut reader = StreamReader::try_new(Cursor::new(block), None)?;
    let records = reader.next().ok_or_else(|| Error::corrupt("a spilled block holds no batch"))??;
    let mut count = records.num_columns();
    let mut pop = |name: &str| -> Option<ArrayRef> {
        (count > 0 && records.schema_ref().field(count - 1).name() == name).then(|| {
            count -= 1;
            records.column(count).clone()
        })
    };
    let (hashes, kinds) = (pop(HASHES), pop(KINDS));
    let plain = records.project(&(0..count).collect::<Vec<_>>())?;
    let batch = match kinds {
        Some(kinds) => Batch::changelog(plain, kinds.as_primitive::<UInt8Type>().values().clone())?,
        None => Batch::append(plain),
    };
    match hashes {
        Some(hashes) => batch.with_hashes(hashes.as_primitive::<UInt64Type>().values().clone()),
        None => Ok(batch),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, StringArray};

    use super::*;

    fn batch() -> Batch {
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None]));
        let texts: ArrayRef = Arc::new(StringArray::from(vec!["a", "b"]));
        let records = RecordBatch::try_from_iter([("n", numbers), ("t", texts)]).unwrap();
        Batch::changelog(records, vec![1, 2].into()).unwrap().with_hashes(vec![7, 8].into()).unwrap()
    }

    #[tokio::test]
    async fn a_batch_comes_back_whole_and_the_file_goes() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = Arc::new(SpillDirs::new([dir.path().to_owned()]));
        let file = SpillFile::new(dirs.clone());
        let spilled = file.write(batch()).await.unwrap();
        assert!(dirs.spilled_bytes() > 0 && std::fs::read_dir(dir.path()).unwrap().count() == 1);
        let back = spilled.read().await.unwrap();
        assert_eq!(back.records(), batch().records());
        assert_eq!((back.kinds().unwrap().as_ref(), back.hashes().unwrap().as_ref()), (&[1, 2][..], &[7, 8][..]));
        drop(file);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn damaged_bytes_are_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let file = SpillFile::new(Arc::new(SpillDirs::new([dir.path().to_owned()])));
        let spilled = file.write(batch()).await.unwrap();
        let path = std::fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path();
        std::fs::OpenOptions::new().write(true).open(path).unwrap().write_all_at(b"x", 40).unwrap();
        assert_eq!(spilled.read().await.unwrap_err().kind(), ErrorKind::Corrupt);
    }

    #[tokio::test]
    async fn a_missing_directory_is_named() {
        let file = SpillFile::new(Arc::new(SpillDirs::new(["/nonexistent/spill".into()])));
        let error = file.write(batch()).await.unwrap_err().to_string();
        assert!(error.contains("/nonexistent/spill") && error.contains("io.tmp.dirs"), "{error}");
    }
}
