//! What a Parquet file says about itself, measured before its reader believes it.
//!
//! The reader asks for as much memory as a list or page claims to need, and goes as deep into a schema as that goes. What cannot be
//! caught when it fails, memory and stack, is bounded here by the bytes that are there:
//!
//! ```text
//! footer    lists have no more items than bytes, the schema no more children than elements, nor is it deeper than any type
//! pages     within their column; no larger than zstd can make of what is there; nor with more values than a chunk has
//! ```
//!
//! Both are structs of Thrift's compact protocol. Fields that the reader knows have the type that it takes for granted.

use parquet::basic::Compression;
use parquet::file::metadata::ColumnChunkMetaData;

use crate::checkpoint::codec::zstd_decoded_max;

/// How deep a schema may be: deeper than any type, whose every list is two levels.
const SCHEMA_DEPTH_MAX: usize = 256;
/// How deep fields may lie that nobody reads.
const DEPTH_MAX: usize = 64;
/// How many values a column of a chunk may have however few bytes they take, and how many more for each byte.
const VALUES_MAX: u64 = 1 << 26;
const VALUES_PER_BYTE: u64 = 64;
/// What the file ends with, behind the length of its metadata.
const MAGIC: &[u8] = b"PAR1";

/// What a field holds.
#[derive(Clone, Copy, Debug)]
enum Shape {
    Bool,
    Byte,
    /// A whole number of any width.
    Number,
    Text,
    Struct(Fields),
    List(&'static Shape),
    /// A number that is remembered in this place.
    Noted(usize),
    /// A number of children, and an element that may have some.
    Children,
    Element(Fields),
    /// Whatever its type says.
    Any,
    /// What is never written.
    Never,
}

/// Fields by number; those of other numbers hold anything.
type Fields = &'static [(i16, Shape)];

use Shape::{Any, Bool, Byte, Children, Element, List, Never, Noted, Number, Struct, Text};

const FILE: Fields = &[
    (1, Number),
    (2, List(&Element(SCHEMA_ELEMENT))),
    (3, Number),
    (4, List(&Struct(ROW_GROUP))),
    (5, List(&Struct(KEY_VALUE))),
    (6, Text),
    (7, List(&Struct(COLUMN_ORDER))),
    (8, Never),
    (9, Never),
];
const SCHEMA_ELEMENT: Fields = &[
    (1, Number),
    (2, Number),
    (3, Number),
    (4, Text),
    (5, Children),
    (6, Number),
    (7, Number),
    (8, Number),
    (9, Number),
    (10, Struct(LOGICAL_TYPE)),
];
const EMPTY: Shape = Struct(&[]);
const TIME: Shape = Struct(&[(1, Bool), (2, Struct(&[(1, EMPTY), (2, EMPTY), (3, EMPTY)]))]);
const LOGICAL_TYPE: Fields = &[
    (1, EMPTY),
    (2, EMPTY),
    (3, EMPTY),
    (4, EMPTY),
    (5, Struct(&[(1, Number), (2, Number)])),
    (6, EMPTY),
    (7, TIME),
    (8, TIME),
    (10, Struct(&[(1, Byte), (2, Bool)])),
    (11, EMPTY),
    (12, EMPTY),
    (13, EMPTY),
    (14, EMPTY),
    (15, EMPTY),
    (16, Never),
    (17, Never),
    (18, Never),
];
const COLUMN_ORDER: Fields = &[(1, EMPTY), (2, EMPTY)];
const KEY_VALUE: Fields = &[(1, Text), (2, Text)];
const ROW_GROUP: Fields = &[
    (1, List(&Struct(COLUMN_CHUNK))),
    (2, Number),
    (3, Number),
    (4, List(&Struct(&[(1, Number), (2, Bool), (3, Bool)]))),
    (5, Number),
    (6, Number),
    (7, Number),
];
const COLUMN_CHUNK: Fields = &[
    (1, Text),
    (2, Number),
    (3, Struct(COLUMN_METADATA)),
    (4, Number),
    (5, Number),
    (6, Number),
    (7, Number),
    (8, Never),
    (9, Never),
];
const COLUMN_METADATA: Fields = &[
    (1, Number),
    (2, List(&Number)),
    (3, List(&Text)),
    (4, Number),
    (5, Number),
    (6, Number),
    (7, Number),
    (9, Number),
    (10, Number),
    (11, Number),
    (12, Struct(STATISTICS)),
    (13, List(&Struct(&[(1, Number), (2, Number), (3, Number)]))),
    (14, Number),
    (15, Number),
    (16, Struct(&[(1, Number), (2, List(&Number)), (3, List(&Number))])),
    (17, Never),
];
const STATISTICS: Fields =
    &[(1, Text), (2, Text), (3, Number), (4, Number), (5, Text), (6, Text), (7, Bool), (8, Bool), (9, Number)];

/// Places of what is remembered of a page.
const DECODED: usize = 0;
const ENCODED: usize = 1;
const VALUES: usize = 2;
const VALUES_V2: usize = 3;
const DICTIONARY: usize = 4;

const PAGE: Fields = &[
    (1, Number),
    (2, Noted(DECODED)),
    (3, Noted(ENCODED)),
    (4, Number),
    (5, Struct(&[(1, Noted(VALUES)), (2, Number), (3, Number), (4, Number), (5, Struct(STATISTICS))])),
    (6, EMPTY),
    (7, Struct(&[(1, Noted(DICTIONARY)), (2, Number), (3, Bool)])),
    (
        8,
        Struct(&[
            (1, Noted(VALUES_V2)),
            (2, Number),
            (3, Number),
            (4, Number),
            (5, Number),
            (6, Number),
            (7, Bool),
            (8, Struct(STATISTICS)),
        ]),
    ),
];

/// What is wrong with the metadata that a file has behind its chunks.
pub fn measure_footer(footer: &[u8]) -> Result<(), String> {
    let cut_off = || "metadata that is cut off".to_owned();
    let (rest, magic) = footer.split_last_chunk::<4>().ok_or_else(cut_off)?;
    let (rest, length) = rest.split_last_chunk::<4>().ok_or_else(cut_off)?;
    if magic != MAGIC {
        return Err("no Parquet file".to_owned());
    }
    let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| cut_off())?;
    let begin = rest.len().checked_sub(length).ok_or_else(cut_off)?;
    let mut walk = Walk::new(&rest[begin..]);
    walk.fields(FILE, 0)?;
    check_schema(&walk.children)
}

/// What is wrong with the pages of a column of a chunk, whose bytes begin at `offset` of the file.
pub fn measure_column(column: &ColumnChunkMetaData, chunk: &[u8], offset: u64) -> Result<(), String> {
    let (begin, length) = column.byte_range();
    let within = || {
        let begin = usize::try_from(begin.checked_sub(offset)?).ok()?;
        chunk.get(begin..begin.checked_add(usize::try_from(length).ok()?)?)
    };
    let bytes = within().ok_or("a column outside of its chunk")?;
    let is_compressed = match column.compression() {
        Compression::ZSTD(_) => true,
        Compression::UNCOMPRESSED => false,
        other => return Err(format!("a column that is compressed as {other:?}")),
    };
    let (mut rest, mut values) = (bytes, 0u64);
    while !rest.is_empty() {
        let mut walk = Walk::new(rest);
        walk.fields(PAGE, 0)?;
        let [decoded, encoded, data, data_v2, dictionary] = walk.noted()?;
        rest = walk.rest.get(encoded..).ok_or("a page that is cut off")?;
        let most = if is_compressed { zstd_decoded_max(encoded) } else { encoded as u64 };
        if decoded as u64 > most {
            return Err(format!("a page of {decoded} bytes in {encoded}"));
        }
        if dictionary as u64 > decoded as u64 * 8 + 1 {
            return Err(format!("a dictionary of {dictionary} values in {decoded} bytes"));
        }
        values += data.max(data_v2) as u64;
    }
    match has_values_max(values, bytes.len() as u64) {
        true => Err(format!("a column of {values} values in {} bytes", bytes.len())),
        false => Ok(()),
    }
}

/// Whether so many values in so many bytes are more than are read.
pub fn has_values_max(values: u64, bytes: u64) -> bool {
    values > bytes.saturating_mul(VALUES_PER_BYTE).saturating_add(VALUES_MAX)
}

/// What is wrong with a schema whose elements, each before its children, have so many of them.
fn check_schema(children: &[i32]) -> Result<(), String> {
    let mut open: Vec<usize> = Vec::new();
    for (place, count) in children.iter().enumerate() {
        while open.last() == Some(&0) {
            open.pop();
        }
        if let Some(left) = open.last_mut() {
            *left -= 1;
        }
        match usize::try_from(*count) {
            Ok(0) => {}
            Ok(count) if count < children.len() - place => open.push(count),
            _ => return Err(format!("an element of the schema with {count} children")),
        }
        if open.len() > SCHEMA_DEPTH_MAX {
            return Err("a schema that is too deep".to_owned());
        }
    }
    Ok(())
}

/// Goes over bytes of Thrift's compact protocol.
struct Walk<'a> {
    rest: &'a [u8],
    noted: [Option<i32>; 5],
    /// How many children each element of the schema has.
    children: Vec<i32>,
}

impl<'a> Walk<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, noted: [None; 5], children: Vec::new() }
    }

    /// The numbers that were remembered; 0 where there was none.
    fn noted(&self) -> Result<[usize; 5], String> {
        let mut numbers = [0; 5];
        for (number, noted) in numbers.iter_mut().zip(self.noted) {
            let noted = noted.unwrap_or_default();
            *number = usize::try_from(noted).map_err(|_| format!("a page with {noted} of something"))?;
        }
        Ok(numbers)
    }

    fn fields(&mut self, fields: Fields, depth: usize) -> Result<(), String> {
        let mut id = 0i16;
        loop {
            let header = self.byte()?;
            let (delta, kind) = (header >> 4, header & 0xf);
            if kind == 0 {
                return Ok(());
            }
            id = match delta {
                0 => self.number()? as i16,
                delta => id.checked_add(i16::from(delta)).ok_or("a field that no struct has")?,
            };
            let shape = fields.iter().find(|(known, _)| *known == id).map_or(Any, |(_, shape)| *shape);
            self.value(kind, shape, depth)?;
        }
    }

    /// A value of this type, as the protocol numbers types.
    fn value(&mut self, kind: u8, shape: Shape, depth: usize) -> Result<(), String> {
        if depth > DEPTH_MAX {
            return Err("metadata that is too deep".to_owned());
        }
        match (kind, shape) {
            (1 | 2, Bool | Any) => Ok(()),
            (3, Byte | Any) => self.byte().map(drop),
            (4..=6, Number | Any) => self.number().map(drop),
            (4..=6, Children) => {
                let count = self.number()? as i32;
                self.children.last_mut().map(|last| *last = count).ok_or_else(|| "children of nothing".to_owned())
            }
            (4..=6, Noted(place)) => {
                let number = self.number()? as i32;
                match self.noted[place].replace(number) {
                    None => Ok(()),
                    Some(_) => Err("a page that says something twice".to_owned()),
                }
            }
            (7, Any) => self.take(8),
            (8, Text | Any) => {
                let length = self.unsigned()?;
                self.take(length)
            }
            (9, List(item)) => self.list(*item, depth),
            (9, Any) => self.list(Any, depth),
            (12, Struct(fields)) => self.fields(fields, depth + 1),
            (12, Element(fields)) => {
                self.children.push(0);
                self.fields(fields, depth + 1)
            }
            (12, Any) => self.fields(&[], depth + 1),
            // Sets, maps and lists of truth values are in no metadata.
            _ => Err("metadata that no file has".to_owned()),
        }
    }

    fn list(&mut self, item: Shape, depth: usize) -> Result<(), String> {
        let header = self.byte()?;
        let (count, kind) = match header >> 4 {
            15 => (self.unsigned()?, header & 0xf),
            count => (u64::from(count), header & 0xf),
        };
        // Each takes a byte at least.
        if count > self.rest.len() as u64 || (count > 0 && matches!(kind, 1 | 2)) {
            return Err(format!("a list of {count} items in {} bytes", self.rest.len()));
        }
        (0..count).try_for_each(|_| self.value(kind, item, depth + 1))
    }

    fn byte(&mut self) -> Result<u8, String> {
        let (first, rest) = self.rest.split_first().ok_or("metadata that is cut off")?;
        self.rest = rest;
        Ok(*first)
    }

    fn take(&mut self, length: u64) -> Result<(), String> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        self.rest = self.rest.get(length..).ok_or("metadata that is cut off")?;
        Ok(())
    }

    fn unsigned(&mut self) -> Result<u64, String> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err("a number that is too long".to_owned())
    }

    fn number(&mut self) -> Result<i64, String> {
        let number = self.unsigned()?;
        Ok((number >> 1) as i64 ^ -((number & 1) as i64))
    }
}
