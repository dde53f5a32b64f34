//! The sink of `print`: lines to the terminal, behind the number of the subtask if there are several (SNK-02).

use std::fmt;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::AsArray;
use async_trait::async_trait;
use tidemill_core::sink::{ChangelogMode, Committer, NothingToCommit, Sink, SinkContext, SinkWriter};
use tidemill_core::{Batch, Error, Result};

/// Prints the only column of its rows, a text. Lines of several subtasks never mix.
#[derive(Clone)]
pub(super) struct PrintLines(Arc<Mutex<dyn Write + Send>>);

impl PrintLines {
    pub fn standard_output() -> Self {
        Self(Arc::new(Mutex::new(std::io::stdout())))
    }

    pub fn standard_error() -> Self {
        Self(Arc::new(Mutex::new(std::io::stderr())))
    }
}

impl fmt::Debug for PrintLines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrintLines")
    }
}

impl Sink for PrintLines {
    fn changelog_mode(&self) -> ChangelogMode {
        ChangelogMode::Append
    }

    fn prepare(&self) -> Result<Arc<dyn Committer>> {
        Ok(Arc::new(NothingToCommit))
    }

    fn writer(&self, context: &SinkContext) -> Result<Box<dyn SinkWriter>> {
        let prefix = if context.parallelism > 1 { format!("{}> ", context.subtask + 1) } else { String::new() };
        Ok(Box::new(LineWriter { prefix, target: self.0.clone() }))
    }

    fn describe(&self) -> String {
        "print".to_owned()
    }
}

struct LineWriter {
    prefix: String,
    target: Arc<Mutex<dyn Write + Send>>,
}

#[async_trait]
impl SinkWriter for LineWriter {
    async fn write(&mut self, batch: Batch) -> Result<()> {
        let mut text = String::new();
        for line in batch.records().column(0).as_string::<i32>().iter().flatten() {
            text.push_str(&self.prefix);
            text.push_str(line);
            text.push('\n');
        }
        let mut target = self.target.lock().unwrap_or_else(PoisonError::into_inner);
        target.write_all(text.as_bytes()).and_then(|()| target.flush()).map_err(|error| match error.kind() {
            // `| head` has seen enough; that is no failure.
            std::io::ErrorKind::BrokenPipe => Error::cancelled("nobody reads the output any more").with_source(error),
            _ => Error::from(error).context("print"),
        })
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, RecordBatch, StringArray};
    use tidemill_core::metrics::Metrics;

    use super::*;

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

    #[tokio::test]
    async fn several_subtasks_are_told_apart() {
        let lines: ArrayRef = Arc::new(StringArray::from(vec!["(to,2)", "(be,1)"]));
        let batch = Batch::append(RecordBatch::try_from_iter([("line", lines)]).unwrap());
        let printed = |subtask, parallelism| {
            let (target, batch) = (Shared::default(), batch.clone());
            async move {
                let context = SinkContext {
                    subtask,
                    parallelism,
                    schema: batch.schema(),
                    clock: Arc::new(tidemill_exec::runtime::TokioClock::starting_at(0)),
                    metrics: Metrics::default(),
                };
                let sink = PrintLines(Arc::new(Mutex::new(target.clone())));
                sink.writer(&context).unwrap().write(batch).await.unwrap();
                String::from_utf8(target.0.lock().unwrap().clone()).unwrap()
            }
        };
        assert_eq!(printed(0, 1).await, "(to,2)\n(be,1)\n");
        assert_eq!(printed(1, 2).await, "2> (to,2)\n2> (be,1)\n");
    }
}
