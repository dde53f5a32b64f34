//! Records as lines of text, for people: what `print` and `write_as_text` write.
//!
//! A record of one column is its value, one of several is `(first,second)`. Within lists and nested structs values are JSON.

use std::sync::Arc;

use arrow::array::{RecordBatch, StringBuilder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use tidemill_connectors::formats::text::{ColumnText, TextStyle};
use tidemill_core::{Error, Result};

use super::layout::{RowCodec, batch_of};
use super::record::{Codec, Record};
use super::rows::{AnyRows, Rows};

/// Writes records as one column of text.
pub(super) struct LineCodec<T>(pub Codec<T>);

impl<T: Record> RowCodec for LineCodec<T> {
    fn schema(&self) -> SchemaRef {
        Arc::new(Schema::new(vec![Field::new("line", DataType::Utf8, false)]))
    }

    fn encode(&self, rows: AnyRows) -> Result<RecordBatch> {
        let rows = Rows::<T>::typed(rows)?;
        let columns = self.0.encode(&rows.values)?;
        let texts = columns.iter().map(|column| ColumnText::new(column.as_ref(), TextStyle::PRINT));
        let texts: Vec<ColumnText<'_>> = texts.collect::<Result<_>>()?;
        let mut lines = StringBuilder::with_capacity(rows.values.len(), rows.values.len() * 16);
        let mut line = Vec::new();
        for row in 0..rows.values.len() {
            line.clear();
            write_line(&texts, row, &mut line);
            lines.append_value(String::from_utf8_lossy(&line));
        }
        batch_of(&self.schema(), vec![Arc::new(lines.finish())], rows.values.len())
    }

    fn decode(&self, _records: &RecordBatch) -> Result<AnyRows> {
        Err(Error::internal("lines are read by a sink"))
    }
}

fn write_line(texts: &[ColumnText<'_>], row: usize, line: &mut Vec<u8>) {
    match texts {
        [only] => only.write(row, line),
        columns => {
            line.push(b'(');
            for (place, column) in columns.iter().enumerate() {
                if place > 0 {
                    line.push(b',');
                }
                column.write(row, line);
            }
            line.push(b')');
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;

    use super::*;

    fn lines<T: Record>(values: Vec<T>) -> Vec<String> {
        let codec = LineCodec(Codec::<T>::new().unwrap());
        let batch = codec.encode(Rows { values, times: vec![] }.erase()).unwrap();
        batch.column(0).as_string::<i32>().iter().map(|line| line.unwrap().to_owned()).collect()
    }

    #[test]
    fn a_line_is_for_people() {
        assert_eq!(lines(vec!["a b".to_owned()]), ["a b"]);
        assert_eq!(lines(vec![("to".to_owned(), 2i64), ("be".to_owned(), 1)]), ["(to,2)", "(be,1)"]);
        assert_eq!(lines(vec![Some(1.5), None]), ["1.5", "null"]);
        assert_eq!(lines(vec![(1i64, vec![1i32, 2])]), ["(1,[1,2])"]);
    }
}
