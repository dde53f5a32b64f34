//! Tells the build which commit it is made from, for `tidemill --version`.
//!
//! `TIDEMILL_COMMIT` wins where it is set (packagers build without a repository); without it and without git nothing is told.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=TIDEMILL_COMMIT");
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var_os("TIDEMILL_COMMIT").is_some() {
        return;
    }
    let Some(root) = git(&["rev-parse", "--show-toplevel"]) else { return };
    // A copy of the sources inside somebody else's repository has nothing to do with that one's commits.
    let here = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    let is_same = Path::new(&root).canonicalize().ok() == Path::new(&here).canonicalize().ok();
    if !is_same {
        return;
    }
    // The reflog grows with every commit and checkout, whatever the branch.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]).filter(|log| Path::new(log).exists()) {
        println!("cargo::rerun-if-changed={log}");
    }
    if let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) {
        println!("cargo::rustc-env=TIDEMILL_COMMIT={commit}");
    }
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}
