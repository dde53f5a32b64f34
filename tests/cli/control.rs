//! A running job and those who ask it for something: what they are told, and that the job survives what it cannot do for them.

use std::io::Write;
use std::net::TcpListener;
use std::process::Stdio;

use expect_test::expect;

use super::{Folder, Running, code, error, stderr, stdout, until, until_checkpoints};

/// Where the jobs of `job.sql` keep what they need.
const DIR: [&str; 2] = ["--dir", ".tidemill/job.sql"];

/// Counts in windows of a minute over rows of one second each, to files.
const COUNTS: &str = "
    SET 'execution.runtime-mode' = 'streaming'; SET 'execution.checkpointing.interval' = '100 ms';
    CREATE TABLE numbers (n BIGINT, ts AS TO_TIMESTAMP_LTZ(n * 1000, 3), WATERMARK FOR ts AS ts)
      WITH ('connector' = 'datagen', 'rows-per-second' = '500',
            'fields.n.kind' = 'sequence', 'fields.n.start' = '0', 'fields.n.end' = '9000000');
    CREATE TABLE counts (minute TIMESTAMP(3), n BIGINT)
      WITH ('connector' = 'filesystem', 'path' = 'counts', 'format' = 'csv');
    INSERT INTO counts SELECT window_start, COUNT(*)
      FROM TABLE(TUMBLE(TABLE numbers, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY window_start, window_end;";

fn start(folder: &Folder, arguments: &[&str]) -> Running {
    let arguments = [&["run", "--local", "-f", "job.sql", "-p", "1"], arguments].concat();
    Running(folder.command(&arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap())
}

fn ask(folder: &Folder, arguments: &[&str]) -> std::process::Output {
    folder.run(&[arguments, &DIR].concat())
}

/// What the only job says of itself.
fn info(folder: &Folder) -> Result<serde_json::Value, String> {
    let output = ask(folder, &["info", "--format", "json"]);
    match code(&output) {
        0 => Ok(serde_json::from_str::<serde_json::Value>(&stdout(&output)).unwrap()[0].clone()),
        _ => Err(stderr(&output)),
    }
}

/// The minutes in the files, and how many rows each has.
fn counts(folder: &Folder) -> Vec<(String, u64)> {
    let mut rows = Vec::new();
    for entry in std::fs::read_dir(folder.path().join("counts")).unwrap() {
        let path = entry.unwrap().path();
        if !path.file_name().unwrap().to_string_lossy().starts_with('.') {
            let text = std::fs::read_to_string(path).unwrap();
            let row = |line: &str| {
                let (minute, count) = line.split_once(',').unwrap();
                (minute.to_owned(), count.parse().unwrap())
            };
            rows.extend(text.lines().map(row));
        }
    }
    rows.sort();
    rows
}

#[test]
fn a_place_that_takes_no_savepoint_is_refused_and_the_job_goes_on() {
    let folder = Folder::new();
    folder.write("job.sql", COUNTS).write("full/x", "mine").write("file", "mine");
    let mut running = start(&folder, &["-D", "restart-strategy.type=none"]);
    until_checkpoints(&folder, 1);
    for (place, reason) in [("full", "is not empty"), ("file/below", "file/below"), ("file", "file")] {
        for arguments in [
            &["stop", "--savepoint-path", place][..],
            &["stop", "--drain", "--savepoint-path", place],
            &["savepoint", "counts", place],
        ] {
            let output = ask(&folder, arguments);
            assert_ne!(code(&output), 0, "{arguments:?}");
            assert!(error(&output).contains(reason), "{arguments:?}: {}", error(&output));
        }
    }
    let info = info(&folder).unwrap();
    assert_eq!((&info["state"], info["restarts"].as_u64()), (&"running".into(), Some(0)), "{info}");
    assert_eq!(info["checkpoints_failed"].as_u64(), Some(0), "{info}");
    until_checkpoints(&folder, info["checkpoints_completed"].as_u64().unwrap() + 2);
    let stopped = ask(&folder, &["stop", "--savepoint-path", "saved"]);
    assert_eq!(code(&stopped), 0, "{}", stderr(&stopped));
    assert!(running.0.wait().unwrap().success());
    assert_eq!(std::fs::read_to_string(folder.path().join("full/x")).unwrap(), "mine");
}

#[test]
fn a_drained_job_has_written_what_its_windows_held_and_is_not_run_again() {
    let folder = Folder::new();
    folder.write("job.sql", COUNTS);
    let running = start(&folder, &[]);
    until_checkpoints(&folder, 2);
    let stopped = ask(&folder, &["stop", "--drain", "--savepoint-path", "saved"]);
    assert_eq!(code(&stopped), 0, "{}", stderr(&stopped));
    assert!(stdout(&stopped).ends_with("/saved\n"), "{}", stdout(&stopped));
    let output = output_of(running);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let told = stderr(&output);
    assert!(told.contains("insert into counts drained and stopped; it has finished"), "{told}");
    assert!(!told.contains("--resume"), "{told}");

    // Every minute is there once, the last one as far as the rows had come.
    let found = counts(&folder);
    let (last, full) = found.split_last().unwrap();
    assert!(full.iter().all(|(_, count)| *count == 60) && (1..=60).contains(&last.1), "{found:?}");
    let minutes: std::collections::BTreeSet<&String> = found.iter().map(|(minute, _)| minute).collect();
    assert_eq!(minutes.len(), found.len());

    let again = folder.run(&["run", "--local", "-f", "job.sql", "-p", "1", "--resume"]);
    assert_eq!(code(&again), 0, "{}", stderr(&again));
    assert!(stderr(&again).contains("finished before, and was not run again"), "{}", stderr(&again));
    assert!(!stderr(&again).contains("goes on"), "{}", stderr(&again));
    assert_eq!(counts(&folder), found);

    // Nor does another job begin where its time was over.
    folder.write("next.sql", COUNTS);
    let ends = [
        ("saved", "/saved is a savepoint of a job that was drained"),
        (".tidemill/job.sql/counts", "/counts holds the checkpoints of a job that has finished"),
    ];
    for (from, reason) in ends {
        let refused = folder.run(&["run", "--local", "-f", "next.sql", "-p", "1", "-s", from]);
        assert_ne!(code(&refused), 0, "{}", stderr(&refused));
        assert!(error(&refused).contains(reason), "{}", error(&refused));
        assert!(stderr(&refused).contains("without --drain"), "{}", stderr(&refused));
        std::fs::remove_dir_all(folder.path().join(".tidemill/next.sql")).unwrap();
    }
    assert_eq!(counts(&folder), found);
}

/// How a process ended.
fn output_of(mut running: Running) -> std::process::Output {
    let mut text = Vec::new();
    std::io::Read::read_to_end(&mut running.0.stderr.take().unwrap(), &mut text).unwrap();
    let status = running.0.wait().unwrap();
    std::process::Output { status, stdout: Vec::new(), stderr: text }
}

#[test]
fn list_info_and_checkpoint_show_the_jobs_of_a_process() {
    let folder = Folder::new();
    let second =
        "CREATE TABLE others (n BIGINT) WITH ('connector' = 'blackhole'); INSERT INTO others SELECT n FROM numbers;";
    folder.write("job.sql", &format!("{COUNTS} {second}"));
    let running = start(&folder, &["-D", "execution.checkpointing.interval=1 h"]);
    until("the jobs", || {
        let listed = ask(&folder, &["list"]);
        if code(&listed) == 0 { Ok(()) } else { Err(stderr(&listed)) }
    });
    // The script says every 100 ms, and wins.
    let number: u64 = stdout(&ask(&folder, &["checkpoint", "counts"])).trim().parse().unwrap();
    let next: u64 = stdout(&ask(&folder, &["checkpoint", "1"])).trim().parse().unwrap();
    assert!(0 < number && number < next, "{number}, {next}");

    let of = |arguments: &[&str]| stdout(&ask(&folder, arguments));
    let without_numbers = |text: &str| {
        let digits = |word: &str| word.starts_with(|c: char| c.is_ascii_digit());
        let counted = |word: &str| if digits(word.trim_end_matches(',')) { "N".to_owned() } else { word.to_owned() };
        let lines = text.lines().map(|line| line.split(' ').map(counted).collect::<Vec<_>>().join(" "));
        lines.filter(|line| !line.starts_with("  ") || line.starts_with("  checkpoints")).collect::<Vec<_>>().join("\n")
    };
    expect![[r#"
        N counts: running
          checkpoints: N completed, N failed
        N others: running
          checkpoints: N completed, N failed"#]]
    .assert_eq(&without_numbers(&of(&["list"])));
    expect![[r#"
        N counts: running
          checkpoints: N completed, N failed"#]]
    .assert_eq(&without_numbers(&of(&["info", "counts"])));
    let tasks = of(&["info", "counts"]);
    assert!(tasks.contains("numRecordsOut"), "{tasks}");
    let lines: serde_json::Value = serde_json::from_str(&of(&["checkpoints", "counts", "--format", "json"])).unwrap();
    let asked = lines.as_array().unwrap().iter().find(|line| line["id"].as_u64() == Some(next)).unwrap();
    assert_eq!(asked["status"], "completed", "{asked}");
    let path = asked["path"].as_str().unwrap();
    assert!(path.contains(".tidemill/job.sql/counts/manifests/"), "{asked}");

    // There are two: one has to be named, by a name that is there.
    let which = ask(&folder, &["info"]);
    assert_eq!(code(&which), 2);
    assert!(error(&which).contains("there are several jobs: counts, others"), "{}", error(&which));
    let nobody = ask(&folder, &["savepoint", "saved/monday"]);
    assert_eq!(code(&nobody), 2);
    assert!(error(&nobody).contains("no job 'saved/monday'; there is counts, others"), "{}", error(&nobody));
    drop(running);
}

#[test]
fn a_checkpoint_is_begun_from_by_the_path_that_is_shown_of_it() {
    let folder = Folder::new();
    folder.write("job.sql", COUNTS).write("fork.sql", COUNTS);
    let retained = ["-D", "execution.checkpointing.num-retained=100"];
    let running = start(&folder, &retained);
    until_checkpoints(&folder, 4);
    let lines = stdout(&ask(&folder, &["checkpoints", "--format", "json"]));
    let lines: Vec<serde_json::Value> = serde_json::from_str(&lines).unwrap();
    drop(running);
    let second = lines.iter().filter(|line| line["status"] == "completed").nth(1).unwrap();
    let (id, path) = (second["id"].as_u64().unwrap(), second["path"].as_str().unwrap());
    let fork = ["run", "--local", "-f", "fork.sql", "-p", "1", "-s", path];
    let forked = Running(folder.command(&fork).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap());
    let dir = ["--dir", ".tidemill/fork.sql", "--savepoint-path", "saved"];
    until("the fork", || match folder.run(&[&["stop"], &dir[..]].concat()) {
        output if code(&output) == 0 => Ok(()),
        output => Err(stderr(&output)),
    });
    let told = stderr(&output_of(forked));
    // Not from the newest one, and people can read where the source stands.
    assert!(told.contains(&format!("goes on from checkpoint {id} in {path}\n")), "{told}");
    let position = told.lines().find(|line| line.contains("  numbers"));
    let (_, position) = position.and_then(|line| line.rsplit_once(": ")).unwrap_or_else(|| panic!("{told}"));
    let (split, row) = position.split_once(" at ").unwrap_or_else(|| panic!("{told}"));
    let number = |text: &str| text.parse::<u64>().unwrap_or_else(|_| panic!("{position}"));
    let (first, end) = split.split_once('-').map(|(first, end)| (number(first), number(end))).unwrap();
    assert!(number(row) > 0 && (first..=end).contains(&number(row)) && end < 9_000_001, "{position}");
    // One that is gone says so.
    let gone = path.replace("manifests/0", "manifests/1");
    let output =
        folder.run(&["run", "--local", "-f", "fork.sql", "-s", &gone, "-D", "execution.checkpointing.dir=other"]);
    assert!(error(&output).contains("is not there: its job may have deleted it"), "{}", error(&output));
}

#[test]
fn a_relative_path_of_a_savepoint_begins_where_the_command_runs() {
    let folder = Folder::new();
    folder.write("job.sql", COUNTS).write("below/readme", "");
    let running = start(&folder, &[]);
    until_checkpoints(&folder, 1);
    let below = |arguments: &[&str]| {
        let arguments = [arguments, &["--dir", "../.tidemill/job.sql"]].concat();
        let output = folder.command(&arguments).current_dir(folder.path().join("below")).output().unwrap();
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        assert!(stdout(&output).contains("/below/"), "{}", stdout(&output));
    };
    below(&["savepoint", "counts", "one"]);
    below(&["stop", "--savepoint-path", "./two"]);
    drop(running);
    for saved in ["one", "two"] {
        assert!(folder.path().join("below").join(saved).join("_metadata").exists(), "{saved}");
    }
}

#[test]
fn a_savepoint_without_a_place_goes_where_savepoints_are_kept_and_nothing_else_is_disposed_of() {
    let folder = Folder::new();
    folder.write("job.sql", COUNTS);
    let running = start(&folder, &["-D", "execution.checkpointing.savepoint-dir=kept"]);
    until_checkpoints(&folder, 1);
    let [first, second] = [(); 2].map(|()| {
        let output = ask(&folder, &["savepoint"]);
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        let place = stdout(&output).trim_end().to_owned();
        let (_, name) = place.rsplit_once("/kept/").unwrap_or_else(|| panic!("{place}"));
        assert!(name.starts_with("counts-"), "{place}");
        folder.path().join("kept").join(name).join("_metadata")
    });
    assert_ne!(first, second);
    drop(running);

    let manifests = || std::fs::read_dir(folder.path().join(".tidemill/job.sql/counts/manifests")).unwrap().count();
    let before = manifests();
    let dispose = |place: &str| folder.run(&["savepoint", "--dispose", place]);
    for place in ["nowhere", "kept", ".tidemill/job.sql/counts"] {
        let output = dispose(place);
        assert_eq!(code(&output), 1, "{place}");
        assert!(error(&output).contains(&format!("/{place}/_metadata' is missing")), "{}", error(&output));
    }
    assert!(before > 0 && manifests() == before, "{before}");
    assert!(first.exists() && second.exists());
    let output = dispose(first.parent().unwrap().to_str().unwrap());
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(!first.exists() && second.exists());
}

#[test]
fn of_a_job_that_failed_for_good_the_first_cause_is_shown_as_long_as_others_run() {
    let folder = Folder::new();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let failing = format!(
        "SET 'restart-strategy.type' = 'fixed-delay'; SET 'restart-strategy.fixed-delay.attempts' = '2';
         SET 'restart-strategy.fixed-delay.delay' = '50 ms';
         CREATE TABLE lines (line STRING)
           WITH ('connector' = 'socket', 'hostname' = '127.0.0.1', 'port' = '{port}', 'format' = 'raw', 'max-retries' = '0');
         CREATE TABLE out (line STRING) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'csv');
         INSERT INTO out SELECT line FROM lines;"
    );
    folder.write("job.sql", &format!("{COUNTS} {failing}"));
    let running = start(&folder, &[]);
    let shown = until("the end of a job", || {
        let output = ask(&folder, &["info", "out", "--format", "json"]);
        let job = serde_json::from_str::<serde_json::Value>(&stdout(&output)).map_err(|_| stderr(&output))?[0].clone();
        if job["state"] == "running" { Err(job.to_string()) } else { Ok(job) }
    });
    let (state, cause) = (shown["state"].as_str().unwrap(), shown["first_cause"].as_str().unwrap());
    assert!(
        state.starts_with("failed: ") && state.contains("after 2 restarts, the first of them because of: "),
        "{state}"
    );
    assert!(state.contains(cause) && cause.contains(&port.to_string()), "{cause}, {state}");
    assert_eq!(shown["restarts"].as_u64(), Some(2), "{shown}");
    let text = stdout(&ask(&folder, &["info", "out"]));
    assert!(text.contains(" out: failed: ") && text.contains(&format!("the first because of: {cause}")), "{text}");
    assert!(stdout(&ask(&folder, &["info", "counts"])).contains(" counts: running\n"));
    drop(running);
}

#[test]
fn the_first_cause_of_restarts_stays_and_is_shown() {
    let folder = Folder::new();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    folder.write(
        "job.sql",
        &format!(
            "SET 'execution.checkpointing.interval' = '100 ms'; SET 'restart-strategy.type' = 'fixed-delay';
             SET 'restart-strategy.fixed-delay.attempts' = '100000'; SET 'restart-strategy.fixed-delay.delay' = '50 ms';
             CREATE TABLE lines (line STRING)
               WITH ('connector' = 'socket', 'hostname' = '127.0.0.1', 'port' = '{port}', 'format' = 'raw', 'max-retries' = '0');
             CREATE TABLE out (line STRING) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'csv');
             INSERT INTO out SELECT line FROM lines;"
        ),
    );
    let running = start(&folder, &[]);
    let shown = until("two restarts", || match info(&folder)? {
        info if info["restarts"].as_u64().unwrap() >= 2 => Ok(info),
        info => Err(info.to_string()),
    });
    let cause = shown["first_cause"].as_str().unwrap();
    assert!(cause.contains(&port.to_string()) && cause.contains("refused"), "{cause}");
    let text = stdout(&ask(&folder, &["info"]));
    assert!(text.contains("restarts: ") && text.contains(&format!("the first because of: {cause}")), "{text}");
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let (mut connection, _) = listener.accept().unwrap();
    connection.write_all(b"one\ntwo\n").unwrap();
    drop((connection, listener));
    let output = output_of(running);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let told = stderr(&output);
    assert!(told.contains("insert into out restarts: ") && told.contains(" restarts\n"), "{told}");
}

#[test]
fn jobs_whose_sinks_look_alike_have_folders_of_their_own() {
    let folder = Folder::new();
    let sinks = ["a b", "a_b", "lock", "job.json", "control.json", "savepoints"];
    let mut script = "SET 'execution.checkpointing.interval' = '100 ms';
        CREATE TABLE ticks (n BIGINT) WITH ('connector' = 'datagen', 'rows-per-second' = '200');"
        .to_owned();
    for sink in sinks {
        script += &format!(
            "CREATE TABLE `{sink}` (n BIGINT) WITH ('connector' = 'blackhole'); INSERT INTO `{sink}` SELECT n FROM ticks;"
        );
    }
    folder.write("job.sql", &script);
    let running = start(&folder, &[]);
    for job in 1..=sinks.len() {
        until("a checkpoint of each", || {
            let asked = ask(&folder, &["checkpoint", &job.to_string()]);
            if code(&asked) == 0 { Ok(()) } else { Err(stderr(&asked)) }
        });
    }
    // One without a place goes beside the folders of jobs.
    let saved = ask(&folder, &["savepoint", "a_b"]);
    assert_eq!(code(&saved), 0, "{}", stderr(&saved));
    drop(running);
    let resumed = start(&folder, &["--resume"]);
    for job in 1..=sinks.len() {
        until("a checkpoint of each", || {
            let asked = ask(&folder, &["checkpoint", &job.to_string()]);
            if code(&asked) == 0 { Ok(()) } else { Err(stderr(&asked)) }
        });
    }
    drop(resumed);
}

#[test]
fn a_batch_says_that_it_takes_no_checkpoints_where_some_were_asked_for() {
    let folder = Folder::new();
    let script = "CREATE TABLE some (n BIGINT) WITH ('connector' = 'datagen', 'number-of-rows' = '10');
        CREATE TABLE out (n BIGINT) WITH ('connector' = 'blackhole'); INSERT INTO out SELECT n FROM some;";
    folder.write("job.sql", script);
    let run = |arguments: &[&str]| {
        let output = folder.run(&[&["run", "--local", "-f", "job.sql", "--resume"], arguments].concat());
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        stderr(&output).contains("insert into out runs as a batch and takes no checkpoints")
    };
    assert!(run(&["-D", "execution.checkpointing.interval=1 s", "-D", "execution.checkpointing.dir=a"]));
    assert!(!run(&["-D", "execution.checkpointing.dir=b"]));
    let streaming = ["-D", "execution.runtime-mode=streaming", "-D", "execution.checkpointing.interval=1 s"];
    assert!(!run(&[&streaming[..], &["-D", "execution.checkpointing.dir=c"]].concat()));
}
