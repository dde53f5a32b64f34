//! The result of a query that never ends, redrawn in place while it changes.
//!
//! The view has the terminal's other screen for itself, and each line is written at its own place: what does not fit the
//! height falls together on the last line, which is the line about the view and is written last.

use std::time::{Duration, Instant};

use tidemill::sql::{Folded, Query, Rows};
use tidemill_core::{Batch, Result};

use super::output::{BOX_ROWS_MAX, Output, Tail, draw, first_rows};
use super::report::Stop;
use super::terminal::counted;
use super::watch::Watch;
use tidemill_core::time::{Calendar, spoken};

const FRAME: Duration = Duration::from_millis(100);

/// A frame that shows nothing new but the time.
const IDLE_FRAME: Duration = Duration::from_secs(1);

const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[2J";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// The result so far.
pub enum Content {
    /// Rows that are never updated: the last ones, for nobody wants to keep all that ever came.
    Last(Tail),
    /// The table that the changes describe.
    Table(Folded),
}

impl Content {
    /// What is kept of the rows of `query`.
    pub fn of(query: &Query) -> Self {
        match query.append_only && query.order.is_none() {
            true => Self::Last(Tail::new(BOX_ROWS_MAX)),
            false => Self::Table(query.table()),
        }
    }

    fn apply(&mut self, batch: &Batch) -> Result<()> {
        match self {
            Self::Last(tail) => tail.push(batch.records()),
            Self::Table(folded) => folded.apply(batch)?,
        }
        Ok(())
    }

    /// How many rows there are.
    pub fn total(&self) -> u64 {
        match self {
            Self::Last(tail) => tail.total,
            Self::Table(folded) => folded.len() as u64,
        }
    }

    /// The rows to show, as a box, and a line about what it leaves out.
    pub fn draw(&self, query: &Query, output: &Output, zone: Calendar) -> Result<(String, Option<String>)> {
        let (rows, which) = match self {
            Self::Last(tail) => (Rows { schema: query.schema.clone(), batches: tail.rows() }, "last"),
            Self::Table(folded) => (query.ordered(folded.rows()?)?, "first"),
        };
        let shown = first_rows(&rows.batches, BOX_ROWS_MAX);
        let (text, columns) = draw(&query.schema, &shown, output.drawing(zone))?;
        let rows = shown.iter().map(|batch| batch.num_rows() as u64).sum();
        Ok((text, left_out(which, rows, self.total(), &columns)))
    }
}

/// Says what a box does not show, if anything.
pub fn left_out(which: &str, shown: u64, total: u64, columns: &[String]) -> Option<String> {
    let rows = (shown < total).then(|| format!("{which} {shown} of {}", counted(total, "row")));
    let columns = (!columns.is_empty()).then(|| match columns {
        [only] => format!("column not shown: {only}"),
        several => format!("columns not shown: {}", several.join(", ")),
    });
    let parts: Vec<String> = rows.into_iter().chain(columns).collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// Shows `query` until it ends or someone ends it, and gives back what it had come to.
pub async fn show(
    query: &mut Query,
    watch: &mut Watch,
    output: &Output,
    zone: Calendar,
    content: &mut Content,
) -> Result<(), Stop> {
    watch.hide();
    let screen = Screen::enter(output)?;
    let mut is_changed = true;
    let mut drawn = Instant::now();
    let mut pause = Duration::ZERO;
    loop {
        let due = tokio::time::Instant::from_std(drawn + if is_changed { pause } else { IDLE_FRAME });
        tokio::select! {
            batch = watch.wait(query.next_for_table()) => match batch? {
                Some(batch) => {
                    is_changed |= !batch.is_empty();
                    content.apply(&batch)?;
                }
                None => return Ok(()),
            },
            () = tokio::time::sleep_until(due) => {
                let begun = Instant::now();
                screen.frame(content, query, zone, &spoken(watch.started().elapsed()))?;
                drawn = Instant::now();
                // A large table takes long to draw; most of the time belongs to the query.
                pause = FRAME.max((drawn - begun) * 4);
                is_changed = false;
            }
        }
    }
}

/// The other screen of the terminal, left again however the view ends.
struct Screen<'a>(&'a Output);

impl<'a> Screen<'a> {
    fn enter(output: &'a Output) -> Result<Self, Stop> {
        let screen = Self(output);
        output.write(ENTER.as_bytes())?;
        Ok(screen)
    }

    fn frame(&self, content: &Content, query: &Query, zone: Calendar, elapsed: &str) -> Result<(), Stop> {
        let (text, cut) = content.draw(query, self.0, zone)?;
        let about = cut.unwrap_or_else(|| counted(content.total(), "row"));
        let about = format!("{about}; {elapsed}; Ctrl-C ends");
        let mut frame = String::with_capacity(text.len() + 1024);
        for (at, line) in text.lines().chain([about.as_str()]).enumerate() {
            frame.push_str(&format!("\x1b[{};1H{line}\x1b[K", at + 1));
        }
        frame.push_str("\x1b[J");
        self.0.write(frame.as_bytes())
    }
}

impl Drop for Screen<'_> {
    fn drop(&mut self) {
        // Whoever cannot be told any more has no screen left either.
        let _ = self.0.write(LEAVE.as_bytes());
    }
}
