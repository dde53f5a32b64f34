//! From the `'connector'` option to a source or a sink.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use tidemill_core::error::{self, Error, Result};
use tidemill_core::sink::Sink;
use tidemill_core::source::Source;

use crate::options::{CONNECTOR, Options};
use crate::store::Stores;
use crate::{blackhole, datagen, filesystem, print, socket};

/// What connectors may know of the job that opens a table.
#[derive(Clone, Debug)]
pub struct TableContext {
    /// Name of the job, part of the names of the files that it writes. Two jobs must never share one; a job that goes on
    /// after a failure keeps its own.
    pub job: Arc<str>,
    /// How many subtasks write.
    pub parallelism: usize,
    /// Whether rows are added to what is there or replace it.
    pub disposition: Disposition,
    /// The columns of `PARTITIONED BY`, in its order.
    pub partitioned_by: Arc<[String]>,
    /// The zone in which people read `TIMESTAMP_LTZ` (`table.local-time-zone`).
    pub time_zone: Arc<str>,
    /// Where URLs lead.
    pub stores: Stores,
}

impl TableContext {
    /// The context of a job with one subtask that adds rows, reads times in UTC and sees the local files.
    pub fn new(job: impl Into<Arc<str>>) -> Self {
        Self {
            job: job.into(),
            parallelism: 1,
            disposition: Disposition::Append,
            partitioned_by: Arc::default(),
            time_zone: "UTC".into(),
            stores: Stores::local(),
        }
    }
}

/// What happens to the rows that are already there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Disposition {
    /// `INSERT INTO`: they stay.
    #[default]
    Append,
    /// `INSERT OVERWRITE`: they go, in the moment in which the new ones are complete.
    Replace,
}

type OpenSource = fn(&mut Options, SchemaRef, &TableContext) -> Result<Arc<dyn Source>>;
type OpenSink = fn(&mut Options, SchemaRef, &TableContext) -> Result<Arc<dyn Sink>>;

struct Connector {
    name: &'static str,
    source: Option<OpenSource>,
    sink: Option<OpenSink>,
    /// Whether its tables can be partitioned.
    has_partitions: bool,
}

/// Every connector that a table can name.
const CONNECTORS: [Connector; 5] = [
    Connector {
        has_partitions: true,
        ..connector("filesystem", Some(filesystem::open_source), Some(filesystem::open_sink))
    },
    connector("datagen", Some(datagen::open_source), None),
    connector("socket", Some(socket::open_source), Some(socket::open_sink)),
    connector("print", None, Some(print::open_sink)),
    connector("blackhole", None, Some(blackhole::open_sink)),
];

const fn connector(name: &'static str, source: Option<OpenSource>, sink: Option<OpenSink>) -> Connector {
    Connector { name, source, sink, has_partitions: false }
}

/// The names of all connectors, for completion and documentation.
pub fn connectors() -> impl Iterator<Item = &'static str> {
    CONNECTORS.iter().map(|connector| connector.name)
}

/// Opens the source that `options` describe. `schema` holds the physical columns of the table.
pub fn source(mut options: Options, schema: SchemaRef, context: &TableContext) -> Result<Arc<dyn Source>> {
    let connector = find(&options, context)?;
    let open = connector.source.ok_or_else(|| wrong_end(connector, "read", |other| other.source.is_some()))?;
    let source = open(&mut options, schema, context)?;
    options.finish()?;
    Ok(source)
}

/// Opens the sink that `options` describe. `schema` holds the physical columns of the table.
pub fn sink(mut options: Options, schema: SchemaRef, context: &TableContext) -> Result<Arc<dyn Sink>> {
    let connector = find(&options, context)?;
    let open = connector.sink.ok_or_else(|| wrong_end(connector, "written", |other| other.sink.is_some()))?;
    let sink = open(&mut options, schema, context)?;
    options.finish()?;
    Ok(sink)
}

fn find(options: &Options, context: &TableContext) -> Result<&'static Connector> {
    let name = options.connector();
    if name.is_empty() {
        let known: Vec<_> = connectors().collect();
        return Err(Error::request(format!("the table has no option '{CONNECTOR}'"))
            .with_hint(format!("known connectors: {}", known.join(", "))));
    }
    let found = CONNECTORS.iter().find(|connector| connector.name == name);
    let found = found.ok_or_else(|| error::unknown("connector", name, connectors()))?;
    match context.partitioned_by.is_empty() || found.has_partitions {
        true => Ok(found),
        false => {
            Err(Error::request(format!("connector '{name}' has no partitions")).with_hint("leave PARTITIONED BY away"))
        }
    }
}

fn wrong_end(connector: &Connector, verb: &str, can: impl Fn(&Connector) -> bool) -> Error {
    let able: Vec<_> = CONNECTORS.iter().filter(|other| can(other)).map(|other| other.name).collect();
    Error::request(format!("connector '{}' cannot be {verb}", connector.name))
        .with_hint(format!("can be {verb}: {}", able.join(", ")))
}

/// The error of a sink that has no old rows to replace.
pub(crate) fn refuse_replace(context: &TableContext, connector: impl fmt::Display) -> Result<()> {
    match context.disposition {
        Disposition::Append => Ok(()),
        Disposition::Replace => {
            Err(Error::request(format!("connector '{connector}' cannot be overwritten")).with_hint("use INSERT INTO"))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use arrow::datatypes::{DataType, Field, Schema, TimeUnit};

    use super::*;

    fn open_source(name: &str) -> String {
        let schema = Arc::new(Schema::empty());
        let opened = source(Options::new([("connector", name)]), schema, &TableContext::new("job"));
        opened.unwrap_err().to_string()
    }

    #[test]
    fn a_slip_is_named() {
        assert_eq!(open_source("filesytem"), "unknown connector 'filesytem'; did you mean 'filesystem'?");
    }

    /// The keys that opening a table asks for, columns' names as `#`.
    fn asked(connector: &Connector, more: &[(&str, &str)]) -> BTreeSet<String> {
        let types =
            [DataType::Int64, DataType::Float64, DataType::Utf8, DataType::Timestamp(TimeUnit::Millisecond, None)];
        let mut keys = BTreeSet::new();
        for data_type in types {
            let schema = Arc::new(Schema::new(vec![Field::new("x", data_type, true)]));
            let fixed = [
                ("connector", connector.name),
                ("path", "x"),
                ("hostname", "x"),
                ("port", "1"),
                ("fields.x.start", "0"),
            ];
            let mut options = Options::new(fixed.into_iter().chain(more.iter().copied()));
            let context = TableContext::new("job");
            // What a kind of column cannot do ends the asking early; another one gets further.
            let _ = connector.source.map(|open| open(&mut options, schema.clone(), &context).map(drop));
            let _ = connector.sink.map(|open| open(&mut options, schema, &context).map(drop));
            keys.extend(options.asked().map(|key| key.replace(".x.", ".#.")));
        }
        keys
    }

    #[test]
    fn every_option_stands_in_its_page() {
        let page = include_str!("../../docs/connectors.md");
        for connector in &CONNECTORS {
            assert!(page.contains(&format!("\n## {}\n", connector.name)), "{}", connector.name);
            let formats = ["csv", "json", "raw", "parquet", "arrow"].map(|format| ("format", format));
            let kinds = ["random", "sequence"].map(|kind| ("fields.x.kind", kind));
            for more in formats.iter().chain(&kinds) {
                for key in asked(connector, &[*more]) {
                    assert!(page.contains(&format!("`{key}`")) || key == CONNECTOR, "'{key}' is not in the page");
                }
            }
        }
    }

    #[test]
    fn a_sink_cannot_be_read() {
        assert_eq!(open_source("print"), "connector 'print' cannot be read; can be read: filesystem, datagen, socket");
        let schema = Arc::new(Schema::empty());
        let written = sink(Options::new([("connector", "datagen")]), schema, &TableContext::new("job"));
        assert!(written.unwrap_err().to_string().starts_with("connector 'datagen' cannot be written"));
    }
}
