//! What can be asked for: subcommands, options, help.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use super::output::Format;

/// An analytics engine in which batch and streaming are the same engine.
///
/// SQL over files, sockets and generated rows: a query over a file ends when the file ends, the same query over a source that
/// never ends goes on for ever.
#[derive(Debug, Parser)]
#[command(name = "tidemill", after_help = EXAMPLES, arg_required_else_help = true)]
pub struct Tidemill {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run SQL: a shell on a terminal, else statements from -e, -f or standard input
    #[command(after_help = SQL_EXAMPLES, after_long_help = SQL_LONG)]
    Sql(Sql),
}

/// Arguments of `tidemill sql`.
#[derive(Args, Debug, Default)]
pub struct Sql {
    /// Run these statements, separated by ';', and leave; may be repeated
    #[arg(short, long, value_name = "SQL", conflicts_with = "file")]
    pub execute: Vec<String>,
    /// Run the statements of FILE ('-' is standard input) and leave
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Run the statements of FILE first: tables and settings for what follows
    #[arg(short, long, value_name = "FILE")]
    pub init: Option<PathBuf>,
    /// Form of results: box on a terminal, csv elsewhere
    #[arg(long, value_enum, value_name = "box|csv|ndjson", ignore_case = true)]
    pub format: Option<Format>,
    /// Set a setting, as SET 'KEY' = 'VALUE' does; may be repeated
    #[arg(short = 'D', value_name = "KEY=VALUE", value_parser = key_value)]
    pub define: Vec<(String, String)>,
    /// Subtasks of each operator: parallelism.default; all cores without it
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub parallelism: Option<u32>,
    /// Read settings from FILE in place of ./tidemill.yaml or $XDG_CONFIG_HOME/tidemill/tidemill.yaml
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.trim().to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}

/// Version, commit (the scripts name it to the compiler), and the libraries whose types results have.
pub fn version() -> String {
    format!(
        "{} (commit {}, arrow {}, datafusion {})",
        env!("CARGO_PKG_VERSION"),
        option_env!("TIDEMILL_COMMIT").filter(|commit| !commit.is_empty()).unwrap_or("unknown"),
        arrow::ARROW_VERSION,
        datafusion::DATAFUSION_VERSION,
    )
}

const EXAMPLES: &str = "\
Examples:
  tidemill sql                                  a shell; HELP lists what it knows
  tidemill sql -e \"SELECT 6 * 7 AS answer\"      one query
  tidemill sql -f job.sql > result.csv          a script; results as csv, all else on stderr

'tidemill sql --help' tells more.";

const SQL_EXAMPLES: &str = "'--help' shows examples, result modes, settings and exit codes.";

const SQL_LONG: &str = "\
Examples:
  Query files where they lie: csv, json, parquet, arrow; also compressed, also many at once
    tidemill sql -e \"SELECT carrier, COUNT(*) AS flights FROM 'flights/*.csv.gz' GROUP BY carrier\"

  Turn one format into another
    tidemill sql -e \"COPY (SELECT * FROM 'in.csv') TO 'out.parquet'\"

  Watch a stream: a live view of the result on a terminal, every change in a pipe
    tidemill sql -e \"CREATE TABLE ticks (n BIGINT) WITH ('connector' = 'datagen', 'rows-per-second' = '5');
                     SELECT COUNT(*) AS ticks, MAX(n) AS top FROM ticks\"
    tidemill sql -D sql-client.execution.result-mode=changelog -e \"...\" | head

  A script with its tables apart
    tidemill sql -i tables.sql -f report.sql --format ndjson

Results:
  With csv and ndjson only rows go to standard output; row counts, times, warnings and errors go to standard error.
  sql-client.execution.result-mode =
    table      the result as a table (default): at the end, or live on a terminal when the query never ends
    changelog  every change as it comes, with a first column 'op': +I -U +U -D
    tableau    like changelog, without 'op' where rows are never updated

Settings, strongest first:
  SET 'key' = 'value' in SQL, -D key=value and -p, TIDEMILL_KEY (dots as '__', dashes as '_'), the file of --config or else
  ./tidemill.yaml or else $XDG_CONFIG_HOME/tidemill/tidemill.yaml. 'SET;' lists every key, its value and where that came from.

Exit codes:
  0 success, also when nobody reads the output any more; 1 a query or job failed; 2 wrong usage; 130 interrupted;
  143 terminated";
