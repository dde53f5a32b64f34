//! A box whose rows come one by one: its widths follow from the types and the first rows, for no one knows those to come.

use arrow::datatypes::{DataType, TimeUnit};
use comfy_table::{ContentLineStyle, LineStyle, TableStyle};
use tidemill_core::{Batch, Result};

use super::boxed::{Drawing, STYLE, add_rows, align, header, set_widths, table};
use super::fit::fit;
use super::{RowWriter, Shape};

/// The top of the box, down to the line below the names.
const TOP: TableStyle =
    TableStyle { content_lines: ContentLineStyle::none(), bottom_border: LineStyle::none(), ..STYLE };
/// Rows alone.
const MIDDLE: TableStyle = TableStyle { top_border: LineStyle::none(), bottom_border: LineStyle::none(), ..STYLE };

/// Writes a box, row by row.
pub struct GrowingBox {
    shape: Shape,
    drawing: Drawing,
    widths: Option<Vec<usize>>,
}

impl GrowingBox {
    /// A box of such rows.
    pub fn new(shape: Shape, drawing: Drawing) -> Self {
        let drawing = Drawing { zone: shape.zone, ..drawing };
        Self { shape, drawing, widths: None }
    }

    /// The widths of the columns that are shown; the first call draws the head of the box.
    fn widths(&mut self, first: Option<&Batch>, out: &mut Vec<u8>) -> Result<Vec<usize>> {
        if let Some(widths) = &self.widths {
            return Ok(widths.clone());
        }
        let Shape { schema, op, .. } = &self.shape;
        let mut sample = table(self.drawing, STYLE);
        sample.set_header(header(schema, *op));
        if let Some(batch) = first {
            add_rows(&mut sample, batch, self.drawing, *op)?;
        }
        let usual =
            op.then_some(0).into_iter().chain(schema.fields().iter().map(|field| usual_width(field.data_type())));
        let content = sample.column_max_content_widths().into_iter().map(usize::from);
        let natural: Vec<usize> = content.zip(usual).map(|(content, usual)| content.max(usual)).collect();
        let widths = fit(&natural, self.drawing.width);

        let mut head = table(self.drawing, TOP);
        head.set_header(header(schema, *op));
        align(&mut head, schema, *op);
        set_widths(&mut head, &widths);
        out.extend_from_slice(format!("{head}\n").as_bytes());
        self.widths = Some(widths.clone());
        Ok(widths)
    }
}

impl RowWriter for GrowingBox {
    fn rows(&mut self, batch: &Batch, out: &mut Vec<u8>) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let widths = self.widths(Some(batch), out)?;
        let mut rows = table(self.drawing, MIDDLE);
        add_rows(&mut rows, batch, self.drawing, self.shape.op)?;
        align(&mut rows, &self.shape.schema, self.shape.op);
        set_widths(&mut rows, &widths);
        out.extend_from_slice(format!("{rows}\n").as_bytes());
        Ok(())
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> Result<()> {
        let widths = self.widths(None, out)?;
        let lines: Vec<String> = widths.iter().map(|width| "─".repeat(width + 2)).collect();
        out.extend_from_slice(format!("└{}┘\n", lines.join("┴")).as_bytes());
        let left_out = self.shape.schema.fields().len() + usize::from(self.shape.op) - widths.len();
        if left_out > 0 {
            out.extend_from_slice(format!("{left_out} columns did not fit\n").as_bytes());
        }
        Ok(())
    }
}

/// Room for what values of a type usually need.
fn usual_width(data_type: &DataType) -> usize {
    use DataType as D;
    match data_type {
        D::Boolean => 5,
        D::Int8 | D::UInt8 => 4,
        D::Int16 | D::UInt16 => 6,
        D::Int32 | D::UInt32 => 11,
        D::Int64 | D::UInt64 => 20,
        D::Float32 => 14,
        D::Float64 => 22,
        D::Decimal128(precision, _) | D::Decimal256(precision, _) => usize::from(*precision) + 2,
        D::Date32 | D::Date64 => 10,
        D::Timestamp(unit, zone) => {
            let fraction = match unit {
                TimeUnit::Second => 0,
                TimeUnit::Millisecond => 4,
                TimeUnit::Microsecond => 7,
                TimeUnit::Nanosecond => 10,
            };
            19 + fraction + if zone.is_some() { 6 } else { 0 }
        }
        D::Time32(_) | D::Time64(_) => 12,
        _ => 20,
    }
}
