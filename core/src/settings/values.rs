//! The types that settings have beside numbers and text.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::error::{Error, Result};

/// When a buffer leaves its producer: the buffer timeout, the one knob between streaming and batch (SUB-01, ARC-19).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// When it is full or this old. Zero: at the end of every input batch.
    After(Duration),
    /// Only when it is full. Still pipelined.
    Full,
    /// When the producer is done: a blocking exchange, kept in memory and on disk until then.
    Infinite,
}

impl Gate {
    /// Hand every batch on at once.
    pub const IMMEDIATE: Self = Self::After(Duration::ZERO);
}

impl Default for Gate {
    fn default() -> Self {
        Self::After(Duration::from_millis(100))
    }
}

impl FromStr for Gate {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.trim().to_ascii_lowercase().as_str() {
            "full" | "-1" | "-1 ms" | "-1ms" => Ok(Self::Full),
            "infinite" => Ok(Self::Infinite),
            other => parse_duration(other).map(Self::After).map_err(|_| {
                Error::request(format!("'{text}' is not a buffer timeout"))
                    .with_hint("a duration such as '0 ms' or '100 ms', 'full' or 'infinite'")
            }),
        }
    }
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::After(timeout) => write!(f, "{} ms", timeout.as_millis()),
            Self::Full => f.write_str("full"),
            Self::Infinite => f.write_str("infinite"),
        }
    }
}

/// Which plan a query runs as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RuntimeMode {
    /// Batch when every source is bounded, else streaming.
    #[default]
    Automatic,
    /// Bounded operators: sort, hash, spill; one final result.
    Batch,
    /// Incremental operators.
    Streaming,
}

impl FromStr for RuntimeMode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.trim().to_ascii_lowercase().as_str() {
            "automatic" => Ok(Self::Automatic),
            "batch" => Ok(Self::Batch),
            "streaming" => Ok(Self::Streaming),
            _ => Err(one_of(text, &["automatic", "batch", "streaming"])),
        }
    }
}

/// How the exchanges of a batch plan behave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ShuffleMode {
    /// Pipelined where all regions fit the free slots, else blocking.
    #[default]
    Automatic,
    /// Consumers start when their producers are done.
    Blocking,
    /// Consumers run beside their producers.
    Pipelined,
    /// Stored like blocking, but consumers may start early.
    Hybrid,
}

impl FromStr for ShuffleMode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.trim().to_ascii_uppercase().as_str() {
            "AUTOMATIC" => Ok(Self::Automatic),
            "ALL_EXCHANGES_BLOCKING" | "BLOCKING" => Ok(Self::Blocking),
            "ALL_EXCHANGES_PIPELINED" | "PIPELINED" => Ok(Self::Pipelined),
            "ALL_EXCHANGES_HYBRID_FULL" | "ALL_EXCHANGES_HYBRID_SELECTIVE" | "HYBRID" => Ok(Self::Hybrid),
            _ => Err(one_of(text, &["automatic", "blocking", "pipelined", "hybrid"])),
        }
    }
}

/// A length of time such as `100 ms`, `3 s`, `1 min`, `2 h`, `1 d`; a bare number is milliseconds.
///
/// ```
/// # use tidemill_core::settings::parse_duration;
/// assert_eq!(parse_duration("3 s")?.as_millis(), 3_000);
/// assert!(parse_duration("3 parsecs").is_err());
/// # Ok::<(), tidemill_core::Error>(())
/// ```
pub fn parse_duration(text: &str) -> Result<Duration> {
    let scale_nanos = |unit: &str| {
        Some(match unit {
            "ns" | "nano" | "nanosecond" | "nanoseconds" => 1,
            "us" | "µs" | "micro" | "microsecond" | "microseconds" => 1_000,
            "" | "ms" | "milli" | "millisecond" | "milliseconds" => 1_000_000,
            "s" | "sec" | "second" | "seconds" => 1_000_000_000,
            "m" | "min" | "minute" | "minutes" => 60_000_000_000,
            "h" | "hour" | "hours" => 3_600_000_000_000,
            "d" | "day" | "days" => 86_400_000_000_000,
            _ => return None,
        })
    };
    let (number, unit) = split_unit(text);
    let nanos = number.zip(scale_nanos(&unit)).and_then(|(number, scale): (u64, u64)| number.checked_mul(scale));
    nanos.map(Duration::from_nanos).ok_or_else(|| {
        Error::request(format!("'{text}' is not a duration"))
            .with_hint("such as '100 ms', '3 s', '1 min', '2 h', '1 d'")
    })
}

/// A size in bytes such as `512k`, `64 mb`, `2g`; a bare number is bytes.
///
/// ```
/// # use tidemill_core::settings::parse_bytes;
/// assert_eq!(parse_bytes("64 mb")?, 64 << 20);
/// # Ok::<(), tidemill_core::Error>(())
/// ```
pub fn parse_bytes(text: &str) -> Result<usize> {
    let scale = |unit: &str| {
        Some(match unit {
            "" | "b" | "bytes" => 1usize,
            "k" | "kb" | "kib" | "kibibytes" => 1 << 10,
            "m" | "mb" | "mib" | "mebibytes" => 1 << 20,
            "g" | "gb" | "gib" | "gibibytes" => 1 << 30,
            "t" | "tb" | "tib" | "tebibytes" => 1 << 40,
            _ => return None,
        })
    };
    let (number, unit) = split_unit(text);
    let bytes = number.zip(scale(&unit)).and_then(|(number, scale)| usize::try_from(number).ok()?.checked_mul(scale));
    bytes.ok_or_else(|| Error::request(format!("'{text}' is not a size")).with_hint("such as '512k', '64 mb', '2g'"))
}

fn split_unit(text: &str) -> (Option<u64>, String) {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    (text[..digits].parse().ok(), text[digits..].trim().to_lowercase())
}

/// The error for a value outside an enumeration.
pub(super) fn one_of(text: &str, known: &[&str]) -> Error {
    Error::request(format!("'{text}' is not a known value")).with_hint(format!("one of {}", known.join(", ")))
}
