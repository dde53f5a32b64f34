//! Text in and text out.

use tidemill::stream::{Environment, WriteMode};

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
