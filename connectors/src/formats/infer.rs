//! The columns of a file that nobody declared: from its own schema, or from its first rows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use arrow::json::reader::infer_json_schema;
use bytes::BytesMut;
use futures::TryStreamExt;
use object_store::ObjectMeta;
use tidemill_core::error::{Error, Result};
use tidemill_core::time::Calendar;

use super::bytes::{count_lines, read_text};
use super::civil::{parse_date, parse_timestamp};
use super::csv::{CsvOptions, StringRow, string_rows};
use super::{Format, RowText, arrow_ipc, parquet};
use crate::store::{FileSelection, Location, Stores, list_files};

/// Rows that are looked at.
pub const ROWS: usize = 20_480;
/// Text that is looked at, should rows be very long.
const TEXT_BYTES_MAX: usize = 64 << 20;

/// What [`infer_schema`] found.
#[derive(Clone, Debug)]
pub struct InferredTable {
    /// The columns.
    pub schema: SchemaRef,
    /// The options with which the `filesystem` connector reads them.
    pub options: BTreeMap<String, String>,
}

/// Finds the columns of the files that `path` means. The format goes by their ending unless it is given. Whether csv files have
/// a header is seen from the first of them; without one their columns are `column_1`, `column_2` and so on.
pub async fn infer_schema(stores: &Stores, path: &str, format: Option<&str>) -> Result<InferredTable> {
    let location = stores.resolve(path)?;
    let files = list_files(&location, &FileSelection::default()).await?;
    let first = files.first().ok_or_else(|| no_file(path))?;
    let first_name = first.location.filename().unwrap_or_default();
    let format = format.or_else(|| Format::of_file_name(first_name)).ok_or_else(|| {
        Error::request(format!("the format of '{path}' is not known"))
            .with_hint(format!("known: {}; a CREATE TABLE with 'format' says which it is", super::FORMATS.join(", ")))
    })?;
    let mut options = BTreeMap::from([
        ("connector".to_owned(), "filesystem".to_owned()),
        ("path".to_owned(), path.to_owned()),
        ("format".to_owned(), format.to_ascii_lowercase()),
        ("source.inferred-schema".to_owned(), "true".to_owned()),
    ]);
    let file = location.at(first.location.clone());
    let schema = match format.to_ascii_lowercase().as_str() {
        "csv" => {
            let (schema, csv) = infer_csv(&location, &files).await?;
            options.insert("csv.header".to_owned(), csv.header.to_string());
            options.insert("csv.field-delimiter".to_owned(), char::from(csv.delimiter).to_string());
            schema
        }
        "json" => infer_json(&location, &files).await?,
        "raw" => Arc::new(Schema::new(vec![Field::new("line", DataType::Utf8, true)])),
        "parquet" => parquet::schema(&file, first.size).await?,
        "arrow" => arrow_ipc::schema(&file, first.size).await?,
        other => return Err(tidemill_core::error::unknown("format", other, super::FORMATS)),
    };
    Ok(InferredTable { schema, options })
}

/// The start of a file: enough lines, or all of it.
struct Sample {
    file: Location,
    size: u64,
    text: BytesMut,
    is_whole: bool,
}

async fn sample(location: &Location, file: &ObjectMeta, lines_wanted: usize) -> Result<Sample> {
    let (file, size) = (location.at(file.location.clone()), file.size);
    let mut blocks = read_text(&file, size, 0).await?;
    let (mut text, mut lines) = (BytesMut::new(), 0);
    while lines <= lines_wanted && text.len() < TEXT_BYTES_MAX {
        let Some(block) = blocks.try_next().await? else {
            return Ok(Sample { file, size, text: without_mark(text), is_whole: true });
        };
        lines += memchr::memchr_iter(b'\n', &block).count();
        text.extend_from_slice(&block);
    }
    Ok(Sample { file, size, text: without_mark(text), is_whole: false })
}

fn without_mark(mut text: BytesMut) -> BytesMut {
    if text.starts_with(&super::rows::BYTE_ORDER_MARK) {
        let _ = text.split_to(super::rows::BYTE_ORDER_MARK.len());
    }
    text
}

fn no_file(path: &str) -> Error {
    let hint = "a directory or pattern means the files in it whose names begin with neither '.' nor '_'";
    Error::unavailable(format!("'{path}' holds no file")).with_hint(hint)
}

async fn infer_csv(location: &Location, files: &[ObjectMeta]) -> Result<(SchemaRef, CsvOptions)> {
    let mut csv = CsvOptions::default();
    let mut columns: Vec<(String, Seen)> = Vec::new();
    let mut left = ROWS;
    for file in files {
        let sample = sample(location, file, left).await?;
        if columns.is_empty() {
            csv.delimiter = guess_delimiter(&sample);
        }
        let (first, mut rows) = sample_rows(&sample, &csv, left).await?;
        if first.is_empty() {
            continue;
        }
        if columns.is_empty() {
            csv.header = is_header(&first);
            columns = names_of(&first, csv.header).into_iter().map(|name| (name, Seen::default())).collect();
            refuse_twins(&sample.file, &columns)?;
        }
        let names = names_of(&first, csv.header);
        if !csv.header {
            rows.push(first);
        }
        for (name, seen) in &mut columns {
            // Columns with names may stand elsewhere in the next file.
            let Some(place) = names.iter().position(|other| other == name) else { continue };
            rows.iter().for_each(|row| seen.add(&row[place].0));
        }
        left = left.saturating_sub(rows.len());
        if left == 0 {
            break;
        }
    }
    if columns.is_empty() {
        let hint = "it has no row: state its columns in a CREATE TABLE";
        return Err(Error::data(format!("{location}: no columns to be seen")).with_hint(hint));
    }
    let fields: Vec<Field> = columns.iter().map(|(name, seen)| Field::new(name, seen.data_type(), true)).collect();
    Ok((Arc::new(Schema::new(fields)), csv))
}

/// The delimiter that occurs most in the first line; a comma if none does.
fn guess_delimiter(sample: &Sample) -> u8 {
    let line = sample.text.as_ref().split(|byte| *byte == b'\n').next().unwrap_or_default();
    let count = |delimiter: u8| memchr::memchr_iter(delimiter, line).count();
    // `max_by_key` takes the last of equals, so the comma stands last.
    [b'|', b';', b'\t', b','].into_iter().max_by_key(|delimiter| count(*delimiter)).unwrap_or(b',')
}

/// Whether the first row names the columns: it holds text and nothing that has another type. Of a file of text alone that is a
/// guess, and the likelier one: what people and programs write begins with names.
fn is_header(first: &[(String, bool)]) -> bool {
    let is_text = |field: &str| {
        let mut seen = Seen::default();
        seen.add(field.trim());
        seen.data_type() == DataType::Utf8
    };
    first.iter().any(|(field, _)| !field.trim().is_empty()) && first.iter().all(|(field, _)| is_text(field))
}

/// Columns are told apart by name.
fn refuse_twins(file: &Location, columns: &[(String, Seen)]) -> Result<()> {
    let mut names = BTreeSet::new();
    match columns.iter().find(|(name, _)| !names.insert(name)) {
        None => Ok(()),
        Some((name, _)) => {
            let hint = "state its columns in a CREATE TABLE, and 'csv.header' = 'false' if its first row is none";
            Err(Error::data(format!("{file}: two columns are called '{name}'")).with_hint(hint))
        }
    }
}

/// The names in a header, or those that columns get without one.
fn names_of(first: &[(String, bool)], is_header: bool) -> Vec<String> {
    match is_header {
        true => first.iter().map(|(name, _)| name.trim().to_owned()).collect(),
        false => (1..=first.len()).map(|number| format!("column_{number}")).collect(),
    }
}

/// The first row, and those below it. The first is empty where there is none.
async fn sample_rows(sample: &Sample, csv: &CsvOptions, rows_max: usize) -> Result<(StringRow, Vec<StringRow>)> {
    let text = |start: usize, rows_max| {
        let bytes = &sample.text[start..];
        RowText { bytes, rows_max, starts_before: usize::MAX, is_last: sample.is_whole }
    };
    let mut start = 0;
    let parsed = string_rows(csv, None, text(0, 1)).and_then(|(mut first, length)| {
        let Some(first) = first.pop() else { return Ok((StringRow::new(), Vec::new())) };
        start = length;
        let rows = string_rows(csv, Some(first.len()), text(start, rows_max))?.0;
        Ok((first, rows))
    });
    match parsed {
        Ok(parsed) => Ok(parsed),
        Err(error) => {
            let lines = count_lines(&sample.file, sample.size, (start + error.offset) as u64).await?;
            let hint = "mend it, or skip and count such rows: a CREATE TABLE with 'csv.ignore-parse-errors' = 'true'";
            Err(error.at_line(lines).context(&sample.file).with_hint(hint))
        }
    }
}

/// The kinds of values that a column has shown.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    integer: bool,
    float: bool,
    boolean: bool,
    date: bool,
    timestamp: bool,
    instant: bool,
    text: bool,
}

impl Seen {
    fn add(&mut self, text: &str) {
        if text.is_empty() || self.text {
            return;
        }
        if is_integer(text) {
            self.integer = true;
        } else if is_float(text) {
            self.float = true;
        } else if text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false") {
            self.boolean = true;
        } else if parse_date(text).is_some() {
            self.date = true;
        } else if parse_timestamp(text, Calendar::Utc).is_some() {
            match has_zone(text) {
                true => self.instant = true,
                false => self.timestamp = true,
            }
        } else {
            // `NA` and the like: what they mean is for the table to say.
            self.text = true;
        }
    }

    fn data_type(self) -> DataType {
        let Self { integer, float, boolean, date, timestamp, instant, text } = self;
        let number = integer || float;
        let wall_clock = date || timestamp;
        match (number, boolean, wall_clock, instant) {
            _ if text => DataType::Utf8,
            (true, false, false, false) if float => DataType::Float64,
            (true, false, false, false) => DataType::Int64,
            (false, true, false, false) => DataType::Boolean,
            (false, false, true, false) if timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            (false, false, true, false) => DataType::Date32,
            (false, false, false, true) => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            _ => DataType::Utf8,
        }
    }
}

/// A number with leading zeros is a code, and would lose them.
fn is_integer(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    text.parse::<i64>().is_ok() && !text.starts_with('+') && (digits.len() == 1 || !digits.starts_with('0'))
}

fn is_float(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    match text {
        "NaN" | "Infinity" | "-Infinity" => true,
        _ if digits.len() > 1 && digits.starts_with('0') && !digits.starts_with("0.") => false,
        _ => digits.starts_with(|first: char| first.is_ascii_digit() || first == '.') && text.parse::<f64>().is_ok(),
    }
}

fn has_zone(text: &str) -> bool {
    // Behind the date: its own dashes are no offset.
    text.get(10..).is_some_and(|time| time.contains(['Z', 'z', '+', '-', '/']))
}

async fn infer_json(location: &Location, files: &[ObjectMeta]) -> Result<SchemaRef> {
    let mut schemas = Vec::new();
    let mut left = ROWS;
    for file in files {
        let sample = sample(location, file, left).await?;
        let end = match sample.is_whole {
            true => sample.text.len(),
            false => memchr::memrchr(b'\n', &sample.text).map_or(sample.text.len(), |end| end + 1),
        };
        let text = &sample.text[..end];
        let (schema, rows) =
            infer_json_schema(text, Some(left)).map_err(|error| bad_json(text, error).context(&sample.file))?;
        schemas.push(schema);
        left = left.saturating_sub(rows);
        if left == 0 {
            break;
        }
    }
    let merged = Schema::try_merge(schemas).map_err(|error| {
        Error::data(format!("{location}: files do not agree on their columns: {error}"))
            .with_hint("state them in a CREATE TABLE")
            .with_source(error)
    })?;
    // A column that was NULL throughout can still be read as text.
    let stated = |field: &Arc<Field>| match field.data_type() {
        DataType::Null => Arc::new(field.as_ref().clone().with_data_type(DataType::Utf8)),
        _ => field.clone(),
    };
    Ok(Arc::new(Schema::new(merged.fields().iter().map(stated).collect::<Vec<_>>())))
}

/// The error with the line that is at fault: the reader counts lines anew for each value.
fn bad_json(text: &[u8], error: ArrowError) -> Error {
    let is_json = |text: &[u8]| infer_json_schema(text, None).is_ok();
    let ends: Vec<usize> = memchr::memchr_iter(b'\n', text).map(|end| end + 1).collect();
    let good = ends.partition_point(|end| is_json(&text[..*end]));
    let start = good.checked_sub(1).map_or(0, |last| ends[last]);
    let line = &text[start..ends.get(good).copied().unwrap_or(text.len())];
    let reason = match is_json(line) {
        true => "its types do not go with those of the lines above".to_owned(),
        false => error.to_string().replace(" at line 1 column ", " at column "),
    };
    let reason = ["Json error: ", "Not valid JSON: "]
        .iter()
        .fold(reason.as_str(), |reason, start| reason.strip_prefix(start).unwrap_or(reason));
    Error::data(format!("line {}: {reason}", good + 1)).with_hint(JSON_HINT).with_source(error)
}

const JSON_HINT: &str =
    "mend it, or state the columns in a CREATE TABLE, where 'json.ignore-parse-errors' = 'true' skips such lines";

#[cfg(test)]
mod tests;
