//! The examples, run as they are (EXM-13).

use std::collections::BTreeMap;
use std::io::Write;
use std::net::TcpListener;

use tidemill::stream::{Environment, Parameters};

use super::Setup;

#[path = "../../examples/socket_word_count.rs"]
mod socket_word_count;
#[path = "../../examples/streaming_word_count.rs"]
mod streaming_word_count;
#[path = "../../examples/word_count.rs"]
mod word_count;

fn text() -> String {
    (0..400).map(|n| format!("w{} w{}\n", n * n % 13, n % 5)).collect()
}

fn counts(text: &str) -> BTreeMap<String, i64> {
    let mut counts = BTreeMap::new();
    text.split_whitespace().for_each(|word| *counts.entry(word.to_owned()).or_default() += 1);
    counts
}

/// Lines such as `(word,3)`.
fn parse(lines: &str) -> Vec<(String, i64)> {
    let pairs = lines.lines().map(|line| {
        let (word, count) = line.trim_matches(['(', ')']).split_once(',').unwrap();
        (word.to_owned(), count.parse().unwrap())
    });
    pairs.collect()
}

#[test]
fn word_count_of_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("in.txt"), text()).unwrap();
    let parameters =
        |output: &str| Parameters::from_args(["--input", &path("in.txt"), "--output", &path(output)]).unwrap();
    for setup in Setup::grid() {
        word_count::run(&setup.environment(), &parameters("out")).unwrap();
        let mut found = parse(&std::fs::read_to_string(path("out")).unwrap());
        found.sort();
        assert_eq!(found, counts(&text()).into_iter().collect::<Vec<_>>(), "{setup:?}");

        streaming_word_count::run(&setup.environment(), &parameters("running")).unwrap();
        let mut running = parse(&std::fs::read_to_string(path("running")).unwrap());
        running.sort();
        let expected =
            counts(&text()).into_iter().flat_map(|(word, count)| (1..=count).map(move |n| (word.clone(), n)));
        assert_eq!(running, expected.collect::<Vec<_>>(), "{setup:?}");
    }
}

#[test]
fn word_count_of_a_socket() {
    let directory = tempfile::tempdir().unwrap();
    let output = directory.path().join("out").to_str().unwrap().to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let typing = std::thread::spawn(move || listener.accept().unwrap().0.write_all(text().as_bytes()).unwrap());
    let arguments = ["--hostname", "127.0.0.1", "--port", &port, "--window", "20 ms", "--output", &output];
    socket_word_count::run(&Environment::local(), &Parameters::from_args(arguments).unwrap()).unwrap();
    typing.join().unwrap();
    let mut found: BTreeMap<String, i64> = BTreeMap::new();
    for (word, count) in parse(&std::fs::read_to_string(&output).unwrap()) {
        *found.entry(word).or_default() += count;
    }
    assert_eq!(found, counts(&text()));
}

#[test]
fn the_built_in_text_is_printed() {
    word_count::run(&Environment::get(), &Parameters::default()).unwrap();
    streaming_word_count::run(&Environment::collections(), &Parameters::default()).unwrap();
    assert_eq!(word_count::TEXT.len(), 3);
}
