//! The rows of one who holds state: a range of the keys of the database.
//!
//! ```text
//! | range 8 bytes | family 1 byte | key group 4 bytes | key … |      all of it so that bytes sort as numbers do
//! ```
//!
//! So what is read by key group lies together, in the order of snapshots.

use std::ops::Range;
use std::sync::Arc;

use rocksdb::{DBPinnableSlice, ReadOptions, Snapshot, WriteBatch};
use tidemill_core::{Error, Result};

use super::database::{Database, failure, write_options};

/// Bytes in front of the key.
const HEAD: usize = 8 + 1 + 4;

/// Rows of a range that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// What is kept.
    Rows = 0,
    /// What changed since the last snapshot.
    Changes = 1,
}

/// A range of the database. It is emptied when nobody needs it: neither whoever writes to it nor a moment of it.
#[derive(Debug)]
pub struct TierRange(Arc<Owned>);

#[derive(Debug)]
struct Owned {
    database: Arc<Database>,
    number: u64,
}

/// Full keys, one after the other.
#[derive(Debug, Default)]
pub struct RowKeys {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

/// Rows to be put and deleted together.
#[derive(Default)]
pub struct RowBatch(WriteBatch);

impl TierRange {
    pub(super) fn new(database: Arc<Database>) -> Self {
        let number = database.next_range();
        Self(Arc::new(Owned { database, number }))
    }

    /// The full keys of rows.
    pub fn keys<'a>(&self, family: Family, rows: impl Iterator<Item = (u32, &'a [u8])>) -> RowKeys {
        let mut keys = RowKeys::default();
        for (group, key) in rows {
            keys.bytes.extend(self.head(family, group));
            keys.bytes.extend(key);
            keys.ends.push(keys.bytes.len());
        }
        keys
    }

    /// What stands under these keys, in the order in which `order` lists them, which is theirs.
    pub fn get<'a>(&'a self, keys: &RowKeys, order: &[usize]) -> Result<Vec<Option<DBPinnableSlice<'a>>>> {
        let (rocks, family) = (self.0.database.rocks()?, self.0.database.family()?);
        let sorted = order.iter().map(|place| keys.get(*place));
        let found = rocks.batched_multi_get_cf(family, sorted, true).into_iter();
        found.collect::<Result<_, _>>().map_err(|error| failure("read", &error))
    }

    /// Puts and deletes rows.
    pub fn write(&self, rows: RowBatch) -> Result<()> {
        self.0.database.rocks()?.write_opt(rows.0, &write_options()).map_err(|error| failure("write", &error))
    }

    /// Deletes all rows of a family.
    pub fn clear(&self, family: Family) -> Result<()> {
        let mut rows = WriteBatch::default();
        let (from, to) = (self.head(family, 0), self.family_end(family));
        rows.delete_range(from.as_slice(), to.as_slice());
        self.write(RowBatch(rows))
    }

    /// The rows as they are now, whatever is written later.
    pub fn moment(&self) -> Result<Moment> {
        let snapshot = self.0.database.rocks()?.snapshot();
        // SAFETY: the snapshot borrows the database, which stands on the heap behind an `Arc` that `owner` keeps. Fields are
        // dropped in their order: the snapshot is gone before the database can be.
        let snapshot = unsafe { std::mem::transmute::<Snapshot<'_>, Snapshot<'static>>(snapshot) };
        Ok(Moment { snapshot, owner: self.0.clone() })
    }

    /// The rows as they are while they are read.
    pub fn scan(&self, family: Family, from: &[u8], visit: Visit<'_>) -> Result<()> {
        let rocks = self.0.database.rocks()?;
        let (head, end) = (self.head(family, 0), self.family_end(family));
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(end.as_slice());
        options.fill_cache(false);
        let mut rows = rocks.raw_iterator_opt(options);
        rows.seek(if from.is_empty() { head.as_slice() } else { from });
        walk(&mut rows, visit)
    }

    fn head(&self, family: Family, group: u32) -> [u8; HEAD] {
        head(self.0.number, family, group)
    }

    fn family_end(&self, family: Family) -> [u8; 9] {
        let mut end = [0; 9];
        end.copy_from_slice(&self.head(family, 0)[..9]);
        end[8] += 1;
        end
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // What stays is not found again, and goes with the database.
        let (from, to) = (self.number.to_be_bytes(), (self.number + 1).to_be_bytes());
        if let Ok(rocks) = self.database.rocks() {
            let mut rows = WriteBatch::default();
            rows.delete_range(from, to);
            let _ = rocks.write_opt(rows, &write_options());
            let _ = rocks.delete_file_in_range(from, to);
        }
    }
}

impl RowKeys {
    /// A full key.
    pub fn get(&self, place: usize) -> &[u8] {
        let begin = if place == 0 { 0 } else { self.ends[place - 1] };
        &self.bytes[begin..self.ends[place]]
    }

    /// Their places in their order.
    pub fn order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.ends.len()).collect();
        order.sort_unstable_by(|left, right| self.get(*left).cmp(self.get(*right)));
        order
    }
}

impl RowBatch {
    /// Puts a row.
    pub fn put(&mut self, key: &[u8], value: &[u8]) {
        self.0.put(key, value);
    }

    /// Deletes a row, if there is one.
    pub fn delete(&mut self, key: &[u8]) {
        self.0.delete(key);
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Sees the full key, the key group, the key and the value of a row; `false` to see no more.
pub type Visit<'a> = &'a mut dyn FnMut(&[u8], u32, &[u8], &[u8]) -> Result<bool>;

/// The rows of a range at one moment. It keeps the database open.
pub struct Moment {
    snapshot: Snapshot<'static>,
    owner: Arc<Owned>,
}

impl Moment {
    /// The rows of these key groups, in their order.
    pub fn scan(&self, family: Family, groups: Range<u32>, visit: Visit<'_>) -> Result<()> {
        let (from, to) = (head(self.owner.number, family, groups.start), head(self.owner.number, family, groups.end));
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(to.as_slice());
        options.fill_cache(false);
        let mut rows = self.snapshot.raw_iterator_opt(options);
        rows.seek(from);
        walk(&mut rows, visit)
    }
}

impl std::fmt::Debug for Moment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Moment({})", self.owner.number)
    }
}

fn head(number: u64, family: Family, group: u32) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[..8].copy_from_slice(&number.to_be_bytes());
    head[8] = family as u8;
    head[9..].copy_from_slice(&group.to_be_bytes());
    head
}

fn walk(rows: &mut rocksdb::DBRawIterator<'_>, visit: Visit<'_>) -> Result<()> {
    while let Some((full, value)) = rows.item() {
        let group = full.get(9..HEAD).and_then(|group| group.try_into().ok()).map(u32::from_be_bytes);
        let group = group.ok_or_else(|| Error::internal("a row without a key group on local disk"))?;
        if !visit(full, group, &full[HEAD..], value)? {
            return Ok(());
        }
        rows.next();
    }
    rows.status().map_err(|error| failure("read", &error))
}
