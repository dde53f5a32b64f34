//! Partitions: columns whose values are in the names of folders instead of files, as in Hive.
//!
//! ```text
//! PARTITIONED BY (day, hour)     table/day=2026-11-21/hour=7/part-…
//! ```
//!
//! What a name cannot hold is escaped as `%3A`; NULL and the empty string have the default name.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, StringArray, UInt32Array, new_null_array};
use arrow::compute::{CastOptions, cast_with_options, take, take_record_batch};
use arrow::datatypes::{DataType, SchemaRef};
use tidemill_core::error::{Error, Result, find_name};

use crate::formats::sql_name;
use crate::formats::text::{ColumnText, TextStyle, shortened};

/// The name of the partition of NULL.
pub const DEFAULT_NAME: &str = "__HIVE_DEFAULT_PARTITION__";

/// The columns that a table is partitioned by.
#[derive(Clone, Debug)]
pub(super) struct Partitioning {
    schema: SchemaRef,
    /// The partition columns, in the order of their folders.
    columns: Vec<usize>,
    /// The other columns, which are in the files.
    in_files: Vec<usize>,
    file_schema: SchemaRef,
    default_name: String,
}

impl Partitioning {
    /// `schema` partitioned by the columns `names`.
    pub(super) fn new(schema: &SchemaRef, names: &[String], default_name: String) -> Result<Self> {
        let known: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let mut columns = Vec::with_capacity(names.len());
        for name in names {
            let column = find_name(name, &known)
                .map_err(|hint| Error::request(format!("partition column '{name}' not found")).with_hint(hint))?;
            if columns.contains(&column) {
                return Err(Error::request(format!("partition column '{name}' is named twice")));
            }
            check_type(schema.field(column).name(), schema.field(column).data_type())?;
            columns.push(column);
        }
        let in_files: Vec<usize> = (0..known.len()).filter(|column| !columns.contains(column)).collect();
        if in_files.is_empty() {
            return Err(Error::request("every column is a partition column, and nothing is left for the files")
                .with_hint("leave one out of PARTITIONED BY"));
        }
        let file_schema = Arc::new(schema.project(&in_files)?);
        Ok(Self { schema: schema.clone(), columns, in_files, file_schema, default_name })
    }

    /// The columns that are in the files.
    pub(super) fn file_schema(&self) -> &SchemaRef {
        &self.file_schema
    }

    /// The names of the partition columns.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|column| self.schema.field(*column).name().as_str())
    }

    /// The rows of each partition, in their order, without the partition columns; by folder.
    pub(super) fn split(&self, records: &RecordBatch) -> Result<Vec<(String, RecordBatch)>> {
        let texts = self.columns.iter().map(|column| ColumnText::new(records.column(*column).as_ref(), TextStyle::CSV));
        let texts = texts.collect::<Result<Vec<_>>>()?;
        let mut rows_of = BTreeMap::<Vec<u8>, Vec<u32>>::new();
        let mut key = Vec::new();
        for row in 0..records.num_rows() {
            key.clear();
            for text in &texts {
                // The length in front keeps `a`, `bc` and `ab`, `c` apart. NULL is empty, as it is in the folder's name.
                let start = key.len();
                key.extend_from_slice(&[0; 8]);
                text.write(row, &mut key);
                let length = (key.len() - start - 8) as u64;
                key[start..start + 8].copy_from_slice(&length.to_le_bytes());
            }
            match rows_of.get_mut(key.as_slice()) {
                Some(rows) => rows.push(row as u32),
                None => drop(rows_of.insert(key.clone(), vec![row as u32])),
            }
        }
        let in_files = records.project(&self.in_files)?.with_schema(self.file_schema.clone())?;
        let parts = rows_of.into_values().map(|rows| {
            let folder = self.folder(&texts, rows[0] as usize);
            let is_all = rows.len() == records.num_rows();
            let part = if is_all { in_files.clone() } else { take_record_batch(&in_files, &UInt32Array::from(rows))? };
            Ok((folder, part))
        });
        parts.collect()
    }

    fn folder(&self, texts: &[ColumnText<'_>], row: usize) -> String {
        let mut value = Vec::new();
        let levels = self.names().zip(texts).map(|(name, text)| {
            value.clear();
            text.write(row, &mut value);
            let value = String::from_utf8_lossy(&value);
            let value = if value.is_empty() { self.default_name.clone() } else { escape(&value) };
            format!("{}={value}", escape(name))
        });
        levels.collect::<Vec<_>>().join("/")
    }

    /// The values that a path below the table tells, `None` for NULL.
    pub(super) fn values<'a>(&self, levels: impl Iterator<Item = &'a str>) -> Result<Vec<Option<String>>> {
        let mut values = Vec::with_capacity(self.columns.len());
        for (column, level) in self.names().zip(levels) {
            let value = level.split_once('=').filter(|(name, _)| unescape(name).eq_ignore_ascii_case(column));
            let Some((_, value)) = value else { return Err(stranger(level, column)) };
            values.push((value != self.default_name).then(|| unescape(value)));
        }
        match values.len() == self.columns.len() {
            true => Ok(values),
            false => Err(Error::internal("a file outside of all partitions was listed")),
        }
    }

    /// How the columns `projection` of the table (all for `None`) are put together from files in the partition of `values`.
    pub(super) fn assembly(&self, projection: Option<&[usize]>, values: &[Option<String>]) -> Result<Assembly> {
        let all: Vec<usize> = (0..self.schema.fields().len()).collect();
        let projection = projection.unwrap_or(&all);
        let mut read = Vec::new();
        let mut columns = Vec::with_capacity(projection.len());
        for column in projection {
            columns.push(match self.columns.iter().position(|partition| partition == column) {
                Some(level) => Piece::Constant(self.constant(*column, values[level].as_deref())?),
                None => {
                    let place = self.in_files.iter().position(|in_files| in_files == column);
                    let place = place.ok_or_else(|| Error::internal("a column that the table does not have"))?;
                    read.push(place);
                    Piece::Read(read.len() - 1)
                }
            });
        }
        Ok(Assembly { read: read.into(), columns, schema: Arc::new(self.schema.project(projection)?) })
    }

    /// One row with the value of a partition column.
    fn constant(&self, column: usize, value: Option<&str>) -> Result<ArrayRef> {
        let field = self.schema.field(column);
        let Some(text) = value else {
            return match field.is_nullable() {
                true => Ok(new_null_array(field.data_type(), 1)),
                false => Err(Error::data(format!("the partition of NULL, and '{}' is NOT NULL", field.name()))
                    .with_hint("declare the column without NOT NULL")),
            };
        };
        let options = CastOptions { safe: false, ..CastOptions::default() };
        cast_with_options(&StringArray::from(vec![text]), field.data_type(), &options).map_err(|error| {
            let (text, wanted) = (shortened(text), sql_name(field.data_type()));
            Error::data(format!("'{text}' is no {wanted} for '{}'", field.name()))
                .with_hint("rename the folder, or declare the column STRING")
                .with_source(error)
        })
    }
}

/// How rows of a file become rows of its table.
#[derive(Clone, Debug)]
pub(super) struct Assembly {
    /// The columns of the file to read.
    pub(super) read: Arc<[usize]>,
    columns: Vec<Piece>,
    schema: SchemaRef,
}

#[derive(Clone, Debug)]
enum Piece {
    Read(usize),
    Constant(ArrayRef),
}

impl Assembly {
    pub(super) fn assemble(&self, records: &RecordBatch) -> Result<RecordBatch> {
        let first = UInt32Array::from(vec![0; records.num_rows()]);
        let columns = self.columns.iter().map(|piece| match piece {
            Piece::Read(place) => Ok(records.column(*place).clone()),
            Piece::Constant(value) => Ok(take(value, &first, None)?),
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(records.num_rows()));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?)
    }
}

/// Refuses columns whose values do not come back from their text.
fn check_type(name: &str, data_type: &DataType) -> Result<()> {
    let is_text = matches!(
        data_type,
        DataType::Boolean
            | DataType::Utf8
            | DataType::LargeUtf8
            | DataType::Utf8View
            | DataType::Date32
            | DataType::Time32(_)
            | DataType::Time64(_)
            | DataType::Timestamp(..)
            | DataType::Decimal128(..)
            | DataType::Decimal256(..)
    );
    if is_text || data_type.is_integer() || data_type.is_floating() {
        return Ok(());
    }
    let message = format!("partition column '{name}' is {}, which cannot name a folder", sql_name(data_type));
    Err(Error::request(message).with_hint("partition by a STRING, a number or a time"))
}

/// The error for a folder or file that is not of the partition column `column`.
pub(crate) fn stranger(name: impl std::fmt::Display, column: &str) -> Error {
    Error::data(format!("'{name}' is not in a partition: expected a folder '{column}=…'"))
        .with_hint("move it elsewhere, give it a name that begins with '_' or '.', or leave PARTITIONED BY away")
}

/// The characters that Hive and Flink escape in names of partitions.
fn is_special(character: char) -> bool {
    character.is_ascii_control() || "\"#%'*/:=?\\{[]^".contains(character)
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match is_special(character) {
            true => escaped.push_str(&format!("%{:02X}", u32::from(character))),
            false => escaped.push(character),
        }
    }
    escaped
}

fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        plain.push_str(&rest[..at]);
        let code = rest.get(at + 1..at + 3).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        match code.and_then(|digits| u8::from_str_radix(digits, 16).ok()).filter(u8::is_ascii) {
            Some(byte) => {
                plain.push(char::from(byte));
                rest = &rest[at + 3..];
            }
            None => {
                plain.push('%');
                rest = &rest[at + 1..];
            }
        }
    }
    plain.push_str(rest);
    plain
}

/// Whether `name` is a folder of a partition by `column`.
pub(crate) fn is_partition_of(name: &str, column: &str) -> bool {
    name.split_once('=').is_some_and(|(found, _)| unescape(found).eq_ignore_ascii_case(column))
}

#[cfg(test)]
mod tests {
    use arrow::array::{Date32Array, Float64Array, Int64Array, TimestampMillisecondArray};
    use proptest::prelude::*;

    use super::*;
    use crate::conformance::rows_as_text;

    fn partitioning(batch: &RecordBatch, names: &[&str]) -> Partitioning {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        Partitioning::new(&batch.schema(), &names, DEFAULT_NAME.to_owned()).unwrap()
    }

    /// The rows of a batch, through folders and back.
    fn there_and_back(batch: &RecordBatch, names: &[&str]) -> (Vec<String>, Vec<String>) {
        let partitioning = partitioning(batch, names);
        let (mut folders, mut rows) = (Vec::new(), Vec::new());
        for (folder, records) in partitioning.split(batch).unwrap() {
            let values = partitioning.values(folder.split('/')).unwrap();
            let whole = partitioning.assembly(None, &values).unwrap().assemble(&records).unwrap();
            rows.extend(rows_as_text(&whole).unwrap());
            folders.push(folder);
        }
        rows.sort_unstable();
        (folders, rows)
    }

    #[test]
    fn folders_are_named_as_hive_does() {
        let columns: Vec<(&str, ArrayRef, bool)> = vec![
            ("n", Arc::new(Int64Array::from(vec![1, 2, 3])), true),
            ("s", Arc::new(StringArray::from(vec![Some("a/b:c"), None, Some("ü %3A")])), true),
            ("d", Arc::new(Date32Array::from(vec![20_778, 0, -1])), true),
        ];
        let batch = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
        let (mut folders, rows) = there_and_back(&batch, &["d", "s"]);
        folders.sort_unstable();
        let expected =
            ["d=1969-12-31/s=ü %253A", "d=1970-01-01/s=__HIVE_DEFAULT_PARTITION__", "d=2026-11-21/s=a%2Fb%3Ac"];
        assert_eq!(folders, expected);
        let mut expected = rows_as_text(&batch).unwrap();
        expected.sort_unstable();
        assert_eq!(rows, expected);
    }

    #[test]
    fn columns_that_cannot_be_folders_are_refused() {
        let columns: Vec<(&str, ArrayRef, bool)> = vec![
            ("n", Arc::new(Int64Array::from(vec![1])), true),
            ("x", Arc::new(arrow::array::BinaryArray::from(vec![&b"x"[..]])), true),
        ];
        let batch = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
        let error = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            Partitioning::new(&batch.schema(), &names, DEFAULT_NAME.to_owned()).unwrap_err().to_string()
        };
        assert!(error(&["x"]).starts_with("partition column 'x' is BYTES, which cannot name a folder; "));
        assert!(error(&["m"]).starts_with("partition column 'm' not found"));
        assert_eq!(error(&["n", "n"]), "partition column 'n' is named twice");
        let message = error(&["n", "x"]);
        assert!(message.starts_with("partition column 'x' is BYTES"), "{message}");
    }

    #[test]
    fn a_folder_with_another_value_is_named() {
        let batch = RecordBatch::try_from_iter([
            ("n", Arc::new(Int64Array::from(vec![1])) as ArrayRef),
            ("m", Arc::new(Int64Array::from(vec![1])) as ArrayRef),
        ])
        .unwrap();
        let partitioning = partitioning(&batch, &["n"]);
        let error = partitioning.values(["x=1"].into_iter()).unwrap_err().to_string();
        assert!(error.starts_with("'x=1' is not in a partition: expected a folder 'n=…'"), "{error}");
        let values = partitioning.values(["N=abc"].into_iter()).unwrap();
        let error = partitioning.assembly(None, &values).unwrap_err().to_string();
        assert_eq!(error, "'abc' is no BIGINT for 'n'; rename the folder, or declare the column STRING");
        let values = partitioning.values([&*format!("n={DEFAULT_NAME}")].into_iter()).unwrap();
        let error = partitioning.assembly(None, &values).unwrap_err().to_string();
        assert_eq!(error, "the partition of NULL, and 'n' is NOT NULL; declare the column without NOT NULL");
    }

    proptest! {
        #[test]
        fn values_come_back(
            texts in proptest::collection::vec(proptest::option::of(any::<String>()), 1..20),
            number in any::<i64>(),
            float in any::<f64>(),
            millis in -62_000_000_000_000i64..253_000_000_000_000,
        ) {
            let rows = texts.len();
            // The empty string is the same folder as NULL.
            let texts: Vec<_> = texts.into_iter().map(|text| text.filter(|text| !text.is_empty())).collect();
            let numbers: Vec<i64> = (0..rows as i64).map(|row| number.wrapping_add(row % 3)).collect();
            let columns: Vec<(&str, ArrayRef, bool)> = vec![
                ("v", Arc::new(Int64Array::from_iter_values(0..rows as i64)), true),
                ("s", Arc::new(StringArray::from(texts)), true),
                ("n=/", Arc::new(Int64Array::from(numbers)), true),
                ("f", Arc::new(Float64Array::from(vec![float; rows])), true),
                ("t", Arc::new(TimestampMillisecondArray::from(vec![millis; rows])), true),
                ("z", Arc::new(TimestampMillisecondArray::from(vec![millis; rows]).with_timezone("UTC")), true),
            ];
            let batch = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
            let (_, rows) = there_and_back(&batch, &["s", "n=/", "f", "t", "z"]);
            let mut expected = rows_as_text(&batch).unwrap();
            expected.sort_unstable();
            prop_assert_eq!(rows, expected);
        }

        #[test]
        fn names_come_back(text in any::<String>()) {
            prop_assert_eq!(unescape(&escape(&text)), text);
        }
    }
}
