//! The rows of a query, in each of the result modes.
//!
//! | mode | query ends | query never ends |
//! | --- | --- | --- |
//! | `table` | the table at its end | a live view on a terminal, else an error |
//! | `changelog` | every change as it comes, with its kind | the same |
//! | `tableau` | as `changelog`; without the kind where rows are never updated | the same |

use arrow::array::RecordBatch;
use tidemill::sql::{Query, Rows};
use tidemill_core::time::Calendar;
use tidemill_core::{Batch, Error, Result};

use super::live::{self, Content, left_out};
use super::output::{BOX_ROWS_MAX, Format, Head, Output, Shape, blocks, draw, first_rows};
use super::report::Stop;
use super::watch::Watch;

/// `sql-client.execution.result-mode`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The folded table.
    Table,
    /// Every change with its kind.
    Changelog,
    /// Every change, with its kind where there is more than one.
    Tableau,
}

impl Mode {
    /// The mode that the setting's text means.
    pub fn of(text: &str) -> Self {
        match text.to_ascii_lowercase().as_str() {
            "changelog" => Self::Changelog,
            "tableau" => Self::Tableau,
            _ => Self::Table,
        }
    }
}

/// How a query is to be shown.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// The result mode.
    pub mode: Mode,
    /// The zone in which TIMESTAMP_LTZ is shown.
    pub zone: Calendar,
    /// Whether the query ends by itself.
    pub ends: bool,
}

/// What was shown.
#[derive(Clone, Debug, Default)]
pub struct Shown {
    /// Rows of the result, or changes where those are shown.
    pub rows: u64,
    /// Whether `rows` counts changes.
    pub changes: bool,
    /// What the box does not show.
    pub left_out: Option<String>,
}

/// Shows the rows of `query` until it has no more. What was shown is in `shown` also when this stops early.
pub async fn show(
    query: &mut Query,
    view: View,
    output: &Output,
    watch: &mut Watch,
    shown: &mut Shown,
) -> Result<(), Stop> {
    let is_box = output.format() == Format::Box;
    let stays = query.append_only && query.order.is_none();
    match view.mode {
        Mode::Table if !view.ends && (!is_box || !output.is_terminal()) => Err(Stop::Failed(
            Error::request("the query never ends, so its result as a table never comes")
                .with_hint("SET 'sql-client.execution.result-mode' = 'changelog' shows every change as it comes"),
        )),
        Mode::Table if !view.ends => live_view(query, view, output, watch, shown).await,
        Mode::Table if is_box && stays => head(query, view, output, watch, shown).await,
        Mode::Table if stays => stream(query, view, false, output, watch, shown).await,
        Mode::Table => folded(query, view, output, watch, shown).await,
        Mode::Changelog => stream(query, view, true, output, watch, shown).await,
        Mode::Tableau => stream(query, view, !query.append_only, output, watch, shown).await,
    }
}

/// A table that is there at once.
pub fn table(rows: &Rows, zone: Calendar, output: &Output) -> Result<(), Stop> {
    if output.format() == Format::Box {
        if let Some(text) = blocks(&rows.batches, output.drawing(zone))? {
            return output.write(text.as_bytes());
        }
        let (text, columns) = draw(&rows.schema, &rows.batches, output.drawing(zone))?;
        let note = left_out("", 0, 0, &columns).map_or(String::new(), |note| format!("{note}\n"));
        return output.write(format!("{text}{note}").as_bytes());
    }
    write_all(rows, zone, output)
}

/// Shows changes as they come; each batch is out before the next one is waited for.
async fn stream(
    query: &mut Query,
    view: View,
    op: bool,
    output: &Output,
    watch: &mut Watch,
    shown: &mut Shown,
) -> Result<(), Stop> {
    let shape = Shape { schema: query.schema.clone(), zone: view.zone, op };
    let mut writer = output.writer(shape)?;
    if output.is_terminal() {
        watch.hide();
    }
    shown.changes = op;
    let mut text = Vec::new();
    let ended = loop {
        match watch.wait(query.next()).await {
            Ok(Some(batch)) => {
                let batch = batch?;
                text.clear();
                writer.rows(&batch, &mut text)?;
                output.write(&text)?;
                shown.rows += batch.num_rows() as u64;
            }
            Ok(None) => break Ok(()),
            Err(stop) => break Err(stop),
        }
    };
    // A job that failed gives no result, and so not the head of one either.
    if shown.rows == 0 && (ended.is_err() || watch.wait(query.job.wait()).await?.is_err()) {
        return ended;
    }
    text.clear();
    if ended.is_err() && output.is_terminal() {
        // The terminal has echoed ^C where the last line goes.
        text.push(b'\r');
    }
    writer.finish(&mut text)?;
    output.write(&text)?;
    ended
}

/// Shows the first rows in a box, once all rows have been counted.
async fn head(
    query: &mut Query,
    view: View,
    output: &Output,
    watch: &mut Watch,
    shown: &mut Shown,
) -> Result<(), Stop> {
    let mut head = Head::new(BOX_ROWS_MAX);
    while let Some(batch) = watch.wait(query.next()).await? {
        head.push(batch?.records());
    }
    watch.wait(query.job.wait()).await??;
    watch.clear();
    shown.rows = head.total;
    boxed(query, &head.batches, view.zone, output, shown)
}

/// Shows the table that all changes come to.
async fn folded(
    query: &mut Query,
    view: View,
    output: &Output,
    watch: &mut Watch,
    shown: &mut Shown,
) -> Result<(), Stop> {
    let mut folded = query.table();
    while let Some(batch) = watch.wait(query.next_for_table()).await? {
        folded.apply(&batch)?;
    }
    watch.wait(query.job.wait()).await??;
    watch.clear();
    let rows = query.ordered(folded.rows()?)?;
    shown.rows = rows.num_rows() as u64;
    match output.format() {
        Format::Box => boxed(query, &first_rows(&rows.batches, BOX_ROWS_MAX), view.zone, output, shown),
        Format::Csv | Format::Ndjson => write_all(&rows, view.zone, output),
    }
}

/// Shows the table while it changes, and in the end once more where it stays readable.
async fn live_view(
    query: &mut Query,
    view: View,
    output: &Output,
    watch: &mut Watch,
    shown: &mut Shown,
) -> Result<(), Stop> {
    let mut content = Content::of(query);
    let ended = live::show(query, watch, output, view.zone, &mut content).await;
    if matches!(&ended, Err(stop) if !matches!(stop, Stop::Interrupted)) {
        return ended;
    }
    let (text, left_out) = content.draw(query, output, view.zone)?;
    shown.rows = content.total();
    shown.left_out = left_out;
    output.write(text.as_bytes())?;
    ended
}

fn boxed(
    query: &Query,
    batches: &[RecordBatch],
    zone: Calendar,
    output: &Output,
    shown: &mut Shown,
) -> Result<(), Stop> {
    let (text, columns) = draw(&query.schema, batches, output.drawing(zone))?;
    let rows = batches.iter().map(|batch| batch.num_rows() as u64).sum();
    shown.left_out = left_out("first", rows, shown.rows, &columns);
    output.write(text.as_bytes())
}

/// Writes all rows in a form for programs.
fn write_all(rows: &Rows, zone: Calendar, output: &Output) -> Result<(), Stop> {
    let mut writer = output.writer(Shape { schema: rows.schema.clone(), zone, op: false })?;
    let mut text = Vec::new();
    for batch in &rows.batches {
        writer.rows(&Batch::append(batch.clone()), &mut text)?;
        output.write(&text)?;
        text.clear();
    }
    writer.finish(&mut text)?;
    output.write(&text)
}
