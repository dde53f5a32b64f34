//! How many rows a CPU-second counts into windows, generator included, at every gate.
//!
//! ```text
//! cargo bench --bench windowed_count [-- --rows N --runs N]
//! ```
//!
//! Rows with a key drawn uniformly from 100,000 and one microsecond apart go through a hash edge between two tasks of two
//! subtasks each into windows of ten seconds; the counts go nowhere. CPU time is that of all threads of this process, from the
//! operating system's own account. Medians of the runs.

use std::process::ExitCode;

use tidemill::sql::parser::parse_script;
use tidemill::sql::{Outcome, Session};
use tidemill::{Error, Result, Settings};
use tidemill_core::settings::Origin;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const GATES: [&str; 6] = ["0 ms", "1 ms", "10 ms", "100 ms", "full", "infinite"];

const TABLES: &str = "
CREATE TABLE rows (k BIGINT, ts TIMESTAMP(6), WATERMARK FOR ts AS ts) WITH (
  'connector' = 'datagen', 'number-of-rows' = '{rows}', 'seed' = '1',
  'fields.k.kind' = 'random', 'fields.k.min' = '0', 'fields.k.max' = '99999',
  'fields.ts.kind' = 'sequence', 'fields.ts.start' = '2024-01-01 00:00:00', 'fields.ts.step' = '1 us');
CREATE TABLE nowhere (k BIGINT, n BIGINT) WITH ('connector' = 'blackhole');
";

const COUNT: &str = "
INSERT INTO nowhere SELECT k, COUNT(*) FROM TABLE(TUMBLE(TABLE rows, DESCRIPTOR(ts), INTERVAL '10' SECOND))
GROUP BY k, window_start, window_end";

fn main() -> ExitCode {
    match bench() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn bench() -> Result<()> {
    let rows = argument("--rows")?.unwrap_or(50_000_000);
    let runs = argument("--runs")?.unwrap_or(5);
    println!("{}", plan()?);
    println!("{rows} rows, parallelism 2, median of {runs} runs\n");
    println!("| buffer timeout | million rows per CPU-second | million rows per second | CPU-seconds |");
    println!("| --- | --- | --- | --- |");
    for gate in GATES {
        let runs = (0..runs).map(|_| run(gate, rows)).collect::<Result<Vec<_>>>()?;
        let cpu = median(runs.iter().map(|(cpu, _)| *cpu));
        let wall = median(runs.iter().map(|(_, wall)| *wall));
        let million = rows as f64 / 1e6;
        println!("| {gate} | {:.1} | {:.1} | {cpu:.2} |", million / cpu, million / wall);
    }
    Ok(())
}

fn argument(name: &str) -> Result<Option<usize>> {
    let mut arguments = std::env::args().skip_while(|argument| argument != name).skip(1);
    let number =
        |text: String| text.parse().map_err(|_| Error::request(format!("'{text}' is not a number for {name}")));
    arguments.next().map(number).transpose()
}

fn session(gate: &str, rows: usize) -> Result<Session> {
    let mut settings = Settings::default();
    settings.set("execution.runtime-mode", "streaming", Origin::Program)?;
    settings.set("execution.buffer-timeout", gate, Origin::Program)?;
    settings.set("parallelism.default", "2", Origin::Program)?;
    let mut session = Session::new(settings)?;
    for parsed in parse_script(&TABLES.replace("{rows}", &rows.to_string()))? {
        session.run(&parsed)?;
    }
    Ok(session)
}

/// The job graph, as `EXPLAIN` prints it.
fn plan() -> Result<String> {
    let mut session = session("100 ms", 1)?;
    let mut text = String::new();
    for parsed in parse_script(&format!("EXPLAIN {COUNT}"))? {
        if let Outcome::Table(rows) = session.run(&parsed)? {
            for batch in rows.batches {
                let column = arrow::array::AsArray::as_string::<i32>(batch.column(1)).clone();
                text.extend(column.iter().flatten().map(|line| format!("{line}\n")));
            }
        }
    }
    Ok(text)
}

/// CPU-seconds and seconds of one run.
fn run(gate: &str, rows: usize) -> Result<(f64, f64)> {
    let mut session = session(gate, rows)?;
    let before = cpu_seconds()?;
    let mut wall = 0.0;
    for parsed in parse_script(COUNT)? {
        if let Outcome::Job(job) = session.run(&parsed)? {
            wall = session.block_on(job.wait())?.duration.as_secs_f64();
        }
    }
    Ok((cpu_seconds()? - before, wall))
}

/// User and system time of all threads of this process so far.
fn cpu_seconds() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The second field may hold spaces; what is counted from begins behind its parenthesis.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = fields.get(11..13).unwrap_or_default().iter().filter_map(|field| field.parse::<f64>().ok());
    // Linux reports in hundredths of a second on every machine that Rust runs on.
    Ok(ticks.sum::<f64>() / 100.0)
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
