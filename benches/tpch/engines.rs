//! The engines of the table: how a pass of each is started, and what it says.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use tidemill::{Error, Result};

use crate::common::process::{Scripts, again, lines, root};
use crate::common::progress;

/// The seconds of each query in one pass; a query that the engine cannot answer is missing.
pub type Pass = BTreeMap<usize, f64>;

/// An engine, and how a process of it is started.
pub struct Engine {
    /// Its name in the table.
    pub name: &'static str,
    program: PathBuf,
    arguments: Vec<String>,
}

impl Engine {
    /// The command of one pass.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments);
        command
    }

    /// Runs one pass. The engine prints a line for each query: its number and seconds, or a `-`.
    pub fn pass(&self) -> Result<Pass> {
        let mut pass = Pass::new();
        for line in lines(&mut self.command())? {
            match line.split_once(' ').map(|(query, seconds)| (query.parse(), seconds, seconds.parse())) {
                Some((Ok(query), _, Ok(seconds))) => drop(pass.insert(query, seconds)),
                Some((Ok(_), "-", _)) => {}
                _ => return Err(Error::internal(format!("{} printed '{line}'", self.name))),
            }
        }
        Ok(pass)
    }
}

/// All engines; the first is ours, the second DataFusion. `set` are settings of ours.
pub fn all(scripts: &Scripts, folder: &Path, queries: &[usize], set: &str) -> Result<Vec<Engine>> {
    let folder = folder.display().to_string();
    let numbers: Vec<String> = queries.iter().map(usize::to_string).collect();
    let list = numbers.join(",");
    let rust = |name: &'static str, program: PathBuf, more: &[&str]| {
        let fixed = ["--folder", &folder, "--queries", &list];
        let arguments = more.iter().chain(&fixed).map(|argument| (*argument).to_owned()).collect();
        Engine { name, program, arguments }
    };
    let python = |name: &'static str| {
        let script = root().join("benches/tpch/peers.py").display().to_string();
        let fixed = [script, name.to_lowercase(), "2".to_owned(), folder.clone()];
        let arguments = fixed.into_iter().chain(numbers.iter().cloned()).collect();
        Engine { name, program: scripts.python.clone(), arguments }
    };
    Ok(vec![
        rust("tidemill", again()?.get_program().into(), &["--pass", "--set", set]),
        rust("DataFusion", build_datafusion()?, &[]),
        python("DuckDB"),
        python("Polars"),
    ])
}

/// Builds `datafusion.rs` the way this program was built, and says where it is.
fn build_datafusion() -> Result<PathBuf> {
    progress("building DataFusion's binary");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    // The whole workspace, because features of dependencies are those of all that is built together.
    build.args(["bench", "--workspace", "--locked", "--no-run", "--bench", "tpch_datafusion"]);
    let messages = lines(build.arg("--message-format=json").current_dir(root()))?;
    let executable = |line: &String| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let path = message["executable"].as_str().filter(|_| message["target"]["name"] == "tpch_datafusion");
        path.map(PathBuf::from)
    };
    let path = messages.iter().find_map(executable);
    path.ok_or_else(|| Error::internal("cargo built no tpch_datafusion"))
}
