//! Delimited text: rows of fields, quoted where they hold a delimiter, a quote or a line end.
//!
//! NULL is an empty field; an empty *quoted* field is an empty string. That difference is why we cut fields ourselves: Arrow's
//! own reader has unquoted them before it looks for NULL. Cutting them here also gives every row its byte offset and every
//! error its column, without a second pass.

mod column;
mod decode;
mod encode;
mod tokens;

use tidemill_core::error::{Error, Result};

use crate::options::Options;

pub(crate) use decode::{CsvDecoder, StringRow, header_fields, string_rows};
pub(crate) use encode::CsvEncoder;

/// How delimited text is written (`csv.*`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CsvOptions {
    /// `csv.field-delimiter`, by default a comma.
    pub delimiter: u8,
    /// `csv.quote-character`, by default `"`; `None` with `csv.disable-quote-character`.
    pub quote: Option<u8>,
    /// `csv.escape-character`: takes the next character as it is. A doubled quote within quotes needs none.
    pub escape: Option<u8>,
    /// `csv.null-literal`: stands for NULL beside the empty field.
    pub null_literal: Option<String>,
    /// `csv.allow-comments`: lines that begin with `#` are skipped.
    pub comments: bool,
    /// `csv.ignore-parse-errors`: rows that do not parse are skipped and counted.
    pub ignore_parse_errors: bool,
    /// `csv.header`: the first row names the columns, and columns are matched by name.
    pub header: bool,
}

impl Default for CsvOptions {
    fn default() -> Self {
        Self {
            delimiter: b',',
            quote: Some(b'"'),
            escape: None,
            null_literal: None,
            comments: false,
            ignore_parse_errors: false,
            header: false,
        }
    }
}

impl CsvOptions {
    /// Takes the `csv.*` options of a table.
    pub fn from_options(options: &mut Options) -> Result<Self> {
        let default = Self::default();
        let quote = options.character("csv.quote-character")?.or(default.quote);
        let csv = Self {
            delimiter: options.character("csv.field-delimiter")?.unwrap_or(default.delimiter),
            quote: if options.flag("csv.disable-quote-character", false)? { None } else { quote },
            escape: options.character("csv.escape-character")?,
            null_literal: options.optional("csv.null-literal"),
            comments: options.flag("csv.allow-comments", default.comments)?,
            ignore_parse_errors: options.flag("csv.ignore-parse-errors", default.ignore_parse_errors)?,
            header: options.flag("csv.header", default.header)?,
        };
        if csv.quote == Some(csv.delimiter) || csv.escape == Some(csv.delimiter) {
            return Err(Error::request(format!(
                "option 'csv.field-delimiter' is '{}', which also quotes or escapes",
                char::from(csv.delimiter)
            )));
        }
        Ok(csv)
    }

    /// The escape character, unless doubling the quote says the same.
    fn escape_apart(&self) -> Option<u8> {
        self.escape.filter(|escape| Some(*escape) != self.quote)
    }
}

#[cfg(test)]
mod tests;
