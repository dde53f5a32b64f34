//! One pass of tidemill over the queries.

use std::fs::File;
use std::path::Path;

use arrow::ipc::writer::FileWriter;
use tidemill::sql::{Rows, Session};
use tidemill::stream::Parameters;
use tidemill::{Error, Result};

use crate::common::measure::timed;
use crate::common::process::root;
use crate::common::sql;

/// How a query ran.
#[derive(Clone, Copy, Debug, Default)]
pub struct Run {
    /// Edges of its job graph.
    pub edges: usize,
    /// Bytes that went over them.
    pub bytes_exchanged: u64,
}

impl Run {
    /// Reads a line of a pass with answers: the query, its edges, its bytes.
    pub fn parse(line: &str) -> Result<(usize, Self)> {
        let numbers: Option<Vec<u64>> = line.split(' ').map(|word| word.parse().ok()).collect();
        match numbers.as_deref() {
            Some([query, edges, bytes]) => {
                Ok((*query as usize, Self { edges: *edges as usize, bytes_exchanged: *bytes }))
            }
            _ => Err(Error::internal(format!("a pass printed '{line}'"))),
        }
    }

    /// Both together.
    pub fn and(self, other: &Self) -> Self {
        Self { edges: self.edges + other.edges, bytes_exchanged: self.bytes_exchanged + other.bytes_exchanged }
    }
}

/// Answers the queries of `--queries` over the files in `--folder`, and prints the seconds of each. With `--answers` the rows go
/// into that folder, and what is printed is how each query ran.
pub fn pass(given: &Parameters) -> Result<()> {
    let set = given.get("set").unwrap_or_default().split(',').filter_map(|setting| setting.split_once('='));
    let fixed = [("execution.runtime-mode", "batch"), ("parallelism.default", "2")];
    let mut session = sql::session(fixed.into_iter().chain(set))?;
    sql::name_tpch_tables(&mut session, Path::new(given.required("folder")?))?;
    for query in given.required("queries")?.split(',') {
        let text = std::fs::read_to_string(root().join(format!("tests/tpch/q{query}.sql")))?;
        match given.get("answers") {
            None => {
                let (_, seconds) = timed(|| sql::query(&mut session, &text))?;
                println!("{query} {seconds}");
            }
            Some(folder) => {
                let run = answer(&mut session, &text, &Path::new(folder).join(format!("q{query}.arrow")))?;
                println!("{query} {} {}", run.edges, run.bytes_exchanged);
            }
        }
    }
    Ok(())
}

fn answer(session: &mut Session, text: &str, file: &Path) -> Result<Run> {
    let edges = sql::edges(&sql::job_graph(session, text)?);
    let (rows, job) = sql::query(session, text)?;
    let Rows { schema, batches } = rows;
    let mut writer = FileWriter::try_new(File::create(file)?, &schema)?;
    batches.iter().try_for_each(|batch| writer.write(batch))?;
    writer.finish()?;
    Ok(Run { edges, bytes_exchanged: job.bytes_exchanged() })
}
