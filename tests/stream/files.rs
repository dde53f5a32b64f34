//! Text in and text out.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tidemill::stream::{Environment, JobHandle, WriteMode};

use super::recovery::has_checkpoint;
use super::{Setup, one};

#[test]
fn lines_come_in_and_go_out() {
    let directory = tempfile::tempdir().unwrap();
    let input = directory.path().join("in.txt");
    let lines: Vec<String> = (0..3_000).map(|n| format!("line {n}")).collect();
    std::fs::write(&input, lines.join("\n")).unwrap();
    for (number, setup) in Setup::grid().into_iter().enumerate() {
        let environment = setup.environment();
        let output = directory.path().join(format!("out {number}"));
        let text = environment.read_text_file(input.to_str().unwrap());
        text.map(|line| line).write_as_text(output.to_str().unwrap(), WriteMode::NoOverwrite);
        environment.execute("copy").unwrap();
        let written = match setup.parallelism {
            1 => std::fs::read_to_string(&output).unwrap(),
            many => (1..=many).map(|part| std::fs::read_to_string(output.join(part.to_string())).unwrap()).collect(),
        };
        let mut written: Vec<&str> = written.lines().collect();
        written.sort_unstable();
        let mut expected: Vec<&str> = lines.iter().map(String::as_str).collect();
        expected.sort_unstable();
        assert_eq!(written, expected, "{setup:?}");
    }
}

#[test]
fn an_existing_file_is_kept_unless_told_otherwise() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("out.txt");
    std::fs::write(&path, "old").unwrap();
    let write = |mode| {
        let environment = one();
        environment.from_elements([1i64, 2]).write_as_text(path.to_str().unwrap(), mode);
        environment.execute("write")
    };
    assert!(write(WriteMode::NoOverwrite).unwrap_err().to_string().contains("exists already"));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
    write(WriteMode::Overwrite).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "1\n2\n");
}

#[test]
fn csv_has_the_fields_of_the_record() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("out.csv");
    let environment = one();
    let rows = environment.from_elements([("a,b".to_owned(), Some(1i64)), ("c".to_owned(), None)]);
    rows.write_as_csv(path.to_str().unwrap(), WriteMode::NoOverwrite);
    environment.execute("csv").unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "\"a,b\",1\nc,\n");
}

#[test]
fn several_sinks_run_in_one_job() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let environment = Environment::local();
    environment.set_parallelism(1);
    let numbers = environment.generate_sequence(1, 3);
    numbers.map(|n| n * 2).write_as_text(&path("doubled"), WriteMode::NoOverwrite);
    numbers.map(|n| n * 3).write_as_text(&path("tripled"), WriteMode::NoOverwrite);
    // Names that differ in signs which names of parts do not have.
    numbers.map(|n| n * 4).write_as_text(&path("ä.txt"), WriteMode::NoOverwrite);
    numbers.map(|n| n * 5).write_as_text(&path("ö.txt"), WriteMode::NoOverwrite);
    environment.execute("all").unwrap();
    assert_eq!(std::fs::read_to_string(path("ä.txt")).unwrap(), "4\n8\n12\n");
    assert_eq!(std::fs::read_to_string(path("ö.txt")).unwrap(), "5\n10\n15\n");
    assert_eq!(std::fs::read_to_string(path("doubled")).unwrap(), "2\n4\n6\n");
    assert_eq!(std::fs::read_to_string(path("tripled")).unwrap(), "3\n6\n9\n");
}

/// All that is there, hidden files too.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    names
}

/// It was killed when it had taken checkpoints, which were in memory; what they committed is hidden until the end.
#[test]
fn a_run_shows_nothing_of_an_earlier_one_that_was_killed() {
    for parallelism in [1, 2] {
        let directory = tempfile::tempdir().unwrap();
        let output = directory.path().join("out");
        let hidden = if parallelism == 1 { directory.path() } else { output.as_path() };
        std::fs::create_dir_all(hidden).unwrap();
        std::fs::write(hidden.join(".part-copy-out.1-0-0.raw.ready"), "another run\n").unwrap();
        let environment = Setup { parallelism, gate: "0 ms", batch_rows: 4 }.environment();
        environment.generate_sequence(1, 3).write_as_text(output.to_str().unwrap(), WriteMode::NoOverwrite);
        environment.execute("copy").unwrap();
        assert_eq!(lines(&output, parallelism), ["1", "2", "3"], "{parallelism}");
        assert_eq!(names(directory.path()), ["out"]);
    }
}

/// The lines of a file, or of those of a folder, sorted.
fn lines(output: &Path, parallelism: usize) -> Vec<String> {
    let files: Vec<_> = match parallelism {
        1 => vec![output.to_owned()],
        many => (1..=many).map(|number| output.join(number.to_string())).collect(),
    };
    let text: String = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort_unstable();
    lines
}

const ROWS: i64 = 3000;

/// Starts a program that writes the numbers to [`ROWS`], and is slow when so many of them have gone by in all; waits until it is.
fn copy(
    output: &Path,
    gone_by: &Arc<AtomicUsize>,
    fast: usize,
    parallelism: usize,
    settings: &[(&str, &str)],
) -> JobHandle {
    let environment = Environment::local_with(Setup { parallelism, gate: "0 ms", batch_rows: 4 }.settings());
    for (key, value) in settings {
        environment.set(key, value);
    }
    let count = gone_by.clone();
    let numbers = environment.generate_sequence(1, ROWS).map(move |n| {
        if count.fetch_add(1, Ordering::SeqCst) > fast {
            std::thread::sleep(Duration::from_millis(2));
        }
        n
    });
    numbers.write_as_text(output.to_str().unwrap(), WriteMode::NoOverwrite).uid("file");
    let job = environment.execute_async("copy").unwrap();
    while fast < ROWS as usize && gone_by.load(Ordering::SeqCst) < fast {
        assert!(job.outcome().is_none(), "{:?}", job.outcome());
        std::thread::sleep(Duration::from_millis(1));
    }
    job
}

#[test]
fn files_go_on_at_another_parallelism() {
    let mut expected: Vec<String> = (1..=ROWS).map(|n| n.to_string()).collect();
    expected.sort_unstable();
    for parallelisms in [[1, 3, 1], [3, 1, 2], [3, 2, 2]] {
        let folder = tempfile::tempdir().unwrap();
        let (output, kept) = (folder.path().join("out"), folder.path().join("kept").display().to_string());
        let gone_by = Arc::new(AtomicUsize::new(0));
        let settings = [("execution.checkpointing.interval", "10 ms"), ("execution.checkpointing.dir", kept.as_str())];

        // One is stopped behind a savepoint, the next given up.
        let saved = folder.path().join("saved").display().to_string();
        let job = copy(&output, &gone_by, 500, parallelisms[0], &settings);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(job.stop(false, &saved)).unwrap();
        let from = [&settings[..], &[("execution.state-recovery.path", saved.as_str())]].concat();
        let job = copy(&output, &gone_by, 1500, parallelisms[1], &from);
        while !has_checkpoint(Path::new(job.checkpoints().unwrap())) {
            assert!(job.outcome().is_none(), "{:?}", job.outcome());
            std::thread::sleep(Duration::from_millis(5));
        }
        job.cancel();
        job.join().unwrap_err();
        let from = [&settings[..], &[("execution.state-recovery.path", job.checkpoints().unwrap())]].concat();
        copy(&output, &gone_by, usize::MAX, parallelisms[2], &from).join().unwrap();

        assert_eq!(lines(&output, parallelisms[2]), expected, "{parallelisms:?}");
        assert_eq!(names(folder.path()), ["kept", "out", "saved"], "{parallelisms:?}");
    }
}

/// What was committed up to a savepoint belongs to whoever begins from it, and not to one who did and came to no checkpoint.
#[test]
fn who_gives_up_behind_a_savepoint_takes_nothing_from_the_next() {
    let mut expected: Vec<String> = (1..=ROWS).map(|n| n.to_string()).collect();
    expected.sort_unstable();
    for (first, second) in [(1, 1), (2, 2), (2, 1)] {
        let folder = tempfile::tempdir().unwrap();
        let (output, kept) = (folder.path().join("out"), folder.path().join("kept").display().to_string());
        let (gone_by, saved) = (Arc::new(AtomicUsize::new(0)), folder.path().join("saved").display().to_string());
        let settings =
            |interval| [("execution.checkpointing.interval", interval), ("execution.checkpointing.dir", kept.as_str())];
        let job = copy(&output, &gone_by, 500, first, &settings("10 ms"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(job.stop(false, &saved)).unwrap();

        let from = [&settings("1 h")[..], &[("execution.state-recovery.path", saved.as_str())]].concat();
        let job = copy(&output, &gone_by, 1500, second, &from);
        job.cancel();
        job.join().unwrap_err();
        assert!(!has_checkpoint(Path::new(job.checkpoints().unwrap())));
        copy(&output, &gone_by, usize::MAX, first, &from).join().unwrap();
        assert_eq!(lines(&output, first), expected, "{first} and {second}");
        assert_eq!(names(folder.path()), ["kept", "out", "saved"], "{first} and {second}");
    }
}
