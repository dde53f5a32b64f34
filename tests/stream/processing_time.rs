//! Windows of processing time: nothing is late, nothing is lost, and the end of the input completes what is open.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::TcpListener;
use std::time::Duration;

use tidemill::stream::{Environment, Session, Sliding, Tumbling};

#[test]
fn the_end_of_the_input_completes_every_window() {
    let environment = Environment::local();
    environment.set_parallelism(2);
    let numbers = environment.generate_sequence(1, 1_000).map(|n| (n % 3, n));
    for windows in [Tumbling::of(Duration::from_secs(3600)), Session::with_gap(Duration::from_secs(3600))] {
        let sums = numbers.key_by(|row| row.0).window(windows.in_processing_time()).sum(|row| &mut row.1);
        let mut totals: BTreeMap<i64, i64> = BTreeMap::new();
        for (key, sum) in sums.collect().unwrap() {
            *totals.entry(key).or_default() += sum;
        }
        let expected = (0..3).map(|key| (key, (1..=1_000).filter(|n| n % 3 == key).sum()));
        assert_eq!(totals, expected.collect());
    }
}

#[test]
fn a_window_fires_when_its_end_has_come_without_another_row() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("fired");
    let environment = Environment::local();
    environment.set_parallelism(1).set("execution.buffer-timeout", "0 ms");
    let (sender, fired) = std::sync::mpsc::channel();
    let sender = std::sync::Mutex::new(sender);
    environment
        .socket_text_stream("127.0.0.1", port, "\n", Some(0))
        .map(|word| (word, 1i64))
        .key_by(|row| row.0.clone())
        .window(Sliding::of(Duration::from_millis(100), Duration::from_millis(50)).in_processing_time())
        .sum(|row| &mut row.1)
        .map(move |row| {
            sender.lock().unwrap().send(row.clone()).unwrap();
            row
        })
        .write_as_text(path.to_str().unwrap(), Default::default());
    let job = environment.execute_async("processing time").unwrap();
    let (mut peer, _) = listener.accept().unwrap();
    peer.write_all(b"a\na\n").unwrap();
    // The connection stays open: only the clock can have fired these.
    let first = fired.recv_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!(first.0, "a");
    let mut total = first.1;
    while total < 4 {
        total += fired.recv_timeout(Duration::from_secs(20)).unwrap().1;
    }
    // Each row is in two windows.
    assert_eq!(total, 4);
    drop(peer);
    job.join().unwrap();
}
