//! Counts the words of a text: once, as a whole (EXM-13).
//!
//! ```text
//! cargo run --release --example word_count -- --input words.txt --output counts.txt
//! ```
//!
//! Without `--input` it counts a text of its own, without `--output` it prints. `--parallelism N` sets how many subtasks count.

use tidemill::stream::{DataStream, Environment, Parameters, WriteMode};
use tidemill_core::{Gate, Result};

/// What is counted without `--input`.
pub const TEXT: [&str; 3] =
    ["The mill goes round and round", "and when the gate is shut", "the water stands behind the gate"];

/// A word and how often it occurs.
pub type Count = (String, i64);

/// Every word of `lines` with how often it occurs, once, when all lines have been read.
pub fn count_words(lines: &DataStream<String>) -> DataStream<Count> {
    lines
        .flat_map(|line, words| words.extend(line.split_whitespace().map(|word| (word.to_lowercase(), 1))))
        .group_by(|word: &Count| word.0.clone())
        .sum(|word| &mut word.1)
}

/// Runs the program with these arguments.
pub fn run(environment: &Environment, parameters: &Parameters) -> Result<()> {
    if let Some(parallelism) = parameters.parsed("parallelism")? {
        environment.set_parallelism(parallelism);
    }
    // The gate stays shut until all words are there: a batch job.
    environment.set_buffer_timeout(Gate::Infinite);
    let lines = match parameters.get("input") {
        Some(path) => environment.read_text_file(path),
        None => environment.from_elements(TEXT.map(str::to_owned)),
    };
    let counts = count_words(&lines);
    match parameters.get("output") {
        Some(path) => counts.write_as_text(path, WriteMode::Overwrite).set_parallelism(1),
        None => counts.print().set_parallelism(1),
    };
    environment.execute("word count")?;
    Ok(())
}

#[allow(dead_code, reason = "the tests run this file as a module")]
fn main() -> Result<()> {
    run(&Environment::get(), &Parameters::from_process()?)
}
