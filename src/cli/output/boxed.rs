//! A box: a table with borders, no wider than the terminal.

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use comfy_table::{Attribute, Cell, CellAlignment, ColumnConstraint, ContentArrangement, Row, Table, Width};
use comfy_table::{ContentLineStyle, LineStyle, TableStyle};
use tidemill_connectors::formats::text::{ColumnText, TextStyle};
use tidemill_core::time::Calendar;
use tidemill_core::{Batch, Result};

use super::fit::fit;

/// How boxes look.
pub const STYLE: TableStyle = TableStyle::new()
    .top_border(LineStyle::new('┌', '─', '┬', '┐'))
    .header_lines(ContentLineStyle::new('│', '│', '│'))
    .header_separator(LineStyle::new('╞', '═', '╪', '╡'))
    .content_lines(ContentLineStyle::new('│', '│', '│'))
    .bottom_border(LineStyle::new('└', '─', '┴', '┘'));

/// Where boxes are drawn.
#[derive(Clone, Copy, Debug)]
pub struct Drawing {
    /// The zone in which TIMESTAMP_LTZ is shown.
    pub zone: Calendar,
    /// The widest that a box may be.
    pub width: Option<usize>,
    /// Whether colours are welcome.
    pub colour: bool,
}

/// Draws all of `batches`, and names the columns that did not fit.
pub fn draw(schema: &SchemaRef, batches: &[RecordBatch], drawing: Drawing) -> Result<(String, Vec<String>)> {
    let mut table = table(drawing, STYLE);
    table.set_header(header(schema, false));
    for batch in batches {
        add_rows(&mut table, &Batch::append(batch.clone()), drawing, false)?;
    }
    align(&mut table, schema, false);
    let widths: Vec<usize> = table.column_max_content_widths().into_iter().map(usize::from).collect();
    let widths = fit(&widths, drawing.width);
    set_widths(&mut table, &widths);
    let left_out = schema.fields().iter().skip(widths.len()).map(|field| field.name().clone()).collect();
    Ok((format!("{table}\n"), left_out))
}

/// Text of several lines (plans, definitions) as it stands, for there is more to read in it than in a box: under the row's
/// first value, where there are several. `None` where every value is short.
pub fn blocks(batches: &[RecordBatch], drawing: Drawing) -> Result<Option<String>> {
    let mut text = String::new();
    let mut is_long = false;
    for batch in batches {
        let columns = columns(batch, drawing)?;
        for row in 0..batch.num_rows() {
            for (at, column) in columns.iter().enumerate() {
                let value = value(column, row);
                is_long |= value.contains('\n');
                if columns.len() > 1 && at == 0 {
                    text.push_str(&format!("== {value}\n"));
                } else {
                    text.push_str(value.trim_end());
                    text.push('\n');
                }
            }
        }
    }
    Ok(is_long.then_some(text))
}

/// A table without rows.
pub fn table(drawing: Drawing, style: TableStyle) -> Table {
    let mut table = Table::new();
    table.load_style(style).set_content_arrangement(ContentArrangement::Disabled).force_no_tty();
    // Cells are cut at the last character that fits, not at the last word.
    table.set_delimiter('\u{1f}');
    if drawing.colour {
        table.enforce_styling();
    }
    table
}

/// The names of the columns.
pub fn header(schema: &Schema, op: bool) -> Row {
    let names = op.then_some("op").into_iter().chain(schema.fields().iter().map(|field| field.name().as_str()));
    let mut row = Row::from(names.map(|name| Cell::new_owned(visible(name)).add_attribute(Attribute::Bold)));
    row.max_height(1);
    row
}

/// Adds a row for each of the batch.
pub fn add_rows(table: &mut Table, batch: &Batch, drawing: Drawing, op: bool) -> Result<()> {
    let columns = columns(batch.records(), drawing)?;
    let nulls: Vec<_> = batch.records().columns().iter().map(|column| column.logical_nulls()).collect();
    for row in 0..batch.num_rows() {
        let mut cells = Vec::with_capacity(columns.len() + 1);
        if op {
            cells.push(Cell::new(batch.kind(row)?.symbol()));
        }
        for (column, nulls) in columns.iter().zip(&nulls) {
            cells.push(match nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row)) {
                true => Cell::new_owned(visible(&value(column, row))),
                false => Cell::new(TextStyle::SHOWN.null).add_attribute(Attribute::Dim),
            });
        }
        let mut row = Row::from(cells);
        row.max_height(1);
        table.add_row(row);
    }
    Ok(())
}

/// Numbers stand at the right.
pub fn align(table: &mut Table, schema: &Schema, op: bool) {
    for (at, field) in schema.fields().iter().enumerate() {
        if field.data_type().is_numeric()
            && let Some(column) = table.column_mut(at + usize::from(op))
        {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

/// The first columns get these widths, the others are hidden.
pub fn set_widths(table: &mut Table, widths: &[usize]) {
    for (at, column) in table.column_iter_mut().enumerate() {
        column.set_constraint(match widths.get(at) {
            Some(width) => {
                let width = u16::try_from(*width).unwrap_or(u16::MAX).saturating_add(column.padding_width());
                ColumnConstraint::Absolute(Width::Fixed(width))
            }
            None => ColumnConstraint::Hidden,
        });
    }
}

fn columns<'a>(batch: &'a RecordBatch, drawing: Drawing) -> Result<Vec<ColumnText<'a>>> {
    let style = TextStyle::SHOWN.in_zone(drawing.zone);
    batch.columns().iter().map(|column| ColumnText::new(column.as_ref(), style)).collect()
}

fn value(column: &ColumnText<'_>, row: usize) -> String {
    let mut text = Vec::new();
    column.write(row, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// Control characters as escapes: rows stay rows, and data cannot give orders to the terminal.
fn visible(text: &str) -> String {
    if !text.chars().any(char::is_control) {
        return text.to_owned();
    }
    let escaped = |character: char| match character.is_control() {
        true => character.escape_default().to_string(),
        false => character.to_string(),
    };
    text.chars().map(escaped).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use expect_test::expect;

    use super::*;

    fn drawn(width: Option<usize>) -> String {
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None]));
        let words: ArrayRef = Arc::new(StringArray::from(vec![Some("two words\nand a line"), Some("é")]));
        let batch = RecordBatch::try_from_iter([("n", numbers.clone()), ("text", words), ("more", numbers)]).unwrap();
        let drawing = Drawing { zone: Calendar::Utc, width, colour: false };
        let (text, left_out) = draw(&batch.schema(), &[batch], drawing).unwrap();
        format!("{text}{left_out:?}")
    }

    #[test]
    fn a_box_shows_null_and_stays_one_line_a_row() {
        expect![[r#"
            ┌──────┬───────────────────────┬──────┐
            │    n │ text                  │ more │
            ╞══════╪═══════════════════════╪══════╡
            │    1 │ two words\nand a line │    1 │
            │ NULL │ é                     │ NULL │
            └──────┴───────────────────────┴──────┘
            []"#]]
        .assert_eq(&drawn(None));
    }

    #[test]
    fn a_narrow_box_cuts_text_and_then_columns() {
        for width in [30, 24] {
            let text = drawn(Some(width));
            assert!(text.lines().all(|line| line.chars().count() <= width), "{text}");
            assert!(text.contains('…'), "{text}");
        }
    }
}
