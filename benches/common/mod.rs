//! What the benchmarks share: how they start, the command and the table that they print, medians.
//!
//! Beside it: [`measure`] (time, CPU, memory), [`process`] (other processes: this program again, the scripts), [`sql`] (sessions), [`windows`] (the
//! windowed count).

#![allow(dead_code, reason = "every benchmark uses its own part of this")]

#[path = "../../src/allocator.rs"]
mod allocator;
pub mod measure;
pub mod process;
pub mod sql;
pub mod windows;

use std::fmt::Display;
use std::process::ExitCode;

use tidemill::Result;
use tidemill::stream::Parameters;

/// Runs a benchmark with the arguments of this process; what goes wrong is one line.
pub fn run(bench: impl FnOnce(&Parameters) -> Result<()>) -> ExitCode {
    allocator::keep_freed_pages();
    match Parameters::from_process().and_then(|given| bench(&given)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Prints the command that makes these numbers, and what it ran on.
pub fn announce(bench: &str) {
    // The last one is cargo's own.
    let given: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let given = if given.is_empty() { String::new() } else { format!(" -- {}", given.join(" ")) };
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    println!("$ cargo bench --bench {bench}{given}\n\n{cores} cores\n");
}

/// Prints the head of a table.
pub fn head<const N: usize>(names: [&str; N]) {
    row(names);
    row(["---"; N]);
}

/// Prints a row of a table.
pub fn row(cells: impl IntoIterator<Item = impl Display>) {
    let cells: Vec<String> = cells.into_iter().map(|cell| cell.to_string()).collect();
    println!("| {} |", cells.join(" | "));
}

/// Says on standard error how far a benchmark has come.
pub fn progress(what: impl Display) {
    eprintln!("… {what}");
}

/// The middle one, or between the middle two; not a number if there are none.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let (below, above) = (values.len().saturating_sub(1) / 2, values.len() / 2);
    match (values.get(below), values.get(above)) {
        (Some(below), Some(above)) => (below + above) / 2.0,
        _ => f64::NAN,
    }
}

/// A number of bytes in kilobytes, megabytes or gigabytes.
pub fn bytes(count: u64) -> String {
    match count as f64 {
        count if count < 1e6 => format!("{:.1} kB", count / 1e3),
        count if count < 1e9 => format!("{:.1} MB", count / 1e6),
        count => format!("{:.2} GB", count / 1e9),
    }
}
