//! A sink that prints changes: `+I[1, a]`, with the subtask in front when several print (SNK-02).

use std::fmt;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use tidemill_core::batch::Batch;
use tidemill_core::error::{Error, Result};
use tidemill_core::sink::{ChangelogMode, Committer, NothingToCommit, Sink, SinkContext, SinkWriter};
use tidemill_core::time::Calendar;

use crate::formats::text::{ColumnText, TextStyle};
use crate::options::Options;
use crate::registry::{TableContext, refuse_replace};

/// Opens `'connector' = 'print'`.
pub(crate) fn open_sink(options: &mut Options, _schema: SchemaRef, context: &TableContext) -> Result<Arc<dyn Sink>> {
    refuse_replace(context, "print")?;
    let sink = match options.flag("standard-error", false)? {
        true => PrintSink::new(std::io::stderr()),
        false => PrintSink::new(std::io::stdout()),
    };
    let sink = sink.in_zone(Calendar::parse(&context.time_zone)?);
    Ok(Arc::new(match options.optional("print-identifier") {
        Some(identifier) => sink.with_identifier(identifier),
        None => sink,
    }))
}

/// Prints one line a change. Lines of several subtasks never mix.
#[derive(Clone)]
pub struct PrintSink {
    target: Arc<Mutex<dyn Write + Send>>,
    identifier: Option<String>,
    zone: Calendar,
}

impl PrintSink {
    /// Prints to `target`, times in UTC.
    pub fn new(target: impl Write + Send + 'static) -> Self {
        Self { target: Arc::new(Mutex::new(target)), identifier: None, zone: Calendar::Utc }
    }

    /// Puts `identifier` in front of every line.
    #[must_use]
    pub fn with_identifier(self, identifier: impl Into<String>) -> Self {
        Self { identifier: Some(identifier.into()).filter(|text| !text.is_empty()), ..self }
    }

    /// Prints `TIMESTAMP_LTZ` in another zone.
    #[must_use]
    pub fn in_zone(self, zone: Calendar) -> Self {
        Self { zone, ..self }
    }

    /// Flink's prefix: `identifier:2> `, `identifier> `, `2> ` or nothing. Subtasks are counted from 1.
    fn prefix(&self, context: &SinkContext) -> String {
        let number = context.subtask + 1;
        match (&self.identifier, context.parallelism > 1) {
            (Some(identifier), true) => format!("{identifier}:{number}> "),
            (Some(identifier), false) => format!("{identifier}> "),
            (None, true) => format!("{number}> "),
            (None, false) => String::new(),
        }
    }
}

impl fmt::Debug for PrintSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrintSink").field("identifier", &self.identifier).finish_non_exhaustive()
    }
}

impl Sink for PrintSink {
    fn changelog_mode(&self) -> ChangelogMode {
        ChangelogMode::Retract
    }

    fn prepare(&self) -> Result<Arc<dyn Committer>> {
        Ok(Arc::new(NothingToCommit))
    }

    fn writer(&self, context: &SinkContext) -> Result<Box<dyn SinkWriter>> {
        Ok(Box::new(PrintWriter { prefix: self.prefix(context), target: self.target.clone(), zone: self.zone }))
    }

    fn describe(&self) -> String {
        self.identifier.as_ref().map_or_else(|| "print".to_owned(), |identifier| format!("print({identifier})"))
    }
}

struct PrintWriter {
    prefix: String,
    target: Arc<Mutex<dyn Write + Send>>,
    zone: Calendar,
}

impl PrintWriter {
    fn lines(&self, batch: &Batch) -> Result<Vec<u8>> {
        let style = TextStyle::PRINT.in_zone(self.zone);
        let columns = batch.records().columns().iter().map(|column| ColumnText::new(column.as_ref(), style));
        let columns: Vec<_> = columns.collect::<Result<_>>()?;
        let mut out = Vec::new();
        for row in 0..batch.num_rows() {
            out.extend_from_slice(self.prefix.as_bytes());
            out.extend_from_slice(batch.kind(row)?.symbol().as_bytes());
            out.push(b'[');
            for (at, column) in columns.iter().enumerate() {
                if at > 0 {
                    out.extend_from_slice(b", ");
                }
                column.write(row, &mut out);
            }
            out.extend_from_slice(b"]\n");
        }
        Ok(out)
    }
}

#[async_trait]
impl SinkWriter for PrintWriter {
    async fn write(&mut self, batch: Batch) -> Result<()> {
        let lines = self.lines(&batch)?;
        let mut target = self.target.lock().unwrap_or_else(PoisonError::into_inner);
        target.write_all(&lines).and_then(|()| target.flush()).map_err(|error| match error.kind() {
            // `| head` has seen enough; that is no failure.
            std::io::ErrorKind::BrokenPipe => Error::cancelled("nobody reads the output any more").with_source(error),
            _ => Error::from(error).context("print"),
        })
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, RecordBatch, StringArray};
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;
    use crate::conformance::sink_context;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn printed(sink: impl Fn(PrintSink) -> PrintSink, subtask: usize, parallelism: usize) -> String {
        let fields = vec![Field::new("n", DataType::Int64, true), Field::new("s", DataType::Utf8, true)];
        let schema = Arc::new(Schema::new(fields));
        let columns: Vec<arrow::array::ArrayRef> =
            vec![Arc::new(Int64Array::from(vec![1, 2])), Arc::new(StringArray::from(vec![Some("a"), None]))];
        let records = RecordBatch::try_new(schema.clone(), columns).unwrap();
        let batch = Batch::changelog(records, vec![0, 3].into()).unwrap();
        let target = Shared::default();
        let sink = sink(PrintSink::new(target.clone()));
        let mut writer = sink.writer(&sink_context(subtask, parallelism, schema)).unwrap();
        futures::executor::block_on(writer.write(batch)).unwrap();
        let bytes = target.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn changes_look_as_in_flink() {
        assert_eq!(printed(|sink| sink, 0, 1), "+I[1, a]\n-D[2, null]\n");
        assert_eq!(printed(|sink| sink, 1, 2), "2> +I[1, a]\n2> -D[2, null]\n");
        assert_eq!(printed(|sink| sink.with_identifier("x"), 0, 1), "x> +I[1, a]\nx> -D[2, null]\n");
        assert_eq!(printed(|sink| sink.with_identifier("x"), 1, 2), "x:2> +I[1, a]\nx:2> -D[2, null]\n");
    }
}
