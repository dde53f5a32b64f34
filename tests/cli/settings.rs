//! Where settings come from, and what a wrong one says.

use std::process::Output;

use super::{Folder, code, error, stderr, stdout};

/// The value and origin of a setting, as `SET` lists it.
fn setting(output: &Output, key: &str) -> String {
    let text = stdout(output);
    let line = text.lines().find(|line| line.starts_with(&format!("{key},")));
    line.unwrap_or_else(|| panic!("{text}{}", stderr(output))).to_owned()
}

#[test]
fn the_stronger_source_of_a_setting_wins() {
    let key = "execution.batch-rows";
    let folder = Folder::new();
    folder.write(".config/tidemill/tidemill.yaml", "execution.batch-rows: 1\n");
    assert_eq!(setting(&folder.run(&["sql", "-e", "SET"]), key), "execution.batch-rows,1,file");
    folder.write("tidemill.yaml", "execution:\n  batch-rows: 2\n");
    assert_eq!(setting(&folder.run(&["sql", "-e", "SET"]), key), "execution.batch-rows,2,file");
    folder.write("other.yaml", "execution.batch-rows: 3\n");
    let with_file = ["sql", "--config", "other.yaml", "-e", "SET"];
    assert_eq!(setting(&folder.run(&with_file), key), "execution.batch-rows,3,file");
    let mut command = folder.command(&with_file);
    let output = command.env("TIDEMILL_EXECUTION__BATCH_ROWS", "4").output().unwrap();
    assert_eq!(setting(&output, key), "execution.batch-rows,4,environment");
    let mut command = folder.command(&["sql", "-D", "execution.batch-rows=5", "-e", "SET"]);
    let output = command.env("tidemill_execution__batch_rows", "4").output().unwrap();
    assert_eq!(setting(&output, key), "execution.batch-rows,5,command line");
    let output = folder.run(&["sql", "-D", "execution.batch-rows=5", "-e", "SET 'execution.batch-rows' = '6'; SET"]);
    assert_eq!(setting(&output, key), "execution.batch-rows,6,SET");
    let output = folder.run(&["sql", "-p", "3", "-e", "SET"]);
    assert_eq!(setting(&output, "parallelism.default"), "parallelism.default,3,command line");
}

#[test]
fn a_wrong_setting_names_its_source() {
    let folder = Folder::new();
    folder.write("tidemill.yaml", "parallelism:\n  defualt: 2\n");
    let output = folder.run(&["sql", "-e", "SELECT 1"]);
    assert_eq!(code(&output), 2);
    for part in ["tidemill.yaml", "parallelism.defualt", "did you mean 'parallelism.default'?"] {
        assert!(error(&output).contains(part), "{}", error(&output));
    }
    folder.write("tidemill.yaml", "state.backend: memory\n");
    let output = folder.run(&["sql", "-e", "SELECT 1"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(stderr(&output).matches("warning: ").count(), 1, "{}", stderr(&output));
    assert!(stderr(&output).contains("state.backend.type"), "{}", stderr(&output));
    let mut command = folder.command(&["sql", "-e", "SELECT 1"]);
    let output = command.env("TIDEMILL_REST__PROT", "1").output().unwrap();
    assert!(code(&output) == 2 && error(&output).contains("TIDEMILL_REST__PROT"), "{}", stderr(&output));
}

/// The backend says where checkpoints have to go; a plan that takes none does not ask.
#[test]
fn checkpoints_of_the_filesystem_backend_need_a_folder() {
    let folder = Folder::new();
    let script = |settings: &str| {
        format!(
            "SET 'state.backend.type' = 'filesystem'; SET 'execution.checkpointing.interval' = '100 ms'; {settings}
             CREATE TABLE numbers (n BIGINT) WITH ('connector' = 'datagen', 'number-of-rows' = '10');
             CREATE TABLE nowhere (n BIGINT) WITH ('connector' = 'blackhole');
             INSERT INTO nowhere SELECT n FROM numbers;"
        )
    };
    let streaming = "SET 'execution.runtime-mode' = 'streaming'; SET 'table.dml-sync' = 'true';";
    let output = folder.run(&["sql", "-e", &script(streaming)]);
    assert_ne!(code(&output), 0);
    for part in ["filesystem", "execution.checkpointing.dir"] {
        assert!(stderr(&output).contains(part), "{}", stderr(&output));
    }
    let with_folder = format!("{streaming} SET 'execution.checkpointing.dir' = 'checkpoints';");
    for settings in [with_folder.as_str(), "SET 'execution.runtime-mode' = 'batch'; SET 'table.dml-sync' = 'true';"] {
        let output = folder.run(&["sql", "-e", &script(settings)]);
        assert_eq!(code(&output), 0, "{}", stderr(&output));
    }
}
