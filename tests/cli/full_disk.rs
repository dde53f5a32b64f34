//! A disk that is full while a job writes checkpoints and files to it: an error that says so, and no row lost or repeated when
//! there is room again.
//!
//! The disk is a small one in memory, mounted where only the processes of the test see it.

use std::process::{Command, Output};

use super::recovery::{ROWS, check_answer, script};
use super::{Folder, stderr};

/// Runs shell commands in a folder on a disk of 4 MB, of which `ballast` takes all but half a megabyte, and copies the job's files out at the
/// end.
fn on_a_small_disk(folder: &Folder, commands: &str) -> Output {
    folder.write("job.sql", &script(20_000));
    let text = format!(
        "set -eu
         mkdir small && mount -t tmpfs -o size=4m tmpfs small && cd small && cp ../job.sql .
         head -c 3600000 /dev/zero > ballast
         run() {{ \"$BINARY\" run --local -f job.sql \"$@\"; }}
         {commands}
         cp -r copies counts .."
    );
    // Who is not root becomes it within.
    let user = Command::new("id").arg("-u").output().unwrap();
    let spaces: &[&str] = match user.stdout.starts_with(b"0\n") {
        true => &["--mount"],
        false => &["--user", "--map-root-user", "--mount"],
    };
    let mut unshare = Command::new("unshare");
    unshare.args(spaces).args(["bash", "-c", &text]).current_dir(folder.path());
    unshare.env("BINARY", env!("CARGO_BIN_EXE_tidemill")).output().unwrap()
}

#[test]
fn a_job_that_may_not_restart_says_that_the_disk_is_full_and_goes_on_when_it_is_not() {
    let folder = Folder::new();
    let output = on_a_small_disk(
        &folder,
        "if run -D restart-strategy.type=none; then echo 'the disk was not full' >&2; exit 1; fi
         rm ballast; run --resume",
    );
    let said = stderr(&output);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("No space left on device"), "{said}");
    check_answer(&folder);
}

#[test]
fn a_job_that_restarts_goes_on_by_itself_when_there_is_room_again() {
    let folder = Folder::new();
    let output = on_a_small_disk(
        &folder,
        "run & job=$!
         until [ $(stat -f -c %a .) -lt 4 ]; do sleep 0.02; kill -0 $job; done
         sleep 0.5; rm ballast; wait $job",
    );
    let said = stderr(&output);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("No space left on device"), "of {ROWS} rows: {said}");
    check_answer(&folder);
}
