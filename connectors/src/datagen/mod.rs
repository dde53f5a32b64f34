//! Rows that are made up: random values and sequences, the same at any parallelism.
//!
//! | option | meaning |
//! | --- | --- |
//! | `rows-per-second` | rate over all subtasks; by default 10000 (Flink's) without `number-of-rows`, unlimited with it |
//! | `number-of-rows` | the source ends after these; without it, and without a sequence that ends, it never does |
//! | `seed` | same seed, same rows; 0 by default |
//! | `fields.#.kind` | `random` (default) or `sequence` |
//! | `fields.#.min`, `fields.#.max` | ends of a random range, both inclusive; the range of the type by default |
//! | `fields.#.length` | length of random STRING (hexadecimal digits) and BYTES, 100 by default, 1 MiB at most |
//! | `fields.#.max-past` | random times lie between now less this and now; 0 by default |
//! | `fields.#.null-rate` | share of NULLs, 0 by default |
//! | `fields.#.start`, `fields.#.end` | first and last value of a sequence; the end may be left out |
//! | `fields.#.step` | by how much a sequence of times advances, 1 ms by default |
//!
//! A value is a pure function of (seed, column, row number). The one exception is a random time, which follows the clock and so
//! is not the same when a row is read again.

mod field;
mod generate;
mod mix;
mod source;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use tidemill_core::error::Result;
use tidemill_core::source::Source;

use crate::options::{Options, bad_value};
use crate::registry::TableContext;

use field::FieldSpec;
pub use source::GeneratedSource;

/// Flink's default rate.
const ROWS_PER_SECOND: f64 = 10_000.0;

/// Opens `'connector' = 'datagen'`.
pub(crate) fn open_source(
    options: &mut Options,
    schema: SchemaRef,
    _context: &TableContext,
) -> Result<Arc<dyn Source>> {
    let rows_per_second: Option<f64> = options.parsed("rows-per-second", "a number of rows")?;
    if let Some(rate) = rows_per_second.filter(|rate| !rate.is_finite() || *rate <= 0.0) {
        return Err(bad_value("rows-per-second", &rate.to_string(), "a number above 0"));
    }
    let number_of_rows: Option<u64> = options.parsed("number-of-rows", "a number of rows")?;
    let seed: u64 = options.parsed("seed", "a number")?.unwrap_or(0);
    let mut fields = Vec::with_capacity(schema.fields().len());
    for (column, field) in schema.fields().iter().enumerate() {
        fields.push(FieldSpec::from_options(field, column, seed, options)?);
    }
    // The shortest sequence ends the table.
    let rows = fields.iter().filter_map(FieldSpec::rows).chain(number_of_rows).min();
    let rate = rows_per_second.or(rows.is_none().then_some(ROWS_PER_SECOND));
    Ok(Arc::new(GeneratedSource::new(schema, fields, rows, rate)))
}

#[cfg(test)]
mod tests;
