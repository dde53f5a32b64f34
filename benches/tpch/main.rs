//! TPC-H from Parquet: tidemill beside DataFusion of the same version, DuckDB and Polars.
//!
//! ```text
//! cargo bench --bench tpch [-- --scale N --runs N --queries 1,6,18 --set KEY=VALUE,KEY=VALUE]
//! ```
//!
//! 1. tidemill's answers are compared with DuckDB's, which also warms the page cache.
//! 2. Engines take turns; a turn is a pass: one new process that answers every query once, in order, on two threads.
//! 3. The table has the median of the runs of each query, and of the sums of each pass.
//!
//! Time is from the text of a query to its last row in memory, planning included. DataFusion is `datafusion.rs`, a binary of its
//! own with our profile and allocator. `--set` sets settings of tidemill alone.

#[path = "../common/mod.rs"]
mod common;
mod engines;
mod ours;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, ExitCode};

use common::process::{Scripts, lines, root};
use common::{announce, bytes, head, median, progress, row};
use engines::{Engine, Pass};
use ours::Run;
use tidemill::stream::Parameters;
use tidemill::{Error, Result};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    common::run(|given| match given.has("pass") {
        true => ours::pass(given),
        false => bench(given),
    })
}

fn bench(given: &Parameters) -> Result<()> {
    let scale = given.get("scale").unwrap_or("1");
    let runs: usize = given.parsed("runs")?.unwrap_or(3);
    let queries = queries(given)?;
    let scripts = Scripts::find()?;
    let folder = scripts.tpch(scale)?;
    let engines = engines::all(&scripts, &folder, &queries, given.get("set").unwrap_or_default())?;
    let (plans, wrong) = answers(&scripts, &folder, &queries, &engines[0])?;
    let mut passes: Vec<Vec<Pass>> = vec![Vec::new(); engines.len()];
    for run in 1..=runs {
        for (engine, passes) in engines.iter().zip(&mut passes) {
            progress(format!("run {run} of {runs}: {}", engine.name));
            passes.push(engine.pass()?);
        }
    }
    announce("tpch");
    println!("scale factor {scale}, parallelism 2, DataFusion {}, medians of {runs}\n", datafusion::DATAFUSION_VERSION);
    print(&queries, &engines, &passes, &plans);
    match wrong.as_slice() {
        [] => {
            println!("\nAll answers are DuckDB's.");
            Ok(())
        }
        wrong => {
            println!("\nWRONG ANSWERS:\n{}", wrong.join("\n"));
            Err(Error::data(format!("{} wrong answers", wrong.len())))
        }
    }
}

/// The queries asked for: all, unless `--queries` names some.
fn queries(given: &Parameters) -> Result<Vec<usize>> {
    let Some(names) = given.get("queries") else { return Ok((1..=22).collect()) };
    let number = |name: &str| {
        let number = name.trim().parse().ok().filter(|number| (1..=22).contains(number));
        number.ok_or_else(|| Error::request(format!("--queries {names}: '{name}' is not a number from 1 to 22")))
    };
    names.split(',').map(number).collect()
}

/// How each query ran in us, and which answers are not DuckDB's.
fn answers(
    scripts: &Scripts,
    folder: &Path,
    queries: &[usize],
    ours: &Engine,
) -> Result<(BTreeMap<usize, Run>, Vec<String>)> {
    progress("comparing answers with DuckDB's");
    let answers = tempfile::tempdir()?;
    let plans = lines(ours.command().arg("--answers").arg(answers.path()))?;
    let plans = plans.iter().map(|line| Run::parse(line)).collect::<Result<_>>()?;
    let mut compare = Command::new(&scripts.python);
    compare.arg(root().join("benches/tpch/answers.py")).args([folder, answers.path()]);
    Ok((plans, lines(compare.args(queries.iter().map(usize::to_string)))?))
}

fn print(queries: &[usize], engines: &[Engine], passes: &[Vec<Pass>], plans: &BTreeMap<usize, Run>) {
    head(["query", "tidemill", "DataFusion", "ratio", "DuckDB", "Polars", "edges", "exchanged"]);
    for query in queries {
        let seconds: Vec<Option<f64>> =
            passes.iter().map(|passes| median_of(passes, |pass| pass.get(query).copied())).collect();
        let run = plans.get(query).copied().unwrap_or_default();
        row(line(format!("q{query}"), &seconds, run));
    }
    let sum = |pass: &Pass| (pass.len() == queries.len()).then(|| pass.values().sum::<f64>());
    let totals: Vec<Option<f64>> = passes.iter().map(|passes| median_of(passes, sum)).collect();
    let all = plans.values().fold(Run::default(), |all, run| all.and(run));
    row(line("all".to_owned(), &totals, all));
    for (engine, passes) in engines.iter().zip(passes) {
        let answered = passes.first().map_or(0, BTreeMap::len);
        if answered < queries.len() {
            println!("\n{} answers {answered} of {} queries.", engine.name, queries.len());
        }
    }
}

/// A row of the table; the first two engines are those of the ratio.
fn line(name: String, seconds: &[Option<f64>], run: Run) -> Vec<String> {
    let time = |seconds: &Option<f64>| seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.3}"));
    let ratio = match seconds {
        [Some(ours), Some(theirs), ..] => format!("{:.2}", ours / theirs),
        _ => "-".to_owned(),
    };
    let mut cells = vec![name];
    cells.extend(seconds.iter().map(time));
    cells.insert(3, ratio);
    cells.extend([run.edges.to_string(), bytes(run.bytes_exchanged)]);
    cells
}

/// The median over passes; none if a pass has no value.
fn median_of(passes: &[Pass], value: impl Fn(&Pass) -> Option<f64>) -> Option<f64> {
    passes.iter().map(value).collect::<Option<Vec<f64>>>().map(median)
}
