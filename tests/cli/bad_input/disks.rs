//! Disks that run full: where rows are spilled, and where results go.
//!
//! Each test mounts a disk of one megabyte. Where that is not allowed the test says so and proves nothing.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::super::{Folder, code, stderr};
use super::{MODES, refused, visible_files};

/// Some ten megabytes of rows.
const ROWS: &str = "CREATE TABLE g (k BIGINT, s STRING) WITH ('connector' = 'datagen', 'number-of-rows' = '100000');";

/// A disk of one megabyte, mounted below a folder.
struct TinyDisk(PathBuf);

impl TinyDisk {
    /// `None`, and a word about it, where nothing can be mounted.
    fn mount(folder: &Folder) -> Option<Self> {
        let place = folder.path().join("disk");
        std::fs::create_dir(&place).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(&place).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(place));
        }
        // Past the test harness, which shows only what failing tests print.
        let _ = writeln!(std::io::stderr(), "SKIPPED: no disk can be mounted here, so none runs full");
        None
    }

    fn path(&self) -> &Path {
        &self.0
    }

    fn is_empty(&self) -> bool {
        std::fs::read_dir(&self.0).unwrap().next().is_none()
    }
}

impl Drop for TinyDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).output();
    }
}

/// Runs a script in little memory that spills to `disk`.
fn spilling(folder: &Folder, disk: &TinyDisk, settings: &[&str], script: &str) -> std::process::Output {
    let dirs = format!("io.tmp.dirs={}", disk.path().display());
    let settings = [dirs.as_str(), "taskmanager.memory.process.size=20mb"].into_iter().chain(settings.iter().copied());
    let mut command = folder.command(&["sql", "-e", script]);
    settings.for_each(|setting| {
        command.args(["-D", setting]);
    });
    command.output().unwrap()
}

#[test]
fn a_full_disk_for_blocked_rows() {
    let folder = Folder::new();
    let Some(disk) = TinyDisk::mount(&folder) else { return };
    let network = ["taskmanager.memory.network.min=1mb", "taskmanager.memory.network.max=1mb"];
    let sink =
        "CREATE TABLE o (k BIGINT, n BIGINT) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'csv');";
    // OVER windows run as a batch only.
    let written = "INSERT INTO o SELECT k, ROW_NUMBER() OVER (PARTITION BY k ORDER BY s) FROM g";
    let shown = "SELECT s, COUNT(*) AS n FROM g GROUP BY s";
    for (mode, statement) in [("batch", written), ("streaming", shown)] {
        let mode = format!("execution.runtime-mode={mode}");
        let settings = ["execution.buffer-timeout=infinite", "parallelism.default=2", &mode, network[0], network[1]];
        let script = format!("{ROWS}{sink} {statement}");
        let output = spilling(&folder, &disk, &settings, &script);
        let place = format!("cannot write spill file {}/", disk.path().display());
        refused(&output, 1, &[&place, "No space left on device", "set io.tmp.dirs to another disk"]);
        assert!(disk.is_empty(), "spilled rows are left behind");
        assert_eq!(visible_files(folder.path()), Vec::<String>::new());
    }
}

#[test]
fn a_full_disk_for_sorted_rows() {
    let folder = Folder::new();
    let Some(disk) = TinyDisk::mount(&folder) else { return };
    let script = format!("{ROWS} COPY (SELECT k, s FROM g ORDER BY s) TO 'sorted.csv'");
    let output = spilling(&folder, &disk, &["parallelism.default=1"], &script);
    refused(&output, 1, &["No space left on device", "Sort (1/1)", "io.tmp.dirs"]);
    assert!(disk.is_empty(), "spilled rows are left behind");
    assert_eq!(visible_files(folder.path()), Vec::<String>::new());
}

#[test]
fn a_full_disk_for_one_file() {
    let folder = Folder::new();
    let Some(disk) = TinyDisk::mount(&folder) else { return };
    for format in ["csv", "json", "parquet", "arrow"] {
        let output = folder.sql(&format!("{ROWS} COPY (SELECT * FROM g) TO 'disk/f.{format}'"));
        refused(&output, 1, &["/disk/.part-", "No space left on device", "free some space there, or write elsewhere"]);
        assert!(disk.is_empty(), "{format}: {:?}", visible_files(disk.path()));
    }
}

#[test]
fn a_full_disk_for_a_table() {
    let folder = Folder::new();
    let Some(disk) = TinyDisk::mount(&folder) else { return };
    let table =
        "CREATE TABLE o (k BIGINT, s STRING) WITH ('connector' = 'filesystem', 'path' = 'disk/o', 'format' = 'csv');";
    let parts = ["/disk/o/.part-", "No space left on device", "free some space there, or write elsewhere"];
    for mode in MODES {
        refused(&folder.sql_as(mode, &format!("{ROWS}{table} INSERT INTO o SELECT * FROM g")), 1, &parts);
        assert_eq!(visible_files(disk.path()), Vec::<String>::new());
    }
    let output = folder.sql(&format!("{table} INSERT INTO o VALUES (7, 'kept')"));
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let kept = visible_files(disk.path());
    for insert in ["INSERT INTO", "INSERT OVERWRITE"] {
        refused(&folder.sql(&format!("{ROWS}{table} {insert} o SELECT * FROM g")), 1, &parts);
        assert_eq!(visible_files(disk.path()), kept, "what was there stays, and stays alone");
    }
    assert_eq!(std::fs::read_to_string(disk.path().join(&kept[0])).unwrap(), "7,kept\n");
}
