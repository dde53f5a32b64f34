//! What the gate costs and what it buys: rows counted a CPU-second, and how long a row is on its way, at every buffer timeout.
//! Words counted stand beside it.
//!
//! ```text
//! cargo bench --bench windowed_count [-- --rows N --runs N --rate N --seconds N --words N]
//! ```
//!
//! * Throughput (`count.rs`): made-up rows through a hash edge between two tasks of two subtasks each into windows; the counts go
//!   nowhere. CPU time is that of all threads of this process, generator included.
//! * Latency (`latency.rs`): rows that come at a steady rate, through the same edge into a sink that looks at the clock.
//! * Words (`words.rs`): word count of a text file.

#[path = "../common/mod.rs"]
mod common;
mod count;
mod latency;
mod words;

use std::process::ExitCode;

use common::{announce, head, median, progress, row};
use count::Spent;
use latency::Pace;
use tidemill::Result;
use tidemill::stream::Parameters;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const GATES: [&str; 6] = ["0 ms", "1 ms", "10 ms", "100 ms", "full", "infinite"];

fn main() -> ExitCode {
    common::run(bench)
}

fn bench(given: &Parameters) -> Result<()> {
    let rows: u64 = given.parsed("rows")?.unwrap_or(50_000_000);
    let runs: usize = given.parsed("runs")?.unwrap_or(5);
    let words: u64 = given.parsed("words")?.unwrap_or(20_000_000);
    let rate: u64 = given.parsed("rate")?.unwrap_or(100_000);
    let seconds: u64 = given.parsed("seconds")?.unwrap_or(5);
    announce("windowed_count");
    println!("{}", count::job_graph(rows)?);
    println!("{rows} rows, medians of {runs} runs; latency of {rate} rows a second for {seconds} s\n");
    head(["buffer timeout", "M rows / CPU-s", "M rows / s", "CPU-s", "p50", "p99", "CPU-s / M paced rows"]);
    for gate in GATES {
        progress(gate);
        let counted = spent(runs, || count::run(gate, rows))?;
        let paced = latency::run(gate, Pace { rows_per_second: rate, seconds })?;
        let mut cells = vec![gate.to_owned()];
        cells.extend(rates(counted, rows));
        cells.extend([format!("{:.2}", counted.cpu), milliseconds(paced.p50), milliseconds(paced.p99)]);
        cells.push(format!("{:.2}", paced.cpu_seconds / paced.rows as f64 * 1e6));
        row(cells);
    }
    println!("\nWord count of {words} words in lines of {}, medians of {runs} runs\n", words::LINE_WORDS);
    head(["program", "M words / CPU-s", "M words / s", "CPU-s"]);
    let text = words::Text::new(words)?;
    for (name, program) in words::PROGRAMS {
        progress(name);
        let counted = spent(runs, || program(&text))?;
        let mut cells = vec![name.to_owned()];
        cells.extend(rates(counted, words));
        cells.push(format!("{:.2}", counted.cpu));
        row(cells);
    }
    Ok(())
}

/// What `runs` runs took, in the median.
fn spent(runs: usize, run: impl Fn() -> Result<Spent>) -> Result<Spent> {
    let all = (0..runs).map(|_| run()).collect::<Result<Vec<Spent>>>()?;
    Ok(Spent { cpu: median(all.iter().map(|spent| spent.cpu)), wall: median(all.iter().map(|spent| spent.wall)) })
}

/// Millions a CPU-second and a second.
fn rates(spent: Spent, count: u64) -> [String; 2] {
    [spent.cpu, spent.wall].map(|seconds| format!("{:.2}", count as f64 / 1e6 / seconds))
}

fn milliseconds(seconds: f64) -> String {
    match seconds * 1e3 {
        few if few < 10.0 => format!("{few:.2} ms"),
        many => format!("{many:.0} ms"),
    }
}
