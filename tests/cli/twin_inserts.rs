//! Several `INSERT`s into one table, as statements and as a set: each goes on with what it had, wherever it stands in the script.
//!
//! The queries have the same shape and types, so that nothing but what they say tells their states apart.

use super::recovery::lines;
use super::{Folder, code, error, killed_after_checkpoints, stderr};

const ROWS: u64 = 60_000;

/// All rows lie in one window: who takes over another one's sum gives a wrong one.
const PLUS: &str =
    "INSERT INTO out SELECT 1, SUM(id) FROM TABLE(TUMBLE(TABLE numbers, DESCRIPTOR(ts), INTERVAL '1' HOUR))
    GROUP BY window_start, window_end;";
const MINUS: &str =
    "INSERT INTO out SELECT 2, SUM(-id) FROM TABLE(TUMBLE(TABLE numbers, DESCRIPTOR(ts), INTERVAL '1' HOUR))
    GROUP BY window_start, window_end;";

/// Rows as they come, so that there are files in progress.
const ONES: &str = "INSERT INTO out SELECT 1, id FROM numbers;";
const TWOS: &str = "INSERT INTO out SELECT 2, id FROM numbers;";

fn script(rate: u64, statements: &str) -> String {
    let table = |name: &str| {
        format!(
            "CREATE TABLE {name} (kind BIGINT, n BIGINT)
               WITH ('connector' = 'filesystem', 'path' = '{name}', 'format' = 'csv');"
        )
    };
    format!(
        "SET 'execution.runtime-mode' = 'streaming'; SET 'execution.checkpointing.interval' = '100 ms';
         SET 'execution.batch-rows' = '256'; SET 'restart-strategy.type' = 'none';
         CREATE TABLE numbers (id BIGINT, ts AS TO_TIMESTAMP_LTZ(id, 3), WATERMARK FOR ts AS ts)
           WITH ('connector' = 'datagen', 'number-of-rows' = '{ROWS}', 'rows-per-second' = '{rate}',
                 'fields.id.kind' = 'sequence', 'fields.id.start' = '0', 'fields.id.end' = '{}');
         {} {} {statements}",
        ROWS - 1,
        table("out"),
        table("other")
    )
}

fn set(inserts: [&str; 2]) -> String {
    format!("EXECUTE STATEMENT SET BEGIN {} END;", inserts.concat())
}

/// Runs these statements until each job has two checkpoints, and kills the process.
fn killed(folder: &Folder, statements: &str) {
    folder.write("job.sql", &script(8_000, statements));
    killed_after_checkpoints(folder, 2, &["-p", "1"]);
}

/// Goes on with these statements; what standard error says.
fn resumed(folder: &Folder, statements: &str) -> std::process::Output {
    folder.write("job.sql", &script(1_000_000, statements));
    folder.run(&["run", "--local", "-f", "job.sql", "-p", "1", "--resume"])
}

fn goes_on(folder: &Folder, statements: &str, jobs: usize) {
    let output = resumed(folder, statements);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(stderr(&output).matches(" goes on from checkpoint ").count(), jobs, "{}", stderr(&output));
}

fn sums() -> Vec<String> {
    let sum = ROWS * (ROWS - 1) / 2;
    vec![format!("1,{sum}"), format!("2,-{sum}")]
}

fn out(folder: &Folder) -> Vec<String> {
    lines(&folder.path().join("out"))
}

fn rows_once() -> Vec<String> {
    let mut rows: Vec<String> = (0..ROWS).flat_map(|id| [format!("1,{id}"), format!("2,{id}")]).collect();
    rows.sort();
    rows
}

#[test]
fn statements_that_change_places_keep_their_state() {
    let folder = Folder::new();
    killed(&folder, &[PLUS, MINUS].concat());
    goes_on(&folder, &[MINUS, PLUS].concat(), 2);
    assert_eq!(out(&folder), sums());
    // Who they are is known from where they were, also to a third run.
    let again = resumed(&folder, &[PLUS, MINUS].concat());
    assert_eq!(stderr(&again).matches("finished before, and was not run again").count(), 2, "{}", stderr(&again));
}

#[test]
fn statements_that_change_places_keep_their_files() {
    let folder = Folder::new();
    killed(&folder, &[ONES, TWOS].concat());
    goes_on(&folder, &[TWOS, ONES].concat(), 2);
    assert!(out(&folder) == rows_once(), "{} rows", out(&folder).len());
}

#[test]
fn a_statement_that_has_changed_gets_what_is_left_and_of_two_nobody_guesses() {
    let folder = Folder::new();
    killed(&folder, &[PLUS, MINUS].concat());
    let changed = PLUS.replace("SELECT 1, SUM(id)", "SELECT 1, SUM(id + 0)");
    let both = resumed(&folder, &[changed.as_str(), &MINUS.replace("SELECT 2", "SELECT 1 + 1")].concat());
    assert_ne!(code(&both), 0);
    for part in ["insert into out: 2 statements", "one statement at a time"] {
        assert!(error(&both).contains(part), "{}", error(&both));
    }
    // It was refused before anything was touched.
    goes_on(&folder, &[MINUS, &PLUS.replace("SELECT 1, ", "SELECT 0 + 1, ")].concat(), 2);
    assert_eq!(out(&folder), sums());
}

#[test]
fn a_new_statement_does_not_take_what_one_had_that_went_before() {
    let folder = Folder::new();
    killed(&folder, &[PLUS, MINUS].concat());
    goes_on(&folder, MINUS, 1);
    let twice = PLUS.replace("SELECT 1, SUM(id)", "SELECT 3, SUM(id * 2)");
    goes_on(&folder, &[MINUS, &twice].concat(), 0);
    let twice_the_sum = format!("3,{}", ROWS * (ROWS - 1));
    assert_eq!(out(&folder), [sums()[1].clone(), twice_the_sum.clone()]);
    // Who comes back finds it.
    goes_on(&folder, &[MINUS, &twice, PLUS].concat(), 1);
    assert_eq!(out(&folder), [sums(), vec![twice_the_sum]].concat());
}

#[test]
fn inserts_that_change_places_in_a_set_keep_their_state() {
    let folder = Folder::new();
    killed(&folder, &set([PLUS, MINUS]));
    goes_on(&folder, &set([MINUS, PLUS]), 1);
    assert_eq!(out(&folder), sums());
}

#[test]
fn inserts_of_a_set_into_one_table_keep_their_files_apart() {
    let folder = Folder::new();
    killed(&folder, &set([ONES, TWOS]));
    goes_on(&folder, &set([TWOS, ONES]), 1);
    assert!(out(&folder) == rows_once(), "{} rows", out(&folder).len());
}

#[test]
fn an_insert_of_a_set_into_one_table_that_has_changed_is_refused() {
    let folder = Folder::new();
    killed(&folder, &set([ONES, TWOS]));
    let output = resumed(&folder, &set([ONES, &TWOS.replace("id", "id + 0")]));
    assert_eq!(code(&output), 1, "{}", stderr(&output));
    assert!(error(&output).contains("which the job does not have") || error(&output).contains("has yet to commit"));
    goes_on(&folder, &set([ONES, TWOS]), 1);
    assert!(out(&folder) == rows_once(), "{} rows", out(&folder).len());
}

#[test]
fn inserts_of_a_set_into_two_tables_are_told_apart_by_their_tables() {
    let folder = Folder::new();
    let minus = MINUS.replace("INTO out", "INTO other");
    killed(&folder, &set([PLUS, &minus]));
    // Also where the query has changed.
    goes_on(&folder, &set([&minus.replace("SELECT 2", "SELECT 1 + 1"), PLUS]), 1);
    assert_eq!([out(&folder), lines(&folder.path().join("other"))].concat(), sums());
}
