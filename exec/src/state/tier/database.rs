//! The one RocksDB of a worker: where it lies, what it may occupy, and that it leaves nothing behind.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, DB, DBCompressionType, LogLevel, MergeOperands, Options,
    WriteBufferManager, WriteOptions,
};
use tidemill_core::{Error, ErrorKind, Result};

use super::page::{EMPTY, merged};
use crate::error::FREE_SPACE;

/// How the folders begin.
const PREFIX: &str = "tidemill-state-";
/// The file that the owner of a folder keeps locked for as long as it lives.
const OWNER: &str = "owner";
/// The name under which RocksDB knows the rows that nobody has given a family.
const DEFAULT: &str = "default";

/// An open database, removed when dropped.
pub struct Database {
    /// `None` only while it is dropped.
    db: Option<DB>,
    folder: Folder,
    next_range: AtomicU64,
    _memory: MemoryReservation,
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Database({})", self.folder.path.display())
    }
}

impl Database {
    /// Opens one in the first of `dirs` that can be written, of `bytes` in memory, which are charged to `memory`.
    pub fn open(dirs: &[PathBuf], bytes: usize, memory: &Arc<dyn MemoryPool>) -> Result<Self> {
        dirs.iter().for_each(|dir| remove_leftovers(dir));
        let mut failed = None;
        for dir in dirs {
            match Folder::create(dir) {
                Ok(folder) => return Self::open_in(folder, bytes, memory),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        Err(failed.unwrap_or_else(|| Error::internal("state has no temporary directory")))
    }

    fn open_in(folder: Folder, bytes: usize, memory: &Arc<dyn MemoryPool>) -> Result<Self> {
        let charged = MemoryConsumer::new("state on local disk").register(memory);
        // Whoever gives state away frees more than this; to refuse it would keep them from it.
        charged.grow(bytes);
        let options = options(bytes);
        let db = DB::open_cf_with_opts(&options, folder.path.join("db"), [(DEFAULT, options.clone())]);
        let db = db.map_err(|error| failure("open", &error))?;
        Ok(Self { db: Some(db), folder, next_range: AtomicU64::new(0), _memory: charged })
    }

    /// RocksDB.
    pub fn rocks(&self) -> Result<&DB> {
        self.db.as_ref().ok_or_else(|| Error::internal("state on local disk was used after it was closed"))
    }

    /// The family that all rows are in.
    pub fn family(&self) -> Result<&ColumnFamily> {
        self.rocks()?.cf_handle(DEFAULT).ok_or_else(|| Error::internal("a database without its default family"))
    }

    /// A number that no range has had.
    pub fn next_range(&self) -> u64 {
        self.next_range.fetch_add(1, Ordering::Relaxed)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if let Some(db) = self.db.take() {
            db.cancel_all_background_work(true);
        }
        // What cannot be removed now, the next process removes.
        let _ = std::fs::remove_dir_all(&self.folder.path);
    }
}

/// Nothing is logged ahead: what is lost with the process nobody looks for.
pub fn write_options() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.disable_wal(true);
    options
}

/// The error of an access that failed.
pub fn failure(verb: &str, error: &rocksdb::Error) -> Error {
    let text = error.to_string();
    let is_full = text.contains("No space left") || text.contains("Disk quota");
    let message = format!("cannot {verb} state on local disk: {text}");
    // Also what is damaged is only a copy: the job can go on from its checkpoint.
    match is_full {
        true => Error::new(ErrorKind::Exhausted, message).with_hint(FREE_SPACE),
        false => Error::new(ErrorKind::Unavailable, message).with_hint("check the disk of io.tmp.dirs"),
    }
}

/// Half of the memory for memtables, all of it together for cached blocks and them.
fn options(bytes: usize) -> Options {
    let cache = Cache::new_lru_cache(bytes);
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(&cache);
    blocks.set_block_size(4 << 10);
    blocks.set_bloom_filter(10.0, false);
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
    blocks.set_format_version(5);
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_block_based_table_factory(&blocks);
    // Pages are packed already.
    options.set_compression_type(DBCompressionType::None);
    let full =
        |_: &[u8], below: Option<&[u8]>, above: &MergeOperands| merged(Some(below.unwrap_or(EMPTY)), above.iter()).ok();
    let partial = |_: &[u8], _: Option<&[u8]>, above: &MergeOperands| merged(None, above.iter()).ok();
    options.set_merge_operator("pages", full, partial);
    options.set_write_buffer_manager(&WriteBufferManager::new_write_buffer_manager_with_cache(
        bytes / 4 * 3,
        true,
        cache,
    ));
    options.set_write_buffer_size((bytes / 8).max(64 << 10));
    options.set_max_write_buffer_number(4);
    options.set_max_background_jobs(4);
    options.set_level_compaction_dynamic_level_bytes(true);
    options.set_target_file_size_base((bytes as u64 / 8).clamp(2 << 20, 64 << 20));
    options.set_max_bytes_for_level_base((bytes as u64).clamp(16 << 20, 256 << 20));
    options.set_max_open_files(256);
    options.set_use_fsync(false);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options.set_log_level(LogLevel::Fatal);
    options.set_keep_log_file_num(1);
    options
}

/// A folder of our own, and the lock that says so.
struct Folder {
    path: PathBuf,
    _owner: File,
}

impl Folder {
    fn create(dir: &Path) -> Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let refused = |path: &Path, error: std::io::Error| {
            Error::from(error).context(format!("cannot create {}", path.display())).with_hint("check io.tmp.dirs")
        };
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = dir.join(format!("{PREFIX}{}-{number}", std::process::id()));
            match std::fs::create_dir(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => continue,
                made => made.map_err(|error| refused(&path, error))?,
            }
            let owner = File::create_new(path.join(OWNER)).map_err(|error| refused(&path, error))?;
            // Another process may take the folder for a leftover, and remove it, until it is locked.
            if owner.try_lock().is_ok() && path.exists() {
                return Ok(Self { path, _owner: owner });
            }
        }
    }
}

/// Removes the folders in `dir` whose owners are gone.
fn remove_leftovers(dir: &Path) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let is_ours = path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(PREFIX));
        // Without the file it is about to be made, or about to be removed.
        if is_ours && File::open(path.join(OWNER)).is_ok_and(|owner| owner.try_lock().is_ok()) {
            // Someone else may be quicker.
            let _ = std::fs::remove_dir_all(&path);
        }
    }
}
