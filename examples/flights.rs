//! The main job: all departures from New York in 2013, once as a stream and once as a batch, and the two answers compared.
//!
//! ```text
//! flights FOLDER      with flights.csv (ordered by time_hour) and airlines.csv
//! ```
//!
//! Three queries: counts per airport and hour; every hour the ten routes with the highest mean delay over the last day; flights
//! joined to their airlines. Each runs over the same file with the same text; only `execution.runtime-mode` differs.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use arrow::util::display::{ArrayFormatter, FormatOptions};
use tidemill::sql::parser::parse_script;
use tidemill::sql::{Outcome, Rows, Session};
use tidemill::{Error, Result};
use tidemill_core::settings::{Origin, Settings};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Flights that departed: a flight without a delay never did.
const TABLES: &str = "
CREATE TABLE flights (
  `year` INT, `month` INT, `day` INT, dep_time INT, sched_dep_time INT, dep_delay INT, arr_time INT, sched_arr_time INT,
  arr_delay INT, carrier STRING, flight INT, tailnum STRING, origin STRING, dest STRING, air_time INT, distance INT,
  `hour` INT, `minute` INT, time_hour TIMESTAMP_LTZ(3),
  WATERMARK FOR time_hour AS time_hour - INTERVAL '1' HOUR
) WITH ('connector' = 'filesystem', 'path' = '{folder}/flights.csv', 'format' = 'csv', 'csv.header' = 'true',
        'csv.null-literal' = 'NA');

CREATE TABLE airlines (carrier STRING, name STRING)
WITH ('connector' = 'filesystem', 'path' = '{folder}/airlines.csv', 'format' = 'csv', 'csv.header' = 'true');

CREATE VIEW departures AS SELECT * FROM flights WHERE dep_delay IS NOT NULL;
";

/// A query and what it asks.
const QUERIES: [(&str, &str); 3] = [
    (
        "departures per airport and hour",
        "SELECT origin, window_start, COUNT(*) AS departures, AVG(CAST(dep_delay AS DOUBLE)) AS mean_delay,
                MAX(dep_delay) AS worst_delay
         FROM TABLE(TUMBLE(TABLE departures, DESCRIPTOR(time_hour), INTERVAL '1' HOUR))
         GROUP BY origin, window_start, window_end",
    ),
    (
        "every hour, the ten routes with the highest mean delay over the last 24 hours",
        "SELECT window_end, origin, dest, flights, mean_delay, place FROM (
           SELECT *, ROW_NUMBER() OVER (
             PARTITION BY window_start, window_end ORDER BY mean_delay DESC, flights DESC, origin, dest) AS place
           FROM (
             SELECT window_start, window_end, origin, dest, COUNT(*) AS flights, AVG(CAST(dep_delay AS DOUBLE)) AS mean_delay
             FROM TABLE(HOP(TABLE departures, DESCRIPTOR(time_hour), INTERVAL '1' HOUR, INTERVAL '24' HOUR))
             GROUP BY window_start, window_end, origin, dest))
         WHERE place <= 10",
    ),
    (
        "flights with the names of their airlines",
        "SELECT f.time_hour, f.flight, f.origin, f.dest, f.dep_delay, a.name
         FROM departures AS f JOIN airlines AS a ON f.carrier = a.carrier",
    ),
];

/// One query run one way.
struct Run {
    rows: Rows,
    late: u64,
    duration: Duration,
}

fn main() -> ExitCode {
    let Some(folder) = std::env::args().nth(1) else {
        eprintln!("usage: flights FOLDER");
        return ExitCode::from(2);
    };
    match run(&folder) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("error: stream and batch differ");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(folder: &str) -> Result<bool> {
    let input_rows = scalar(&query(folder, "batch", "SELECT COUNT(*) FROM flights")?.rows)?;
    println!("{input_rows} flights from New York in 2013, read from {folder}/flights.csv\n");
    let mut all_equal = true;
    for (title, sql) in QUERIES {
        let stream = query(folder, "streaming", sql)?;
        let batch = query(folder, "batch", sql)?;
        println!("{title}");
        excerpt("stream", &stream.rows)?;
        excerpt("batch", &batch.rows)?;
        let (differing, first) = compare(&stream.rows, &batch.rows)?;
        let rate = |run: &Run| input_rows.parse::<f64>().unwrap_or(0.0) / run.duration.as_secs_f64();
        println!(
            "  {} rows as a stream, {} as a batch, {differing} differ; {} rows were late; {:.0} rows/s as a stream, {:.0} as a batch",
            stream.rows.num_rows(),
            batch.rows.num_rows(),
            stream.late,
            rate(&stream),
            rate(&batch),
        );
        if let Some(first) = first {
            println!("  first difference: {first}");
        }
        println!();
        all_equal &= differing == 0 && stream.late == 0;
    }
    if all_equal {
        println!("the stream and the batch gave the same answers");
    }
    Ok(all_equal)
}

fn query(folder: &str, mode: &str, sql: &str) -> Result<Run> {
    let mut settings = Settings::default();
    settings.set("execution.runtime-mode", mode, Origin::Program)?;
    let mut session = Session::new(settings)?;
    let script = format!("{};{sql}", TABLES.replace("{folder}", folder));
    let mut outcome = Err(Error::internal("an empty script"));
    for parsed in parse_script(&script)? {
        outcome = Ok(session.run(&parsed)?);
    }
    let Outcome::Query(query) = outcome? else { return Err(Error::internal("the script does not end in a query")) };
    let job = query.job.clone();
    let rows = session.block_on(query.collect())?;
    let result = session.block_on(job.wait())?;
    Ok(Run { rows, late: result.late_records_dropped(), duration: result.duration })
}

/// Rows as text, floats to nine digits: sums in another order differ behind them.
fn texts(rows: &Rows) -> Result<Vec<String>> {
    let options = FormatOptions::default().with_null("NULL");
    let mut texts = Vec::with_capacity(rows.num_rows());
    for batch in &rows.batches {
        let columns = batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options));
        let columns = columns.collect::<std::result::Result<Vec<_>, _>>()?;
        for row in 0..batch.num_rows() {
            let cell = |column: &ArrayFormatter<'_>| {
                let text = column.value(row).to_string();
                match text.parse::<f64>() {
                    Ok(number) if text.contains('.') => format!("{number:.9}"),
                    _ => text,
                }
            };
            texts.push(columns.iter().map(cell).collect::<Vec<_>>().join(" | "));
        }
    }
    Ok(texts)
}

fn excerpt(name: &str, rows: &Rows) -> Result<()> {
    let mut texts = texts(rows)?;
    texts.sort();
    for text in texts.iter().take(3) {
        println!("  {name:>6}: {text}");
    }
    Ok(())
}

/// How many rows one side has and the other has not, whatever their order, and the first of them.
fn compare(left: &Rows, right: &Rows) -> Result<(u64, Option<String>)> {
    let mut counts: BTreeMap<String, i64> = BTreeMap::new();
    for text in texts(left)? {
        *counts.entry(text).or_default() += 1;
    }
    for text in texts(right)? {
        *counts.entry(text).or_default() -= 1;
    }
    let differing = counts.values().map(|count| count.unsigned_abs()).sum();
    Ok((differing, counts.into_iter().find(|(_, count)| *count != 0).map(|(text, _)| text)))
}

fn scalar(rows: &Rows) -> Result<String> {
    texts(rows)?.pop().ok_or_else(|| Error::internal("a count without a row"))
}
