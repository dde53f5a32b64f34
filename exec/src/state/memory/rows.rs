//! What is kept for a key as one row of bytes: how it lies in the tier.
//!
//! ```text
//! | head 4 bytes | for each state: number << 2 | changed << 1 | present, as one varint | length | columns … | next state … |
//! ```
//!
//! Columns are in Arrow's row format, which is made and read a column at a time. A state that changed since the last snapshot
//! and that is not present was vacated. The head says how many snapshots there had been, and whether one of them has the key. What
//! a row says of changes and of snapshots counts only if none was taken since.

use arrow::array::ArrayRef;
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef, Fields};
use arrow::row::{RowConverter, RowParser, Rows, SortField};
use tidemill_core::{Error, Result};

use crate::state::varint::{cut, number, push_number};

/// Columns as rows of bytes, there and back.
#[derive(Debug)]
pub struct RowCodec {
    converter: RowConverter,
    parser: RowParser,
    types: Vec<DataType>,
}

impl RowCodec {
    /// The codec of these columns, of which there is at least one.
    pub fn new(fields: &Fields) -> Result<Self> {
        let field = |field: &FieldRef| SortField::new(field.data_type().clone());
        let converter = RowConverter::new(fields.iter().map(field).collect())?;
        let types = fields.iter().map(|field| field.data_type().clone()).collect();
        Ok(Self { parser: converter.parser(), converter, types })
    }

    /// The rows of these columns.
    pub fn encode(&self, columns: &[ArrayRef]) -> Result<Rows> {
        Ok(self.converter.convert_columns(columns)?)
    }

    /// The columns of rows that `encode` gave.
    pub fn decode<'a>(&self, rows: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<ArrayRef>> {
        let columns = self.converter.convert_rows(rows.into_iter().map(|row| self.parser.parse(row)))?;
        // What was a dictionary comes out as its values.
        let declared = |(column, data_type): (ArrayRef, &DataType)| match column.data_type() == data_type {
            true => Ok(column),
            false => Ok(cast(&column, data_type)?),
        };
        columns.into_iter().zip(&self.types).map(declared).collect()
    }
}

/// What a row says of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// How many snapshots there had been, modulo 2^31.
    pub epoch: u32,
    /// Whether the key is in one of them.
    pub is_stored: bool,
}

/// What a row says of one state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part<'a> {
    /// Which state.
    pub state: usize,
    /// Whether it was written or vacated since the snapshot before the row's epoch.
    pub is_changed: bool,
    /// What is kept; `None` for nothing.
    pub columns: Option<&'a [u8]>,
}

/// Begins a row.
pub fn begin_row(head: Head, row: &mut Vec<u8>) {
    row.clear();
    row.extend((head.epoch << 1 | u32::from(head.is_stored)).to_le_bytes());
}

/// Adds a state to a row; one that neither changed nor is present need not be there.
pub fn push_part(part: Part<'_>, row: &mut Vec<u8>) {
    let flags = usize::from(part.is_changed) << 1 | usize::from(part.columns.is_some());
    push_number(part.state << 2 | flags, row);
    if let Some(columns) = part.columns {
        push_number(columns.len(), row);
        row.extend(columns);
    }
}

/// The head of a row, and its states.
pub fn parts(row: &[u8]) -> Result<(Head, Parts<'_>)> {
    let (head, rest) = row.split_first_chunk().ok_or_else(damaged)?;
    let head = u32::from_le_bytes(*head);
    Ok((Head { epoch: head >> 1, is_stored: head & 1 != 0 }, Parts(rest)))
}

/// The states of a row.
#[derive(Debug)]
pub struct Parts<'a>(&'a [u8]);

impl<'a> Iterator for Parts<'a> {
    type Item = Result<Part<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let part = self.part();
        if part.is_none() {
            self.0 = &[];
        }
        Some(part.ok_or_else(damaged))
    }
}

impl<'a> Parts<'a> {
    fn part(&mut self) -> Option<Part<'a>> {
        let tag = number(&mut self.0)?;
        let columns = match tag & 1 {
            0 => None,
            _ => {
                let length = number(&mut self.0)?;
                Some(cut(&mut self.0, length)?)
            }
        };
        Some(Part { state: tag >> 2, is_changed: tag & 2 != 0, columns })
    }
}

fn damaged() -> Error {
    Error::internal("a row of state on local disk is not what was written")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_what_was_put_into_it() {
        let long = vec![7; 1000];
        let all = [
            Part { state: 0, is_changed: false, columns: Some(&b"abc"[..]) },
            Part { state: 3, is_changed: true, columns: None },
            Part { state: 99, is_changed: true, columns: Some(&long) },
            Part { state: 100, is_changed: false, columns: Some(&[]) },
        ];
        let mut row = vec![];
        let head = Head { epoch: 5, is_stored: true };
        begin_row(head, &mut row);
        all.iter().for_each(|part| push_part(*part, &mut row));
        let (read_head, read) = parts(&row).unwrap();
        assert_eq!((read_head, read.map(Result::unwrap).collect::<Vec<_>>().as_slice()), (head, &all[..]));
        let cut = parts(&row[..row.len() - 500]).unwrap().1.collect::<Result<Vec<_>>>();
        assert!(cut.is_err(), "{cut:?}");
    }
}
