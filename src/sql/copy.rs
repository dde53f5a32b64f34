//! `COPY (query) TO 'f.parquet'`: one file.

use std::sync::Arc;

use datafusion::sql::parser::{CopyToSource, CopyToStatement};
use tidemill_connectors::Options;
use tidemill_connectors::filesystem::{FileSink, WriteMode};
use tidemill_connectors::formats::Format;
use tidemill_connectors::registry::Disposition;
use tidemill_core::{Error, Result};
use tidemill_exec::runtime::JobHandle;

use super::catalog::simple_name;
use super::insert::shaped;
use super::parser::{Parsed, parse_script};
use super::program::{Program, unbounded_table};
use super::session::Session;

impl Session {
    /// Starts the job of a `COPY`.
    pub(super) async fn copy(&mut self, parsed: &Parsed, copy: &CopyToStatement) -> Result<JobHandle> {
        if !copy.partitioned_by.is_empty() {
            return Err(Error::request("COPY … PARTITIONED BY is not supported yet"));
        }
        let state = self.state();
        let plan = match &copy.source {
            CopyToSource::Query(_) => self.plan(&state, parsed).await?,
            CopyToSource::Relation(name) => {
                let query = parse_script(&format!("SELECT * FROM `{}`", simple_name(name)?.replace('`', "``")))?;
                let query = query.first().ok_or_else(|| Error::internal("COPY without a query"))?;
                self.plan(&state, query).await?
            }
        };
        // One file is there when all of it is: whatever the mode, nobody sees it grow.
        if let Some(table) = unbounded_table(&plan)? {
            let error = Error::request(format!("COPY of a query that never ends: it reads '{table}'"));
            return Err(error.with_hint("INSERT INTO a table writes files as a stream goes on"));
        }
        let mut program = Program::new(plan, true, &state, &self.settings).await?;
        let path = copy.target.as_str();
        let job = self.new_job(format!("copy to {path}"), None);
        let context = self.table_context(Some(self.writer(&job, None)), Disposition::Append);
        let name =
            copy.stored_as.clone().or_else(|| Format::of_file_name(path).map(str::to_owned)).ok_or_else(|| {
                Error::request(format!("the format of '{path}' is not known")).with_hint("write STORED AS CSV")
            })?;
        let mut options = Options::new(copy_options(copy, &name));
        let format = Format::from_options(&name, &mut options)?;
        options.finish()?;
        let location = context.stores.resolve(path)?;
        let schema = program.schema.clone();
        let sink = FileSink::write_as(path, location, format, schema.clone(), &context.job, WriteMode::Overwrite, 1)?;
        program.add_sink(path, shaped(Arc::new(sink), schema), &self.settings);
        let handle = program.start(&job, self)?;
        Ok(self.started(job, handle))
    }
}

/// `OPTIONS (…)` as options of a table; a key without the format's name gets it: `header` is `csv.header`.
fn copy_options(copy: &CopyToStatement, format: &str) -> Vec<(String, String)> {
    let format = format.to_lowercase();
    let plain = |value: &str| value.trim_matches('\'').to_owned();
    let mut options = vec![("connector".to_owned(), "filesystem".to_owned())];
    // A single file for people to open has its columns' names in it.
    if format == "csv" && !copy.options.iter().any(|(key, _)| key.to_lowercase().ends_with("header")) {
        options.push(("csv.header".to_owned(), "true".to_owned()));
    }
    options.extend(copy.options.iter().map(|(key, value)| {
        let key = key.trim_start_matches("format.");
        let key = if key.contains('.') { key.to_owned() } else { format!("{format}.{key}") };
        (key, plain(&value.to_string()))
    }));
    options
}
