//! How long the smallest query takes, from starting the process to its end.
//!
//! ```text
//! cargo bench --bench startup [-- --runs N]
//! ```
//!
//! Runs `tidemill sql -e 'select 1'` a few times to warm the page cache, then times it. Settings of whoever runs this count.

mod common;

use std::process::{Command, ExitCode, Stdio};

use common::{announce, head, measure, median, row};
use tidemill::stream::Parameters;
use tidemill::{Error, Result};

/// Runs that warm up.
const COLD: usize = 3;

fn main() -> ExitCode {
    common::run(bench)
}

fn bench(given: &Parameters) -> Result<()> {
    let runs: usize = given.parsed("runs")?.unwrap_or(20);
    for _ in 0..COLD {
        start()?;
    }
    let seconds = (0..runs).map(|_| start()).collect::<Result<Vec<f64>>>()?;
    let milliseconds = |seconds: f64| format!("{:.1} ms", seconds * 1e3);
    let (least, greatest) = seconds.iter().fold((f64::MAX, 0.0_f64), |(a, b), s| (a.min(*s), b.max(*s)));
    announce("startup");
    head(["command", "runs", "median", "least", "greatest"]);
    let times = [median(seconds), least, greatest].map(milliseconds);
    row(["tidemill sql -e 'select 1'".to_owned(), runs.to_string()].into_iter().chain(times));
    Ok(())
}

/// Seconds of one run.
fn start() -> Result<f64> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    command.args(["sql", "-e", "select 1"]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let (output, seconds) = measure::timed(|| Ok(command.output()?))?;
    match output.status.success() {
        true => Ok(seconds),
        false => Err(Error::internal(format!("tidemill: {}", String::from_utf8_lossy(&output.stderr).trim()))),
    }
}
