//! Every setting there is: name, older names, type, default, meaning. The options page is made from this table.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::settings::values::{Gate, RuntimeMode, ShuffleMode, one_of, parse_bytes, parse_duration};

/// One setting.
#[derive(Debug)]
pub struct Key {
    /// Its name, Flink's where a counterpart exists.
    pub name: &'static str,
    /// Older names, accepted with a warning.
    pub aliases: &'static [&'static str],
    /// What values it takes.
    pub value: Value,
    /// Its default; empty when it depends on the machine or is unset.
    pub default: &'static str,
    /// What it does.
    pub meaning: &'static str,
}

/// What values a setting takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// Any text.
    Text,
    /// `true` or `false`.
    Boolean,
    /// A whole number, at least this.
    Number {
        /// The least.
        min: u64,
        /// The greatest.
        max: u64,
    },
    /// A duration such as `100 ms`.
    Duration,
    /// A duration of at least a millisecond: what waits so long does not turn in a circle.
    Pause,
    /// A size such as `64 mb`.
    Bytes,
    /// A decimal fraction from 0 to 1.
    Fraction,
    /// A decimal number of at least 1.
    Factor,
    /// A whole number of at least 1, or `infinite`.
    CountOrInfinite,
    /// A [`Gate`].
    Gate,
    /// A [`RuntimeMode`].
    RuntimeMode,
    /// A [`ShuffleMode`].
    ShuffleMode,
    /// A time zone name.
    TimeZone,
    /// One of these words, in any case.
    OneOf(&'static [&'static str]),
}

impl Key {
    /// Whether its value is shown to nobody.
    pub fn is_secret(&self) -> bool {
        self.name.contains("secret")
    }
}

impl Value {
    /// Whether `text` is such a value; the error says what would be.
    pub fn check(self, text: &str) -> Result<()> {
        let text = text.trim();
        match self {
            Self::Text => Ok(()),
            Self::Boolean => Self::OneOf(&["true", "false"]).check(text),
            Self::Number { min, max } => {
                let what = match text.parse::<i128>() {
                    Ok(number) if (min.into()..=max.into()).contains(&number) => return Ok(()),
                    Ok(_) => "out of range",
                    Err(_) => "not a whole number",
                };
                Err(Error::request(format!("'{text}' is {what}")).with_hint(format!("from {min} to {max}")))
            }
            Self::Duration => parse_duration(text).map(drop),
            Self::Pause => match parse_duration(text)? {
                pause if pause < PAUSE_MIN => {
                    Err(Error::request(format!("'{text}' is too short")).with_hint("at least 1 ms"))
                }
                _ => Ok(()),
            },
            Self::Bytes => parse_bytes(text).map(drop),
            Self::Fraction => match text.parse::<f64>() {
                Ok(fraction) if (0.0..=1.0).contains(&fraction) => Ok(()),
                _ => Err(Error::request(format!("'{text}' is not a fraction")).with_hint("from 0 to 1")),
            },
            Self::Factor => match text.parse::<f64>() {
                Ok(factor) if factor.is_finite() && factor >= 1.0 => Ok(()),
                _ => Err(Error::request(format!("'{text}' is not a factor")).with_hint("a number of at least 1")),
            },
            Self::CountOrInfinite => match text.parse::<u64>() {
                Ok(1..) => Ok(()),
                _ if text.eq_ignore_ascii_case("infinite") => Ok(()),
                _ => Err(Error::request(format!("'{text}' is not a count")).with_hint("at least 1, or infinite")),
            },
            Self::Gate => text.parse::<Gate>().map(drop),
            Self::RuntimeMode => text.parse::<RuntimeMode>().map(drop),
            Self::ShuffleMode => text.parse::<ShuffleMode>().map(drop),
            Self::TimeZone => crate::time::Calendar::parse(text).map(drop),
            Self::OneOf(words) => match words.iter().any(|word| word.eq_ignore_ascii_case(text)) {
                true => Ok(()),
                false => Err(one_of(text, words)),
            },
        }
    }
}

/// The shortest [`Value::Pause`].
const PAUSE_MIN: Duration = Duration::from_millis(1);

const COUNT: Value = Value::Number { min: 1, max: 1 << 20 };

const fn key(name: &'static str, value: Value, default: &'static str, meaning: &'static str) -> Key {
    Key { name, aliases: &[], value, default, meaning }
}

const fn renamed(
    name: &'static str,
    aliases: &'static [&'static str],
    value: Value,
    default: &'static str,
    meaning: &'static str,
) -> Key {
    Key { name, aliases, value, default, meaning }
}

/// Every setting.
pub const KEYS: &[Key] = &[
    key(
        "execution.runtime-mode",
        Value::RuntimeMode,
        "automatic",
        "which plan a query runs as: batch when every source is bounded, or always one of the two",
    ),
    renamed(
        "execution.buffer-timeout",
        &["execution.buffer-timeout.interval"],
        Value::Gate,
        "100 ms",
        "when a buffer leaves its producer: a duration, 'full' or 'infinite' (a blocking exchange); rows whose keys are on the local disk wait so long for others, a second at the most",
    ),
    key("execution.buffer-timeout.enabled", Value::Boolean, "true", "'false' is the buffer timeout 'full'"),
    key(
        "execution.batch-shuffle-mode",
        Value::ShuffleMode,
        "automatic",
        "how exchanges of batch plans behave that have no timeout of their own",
    ),
    key(
        "execution.batch-rows",
        Value::Number { min: 1, max: 1 << 20 },
        "8192",
        "the most rows that a source or an exchange puts into one batch",
    ),
    key("parallelism.default", COUNT, "1", "subtasks of operators that say nothing else; all cores in local mode"),
    key(
        "taskmanager.numberOfTaskSlots",
        COUNT,
        "",
        "slots of a worker; all cores in local mode, where they bound nothing unless they are set",
    ),
    key(
        "pipeline.max-parallelism",
        Value::Number { min: 1, max: 32768 },
        "128",
        "how many key groups state is cut into: the highest parallelism a job can ever have",
    ),
    key("pipeline.name", Value::Text, "", "name of the job"),
    key("pipeline.operator-chaining.enabled", Value::Boolean, "true", "whether neighbours may share a task"),
    key("table.local-time-zone", Value::TimeZone, "UTC", "zone in which TIMESTAMP_LTZ is shown and its windows align"),
    key("table.dml-sync", Value::Boolean, "", "whether INSERT waits for its job to end"),
    key(
        "table.exec.state.ttl",
        Value::Duration,
        "0 ms",
        "how long streaming GROUP BY, DISTINCT, Top-N and deduplication keep a key that no row changes, by the clock; 0: for ever",
    ),
    key(
        "sql-client.execution.result-mode",
        Value::OneOf(&["table", "changelog", "tableau"]),
        "table",
        "whether results show as the folded table or as every change",
    ),
    renamed(
        "io.tmp.dirs",
        &["taskmanager.tmp.dirs", "state.backend.rocksdb.checkpointdir", "state.backend.rocksdb.localdir"],
        Value::Text,
        "",
        "directories for spill files and for state on the local disk",
    ),
    renamed(
        "rest.address",
        &["jobmanager.web.address"],
        Value::Text,
        "localhost",
        "host of the REST endpoint, as clients dial it",
    ),
    renamed("rest.port", &["jobmanager.web.port"], Value::Number { min: 0, max: 65535 }, "8081", "port of REST"),
    key("rest.bind-address", Value::Text, "127.0.0.1", "address that the REST endpoint listens on"),
    key("heartbeat.interval", Value::Duration, "10 s", "how often workers report"),
    key("heartbeat.timeout", Value::Duration, "50 s", "after which silence a worker is taken for dead"),
    renamed(
        "taskmanager.memory.process.size",
        &["taskmanager.heap.size", "taskmanager.heap.mb"],
        Value::Bytes,
        "",
        "budget for all of a worker; 70 % of the smaller of RAM and cgroup limit when unset",
    ),
    renamed(
        "taskmanager.memory.managed.size",
        &["taskmanager.memory.size"],
        Value::Bytes,
        "",
        "the part of the budget that operators and state may reserve",
    ),
    renamed(
        "taskmanager.memory.network.min",
        &["taskmanager.network.memory.min"],
        Value::Bytes,
        "64 mb",
        "the least that buffers between tasks may occupy",
    ),
    renamed(
        "taskmanager.memory.network.max",
        &["taskmanager.network.memory.max"],
        Value::Bytes,
        "1 gb",
        "the most that buffers between tasks may occupy",
    ),
    renamed(
        "taskmanager.memory.network.fraction",
        &["taskmanager.network.memory.fraction"],
        Value::Fraction,
        "0.1",
        "share of the budget for buffers between tasks",
    ),
    key("taskmanager.memory.segment-size", Value::Bytes, "256 kb", "size at which a buffer between tasks is full"),
    key("task.cancellation.timeout", Value::Duration, "180 s", "how long a task may ignore its cancellation"),
    key("execution.checkpointing.interval", Value::Duration, "", "time between checkpoints; none when unset"),
    key(
        "execution.checkpointing.mode",
        Value::OneOf(&["EXACTLY_ONCE", "AT_LEAST_ONCE"]),
        "EXACTLY_ONCE",
        "whether barriers align",
    ),
    key(
        "execution.checkpointing.timeout",
        Value::Duration,
        "10 min",
        "after which a checkpoint is given up, and a store that does not answer",
    ),
    key(
        "execution.checkpointing.min-pause",
        Value::Duration,
        "0 ms",
        "least time between two checkpoints; then only one may be under way at a time",
    ),
    key("execution.checkpointing.max-concurrent-checkpoints", COUNT, "1", "checkpoints under way at once"),
    key(
        "execution.checkpointing.tolerable-failed-checkpoints",
        Value::Number { min: 0, max: 1 << 20 },
        "0",
        "failed checkpoints in a row before the job fails",
    ),
    key(
        "execution.checkpointing.externalized-checkpoint-retention",
        Value::OneOf(&["RETAIN_ON_CANCELLATION", "DELETE_ON_CANCELLATION", "NO_EXTERNALIZED_CHECKPOINTS"]),
        "RETAIN_ON_CANCELLATION",
        "whether checkpoints outlive a job that a user cancels; `NO_EXTERNALIZED_CHECKPOINTS`: nor one that fails",
    ),
    renamed(
        "execution.checkpointing.num-retained",
        &["state.checkpoints.num-retained"],
        COUNT,
        "1",
        "completed checkpoints that are kept",
    ),
    renamed(
        "execution.checkpointing.incremental",
        &["state.backend.incremental"],
        Value::Boolean,
        "true",
        "whether a checkpoint stores only what changed",
    ),
    renamed(
        "execution.checkpointing.dir",
        &["state.checkpoints.dir", "state.backend.fs.checkpointdir"],
        Value::Text,
        "",
        "URL under which checkpoints are stored",
    ),
    renamed(
        "execution.checkpointing.savepoint-dir",
        &["state.savepoints.dir"],
        Value::Text,
        "",
        "URL under which savepoints are stored",
    ),
    key(
        "execution.checkpointing.unaligned.enabled",
        Value::Boolean,
        "false",
        "whether barriers may overtake rows; then one checkpoint is under way at a time",
    ),
    key(
        "execution.checkpointing.aligned-checkpoint-timeout",
        Value::Duration,
        "0 ms",
        "how long barriers wait behind rows before they overtake them, where they may",
    ),
    renamed(
        "state.backend.type",
        &["state.backend"],
        Value::OneOf(&["memory", "hashmap", "jobmanager", "filesystem", "rocksdb"]),
        "memory",
        "where keyed state lives: in memory and, without room there, on the local disk; of rocksdb somewhat earlier",
    ),
    renamed(
        "restart-strategy.type",
        &["restart-strategy"],
        Value::OneOf(&["none", "off", "disable", "fixed-delay", "failure-rate", "exponential-delay"]),
        "",
        "what happens after a failure; when unset exponential-delay with checkpoints, none without",
    ),
    key("restart-strategy.fixed-delay.attempts", COUNT, "1", "restarts before the job fails"),
    key("restart-strategy.fixed-delay.delay", Value::Duration, "1 s", "pause before a restart"),
    key(
        "restart-strategy.failure-rate.max-failures-per-interval",
        COUNT,
        "1",
        "failures in the interval that are borne",
    ),
    key("restart-strategy.failure-rate.failure-rate-interval", Value::Duration, "1 min", "the interval"),
    key("restart-strategy.failure-rate.delay", Value::Duration, "1 s", "pause before a restart"),
    key("restart-strategy.exponential-delay.initial-backoff", Value::Pause, "1 s", "pause before the first restart"),
    key("restart-strategy.exponential-delay.max-backoff", Value::Pause, "1 min", "longest pause before a restart"),
    key(
        "restart-strategy.exponential-delay.backoff-multiplier",
        Value::Factor,
        "1.5",
        "how much longer each pause is than the one before",
    ),
    key(
        "restart-strategy.exponential-delay.reset-backoff-threshold",
        Value::Duration,
        "1 h",
        "time without a failure after which pauses are short again",
    ),
    key(
        "restart-strategy.exponential-delay.jitter-factor",
        Value::Fraction,
        "0.1",
        "by how much pauses vary at random, so that jobs do not restart in step",
    ),
    key(
        "restart-strategy.exponential-delay.attempts-before-reset-backoff",
        Value::CountOrInfinite,
        "infinite",
        "restarts before the job fails, counted until pauses are short again",
    ),
    renamed(
        "execution.state-recovery.path",
        &["execution.savepoint.path"],
        Value::Text,
        "",
        "savepoint or checkpoint to begin from",
    ),
    renamed(
        "execution.state-recovery.ignore-unclaimed-state",
        &["execution.savepoint.ignore-unclaimed-state"],
        Value::Boolean,
        "false",
        "whether state that no operator claims is dropped",
    ),
    renamed(
        "execution.state-recovery.claim-mode",
        &["execution.savepoint-restore-mode"],
        Value::OneOf(&["CLAIM", "NO_CLAIM"]),
        "NO_CLAIM",
        "whether the engine owns the savepoint that it began from",
    ),
    renamed("high-availability.type", &["high-availability"], Value::Text, "none", "how a leader is found"),
    key("fs.default-scheme", Value::Text, "file:///", "what absolute paths without a scheme begin with"),
    key(
        "fs.hdfs.hadoopconf",
        Value::Text,
        "",
        "folder of core-site.xml and hdfs-site.xml; that of HADOOP_CONF_DIR or HADOOP_HOME when unset",
    ),
    key("s3.endpoint", Value::Text, "", "URL of the S3 server; that of AWS_ENDPOINT_URL, or Amazon's, when unset"),
    key("s3.endpoint.region", Value::Text, "", "region of the buckets; that of AWS_REGION when unset"),
    renamed("s3.access-key", &["s3.access.key"], Value::Text, "", "who asks S3; AWS_ACCESS_KEY_ID when unset"),
    renamed("s3.secret-key", &["s3.secret.key"], Value::Text, "", "its secret; AWS_SECRET_ACCESS_KEY when unset"),
    renamed(
        "s3.path.style.access",
        &["s3.path-style-access"],
        Value::Boolean,
        "true",
        "whether the bucket is part of the path and not of the host's name",
    ),
];
