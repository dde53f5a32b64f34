//! Counts the words that somebody types, window by window (EXM-13).
//!
//! ```text
//! nc -l 9000
//! cargo run --release --example socket_word_count -- --port 9000
//! ```
//!
//! `--hostname` is the peer (this machine), `--window` the length of a window (`5 s`), `--output` a file instead of the
//! terminal. It ends when the peer closes the connection.

use tidemill::stream::{DataStream, Environment, Parameters, Tumbling, WriteMode};
use tidemill_core::settings::parse_duration;
use tidemill_core::{Gate, Result};

/// A word and how often it came.
pub type Count = (String, i64);

/// Every word of `lines` with how often it came in each stretch of time `window`.
pub fn count_words(lines: &DataStream<String>, window: std::time::Duration) -> DataStream<Count> {
    lines
        .flat_map(|line, words| words.extend(line.split_whitespace().map(|word| (word.to_owned(), 1))))
        .key_by(|word: &Count| word.0.clone())
        .window(Tumbling::of(window).in_processing_time())
        .sum(|word| &mut word.1)
}

/// Runs the program with these arguments.
pub fn run(environment: &Environment, parameters: &Parameters) -> Result<()> {
    let host = parameters.get("hostname").unwrap_or("localhost");
    let port: u16 = parameters.parsed("port")?.unwrap_or(9000);
    let window = parse_duration(parameters.get("window").unwrap_or("5 s"))?;
    environment.set_buffer_timeout(Gate::IMMEDIATE);
    let lines = environment.socket_text_stream(host, port, "\n", Some(0));
    let counts = count_words(&lines, window);
    match parameters.get("output") {
        Some(path) => counts.write_as_text(path, WriteMode::Overwrite).set_parallelism(1),
        None => counts.print().set_parallelism(1),
    };
    environment.execute("socket word count")?;
    Ok(())
}

#[allow(dead_code, reason = "the tests run this file as a module")]
fn main() -> Result<()> {
    run(&Environment::get(), &Parameters::from_process()?)
}
