//! SQL as a program runs it: a session with settings, scripts, and what their jobs had to say.

use std::path::Path;
use std::sync::Arc;

use arrow::array::AsArray;
use tidemill::sql::parser::parse_script;
use tidemill::sql::{Outcome, Rows, Session};
use tidemill::stream::JobResult;
use tidemill::{Error, Result, Settings};
use tidemill_core::settings::Origin;
use tidemill_exec::runtime::EventTrace;

/// The tables of TPC-H.
pub const TPCH_TABLES: [&str; 8] =
    ["customer", "lineitem", "nation", "orders", "part", "partsupp", "region", "supplier"];

/// A session with these settings.
pub fn session<'a>(given: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Session> {
    Session::new(settings(given)?)
}

/// The same, and `trace` hears of every event.
pub fn traced<'a>(given: impl IntoIterator<Item = (&'a str, &'a str)>, trace: Arc<dyn EventTrace>) -> Result<Session> {
    Session::with_engine(settings(given)?, |engine| engine.with_trace(trace))
}

fn settings<'a>(given: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Settings> {
    let mut all = Settings::default();
    for (key, value) in given {
        all.set(key, value, Origin::Program)?;
    }
    Ok(all)
}

/// Gives the TPC-H files of a folder the names that the queries use.
pub fn name_tpch_tables(session: &mut Session, folder: &Path) -> Result<()> {
    for table in TPCH_TABLES {
        let file = folder.join(table).with_extension("parquet");
        script(session, &format!("CREATE VIEW {table} AS SELECT * FROM '{}'", file.display()))?;
    }
    Ok(())
}

/// Runs a script of declarations and inserts to its end; the result is that of its last job, if it has one.
pub fn script(session: &mut Session, text: &str) -> Result<Option<JobResult>> {
    let mut last = None;
    for parsed in parse_script(text)? {
        if let Outcome::Job(job) = session.run(&parsed)? {
            last = Some(session.block_on(job.wait())?);
        }
    }
    Ok(last)
}

/// Runs a query to its end: its rows, and what its job had to say.
pub fn query(session: &mut Session, text: &str) -> Result<(Rows, JobResult)> {
    for parsed in parse_script(text)? {
        if let Outcome::Query(query) = session.run(&parsed)? {
            let job = query.job.clone();
            let rows = session.block_on(query.collect())?;
            return Ok((rows, session.block_on(job.wait())?));
        }
    }
    Err(Error::request("no query in the text"))
}

/// The job graph of a query or insert, as `EXPLAIN` prints it.
pub fn job_graph(session: &mut Session, text: &str) -> Result<String> {
    for parsed in parse_script(&format!("EXPLAIN {text}"))? {
        if let Outcome::Table(rows) = session.run(&parsed)? {
            let all = rows.to_batch()?;
            let (names, texts) = (all.column(0).as_string::<i32>(), all.column(1).as_string::<i32>());
            let graph = names.iter().zip(texts).find(|(name, _)| *name == Some("job graph"));
            return Ok(graph.and_then(|(_, text)| text).unwrap_or_default().to_owned());
        }
    }
    Err(Error::request("nothing to explain"))
}

/// How many edges a printed job graph has.
pub fn edges(job_graph: &str) -> usize {
    job_graph.lines().filter(|line| line.trim_start().starts_with("<- [")).count()
}
