//! What happens when memory is short: an aggregation and a sort that spill, and a join that cannot.
//!
//! ```text
//! cargo bench --bench memory [-- --scale N --budget SIZE --case NAME]
//! ```
//!
//! Each statement runs over all of TPC-H's `lineitem`, in a process of its own whose budget (`taskmanager.memory.process.size`)
//! is smaller than what it has to remember. Peak memory is the operating system's own account of that process.

mod cases;
#[path = "../common/mod.rs"]
mod common;

use std::path::Path;
use std::process::ExitCode;

use cases::{CASES, Case};
use common::process::{Scripts, again};
use common::{announce, bytes, head, measure, progress, row, sql};
use tidemill::stream::Parameters;
use tidemill::{Error, Result};
use tidemill_core::metrics::BYTES_SPILLED;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    common::run(|given| match given.has("folder") {
        true => statement(given),
        false => bench(given),
    })
}

fn bench(given: &Parameters) -> Result<()> {
    let scale = given.get("scale").unwrap_or("10");
    let budget = given.get("budget").unwrap_or("2 gb");
    let folder = Scripts::find()?.tpch(scale)?;
    let only = given.get("case");
    let mut outcomes = Vec::new();
    for case in CASES.iter().filter(|case| only.is_none_or(|only| only == case.name)) {
        progress(case.name);
        outcomes.push((case, run(case, &folder, budget)?));
    }
    if outcomes.is_empty() {
        return Err(no_case(only.unwrap_or_default()));
    }
    announce("memory");
    println!("scale factor {scale}, budget {budget}, parallelism 2\n");
    for (case, _) in &outcomes {
        println!("{}: {}", case.name, case.query);
    }
    println!();
    head(["statement", "ended", "seconds", "peak resident", "spilled by operators", "by exchanges", "exchanged"]);
    for (case, outcome) in &outcomes {
        row(outcome.cells(case));
    }
    for (case, outcome) in &outcomes {
        if let Err(text) = &outcome.ended {
            println!("\n{}: {text}", case.name);
        }
    }
    Ok(())
}

/// How the process of a statement ended.
struct Outcome {
    /// What it measured: seconds, peak memory, bytes spilled by operators and by exchanges, bytes exchanged.
    numbers: Vec<f64>,
    /// The error, if that is how it ended.
    ended: Result<(), String>,
}

impl Outcome {
    fn cells(&self, case: &Case) -> Vec<String> {
        let ended = if self.ended.is_ok() { "well" } else { "with an error" };
        let number = |place: usize| self.numbers.get(place).copied();
        let size = |place| number(place).map_or_else(|| "-".to_owned(), |count| bytes(count as u64));
        let seconds = number(0).map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.1}"));
        vec![case.name.to_owned(), ended.to_owned(), seconds, size(1), size(2), size(3), size(4)]
    }
}

/// Runs a case in a process of its own.
fn run(case: &Case, folder: &Path, budget: &str) -> Result<Outcome> {
    let mut command = again()?;
    command.args(["--case", case.name, "--budget", budget, "--folder"]).arg(folder);
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let numbers = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let ended = match (output.status.success(), output.status.code()) {
        (true, _) => Ok(()),
        (false, Some(_)) => Err(said),
        // A signal: the kernel or an abort.
        (false, None) => Err(format!("KILLED ({}) {said}", output.status)),
    };
    Ok(Outcome { numbers, ended })
}

/// One case in this process; prints what [`Outcome`] holds.
fn statement(given: &Parameters) -> Result<()> {
    let name = given.required("case")?;
    let case = CASES.iter().find(|case| case.name == name);
    let case = case.ok_or_else(|| no_case(name))?;
    let mut session = sql::session([
        ("execution.runtime-mode", "batch"),
        ("parallelism.default", "2"),
        ("taskmanager.memory.process.size", given.required("budget")?),
    ])?;
    sql::name_tpch_tables(&mut session, Path::new(given.required("folder")?))?;
    sql::script(&mut session, case.table)?;
    let (job, seconds) =
        measure::timed(|| Ok(sql::script(&mut session, &format!("INSERT INTO nowhere {}", case.query))))?;
    let exchanges = session.engine().environment().spill.spilled_bytes();
    let peak = measure::resident_bytes_max()?;
    let (operators, exchanged) = match &job {
        Ok(Some(job)) => (job.total(BYTES_SPILLED).to_string(), job.bytes_exchanged().to_string()),
        // A job that failed has no counters to show.
        _ => Default::default(),
    };
    match operators.as_str() {
        "" => println!("{seconds} {peak}"),
        _ => println!("{seconds} {peak} {operators} {exchanges} {exchanged}"),
    }
    job.map(drop)
}

fn no_case(name: &str) -> Error {
    Error::request(format!("no case '{name}'")).with_hint(format!("one of {}", CASES.map(|case| case.name).join(", ")))
}
