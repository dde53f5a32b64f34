//! What it costs to have state on the local disk: streaming `GROUP BY` and a windowed count whose state fits into memory, beside
//! the same with a quarter of that memory.
//!
//! ```text
//! cargo bench --bench state [-- --keys N --pairs N --case NAME]
//! ```
//!
//! First a run in memory says how much its state occupies. Then runs with a quarter of that are compared with runs in memory,
//! each in a process of its own. What counts is the time from where state exceeds the budget on: that of a run over many rows less
//! that of one over the first of them.

mod common;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use common::measure::{resident_bytes_max, timed};
use common::process::{again, lines};
use common::{announce, bytes, head, median, progress, row, sql};
use tidemill::sql::Session;
use tidemill::stream::Parameters;
use tidemill::{Error, Result, Settings};
use tidemill_core::settings::Origin;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What is run: its name, where its keys come from, and the least part of the speed that is to be left.
const CASES: [(&str, Keys, f64); 4] = [
    ("group-by-uniform", Keys::Uniform, 0.10),
    ("group-by-zipf", Keys::Zipf, 0.25),
    ("window-uniform", Keys::Uniform, 0.10),
    ("window-zipf", Keys::Zipf, 0.25),
];

#[derive(Clone, Copy, PartialEq)]
enum Keys {
    Uniform,
    /// With exponent 1.
    Zipf,
}

fn main() -> ExitCode {
    common::run(|given| match given.has("rows") {
        true => one(given),
        false => bench(given),
    })
}

fn bench(given: &Parameters) -> Result<()> {
    let keys: u64 = given.parsed("keys")?.unwrap_or(2_000_000);
    let pairs: usize = given.parsed("pairs")?.unwrap_or(3);
    let only = given.get("case");
    announce("state");
    println!("{keys} keys, parallelism 2; medians of {pairs}\n");
    head([
        "case",
        "backend",
        "state in memory",
        "budget",
        "M rows / s in memory",
        "M rows / s",
        "part of the speed",
        "mark",
        "resident, all in memory",
        "resident",
    ]);
    for (case, _, mark) in CASES.into_iter().filter(|(case, ..)| only.is_none_or(|only| only == *case)) {
        // From here on nearly all keys are there.
        let (few, many) = (2 * keys, 6 * keys);
        let state = measured(case, "memory", keys, few, None)?.state;
        let budget = state / 4;
        let mut all: Vec<(&str, Vec<f64>, u64)> =
            ["in memory", "rocksdb", "memory"].into_iter().map(|what| (what, Vec::new(), 0)).collect();
        for pair in 0..pairs {
            for (what, speeds, resident) in &mut all {
                progress(format!("{case}, {what}, {} of {pairs}", pair + 1));
                let (backend, budget) = if *what == "in memory" { ("memory", None) } else { (*what, Some(budget)) };
                let first = measured(case, backend, keys, few, budget)?;
                let whole = measured(case, backend, keys, many, budget)?;
                speeds.push((many - few) as f64 / (whole.seconds - first.seconds) / 1e6);
                *resident = (*resident).max(whole.resident);
            }
        }
        let mut medians = all.into_iter().map(|(what, speeds, resident)| (what, median(speeds), resident));
        let Some((_, without, resident_without)) = medians.next() else { continue };
        for (backend, with, resident) in medians {
            row([
                case.to_owned(),
                backend.to_owned(),
                bytes(state),
                bytes(budget),
                format!("{without:.2}"),
                format!("{with:.2}"),
                format!("{:.1} %", 100.0 * with / without),
                format!("{:.0} %", 100.0 * mark),
                bytes(resident_without),
                bytes(resident),
            ]);
        }
    }
    Ok(())
}

/// What one run said.
struct Measured {
    seconds: f64,
    /// The most bytes that were reserved.
    state: u64,
    resident: u64,
}

/// Runs in a process of its own.
fn measured(case: &str, backend: &str, keys: u64, rows: u64, budget: Option<u64>) -> Result<Measured> {
    let mut command = again()?;
    command.args(["--case", case, "--backend", backend]);
    command.args(["--keys", &keys.to_string(), "--rows", &rows.to_string()]);
    if let Some(budget) = budget {
        command.args(["--budget", &budget.to_string()]);
    }
    let said = lines(&mut command)?;
    let numbers: Vec<f64> =
        said.iter().flat_map(|line| line.split_whitespace()).filter_map(|word| word.parse().ok()).collect();
    match numbers[..] {
        [seconds, state, resident] => Ok(Measured { seconds, state: state as u64, resident: resident as u64 }),
        _ => Err(Error::internal(format!("a run said {said:?}"))),
    }
}

/// One run: seconds, the most bytes reserved, the most resident.
fn one(given: &Parameters) -> Result<()> {
    let name = given.get("case").unwrap_or_default();
    let case = CASES.into_iter().find(|(case, ..)| *case == name);
    let (_, keys_from, _) = case.ok_or_else(|| Error::request(format!("no case '{name}'")))?;
    let (keys, rows): (u64, u64) = (given.parsed("keys")?.unwrap_or(1), given.parsed("rows")?.unwrap_or(1));
    let budget = given.get("budget").map_or_else(|| "16 gb".to_owned(), |bytes| format!("{bytes} b"));
    let mut settings = Settings::default();
    for (key, value) in [
        ("execution.runtime-mode", "streaming"),
        ("parallelism.default", "2"),
        ("taskmanager.memory.managed.size", &budget),
        ("state.backend.type", given.get("backend").unwrap_or("memory")),
    ] {
        settings.set(key, value, Origin::Program)?;
    }
    let reserved = Arc::new(AtomicUsize::new(0));
    let (ended, most) = (Arc::new(AtomicBool::new(false)), reserved.clone());
    let mut watcher = None;
    let mut session = Session::with_engine(settings, |engine| {
        let (memory, ended) = (engine.environment().memory.clone(), ended.clone());
        watcher = Some(std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                most.fetch_max(memory.reserved(), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(5));
            }
        }));
        engine
    })?;
    sql::script(&mut session, &tables(keys_from, rows, keys))?;
    let query = if name.starts_with("window") { WINDOW } else { GROUP_BY };
    let (_, seconds) = timed(|| sql::script(&mut session, query))?;
    ended.store(true, Ordering::Relaxed);
    let _ = watcher.map(std::thread::JoinHandle::join);
    println!("{seconds} {} {}", reserved.load(Ordering::Relaxed), resident_bytes_max()?);
    Ok(())
}

fn tables(keys_from: Keys, rows: u64, keys: u64) -> String {
    let key = match keys_from {
        Keys::Uniform => format!("CAST(FLOOR(u * {keys}) AS BIGINT)"),
        // Ranks whose logarithms are uniform have a frequency of one over the rank.
        Keys::Zipf => format!("CAST(FLOOR(EXP(u * LN({keys}))) AS BIGINT)"),
    };
    format!(
        "CREATE TABLE given (u DOUBLE, v BIGINT, ts TIMESTAMP(6), k AS {key}, WATERMARK FOR ts AS ts) WITH (
           'connector' = 'datagen', 'number-of-rows' = '{rows}', 'seed' = '1',
           'fields.u.kind' = 'random', 'fields.u.min' = '0', 'fields.u.max' = '1',
           'fields.v.kind' = 'random', 'fields.v.min' = '0', 'fields.v.max' = '1000',
           'fields.ts.kind' = 'sequence', 'fields.ts.start' = '2024-01-01 00:00:00', 'fields.ts.step' = '1 us');
         CREATE TABLE nowhere (k BIGINT, n BIGINT) WITH ('connector' = 'blackhole');
         CREATE TABLE updated (k BIGINT, n BIGINT, v BIGINT) WITH ('connector' = 'blackhole');"
    )
}

/// Counts and sums that are updated with every batch.
const GROUP_BY: &str = "INSERT INTO updated SELECT k, COUNT(*), SUM(v) FROM given GROUP BY k";

/// One window over everything, so that state is all keys until the end.
const WINDOW: &str = "INSERT INTO nowhere SELECT k, COUNT(*)
  FROM TABLE(TUMBLE(TABLE given, DESCRIPTOR(ts), INTERVAL '1' HOUR)) GROUP BY k, window_start, window_end";
