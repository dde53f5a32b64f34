//! Names of those who write files: what one job cleans up is never another's.

use std::path::PathBuf;
use std::time::Duration;

use super::*;
use crate::sql::JobFolders;

/// Whether the directory has a file that is being written.
fn is_written(table: &Path) -> bool {
    let entries = std::fs::read_dir(table).into_iter().flatten();
    entries.flatten().any(|entry| entry.file_name().to_string_lossy().ends_with(".inprogress"))
}

fn names(table: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(table).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// One job ends while the other has a file in progress, which a checkpoint counts on.
#[test]
fn tables_whose_names_differ_in_signs_share_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let table = dir.path().join("out");
    let mut session = session();
    session.set_job_folders(JobFolders {
        dir: session.resolve(dir.path().join("jobs").to_str().unwrap()).unwrap(),
        id: "1f-2".into(),
        resume: false,
        origin: None,
        claims: false,
        statements: Default::default(),
    });
    let with = |name: &str| {
        let path = table.display();
        format!(
            "CREATE TABLE {name} (n BIGINT) WITH ('connector' = 'filesystem', 'path' = '{path}', 'format' = 'csv');"
        )
    };
    let numbers = "CREATE TABLE numbers (n BIGINT) WITH ('connector' = 'datagen', 'number-of-rows' = '500',
        'rows-per-second' = '100');";
    let settings = "SET 'execution.runtime-mode' = 'streaming'; SET 'execution.checkpointing.interval' = '50 ms';";
    run(&mut session, &format!("{} {} {numbers} {settings}", with("`a.b`"), with("a_b"))).unwrap();

    let parsed = parse_script("INSERT INTO a_b SELECT n FROM numbers").unwrap();
    let Outcome::Job(slow) = session.run(&parsed[0]).unwrap() else { panic!("a job") };
    while !is_written(&table) {
        assert!(slow.outcome().is_none(), "the job ended without a file in progress");
        std::thread::sleep(Duration::from_millis(5));
    }
    run(&mut session, "INSERT INTO `a.b` SELECT 1").unwrap();
    assert!(is_written(&table), "the file of the other job is gone, or the job has ended");
    session.block_on(slow.wait()).unwrap();
    assert_eq!(run(&mut session, "SET 'execution.runtime-mode' = 'batch'; SELECT COUNT(*) FROM a_b").unwrap(), "501");
    assert!(!is_written(&table), "{:?}", names(&table));
}

#[test]
fn sessions_that_begin_at_once_have_names_of_their_own() {
    let (one, other) = (session(), session());
    let ids = [one.run_id(), one.run_id(), other.run_id()];
    let distinct: std::collections::BTreeSet<&String> = ids.iter().collect();
    assert_eq!(distinct.len(), 3, "{ids:?}");
    // Of two processes no more differs than chance.
    assert_ne!(one.engine().environment().seed, other.engine().environment().seed);
}
