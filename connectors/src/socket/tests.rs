//! Against real sockets of this machine.

use arrow::array::{AsArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use tidemill_core::ErrorKind;
use tidemill_core::batch::Batch;
use tidemill_core::source::{SourceEvent, Split};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::conformance::{sink_context, source_context};

fn lines() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("line", DataType::Utf8, true)]))
}

fn options(port: u16, more: &[(&str, &str)]) -> Options {
    let port = port.to_string();
    let fixed = [("connector", "socket"), ("hostname", "127.0.0.1"), ("port", port.as_str())];
    Options::new(fixed.into_iter().chain(more.iter().copied()))
}

async fn read(port: u16, more: &[(&str, &str)]) -> Result<Vec<String>> {
    let source = crate::registry::source(options(port, more), lines(), &TableContext::new("test"))?;
    let mut reader = source.reader(&source_context(1, 2))?;
    reader.add_splits(vec![Split::new("socket")]).await?;
    let mut rows = Vec::new();
    loop {
        match reader.next().await? {
            SourceEvent::Batch { records, .. } => {
                rows.extend(records.column(0).as_string::<i32>().iter().flatten().map(str::to_owned));
            }
            SourceEvent::SplitFinished(_) => return Ok(rows),
            SourceEvent::NeedsSplit => panic!("it has one"),
        }
    }
}

#[tokio::test]
async fn rows_come_until_the_peer_closes() {
    for (sent, more, expected) in [
        ("one\ntwo\r\nthree\nfour", &[][..], vec!["one", "two", "three", "four"]),
        ("a--b\nc--", &[("delimiter", "--")][..], vec!["a", "b\nc"]),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serving = tokio::spawn(async move {
            let (mut peer, _) = listener.accept().await.unwrap();
            for byte in sent.as_bytes().chunks(3) {
                peer.write_all(byte).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        assert_eq!(read(port, more).await.unwrap(), expected);
        serving.await.unwrap();
    }
}

/// Batches have two rows here.
#[tokio::test]
async fn rows_that_come_at_once_are_read_before_more_is_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let expected: Vec<String> = (0..9).map(|n| n.to_string()).collect();
    let text = expected.join("\n");
    let (seen, all_seen) = tokio::sync::oneshot::channel();
    let serving = tokio::spawn(async move {
        let (mut peer, _) = listener.accept().await.unwrap();
        peer.write_all(text.as_bytes()).await.unwrap();
        // The peer says nothing more, and does not close, until all but the line without an end were seen.
        tokio::time::timeout(Duration::from_secs(60), all_seen).await.unwrap().unwrap();
        peer.write_all(b"\nx\ny\nz\nlast").await.unwrap();
    });
    let source = crate::registry::source(options(port, &[]), lines(), &TableContext::new("test")).unwrap();
    let mut reader = source.reader(&source_context(1, 2)).unwrap();
    reader.add_splits(vec![Split::new("socket")]).await.unwrap();
    let (mut rows, mut seen) = (Vec::new(), Some(seen));
    while let SourceEvent::Batch { records, .. } = reader.next().await.unwrap() {
        rows.extend(records.column(0).as_string::<i32>().iter().flatten().map(str::to_owned));
        if rows.len() == 8 {
            seen.take().unwrap().send(()).unwrap();
        }
    }
    assert_eq!(rows, [&expected[..], &["x", "y", "z", "last"].map(str::to_owned)].concat());
    serving.await.unwrap();
}

#[tokio::test]
async fn a_peer_that_comes_back_is_read_on() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = tokio::spawn(async move {
        for text in ["one\n", "two\n"] {
            let (mut peer, _) = listener.accept().await.unwrap();
            peer.write_all(text.as_bytes()).await.unwrap();
        }
    });
    assert_eq!(read(port, &[("max-retries", "1")]).await.unwrap(), ["one", "two"]);
    serving.await.unwrap();
}

#[tokio::test]
async fn nobody_there_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let error = read(port, &[("max-retries", "3")]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().starts_with(&format!("socket 127.0.0.1:{port}: ")), "{error}");
}

#[tokio::test]
async fn rows_are_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = tokio::spawn(async move {
        let mut text = String::new();
        listener.accept().await.unwrap().0.read_to_string(&mut text).await.unwrap();
        text
    });
    let sink = crate::registry::sink(options(port, &[]), lines(), &TableContext::new("test")).unwrap();
    let mut writer = sink.writer(&sink_context(0, 1, lines())).unwrap();
    let records = RecordBatch::try_new(lines(), vec![Arc::new(StringArray::from(vec!["a", "b"]))]).unwrap();
    writer.write(Batch::append(records)).await.unwrap();
    writer.flush().await.unwrap();
    drop(writer);
    assert_eq!(serving.await.unwrap(), "a\nb\n");
}

#[test]
fn options_are_checked() {
    let error = |more: &[(&str, &str)]| {
        crate::registry::source(options(1, more), lines(), &TableContext::new("test")).unwrap_err().to_string()
    };
    assert_eq!(error(&[("format", "parquet")]), "option 'format' is 'parquet'; expected raw, csv or json");
    assert_eq!(
        error(&[("format", "json"), ("delimiter", ";")]),
        "option 'delimiter' is ';'; expected a line end, with format 'json'"
    );
    assert_eq!(error(&[("hostnam", "x")]), "unknown option 'hostnam' of connector 'socket'; did you mean 'hostname'?");
}
