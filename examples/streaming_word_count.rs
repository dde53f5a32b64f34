//! Counts the words of a text as they come: every word is followed by its count so far (EXM-13).
//!
//! ```text
//! cargo run --release --example streaming_word_count -- --input words.txt --output counts.txt
//! ```
//!
//! Without `--input` it counts a text of its own, without `--output` it prints. `--parallelism N` sets how many subtasks count.

use tidemill::stream::{DataStream, Environment, Parameters, WriteMode};
use tidemill_core::{Gate, Result};

/// A word and how often it has occurred.
pub type Count = (String, i64);

/// Every word of `lines` with how often it has occurred up to here.
pub fn count_words(lines: &DataStream<String>) -> DataStream<Count> {
    lines
        .flat_map(|line, words| words.extend(line.split_whitespace().map(|word| (word.to_lowercase(), 1))))
        .key_by(|word: &Count| word.0.clone())
        .sum(|word| &mut word.1)
}

/// Runs the program with these arguments.
pub fn run(environment: &Environment, parameters: &Parameters) -> Result<()> {
    if let Some(parallelism) = parameters.parsed("parallelism")? {
        environment.set_parallelism(parallelism);
    }
    // The gate stands open: a word is counted when it comes.
    environment.set_buffer_timeout(Gate::IMMEDIATE);
    let lines = match parameters.get("input") {
        Some(path) => environment.read_text_file(path),
        None => environment.from_elements(["to be or not to be".to_owned(), "that is the question".to_owned()]),
    };
    let counts = count_words(&lines);
    match parameters.get("output") {
        Some(path) => counts.write_as_text(path, WriteMode::Overwrite).set_parallelism(1),
        None => counts.print(),
    };
    environment.execute("streaming word count")?;
    Ok(())
}

#[allow(dead_code, reason = "the tests run this file as a module")]
fn main() -> Result<()> {
    run(&Environment::get(), &Parameters::from_process()?)
}
