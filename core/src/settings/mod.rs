//! Settings: Flink's key names, one table of all of them, and where each value came from.
//!
//! Values are kept as text beside their [`Origin`]; every value is parsed when it is set, so a typed getter cannot fail. A
//! stronger origin wins whatever the order of setting (conventions: operator > `SET` > command line > environment > file >
//! default).

mod keys;
#[cfg(test)]
mod page;
mod recovery;
mod stores;
mod values;

use std::collections::BTreeMap;
use std::time::Duration;

pub use keys::{KEYS, Key, Value};
pub use recovery::{BackendType, CheckpointRetention, CheckpointSettings, RestartSettings, StateRecovery};
pub use stores::StoreSettings;
pub use values::{Gate, RuntimeMode, ShuffleMode, parse_bytes, parse_duration};

use crate::error::{Error, Result, nearest, unknown};
use crate::state::StateTtl;

/// Where a value came from, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Built in.
    Default,
    /// `tidemill.yaml`.
    File,
    /// A `TIDEMILL_…` variable.
    Environment,
    /// `-D key=value`, `-p`.
    CommandLine,
    /// `SET 'key' = 'value'`.
    Statement,
    /// Set on one operator or by the program.
    Program,
}

impl Origin {
    /// The word that `SET;` shows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::File => "file",
            Self::Environment => "environment",
            Self::CommandLine => "command line",
            Self::Statement => "SET",
            Self::Program => "program",
        }
    }
}

/// All settings of a session or job.
///
/// ```
/// use tidemill_core::settings::{Gate, Origin, Settings};
/// let mut settings = Settings::default();
/// settings.set("execution.buffer-timeout", "0 ms", Origin::Statement)?;
/// assert_eq!(settings.gate(), Gate::IMMEDIATE);
/// let error = settings.set("execution.bufer-timeout", "0 ms", Origin::Statement).unwrap_err();
/// assert!(error.to_string().contains("did you mean 'execution.buffer-timeout'?"));
/// # Ok::<(), tidemill_core::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Settings {
    values: BTreeMap<&'static str, Vec<(Origin, String)>>,
}

impl Settings {
    /// Sets `key` (or an alias of it). An unknown key names the nearest one, a bad value says what would be good.
    ///
    /// Returns the warning to show when the key is an older name.
    pub fn set(&mut self, key: &str, value: &str, origin: Origin) -> Result<Option<String>> {
        let (spec, renamed) = Key::find(key)?;
        spec.value.check(value).map_err(|error| error.context(format!("setting '{}'", spec.name)))?;
        let values = self.values.entry(spec.name).or_default();
        values.retain(|(other, _)| *other != origin);
        values.push((origin, value.trim().to_owned()));
        values.sort_by_key(|(origin, _)| *origin);
        Ok(renamed.then(|| format!("setting '{key}' is the older name of '{}'", spec.name)))
    }

    /// Forgets what `SET` said about `key`, or about all keys.
    pub fn reset(&mut self, key: Option<&str>) -> Result<()> {
        let only = key.map(Key::find).transpose()?.map(|(spec, _)| spec.name);
        for (name, values) in &mut self.values {
            if only.is_none_or(|only| only == *name) {
                values.retain(|(origin, _)| *origin != Origin::Statement);
            }
        }
        Ok(())
    }

    /// Every key with its value and where it came from, by name, to be shown: of secrets it is told that they are set.
    pub fn all(&self) -> Vec<(&'static str, &str, Origin)> {
        let mut all: Vec<_> = KEYS
            .iter()
            .map(|spec| {
                let (value, origin) = self.effective(spec);
                let value = if spec.is_secret() && !value.is_empty() { "******" } else { value };
                (spec.name, value, origin)
            })
            .collect();
        all.sort_by_key(|(name, ..)| *name);
        all
    }

    /// The text of a setting.
    pub fn get(&self, key: &str) -> Result<&str> {
        Ok(self.effective(Key::find(key)?.0).0)
    }

    /// Whether anyone set `key`.
    pub fn is_set(&self, key: &str) -> bool {
        self.values.get(key).is_some_and(|values| !values.is_empty())
    }

    fn effective(&self, spec: &'static Key) -> (&str, Origin) {
        let set = self.values.get(spec.name).and_then(|values| values.last());
        set.map_or((spec.default, Origin::Default), |(origin, value)| (value, *origin))
    }

    /// The checked text of a key of [`KEYS`]; a name that is not there is our slip, and reads as empty.
    fn text(&self, key: &'static str) -> &str {
        KEYS.iter().find(|spec| spec.name == key).map_or("", |spec| self.effective(spec).0)
    }

    /// `execution.runtime-mode`: which plan.
    pub fn runtime_mode(&self) -> RuntimeMode {
        self.text("execution.runtime-mode").parse().unwrap_or_default()
    }

    /// The gate of the job: `execution.buffer-timeout`, unless `execution.buffer-timeout.enabled` says `false`.
    pub fn gate(&self) -> Gate {
        match self.text("execution.buffer-timeout.enabled") {
            enabled if enabled.eq_ignore_ascii_case("false") => Gate::Full,
            _ => self.text("execution.buffer-timeout").parse().unwrap_or_default(),
        }
    }

    /// `execution.batch-shuffle-mode`: how the exchanges of a batch plan behave that have no timeout of their own.
    pub fn batch_shuffle_mode(&self) -> ShuffleMode {
        self.text("execution.batch-shuffle-mode").parse().unwrap_or_default()
    }

    /// `execution.batch-rows`: the most rows that a source or an exchange puts into one batch.
    pub fn batch_rows(&self) -> usize {
        self.number("execution.batch-rows", 8192)
    }

    /// `parallelism.default`; all cores when it says `auto`, as counted by whoever made these settings.
    pub fn parallelism(&self) -> usize {
        self.number("parallelism.default", 1)
    }

    /// `pipeline.max-parallelism`: how many key groups there are.
    pub fn max_parallelism(&self) -> u32 {
        self.number("pipeline.max-parallelism", 128) as u32
    }

    /// `pipeline.name`.
    pub fn job_name(&self) -> Option<&str> {
        Some(self.text("pipeline.name")).filter(|name| !name.is_empty())
    }

    /// `table.local-time-zone`.
    pub fn local_time_zone(&self) -> &str {
        self.text("table.local-time-zone")
    }

    /// `table.dml-sync`, if set: whether `INSERT` waits for its job.
    pub fn dml_sync(&self) -> Option<bool> {
        self.is_set("table.dml-sync").then(|| self.is_true("table.dml-sync"))
    }

    /// `io.tmp.dirs`: where spill files go; the system's temporary directory when empty.
    pub fn temporary_dirs(&self) -> Vec<String> {
        let dirs = self.text("io.tmp.dirs").split([',', ':']).map(str::trim);
        dirs.filter(|dir| !dir.is_empty()).map(str::to_owned).collect()
    }

    /// `taskmanager.memory.process.size` in bytes, if set.
    pub fn process_memory(&self) -> Option<usize> {
        parse_bytes(self.text("taskmanager.memory.process.size")).ok()
    }

    /// `taskmanager.memory.managed.size` in bytes, if set: the part that operators may reserve.
    pub fn managed_memory(&self) -> Option<usize> {
        parse_bytes(self.text("taskmanager.memory.managed.size")).ok()
    }

    /// `taskmanager.memory.network.max` in bytes: what buffers on their way may occupy.
    pub fn network_memory_max(&self) -> usize {
        parse_bytes(self.text("taskmanager.memory.network.max")).unwrap_or(1 << 30)
    }

    /// `pipeline.operator-chaining.enabled`.
    pub fn operator_chaining(&self) -> bool {
        self.is_true("pipeline.operator-chaining.enabled")
    }

    /// `taskmanager.memory.segment-size` in bytes: the size at which an exchange buffer is full.
    pub fn segment_size(&self) -> usize {
        parse_bytes(self.text("taskmanager.memory.segment-size")).unwrap_or(256 << 10)
    }

    /// `taskmanager.numberOfTaskSlots`, if set.
    pub fn task_slots(&self) -> Option<usize> {
        self.text("taskmanager.numberOfTaskSlots").parse().ok()
    }

    /// `task.cancellation.timeout`.
    pub fn cancellation_timeout(&self) -> Duration {
        parse_duration(self.text("task.cancellation.timeout")).unwrap_or(Duration::from_secs(180))
    }

    /// When the state of SQL operators expires by which keys are told apart; `None` if it is kept for ever.
    pub fn state_ttl(&self) -> Option<StateTtl> {
        let time = parse_duration(self.text("table.exec.state.ttl")).unwrap_or_default();
        (!time.is_zero()).then(|| StateTtl::new(time))
    }

    /// A switch, whose words count in any case.
    fn is_true(&self, key: &'static str) -> bool {
        self.text(key).eq_ignore_ascii_case("true")
    }

    fn number(&self, key: &'static str, fallback: usize) -> usize {
        self.text(key).parse().unwrap_or(fallback)
    }
}

impl Key {
    /// The key called `name` or once called so, and whether it was an older name.
    pub fn find(name: &str) -> Result<(&'static Key, bool)> {
        let name = name.trim();
        if let Some(spec) = KEYS.iter().find(|spec| spec.name == name) {
            return Ok((spec, false));
        }
        if let Some(spec) = KEYS.iter().find(|spec| spec.aliases.contains(&name)) {
            return Ok((spec, true));
        }
        Err(match nearest(name, KEYS.iter().map(|spec| spec.name)) {
            Some(_) => unknown("setting", name, KEYS.iter().map(|spec| spec.name)),
            None => Error::request(format!("unknown setting '{name}'")).with_hint("`SET;` lists them all"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stronger_origin_wins_whatever_the_order() {
        let mut settings = Settings::default();
        settings.set("parallelism.default", "4", Origin::Statement).unwrap();
        settings.set("parallelism.default", "2", Origin::File).unwrap();
        assert_eq!(settings.parallelism(), 4);
        settings.reset(Some("parallelism.default")).unwrap();
        assert_eq!(settings.parallelism(), 2);
    }

    #[test]
    fn every_default_passes_its_own_check() {
        for spec in KEYS {
            assert!(spec.default.is_empty() || spec.value.check(spec.default).is_ok(), "{}", spec.name);
        }
    }

    #[test]
    fn an_older_name_works_and_warns() {
        let mut settings = Settings::default();
        let warning = settings.set("state.backend", "rocksdb", Origin::File).unwrap();
        assert!(warning.unwrap().contains("state.backend.type"));
    }

    #[test]
    fn bad_values_name_key_and_value() {
        let mut settings = Settings::default();
        let error = settings.set("execution.batch-rows", "0", Origin::Statement).unwrap_err().to_string();
        assert!(error.contains("execution.batch-rows") && error.contains("'0'"), "{error}");
        let error = settings.set("execution.buffer-timeout", "soon", Origin::Statement).unwrap_err().to_string();
        assert!(error.contains("'soon'") && error.contains("infinite"), "{error}");
    }

    #[test]
    fn switches_are_on_and_off_in_any_case() {
        let mut settings = Settings::default();
        assert!(settings.operator_chaining());
        for (value, is_on) in [("FALSE", false), ("TRUE", true), ("False", false), (" True ", true), ("false", false)] {
            for key in [
                "pipeline.operator-chaining.enabled",
                "table.dml-sync",
                "execution.checkpointing.incremental",
                "execution.state-recovery.ignore-unclaimed-state",
            ] {
                settings.set(key, value, Origin::Statement).unwrap();
            }
            assert_eq!(settings.operator_chaining(), is_on, "{value}");
            assert_eq!(settings.dml_sync(), Some(is_on), "{value}");
            assert_eq!(settings.checkpoints().incremental, is_on, "{value}");
            assert_eq!(settings.state_recovery().ignore_unclaimed, is_on, "{value}");
        }
    }

    #[test]
    fn minus_one_and_disabled_mean_full() {
        let mut settings = Settings::default();
        settings.set("execution.buffer-timeout", "-1", Origin::Statement).unwrap();
        assert_eq!(settings.gate(), Gate::Full);
        settings.set("execution.buffer-timeout", "5 ms", Origin::Statement).unwrap();
        settings.set("execution.buffer-timeout.enabled", "false", Origin::Statement).unwrap();
        assert_eq!(settings.gate(), Gate::Full);
    }
}
