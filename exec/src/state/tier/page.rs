//! A page: rows of bytes whose keys have neighbouring hashes, as one value of the database; and what becomes of a page when rows are
//! laid over it.
//!
//! ```text
//! unlike   0 │ rows │ of each row: hash, 4 bytes │ length of the key │ length of the value │ key │ value
//! alike    1 │ rows │ length of a key │ length of a value │ a bit for each byte of a row: do rows differ in it?
//!            │ the first row │ of each row the bytes in which they differ
//! ```
//!
//! Lengths are varints. Rows of numbers are all as long, and agree in most of their bytes: hashes begin alike, numbers with zeros,
//! and what is said of snapshots is the same. So a page has some ten bytes for a key, a count and a sum, instead of fifty.
//!
//! What is laid over a page is a page too, in which a row without a value says that there is none. So several that came one after the
//! other become one, whether the page below them is at hand or not: RocksDB calls that a merge.

use std::cmp::Ordering;
use std::ops::Range;

use tidemill_core::{Error, Result};

use crate::state::varint::{cut, number, push_number};

/// Bytes of the hash in front of a row.
const HASH: usize = 4;

const UNLIKE: u8 = 0;
const ALIKE: u8 = 1;

/// A page without rows.
pub const EMPTY: &[u8] = &[UNLIKE, 0];

/// The rows of a page in the order of their hashes, and of their keys where these are equal.
#[derive(Debug, Default)]
pub struct Page {
    /// Of each row: the hash (big endian), the key, the value.
    bytes: Vec<u8>,
    /// Where the key of each row ends in `bytes`, and where its value does.
    ends: Vec<(u32, u32)>,
}

impl Page {
    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Bytes of the rows.
    pub fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Forgets all rows.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    /// The hash of a row.
    pub fn hash(&self, row: usize) -> u32 {
        self.bytes[self.begin(row)..].first_chunk().map_or(0, |hash| u32::from_be_bytes(*hash))
    }

    /// The key of a row.
    pub fn key(&self, row: usize) -> &[u8] {
        &self.bytes[self.begin(row) + HASH..self.ends[row].0 as usize]
    }

    /// The value of a row.
    pub fn value(&self, row: usize) -> &[u8] {
        let (key, value) = self.ends[row];
        &self.bytes[key as usize..value as usize]
    }

    /// How a row stands to a key.
    pub fn compare(&self, row: usize, hash: u32, key: &[u8]) -> Ordering {
        self.hash(row).cmp(&hash).then_with(|| self.key(row).cmp(key))
    }

    /// Adds a row behind all others.
    pub fn push(&mut self, hash: u32, key: &[u8], value: &[u8]) {
        self.bytes.extend(hash.to_be_bytes());
        self.bytes.extend(key);
        let key_end = self.bytes.len() as u32;
        self.bytes.extend(value);
        self.ends.push((key_end, self.bytes.len() as u32));
    }

    /// Becomes `below` with the rows of `above` laid over it.
    pub fn lay_over(&mut self, below: &Self, above: &Self) {
        self.clear();
        let mut next = 0;
        for row in 0..above.len() {
            let (hash, key, begin) = (above.hash(row), above.key(row), next);
            let mut order = None;
            while next < below.len() {
                order = Some(below.compare(next, hash, key)).filter(|order| *order != Ordering::Less);
                if order.is_some() {
                    break;
                }
                next += 1;
            }
            self.copy(below, begin..next);
            next += usize::from(order == Some(Ordering::Equal));
            self.copy(above, row..row + 1);
        }
        self.copy(below, next..below.len());
    }

    /// Forgets rows that only say that there is none.
    pub fn drop_vacant(&mut self) {
        if (0..self.len()).all(|row| !self.value(row).is_empty()) {
            return;
        }
        let all = std::mem::take(self);
        (0..all.len()).filter(|row| !all.value(*row).is_empty()).for_each(|row| self.copy(&all, row..row + 1));
    }

    /// These rows as bytes.
    pub fn encode(&self, rows: Range<usize>, to: &mut Vec<u8>) {
        to.clear();
        let lengths = rows.clone().map(|row| (self.key(row).len(), self.value(row).len()));
        let mut lengths = lengths.peekable();
        let first = lengths.peek().copied();
        match first.filter(|first| lengths.all(|of_row| of_row == *first)) {
            Some(lengths) => self.encode_alike(rows, lengths, to),
            None => self.encode_unlike(rows, to),
        }
    }

    fn encode_unlike(&self, rows: Range<usize>, to: &mut Vec<u8>) {
        to.push(UNLIKE);
        push_number(rows.len(), to);
        for row in rows {
            to.extend(self.hash(row).to_be_bytes());
            push_number(self.key(row).len(), to);
            push_number(self.value(row).len(), to);
            to.extend(self.key(row));
            to.extend(self.value(row));
        }
    }

    fn encode_alike(&self, rows: Range<usize>, (key, value): (usize, usize), to: &mut Vec<u8>) {
        let width = HASH + key + value;
        let bytes = &self.bytes[self.begin(rows.start)..self.begin(rows.start) + rows.len() * width];
        let (first, mut differ) = (&bytes[..width], vec![0; width]);
        for row in bytes.chunks_exact(width) {
            differ.iter_mut().zip(row.iter().zip(first)).for_each(|(differ, (byte, first))| *differ |= byte ^ first);
        }
        to.push(ALIKE);
        push_number(rows.len(), to);
        push_number(key, to);
        push_number(value, to);
        to.extend(differ.chunks(8).map(|bits| bits.iter().rev().fold(0, |all, bit| all << 1 | u8::from(*bit != 0))));
        to.extend(first);
        let differing: Vec<usize> = (0..width).filter(|place| differ[*place] != 0).collect();
        for row in bytes.chunks_exact(width) {
            to.extend(differing.iter().map(|place| row[*place]));
        }
    }

    /// Becomes the rows that `encode` made bytes of.
    pub fn decode(&mut self, bytes: &[u8]) -> Result<()> {
        self.clear();
        self.decode_from(bytes).ok_or_else(|| Error::internal("a page of state on local disk is not what was written"))
    }

    fn decode_from(&mut self, bytes: &[u8]) -> Option<()> {
        let (kind, mut rest) = bytes.split_first()?;
        let rows = number(&mut rest)?;
        match *kind {
            UNLIKE => {
                for _ in 0..rows {
                    let hash = cut(&mut rest, HASH)?.try_into().ok()?;
                    let (key, value) = (number(&mut rest)?, number(&mut rest)?);
                    let (key, value) = (cut(&mut rest, key)?, cut(&mut rest, value)?);
                    self.push(u32::from_be_bytes(hash), key, value);
                }
            }
            ALIKE => {
                let alike = Alike::cut(rows, &mut rest)?;
                let width = alike.first.len();
                self.bytes.reserve(rows.checked_mul(width).filter(|bytes| u32::try_from(*bytes).is_ok())?);
                for number in 0..rows {
                    alike.push_row(number, &mut self.bytes);
                    let begin = (number * width) as u32;
                    self.ends.push((begin + alike.key_end as u32, begin + width as u32));
                }
            }
            _ => return None,
        }
        rest.is_empty().then_some(())
    }

    fn begin(&self, row: usize) -> usize {
        if row == 0 { 0 } else { self.ends[row - 1].1 as usize }
    }

    fn copy(&mut self, from: &Self, rows: Range<usize>) {
        if rows.is_empty() {
            return;
        }
        let (begin, end) = (from.begin(rows.start), from.begin(rows.end));
        let moved = (self.bytes.len() as u32).wrapping_sub(begin as u32);
        self.bytes.extend(&from.bytes[begin..end]);
        let moved = |(key, value): &(u32, u32)| (key.wrapping_add(moved), value.wrapping_add(moved));
        self.ends.extend(from.ends[rows].iter().map(moved));
    }
}

/// The rows of a page that are all as long, as they lie in its bytes.
#[derive(Debug)]
struct Alike<'a> {
    rows: usize,
    /// Where the key of a row ends.
    key_end: usize,
    first: &'a [u8],
    /// Where rows differ.
    differing: Vec<usize>,
    /// Of each row the bytes in which they differ.
    packed: &'a [u8],
}

impl<'a> Alike<'a> {
    fn cut(rows: usize, rest: &mut &'a [u8]) -> Option<Self> {
        let (key, value) = (number(rest)?, number(rest)?);
        let key_end = HASH.checked_add(key)?;
        let width = key_end.checked_add(value)?;
        let (bits, first) = (cut(rest, width.div_ceil(8))?, cut(rest, width)?);
        let differing: Vec<usize> = (0..width).filter(|place| bits[place / 8] >> (place % 8) & 1 == 1).collect();
        // No row is there twice.
        if rows > 1 && differing.is_empty() {
            return None;
        }
        let packed = cut(rest, rows.checked_mul(differing.len())?)?;
        Some(Self { rows, key_end, first, differing, packed })
    }

    /// The bytes in which a row differs from others.
    fn packed(&self, row: usize) -> &'a [u8] {
        &self.packed[row * self.differing.len()..][..self.differing.len()]
    }

    fn push_row(&self, row: usize, to: &mut Vec<u8>) {
        let begin = to.len();
        to.extend(self.first);
        let bytes = &mut to[begin..];
        self.differing.iter().zip(self.packed(row)).for_each(|(place, byte)| bytes[*place] = *byte);
    }
}

/// A page as bytes, of which some rows are asked for: where rows are alike, the others are not decoded.
#[derive(Debug)]
pub struct PageView<'a>(View<'a>);

#[derive(Debug)]
enum View<'a> {
    Alike {
        rows: Alike<'a>,
        /// What comes first in every row, up to where they differ.
        common: usize,
    },
    Unlike(Page),
}

impl<'a> PageView<'a> {
    /// The rows that `encode` made bytes of.
    pub fn new(bytes: &'a [u8]) -> Result<Self> {
        let alike = || {
            let (_, mut rest) = bytes.split_first().filter(|(kind, _)| **kind == ALIKE)?;
            let rows = number(&mut rest)?;
            Alike::cut(rows, &mut rest).filter(|_| rest.is_empty())
        };
        if let Some(rows) = alike() {
            let common = rows.differing.first().copied().unwrap_or(rows.first.len());
            return Ok(Self(View::Alike { rows, common }));
        }
        let mut page = Page::default();
        page.decode(bytes)?;
        Ok(Self(View::Unlike(page)))
    }

    fn len(&self) -> usize {
        match &self.0 {
            View::Alike { rows, .. } => rows.rows,
            View::Unlike(page) => page.len(),
        }
    }

    /// How a row stands to a key.
    fn compare(&self, row: usize, hash: u32, key: &[u8]) -> Ordering {
        match &self.0 {
            View::Unlike(page) => page.compare(row, hash, key),
            View::Alike { rows, common } => {
                let sought = hash.to_be_bytes().into_iter().chain(key.iter().copied());
                let (mut packed, mut differing) = (rows.packed(row).iter(), rows.differing.iter().peekable());
                let stored = (0..rows.key_end).map(|place| match place < *common {
                    true => rows.first[place],
                    false => match differing.next_if_eq(&&place) {
                        Some(_) => packed.next().copied().unwrap_or_default(),
                        None => rows.first[place],
                    },
                });
                stored.cmp(sought)
            }
        }
    }

    /// The first row from `begin` on that does not come before a key, and whether it is the key's.
    pub fn seek(&self, begin: usize, hash: u32, key: &[u8]) -> (usize, bool) {
        // Ever further, as keys are asked for in their order, then in between.
        let (mut low, mut step) = (begin, 1);
        while low + step <= self.len() && self.compare(low + step - 1, hash, key) == Ordering::Less {
            (low, step) = (low + step, step * 2);
        }
        let mut high = (low + step - 1).min(self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.compare(middle, hash, key) {
                Ordering::Less => low = middle + 1,
                _ => high = middle,
            }
        }
        (low, low < self.len() && self.compare(low, hash, key) == Ordering::Equal)
    }

    /// The value of a row, with the help of a buffer.
    pub fn value<'b>(&'b self, row: usize, buffer: &'b mut Vec<u8>) -> &'b [u8] {
        match &self.0 {
            View::Unlike(page) => page.value(row),
            View::Alike { rows, .. } => {
                buffer.clear();
                rows.push_row(row, buffer);
                &buffer[rows.key_end..]
            }
        }
    }
}

/// A page of bytes with others laid over it, one after the other. Without one below, what is vacant stays so.
pub fn merged<'a>(below: Option<&[u8]>, above: impl Iterator<Item = &'a [u8]>) -> Result<Vec<u8>> {
    let decoded = |bytes: &[u8]| {
        let mut page = Page::default();
        page.decode(bytes).map(|()| page)
    };
    let mut pages = above.map(decoded).collect::<Result<Vec<Page>>>()?;
    // Neighbours first: to lay each over all those before it would copy these again and again.
    while pages.len() > 1 {
        let pairs = pages.chunks_mut(2).map(|pair| match pair {
            [below, above] => {
                let mut both = Page::default();
                both.lay_over(below, above);
                both
            }
            others => others.first_mut().map(std::mem::take).unwrap_or_default(),
        });
        pages = pairs.collect();
    }
    let mut all = pages.pop().unwrap_or_default();
    if let Some(bytes) = below {
        let mut both = Page::default();
        both.lay_over(&decoded(bytes)?, &all);
        both.drop_vacant();
        all = both;
    }
    let mut merged = Vec::new();
    all.encode(0..all.len(), &mut merged);
    Ok(merged)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    use super::*;

    type Rows = BTreeMap<(u32, Vec<u8>), Vec<u8>>;

    fn page(rows: &Rows) -> Page {
        let mut page = Page::default();
        rows.iter().for_each(|((hash, key), value)| page.push(*hash, key, value));
        page
    }

    fn rows(page: &Page) -> Rows {
        let row = |row| ((page.hash(row), page.key(row).to_vec()), page.value(row).to_vec());
        (0..page.len()).map(row).collect()
    }

    fn key() -> impl Strategy<Value = (u32, Vec<u8>)> {
        prop_oneof![(0u32..6, vec(0u8..3, 2)), (any::<u32>(), vec(any::<u8>(), 0..20)),]
    }

    fn value() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![vec(0u8..3, 4), vec(any::<u8>(), 1..200)]
    }

    /// Rows of any length, or all of one.
    fn given() -> impl Strategy<Value = Rows> {
        prop_oneof![btree_map(key(), value(), 0..40), btree_map((any::<u32>(), vec(0u8..3, 2)), vec(0u8..3, 9), 0..40),]
    }

    proptest! {
        #[test]
        fn a_page_is_what_was_put_into_it(given in given()) {
            let (page, mut bytes, mut read) = (page(&given), vec![], Page::default());
            page.encode(0..page.len(), &mut bytes);
            read.decode(&bytes).unwrap();
            prop_assert_eq!(rows(&read), given);
        }

        #[test]
        fn rows_are_found_in_a_page_without_decoding_it(given in given(), others in btree_map(key(), Just(()), 0..20)) {
            let (page, mut bytes, mut buffer) = (page(&given), vec![], vec![]);
            page.encode(0..page.len(), &mut bytes);
            let (view, mut next) = (PageView::new(&bytes).unwrap(), 0);
            let asked: BTreeMap<_, _> = given.keys().cloned().map(|key| (key, ())).chain(others).collect();
            for (hash, key) in asked.into_keys() {
                let (row, is_there) = view.seek(next, hash, &key);
                prop_assert_eq!(row, given.range(..(hash, key.clone())).count());
                let value = is_there.then(|| view.value(row, &mut buffer).to_vec());
                prop_assert_eq!(value.as_ref(), given.get(&(hash, key)));
                next = row;
            }
        }

        #[test]
        fn what_is_laid_over_a_page_counts_in_whatever_order_it_is_merged(
            given in given(), changes in vec(btree_map(key(), prop_oneof![Just(vec![]), value()], 0..20), 0..5), cut in 0usize..6,
        ) {
            let bytes = |rows: &Rows| {
                let (page, mut bytes) = (page(rows), vec![]);
                page.encode(0..page.len(), &mut bytes);
                bytes
            };
            let above: Vec<Vec<u8>> = changes.iter().map(bytes).collect();
            let (first, last) = above.split_at(cut.min(above.len()));
            let parts = [first, last].map(|part| merged(None, part.iter().map(Vec::as_slice)).unwrap());
            let seen = merged(Some(&bytes(&given)), parts.iter().map(Vec::as_slice)).unwrap();
            let mut expected = given;
            changes.into_iter().for_each(|changes| expected.extend(changes));
            expected.retain(|_, value| !value.is_empty());
            let mut read = Page::default();
            read.decode(&seen).unwrap();
            prop_assert_eq!(rows(&read), expected);
        }

        #[test]
        fn damaged_bytes_are_an_error_or_rows(mut bytes in vec(any::<u8>(), 0..60), kind in 0u8..3) {
            if let Some(first) = bytes.first_mut() {
                *first = kind;
            }
            prop_assert_eq!(Page::default().decode(&bytes).is_ok(), PageView::new(&bytes).is_ok());
        }
    }

    #[test]
    fn neighbours_store_once_what_they_share() {
        let mut page = Page::default();
        (0..256u32).for_each(|row| page.push(0x1234_0000 + row, &u64::from(row).to_be_bytes(), &[7; 40]));
        let mut bytes = vec![];
        page.encode(0..256, &mut bytes);
        assert!(bytes.len() < 256 * 2 + 80, "{}", bytes.len());
    }
}
