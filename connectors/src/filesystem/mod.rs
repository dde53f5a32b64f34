//! Tables of files: a source over one file, a glob or a directory, and a sink whose files appear whole or not at all.
//!
//! ```text
//! source   path -> files, sorted -> splits (a file, or byte ranges of a large one) -> batches
//! sink     .part-….inprogress --commit--> part-…            INSERT INTO
//!          .part-….inprogress --commit--> .part-….ready --finish--> final name, old files gone
//! ```
//!
//! In reading order: `part` (names, and what checkpoints hold), `target` (where bytes go, by what the store can do),
//! `rolling`, `writer`, `commit` and `replace` (how files become visible), `partition` and `partition_commit`,
//! `version` and `discovery`; `sink` and `source` put them together.

mod commit;
mod discovery;
mod part;
mod partition;
mod partition_commit;
mod replace;
mod rolling;
mod sink;
mod source;
mod split;
mod target;
mod version;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use regex::Regex;
use tidemill_core::error::{Error, Result};
use tidemill_core::sink::Sink;
use tidemill_core::source::Source;

use crate::formats::Format;
use crate::options::{Options, bad_value, parse_duration};
use crate::registry::TableContext;
use crate::store::FileSelection;
use partition::Partitioning;
use partition_commit::PartitionCommit;

pub(crate) use partition::{is_partition_of, stranger};
pub(crate) use replace::Replacement;
pub use rolling::RollingPolicy;
pub use sink::{FileSink, WriteMode};
pub use source::FileSource;

/// How often a directory is looked at for new files.
const MONITOR_INTERVAL: &str = "source.monitor-interval";
/// Set by `infer_schema`: the columns are a guess, and errors say so.
const INFERRED_SCHEMA: &str = "source.inferred-schema";

/// Opens `'connector' = 'filesystem'` for reading.
pub(crate) fn open_source(options: &mut Options, schema: SchemaRef, context: &TableContext) -> Result<Arc<dyn Source>> {
    let path = options.required("path")?;
    let selection = FileSelection {
        recursive: options.flag("source.recursive", false)?,
        pattern: options.optional("source.path.regex-pattern").map(|text| whole_match(&text)).transpose()?,
    };
    let monitor_interval = monitor_interval(options)?;
    let partitioning = partitioning_of(options, &schema, context)?;
    // A table is read and written with the same options.
    PartitionCommit::from_options(options, partitioning.as_ref())?;
    RollingPolicy::from_options(options)?;
    let format = format_of(&path, options)?;
    let location = context.stores.resolve(&path)?;
    let source = match partitioning {
        None => FileSource::new(path, location, format, schema)?,
        Some(partitioning) => FileSource::partitioned(path, location, format, schema, partitioning)?,
    };
    let mut source = source.with_selection(selection);
    if options.flag(INFERRED_SCHEMA, false)? {
        source = source.with_inferred_schema();
    }
    Ok(Arc::new(match monitor_interval {
        Some(interval) => source.with_monitor_interval(interval),
        None => source,
    }))
}

/// Opens `'connector' = 'filesystem'` for writing: a directory of part files.
pub(crate) fn open_sink(options: &mut Options, schema: SchemaRef, context: &TableContext) -> Result<Arc<dyn Sink>> {
    Ok(Arc::new(file_sink_of(options, schema, context)?))
}

fn file_sink_of(options: &mut Options, schema: SchemaRef, context: &TableContext) -> Result<FileSink> {
    let path = options.required("path")?;
    // A table is read and written with the same options.
    options.flag("source.recursive", false)?;
    options.optional("source.path.regex-pattern");
    monitor_interval(options)?;
    let partitioning = partitioning_of(options, &schema, context)?;
    let partition_commit = PartitionCommit::from_options(options, partitioning.as_ref())?;
    let rolling = RollingPolicy::from_options(options)?;
    let format = format_of(&path, options)?;
    let location = context.stores.resolve(&path)?;
    let schema = partitioning.as_ref().map_or(schema, |partitioning| partitioning.file_schema().clone());
    let sink = FileSink::directory(path, location, format, schema, &context.job, context.disposition)?;
    Ok(sink.with_rolling_policy(rolling).with_partitions(partitioning, partition_commit))
}

/// How long until a directory is looked at again, if it is. Without a pause nobody would do anything else.
fn monitor_interval(options: &mut Options) -> Result<Option<Duration>> {
    let Some(text) = options.optional(MONITOR_INTERVAL) else { return Ok(None) };
    let interval = parse_duration(&text).filter(|interval| !interval.is_zero());
    interval
        .map(Some)
        .ok_or_else(|| bad_value(MONITOR_INTERVAL, &text, "a duration of at least 1 ms, such as 100 ms or 3 s"))
}

fn partitioning_of(options: &mut Options, schema: &SchemaRef, context: &TableContext) -> Result<Option<Partitioning>> {
    let default_name = options.optional("partition.default-name").unwrap_or_else(|| partition::DEFAULT_NAME.to_owned());
    if default_name.is_empty() || default_name.contains(['/', '%']) {
        return Err(bad_value("partition.default-name", &default_name, "the name of a folder"));
    }
    match &*context.partitioned_by {
        [] => Ok(None),
        names => Partitioning::new(schema, names, default_name).map(Some),
    }
}

fn format_of(path: &str, options: &mut Options) -> Result<Format> {
    let name = options.optional("format").or_else(|| Format::of_file_name(path).map(str::to_owned));
    let name = name.ok_or_else(|| {
        Error::request(format!("the format of '{path}' is not known")).with_hint("say it with option 'format'")
    })?;
    Format::from_options(&name, options)
}

/// Flink matches the pattern against the whole path.
fn whole_match(pattern: &str) -> Result<Regex> {
    Regex::new(&format!("^(?:{pattern})$"))
        .map_err(|error| bad_value("source.path.regex-pattern", pattern, "a regular expression").with_source(error))
}

#[cfg(test)]
mod tests;
