//! A source whose rows, end and behaviour a test decides.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use futures::StreamExt;
use futures::future::BoxFuture;
use tidemill_core::metrics::{Metrics, RECORDS_SKIPPED};
use tidemill_core::source::{
    Boundedness, ListEnumerator, SequentialReader, Source, SourceContext, SourceReader, Split, SplitEnumerator,
    SplitStream,
};
use tidemill_core::{Error, ErrorKind, Result};

/// Rows `(k, v)`: `k` is the row's number, `v` its number modulo 10. Split into parts of equal size.
#[derive(Clone, Debug)]
pub struct Numbers {
    pub name: &'static str,
    pub splits: usize,
    pub batches_per_split: usize,
    pub batch_rows: usize,
    pub endless: bool,
    /// The batch of each split at which reading fails.
    pub fails_at: Option<usize>,
    /// What kind of failure that is.
    pub failure: ErrorKind,
    /// Told when a split is opened and when it ends.
    pub log: Log,
}

/// What happened, in order.
pub type Log = Arc<Mutex<Vec<String>>>;

impl Numbers {
    pub fn new(name: &'static str, splits: usize, batches_per_split: usize) -> Self {
        let (fails_at, failure) = (None, ErrorKind::Data);
        Self {
            name,
            splits,
            batches_per_split,
            batch_rows: 100,
            endless: false,
            fails_at,
            failure,
            log: Log::default(),
        }
    }

    pub fn endless(name: &'static str) -> Self {
        Self { endless: true, ..Self::new(name, 4, usize::MAX) }
    }
}

fn schema() -> SchemaRef {
    let field = |name| Field::new(name, DataType::Int64, false);
    Arc::new(Schema::new(vec![field("k"), field("v")]))
}

impl Source for Numbers {
    fn schema(&self) -> SchemaRef {
        schema()
    }

    fn boundedness(&self) -> Boundedness {
        if self.endless { Boundedness::Unbounded } else { Boundedness::Bounded }
    }

    fn enumerator(&self, _context: &SourceContext) -> Result<Box<dyn SplitEnumerator>> {
        Ok(Box::new(ListEnumerator::new((0..self.splits).map(|split| Split::new(split.to_string())))))
    }

    fn reader(&self, context: &SourceContext) -> Result<Box<dyn SourceReader>> {
        let (source, metrics, projection) = (self.clone(), context.metrics.clone(), context.projection.clone());
        let open = move |split: Split| -> BoxFuture<'static, Result<SplitStream>> {
            let (source, metrics, projection) = (source.clone(), metrics.clone(), projection.clone());
            Box::pin(async move { Ok(source.read(split, metrics, projection)) })
        };
        Ok(Box::new(SequentialReader::new(open)))
    }

    fn describe(&self) -> String {
        format!("numbers({})", self.name)
    }
}

impl Numbers {
    fn read(self, split: Split, metrics: Metrics, projection: Option<Arc<[usize]>>) -> SplitStream {
        let split: usize = split.id.parse().unwrap();
        self.log.lock().unwrap().push(format!("{} begins", self.name));
        metrics.counter(RECORDS_SKIPPED).add(1);
        let next = AtomicUsize::new(0);
        let batches = futures::stream::unfold((self, next), move |(source, next)| {
            let projection = projection.clone();
            async move {
                let batch = next.fetch_add(1, Ordering::Relaxed);
                if batch >= source.batches_per_split {
                    source.log.lock().unwrap().push(format!("{} ends", source.name));
                    return None;
                }
                if source.fails_at == Some(batch) {
                    return Some((Err(Error::new(source.failure, "row 7 is torn")), (source, next)));
                }
                // Endless rows must not starve a runtime of one thread.
                tokio::task::yield_now().await;
                let first = ((split * source.batches_per_split.min(1 << 20) + batch) * source.batch_rows) as i64;
                let keys = first..first + source.batch_rows as i64;
                let k: ArrayRef = Arc::new(Int64Array::from_iter_values(keys.clone()));
                let v: ArrayRef = Arc::new(Int64Array::from_iter_values(keys.map(|key| key % 10)));
                let records = RecordBatch::try_new(schema(), vec![k, v]).unwrap();
                let records = match &projection {
                    Some(columns) => records.project(columns).unwrap(),
                    None => records,
                };
                Some((Ok((records, Vec::new())), (source, next)))
            }
        });
        batches.boxed()
    }
}
