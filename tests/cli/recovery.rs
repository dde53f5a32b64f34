//! Jobs that outlive their process: killed at any moment, they go on, and every row is in the files once.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::kills::{Kills, Met};
use super::{Folder, Running, code, error, killed_after_checkpoints, stderr, stdout, until_checkpoints};

/// Rows of the job below.
pub const ROWS: u64 = 60_000;

/// Two inserts from one table of made-up rows: the rows as they are, and how many of each kind in each second.
pub fn script(rate: u64) -> String {
    format!(
        "SET 'execution.runtime-mode' = 'streaming';
         SET 'execution.checkpointing.interval' = '100 ms';
         SET 'execution.batch-rows' = '256';
         CREATE TABLE numbers (id BIGINT, ts AS TO_TIMESTAMP_LTZ(id, 3), kind AS id % 7, WATERMARK FOR ts AS ts)
           WITH ('connector' = 'datagen', 'number-of-rows' = '{ROWS}', 'rows-per-second' = '{rate}',
                 'fields.id.kind' = 'sequence', 'fields.id.start' = '0', 'fields.id.end' = '{}');
         CREATE TABLE copies (id BIGINT, kind BIGINT) WITH ('connector' = 'filesystem', 'path' = 'copies', 'format' = 'csv');
         CREATE TABLE counts (second TIMESTAMP(3), kind BIGINT, n BIGINT)
           WITH ('connector' = 'filesystem', 'path' = 'counts', 'format' = 'csv');
         INSERT INTO copies SELECT id, kind FROM numbers;
         INSERT INTO counts SELECT window_start, kind, COUNT(*) FROM TABLE(TUMBLE(TABLE numbers, DESCRIPTOR(ts), INTERVAL '1' SECOND))
           GROUP BY window_start, window_end, kind;",
        ROWS - 1
    )
}

/// The lines of all visible files in a folder, sorted.
pub fn lines(folder: &Path) -> Vec<String> {
    let mut lines = vec![];
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if !path.file_name().unwrap().to_string_lossy().starts_with('.') {
            lines.extend(std::fs::read_to_string(path).unwrap().lines().map(str::to_owned));
        }
    }
    lines.sort();
    lines
}

pub fn check_answer(folder: &Folder) {
    let mut expected: Vec<String> = (0..ROWS).map(|id| format!("{id},{}", id % 7)).collect();
    expected.sort();
    let copies = lines(&folder.path().join("copies"));
    assert!(copies == expected, "{} rows instead of {ROWS}", copies.len());
    let mut counts = BTreeMap::<(u64, u64), u64>::new();
    (0..ROWS).for_each(|id| *counts.entry((id / 1000, id % 7)).or_default() += 1);
    let mut found = BTreeMap::new();
    for line in lines(&folder.path().join("counts")) {
        let [second, kind, n] = line.split(',').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let time = second.rsplit([' ', 'T']).next().unwrap();
        let parts: Vec<u64> = time
            .trim_end_matches('Z')
            .split(':')
            .map(|part| part.split('.').next().unwrap().parse().unwrap())
            .collect();
        let key = (parts[0] * 3600 + parts[1] * 60 + parts[2], kind.parse().unwrap());
        assert!(found.insert(key, n.parse::<u64>().unwrap()).is_none(), "{line} comes twice");
    }
    assert_eq!(found, counts);
    let hidden = |folder: &Path| {
        let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with('.')).collect::<Vec<_>>()
    };
    assert_eq!(hidden(&folder.path().join("copies")), Vec::<String>::new());
}

#[test]
fn kill_9_at_twenty_moments_loses_nothing_and_repeats_nothing() {
    let arguments = ["run", "--local", "-f", "job.sql", "--resume"];
    let mut kills = Kills::new(20, 30..350);
    while !kills.are_enough() {
        let folder = Folder::new();
        // So slow that one job outlives all kills, unless the machine is slower still.
        folder.write("job.sql", &script(10_000));
        let control = folder.path().join(".tidemill/job.sql/control.json");
        while !kills.are_enough() {
            match kills.strike(folder.command(&arguments), &control, |_| {}) {
                Met::Beginning | Met::Work => {}
                Met::End => break,
                Met::Failure(told) => panic!("{told}"),
            }
        }
        folder.write("job.sql", &script(100_000));
        let output = folder.run(&arguments);
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        check_answer(&folder);
        let output = folder.run(&arguments);
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        assert!(stderr(&output).contains("finished before, and was not run again"), "{}", stderr(&output));
        check_answer(&folder);
    }
}

#[test]
fn checkpoints_are_not_overwritten_and_one_folder_has_one_process() {
    let folder = Folder::new();
    folder.write("job.sql", &script(5_000));
    let running = Running(folder.command(&["run", "--local", "-f", "job.sql"]).spawn().unwrap());
    until_checkpoints(&folder, 2);
    let second = folder.run(&["run", "--local", "-f", "job.sql", "--resume"]);
    assert_eq!(code(&second), 1, "{}", stderr(&second));
    assert!(error(&second).contains("another process runs the jobs of"), "{}", error(&second));
    drop(running);
    let anew = folder.run(&["run", "--local", "-f", "job.sql"]);
    assert_eq!(code(&anew), 1, "{}", stderr(&anew));
    assert_eq!(errors_with(&anew, &["holds checkpoints", "--resume"]), 2, "{}", stderr(&anew));
    let gone = folder.run(&["checkpoints", "copies", "--dir", ".tidemill/job.sql"]);
    assert_eq!(code(&gone), 1, "{}", stderr(&gone));
    assert!(error(&gone).contains("no process runs the jobs of"), "{}", error(&gone));
}

#[test]
fn a_savepoint_is_a_place_to_begin_from_also_with_another_parallelism() {
    let folder = Folder::new();
    let one = script(10_000);
    let (_, counts) = one.split_once("INSERT INTO copies SELECT id, kind FROM numbers;").unwrap();
    let script = one.replace(counts, "");
    folder.write("job.sql", &script);
    let running =
        folder.command(&["run", "--local", "-f", "job.sql", "-p", "2"]).stderr(std::process::Stdio::piped()).spawn();
    let running = running.unwrap();
    let stopped = loop {
        std::thread::sleep(Duration::from_millis(150));
        let output = folder.run(&["stop", "--dir", ".tidemill/job.sql", "--savepoint-path", "saved"]);
        if code(&output) == 0 {
            break output;
        }
    };
    assert!(stdout(&stopped).trim_end().ends_with("/saved"), "{}", stdout(&stopped));
    let output = running.wait_with_output().unwrap();
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(stderr(&output).contains("stopped"), "{}", stderr(&output));
    let before = lines(&folder.path().join("copies")).len() as u64;
    assert!(before > 0 && before < ROWS, "{before}");
    // It can be moved.
    std::fs::rename(folder.path().join("saved"), folder.path().join("moved")).unwrap();
    std::fs::remove_dir_all(folder.path().join(".tidemill")).unwrap();
    let output = folder.run(&["run", "--local", "-f", "job.sql", "-p", "3", "-s", "moved"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let mut expected: Vec<String> = (0..ROWS).map(|id| format!("{id},{}", id % 7)).collect();
    expected.sort();
    assert!(lines(&folder.path().join("copies")) == expected);

    let disposed = folder.run(&["savepoint", "--dispose", "moved"]);
    assert_eq!(code(&disposed), 0, "{}", stderr(&disposed));
    assert!(!folder.path().join("moved/_metadata").exists());
}

#[test]
fn what_is_no_job_is_said_before_anything_runs() {
    let folder = Folder::new();
    folder.write("select.sql", "SELECT 1;").write("nothing.sql", "SET 'execution.batch-rows' = '1';");
    let select = folder.run(&["run", "--local", "-f", "select.sql"]);
    assert_eq!(code(&select), 1);
    assert!(error(&select).contains("tidemill sql"), "{}", error(&select));
    let nothing = folder.run(&["run", "--local", "-f", "nothing.sql"]);
    assert!(error(&nothing).contains("no INSERT"), "{}", error(&nothing));
    let cluster = folder.run(&["run", "-f", "select.sql"]);
    assert_eq!(code(&cluster), 2);
    assert!(error(&cluster).contains("--local"), "{}", error(&cluster));
}

/// A folder with the job's script, killed after a few checkpoints, and the folder of those of `counts`.
fn killed(settings: &[&str]) -> (Folder, std::path::PathBuf) {
    let folder = Folder::new();
    folder.write("job.sql", &script(10_000));
    killed_after_checkpoints(&folder, 3, &[&["-D", "execution.checkpointing.num-retained=2"], settings].concat());
    let job = folder.path().join(".tidemill/job.sql/counts");
    (folder, job)
}

/// How many lines of standard error are errors with all of these words.
fn errors_with(output: &std::process::Output, words: &[&str]) -> usize {
    let is_meant = |line: &&str| line.starts_with("error: ") && words.iter().all(|word| line.contains(word));
    stderr(output).lines().filter(is_meant).count()
}

/// The files of a folder, in the order of their names.
fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn a_damaged_newest_checkpoint_is_named_and_so_is_the_newest_good_one() {
    let (folder, job) = killed(&[]);
    let manifests = files(&job.join("manifests"));
    let newest = manifests.last().unwrap();
    let mut bytes = std::fs::read(newest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    std::fs::write(newest, &bytes).unwrap();
    let output = folder.run(&["run", "--local", "-f", "job.sql", "--resume"]);
    assert_eq!(code(&output), 1, "{}", stderr(&output));
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    assert!(error(&output).contains(&name(newest)), "{}", error(&output));
    assert!(error(&output).contains(&name(&manifests[manifests.len() - 2])), "{}", error(&output));
    assert_eq!(std::fs::read(newest).unwrap(), bytes, "what is there is left as it is");
}

#[test]
fn a_damaged_segment_is_named_with_its_checkpoint_and_the_newest_good_one() {
    let (folder, job) = killed(&["-D", "execution.checkpointing.num-retained=3"]);
    let number = |path: &Path| -> u64 {
        path.file_name().unwrap().to_str().unwrap().split('-').nth(1).unwrap().parse().unwrap()
    };
    // Segments of the checkpoint that counts: one that was written later is nobody's yet.
    let resume = ["run", "--local", "-f", "job.sql", "--resume", "-D", "execution.checkpointing.num-retained=3"];
    let newest = newest_checkpoint(&folder, ".tidemill/job.sql/counts");
    let damaged = files(&job.join("segments")).into_iter().find(|segment| number(segment) == newest).unwrap();
    let whole = std::fs::read(&damaged).unwrap();
    let damage = whole.iter().map(|byte| byte ^ 0x11).collect::<Vec<_>>();
    std::fs::write(&damaged, &damage).unwrap();
    let output = folder.run(&resume);
    assert_eq!(code(&output), 1, "{}", stderr(&output));
    let text = stderr(&output);
    let line = text.lines().find(|line| line.starts_with("error: ")).unwrap();
    let name = damaged.file_name().unwrap().to_string_lossy().into_owned();
    let place = job.canonicalize().unwrap();
    let named = [format!("checkpoint {newest} in {}", place.display()), name];
    assert!(named.iter().all(|part| line.contains(part)), "{line}");
    let (_, rest) = line.split_once("the newest good one is checkpoint ").unwrap_or_else(|| panic!("{line}"));
    let good: u64 = rest.split(':').next().unwrap().parse().unwrap();
    assert!(good < newest, "{line}");
    // What the hint says is so.
    let (_, rest) = rest.split_once("deleting the manifests behind '").unwrap();
    let last_good = rest.split('\'').next().unwrap().rsplit('/').next().unwrap().to_owned();
    let behind = |manifest: &std::path::PathBuf| manifest.file_name().unwrap().to_str().unwrap() > last_good.as_str();
    let manifests = files(&job.join("manifests"));
    manifests.iter().filter(|manifest| behind(manifest)).for_each(|manifest| std::fs::remove_file(manifest).unwrap());
    assert_eq!(newest_checkpoint(&folder, ".tidemill/job.sql/counts"), good);
    let output = folder.run(&resume);
    let goes_on = format!("insert into counts goes on from checkpoint {good} in");
    assert!(stderr(&output).contains(&goes_on), "{}", stderr(&output));
}

/// The number of the checkpoint that a job would go on from: that of the newest manifest.
fn newest_checkpoint(folder: &Folder, job: &str) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let opened = async {
        let clock = std::sync::Arc::new(tidemill_exec::runtime::TokioClock::system());
        let store = object_store::local::LocalFileSystem::new_with_prefix(folder.path()).unwrap();
        tidemill_exec::checkpoint::CheckpointStore::open(std::sync::Arc::new(store), job.into(), clock).await
    };
    runtime.block_on(opened).unwrap().checkpoint().unwrap().checkpoint
}

#[test]
fn a_missing_segment_is_named_and_no_restart_strategy_tries_again() {
    let (folder, job) = killed(&[]);
    for segment in files(&job.join("segments")) {
        std::fs::remove_file(segment).unwrap();
    }
    let output = folder.run(&["run", "--local", "-f", "job.sql", "--resume"]);
    assert_eq!(code(&output), 1, "{}", stderr(&output));
    assert!(error(&output).contains("segments/"), "{}", error(&output));
}

#[test]
fn another_number_of_key_groups_is_refused() {
    let (folder, _) = killed(&[]);
    let resume = ["run", "--local", "-f", "job.sql", "--resume"];
    let output =
        folder.run(&[&resume[..], &["-D", "pipeline.max-parallelism=64", "-D", "restart-strategy.type=none"]].concat());
    assert_eq!(code(&output), 1, "{}", stderr(&output));
    assert_eq!(errors_with(&output, &["128", "64"]), 2, "{}", stderr(&output));
    let output = folder.run(&resume);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    check_answer(&folder);
}

#[test]
fn a_checkpoint_of_a_newer_release_is_named_with_both_versions() {
    let (folder, job) = killed(&[]);
    let manifests = files(&job.join("manifests"));
    let newest = manifests.last().unwrap();
    let mut bytes = std::fs::read(newest).unwrap();
    // The trailer that every version has: checksum, version, magic.
    bytes.truncate(bytes.len() - 16);
    tidemill_exec::checkpoint::manifest::seal(&mut bytes, 99);
    std::fs::write(newest, &bytes).unwrap();
    let output = folder.run(&["run", "--local", "-f", "job.sql", "--resume"]);
    assert_eq!(code(&output), 1, "{}", stderr(&output));
    let name = newest.file_name().unwrap().to_string_lossy().into_owned();
    for part in [name.as_str(), "format version 99", "this release reads up to 1", "upgrade tidemill"] {
        assert!(error(&output).contains(part), "{}", error(&output));
    }
}

/// A job of windows over `id` of a type, stopped by a kill in the middle of one.
fn killed_within_a_window(id: &str, result: &str) -> Folder {
    let folder = Folder::new();
    folder.write("job.sql", &maxima(id, "BIGINT", result, 10_000));
    killed_after_checkpoints(&folder, 2, &[]);
    folder
}

/// A row for each second and kind, of what `result` says of the ids.
fn maxima(id: &str, kind: &str, result: &str, rate: u64) -> String {
    format!(
        "SET 'execution.runtime-mode' = 'streaming';
         SET 'execution.checkpointing.interval' = '100 ms';
         SET 'execution.batch-rows' = '256';
         SET 'restart-strategy.type' = 'none';
         CREATE TABLE numbers (id {id}, ts AS TO_TIMESTAMP_LTZ(CAST(id AS BIGINT), 3), kind AS CAST(id % 7 AS {kind}),
                               WATERMARK FOR ts AS ts)
           WITH ('connector' = 'datagen', 'number-of-rows' = '{ROWS}', 'rows-per-second' = '{rate}',
                 'fields.id.kind' = 'sequence', 'fields.id.start' = '0', 'fields.id.end' = '{}');
         CREATE TABLE maxima (second TIMESTAMP(3), kind BIGINT, n BIGINT)
           WITH ('connector' = 'filesystem', 'path' = 'maxima', 'format' = 'csv');
         INSERT INTO maxima SELECT window_start, kind, {result}
           FROM TABLE(TUMBLE(TABLE numbers, DESCRIPTOR(ts), INTERVAL '1' SECOND)) GROUP BY window_start, window_end, kind;",
        ROWS - 1
    )
}

#[test]
fn a_wider_number_and_an_aggregate_less_go_on_from_what_was_counted() {
    let folder = killed_within_a_window("INT", "MAX(id) + 0 * MIN(id)");
    folder.write("job.sql", &maxima("BIGINT", "BIGINT", "MAX(id)", 60_000));
    let output = folder.run(&["run", "--local", "-f", "job.sql", "--resume"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(stderr(&output).contains("goes on from checkpoint"), "{}", stderr(&output));
    let found = lines(&folder.path().join("maxima"));
    assert_eq!(found.len() as u64, ROWS / 1000 * 7);
    let maxima: BTreeMap<u64, usize> = found.iter().fold(BTreeMap::new(), |mut maxima, line| {
        *maxima.entry(line.rsplit(',').next().unwrap().parse().unwrap()).or_default() += 1;
        maxima
    });
    let expected: Vec<u64> = (0..ROWS / 1000).flat_map(|second| (second + 1) * 1000 - 7..(second + 1) * 1000).collect();
    assert_eq!(maxima.into_iter().collect::<Vec<_>>(), expected.into_iter().map(|id| (id, 1)).collect::<Vec<_>>());
}

#[test]
fn a_query_whose_state_cannot_evolve_is_refused_with_both_schemas() {
    let folder = killed_within_a_window("BIGINT", "MAX(id)");
    let cases = [
        (maxima("BIGINT", "BIGINT", "MAX(id) + 0 * MIN(id)", 60_000), "is new, and the rows before are not in it"),
        (maxima("INT", "BIGINT", "MAX(id)", 60_000), "cannot go from Int64 to Int32"),
        (maxima("BIGINT", "INT", "MAX(id)", 60_000), "its key columns must stay as they were"),
    ];
    for (script, reason) in cases {
        folder.write("job.sql", &script);
        let output = folder.run(&["run", "--local", "-f", "job.sql", "--resume"]);
        assert_eq!(code(&output), 1, "{}", stderr(&output));
        for part in ["was saved as (key_group", "is declared as (key_group", reason] {
            assert!(error(&output).contains(part), "{part}: {}", error(&output));
        }
    }
    folder.write("job.sql", &maxima("BIGINT", "BIGINT", "MAX(id)", 60_000));
    let output = folder.run(&["run", "--local", "-f", "job.sql", "--resume"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(lines(&folder.path().join("maxima")).len() as u64, ROWS / 1000 * 7);
}

#[test]
fn state_that_nobody_claims_is_refused_unless_it_may_be_dropped() {
    let (folder, _) = killed(&[]);
    let script = script(60_000);
    let (before, _) = script.split_once("INSERT INTO counts").unwrap();
    let changed = "INSERT INTO counts SELECT CAST(ts AS TIMESTAMP(3)), kind, 1 FROM numbers;";
    folder.write("job.sql", &format!("{before} {changed}"));
    let resume = ["run", "--local", "-f", "job.sql", "--resume"];
    let output = folder.run(&resume);
    assert_eq!(code(&output), 1, "{}", stderr(&output));
    assert!(error(&output).contains("which the job does not have"), "{}", error(&output));
    let output = folder.run(&[&resume[..], &["--allow-non-restored-state"]].concat());
    assert_eq!(code(&output), 0, "{}", stderr(&output));
}

#[test]
fn stop_job_with_savepoint_ends_a_job_of_a_script_and_shows_what_it_wrote() {
    let folder = Folder::new();
    let script = format!(
        "{} SET 'table.dml-sync' = 'false'; SET 'execution.checkpointing.savepoint-dir' = 'saved';
         CREATE TABLE out (n BIGINT) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'csv');
         INSERT INTO out SELECT n FROM ticks; STOP JOB '1' WITH SAVEPOINT;",
        super::TICKS
    );
    let output = folder.run(&["sql", "-e", &script]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(stderr(&output).contains("its savepoint is"), "{}", stderr(&output));
    let saved = files(&folder.path().join("saved"));
    assert_eq!(saved.len(), 1, "{saved:?}");
    assert!(saved[0].join("_metadata").exists());
    let nowhere =
        folder.run(&["sql", "-e", &script.replace("SET 'execution.checkpointing.savepoint-dir' = 'saved';", "")]);
    assert!(error(&nowhere).contains("savepoint-dir"), "{}", error(&nowhere));
}

/// How often each of a hundred thousand long keys came in one window: twice, and more than the memory of the job holds.
const MANY_KEYS: &str = "
    SET 'execution.runtime-mode' = 'streaming';
    SET 'execution.checkpointing.interval' = '300 ms';
    CREATE TABLE numbers (id BIGINT, ts AS TO_TIMESTAMP_LTZ(id, 3), WATERMARK FOR ts AS ts)
      WITH ('connector' = 'datagen', 'number-of-rows' = '200000', 'rows-per-second' = '40000',
            'fields.id.kind' = 'sequence', 'fields.id.start' = '0', 'fields.id.end' = '199999');
    CREATE TABLE counts (name STRING, n BIGINT) WITH ('connector' = 'filesystem', 'path' = 'counts', 'format' = 'csv');
    INSERT INTO counts SELECT name, COUNT(*) FROM
      TABLE(TUMBLE(TABLE (SELECT ts, REPEAT('long name ', 10) || CAST(id % 100000 AS STRING) AS name FROM numbers),
                   DESCRIPTOR(ts), INTERVAL '1' HOUR)) GROUP BY name, window_start, window_end;";

#[test]
fn a_job_that_needs_more_than_its_memory_goes_on_under_another_backend() {
    let folder = Folder::new();
    folder.write("job.sql", MANY_KEYS).write("tmp/readme", "state goes here");
    let legs = [
        ("rocksdb", None, Some("first")),
        ("memory", Some("first"), Some("second")),
        ("filesystem", Some("second"), None),
    ];
    for (parallelism, (backend, from, to)) in ["1", "2", "3"].into_iter().zip(legs) {
        let backend = format!("state.backend.type={backend}");
        let mut arguments = vec!["run", "--local", "-f", "job.sql", "-p", parallelism, "-D", &backend];
        arguments.extend(["-D", "taskmanager.memory.managed.size=8 mb", "-D", "io.tmp.dirs=tmp"]);
        arguments.extend(from.iter().flat_map(|from| ["-s", from]));
        let running = folder.command(&arguments).stderr(std::process::Stdio::piped()).spawn().unwrap();
        if let Some(to) = to {
            let is_of_state = |name: String| name.starts_with("tidemill-state-");
            let on_disk = || {
                std::fs::read_dir(folder.path().join("tmp"))
                    .unwrap()
                    .flatten()
                    .any(|entry| is_of_state(entry.file_name().to_string_lossy().into_owned()))
            };
            let begun = std::time::Instant::now();
            while !on_disk() {
                assert!(begun.elapsed() < Duration::from_secs(60), "nothing went to the local disk");
                std::thread::sleep(Duration::from_millis(20));
            }
            let stopped = folder.run(&["stop", "--dir", ".tidemill/job.sql", "--savepoint-path", to]);
            assert_eq!(code(&stopped), 0, "{}", stderr(&stopped));
        }
        let output = running.wait_with_output().unwrap();
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        std::fs::remove_dir_all(folder.path().join(".tidemill")).unwrap();
    }
    let counts = lines(&folder.path().join("counts"));
    let keys: std::collections::BTreeSet<&str> = counts.iter().filter_map(|line| line.strip_suffix(",2")).collect();
    assert_eq!((counts.len(), keys.len()), (100_000, 100_000));
}
