//! Where settings come from: a file, the environment, the command line. `SET` adds to them later.
//!
//! Every source is read into [`Settings`] under its own origin, so the order of reading does not matter. A key that nobody
//! knows is an error that names its source.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_yaml_ng::Value;
use tidemill_core::settings::{KEYS, Origin};
use tidemill_core::{Error, Result, Settings};

use super::args::SettingArguments;

const FILE_NAME: &str = "tidemill.yaml";
const PREFIX: &str = "TIDEMILL_";

/// The settings that the arguments, the environment and a file make, and what deserves a warning about them.
pub fn load(arguments: &SettingArguments) -> Result<(Settings, Vec<String>)> {
    let mut loaded = Loaded::default();
    if let Some(file) = file(arguments.config.as_deref()) {
        loaded.file(&file)?;
    }
    loaded.environment(
        std::env::vars_os().filter_map(|(name, value)| name.into_string().ok().zip(value.into_string().ok())),
    )?;
    for (key, value) in &arguments.define {
        loaded.set(key, value, Origin::CommandLine, "-D")?;
    }
    if let Some(parallelism) = arguments.parallelism {
        loaded.set("parallelism.default", &parallelism.to_string(), Origin::CommandLine, "-p")?;
    }
    Ok((loaded.settings, loaded.warnings.into_iter().collect()))
}

/// The file that is named, else the first of the usual ones that exists.
fn file(named: Option<&Path>) -> Option<PathBuf> {
    if let Some(named) = named {
        return Some(named.to_owned());
    }
    let here = PathBuf::from(FILE_NAME);
    let home = xdg("XDG_CONFIG_HOME", ".config").map(|config| config.join("tidemill").join(FILE_NAME));
    [Some(here), home].into_iter().flatten().find(|file| file.is_file())
}

/// A directory of the XDG specification: from its variable, else below the home directory.
pub fn xdg(variable: &str, below_home: &str) -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute(variable).or_else(|| absolute("HOME").map(|home| home.join(below_home)))
}

#[derive(Default)]
struct Loaded {
    settings: Settings,
    /// A set, so that an older name used twice is mentioned once.
    warnings: BTreeSet<String>,
}

impl Loaded {
    fn set(&mut self, key: &str, value: &str, origin: Origin, source: &str) -> Result<()> {
        let warning = self.settings.set(key, value, origin).map_err(|error| error.context(source))?;
        self.warnings.extend(warning.map(|warning| format!("{source}: {warning}")));
        Ok(())
    }

    fn file(&mut self, file: &Path) -> Result<()> {
        let name = file.display().to_string();
        let text = std::fs::read_to_string(file)
            .map_err(|error| Error::from(error).context(format!("cannot read the settings in '{name}'")))
            .map_err(|error| error.with_hint("check the path"))?;
        let mut pairs = Vec::new();
        let document: Value = serde_yaml_ng::from_str(&text).map_err(|error| {
            let error = Error::request(format!("'{name}' is not YAML: {error}"));
            error.with_hint("settings are lines such as 'parallelism.default: 4'")
        })?;
        flatten(&document, String::new(), &mut pairs).map_err(|error| error.context(&name))?;
        let mut seen = BTreeSet::new();
        for (key, value) in pairs {
            if !seen.insert(key.clone()) {
                return Err(Error::request(format!("{name}: setting '{key}' is given twice, flat and nested")));
            }
            self.set(&key, &value, Origin::File, &name)?;
        }
        Ok(())
    }

    /// `TIDEMILL_STATE__BACKEND__TYPE` is `state.backend.type`.
    ///
    /// Settings have a dot in their names, so a variable without `__` that is no setting is someone else's.
    fn environment(&mut self, variables: impl Iterator<Item = (String, String)>) -> Result<()> {
        for (name, value) in variables {
            let Some(rest) = name.get(..PREFIX.len()).filter(|start| start.eq_ignore_ascii_case(PREFIX)) else {
                continue;
            };
            let rest = &name[rest.len()..];
            match setting_of(rest) {
                Some(key) => self.set(key, &value, Origin::Environment, &name)?,
                None if rest.contains("__") => {
                    let key = rest.to_lowercase().replace("__", ".").replace('_', "-");
                    self.set(&key, &value, Origin::Environment, &name)?;
                }
                None => {}
            }
        }
        Ok(())
    }
}

fn setting_of(variable: &str) -> Option<&'static str> {
    let names = KEYS.iter().flat_map(|spec| std::iter::once(spec.name).chain(spec.aliases.iter().copied()));
    let spelled = |name: &&str| name.replace('.', "__").replace('-', "_").eq_ignore_ascii_case(variable);
    names.into_iter().find(spelled)
}

/// Nested mappings as dotted keys; keys may have dots of their own.
fn flatten(value: &Value, key: String, pairs: &mut Vec<(String, String)>) -> Result<()> {
    let text = match value {
        // An empty document, and a key whose value is left open, say nothing.
        Value::Null => return Ok(()),
        Value::Mapping(members) => {
            for (name, value) in members {
                let name = name.as_str().ok_or_else(|| Error::request(format!("a key below '{key}' is not text")))?;
                let key = if key.is_empty() { name.to_owned() } else { format!("{key}.{name}") };
                flatten(value, key, pairs)?;
            }
            return Ok(());
        }
        Value::String(text) => text.clone(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::Sequence(_) | Value::Tagged(_) if key.is_empty() => {
            return Err(Error::request("settings are keys with values").with_hint("such as 'parallelism.default: 4'"));
        }
        Value::Sequence(_) | Value::Tagged(_) => {
            return Err(Error::request(format!("setting '{key}' has a list where one value belongs")));
        }
    };
    if key.is_empty() {
        return Err(Error::request("settings are keys with values").with_hint("such as 'parallelism.default: 4'"));
    }
    pairs.push((key, text));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(yaml: &str) -> Vec<(String, String)> {
        let mut pairs = Vec::new();
        flatten(&serde_yaml_ng::from_str(yaml).unwrap(), String::new(), &mut pairs).unwrap();
        pairs
    }

    #[test]
    fn flat_and_nested_say_the_same() {
        let nested = "state:\n  backend:\n    type: rocksdb\n  # nothing\nparallelism.default: 4\n";
        let flat = "state.backend.type: rocksdb\nparallelism:\n  default: 4\n";
        assert_eq!(pairs(nested), pairs(flat));
        assert_eq!(pairs(""), []);
    }

    #[test]
    fn variables_are_settings_in_any_case() {
        let variables = [
            ("TIDEMILL_EXECUTION__BATCH_ROWS", "7"),
            ("tidemill_parallelism__default", "3"),
            ("TIDEMILL_TASKMANAGER__NUMBEROFTASKSLOTS", "5"),
            ("TIDEMILL_CACHE", "elsewhere"),
        ];
        let mut loaded = Loaded::default();
        loaded.environment(variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()))).unwrap();
        assert_eq!(loaded.settings.batch_rows(), 7);
        assert_eq!(loaded.settings.parallelism(), 3);
        assert_eq!(loaded.settings.task_slots(), Some(5));
        let unknown = [("TIDEMILL_EXECUTION__BATCH_ROW".to_owned(), "7".to_owned())];
        let error = loaded.environment(unknown.into_iter()).unwrap_err().to_string();
        assert!(error.contains("TIDEMILL_EXECUTION__BATCH_ROW") && error.contains("execution.batch-rows"), "{error}");
    }
}
