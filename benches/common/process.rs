//! Other processes: this benchmark once more with other arguments, and the project's scripts.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tidemill::{Error, Result};

/// The checkout, where cargo runs a benchmark. Not as it was when that was compiled: clones share their builds.
pub fn root() -> &'static Path {
    Path::new(".")
}

/// This program, to be run once more: what is measured in a process of its own starts with fresh memory and cold code.
pub fn again() -> Result<Command> {
    Ok(Command::new(std::env::current_exe()?))
}

/// Runs `command` to its end and gives the lines that it printed; standard error goes where ours goes.
pub fn lines(command: &mut Command) -> Result<Vec<String>> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.map_err(|error| Error::from(error).context(&name))?;
    if !output.status.success() {
        return Err(Error::internal(format!("{name}: {}", output.status)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}

/// What the scripts keep in their cache folder.
pub struct Scripts {
    /// A Python with the packages that the scripts pin.
    pub python: PathBuf,
    /// The folder of inputs.
    data: PathBuf,
}

impl Scripts {
    /// Asks the scripts where that is; they install what is missing.
    pub fn find() -> Result<Self> {
        let ask = "source scripts/env.sh\nneed_python_packages\nprintf '%s\\n' \"$venv\" \"$data\"";
        let answer = lines(Command::new("bash").args(["-c", ask]).current_dir(root()))?;
        match answer.as_slice() {
            [venv, data] => Ok(Self { python: Path::new(venv).join("bin/python"), data: data.into() }),
            _ => Err(Error::internal(format!("scripts/env.sh answered {answer:?}"))),
        }
    }

    /// The folder of the TPC-H tables at this scale factor, written if it is not there.
    pub fn tpch(&self, scale: &str) -> Result<PathBuf> {
        let folder = self.data.join(format!("tpch-sf{scale}"));
        lines(Command::new(&self.python).arg(root().join("scripts/tpch.py")).arg(scale).arg(&folder))?;
        Ok(folder)
    }
}
