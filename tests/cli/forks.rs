//! A savepoint of a job that goes on: whoever begins from it, and however often, takes nothing from that job's files.

use super::recovery::{ROWS, lines, script};
use super::{Folder, Running, code, error, killed_after_checkpoints, stderr, stdout, until_checkpoints};

/// The script above in another format and into another folder than `copies`, without its second insert.
fn copying(rate: u64, format: &str, path: &str) -> String {
    let script = script(rate)
        .replace("'path' = 'copies', 'format' = 'csv'", &format!("'path' = '{path}', 'format' = '{format}'"));
    script.split_once("INSERT INTO counts").unwrap().0.to_owned()
}

fn running(folder: &Folder) -> Running {
    Running(folder.command(&["run", "--local", "-f", "job.sql", "-p", "1"]).spawn().unwrap())
}

fn savepoint(folder: &Folder, path: &str) {
    let output = folder.run(&["savepoint", "copies", path, "--dir", ".tidemill/job.sql"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
}

/// How often each id is in the files of a folder.
fn counts(folder: &Folder, path: &str, format: &str) -> Vec<u32> {
    let ids: Vec<u64> = match format {
        "csv" => {
            let lines = lines(&folder.path().join(path));
            lines.iter().map(|line| line.split(',').next().unwrap().parse().unwrap()).collect()
        }
        _ => {
            let sql = format!("SELECT id FROM '{}/*.parquet';", folder.path().join(path).display());
            let output = folder.run(&["sql", "-e", &sql, "--format", "csv"]);
            assert_eq!(code(&output), 0, "{}", stderr(&output));
            stdout(&output).lines().filter_map(|line| line.parse().ok()).collect()
        }
    };
    let mut counts = vec![0; ROWS as usize];
    ids.into_iter().for_each(|id| counts[id as usize] += 1);
    counts
}

#[test]
fn a_job_that_begins_from_the_savepoint_of_one_at_work_takes_nothing_from_its_files() {
    for format in ["csv", "parquet"] {
        let folder = Folder::new();
        folder.write("job.sql", &copying(20_000, format, "copies"));
        let mut first = running(&folder);
        until_checkpoints(&folder, 3);
        savepoint(&folder, "saved");
        folder.write(
            "fork.sql",
            &copying(1_000_000, format, "copies").replace("SELECT id, kind FROM", "SELECT id, kind + 10 FROM"),
        );
        let fork = folder.run(&["run", "--local", "-f", "fork.sql", "-p", "1", "-s", "saved"]);
        assert_eq!(code(&fork), 0, "{}", stderr(&fork));
        assert!(first.0.wait().unwrap().success());
        // Rows up to the savepoint are there once, those behind it from both jobs.
        let counts = counts(&folder, "copies", format);
        let saved = counts.iter().position(|count| *count != 1).unwrap_or(counts.len());
        assert!(saved > 0, "{format}: no row was saved");
        assert!(counts[saved..].iter().all(|count| *count == 2), "{format}: {:?}", &counts[saved..][..20]);
    }
}

#[test]
fn a_savepoint_is_good_for_as_many_jobs_as_begin_from_it_whatever_became_of_its_own() {
    let folder = Folder::new();
    folder.write("job.sql", &copying(50_000, "csv", "copies"));
    let mut first = running(&folder);
    until_checkpoints(&folder, 2);
    savepoint(&folder, "saved");
    assert!(first.0.wait().unwrap().success());
    assert!(counts(&folder, "copies", "csv").iter().all(|count| *count == 1));
    for (number, name) in ["second", "third"].into_iter().enumerate() {
        folder.write(&format!("{name}.sql"), &copying(1_000_000, "csv", "copies"));
        let output = folder.run(&["run", "--local", "-f", &format!("{name}.sql"), "-p", "1", "-s", "saved"]);
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        let counts = counts(&folder, "copies", "csv");
        let saved = counts.iter().position(|count| *count != 1).unwrap();
        assert!(counts[saved..].iter().all(|count| *count == number as u32 + 2), "{:?}", &counts[saved..][..20]);
    }
}

#[test]
fn a_checkpoint_whose_rows_nobody_would_commit_is_nothing_to_begin_from() {
    let folder = Folder::new();
    folder.write("job.sql", &copying(20_000, "csv", "copies"));
    killed_after_checkpoints(&folder, 3, &["-p", "1"]);
    // Of another table, which lies elsewhere; what the checkpoint holds of `copies` would be lost.
    let other = copying(1_000_000, "csv", "others")
        .replace("INTO copies", "INTO others")
        .replace("TABLE copies", "TABLE others");
    folder.write("other.sql", &other);
    for allow in [&[][..], &["-n"]] {
        let arguments =
            [&["run", "--local", "-f", "other.sql", "-p", "1", "-s", ".tidemill/job.sql/copies"], allow].concat();
        let refused = folder.run(&arguments);
        assert_eq!(code(&refused), 1, "{}", stderr(&refused));
        for part in ["holds rows that the sink 'copies'", "has yet to commit", "behind a savepoint first"] {
            assert!(error(&refused).contains(part), "{}", error(&refused));
        }
        std::fs::remove_dir_all(folder.path().join(".tidemill/other.sql")).unwrap();
    }
    // Nothing of it was touched.
    folder.write("job.sql", &copying(1_000_000, "csv", "copies"));
    let resumed = folder.run(&["run", "--local", "-f", "job.sql", "-p", "1", "--resume"]);
    assert_eq!(code(&resumed), 0, "{}", stderr(&resumed));
    assert!(counts(&folder, "copies", "csv").iter().all(|count| *count == 1));
}

#[test]
fn a_changed_query_goes_on_with_the_files_of_its_table() {
    let folder = Folder::new();
    folder.write("job.sql", &copying(20_000, "csv", "copies"));
    killed_after_checkpoints(&folder, 3, &["-p", "1"]);
    let changed = copying(1_000_000, "csv", "copies").replace("SELECT id, kind FROM", "SELECT id + 0, kind FROM");
    folder.write("job.sql", &changed);
    let resumed = folder.run(&["run", "--local", "-f", "job.sql", "-p", "1", "--resume"]);
    assert_eq!(code(&resumed), 0, "{}", stderr(&resumed));
    assert!(stderr(&resumed).contains("goes on from checkpoint"), "{}", stderr(&resumed));
    assert!(counts(&folder, "copies", "csv").iter().all(|count| *count == 1));
}
