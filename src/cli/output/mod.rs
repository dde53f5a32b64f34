//! Rows as text: a box for people, csv and ndjson for programs.
//!
//! A [`RowWriter`] turns batches into bytes; [`Output`] brings those to standard output and notices when nobody reads them.

mod boxed;
mod csv;
mod cut;
mod fit;
mod growing;
mod ndjson;

use std::io::Write;

use arrow::datatypes::SchemaRef;
use clap::ValueEnum;
use tidemill_core::time::Calendar;
use tidemill_core::{Batch, Error, Result};

use super::report::Stop;
use super::terminal;

pub use boxed::{Drawing, blocks, draw};
pub use cut::{Head, Tail, first_rows};

/// Rows of a box; what is more is counted.
pub const BOX_ROWS_MAX: usize = 40;

/// The form of results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A box for people
    #[value(alias = "table")]
    Box,
    /// Comma-separated values with a header line
    Csv,
    /// A JSON object a line
    Ndjson,
}

/// What is to be written.
#[derive(Clone, Debug)]
pub struct Shape {
    /// The columns.
    pub schema: SchemaRef,
    /// The zone in which TIMESTAMP_LTZ is shown.
    pub zone: Calendar,
    /// Whether the kind of change stands in front of each row, as column `op`.
    pub op: bool,
}

/// Turns rows into text, batch by batch. Bytes are appended to `out`.
pub trait RowWriter {
    /// Appends rows, and before the first ones whatever begins the text.
    fn rows(&mut self, batch: &Batch, out: &mut Vec<u8>) -> Result<()>;

    /// Appends what ends the text; the beginning, too, where there was no row.
    fn finish(&mut self, out: &mut Vec<u8>) -> Result<()>;
}

/// Standard output, and the form that results have there.
#[derive(Debug)]
pub struct Output {
    format: Format,
    is_terminal: bool,
    colour: bool,
}

impl Output {
    /// Results in `format`, by default as a box on a terminal and as csv elsewhere.
    pub fn new(format: Option<Format>) -> Self {
        let is_terminal = terminal::is_stdout();
        let format = format.unwrap_or(if is_terminal { Format::Box } else { Format::Csv });
        Self { format, is_terminal, colour: is_terminal && terminal::may_colour() }
    }

    /// The form of results.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Whether standard output is a terminal.
    pub fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// How boxes are drawn here, now.
    pub fn drawing(&self, zone: Calendar) -> Drawing {
        Drawing { zone, width: self.width(), colour: self.colour }
    }

    /// A writer of rows in this form that shows all rows, as they come.
    pub fn writer(&self, shape: Shape) -> Result<Box<dyn RowWriter>> {
        if shape.op && shape.schema.fields().iter().any(|field| field.name() == "op") {
            return Err(Error::request("a column of the query is called 'op', as the kind of change is")
                .with_hint("give it another name: SELECT op AS operation"));
        }
        Ok(match self.format {
            Format::Box => Box::new(growing::GrowingBox::new(shape, self.drawing(Calendar::Utc))),
            Format::Csv => Box::new(csv::CsvWriter::new(shape)),
            Format::Ndjson => Box::new(ndjson::NdjsonWriter::new(shape)?),
        })
    }

    /// Writes `bytes` to standard output at once.
    pub fn write(&self, bytes: &[u8]) -> Result<(), Stop> {
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(|error| match error.kind() {
            std::io::ErrorKind::BrokenPipe => Stop::Closed,
            _ => Stop::Failed(Error::from(error).context("cannot write the result")),
        })
    }

    /// No box is wider than the terminal; elsewhere there is no such limit.
    fn width(&self) -> Option<usize> {
        if self.is_terminal { terminal::width() } else { None }
    }
}
