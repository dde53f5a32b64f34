//! Whole processes whose checkpoints and files lie in a store: killed at any moment, with the server or without it, they go on,
//! and every row is in the files once.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::Server;
use super::hdfs::Hdfs;
use super::kills::{Chance, GOES_ON, Kills, Met};
use super::versitygw::Versitygw;

/// Rows of the job below.
const ROWS: u64 = 40_000;

/// A job whose checkpoints and files lie on a server, and the folder that it is started in.
struct Job {
    /// What URLs of its files begin with.
    base: String,
    environment: Vec<(&'static str, String)>,
    folder: TempDir,
}

const RUN: [&str; 4] = ["run", "--local", "-f", "job.sql"];
const RESUME: [&str; 5] = ["run", "--local", "-f", "job.sql", "--resume"];

impl Job {
    fn new(server: &impl Server, name: &str, rate: u64) -> Self {
        let base = format!("{}/{name}", server.url());
        let job = Self { base, environment: server.environment(), folder: TempDir::new().unwrap() };
        job.set_rate(rate);
        job
    }

    fn set_rate(&self, rate: u64) {
        std::fs::write(self.folder.path().join("job.sql"), script(&self.base, rate)).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        let others = std::env::vars().map(|(name, _)| name);
        others.filter(|name| name.starts_with("TIDEMILL_") || name.starts_with("AWS_")).for_each(|name| {
            command.env_remove(name);
        });
        command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null());
        command.env("HOME", self.folder.path()).env_remove("XDG_CONFIG_HOME").env_remove("XDG_STATE_HOME");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn spawn(&self, arguments: &[&str]) -> Child {
        self.command(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// Runs it from where it is to its end, which it may have reached.
    fn finish(&self) {
        let output = self.run(&RESUME);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let said = stderr(&output);
        assert!(said.contains(GOES_ON) || said.contains("finished before"), "{said}");
    }

    /// The rows that a query gives, without the line of names.
    fn query(&self, query: &str) -> Vec<String> {
        let output = self.run(&["sql", "--format", "csv", "-e", query]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        String::from_utf8(output.stdout).unwrap().lines().skip(1).map(str::to_owned).collect()
    }

    /// How many checkpoints of `counts` the running process has completed.
    fn completed(&self) -> usize {
        let output = self.run(&["checkpoints", "counts", "--dir", ".tidemill/job.sql", "--format", "json"]);
        String::from_utf8(output.stdout).unwrap().matches("\"completed\"").count()
    }

    fn wait_for_checkpoints(&self, running: &mut Child, count: usize) {
        while self.completed() < count {
            assert!(running.try_wait().unwrap().is_none(), "the job ended before it had {count} checkpoints");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Every row is there once, read back through the store.
    fn check(&self) {
        let mut copies = self.query(&format!("SELECT * FROM '{}/copies/*.csv'", self.base));
        copies.sort_unstable();
        assert!(copies == expected_copies(), "{} rows instead of {ROWS}", copies.len());
        let counted = self.query(&format!(
            "CREATE TABLE c (second TIMESTAMP(3), kind BIGINT, n BIGINT)
               WITH ('connector' = 'filesystem', 'path' = '{}/counts', 'format' = 'csv');
             SELECT COUNT(*), COUNT(DISTINCT CAST(second AS STRING) || '/' || CAST(kind AS STRING)), SUM(n) FROM c",
            self.base
        ));
        let windows = ROWS.div_ceil(1_000) * 7;
        assert_eq!(counted, [format!("{windows},{windows},{ROWS}")]);
    }
}

fn script(base: &str, rate: u64) -> String {
    format!(
        "SET 'execution.runtime-mode' = 'streaming';
         SET 'execution.checkpointing.interval' = '200 ms';
         SET 'execution.checkpointing.dir' = '{base}/checkpoints';
         SET 'execution.batch-rows' = '256';
         CREATE TABLE numbers (id BIGINT, ts AS TO_TIMESTAMP_LTZ(id, 3), kind AS id % 7, WATERMARK FOR ts AS ts)
           WITH ('connector' = 'datagen', 'number-of-rows' = '{ROWS}', 'rows-per-second' = '{rate}',
                 'fields.id.kind' = 'sequence', 'fields.id.start' = '0', 'fields.id.end' = '{}');
         CREATE TABLE copies (id BIGINT, kind BIGINT)
           WITH ('connector' = 'filesystem', 'path' = '{base}/copies', 'format' = 'csv');
         CREATE TABLE counts (second TIMESTAMP(3), kind BIGINT, n BIGINT)
           WITH ('connector' = 'filesystem', 'path' = '{base}/counts', 'format' = 'csv');
         INSERT INTO copies SELECT id, kind FROM numbers;
         INSERT INTO counts SELECT window_start, kind, COUNT(*)
           FROM TABLE(TUMBLE(TABLE numbers, DESCRIPTOR(ts), INTERVAL '1' SECOND))
           GROUP BY window_start, window_end, kind;",
        ROWS - 1
    )
}

fn expected_copies() -> Vec<String> {
    let mut rows: Vec<String> = (0..ROWS).map(|id| format!("{id},{}", id % 7)).collect();
    rows.sort_unstable();
    rows
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Kills processes of a job at random moments until enough were at work, then runs it to its end and compares every row; so it does
/// with a job that ends before, and goes on with another. `meanwhile` comes before each kill, and says whether it has taken the
/// server away for a while.
fn kill_at_work<S: Server>(
    server: &mut S,
    name: &str,
    rate: u64,
    mut kills: Kills,
    mut meanwhile: impl FnMut(&mut S, &mut Chance) -> bool,
) -> Job {
    let mut number = 0;
    loop {
        let job = Job::new(&*server, &format!("{name}-{number}"), rate);
        let control = job.folder.path().join(".tidemill/job.sql/control.json");
        while !kills.are_enough() {
            let mut was_away = false;
            match kills.strike(job.command(&RESUME), &control, |chance| was_away = meanwhile(&mut *server, chance)) {
                Met::Beginning | Met::Work => {}
                Met::End => break,
                // A process that finds no server waits for a while, and not for ever.
                Met::Failure(told) => assert!(was_away, "{told}"),
            }
        }
        job.set_rate(20_000);
        job.finish();
        job.check();
        if kills.are_enough() {
            return job;
        }
        number += 1;
    }
}

#[test]
fn a_job_on_s3_survives_kills_of_itself_and_of_the_server() {
    let mut server = Versitygw::start();
    let mut round = 0;
    let job = kill_at_work(&mut server, "job", 1_000, Kills::new(20, 200..1_100), |server, chance| {
        round += 1;
        let goes_away = round % 5 == 3;
        if goes_away {
            server.kill();
            std::thread::sleep(Duration::from_millis(chance.below(2_500)));
            server.start_again();
            std::thread::sleep(Duration::from_millis(chance.below(3_000)));
        }
        goes_away
    });
    assert_eq!(server.parts(), 0, "no upload is left");
    let (_, name) = job.base.rsplit_once('/').unwrap();
    for table in ["copies", "counts"] {
        let names = names(&server.file(name).join(table));
        assert!(!names.iter().any(|name| name.starts_with('.')), "{names:?}");
    }
    let again = job.run(&RESUME);
    assert!(stderr(&again).contains("finished before, and was not run again"), "{}", stderr(&again));
    job.check();
}

#[test]
fn a_job_waits_for_an_s3_server_that_comes_back() {
    let mut server = Versitygw::start();
    let job = Job::new(&server, "job", 8_000);
    let mut running = job.spawn(&RUN);
    job.wait_for_checkpoints(&mut running, 2);
    server.kill();
    std::thread::sleep(Duration::from_secs(4));
    assert!(running.try_wait().unwrap().is_none(), "the job ended with its server");
    server.start_again();
    assert!(running.wait().unwrap().success());
    job.check();
    assert_eq!(server.parts(), 0);
}

#[test]
fn a_job_on_hdfs_goes_on_after_kills() {
    kill_at_work(&mut Hdfs::shared(), "jobs/killed", 1_500, Kills::new(6, 500..3_000), |_, _| false);
}

#[test]
fn a_savepoint_on_s3_is_a_place_to_begin_from_and_can_be_disposed_of() {
    let server = Versitygw::start();
    // Slow enough that it is at work when it is asked to stop, however busy the machine.
    let mut job = Job::new(&server, "job", 1_000);
    // A savepoint belongs to one job.
    let whole = std::fs::read_to_string(job.folder.path().join("job.sql")).unwrap();
    let (one, _) = whole.split_once("INSERT INTO counts").unwrap();
    std::fs::write(job.folder.path().join("job.sql"), one).unwrap();
    let saved = format!("{}/saved", job.base);
    let mut running = job.spawn(&[&RUN[..], &["-p", "2"]].concat());
    let begun = Instant::now();
    loop {
        let output = job.run(&["stop", "--dir", ".tidemill/job.sql", "--savepoint-path", &saved]);
        if output.status.code() == Some(0) {
            break;
        }
        // It may not be listening yet.
        assert!(begun.elapsed() < Duration::from_secs(30), "the job does not stop: {}", stderr(&output));
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(running.wait().unwrap().success());
    assert!(server.file("job/saved/_metadata").exists());

    // It is read where it lies, and so is the last of the checkpoints, which holds the same.
    let read = |place: &str| {
        let query = "SELECT DISTINCT id, \"checkpoint\" FROM";
        let found = job.query(&format!("{query} read_checkpoint('{place}') WHERE state = 'enumerator'"));
        let [one] = found.as_slice() else { panic!("{found:?}") };
        let (id, _) = one.split_once(',').unwrap();
        let state = format!("read_checkpoint('{place}', operator => '{id}', state => 'enumerator')");
        assert_eq!(job.query(&format!("SELECT COUNT(*) FROM {state}")), ["1"]);
        one.clone()
    };
    assert_eq!(read(&saved), read(&format!("{}/checkpoints/copies", job.base)));

    let elsewhere = std::mem::replace(&mut job.folder, TempDir::new().unwrap());
    let moved = one.replace("/checkpoints'", "/other-checkpoints'").replace("'1000'", "'50000'");
    std::fs::write(job.folder.path().join("job.sql"), moved).unwrap();
    let output = job.run(&[&RUN[..], &["-p", "3", "-s", &saved]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    drop(elsewhere);
    let mut copies = job.query(&format!("SELECT * FROM '{}/copies/*.csv'", job.base));
    copies.sort_unstable();
    assert!(copies == expected_copies(), "{} rows instead of {ROWS}", copies.len());

    let disposed = job.run(&["savepoint", "--dispose", &saved]);
    assert_eq!(disposed.status.code(), Some(0), "{}", stderr(&disposed));
    assert!(!server.file("job/saved/_metadata").exists());
}

#[test]
fn a_segment_that_was_cut_short_on_s3_is_named() {
    let server = Versitygw::start();
    let job = Job::new(&server, "job", 8_000);
    let mut running = job.spawn(&RUN);
    job.wait_for_checkpoints(&mut running, 3);
    running.kill().unwrap();
    running.wait().unwrap();
    let segments = server.file("job/checkpoints/counts/segments");
    for name in names(&segments) {
        let file = std::fs::File::options().write(true).open(segments.join(name)).unwrap();
        file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    }
    let output = job.run(&[&RESUME[..], &["-D", "restart-strategy.type=none"]].concat());
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let said = stderr(&output);
    assert!(said.contains("counts/segments/") && said.contains("the file ends at"), "{said}");
}

/// `COPY` writes one file, which DataFusion's own scan reads back: by ranges, through the same client.
fn copy_and_read_back(server: &impl Server) {
    let job = Job::new(server, "copied", 1);
    let file = format!("{}/once/n.parquet", job.base);
    let numbers = "SELECT column1 AS n FROM (VALUES (1), (2), (3))";
    for query in [numbers.to_owned(), format!("{numbers} WHERE column1 > 1")] {
        let copied = job.run(&["sql", "-e", &format!("COPY ({query}) TO '{file}'")]);
        assert_eq!(copied.status.code(), Some(0), "{}", stderr(&copied));
    }
    assert_eq!(job.query(&format!("SELECT SUM(n) AS s, COUNT(*) AS c FROM '{file}'")), ["5,2"]);
}

#[test]
fn one_file_is_written_and_replaced_on_s3_and_on_hdfs() {
    copy_and_read_back(&Versitygw::start());
    copy_and_read_back(&Hdfs::shared());
}

#[test]
fn what_cannot_be_reached_or_is_not_allowed_is_named_with_its_cause() {
    let server = Versitygw::start();
    let mut job = Job::new(&server, "job", 1);
    let ask = |job: &Job, url: &str| {
        let output = job.run(&["sql", "-e", &format!("SELECT * FROM '{url}'")]);
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        stderr(&output)
    };
    let said = ask(&job, "s3://lake/nothing.csv");
    assert!(said.contains("s3://lake/nothing.csv does not exist"), "{said}");
    let said = ask(&job, "ftp://lake/x.csv");
    assert!(said.contains("no store for 'ftp://'") && said.contains("s3://") && said.contains("hdfs://"), "{said}");
    job.environment.retain(|(name, _)| *name != "AWS_SECRET_ACCESS_KEY");
    job.environment.push(("AWS_SECRET_ACCESS_KEY", "wrong".into()));
    let said = ask(&job, "s3://lake/x.csv");
    assert!(said.contains("s3://lake/x.csv") && said.contains("permission denied"), "{said}");
    job.environment.retain(|(name, _)| *name != "AWS_ENDPOINT_URL");
    job.environment.push(("AWS_ENDPOINT_URL", "http://127.0.0.1:1".into()));
    let begun = Instant::now();
    let said = ask(&job, "s3://lake/x.csv");
    assert!(said.contains("s3://lake/x.csv") && said.to_lowercase().contains("refused"), "{said}");
    let said = ask(&job, "hdfs://127.0.0.1:1/x.csv");
    assert!(said.contains("hdfs://127.0.0.1:1/x.csv") && said.to_lowercase().contains("refused"), "{said}");
    assert!(begun.elapsed() < Duration::from_secs(60), "patience has an end");
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}
