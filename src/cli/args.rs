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
    /// Run the jobs of a script: its INSERTs, each one job
    #[command(after_help = RUN_EXAMPLES)]
    Run(Run),
    /// List the jobs of a running process
    List(OfJob),
    /// Show how a job is doing: state, restarts with their first cause, what its tasks have counted
    Info(OfJob),
    /// Show the last checkpoints of a job
    Checkpoints(OfJob),
    /// Take a checkpoint now, and print its number
    Checkpoint(OfJob),
    /// Write a savepoint and print its place; the job goes on
    Savepoint(Savepoint),
    /// Stop a job behind a savepoint, and print its place
    Stop(StopJob),
    /// End a job at once; it can go on from its last checkpoint, unless execution.checkpointing.externalized-checkpoint-retention
    /// has that deleted
    Cancel(OfJob),
}

/// Arguments of `tidemill run`.
#[derive(Args, Debug, Default)]
pub struct Run {
    /// The script ('-' is standard input)
    #[arg(short, long, value_name = "FILE")]
    pub file: PathBuf,
    /// Run in this process; checkpoints lie in execution.checkpointing.dir or else in ./.tidemill/FILE/
    #[arg(long)]
    pub local: bool,
    /// Go on from the newest checkpoint, or begin where there is none
    #[arg(long, requires = "local", conflicts_with = "from_savepoint")]
    pub resume: bool,
    /// Name of the job
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Begin from a savepoint
    #[arg(short = 's', long, value_name = "PATH")]
    pub from_savepoint: Option<String>,
    /// Drop state that no operator of the job claims
    #[arg(short = 'n', long)]
    pub allow_non_restored_state: bool,
    /// Who owns the savepoint from now on
    #[arg(long, value_name = "claim|no-claim", value_parser = claim_mode)]
    pub claim_mode: Option<String>,
    #[command(flatten)]
    pub settings: SettingArguments,
}

/// Which job of which process.
#[derive(Args, Debug, Default)]
pub struct OfJob {
    /// The job: its sink or its number; may be left out where there is one
    #[arg(value_name = "JOB")]
    pub job: Option<String>,
    /// The folder of the process: that of its checkpoints
    #[arg(long, value_name = "D")]
    pub dir: Option<PathBuf>,
    /// Form of lists
    #[arg(long, value_enum, value_name = "box|json", default_value = "box", ignore_case = true)]
    pub format: ListFormat,
}

/// Arguments of `tidemill savepoint`.
#[derive(Args, Debug, Default)]
pub struct Savepoint {
    #[command(flatten)]
    pub of: OfJob,
    /// Where the savepoint goes: an empty or missing folder
    #[arg(value_name = "PATH")]
    pub path: Option<String>,
    /// Delete this savepoint instead
    #[arg(long, value_name = "PATH", conflicts_with_all = ["job", "path"])]
    pub dispose: Option<String>,
}

/// Arguments of `tidemill stop`.
#[derive(Args, Debug, Default)]
pub struct StopJob {
    #[command(flatten)]
    pub of: OfJob,
    /// Let event time end first, so that all windows fire: for jobs that will not go on
    #[arg(long)]
    pub drain: bool,
    /// Where the savepoint goes: an empty or missing folder
    #[arg(long, value_name = "PATH")]
    pub savepoint_path: Option<String>,
}

/// Form of lists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ListFormat {
    /// For people.
    #[default]
    Box,
    /// For programs.
    Json,
}

fn claim_mode(text: &str) -> Result<String, String> {
    match text.to_ascii_lowercase().replace('-', "_").as_str() {
        mode @ ("claim" | "no_claim") => Ok(mode.to_ascii_uppercase()),
        _ => Err("expected claim or no-claim".to_owned()),
    }
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
    #[command(flatten)]
    pub settings: SettingArguments,
}

/// Settings on the command line.
#[derive(Args, Debug, Default)]
pub struct SettingArguments {
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

const RUN_EXAMPLES: &str = "\
Examples:
  tidemill run --local -f job.sql            run its jobs here; checkpoints go to ./.tidemill/job.sql/
  tidemill run --local -f job.sql --resume   go on after a crash, a kill or a stop: nothing is lost, nothing comes twice
  tidemill stop --dir .tidemill/job.sql      stop behind a savepoint
  tidemill checkpoints --dir .tidemill/job.sql";

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
