//! Collections and sequences keep the laws of sources and sinks.

use std::sync::Arc;

use arrow::array::{AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use futures::executor::block_on;
use tidemill_core::batch::Batch;
use tidemill_core::sink::Sink;

use super::*;
use crate::conformance::{check_source, read_all, sink_context, source_context};

fn batch(values: Vec<i64>) -> RecordBatch {
    let fields = vec![Field::new("n", DataType::Int64, true), Field::new("m", DataType::Int64, true)];
    let column = Arc::new(Int64Array::from(values));
    RecordBatch::try_new(Arc::new(Schema::new(fields)), vec![column.clone(), column]).unwrap()
}

#[test]
fn collections_keep_the_laws_of_sources() {
    let batches = vec![batch((0..20).collect()), batch(vec![]), batch((20..25).collect())];
    let source = CollectionSource::new(batches[0].schema(), batches).unwrap();
    block_on(check_source(&source)).unwrap();
    assert!(CollectionSource::new(Arc::new(Schema::empty()), vec![batch(vec![1])]).is_err());
}

#[test]
fn sequences_include_both_ends() {
    let source = SequenceSource::new("n", -3, 3);
    block_on(check_source(&source)).unwrap();
    let delivered = block_on(read_all(&source, &source_context(1, 10))).unwrap();
    assert_eq!(delivered.batches[0].column(0).as_primitive::<Int64Type>().values(), &[-3, -2, -1, 0, 1, 2, 3]);
    let none = block_on(read_all(&SequenceSource::new("n", 3, 2), &source_context(2, 10))).unwrap();
    assert!(none.batches.is_empty());
}

#[tokio::test]
async fn collected_rows_keep_their_kinds_and_end_with_the_job() {
    let (sink, mut handle) = CollectSink::new(1);
    let committer = sink.prepare().unwrap();
    let mut writer = sink.writer(&sink_context(0, 1, batch(vec![]).schema())).unwrap();
    let changes = Batch::changelog(batch(vec![1, 2]), vec![0, 3].into()).unwrap();
    writer.write(changes).await.unwrap();
    drop(writer);
    committer.finish().await.unwrap();
    assert_eq!(handle.next().await.unwrap().kinds().unwrap().as_ref(), [0, 3]);
    assert!(handle.next().await.is_none());
}

#[tokio::test]
async fn nobody_collecting_cancels_the_job() {
    let (sink, handle) = CollectSink::new(1);
    drop(handle);
    let mut writer = sink.writer(&sink_context(0, 1, batch(vec![]).schema())).unwrap();
    let error = writer.write(Batch::append(batch(vec![1]))).await.unwrap_err();
    assert_eq!(error.kind(), tidemill_core::ErrorKind::Cancelled);
}
