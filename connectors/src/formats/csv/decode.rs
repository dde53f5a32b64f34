//! Rows of delimited text to columns.

use std::borrow::Cow;

use arrow::array::{ArrayRef, BooleanArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use tidemill_core::error::{Error, Result, find_name};

use super::super::rows::{Rows, batch_of};
use super::super::{ReadOptions, RowDecoder, RowError, RowText};
use super::CsvOptions;
use super::column::{FieldColumn, Problem, parse_column};
use super::tokens::Tokens;

/// Decodes delimited text into the columns of a table.
pub(crate) struct CsvDecoder {
    tokens: Tokens,
    /// Columns that are parsed, and where each stands in the file.
    schema: SchemaRef,
    places: Vec<usize>,
    /// Which of them are delivered.
    delivered: Vec<usize>,
    null_literal: Option<String>,
    ignores_errors: bool,
}

impl CsvDecoder {
    /// A decoder for a file with this `header`, or for one whose columns are those of the table in order.
    pub(crate) fn new(csv: &CsvOptions, options: &ReadOptions, header: Option<&[String]>) -> Result<Self> {
        let wanted = options.columns();
        // Whether a row is skipped must not depend on which columns a query happens to read.
        let parsed =
            if csv.ignore_parse_errors { (0..options.schema.fields().len()).collect() } else { wanted.clone() };
        let delivered = match csv.ignore_parse_errors {
            true => wanted,
            false => (0..wanted.len()).collect(),
        };
        let places = match header {
            None => parsed.clone(),
            Some(names) => places_of(&options.schema, &parsed, names)?,
        };
        Ok(Self {
            tokens: Tokens::new(csv, Some(header.map_or(options.schema.fields().len(), <[String]>::len))),
            schema: options.schema.project(&parsed)?.into(),
            places,
            delivered,
            null_literal: csv.null_literal.clone(),
            ignores_errors: csv.ignore_parse_errors,
        })
    }
}

/// Where the columns stand in a file with this header.
fn places_of(schema: &SchemaRef, columns: &[usize], header: &[String]) -> Result<Vec<usize>> {
    let names: Vec<&str> = header.iter().map(String::as_str).collect();
    let place = |column: &usize| {
        let name = schema.field(*column).name();
        find_name(name, &names).map_err(|hint| Error::data(format!("no column '{name}' in the header")).with_hint(hint))
    };
    columns.iter().map(place).collect()
}

impl RowDecoder for CsvDecoder {
    fn decode(&mut self, text: RowText<'_>) -> Result<Rows, RowError> {
        let (mut first_bad, mut skipped) = (None, 0);
        let ignores_errors = self.ignores_errors;
        let consumed = self.tokens.scan(text, |error| {
            skipped += 1;
            first_bad.get_or_insert(error);
            ignores_errors
        });
        let mut problems = Vec::new();
        let utf8 = self.utf8(&text.bytes[..consumed], &mut problems);
        let scratch = String::from_utf8_lossy(self.tokens.scratch());
        let mut arrays = Vec::with_capacity(self.places.len());
        for (field, place) in self.schema.fields().iter().zip(&self.places) {
            let column = FieldColumn {
                tokens: &self.tokens,
                text: &utf8,
                scratch: &scratch,
                null_literal: self.null_literal.as_deref(),
                column: *place,
                stops_early: !ignores_errors,
            };
            arrays.push(parse_column(field, column, &mut problems));
        }
        if !ignores_errors && let Some(error) = self.first_error(problems.as_slice(), first_bad) {
            return Err(error);
        }
        self.deliver(arrays, &problems, skipped, consumed)
    }
}

impl CsvDecoder {
    /// The text as UTF-8. Rows with other bytes are problems; those bytes become `?`, so that offsets stay.
    fn utf8<'a>(&self, bytes: &'a [u8], problems: &mut Vec<Problem>) -> Cow<'a, str> {
        let error = match std::str::from_utf8(bytes) {
            Ok(text) => return Cow::Borrowed(text),
            Err(error) => error,
        };
        let mut mended = bytes.to_vec();
        let mut bad = Some(error.valid_up_to());
        while let Some(at) = bad {
            if self.tokens.rows() > 0 {
                let reason = format!("byte 0x{:02x} is not UTF-8", bytes[at]);
                problems.push(Problem { row: self.tokens.row_at(at), column: None, reason });
            }
            mended[at] = b'?';
            bad = std::str::from_utf8(&mended[at..]).err().map(|error| at + error.valid_up_to());
        }
        Cow::Owned(String::from_utf8_lossy(&mended).into_owned())
    }

    /// The earliest row that does not parse.
    fn first_error(&self, problems: &[Problem], uncut: Option<RowError>) -> Option<RowError> {
        let problem = problems.iter().min_by_key(|problem| (problem.row, problem.column));
        let parsed = problem.map(|problem| RowError {
            offset: self.tokens.row_start(problem.row),
            column: problem.column,
            reason: problem.reason.clone(),
        });
        [parsed, uncut].into_iter().flatten().min_by_key(|error| error.offset)
    }

    fn deliver(
        &self,
        arrays: Vec<ArrayRef>,
        problems: &[Problem],
        uncut: usize,
        consumed: usize,
    ) -> Result<Rows, RowError> {
        let plain = |error: arrow::error::ArrowError| RowError { offset: 0, column: None, reason: error.to_string() };
        let rows = self.tokens.rows();
        if problems.is_empty() {
            let records = batch_of(&self.schema, arrays, rows)?.project(&self.delivered).map_err(plain)?;
            return Ok(Rows { records, consumed, skipped: uncut });
        }
        let mut keep = vec![true; rows];
        problems.iter().for_each(|problem| keep[problem.row] = false);
        // A row that is skipped may hold NULL where none is allowed, so the columns are nullable until it is gone.
        let nullable = arrow::datatypes::Schema::new(
            self.schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect::<Vec<_>>(),
        );
        let all = batch_of(&nullable.into(), arrays, rows)?;
        let good = filter_record_batch(&all, &BooleanArray::from(keep)).map_err(plain)?;
        let count = good.num_rows();
        let records = batch_of(&self.schema, good.columns().to_vec(), count)?;
        let records = records.project(&self.delivered).map_err(plain)?;
        Ok(Rows { records, consumed, skipped: uncut + rows - count })
    }
}

/// The fields of the first row, and the bytes up to the second; `None` if there is not one whole row.
pub(crate) fn header_fields(
    csv: &CsvOptions,
    bytes: &[u8],
    is_last: bool,
) -> Result<Option<(Vec<String>, usize)>, RowError> {
    let text = RowText { bytes, rows_max: 1, starts_before: usize::MAX, is_last };
    let (mut rows, consumed) = string_rows(csv, None, text)?;
    let name = |(name, _): (String, bool)| name.trim().to_owned();
    Ok(rows.pop().map(|names| (names.into_iter().map(name).collect(), consumed)))
}

/// Fields with whether each was quoted.
pub(crate) type StringRow = Vec<(String, bool)>;

/// Rows as they stand in the text, and the bytes that they take. Without a `width` the first row decides.
pub(crate) fn string_rows(
    csv: &CsvOptions,
    width: Option<usize>,
    text: RowText<'_>,
) -> Result<(Vec<StringRow>, usize), RowError> {
    let mut tokens = Tokens::new(csv, width);
    let mut bad = None;
    let consumed = tokens.scan(text, |error| {
        bad.get_or_insert(error);
        false
    });
    if let Some(error) = bad {
        return Err(error);
    }
    let utf8 = String::from_utf8_lossy(&text.bytes[..consumed]);
    let scratch = String::from_utf8_lossy(tokens.scratch());
    let field = |row, column| {
        let (field, is_quoted) = tokens.field(&utf8, &scratch, row, column);
        (field.to_owned(), is_quoted)
    };
    let rows = (0..tokens.rows()).map(|row| (0..tokens.width()).map(|column| field(row, column)).collect());
    Ok((rows.collect(), consumed))
}
