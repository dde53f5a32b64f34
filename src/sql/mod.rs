//! SQL: from text to running jobs.
//!
//! ```text
//! text ─ parser ─ Parsed ─ planner ─ LogicalPlan ┬ bounded:   DataFusion's physical plan, cut into fragments ┐
//!           catalog: tables, views ──┘           └ unbounded: incremental operators ─────────────────────────┴─ job
//! ```
//!
//! In reading order: [`parser`] (statements), [`session`] (what executes them), [`catalog`] (tables and views), [`planner`]
//! (names, types, window functions), [`logical`] (our plan nodes), `program` (which plan runs, and how), `insert`, [`query`] and
//! [`fold`] (results), `show`, `explain` and `checkpoints` (the state of jobs as tables).

mod blame;
pub mod catalog;
mod checkpoints;
mod copy;
pub mod error;
mod explain;
mod fingerprint;
pub mod fold;
mod functions;
mod insert;
pub mod logical;
pub mod parser;
pub mod planner;
mod planning;
mod program;
pub mod query;
mod recovery;
pub mod rows;
pub mod session;
mod shaped_sink;
mod show;
mod state;
mod statements;
#[cfg(test)]
mod tests;
mod type_error;
pub mod unbounded;

pub use crate::persistence::store_folder;
pub use fingerprint::StatementFolders;
pub use fold::Folded;
pub use query::{Order, Query};
pub use recovery::JobFolders;
pub(crate) use recovery::run_folder;
pub use rows::Rows;
pub use session::{Outcome, Session, SessionJob, ShellWord};

use tidemill_core::{Error, Result, Settings};

/// Runs a script in a session of its own and returns the rows of its last statement.
///
/// ```
/// let rows = tidemill::sql("SELECT 6 * 7 AS answer")?;
/// assert_eq!(rows.num_rows(), 1);
/// # Ok::<(), tidemill_core::Error>(())
/// ```
pub fn sql(script: &str) -> Result<Rows> {
    let mut session = Session::new(Settings::default())?;
    let mut rows = None;
    for parsed in parser::parse_script(script)? {
        match session.run(&parsed)? {
            Outcome::Query(query) => rows = Some(session.block_on(query.collect())?),
            Outcome::Table(table) => rows = Some(table),
            Outcome::Job(job) => {
                session.block_on(job.wait())?;
            }
            Outcome::Done(_) | Outcome::Shell(_) => {}
        }
    }
    rows.ok_or_else(|| Error::request("the script has no statement that gives rows").with_hint("end it with a SELECT"))
}
