//! Rows found by key, of which those with neighbouring hashes lie together in one value: a page.
//!
//! ```text
//! key group ── the first bits of the hash, as many as the group's depth ──> one page ── decode ──> its rows
//! ```
//!
//! The database thus sees one of its keys where there are hundreds of ours, and many rows are read as cheaply as one, provided that
//! they are neighbours: whoever has many should come with them in the order of their hashes. Nothing is read to write rows: they are
//! laid over their page, and RocksDB merges them when it compacts, or when somebody reads. A group that has grown gets deeper by a bit,
//! and each of its pages becomes two.

use std::ops::Range;

use tidemill_core::Result;
use tidemill_core::key::key_group;
use tidemill_core::state::portions;

use super::page::{EMPTY, Page, PageView};
use super::{Family, Moment, TierRange, Writes};

/// How many bytes of rows a page has on average before it becomes two. More of them are decoded for every row that is looked for,
/// fewer have the database work more.
const PAGE_BYTES: u64 = 16 << 10;

/// How many pages are read together.
const READ_PAGES: usize = 64;

/// How many bytes are written together when pages become two.
const WRITE_BYTES: usize = 1 << 20;

/// The rows of one who holds state.
#[derive(Debug)]
pub struct Pages {
    range: TierRange,
    groups: Vec<Group>,
}

/// The pages of one key group.
#[derive(Clone, Copy, Debug, Default)]
struct Group {
    /// How many bits of the hash tell the page.
    depth: u32,
    /// How many rows there are.
    rows: u64,
    /// How many bytes they have, roughly.
    bytes: u64,
    /// How many bytes were written to the changes, at the most.
    changed_bytes: u64,
}

impl Group {
    /// The least hash that is in the same page.
    fn start(&self, hash: u32) -> u32 {
        hash & u32::MAX.checked_shl(32 - self.depth).unwrap_or(0)
    }
}

/// Where the row of a key lies: those of a key group together, in the order of their hashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    group: u32,
    hash: u32,
}

impl Place {
    /// The place of a key with this hash, where there are so many key groups.
    pub fn of(hash: u64, max_parallelism: u32) -> Self {
        // The high half has chosen the key group; it is the low one that tells the keys of a group apart.
        Self { group: key_group(hash, max_parallelism), hash: hash as u32 }
    }
}

/// Keys of rows, each with its place.
#[derive(Debug, Default)]
pub struct RowKeys {
    places: Vec<Place>,
    bytes: Values,
}

/// Rows of bytes, one after the other.
#[derive(Debug, Default)]
pub struct Values {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

/// Where a scan goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    place: Place,
    key: Vec<u8>,
}

/// A row that a scan has come to.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    place: Place,
    /// Its key.
    pub key: &'a [u8],
    /// Its value.
    pub value: &'a [u8],
}

/// Sees rows in the order of their key groups and hashes; `false` to see no more.
pub type VisitRow<'a> = &'a mut dyn FnMut(Row<'_>) -> Result<bool>;

impl Pages {
    /// No rows in any of so many key groups.
    pub fn new(range: TierRange, groups: u32) -> Self {
        Self { range, groups: vec![Group::default(); groups as usize] }
    }

    /// Gives `found` the place in `keys` and the value of each row that is there; `order` is theirs.
    pub fn get(
        &self,
        keys: &RowKeys,
        order: &[usize],
        found: &mut dyn FnMut(usize, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let by_page = order.chunk_by(|one, other| self.are_together(keys, *one, *other));
        let has_rows = |places: &&[usize]| self.groups[keys.places[places[0]].group as usize].rows > 0;
        let by_page: Vec<&[usize]> = by_page.filter(has_rows).collect();
        let mut buffer = Vec::new();
        for some in by_page.chunks(READ_PAGES) {
            let pages: Vec<Vec<u8>> = some.iter().map(|places| self.page_of(Family::Rows, keys, places)).collect();
            for (places, bytes) in some.iter().zip(self.range.get(&pages)?) {
                let Some(bytes) = bytes else { continue };
                let (page, mut next) = (PageView::new(&bytes)?, 0);
                for place in *places {
                    let (row, is_there) = page.seek(next, keys.places[*place].hash, keys.get(*place));
                    if is_there {
                        found(*place, page.value(row, &mut buffer))?;
                    }
                    next = row;
                }
            }
        }
        Ok(())
    }

    /// Lays the rows of `keys` that `order` lists, which is theirs and has none of them twice, over what is there: with these values,
    /// or deletes them. `is_new` tells of a place whether there is no row so far.
    pub fn write(
        &mut self,
        family: Family,
        keys: &RowKeys,
        order: &[usize],
        values: Option<&Values>,
        is_new: &dyn Fn(usize) -> bool,
    ) -> Result<()> {
        // The others when they are written to the next time: that takes long, and groups grow at one pace.
        let mut has_deepened = false;
        for places in order.chunk_by(|one, other| keys.places[*one].group == keys.places[*other].group) {
            let number = keys.places[places[0]].group;
            let group = &mut self.groups[number as usize];
            for place in places {
                let bytes = values.map(|values| (keys.get(*place).len() + values.get(*place).len()) as u64);
                let average = group.bytes / group.rows.max(1);
                match (family, bytes) {
                    (Family::Changes, bytes) => group.changed_bytes += bytes.unwrap_or_default(),
                    (Family::Rows, Some(bytes)) if is_new(*place) => {
                        (group.rows, group.bytes) = (group.rows + 1, group.bytes + bytes);
                    }
                    // How many bytes it had nobody knows; where rows grow, so does their average.
                    (Family::Rows, Some(bytes)) => group.bytes = (group.bytes + bytes).saturating_sub(average),
                    (Family::Rows, None) => {
                        (group.rows, group.bytes) = (group.rows.saturating_sub(1), group.bytes - average);
                    }
                }
            }
            if !has_deepened {
                has_deepened = self.deepen(number)?;
            }
        }
        let (mut page, mut bytes, mut writes) = (Page::default(), Vec::new(), Writes::default());
        for places in order.chunk_by(|one, other| self.are_together(keys, *one, *other)) {
            let group = &self.groups[keys.places[places[0]].group as usize];
            if family == Family::Changes && group.changed_bytes == 0 {
                continue;
            }
            page.clear();
            for place in places {
                let value = values.map_or(&[][..], |values| values.get(*place));
                page.push(keys.places[*place].hash, keys.get(*place), value);
            }
            page.encode(0..page.len(), &mut bytes);
            writes.lay_over(&self.page_of(family, keys, places), &bytes);
            if writes.size_bytes() >= WRITE_BYTES {
                self.range.write(std::mem::take(&mut writes))?;
            }
        }
        self.range.write(writes)
    }

    /// Makes the pages of a key group smaller, if they have grown too large; whether it has looked.
    fn deepen(&mut self, number: u32) -> Result<bool> {
        // Not all groups at the same size.
        let page_bytes = PAGE_BYTES + PAGE_BYTES / 16 * u64::from(number % 16);
        let mut group = self.groups[number as usize];
        if group.bytes >> group.depth <= page_bytes || group.depth == 32 {
            return Ok(false);
        }
        group.bytes = self.bytes_of(number)?;
        let mut deeper = group;
        while deeper.bytes >> deeper.depth > PAGE_BYTES && deeper.depth < 32 {
            deeper.depth += 1;
        }
        if deeper.bytes >> group.depth <= page_bytes {
            self.groups[number as usize] = group;
            return Ok(true);
        }
        let (mut page, mut bytes, mut writes) = (Page::default(), Vec::new(), Writes::default());
        for family in [Family::Rows, Family::Changes] {
            let from = self.range.key(family, number, &[]);
            self.range.scan(family, &from, &mut |other, page_bytes| {
                if other != number {
                    return Ok(false);
                }
                page.decode(page_bytes)?;
                let mut begin = 0;
                while begin < page.len() {
                    let start = deeper.start(page.hash(begin));
                    let end = (begin..page.len()).find(|row| deeper.start(page.hash(*row)) != start);
                    let end = end.unwrap_or(page.len());
                    page.encode(begin..end, &mut bytes);
                    writes.put(&self.range.key(family, number, &start.to_be_bytes()), &bytes);
                    begin = end;
                }
                // The first of the new pages has the place of the old one, unless it has no rows.
                let old = (page.len() > 0).then(|| group.start(page.hash(0)));
                if let Some(old) = old.filter(|old| *old != deeper.start(page.hash(0))) {
                    writes.put(&self.range.key(family, number, &old.to_be_bytes()), EMPTY);
                }
                if writes.size_bytes() >= WRITE_BYTES {
                    self.range.write(std::mem::take(&mut writes))?;
                }
                Ok(true)
            })?;
        }
        self.range.write(writes)?;
        self.groups[number as usize] = deeper;
        Ok(true)
    }

    /// The bytes of the rows of a key group, counted.
    fn bytes_of(&self, number: u32) -> Result<u64> {
        let (mut page, mut bytes) = (Page::default(), 0);
        self.range.scan(Family::Rows, &self.range.key(Family::Rows, number, &[]), &mut |group, page_bytes| {
            if group == number {
                page.decode(page_bytes)?;
                bytes += page.size_bytes() as u64;
            }
            Ok(group == number)
        })?;
        Ok(bytes)
    }

    /// Deletes all rows of a family.
    pub fn clear(&mut self, family: Family) -> Result<()> {
        let bytes_of = |group: &mut Group| match family {
            Family::Rows => std::mem::take(&mut group.rows).max(std::mem::take(&mut group.bytes)),
            Family::Changes => std::mem::take(&mut group.changed_bytes),
        };
        match self.groups.iter_mut().map(bytes_of).sum::<u64>() {
            0 => Ok(()),
            _ => self.range.clear(family),
        }
    }

    /// Sees the rows from `from` on.
    pub fn scan(&self, family: Family, from: &Cursor, visit: VisitRow<'_>) -> Result<()> {
        let Some(group) = self.groups.get(from.place.group as usize) else { return Ok(()) };
        let first = self.range.key(family, from.place.group, &group.start(from.place.hash).to_be_bytes());
        let mut page = Page::default();
        self.range.scan(family, &first, &mut |group, bytes| {
            page.decode(bytes)?;
            visit_page(group, &page, &mut |row| match row.is_before(from) {
                true => Ok(true),
                false => visit(row),
            })
        })
    }

    /// The rows as they are now, whatever is written later.
    pub fn moment(&self) -> Result<Moment> {
        self.range.moment()
    }

    /// The key groups that have rows, in portions of some bytes.
    pub fn portions(&self, family: Family, bytes: u64) -> Vec<Range<u32>> {
        let of_group = |group: &Group| match family {
            Family::Rows => group.bytes.max(group.rows),
            Family::Changes => group.changed_bytes,
        };
        portions(&self.groups.iter().map(of_group).collect::<Vec<_>>(), bytes)
    }

    /// Bytes held.
    pub fn memory_bytes(&self) -> usize {
        self.groups.len() * size_of::<Group>()
    }

    /// Whether the rows of two keys are in one page.
    fn are_together(&self, keys: &RowKeys, one: usize, other: usize) -> bool {
        let (one, other) = (keys.places[one], keys.places[other]);
        let group = &self.groups[one.group as usize];
        one.group == other.group && group.start(one.hash) == group.start(other.hash)
    }

    /// The full key of the page of some keys.
    fn page_of(&self, family: Family, keys: &RowKeys, places: &[usize]) -> Vec<u8> {
        let place = places.first().map_or_else(Place::default, |place| keys.places[*place]);
        let start = self.groups[place.group as usize].start(place.hash);
        self.range.key(family, place.group, &start.to_be_bytes())
    }
}

impl Moment {
    /// The rows of these key groups.
    pub fn rows(&self, family: Family, groups: Range<u32>, visit: VisitRow<'_>) -> Result<()> {
        let mut page = Page::default();
        self.scan(family, groups, &mut |group, bytes| {
            page.decode(bytes)?;
            visit_page(group, &page, visit)
        })
    }
}

fn visit_page(group: u32, page: &Page, visit: VisitRow<'_>) -> Result<bool> {
    for row in 0..page.len() {
        let row = Row { place: Place { group, hash: page.hash(row) }, key: page.key(row), value: page.value(row) };
        if !visit(row)? {
            return Ok(false);
        }
    }
    Ok(true)
}

impl Row<'_> {
    /// Its key group.
    pub fn group(&self) -> u32 {
        self.place.group
    }

    /// Where a scan goes on that begins with this row.
    pub fn cursor(&self) -> Cursor {
        Cursor { place: self.place, key: self.key.to_vec() }
    }

    fn is_before(&self, cursor: &Cursor) -> bool {
        (self.place, self.key) < (cursor.place, &cursor.key)
    }
}

impl RowKeys {
    /// Adds a key.
    pub fn push(&mut self, place: Place, key: &[u8]) {
        self.places.push(place);
        self.bytes.push(key);
    }

    /// A key.
    pub fn get(&self, place: usize) -> &[u8] {
        self.bytes.get(place)
    }

    /// Their places in their order.
    pub fn order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.places.len()).collect();
        let compare = |left: &usize, right: &usize| {
            self.places[*left].cmp(&self.places[*right]).then_with(|| self.get(*left).cmp(self.get(*right)))
        };
        order.sort_unstable_by(compare);
        order
    }
}

impl Values {
    /// Adds one.
    pub fn push(&mut self, value: &[u8]) {
        self.bytes.extend(value);
        self.ends.push(self.bytes.len());
    }

    /// One of them.
    pub fn get(&self, place: usize) -> &[u8] {
        let begin = if place == 0 { 0 } else { self.ends[place - 1] };
        &self.bytes[begin..self.ends[place]]
    }
}
