//! Sockets whose other end goes away: in good order, or not.
//!
//! A source ends when its peer closes, because nothing else tells that there is no more; a connection that breaks is an error. A
//! sink has failed whenever its peer goes before it has read everything.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;

use expect_test::expect;

use super::super::{Folder, check, stderr, stdout};
use super::refused;

/// Every writer makes a connection of its own, and the peers here take one.
const ONE_WRITER: &str = "SET 'parallelism.default' = '1';";

/// A peer that serves one connection; its port.
fn peer(serve: impl FnOnce(TcpStream) + Send + 'static) -> (u16, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (port, std::thread::spawn(move || serve(listener.accept().unwrap().0)))
}

/// A table of lines from or to a port.
fn table(port: u16, columns: &str, more: &str) -> String {
    format!(
        "SET 'sql-client.execution.result-mode' = 'changelog';
         CREATE TABLE t ({columns}) WITH ('connector' = 'socket', 'hostname' = '127.0.0.1', 'port' = '{port}'{more});"
    )
}

/// Closes a connection so that the other end is told that it broke.
fn break_off(stream: TcpStream) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    let _inside = runtime.enter();
    stream.set_nonblocking(true).unwrap();
    tokio::net::TcpStream::from_std(stream).unwrap().set_zero_linger().unwrap();
}

#[test]
fn a_source_ends_when_its_peer_closes() {
    let (port, serving) = peer(|mut stream| stream.write_all(b"one\ntwo\nthree").unwrap());
    let output = Folder::new().sql(&format!("{} SELECT line FROM t", table(port, "line STRING", "")));
    // The row that was on its way is one, as the last line of a file is.
    check(&output, 0, &expect!["op,line\n+I,one\n+I,two\n+I,three\n"]);
    assert!(stderr(&output).contains("3 changes in "), "{}", stderr(&output));
    serving.join().unwrap();
}

#[test]
fn a_source_whose_peer_breaks_off_has_failed() {
    let (port, serving) = peer(|mut stream| {
        stream.write_all(b"one\ntw").unwrap();
        break_off(stream);
    });
    let output = Folder::new().sql(&format!("{} SELECT line FROM t", table(port, "line STRING", "")));
    refused(&output, 1, &[&format!("socket 127.0.0.1:{port}: Connection reset by peer"), "'max-retries' = '10'"]);
    assert!(!stdout(&output).contains("tw\n"), "half a row was shown: {}", stdout(&output));
    serving.join().unwrap();
}

#[test]
fn a_source_whose_peer_breaks_off_may_go_on() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = std::thread::spawn(move || {
        break_off(listener.accept().unwrap().0);
        listener.accept().unwrap().0.write_all(b"again\n").unwrap();
    });
    let script = format!("{} SELECT line FROM t", table(port, "line STRING", ", 'max-retries' = '1'"));
    check(&Folder::new().sql(&script), 0, &expect!["op,line\n+I,again\n"]);
    serving.join().unwrap();
}

#[test]
fn a_row_that_is_cut_off_is_named() {
    let columns = "a INT, b INT";
    let (port, serving) = peer(|mut stream| stream.write_all(b"1,2\n3,4\n5").unwrap());
    let output = Folder::new().sql(&format!("{} SELECT a FROM t", table(port, columns, ", 'format' = 'csv'")));
    let named = format!("socket 127.0.0.1:{port}: line 3, column 2: row has 1 field instead of 2");
    refused(&output, 1, &[&named, "'csv.ignore-parse-errors' = 'true'"]);
    serving.join().unwrap();
    let (port, serving) = peer(|mut stream| stream.write_all(b"1,2\n3,4\n5").unwrap());
    let more = ", 'format' = 'csv', 'csv.ignore-parse-errors' = 'true'";
    let output = Folder::new().sql(&format!("{} SELECT a, b FROM t", table(port, columns, more)));
    check(&output, 0, &expect!["op,a,b\n+I,1,2\n+I,3,4\n"]);
    assert!(stderr(&output).contains(", 1 skipped as unreadable"), "{}", stderr(&output));
    serving.join().unwrap();
}

#[test]
fn nobody_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let table = table(port, "line STRING", "");
    let parts = [format!("socket 127.0.0.1:{port}: Connection refused"), "start the peer first".to_owned()];
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    refused(&Folder::new().sql(&format!("{table} SELECT line FROM t")), 1, &parts);
    refused(&Folder::new().sql(&format!("{table} INSERT INTO t VALUES ('x')")), 1, &parts);
}

#[test]
fn a_sink_has_failed_when_its_peer_goes_away() {
    let rows = |count: &str| format!("CREATE TABLE g (line STRING) WITH ('connector' = 'datagen', {count});");
    // Many rows: found while they are written. Few: all are sent before the peer goes, which has not read them.
    for count in ["'number-of-rows' = '1000000'", "'number-of-rows' = '3'", "'rows-per-second' = '1000'"] {
        let (port, serving) = peer(|mut stream| stream.read_exact(&mut [0; 5]).unwrap());
        let table = table(port, "line STRING", "");
        let script = format!("{ONE_WRITER}{}{table} INSERT INTO t SELECT line FROM g", rows(count));
        refused(&Folder::new().sql(&script), 1, &[&format!("socket 127.0.0.1:{port}: "), "rows may be lost"]);
        serving.join().unwrap();
    }
}

#[test]
fn a_sink_whose_peer_reads_everything_is_done() {
    let (port, serving) = peer(|mut stream| {
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert_eq!(text, "a\nb\n");
    });
    let table = table(port, "line STRING", "");
    let script = format!("{ONE_WRITER}{table} INSERT INTO t SELECT * FROM (VALUES ('a'), ('b')) AS v (line)");
    check(&Folder::new().sql(&script), 0, &expect![""]);
    serving.join().unwrap();
}
