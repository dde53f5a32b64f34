//! Word count of a text file, as the examples do it and in SQL.

use std::fmt::Write as _;
use std::io::{BufWriter, Write};
use std::sync::Arc;

use tempfile::NamedTempFile;
use tidemill::stream::{DataStream, Environment};
use tidemill::{Error, Result};
use tidemill_connectors::blackhole::BlackholeSink;
use tidemill_core::Gate;

use crate::common::sql;
use crate::count::Spent;

#[allow(dead_code, reason = "only what counts is used here")]
#[path = "../../examples/streaming_word_count.rs"]
mod streaming_word_count;
#[allow(dead_code, reason = "only what counts is used here")]
#[path = "../../examples/word_count.rs"]
mod word_count;

/// Words in a line.
pub const LINE_WORDS: u64 = 10;
/// How many different words there are.
const VOCABULARY: f64 = 50_000.0;

/// A way to count the words of a text.
type Program = fn(&Text) -> Result<Spent>;

/// All of them.
pub const PROGRAMS: [(&str, Program); 3] = [
    ("DataStream, once at the end (examples/word_count.rs)", counted_once),
    ("DataStream, after every word (examples/streaming_word_count.rs)", counted_always),
    ("SQL, once at the end", counted_in_sql),
];

/// A file of words, some of which come more often than others.
pub struct Text(NamedTempFile);

impl Text {
    /// Writes so many words.
    pub fn new(words: u64) -> Result<Self> {
        let mut file = BufWriter::new(tempfile::Builder::new().suffix(".txt").tempfile()?);
        let mut line = String::new();
        for number in 0..words {
            // Words of low rank come more often: rank is a square of chance.
            let chance = (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 11) as f64 / (1_u64 << 53) as f64;
            let end = if (number + 1).is_multiple_of(LINE_WORDS) { '\n' } else { ' ' };
            // Writing into a string cannot fail.
            let _ = write!(line, "word{:x}{end}", (chance * chance * VOCABULARY) as u64);
            if end == '\n' {
                file.write_all(line.as_bytes())?;
                line.clear();
            }
        }
        file.write_all(line.as_bytes())?;
        let file = file.into_inner().map_err(|error| Error::from(error.into_error()))?;
        Ok(Self(file))
    }

    fn path(&self) -> String {
        self.0.path().display().to_string()
    }
}

fn counted_once(text: &Text) -> Result<Spent> {
    stream(text, Gate::Infinite, word_count::count_words)
}

fn counted_always(text: &Text) -> Result<Spent> {
    stream(text, Gate::IMMEDIATE, streaming_word_count::count_words)
}

fn stream(text: &Text, gate: Gate, count: fn(&DataStream<String>) -> DataStream<(String, i64)>) -> Result<Spent> {
    let environment = Environment::local();
    environment.set_parallelism(2).set_buffer_timeout(gate);
    count(&environment.read_text_file(&text.path())).add_sink(Arc::new(BlackholeSink));
    Spent::on(|| environment.execute("word count").map(drop))
}

fn counted_in_sql(text: &Text) -> Result<Spent> {
    let mut session = sql::session([("execution.runtime-mode", "batch"), ("parallelism.default", "2")])?;
    let tables = format!(
        "CREATE TABLE lines (line STRING) WITH ('connector' = 'filesystem', 'format' = 'raw', 'path' = '{}');
         CREATE TABLE nowhere (word STRING, n BIGINT) WITH ('connector' = 'blackhole');",
        text.path()
    );
    sql::script(&mut session, &tables)?;
    let count = "INSERT INTO nowhere SELECT word, COUNT(*) FROM (
                   SELECT unnest(string_to_array(lower(line), ' ')) AS word FROM lines) AS words GROUP BY word";
    Spent::on(|| sql::script(&mut session, count).map(drop))
}
