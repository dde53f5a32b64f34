//! A watched folder as the source of a job that is killed: files that were read in part are gone on with, those that came meanwhile
//! are read, no row is lost and none comes twice. A file that changes after it was found ends the job, which names it.

use std::fs::File;
use std::io::Write;
use std::ops::Range;
use std::process::Stdio;

use super::recovery::lines;
use super::{Folder, Running, until};

/// Rows of each of the two files that are there at first, and of each that comes later.
const MANY: u64 = 300_000;
const FEW: u64 = 10_000;

/// Copies what comes; files are shown at every checkpoint.
const SCRIPT: &str = "
    SET 'execution.checkpointing.interval' = '50 ms';
    CREATE TABLE arrivals (id BIGINT, name STRING)
      WITH ('connector' = 'filesystem', 'path' = 'in', 'format' = 'csv', 'source.monitor-interval' = '50 ms');
    CREATE TABLE copies (id BIGINT, name STRING)
      WITH ('connector' = 'filesystem', 'path' = 'copies', 'format' = 'csv', 'sink.rolling-policy.rollover-interval' = '1 ms');
    INSERT INTO copies SELECT id, name FROM arrivals;";

/// What the process that was started last has said.
const TOLD: &str = "told.txt";

fn row(id: u64) -> String {
    format!("{id},n{}", id % 7)
}

fn text(ids: Range<u64>) -> String {
    ids.map(|id| row(id) + "\n").collect()
}

fn start(folder: &Folder, arguments: &[&str]) -> Running {
    let arguments = [&["run", "--local", "-f", "job.sql", "-p", "2"], arguments].concat();
    let told = File::create(folder.path().join(TOLD)).unwrap();
    Running(folder.command(&arguments).stdout(Stdio::null()).stderr(told).spawn().unwrap())
}

fn copies(folder: &Folder) -> Vec<String> {
    lines(&folder.path().join("copies"))
}

fn until_shown(folder: &Folder, count: u64) {
    until("the rows", || match copies(folder).len() as u64 {
        found if found >= count => Ok(()),
        found => Err(format!("{found} of {count}")),
    });
}

/// That the rows with ids below `count` are there, each once.
fn check(folder: &Folder, count: u64) {
    let mut expected: Vec<String> = (0..count).map(row).collect();
    expected.sort();
    let found = copies(folder);
    assert!(found == expected, "{} rows instead of {count}", found.len());
}

/// What a process said that ended by itself: it failed, with one error.
fn failed(folder: &Folder, mut running: Running) -> (String, String) {
    let ended = until("the end of the job", || {
        let ended = running.0.try_wait().unwrap();
        ended.ok_or_else(|| std::fs::read_to_string(folder.path().join(TOLD)).unwrap())
    });
    let told = std::fs::read_to_string(folder.path().join(TOLD)).unwrap();
    assert_eq!(ended.code(), Some(1), "{told}");
    let errors: Vec<&str> = told.lines().filter(|line| line.starts_with("error: ")).collect();
    let [error] = errors[..] else { panic!("{told}") };
    (error.to_owned(), told)
}

/// Whether a line shows a position within a file: `… at 1234 of 5678,…`.
fn is_within_a_file(line: &str) -> bool {
    let position = line.rsplit_once(" at ").and_then(|(_, position)| position.split_once(" of "));
    let number = |text: &str| text.split(',').next().and_then(|text| text.parse::<u64>().ok());
    let numbers = position.and_then(|(at, length)| Some((number(at)?, number(length)?)));
    numbers.is_some_and(|(at, length)| 0 < at && at < length)
}

#[test]
fn a_watched_folder_is_read_once_whatever_is_killed_and_a_file_that_changes_is_named() {
    let folder = Folder::new();
    folder.write("job.sql", SCRIPT).write("in/a.csv", &text(0..MANY)).write("in/b.csv", &text(MANY..2 * MANY));
    std::fs::create_dir(folder.path().join("copies")).unwrap();
    // Row by row it is slow enough to be killed in the middle.
    let running = start(&folder, &["-D", "execution.batch-rows=1"]);
    until_shown(&folder, 1);
    drop(running);
    let before = copies(&folder).len() as u64;
    assert!(before < 2 * MANY, "all rows were there before the kill");
    let mut count = 2 * MANY + FEW;
    folder.write("in/c.csv", &text(count - FEW..count));

    let running = start(&folder, &["--resume"]);
    until_shown(&folder, count);
    check(&folder, count);
    // One that comes while it runs has another name until it is whole.
    folder.write("in/.d.csv", &text(count..count + FEW));
    count += FEW;
    let file = |name: &str| folder.path().join("in").join(name);
    std::fs::rename(file(".d.csv"), file("d.csv")).unwrap();
    until_shown(&folder, count);
    check(&folder, count);

    let length = || file("a.csv").metadata().unwrap().len();
    let before = length();
    File::options().append(true).open(file("a.csv")).unwrap().write_all(b"0,again\n").unwrap();
    let changed = format!("/in/a.csv changed after it was found: it had {before} bytes and has {}", length());
    let (error, told) = failed(&folder, running);
    assert!(error.contains(&changed), "{error}");
    assert!(told.contains("insert into copies goes on from checkpoint"), "{told}");
    assert!(told.lines().any(is_within_a_file), "{told}");

    // Who goes on meets it again, and shows nothing of it.
    let (error, _) = failed(&folder, start(&folder, &["--resume"]));
    assert!(error.contains(&changed), "{error}");
    check(&folder, count);
}
