//! The rows of one who holds state: a range of the keys of the database.
//!
//! ```text
//! | range 8 bytes | family 1 byte | key group 4 bytes | place within it … |      all of it so that bytes sort as numbers do
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

/// What belongs together of a range.
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

/// What is to be written together.
#[derive(Default)]
pub struct Writes(WriteBatch);

impl TierRange {
    pub(super) fn new(database: Arc<Database>) -> Self {
        let number = database.next_range();
        Self(Arc::new(Owned { database, number }))
    }

    /// A full key.
    pub fn key(&self, family: Family, group: u32, place: &[u8]) -> Vec<u8> {
        [&self.head(family, group)[..], place].concat()
    }

    /// What stands under these full keys, which are in their order.
    pub fn get(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<DBPinnableSlice<'_>>>> {
        let (rocks, family) = (self.0.database.rocks()?, self.0.database.family()?);
        let found = rocks.batched_multi_get_cf(family, keys, true).into_iter();
        found.collect::<Result<_, _>>().map_err(|error| failure("read", &error))
    }

    /// Writes.
    pub fn write(&self, rows: Writes) -> Result<()> {
        self.0.database.rocks()?.write_opt(rows.0, &write_options()).map_err(|error| failure("write", &error))
    }

    /// Deletes a family.
    pub fn clear(&self, family: Family) -> Result<()> {
        let mut rows = WriteBatch::default();
        let (from, to) = (self.head(family, 0), self.family_end(family));
        rows.delete_range(from.as_slice(), to.as_slice());
        self.write(Writes(rows))
    }

    /// The range as it is now, whatever is written later.
    pub fn moment(&self) -> Result<Moment> {
        let snapshot = self.0.database.rocks()?.snapshot();
        // SAFETY: the snapshot borrows the database, which stands on the heap behind an `Arc` that `owner` keeps. Fields are
        // dropped in their order: the snapshot is gone before the database can be.
        let snapshot = unsafe { std::mem::transmute::<Snapshot<'_>, Snapshot<'static>>(snapshot) };
        Ok(Moment { snapshot, owner: self.0.clone() })
    }

    /// The range as it is while it is read.
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

impl Writes {
    /// Puts a value.
    pub fn put(&mut self, key: &[u8], value: &[u8]) {
        self.0.put(key, value);
    }

    /// Lays a page over the one under this key, without reading it.
    pub fn lay_over(&mut self, key: &[u8], page: &[u8]) {
        self.0.merge(key, page);
    }

    /// Bytes of what is to be done.
    pub fn size_bytes(&self) -> usize {
        self.0.size_in_bytes()
    }
}

/// Sees the key group and the value under a key; `false` to see no more.
pub type Visit<'a> = &'a mut dyn FnMut(u32, &[u8]) -> Result<bool>;

/// A range at one moment. It keeps the database open.
pub struct Moment {
    snapshot: Snapshot<'static>,
    owner: Arc<Owned>,
}

impl Moment {
    /// The values of these key groups, in their order.
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
        let group = group.ok_or_else(|| Error::internal("a key without a key group on local disk"))?;
        if !visit(group, value)? {
            return Ok(());
        }
        rows.next();
    }
    rows.status().map_err(|error| failure("read", &error))
}
