//! What settings say about checkpoints and about what happens after a failure.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::settings::{Settings, parse_duration};

/// When checkpoints are taken and what becomes of them: `execution.checkpointing.*`.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckpointSettings {
    /// Time between two; `None` for none but those that somebody asks for.
    pub interval: Option<Duration>,
    /// Whether channels wait for one another's barriers.
    pub exactly_once: bool,
    /// After which one is given up.
    pub timeout: Duration,
    /// The least time between the end of one and the beginning of the next.
    pub min_pause: Duration,
    /// How long after its trigger the barriers of one wait behind rows, and overtake them from then on; `None` for ever. Not
    /// where rows may count twice: there nobody waits (NCK-01).
    pub aligned_timeout: Option<Duration>,
    /// How many may be under way at once; one where barriers may overtake rows.
    pub max_concurrent: usize,
    /// How many may fail one after the other before the job fails.
    pub tolerable_failures: usize,
    /// How many are kept.
    pub num_retained: usize,
    /// Whether one stores only what changed, where that is known.
    pub incremental: bool,
    /// Where they are stored; `None` for memory.
    pub dir: Option<String>,
    /// Where savepoints are stored that name no place.
    pub savepoint_dir: Option<String>,
    /// What becomes of them when the job is over before its end.
    pub retention: CheckpointRetention,
}

/// What becomes of checkpoints when a job is over and did not end well (CKP-09). A process that goes away leaves its jobs'
/// checkpoints in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckpointRetention {
    /// They stay.
    Retained,
    /// They are deleted when a user cancels the job, and stay when it fails.
    DeletedOnCancellation,
    /// They are deleted.
    Deleted,
}

/// Where keyed state lives, and where checkpoints go (BKD-01 … BKD-03): `state.backend.type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BackendType {
    /// In memory; checkpoints too, unless a folder is set for them.
    #[default]
    Memory,
    /// In memory; checkpoints in a folder, which has to be set.
    Filesystem,
    /// On the local disk, cached in memory; checkpoints in a folder if one is set.
    RocksDb,
}

/// What a job begins from: `execution.state-recovery.*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateRecovery {
    /// The savepoint or checkpoint.
    pub path: Option<String>,
    /// Whether state that no operator claims is dropped; else it is an error.
    pub ignore_unclaimed: bool,
    /// Whether the job owns the savepoint from now on: then it is deleted like its oldest checkpoint (SVP-09).
    pub claims: bool,
}

/// What happens after a failure: `restart-strategy.*` (RST-01 … RST-05).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RestartSettings {
    /// The job fails.
    None,
    /// It restarts so often, after a pause that is always the same.
    FixedDelay {
        /// How often.
        attempts: u64,
        /// The pause.
        delay: Duration,
    },
    /// It restarts unless it fails too often in a while.
    FailureRate {
        /// How many failures are borne in the interval.
        failures_max: u64,
        /// The interval.
        interval: Duration,
        /// The pause.
        delay: Duration,
    },
    /// It restarts after pauses that grow, and are short again after a while without failures.
    ExponentialDelay {
        /// The first pause.
        initial: Duration,
        /// The longest.
        max: Duration,
        /// How much longer each is than the one before.
        multiplier: f64,
        /// Time without a failure after which they are short again.
        reset_after: Duration,
        /// Share by which they vary at random.
        jitter: f64,
        /// How many restarts until then; `None` for any number.
        attempts: Option<u64>,
    },
}

impl CheckpointSettings {
    /// Refuses settings that exclude one another (CKP-07).
    pub fn check(&self) -> Result<()> {
        if self.interval.is_some() && self.max_concurrent > 1 && !self.min_pause.is_zero() {
            let error = format!(
                "execution.checkpointing.max-concurrent-checkpoints is {}, and execution.checkpointing.min-pause is {:?}: \
                 between checkpoints that overlap there is no pause",
                self.max_concurrent, self.min_pause
            );
            return Err(Error::request(error).with_hint("set one of them back: to 1, or to 0 ms"));
        }
        Ok(())
    }
}

impl Settings {
    /// `execution.checkpointing.*`.
    pub fn checkpoints(&self) -> CheckpointSettings {
        let exactly_once = !self.text("execution.checkpointing.mode").eq_ignore_ascii_case("AT_LEAST_ONCE");
        let is_unaligned = exactly_once && self.is_true("execution.checkpointing.unaligned.enabled");
        let aligned_timeout = is_unaligned.then(|| self.duration("execution.checkpointing.aligned-checkpoint-timeout"));
        let max_concurrent = match aligned_timeout {
            None => self.number("execution.checkpointing.max-concurrent-checkpoints", 1),
            Some(_) => 1,
        };
        CheckpointSettings {
            interval: parse_duration(self.text("execution.checkpointing.interval")).ok().filter(|time| !time.is_zero()),
            exactly_once,
            timeout: self.duration("execution.checkpointing.timeout"),
            min_pause: self.duration("execution.checkpointing.min-pause"),
            aligned_timeout,
            max_concurrent,
            tolerable_failures: self.number("execution.checkpointing.tolerable-failed-checkpoints", 0),
            num_retained: self.number("execution.checkpointing.num-retained", 1),
            incremental: self.is_true("execution.checkpointing.incremental"),
            dir: self.place("execution.checkpointing.dir"),
            savepoint_dir: self.place("execution.checkpointing.savepoint-dir"),
            retention: self.checkpoint_retention(),
        }
    }

    /// `state.backend.type`.
    pub fn state_backend(&self) -> BackendType {
        match self.text("state.backend.type").to_ascii_lowercase().as_str() {
            "filesystem" => BackendType::Filesystem,
            "rocksdb" => BackendType::RocksDb,
            // Older names: `hashmap`, `jobmanager`.
            _ => BackendType::Memory,
        }
    }

    /// `execution.state-recovery.*`.
    pub fn state_recovery(&self) -> StateRecovery {
        StateRecovery {
            path: self.place("execution.state-recovery.path"),
            ignore_unclaimed: self.is_true("execution.state-recovery.ignore-unclaimed-state"),
            claims: self.text("execution.state-recovery.claim-mode").trim().eq_ignore_ascii_case("CLAIM"),
        }
    }

    /// `restart-strategy.*`. Without checkpoints a job that nobody says more about does not restart.
    pub fn restarts(&self) -> RestartSettings {
        let kind = self.text("restart-strategy.type").to_ascii_lowercase();
        match kind.as_str() {
            "fixed-delay" => RestartSettings::FixedDelay {
                attempts: self.number("restart-strategy.fixed-delay.attempts", 1) as u64,
                delay: self.duration("restart-strategy.fixed-delay.delay"),
            },
            "failure-rate" => RestartSettings::FailureRate {
                failures_max: self.number("restart-strategy.failure-rate.max-failures-per-interval", 1) as u64,
                interval: self.duration("restart-strategy.failure-rate.failure-rate-interval"),
                delay: self.duration("restart-strategy.failure-rate.delay"),
            },
            "" if self.checkpoints().interval.is_none() => RestartSettings::None,
            "" | "exponential-delay" => RestartSettings::ExponentialDelay {
                initial: self.duration("restart-strategy.exponential-delay.initial-backoff"),
                max: self.duration("restart-strategy.exponential-delay.max-backoff"),
                multiplier: self.decimal("restart-strategy.exponential-delay.backoff-multiplier", 1.5),
                reset_after: self.duration("restart-strategy.exponential-delay.reset-backoff-threshold"),
                jitter: self.decimal("restart-strategy.exponential-delay.jitter-factor", 0.1),
                attempts: self.text("restart-strategy.exponential-delay.attempts-before-reset-backoff").parse().ok(),
            },
            _ => RestartSettings::None,
        }
    }

    fn checkpoint_retention(&self) -> CheckpointRetention {
        let word = self.text("execution.checkpointing.externalized-checkpoint-retention").trim().to_ascii_uppercase();
        match word.as_str() {
            "DELETE_ON_CANCELLATION" => CheckpointRetention::DeletedOnCancellation,
            "NO_EXTERNALIZED_CHECKPOINTS" => CheckpointRetention::Deleted,
            _ => CheckpointRetention::Retained,
        }
    }

    fn duration(&self, key: &'static str) -> Duration {
        // Checked when it was set; the default of a key that has one is a duration.
        parse_duration(self.text(key)).unwrap_or_default()
    }

    fn decimal(&self, key: &'static str, fallback: f64) -> f64 {
        self.text(key).trim().parse().unwrap_or(fallback)
    }

    fn place(&self, key: &'static str) -> Option<String> {
        Some(self.text(key).trim()).filter(|place| !place.is_empty()).map(str::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Origin;

    #[test]
    fn a_backend_has_older_names() {
        let mut settings = Settings::default();
        let mut backend = |name: &str| {
            settings.set("state.backend", name, Origin::Statement).unwrap();
            settings.state_backend()
        };
        assert_eq!(["hashmap", "jobmanager", "Memory"].map(&mut backend), [BackendType::Memory; 3]);
        assert_eq!(["filesystem", "RocksDB"].map(&mut backend), [BackendType::Filesystem, BackendType::RocksDb]);
    }

    #[test]
    fn older_names_of_recovery_are_known_and_say_the_newer_ones() {
        let names = [
            ("state.backend.rocksdb.checkpointdir", "io.tmp.dirs"),
            ("state.backend.rocksdb.localdir", "io.tmp.dirs"),
            ("state.backend.fs.checkpointdir", "execution.checkpointing.dir"),
            ("state.backend.incremental", "execution.checkpointing.incremental"),
            ("state.savepoints.dir", "execution.checkpointing.savepoint-dir"),
            ("execution.savepoint.path", "execution.state-recovery.path"),
            ("execution.savepoint.ignore-unclaimed-state", "execution.state-recovery.ignore-unclaimed-state"),
            ("execution.savepoint-restore-mode", "execution.state-recovery.claim-mode"),
            ("restart-strategy", "restart-strategy.type"),
        ];
        for (older, newer) in names {
            let value = match newer {
                "restart-strategy.type" => "none",
                "execution.state-recovery.claim-mode" => "CLAIM",
                _ => "true",
            };
            let warning = Settings::default().set(older, value, Origin::Statement).unwrap().unwrap();
            assert!(warning.contains(newer), "{warning}");
        }
    }

    #[test]
    fn checkpoints_bring_restarts_unless_somebody_says_otherwise() {
        let mut settings = Settings::default();
        assert_eq!(settings.restarts(), RestartSettings::None);
        settings.set("execution.checkpointing.interval", "3 s", Origin::Statement).unwrap();
        assert_eq!(settings.checkpoints().interval, Some(Duration::from_secs(3)));
        let RestartSettings::ExponentialDelay { initial, multiplier, attempts, .. } = settings.restarts() else {
            panic!("{:?}", settings.restarts());
        };
        assert_eq!((initial, multiplier, attempts), (Duration::from_secs(1), 1.5, None));
        settings.set("restart-strategy.type", "none", Origin::Statement).unwrap();
        assert_eq!(settings.restarts(), RestartSettings::None);
    }

    #[test]
    fn pauses_that_grow_are_at_least_a_millisecond() {
        let mut settings = Settings::default();
        for name in ["initial-backoff", "max-backoff"] {
            let key = format!("restart-strategy.exponential-delay.{name}");
            for value in ["0 ms", "0", "999 us"] {
                let error = settings.set(&key, value, Origin::Statement).unwrap_err();
                assert_eq!(error.kind(), crate::ErrorKind::Request);
                assert_eq!(error.to_string(), format!("setting '{key}': '{value}' is too short; at least 1 ms"));
            }
            settings.set(&key, "1 ms", Origin::Statement).unwrap();
        }
    }

    #[test]
    fn barriers_overtake_rows_only_where_none_counts_twice_and_one_checkpoint_at_a_time() {
        let mut settings = Settings::default();
        let mut set = |key: &str, value: &str| {
            settings.set(&format!("execution.checkpointing.{key}"), value, Origin::Statement).unwrap();
            let CheckpointSettings { aligned_timeout, max_concurrent, .. } = settings.checkpoints();
            (aligned_timeout, max_concurrent)
        };
        assert_eq!(set("max-concurrent-checkpoints", "3"), (None, 3));
        assert_eq!(set("aligned-checkpoint-timeout", "5 s"), (None, 3));
        assert_eq!(set("unaligned.enabled", "true"), (Some(Duration::from_secs(5)), 1));
        assert_eq!(set("aligned-checkpoint-timeout", "0 ms"), (Some(Duration::ZERO), 1));
        assert_eq!(set("mode", "AT_LEAST_ONCE"), (None, 3));
    }

    #[test]
    fn a_pause_between_checkpoints_excludes_such_as_overlap() {
        let mut settings = Settings::default();
        let mut set = |key: &str, value: &str| {
            settings.set(&format!("execution.checkpointing.{key}"), value, Origin::Statement).unwrap();
            settings.checkpoints().check().map_err(|error| error.to_string())
        };
        assert_eq!(set("min-pause", "2 s"), Ok(()));
        // Nothing is taken at an interval yet: what the two say of each other does not matter.
        assert_eq!(set("max-concurrent-checkpoints", "3"), Ok(()));
        let error = set("interval", "1 s").unwrap_err();
        for part in ["max-concurrent-checkpoints is 3", "min-pause is 2s"] {
            assert!(error.contains(part), "{error}");
        }
        // Barriers that overtake rows leave room for one anyway.
        assert_eq!(set("unaligned.enabled", "true"), Ok(()));
        assert!(set("unaligned.enabled", "false").is_err());
        assert_eq!(set("min-pause", "0 ms"), Ok(()));
    }

    #[test]
    fn checkpoints_stay_and_savepoints_belong_to_their_users_unless_somebody_says_otherwise() {
        let mut settings = Settings::default();
        assert_eq!(settings.checkpoints().retention, CheckpointRetention::Retained);
        assert!(!settings.state_recovery().claims);
        let key = "execution.checkpointing.externalized-checkpoint-retention";
        settings.set(key, "delete_on_cancellation", Origin::Statement).unwrap();
        assert_eq!(settings.checkpoints().retention, CheckpointRetention::DeletedOnCancellation);
        settings.set(key, "NO_EXTERNALIZED_CHECKPOINTS", Origin::Statement).unwrap();
        assert_eq!(settings.checkpoints().retention, CheckpointRetention::Deleted);
        settings.set("execution.state-recovery.claim-mode", "claim", Origin::Statement).unwrap();
        assert!(settings.state_recovery().claims);
    }

    #[test]
    fn what_is_no_factor_or_count_is_refused() {
        let mut settings = Settings::default();
        for (key, value) in [
            ("restart-strategy.exponential-delay.backoff-multiplier", "0.5"),
            ("restart-strategy.exponential-delay.backoff-multiplier", "NaN"),
            ("restart-strategy.exponential-delay.attempts-before-reset-backoff", "0"),
        ] {
            let error = settings.set(key, value, Origin::Statement).unwrap_err().to_string();
            assert!(error.contains(key) && error.contains(value), "{error}");
        }
    }
}
