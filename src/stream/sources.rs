//! Where streams begin: collections, sequences, files, sockets, and any source that somebody wrote.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use tidemill_connectors::filesystem::FileSource;
use tidemill_connectors::formats::Format;
use tidemill_connectors::formats::compression::Compression;
use tidemill_connectors::socket::{SocketOptions, SocketSource};
use tidemill_connectors::{CollectionSource, SequenceSource};
use tidemill_core::Result;
use tidemill_core::graph::SourceNode;
use tidemill_core::source::Source;

use super::data_stream::DataStream;
use super::environment::Environment;
use super::layout::{PlainCodec, RowCodec};
use super::program::{Input, Kind, Node};
use super::record::{Codec, Record};
use super::rows::Rows;

/// Records of a collection that are encoded at once. How many travel together is the setting `execution.batch-rows`.
const COLLECTION_ROWS: usize = 8192;

impl Environment {
    /// These records, in order (SRC-01).
    pub fn from_elements<T: Record>(&self, elements: impl IntoIterator<Item = T>) -> DataStream<T> {
        self.from_collection(elements)
    }

    /// The records of a collection, in order, read by one subtask (SRC-02).
    pub fn from_collection<T: Record>(&self, collection: impl IntoIterator<Item = T>) -> DataStream<T> {
        let codec = self.codec_of::<T>();
        let source = collection_source(&codec, collection);
        self.source_or_fail("collection", source, codec)
    }

    /// The numbers `from` to `to`, both inclusive, read in parallel (SRC-03).
    pub fn generate_sequence(&self, from: i64, to: i64) -> DataStream<i64> {
        let source: Arc<dyn Source> = Arc::new(SequenceSource::new("item", from, to));
        self.source_or_fail("sequence", Ok(source), self.codec_of())
    }

    /// The lines of a file, of the files in a directory, or of those that a glob matches (SRC-04). UTF-8, compressed as their
    /// names say. Lines of one file come in order within a subtask; a large file is read by several.
    pub fn read_text_file(&self, path: &str) -> DataStream<String> {
        let source = self.stores().resolve(path).and_then(|location| {
            let source = FileSource::new(path, location, Format::Raw(Compression::None), lines_schema())?;
            Ok(Arc::new(source) as Arc<dyn Source>)
        });
        self.source_or_fail("text file", source, self.codec_of())
    }

    /// Text from a peer that listens at `host:port`, cut at `delimiter` (SRC-10). Connects again up to `retries_max` times when
    /// the connection breaks, `None` for ever; the stream ends with it. What was sent cannot be sent again, so a failure loses
    /// rows.
    pub fn socket_text_stream(
        &self,
        host: &str,
        port: u16,
        delimiter: &str,
        retries_max: Option<u32>,
    ) -> DataStream<String> {
        let options = SocketOptions {
            hostname: host.to_owned(),
            port,
            delimiter: delimiter.to_owned(),
            retries_max,
            format: Format::Raw(Compression::None),
        };
        let source = SocketSource::new(options, lines_schema()).map(|source| Arc::new(source) as Arc<dyn Source>);
        self.source_or_fail("socket", source, self.codec_of())
    }

    /// The rows of any source, as records: columns are found by name for structs, by position for tuples, and a single column
    /// is a number or a string.
    pub fn from_source<T: Record>(&self, source: Arc<dyn Source>) -> DataStream<T> {
        self.source_or_fail("source", Ok(source), self.codec_of())
    }

    fn source_or_fail<T: Record>(&self, name: &str, source: Result<Arc<dyn Source>>, codec: Codec<T>) -> DataStream<T> {
        let node = match source {
            Ok(source) => {
                let schema = source.schema();
                let node = SourceNode { source, projection: None, derive: None, watermarks: None };
                Node::untyped(name, Vec::new(), Kind::Source(node), schema)
            }
            Err(error) => {
                self.program().fail(error);
                // A place holder in a program that will not run.
                let plain = Arc::new(PlainCodec::new(codec.clone(), false));
                Node::typed(name, Vec::new(), Kind::Rows(plain.clone(), None), plain)
            }
        };
        let node = self.program().add(node);
        DataStream { environment: self.clone(), inputs: vec![Input::main(node)], codec, timed: false }
    }
}

fn collection_source<T: Record>(codec: &Codec<T>, collection: impl IntoIterator<Item = T>) -> Result<Arc<dyn Source>> {
    let plain = PlainCodec::new(codec.clone(), false);
    let mut records = collection.into_iter();
    let mut batches = Vec::new();
    loop {
        let values: Vec<T> = records.by_ref().take(COLLECTION_ROWS).collect();
        if values.is_empty() {
            break;
        }
        batches.push(plain.encode_rows(&Rows { values, times: Vec::new() })?);
    }
    Ok(Arc::new(CollectionSource::new(plain.schema(), batches)?))
}

fn lines_schema() -> Arc<Schema> {
    Arc::new(Schema::new(vec![Field::new("item", DataType::Utf8, false)]))
}
