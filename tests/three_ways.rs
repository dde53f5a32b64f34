//! The oracle of oracles: one query, one answer, whichever way it runs.
//!
//! Every file of `tests/three_ways` runs as a batch, as a stream, and as a stream that is stopped behind savepoints and goes on
//! with other parallelisms, at several batch sizes, parallelisms and gates and with state in memory and out of it, against the
//! answers that stand in it. A file begins with its story. The everyday run takes a seeded cover in which every pair of
//! choices meets; `TIDEMILL_TEST_FULL=1` takes the whole grid, `TIDEMILL_COMPLETE=1` fills in answers from one batch run, to be
//! read before they are believed. No row may be late anywhere.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "three_ways/restored.rs"]
mod restored;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use restored::{InPieces, Pace};
use sqllogictest::{AsyncDB, DBOutput, DefaultColumnType, Runner};
use tidemill::sql::parser::{Statement, parse_script};
use tidemill::sql::{Outcome, Rows, Session};
use tidemill_core::settings::{Origin, Settings};

/// Where the state of the third way is: in memory, there without any room so that all of it is on the local disk, under the
/// backends `filesystem` and `rocksdb` without room.
const STATES: [&str; 4] = ["memory", "memory without room", "filesystem", "rocksdb"];

/// One way to run a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Way {
    mode: &'static str,
    batch_rows: &'static str,
    parallelism: &'static str,
    gate: &'static str,
    /// Where state is; by itself in memory, with room for all of it.
    state: &'static str,
}

impl Way {
    fn all() -> Vec<Way> {
        let mut ways = vec![];
        for mode in ["batch", "streaming", "restored"] {
            for batch_rows in ["1", "7", "8192"] {
                for parallelism in ["1", "2", "4"] {
                    for gate in ["0 ms", "100 ms", "full", "infinite"] {
                        let states = if mode == "restored" { &STATES[..] } else { &STATES[..1] };
                        ways.extend(states.iter().map(|state| Way { mode, batch_rows, parallelism, gate, state }));
                    }
                }
            }
        }
        ways
    }

    fn choices(&self) -> [&'static str; 5] {
        let state = if self.mode == "restored" { self.state } else { "not restored" };
        [self.mode, self.batch_rows, self.parallelism, self.gate, state]
    }

    /// Pairs of choices that meet in this way.
    fn pairs(&self) -> Vec<(usize, &'static str, usize, &'static str)> {
        let choices = self.choices();
        let pairs = (0..5).flat_map(|left| (left + 1..5).map(move |right| (left, right)));
        pairs.map(|(left, right)| (left, choices[left], right, choices[right])).collect()
    }

    fn settings(&self) -> Settings {
        let mut settings = Settings::default();
        let values = [
            ("execution.runtime-mode", if self.mode == "batch" { "batch" } else { "streaming" }),
            ("execution.checkpointing.interval", if self.mode == "restored" { "5 ms" } else { "" }),
            ("execution.batch-rows", self.batch_rows),
            ("parallelism.default", self.parallelism),
            ("execution.buffer-timeout", self.gate),
            ("state.backend.type", self.state.split(' ').next().unwrap_or_default()),
        ];
        for (key, value) in values.into_iter().filter(|(_, value)| !value.is_empty()) {
            settings.set(key, value, Origin::Program).unwrap();
        }
        settings
    }

    fn database(&self) -> Result<Database, Failure> {
        if self.mode != "restored" {
            return Ok(Database { session: Session::new(self.settings())?, pieces: None });
        }
        let pace = Arc::new(Pace::default());
        let trace = pace.clone();
        let pieces = InPieces::new(pace);
        let mut settings = self.settings();
        settings.set("execution.checkpointing.dir", &pieces.checkpoints(), Origin::Program).unwrap();
        let session = Session::with_engine(settings, |engine| {
            let room = if self.state == "memory" { None } else { Some(0) };
            engine.with_trace(trace).with_state_memory(room)
        })?;
        Ok(Database { session, pieces: Some(pieces) })
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Way { mode, batch_rows, parallelism, gate, state } = self;
        write!(f, "{mode}, batches of {batch_rows}, parallelism {parallelism}, gate {gate}, state {state}")
    }
}

/// A cover of all pairs, chosen greedily from a seeded order.
fn pairwise(seed: u64) -> Vec<Way> {
    let mut order = Way::all();
    let mut state = seed;
    for place in (1..order.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        order.swap(place, (state >> 33) as usize % (place + 1));
    }
    let mut missing: Vec<_> = order.iter().flat_map(Way::pairs).collect();
    missing.sort();
    missing.dedup();
    let mut cover = vec![];
    while !missing.is_empty() {
        let gain = |way: &&Way| way.pairs().iter().filter(|pair| missing.contains(pair)).count();
        let best = *order.iter().max_by_key(gain).unwrap();
        missing.retain(|pair| !best.pairs().contains(pair));
        cover.push(best);
    }
    cover
}

#[test]
fn the_cover_meets_every_pair() {
    let cover = pairwise(1);
    let met: Vec<_> = cover.iter().flat_map(Way::pairs).collect();
    assert!(Way::all().iter().flat_map(Way::pairs).all(|pair| met.contains(&pair)));
    assert!(cover.len() < 48, "{}", cover.len());
}

/// A session as the text tests see it.
struct Database {
    session: Session,
    /// Runs queries in pieces.
    pieces: Option<InPieces>,
}

#[derive(Debug)]
struct Failure(String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

impl From<tidemill_core::Error> for Failure {
    fn from(error: tidemill_core::Error) -> Self {
        Failure(error.to_string())
    }
}

#[async_trait::async_trait]
impl AsyncDB for Database {
    type Error = Failure;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Failure> {
        let mut output = DBOutput::StatementComplete(0);
        for parsed in parse_script(sql)? {
            if let (Some(pieces), Statement::Query(_)) = (&mut self.pieces, &parsed.statement)
                && let Some((rows, late)) = pieces.run(&mut self.session, &parsed).await?
            {
                none_late(late)?;
                output = text(&rows)?;
                continue;
            }
            output = match self.session.execute(&parsed).await? {
                Outcome::Query(query) => {
                    let job = query.job.clone();
                    let rows = query.collect().await?;
                    let late = job.wait().await?.late_records_dropped();
                    none_late(late)?;
                    text(&rows)?
                }
                Outcome::Table(rows) => text(&rows)?,
                Outcome::Job(job) => {
                    job.wait().await?;
                    DBOutput::StatementComplete(0)
                }
                _ => DBOutput::StatementComplete(0),
            };
        }
        Ok(output)
    }

    async fn shutdown(&mut self) {}
}

fn none_late(late: u64) -> Result<(), Failure> {
    if late > 0 { Err(Failure(format!("{late} rows were late"))) } else { Ok(()) }
}

/// Rows as text: NULL by name, empty strings visible, floats to nine digits, so that sums in another order are equal.
fn text(rows: &Rows) -> Result<DBOutput<DefaultColumnType>, Failure> {
    use arrow::util::display::{ArrayFormatter, FormatOptions};
    let options = FormatOptions::default().with_null("NULL");
    let mut all = vec![];
    for batch in &rows.batches {
        let formatters: Vec<ArrayFormatter<'_>> =
            batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
        for row in 0..batch.num_rows() {
            let cell = |formatter: &ArrayFormatter<'_>| {
                let text = formatter.value(row).to_string();
                match text.parse::<f64>() {
                    Ok(number) if text.contains(['.', 'e']) => format!("{number:.9}").trim_end_matches('0').to_owned(),
                    _ if text.is_empty() => "(empty)".to_owned(),
                    _ => text,
                }
            };
            all.push(formatters.iter().map(cell).collect());
        }
    }
    Ok(DBOutput::Rows { types: vec![DefaultColumnType::Any; rows.schema.fields().len()], rows: all })
}

fn files() -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir("tests/three_ways")
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "slt"))
        .collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

#[test]
fn one_answer_whichever_way() {
    let set = |name: &str| std::env::var_os(name).is_some();
    let ways = if set("TIDEMILL_TEST_FULL") { Way::all() } else { pairwise(20_130_101) };
    let only = std::env::var("TIDEMILL_TEST_FILE").unwrap_or_default();
    let mut failures = vec![];
    // How many queries went on from a savepoint with state in each place: of each file, under each gate, with batches of each size.
    let mut restores = BTreeMap::<(&str, String), usize>::new();
    for file in files().into_iter().filter(|file| file.to_string_lossy().contains(&only)) {
        if set("TIDEMILL_COMPLETE") {
            complete(&file);
            continue;
        }
        for way in &ways {
            let mut database = Some(way.database().unwrap());
            let mut runner = Runner::new(move || {
                let database = database.take();
                async move { database.ok_or(Failure("one session a file".into())) }
            });
            runner.add_label(if way.mode == "batch" { "batch" } else { "streaming" });
            let before = restored::RESTORED.load(Ordering::SeqCst);
            // The session's own runtimes do the work; here only the waiting is driven.
            if let Err(error) = futures::executor::block_on(runner.run_file_async(&file)) {
                failures.push(format!("{} [{way}]\n{}", file.display(), error.display(false)));
            }
            let restored = restored::RESTORED.load(Ordering::SeqCst) - before;
            // Blocking edges let no barrier through.
            if way.mode == "restored" && way.gate != "infinite" {
                let choices =
                    [file.display().to_string(), way.gate.to_owned(), format!("batches of {}", way.batch_rows)];
                for choice in choices {
                    *restores.entry((way.state, choice)).or_default() += restored;
                }
            }
        }
    }
    assert!(failures.is_empty(), "{} failures\n{}", failures.len(), failures.join("\n\n"));
    let refused = restored::REFUSED.lock().unwrap();
    assert!(
        restores.values().all(|restored| *restored > 0),
        "some ways never went on from a savepoint: {restores:?}, refused: {refused:?}"
    );
}

/// Writes the answers of one batch run into the file.
fn complete(file: &Path) {
    let way = Way { mode: "batch", batch_rows: "8192", parallelism: "1", gate: "100 ms", state: STATES[0] };
    let mut runner = Runner::new(|| async { way.database() });
    runner.add_label(way.mode);
    let strict = sqllogictest::default_validator;
    futures::executor::block_on(runner.update_test_file(
        file,
        " ",
        strict,
        sqllogictest::default_normalizer,
        sqllogictest::default_column_validator,
    ))
    .unwrap();
}
